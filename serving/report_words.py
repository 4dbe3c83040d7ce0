"""How a report writes numbers: times, sizes, shares and dates, in the unit that reads best."""

from __future__ import annotations

import math
from datetime import UTC, datetime


def seconds(value: float) -> str:
    """Write a time.

    >>> seconds(90), seconds(129_600), seconds(200_000)
    ('1.5 min', '36 h', '2.31 d')
    """
    for unit, each, least in (("d", 86_400.0, 172_800.0), ("h", 3_600.0, 3_600.0), ("min", 60.0, 60.0)):
        if abs(value) >= least:
            return f"{value / each:.3g} {unit}"
    return f"{value:.3g} s" if abs(value) >= 1.0 or value == 0.0 else f"{value * 1e3:.3g} ms"


def size(value_bytes: float) -> str:
    """Write memory.

    >>> size(512), size(2_202_010)
    ('512 B', '2.1 MiB')
    """
    if not math.isfinite(value_bytes):
        return "-"
    for unit, bytes_each in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value_bytes >= bytes_each:
            return f"{value_bytes / bytes_each:.3g} {unit}"
    return f"{value_bytes:.0f} B"


def micros(value_us: float) -> str:
    """Write the time of a call, of which most take microseconds."""
    if not math.isfinite(value_us):
        return "-"
    return f"{value_us:.3g} us" if value_us < 1_000 else f"{value_us / 1_000:.3g} ms"


def decimal(value: float) -> str:
    """Write a loss or another figure."""
    return "-" if not math.isfinite(value) else f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"


def share(value: float) -> str:
    """Write a share in percent, with as many digits as it has meaning.

    >>> share(0.5), share(0.00123), share(0.9997), share(1.0)
    ('50.0 %', '0.12 %', '99.97 %', '100 %')
    """
    if not math.isfinite(value):
        return "-"
    if value in (0.0, 1.0):
        return f"{value * 100:.0f} %"
    return f"{value * 100:.2f} %" if abs(value) < 0.01 or 0.99 < value < 1.0 else f"{value * 100:.1f} %"


def compared(value: float, other: float) -> str:
    """Say how much less or more a loss is than another.

    >>> compared(0.3, 0.4), compared(0.5, 0.4)
    ('25.0 % less', '25.0 % more')
    """
    if not other or not math.isfinite(value) or not math.isfinite(other):
        return "-"
    change = value / other - 1.0
    return f"{share(abs(change))} {'less' if change <= 0 else 'more'}"


def day(time_us: int) -> str:
    """Write the day of a moment, UTC.

    >>> day(1_357_034_400_000_000)
    '1 January 2013'
    """
    moment = datetime.fromtimestamp(time_us / 1e6, UTC)
    return f"{moment.day} {moment:%B %Y}"


def minute(time_us: int) -> str:
    """Write a moment to the minute, UTC.

    >>> minute(1_357_034_400_000_000)
    '2013-01-01 10:00'
    """
    return f"{datetime.fromtimestamp(time_us / 1e6, UTC):%Y-%m-%d %H:%M}"
