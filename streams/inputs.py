"""Rows of the log on their way into the kernels: columns as read-only views, fields as one matrix, hashed names."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.compiled import bare, inlined
from streams.frames import Batch
from streams.hashing import CATEGORY_SEED, ENTITY_SEED, category_code, hash_text
from streams.layouts import Text
from streams.plan import EVERY_ROW, FeaturePlan

NO_KEY = 0  # stands for the key's hash where there is no key
NO_ENTITY = -1


class Input(NamedTuple):
    """B rows of the log and their K fields, as read-only views; the hashes are filled in by `name_rows_kernel`."""

    kind: npt.NDArray[np.int8]
    outcome: npt.NDArray[np.int8]
    time: npt.NDArray[np.int64]
    produced: npt.NDArray[np.int64]
    label: npt.NDArray[np.float64]
    id: Text
    key: Text
    label_clock: npt.NDArray[np.int64]
    clock: npt.NDArray[np.int64]
    values_KB: npt.NDArray[np.float64]
    names: npt.NDArray[np.int64]  # hash of id and key
    keys: npt.NDArray[np.int64]  # hash of the key
    entities: npt.NDArray[np.int64]  # the key's entity, where a look ahead has found one; else NO_ENTITY


def make_input(batch: Batch, plan: FeaturePlan) -> Input:
    """View a batch as the kernels take it; only the fields are copied."""
    rows = batch.rows
    values_KB = np.empty((len(plan.fields) + len(plan.filtered), rows.num_rows))
    for place, field in enumerate(plan.fields):
        name = f"field.{field.name}"
        if field.kind == "category":
            encode_categories_kernel(rows.text(name), values_KB, place)
        else:
            values_KB[place] = rows.numbers(name)
    if plan.filtered:
        _filter(values_KB, plan)
    kind, outcome, time, produced, label = (
        rows.numbers(name) for name in ("kind", "outcome", "time", "produced", "label")
    )
    taken = Input(
        kind,
        outcome,
        time,
        produced,
        label,
        rows.text("id"),
        rows.text("key"),
        _sealed(batch.label_clock),
        _sealed(batch.clock),
        values_KB,
        np.empty(rows.num_rows, np.int64),
        np.empty(rows.num_rows, np.int64),
        np.full(rows.num_rows, NO_ENTITY),
    )
    name_rows_kernel(taken)
    return taken


def _filter(values_KB: npt.NDArray[np.float64], plan: FeaturePlan) -> None:
    """Fill in the fields that are missing where a condition does not hold."""
    named = {field.name: values_KB[place] for place, field in enumerate(plan.fields)}
    for place, (field, condition) in enumerate(plan.filtered, len(plan.fields)):
        values = 1.0 if field == EVERY_ROW else values_KB[field]
        values_KB[place] = np.where(condition.holds(named), values, math.nan)


def _sealed(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """View an array as all columns of a batch are, read-only: kernels are compiled for one kind of array."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


@inlined
def is_there_kernel(valid: npt.NDArray[np.uint8], row: int) -> bool:
    """Whether a text is there, by its column's bitmap."""
    return valid.size == 0 or (valid[row >> 3] >> (row & 7)) & 1 == 1


@bare
def longest_kernel(offsets: npt.NDArray[np.int32]) -> int:
    """Bytes of the longest text of a column."""
    longest = 0
    for row in range(offsets.size - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    return longest


@bare
def encode_categories_kernel(texts: Text, values_KB: npt.NDArray[np.float64], place: int) -> None:
    """Write the code of each text into row `place`; a missing text is NaN."""
    for row in range(values_KB.shape[1]):
        value = math.nan
        if is_there_kernel(texts.valid, row):
            hashed = hash_text(texts.data, texts.offsets[row], texts.offsets[row + 1], np.uint64(CATEGORY_SEED))
            value = category_code(hashed)
        values_KB[place, row] = value


@bare
def name_rows_kernel(rows: Input) -> None:
    """Fill in the hashes: XXH64 of the key, and of the id seeded with it."""
    for row in range(rows.kind.size):
        key = np.uint64(NO_KEY)
        if is_there_kernel(rows.key.valid, row):
            key = hash_text(rows.key.data, rows.key.offsets[row], rows.key.offsets[row + 1], np.uint64(ENTITY_SEED))
        rows.keys[row] = np.int64(key)
        rows.names[row] = np.int64(hash_text(rows.id.data, rows.id.offsets[row], rows.id.offsets[row + 1], key))
