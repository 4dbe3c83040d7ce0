"""Event times: RFC 3339 text or epoch numbers to int64 microseconds UTC, whole columns at a time.

Days from civil dates by Howard Hinnant's algorithm (https://howardhinnant.github.io/date_algorithms.html).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from streams.compiled import njit
from streams.frames import Text

INVALID = np.iinfo(np.int64).min
UNIT_US = {"s": 1_000_000.0, "ms": 1_000.0, "us": 1.0, "ns": 0.001}
EARLIEST_US, LATEST_US = -62_135_596_800_000_000, 253_402_300_799_999_999  # years 1 to 9999, as RFC 3339 can write them

Int64s = npt.NDArray[np.int64]


def parse_times(column: Text) -> Int64s:
    """Parse RFC 3339 date-times (`2013-01-01T05:17:00Z`, `…+02:00`, fractions cut to us); INVALID where it is none."""
    out = np.empty(column.offsets.size - 1, np.int64)
    _parse_kernel(column.offsets, column.data, out)
    return out


def epoch_times(values: list[Any], unit: str) -> Int64s:
    """Convert epoch numbers to us; INVALID outside years 1 to 9999. Whole numbers are converted exactly."""
    array = np.array(values)
    if array.dtype not in (np.int64, np.float64) or (array.dtype == np.float64 and int in set(map(type, values))):
        return np.array([_epoch_time(value, unit) for value in values], np.int64)
    if array.dtype == np.int64 and unit != "ns":
        factor = int(UNIT_US[unit])
        is_good = (array >= EARLIEST_US // factor) & (array <= LATEST_US // factor)
        return np.where(is_good, array, 0) * factor + np.where(is_good, 0, INVALID)
    if array.dtype == np.int64:
        return array // 1000
    with np.errstate(over="ignore"):
        floats = array * UNIT_US[unit]
    is_good = (floats >= EARLIEST_US) & (floats <= LATEST_US)
    return np.where(is_good, np.rint(np.where(is_good, floats, 0.0)).astype(np.int64), INVALID)


def _epoch_time(value: int | float, unit: str) -> int:  # noqa: PYI041 - which of the two it is decides
    """Convert one number, exactly if it is whole: what stands beside it in a batch must not change its time."""
    if not isinstance(value, int):
        return int(epoch_times([value], unit)[0])
    time_us = value // 1000 if unit == "ns" else value * int(UNIT_US[unit])
    return time_us if EARLIEST_US <= time_us <= LATEST_US else INVALID


@njit
def _digits(data: npt.NDArray[np.uint8], at: int, count: int) -> int:
    value = 0
    for i in range(at, at + count):
        digit = int(data[i]) - 48
        if digit < 0 or digit > 9:
            return -1
        value = value * 10 + digit
    return value


@njit
def _days(year: int, month: int, day: int) -> int:
    year -= 1 if month <= 2 else 0
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


@njit
def _month_days(year: int, month: int) -> int:
    if month == 2:
        return 29 if (year % 4 == 0 and year % 100 != 0) or year % 400 == 0 else 28
    return 30 if month in (4, 6, 9, 11) else 31


@njit
def _parse_one(data: npt.NDArray[np.uint8], at: int, stop: int) -> int:
    if stop - at < 20 or data[at + 4] != 45 or data[at + 7] != 45 or data[at + 13] != 58 or data[at + 16] != 58:
        return INVALID
    if data[at + 10] not in (84, 116, 32):  # T, t, space
        return INVALID
    year, month, day = _digits(data, at, 4), _digits(data, at + 5, 2), _digits(data, at + 8, 2)
    hour, minute, second = _digits(data, at + 11, 2), _digits(data, at + 14, 2), _digits(data, at + 17, 2)
    if year < 1 or month < 1 or month > 12 or day < 1 or day > _month_days(year, month):
        return INVALID
    if hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 60:
        return INVALID
    at += 19
    micros, scale = 0, 100_000
    if data[at] == 46:
        at += 1
        first = at
        while at < stop and 48 <= data[at] <= 57:
            micros += (int(data[at]) - 48) * scale
            scale //= 10
            at += 1
        if at == first:
            return INVALID
    shift = 0
    if at < stop and data[at] in (90, 122):
        at += 1
    elif at + 6 <= stop and data[at] in (43, 45) and data[at + 3] == 58:
        hours, minutes = _digits(data, at + 1, 2), _digits(data, at + 4, 2)
        if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
            return INVALID
        shift = (hours * 60 + minutes) * (60 if data[at] == 43 else -60)
        at += 6
    else:
        return INVALID
    if at != stop:
        return INVALID
    seconds = _days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - shift
    return seconds * 1_000_000 + micros


@njit
def _parse_kernel(offsets: npt.NDArray[np.int32], data: npt.NDArray[np.uint8], out: Int64s) -> None:
    for i in range(out.size):
        out[i] = _parse_one(data, offsets[i], offsets[i + 1])
