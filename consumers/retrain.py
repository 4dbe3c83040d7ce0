"""Train: the examples go into the archive, and candidates that are trained in batches are trained when it is due.

The task is a function of the rows of P.examples: what is archived, which trainings are due, and what is said of a
version that is announced (P.decisions). The role does what goes by the clock: it keeps one training process, announces
what that has made, and looks for alarms of drift. Killed anywhere, the same is done again without harm: a version is a
file named by its digest, and its row counts once, whoever writes it how often.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np

from consumers.archiving import ArchiveTask
from consumers.decisions_tail import Decisions, DecisionsTail
from consumers.drifting import DriftRecord, decisions
from consumers.examples_role import ExamplesRole
from consumers.role import Inlet, OpenPartition, Task
from consumers.training_queue import TrainingQueue
from consumers.trainings import FailedTraining, Made, Trainings
from consumers.triggers import Triggers
from consumers.version_rows import announce
from models.training_job import Figures
from models.version import Version
from streams.control import Control
from streams.faults import fail_point
from streams.frames import Batch, FrameSchema, Outgoing
from streams.kafka import Outbox
from streams.metrics import RoleMetrics
from streams.pipeline import Pipeline
from streams.snapshots import State, part_of
from streams.state_folder import Place

LOG = logging.getLogger("consumers.retrain")
DECISIONS_EVERY_US = 1_000_000
_ARCHIVE = "archive."


class TrainedVersion(msgspec.Struct, frozen=True, tag="trained", tag_field="decision"):
    """A record of P.decisions: a version was trained and announced. It follows from its row among the examples."""

    candidate: str
    lineage: int
    examples: int
    parent: str
    reason: str
    rows: int
    seconds: float
    validation: Figures
    test: Figures
    time_us: int


class TrainTask:
    """The state of archive and triggers on the examples partition.

    Args:
        pipeline: the pipeline; it has an archive.
        state: of the pipeline.
        control: knows which sources numbered events before partitions were parted anew.
    """

    def __init__(self, pipeline: Pipeline, state: Place, control: Control) -> None:
        models = [model for model in pipeline.models if model.retrain is not None]
        self.archive = ArchiveTask(pipeline, state, control.aliases)
        self.triggers = Triggers(models, learns_all=pipeline.task.is_unsupervised)
        self.queue = TrainingQueue(self.triggers)
        self.decisions_read = 0  # offset of P.decisions

    def process(self, batch: Batch) -> list[Outgoing]:
        """Archive rows in order and count them; gives a record for each version that they announce."""
        found = [(row, _trained(version)) for row, version in self.triggers.take(batch.rows)]
        return [*self.archive.process(batch), *decisions(found)]

    def renew(self, given_up: State) -> None:
        """Go on behind rows that are not there any more; begin at the first where a rebuild has made way."""
        if _ARCHIVE + "counts" in given_up:
            self._restore_triggers(given_up)
            self.archive.renew(part_of(given_up, _ARCHIVE))
        else:
            if "decisions_read" in given_up:
                self.decisions_read = int(given_up["decisions_read"][0])
            self.archive.renew()
        self.triggers.reached.rows = self.archive.taken

    def is_sound(self) -> bool:
        """Nothing here can be unsound."""
        return True

    def state(self) -> State:
        """Give what is not archived yet, what is counted, due and under way."""
        state: State = {_ARCHIVE + name: array for name, array in self.archive.state().items()}
        state["triggers"] = np.frombuffer(self.triggers.state(), np.uint8)
        state["queue"] = np.frombuffer(self.queue.state(), np.uint8)
        state["decisions_read"] = np.array([self.decisions_read], np.int64)
        return state

    def restore(self, state: State) -> None:
        """Take back what `state` gave."""
        self.archive.restore(part_of(state, _ARCHIVE))
        self._restore_triggers(state)

    def _restore_triggers(self, state: State) -> None:
        self.triggers.restore(state["triggers"].tobytes())
        self.queue.restore(state["queue"].tobytes())
        self.decisions_read = int(state["decisions_read"][0])

    def measure(self, metrics: RoleMetrics) -> None:
        """Set what the archive holds."""
        self.archive.measure(metrics)


class TrainRole(ExamplesRole):
    """Examples in, archive and trained versions out.

    Args:
        pipeline: the pipeline; it has an archive.
        control: resolves sources.
        outbox: what versions are announced with.
        metrics: told how trainings go.
        trainings: keeps the processes; made for the pipeline if it is not given.
        tail: reads P.decisions; as above.
    """

    name = "train"
    ahead_kib = 1_024
    most_rows = 10_000

    def __init__(
        self,
        pipeline: Pipeline,
        control: Control,
        outbox: Outbox,
        metrics: RoleMetrics,
        trainings: Trainings | None = None,
        tail: Callable[[], Decisions] | None = None,
    ) -> None:
        super().__init__(pipeline, control)
        self._outbox = outbox
        self.writes: Mapping[str, FrameSchema] = {"examples": self._schema}  # version rows, not by way of the task
        self._trainings = trainings or self._own_trainings(metrics)
        self._tail = tail or (lambda: DecisionsTail(pipeline))
        self._decisions: Decisions | None = None
        self._next_decisions_us = 0
        self._watched = any(model.retrain is not None and model.retrain.on_drift for model in pipeline.models)

    def _own_trainings(self, metrics: RoleMetrics) -> Trainings:
        thread = ThreadPoolExecutor(1, "versions")  # torch takes a second to load, and a store as long to write
        return Trainings(self._pipeline, self._columns, self._state, metrics, finisher=thread.submit)

    def task(self, inlet: Inlet, partition: int, sources: list[int], generation: int) -> TrainTask:
        """Archive and triggers over all examples."""
        return TrainTask(self._pipeline, self._state, self._control)

    def renew(self, task: Task, given_up: State, reason: str) -> None:
        """Go on behind a gap: the examples that are gone are in no archive, and trainings do without them."""
        assert isinstance(task, TrainTask)  # noqa: S101 - made by `task` above
        task.renew(given_up)
        if task.archive.rows:
            LOG.error("examples are missing in the archive from row %d on: %s", task.archive.rows, reason)

    def tick(self, now_us: int, partitions: Sequence[OpenPartition]) -> None:
        """Tidy the archive, look for alarms, and look after the training; without the partition another does."""
        if not partitions:
            self._trainings.stop()
            return
        task = partitions[0].task
        assert isinstance(task, TrainTask)  # noqa: S101 - made by `task` above
        task.archive.tick()
        self._heed_alarms(task, now_us)
        told = self._trainings.tend(task.queue, task.archive.rows, now_us)
        if isinstance(told, Made):
            self._announce(told, task)
        elif isinstance(told, FailedTraining):
            self._outbox.produce(f"{self._pipeline.name}.decisions", 0, msgspec.json.encode(told))

    def _announce(self, made: Made, task: TrainTask) -> None:
        announce(self._outbox, self._pipeline.name, self._schema, made.version, made.known_us)
        fail_point("after_version_row")
        self._trainings.announced(made, task.queue)

    def _heed_alarms(self, task: TrainTask, now_us: int) -> None:
        """Read what candidates have decided since the last look; an alarm may make a training due."""
        if not self._watched or now_us < self._next_decisions_us:
            return
        self._next_decisions_us = now_us + DECISIONS_EVERY_US
        self._decisions = self._decisions or self._tail()
        values, task.decisions_read = self._decisions.read(task.decisions_read)
        for value in values:
            alarm = _alarm(value)
            is_busy = (
                task.queue.ongoing is not None and alarm is not None and task.queue.ongoing.candidate == alarm.candidate
            )
            if alarm is not None and not is_busy:
                task.triggers.alarm(alarm.candidate, alarm.lineage)


def _alarm(value: bytes) -> DriftRecord | None:
    """Read a record of drift that asks for a training; None: it is another one."""
    try:
        record = msgspec.json.decode(value, type=DriftRecord)
    except msgspec.MsgspecError:  # records of other kinds have another tag
        return None
    return record if record.action == "retrain" else None


def _trained(version: Version) -> TrainedVersion:
    training = version.training
    if training is None:
        return TrainedVersion(
            version.candidate, *version.order, version.parent, "", version.examples, 0.0, {}, {}, version.created_us
        )
    return TrainedVersion(
        version.candidate,
        *version.order,
        version.parent,
        training.reason,
        training.rows,
        training.seconds,
        training.validation,
        training.test,
        version.created_us,
    )
