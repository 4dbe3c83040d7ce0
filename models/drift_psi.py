"""Drift of features: the population stability index of each column, of the newest rows against the first.

    PSI = sum over bins of (q - p) ln(q / p)      p, q: shares of the bin in the reference and in the window

It is the symmetrised Kullback-Leibler divergence of binned shares: Siddiqi, "Credit Risk Scorecards", 2006 (whose rule
of thumb is: under 0.1 no change, from 0.25 a large one); Yurdakul and Naranjo, "Statistical properties of the
population stability index", 2020: without drift it is about (1/n + 1/m) chi-square with bins - 1 degrees of freedom,
n and m the rows on both sides, so 0.0036 on average with 10 bins and 5,000 rows each.

A bin that is empty on one side counts as half a row there, for its logarithm would be infinite; models/psi_bins.py
says which bins there are.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from models.learner import PREDICT, Actions, Matrix, State
from models.psi_bins import Bins, bin_of, make_bins
from streams.compiled import bare
from streams.drift import WINDOW_PARTS, Psi
from streams.frames import Column

REARM_SHARE = 0.5  # a column in alarm is quiet until its index is under this share of the threshold
SEEN, WATCHED, FILLED = 0, 1, 2  # in `counts`: events, those watched, those of them in the part that is being filled
HALF_ROW = 0.5

Int64 = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]


class FeatureAlarm(NamedTuple):
    """A column whose index has risen to the threshold, at a row of the batch."""

    row: int
    feature: str
    value: float
    threshold: float


def psi(reference_FS: Int64, window_FS: Int64) -> Shares:
    """Give the index of each column from how many rows fell in its bins; what is empty on both sides does not count."""
    index_F = np.empty(len(reference_FS))
    index_kernel(reference_FS, window_FS[None], index_F)
    return index_F


@bare
def index_kernel(reference_FS: Int64, parts_PFS: Int64, index_F: Shares) -> None:
    """Compare a window, the sum of its parts, with the reference: the index of each column, about 0.2 us."""
    for column in range(reference_FS.shape[0]):
        rows, rows_now = 0, 0
        for place in range(reference_FS.shape[1]):
            rows += reference_FS[column, place]
            for part in range(parts_PFS.shape[0]):
                rows_now += parts_PFS[part, column, place]
        index_F[column] = 0.0
        for place in range(reference_FS.shape[1]):
            before, now = reference_FS[column, place], 0
            for part in range(parts_PFS.shape[0]):
                now += parts_PFS[part, column, place]
            if before > 0 or now > 0:
                p, q = max(float(before), HALF_ROW) / rows, max(float(now), HALF_ROW) / rows_now
                index_F[column] += (q - p) * math.log(q / p)


@bare
def keep_kernel(X_BF: Matrix, action_B: Actions, start: int, every: int, counts: Int64, reference_NF: Matrix) -> int:
    """Keep watched rows from `start` on until the reference is full; gives where it stopped."""
    for i in range(start, action_B.size):
        if counts[WATCHED] == reference_NF.shape[0]:
            return i
        if action_B[i] != PREDICT:
            continue
        counts[SEEN] += 1
        if (counts[SEEN] - 1) % every == 0:
            for column in range(reference_NF.shape[1]):
                reference_NF[counts[WATCHED], column] = X_BF[i, column]
            counts[WATCHED] += 1
    return action_B.size


@bare
def count_kernel(
    X_BF: Matrix,
    action_B: Actions,
    start: int,
    every: int,
    counts: Int64,
    bins: Bins,
    below_F: Int64,
    part_FS: Int64,
    most: int,
) -> int:
    """Count watched rows from `start` on by bin until the part has so many; gives where it stopped.

    All ends are compared, for a search would guess wrong at every step, and with all columns at once: 3 ns for each row
    and column. `below_F` is room for that.
    """
    for i in range(start, action_B.size):
        if counts[FILLED] == most:
            return i
        if action_B[i] != PREDICT:
            continue
        counts[SEEN] += 1
        if every > 1 and (counts[SEEN] - 1) % every:
            continue
        for column in range(below_F.size):
            below_F[column] = 0
        for place in range(bins.ends_EF.shape[0]):
            for column in range(below_F.size):
                below_F[column] += bins.ends_EF[place, column] < X_BF[i, column]
        for column in range(below_F.size):
            part_FS[column, bin_of(bins, column, X_BF[i, column], below_F[column])] += 1
        counts[WATCHED] += 1
        counts[FILLED] += 1
    return action_B.size


class FeatureDrift:
    """Watches the columns of event rows.

    The first `reference_rows` watched rows are the reference. Then the newest `window_rows` are compared with it, each
    time a tenth of them is new, from the first whole window on. Memory: the reference until it is full, then a count
    for each bin and tenth. What it says depends on the rows and their order alone.

    Args:
        columns: of the matrices it is given.
        settings: of the index.

    Example:
        >>> drift = FeatureDrift((Column("x", False),), Psi(reference_rows=100, window_rows=50))
        >>> X = np.concatenate([np.arange(100.0), np.arange(50.0) + 60.0])[:, None]
        >>> drift.watch(X, np.full(150, PREDICT, np.int8))
        [FeatureAlarm(row=149, feature='x', value=1.867228412720736, threshold=0.2)]
    """

    def __init__(self, columns: tuple[Column, ...], settings: Psi | None = None) -> None:
        self._settings = settings = settings or Psi()
        self._columns = columns
        self._is_category_F = np.array([column.is_category for column in columns], bool)
        self._counts: Int64 = np.zeros(3, np.int64)
        self._reference_NF = np.zeros((settings.reference_rows, len(columns)))
        self._bins: Bins | None = None
        self._below_F: Int64 = np.zeros(len(columns), np.int64)
        shape = len(columns), settings.bins + 1
        self._reference_FS: Int64 = np.zeros(shape, np.int64)
        self._parts_PFS: Int64 = np.zeros((WINDOW_PARTS, *shape), np.int64)
        self._has_alarm_F = np.zeros(len(columns), bool)
        self._index_F = np.full(len(columns), np.nan)

    def watch(self, X_BF: Matrix, action_B: Actions) -> list[FeatureAlarm]:
        """Watch the rows that are predicted; gives the columns that have drifted, at the row that showed it."""
        alarms: list[FeatureAlarm] = []
        start = 0
        while start < action_B.size:
            if self._bins is None:
                start = self._keep(X_BF, action_B, start)
            else:
                start = self._count(X_BF, action_B, start, self._bins, alarms)
        return alarms

    def index(self) -> dict[str, float]:
        """Give each column's index as it was looked at last; NaN before the first whole window."""
        return {column.name: value for column, value in zip(self._columns, self._index_F.tolist(), strict=True)}

    def state(self) -> State:
        """Give the reference or its bins, the window, and the settings they belong to."""
        state: State = {"counts": self._counts.copy(), "settings": self._stamp()}
        if self._bins is None:
            return {**state, "reference": self._reference_NF[: self._counts[WATCHED]].copy()}
        return {
            **state,
            "ends": np.ascontiguousarray(self._bins.ends_EF.T),
            "counted": self._reference_FS.copy(),
            "parts": self._parts_PFS.copy(),
            "has_alarm": self._has_alarm_F.copy(),
            "index": self._index_F.copy(),
        }

    def restore(self, state: State) -> bool:
        """Take back what `state` gave; gives whether it is of the same columns and settings, else nothing changes."""
        stamp = state.get("settings")
        if stamp is None or not np.array_equal(stamp, self._stamp()):
            return False
        self._counts[...] = state["counts"]
        if "reference" in state:
            self._reference_NF[: self._counts[WATCHED]] = state["reference"].reshape(
                int(self._counts[WATCHED]), len(self._columns)
            )
            return True
        ends_FE = np.array(state["ends"], np.float64).reshape(len(self._columns), -1)
        self._set_bins(Bins(self._is_category_F, np.ascontiguousarray(ends_FE.T)))
        self._reference_FS[...], self._parts_PFS[...] = state["counted"], state["parts"]
        self._has_alarm_F[...], self._index_F[...] = state["has_alarm"], state["index"]
        return True

    def _keep(self, X_BF: Matrix, action_B: Actions, start: int) -> int:
        if not self._counts[SEEN]:  # load what counts now, not in the middle of the stream
            bins = Bins(self._is_category_F, np.full((self._settings.bins - 1, len(self._columns)), np.inf))
            count_kernel(X_BF[:0], action_B[:0], 0, 1, self._counts, bins, self._below_F, self._parts_PFS[0], 1)
            index_kernel(self._reference_FS[:0], self._parts_PFS[:0], self._index_F[:0])
        stop = keep_kernel(X_BF, action_B, start, self._settings.every, self._counts, self._reference_NF)
        if self._counts[WATCHED] == len(self._reference_NF):
            self._take_reference()
        return stop

    def _take_reference(self) -> None:
        """Make bins of the reference, count its rows by them, and let it go."""
        bins, rows = make_bins(self._reference_NF, self._is_category_F, self._settings.bins), len(self._reference_NF)
        counts, action = np.zeros(3, np.int64), np.full(rows, PREDICT, np.int8)
        count_kernel(self._reference_NF, action, 0, 1, counts, bins, self._below_F, self._reference_FS, rows)
        self._set_bins(bins)

    def _set_bins(self, bins: Bins) -> None:
        self._bins, self._reference_NF = bins, self._reference_NF[:0].copy()

    def _count(self, X_BF: Matrix, action_B: Actions, start: int, bins: Bins, alarms: list[FeatureAlarm]) -> int:
        most = self._settings.window_rows // WINDOW_PARTS
        counted = self._counts, bins, self._below_F, self._parts_PFS[self._place()]
        stop = count_kernel(X_BF, action_B, start, self._settings.every, *counted, most)
        if self._counts[FILLED] == most:
            self._counts[FILLED] = 0
            if self._counts[WATCHED] >= self._settings.reference_rows + self._settings.window_rows:
                alarms += self._look(stop - 1)
            self._parts_PFS[self._place()] = 0
        return stop

    def _place(self) -> int:
        """Which part is being filled."""
        watched = int(self._counts[WATCHED]) - self._settings.reference_rows
        return watched // (self._settings.window_rows // WINDOW_PARTS) % WINDOW_PARTS

    def _look(self, row: int) -> list[FeatureAlarm]:
        """Compare the window with the reference."""
        threshold = self._settings.threshold
        index_kernel(self._reference_FS, self._parts_PFS, self._index_F)
        if not self._has_alarm_F.any() and self._index_F.max() < threshold:
            return []
        is_new_F = (self._index_F >= threshold) & ~self._has_alarm_F
        self._has_alarm_F &= self._index_F >= threshold * REARM_SHARE
        self._has_alarm_F |= is_new_F
        drifted = np.flatnonzero(is_new_F).tolist()
        return [FeatureAlarm(row, self._columns[at].name, float(self._index_F[at]), threshold) for at in drifted]

    def _stamp(self) -> npt.NDArray[np.uint8]:
        return np.frombuffer(msgspec.json.encode((self._columns, self._settings)), np.uint8)
