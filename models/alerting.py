"""The threshold of `[task] alert`: the score that a share of a model's latest scores lies above.

A score is worth an alert when it is larger than all but that share of the scores that the model gave to the last 10,000
rows just before it learned them. The quantile is exact, and it is part of the model: a version answers with the
threshold that it has reached. Of n rows at most floor(share * n) lie above it, and ties with it raise no alert, so a
model that says the same of everything alerts on nothing.
"""

from __future__ import annotations

import math

import numpy as np

from models.learner import LEARN, Actions, Learner, Matrix, Vector
from models.rehearsal import SurroundingLearner, said_before
from streams.compiled import bare, inlined
from streams.errors import ModelError

WINDOW_ROWS = 10_000  # 80 KB in every version; with a share of 1 % the threshold goes by 100 scores
NOTHING_YET = math.nextafter(1.0, 2.0)  # a threshold that no score reaches


class AlertingLearner(SurroundingLearner):
    """Gives each score of an anomaly learner with the threshold of that moment: [B, 2].

    Cost: a second score for each row learned, and 1 to 3 us to keep the scores in order.

    Example:
        >>> from models.learner import make_learner
        >>> from streams.pipeline import Model, Task
        >>> learner = make_learner(Model("m", "prior", {}), (), task=Task("anomaly", alert=0.1))
        >>> learner.predict(np.empty((1, 0)))
        array([[0., 1.]])
    """

    def __init__(self, inner: Learner, share: float) -> None:
        """Stand around a learner of anomaly scores; `share` of its scores are worth an alert."""
        super().__init__(inner)
        self._share = share
        self._ring = np.zeros(WINDOW_ROWS)  # in the order they came
        self._ordered = np.zeros(WINDOW_ROWS)
        self._count = np.zeros(1)  # scores since the start

    def step(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> Vector:
        """Take the rows in order and predict, learn or skip each one."""
        said_B2 = np.full((len(y_B), 2), np.nan)
        said_B2[:, 0] = said_before(self.inner, X_BF, y_B, action_B)
        alert_kernel(said_B2, action_B, self._ring, self._ordered, self._count, self._share)
        return said_B2

    def _own(self) -> dict[str, Vector]:
        return {"scores": self._ring[: self._held], "count": self._count}

    @property
    def _held(self) -> int:
        return min(int(self._count[0]), WINDOW_ROWS)

    def _fits(self, name: str, found: np.ndarray[tuple[int, ...], np.dtype[np.generic]], ours: Vector) -> bool:
        return found.ndim == 1 and (found.size <= WINDOW_ROWS if name == "scores" else found.shape == ours.shape)

    def _take_own(self, arrays: dict[str, Vector]) -> None:
        held = arrays["scores"].size
        if held != min(int(arrays["count"][0]), WINDOW_ROWS):
            raise ModelError(f"a model's scores are not whole: {held} found")
        self._count = arrays["count"]
        self._ring[:held] = arrays["scores"]
        self._ordered[:held] = np.sort(arrays["scores"])


@inlined
def _threshold(ordered: Vector, held: int, share: float) -> float:
    if held == 0:
        return NOTHING_YET
    return float(np.nextafter(ordered[held - 1 - int(share * held)], 2.0))


@inlined
def _keep(ring: Vector, ordered: Vector, count: Vector, score: float) -> None:
    """Let a score take the place of the oldest, in both orders."""
    at, held = int(count[0]) % ring.size, min(int(count[0]), ring.size)
    if held == ring.size:
        place = np.searchsorted(ordered, ring[at])
        while place + 1 < held and ordered[place + 1] < score:
            ordered[place] = ordered[place + 1]
            place += 1
    else:
        place = held
    while place > 0 and ordered[place - 1] > score:
        ordered[place] = ordered[place - 1]
        place -= 1
    ordered[place] = score
    ring[at] = score
    count[0] += 1.0


@bare
def alert_kernel(
    said_B2: Matrix, action_B: Actions, ring: Vector, ordered: Vector, count: Vector, share: float
) -> None:
    """Run `AlertingLearner.step`: set the threshold beside each score, and move it where a row was learned."""
    for i in range(action_B.size):
        if action_B[i] == LEARN:
            _keep(ring, ordered, count, said_B2[i, 0])
            said_B2[i, 0] = np.nan
        elif not np.isnan(said_B2[i, 0]):
            said_B2[i, 1] = _threshold(ordered, min(int(count[0]), ring.size), share)
