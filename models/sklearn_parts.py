"""scikit-learn's estimators from plain values: a name inside `sklearn.` and parameters, nested as deep as they go.

A table with `use` is an estimator: `{ use = "tree.DecisionTreeClassifier", max_depth = 3 }`; it may stand wherever a
parameter wants one, also in a list. Only estimators of the packages below are made, the same that a sealed model may
hold: a version's record comes from Kafka, and whoever can write there must not choose what runs.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from sklearn.base import BaseEstimator

from models.class_names import absence, parted
from models.sealed import Library
from streams.errors import PipelineError
from streams.toml_table import mistake_line, shown

SKLEARN_VERSION = version("scikit-learn")
SEED = 0  # given to whatever takes a random state and was not given one: a training must give the same model again
MOST_LEVELS = 16  # of tables inside tables
USE = "use"
PACKAGES = (
    "calibration",
    "cluster",
    "compose",
    "covariance",
    "cross_decomposition",
    "decomposition",
    "discriminant_analysis",
    "dummy",
    "ensemble",
    "feature_selection",
    "gaussian_process",
    "impute",
    "isotonic",
    "kernel_approximation",
    "kernel_ridge",
    "linear_model",
    "mixture",
    "multiclass",
    "naive_bayes",
    "neighbors",
    "neural_network",
    "pipeline",
    "preprocessing",
    "random_projection",
    "semi_supervised",
    "svm",
    "tree",
)
_INNER = ("_loss", "metrics._dist_metrics", "utils._bunch")  # losses of boosting, distances, tables of a pipeline
_GENERATORS = "numpy.random.bit_generator"
SEALED = Library(
    "scikit-learn",
    tuple(f"sklearn.{package}" for package in (*PACKAGES, *_INNER)),
    names=frozenset(
        {
            ("numpy", "float32"),  # what encoders give
            ("numpy", "float64"),
            ("numpy.random._pcg64", "PCG64"),
            ("numpy.random._pickle", "__generator_ctor"),
            (_GENERATORS, "SeedSequence"),
            (_GENERATORS, "__pyx_unpickle_SeedSequence"),
            ("sklearn._loss._loss", "__pyx_unpickle_CyHalfMultinomialLoss"),
            ("sklearn.metrics._dist_metrics", "newObj"),
            ("sklearn.neighbors._ball_tree", "newObj"),
            ("sklearn.utils.validation", "check_array"),  # a step before boosting with categories
            ("sklearn.neighbors._kd_tree", "newObj"),
        }
    ),
)


def make_estimator(name: str, params: Mapping[str, Any], where: str) -> Any:
    """Make the estimator of this name, and all inside it; it is not fitted.

    Args:
        name: as `ensemble.HistGradientBoostingClassifier`.
        params: of its constructor; tables with `use` become estimators.
        where: the table in messages, as `[models.trees]`.

    Raises:
        PipelineError: naming what is wrong.
    """
    mistakes: list[str] = []
    made = _made(name, params, f"{where} kind", f"{where} ", mistakes)
    if mistakes:
        raise PipelineError(mistakes)
    given = {key: SEED for key, value in made.get_params().items() if _is_seed(key) and value is None}
    return made.set_params(**given)


def find_class(name: str) -> type:
    """Give scikit-learn's class of this name.

    Raises:
        LookupError: with what is wrong, and the nearest name.
    """
    package, last = parted(name, "ensemble.RandomForestClassifier")
    absent = f"is not in scikit-learn {SKLEARN_VERSION}, or no model"
    if package.partition(".")[0] not in PACKAGES:
        raise absence(absent, package, PACKAGES)
    try:
        module = importlib.import_module(f"sklearn.{package}")
    except ImportError:
        raise absence(absent, package, PACKAGES) from None
    found = getattr(module, last, None)
    if not _is_estimator(found):
        names = [one for one, value in vars(module).items() if _is_estimator(value)]
        raise absence(absent, last, names, package)
    return found  # type: ignore[return-value]  # just seen to be a class


def _made(name: str, params: Mapping[str, Any], key: str, path: str, mistakes: list[str]) -> Any:
    """Make one estimator; `path` stands before its parameters in messages. What is wrong becomes None."""
    try:
        found = find_class(name)
    except LookupError as error:
        mistakes.append(f"{key}: {shown(name)} {error}")
        return None
    takes = list(inspect.signature(found).parameters)
    before = len(mistakes)
    unknown, allowed = [one for one in params if one not in takes], ", ".join(takes) or "none"
    mistakes.extend(mistake_line(path + one, "unknown key", allowed, one, takes) for one in unknown)
    given = {one: _value(value, path + one, mistakes) for one, value in params.items()}
    if len(mistakes) > before:
        return None
    try:
        made: Any = found(**given)
        made._validate_params()  # noqa: SLF001  # what `fit` asks first; there is no public way
    except Exception as error:  # noqa: BLE001  # whatever its constructor thinks of the parameters
        mistakes.append(f"{key}: {name} cannot be made: {' '.join(str(error).split())}")
        return None
    return made


def _value(value: Any, path: str, mistakes: list[str]) -> Any:
    if path.count(".") >= MOST_LEVELS:
        mistakes.append(f"{path}: lies too deep; at most {MOST_LEVELS} tables inside each other")
    elif isinstance(value, dict) and USE in value:
        params = {key: inner for key, inner in value.items() if key != USE}
        return _made(str(value[USE]), params, f"{path}.{USE}", f"{path}.", mistakes)
    elif isinstance(value, dict):
        return {key: _value(inner, f"{path}.{key}", mistakes) for key, inner in value.items()}
    elif isinstance(value, list | tuple):
        return [_value(inner, f"{path}.{place}", mistakes) for place, inner in enumerate(value)]
    return value


def _is_estimator(found: Any) -> bool:
    is_class = inspect.isclass(found) and issubclass(found, BaseEstimator) and not inspect.isabstract(found)
    return is_class and SEALED.has_module(found.__module__)


def _is_seed(key: str) -> bool:
    return key == "random_state" or key.endswith("__random_state")
