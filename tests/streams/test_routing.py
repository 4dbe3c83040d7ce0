"""Hashes of entities and the partitions they mean: golden values, since rows of every release must meet."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from streams.building import Builder
from streams.decoding import texts
from streams.frames import EVENT, LABEL, MARK
from streams.hashing import ENTITY_SEED
from streams.inputs import NO_KEY, hash_entities
from streams.layouts import Layout
from streams.routing import NOWHERE, part, place_by_entity, place_by_key, place_rows

ORIGIN, ROUTE, EMPTY = 0x6C687E26133CA12A, 0xEA7D84E7A80276F4, 0xD5AFBA1336A3BE4B


def unsigned(*fields: list[str | None]) -> list[int]:
    """The hashes of entities whose fields have these texts."""
    return hash_entities([texts(field) for field in fields]).view(np.uint64).tolist()  # type: ignore[no-any-return]


def test_golden_hashes() -> None:
    """One field, two fields, the empty text; a missing text is no entity."""
    assert unsigned(["JFK", "", None]) == [ORIGIN, EMPTY, NO_KEY]
    assert unsigned(["JFK", "JFK", None], ["LAX", None, "LAX"]) == [ROUTE, NO_KEY, NO_KEY]


def test_golden_partitions() -> None:
    """Of the upper half of the hash; without an entity of the key, as in the log."""
    hashes, keys = np.array([ORIGIN, ROUTE, EMPTY, NO_KEY], np.uint64).view(np.int64), texts(["N1"] * 4)

    assert place_by_entity(hashes, keys, 7).tolist() == [4, 4, 3, 0]
    assert place_by_entity(hashes, keys, 5).tolist() == [0x6C687E26 % 5, 0xEA7D84E7 % 5, 0xD5AFBA13 % 5, 2]
    assert place_by_key(texts(["N1", None]), 7).tolist() == [0, 0xD5AFBA13 % 7]


FIELD = st.lists(st.none() | st.text(max_size=40), min_size=8, max_size=8)
LAYOUT = Layout(pa.schema([("kind", pa.int8()), ("key", pa.string())]))
KINDS = st.lists(st.sampled_from([EVENT, LABEL, MARK]), min_size=8, max_size=8)
PARTITIONS = st.integers(1, 1_000)


@given(fields=st.lists(FIELD, min_size=1, max_size=3), partitions=PARTITIONS)
def test_hashes_and_partitions_follow_the_published_algorithm(fields: list[list[str | None]], partitions: int) -> None:
    """XXH64 of each text, seeded with the hash of those before it."""
    expected = []
    for row in zip(*fields, strict=True):
        hashed = ENTITY_SEED
        for text in row:
            hashed = xxhash.xxh64_intdigest(text.encode(), hashed) if hashed and text is not None else NO_KEY
        expected.append(hashed)
    places = [
        (hashed >> 32 if hashed else xxhash.xxh64_intdigest((key or "").encode(), ENTITY_SEED) >> 32) % partitions
        for hashed, key in zip(expected, fields[0], strict=True)
    ]

    assert unsigned(*fields) == expected
    found = place_by_entity(hash_entities([texts(field) for field in fields]), texts(fields[0]), partitions)
    assert found.tolist() == places


@given(names=FIELD, kinds=KINDS, partitions=PARTITIONS)
def test_raw_rows_go_by_their_name_and_marks_nowhere(
    names: list[str | None], kinds: list[int], partitions: int
) -> None:
    """As later stages find the key."""
    places = place_by_key(texts(names), partitions).tolist()

    rows = Builder(LAYOUT, {}).build({"kind": np.array(kinds, np.int8), "key": texts(names)}, len(kinds))
    found = place_rows(rows, "key", partitions)

    expected = [NOWHERE if kind == MARK else place for kind, place in zip(kinds, places, strict=True)]
    assert found.tolist() == expected


@given(batches=st.lists(st.lists(st.integers(NOWHERE, 4), max_size=30), max_size=4))
def test_rows_are_parted_in_order_and_numbered_without_gaps(batches: list[list[int]]) -> None:
    """However they are cut into batches; rows that go nowhere have no number."""
    sequences, numbers = np.zeros(5, np.int64), [0] * 5

    for targets in batches:
        sequence_B = np.full(len(targets), -7)
        parts = part(np.array(targets, np.int64), sequences, sequence_B)

        expected = {to: [row for row, target in enumerate(targets) if target == to] for to in range(5)}
        assert [(to, rows.tolist()) for to, rows in parts] == [(to, rows) for to, rows in expected.items() if rows]
        for to, rows in expected.items():
            assert sequence_B[rows].tolist() == list(range(numbers[to], numbers[to] + len(rows)))
            numbers[to] += len(rows)
        assert (sequence_B == -7).sum() == targets.count(NOWHERE)
    assert sequences.tolist() == numbers
