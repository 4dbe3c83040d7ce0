"""Durations as the pipeline file writes them: a whole number and a unit, such as "30s" or "36h"."""

from __future__ import annotations

import re

MS_US = 1_000
SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
LONGEST_US = 36_500 * DAY_US  # a century: sums of two times and a duration stay far inside int64

_UNITS_US = {"d": DAY_US, "h": HOUR_US, "m": MINUTE_US, "s": SECOND_US, "ms": MS_US}
_PATTERN = re.compile(r"([0-9]{1,18})(ms|s|m|h|d)")


def duration_us(text: str) -> int:
    """Read a duration in microseconds.

    >>> duration_us("36h")
    129600000000

    Raises:
        ValueError: the text is no whole number with one of the units ms, s, m, h, d, or is over a century.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no duration")
    length_us = int(match[1]) * _UNITS_US[match[2]]
    if length_us > LONGEST_US:
        raise ValueError(f"{text!r} is over a century")
    return length_us


def duration_text(length_us: int) -> str:
    """Write a duration with the largest unit that divides it.

    >>> duration_text(129_600_000_000)
    '36h'
    """
    for unit, unit_us in _UNITS_US.items():
        if length_us and length_us % unit_us == 0:
            return f"{length_us // unit_us}{unit}"
    return f"{length_us / SECOND_US:g}s"


def rough_text(length_us: int) -> str:
    """Write a duration in the largest unit that it reaches, with three digits.

    >>> rough_text(1_338_656_299_824), rough_text(0)
    ('15.5d', '0s')
    """
    unit = next((unit for unit, unit_us in _UNITS_US.items() if length_us >= unit_us), "s")
    return f"{length_us / _UNITS_US[unit]:.3g}{unit}"
