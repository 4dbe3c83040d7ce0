"""Raw JSON records to rows: decoded against the declared fields, a bad record turned into a reason.

Structs are made from the pipeline file, so msgspec validates while it parses; what it cannot say (finite, in range,
not too long, not from the future) is checked on whole columns afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streams import timestamps
from streams.building import text_of
from streams.layouts import Text
from streams.pipeline import LARGEST_LABEL, Condition, Events, Field, FieldPath, Labels, Pipeline, Task, TaskKind

Values = list[Any]


class Bad(NamedTuple):
    """Why a record is refused: `error` is one of a few class names, `reason` says it in words."""

    error: str
    reason: str


class Leaf(msgspec.Struct, frozen=True):
    """One value wanted from a record."""

    path: FieldPath
    type: Any
    is_required: bool


class Shape:
    """A msgspec struct for the wanted paths of a record, and the columns of many such structs."""

    def __init__(self, leaves: Sequence[Leaf]) -> None:
        self._names: dict[FieldPath, str] = {}
        self.type = self._struct((), leaves)
        self.decode: Callable[[bytes], Any] = msgspec.json.Decoder(self.type).decode  # raises what `explain` explains

    def _struct(self, prefix: FieldPath, leaves: Sequence[Leaf]) -> Any:
        depth = len(prefix)
        required: list[Any] = []
        optional: list[Any] = []
        rename: dict[str, str] = {}
        for i, name in enumerate(dict.fromkeys(leaf.path[depth] for leaf in leaves)):
            below = [leaf for leaf in leaves if leaf.path[depth] == name]
            path, own = (*prefix, name), f"f{i}"
            self._names[path] = own
            rename[own] = name
            is_required = any(leaf.is_required for leaf in below)
            if len(below[0].path) == depth + 1:
                kind = below[0].type
                for leaf in below[1:]:
                    kind |= leaf.type
            else:
                kind = self._struct(path, below) if is_required else self._struct(path, below) | None
            (required if is_required else optional).append((own, kind) if is_required else (own, kind, None))
        name = "record" if not prefix else ".".join(prefix)
        return msgspec.defstruct(name, required + optional, rename=rename, gc=False, frozen=False)

    def column(self, rows: Values, path: FieldPath) -> Values:
        """Collect one value per row; None where it, or a table above it, is absent."""
        for depth in range(1, len(path) + 1):
            name = self._names[path[:depth]]
            if depth == len(path):
                return [getattr(row, name) for row in rows] if len(rows) < 8 else _collect(name)(rows)
            rows = [getattr(row, name) or _NOTHING for row in rows]
        return rows


class _Nothing:
    def __getattr__(self, name: str) -> None:
        return None


_NOTHING = _Nothing()
_collectors: dict[str, Callable[[Values], Values]] = {}


def _collect(name: str) -> Callable[[Values], Values]:
    """Give a list comprehension over one attribute; half the time of `getattr` with a variable name."""
    if name not in _collectors:
        _collectors[name] = eval(f"lambda rows: [row.{name} for row in rows]")  # noqa: S307 - names are f0, f1, …
    return _collectors[name]


def explain(error: Exception) -> Bad:
    """Turn a decoding error into a reason."""
    if isinstance(error, msgspec.ValidationError):
        return Bad("invalid", str(error))
    if isinstance(error, RecursionError):
        return Bad("too_deep", "the record is nested too deeply")
    return Bad("malformed", f"not JSON: {error}")


DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_TEXT = str | int
_TIME = int | float


def event_shape(events: Events) -> Shape:
    """The struct of an event: id, key and time as declared, fields that may be null or absent."""
    leaves = [Leaf(path, _TEXT, is_required=True) for path in (events.id, events.key) if path]
    if events.time:
        leaves.append(Leaf(events.time, str if events.time_unit == "rfc3339" else _TIME, is_required=True))
    kinds: dict[str, Any] = {"number": float | None, "boolean": bool | None, "category": str | int | bool | None}
    leaves += [Leaf(field.path, kinds[field.kind], is_required=False) for field in events.fields]
    return Shape(leaves)


_LABELS: dict[TaskKind, Any] = {
    "binary": bool | float | None,
    "multiclass": str | int | None,
    "regression": float | None,
    "anomaly": bool | float | None,
}


def label_shape(labels: Labels, task: Task) -> Shape:
    """The struct of a label; a null value retracts it. One of a pipeline without labels reads nothing."""
    if not labels.is_declared:
        return Shape([])
    leaves = [Leaf(path, _TEXT, is_required=True) for path in (labels.id, labels.key) if path]
    if labels.time:
        leaves.append(Leaf(labels.time, str if labels.time_unit == "rfc3339" else _TIME, is_required=True))
    return Shape([*leaves, Leaf(labels.value, _LABELS[task.kind], is_required=True)])


class WhereTest:
    """Tells whether a record is meant: all conditions hold. Records that are not JSON objects raise."""

    def __init__(self, where: Sequence[Condition]) -> None:
        self._where = where
        self._shape = Shape([Leaf(c.path, Any, is_required=False) for c in where])

    def __call__(self, payload: bytes) -> bool:
        """Test one record."""
        try:
            row = [self._shape.decode(payload)]
        except msgspec.ValidationError:
            if isinstance(msgspec.json.decode(payload), dict):
                return False  # a condition's path leads through something that is no table: another kind of record
            raise
        return all(_equal(self._shape.column(row, c.path)[0], c.value) for c in self._where)


def _equal(found: Any, wanted: Any) -> bool:
    return bool(found == wanted) and isinstance(found, bool) == isinstance(wanted, bool)


def texts(values: Values) -> Text:
    """Make a column of texts and nulls; whole numbers and booleans become their text."""
    try:
        return text_of(pa.array(values, pa.string()))
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return text_of(pa.array([_as_text(value) for value in values], pa.string()))


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def field_columns(pipeline: Pipeline, shape: Shape, rows: Values) -> dict[str, Any]:
    """Give the declared fields of decoded events as log columns."""
    return {f"field.{field.name}": _field(field, shape.column(rows, field.path)) for field in pipeline.events.fields}


def _field(field: Field, values: Values) -> Any:
    return texts(values) if field.kind == "category" else np.array(values, np.float64)


def label_numbers(values: Values, task: Task) -> npt.NDArray[np.float64]:
    """Give labels as they travel: NaN for a retracted one, infinity for a class that was not declared."""
    if task.kind != "multiclass":
        return np.array(values, np.float64)
    places: dict[str | None, float] = {name: float(place) for place, name in enumerate(task.classes)} | {None: math.nan}
    return np.array([places.get(_as_text(value), math.inf) for value in values], np.float64)


def explain_label(task: Task) -> str:
    """Say what is wrong with a label that `is_bad_label` refuses."""
    if task.is_yes_or_no:
        return "the label is not 0, 1, true or false"
    if task.kind == "multiclass":
        return "the label is none of the task's classes"
    return f"the label is beyond {LARGEST_LABEL:g}, whose square no model could sum up"


def is_bad_label(label_B: npt.NDArray[np.float64], task: Task) -> npt.NDArray[np.bool_]:
    """Find the labels that are none of the task's; retracted ones are fine."""
    if task.is_yes_or_no:
        is_bad: npt.NDArray[np.bool_] = ~(np.isnan(label_B) | (label_B == 0) | (label_B == 1))
        return is_bad
    return np.abs(label_B) > LARGEST_LABEL


def times(values: Values | None, unit: str, stamps_us: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Event times in us; the record's own timestamp where none is declared, INVALID where it cannot be read."""
    if values is None:
        return stamps_us
    if unit == "rfc3339":
        return timestamps.parse_times(text_of(pa.array(values, pa.string())))
    return timestamps.epoch_times(values, unit)


def lengths(column: Text) -> npt.NDArray[np.int32]:
    """Length of each text in bytes; 0 for null."""
    return column.offsets[1:] - column.offsets[:-1]
