"""The learner: what every candidate model is to the rest of Millrace.

Prediction happens at event rows and learning at label rows, possibly much later; both are defined row by row, in
order. Batching is only a way to pay the call once, so cutting the same rows into other batches changes no bit.
"""

from __future__ import annotations

import importlib
from functools import partial
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from streams.batch_kinds import BATCH_KINDS
from streams.errors import PipelineError
from streams.frames import Column
from streams.model_kinds import KIND_NAMES, is_own, read_settings
from streams.model_setting import Value
from streams.pipeline import Model, Task
from streams.toml_table import Table

SKIP, PREDICT, LEARN = 0, 1, 2  # what `step` does with a row
MAX_MAGNITUDE = 1e30  # a number beyond it is treated as missing: its square still fits a float64 with room to spare
MAX_CODE = 2.0**53  # a category's code is an exact non-negative integer below it

_LEARNERS = {  # where the class of a kind is; of a kind and a task, if that has one of its own
    "linear": "models.adaptive_linear:linear_learner",
    "mlp": "models.mlp:MlpLearner",
    "naive_bayes": "models.naive_bayes:NaiveBayesLearner",
    "hoeffding_tree": "models.hoeffding_tree:HoeffdingTreeLearner",
    "kmeans": "models.kmeans:KMeansLearner",
    "half_space_trees": "models.half_space_trees:HalfSpaceTreesLearner",
    "prior": "models.baselines:BaselineLearner",
    "last": "models.baselines:BaselineLearner",
    "torch": "models.torch_learner:TorchLearner",
}

Matrix = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]
Actions = npt.NDArray[np.int8]
State = dict[str, npt.NDArray[np.generic]]


class Learner(Protocol):
    """A model that learns as labels come.

    Shapes: B rows, F features, C classes. NaN is a missing feature; so is a number that is infinite or beyond 1e30, and
    a category that is not an exact non-negative integer. Labels and scores are the task's (streams/pipeline.py):

        binary      label above 0.5 is yes      [B] probability of yes
        multiclass  place of the class          [B, C] probability of each class
        regression  the number                  [B] what it will be
        anomaly     above 0.5 is one, or NaN    [B] how unusual, in [0, 1]; it learns rows without a label too
        clustering  none, NaN                   [B] number of the cluster, from 0; or [B, n] with it first

    What `make_learner` gives may stand around such a learner and say more: with `[task] alert` each anomaly score comes
    with the threshold of that moment, [B, 2] (alerting.py), and each cluster with the squared distances to itself and
    to the nearest other one, [B, 3] (gauging.py).

    Example:
        >>> from models.learner import make_learner
        >>> learner = make_learner(Model("base", "prior", {}), ())
        >>> learner.learn(np.empty((2, 0)), np.array([1.0, 1.0]))
        >>> learner.predict(np.empty((1, 0)))
        array([0.75])
    """

    def predict(self, X_BF: Matrix) -> Vector:
        """Give each row's score, finite, probabilities in [0, 1]; changes nothing."""
        ...

    def learn(self, X_BF: Matrix, y_B: Vector) -> None:
        """Learn the rows one after the other; where labels are needed, a row whose label is NaN is passed over."""
        ...

    def step(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> Vector:
        """Take the rows in order and PREDICT (its score is returned), LEARN or SKIP each one (NaN is returned)."""
        ...

    def state(self) -> State:
        """Give everything that `restore` needs to go on bit for bit; arrays only, safe to write at once."""
        ...

    def restore(self, state: State) -> None:
        """Take a state given by a learner of the same kind, parameters and columns.

        Raises:
            ModelError: when the state does not fit or is not ours.
        """
        ...

    def is_finite(self) -> bool:
        """Say whether every number in the model is finite; asked before a version is published or a snapshot taken."""
        ...

    def size_bytes(self) -> int:
        """Give the memory that the model's state takes (for River: its size when it was last written)."""
        ...


def make_learner(
    model: Model, columns: tuple[Column, ...], key: bytes | None = None, task: Task | None = None
) -> Learner:
    """Make the untrained learner that `[models.<name>]` declares.

    Args:
        model: the candidate's declaration.
        columns: the columns of the matrices it will be given, in order.
        key: seals models of River and scikit-learn (see models/sealed.py); other kinds do not need it. Without it they
            can not be written, and what they raise is not held back.
        task: what labels are; yes or no if nothing is said.

    Raises:
        PipelineError: when the kind or a parameter is not known.
    """
    task = task or Task()
    make = partial(_make_surrounded, model, columns, key, task)
    is_estimator = model.kind.startswith("sklearn:")
    if ((is_estimator or model.kind.startswith("river:")) and key is not None) or is_own(model.kind):
        from models.contained import Contained

        return Contained(make, task, learns=not is_estimator)  # code that is not Millrace's own may raise
    return make()


def _make_surrounded(model: Model, columns: tuple[Column, ...], key: bytes | None, task: Task) -> Learner:
    """Make a learner that says all that its task wants, whatever the kind says by itself."""
    made = _make_bare(model, columns, key, task)
    if task.kind == "clustering":
        from models.gauging import GaugedLearner

        return GaugedLearner(made, columns)
    if task.alert is not None:
        from models.alerting import AlertingLearner

        return AlertingLearner(made, task.alert)
    return made


def _make_bare(model: Model, columns: tuple[Column, ...], key: bytes | None, task: Task) -> Learner:
    # Imported here so that a process pays only for the kinds it runs: River alone costs a second and 100 MiB.
    if model.kind.startswith("river:"):
        from models.river_learner import RiverLearner

        return RiverLearner(model, columns, key, task)
    if model.kind.startswith("sklearn:"):
        from models.sklearn_learner import SklearnLearner

        return SklearnLearner(model, columns, key, task)
    if is_own(model.kind):
        from models.own_learner import OwnLearner

        return OwnLearner(model, columns, task)
    if model.shards > 1:
        from models.sharded import ShardedLearner, way_of

        one = msgspec.structs.replace(model, shards=1)
        return ShardedLearner(lambda: make_learner(one, columns, key, task), model.shards, way_of(model, task))
    place = _LEARNERS.get(f"{model.kind} {task.kind}") or _LEARNERS.get(model.kind)
    if place is None and model.kind in BATCH_KINDS:
        place = _LEARNERS[model.kind.partition(":")[0]]
    if place is None:
        message = f"[models.{model.name}] kind: {model.kind!r} is not known; allowed: {KIND_NAMES}"
        raise PipelineError([message])
    module, _, name = place.partition(":")
    made: Learner = getattr(importlib.import_module(module), name)(model, columns, task)
    return made


def untrained_score(task: Task) -> float:
    """Give what a model says by itself that knows nothing: one half, the same for every class, or 0."""
    return {"binary": 0.5, "multiclass": 1.0 / max(1, len(task.classes))}.get(task.kind, 0.0)


def untrained_answer(task: Task) -> Vector | np.float64:
    """Give all S numbers of a prediction where nothing is known; a threshold is one that no score reaches."""
    answer_S = np.full(task.outputs, untrained_score(task))
    if task.alert is not None:
        answer_S[1] = np.nextafter(1.0, 2.0)
    return answer_S if task.outputs > 1 else answer_S[0]


def replaced_of(learner: Learner) -> int:
    """Give how many answers of a learner were none (not finite, or no probabilities) and were replaced since it began.

    0 of a learner that does not count them.
    """
    return int(getattr(learner, "replaced_predictions", 0))


def settings_of(model: Model, task: Task) -> dict[str, Value]:
    """Give all settings of a model of our own, with defaults where it has none.

    Raises:
        PipelineError: naming all that is wrong with them.
    """
    table = Table(f"models.{model.name}", model.params, [])
    settings = read_settings(table, model.kind, task)
    table.finish()
    if table.mistakes:
        raise PipelineError(table.mistakes)
    return settings


def numbers_of(model: Model, task: Task) -> dict[str, float]:
    """Give the settings that are numbers, as floats. Raises as `settings_of`."""
    settings = settings_of(model, task)
    return {name: float(value) for name, value in settings.items() if not isinstance(value, str | tuple)}
