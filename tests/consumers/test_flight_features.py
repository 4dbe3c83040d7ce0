"""Features of four entities over real flights, through the real chain of stages, equal to pandas' rolling windows.

Flights leave by the minute; here those of one minute follow each other by a microsecond, and land half a minute later
than they did: so no two rows have the same time, and pandas and the log agree on what comes first.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from serving.flights import LATE_MINUTES, read_flights
from streams.durations import DAY_US, HOUR_US, SECOND_US
from streams.features import columns
from streams.pipeline import Feature, Field, Pipeline
from tests.aggregate_reference import Row
from tests.chaining import by_partition, real_stages, run_chain
from tests.featurizing import mark_clocks
from tests.pandas_windows import bucket_start_us, bucketed, labels_since, rolled
from tests.rows import events, labels, pipeline

FLIGHTS = 8_000  # nine days
ENTITIES: dict[str, str | tuple[str, ...]] = {
    "tail": "key",
    "origin": "origin",
    "carrier": "carrier",
    "route": ("origin", "dest"),
}
WINDOWS = {"3h": 3 * HOUR_US, "1d": DAY_US, "7d": 7 * DAY_US}
NAMES = {"tail": ["key"], "origin": ["origin"], "carrier": ["carrier"], "route": ["origin", "dest"]}


class Flown(NamedTuple):
    """Flights, what the chain says of each, and landings as labels."""

    flights: pd.DataFrame
    found: pd.DataFrame
    labels: pd.DataFrame


def features() -> tuple[Feature, ...]:
    """Counts, mean departure delays, both also exactly, and rates of late landings, of each entity."""
    made: list[Feature] = []
    for name, by in ENTITIES.items():
        for window, length_us in WINDOWS.items():
            ending = f"{name}_{window}"
            made += [
                Feature(f"count_{ending}", "count", "*", by, length_us),
                Feature(f"mean_{ending}", "mean", "delay", by, length_us),
                Feature(f"count_exactly_{ending}", "count", "*", by, length_us, is_exact=True),
                Feature(f"mean_exactly_{ending}", "mean", "delay", by, length_us, is_exact=True),
                Feature(f"late_{ending}", "rate", "label", by, length_us, is_label=True, delay_us=HOUR_US),
            ]
    return tuple(made)


def flown_pipeline() -> Pipeline:
    """Three entities besides the aircraft, four partitions."""
    fields = (
        Field("delay", "number", ("delay",)),
        *(Field(name, "category", (name,)) for name in ("origin", "carrier", "dest")),
    )
    return pipeline(
        events=events(fields=fields),
        labels=labels(wait_us=36 * HOUR_US, keep_us=36 * HOUR_US),
        features=features(),
        partitions=4,
    )


def apart(times_us: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Let equal times follow each other by a microsecond."""
    moved: npt.NDArray[np.int64] = times_us + pd.Series(times_us).groupby(times_us).cumcount().to_numpy()
    return moved


def flights_frame() -> pd.DataFrame:
    """The first flights of the year by departure, with the time of landing (-1: never recorded)."""
    read = read_flights(FLIGHTS)
    landed = read.arrived_us >= 0
    known_us = np.where(landed, apart(read.arrived_us) + 30 * SECOND_US, -1)
    return pd.DataFrame(
        {
            "time_us": apart(read.departed_us),
            "known_us": known_us,
            "label": (read._table.arr_delay >= LATE_MINUTES).astype(float),
            "id": read._table.id,
            "key": read._table.tailnum,
            "delay": read._table.dep_delay,
            **{name: read._table[name] for name in ("origin", "carrier", "dest")},
        }
    )


def rows_of(flights: pd.DataFrame) -> list[Row]:
    """Departures and landings by time, with a mark an hour."""
    rows: list[Row] = []
    for one in flights.to_dict("records"):
        name, time_us = {"id": one["id"], "key": one["key"]}, one["time_us"]
        fields = {f"field.{field}": one[field] for field in ("delay", "origin", "carrier", "dest")}
        rows.append({"kind": "event", **name, "time": time_us, "produced": time_us, **fields})
        if one["known_us"] >= 0:
            rows.append({"kind": "label", **name, "time": one["known_us"], "label": one["label"]})
    first, last = flights.time_us.min(), flights.time_us.max()
    rows += [{"kind": "mark", "id": None, "key": None, "time": at} for at in range(first, last, HOUR_US)]
    return sorted(rows, key=lambda row: row["time"])


@pytest.fixture(scope="module")
def flown() -> Flown:
    """Run the flights through all five stages, merged by time as in a replay."""
    of, flights = flown_pipeline(), flights_frame()
    rows = rows_of(flights)
    written = run_chain(of, real_stages(of), by_partition(of, rows, mark_clocks(rows)), None, cuts=11)[-1]
    made = {row["id"]: row["vector"] for found in written.values() for row in found if row["kind"] == 0}
    found = pd.DataFrame([made[id_] for id_ in flights.id], columns=[column.name for column in columns(of)])
    landed = flights[flights.known_us >= 0]
    return Flown(flights, found, landed.assign(time_us=landed.known_us + HOUR_US))


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("entity", ENTITIES)
def test_windows_of_flights_equal_pandas(flown: Flown, entity: str, window: str) -> None:
    """Exact windows are pandas' own, those of buckets pandas' over the buckets that the definition names."""
    by, length_us = NAMES[entity], WINDOWS[window]
    for how in ("count", "mean"):
        exactly = rolled(flown.flights, by, "delay", length_us, how)
        within = bucketed(flown.flights, by, "delay", length_us, how)

        np.testing.assert_allclose(flown.found[f"{how}_exactly_{entity}_{window}"], exactly, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(flown.found[f"{how}_{entity}_{window}"], within, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("entity", ENTITIES)
def test_counts_of_flights_lie_within_one_bucket_of_pandas(flown: Flown, entity: str, window: str) -> None:
    """No more than over the last w, no fewer than over the last w less a twelfth."""
    length_us, found = WINDOWS[window], flown.found[f"count_{entity}_{window}"].to_numpy()

    assert (found <= rolled(flown.flights, NAMES[entity], "delay", length_us, "count")).all()
    assert (found >= rolled(flown.flights, NAMES[entity], "delay", length_us * 11 // 12, "count")).all()


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("entity", ENTITIES)
def test_rates_of_late_landings_equal_pandas(flown: Flown, entity: str, window: str) -> None:
    """Of the landings that were known an hour ago, whichever partition their flight is in."""
    since_us = bucket_start_us(flown.flights.time_us.to_numpy(), WINDOWS[window])
    count, ones = labels_since(flown.flights, flown.labels, NAMES[entity], since_us)
    with np.errstate(invalid="ignore"):
        expected = ones / count

    np.testing.assert_allclose(flown.found[f"late_{entity}_{window}"], expected, rtol=1e-9, atol=1e-9)


def test_the_flights_hold_what_windows_can_go_wrong_on(flown: Flown) -> None:
    """Else the tests above would prove little: labels that never come, aircraft that come back, busy entities."""
    assert (flown.flights.known_us < 0).sum() > 5
    assert flown.found.count_origin_1d.max() > 250
    assert (flown.found.count_tail_7d > 3).sum() > 1_000
    assert flown.found.late_route_7d.nunique() > 50
    assert flown.found.count_origin_7d.lt(flown.found.count_exactly_origin_7d).any()
