"""A candidate as one who answers: the newest version of its model, followed without a pause.

A new version is loaded, verified and warmed beside the old one and takes over between two batches; one that cannot be
read leaves the old one in place. Until a version exists the untrained model answers (lineage 0, examples 0), and what
an untrained model says where not even that can be made: whoever asks is answered.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np

from models.learner import Learner, make_learner
from models.registry import read_version
from models.sealed import key_for
from models.version import Version, decode_record
from serving.version_at_hand import Matrix, VersionAtHand
from streams.control import Control
from streams.errors import ModelError, PipelineError, UnavailableError
from streams.frames import Column
from streams.metrics import RoleMetrics
from streams.pipeline import Model, Task
from streams.state_folder import Place

LOG = logging.getLogger("serving.candidate")
FOLLOW_EVERY_US = 200_000

Loader = Callable[[Callable[[], Learner]], Future[Learner]]  # runs it, maybe in another thread


def load_at_once(load: Callable[[], Learner]) -> Future[Learner]:
    """Load a version in this thread, where nothing waits for answers meanwhile."""
    done: Future[Learner] = Future()
    try:
        done.set_result(load())
    except Exception as error:  # noqa: BLE001 - whoever takes the result decides, as with another thread
        done.set_exception(error)
    return done


class Candidate:
    """Follows the versions of one candidate on P.control.

    Args:
        model: the candidate's declaration.
        columns: the feature matrix it reads; each version picks its own columns by name.
        state: the pipeline's state, where blobs lie.
        control: the control topic.
        metrics: told which version answers, from `begin` to `end`.
        loader: where versions are read, verified and warmed; answers wait for it if it is this thread.
        task: what it answers.

    Attributes:
        at_hand: answers.
        is_answering: from `begin` to `end`.
        has_looked: whether the newest version there was at the last look is at hand, or known to be of no use.
        trouble: why there is no version at hand, or none as new as there could be.
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
        self._loader = loader
        self._loading: tuple[bytes, Version, Future[Learner]] | None = None
        self._refused: bytes | None = None
        self._next_follow_us = 0
        self.is_answering = False
        self.has_looked = False
        self.trouble = "it has no version yet"
        self.at_hand = VersionAtHand(self._untrained(), columns, made_us=int(time.time() * 1e6))
        self._before: VersionAtHand | None = None  # the last good version, for one that fails at rows that come

    @property
    def version(self) -> str:
        """The version that answers now, `lineage.examples`."""
        return str(self.at_hand)

    @property
    def is_trained(self) -> bool:
        """Whether it is a version that answers."""
        return self.at_hand.record is not None

    def begin(self) -> None:
        """Answer from here on: metrics tell of the version."""
        self.is_answering = True
        self._metrics.serving(*self.at_hand.order, self.at_hand.made_us)

    def end(self) -> None:
        """Answer no more. The version at hand stays, for it is what is at hand first if it is to answer again."""
        self.is_answering = self.has_looked = False
        self._metrics.not_serving()

    def predict(self, x_BF: Matrix) -> Matrix:
        """Answer with the version at hand; columns it was made for that are not there any more are missing.

        Rows are answered whatever a model raises or says: by the last good version, which then stays at hand, if it can
        answer more of them, else as an untrained model would. Ask for `version` afterwards.
        """
        answered = self.at_hand.answer(x_BF, self._columns, self.task)
        if answered.replaced:
            self._metrics.incident("answer_not_finite", answered.replaced)
        if not answered.failed:
            return answered.score_BS
        before = self._before
        if before is not None:
            instead = before.answer(x_BF, self._columns, self.task)
            if instead.failed < answered.failed:
                self._step_back(before, answered.reason)
                answered = instead
        if answered.failed:
            self._metrics.incident("answer_failed", answered.failed)
            self._say(f"{answered.failed} rows could not be answered by version {self.version}: {answered.reason}")
        return answered.score_BS

    def _step_back(self, before: VersionAtHand, reason: str) -> None:
        """Let the last good version answer again; the one at hand is refused."""
        failing, self.at_hand, self._before = self.at_hand, before, None
        assert failing.record is not None  # noqa: S101 - there was another before it
        self._refuse(failing.record, reason)
        if self.is_answering:
            self.begin()

    def explain(self, x_BF: Matrix) -> list[list[tuple[str, float]]] | None:
        """Say what moved each row's prediction; None where the model is of a kind that is not explained."""
        from models.explanation import explain  # whoever explains nothing needs none of the kinds that it knows

        held = self.at_hand
        if held.learner is None:
            return None
        try:
            return explain(held.learner, held.learned, held.fitted(x_BF, self._columns))
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - as `VersionAtHand.answer`: the answer itself is there
            self._metrics.incident("answer_failed", len(x_BF))
            self._say(f"{len(x_BF)} answers of version {self.version} could not be explained: {error}")
            return None

    def follow(self, now_us: int) -> None:
        """Take up the newest version if there is one. Called between batches."""
        self._take_over()
        if self._loading is not None or now_us < self._next_follow_us:
            return
        self._next_follow_us = now_us + FOLLOW_EVERY_US
        self._control.refresh()
        record = self._control.versions.get(self.name)
        if record is None or record == self._refused:
            self.has_looked = True
            return
        try:
            version = decode_record(record)
            if version.order <= self.at_hand.order:
                self.has_looked = True
                return
            if version.task != self.task:
                raise ModelError(f"{self.name}: version {version.order} was made for another task")
        except ModelError as error:
            self._refuse(record, str(error))
            return
        self._loading = record, version, self._loader(lambda: self._load(version))
        self._take_over()

    def _load(self, version: Version) -> Learner:
        learner = read_version(self._state, version, self._key(), kind=self._model.kind)
        self._warm(learner, version.columns)
        return learner

    def _take_over(self) -> None:
        """Let a version answer from now on, if it is loaded."""
        if self._loading is None or not self._loading[2].done():
            return
        (record, version, done), self._loading = self._loading, None
        self.has_looked = True
        try:
            learner = done.result()
        except UnavailableError as error:  # says nothing of the version: it is tried again
            self.trouble = str(error)
            self._metrics.incident("version_unread")
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a library's code: no version is worth the answers of the others
            self._refuse(record, str(error))
        else:
            self._before = self.at_hand if self.is_trained else None
            self.at_hand = VersionAtHand.of(learner, version, record)
            if self.is_answering:
                self.begin()

    def _refuse(self, record: bytes, reason: str) -> None:
        self._refused, self.has_looked = record, True
        self._say(f"a version is refused, {self.version} goes on: {reason}")
        self._metrics.incident("version_refused")

    def _say(self, trouble: str) -> None:
        """Say what is wrong, once until something else is."""
        if trouble != self.trouble:
            self.trouble = trouble
            LOG.error("%s: %s", self.name, trouble)

    def _untrained(self) -> Learner | None:
        """Make the untrained model, which loads its library and its kernels; None, with the reason, where none is."""
        try:
            learner = make_learner(self._model, self._columns, self._key(), self.task)
            self._warm(learner, self._columns)
        except (ModelError, PipelineError, ImportError) as error:
            self._say(f"cannot be made here: {error}")
            return None
        return learner

    def _key(self) -> bytes | None:
        return key_for(self._model.kind, self._state)

    def _warm(self, learner: Learner, columns: tuple[Column, ...]) -> None:
        canary = np.zeros((1, len(columns)))
        canary.flags.writeable = False  # as the rows of a batch are: another type of array compiles another kernel
        if not np.isfinite(learner.predict(canary)).all():
            raise ModelError(f"{self.name}: the canary's prediction is not finite; the version is not used")
