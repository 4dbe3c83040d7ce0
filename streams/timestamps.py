"""Event times: RFC 3339 text or epoch numbers to int64 microseconds UTC, whole columns at a time.

Days from civil dates by Howard Hinnant's algorithm (https://howardhinnant.github.io/date_algorithms.html).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from streams.compiled import inlined, njit
from streams.intrinsics import load_8
from streams.layouts import Text

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


@inlined
def _digits(at: int, count: int) -> int:
    value = 0
    for i in range(at, at + count):
        digit = load_8(i) - 48
        if digit < 0 or digit > 9:
            return -1
        value = value * 10 + digit
    return value


@inlined
def _days(year: int, month: int, day: int) -> int:
    year -= 1 if month <= 2 else 0
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


@inlined
def _month_days(year: int, month: int) -> int:
    if month == 2:
        return 29 if (year % 4 == 0 and year % 100 != 0) or year % 400 == 0 else 28
    return 30 if month in (4, 6, 9, 11) else 31


@inlined
def parse_time_kernel(at: int, stop: int) -> int:
    """Parse the date-time at addresses `at` to `stop`."""
    if stop - at < 20 or load_8(at + 4) != 45 or load_8(at + 7) != 45 or load_8(at + 13) != 58 or load_8(at + 16) != 58:
        return INVALID
    if load_8(at + 10) not in (84, 116, 32):  # T, t, space
        return INVALID
    year, month, day = _digits(at, 4), _digits(at + 5, 2), _digits(at + 8, 2)
    hour, minute, second = _digits(at + 11, 2), _digits(at + 14, 2), _digits(at + 17, 2)
    if year < 1 or month < 1 or month > 12 or day < 1 or day > _month_days(year, month):
        return INVALID
    if hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 60:
        return INVALID
    at += 19
    micros, scale = 0, 100_000
    if load_8(at) == 46:
        at += 1
        first = at
        while at < stop and 48 <= load_8(at) <= 57:
            micros += (load_8(at) - 48) * scale
            scale //= 10
            at += 1
        if at == first:
            return INVALID
    shift = 0
    if at < stop and load_8(at) in (90, 122):
        at += 1
    elif at + 6 <= stop and load_8(at) in (43, 45) and load_8(at + 3) == 58:
        hours, minutes = _digits(at + 1, 2), _digits(at + 4, 2)
        if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
            return INVALID
        shift = (hours * 60 + minutes) * (60 if load_8(at) == 43 else -60)
        at += 6
    else:
        return INVALID
    if at != stop:
        return INVALID
    seconds = _days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - shift
    return seconds * 1_000_000 + micros


@njit
def _parse_kernel(offsets: npt.NDArray[np.int32], data: npt.NDArray[np.uint8], out: Int64s) -> None:
    start = np.int64(data.ctypes.data)
    for i in range(out.size):
        out[i] = parse_time_kernel(start + offsets[i], start + offsets[i + 1])


@inlined
def epoch_time_kernel(whole: int, value: float, is_whole: bool, unit_us: float) -> int:
    """Convert one epoch number as `epoch_times` does; `unit_us` below 1 stands for nanoseconds."""
    time_us = INVALID
    if is_whole and unit_us < 1.0:
        time_us = whole // 1000
    elif is_whole:
        factor = int(unit_us)
        if EARLIEST_US // factor <= whole <= LATEST_US // factor:
            time_us = whole * factor
    elif EARLIEST_US <= value * unit_us <= LATEST_US:
        time_us = int(np.rint(value * unit_us))
    return time_us
