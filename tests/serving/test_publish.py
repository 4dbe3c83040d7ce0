"""Publishing: order, rate, marks, keys, and lines that are not JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.publish import Publisher, RawRecord, check_rate, merged, publish_files, read_lines
from streams.errors import PipelineError
from streams.memory import HeapBytes
from streams.pipeline_file import read_pipeline
from streams.records import Headers, Packed, Payload

PIPELINE = read_pipeline(Path(__file__).parents[2] / "examples" / "flights.toml")
EVENTS, LABELS = PIPELINE.events.topic, PIPELINE.labels.topic
Sent = tuple[str, int | None, bytes | None, bytes | None, object]


class Outbox:
    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.is_flushed = False

    def produce(
        self,
        topic: str,
        partition: int | None,
        value: Payload | None,
        key: bytes | None = None,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> None:
        self.sent.append((topic, partition, None if value is None else bytes(value), key, headers))
        self.is_flushed = False

    def produce_many(self, topic: str, partition: int | None, values: Packed, keys: Packed | None = None) -> None:
        raise NotImplementedError

    def give(self, topic: str, partition: int, value: HeapBytes, headers: Headers) -> None:
        raise NotImplementedError

    def poll(self) -> None:
        pass

    def flush(self) -> None:
        self.is_flushed = True

    def close(self) -> None:
        pass


class Time:
    """A clock that only sleeping and looking at it moves."""

    def __init__(self, look_s: float = 0.0) -> None:
        self.now, self.look_s = 0.0, look_s

    def clock(self) -> float:
        self.now += self.look_s
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def records(count: int) -> list[RawRecord]:
    """Events a second of event time apart, each followed by a label."""
    return [RawRecord(1_000_000 * (n // 2), n % 2 == 1, b"k", b"%d" % n) for n in range(count)]


def marks(sent: list[Sent]) -> list[tuple[str, int | None, bytes]]:
    """The marks among what was sent: topic, partition, text."""
    return [(topic, partition, headers[0][1]) for topic, partition, _, _, headers in sent if isinstance(headers, list)]


def test_records_go_to_their_topics_by_key() -> None:
    """Kafka places records by their key; values are untouched; all is flushed at the end."""
    outbox = Outbox()
    publisher = Publisher(PIPELINE, outbox, {})
    publisher.publish(records(3))

    assert outbox.sent == [
        (EVENTS, None, b"0", b"k", None),
        (LABELS, None, b"1", b"k", None),
        (EVENTS, None, b"2", b"k", None),
    ]
    assert (publisher.events, publisher.labels, outbox.is_flushed) == (2, 1, True)


def test_a_rate_counts_events_only() -> None:
    """At 10 events a second 20 events and their labels take 2 seconds."""
    time = Time()
    Publisher(PIPELINE, Outbox(), {}, rate=10.0, clock=time.clock, sleep=time.sleep).publish(records(40))

    assert 1.9 <= time.now <= 2.0


def test_marks_go_to_every_partition_and_stay_behind_what_follows() -> None:
    """A mark is earlier than the next record, for others of the same time may follow; `end` comes last."""
    outbox, time = Outbox(), Time(look_s=0.06)
    partitions = {EVENTS: 2, LABELS: 1}
    publisher = Publisher(PIPELINE, outbox, partitions, rate=1e9, has_marks=True, clock=time.clock, sleep=time.sleep)
    publisher.publish(records(9))
    found = marks(outbox.sent)
    times = [int(text) for _, _, text in found if text != b"end"]

    assert found[-3:] == [(EVENTS, 0, b"end"), (EVENTS, 1, b"end"), (LABELS, 0, b"end")]
    assert times == sorted(times)
    assert len(times) >= 6
    for index, sent in enumerate(outbox.sent):
        if sent[4] is None and sent[2] is not None:
            before = [int(text) for _, _, text in marks(outbox.sent[:index])]
            assert all(mark < records(9)[int(sent[2])].time_us for mark in before)


def test_without_marks_none_are_sent() -> None:
    """Publishing by hand promises nothing about what follows."""
    outbox = Outbox()
    Publisher(PIPELINE, outbox, {EVENTS: 4}).publish(records(4))

    assert marks(outbox.sent) == []


def test_lines_are_keyed_and_timed_by_the_declaration() -> None:
    """Key and time come from the declared paths; empty lines are nothing."""
    lines = [b'{"tail": "N1", "departed_at": "2013-01-01T00:00:01Z"}\n', b"\n", b'{"tail": 7}']

    assert list(read_lines(lines, PIPELINE.events, is_label=False)) == [
        RawRecord(1_356_998_401_000_000, False, b"N1", lines[0].strip()),
        RawRecord(1_356_998_401_000_000, False, b"7", lines[2]),
    ]


@pytest.mark.parametrize("line", [b"{", b"\xff", b"[" * 100_000, b'"text"', b'{"departed_at": "soon"}'])
def test_damaged_lines_are_published_as_they_are(line: bytes) -> None:
    """What is wrong with a record is for ingest to find."""
    ((_, _, key, value),) = read_lines([line], PIPELINE.events, is_label=False)

    assert (key, value) == (None, line)


def test_merging_puts_events_before_labels_of_the_same_time() -> None:
    """Two files in time order become one stream in time order."""
    events = [RawRecord(time, False, None, b"") for time in (1, 3)]
    labels = [RawRecord(time, True, None, b"") for time in (1, 2)]

    order = [(one.time_us, one.is_label) for one in merged(events, labels)]

    assert order == [(1, False), (1, True), (2, True), (3, False)]


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_must_be_above_zero(rate: float) -> None:
    """A rate that would never publish anything is refused."""
    with pytest.raises(PipelineError, match=r"--rate .*: must be above 0"):
        check_rate(rate)


def test_nothing_and_the_same_input_twice_are_refused() -> None:
    """The two mistakes one makes with two inputs."""
    with pytest.raises(PipelineError, match="nothing to publish"):
        publish_files(PIPELINE, None, None, None)
    with pytest.raises(PipelineError, match="same input"):
        publish_files(PIPELINE, "-", "-", None)
