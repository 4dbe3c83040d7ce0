"""Features in words: how one is declared, what it says, and what stands there without a value.

The one place for these words: `millrace check` and `millrace features` print them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import msgspec

from streams.durations import duration_text
from streams.features import columns
from streams.pipeline import Feature, Field, Operation, Pipeline

_MOST_SHOWN = 6  # edges or values: more of them are told by their number
_LARGEST_SHORT = 1e15  # larger whole numbers read better with an exponent

# What is taken of the rows that a window covers, and what stands there if it covers none.
_WINDOWED: dict[Operation, tuple[str, str]] = {
    "count": ("count of {of}", "0 if there is none"),
    "sum": ("sum of {of}", "0 if there is none"),
    "mean": ("mean of {of}", "NaN if there is none"),
    "std": ("standard deviation of {of}", "NaN for fewer than 2"),
    "min": ("smallest {of}", "NaN if there is none"),
    "max": ("largest {of}", "NaN if there is none"),
    "rate": ("share of {of} that is true", "NaN if there is none"),
    "distinct": ("about how many different values of {of}", "0 if there is none"),
    "quantile": ("about the {q:g} quantile of {of}", "NaN if there is none"),
    "frequency": ("{of} a day", "0 if there is none"),
    "target": ("share of labels that are 1", "{prior:g} if there is none"),
}
_OTHERS_MISSING: dict[Operation, str] = {
    "last": "NaN if there is none",
    "lag": "NaN if there is none",
    "ewm_mean": "NaN before the first",
    "ewm_std": "NaN before the second",
    "elapsed": "NaN for the first",
    "cyclic": "never missing",
    "calendar": "never missing",
    "ratio": "NaN, also for x / 0",
    "difference": "NaN if either is",
    "log1p": "NaN, also up to -1",
}


class FeatureLine(msgspec.Struct, frozen=True):
    """One feature in words, with the columns of the feature matrix that it fills.

    Attributes:
        missing: what stands there without a value.
        reach: how far back it looks; empty if at nothing but the event.
        declared: its keys in the pipeline file and their values as TOML; empty for a raw field.
    """

    name: str
    meaning: str
    missing: str
    columns: tuple[str, ...]
    is_category: bool
    reach: str = ""
    declared: dict[str, str] = {}

    @property
    def declaration(self) -> str:
        """Give what is declared as the pipeline file has it, between its braces."""
        return ", ".join(f"{key} = {value}" for key, value in self.declared.items())


def feature_lines(pipeline: Pipeline) -> tuple[FeatureLine, ...]:
    """Describe all features in the order of their columns: raw fields, then what is declared."""
    categories = {column.name for column in columns(pipeline) if column.is_category}
    raw = pipeline.events.fields if pipeline.raw_features else ()
    return (
        *map(_raw_line, raw),
        *(
            FeatureLine(
                feature.name,
                meaning(feature),
                missing(feature),
                feature.columns,
                is_category=feature.name in categories,
                reach=reach(feature),
                declared=declared(feature),
            )
            for feature in pipeline.features
        ),
    )


def _raw_line(field: Field) -> FeatureLine:
    meaning = f"the {field.kind} as it came"
    return FeatureLine(field.name, meaning, "NaN", (field.name,), is_category=field.kind == "category")


def declared(feature: Feature) -> dict[str, str]:
    """Give a feature's keys and values as its line in the pipeline file has them, without keys at their defaults.

    >>> declared(Feature("late_7d", "rate", "label", "shop", 604_800_000_000, is_label=True))
    {'rate': '"label"', 'by': '"shop"', 'window': '"7d"'}
    """
    of = feature.of if feature.other is None else [feature.of, feature.other]
    lengths = {"window": feature.window_us, "half_life": feature.half_life_us, "delay": feature.delay_us}
    is_encoded, is_target = feature.operation in ("frequency", "target"), feature.operation == "target"
    values = {
        feature.operation: feature.by if is_encoded else of,
        "by": None if is_encoded else feature.by,
        **{key: duration_text(length_us) if length_us else None for key, length_us in lengths.items()},
        "k": feature.k if feature.operation == "lag" else None,
        "q": feature.q if feature.operation == "quantile" else None,
        "precision": feature.precision if feature.operation == "distinct" and feature.precision != 8 else None,
        "prior": _short(feature.prior) if is_target else None,
        "weight": _short(feature.weight) if is_target and feature.weight != 20 else None,
        "exact": feature.is_exact or None,
        "where": feature.where,
        "low": _short(feature.low),
        "high": _short(feature.high),
        "edges": [_short(edge) for edge in feature.edges] or None,
        "values": feature.values or None,
        "buckets": feature.buckets or None,
    }
    return {key: json.dumps(value, ensure_ascii=False) for key, value in values.items() if value is not None}


def _short(value: float | None) -> float | None:
    """Leave out the fraction of a whole number."""
    return int(value) if value is not None and value.is_integer() and abs(value) < _LARGEST_SHORT else value


def meaning(feature: Feature) -> str:
    """Say in a few words what a feature's value is.

    >>> meaning(Feature("delay_1d", "mean", "dep_delay", "tail", 86_400_000_000))
    'mean of dep_delay of the same tail over the last 1d'
    """
    if feature.operation in _WINDOWED:
        text = _of_window(feature)
    elif feature.by is not None:
        text = _of_entity(feature)
    else:
        text = _FROM_THE_EVENT[feature.operation](feature)
    return f"{text}, where {feature.where}" if feature.where else text


def missing(feature: Feature) -> str:
    """Say what stands there without a value; without a key, everything of an entity is NaN besides.

    >>> missing(Feature("delay_1d", "std", "dep_delay", "tail", 86_400_000_000))
    'NaN for fewer than 2'
    """
    if feature.operation in _WINDOWED:
        return _WINDOWED[feature.operation][1].format(prior=feature.prior)
    return _OTHERS_MISSING.get(feature.operation, "NaN")


def reach(feature: Feature) -> str:
    """Say how far back a feature looks.

    >>> reach(Feature("before", "lag", "dep_delay", "tail", k=3))
    '3 events'
    """
    if feature.by is None:
        return ""
    if feature.half_life_us:
        return f"half-life {duration_text(feature.half_life_us)}"
    if feature.operation in _WINDOWED:
        return duration_text(feature.window_us or 0)
    limit = f" in {duration_text(feature.window_us)}" if feature.window_us else ""
    return f"{feature.k} event{'' if feature.k == 1 else 's'}{limit}"


def _of_window(feature: Feature) -> str:
    if feature.of == "*":
        of = "events"
    elif feature.operation == "count":
        of = "labels" if feature.is_label else f"events with {feature.of}"
    else:
        of = feature.of
    subject = _WINDOWED[feature.operation][0].format(of=of, q=feature.q)
    if feature.is_label and feature.operation == "rate":
        subject = "share of labels that are 1"
    over = "over exactly" if feature.is_exact else "over"
    text = f"{subject} of the same {_entity(feature)} {over} the last {duration_text(feature.window_us or 0)}"
    if feature.operation == "target":
        text += f", drawn to {feature.prior:g} as by {feature.weight:g} more"
    return f"{text}, each label from {duration_text(feature.delay_us)} after its time on" if feature.delay_us else text


def _of_entity(feature: Feature) -> str:
    of, whose = feature.of, f"of the same {_entity(feature)}"
    limit = f", not older than {duration_text(feature.window_us)}" if feature.window_us else ""
    if feature.operation == "elapsed":
        return f"seconds since the last event {whose}"
    if feature.operation == "last":
        return f"last {of} {whose}{limit}"
    if feature.operation == "lag":
        event = "event" if feature.k == 1 else f"{_ordinal(feature.k)} event"
        return f"{of} of the {event} before {whose}{limit}"
    subject = "mean" if feature.operation == "ewm_mean" else "standard deviation"
    return f"{subject} of {of} {whose}, weights halved every {duration_text(feature.half_life_us or 0)}"


def _entity(feature: Feature) -> str:
    return feature.by if isinstance(feature.by, str) else " and ".join(feature.by or ())


def _ordinal(number: int) -> str:
    """Write a place: 2nd, 3rd, 11th.

    >>> [_ordinal(number) for number in (2, 3, 4, 11, 21, 112)]
    ['2nd', '3rd', '4th', '11th', '21st', '112th']
    """
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _clipped(feature: Feature) -> str:
    low = "" if feature.low is None else f", at least {feature.low:g}"
    high = "" if feature.high is None else f", at most {feature.high:g}"
    return f"{feature.of}{low}{high}"


def _listed(values: Sequence[float] | Sequence[str]) -> str:
    texts = [value if isinstance(value, str) else f"{value:g}" for value in values]
    if len(texts) <= _MOST_SHOWN:
        return ", ".join(texts)
    return f"{', '.join(texts[: _MOST_SHOWN - 1])} … {texts[-1]} ({len(texts)})"


_CALENDAR = {
    "weekend": "1 on Saturday and Sunday (UTC), else 0",
    "night": "1 from midnight to 6 o'clock (UTC), else 0",
}
_FROM_THE_EVENT: dict[Operation, Callable[[Feature], str]] = {
    "cyclic": lambda feature: f"the {feature.of} of the event's time, as a point on a circle",
    "calendar": lambda feature: _CALENDAR[feature.of],
    "ratio": lambda feature: f"{feature.of} divided by {feature.other}",
    "difference": lambda feature: f"{feature.of} less {feature.other}",
    "log1p": lambda feature: f"natural logarithm of 1 + {feature.of}",
    "clip": _clipped,
    "bucketise": lambda feature: f"how many of these edges {feature.of} has reached: {_listed(feature.edges)}",
    "one_hot": lambda feature: f"1 where {feature.of} is the column's value, else 0: {_listed(feature.values)}",
    "hash": lambda feature: f"{feature.of} as a code" + (f" below {feature.buckets}" if feature.buckets else ""),
}
