"""What every learner of ours must keep, asserted of any of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.learner import PREDICT, Learner

Floats = npt.NDArray[np.float64]
Actions = npt.NDArray[np.int8]


def assert_cuts_change_no_bit(
    whole: Learner, cut: Learner, X: Floats, y: Floats, stops: Sequence[int]
) -> tuple[Floats, Actions]:
    """Two equal learners say and become the same, whatever the batches; gives the answers, and what was done."""
    action = np.random.default_rng(2).integers(0, 3, len(y)).astype(np.int8)
    expected = whole.step(X, y, action)
    start, found = 0, []
    for stop in stops:
        found.append(cut.step(X[start:stop], y[start:stop], action[start:stop]))
        start = stop

    assert start == len(y)
    assert np.array_equal(np.concatenate(found), expected, equal_nan=True)
    assert all(np.array_equal(array, cut.state()[name]) for name, array in whole.state().items())
    assert np.isnan(expected[action != PREDICT]).all()
    return expected, action


def repeated(cuts: list[int], rows: int) -> list[int]:
    """Give where batches of these sizes end, again and again, and the end."""
    return [*np.cumsum(cuts * (rows // sum(cuts))).tolist(), rows]


def assert_absurd_is_missing(first: Learner, second: Learner, X: Floats, y: Floats, column: int, bad: float) -> None:
    """Of two equal learners one is given an absurd value in every third row, the other none: they say the same."""
    missing, absurd = X.copy(), X.copy()
    missing[::3, column], absurd[::3, column] = np.nan, bad
    first.learn(missing, y)
    second.learn(absurd, y)

    assert np.array_equal(first.predict(missing), second.predict(absurd))
