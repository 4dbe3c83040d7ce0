"""Rows on their way into the kernels: columns as read-only views, fields as one matrix, hashed names.

Rows of the log name the entities of later stages by text; between stages their hashes travel, and fields as numbers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streams.compiled import bare, inlined, straight
from streams.frames import Batch
from streams.hashing import CATEGORY_SEED, ENTITY_SEED, category_code, hash_text
from streams.layouts import Text
from streams.plan import EVERY_ROW, FeaturePlan
from streams.stages import KEY, StageSpec
from streams.tables import Table, sealed

NO_KEY = 0  # stands for the hash of a key, or of another entity, where there is none
NO_ENTITY = -1
NUMBER_FACTOR = np.int64(0x1E3779B97F4A7C15)  # odd: no two numbers give the same product


class Input(NamedTuple):
    """B rows and their K fields, as read-only views; `name_rows_kernel` fills in the hashes of names, and no entity."""

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
    keys: npt.NDArray[np.int64]  # hash of the key, or of the stage's entity: where the row goes when state is parted
    entities: npt.NDArray[np.int64]  # that key's entity, where a look ahead has found one; else NO_ENTITY
    others: npt.NDArray[np.int64]  # [B, E] hashes of the entities of later stages


def make_input(batch: Batch, plan: FeaturePlan) -> Input:
    """View a batch as the kernels of its stage take it; only the fields are copied."""
    rows = batch.rows
    values_KB = np.empty((len(plan.fields) + len(plan.filtered), rows.num_rows))
    for place, field in enumerate(plan.fields):
        name = f"field.{field.name}"
        if field.kind == "category" and plan.stage.number == 1:
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
        sealed(batch.label_clock),
        sealed(batch.clock),
        values_KB,
        np.empty(rows.num_rows, np.int64),
        np.empty(rows.num_rows, np.int64),
        np.empty(rows.num_rows, np.int64),
        _others(rows, plan.stage),
    )
    is_by_id = plan.labels.match == "id"
    name_rows_kernel(taken, is_by_id)
    if plan.stage.number > 1:
        _name_by_number(taken, rows.numbers("number"))
        if is_by_id or not plan.stage.is_last:
            taken.keys[:] = rows.numbers(f"entity.{plan.stage.number}")
    return taken


def _others(rows: Table, stage: StageSpec) -> npt.NDArray[np.int64]:
    """Give the hashes of the entities of later stages; between stages they travel as columns and are not asked for."""
    others = np.empty((rows.num_rows, len(stage.entities)), np.int64)
    if stage.number == 1:
        for place, entity in enumerate(stage.entities.values()):
            texts = [rows.text("key")] if entity == KEY else [rows.text(f"field.{name}") for name in entity]
            others[:, place] = hash_entities(texts)
    return others


def _name_by_number(rows: Input, number_B: npt.NDArray[np.int64]) -> None:
    """Let names hold the first stage's number too.

    An id that is no longer remembered may come again, with other entities, and so overtake what is under way.
    """
    np.bitwise_xor(rows.names, number_B * NUMBER_FACTOR, out=rows.names)


def hash_entities(fields: list[Text]) -> npt.NDArray[np.int64]:
    """Give the hash of each row's entity, NO_KEY where one of its fields is missing.

    It is XXH64 of the first field's text, and of each further one seeded with the hash of those before: no two lists of
    texts run into one another, and no separator is needed.
    """
    hashes = np.full(fields[0].offsets.size - 1, ENTITY_SEED, np.int64)
    for texts in fields:
        hash_kernel(texts, hashes)
    return hashes


@bare
def hash_kernel(texts: Text, hashes: npt.NDArray[np.int64]) -> None:
    """Hash one text more into every hash."""
    for row in range(hashes.size):
        if hashes[row] != NO_KEY and is_there_kernel(texts.valid, row):
            seed = np.uint64(hashes[row])
            hashes[row] = np.int64(hash_text(texts.data, texts.offsets[row], texts.offsets[row + 1], seed))
        else:
            hashes[row] = NO_KEY


def _filter(values_KB: npt.NDArray[np.float64], plan: FeaturePlan) -> None:
    """Fill in the fields that are missing where a condition does not hold."""
    named = {field.name: values_KB[place] for place, field in enumerate(plan.fields)}
    for place, (field, condition) in enumerate(plan.filtered, len(plan.fields)):
        values = 1.0 if field == EVERY_ROW else values_KB[field]
        values_KB[place] = np.where(condition.holds(named), values, math.nan)


@inlined
def is_there_kernel(valid: npt.NDArray[np.uint8], row: int) -> bool:
    """Whether a text is there, by its column's bitmap."""
    return valid.size == 0 or (valid[row >> 3] >> (row & 7)) & 1 == 1


@inlined
def copy_others_kernel(target: npt.NDArray[np.int64], at: int, source: npt.NDArray[np.int64], row: int) -> None:
    """Copy one row's hashes of other entities."""
    for entity in range(target.shape[1]):
        target[at, entity] = source[row, entity]


@straight
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


@straight
@bare
def name_rows_kernel(rows: Input, is_by_id: bool) -> None:
    """Fill in the hashes, and that no entity is known yet.

    They are XXH64 of the key, and of the id seeded with it; where labels have no key, both are of the id.
    """
    for row in range(rows.kind.size):
        rows.entities[row] = NO_ENTITY
        if is_by_id:
            start, stop = rows.id.offsets[row], rows.id.offsets[row + 1]
            rows.names[row] = rows.keys[row] = np.int64(hash_text(rows.id.data, start, stop, np.uint64(ENTITY_SEED)))
            continue
        key = np.uint64(NO_KEY)
        if is_there_kernel(rows.key.valid, row):
            key = hash_text(rows.key.data, rows.key.offsets[row], rows.key.offsets[row + 1], np.uint64(ENTITY_SEED))
        rows.keys[row] = np.int64(key)
        rows.names[row] = np.int64(hash_text(rows.id.data, rows.id.offsets[row], rows.id.offsets[row + 1], key))
