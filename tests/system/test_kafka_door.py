"""The door to Kafka against a real broker."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import pytest
from confluent_kafka import Producer

from streams.embedded import EmbeddedKafka
from streams.errors import CutError, DeliveryError, PipelineError, SnapshotError, TopicError, UnavailableError
from streams.kafka import (
    BEGINNING,
    KafkaInbox,
    KafkaOutbox,
    Partition,
    Reader,
    RebalancedError,
    Topics,
    read_all,
)
from streams.kafka_topics import mismatches
from streams.memory import HeapBytes
from streams.records import Records, pack
from streams.records import value as value_of
from streams.topic_specs import TopicSpec

WEEK_MS = 604_800_000
WAIT_S = 30.0
Protocol = Literal["consumer", "classic"]
PROTOCOLS: tuple[Protocol, ...] = ("consumer", "classic")


class Member:
    """A group member for tests: keeps what it was told and what it read."""

    def __init__(self, settings: dict[str, str], group: str, topic: str, protocol: Protocol = "consumer") -> None:
        self.inbox = KafkaInbox(settings, group, group_protocol=protocol)
        self.owned: set[Partition] = set()
        self.held_back: set[Partition] = set()
        self.lost: list[Partition] = []
        self.read: list[tuple[int, int, bytes | None]] = []
        self.next: dict[Partition, int] = {}
        self.is_committing = True
        self.inbox.subscribe([topic], self.assigned, self.revoked, self.gone)

    def assigned(self, partitions: list[Partition]) -> dict[Partition, int]:
        committed = self.inbox.committed(partitions)
        self.owned.update(partitions)
        # What was read is remembered, as a worker does: an outage longer than the session brings partitions back.
        return {
            where: max(self.next.get(where, BEGINNING), committed.get(where, (BEGINNING, ""))[0])
            for where in partitions
        }

    def revoked(self, partitions: list[Partition]) -> None:
        if self.is_committing:
            self.inbox.commit({where: (self.next[where], "revoked") for where in partitions if where in self.next})
        self.owned.difference_update(partitions)

    def gone(self, partitions: list[Partition]) -> None:
        self.lost += partitions
        self.owned.difference_update(partitions)

    def poll(self) -> None:
        for records in self.inbox.poll({where: 500 for where in self.owned if where not in self.held_back}, 0.05):
            for i, offset in enumerate(records.offsets.tolist()):
                self.read.append((records.partition, offset, value_of(records, i)))
                self.next[records.topic, records.partition] = offset + 1
            records.release()


def poll_until(condition: Callable[[], bool], *members: Member) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, [(member.owned, len(member.read)) for member in members]
        for member in members:
            member.poll()


def poll_on(inbox: KafkaInbox, *wanted: Partition) -> None:
    """Poll until something is raised, for 20 s at most."""
    for _ in range(100):
        inbox.poll(dict.fromkeys(wanted, 10), 0.2)


def publish(settings: dict[str, str], topic: str, values: range, partition: int | None = None) -> None:
    outbox = KafkaOutbox(settings)
    for value in values:
        outbox.produce(topic, value % 2 if partition is None else partition, b"%d" % value)
    outbox.flush()
    outbox.close()


@pytest.fixture
def join(settings: dict[str, str], prefix: str, topic: str) -> Iterator[Callable[..., Member]]:
    members: list[Member] = []

    def joined(protocol: Protocol = "consumer") -> Member:
        members.append(Member(settings, f"{prefix}.group", topic, protocol))
        return members[-1]

    yield joined
    for member in members:
        member.inbox.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_inbox_reads_every_record_from_the_offset_it_was_given(
    settings: dict[str, str], topic: str, join: Callable[..., Member], protocol: Protocol
) -> None:
    publish(settings, topic, range(100))

    member = join(protocol)
    poll_until(lambda: len(member.read) >= 100, member)

    expected = sorted((value % 2, value // 2, b"%d" % value) for value in range(100))
    assert sorted(member.read) == expected


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_commit_brings_its_metadata_back(topic: str, join: Callable[..., Member], protocol: Protocol) -> None:
    member = join(protocol)
    poll_until(lambda: len(member.owned) == 2, member)

    member.inbox.commit({(topic, 0): (7, "m-000007:ab12"), (topic, 1): (0, "")})

    found = member.inbox.committed([(topic, 0), (topic, 1)])
    assert found == {(topic, 0): (7, "m-000007:ab12"), (topic, 1): (0, "")}


def test_a_partition_without_a_commit_is_left_out(topic: str, join: Callable[..., Member]) -> None:
    member = join()
    poll_until(lambda: len(member.owned) == 2, member)

    member.inbox.commit({(topic, 1): (3, "x")})

    assert member.inbox.committed([(topic, 0), (topic, 1)]) == {(topic, 1): (3, "x")}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_second_member_takes_over_where_the_first_one_committed_on_revoke(
    settings: dict[str, str], topic: str, join: Callable[..., Member], protocol: Protocol
) -> None:
    publish(settings, topic, range(100))
    first = join(protocol)
    poll_until(lambda: len(first.read) == 100, first)

    second = join(protocol)
    poll_until(lambda: len(first.owned) == 1 and len(second.owned) == 1, first, second)
    publish(settings, topic, range(100, 200))
    poll_until(lambda: len(first.read) + len(second.read) >= 200, first, second)

    read = sorted(first.read + second.read)
    assert read == sorted((value % 2, value // 2, b"%d" % value) for value in range(200))
    assert {partition for partition, *_ in second.read} == {partition for _, partition in second.owned}


def test_a_failing_callback_fails_the_poll(settings: dict[str, str], prefix: str, topic: str) -> None:
    def refuse(_: list[Partition]) -> dict[Partition, int]:
        raise SnapshotError("the snapshot is gone")

    inbox = KafkaInbox(settings, f"{prefix}.group")
    inbox.subscribe([topic], refuse, lambda _: None, lambda _: None)

    with pytest.raises(SnapshotError, match="the snapshot is gone"):
        poll_on(inbox)
    inbox.close()


@pytest.mark.parametrize("offset", [3, 50])
def test_a_position_that_is_not_in_the_topic_is_told(
    settings: dict[str, str], prefix: str, topic: str, topics: Topics, offset: int
) -> None:
    publish(settings, topic, range(20), partition=0)
    topics.cut(topic, 0, 10)
    inbox = KafkaInbox(settings, f"{prefix}.group")
    inbox.subscribe([topic], lambda new: dict.fromkeys(new, 0) | {(topic, 0): offset}, lambda _: None, lambda _: None)

    with pytest.raises(CutError) as caught:
        poll_on(inbox, (topic, 0), (topic, 1))

    assert f"{topic}[0]: offset {offset} is not in the topic, which holds 10 to 20" in str(caught.value)
    inbox.close()


def test_watermarks_are_asked_of_the_broker(settings: dict[str, str], topic: str, topics: Topics, prefix: str) -> None:
    publish(settings, topic, range(20), partition=1)
    topics.cut(topic, 1, 5)
    inbox = KafkaInbox(settings, prefix)

    assert inbox.watermarks(topic, 0) == (0, 0)
    assert inbox.watermarks(topic, 1) == (5, 20)
    inbox.close()


def test_a_topic_is_given_more_partitions_but_never_fewer(topic: str, topics: Topics) -> None:
    """Its records stay where they are."""
    for wanted in (3, 2):
        topics.grow(topic, wanted)

        assert topics.partitions(topic) == 3


def test_members_of_a_group_are_counted(
    settings: dict[str, str], topic: str, prefix: str, join: Callable[..., Member], topics: Topics
) -> None:
    """Also of one that does not exist; who only reads its commits is no member."""
    reader = KafkaInbox(settings, f"{prefix}.group")
    assert reader.committed([(topic, 0)]) == {}
    assert topics.members(f"{prefix}.group") == 0
    member = join()
    poll_until(lambda: len(member.owned) == 2, member)

    assert topics.members(f"{prefix}.group") == 1

    reader.close()


def test_the_end_of_a_transaction_is_no_record(settings: dict[str, str], topic: str, prefix: str) -> None:
    producer = Producer({**settings, "transactional.id": prefix})
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(topic, b"a", partition=0)
    producer.commit_transaction()
    inbox = KafkaInbox(settings, prefix)
    poll_until(lambda: inbox.watermarks(topic, 0) == (0, 2))  # the marker comes a moment after the commit

    assert inbox.is_void(topic, 0, 1, 2)
    assert not inbox.is_void(topic, 0, 0, 2)
    inbox.close()


def test_a_partition_that_is_not_wanted_brings_nothing_until_it_is(
    settings: dict[str, str], topic: str, join: Callable[..., Member]
) -> None:
    member = join()
    poll_until(lambda: len(member.owned) == 2, member)
    member.held_back.add((topic, 0))

    publish(settings, topic, range(10))
    poll_until(lambda: len(member.read) >= 5, member)
    for _ in range(4):
        member.poll()

    assert {partition for partition, *_ in member.read} == {1}
    member.held_back.clear()
    poll_until(lambda: len(member.read) >= 10, member)
    assert len(member.read) == 10


def test_a_member_that_was_put_out_of_the_group_cannot_commit_and_joins_again(
    settings: dict[str, str], topic: str, prefix: str, join: Callable[..., Member]
) -> None:
    zombie = Member({**settings, "max.poll.interval.ms": "1500"}, f"{prefix}.group", topic)
    poll_until(lambda: len(zombie.owned) == 2, zombie)
    successor = join()
    poll_until(lambda: len(successor.owned) == 2, successor)  # the zombie does not poll meanwhile

    with pytest.raises(RebalancedError):
        zombie.inbox.commit({(topic, 0): (1, "too late")})

    zombie.is_committing = False
    poll_until(lambda: len(zombie.owned) == 1 and len(successor.owned) == 1, zombie, successor)
    assert zombie.lost
    zombie.inbox.close()


def test_a_second_worker_of_the_same_name_is_told_so(settings: dict[str, str], topic: str, prefix: str) -> None:
    inboxes = [KafkaInbox(settings, f"{prefix}.group", group_instance_id="one") for _ in range(2)]
    owned: list[Partition] = []

    def assign(new: list[Partition]) -> dict[Partition, int]:
        owned.extend(new)
        return dict.fromkeys(new, BEGINNING)

    inboxes[0].subscribe([topic], assign, lambda _: None, lambda _: None)
    while not owned:
        inboxes[0].poll({}, 0.1)
    inboxes[1].subscribe([topic], assign, lambda _: None, lambda _: None)

    with pytest.raises(UnavailableError, match=r"another live worker has this group\.instance\.id"):
        poll_on(inboxes[1])
    for inbox in inboxes:
        inbox.close()


def test_committing_nothing_commits_nothing(topic: str, join: Callable[..., Member]) -> None:
    member = join()
    poll_until(lambda: len(member.owned) == 2, member)

    member.inbox.commit({})

    assert member.inbox.committed([(topic, 0), (topic, 1)]) == {}


def test_an_unknown_topic_is_one_line(settings: dict[str, str], prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.kafka_reader.MISSING_TOPIC_GRACE_S", 0.0)
    inbox = KafkaInbox(settings, f"{prefix}.group", group_protocol="classic")
    inbox.subscribe([f"{prefix}.absent"], lambda new: dict.fromkeys(new, 0), lambda _: None, lambda _: None)

    with pytest.raises(TopicError, match=f"topic {prefix}.absent does not exist"):
        poll_on(inbox)
    inbox.close()


def test_an_outbox_keeps_keys_headers_and_tombstones(settings: dict[str, str], topic: str) -> None:
    outbox = KafkaOutbox(settings, compression="lz4")
    outbox.produce(topic, 0, b"value", key=b"key", headers=[("schema", b"ab"), ("other", b"")])
    outbox.produce(topic, 0, None, key=b"gone")
    outbox.flush()

    first, second = read_all(settings, topic, 0)
    assert (first.key(), first.value(), first.headers()) == (b"key", b"value", [("schema", b"ab"), ("other", b"")])
    assert (second.key(), second.value(), second.headers()) == (b"gone", None, None)
    assert (outbox.produced_total, outbox.produced_bytes) == (2, 5)
    outbox.close()


def test_a_refused_message_fails_the_flush_and_everything_after_it(settings: dict[str, str], topic: str) -> None:
    outbox = KafkaOutbox(settings)
    outbox.produce(topic, 99, b"there is no such partition")

    with pytest.raises(DeliveryError, match=rf"{topic}\[99\].*sent again after a restart"):
        outbox.flush()
    with pytest.raises(DeliveryError):
        outbox.produce(topic, 0, b"after")
    outbox.close()


def test_a_message_over_the_size_limit_is_refused_at_once(settings: dict[str, str], topic: str) -> None:
    outbox = KafkaOutbox(settings)

    with pytest.raises(DeliveryError, match="too large"):
        outbox.produce(topic, 0, bytes(2_000_000))
    outbox.close()


def test_many_records_are_queued_in_order_with_their_keys(settings: dict[str, str], topic: str) -> None:
    values, keys = [b"%d" % n for n in range(5_000)], [b"k%d" % (n % 7) for n in range(5_000)]
    outbox = KafkaOutbox(settings)
    outbox.produce_many(topic, 0, pack(values), pack(keys))
    outbox.produce_many(topic, 1, pack([b"", b"x"]))
    outbox.flush()

    assert [(m.key(), m.value()) for m in read_all(settings, topic, 0)] == list(zip(keys, values, strict=True))
    assert [(m.key(), m.value()) for m in read_all(settings, topic, 1)] == [(None, b""), (None, b"x")]
    assert outbox.produced_total == 5_002
    outbox.close()


def test_many_records_wait_for_room_in_the_queue(settings: dict[str, str], topic: str) -> None:
    values = [b"%06d" % n + bytes(2_000) for n in range(20_000)]  # more than the queue holds
    outbox = KafkaOutbox(settings)
    outbox.produce_many(topic, 0, pack(values))
    outbox.flush()

    assert [int((m.value() or b"")[:6]) for m in read_all(settings, topic, 0)] == list(range(20_000))
    outbox.close()


def test_a_refused_record_among_many_is_not_overlooked(settings: dict[str, str], topic: str) -> None:
    outbox = KafkaOutbox(settings)

    outbox.produce_many(topic, 99, pack([b"there is no such partition"]))
    with pytest.raises(DeliveryError, match=rf"{topic}\[99\].*sent again after a restart"):
        outbox.flush()
    with pytest.raises(DeliveryError, match="too large"):
        KafkaOutbox(settings).produce_many(topic, 0, pack([b"a", bytes(2_000_000)]))
    outbox.close()


def heap_bytes(content: bytes) -> HeapBytes:
    memory = HeapBytes(len(content))
    np.asarray(memory)[:] = np.frombuffer(content, np.uint8)
    return memory


def test_what_is_given_away_arrives_whole_and_waits_for_room(settings: dict[str, str], topic: str) -> None:
    values = [b"%03d" % n + bytes([n]) * 500_000 for n in range(60)]  # more than the queue holds
    outbox = KafkaOutbox(settings)
    for n, value in enumerate(values):
        outbox.give(topic, n % 2, heap_bytes(value), [("schema", b"%d" % n), ("empty", b"")])
    outbox.flush()

    for partition in (0, 1):
        found = list(read_all(settings, topic, partition))
        assert [message.value() for message in found] == values[partition::2]
        own = [[("schema", b"%d" % n), ("empty", b"")] for n in range(partition, 60, 2)]
        assert [message.headers() for message in found] == own
    assert (outbox.produced_total, outbox.produced_bytes) == (60, 60 * 500_003)
    outbox.close()


def test_a_refused_frame_is_named_and_stays_ours(settings: dict[str, str], topic: str) -> None:
    outbox, large = KafkaOutbox(settings), heap_bytes(bytes(2_000_000))
    with pytest.raises(DeliveryError, match="too large"):
        outbox.give(topic, 0, large, [])
    assert bytes(large) == bytes(2_000_000)  # nobody has freed it
    outbox.close()

    outbox = KafkaOutbox(settings)
    outbox.give(topic, 99, heap_bytes(b"there is no such partition"), [])
    with pytest.raises(DeliveryError, match=rf"{topic}\[99\].*sent again after a restart"):
        outbox.flush()
    with pytest.raises(DeliveryError):
        outbox.give(topic, 0, heap_bytes(b"after"), [])
    outbox.close()


def test_records_may_outlive_whoever_has_read_them(settings: dict[str, str], topic: str, prefix: str) -> None:
    publish(settings, topic, range(100), partition=0)
    member = Member(settings, f"{prefix}.group", topic)
    kept: list[Records] = []
    for _ in range(100):
        kept += member.inbox.poll(dict.fromkeys(member.owned, 10), 0.2)
        if sum(records.offsets.size for records in kept) == 100:
            break
    assert [value_of(records, i) for records in kept for i in range(records.offsets.size)] == [
        b"%d" % n for n in range(100)
    ]
    kept.pop()  # given back at once, the others when the inbox is closed
    member.inbox.close()
    kept.clear()


ENDING = """
import sys
from streams.kafka import BEGINNING, KafkaInbox
broker, topic = sys.argv[1:]
inbox = KafkaInbox({"bootstrap.servers": broker}, topic)
inbox.subscribe([topic], lambda new: dict.fromkeys(new, BEGINNING), print, print)
kept, itself = [], []
itself.append((itself, inbox, kept))  # what a collection at the end would find
while not kept:
    kept += inbox.poll({(topic, 0): 10}, 0.2)
raise ValueError("a failure")
"""


def test_a_process_that_fails_with_records_in_its_hands_ends(settings: dict[str, str], topic: str) -> None:
    publish(settings, topic, range(10), partition=0)
    command = [sys.executable, "-c", ENDING, settings["bootstrap.servers"], topic]

    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.endswith("ValueError: a failure\n")


def test_a_record_refused_before_it_has_a_partition_names_none(settings: dict[str, str], prefix: str) -> None:
    outbox = KafkaOutbox(settings)
    outbox.produce_many(f"{prefix}.absent", None, pack([b"x"]), pack([b"k"]))
    with pytest.raises(DeliveryError, match=rf"deliver a message to {prefix}.absent: "):
        outbox.flush()
    outbox.close()


def test_read_all_ends_where_the_topic_ended_when_it_began(
    settings: dict[str, str], topic: str, topics: Topics
) -> None:
    assert list(read_all(settings, topic, 0)) == []
    publish(settings, topic, range(10), partition=0)
    assert [message.value() for message in read_all(settings, topic, 0, 7)] == [b"7", b"8", b"9"]

    topics.cut(topic, 0, 10)
    assert list(read_all(settings, topic, 0)) == []


def test_a_reader_follows_what_is_written(settings: dict[str, str], topic: str) -> None:
    publish(settings, topic, range(4))
    reader = Reader(settings)
    reader.assign(topic, {0: 1, 1: 0})
    values: list[bytes | None] = []
    while len(values) < 3:
        values += [message.value() for message in reader.poll(100, 1.0)]
    publish(settings, topic, range(4, 6))
    while len(values) < 5:
        values += [message.value() for message in reader.poll(100, 1.0)]

    assert sorted(value for value in values if value) == [b"1", b"2", b"3", b"4", b"5"]
    assert reader.end_offsets(topic, [0, 1]) == {0: 3, 1: 3}
    reader.close()


def spec(name: str, partitions: int = 2, retention_ms: int = WEEK_MS, *, compacted: bool = False) -> TopicSpec:
    return TopicSpec(name, partitions, retention_ms, is_compacted=compacted, is_user_topic=False)


def test_ensure_makes_absent_topics_and_is_content_with_them_afterwards(topics: Topics, prefix: str) -> None:
    specs = [spec(f"{prefix}.log", 4), spec(f"{prefix}.control", 1, -1, compacted=True), spec(f"{prefix}.kept", 1, -1)]

    assert topics.ensure(specs) == [f"{prefix}.log", f"{prefix}.control", f"{prefix}.kept"]
    assert topics.ensure(specs) == []
    assert topics.partitions(f"{prefix}.log") == 4


def test_ensure_names_every_difference_and_changes_nothing(topics: Topics, prefix: str) -> None:
    topics.ensure([spec(f"{prefix}.log", 4, 1_000)])

    with pytest.raises(TopicError) as caught:
        topics.ensure([spec(f"{prefix}.log", 8, WEEK_MS, compacted=False)])

    lines = str(caught.value).splitlines()
    assert [line.split(";")[0] for line in lines] == [
        f"topic {prefix}.log has partitions 4, the pipeline needs 8",
        f"topic {prefix}.log has retention.ms 1000, the pipeline needs at least {WEEK_MS}",
    ]
    assert topics.partitions(f"{prefix}.log") == 4


def test_a_compacted_topic_is_not_taken_for_a_log(topics: Topics, prefix: str) -> None:
    topics.ensure([spec(f"{prefix}.control", 1, -1, compacted=True)])

    with pytest.raises(TopicError, match=r"has cleanup.policy compact, the pipeline needs delete"):
        topics.ensure([spec(f"{prefix}.control", 1)])


def test_a_users_topic_may_look_as_it_likes(topics: Topics, prefix: str) -> None:
    topics.ensure([spec(f"{prefix}.raw", 3, 1_000)])

    assert topics.ensure([TopicSpec(f"{prefix}.raw", 4, WEEK_MS, is_compacted=False, is_user_topic=True)]) == []


def test_retention_for_ever_satisfies_any_but_not_the_other_way_round() -> None:
    config = {"cleanup.policy": "delete", "retention.ms": "-1", "max.message.bytes": "1048588"}

    assert mismatches(spec("log"), 2, config) == []
    (line,) = mismatches(spec("log", 2, -1), 2, config | {"retention.ms": "5"})
    assert line.startswith("topic log has retention.ms 5, the pipeline needs -1 (for ever)")


def test_a_topic_made_anew_has_another_uuid(topics: Topics, prefix: str) -> None:
    name = f"{prefix}.log"
    assert topics.uuid(name) is None
    topics.ensure([spec(name)])
    first = topics.uuid(name)
    assert first == topics.uuid(name)

    topics.delete([name, f"{prefix}.absent"])
    topics.ensure([spec(name)])

    assert topics.uuid(name) not in (None, first)


def test_refused_settings_do_not_show_secrets() -> None:
    with pytest.raises(PipelineError) as caught:
        KafkaOutbox({"bootstrap.servers": "127.0.0.1:1", "sasl.password": "hunter2", "security.protocol": "hunter2"})

    assert "security.protocol" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_restarted_broker_gets_everything_in_order(
    kafka_server: EmbeddedKafka,
    settings: dict[str, str],
    topic: str,
    join: Callable[..., Member],
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = 40_000
    outbox = KafkaOutbox(settings)
    member = join()
    poll_until(lambda: len(member.owned) == 2, member)
    is_down = threading.Event()

    def restart() -> None:
        kafka_server.stop()
        is_down.set()
        time.sleep(1.0)
        kafka_server.start()

    with caplog.at_level(logging.WARNING):
        restarting = threading.Thread(target=restart)
        for value in range(rows):
            outbox.produce(topic, value % 2, b"%d" % value)
            if value == rows // 4:
                restarting.start()
            if value == rows // 2:
                is_down.wait()
            if value % 1_000 == 0:
                member.poll()
        outbox.flush()
        restarting.join()
        poll_until(lambda: len(member.read) >= rows, member)

    for partition in (0, 1):
        values = [int(value or b"") for where, _, value in member.read if where == partition]
        expected = range(partition, rows, 2)
        # Not the lists themselves: a diff of so many numbers would take minutes to print.
        assert [pair for pair in zip(values, expected, strict=False) if pair[0] != pair[1]][:3] == []
        assert len(values) == len(expected)
    assert len(caplog.records) < 20
    outbox.close()
