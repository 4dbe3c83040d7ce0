"""Feature vectors worked out from P.log with pandas and NumPy, by the definition of windows and nothing else.

An event in bucket b covers its entity's earlier log rows in the buckets b-11 to b if it is in order, b-11 to b-1 if it
is not; buckets are floor(time / (w/12)). Of buckets more than 22 behind the entity's newest event nothing is known any
more, neither read nor added to. Every event looks at every earlier one of its entity: quadratic, and easy to believe.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import xxhash

from streams.pipeline import Feature, Pipeline
from streams.tables import Table

CATEGORY_SEED = 2
COVERED, KEPT = 11, 22  # buckets before an event's own, and behind the entity's newest event
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def vectors(pipeline: Pipeline, log: Table, at_B: Ints) -> pd.DataFrame:
    """Give the named columns of the events in these rows of one log partition, in their order."""
    table = log.to_arrow().to_pandas().iloc[at_B].reset_index(drop=True)
    out: dict[str, Floats] = {}
    for field in pipeline.events.fields:
        values = table[f"field.{field.name}"]
        out[field.name] = _codes(values) if field.kind == "category" else values.to_numpy()
    time_us, entity = table.time.to_numpy(), table.groupby("key", sort=False).ngroup().to_numpy()
    for feature in pipeline.features:
        if feature.operation == "cyclic":
            turn = 2 * np.pi * _phase(feature.of, pd.to_datetime(table.time, unit="us"))
            out[f"{feature.name}_sin"], out[f"{feature.name}_cos"] = np.sin(turn), np.cos(turn)
        elif feature.operation == "elapsed":
            out[feature.name] = _elapsed_s(time_us, entity)
        else:
            values = np.ones(len(table)) if feature.of == "*" else table[f"field.{feature.of}"].to_numpy()
            out[feature.name] = _aggregate(feature, time_us, entity, values)
    return pd.DataFrame(out)


def late_events(pipeline: Pipeline, log: Table, at_B: Ints) -> tuple[int, int]:
    """Count the events that are out of order, and those older than the shortest window of their entity's newest."""
    table = log.to_arrow().to_pandas().iloc[at_B].reset_index(drop=True)
    newest = table.groupby("key").time.transform(lambda times: times.cummax().shift())
    shortest_us = min(feature.window_us for feature in pipeline.features if feature.window_us)
    return int((table.time < newest).sum()), int((table.time < newest - shortest_us).sum())


def _codes(values: pd.Series[str]) -> Floats:
    hashes = {text: xxhash.xxh64(text.encode(), CATEGORY_SEED).intdigest() for text in values.dropna().unique()}
    codes: Floats = values.map({text: float(found >> 12) for text, found in hashes.items()}).to_numpy(float)
    return codes


def _phase(period: str, moments: pd.Series[pd.Timestamp]) -> Floats:
    phase: Floats = ((moments - moments.dt.normalize()) / pd.Timedelta(days=1)).to_numpy()
    if period == "weekday":
        phase = (moments.dt.day_of_week.to_numpy() + phase) / 7
    elif period == "month":
        phase = (moments.dt.day_of_year.to_numpy() - 1 + phase) / np.where(moments.dt.is_leap_year, 366, 365)
    return phase


def _elapsed_s(time_us: Ints, entity: Ints) -> Floats:
    times = pd.Series(time_us)
    newest = times.groupby(entity).transform(lambda group: group.cummax().shift())
    elapsed: Floats = ((times - newest) / 1e6).to_numpy()
    return np.where(elapsed >= 0, elapsed, np.nan)


def _aggregate(feature: Feature, time_us: Ints, entity: Ints, values: Floats) -> Floats:
    window_us = feature.window_us or 0
    found = np.empty(len(values))
    for rows in pd.Series(entity).groupby(entity).indices.values():
        is_covered = _covered(time_us[rows], window_us)
        is_there = ~np.isnan(values[rows])
        count = is_covered @ is_there.astype(float)
        total = is_covered @ np.where(is_there, values[rows], 0.0)
        with np.errstate(invalid="ignore"):
            results = {"count": count, "sum": total, "mean": total / count}
        found[rows] = results[feature.operation]
    return found


def _covered(time_us: Ints, window_us: int) -> Floats:
    """Say for each event of an entity (row) which events (column) its window covers, as 0 and 1."""
    bucket = 12 * time_us // window_us
    newest_us = np.maximum.accumulate(time_us)
    before_us = np.concatenate([[np.iinfo(np.int64).min], newest_us[:-1]])
    is_in_order = time_us >= before_us
    newest = 12 * newest_us // window_us
    first = np.maximum(bucket - COVERED, newest - KEPT)
    last = np.where(is_in_order, bucket, bucket - 1)
    is_kept = bucket >= newest - KEPT  # when it came
    is_earlier = np.tri(len(bucket), k=-1, dtype=bool)
    covered: Floats = (is_earlier & is_kept & (bucket >= first[:, None]) & (bucket <= last[:, None])).astype(float)
    return covered
