"""Taking up: what a candidate that is trained in batches does at a row that announces a version of it.

The version's model answers from that row on, whatever the batch. Until the first it answers as an untrained model does.
It is the file that the record names, by its digest; one that is lost, damaged or not sound is refused, and the
candidate keeps the model it has. Which of the two it was does not follow from the rows, so a lost file is outside of
what a replay repeats; a store that does not answer is no lost file, and ends the process until it does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec
import numpy as np
import numpy.typing as npt

from consumers.version_rows import Announced
from models.learner import Learner, State, make_learner
from models.registry import read_version
from models.version import Version, decode_record
from streams.errors import ModelError, PipelineError
from streams.frames import Column
from streams.pipeline import Model, Task
from streams.state_folder import Place

LOG = logging.getLogger("consumers.uptake")
_NAME, _FROZEN = "trained", "trained_frozen"  # its arrays in a snapshot: the record, and whether it learns nothing

Making = Callable[[Version], Learner]


class Refused(msgspec.Struct, frozen=True, tag="refused", tag_field="decision"):
    """A record of P.decisions: a version that was announced cannot be taken up, and the candidate keeps what it has.

    `kept` is the number of the version that goes on, `time_us` that of the row.
    """

    candidate: str
    lineage: int
    generation: int
    kept: str
    reason: str
    time_us: int


class Uptake:
    """The trained version that a candidate goes on from.

    Args:
        load: reads a version's file into a model that is ready.
        blank: makes the same model without its file, for a snapshot to be restored into.
        is_frozen: whether it learns nothing between two trainings.
    """

    def __init__(self, load: Making, blank: Making, *, is_frozen: bool = True) -> None:
        self.version: Version | None = None
        self.is_taken_anew = False  # whether the model restored last is the file's, for another `then` wrote the rest
        self.refused = 0  # since the process began
        self.is_always_frozen = is_frozen
        self._load, self._blank = load, blank

    @property
    def is_frozen(self) -> bool:
        """Whether the model at hand learns nothing; one that was never trained does not, either."""
        return self.is_always_frozen or self.version is None

    @property
    def columns(self) -> tuple[Column, ...] | None:
        """The columns of the matrices that the trained model is made for; None: there is none."""
        return None if self.version is None else self.version.columns

    def take(self, found: Announced, order: tuple[int, int], generation: int, task: Task) -> Learner | Refused | None:
        """Give the model of a version that is announced, why it is refused, or None: it is no newer one than `order`.

        Raises:
            UnavailableError: the store of its file does not answer.
        """
        lineage = order[0]
        try:
            version = decode_record(found.record)
            lineage = version.lineage
            if version.candidate != found.candidate:
                raise ModelError(f"a version row of {found.candidate} has the record of {version.name}")
            if version.order <= order:
                return None
            if version.task != task:
                raise ModelError(f"version {version.name} was made for another task ({version.task}; now {task})")
            learner = self._load(version)
        except (ModelError, PipelineError) as error:
            self.refused += 1
            kept, reason = f"{order[0]}.{order[1]}", " ".join(str(error).split())
            return Refused(found.candidate, lineage, generation, kept, reason, found.time_us)
        self.version = version
        return learner

    def begin(self, given_up: State) -> Learner | None:
        """Give the model of the version in a state that was given up, as its file has it; None: there is none to have.

        Raises:
            UnavailableError: the store of its file does not answer.
        """
        if _NAME not in given_up:
            return None
        try:
            version = decode_record(given_up[_NAME].tobytes())
            learner = self._load(version)
        except (ModelError, PipelineError) as error:
            self.refused += 1
            LOG.error("a trained version is refused, an untrained model begins: %s", error)  # noqa: TRY400  # one line
            return None
        self.version = version
        return learner

    def state(self) -> State:
        """Give the record of the version at hand, nothing without one."""
        if self.version is None:
            return {}
        return {_NAME: record_array(self.version), _FROZEN: np.array([self.is_always_frozen])}

    def restore(self, state: State) -> Learner | None:
        """Take back what `state` gave; gives the model to restore weights into, None: there was no training yet.

        Where `then` was another one, the weights in the snapshot are of another kind of model: then the version's file
        is read once more, and `is_taken_anew` is true.

        Raises:
            ModelError: the record cannot be read, or the file where it is needed.
        """
        self.version = decode_record(state[_NAME].tobytes()) if _NAME in state else None
        if self.version is None:
            return None
        self.is_taken_anew = _FROZEN in state and bool(state[_FROZEN][0]) != self.is_always_frozen
        return self._load(self.version) if self.is_taken_anew else self._blank(self.version)


def record_array(version: Version) -> npt.NDArray[np.uint8]:
    """Give a version's record as a snapshot has it."""
    return np.frombuffer(msgspec.json.encode(version), np.uint8)


def uptake_of(model: Model, state: Place, key: bytes | None) -> Uptake | None:
    """Make what takes up the versions of a candidate; None for one that learns online from its first label.

    Args:
        model: the candidate's declaration.
        state: of the pipeline, where versions lie.
        key: opens models that are sealed.
    """
    if model.retrain is None:
        return None

    def blank(version: Version) -> Learner:
        return make_learner(_declared(version), version.columns, key, version.task)

    if model.retrain.then == "freeze":
        return Uptake(lambda version: read_version(state, version, key), blank)
    from models.torch_learner import as_online  # a second and 200 MiB, which no other process pays

    def online(version: Version, found: State) -> Learner:
        return as_online(found, _declared(version), version.columns, version.task)

    return Uptake(
        lambda version: online(version, read_version(state, version, key).state()),
        lambda version: online(version, {}),
        is_frozen=False,
    )


def published_model(version: Version) -> Model:
    """Give the declaration that a trained model is published under once it has learned on."""
    from models.torch_learner import online_model  # as above

    return online_model(_declared(version), version.task)


def _declared(version: Version) -> Model:
    return Model(version.candidate, version.kind, version.params)
