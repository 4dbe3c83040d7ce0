"""The ledger's table: what is known of each event, by the 64-bit hash of its id and key.

Open addressing with linear probing in one array of 32-byte entries, in the order of their hashes. Nothing is ever
deleted in place: an entry that is forgotten counts as absent, and a table three quarters full is rebuilt with the
entries still known. So what a look-up finds depends on the log alone, never on when the table was rebuilt.

A settled event is remembered until `clock` passes its settle time + keep.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streams.compiled import bare, inlined
from streams.memory import zeros

HASH, STATE, VALUE, TIME = 0, 1, 2, 3  # words of an entry
# STATE is kind + (slot of a pending event or early label, or number of a settled event) << STATE_BITS.
# VALUE is the label; TIME the early label's time, or when the settled event is forgotten.
EMPTY, PENDING, EARLY, SETTLED_SET, SETTLED_MISSING, SETTLED_RETRACTED, FORGOTTEN = 0, 1, 2, 3, 4, 5, 6
STATE_BITS = 3
STATE_MASK = (1 << STATE_BITS) - 1
SMALLEST = 1_024  # entries
HASH_BITS = 32  # of the hash that give an entry its place
ENTRY_WORDS = 4


class Ledger(NamedTuple):
    """The table. Integers and floats are two views of the same words."""

    entries: npt.NDArray[np.int64]  # [capacity, ENTRY_WORDS]
    values: npt.NDArray[np.float64]
    used: npt.NDArray[np.int64]  # [1] entries that are not empty


def empty_ledger(capacity: int = SMALLEST) -> Ledger:
    """Give a table without entries."""
    entries = zeros((capacity, ENTRY_WORDS), np.int64)
    return Ledger(entries, entries.view(np.float64), np.zeros(1, np.int64))


def rebuilt(ledger: Ledger, clock_us: int) -> Ledger:
    """Give a table of the entries that are still known, at most two fifths full."""
    fresh = empty_ledger(max(SMALLEST, known_kernel(ledger, clock_us) * 5 // 2))
    copy_kernel(ledger, fresh, clock_us)
    return fresh


@inlined
def is_crowded_kernel(ledger: Ledger) -> bool:
    """Whether the table wants to be rebuilt before the next entry."""
    return bool(ledger.used[0] * 4 >= ledger.entries.shape[0] * 3)


@inlined
def home_kernel(ledger: Ledger, name: int) -> int:
    """Give the first place where a hash may stand: its upper bits as a fraction of the table."""
    place: int = (((name >> HASH_BITS) & ((1 << HASH_BITS) - 1)) * ledger.entries.shape[0]) >> HASH_BITS
    return place


@inlined
def find_kernel(ledger: Ledger, name: int) -> int:
    """Give the place of an entry, or of the empty place where it belongs."""
    place = home_kernel(ledger, name)
    while ledger.entries[place, STATE] != EMPTY and ledger.entries[place, HASH] != name:
        place += 1
        if place == ledger.entries.shape[0]:
            place = 0
    return place


@inlined
def kind_kernel(ledger: Ledger, place: int, clock_us: int) -> int:
    """What is known at a place: PENDING, EARLY, SETTLED_… or EMPTY; what was forgotten is not known."""
    kind: int = ledger.entries[place, STATE] & STATE_MASK
    if kind == FORGOTTEN or (kind >= SETTLED_SET and clock_us > ledger.entries[place, TIME]):
        return EMPTY
    return kind


@inlined
def put_kernel(ledger: Ledger, place: int, name: int, kind: int, at: int, value: float, time_us: int) -> None:
    """Write an entry at the place that `find_kernel` gave for it."""
    ledger.used[0] += ledger.entries[place, STATE] == EMPTY
    ledger.entries[place, HASH] = name
    ledger.entries[place, STATE] = (at << STATE_BITS) | kind
    ledger.values[place, VALUE] = value
    ledger.entries[place, TIME] = time_us


@bare
def known_kernel(ledger: Ledger, clock_us: int) -> int:
    """Count the entries that are not forgotten."""
    known = 0
    for place in range(ledger.entries.shape[0]):
        known += kind_kernel(ledger, place, clock_us) != EMPTY
    return known


@bare
def copy_kernel(ledger: Ledger, fresh: Ledger, clock_us: int) -> None:
    """Enter all that is still known into another table."""
    for place in range(ledger.entries.shape[0]):
        if kind_kernel(ledger, place, clock_us) != EMPTY:
            to = find_kernel(fresh, ledger.entries[place, HASH])
            for word in range(ENTRY_WORDS):
                fresh.entries[to, word] = ledger.entries[place, word]
            fresh.used[0] += 1
