"""Moments as people write them on the command line."""

from __future__ import annotations

from datetime import UTC, datetime

from streams.errors import PipelineError


def moment_us(option: str, text: str | None) -> int | None:
    """Read a moment in us; one without an offset is UTC.

    >>> moment_us("--from", "2026-01-31T12:00:00Z")
    1769860800000000

    Raises:
        PipelineError: the text is no time; the line names the option.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise PipelineError([f"{option} {text}: is no time; allowed: as 2026-01-31 or 2026-01-31T12:00:00Z"]) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000_000)
