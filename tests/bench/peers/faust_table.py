"""What a Faust user would write: count and mean of one field per key in a Table, JSON in, its changelog out.

Runs in an environment of its own: `python faust_table.py BROKER EVENTS_TOPIC NAME STATE_DIRECTORY`. `store="memory://"`
with a changelog is Faust's fastest table that survives a restart. The changelog record of each update is its only
output: sending a result besides costs half as much again, so this is Faust at its best.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import faust

broker, events_topic, name, state_directory = sys.argv[1:5]

logging.disable(logging.INFO)  # its Kafka client formats a debug line per record otherwise

app = faust.App(
    name,
    broker=f"kafka://{broker}",
    store="memory://",
    datadir=state_directory,
    topic_partitions=4,
    topic_replication_factor=1,
    web_enabled=False,
    consumer_auto_offset_reset="earliest",
    stream_wait_empty=False,
    producer_linger_ms=5,
)
events = app.topic(events_topic, key_type=bytes, value_type=bytes, value_serializer="json")
totals = app.Table("totals", default=list, partitions=4)


async def update(stream: Any) -> None:
    """Handle every event: read its key's state, write it back."""
    async for event in stream:
        if event is None:
            continue
        state = totals[event["key"]]
        count, total = (state[0] + 1, state[1] + event["amount"]) if state else (1, event["amount"])
        totals[event["key"]] = [count, total, total / count]


app.agent(events)(update)

if __name__ == "__main__":
    sys.argv = ["faust_table", "worker", "--loglevel", "WARN", "--without-web"]
    app.main()
