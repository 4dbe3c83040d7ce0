"""The operations that a feature may be declared with, by family, and which kinds of field each takes."""

from __future__ import annotations

from streams.pipeline import Operation
from streams.stages import COMPUTED

PERIODS = ("hour", "weekday", "month")
CALENDAR = ("weekend", "night")

_ANY, _NUMBERS = ("number", "boolean", "category"), ("number", "boolean")
WINDOWED: dict[Operation, tuple[str, ...]] = {
    "count": _ANY,
    "sum": _NUMBERS,
    "mean": _NUMBERS,
    "std": _NUMBERS,
    "min": _NUMBERS,
    "max": _NUMBERS,
    "rate": ("boolean",),
    "distinct": _ANY,
    "quantile": _NUMBERS,
}
OF_LABELS: tuple[Operation, ...] = ("count", "sum", "mean", "std", "min", "max", "rate")
TRAILS: dict[Operation, tuple[str, ...]] = {
    "last": _ANY,
    "lag": _ANY,
    "ewm_mean": _NUMBERS,
    "ewm_std": _NUMBERS,
}
ENCODED: tuple[Operation, ...] = ("frequency", "target")
CODED: tuple[Operation, ...] = ("one_hot", "hash")
OF_TIME: tuple[Operation, ...] = ("cyclic", "calendar")
NOW: tuple[Operation, ...] = (*WINDOWED, *TRAILS, "elapsed", *ENCODED, *OF_TIME, *COMPUTED, *CODED)
