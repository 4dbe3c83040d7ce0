"""How much of a day, a week or a year has passed: what cyclic features are points on a circle of."""

from __future__ import annotations

from streams.compiled import bare

DAY_US = 86_400_000_000
WEEK_US = 7 * DAY_US
MONDAY_US = 4 * DAY_US  # 1970-01-05, the first Monday after the epoch
DAYS_TO_1970 = 719_468  # from 0000-03-01, where the years of the civil calendar begin here


@bare
def phase_kernel(period: int, time_us: int) -> float:
    """How much of the UTC day (0), week from Monday (1) or calendar year (2) has passed, from 0 to 1."""
    if period == 0:
        return (time_us % DAY_US) / DAY_US
    if period == 1:
        return ((time_us - MONDAY_US) % WEEK_US) / WEEK_US
    year = year_kernel(time_us // DAY_US)
    start = year_start_kernel(year)
    return (time_us - start * DAY_US) / ((year_start_kernel(year + 1) - start) * DAY_US)


@bare
def year_kernel(day: int) -> int:
    """The civil year of a day since 1970 (Howard Hinnant, "chrono-compatible low-level date algorithms")."""
    since = day + DAYS_TO_1970
    era = since // 146_097
    day_of_era = since - era * 146_097
    year_of_era = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    return year_of_era + era * 400 + (1 if day_of_year >= 306 else 0)  # its years begin in March


@bare
def year_start_kernel(year: int) -> int:
    """The first of January of a civil year, in days since 1970."""
    before = year - 1
    return 365 * before + before // 4 - before // 100 + before // 400 - 719_162
