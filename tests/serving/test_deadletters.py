"""Dead letters: listed once each, sent again exactly once, also over a crash half-way."""

from __future__ import annotations

import base64
import doctest
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from serving import deadletters
from serving.deadletters import (
    REPLAY_HEADER,
    Done,
    Intent,
    Ledger,
    Letter,
    Place,
    read_ledger,
    replay_letters,
    show_letters,
)
from streams.embedded import EmbeddedKafka
from streams.kafka import KafkaOutbox, Message, Topics, read_all
from streams.pipeline import Pipeline
from streams.pipeline_file import read_pipeline
from streams.topic_specs import topic_specs

ENCODE = msgspec.json.encode


def letter(offset: int, value: bytes = b"{", partition: int = 0) -> Letter:
    """A dead letter of the flights pipeline."""
    key = base64.b64encode(b"N1").decode()
    return Letter(
        "flights.departures", partition, offset, "not JSON", "malformed", 5, key, base64.b64encode(value).decode()
    )


def test_a_letter_written_twice_is_one() -> None:
    """Ingest repeats letters after a crash; topic, partition and offset tell them apart."""
    ledger = Ledger([ENCODE(letter(7)), ENCODE(letter(8)), ENCODE(letter(7))])

    assert [one.offset for one in ledger.open()] == [7, 8]


def test_sent_letters_and_their_copies_are_closed() -> None:
    """A copy that is refused once more is not sent again by itself."""
    original, copy = letter(7).place, letter(9).place
    ledger = Ledger([ENCODE(letter(7)), ENCODE(Done([(original, copy)])), ENCODE(letter(9)), ENCODE(letter(10))])

    assert [one.offset for one in ledger.open()] == [10]
    assert ledger.original(copy) == original


def test_a_letter_kept_in_part_is_never_sent() -> None:
    """Half a record is not the record."""
    ledger = Ledger([ENCODE(msgspec.structs.replace(letter(7), is_cut=True)), ENCODE(letter(8))])

    assert [one.offset for one in ledger.open()] == [8]


def test_an_intent_is_unfinished_until_all_of_it_is_written_down() -> None:
    """A replay killed half-way is seen by the next one."""
    places = [letter(7).place, letter(8).place]
    intent = Intent(places, [Place("flights.departures", 0, 9)])
    half = [ENCODE(letter(7)), ENCODE(letter(8)), ENCODE(intent), ENCODE(Done([(places[0], letter(9).place)]))]

    assert Ledger(half).unfinished() == [intent]
    assert Ledger([*half, ENCODE(Done([(places[1], letter(10).place)]))]).unfinished() == []


def test_examples_in_the_docstrings_run() -> None:
    """The docstring's ledger says what it says."""
    assert doctest.testmod(deadletters).failed == 0


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """A real Kafka."""
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture
def pipeline(kafka: EmbeddedKafka) -> Iterator[Pipeline]:
    """The flights pipeline with fresh topics."""
    flights = read_pipeline(Path(__file__).parents[2] / "examples" / "flights.toml")
    found = msgspec.structs.replace(flights, kafka=kafka.settings)
    topics = Topics(found.kafka)
    topics.ensure(topic_specs(found))
    yield found
    topics.delete([spec.name for spec in topic_specs(found)])
    topics.close()


def bury(pipeline: Pipeline, *letters: Letter) -> None:
    """Write dead letters as ingest does."""
    outbox = KafkaOutbox(pipeline.kafka)
    for one in letters:
        outbox.produce("flights.deadletters", 0, ENCODE(one))
    outbox.flush()
    outbox.close()


def raw(pipeline: Pipeline, partition: int = 0) -> list[Message]:
    """What lies in a partition of the departures."""
    return list(read_all(pipeline.kafka, "flights.departures", partition))


def test_replay_sends_each_record_once(pipeline: Pipeline) -> None:
    """Value, key and partition are the original's, the header names it, and a second replay sends nothing."""
    bury(pipeline, letter(7, b"first"), letter(3, b"second", partition=2), letter(7, b"first"))

    assert replay_letters(pipeline) == 2
    assert replay_letters(pipeline) == 0
    (copy,) = raw(pipeline)
    assert (copy.value(), copy.key()) == (b"first", b"N1")
    assert dict(copy.headers() or []) == {REPLAY_HEADER: b"flights.departures/0/7"}
    assert [message.value() for message in raw(pipeline, 2)] == [b"second"]


def test_a_refused_copy_is_not_sent_for_ever(pipeline: Pipeline) -> None:
    """What is still wrong after a replay becomes a letter of its own, which is listed and stays."""
    bury(pipeline, letter(7))
    replay_letters(pipeline)
    (copy,) = raw(pipeline)
    bury(pipeline, letter(copy.offset()), letter(100))

    assert replay_letters(pipeline) == 1
    assert len(raw(pipeline)) == 2


@pytest.mark.parametrize("sent", [0, 1, 2])
def test_a_replay_killed_half_way_is_finished(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, sent: int) -> None:
    """However many copies went out before the crash, each record is sent once in the end."""
    bury(pipeline, letter(7, b"a"), letter(8, b"b"))
    real = deadletters.send
    calls = 0

    def crash(one: Letter, outbox: KafkaOutbox) -> None:
        nonlocal calls
        if calls == sent:
            raise KeyboardInterrupt
        calls += 1
        real(one, outbox)

    monkeypatch.setattr(deadletters, "send", crash)
    if sent == 2:
        monkeypatch.setattr(deadletters, "_write_down", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        replay_letters(pipeline)
    monkeypatch.undo()
    replay_letters(pipeline)
    replay_letters(pipeline)

    assert sorted(message.value() or b"" for message in raw(pipeline)) == [b"a", b"b"]
    assert read_ledger(pipeline).open() == []


def test_letters_are_listed_with_their_state(pipeline: Pipeline, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """As JSON lines with the original bytes; as a table for people."""
    bury(pipeline, letter(7, b'{"note": "[red]"'))
    replay_letters(pipeline)
    show_letters(pipeline, as_json=True)
    (line,) = capfdbinary.readouterr().out.splitlines()
    show_letters(pipeline, as_json=False)
    shown = capfdbinary.readouterr().out.decode()

    record = msgspec.json.decode(line)
    assert (record["offset"], record["is_replayed"]) == (7, True)
    assert base64.b64decode(record["value"]) == b'{"note": "[red]"'
    assert '{"note": "[red]"' in shown
    assert "sent again" in shown
    assert "dead letters: 1, to be sent by --replay: 0" in shown
