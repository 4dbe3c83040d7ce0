"""What a Quix Streams user would write: count and mean of one field per key in a 60 s tumbling window, JSON in and out.

Runs in an environment of its own: `python quix_window.py BROKER EVENTS_TOPIC NAME STATE_DIRECTORY`. Every event sends
the window as it then stands (`current()`): one result per event.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

from quixstreams import Application  # type: ignore[import-not-found]  # lives in its own environment
from quixstreams.models import TopicConfig  # type: ignore[import-not-found]  # see above


def main() -> None:
    """Run until stopped."""
    broker, events_topic, name, state_directory = sys.argv[1:5]
    app = Application(
        broker_address=broker,
        consumer_group=name,
        auto_offset_reset="earliest",
        state_dir=state_directory,
        consumer_extra_config={"fetch.queue.backoff.ms": 5, "queued.min.messages": 200_000},
        loglevel="WARNING",
    )
    events = app.topic(events_topic, value_deserializer="json", timestamp_extractor=event_time_ms)
    one_copy = TopicConfig(num_partitions=4, replication_factor=1)
    results = app.topic(f"{name}.results", value_serializer="json", config=one_copy)
    windows = app.dataframe(events).tumbling_window(timedelta(seconds=60))
    windows.reduce(add, start).current().apply(result).to_topic(results)
    app.run()


def event_time_ms(value: Any, _headers: Any, timestamp_ms: float, _kind: Any) -> int:
    """Give the event's own time."""
    return int(timestamp_ms) if value is None else int(value["time"] // 1000)


def start(value: Any) -> list[float]:
    """Begin a window with its first event: count and sum. One `reduce` is a tenth faster than two aggregations."""
    return [1, value["amount"]]


def add(window: list[float], value: Any) -> list[float]:
    """Add an event to its window."""
    return [window[0] + 1, window[1] + value["amount"]]


def result(window: Any) -> dict[str, float]:
    """Give count and mean of the window as it stands."""
    count, total = window["value"]
    return {"start": window["start"], "count": count, "mean": total / count}


if __name__ == "__main__":
    main()
