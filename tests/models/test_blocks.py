"""The scoreboard against a dictionary that does the same one row at a time."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.block_arrays import BLOCK_EVENTS
from models.blocks import Scoreboard
from models.learner import LEARN, PREDICT
from models.pending import COUNTERS, Rows
from models.scoring import Scores
from models.tally import add_score, log_loss
from streams.errors import ModelError
from streams.frames import AMENDED, EVENT, LABEL, MARK, MISSING, NO_OUTCOME, RETRACTED, SET


class Row(NamedTuple):
    kind: int
    source: int
    number: int
    time: int = 0
    label: float = math.nan
    outcome: int = NO_OUTCOME


class Out(NamedTuple):
    source: int
    block: int
    first_time: int
    last_time: int
    losses: tuple[float, ...]
    row: int


KEEP = 200  # rows: in these tests the clock follows them
BEHIND = 40


class Reference:
    """The rules of models/blocks.py in dictionaries."""

    def __init__(self, *, is_relearned: bool = False) -> None:
        self.is_relearned = is_relearned
        self.settled: dict[tuple[int, int], tuple[float, int]] = {}  # what was said, until when it is remembered
        self.final: dict[tuple[int, int], tuple[float, float]] = {}  # what was said, the newest label
        self.first: dict[int, int] = {}
        self.next: dict[int, int] = {}
        self.head: dict[int, int] = {}
        self.prediction: dict[tuple[int, int], float] = {}
        self.time: dict[tuple[int, int], int] = {}
        self.loss: dict[tuple[int, int], float] = {}
        self.counts = dict.fromkeys(COUNTERS, 0)
        self.learned: list[int] = []
        self.out: list[Out] = []

    def take(self, i: int, row: Row, score: float) -> None:
        if row.kind == EVENT:
            self._event(row, score)
        elif row.kind == LABEL:
            self._label(i, row)

    def _event(self, row: Row, score: float) -> None:
        source, number = row.source, row.number
        if source in self.next and number < self.next[source]:
            self.counts["repeated"] += 1
            return
        if source not in self.next or number > self.next[source]:
            if source in self.next:
                self.counts["jumps"] += 1
                self.drop(source)
            self.first[source], self.head[source] = number, number // BLOCK_EVENTS
        self.next[source] = number + 1
        self.prediction[source, number] = score
        self.time[source, number] = row.time
        self.counts["predicted"] += 1

    def _label(self, i: int, row: Row) -> None:
        name = row.source, row.number
        if row.outcome in {AMENDED, RETRACTED}:
            self.counts["amended" if row.outcome == AMENDED else "retracted"] += 1
            if name in self.settled and i - BEHIND <= self.settled[name][1]:
                self.counts["corrected"] += 1
                self.final[name] = self.settled[name][0], row.label
                if row.outcome == AMENDED and self.is_relearned:
                    self.learned.append(i)
        elif not self.first.get(row.source, 1 << 60) <= row.number < self.next[row.source]:
            self.counts["unseen"] += 1
        elif name not in self.prediction:
            self.counts["repeated"] += 1
        else:
            p = self.prediction.pop(name)
            self.settled[name], self.final[name] = (p, row.time + KEEP), (p, row.label)
            is_known = not math.isnan(row.label)
            self.counts["scored" if is_known else "unlabelled"] += 1
            self.loss[name] = log_loss(p, row.label > 0.5) if is_known else math.nan
            if is_known:
                self.learned.append(i)
            self._emit(row.source, i)

    def _emit(self, source: int, i: int) -> None:
        while True:
            block = self.head[source]
            names = [(source, block * BLOCK_EVENTS + k) for k in range(BLOCK_EVENTS)]
            is_whole = names[0][1] >= self.first[source]
            names = [name for name in names if name[1] >= self.first[source]]
            if not all(name in self.loss for name in names):
                return
            if is_whole:
                times = [self.time[name] for name in names]
                losses = tuple(np.array([self.loss[name] for name in names], np.float32).tolist())
                self.out.append(Out(source, block, min(times), max(times), losses, i))
            self.head[source] += 1

    def drop(self, source: int) -> int:
        pending = [name for name in self.prediction if name[0] == source]
        for name in pending:
            del self.prediction[name]
        self.loss = {name: loss for name, loss in self.loss.items() if name[0] != source}
        self.settled = {name: known for name, known in self.settled.items() if name[0] != source}
        for of_source in (self.first, self.next, self.head):
            of_source.pop(source, None)
        self.counts["dropped"] += len(pending)
        return len(pending)


def columns(rows: list[Row]) -> Rows:
    kinds = (np.int8, np.int32, np.int64, np.int64, np.float64, np.int8)
    return Rows(*(np.array(column, kind) for column, kind in zip(zip(*rows, strict=True), kinds, strict=True)))


def run(
    board: Scoreboard, scores: Scores, rows: list[Row], score: npt.NDArray[np.float64], at: int, learned: list[int]
) -> list[Out]:
    """Give rows to a scoreboard as learn does; `at` is the number of the first one."""
    found, start, whole = [], 0, columns(rows)
    while start < len(rows):
        stop, action = board.plan(whole, start, np.arange(at - BEHIND, at - BEHIND + len(rows)))
        given_B = np.where(action == PREDICT, score[start:stop], np.nan)
        blocks = board.settle(whole, start, stop, given_B, scores)
        learned.extend((np.flatnonzero(action == LEARN) + start + at).tolist())
        for source, block, first, last, losses, row in zip(*blocks, strict=True):
            found.append(Out(int(source), int(block), int(first), int(last), tuple(losses.tolist()), int(row) + at))
        start = stop
    return found


def same(a: list[Out], b: list[Out]) -> bool:
    return repr(a) == repr(b)  # repr, because NaN differs from itself


def random_rows(seed: int, size: int, jump_rate: float) -> list[Row]:
    """Give an interleaving of sources that begin anywhere, with labels of every outcome, some for unseen events."""
    rng = random.Random(seed)
    sources = rng.sample(range(1000), rng.randint(1, 6))
    next_number = {source: rng.choice([0, 0, 37, 100, 250]) for source in sources}
    waiting: list[tuple[int, int]] = []
    settled: list[tuple[int, int]] = []
    rows: list[Row] = []
    for i in range(size):
        source = rng.choice(sources)
        kind = rng.random()
        if kind < 0.02:
            rows.append(Row(MARK, source, -1, i))
        elif kind < 0.04:
            outcome = rng.choice([SET, MISSING, AMENDED, RETRACTED])
            rows.append(
                Row(LABEL, rng.choice([*sources, 5000]), rng.randint(0, 400), i, rng.choice([0.0, 1.0]), outcome)
            )
        elif kind < 0.05 and next_number[source]:
            rows.append(Row(EVENT, source, rng.randint(0, next_number[source] - 1), i))
        elif settled and kind < 0.1:
            name = rng.choice(settled[-rng.choice([3, 60, 500]) :])
            label, outcome = rng.choice([(1.0, AMENDED), (0.0, AMENDED), (math.nan, RETRACTED)])
            rows.append(Row(LABEL, *name, i, label, outcome))
        elif waiting and kind < 0.55:
            name = waiting.pop(rng.randrange(min(len(waiting), rng.choice([3, 150]))))
            label, outcome = rng.choice([(1.0, SET), (0.0, SET), (math.nan, MISSING), (0.0, MISSING)])
            rows.append(Row(LABEL, *name, i, label, outcome))
            settled.append(name)
        else:
            if rng.random() < jump_rate:
                next_number[source] += rng.choice([1, 50, 100, 10**11])
            rows.append(Row(EVENT, source, next_number[source], i + rng.randint(-50, 50)))
            waiting.append((source, next_number[source]))
            next_number[source] += 1
    rng.shuffle(waiting)
    return rows + [Row(LABEL, *name, size, 1.0, SET) for name in waiting]


@given(
    st.integers(0, 10**9), st.sampled_from([0.0, 0.003]), st.sampled_from([3, 50, 5000]), st.booleans(), st.booleans()
)
@settings(max_examples=40, deadline=None)
def test_any_interleaving_in_any_cut_gives_what_the_dictionary_gives(
    seed: int, jump_rate: float, cut: int, is_restored: bool, is_relearned: bool
) -> None:
    rng = random.Random(seed)
    rows = random_rows(seed, 1500, jump_rate)
    score = np.random.default_rng(seed).random(len(rows))
    reference, scores = Reference(is_relearned=is_relearned), Scores()
    board = Scoreboard(1, KEEP, is_relearned=is_relearned)
    for i, row in enumerate(rows):
        reference.take(i, row, float(score[i]))
    found: list[Out] = []
    learned: list[int] = []
    start = 0
    while start < len(rows):
        stop = start + rng.randint(1, cut)
        found += run(board, scores, rows[start:stop], score[start:stop], start, learned)
        start = stop
        if is_restored and rng.random() < 0.3:
            state = board.state()
            board = Scoreboard(1, KEEP, is_relearned=is_relearned)
            board.restore(state)

    assert same(found, reference.out)
    assert learned == reference.learned
    assert {name: board.count(name) for name in COUNTERS} == reference.counts
    assert board.pending() == len(reference.prediction)
    assert scores.since_start() == pytest.approx(
        scored_at_once(list(reference.final.values())).since_start(), abs=1e-12
    )


def scored_at_once(final: list[tuple[float, float]]) -> Scores:
    """Score events by their final labels alone; NaN is none."""
    scores = Scores()
    for p, label in final:
        if not math.isnan(label):
            add_score(scores.tally, np.array([[p]]), 0, label)
    return scores


def test_a_block_waits_for_the_one_before_it_and_leaves_with_nan_where_no_label_counted() -> None:
    board, scores = Scoreboard(), Scores()
    learned: list[int] = []
    score = np.full(300, 0.5)
    events = [Row(EVENT, 7, n, 1000 + n) for n in range(200)]
    late = [Row(LABEL, 7, n, 0, 1.0, SET) for n in range(100, 200)]
    early = [Row(LABEL, 7, n, 0, 1.0, SET) for n in range(1, 100)]

    assert run(board, scores, events + late, score, 0, learned) == []
    assert run(board, scores, early, score, 300, learned) == []
    found = run(board, scores, [Row(LABEL, 7, 0, 0, math.nan, MISSING)], score, 399, learned)
    assert [(out.source, out.block, out.first_time, out.last_time, out.row) for out in found] == [
        (7, 0, 1000, 1099, 399),
        (7, 1, 1100, 1199, 399),
    ]
    assert math.isnan(found[0].losses[0])
    assert np.allclose(found[0].losses[1:] + found[1].losses, math.log(2))
    assert board.pending() == 0
    assert scores.since_start().labels == len(learned) == 199


def test_a_reader_that_begins_in_the_middle_starts_with_its_first_whole_block() -> None:
    board, scores = Scoreboard(), Scores()
    learned: list[int] = []
    rows = [Row(EVENT, 1, n) for n in range(150, 300)] + [Row(LABEL, 1, n, 0, 0.0, SET) for n in range(100, 300)]
    found = run(board, scores, rows, np.full(350, 0.5), 0, learned)

    assert [out.block for out in found] == [2]
    assert board.count("unseen") == 50
    assert len(learned) == 150


def test_a_dropped_source_leaves_nothing_behind_and_others_stay() -> None:
    board, scores = Scoreboard(), Scores()
    learned: list[int] = []
    score = np.full(400, 0.5)
    rows = [Row(EVENT, source, n) for n in range(130) for source in (1, 2, 3)]
    run(board, scores, rows, score, 0, learned)

    assert board.drop(2) == 130
    assert board.drop(2) == board.drop(99) == 0
    assert board.pending() == 260
    labels = [Row(LABEL, source, n, 0, 1.0, SET) for n in range(100) for source in (1, 2, 3)]
    found = run(board, scores, labels, score, 0, learned)
    assert [(out.source, out.block) for out in found] == [(1, 0), (3, 0)]
    assert board.count("unseen") == 100


def test_state_depends_on_the_rows_not_on_the_batches_or_what_was_dropped_before() -> None:
    rows = random_rows(5, 3000, 0.0)
    score = np.random.default_rng(5).random(len(rows))
    whole, cut = Scoreboard(1, KEEP), Scoreboard(1, KEEP)
    run(whole, Scores(), rows[:2500], score, 0, [])
    for start in range(0, 2500, 7):
        run(cut, Scores(), rows[start : min(start + 7, 2500)], score[start:], start, [])
    a, b = whole.state(), cut.state()

    assert a.keys() == b.keys()
    assert all(np.array_equal(a[name], b[name], equal_nan=a[name].dtype == np.float64) for name in a)


def test_memory_follows_what_waits_or_is_remembered_not_the_history() -> None:
    board, scores = Scoreboard(1, KEEP), Scores()
    for start in range(0, 60_000, 500):
        numbers = range(start, start + 500)
        rows = [Row(EVENT, 1, n) for n in numbers] + [Row(LABEL, 1, n, 2 * n, 1.0, SET) for n in numbers]
        run(board, scores, rows, np.full(1000, 0.5), 2 * start, [])

    assert board._nodes.left.size <= 32
    assert board.state()["nodes.block"].tolist() == [598, 599]


def test_an_amended_label_corrects_the_metrics_and_leaves_the_block_as_it_was_emitted() -> None:
    board, scores = Scoreboard(1, KEEP), Scores()
    rows = [Row(EVENT, 1, n) for n in range(100)] + [Row(LABEL, 1, n, 200, 1.0, SET) for n in range(99)]
    amended = [Row(LABEL, 1, 3, 201, 0.0, AMENDED), Row(LABEL, 1, 4, 201, math.nan, RETRACTED)]
    last = [Row(LABEL, 1, 99, 202, 1.0, SET), Row(LABEL, 1, 99, 203, 0.0, AMENDED)]
    found = run(board, scores, rows + amended + last, np.full(203, 0.9), 0, [])

    assert np.allclose(found[0].losses, -math.log(0.9))
    quality, rolling = scores.since_start(), scores.rolling()
    assert (quality.labels, rolling.labels) == (99, 100)
    assert quality.loss == pytest.approx((-97 * math.log(0.9) - 2 * math.log(0.1)) / 99, abs=1e-12)
    assert rolling.loss == pytest.approx(-math.log(0.9), abs=1e-12)
    assert (board.count("corrected"), board.count("amended"), board.count("retracted")) == (3, 2, 1)


def test_a_label_that_is_amended_once_its_event_is_forgotten_changes_nothing() -> None:
    board, scores = Scoreboard(1, KEEP), Scores()
    rows = [Row(EVENT, 1, 0), Row(LABEL, 1, 0, 100, 1.0, SET), Row(LABEL, 1, 0, 101, 0.0, AMENDED)]
    run(board, scores, rows[:2], np.full(2, 0.9), 0, [])
    before = scores.since_start()
    run(board, scores, rows[2:], np.full(1, np.nan), 100 + KEEP + BEHIND + 1, [])
    assert scores.since_start() == before
    assert board.count("corrected") == 0

    run(board, scores, rows[2:], np.full(1, np.nan), 100 + KEEP + BEHIND, [])
    assert board.count("corrected") == 0, "the clock does not go back"


def test_a_damaged_state_is_refused() -> None:
    board = Scoreboard()
    run(board, Scores(), [Row(EVENT, 1, n) for n in range(150)], np.full(150, 0.5), 0, [])
    state = board.state()
    for damage in ("nodes.loss", "counters", "sources.head"):
        with pytest.raises(ModelError, match="not whole"):
            Scoreboard().restore({name: array for name, array in state.items() if name != damage})
    with pytest.raises(ModelError, match="not whole"):
        Scoreboard().restore({**state, "nodes.loss": np.zeros((7, 100))})
