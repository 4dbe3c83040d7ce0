"""Who waits for a prediction gets it, and who listens gets all of them, whatever else lies on the topic."""

from __future__ import annotations

import asyncio
import doctest
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from serving import answer_board
from serving.answer_board import AnswerBoard, AnswerTail
from streams.errors import MillraceError, UnavailableError
from tests import rows
from tests.memory_kafka import Record
from tests.system.conftest import until

A, B = b'{"id":"a","n":1}', b'{"id":"b"}'
FOREIGN = [
    b"",
    b"no JSON",
    b"[1]",
    b"null",
    b"{}",
    b'{"id":1}',
    b'{"id":"a"',
    b'{"id":"a",\n"n":1}',
    b'{"id":"a","t":"\xff"}',
    b'{"id":' + b"[" * 100_000,
]


def on_board(act: Callable[[AnswerBoard], Awaitable[Any]]) -> Any:
    """Do something in the loop that a board belongs to."""

    async def run() -> Any:
        return await act(AnswerBoard())

    return asyncio.run(run())


def test_all_who_wait_for_an_event_get_its_prediction_once() -> None:
    """A later one of the same id is for those who ask later."""

    async def act(board: AnswerBoard) -> Any:
        waiting = [board.expect("a"), board.expect("a"), board.expect("b")]
        board.post([A, b'{"id":"a","n":2}'])
        later = board.expect("a")
        return [one.done() and one.result() for one in [*waiting, later]]

    assert on_board(act) == [A, A, False, False]


def test_one_that_has_passed_is_found_by_who_asks_late() -> None:
    """The newest of its id, as long as it is among the last few; who does not ask late waits for the next."""

    async def act(board: AnswerBoard) -> Any:
        board.post([b'{"id":"a","n":0}', A, B])
        asked = [board.expect("a", is_late=True), board.expect("a")]
        board.post([B] * (answer_board.RECENT - 1))
        late = [board.expect(event, is_late=True) for event in "ab"]
        return [one.done() and one.result() for one in asked + late]

    assert on_board(act) == [A, False, False, B]


def test_who_waits_no_more_is_forgotten() -> None:
    """Others who wait for the same event are not, and nothing is left of one for whom nobody waits."""

    async def act(board: AnswerBoard) -> Any:
        gone, stays = board.expect("a"), board.expect("a")
        board.forget("a", gone)
        board.post([A])
        board.forget("a", stays)
        board.forget("a", board.expect("a"))
        return gone.done(), stays.result(), board._waiting

    assert on_board(act) == (False, A, {})


def test_who_was_cancelled_does_not_stand_in_anothers_way() -> None:
    async def act(board: AnswerBoard) -> Any:
        gone, stays = board.expect("a"), board.expect("a")
        gone.cancel()
        board.post([A])
        return stays.result()

    assert on_board(act) == A


def test_what_is_no_prediction_is_passed_over() -> None:
    """Anyone may write to a topic: those who wait and those who listen get what came with it, and only that."""

    async def act(board: AnswerBoard) -> Any:
        listener, waiting = board.listen(), board.expect("b")
        board.post([*FOREIGN, A, *FOREIGN, B, *FOREIGN])
        late = board.expect("a", is_late=True)
        board.expect("nobody", is_late=True)
        return waiting.result(), late.result(), await listener.take()

    assert on_board(act) == (B, A, [A, B])


def test_a_listener_gets_what_comes_from_then_on_until_it_reads_no_more() -> None:
    async def act(board: AnswerBoard) -> Any:
        board.post([A])
        one, two = board.listen(), board.listen()
        taking = asyncio.ensure_future(one.take())
        await asyncio.sleep(0)
        board.post(FOREIGN)
        board.post([B])
        first = await taking
        one.close()
        board.post([A])
        return first, list(one._values), await two.take()

    assert on_board(act) == ([B], [], [B, A])


def test_a_listener_that_is_too_far_behind_ends_after_what_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one, which reads, goes on."""
    monkeypatch.setattr(answer_board, "MOST_BEHIND", 2)

    async def act(board: AnswerBoard) -> Any:
        slow, quick = board.listen(), board.listen()
        board.post([A, B])
        read = await quick.take()
        board.post([B])
        return await slow.take(), slow.is_lost, await slow.take(), read + await quick.take()

    assert on_board(act) == ([A, B], True, [], [A, B, B])


class FakeReader:
    """The predictions topic, of one partition: what there is to read, or an error that reading ends with."""

    log: list[bytes | None]
    errors: list[Exception]
    is_there: threading.Event

    def __init__(self, settings: object) -> None:
        self.at = 0

    def partitions(self, topic: str) -> int:
        assert self.is_there.wait(30)
        return 1

    def start_offsets(self, topic: str, partitions: list[int]) -> dict[int, int]:
        return {0: 0}

    def end_offsets(self, topic: str, partitions: list[int]) -> dict[int, int]:
        return {0: len(self.log)}

    def assign(self, topic: str, places: dict[int, int]) -> None:
        self.at = places[0]

    def poll(self, most: int, wait_s: float) -> list[Record]:
        if self.errors:
            raise self.errors.pop()
        found = [Record("p.predictions", 0, at, 0, None, self.log[at], None) for at in range(self.at, len(self.log))]
        self.at = len(self.log)
        return found

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("error", [UnavailableError("Kafka is away"), RuntimeError("a bug")])
def test_the_topic_is_followed_again_after_whatever_error(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Meanwhile the process says that it is not ready; what came in between is read afterwards, a tombstone too."""
    monkeypatch.setattr(answer_board, "Reader", FakeReader)
    monkeypatch.setattr(answer_board, "Topics", FakeReader)
    monkeypatch.setattr(answer_board, "RETRY_S", 0.001)
    log, errors, is_there = [A, None], list[Exception](), threading.Event()
    for name, part in (("log", log), ("errors", errors), ("is_there", is_there)):
        monkeypatch.setattr(FakeReader, name, part, raising=False)

    async def act(board: AnswerBoard) -> Any:
        listener, tail = board.listen(), AnswerTail(rows.pipeline(), board, asyncio.get_running_loop())
        is_there.set()
        tail.start()
        until(lambda: tail.is_reading)
        is_there.clear()
        errors.append(error)
        until(lambda: not tail.is_reading)
        log.extend([None, B])
        is_there.set()
        found = await listener.take()
        is_back = tail.is_reading
        tail.close()
        return found, is_back

    assert on_board(act) == ([B], True)
    assert [record.levelno for record in caplog.records] == [
        logging.WARNING if isinstance(error, MillraceError) else logging.ERROR
    ]


def test_the_example_holds() -> None:
    assert doctest.testmod(answer_board).failed == 0
