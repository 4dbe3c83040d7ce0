"""Predictions on their way to those who wait for them over HTTP.

One thread follows P.predictions from its end; everything else belongs to the event loop. A record is looked into only
if somebody waits or listens, and only for its id: at 300,000 predictions a second decoding each would cost a core. What
is no prediction is passed over: anyone may write to a topic.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Sequence

import msgspec

from streams.errors import MillraceError
from streams.kafka import Reader, Topics
from streams.pipeline import Pipeline

LOG = logging.getLogger("serving.answer_board")
RECENT = 4_096  # predictions kept for who asks late: an id that is the record's position is known after publishing only
MOST_BEHIND = 10_000  # records that a listener may be behind; then it is let go
POLL_RECORDS, POLL_S = 5_000, 0.1
RETRY_S = 1.0
LOST = f"this reader was more than {MOST_BEHIND:,} predictions behind and was let go; they are on the predictions topic"


class _Id(msgspec.Struct):
    id: str


_decoded = msgspec.json.Decoder(_Id).decode


def _id_of(value: bytes) -> str | None:
    """Give a prediction's id; None of what is none, or not a line."""
    try:
        return None if b"\n" in value else _decoded(value.decode()).id
    except (ValueError, RecursionError):
        return None


class AnswerBoard:
    """Who waits for which prediction. Belongs to one event loop.

    Example:
        >>> async def wait() -> bytes:
        ...     board = AnswerBoard()
        ...     waiting = board.expect("a")
        ...     board.post([b'{"id":"b"}', b'{"id":"a"}'])
        ...     return await waiting
        >>> asyncio.run(wait())
        b'{"id":"a"}'
    """

    def __init__(self) -> None:
        self._waiting: dict[str, list[asyncio.Future[bytes]]] = {}
        self._recent: deque[bytes] = deque(maxlen=RECENT)
        self._listeners: set[Listener] = set()

    def expect(self, event: str, *, is_late: bool = False) -> asyncio.Future[bytes]:
        """Give what will hold the next prediction for an event; `is_late` takes one that has just passed, too."""
        waiting = asyncio.get_running_loop().create_future()
        if is_late:
            for value in reversed(self._recent):
                if _id_of(value) == event:
                    waiting.set_result(value)
                    return waiting
        self._waiting.setdefault(event, []).append(waiting)
        return waiting

    def forget(self, event: str, waiting: asyncio.Future[bytes]) -> None:
        """Let go of one that waits no more."""
        found = self._waiting.get(event, [])
        if waiting in found:
            found.remove(waiting)
        if not found:
            self._waiting.pop(event, None)

    def listen(self) -> Listener:
        """Give a queue of all predictions from now on."""
        listener = Listener(self)
        self._listeners.add(listener)
        return listener

    def dismiss(self, listener: Listener) -> None:
        """End a queue."""
        self._listeners.discard(listener)

    def post(self, values: Sequence[bytes]) -> None:
        """Hand out predictions as they came."""
        self._recent.extend(values[-RECENT:])
        if not self._waiting and not self._listeners:
            return
        sound = [(event, value) for value in values if (event := _id_of(value)) is not None]
        for listener in list(self._listeners):
            listener.put([value for _, value in sound])
        for event, value in sound:
            for waiting in self._waiting.pop(event, ()):
                if not waiting.done():
                    waiting.set_result(value)


class Listener:
    """One who reads all predictions; when too far behind it ends, so that nobody's memory fills."""

    def __init__(self, board: AnswerBoard) -> None:
        self._board = board
        self._values: deque[bytes] = deque()
        self._has_more = asyncio.Event()
        self.is_lost = False

    def put(self, values: Sequence[bytes]) -> None:
        """Take predictions."""
        if len(self._values) + len(values) > MOST_BEHIND:
            self.is_lost = True
            self._board.dismiss(self)
        else:
            self._values.extend(values)
        self._has_more.set()

    async def take(self) -> list[bytes]:
        """Wait for predictions; none means that it was too slow and has ended."""
        while not self._values and not self.is_lost:
            self._has_more.clear()
            await self._has_more.wait()
        taken = list(self._values)
        self._values.clear()
        return taken

    def close(self) -> None:
        """Read no more."""
        self._board.dismiss(self)


class AnswerTail:
    """The thread that follows P.predictions. What was answered while Kafka was away is read when it is back.

    Args:
        pipeline: its predictions topic is followed.
        board: gets what comes, in the loop's thread.
        loop: where the board lives.
    """

    def __init__(self, pipeline: Pipeline, board: AnswerBoard, loop: asyncio.AbstractEventLoop) -> None:
        self._pipeline, self._board, self._loop = pipeline, board, loop
        self._topic = f"{pipeline.name}.predictions"
        self._positions: dict[int, int] = {}
        self._is_closing, self._is_reading = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="predictions", daemon=True)

    @property
    def is_reading(self) -> bool:
        """Whether it has found its place in the topic."""
        return self._is_reading.is_set()

    def start(self) -> None:
        """Begin at the end as it is now."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._is_closing.set()
        self._thread.join(10 * POLL_S)

    def _follow(self) -> None:
        while not self._is_closing.is_set():
            try:
                self._read()
            except MillraceError as error:
                LOG.warning("%s: %s", self._topic, error)
            except Exception:  # without this thread nobody who waits is answered, and nobody would know
                LOG.exception("%s: cannot be followed, and is tried again", self._topic)
            self._is_reading.clear()
            self._is_closing.wait(RETRY_S)

    def _read(self) -> None:
        reader = Reader(self._pipeline.kafka)
        try:
            reader.assign(self._topic, self._places(reader))
            self._is_reading.set()
            while not self._is_closing.is_set():
                values = []
                for message in reader.poll(POLL_RECORDS, POLL_S):
                    self._positions[message.partition()] = message.offset() + 1
                    values.append(message.value() or b"")
                if values:
                    self._loop.call_soon_threadsafe(self._board.post, values)
        finally:
            reader.close()

    def _places(self, reader: Reader) -> dict[int, int]:
        topics = Topics(self._pipeline.kafka)
        try:
            partitions = list(range(topics.partitions(self._topic)))
        finally:
            topics.close()
        ends, starts = reader.end_offsets(self._topic, partitions), reader.start_offsets(self._topic, partitions)
        known = self._positions
        places = {p: known[p] if starts[p] <= known.get(p, -1) <= ends[p] else ends[p] for p in partitions}
        self._positions = dict(places)
        return places
