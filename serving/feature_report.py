"""What `millrace features` prints: every feature with what it costs, and how the newest values are distributed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from serving.distributions import BINS, CategoryColumn, NumberColumn, bars, distributions
from serving.json_output import write_json
from serving.newest_vectors import Vectors, newest_vectors
from serving.table import console, grid, number
from streams.durations import duration_text
from streams.feature_costs import EntityCost, FeatureCost, feature_costs
from streams.feature_words import FeatureLine, feature_lines
from streams.features import columns
from streams.pipeline import Pipeline

BYTES_NOTE = (
    "Bytes a key: one bucket of each window is filled besides the open one; at most: all 22 that are kept are; before "
    "packing: with what buckets that moved have left behind. A feature bears what it is the first to need, and those "
    "that share it nothing. The ledger and the events that wait for their label come on top (docs/features.md)."
)
MISSING_NOTE = (
    "An event without a key has NaN for everything of its entity; one older than the newest of its entity has NaN for "
    "elapsed, last, lag, ewm_mean and ewm_std."
)
BOUNDS_NOTE = (
    "Of a bound: what a partition and all of them take at most, as before packing. An entity that is idle for longer, "
    "or idle the longest where there are too many, counts as never seen afterwards (docs/features.md)."
)
EXACT_NOTE = "What exact windows keep comes on top: 8 bytes an event and 8 for each field, in blocks of 16 events."
LEAST_NAME = 14  # characters of a column's name before it is broken
UNITS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
SMALLEST = 1e-3  # below it and above the units numbers have an exponent
Column = NumberColumn | CategoryColumn


class Described(msgspec.Struct, frozen=True):
    """Distributions of the newest rows, or in one line why there are none."""

    rows: int
    columns: tuple[Column, ...] = ()
    note: str = ""


def show_features(pipeline: Pipeline, keys: int, described: Described | None = None) -> None:
    """Print a table of features, one of their state for one key and for `keys`, and distributions if wanted."""
    out, lines, costs = console(), feature_lines(pipeline), feature_costs(pipeline)
    out.print(Text(f"Pipeline {pipeline.name}: {number(len(lines))} features, {_columns(lines)}", style="bold"))
    out.print(_features(lines))
    if costs.entities:
        _note(out, MISSING_NOTE)
        out.print(_costs(lines, costs.features))
        out.print(_state(costs.entities, keys))
        _note(out, BYTES_NOTE)
        if any(cost.bound for cost in costs.entities):
            out.print(_bounds(costs.entities, pipeline.partitions))
            _note(out, BOUNDS_NOTE)
            if any(cost.words.event for cost in costs.entities):
                _note(out, EXACT_NOTE)
    if described is not None:
        topic = f"{pipeline.name}.features"
        title = described.note or f"The newest {number(described.rows)} rows of {topic}"
        out.print(Text(f"\n{title}", style="bold"))
        for table in _distributions(described.columns):
            out.print(table)


def write_features(pipeline: Pipeline, keys: int, described: Described | None = None) -> None:
    """Write the same as JSON to standard output; what a shared feature needs is 0."""
    costs = feature_costs(pipeline)
    costs_by_name = {cost.name: cost for cost in costs.features}
    found: dict[str, Any] = {
        "pipeline": pipeline.name,
        "features": [_plain(line, costs_by_name.get(line.name)) for line in feature_lines(pipeline)],
        "state": [
            {
                "entity": cost.entity,
                "key_bytes": _three(cost, 1),
                "keys": keys,
                "keys_bytes": _three(cost, keys),
                "bound": _plain_bound(cost, pipeline.partitions),
            }
            for cost in costs.entities
        ],
    }
    if described is not None:
        found["distributions"] = described
    write_json(found)


def describe_newest(pipeline: Pipeline, rows: int) -> Described:
    """Read the newest event rows from Kafka and describe their columns."""
    return described(pipeline, newest_vectors(pipeline, rows))


def described(pipeline: Pipeline, newest: Vectors | None) -> Described:
    """Describe the columns of some vectors; None are those of a topic that does not exist."""
    topic = f"{pipeline.name}.features"
    if newest is None:
        return Described(0, note=f"{topic} does not exist yet: `millrace up` creates and fills it")
    if not newest.times_B.size:
        return Described(0, note=f"{topic} has no rows with these columns yet: publish events while `millrace up` runs")
    return Described(newest.times_B.size, distributions(columns(pipeline), newest.vectors_BF))


def _columns(lines: Sequence[FeatureLine]) -> str:
    count = sum(len(line.columns) for line in lines)
    return f"{number(count)} column" + ("" if count == 1 else "s")


def _features(lines: Sequence[FeatureLine]) -> Table:
    table = grid("feature", "kind", "declared", "without a value", wrap=("feature", "declared"))
    for line in lines:
        kind = "category" if line.is_category else "number"
        kind = kind if len(line.columns) == 1 else f"{len(line.columns)} {kind}s"
        table.add_row(line.name, kind, line.declaration or line.meaning, line.missing)
    return table


def _costs(lines: Sequence[FeatureLine], costs: Sequence[FeatureCost]) -> Table:
    table = grid("feature", "entity", "looks back", ">bytes a key", ">at most", wrap=("feature",))
    reach = {line.name: line.reach for line in lines}
    for cost in costs:
        if cost.entity is not None:
            told = (cost.words.typical_bytes, cost.words.most_bytes)
            table.add_row(
                cost.name,
                cost.entity,
                reach[cost.name],
                *(["shared"] * 2 if cost.is_shared else map(number, told)),
            )
    return table


def _state(entities: Sequence[EntityCost], keys: int) -> Table:
    table = grid("state of", ">keys", ">memory", ">at most", ">before packing")
    for cost in entities:
        for count in dict.fromkeys((1, keys)):
            table.add_row(cost.entity, number(count), *(size(value) for value in _three(cost, count).values()))
    return table


def _bounds(entities: Sequence[EntityCost], partitions: int) -> Table:
    """Lay out what bounds come to: the worst case is there where the number of entities has one."""
    table = grid("bound of", ">idle for", ">keys at most", ">a partition", ">memory of it", ">of all")
    for cost in entities:
        if cost.bound is not None:
            idle = duration_text(cost.bound.ttl_us) if cost.bound.ttl_us else "any time"
            in_each = cost.bound.most_in_each(partitions)
            memory = [size(count * in_each * cost.unpacked_bytes) for count in (1, partitions)]
            told = [number(cost.bound.most), number(in_each), *memory] if cost.bound.most else ["any number", *"---"]
            table.add_row(cost.entity, idle, *told)
    return table


def _plain_bound(cost: EntityCost, partitions: int) -> dict[str, int | None] | None:
    """One bound for JSON; without a cap memory has none."""
    if cost.bound is None:
        return None
    in_each = cost.bound.most_in_each(partitions) or None
    memory = in_each and in_each * cost.unpacked_bytes
    return {
        "ttl_us": cost.bound.ttl_us,
        "most": cost.bound.most,
        "partition_most": in_each,
        "partition_bytes": memory,
        "all_bytes": memory and memory * partitions,
    }


def _three(cost: EntityCost, keys: int) -> dict[str, int]:
    per_key = {"typical": cost.typical_bytes, "at_most": cost.most_bytes, "before_packing": cost.unpacked_bytes}
    return {name: keys * value for name, value in per_key.items()}


def size(size_bytes: int) -> str:
    """Write a size in the unit that reads best.

    >>> size(1_076), size(52_000_000), size(5_036_000_000)
    ('1,076 B', '49.6 MiB', '4.7 GiB')
    """
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:,.1f} {unit}"
    return f"{size_bytes:,} B"


def _distributions(described: Sequence[Column]) -> list[RenderableType]:
    numbers, categories = (
        [column for column in described if isinstance(column, kind)] for kind in (NumberColumn, CategoryColumn)
    )
    tables: list[RenderableType] = []
    if numbers:
        tables.append(_of_numbers([one for one in numbers if isinstance(one, NumberColumn)]))
    if categories:
        tables.append(_of_categories([one for one in categories if isinstance(one, CategoryColumn)]))
    return tables


def _of_numbers(found: Sequence[NumberColumn]) -> Table:
    table = grid(
        "column", ">missing", ">mean", ">min", ">5 %", ">median", ">95 %", ">max", "1 % to 99 %", wrap=("column",)
    )
    table.padding = (0, 1, 0, 0)  # so that nine columns fit into a hundred characters
    for column, width in ((table.columns[0], LEAST_NAME), (table.columns[-1], BINS)):
        column.min_width = width
    for one in found:
        told = (one.mean, one.least, one.low, one.median, one.high, one.most)
        drawn = bars(one.histogram) if one.histogram else ""
        table.add_row(one.name, share(one.missing), *("-" if value is None else short(value) for value in told), drawn)
    return table


def _of_categories(found: Sequence[CategoryColumn]) -> Table:
    table = grid("column", ">values", ">missing", ">codes", ">most frequent")
    for one in found:
        most = "-" if one.most_frequent is None else share(one.most_frequent)
        table.add_row(one.name, number(one.values), share(one.missing), number(one.distinct), most)
    return table


def share(ratio: float) -> str:
    """Write a share in percent; what is not zero never looks like it, nor what is not all like all.

    >>> share(0.0), share(0.00001), share(0.123), share(0.99999), share(1.0)
    ('0 %', '<0.1 %', '12.3 %', '>99.9 %', '100 %')
    """
    if ratio in (0, 1):
        return f"{ratio:.0%}".replace("%", " %")
    if ratio < 0.001:
        return "<0.1 %"
    return ">99.9 %" if ratio > 0.999 else f"{100 * ratio:.1f} %"


def short(value: float) -> str:
    """Write a number with about three digits, in eight characters at most.

    >>> [short(value) for value in (-0.0, 0.25, -1.2345, 1_234.5, -49_350.0, 5e8, 2.6e-7, 1e300, float("inf"))]
    ['0', '0.25', '-1.23', '1234', '-49.4k', '500M', '2.6e-07', '1.0e+300', 'inf']
    """
    size = abs(value)
    if size == 0 or math.isinf(size):
        return f"{value + 0.0:g}"  # no zero has a sign
    if SMALLEST <= size < 999.5:
        return f"{value:.3g}"
    if 999.5 <= size < 9_999.5:
        return f"{value:.0f}"
    for unit, scale in UNITS.items():
        if 9_999.5 <= size < 999.5 * scale:
            return f"{value / scale:.3g}{unit}"
    return f"{value:.1e}"


def _note(out: Console, text: str) -> None:
    out.print(Text(text, style="dim"), width=min(out.width, 100))


def _plain(line: FeatureLine, cost: FeatureCost | None) -> dict[str, Any]:
    """One feature for JSON; a raw field has neither declaration nor cost."""
    words = cost.words if cost else None
    return {
        "name": line.name,
        "columns": line.columns,
        "kind": "category" if line.is_category else "number",
        "declaration": f"{{ {line.declaration} }}" if cost else None,
        "meaning": line.meaning,
        "missing": line.missing,
        "looks_back": line.reach,
        "entity": cost.entity if cost else None,
        "is_shared": cost.is_shared if cost else False,
        "head_words": words.head if words else 0,
        "bucket_words": words.bucket if words else 0,
        "typical_bytes": words.typical_bytes if words else 0,
        "most_bytes": words.most_bytes if words else 0,
    }
