"""The flights: real departures and landings in UTC, in time order, nothing invented."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache

import msgspec
import numpy as np

from serving.flights import Flights, read_flights

MINUTE_US = 60_000_000


@cache
def flights() -> Flights:
    """The whole year, read once."""
    return read_flights()


def landing(flight: str) -> str:
    """When a flight landed, in UTC."""
    row = flights()._table.id.tolist().index(flight)
    return f"{datetime.fromtimestamp(flights().arrived_us[row] / 1e6, UTC):%Y-%m-%dT%H:%MZ}"


def test_every_departed_flight_is_there_once() -> None:
    """Cancelled flights are left out; those without a recorded landing keep no label."""
    assert len(flights()) == 328_521
    assert flights().labels == 328_521 - 1_175
    assert flights()._table.id.is_unique


def test_records_match_the_example_pipeline() -> None:
    """The first departure and its landing, as they are published."""
    records = [msgspec.json.decode(record.value) for record in read_flights(1).records()]

    assert records == [
        {
            "type": "departure",
            "flight": "UA-1545-EWR-2013-01-01",
            "tail": "N14228",
            "departed_at": "2013-01-01T10:17:00Z",
            "carrier": "UA",
            "origin": "EWR",
            "scheduled_hour": 5,
            "dep_delay": 2.0,
            "route": {"dest": "IAH", "miles": 1400},
        },
        {
            "type": "arrival",
            "flight": "UA-1545-EWR-2013-01-01",
            "tail": "N14228",
            "arrived_at": "2013-01-01T14:30:00Z",
            "late": False,
        },
    ]


def test_records_are_in_time_order_and_keyed_by_aircraft() -> None:
    """Times never go back, and the key is the tail number."""
    records = list(read_flights(2_000).records())

    assert [record.time_us for record in records] == sorted(record.time_us for record in records)
    assert all(record.key == msgspec.json.decode(record.value)["tail"].encode() for record in records)


def test_landings_are_on_the_destinations_clock() -> None:
    """Houston is an hour behind New York, Honolulu five, San Juan one ahead in winter."""
    assert landing("UA-1545-EWR-2013-01-01") == "2013-01-01T14:30Z"  # 08:30 in Houston
    assert landing("HA-51-JFK-2013-01-01") == "2013-01-02T01:16Z"  # 15:16 in Honolulu
    assert landing("B6-725-JFK-2013-01-01") == "2013-01-01T14:04Z"  # 10:04 in San Juan


def test_flights_take_a_plausible_time() -> None:
    """From leaving the gate to arriving takes the time in the air and 5 minutes to 4 hours on the ground."""
    has_landed = flights().arrived_us >= 0
    total = (flights().arrived_us - flights().departed_us)[has_landed] / MINUTE_US
    ground = total - flights()._table.air_time.to_numpy()[has_landed]

    assert np.nanmin(ground) >= 5
    assert np.nanmax(ground) <= 240


def test_outcomes_tell_late_from_on_time() -> None:
    """A flight is late when it arrived at least 15 minutes after schedule."""
    outcomes = flights().outcomes()

    assert outcomes["UA-1545-EWR-2013-01-01"] is False  # 11 minutes
    assert outcomes["UA-1696-EWR-2013-01-01"] is False  # 12 minutes
    assert outcomes["AA-1141-JFK-2013-01-01"] is True  # 33 minutes
    assert len(outcomes) == flights().labels
