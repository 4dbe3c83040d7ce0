"""Kafka in memory, for whole workers in one thread: partitions, groups, acknowledgements and crashes under control.

What a producer sent but did not flush is lost in a crash, except a prefix per partition: the gapless run that an
idempotent producer leaves behind.
"""

from __future__ import annotations

import ctypes
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from streams import records
from streams.kafka import RebalancedError
from streams.memory import HeapBytes
from streams.records import HeldRecords, Packed, Payload, Records
from streams.topic_specs import TopicSpec

Partition = tuple[str, int]
Headers = list[tuple[str, bytes]] | None
Queued = tuple[str, int, bytes | None, bytes | None, Headers]
OnAssign = Callable[[list[Partition]], dict[Partition, int]]
OnRevoke = Callable[[list[Partition]], None]


@dataclass
class Record:
    """One stored record; it answers like the client's own message."""

    topic_: str
    partition_: int
    offset_: int
    stamp_ms: int
    key_: bytes | None
    value_: bytes | None
    headers_: list[tuple[str, bytes]] | None

    def topic(self) -> str:
        return self.topic_

    def partition(self) -> int:
        return self.partition_

    def offset(self) -> int:
        return self.offset_

    def timestamp(self) -> tuple[int, int]:
        return (1, self.stamp_ms)

    def key(self) -> bytes | None:
        return self.key_

    def value(self) -> bytes | None:
        return self.value_

    def headers(self) -> list[tuple[str, bytes]] | None:
        return self.headers_


class LentRecords(HeldRecords):
    """Records whose bytes are somebody else's once they are given back, as those of the real client are."""

    def __init__(self, topic: str, partition: int, parts: Sequence[records.Record]) -> None:
        super().__init__(topic, partition, parts)
        self._lent = self._data.copy()
        self.addresses += self._lent.ctypes.data - self._data.ctypes.data

    def release(self) -> None:
        self._lent[:] = 0xA5

    def __del__(self) -> None:
        self.release()


def held(messages: Sequence[Record]) -> HeldRecords:
    """Give messages of one partition as a worker gets them."""
    parts = [records.Record(m.value_, m.offset_, m.stamp_ms * 1000, m.key_, tuple(m.headers_ or ())) for m in messages]
    return LentRecords(messages[0].topic_, messages[0].partition_, parts)


@dataclass
class Broker:
    """Topics and committed offsets. Also answers what workers ask about topics."""

    clock: Callable[[], float]
    counts: dict[str, int]
    logs: dict[Partition, list[Record]] = field(default_factory=lambda: defaultdict(list))
    low: dict[Partition, int] = field(default_factory=lambda: defaultdict(int))
    commits: dict[tuple[str, str, int], tuple[int, str]] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    joined: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def append(
        self,
        topic: str,
        partition: int,
        value: bytes | None,
        key: bytes | None = None,
        headers: list[tuple[str, bytes]] | None = None,
        stamp_ms: int | None = None,
    ) -> None:
        log = self.logs[topic, partition]
        stamp = int(self.clock() * 1000) if stamp_ms is None else stamp_ms
        log.append(Record(topic, partition, len(log), stamp, key, value, headers))

    def uuid(self, topic: str) -> str:
        return self.ids.setdefault(topic, f"uuid-{topic}")

    def partitions(self, topic: str) -> int:
        return self.counts.get(topic, 1)

    # What changes topics

    def ensure(self, specs: Sequence[TopicSpec]) -> list[str]:
        absent = [spec for spec in specs if spec.name not in self.counts]
        self.counts.update({spec.name: spec.partitions for spec in absent})
        return [spec.name for spec in absent]

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            for partition in range(self.counts.pop(name, 1)):
                self.logs.pop((name, partition), None)
            self.ids[name] = f"{self.uuid(name)}'"
        self.commits = {key: commit for key, commit in self.commits.items() if key[1] not in names}

    def grow(self, topic: str, partitions: int) -> None:
        self.counts[topic] = max(partitions, self.counts[topic])

    def forget(self, group: str) -> None:
        self.commits = {key: commit for key, commit in self.commits.items() if key[0] != group}

    def members(self, group: str) -> int:
        return self.joined[group]

    # The reader of a role's own output

    def end(self, topic: str, partition: int) -> int:
        return len(self.logs[topic, partition])

    def read(self, topic: str, partition: int, start: int) -> list[bytes]:
        return [r.value_ or b"" for r in self.logs[topic, partition][start:]]


class MemoryInbox:
    """A group member whose partitions the test gives and takes."""

    def __init__(self, broker: Broker, group: str) -> None:
        self.broker, self.group = broker, group
        self.positions: dict[Partition, int] = {}
        self.held_back: set[Partition] = set()
        self.wanted: dict[Partition, int] = {}
        self.is_fenced = False
        self.limit = 1_000_000
        self.rng = random.Random(0)

    def subscribe(self, topics: list[str], on_assign: OnAssign, on_revoke: OnRevoke, on_lost: OnRevoke) -> None:
        self.topics, self.on_assign, self.on_revoke, self.on_lost = topics, on_assign, on_revoke, on_lost

    def give(self, partitions: list[Partition]) -> None:
        self.positions.update(self.on_assign(partitions))

    def withdraw(self, partitions: list[Partition]) -> None:
        self.on_revoke(partitions)
        for key in partitions:
            self.positions.pop(key, None)

    def poll(self, wanted: Mapping[Partition, int], timeout_s: float) -> list[Records]:
        self.wanted = dict(wanted)
        keys = [key for key in sorted(wanted) if key in self.positions and key not in self.held_back]
        self.rng.shuffle(keys)
        parts = [self.take(key, min(wanted[key], self.rng.randint(0, self.limit))) for key in keys]
        return [held(part) for part in parts if part]

    def take(self, key: Partition, most: int) -> list[Record]:
        start = self.positions[key]
        part = self.broker.logs[key][start : start + most]
        self.positions[key] = start + len(part)
        return part

    def commit(self, offsets: dict[Partition, tuple[int, str]]) -> None:
        if self.is_fenced:
            raise RebalancedError("fenced")
        for (topic, partition), value in offsets.items():
            self.broker.commits[self.group, topic, partition] = value

    def committed(self, partitions: list[Partition]) -> dict[Partition, tuple[int, str]]:
        commits = self.broker.commits
        return {key: commits[self.group, *key] for key in partitions if (self.group, *key) in commits}

    def watermarks(self, topic: str, partition: int) -> tuple[int, int]:
        return self.broker.low[topic, partition], len(self.broker.logs[topic, partition])

    def known_end(self, topic: str, partition: int) -> int:
        return len(self.broker.logs[topic, partition])

    def is_void(self, topic: str, partition: int, start: int, end: int) -> bool:
        return start >= end

    def close(self) -> None:
        self.positions.clear()


class MemoryOutbox:
    """A producer whose unacknowledged records a crash cuts per partition."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.queue: list[Queued] = []

    def produce(
        self,
        topic: str,
        partition: int | None,
        value: Payload | None,
        key: bytes | None = None,
        headers: Headers = None,
    ) -> None:
        self.queue.append((topic, partition or 0, None if value is None else bytes(value), key, headers))

    def produce_many(self, topic: str, partition: int | None, values: Packed, keys: Packed | None = None) -> None:
        own_keys = keys.unpack() if keys else [None] * values.size
        for value, key in zip(values.unpack(), own_keys, strict=True):
            self.produce(topic, partition, value, key)

    def give(self, topic: str, partition: int, value: HeapBytes, headers: records.Headers) -> None:
        self.produce(topic, partition, bytes(value), None, headers)
        ctypes.memset(value.address, 0xA5, value.size)  # as memory that somebody else has by now

    def flush(self) -> None:
        for record in self.queue:
            self.broker.append(*record)
        self.queue.clear()

    def deliver_some(self, rng: random.Random) -> None:
        """Deliver a prefix per partition, as the network happens to do; the rest stays queued, in order."""
        partitions = {(r[0], r[1]) for r in self.queue}
        share = {key: rng.choice([0.0, 0.5, 1.0]) for key in sorted(partitions)}
        sizes = {key: int(share[key] * sum((r[0], r[1]) == key for r in self.queue)) for key in partitions}
        left = []
        for record in self.queue:
            key = (record[0], record[1])
            if sizes[key] > 0:
                sizes[key] -= 1
                self.broker.append(*record)
            else:
                left.append(record)
        self.queue = left

    def crash(self, rng: random.Random) -> None:
        self.deliver_some(rng)
        self.queue.clear()

    def poll(self) -> None:
        pass

    def close(self) -> None:
        self.flush()


class MemoryControlLog:
    """P.control in memory."""

    def __init__(self, broker: Broker, topic: str) -> None:
        self.broker, self.topic, self.at = broker, topic, 0

    def append(self, key: str, value: bytes) -> None:
        self.broker.append(self.topic, 0, value, key.encode())

    def read_new(self) -> list[tuple[int, str, bytes | None]]:
        log = self.broker.logs[self.topic, 0]
        found = [(r.offset_, (r.key_ or b"").decode(), r.value_) for r in log[self.at :]]
        self.at = len(log)
        return found
