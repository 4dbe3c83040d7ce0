"""Where a dataset goes, and the times of events that wait."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import event_times
from serving.dataset import clear
from serving.event_times import EventTimes
from streams.errors import PipelineError, UnavailableError


def test_a_directory_with_something_in_it_is_refused(tmp_path: Path) -> None:
    """Nobody's files are mixed with ours by mistake."""
    (tmp_path / "notes.txt").touch()

    with pytest.raises(PipelineError, match=r"is not empty.*--force"):
        clear(tmp_path, is_forced=False)


def test_force_removes_an_earlier_dataset_and_nothing_else(tmp_path: Path) -> None:
    """Also what an interrupted backfill has left."""
    ours = [tmp_path / "partition=1" / name for name in ("part-00000.parquet", ".part-00001.parquet")]
    theirs = [tmp_path / "notes.txt", tmp_path / "partition=1" / "notes.txt", tmp_path / "part-00000.parquet"]
    ours[0].parent.mkdir()
    for path in (*ours, *theirs):
        path.touch()
    clear(tmp_path, is_forced=True)

    assert [path.exists() for path in (*ours, *theirs)] == [False, False, True, True, True]


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """The system's word for it, and what to do."""
    (tmp_path / "file").touch()

    with pytest.raises(UnavailableError, match=r"cannot be written: .*; name another directory"):
        clear(tmp_path / "file" / "out", is_forced=False)


@given(steps=st.lists(st.tuples(st.integers(0, 9), st.randoms(use_true_random=False)), max_size=30))
def test_times_are_kept_as_long_as_events_wait(steps: list[tuple[int, object]]) -> None:
    """However settling and growing alternate; compared with a dict."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_times, "LEAST_ROOM", 2)  # so that it grows all the time
        _keep(steps)


def test_examples_in_the_docstrings_run() -> None:
    """The numbers in the docstrings are the numbers the code gives."""
    assert doctest.testmod(event_times, extraglobs={"np": np, "EventTimes": EventTimes}).failed == 0


def _keep(steps: list[tuple[int, object]]) -> None:
    times, waiting, number = EventTimes(), dict[int, int](), 0
    for more, random in steps:
        new = {number + place: 1_000 + 7 * (number + place) for place in range(more)}
        times.add(np.array(list(new.values()), np.int64))
        waiting |= new
        number += more
        settled = [n for n in waiting if random.random() < 0.6]  # type: ignore[attr-defined]  # hypothesis' own Random
        random.shuffle(settled)  # type: ignore[attr-defined]  # as above

        assert times.settle(np.array(settled, np.int64)).tolist() == [waiting.pop(n) for n in settled]
        assert times.waiting().tolist() == list(waiting.values())
