"""Reading a partition by hand, up to a given end, on real Kafka."""

from __future__ import annotations

from confluent_kafka import Producer

from serving.feed import Bounds, KafkaFeed, bounds
from streams.kafka import KafkaOutbox, Topics
from streams.records import value
from tests.system.conftest import until


def read(feed: KafkaFeed, end: int) -> list[tuple[int, bytes | None, bytes | None]]:
    """Offsets, values and a header of what a feed gives."""
    return [
        (int(records.offsets[i]), value(records, i), records.header(i, "name"))
        for records in feed.read(end)
        for i in range(records.offsets.size)
    ]


def write(settings: dict[str, str], topic: str, records: range) -> None:
    """Write numbered records to partition 1."""
    outbox = KafkaOutbox(settings)
    for n in records:
        outbox.produce(topic, 1, str(n).encode(), None, [("name", b"h%d" % n)])
    outbox.close()


def test_a_feed_goes_on_where_it_stopped(settings: dict[str, str], topic: str) -> None:
    """Nothing is given twice and nothing left out, also of what comes later."""
    write(settings, topic, range(6))
    feed = KafkaFeed(settings, topic, 1, 0)
    expected = [(n, str(n).encode(), b"h%d" % n) for n in range(9)]

    assert bounds(settings, topic, [0, 1]) == {0: Bounds(0, 0), 1: Bounds(0, 6)}
    assert read(feed, 4) == expected[:4]
    assert read(feed, 6) == expected[4:6]
    assert read(feed, 6) == []
    write(settings, topic, range(6, 9))
    assert read(feed, 9) == expected[6:]


def test_a_feed_that_is_let_go_half_way_has_not_lost_the_rest(
    settings: dict[str, str], topic: str, topics: Topics
) -> None:
    """What was fetched and not given is fetched again. A cut topic is begun where it begins now."""
    write(settings, topic, range(5))
    topics.cut(topic, 1, 2)
    found = bounds(settings, topic, [1])[1]
    feed = KafkaFeed(settings, topic, 1, found.start)
    parts = feed.read(3)
    first = next(parts)
    parts.close()

    assert (found, first.offsets.tolist()) == (Bounds(2, 5), [2])
    assert [offset for offset, _, _ in read(feed, 5)] == [3, 4]


def test_offsets_without_a_record_do_not_keep_a_feed_waiting(settings: dict[str, str], topic: str, prefix: str) -> None:
    """The last offset of a partition may be the end of a transaction."""
    producer = Producer({**settings, "transactional.id": prefix})
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(topic, b"a", partition=1)
    producer.commit_transaction()

    until(lambda: bounds(settings, topic, [1])[1] == Bounds(0, 2))
    assert [payload for _, payload, _ in read(KafkaFeed(settings, topic, 1, 0), 2)] == [b"a"]
