"""Blocks in the order of labels: which losses are in them, whatever the batches and wherever a candidate began."""

from __future__ import annotations

import doctest

import numpy as np
import numpy.typing as npt
import pytest

from models import label_blocks
from models.label_blocks import MOST_IN_STRETCH, Blocks, LabelBlocks
from models.pending import Rows
from streams.frames import AMENDED, EVENT, LABEL, MISSING, NO_OUTCOME, SET


def traffic(events: int, sources: int = 2, seed: int = 0) -> tuple[Rows, npt.NDArray[np.float64]]:
    """Events of sources in turn, their labels later in another order; some are missing, some amended."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[float, int, int, int, int, int]] = []
    for event in range(events):
        source, number = event % sources, event // sources
        outcome = int(rng.choice([SET, MISSING], p=[0.9, 0.1]))
        later = event + rng.exponential(150.0)
        rows.append((event, EVENT, source, number, 1_000 * event, NO_OUTCOME))
        rows.append((later, LABEL, source, number, int(1_000 * later), outcome))
        if rng.random() < 0.02:
            rows.append((later + 50, LABEL, source, number, int(1_000 * later), AMENDED))
    rows.sort()
    _, kind, of_source, of_number, time, outcomes = zip(*rows, strict=True)
    loss = np.where(np.array(kind) == LABEL, rng.uniform(0.1, 0.9, len(rows)), np.nan)
    columns = np.array(kind, np.int8), np.array(of_source, np.int32), np.array(of_number), np.array(time)
    return Rows(*columns, np.zeros(len(rows)), np.array(outcomes, np.int8)), loss


def cut(rows: Rows, loss: npt.NDArray[np.float64], at: list[int], blocks: LabelBlocks | None = None) -> Blocks:
    """Feed rows in batches, through a snapshot each time."""
    blocks, found = blocks or LabelBlocks(), []
    for start, stop in zip([0, *at], [*at, rows.kind.size], strict=True):
        blocks.add(Rows._make(column[start:stop] for column in rows), loss[start:stop], start)
        found.append(blocks.take())
        restored = LabelBlocks()
        restored.restore(blocks.state())
        blocks = restored
    return Blocks(*(np.concatenate(columns) for columns in zip(*found, strict=True)))


def reference(rows: Rows, loss: npt.NDArray[np.float64]) -> list[tuple[int, int, list[float]]]:
    """The same row by row: (source, block, losses)."""
    stretch: dict[int, int] = {}
    counted: dict[int, int] = {}
    open_: dict[int, list[float]] = {}
    found = []
    for kind, source, number, outcome, value in zip(
        rows.kind, rows.source, rows.number, rows.outcome, loss, strict=True
    ):
        values = open_.setdefault(source, [])
        if kind == EVENT and number // 1_000 > stretch.get(source, -1):
            if values:
                found.append((source, max(stretch.get(source, -1), 0) * 2**20 + counted[source], values[:]))
            stretch[source], counted[source] = number // 1_000, 0
            values.clear()
        if kind == LABEL and outcome == SET:
            values.append(value)
        if len(values) == 100:
            found.append((source, stretch[source] * 2**20 + counted[source], values[:]))
            counted[source] += 1
            values.clear()
    return found


def test_blocks_are_the_set_labels_in_their_order() -> None:
    """Each hundred of a source, a shorter one where its events pass a thousand."""
    rows, loss = traffic(5_000)
    blocks, expected = cut(rows, loss, []), reference(rows, loss)

    assert list(zip(blocks.source.tolist(), blocks.block.tolist(), strict=True)) == [one[:2] for one in expected]
    for found, (_, _, values) in zip(blocks.losses, expected, strict=True):
        assert found[: len(values)].tolist() == np.array(values, np.float32).tolist()
        assert np.isnan(found[len(values) :]).all()
    assert min(len(values) for _, _, values in expected) < 100
    assert (blocks.first_time_us <= blocks.last_time_us).all()
    assert (np.diff(blocks.row) >= 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_batches_and_snapshots_change_nothing(seed: int) -> None:
    """However the rows are cut, the same leaves."""
    rows, loss = traffic(3_000, seed=seed)
    at = sorted(np.random.default_rng(seed).choice(rows.kind.size, 40, replace=False).tolist())

    whole, pieces = cut(rows, loss, []), cut(rows, loss, at)
    for column, other in zip(whole[:5], pieces[:5], strict=True):
        np.testing.assert_array_equal(column, other)


def test_one_that_began_later_cuts_the_same_blocks_from_the_next_thousand_on() -> None:
    """So that two candidates can be compared; the blocks before are its own."""
    rows, loss = traffic(6_000, sources=1)
    start = int(np.flatnonzero((rows.kind == EVENT) & (rows.number == 1_500))[0])
    late = LabelBlocks()
    late.add(Rows._make(column[start:] for column in rows), loss[start:], start)
    early, found = cut(rows, loss, []), late.take()
    shared = found.block >= 2 * MOST_IN_STRETCH

    assert shared.sum() > 20
    of_early = early.block >= 2 * MOST_IN_STRETCH
    np.testing.assert_array_equal(found.block[shared], early.block[of_early])
    np.testing.assert_array_equal(found.losses[shared], early.losses[of_early])


def test_examples_in_the_docstrings_run() -> None:
    assert doctest.testmod(label_blocks).failed == 0


def test_the_state_does_not_depend_on_batches() -> None:
    """Also where a block has just left."""
    rows, loss = traffic(400, sources=1)
    for stop in range(0, rows.kind.size, 37):
        whole, pieces = LabelBlocks(), LabelBlocks()
        whole.add(Rows._make(column[:stop] for column in rows), loss[:stop], 0)
        for start in range(0, stop, 11):
            end = min(start + 11, stop)
            pieces.add(Rows._make(column[start:end] for column in rows), loss[start:end], start)

        assert {name: array.tobytes() for name, array in pieces.state().items()} == {
            name: array.tobytes() for name, array in whole.state().items()
        }
