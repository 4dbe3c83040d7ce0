"""Many JSON records as one list."""

from __future__ import annotations

import doctest
import json
import random

from streams import json_lists
from streams.json_lists import json_list
from streams.records import HeldRecords, Record


def held(values: list[bytes | None]) -> HeldRecords:
    return HeldRecords("t", 0, [Record(value, at, 0) for at, value in enumerate(values)])


def test_a_list_has_every_record_as_it_is() -> None:
    """Whatever its size, and whatever lies behind it in memory."""
    chance = random.Random(0)
    for _ in range(50):
        values = [{"n": at, "text": 'ä",' * chance.randint(0, 9)} for at in range(chance.randint(0, 40))]
        records = held([json.dumps(value, ensure_ascii=chance.random() < 0.5).encode() for value in values])

        assert json.loads(json_list(records).tobytes()) == values


def test_records_without_a_value_leave_a_gap_or_a_shorter_list() -> None:
    """So a reader that decodes and counts finds out."""
    assert json_list(held([b"1", None, b"", b"2"])).tobytes() == b"[1,,,2]"
    assert json_list(held([None, b"1"])).tobytes() == b"[1]"
    assert json_list(held([])).tobytes() == b"[]"


def test_examples_in_the_docstrings_run() -> None:
    assert doctest.testmod(json_lists).attempted > 0
    assert doctest.testmod(json_lists).failed == 0
