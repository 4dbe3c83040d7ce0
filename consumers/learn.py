"""Learn: one candidate over P.examples. Predict at event rows; score, then learn, at label rows.

A candidate is judged on what it said when the event passed, and learns when the label passes, so nothing it could not
have known enters a score. A label that is amended or retracted later corrects the metrics since the start, and if the
pipeline says so it is learned once more (PROTOCOL 18). Output: blocks of losses for the evidence (score_records.py).
Alarms of drift go to P.decisions (docs/drift.md); one may let the model begin anew, from that row on. A candidate that
is trained in batches takes up each version at the row that announces it (uptake.py).
"""

from __future__ import annotations

import logging
import time
from functools import partial

import numpy as np

from consumers.candidate import Candidate
from consumers.drifting import Bools, ModelNow, decisions, renews
from consumers.learn_rows import Found, Stretch, columns_of, named
from consumers.score_records import Block, Order, ScoresRecord, encode_records
from consumers.uptake import Refused
from consumers.version_rows import Announced, announced
from models.contained import Contained
from models.learner import LEARN, PREDICT, SKIP, Actions, Matrix, Vector
from models.pending import RELEARNED, Rows
from models.sampling import in_sample
from models.sharded import ShardedLearner
from streams.errors import ModelError
from streams.fitting import fit_matrix
from streams.frames import AMENDED, Batch, Outgoing
from streams.metrics import RoleMetrics

LOG = logging.getLogger("consumers.learn")


class LearnTask(Candidate):
    """A candidate that takes the rows of the examples partition; its arguments are those of `Candidate`.

    Example:
        >>> from models.learner import make_learner
        >>> from streams.pipeline import Model
        >>> task = LearnTask("base", make_learner(Model("base", "prior", {}), ()), ())
        >>> task.examples_seen, task.version
        (0, (0, 0))
    """

    def process(self, batch: Batch) -> list[Outgoing]:
        """Predict, score and learn the rows in order; gives the blocks that became complete, and alarms of drift."""
        rows, X_BF = named(columns_of(batch), self._aliases), batch.rows.matrix()
        is_left_B = None if self._sample == 1.0 else ~in_sample(batch.rows.text("id"), self._sample)
        if isinstance(self.learner, ShardedLearner):
            self.learner.place(batch.rows.text("key"))
        found, start = Found([], [], []), 0
        for version in self._versions(batch):
            self._pass(Stretch(rows, X_BF, batch.clock, is_left_B).before(version.row), start, found)
            self._take_up(rows, version, found)
            start = version.row
        self._pass(Stretch(rows, X_BF, batch.clock, is_left_B), start, found)
        for source in sorted(set(self._ended()).difference(self._aliases.values())):
            self.board.drop(source)
        told = [*self.ward.told(), *found.told]
        blocks = encode_records(found.blocks, partial(self._record, "number"))
        return [*blocks, *encode_records(found.labels, partial(self._record, "label")), *decisions(told)]

    def measure(self, metrics: RoleMetrics) -> None:
        """Set the gauges of this candidate, losses by the delay of labels among them."""
        super().measure(metrics)
        metrics.of(self.candidate).scored_by_delay(self.scores.by_delay())

    def _versions(self, batch: Batch) -> list[Announced]:
        """Give the rows that announce a version of this candidate."""
        if self.uptake is None:
            return []
        return [found for found in announced(batch.rows) if found.candidate == self.candidate]

    def _take_up(self, rows: Rows, version: Announced, found: Found) -> None:
        """Let a version's model predict from its row on; what waits for labels stays what the one before has said."""
        assert self.uptake is not None  # noqa: S101 - as `_versions` has found one
        taken = self.uptake.take(version, self.version, self.generation, self.task)
        if isinstance(taken, Refused):
            LOG.error("%s: a version is refused, %s goes on: %s", self.candidate, taken.kept, taken.reason)
            found.told.append((version.row, taken))
        elif taken is not None and self.uptake.version is not None:
            self.learner = taken
            self._stand_at_version()
            self.ward.release(version.row, (self.lineage, self.generation))
            self.board.renew(rows, version.row, np.empty(0, np.int8))

    def _pass(self, rows: Stretch, start: int, found: Found) -> None:
        """Predict, score and learn the rows of a stretch from `start` on."""
        while start < rows.rows.kind.size:
            stop, action_B = self.board.plan(rows.rows, start, rows.clock)
            if rows.is_left_B is not None:
                action_B[(action_B == LEARN) & rows.is_left_B[start:stop]] = SKIP
            if self.uptake is not None and self.uptake.is_frozen:
                action_B[action_B == LEARN] = SKIP
            self.drift.see(rows.X_BF, start, action_B)
            self._take(rows.rows, rows.X_BF, start, action_B, found)
            start = stop

    def _take(self, rows: Rows, X_BF: Matrix, start: int, action_B: Actions, found: Found) -> None:
        """Predict, score and learn planned rows; where an alarm renews the model, what follows is the new one's."""
        stop = start + action_B.size
        is_amended_B = self._choose_amended(rows.outcome[start:stop], X_BF[start:stop], action_B)
        stepped, score_B = start, self._step(X_BF[start:stop], rows.label[start:stop], action_B)
        while start < stop:  # once, if there is no alarm
            blocks = self.board.settle(rows, start, stop, score_B, self.scores)
            found.blocks.append((self.lineage, blocks))
            if self.board.tells_labels:
                found.labels.append((self.lineage, self.board.labels.take()))
            settled, order = self.board.settled_to, (self.lineage, self.generation)
            size, taken = settled - start, self.ward.taken(self.learner, rows, stepped, settled, order)
            is_learned_B = action_B[:size] == LEARN
            is_learned_B[max(0, stepped + taken - start) :] = False  # those behind a row that failed were not
            model, is_frozen = ModelNow(self.candidate, *order, self.examples_seen), self.ward.quarantine is not None
            is_example_B = is_learned_B & ~is_amended_B[:size]
            alarms = self.drift.alarms(rows, start, is_example_B, model, is_frozen=is_frozen)
            found.told.extend(alarms)
            self._learned(X_BF[start:settled], rows.label[start:settled], is_learned_B, is_example_B)
            start = settled
            action_B, is_amended_B, score_B = action_B[size:], is_amended_B[size:], score_B[size:]
            if renews(alarms):
                self._renew(rows, start, action_B)
                stepped, score_B = start, self._step(X_BF[start:stop], rows.label[start:stop], action_B)

    def _choose_amended(self, outcome_B: Actions, X_BF: Matrix, action_B: Actions) -> Bools:
        """Say which rows are learned once more; one without its vector, kept before `amend` was set, is passed over."""
        is_amended_B: Bools = (action_B == LEARN) & (outcome_B == AMENDED)
        if is_amended_B.any():
            is_bare_B = is_amended_B & np.isnan(X_BF).all(axis=1)
            action_B[is_bare_B] = SKIP
            is_amended_B &= ~is_bare_B
        return is_amended_B

    def _learned(self, X_BF: Matrix, y_B: Vector, is_learned_B: Bools, is_example_B: Bools) -> None:
        """Count what was learned, for the first time or once more."""
        self.drift.learned(X_BF, y_B, is_example_B)
        learned, examples = np.flatnonzero(is_learned_B), int(np.count_nonzero(is_example_B))
        self.examples_seen += examples
        self.board.counters[RELEARNED] += learned.size - examples
        if learned.size:
            self.is_at_example = bool(is_example_B[learned[-1]])

    def _renew(self, rows: Rows, start: int, action_B: Actions) -> None:
        """Begin the next lineage at row `start`, with what is kept of the examples before it."""
        if self._bind is None:
            raise ModelError(f"{self.candidate}: nothing makes an untrained model to begin anew with")
        self.learner, self.lineage, self.examples_seen = self._bind(self.columns), self.lineage + 1, 0
        self.is_at_example = True
        recent = self.drift.recent()
        if recent is not None:
            self.learner.learn(*recent)
            failure = self.learner.failure if isinstance(self.learner, Contained) else None
            self.examples_seen = len(recent[1]) if failure is None else failure.row
            if failure is not None:
                self.ward.set_aside(failure.reason, rows, start - 1, (self.lineage, self.generation))
        self.board.renew(rows, start, action_B)

    def _step(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> Vector:
        if self.uptake is not None and self.uptake.columns is not None:
            X_BF = fit_matrix(X_BF, self.columns, self.uptake.columns)
        self.shortfalls.watch(self.learner)
        began = self._spent_s()
        score_B = self.learner.step(X_BF, y_B, action_B)
        took = self._spent_s() - began
        self.shortfalls.count(self.learner)
        self.cost.add(took, *(int(np.count_nonzero(action_B == what)) for what in (PREDICT, LEARN)))
        return score_B

    def _spent_s(self) -> float:
        """Give the CPU time of this thread so far, and of those that a sharded model learns in."""
        threads_s = self.learner.threads_s if isinstance(self.learner, ShardedLearner) else 0.0
        return self._clock() + threads_s

    def _record(self, order: Order, lineage: int, blocks: tuple[Block, ...]) -> ScoresRecord:
        p99_us, size = round(self.cost.predict_p99_us, 3), self.learner.size_bytes()
        late_s = 0.0 if self.unpublished_us is None else round(max(0.0, time.time() - self.unpublished_us / 1e6), 3)
        return ScoresRecord(self.candidate, lineage, self.generation, order, p99_us, size, blocks, late_s)
