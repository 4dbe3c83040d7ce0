"""What a candidate costs: CPU time of a prediction and of a learned row, told apart though one call does both.

A step of the learner predicts some rows and learns others, so its time is n_p * c_p + n_l * c_l with two unknown costs.
They are fitted by least squares over all steps, older ones counting less and less (each step 1 % less than the one
after it), and each step's time is divided between predicting and learning by them. CPU time of the thread, not time on
the wall: that another process had the core is not this candidate's cost.
"""

from __future__ import annotations

import math

import numpy as np

MEASURED_STEPS = 256  # the newest steps with predictions, whose time per prediction makes the percentiles
_FADE = 0.99  # what a step weighs beside the one after it
_ALIKE = 1e-6  # steps whose mix of rows differs less than this do not tell the two costs apart


class Cost:
    """Measures one candidate.

    Example:
        >>> cost = Cost()
        >>> for predicted, learned in ((100, 0), (0, 100), (50, 50)):
        ...     cost.add(2e-6 * predicted + 8e-6 * learned, predicted, learned)
        >>> round(cost.predict_us, 3), round(cost.learn_us, 3)
        (2.0, 8.0)
    """

    def __init__(self) -> None:
        self._spent = np.zeros(2)  # CPU seconds of predicting and learning since the last look
        self._pp = self._pl = self._ll = 0.0  # sums over steps of n_p², n_p n_l, n_l²
        self._ps = self._ls = 0.0  # and of n_p t, n_l t
        self._predict_us = np.zeros(MEASURED_STEPS)
        self._steps = 0
        self._costs = (math.nan, math.nan)

    def add(self, seconds: float, predicted: int, learned: int) -> None:
        """Take one step: its CPU time and how many rows it predicted and learned."""
        if not predicted and not learned:
            return
        self._pp = _FADE * self._pp + predicted * predicted
        self._pl = _FADE * self._pl + predicted * learned
        self._ll = _FADE * self._ll + learned * learned
        self._ps = _FADE * self._ps + predicted * seconds
        self._ls = _FADE * self._ls + learned * seconds
        self._costs = self._fitted()
        predict, learn = (cost * rows for cost, rows in zip(self._costs, (predicted, learned), strict=True))
        share = predict / (predict + learn) if predict + learn > 0.0 else predicted / (predicted + learned)
        self._spent += seconds * share, seconds * (1.0 - share)
        if predicted:
            self._predict_us[self._steps % MEASURED_STEPS] = share * seconds * 1e6 / predicted
            self._steps += 1

    def _fitted(self) -> tuple[float, float]:
        """Give seconds per predicted and learned row; what steps do not tell apart costs the same."""
        determinant = self._pp * self._ll - self._pl * self._pl
        if determinant > _ALIKE * self._pp * self._ll:
            predict = (self._ps * self._ll - self._ls * self._pl) / determinant
            learn = (self._ls * self._pp - self._ps * self._pl) / determinant
            if predict >= 0.0 and learn >= 0.0:
                return predict, learn
        rows = self._pp + 2.0 * self._pl + self._ll
        same = (self._ps + self._ls) / rows
        return same, same

    def take(self) -> tuple[float, float]:
        """Give the CPU seconds spent predicting and learning since the last call."""
        predict, learn = self._spent.tolist()
        self._spent[:] = 0.0
        return predict, learn

    @property
    def predict_us(self) -> float:
        """Microseconds of a prediction; NaN before the first step."""
        return 1e6 * self._costs[0]

    @property
    def learn_us(self) -> float:
        """Microseconds of a learned row; NaN before the first step."""
        return 1e6 * self._costs[1]

    @property
    def predict_p99_us(self) -> float:
        """The 99th percentile over the newest steps of microseconds per prediction in a step; 0 before the first."""
        measured = np.sort(self._predict_us[: min(self._steps, MEASURED_STEPS)])
        return float(measured[int(0.99 * (measured.size - 1))]) if measured.size else 0.0
