"""The loss by how long labels took equals what dictionaries make of the same rows, whatever the batches."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from consumers.candidate_figures import about_version
from models.blocks import Scoreboard
from models.cost import Cost
from models.pending import Rows
from models.scoring import Scores
from models.tally_delays import DELAYS, WEEK_US
from streams.durations import DAY_US, HOUR_US, MINUTE_US
from streams.errors import ModelError
from streams.frames import AMENDED, EVENT, LABEL, MISSING, NO_OUTCOME, RETRACTED, SET
from streams.pipeline import Task

Floats = npt.NDArray[np.float64]

EVENTS = 700
NUMBERS = Task("regression")
EDGES_US = [MINUTE_US, HOUR_US, DAY_US, WEEK_US]


def drawn(seed: int = 0) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Give predictions, labels (every ninth never comes) and delays, some right at the edges and some below 0."""
    rng = np.random.default_rng(seed)
    delay_us = (10.0 ** rng.uniform(5, 12.5, EVENTS)).astype(np.int64)
    delay_us[:8] = [*EDGES_US, *(edge - 1 for edge in EDGES_US)]
    delay_us[8] = -HOUR_US  # a label that is older than its event
    label = rng.normal(size=EVENTS)
    label[10::9] = np.nan
    return rng.normal(size=EVENTS), label, delay_us


def rows_of(label: Floats, delay_us: npt.NDArray[np.int64], seed: int = 0) -> tuple[Rows, npt.NDArray[np.int64]]:
    """Give events and label rows in no order but that of each pair, and which event each row is of."""
    rng = np.random.default_rng(seed)
    comes = np.arange(EVENTS) + rng.integers(1, 300, EVENTS)
    order = np.argsort(np.concatenate([np.arange(EVENTS), comes]), kind="stable")
    event, is_label = order % EVENTS, order >= EVENTS
    time = 10**15 + event * 10**7 + np.where(is_label, delay_us[event], 0)
    outcome = np.where(np.isnan(label[event]), MISSING, SET)
    kind = np.where(is_label, LABEL, EVENT).astype(np.int8)
    told = np.where(is_label, label[event], np.nan), np.where(is_label, outcome, NO_OUTCOME).astype(np.int8)
    return Rows(kind, np.zeros(order.size, np.int32), event, time, *told), event


def take(board: Scoreboard, scores: Scores, rows: Rows, said: Floats) -> None:
    """Give a batch to a scoreboard as learn does, its whole prediction beside each row."""
    start = 0
    while start < rows.kind.size:
        stop, _ = board.plan(rows, start)
        board.settle(rows, start, stop, said[start:stop], scores)
        start = stop


def part(rows: Rows, start: int, stop: int) -> Rows:
    return Rows._make(column[start:stop] for column in rows)


def expected(said: Floats, label: Floats, delay_us: npt.NDArray[np.int64]) -> dict[str, tuple[int, float]]:
    found: dict[str, list[float]] = {delay: [] for delay in DELAYS}
    for said_one, label_one, delay_one in zip(said, label, delay_us, strict=True):
        if not math.isnan(label_one):
            place = sum(bool(delay_one >= edge) for edge in EDGES_US)
            found[DELAYS[place]].append(abs(said_one - label_one))
    return {delay: (len(losses), sum(losses) / len(losses)) for delay, losses in found.items()}


@pytest.mark.parametrize("cut", [1, 50, 2 * EVENTS])
def test_a_label_counts_where_its_delay_lies_whatever_the_batches(cut: int) -> None:
    said, label, delay_us = drawn()
    rows, event = rows_of(label, delay_us)
    board, scores, whole = Scoreboard(), Scores(NUMBERS), Scores(NUMBERS)
    for start in range(0, 2 * EVENTS, cut):
        take(board, scores, part(rows, start, start + cut), said[event[start : start + cut]])
    take(Scoreboard(), whole, rows, said[event])
    found, wanted = scores.by_delay(), expected(said, label, delay_us)

    assert {delay: labels for delay, (labels, _) in found.items()} == {d: labels for d, (labels, _) in wanted.items()}
    assert all(found[delay][1] == pytest.approx(wanted[delay][1], rel=1e-12) for delay in DELAYS)
    assert min(labels for labels, _ in found.values()) > 20
    assert found == whole.by_delay()


def test_together_they_are_the_loss_since_the_start() -> None:
    said, label, delay_us = drawn(1)
    rows, event = rows_of(label, delay_us)
    scores = Scores(NUMBERS)
    take(Scoreboard(), scores, rows, said[event])
    found, quality = scores.by_delay().values(), scores.since_start()

    assert sum(labels for labels, _ in found) == quality.labels
    assert sum(labels * loss for labels, loss in found) / quality.labels == pytest.approx(quality.loss, rel=1e-12)


def test_events_that_wait_in_a_snapshot_keep_their_time() -> None:
    said, label, delay_us = drawn(2)
    rows, event = rows_of(label, delay_us, seed=2)
    board, scores, whole = Scoreboard(), Scores(NUMBERS), Scores(NUMBERS)
    take(board, scores, part(rows, 0, 600), said[event[:600]])
    assert board.pending() > 100
    again, going_on = Scoreboard(), Scores(NUMBERS)
    again.restore(board.state())
    going_on.restore(scores.state())
    take(again, going_on, part(rows, 600, 2 * EVENTS), said[event[600:]])
    take(Scoreboard(), whole, rows, said[event])

    assert going_on.by_delay() == whole.by_delay()


def test_a_label_that_is_amended_or_retracted_stays_as_it_was_first_scored() -> None:
    number, time = np.array([0, 0, 0, 0]), np.array([0, 2 * HOUR_US, 3 * DAY_US, 4 * DAY_US])
    kind = np.array([EVENT, LABEL, LABEL, LABEL], np.int8)
    outcome = np.array([NO_OUTCOME, SET, AMENDED, RETRACTED], np.int8)
    rows = Rows(kind, np.zeros(4, np.int32), number, time, np.array([np.nan, 3.0, 9.0, np.nan]), outcome)
    scores = Scores(NUMBERS)
    take(Scoreboard(keep_us=WEEK_US), scores, rows, np.array([1.0, np.nan, np.nan, np.nan]))

    assert scores.since_start().labels == 0
    assert scores.by_delay()["1d"] == (1, 2.0)
    assert [labels for labels, _ in scores.by_delay().values()] == [0, 0, 1, 0, 0]


def test_a_version_tells_the_loss_of_the_delays_that_had_labels() -> None:
    number, time = np.array([0, 0]), np.array([0, HOUR_US - 1])
    kind, outcome = np.array([EVENT, LABEL], np.int8), np.array([NO_OUTCOME, SET], np.int8)
    rows = Rows(kind, np.zeros(2, np.int32), number, time, np.array([np.nan, 3.0]), outcome)
    scores = Scores(NUMBERS)
    take(Scoreboard(), scores, rows, np.array([1.0, np.nan]))
    about = about_version(scores, Cost(), 0, "")

    assert {name: value for name, value in about.figures.items() if name.startswith("loss_")} == {"loss_1h": 2.0}
    assert not any(name.startswith("loss_") for name in about.rolling)


def test_without_labels_nothing_is_claimed_and_a_tally_without_delays_is_refused() -> None:
    """Releases before had none."""
    found = Scores().by_delay()
    before = {name: array for name, array in Scores().state().items() if name != "delays"}

    assert [labels for labels, _ in found.values()] == [0] * len(DELAYS)
    assert all(math.isnan(loss) for _, loss in found.values())
    with pytest.raises(ModelError, match="the scores' delays is not whole"):
        Scores().restore(before)
