"""The role learn: examples in, scores and versions out, for one candidate."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from consumers.drifting import drifting_of
from consumers.examples_role import ExamplesRole
from consumers.inlet import FrameInlet
from consumers.learn import LearnTask
from consumers.learn_snapshot import lineage_of
from consumers.quarantine import parameters_of
from consumers.role import Inlet, OpenPartition, Task
from consumers.uptake import published_model, uptake_of
from models.learner import Learner, make_learner
from models.registry import keep_for_good, tell_again, write_version
from models.sealed import key_for
from models.version import Version, decode_record, encode_record
from streams import frames
from streams.advice import rebuild_of
from streams.control import Control
from streams.decisions import Succession
from streams.errors import UnavailableError
from streams.faults import fail_point
from streams.frames import Column, FrameSchema
from streams.kafka import Outbox
from streams.metrics import RoleMetrics
from streams.pipeline import Model, Pipeline
from streams.snapshots import State

LOG = logging.getLogger("consumers.roles")
PUBLISH_SHARE = 0.05  # publishing takes at most this share of a candidate's time
OTHERS_EVERY_S = 60.0  # candidates that do not serve publish once a minute


class Restarted(msgspec.Struct, frozen=True, tag="restarted", tag_field="decision", omit_defaults=True):
    """A record of P.decisions: a candidate could not go on and begins anew at the earliest example there is.

    `trained` is the number of the trained version that it begins with, and left out if there is none.
    """

    candidate: str
    lineage: int
    generation: int
    reason: str
    time_us: int
    trained: str = ""


class LearnRole(ExamplesRole):
    """Examples in, scores and versions out, for one candidate.

    Args:
        pipeline: the pipeline.
        model: the candidate.
        control: resolves sources; where versions are announced.
        outbox: for decisions.
        metrics: of the candidate.
        succession: who reigns, and so publishes often; without one the pipeline file's champion does.
    """

    ahead_kib = 8_192  # a compiled learner takes a million examples a second, 400 bytes each
    most_rows = 20_000  # rows cost so little here that steps do not

    def __init__(
        self,
        pipeline: Pipeline,
        model: Model,
        control: Control,
        outbox: Outbox,
        metrics: RoleMetrics,
        succession: Succession | None = None,
    ) -> None:
        super().__init__(pipeline, control)
        self._outbox, self._metrics = outbox, metrics
        self._succession = succession or Succession.of(pipeline)
        self._model = model
        self._key = key_for(model.kind, self._state)
        self.name = f"learn.{model.name}"
        self.writes: Mapping[str, FrameSchema] = {}
        self._tried_us: int | None = None  # when the last version was made, and how long the pause for that is
        self._pause_us = 0
        self._is_quarantine_told, self._kept_reign = False, ""
        self._next_figures_us, self._scored = 0, 0
        self._has_looked = False
        self._published = 0, 0  # serve answers with the untrained model by itself

    def task(self, inlet: Inlet, partition: int, sources: list[int], generation: int) -> LearnTask:
        """One candidate over all examples."""
        learner = make_learner(self._model, self._columns, self._key, self._pipeline.task)
        assert isinstance(inlet, FrameInlet)  # noqa: S101 - made by `inlet` above
        ended, bind, task = inlet.memory.ended, partial(self._bind, inlet), self._pipeline.task
        return LearnTask(
            self._model.name,
            learner,
            self._columns,
            generation=generation,
            ended=ended,
            task=task,
            bind=bind,
            aliases=self._control.aliases,
            sample=self._model.sample,
            parameters=parameters_of(self._model),
            keep_us=self._pipeline.labels.keep_us,
            is_relearned=self._pipeline.labels.is_relearned,
            drift=drifting_of(self._pipeline, self._model, self._columns),
            uptake=uptake_of(self._model, self._state, self._key),
            tells_labels=self._pipeline.select is not None,
        )

    def _bind(self, inlet: FrameInlet, columns: tuple[Column, ...]) -> Learner:
        """Let examples come with the columns of a model that was made under another list."""
        inlet.bind(frames.examples_schema(columns))
        return make_learner(self._model, columns, self._key, self._pipeline.task)

    def renew(self, task: Task, given_up: State, reason: str) -> None:
        """Begin a new lineage, and say so on P.decisions before its first output (PROTOCOL 22)."""
        assert isinstance(task, LearnTask)  # noqa: S101 - made by `task` above
        published = self._control.versions.get(self._model.name)  # the state may be gone, what was published is not
        known = 0 if published is None else decode_record(published).lineage
        task.lineage = max(lineage_of(given_up), known) + 1
        if task.uptake is not None:
            task.begin_trained(given_up)
        version = None if task.uptake is None else task.uptake.version
        trained, now_us = "" if version is None else version.number, int(time.time() * 1e6)
        restarted = Restarted(self._model.name, task.lineage, task.generation, reason, now_us, trained)
        self._outbox.produce(f"{self._pipeline.name}.decisions", 0, msgspec.json.encode(restarted))
        self._outbox.flush()

    def tick(self, now_us: int, partitions: Sequence[OpenPartition]) -> None:
        """Publish a version when one is due: the blob first, then its record."""
        if not partitions:
            return
        task = partitions[0].task
        assert isinstance(task, LearnTask)  # noqa: S101 - made by `task` above
        self._tell(task)
        is_new = task.version != self._published and task.examples_seen  # a model that was reset has yet to learn
        is_new = is_new or self._has_news(task, now_us)
        is_named = task.is_at_example or task.ward.quarantine is not None  # one set aside stays what it is
        if not self._is_due(now_us) or not is_new or not is_named:
            return  # one that has learned an amended label since is what no number of examples names
        if self._is_behind(task):
            return
        began = time.perf_counter()
        try:
            self.publish(task)
        finally:  # what a store refused is tried again no sooner
            took_us = int((time.perf_counter() - began) * 1e6)
            self._tried_us, self._pause_us = now_us, int(took_us / PUBLISH_SHARE)
            self._next_figures_us, self._scored = now_us + int(1e6 * OTHERS_EVERY_S), task.board.count("scored")
        self._keep_reigning()

    def _is_behind(self, task: LearnTask) -> bool:
        """Whether a newer version was published: rows that are read again must not take serve back to an older one."""
        if not self._has_looked:
            self._has_looked = True
            self._control.refresh()  # what processes before this one have published
        published = self._control.versions.get(self._model.name)
        return published is not None and decode_record(published).order > task.version

    def _has_news(self, task: LearnTask, now_us: int) -> bool:
        """Whether the figures of a frozen model, whose version stays for days, are to be told again: once a minute."""
        is_frozen = task.uptake is not None and task.uptake.version is not None and task.uptake.is_frozen
        return is_frozen and now_us >= self._next_figures_us and task.board.count("scored") != self._scored

    def _keep_reigning(self) -> None:
        """Keep the version with which this candidate began to reign, once it is known."""
        reign = self._succession.reign
        if reign.champion != self._model.name or reign.record is None or reign.id == self._kept_reign:
            return
        if keep_for_good(self._state, self._model.name, reign.record.time_us) is not None:
            self._kept_reign = reign.id

    def _is_due(self, now_us: int) -> bool:
        """Say whether it is time for a version: often of the champion, whichever candidate reigns now."""
        is_champion = self._succession.follow(now_us).champion == self._model.name
        every_us = int(1e6 * (self._pipeline.run.publish_every_s if is_champion else OTHERS_EVERY_S))
        return self._tried_us is None or now_us >= self._tried_us + max(every_us, self._pause_us)

    def _tell(self, task: LearnTask) -> None:
        """Say once in each process that a candidate is set aside, and once more if that was over in between."""
        is_told, self._is_quarantine_told = self._is_quarantine_told, task.ward.quarantine is not None
        if task.ward.quarantine is None or is_told:
            return
        if task.uptake is not None:
            LOG.error("%s; an untrained model answers such rows until its next version", task.ward.quarantine)
            return
        text = "%s; it learns no more until its parameters change, or after `%s`"
        LOG.error(text, task.ward.quarantine, rebuild_of(self.name))

    def publish(self, task: LearnTask) -> None:
        """Write the model as a version and announce it, unless it is not finite or too large."""
        try:
            version = self._written(task)
        except UnavailableError:
            self._metrics.incident("version_unwritten")  # learning goes on; its snapshots say what is wrong
            self._fall_behind(task)
            raise
        self._published = task.version
        if version is None:
            self._metrics.incident("version_unsound")
            self._fall_behind(task)
            return
        task.unpublished_us = None
        self._control.publish_version(self._model.name, encode_record(version))
        fail_point("after_publish")

    def _fall_behind(self, task: LearnTask) -> None:
        """Note since when what answers is older than what is scored: the selector is to know (consumers/gates.py)."""
        if task.unpublished_us is None:
            task.unpublished_us = int(time.time() * 1e6)

    def _written(self, task: LearnTask) -> Version | None:
        """Write the model as a version, None if it must not be one; what has learned nothing is the trained file."""
        about = task.about(self._parent(task.version))
        trained = None if task.uptake is None else task.uptake.version
        if trained is not None and trained.order == task.version:
            return tell_again(self._state, trained, about)
        return write_version(
            self._state,
            self._model if trained is None else published_model(trained),
            task.columns if trained is None else trained.columns,
            task.answering,
            task.version,
            created_us=int(time.time() * 1e6),
            task=self._pipeline.task,
            about=about,
            kept=self._pipeline.run.keep_versions,
        )

    def _parent(self, order: tuple[int, int]) -> str:
        """Give the version that was published before this one; one that is published again keeps the one it had."""
        published = self._control.versions.get(self._model.name)
        if published is None:
            return ""
        known = decode_record(published)
        return known.number if known.order < order else known.parent
