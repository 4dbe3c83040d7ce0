"""Ingest: what is refused and why, publishers' marks, dead letters, and that nothing stops it."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.dead_letters import KEPT_BYTES, KEPT_KEY_BYTES, dead_letter
from streams import frames
from streams.decoding import Bad
from streams.frames import EVENT, MARK
from streams.pipeline import Task
from tests.memory_kafka import Record, held
from tests.records import (
    ABSENT,
    EVENT_RECORD,
    LABEL_RECORD,
    NOW_MS,
    NOW_US,
    Desk,
    both_desk,
    event,
    events_desk,
    label,
    labels_desk,
)
from tests.rows import pipeline

# Bad records


BAD_EVENTS: list[tuple[Any, str]] = [
    (event(id=ABSENT), "invalid"),
    (event(id=None), "invalid"),
    (event(key=ABSENT), "invalid"),
    (event(key=None), "invalid"),
    (event(at=ABSENT), "invalid"),
    (event(at=None), "invalid"),
    (event(id=""), "empty_text"),
    (event(key=""), "empty_text"),
    (event(id=1.5), "invalid"),
    (event(id=True), "invalid"),
    (event(key=["k"]), "invalid"),
    (event(at="2013-01-01T00:00:00Z"), "invalid"),
    (event(at=True), "invalid"),
    (event(at=10**18), "bad_time"),
    (event(at=10**400), "bad_time"),
    (event(at=1e300), "bad_time"),
    (event(amount="5"), "invalid"),
    (event(amount=True), "invalid"),
    (event(amount=[1]), "invalid"),
    (event(shop=1.5), "invalid"),
    (event(shop={"a": 1}), "invalid"),
    (event(is_new=1), "invalid"),
    (event(is_new="true"), "invalid"),
    (event(route=7), "invalid"),
    (event(route={"miles": "7"}), "invalid"),
    (b'{"id":"e","key":"k","at":1,"amount":1e999}', "invalid"),
    (b'{"id":"e","key":"k","at":1,"amount":-1e999}', "invalid"),
    (b'{"id":"e","key":"k","at":1e999}', "invalid"),
    (b'{"id":"e","key":"k","at":1,"amount":NaN}', "malformed"),
    (b'{"id":"e","key":"k","at":1,"amount":Infinity}', "malformed"),
    (b'{"id":"e","key":"k","at":1,"shop":1' + b"0" * 5_000 + b"}", "invalid"),
    (b'{"id":"e\xff","key":"k","at":1}', "malformed"),
    (b'{"id":"\\ud800","key":"k","at":1}', "malformed"),
    (b'{"id":"\\udc00x","key":"k","at":1}', "malformed"),
    (b'{"id":"\\ud800\\u0041","key":"k","at":1}', "malformed"),
    (b"", "malformed"),
    (b"not json", "malformed"),
    (b'{"id":"e"', "malformed"),
    (b'{"id":"e","key":"k","at":1} x', "malformed"),
    (b"\xef\xbb\xbf{}", "malformed"),
    (b"[]", "invalid"),
    (b"null", "invalid"),
    (b'"text"', "invalid"),
    (b'{"id":"e","key":"k","at":1,"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}", "too_deep"),
    (b'{"id":"e","key":"k","at":1,"x":' + b'{"a":' * 9_000 + b"1" + b"}" * 9_000 + b"}", "too_deep"),
    (b"[" * 60_000, "invalid"),
    (event(other="x" * 70_000), "too_large"),
    (event(id="x" * 1_025), "text_too_long"),
    (event(key="é" * 513), "text_too_long"),
    (event(shop="x" * 1_025), "text_too_long"),
    (event(at=NOW_US + 300_000_001), "future"),
    (None, "empty"),
]


@pytest.mark.parametrize("place", range(len(BAD_EVENTS)))
def test_a_bad_event_is_a_dead_letter_and_its_neighbours_are_taken(place: int) -> None:
    """Nothing stops, nothing is lost in silence: one reason each, and the account holds."""
    record, error = BAD_EVENTS[place]
    desk = events_desk()

    rows = desk.take(event(id="before"), record, event(id="after"))

    assert desk.errors == [error]
    assert [row["id"] for row in rows] == ["before", "after"]
    assert [row["sequence"] for row in rows] == [10, 12]


BAD_LABELS: list[tuple[Any, str]] = [
    (label(y=ABSENT), "invalid"),
    (label(y="1"), "invalid"),
    (label(y=2), "bad_label"),
    (label(y=0.5), "bad_label"),
    (label(y=-1), "bad_label"),
    (label(y=10**30), "bad_label"),
    (label(id=ABSENT), "invalid"),
    (label(key=None), "invalid"),
    (label(at=ABSENT), "invalid"),
    (label(at=NOW_US + 300_000_001), "future"),
]


@pytest.mark.parametrize("place", range(len(BAD_LABELS)))
def test_a_bad_label_is_a_dead_letter(place: int) -> None:
    """As with events."""
    record, error = BAD_LABELS[place]
    desk = labels_desk()

    assert [row["sequence"] for row in desk.take(record, LABEL_RECORD)] == [11]
    assert desk.errors == [error]


@pytest.mark.parametrize(
    ("task", "good", "expected", "bad"),
    [
        (
            Task("regression"),
            [2, -0.5, 1e30, 12345678901234567890, None],
            [2.0, -0.5, 1e30, 12345678901234567890.0, None],
            {"bad_label": [1.1e30, -1e200], "invalid": ["2", True, ABSENT, [1]]},
        ),
        (
            Task("multiclass", ("hat", "7", "true")),
            ["hat", 7, "7", "true", None],
            [0.0, 1.0, 1.0, 2.0, None],
            {"bad_label": ["shirt", 8, ""], "invalid": [True, 7.0, ABSENT]},
        ),
    ],
)
def test_a_label_of_another_task_is_a_number_or_the_place_of_its_class(
    task: Task, good: list[Any], expected: list[float | None], bad: dict[str, list[Any]]
) -> None:
    """A null retracts it; what is none of the task's is a dead letter."""
    desk = Desk(pipeline(task=task), "labels", ("labels",))

    rows = desk.take(*(label(y=value) for value in good))
    assert [None if math.isnan(row["label"]) else row["label"] for row in rows] == expected
    for error, values in bad.items():
        for value in values:
            assert desk.take(label(y=value)) == []
        assert desk.errors[-len(values) :] == [error] * len(values)


@pytest.mark.parametrize("text", ["", "x", "2013-13-01T00:00:00Z", "2013-01-01"])
def test_a_time_that_is_none_is_a_dead_letter(text: str) -> None:
    """With a reason of its own."""
    desk = events_desk(time_unit="rfc3339")

    assert desk.take(event(at=text)) == []
    assert desk.errors == ["bad_time"]


def test_limits_are_what_is_still_allowed() -> None:
    """Exactly at the limit of size, text and future a record is good."""
    desk = events_desk()
    payload = json.dumps(event(other="")).encode()
    payload = payload.replace(b'"other": ""', b'"other": "' + b"x" * (65_536 - len(payload)) + b'"')

    rows = desk.take(payload, event(id="x" * 1_024), event(shop="x" * 1_024), event(at=NOW_US + 300_000_000))

    assert len(payload) == 65_536
    assert (len(rows), desk.errors) == (4, [])


names = st.sampled_from([*EVENT_RECORD, "y"])


@given(st.binary(max_size=60) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=6),
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_no_record_stops_ingest(payload: bytes) -> None:
    """Whatever it is, it is taken or dead, on both paths."""
    for desk in (events_desk(), labels_desk(), both_desk()):
        desk.take(payload, payload)


# Marks


def test_a_publishers_mark_raises_the_mark_when_taken() -> None:
    """A record without value: it stands behind the rows before it, and `end` says that nothing more comes."""
    desk = events_desk()
    decoded = desk.inlet.decode(held([desk.message(event(at=5)), desk.mark(b"9"), desk.mark(b"end")]))

    marks = []
    for place in range(3):
        desk.inlet.admit(decoded.rows.slice(place, 1))
        marks.append(desk.inlet.mark())

    assert decoded.rows.numbers("kind").tolist() == [EVENT, MARK, MARK]
    assert marks == [5, 9, frames.END]
    assert desk.inlet.taken == 3


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"", "invalid"), (b"x", "invalid"), (b"--5", "invalid"), (b"1.5", "invalid"), (b" 5", "invalid"),
        (b"5-", "invalid"), (b"9" * 19, "invalid"), (b"9" * 5_000, "invalid"), (b"END", "invalid"),
        (b"\xff", "invalid"),
        (str(NOW_US + 300_000_001).encode(), "future"), (None, "empty"),
    ],
)  # fmt: skip
def test_a_bad_mark_is_a_dead_letter(text: bytes | None, error: str) -> None:
    """Also one from the future, which would settle labels that can still come (PROTOCOL 13)."""
    desk = events_desk()

    assert desk.take(desk.mark(text), EVENT_RECORD)[0]["kind"] == EVENT
    assert desk.errors == [error]


def test_a_mark_may_lie_before_1970() -> None:
    """Times are signed."""
    assert events_desk().take(events_desk().mark(b"-5"))[0]["time"] == -5


def test_a_tombstone_is_a_dead_letter() -> None:
    """A record without value and without the header is nobody's mark."""
    desk = events_desk()
    headers = [("other", b"1")]

    assert desk.take(desk.message(None), desk.message(None, headers=headers), EVENT_RECORD)[0]["sequence"] == 12
    assert desk.errors == ["empty", "empty"]


def test_dead_records_raise_no_mark() -> None:
    """Neither what was taken of the partition nor what idle time is reckoned from (PROTOCOL 13)."""
    desk = events_desk()
    decoded = desk.inlet.decode(held([desk.message(event(at=5)), desk.message(event(at=NOW_US + 10**9))]))
    desk.inlet.admit(decoded.rows)

    assert (desk.inlet.mark(), desk.inlet.largest_time, desk.inlet.largest_stamp) == (5, 5, NOW_US)


def test_a_mark_never_falls() -> None:
    """It is a maximum: old rows and smaller idle marks leave it."""
    desk = events_desk()
    desk.inlet.admit(desk.inlet.decode(held([desk.message(event(at=9))])).rows)
    desk.inlet.admit(desk.inlet.decode(held([desk.message(event(at=5))])).rows)
    desk.inlet.raise_mark(7)
    before = desk.inlet.mark()
    desk.inlet.raise_mark(11)

    assert (before, desk.inlet.mark()) == (9, 11)


# Dead letters


def test_a_dead_letter_holds_all_there_is_to_know() -> None:
    """Where the record stands, why it was refused, and its bytes, so that it can be sent again."""
    message = Record("events", 3, 12, NOW_MS, b"\x00k", b"\xffnot json", None)

    assert msgspec.json.decode(dead_letter(held([message]), 0, Bad("malformed", "not JSON: é"))) == {
        "topic": "events", "partition": 3, "offset": 12, "reason": "not JSON: é", "error": "malformed",
        "time_us": NOW_US, "key": base64.b64encode(b"\x00k").decode(),
        "value": base64.b64encode(b"\xffnot json").decode(), "is_cut": False,
    }  # fmt: skip


def test_a_dead_letter_fits_into_a_kafka_message() -> None:
    """A record may be as large as the broker allows; its dead letter, in base64, must not be refused for that."""
    message = Record("events", 3, 12, NOW_MS, b"k" * 900_000, b"v" * 900_000, None)

    payload = dead_letter(held([message]), 0, Bad("too_large", "900000 bytes"))
    letter = msgspec.json.decode(payload)

    assert len(payload) + KEPT_KEY_BYTES < 1_000_000
    assert base64.b64decode(letter["value"]) == b"v" * KEPT_BYTES
    assert base64.b64decode(letter["key"]) == b"k" * KEPT_KEY_BYTES
    assert letter["is_cut"]


def test_a_dead_letter_of_a_record_without_key_or_value() -> None:
    """Nothing is as good as empty."""
    letter = msgspec.json.decode(
        dead_letter(held([Record("events", 3, 12, NOW_MS, None, None, None)]), 0, Bad("empty", "no value"))
    )

    assert (letter["key"], letter["value"]) == ("", "")
