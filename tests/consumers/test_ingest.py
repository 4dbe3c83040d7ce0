"""Ingest: what good records become, and where each row goes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from consumers.ingest import IngestTask
from streams.frames import EVENT, LABEL, RETRACTED, SET
from streams.hashing import ENTITY_SEED, hash_bytes
from streams.pipeline import Condition
from tests.memory_kafka import held
from tests.records import (
    ABSENT,
    EVENT_RECORD,
    LABEL_RECORD,
    NOW_MS,
    NOW_US,
    both_desk,
    event,
    events_desk,
    label,
    labels_desk,
)

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


def test_labels_that_are_matched_by_id_have_no_key() -> None:
    """Whichever way they are read."""
    desk = labels_desk(key=None, match="id")

    plain, careful = desk.take({"id": "e9", "at": NOW_US, "y": 0}, {"id": 'e\u00e9"9', "at": NOW_US, "y": 0})

    assert [(row["id"], row["key"]) for row in (plain, careful)] == [("e9", None), ('e\u00e9"9', None)]


def test_labels_that_are_matched_by_key_are_named_by_their_place() -> None:
    (row,) = labels_desk(id=None, match="key", within_us=5).take({"key": "k", "at": NOW_US, "y": 0})

    assert (row["id"], row["key"]) == ("labels-3-10", "k")


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


# Rows to partitions


def test_rows_go_to_the_partition_of_their_key() -> None:
    """The upper half of its hash modulo the partitions; marks stay."""
    desk = events_desk()
    keys = [f"k{i}" for i in range(20)]
    messages = [desk.message(event(key=key)) for key in keys]
    messages.insert(5, desk.mark(b"1"))
    batch, _ = desk.inlet.admit(desk.inlet.decode(held(messages)).rows)

    (output,) = IngestTask(4, desk.inlet).process(batch)

    names = output.table.to_arrow().column("key").to_pylist()
    places = [-1 if key is None else (hash_bytes(key.encode(), ENTITY_SEED) >> 32) % 4 for key in names]
    assert [key for key in names if key] == keys
    assert output.targets.tolist() == places


def test_rows_go_to_the_partition_of_their_id_where_labels_have_no_key() -> None:
    """So that an event and its label meet."""
    desk = events_desk()
    messages = [desk.message(event(id=f"e{i}", key="k")) for i in range(20)]
    batch, _ = desk.inlet.admit(desk.inlet.decode(held(messages)).rows)

    (output,) = IngestTask(4, desk.inlet, "id").process(batch)

    assert output.targets.tolist() == [(hash_bytes(f"e{i}".encode(), ENTITY_SEED) >> 32) % 4 for i in range(20)]
