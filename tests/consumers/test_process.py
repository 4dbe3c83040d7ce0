"""Workers that share a process: each in a thread of its own, and what one's failure does to the others."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest

from consumers.process import run_all
from streams.errors import FrameError

pytestmark = pytest.mark.timeout(20)


def test_workers_run_side_by_side_until_they_are_told_to_stop() -> None:
    """Each waits for the others here: one after the other, none would end."""
    stopping, together, ended = threading.Event(), threading.Barrier(3), []

    def run(name: str) -> None:
        together.wait(10)
        stopping.wait(10)
        ended.append(name)

    threading.Timer(0.05, stopping.set).start()
    run_all([partial(run, name) for name in "abc"], stopping)

    assert sorted(ended) == ["a", "b", "c"]


def test_when_one_fails_the_others_drain_and_its_error_is_raised() -> None:
    stopping, drained = threading.Event(), []

    def good() -> None:
        stopping.wait(10)
        time.sleep(0.05)
        drained.append("good")

    def bad() -> None:
        raise FrameError("a hole")

    with pytest.raises(FrameError, match="a hole"):
        run_all([good, bad, good], stopping)

    assert drained == ["good", "good"]


def test_one_alone_runs_in_the_thread_that_has_the_signals() -> None:
    found: list[threading.Thread] = []
    run_all([lambda: found.append(threading.current_thread())], threading.Event())

    assert found == [threading.main_thread()]
