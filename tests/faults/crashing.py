"""Fail points that raise in place of killing the process."""

from __future__ import annotations

from collections.abc import Callable


class CrashError(Exception):
    """Power loss at a fail point."""


def crashing_at(point: str) -> Callable[[str], None]:
    """What takes the place of `fail_point`: it raises where it is passed with this name."""

    def crash(name: str) -> None:
        if name == point:
            raise CrashError(name)

    return crash
