"""Dead letters: listing the records that could not be used, and sending each again exactly once.

The dead-letter topic is its own ledger. Replaying writes to it what it is about to send and from which offsets on its
copies can lie, sends the copies with a header that names the original, finds their offsets, and writes them down. A
replay that was killed half-way is finished by the next one: what already lies in the raw topics is not sent again.
A copy that is refused once more is listed, with its original, and never sent by itself: mend the cause first.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from streams.kafka import KafkaOutbox, Outbox, Reader, read_all
from streams.pipeline import Pipeline

REPLAY_HEADER = "millrace-replay"  # topic/partition/offset of the record this one repeats
SHOWN_BYTES = 60  # of a record, in the table


class Place(NamedTuple):
    """Where a record stands in Kafka."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        """Write it as the header does."""
        return f"{self.topic}/{self.partition}/{self.offset}"


class Letter(msgspec.Struct, frozen=True):
    """One record that could not be used, as ingest wrote it; `value` and `key` are base64."""

    topic: str
    partition: int
    offset: int
    reason: str
    error: str
    time_us: int
    key: str
    value: str
    is_cut: bool = False  # a huge record is kept in part, so it cannot be sent again from here

    @property
    def place(self) -> Place:
        """Where the original stands: what makes repeats of a letter one."""
        return Place(self.topic, self.partition, self.offset)


class Intent(msgspec.Struct, frozen=True):
    """A replay is about to send these; copies lie at or after `starts` (topic, partition, offset)."""

    replaying: list[Place]
    starts: list[Place]


class Done(msgspec.Struct, frozen=True):
    """These were sent: pairs of original and copy."""

    replayed: list[tuple[Place, Place]]


class Ledger:
    """The fold over the dead-letter topic.

    Example:
        >>> ledger = Ledger([msgspec.json.encode(Letter("t", 0, 7, "no id", "missing", 0, "", "e30="))])
        >>> [str(letter.place) for letter in ledger.open()]
        ['t/0/7']
    """

    def __init__(self, records: Iterable[bytes]) -> None:
        self.letters: dict[Place, Letter] = {}
        self.intents: list[Intent] = []
        self.copies: dict[Place, Place] = {}  # original -> copy
        for record in records:
            self._add(record)

    def open(self) -> list[Letter]:
        """The letters to send again: whole, never sent before, and no copies of earlier ones."""
        closed = {*self.copies, *self.copies.values()}
        return [one for place, one in self.letters.items() if place not in closed and not one.is_cut]

    def original(self, place: Place) -> Place | None:
        """The record that the one at `place` is a copy of."""
        return next((original for original, copy in self.copies.items() if copy == place), None)

    def unfinished(self) -> list[Intent]:
        """Replays that were announced and not written down as done."""
        return [one for one in self.intents if any(place not in self.copies for place in one.replaying)]

    def _add(self, record: bytes) -> None:
        fields = msgspec.json.decode(record)
        if "replaying" in fields:
            self.intents.append(msgspec.convert(fields, Intent))
        elif "replayed" in fields:
            self.copies.update(msgspec.convert(fields, Done).replayed)
        else:
            letter = msgspec.convert(fields, Letter)
            self.letters.setdefault(letter.place, letter)


def read_ledger(pipeline: Pipeline) -> Ledger:
    """Read the dead-letter topic from its beginning to the end it has now."""
    return Ledger(message.value() or b"{}" for message in read_all(pipeline.kafka, _topic(pipeline), 0))


def replay_letters(pipeline: Pipeline) -> int:
    """Send every open letter's record again to the partition it came from, and return how many were sent.

    Two replays at the same time would both send: run one at a time.
    """
    outbox = KafkaOutbox(pipeline.kafka)
    try:
        ledger = read_ledger(pipeline)
        if unfinished := ledger.unfinished():
            _write_down(pipeline, outbox, unfinished)
            ledger = read_ledger(pipeline)
        letters = ledger.open()
        if not letters:
            return 0
        intent = Intent([letter.place for letter in letters], _ends(pipeline, letters))
        outbox.produce(_topic(pipeline), 0, msgspec.json.encode(intent))
        outbox.flush()  # announced before the first copy is sent
        for letter in letters:
            send(letter, outbox)
        outbox.flush()
        _write_down(pipeline, outbox, [intent])
        return len(letters)
    finally:
        outbox.close()


def send(letter: Letter, outbox: Outbox) -> None:
    """Send one record again, to its own partition, with its own key and a header that names the original."""
    headers = [(REPLAY_HEADER, str(letter.place).encode())]
    key, value = base64.b64decode(letter.key), base64.b64decode(letter.value)
    outbox.produce(letter.topic, letter.partition, value or None, key or None, headers)


def show_letters(pipeline: Pipeline, *, as_json: bool) -> None:
    """Print all dead letters, each once, oldest first."""
    ledger = read_ledger(pipeline)
    if as_json:
        for letter in ledger.letters.values():
            original = ledger.original(letter.place)
            record = msgspec.to_builtins(letter) | {
                "is_replayed": letter.place in ledger.copies,
                "replay_of": str(original) if original else None,
            }
            sys.stdout.buffer.write(msgspec.json.encode(record) + b"\n")
        sys.stdout.buffer.flush()
        return
    _show_table(pipeline, ledger)


def _show_table(pipeline: Pipeline, ledger: Ledger) -> None:
    from rich.text import Text

    from serving.table import console, grid

    out = console()
    if not ledger.letters:
        out.print(f"{pipeline.name} has no dead letters")
        return
    table = grid("record", "published", "reason", "begins with", "", wrap=("reason", "begins with", ""))
    for letter in ledger.letters.values():
        moment = datetime.fromtimestamp(letter.time_us / 1e6, UTC)
        value = base64.b64decode(letter.value)[:SHOWN_BYTES].decode(errors="replace")
        # As text: brackets in a record are no markup.
        table.add_row(
            Text(str(letter.place)),
            f"{moment:%Y-%m-%d %H:%M:%S}",
            Text(letter.reason),
            Text(value),
            _state(letter, ledger),
        )
    out.print(table)
    out.print(f"dead letters: {len(ledger.letters)}, to be sent by --replay: {len(ledger.open())}")


def _state(letter: Letter, ledger: Ledger) -> str:
    if letter.place in ledger.copies:
        return "sent again"
    if letter.is_cut:
        return "kept in part: publish it yourself"
    original = ledger.original(letter.place)
    return f"copy of {original}" if original else ""


def _write_down(pipeline: Pipeline, outbox: Outbox, intents: list[Intent]) -> None:
    """Find the copies that were sent for these intents and note them on the dead-letter topic."""
    wanted = {str(place): place for intent in intents for place in intent.replaying}
    found: dict[Place, Place] = {}
    starts: dict[tuple[str, int], int] = {}
    for intent in intents:
        for topic, partition, offset in intent.starts:
            starts[topic, partition] = min(offset, starts.get((topic, partition), offset))
    for (topic, partition), announced in starts.items():
        start = max(announced, _first_offset(pipeline, topic, partition))
        for message in read_all(pipeline.kafka, topic, partition, start):
            name = dict(message.headers() or []).get(REPLAY_HEADER, b"").decode()
            if name in wanted:
                found.setdefault(wanted[name], Place(topic, partition, message.offset()))
    if found:
        outbox.produce(_topic(pipeline), 0, msgspec.json.encode(Done(list(found.items()))))
        outbox.flush()


def _ends(pipeline: Pipeline, letters: list[Letter]) -> list[Place]:
    reader = Reader(pipeline.kafka)
    try:
        topics = dict.fromkeys(letter.topic for letter in letters)
        partitions = {topic: {one.partition for one in letters if one.topic == topic} for topic in topics}
        return [
            Place(topic, partition, end)
            for topic, numbers in partitions.items()
            for partition, end in reader.end_offsets(topic, sorted(numbers)).items()
        ]
    finally:
        reader.close()


def _first_offset(pipeline: Pipeline, topic: str, partition: int) -> int:
    reader = Reader(pipeline.kafka)
    try:
        return reader.start_offsets(topic, [partition])[partition]
    finally:
        reader.close()


def _topic(pipeline: Pipeline) -> str:
    return f"{pipeline.name}.deadletters"
