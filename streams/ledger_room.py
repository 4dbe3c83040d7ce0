"""Room in the ledger: a larger index or ring, and records moved together when most of them are forgotten.

None of this shows in any look-up. Index words lie in the order of their hashes, records in that of settling, and both
are moved from front to back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.compiled import bare
from streams.errors import UnavailableError
from streams.ledger import (
    FIRST,
    HALF_MASK,
    KIND_BITS,
    KIND_MASK,
    MOST_RECORDS,
    NEXT,
    NO_RECORD,
    PLACES,
    RECORD_WORDS,
    RENEWED,
    RING,
    SERIAL_MASK,
    SETTLED,
    SMALLEST,
    START,
    UNTIL,
    USED,
    Ledger,
    drop_kernel,
    empty_ledger,
    home_kernel,
    is_crowded_kernel,
    record_kernel,
)

AS_THEY_ARE = np.empty(0, np.int64)  # instead of the places that records move to


def with_ledger_room(ledger: Ledger, clock_us: int, waiting: int, early: int) -> Ledger:
    """Give a ledger that knows the same, with room; so many events and early labels wait.

    Raises:
        UnavailableError: when more is remembered than a ledger can hold.
    """
    drop_all_kernel(ledger, clock_us)
    held = _held(ledger)
    if (held + waiting) * 8 > ledger.sizes[PLACES] * 7:
        ledger = _with_longer_ring(ledger, clock_us, waiting, early)
    if is_crowded_kernel(ledger):
        words, size = _words_for(held + waiting + early), ledger.words.size
        if size // 2 <= words <= size + size // 8:  # as many are forgotten as come: the index stays where it is
            sweep_index_kernel(ledger)
        else:
            ledger = _renewed(ledger, ledger, AS_THEY_ARE, waiting + early)
        if ledger.sizes[PLACES] > 4 * _places_for(held + waiting):
            ledger = _with_places(ledger, _places_for(held + waiting))
    return ledger


def load_ledger_kernels() -> None:
    """Do once, on an empty ledger, what making room may do."""
    ledger = empty_ledger()
    drop_all_kernel(ledger, 0)
    known_kernel(ledger, 0)
    gather_kernel(ledger, empty_ledger(), 0, np.empty(0, np.int64))
    sweep_index_kernel(ledger)
    _renewed(ledger, ledger, AS_THEY_ARE, 0)


def ledger_state(ledger: Ledger) -> dict[str, npt.NDArray[Any]]:
    """Give what a snapshot keeps."""
    held = _held(ledger)
    fresh = _empty_like(ledger, 1, max(1, held))
    _copy_in_order(ledger, fresh, held)
    state = {name: getattr(fresh, name)[:held] for name in RING}
    return state | {"words": ledger.words.copy(), "sizes": ledger.sizes.copy()}


def restored_ledger(state: Mapping[str, npt.NDArray[Any]], waiting: int) -> Ledger:
    """Give the ledger that `ledger_state` described, when so many events wait."""
    words, held = state["ledger.words"], state["ledger.halves"].size
    entities, features = state["ledger.others"].shape[1], state["ledger.vectors"].shape[1]
    fresh = empty_ledger(words.size, _places_for(held + waiting), entities, features)
    places = fresh.sizes[PLACES]
    fresh.words[:] = words
    for name in RING:
        getattr(fresh, name)[:held] = state[f"ledger.{name}"]
    fresh.sizes[:] = state["ledger.sizes"]
    fresh.sizes[[START, PLACES]] = 0, places
    return fresh


def restored_index(
    words: npt.NDArray[np.int64], ring: Mapping[str, npt.NDArray[Any]]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Give the index of these words, in whatever order they come, and the sizes of its ledger; half of it is empty."""
    held = ring["halves"].size
    ledger = empty_ledger(1, max(1, held))._replace(words=words)
    ledger.sizes[NEXT] = held
    indexed = _renewed(ledger, ledger, AS_THEY_ARE, words.size - held)
    return indexed.words, indexed.sizes


def _empty_like(ledger: Ledger, words: int, places: int) -> Ledger:
    return empty_ledger(words, places, ledger.others.shape[1], ledger.vectors.shape[1])


def _held(ledger: Ledger) -> int:
    return int(ledger.sizes[NEXT] - ledger.sizes[FIRST])


def _places_for(records: int) -> int:
    """Give the places of a ring that is to hold so many records, waiting ones among them."""
    if records >= MOST_RECORDS:
        raise UnavailableError(
            f"a partition cannot remember more than {MOST_RECORDS:,} events: use more partitions or a shorter `keep`"
        )
    return max(SMALLEST, records + records // 4)


def _words_for(names: int) -> int:
    """Give the words of an index that so many names fill by half."""
    return max(SMALLEST, 2 * names)


def _with_longer_ring(ledger: Ledger, clock_us: int, waiting: int, early: int) -> Ledger:
    """Give a ring with more places; in place where its arrays go on, without what is forgotten where that is most."""
    held, sizes = _held(ledger), ledger.sizes
    known = known_kernel(ledger, clock_us)
    if 2 * known < held:
        places = np.empty(held, np.int64)
        fresh = _empty_like(ledger, 1, _places_for(known + waiting))
        gather_kernel(ledger, fresh, clock_us, places)
        return _renewed(ledger, fresh, places, waiting + early)
    places_needed = _places_for(held + waiting)
    if sizes[START] + held <= sizes[PLACES] and places_needed <= ledger.halves.size:
        sizes[PLACES] = places_needed
        return ledger
    return _with_places(ledger, places_needed)


def _with_places(ledger: Ledger, places: int) -> Ledger:
    """Give the same ledger with its records at the front of another ring."""
    held = _held(ledger)
    fresh = _empty_like(ledger, 1, places)
    _copy_in_order(ledger, fresh, held)
    fresh.sizes[:] = ledger.sizes
    fresh.sizes[[START, PLACES]] = 0, places
    return fresh._replace(words=ledger.words)


def _copy_in_order(ledger: Ledger, fresh: Ledger, held: int) -> None:
    """Copy what the ring holds, oldest first, to the front of another."""
    start = int(ledger.sizes[START])
    first = min(held, int(ledger.sizes[PLACES]) - start)  # records before the ring's end; the others begin at its front
    for name in RING:
        target, array = getattr(fresh, name), getattr(ledger, name)
        target[:first] = array[start : start + first]
        target[first:held] = array[: held - first]


def _renewed(ledger: Ledger, fresh: Ledger, places: npt.NDArray[np.int64], waiting: int) -> Ledger:
    """Give the records of `fresh` an index half full, of the words of `ledger`; records have moved to `places`."""
    words = _words_for(_held(fresh) + waiting)
    renewed = fresh._replace(words=empty_ledger(words, 1).words, sizes=fresh.sizes.copy())
    copy_index_kernel(ledger, renewed, places)
    return renewed


@bare
def sweep_index_kernel(ledger: Ledger) -> None:
    """Take the words out whose records have left; the others move up, none before its home.

    It begins behind an empty word, which no look-up goes past, so what lies between a word's home and its place was
    moved before: every word there is final, and the first empty place the right one.
    """
    words, used, at = ledger.words, 0, 0
    while words[at] != 0:
        at += 1
    for _ in range(words.size):
        word = words[at]
        if word != 0:
            words[at] = 0
            if word & KIND_MASK != SETTLED or record_kernel(ledger, word) != NO_RECORD:
                place = home_kernel(ledger, word)
                while words[place] != 0:
                    place = place + 1 if place + 1 < words.size else 0
                words[place] = word
                used += 1
        at = at + 1 if at + 1 < words.size else 0
    ledger.sizes[USED] = used
    ledger.sizes[RENEWED] = ledger.sizes[NEXT]


@bare
def drop_all_kernel(ledger: Ledger, clock_us: int) -> None:
    """Let all records leave that are forgotten, up to the first that is not."""
    drop_kernel(ledger, clock_us, ledger.sizes[PLACES])


@bare
def known_kernel(ledger: Ledger, clock_us: int) -> int:
    """Count the records that are not forgotten."""
    known, sizes = 0, ledger.sizes
    place = sizes[START]
    for _ in range(sizes[FIRST], sizes[NEXT]):
        known += clock_us <= ledger.records[place, UNTIL]
        place = place + 1 if place + 1 < sizes[PLACES] else 0
    return known


@bare
def gather_kernel(ledger: Ledger, fresh: Ledger, clock_us: int, places: npt.NDArray[np.int64]) -> None:
    """Copy the records that are not forgotten to another ring; `places` says where they are there, or NO_RECORD."""
    end, sizes = 0, ledger.sizes
    place = sizes[START]
    for record in range(places.size):
        places[record] = NO_RECORD
        if clock_us <= ledger.records[place, UNTIL]:
            places[record] = end
            fresh.halves[end] = ledger.halves[place]
            fresh.homes[end] = ledger.homes[place]
            for word in range(RECORD_WORDS):
                fresh.records[end, word] = ledger.records[place, word]
            for other in range(ledger.others.shape[1]):
                fresh.others[end, other] = ledger.others[place, other]
            for feature in range(ledger.vectors.shape[1]):
                fresh.vectors[end, feature] = ledger.vectors[place, feature]
            end += 1
        place = place + 1 if place + 1 < sizes[PLACES] else 0
    fresh.sizes[NEXT] = end


@bare
def copy_index_kernel(ledger: Ledger, fresh: Ledger, places: npt.NDArray[np.int64]) -> None:
    """Enter all words into another index but those whose records have left."""
    used = 0
    for old in range(ledger.words.size):
        word = ledger.words[old]
        if word == 0:
            continue
        if word & KIND_MASK == SETTLED:
            if record_kernel(ledger, word) == NO_RECORD:
                continue
            if places.size > 0:
                moved = places[((word >> KIND_BITS) - ledger.sizes[FIRST]) & SERIAL_MASK]
                if moved == NO_RECORD:
                    continue
                word = (word & ~HALF_MASK) | (moved << KIND_BITS) | SETTLED
        place = home_kernel(fresh, word)
        while fresh.words[place] != 0:
            place = place + 1 if place + 1 < fresh.words.size else 0
        fresh.words[place] = word
        used += 1
    fresh.sizes[USED] = used
    fresh.sizes[RENEWED] = fresh.sizes[NEXT]
