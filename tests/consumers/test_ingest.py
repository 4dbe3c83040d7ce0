"""Ingest: which records become rows, which dead letters, and that nothing stops it."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.ingest import IngestTask
from consumers.inlet_raw import KEPT_BYTES, KEPT_KEY_BYTES, RecordInlet, dead_letter
from streams import frames
from streams.decoding import Bad
from streams.frames import EVENT, LABEL, MARK, RETRACTED, SET
from streams.hashing import hash_bytes
from streams.pipeline import Condition, Pipeline
from tests.memory_kafka import Record
from tests.rows import events, labels, pipeline

NOW_MS = 1_700_000_000_000
NOW_US = NOW_MS * 1000
EVENT_RECORD: dict[str, Any] = {
    "id": "e1", "key": "k1", "at": NOW_US, "amount": 2.5, "shop": "a", "is_new": True, "route": {"miles": 7}
}  # fmt: skip
LABEL_RECORD: dict[str, Any] = {"id": "e1", "key": "k1", "at": NOW_US, "y": 1}
ABSENT = object()


class Desk:
    """An inlet of one raw partition and the dead letters it made."""

    def __init__(self, declared: Pipeline, topic: str = "events", kinds: tuple[str, ...] = ("events",)) -> None:
        self.dead: list[tuple[int, Bad]] = []
        sources = {kind: number for number, kind in enumerate(("events", "labels")) if kind in kinds}
        schema = frames.log_schema(declared)
        self.topic = topic
        self.inlet = RecordInlet(
            declared, topic, 3, sources, schema, lambda m, why: self.dead.append((m.offset(), why))
        )
        self.next = 10

    def take(self, *records: Any, stamp_ms: int = NOW_MS) -> list[dict[str, Any]]:
        """Decode records (JSON values, bytes, or whole messages) and give the rows; the account must hold."""
        messages = [self.message(record, stamp_ms) for record in records]
        decoded = self.inlet.decode(messages)
        inlet = self.inlet
        assert inlet.records == inlet.ignored + inlet.dead + inlet.taken
        assert inlet.dead == len(self.dead)
        assert decoded.offsets.tolist() == sorted(decoded.offsets.tolist())
        assert decoded.rows.num_rows == decoded.offsets.size == decoded.stamps.size
        rows: list[dict[str, Any]] = decoded.rows.to_pylist()
        return rows

    def message(self, record: Any, stamp_ms: int = NOW_MS, headers: Any = None) -> Record:
        """The next message of the partition."""
        if isinstance(record, Record):
            return record
        value = record if isinstance(record, bytes | None) else json.dumps(record).encode()
        self.next += 1
        return Record(self.topic, 3, self.next - 1, stamp_ms, b"kafka-key", value, headers)

    def mark(self, text: bytes | None) -> Record:
        """A publisher's mark."""
        return self.message(None, headers=[("millrace-mark", text)])

    @property
    def errors(self) -> list[str]:
        """Error classes of the dead letters so far."""
        return [why.error for _, why in self.dead]


def event(**changes: Any) -> dict[str, Any]:
    """A good event with some values changed or absent."""
    return {name: value for name, value in {**EVENT_RECORD, **changes}.items() if value is not ABSENT}


def label(**changes: Any) -> dict[str, Any]:
    """A good label with some values changed or absent."""
    return {name: value for name, value in {**LABEL_RECORD, **changes}.items() if value is not ABSENT}


def events_desk(**changes: Any) -> Desk:
    """A partition of the events' topic."""
    return Desk(pipeline(events=events(**changes)))


def labels_desk(**changes: Any) -> Desk:
    """A partition of the labels' topic."""
    return Desk(pipeline(labels=labels(**changes)), "labels", ("labels",))


def both_desk() -> Desk:
    """One topic with events and labels, told apart by `where`."""
    one = pipeline(
        events=events(where=(Condition(("is", "event"), value=True),)),
        labels=labels(topic="events", where=(Condition(("is", "label"), value=True),)),
    )
    return Desk(one, "events", ("events", "labels"))


# Good records


def test_an_event_becomes_a_row() -> None:
    """Its source is the partition's, its sequence the offset; fields stand in the log as they came."""
    (row,) = events_desk().take(EVENT_RECORD)

    assert {name: value for name, value in row.items() if name not in ("label", "outcome")} == {
        "kind": EVENT, "source": 0, "sequence": 10, "time": NOW_US, "id": "e1", "key": "k1", "produced": NOW_US,
        "field.amount": 2.5, "field.shop": "a", "field.is_new": 1.0, "field.miles": 7.0,
    }  # fmt: skip
    assert np.isnan(row["label"])


@pytest.mark.parametrize(("value", "number"), [(1, 1.0), (0, 0.0), (True, 1.0), (False, 0.0), (1.0, 1.0)])
def test_a_label_becomes_a_row(value: object, number: float) -> None:
    """0, 1, true and false are labels; `produced` belongs to events."""
    (row,) = labels_desk().take(label(y=value))

    assert (row["kind"], row["source"], row["label"], row["outcome"]) == (LABEL, 1, number, SET)
    assert (row["id"], row["key"], row["time"], row["produced"]) == ("e1", "k1", NOW_US, -1)


def test_a_null_label_retracts() -> None:
    """It is no number, and says so by its outcome."""
    (row,) = labels_desk().take(label(y=None))

    assert np.isnan(row["label"])
    assert row["outcome"] == RETRACTED


@pytest.mark.parametrize("value", [None, ABSENT])
@pytest.mark.parametrize("name", ["amount", "shop", "is_new"])
def test_null_and_absent_fields_are_missing_values(name: str, value: object) -> None:
    """NaN for numbers and booleans, null for categories; the event is good."""
    desk = events_desk()
    (row,) = desk.take(event(**{name: value}))

    found = row[f"field.{name}"]
    assert found is None if name == "shop" else np.isnan(found)
    assert desk.errors == []


@pytest.mark.parametrize("route", [None, ABSENT, {}, {"miles": None}, {"other": [1, {"x": 2}]}])
def test_a_path_that_ends_early_is_a_missing_value(route: object) -> None:
    """A null or absent table on the way to a field is like a null field."""
    assert np.isnan(events_desk().take(event(route=route))[0]["field.miles"])


@pytest.mark.parametrize("count", [1, 7, 8, 50])
def test_many_records_at_once_are_as_one_by_one(count: int) -> None:
    """Columns are made of whole polls; the rows are the same."""
    records = [
        event(id=f"e{i}", amount=None if i % 3 else i, route={"miles": i} if i % 2 else None) for i in range(count)
    ]
    one_by_one = events_desk()

    assert repr(events_desk().take(*records)) == repr([row for r in records for row in one_by_one.take(r)])


@pytest.mark.parametrize(
    ("value", "text"), [("a", "a"), ("", ""), (5, "5"), (-1, "-1"), (True, "true"), (False, "false")]
)
def test_categories_are_texts_whole_numbers_or_booleans(value: object, text: str) -> None:
    """Each becomes its text, whatever stands beside it in the poll."""
    desk = events_desk()

    assert [row["field.shop"] for row in desk.take(event(shop=value), event(shop="x"), event(shop=None))] == [
        text,
        "x",
        None,
    ]


def test_ids_and_keys_may_be_whole_numbers() -> None:
    """They become their text: an event's 7 and a label's "7" are one."""
    rows = events_desk().take(event(id=7, key=8), event(id="7", key="x"))

    assert [(row["id"], row["key"]) for row in rows] == [("7", "8"), ("7", "x")]


def test_what_is_not_declared_is_not_looked_at() -> None:
    """Records may carry more than the pipeline wants."""
    desk = events_desk()

    assert len(desk.take(event(other={"deep": [1, "x", None]}), event(amount2="text"))) == 2


# Defaults


def test_without_declared_id_key_and_time_the_record_itself_gives_them() -> None:
    """The id is topic-partition-offset, the key the id, the time the record's timestamp."""
    desk = events_desk(id=None, key=None, time=None)

    rows = desk.take({}, {"amount": 1}, stamp_ms=NOW_MS + 5)

    assert [(row["id"], row["key"]) for row in rows] == [("events-3-10",) * 2, ("events-3-11",) * 2]
    assert [row["time"] for row in rows] == [NOW_US + 5_000] * 2


def test_a_label_without_declared_key_and_time_takes_its_id_and_timestamp() -> None:
    """The same defaults as for events."""
    (row,) = labels_desk(key=None, time=None).take({"id": "e9", "y": 0})

    assert (row["id"], row["key"], row["time"]) == ("e9", "e9", NOW_US)


@pytest.mark.parametrize(
    ("unit", "value", "time_us"),
    [
        ("rfc3339", "2013-01-01T05:17:00.25+02:00", 1_357_010_220_250_000),
        ("s", 1_357_010_220, 1_357_010_220_000_000),
        ("s", 1_357_010_220.25, 1_357_010_220_250_000),
        ("ms", 1_357_010_220_250, 1_357_010_220_250_000),
        ("us", 1_357_010_220_250_000, 1_357_010_220_250_000),
        ("ns", 1_357_010_220_250_000_999, 1_357_010_220_250_000),
    ],
)
def test_times_are_read_in_the_declared_unit(unit: Any, value: object, time_us: int) -> None:
    """RFC 3339, or epoch numbers."""
    assert events_desk(time_unit=unit).take(event(at=value))[0]["time"] == time_us


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


# Events and labels in one topic


def test_where_tells_events_from_labels_and_others() -> None:
    """Records that are neither are ignored and counted."""
    desk = both_desk()

    rows = desk.take(
        {**EVENT_RECORD, "is": {"event": True}},
        {"anything": 1},
        {**LABEL_RECORD, "is": {"label": True}},
        {"is": {"event": False}},
        {"is": "text"},
        {"is": None},
        {"is": {"event": 1}},
    )

    assert [(row["kind"], row["sequence"]) for row in rows] == [(EVENT, 10), (LABEL, 12)]
    assert (desk.inlet.ignored, desk.inlet.taken, desk.inlet.dead) == (5, 2, 0)


def test_one_record_may_be_an_event_and_a_label_event_first() -> None:
    """Both rows have its offset as sequence, each from a source of its own; it counts as one record taken."""
    desk = both_desk()

    rows = desk.take(
        {**LABEL_RECORD, "is": {"label": True}}, {**EVENT_RECORD, "y": 0, "is": {"event": True, "label": True}}
    )

    assert [(row["kind"], row["source"], row["sequence"]) for row in rows] == [
        (LABEL, 1, 10), (EVENT, 0, 11), (LABEL, 1, 11)
    ]  # fmt: skip
    assert desk.inlet.taken == 2


@pytest.mark.parametrize("value", ["x", 2, ABSENT])
def test_a_record_is_taken_wholly_or_not_at_all(value: object) -> None:
    """An event whose own label is bad is one dead letter, and no row."""
    desk = both_desk()
    record = {**event(y=value), "is": {"event": True, "label": True}}
    record = {name: part for name, part in record.items() if part is not ABSENT}

    assert desk.take(record, {"other": 1}) == []
    assert (desk.inlet.dead, desk.inlet.ignored, desk.inlet.taken) == (1, 1, 0)


@pytest.mark.parametrize("payload", [b"{", b"[1]", b"7"])
def test_what_is_no_json_object_is_dead_not_ignored(payload: bytes) -> None:
    """It is not another kind of record: something is broken at the publisher."""
    desk = both_desk()
    desk.take(payload)

    assert (desk.inlet.dead, desk.inlet.ignored) == (1, 0)


@pytest.mark.parametrize(
    ("wanted", "others"), [("a", [1, None, "A"]), (1, [True, "1", 2]), (True, [1, "true"]), (1.5, [1])]
)
def test_where_compares_value_and_kind(wanted: Any, others: list[Any]) -> None:
    """1 is not true."""
    desk = events_desk(where=(Condition(("type",), wanted),))

    assert len(desk.take(event(type=wanted), *(event(type=other) for other in others), event())) == 1
    assert desk.inlet.ignored == len(others) + 1


# Marks


def test_a_publishers_mark_raises_the_mark_when_taken() -> None:
    """A record without value: it stands behind the rows before it, and `end` says that nothing more comes."""
    desk = events_desk()
    decoded = desk.inlet.decode([desk.message(event(at=5)), desk.mark(b"9"), desk.mark(b"end")])

    marks = []
    for place in range(3):
        desk.inlet.admit(decoded.rows.slice(place, 1))
        marks.append(desk.inlet.mark())

    assert decoded.rows.column("kind").to_pylist() == [EVENT, MARK, MARK]
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
    decoded = desk.inlet.decode([desk.message(event(at=5)), desk.message(event(at=NOW_US + 10**9))])
    desk.inlet.admit(decoded.rows)

    assert (desk.inlet.mark(), desk.inlet.largest_time, desk.inlet.largest_stamp) == (5, 5, NOW_US)


def test_a_mark_never_falls() -> None:
    """It is a maximum: old rows and smaller idle marks leave it."""
    desk = events_desk()
    desk.inlet.admit(desk.inlet.decode([desk.message(event(at=9))]).rows)
    desk.inlet.admit(desk.inlet.decode([desk.message(event(at=5))]).rows)
    desk.inlet.raise_mark(7)
    before = desk.inlet.mark()
    desk.inlet.raise_mark(11)

    assert (before, desk.inlet.mark()) == (9, 11)


# Dead letters


def test_a_dead_letter_holds_all_there_is_to_know() -> None:
    """Where the record stands, why it was refused, and its bytes, so that it can be sent again."""
    message = Record("events", 3, 12, NOW_MS, b"\x00k", b"\xffnot json", None)

    assert msgspec.json.decode(dead_letter(message, Bad("malformed", "not JSON: é"))) == {
        "topic": "events", "partition": 3, "offset": 12, "reason": "not JSON: é", "error": "malformed",
        "time_us": NOW_US, "key": base64.b64encode(b"\x00k").decode(),
        "value": base64.b64encode(b"\xffnot json").decode(), "is_cut": False,
    }  # fmt: skip


def test_a_dead_letter_fits_into_a_kafka_message() -> None:
    """A record may be as large as the broker allows; its dead letter, in base64, must not be refused for that."""
    message = Record("events", 3, 12, NOW_MS, b"k" * 900_000, b"v" * 900_000, None)

    payload = dead_letter(message, Bad("too_large", "900000 bytes"))
    letter = msgspec.json.decode(payload)

    assert len(payload) + KEPT_KEY_BYTES < 1_000_000
    assert base64.b64decode(letter["value"]) == b"v" * KEPT_BYTES
    assert base64.b64decode(letter["key"]) == b"k" * KEPT_KEY_BYTES
    assert letter["is_cut"]


def test_a_dead_letter_of_a_record_without_key_or_value() -> None:
    """Nothing is as good as empty."""
    letter = msgspec.json.decode(
        dead_letter(Record("events", 3, 12, NOW_MS, None, None, None), Bad("empty", "no value"))
    )

    assert (letter["key"], letter["value"]) == ("", "")


# Rows to partitions


def test_rows_go_to_the_partition_of_their_key() -> None:
    """XXH64 of the key's text modulo the partitions; marks stay, order stays, each row knows its cause."""
    desk = events_desk()
    keys = [f"k{i}" for i in range(20)]
    messages = [desk.message(event(key=key)) for key in keys]
    messages.insert(5, desk.mark(b"1"))
    batch, _ = desk.inlet.admit(desk.inlet.decode(messages).rows)

    outputs = IngestTask(4, desk.inlet).process(batch)

    found = {out.partition: out.batch.column("key").to_pylist() for out in outputs}
    assert found == {p: [key for key in keys if hash_bytes(key.encode()) % 4 == p] for p in range(4)}
    for out in outputs:
        assert [batch.rows.column("key")[int(cause)].as_py() for cause in out.cause] == found[out.partition]
