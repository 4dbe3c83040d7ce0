"""What a window says, in pandas: `rolling` over the events of an entity, `merge_asof` into the labels that count.

A window of buckets covers what a window (t - w', t] would, where w' is between 11/12 of w and w: its buckets are
aligned to the epoch, and the oldest one begins where `bucket_start_us` says. No two times of a frame are the same.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.indexers import BaseIndexer

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
BUCKETS = 12


def bucket_start_us(time_us: Int64s, window_us: int) -> Int64s:
    """Where the oldest bucket begins that an event in order covers, for windows of a whole number of bucket lengths."""
    width_us = window_us // BUCKETS
    assert width_us * BUCKETS == window_us
    return (time_us // width_us - (BUCKETS - 1)) * width_us


class Rows(BaseIndexer):  # type: ignore[misc]  # pandas ships no types
    """Each row covers the rows from `first` to the one before it; both were given to the constructor."""

    def get_window_bounds(
        self,
        num_values: int = 0,
        min_periods: int | None = None,
        center: bool | None = None,
        closed: str | None = None,
        step: int | None = None,
    ) -> tuple[Int64s, Int64s]:
        """Give the first row and the one behind the last."""
        return np.asarray(self.first, np.int64), np.arange(num_values, dtype=np.int64)


def rolled(frame: pd.DataFrame, by: list[str], value: str, window_us: int, how: str) -> Floats:
    """An aggregate over exactly the last w: pandas' own time windows; the event itself lies on the open end."""
    times = pd.to_datetime(frame.time_us, unit="us")
    groups = frame.set_index(times).groupby(by, sort=False)[value]
    found = getattr(groups.rolling(pd.Timedelta(window_us, "us"), closed="neither", min_periods=0), how)()
    values: Floats = found.droplevel(by).reindex(times).to_numpy(np.float64)
    return values


def bucketed(frame: pd.DataFrame, by: list[str], value: str, window_us: int, how: str) -> Floats:
    """An aggregate over the buckets that the definition names."""
    entity = frame.groupby(by, sort=False).ngroup().to_numpy()
    order = np.lexsort([frame.time_us, entity])
    own, time_us = entity[order], frame.time_us.to_numpy()[order]
    span_us = time_us.max() - time_us.min() + window_us + 1  # so far apart that no window reaches another entity
    since_us = bucket_start_us(time_us, window_us)
    first = np.searchsorted(own * span_us + time_us, own * span_us + since_us, side="left")
    first = np.maximum(first, np.searchsorted(own, own))
    windows = frame[value].iloc[order].rolling(Rows(first=first), min_periods=0)
    found: Floats = getattr(windows, how)().sort_index().to_numpy(np.float64)
    return found


def labels_since(frame: pd.DataFrame, labels: pd.DataFrame, by: list[str], since_us: Int64s) -> tuple[Floats, Floats]:
    """How many labels each event knows of its entity from a time of its own on, and how many of them are 1.

    Args:
        frame: events, with time_us.
        labels: with time_us, from when on each counts, and `label`.
        by: columns of both.
        since_us: for each event.
    """
    labels = labels.sort_values("time_us")
    groups = labels.groupby(by, sort=False)
    totals = labels.assign(count=groups.label.cumcount() + 1.0, ones=groups.label.cumsum())
    totals = totals[["time_us", *by, "count", "ones"]]
    until = _asof(frame, totals, by, frame.time_us.to_numpy())
    before = _asof(frame, totals, by, since_us - 1)
    return until[:, 0] - before[:, 0], until[:, 1] - before[:, 1]


def _asof(frame: pd.DataFrame, totals: pd.DataFrame, by: list[str], at_us: Int64s) -> Floats:
    asked = frame[by].assign(time_us=at_us, place=np.arange(len(frame))).sort_values("time_us", kind="stable")
    found = pd.merge_asof(asked, totals, on="time_us", by=by).sort_values("place")
    values: Floats = found[["count", "ones"]].fillna(0.0).to_numpy(np.float64)
    return values
