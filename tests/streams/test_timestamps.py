"""Event times: RFC 3339 against the standard library, epoch numbers exactly, and what is no time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.building import text_of
from streams.timestamps import EARLIEST_US, INVALID, LATEST_US, epoch_times, parse_times

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def parsed(*values: str) -> list[int]:
    """Parse a column of texts."""
    times: list[int] = parse_times(text_of(pa.array(values, pa.string()))).tolist()
    return times


zones = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=zones)  # noqa: DTZ001 - hypothesis adds it


@given(st.lists(moments, min_size=1, max_size=8), st.sampled_from(["T", "t", " "]))
def test_equals_the_standard_library(values: list[datetime], separator: str) -> None:
    """Any moment in any zone, with or without a fraction, at any place of a column."""
    texts = [value.isoformat(separator) for value in values]

    assert parsed(*texts) == [(datetime.fromisoformat(text) - EPOCH) // MICROSECOND for text in texts]


@given(moments, st.integers(1, 12))
def test_a_fraction_of_any_length_is_cut_to_microseconds(value: datetime, digits: int) -> None:
    """More digits than six are cut, not rounded."""
    text = value.replace(microsecond=0, tzinfo=None).isoformat() + "." + "987654321987"[:digits] + "Z"

    assert parsed(text) == [(datetime.fromisoformat(text) - EPOCH) // MICROSECOND]


@pytest.mark.parametrize(
    ("text", "time_us"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00z", 0),
        ("1970-01-01 00:00:01.5Z", 1_500_000),
        ("1970-01-01T02:00:00+02:00", 0),
        ("1969-12-31T19:00:00-05:00", 0),
        ("1970-01-01T00:00:00-00:00", 0),
        ("2000-02-29T00:00:00Z", 951_782_400_000_000),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000_000),  # a leap second is the next minute's first
        ("0001-01-01T00:00:00Z", EARLIEST_US),
        ("9999-12-31T23:59:59.999999Z", LATEST_US),
        ("1969-12-31T23:59:59.999999Z", -1),
    ],
)
def test_known_moments(text: str, time_us: int) -> None:
    """Corners of RFC 3339."""
    assert parsed(text) == [time_us]


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "2013-01-01", "2013-01-01T05:17:00", "2013-01-01T05:17Z", "2013-01-01T05:17:00.Z",
        "2013-01-01T05:17:00Zx", "2013-01-01T05:17:00 Z", "2013-01-01T05:17:00+0200", "2013-01-01T05:17:00+02",
        "2013-01-01T05:17:00+24:00", "2013-01-01T05:17:00+02:60", "2013-13-01T05:17:00Z", "2013-00-01T05:17:00Z",
        "2013-02-29T05:17:00Z", "1900-02-29T05:17:00Z", "2013-04-31T05:17:00Z", "2013-01-32T05:17:00Z",
        "2013-01-00T05:17:00Z", "2013-01-01T24:00:00Z", "2013-01-01T05:60:00Z", "2013-01-01T05:17:61Z",
        "0000-01-01T05:17:00Z", "20130101T051700Z", "2013/01/01T05:17:00Z", "2013-01-01x05:17:00Z",
        "201a-01-01T05:17:00Z", "2013-01-01T05:17:0 Z", "+013-01-01T05:17:00Z", "2013-01-01T05:17:00,5Z",
        " 2013-01-01T05:17:00Z", "2013-01-01T05:17:00Z ", "\uff12013-01-01T05:17:00Z",
    ],
)  # fmt: skip
def test_what_is_no_date_time(text: str) -> None:
    """It is refused, and its neighbours in the column are read."""
    assert parsed("1970-01-01T00:00:01Z", text, "1970-01-01T00:00:02Z") == [1_000_000, INVALID, 2_000_000]


@given(st.text(max_size=40))
def test_no_text_stops_the_parser(text: str) -> None:
    """Whatever it is, it is a time that years 1 to 9999 hold (to a day), or INVALID."""
    (found,) = parsed(text)

    assert found == INVALID or EARLIEST_US - 86_400_000_000 <= found <= LATEST_US + 86_400_000_000


@pytest.mark.parametrize(("unit", "per_us"), [("s", 1_000_000), ("ms", 1_000), ("us", 1)])
@given(data=st.data())
def test_whole_numbers_are_exact(unit: str, per_us: int, data: st.DataObject) -> None:
    """Up to the last of their range; outside it they are INVALID."""
    values = data.draw(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-(10**12), 10**12), min_size=1))

    expected = [v * per_us if EARLIEST_US <= v * per_us <= LATEST_US else INVALID for v in values]
    assert epoch_times(values, unit).tolist() == expected


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_nanoseconds_are_cut_to_microseconds(values: list[int]) -> None:
    """Every int64 of nanoseconds lies in the years there are."""
    assert epoch_times(values, "ns").tolist() == [value // 1000 for value in values]


numbers = st.integers(-(10**30), 10**30) | st.integers(0, 2 * 10**18) | st.floats(allow_nan=False)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@given(values=st.lists(numbers, min_size=1, max_size=6))
def test_a_time_does_not_depend_on_its_neighbours(unit: str, values: list[int | float]) -> None:
    """Order and numbers never depend on how records were cut into polls."""
    assert epoch_times(values, unit).tolist() == [epoch_times([value], unit)[0] for value in values]


@pytest.mark.parametrize("value", [10**400, -(10**400), 2**63, 1e300, -1e300, 2.6e17])
def test_a_number_out_of_range_is_invalid(value: float) -> None:
    """However large, it is one bad record and no more."""
    assert epoch_times([value, 0], "us").tolist() == [INVALID, 0]


def test_fractions_of_seconds_are_rounded_to_microseconds() -> None:
    """As `time.time()` gives them."""
    assert epoch_times([1.5, 1_700_000_000.123456], "s").tolist() == [1_500_000, 1_700_000_000_123_456]
