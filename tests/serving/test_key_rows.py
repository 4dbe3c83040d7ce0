"""Key rows: the newest of each key, and the calls that carry them to Redis."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.connection import Connection

from serving.key_rows import KeyRows, newest
from serving.key_script import DIGEST, KEYS_A_CALL, form_of, key_prefix, render_calls
from streams.event_numbers import MANY
from streams.records import pack
from tests.key_rows import Said, expected, key_rows, spelled

COLUMNS = ("amount", "shop")
SAID = st.builds(
    Said, st.text(max_size=40), st.integers(0, 20), st.integers(0, 2), st.integers(-(2**62), 2**62)
)  # fmt: skip


# The newest of each key


@given(st.lists(st.lists(SAID, min_size=1, max_size=12), min_size=1, max_size=4))
def test_the_newest_row_of_each_key_is_kept_in_order(parts: list[list[Said]]) -> None:
    """As a dictionary does it; of equal names the later row, which was answered once more."""
    held: dict[str, tuple[int, Said]] = {}
    for place, row in enumerate(row for part in parts for row in part):
        older = held.get(row.key)
        if row.key and (older is None or row[2:0:-1] >= older[1][2:0:-1]):
            held[row.key] = (place, row)
    kept = [row for _, row in sorted(held.values())]

    found = newest([key_rows(*part) for part in parts])

    assert spelled(found) == expected(kept)
    assert found.times.tolist() == [row.time_us for row in kept]


def test_a_part_of_rows_is_those_rows() -> None:
    """Also joined with others, and of a part of a part."""
    rows = key_rows(*((f"k{i}", i) for i in range(10)))
    part = rows.part(2, 9).part(1, 4)

    assert spelled(newest([part, rows.part(8, 10)])) == expected([(f"k{i}", i) for i in (3, 4, 5, 8, 9)])
    assert (part.size, part.size_bytes) == (3, key_rows(*((f"k{i}", i) for i in (3, 4, 5))).size_bytes)


def test_many_keys_that_differ_little_are_told_apart() -> None:
    """None is lost, none is doubled."""
    said = [(f"key-{i % 5_000}", i) for i in range(12_000)]

    assert spelled(newest([key_rows(*said[:7_000]), key_rows(*said[7_000:])])) == expected(said[7_000:])


# Calls


def packed_by_the_client(rows: list[Said], vectors: list[list[float]]) -> bytes:
    """What redis-py itself sends for the same calls."""
    client: Any = Connection  # its types leave it out
    calls: list[bytes] = []
    for start in range(0, len(rows), KEYS_A_CALL):
        chunk = rows[start : start + KEYS_A_CALL]
        arguments: list[bytes | str | int] = [
            "EVALSHA",
            DIGEST,
            len(chunk),
            *(f"p:key:{row.key}" for row in chunk),
            60_000,
            "t1",
        ]
        for row, vector in zip(chunk, vectors[start:], strict=False):
            features = dict(zip(COLUMNS, vector, strict=True))
            arguments += [row.generation, row.number, row.time_us, row.answer, msgspec.json.encode(features)]
        calls += client().pack_command(*arguments)
    return b"".join(calls)


@given(
    st.lists(st.tuples(SAID, st.lists(st.floats(), min_size=2, max_size=2)), min_size=1, max_size=5),
    st.integers(0, 999_999_999_999),
)
def test_calls_are_the_bytes_that_the_client_would_send(made: list[tuple[Said, list[float]]], number: int) -> None:
    """Arguments, sizes and JSON: redis-py and msgspec give the same."""
    said, vectors = [row._replace(number=number) for row, _ in made], [vector for _, vector in made]
    rows = key_rows(*said)._replace(vectors_BF=np.array(vectors))

    calls, count = render_calls(rows, form_of("p", COLUMNS, 60_000, "t1"))

    assert (bytes(calls), count) == (packed_by_the_client(said, vectors), 1)


@pytest.mark.parametrize("rows", [1, KEYS_A_CALL, KEYS_A_CALL + 1, 3 * KEYS_A_CALL - 1])
def test_a_call_takes_up_to_64_keys(rows: int) -> None:
    """The last one takes the rest."""
    said = [Said(f"k{i}", i) for i in range(rows)]

    calls, count = render_calls(key_rows(*said), form_of("p", COLUMNS, 60_000, "t1"))

    assert bytes(calls) == packed_by_the_client(said, [row.vector for row in said])
    assert count == math.ceil(rows / KEYS_A_CALL)


def test_long_keys_and_answers_have_room() -> None:
    """Beside the longest numbers there are."""
    said = [Said("k" * 65_536, 999_999_999_999, 9_000_000, -(2**62))] * 2
    vectors = [[-2.2250738585072014e-308, -1.7976931348623157e308]] * 2
    rows = key_rows(*said)._replace(answers=pack([said[0].answer] * 2), vectors_BF=np.array(vectors))

    assert bytes(render_calls(rows, form_of("p", COLUMNS, 60_000, "t1"))[0]) == packed_by_the_client(said, vectors)


def test_without_features_there_is_an_empty_object() -> None:
    """It is JSON still."""
    rows = KeyRows(pack([b"k"]), pack([b"{}"]), np.array([MANY + 1]), np.array([5]), np.zeros((1, 0)))

    calls, _ = render_calls(rows, form_of("p", (), 60_000, "t1"))

    assert json.loads(bytes(calls).split(b"\r\n")[-2]) == {}
    assert key_prefix("p") == "p:key:"
