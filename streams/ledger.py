"""The ledger: what is known of each event, by the 64-bit hash of its id and key.

An *index* of 8-byte words, found by the upper half of the hash, says where more is known: at a slot of the pending
rows (pending.py), at a slot of the early labels (early.py), or in a *record* of what was settled. Records lie in a
ring in the order of settling, so they are written side by side, and forgotten side by side at the ring's other end.

A settled event is remembered until `clock` passes its settle time + keep. What is forgotten counts as absent from
then on, whenever its record leaves; so what a look-up finds depends on the log alone. The word of a record that has
left stays behind until the index is renewed; it matches nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streams.compiled import inlined
from streams.hashing import KEYLESS_HOME
from streams.inputs import NO_KEY
from streams.memory import zeros

# What is known. The first three are kinds of an index word too, in its two lowest bits; there, 3 is any settled event.
# The 30 bits above them are a slot, or the serial number of a record; the upper half is that of the hash.
EMPTY, PENDING, EARLY, SETTLED_SET, SETTLED_MISSING, SETTLED_RETRACTED = 0, 1, 2, 3, 4, 5
SETTLED = 3
KIND_BITS, HALF_BITS = 2, 32
KIND_MASK, SERIAL_MASK, HALF_MASK = (1 << 2) - 1, (1 << 30) - 1, (1 << 32) - 1
MOST_RECORDS = 1 << 28  # more, and a word that stayed behind could match a record that was added long after
NO_RECORD = -1
RING = (
    "records",
    "halves",
    "homes",
    "others",
    "vectors",
)  # the arrays of a ledger that lie in the ring, record by record

HOW, VALUE, UNTIL = 0, 1, 2  # words of a record: number and kind, label, the last time at which it is known
RECORD_WORDS = 3
# Sizes: index words that are not empty, serial numbers of the first record and of the next, the place of the first,
# places of the ring, and what the next serial number was when the index was renewed.
USED, FIRST, NEXT, START, PLACES, RENEWED = 0, 1, 2, 3, 4, 5
SMALLEST = 1_024  # words of the index, and places of the ring
SPARE = 4  # times as many places may be used before the records have to move


class Ledger(NamedTuple):
    """The index and the ring. Integers and floats are two views of the same words."""

    words: npt.NDArray[np.int64]  # the index
    records: npt.NDArray[np.int64]  # [at least PLACES, RECORD_WORDS]
    values: npt.NDArray[np.float64]
    halves: npt.NDArray[np.uint32]  # the lower half of each record's hash
    homes: npt.NDArray[np.uint32]  # the upper half of the hash of its key: where it goes when partitions are parted
    others: npt.NDArray[np.int64]  # [as many, E] hashes of the event's other entities, where there is a chain of stages
    vectors: npt.NDArray[np.float64]  # [as many, F] the event's features, where amended labels are learned once more
    sizes: npt.NDArray[np.int64]


def empty_ledger(words: int = SMALLEST, places: int = SMALLEST, entities: int = 0, features: int = 0) -> Ledger:
    """Give a ledger that knows nothing; its arrays go on beyond the places, which costs nothing until they are used.

    With each record it keeps the hashes of so many entities and a vector of so many features.
    """
    records = zeros((SPARE * places, RECORD_WORDS), np.int64)
    sizes = np.array([0, 0, 0, 0, places, 0], np.int64)
    halves, homes = zeros((SPARE * places,), np.uint32), zeros((SPARE * places,), np.uint32)
    others = zeros((SPARE * places, entities), np.int64)
    vectors = zeros((SPARE * places, features), np.float64)
    return Ledger(zeros((words,), np.int64), records, records.view(np.float64), halves, homes, others, vectors, sizes)


@inlined
def lacks_room_kernel(ledger: Ledger, waiting: int) -> bool:
    """Whether it wants room before the next row, after which all `waiting` events may be settled at once."""
    return is_crowded_kernel(ledger) or is_short_kernel(ledger, waiting)


@inlined
def is_crowded_kernel(ledger: Ledger) -> bool:
    """Whether the index wants to be renewed before the next word."""
    sizes = ledger.sizes
    return bool(sizes[USED] * 4 >= ledger.words.size * 3 or sizes[NEXT] - sizes[RENEWED] >= MOST_RECORDS)


@inlined
def is_short_kernel(ledger: Ledger, waiting: int) -> bool:
    """Whether the ring lacks room for a record of every waiting event and one more."""
    sizes = ledger.sizes
    return bool(sizes[NEXT] - sizes[FIRST] + waiting >= sizes[PLACES])


@inlined
def home_kernel(ledger: Ledger, name: int) -> int:
    """Give the first place where a hash may stand: its upper half as a fraction of the index."""
    place: int = (((name >> HALF_BITS) & HALF_MASK) * ledger.words.size) >> HALF_BITS
    return place


@inlined
def find_kernel(
    ledger: Ledger, pending_names: npt.NDArray[np.int64], early_names: npt.NDArray[np.int64], name: int
) -> int:
    """Give the place of a hash's word, or of the empty word where it belongs."""
    place = home_kernel(ledger, name)
    while ledger.words[place] != 0:
        word = ledger.words[place]
        if (word ^ name) >> HALF_BITS == 0:
            kind, slot = word & KIND_MASK, slot_kernel(word)
            if kind == SETTLED:
                record = record_kernel(ledger, word)
                if record != NO_RECORD and ledger.halves[record] == name & HALF_MASK:
                    return place
            elif (pending_names[slot] if kind == PENDING else early_names[slot]) == name:
                return place
        place += 1
        if place == ledger.words.size:
            place = 0
    return place


@inlined
def guess_kernel(ledger: Ledger, name: int) -> int:
    """Give the first word with a hash's upper half, or an empty one."""
    place = home_kernel(ledger, name)
    while ledger.words[place] != 0 and (ledger.words[place] ^ name) >> HALF_BITS != 0:
        place += 1
        if place == ledger.words.size:
            place = 0
    word: int = ledger.words[place]
    return word


@inlined
def slot_kernel(word: int) -> int:
    """Give the slot of a word that is PENDING or EARLY."""
    slot: int = (word >> KIND_BITS) & SERIAL_MASK
    return slot


@inlined
def record_kernel(ledger: Ledger, word: int) -> int:
    """Give the ring's place of a settled word's record, NO_RECORD if it has left."""
    sizes = ledger.sizes
    behind = ((word >> KIND_BITS) - sizes[FIRST]) & SERIAL_MASK
    if behind >= sizes[NEXT] - sizes[FIRST]:
        return NO_RECORD
    place: int = sizes[START] + behind
    return place if place < sizes[PLACES] else place - sizes[PLACES]


@inlined
def kind_kernel(ledger: Ledger, word: int, clock_us: int) -> int:
    """What a word says: PENDING, EARLY, SETTLED_… or EMPTY; what was forgotten is not known."""
    kind: int = word & KIND_MASK
    if kind != SETTLED:
        return kind
    record = record_kernel(ledger, word)
    if record == NO_RECORD or clock_us > ledger.records[record, UNTIL]:
        return EMPTY
    kind += ledger.records[record, HOW] & KIND_MASK
    return kind


@inlined
def number_kernel(ledger: Ledger, record: int) -> int:
    """Give the number of a settled event."""
    number: int = ledger.records[record, HOW] >> KIND_BITS
    return number


@inlined
def wait_kernel(ledger: Ledger, place: int, name: int, kind: int, slot: int) -> None:
    """Say at the place that `find_kernel` gave that an event or early label waits in a slot."""
    ledger.sizes[USED] += ledger.words[place] == 0
    ledger.words[place] = (name & ~HALF_MASK) | (slot << KIND_BITS) | kind


@inlined
def forget_kernel(ledger: Ledger, place: int) -> None:
    """Let a word match nothing: it names the record before the first."""
    gone = (ledger.sizes[FIRST] - 1) & SERIAL_MASK
    ledger.words[place] = (ledger.words[place] & ~HALF_MASK) | (gone << KIND_BITS) | SETTLED


@inlined
def settle_kernel(
    ledger: Ledger, place: int, name: int, key: int, kind: int, number: int, value: float, until_us: int
) -> None:
    """Add the record of an event that has a word at a place; `key` is its key's hash."""
    sizes = ledger.sizes
    serial = sizes[NEXT]
    sizes[NEXT] = serial + 1
    ledger.words[place] = (name & ~HALF_MASK) | ((serial & SERIAL_MASK) << KIND_BITS) | SETTLED
    record = record_kernel(ledger, ledger.words[place])
    ledger.halves[record] = name & HALF_MASK
    ledger.homes[record] = KEYLESS_HOME if key == NO_KEY else (key >> HALF_BITS) & HALF_MASK
    ledger.records[record, UNTIL] = until_us
    amend_kernel(ledger, record, kind, number, value)


@inlined
def amend_kernel(ledger: Ledger, record: int, kind: int, number: int, value: float) -> None:
    """Write what is known of a settled event."""
    ledger.records[record, HOW] = (number << KIND_BITS) | (kind - SETTLED)
    ledger.values[record, VALUE] = value


@inlined
def drop_kernel(ledger: Ledger, clock_us: int, most: int) -> None:
    """Let the oldest records leave that are forgotten, at most so many."""
    sizes = ledger.sizes
    last = min(sizes[NEXT], sizes[FIRST] + most)
    while sizes[FIRST] < last and clock_us > ledger.records[sizes[START], UNTIL]:
        sizes[FIRST] += 1
        sizes[START] = sizes[START] + 1 if sizes[START] + 1 < sizes[PLACES] else 0
