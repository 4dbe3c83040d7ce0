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
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from consumers.candidate_figures import about_version, watched_figures
from consumers.drifting import Alarmed, Bools, Drifting, ModelNow, decisions, renews
from consumers.learn_snapshot import check_task, columns_in, lineage_of, parts_of, tell_columns
from consumers.quarantine import Ward
from consumers.score_records import Block, Order, ScoresRecord, encode_records
from consumers.uptake import Refused, Uptake
from consumers.version_rows import Announced, announced
from models.blocks import Scoreboard
from models.contained import Contained
from models.cost import Cost
from models.label_blocks import Blocks
from models.learner import LEARN, PREDICT, SKIP, Actions, Learner, Matrix, State, Vector
from models.pending import RELEARNED, Rows
from models.sampling import in_sample
from models.scoring import Scores
from models.sharded import ShardedLearner
from models.version import About
from streams.advice import rebuild_of
from streams.drift import Drift
from streams.errors import ModelError
from streams.event_numbers import resolved
from streams.fitting import fit_matrix
from streams.frames import AMENDED, Batch, Column, Outgoing
from streams.metrics import RoleMetrics
from streams.pipeline import Task

LOG = logging.getLogger("consumers.learn")
INCIDENTS = {"label_corrected": "corrected", "label_relearned": "relearned"}  # in metrics, by what the board counts


class LearnTask:
    """The state of one candidate on the examples partition.

    Args:
        candidate: the model's name in the pipeline file.
        learner: untrained; `restore` brings a trained one back.
        columns: the columns the learner was made for; those of the examples it is given. A model that is restored stays
            bound to its own, whatever the list is now; a trained one takes its own by name.
        lineage: of the model; a reset or retrained one gets the next.
        generation: of the snapshots this continues (PROTOCOL 22).
        clock: CPU seconds of this thread, for what it costs only.
        ended: gives the sources that were replaced by another topic or generation; what waits for them is dropped.
        task: what labels are; the learner was made for the same.
        aliases: the sources that numbered events before partitions were parted anew, by alias: label rows that bear one
            find what was predicted under the source's own number.
        parameters: tells the declarations of this candidate apart (consumers/quarantine.py).
        bind: gives an untrained learner for other columns, and lets examples come with these from then on; for the same
            columns where drift lets the model begin anew.
        sample: the share of labelled events to learn; all are predicted and scored.
        keep_us: how long what was said of a settled event is remembered, for labels that are amended or retracted.
        is_relearned: whether an amended label is learned once more; it is no example more.
        drift: what is watched; nothing if it is not said.
        uptake: of a candidate that is trained in batches: where its versions come from.
        tells_labels: whether losses are told in the order of labels, too; a selector reads them.

    Example:
        >>> from models.learner import make_learner
        >>> from streams.pipeline import Model
        >>> task = LearnTask("base", make_learner(Model("base", "prior", {}), ()), ())
        >>> task.examples_seen, task.version
        (0, (0, 0))
    """

    def __init__(
        self,
        candidate: str,
        learner: Learner,
        columns: tuple[Column, ...],
        lineage: int = 0,
        generation: int = 0,
        clock: Callable[[], float] = time.thread_time,
        ended: Callable[[], list[int]] = list,
        task: Task | None = None,
        bind: Callable[[tuple[Column, ...]], Learner] | None = None,
        aliases: Mapping[int, int] | None = None,
        sample: float = 1.0,
        parameters: str = "",
        keep_us: int = 0,
        is_relearned: bool = False,
        drift: Drifting | None = None,
        uptake: Uptake | None = None,
        *,
        tells_labels: bool = True,
    ) -> None:
        self.task = task = task or Task()
        self.candidate = candidate
        self.learner = learner
        self.columns = columns
        self.lineage = lineage
        self.generation = generation
        self.examples_seen = 0
        self.scores = Scores(task)
        self.board = Scoreboard(
            task.outputs,
            keep_us,
            is_relearned=is_relearned,
            learns_all=task.is_unsupervised,
            tells_labels=tells_labels,
        )
        self.is_at_example = True  # whether the last row learned was an example, so that `version` names this model
        self.drift = drift or Drifting(Drift(loss=()), columns)
        self.board.drift = self.drift.losses
        self.uptake = uptake
        self._clock = clock
        self._ended = ended
        self._aliases = {} if aliases is None else aliases
        self._bind = bind
        self._sample = sample
        self.cost = Cost()
        self.ward = Ward(candidate, parameters)
        self._noted = dict.fromkeys(INCIDENTS, 0)

    @property
    def version(self) -> tuple[int, int]:
        """The version the model has reached: (lineage, examples seen); a larger one is newer."""
        return self.lineage, self.examples_seen

    def process(self, batch: Batch) -> list[Outgoing]:
        """Predict, score and learn the rows in order; gives the blocks that became complete, and alarms of drift."""
        rows, X_BF = self._named(_columns_of(batch)), batch.rows.matrix()
        is_left_B = None if self._sample == 1.0 else ~in_sample(batch.rows.text("id"), self._sample)
        if isinstance(self.learner, ShardedLearner):
            self.learner.place(batch.rows.text("key"))
        found, start = _Found([], [], []), 0
        for version in self._versions(batch):
            self._pass(_Stretch(rows, X_BF, batch.clock, is_left_B).before(version.row), start, found)
            self._take_up(rows, version, found)
            start = version.row
        self._pass(_Stretch(rows, X_BF, batch.clock, is_left_B), start, found)
        for source in sorted(set(self._ended()).difference(self._aliases.values())):
            self.board.drop(source)
        told = [*self.ward.told(), *found.told]
        blocks = encode_records(found.blocks, partial(self._record, "number"))
        return [*blocks, *encode_records(found.labels, partial(self._record, "label")), *decisions(told)]

    def _versions(self, batch: Batch) -> list[Announced]:
        """Give the rows that announce a version of this candidate."""
        if self.uptake is None:
            return []
        return [found for found in announced(batch.rows) if found.candidate == self.candidate]

    def _take_up(self, rows: Rows, version: Announced, found: _Found) -> None:
        """Let a version's model predict from its row on; what waits for labels stays what the one before has said."""
        assert self.uptake is not None  # noqa: S101 - as `_versions` has found one
        taken = self.uptake.take(version, self.version, self.generation, self.task)
        if isinstance(taken, Refused):
            LOG.error("%s: a version is refused, %s goes on: %s", self.candidate, taken.kept, taken.reason)
            found.told.append((version.row, taken))
        elif taken is not None and self.uptake.version is not None:
            self.learner = taken
            self._stand_at_version()
            self.board.renew(rows, version.row, np.empty(0, np.int8))

    def begin_trained(self, given_up: State) -> None:
        """Begin with the version that a state names which was given up; without one at the first row that names one.

        Either way the lineage is a training's: versions are what they were, whoever reads the rows again.
        """
        assert self.uptake is not None  # noqa: S101 - the caller knows
        learner = self.uptake.begin(given_up)
        self.lineage, self.examples_seen = 0, 0
        if learner is not None:
            self.learner = learner
            self._stand_at_version()

    def _stand_at_version(self) -> None:
        """Go by the name of the trained version at hand."""
        assert self.uptake is not None  # noqa: S101 - as a version was taken
        assert self.uptake.version is not None  # noqa: S101 - likewise
        self.lineage, self.examples_seen = self.uptake.version.order
        self.is_at_example = True  # until it learns on, the trained file is what its name says

    def _pass(self, rows: _Stretch, start: int, found: _Found) -> None:
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

    def _take(self, rows: Rows, X_BF: Matrix, start: int, action_B: Actions, found: _Found) -> None:
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

    def _named(self, rows: Rows) -> Rows:
        """Give label rows the names that their events had when they were predicted."""
        number, source = resolved(rows.number, rows.source, self._aliases)
        return rows._replace(number=number, source=source)

    @property
    def answering(self) -> Learner:
        """The model that a version is made of: of shards what they last made together."""
        return self.learner.merged if isinstance(self.learner, ShardedLearner) else self.learner

    def is_sound(self) -> bool:
        """Say whether the model may become a version or a snapshot: all its numbers are finite."""
        return self.learner.is_finite()

    def state(self) -> State:
        """Give model, pending predictions, open blocks, metrics and counters."""
        learner = self.learner.state()
        self.ward.notice(self.learner, (self.lineage, self.generation))
        parts = {"learner": learner, "board": self.board.state(), "scores": self.scores.state()}
        parts["drift"] = self.drift.state()
        state = {f"{part}.{name}": array for part, arrays in parts.items() for name, array in arrays.items()}
        state["version"] = np.array(self.version, np.int64)
        state["is_at_example"] = np.array([self.is_at_example])
        state["columns"] = np.frombuffer(msgspec.json.encode(self.columns), np.uint8)
        state |= {} if self.uptake is None else self.uptake.state()
        state["task"] = np.frombuffer(msgspec.json.encode(self.task), np.uint8)
        return state | self.ward.state()

    def restore(self, state: State) -> None:
        """Take back what `state` gave.

        Raises:
            ModelError: when something is absent, damaged or not ours.
        """
        parts = parts_of(state)
        check_task(state, self.task, self.candidate)
        if self.ward.restore(state, self.generation):
            self.lineage = lineage_of(state) + 1
            return
        is_trained = self.uptake is not None or self._bind_to(columns_in(state))
        try:
            if self.uptake is not None:
                is_trained = self._go_on(self.uptake, state)
            is_anew = self.uptake is not None and self.uptake.is_taken_anew
            if is_trained and not is_anew:
                self.learner.restore(parts["learner"])
            self.ward.halt(self.learner)
            self.board.restore(parts["board"])
            self.scores.restore(parts["scores"])
            self.drift.restore(parts["drift"], self.candidate)
        except ModelError as error:
            how = f"`{rebuild_of(f'learn.{self.candidate}')}` lets it learn again from the examples"
            raise ModelError(f"{self.candidate} cannot go on from its snapshot: {error}; {how}") from error
        self.lineage, self.examples_seen = (int(number) for number in state["version"].astype(np.int64))
        self.examples_seen = self.examples_seen if is_trained else 0
        self.is_at_example = bool(state["is_at_example"][0]) if "is_at_example" in state else True
        if is_anew:
            self._stand_at_version()
        self._noted = {what: self.board.count(counter) for what, counter in INCIDENTS.items()}

    def _go_on(self, uptake: Uptake, state: State) -> bool:
        """Go on with the trained version of a snapshot; False: there was none, and the model stays untrained.

        Columns that are declared no more are still read as long as the model asks for them.
        """
        learner, asked = uptake.restore(state), uptake.columns or ()
        gone = [column for column in columns_in(state) if column in asked and column not in self.columns]
        if gone:
            self._bind_to((*self.columns, *gone))
        self.learner = learner or self.learner
        return learner is not None

    def _bind_to(self, columns: tuple[Column, ...]) -> bool:
        """Go on with the columns that the model was made for; always True."""
        if columns == self.columns:
            return True
        if self._bind is None:
            command = rebuild_of(f"learn.{self.candidate}")
            raise ModelError(f"the snapshot of {self.candidate} is of a model for other columns; run `{command}`")
        told = tell_columns(columns, self.columns)
        self.learner, self.columns = self._bind(columns), columns
        self.drift.bind(columns)
        LOG.warning("%s: goes on with the %d columns it was made for%s", self.candidate, len(columns), told)
        return True

    def about(self, parent: str) -> About:
        """Give what there is to say of the model when it is published as the successor of `parent`."""
        return about_version(self.scores, self.cost, self.learner.size_bytes(), parent)

    def metrics(self) -> Mapping[str, float]:
        """Give what there is to watch, by name. Costs about 2 ms: for a scrape, not for a row."""
        counted = {"learned": self.examples_seen, "bytes": self.learner.size_bytes()}
        return watched_figures(self.scores, self.board) | counted

    def measure(self, metrics: RoleMetrics) -> None:
        """Set the gauges of this candidate."""
        mine = metrics.of(self.candidate)
        mine.scored("start", self.scores.since_start()._asdict())
        mine.scored("rolling", self.scores.rolling()._asdict())
        mine.learned(self.examples_seen, self.learner.size_bytes())
        mine.worked(self.cost.take(), (self.cost.predict_us / 1e6, self.cost.learn_us / 1e6))
        mine.pending(0, self.board.pending())
        mine.quarantined(is_set_aside=self.ward.quarantine is not None)
        for what, counter in INCIDENTS.items():
            found = self.board.count(counter)
            if found > self._noted[what]:
                mine.incident(what, found - self._noted[what])
            self._noted[what] = found
        self.drift.measure(mine)
        if self.uptake is not None and self.uptake.refused:
            mine.incident("version_refused", self.uptake.refused)
            self.uptake.refused = 0

    def _step(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> Vector:
        if self.uptake is not None and self.uptake.columns is not None:
            X_BF = fit_matrix(X_BF, self.columns, self.uptake.columns)
        began = self._clock()
        score_B = self.learner.step(X_BF, y_B, action_B)
        took = self._clock() - began
        self.cost.add(took, *(int(np.count_nonzero(action_B == what)) for what in (PREDICT, LEARN)))
        return score_B

    def _record(self, order: Order, lineage: int, blocks: tuple[Block, ...]) -> ScoresRecord:
        p99_us, size = round(self.cost.predict_p99_us, 3), self.learner.size_bytes()
        return ScoresRecord(self.candidate, lineage, self.generation, order, p99_us, size, blocks)


class _Found(NamedTuple):
    """What one step has to say: blocks with the lineage that completed them, alarms and refusals with their rows."""

    blocks: list[tuple[int, Blocks]]  # by number
    labels: list[tuple[int, Blocks]]  # in the order of labels
    told: list[Alarmed | tuple[int, Refused]]


class _Stretch(NamedTuple):
    """The rows of a batch, or those before a row that announces a version."""

    rows: Rows
    X_BF: Matrix
    clock: npt.NDArray[np.int64]
    is_left_B: Bools | None

    def before(self, stop: int) -> _Stretch:
        """Give the rows before `stop`, by the same places."""
        rows, is_left_B = Rows._make(column[:stop] for column in self.rows), self.is_left_B
        return _Stretch(rows, self.X_BF[:stop], self.clock[:stop], None if is_left_B is None else is_left_B[:stop])


def _columns_of(batch: Batch) -> Rows:
    return Rows(*(batch.rows.numbers(name) for name in Rows._fields))
