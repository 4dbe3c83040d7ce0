"""The tables of a report, by pandas: what its charts show, computed from sampled events and their losses.

Times are UTC. Where a chart has bins of time, an estimate of few events is left out rather than shown as a spike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from models.drift_psi import psi
from models.psi_bins import make_bins
from serving.report_data import Archived, Events
from serving.report_topics import Losses, Names
from serving.report_words import seconds
from streams.durations import DAY_US
from streams.frames import Column
from streams.pipeline import Task

TIME_BINS = 60
LEAST_EVENTS = 20  # of a bin that is shown
MOST_DAYS = 190  # beyond that volumes are by week
QUARTER = 4  # the first and the last quarter of the events are compared
PSI_BINS = 10
HISTOGRAM_BINS = 24
MOST_COLUMNS = 24  # of a matrix of correlations
TOP = 8  # categories that are named; all others are one more
SLICE_BINS = 6
OTHERS = "others"
MISSING = "missing"

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


class Slices(NamedTuple):
    """Events parted by the value of one feature: names of the parts, and each event's part (-1: none)."""

    feature: str
    names: tuple[str, ...]
    part_N: Int64s


def moments(time_us: Int64s) -> pd.DatetimeIndex:
    """Give times of day and year."""
    return pd.DatetimeIndex(np.asarray(time_us).astype("datetime64[us]"))


def volumes(archived: Archived) -> pd.DataFrame:
    """Count events by the day they happened, and what became of their labels; by week where there are many days."""
    counts = pd.Series(archived.days, dtype=np.int64).unstack(fill_value=0)
    counts.index = moments(counts.index.to_numpy(np.int64) * DAY_US)
    counts = counts.reindex(columns=["set", "missing", "amended", "retracted"], fill_value=0).asfreq("D", fill_value=0)
    return counts.resample("W-MON", label="left", closed="left").sum() if len(counts) > MOST_DAYS else counts


def labels_over_time(events: Events, task: Task) -> pd.DataFrame:
    """Give mean and 10 % and 90 % quantile of the label by time; of classes the share of each."""
    known = events.take(np.flatnonzero(np.isfinite(events.label_N)))
    frame = pd.DataFrame({"label": known.label_N, "bin": _time_bins(known.time_us_N, events.time_us_N)})
    if task.classes:
        found = pd.crosstab(frame.bin, frame.label, normalize="index").reindex(columns=range(len(task.classes)))
        found = found.fillna(0.0).set_axis(list(task.classes), axis=1)
    else:
        grouped = frame.groupby("bin").label
        found = pd.DataFrame({"mean": grouped.mean(), "low": grouped.quantile(0.1), "high": grouped.quantile(0.9)})
    found = found[frame.bin.value_counts().reindex(found.index) >= LEAST_EVENTS]
    return found.set_axis(_middles(found.index.to_numpy(), events.time_us_N), axis=0)


def delays(events: Events) -> pd.Series:
    """Give quantiles of the time from event to label, in seconds, by share."""
    delay_s = pd.Series(events.delay_us).dropna() / 1e6
    return delay_s.quantile(np.concatenate([np.linspace(0.0, 0.98, 99), [0.99, 0.995, 0.999, 1.0]]))


def missing_shares(events: Events) -> pd.DataFrame:
    """Give each feature's share of events without a value: in all, in the first and in the last quarter."""
    frame = pd.DataFrame(np.isnan(events.X_NF), columns=_names(events.columns))
    first, last = quarters(events)
    parts = {"all": frame.mean(), "first": frame[first].mean(), "last": frame[last].mean()}
    return pd.DataFrame(parts).sort_values("all", ascending=False, kind="stable")


def quarters(events: Events) -> tuple[slice, slice]:
    """Give the first and the last quarter of the events."""
    size = max(1, events.time_us_N.size // QUARTER)
    return slice(0, size), slice(events.time_us_N.size - size, None)


def drift(events: Events) -> pd.Series:
    """Give the population stability index of each feature between the two quarters, the largest first."""
    first, last = quarters(events)
    reference_NF, window_NF = events.X_NF[first], events.X_NF[last]
    is_category_F = np.array([column.is_category for column in events.columns], bool)
    bins = make_bins(reference_NF, is_category_F, PSI_BINS)
    counted = [
        np.array(
            [
                _bin_counts(x_N, ends, is_category)
                for x_N, ends, is_category in zip(part.T, bins.ends_EF.T, is_category_F, strict=True)
            ]
        )
        for part in (reference_NF, window_NF)
    ]
    found = pd.Series(psi(*counted), index=_names(events.columns))
    return found.sort_values(ascending=False, kind="stable")


def distribution(events: Events, feature: str, names: Names) -> pd.DataFrame:
    """Give the shares of a feature's values in the first and the last quarter.

    Numbers are in bins, unless there are only a few; of categories the largest are named.
    """
    place = _names(events.columns).index(feature)
    x_N, (first, last) = events.X_NF[:, place], quarters(events)
    if events.columns[place].is_category:
        slices = slice_by(events, feature, names)
        parts = [pd.Series(slices.part_N[part]).value_counts(normalize=True) for part in (first, last)]
        frame = pd.DataFrame({"first": parts[0], "last": parts[1]}).reindex(range(len(slices.names))).fillna(0.0)
        return frame.set_axis(list(slices.names), axis=0)
    known = x_N[np.isfinite(x_N)]
    values = np.unique(known)
    if values.size <= HISTOGRAM_BINS:
        counts = [pd.Series(x_N[part]).value_counts(normalize=True) for part in (first, last)]
        return pd.DataFrame({"first": counts[0], "last": counts[1]}).reindex(values).fillna(0.0)
    low, high = np.quantile(known, [0.01, 0.99]) if known.size else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1.0, HISTOGRAM_BINS + 1)
    parts = [np.histogram(np.clip(x_N[part][np.isfinite(x_N[part])], low, high), edges)[0] for part in (first, last)]
    shares = {name: part / max(1, part.sum()) for name, part in zip(("first", "last"), parts, strict=True)}
    return pd.DataFrame(shares, index=(edges[1:] + edges[:-1]) / 2.0)


def correlations(events: Events, task: Task) -> pd.DataFrame:
    """Give Spearman's rank correlation of the number features with each other and with the label.

    Of many features those stay that go with the label most.
    """
    numbers = [place for place, column in enumerate(events.columns) if not column.is_category]
    frame = pd.DataFrame(events.X_NF[:, numbers], columns=[events.columns[place].name for place in numbers])
    frame = frame.loc[:, frame.nunique() > 1]
    if task.classes or not np.isfinite(events.label_N).any():
        return frame.iloc[:, :MOST_COLUMNS].corr(method="spearman")
    label = pd.Series(events.label_N)
    strength = frame.corrwith(label, method="spearman").abs().sort_values(ascending=False, kind="stable")
    found = frame[list(strength.index[:MOST_COLUMNS])]
    found.insert(0, "label", label, allow_duplicates=True)
    return found.corr(method="spearman")


def categories(events: Events, feature: str, names: Names) -> pd.DataFrame:
    """Count a category feature's largest values, with the mean label of each (of classes none)."""
    slices = slice_by(events, feature, names)
    frame = pd.DataFrame({"part": slices.part_N, "label": events.label_N})
    grouped = frame.groupby("part").label
    found = pd.DataFrame({"events": grouped.size(), "mean": grouped.mean()})
    found["share"] = found.events / len(frame)
    found = found.set_axis([slices.names[part] for part in found.index], axis=0)
    return found.drop(index=[one for one in (OTHERS, MISSING) if one in found.index])


def slice_by(events: Events, feature: str, names: Names) -> Slices:
    """Part events by a feature: the largest categories, or about equally large bins of a number."""
    place = _names(events.columns).index(feature)
    x_N = pd.Series(events.X_NF[:, place])
    if events.columns[place].is_category:
        top = x_N.value_counts().index[:TOP].to_numpy()
        texts = names.get(feature, {})
        told = [texts.get(code, f"code {code:.0f}") for code in top.tolist()]
        part = pd.Index(top).get_indexer(x_N).astype(np.int64)
        part[(part < 0) & x_N.notna().to_numpy()] = len(told)
        told += [OTHERS] if (part == len(told)).any() else []
    else:
        binned = pd.qcut(x_N, SLICE_BINS, duplicates="drop") if x_N.nunique() > SLICE_BINS else x_N.astype("category")
        part = binned.cat.codes.to_numpy().astype(np.int64)
        told = [_interval(one, float(x_N.min())) for one in binned.cat.categories]
    if (part < 0).any():
        part[part < 0] = len(told)
        told.append(MISSING)
    return Slices(feature, tuple(told), part)


def slice_by_delay(events: Events) -> Slices:
    """Part events by how long their label took, into about equally large bins; those without a label are in none."""
    delay_s = pd.Series(events.delay_us / 1e6)
    binned = pd.qcut(delay_s, SLICE_BINS, duplicates="drop")
    told = tuple(f"{seconds(one.left)} to {seconds(one.right)}" for one in binned.cat.categories)
    return Slices("label delay", told, binned.cat.codes.to_numpy().astype(np.int64))


def loss_by(slices: Slices, losses: Mapping[str, Losses]) -> pd.DataFrame:
    """Give each candidate's mean loss in each slice, and in `events` how many events the slice has."""
    index = range(len(slices.names))
    found = {}
    for name, one in losses.items():
        grouped = pd.Series(one.loss_M).groupby(slices.part_N[one.event_M])
        found[name] = grouped.mean().where(grouped.size() >= LEAST_EVENTS).reindex(index)
    sizes = pd.Series(slices.part_N[slices.part_N >= 0]).value_counts().reindex(index).fillna(0).astype(int)
    return pd.DataFrame({**found, "events": sizes}).set_axis(list(slices.names), axis=0)


def losses_over_time(losses: Mapping[str, Losses]) -> pd.DataFrame:
    """Give each candidate's mean loss by time, from all of its blocks."""
    every_us = np.concatenate([one.time_us_B for one in losses.values()])
    found = {}
    for name, one in losses.items():
        frame = pd.DataFrame({"sum": one.sum_B, "count": one.count_B, "bin": _time_bins(one.time_us_B, every_us)})
        sums = frame.groupby("bin").sum()
        found[name] = (sums["sum"] / sums["count"]).where(sums["count"] >= LEAST_EVENTS)
    table = pd.DataFrame(found).sort_index()
    return table.set_axis(_middles(table.index.to_numpy(), every_us), axis=0)


def values_over_time(time_us: Int64s, value_N: Floats) -> pd.DataFrame:
    """Give median, 10 % and 90 % quantile of values by time."""
    frame = pd.DataFrame({"value": value_N, "bin": _time_bins(time_us, time_us)}).dropna()
    grouped = frame.groupby("bin").value
    found = pd.DataFrame({"mean": grouped.median(), "low": grouped.quantile(0.1), "high": grouped.quantile(0.9)})
    found = found[grouped.size() >= LEAST_EVENTS]
    return found.set_axis(_middles(found.index.to_numpy(), time_us), axis=0)


def share_over_time(time_us: Int64s, is_one_N: Floats) -> pd.Series:
    """Give the mean of zeros and ones by time."""
    frame = pd.DataFrame({"value": is_one_N, "bin": _time_bins(time_us, time_us)}).dropna()
    grouped = frame.groupby("bin").value
    found = grouped.mean()[grouped.size() >= LEAST_EVENTS]
    return found.set_axis(_middles(found.index.to_numpy(), time_us))


def shares_over_time(time_us: Int64s, value_N: Floats) -> pd.DataFrame:
    """Give by time the share of each of a few whole numbers; the rarer ones are one more."""
    value = pd.Series(value_N)
    top = list(value.value_counts().index[:TOP])
    told = value.where(value.isin(top)).map("{:.0f}".format, na_action="ignore").fillna(OTHERS)
    found = pd.crosstab(pd.Series(_time_bins(time_us, time_us), name="bin"), told, normalize="index")
    return found.set_axis(_middles(found.index.to_numpy(), time_us), axis=0)


def _names(columns: Iterable[Column]) -> list[str]:
    return [column.name for column in columns]


def _interval(one: object, least: float) -> str:
    """Name a bin of a number; the first of pandas begins below the least value."""
    return f"{max(one.left, least):.4g} to {one.right:.4g}" if isinstance(one, pd.Interval) else f"{one:.4g}"


def _bin_counts(x_N: Floats, ends_E: Floats, is_category: bool) -> Int64s:
    """Count values as models/psi_bins.py bins them: between ends, or by code; the last two are others and missing."""
    ends = ends_E[np.isfinite(ends_E)]
    known = x_N[np.isfinite(x_N)]
    at = np.searchsorted(ends, known)
    size = ends_E.size + 2
    if is_category:
        is_one = ends[np.minimum(at, max(0, ends.size - 1))] == known if ends.size else np.zeros(known.size, bool)
        at = np.where(is_one, at, size - 2)
    counts: Int64s = np.bincount(at, minlength=size)
    counts[size - 1] += x_N.size - known.size
    return counts


def _time_bins(time_us: Int64s, every_us: Int64s) -> Int64s:
    """Give each time's bin among equally long ones from the first to the last of all times."""
    first, last = int(every_us.min()), int(every_us.max())
    found: Int64s = (time_us - first) * TIME_BINS // max(1, last - first + 1)
    return found


def _middles(bins: Int64s, every_us: Int64s) -> pd.DatetimeIndex:
    first, last = int(every_us.min()), int(every_us.max())
    return moments(first + ((2 * bins.astype(np.int64) + 1) * (last - first + 1)) // (2 * TIME_BINS))
