"""A search for settings: some short trainings, each with settings that the ones before make look good.

The sampler is Optuna's TPE (Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011), seeded and
in memory, so the same losses give the same settings in every process and run. The file's own settings are the first
trial: a search gives nothing that did worse than they.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import optuna

from streams.errors import PipelineError, TrainingError
from streams.model_setting import Value

BUDGET_SHARE = 1.0 / 3.0  # of a training's time, for all trials together
LR_FACTOR = 10.0  # the learning rate is looked for between a tenth and the tenfold of the file's
WEIGHT_DECAY = (1e-5, 0.3)
MOST_DROPOUT = 0.5
SIZES = (0.5, 1.0, 2.0)  # of layers, as factors of the file's
_PENALTIES = 1e-5  # nothing is lower on a logarithmic scale

Try = Callable[[dict[str, Any]], float]
"""Trains with settings instead of the file's and gives the validation loss; raises where that fails."""


def search(settings: Mapping[str, Value], trials: int, seed: int, attempt: Try) -> dict[str, Any]:
    """Give the settings, of those that are searched, whose trial had the least validation loss.

    Args:
        settings: the file's, all of them.
        trials: how many, the first with the file's own.
        seed: of what is drawn.
        attempt: trains.

    Raises:
        TrainingError: every trial failed.

    Example:
        >>> search({"lr": 0.1, "weight_decay": 0.01}, 8, 0, lambda tried: abs(tried["lr"] - 0.3))["lr"] > 0.15
        True
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    space = _space(settings)
    study.enqueue_trial({name: _inside(one, settings[name]) for name, one in space.items() if name in settings})
    reasons = []
    for _ in range(trials):
        trial = study.ask({**space})
        try:
            study.tell(trial, attempt(_tried(settings, trial.params)))
        except (TrainingError, PipelineError) as error:  # a loss that is not finite, or settings that are too large
            reasons.append(str(error))
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
    if len(reasons) == trials:
        raise TrainingError(f"all {trials} trials of the search failed; the last: {reasons[-1]}")
    return _tried(settings, study.best_params)


def _space(settings: Mapping[str, Value]) -> dict[str, optuna.distributions.BaseDistribution]:
    """Say what is searched: rates, dropout where there is some, and the size of layers."""
    floats, lr = optuna.distributions.FloatDistribution, _number(settings["lr"])
    space: dict[str, optuna.distributions.BaseDistribution] = {
        "lr": floats(lr / LR_FACTOR, min(1.0, lr * LR_FACTOR), log=True),
        "weight_decay": floats(*WEIGHT_DECAY, log=True),
    }
    if "dropout" in settings:
        space["dropout"] = floats(0.0, MOST_DROPOUT)
    if "hidden" in settings or "width" in settings:
        space["size"] = optuna.distributions.CategoricalDistribution(SIZES)
    return space


def _inside(distribution: optuna.distributions.BaseDistribution, value: Value) -> float:
    """Give the file's value, or the nearest that is searched."""
    assert isinstance(distribution, optuna.distributions.FloatDistribution)  # noqa: S101  # size has no value of its own
    return min(max(_number(value), distribution.low), distribution.high)


def _tried(settings: Mapping[str, Value], drawn: Mapping[str, Any]) -> dict[str, Any]:
    """Turn what was drawn into settings."""
    found = {name: value for name, value in drawn.items() if name != "size"}
    factor = drawn.get("size", 1.0)
    hidden, width = settings.get("hidden"), settings.get("width")
    if isinstance(hidden, tuple):
        found["hidden"] = [max(1, round(units * factor)) for units in hidden]
    if isinstance(width, int):
        heads = settings.get("heads")
        step = heads if isinstance(heads, int) else 1  # each head has its share
        found["width"] = max(step, round(width * factor / step) * step)
    return found


def _number(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
