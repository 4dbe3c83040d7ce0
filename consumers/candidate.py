"""A candidate: its model, what waits for labels, metrics and counters, saved and measured as one.

What it does with rows is learn.py's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

import msgspec
import numpy as np

from consumers.candidate_figures import about_version, watched_figures
from consumers.drifting import Drifting
from consumers.learn_snapshot import check_task, columns_in, lineage_of, parts_of, tell_columns
from consumers.quarantine import Ward
from consumers.shortfalls import Shortfalls
from consumers.uptake import Uptake
from models.blocks import Scoreboard
from models.cost import Cost
from models.learner import Learner, State
from models.scoring import Scores
from models.sharded import ShardedLearner
from models.version import About
from streams.advice import rebuild_of
from streams.drift import Drift
from streams.errors import ModelError
from streams.frames import Column
from streams.metrics import RoleMetrics
from streams.pipeline import Task

LOG = logging.getLogger("consumers.learn")
INCIDENTS = {"label_corrected": "corrected", "label_relearned": "relearned"}  # in metrics, by what the board counts


class Candidate:
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
        self.unpublished_us: int | None = None  # wall clock since when no version could be published
        self.shortfalls = Shortfalls()
        self.ward = Ward(candidate, parameters, is_trained=uptake is not None)
        self._noted = dict.fromkeys(INCIDENTS, 0)

    @property
    def version(self) -> tuple[int, int]:
        """The version the model has reached: (lineage, examples seen); a larger one is newer."""
        return self.lineage, self.examples_seen

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
        for what, rows in self.shortfalls.take().items():
            mine.incident(what, rows)
        self.drift.measure(mine)
        if self.uptake is not None and self.uptake.refused:
            mine.incident("version_refused", self.uptake.refused)
            self.uptake.refused = 0
