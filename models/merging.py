"""One model of several that learned different rows: exact for statistics, an average for weights.

Counts add up. Means and variances are joined by Chan's formula, so a scaler is the one that had seen all rows (to
rounding). Weights of linear models are averaged, each model's by how much it learned: iterative parameter mixing, whose
loss against one model that learned everything is bounded and in practice small.

Sources: Chan, Golub, LeVeque (1979), Updating formulae and a pairwise algorithm for computing sample variances;
McDonald, Hall, Mann (2010), Distributed training strategies for the structured perceptron.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from models.learner import State

Shares = npt.NDArray[np.float64]
"""[S] how much each of S models counts in an average; adds up to 1."""
Merge = Callable[[Sequence[State], Shares], State]

# Of a linear model, with what it has paid of its L1 penalty: what is averaged and handed back.
_WEIGHTS = ("weight", "table", "intercept", "shared", "paid", "table_paid")


def merge_counts(states: Sequence[State], _shares: Shares) -> State:
    """Join baselines of classes: [labels, labels of each class …, the last one]."""
    return {"seen": np.sum([_floats(state["seen"]) for state in states], axis=0)}


def merge_means(states: Sequence[State], _shares: Shares) -> State:
    """Join baselines of numbers: [labels, their mean, the last one]."""
    seen_SV = np.array([_floats(state["seen"]) for state in states])
    labels, joined = seen_SV[:, 0].sum(), seen_SV[0].copy()
    joined[0] = labels
    joined[1] = (seen_SV[:, 0] * seen_SV[:, 1]).sum() / labels if labels else 0.0
    return {"seen": joined}


def merge_linear(states: Sequence[State], shares: Shares) -> State:
    """Join scalers, and average what else a linear model keeps, as it is without the table's common decay."""
    plain = [_without_decay(state) for state in states]
    merged: State = {name: _average([state[name] for state in plain], shares) for name in plain[0]}
    return merged | join_scalers(states)


def resume_linear(own: State, merged: State) -> State:
    """Give what one of the models goes on with: the merged weights, on its own scaler and its own moments."""
    return {**own, **{name: array for name, array in merged.items() if name in _WEIGHTS and name in own}}


def join_scalers(states: Sequence[State]) -> State:
    """Join Welford's counts, means and variances of columns that were seen by several."""
    seen, mean, variance = (
        np.array([_floats(state[name]) for state in states]) for name in ("seen", "mean", "variance")
    )
    total = seen.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(total > 0.0, seen / total, 0.0)
    joined = (share * mean).sum(axis=0)
    spread = (share * (variance + (mean - joined) ** 2)).sum(axis=0)
    return {"seen": total, "mean": joined, "variance": spread}


def _without_decay(state: State) -> State:
    """Write the common decay of a table into the table; other models have none."""
    if "shared" not in state or "intercept" in state:
        return state
    intercept, decay = _floats(state["shared"]).tolist()
    if decay == 1.0:
        return state
    return {**state, "table": _floats(state["table"]) * decay, "shared": np.array([intercept, 1.0])}


def _average(arrays: Sequence[npt.NDArray[np.generic]], shares: Shares) -> npt.NDArray[np.float64]:
    """Give the weighted mean of arrays that may be large: one pass over each, no copy of all."""
    total: npt.NDArray[np.float64] = _floats(arrays[0]) * shares[0]
    for array, share in zip(arrays[1:], shares[1:].tolist(), strict=True):
        total += _floats(array) * share
    return total


def _floats(array: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    return np.asarray(array, np.float64)
