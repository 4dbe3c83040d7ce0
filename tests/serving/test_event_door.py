"""Events that come over HTTP are checked with ingest's own eyes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from serving.event_door import EventDoor, EventName, RefusedError
from streams.pipeline_file import read_pipeline

DECLARED = """
[pipeline]
name = "shop"
[events]
topic = "visits"
id = "visit"
key = "customer"
time = "at"
where = { type = "visit" }
[events.fields]
price = "number"
[labels]
topic = "orders"
id = "visit"
key = "customer"
value = "bought"
wait = "1h"
[models.base]
kind = "prior"
"""


@pytest.fixture
def door(tmp_path: Path) -> EventDoor:
    """The door of a shop whose events say their time."""
    file = tmp_path / "shop.toml"
    file.write_text(DECLARED)
    return EventDoor(read_pipeline(file, environment={}))


def visit(ago_s: float = 0.0, **other: Any) -> bytes:
    """An event as JSON."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - ago_s))
    return json.dumps({"type": "visit", "visit": "v1", "customer": "c1", "at": at, "price": 1, **other}).encode()


@pytest.mark.parametrize("ago_s", [0.0, 3_600.0, 86_400.0 * 400, -60.0])
def test_an_event_of_now_or_before_is_one(door: EventDoor, ago_s: float) -> None:
    """So is one a little ahead, as ingest has it: clocks differ."""
    assert door.check(visit(ago_s)) == EventName("v1", "c1")


@pytest.mark.parametrize(
    ("event", "error", "reason"),
    [
        ({"ago_s": -86_400.0}, "future", "the time lies in the future of the record's timestamp"),
        ({"price": "much"}, "invalid", "Expected `float | null`, got `str` - at `$.price`"),
        ({"type": "leave"}, "other", "the record is no event: [events] where does not hold"),
        (b"{", "malformed", "not JSON: Input data was truncated"),
        (b"[]", "invalid", "Expected `object`, got `array`"),
    ],
)
def test_what_ingest_would_bury_is_refused_with_its_words(
    door: EventDoor, event: bytes | dict[str, Any], error: str, reason: str
) -> None:
    with pytest.raises(RefusedError) as refused:
        door.check(event if isinstance(event, bytes) else visit(**event))

    assert (refused.value.error, str(refused.value)) == (error, reason)
    assert door.check(visit()) == EventName("v1", "c1")


def test_an_id_that_follows_from_the_position_is_not_known_yet(tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    text = DECLARED.replace('id = "visit"\nkey = "customer"\ntime = "at"\n', 'key = "customer"\n')
    file.write_text(text.replace('id = "visit"\n', "").replace("wait =", 'match = "key"\nwithin = "2h"\nwait ='))

    assert EventDoor(read_pipeline(file, environment={})).check(visit()) == EventName(None, "c1")
