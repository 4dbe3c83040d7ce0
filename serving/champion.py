"""The champion in memory: the newest version of the candidate that serves, followed without a pause.

A new version is loaded, verified and warmed beside the old one and takes over between two batches; one that cannot be
read leaves the old one in place. Until a version exists the untrained model answers (lineage 0, examples 0).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
import numpy.typing as npt

from models.contained import Contained
from models.learner import Learner, make_learner
from models.registry import read_version
from models.sealed import key_for
from models.version import Version, decode_record
from streams.control import Control
from streams.errors import MillraceError, ModelError, PipelineError, UnavailableError
from streams.fitting import fit_matrix
from streams.frames import Column
from streams.metrics import RoleMetrics
from streams.pipeline import Model, Task
from streams.state_folder import Place

FOLLOW_EVERY_US = 200_000

Loader = Callable[[Callable[[], Learner]], Future[Learner]]  # runs it, maybe in another thread


def load_at_once(load: Callable[[], Learner]) -> Future[Learner]:
    """Load a version before the next batch: from a disk that takes a millisecond."""
    done: Future[Learner] = Future()
    try:
        done.set_result(load())
    except MillraceError as error:
        done.set_exception(error)
    return done


class Champion:
    """Follows the versions of one candidate on P.control.

    Args:
        model: the candidate's declaration.
        columns: the feature matrix it reads; each version picks its own columns by name.
        state: the pipeline's state, where blobs lie.
        control: the control topic.
        metrics: told which version serves.
        loader: where versions are read, verified and warmed; answers wait for it if it is this thread.
        task: what it answers.
    """

    def __init__(
        self,
        model: Model,
        columns: tuple[Column, ...],
        state: Place,
        control: Control,
        metrics: RoleMetrics,
        loader: Loader = load_at_once,
        task: Task | None = None,
    ) -> None:
        self.task = task or Task()
        self.name = model.name
        self._model = model
        self._columns = columns
        self._state = state
        self._control = control
        self._metrics = metrics.of(model.name)
        self._key = key_for(model.kind, state)
        self.learner: Learner = make_learner(model, columns, self._key, self.task)
        self._learned = columns  # those of the version at hand, whatever the list is now
        self.lineage, self.examples = 0, 0
        self._loader = loader
        self._loading: tuple[bytes, Version, Future[Learner]] | None = None
        self._refused: bytes | None = None
        self._next_follow_us = 0
        self._warm(self.learner, columns)
        self._metrics.serving(0, 0, int(time.time() * 1e6))

    @property
    def version(self) -> str:
        """The version that answers now, `lineage.examples`."""
        return f"{self.lineage}.{self.examples}"

    def predict(self, x_BF: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Answer with the version at hand; columns it was made for that are not there any more are missing."""
        if self._learned != self._columns:
            x_BF = fit_matrix(x_BF, self._columns, self._learned)
            x_BF.flags.writeable = False  # as in `_warm`
        score_B = self.learner.predict(x_BF)
        if isinstance(self.learner, Contained) and self.learner.failed_answers:
            self._metrics.incident("answer_failed", self.learner.failed_answers)
            self.learner.failed_answers = 0
        return score_B

    def follow(self, now_us: int) -> None:
        """Take up the newest version if there is one. Called between batches."""
        self._take_over()
        if self._loading is not None or now_us < self._next_follow_us:
            return
        self._next_follow_us = now_us + FOLLOW_EVERY_US
        self._control.refresh()
        record = self._control.versions.get(self.name)
        if record is None or record == self._refused:
            return
        try:
            version = decode_record(record)
            if version.order <= (self.lineage, self.examples):
                return
            if version.task != self.task:
                raise ModelError(f"{self.name}: version {version.order} was made for another task")
        except ModelError:
            self._refuse(record)
            return
        self._loading = record, version, self._loader(lambda: self._load(version))
        self._take_over()

    def _load(self, version: Version) -> Learner:
        learner = read_version(self._state, version, self._key, kind=self._model.kind)
        self._warm(learner, version.columns)
        return learner

    def _take_over(self) -> None:
        """Let a version answer from now on, if it is loaded."""
        if self._loading is None or not self._loading[2].done():
            return
        (record, version, done), self._loading = self._loading, None
        try:
            self.learner = done.result()
        except (ModelError, PipelineError):  # the latter: its parameters make no model here
            self._refuse(record)
        except UnavailableError:  # says nothing of the version: it is tried again
            self._metrics.incident("version_unread")
        else:
            self._learned = version.columns
            self.lineage, self.examples = version.lineage, version.examples
            self._metrics.serving(version.lineage, version.examples, version.created_us)

    def _refuse(self, record: bytes) -> None:
        self._refused = record
        self._metrics.incident("version_refused")

    def _warm(self, learner: Learner, columns: tuple[Column, ...]) -> None:
        canary = np.zeros((1, len(columns)))
        canary.flags.writeable = False  # as the rows of a batch are: another type of array compiles another kernel
        if not np.isfinite(learner.predict(canary)).all():
            raise ModelError(f"{self.name}: the canary's prediction is not finite; the version is not used")
