"""`millrace export FILE`: the archive's examples as one file, one row for each event or one for each label row.

An event's row is the one that settled it, with the features of prediction time. Its label, outcome and label time are
those of the newest label row: one that was amended later has the later label, one that was retracted has none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from streams.advice import NOTHING_ARCHIVED
from streams.archive import columns_of, read_rows, segments_of
from streams.archive_file import archive_schema
from streams.errors import PipelineError, UnavailableError
from streams.frames import Column
from streams.pipeline import Pipeline
from streams.settlements import CORRECTING, SETTLING, Settlements
from streams.state_folder import Place, state_of

Format = Literal["parquet", "csv"]
FORMATS: tuple[Format, ...] = ("parquet", "csv")
OF_LABEL = ("label", "outcome", "label_time")


class Wish(NamedTuple):
    """What is exported: events at or after `from_us` and before `to_us`; every label row, or one for each event."""

    from_us: int | None = None
    to_us: int | None = None
    is_all: bool = False


def export_examples(pipeline: Pipeline, out: Path, form: Format, wish: Wish) -> int:
    """Write a file; gives the number of rows. Memory holds some row groups, and corrected labels.

    Raises:
        PipelineError: the file is there already.
        UnavailableError: nothing was archived yet, it cannot be written, or an object store does not answer.
        ArchiveError: what is archived is damaged.
    """
    if out.exists():
        raise PipelineError([f"{out} is there already; choose another --out"])
    state = state_of(pipeline)
    segments = segments_of(state)
    if not segments:
        raise UnavailableError(NOTHING_ARCHIVED)
    columns = columns_of(segments)
    schema = archive_schema(columns, segments[-1].classes)
    unfinished, rows = out.with_name(f".{out.name}.part"), 0
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _writer(unfinished, schema, form) as writer:
            for table in _chosen(state, columns, wish):
                writer.write_table(table)
                rows += table.num_rows
        unfinished.rename(out)
    except OSError as error:
        raise UnavailableError(f"cannot write {out}: {error.strerror or error}; choose another --out") from None
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
    return rows


def _writer(path: Path, schema: pa.Schema, form: Format) -> pq.ParquetWriter | pcsv.CSVWriter:
    if form == "csv":
        return pcsv.CSVWriter(path, schema)
    return pq.ParquetWriter(path, schema, compression="zstd")


def _chosen(state: Place, columns: Sequence[Column], wish: Wish) -> Iterator[pa.Table]:
    """Give what is wished for. Where there is a limit, an event whose time nobody remembers is not."""
    corrections = None if wish.is_all else _corrections(state, wish)
    settlements = Settlements()
    for rows in read_rows(state, wish.from_us, wish.to_us, columns=columns):
        table = rows if corrections is None else settlements.once(rows.filter(pc.field("outcome").isin(SETTLING)))
        if wish.from_us is not None or wish.to_us is not None:
            table = table.filter(pc.field("time").is_valid())
        yield table if corrections is None else _corrected(table, corrections)


def _corrections(state: Place, wish: Wish) -> pa.Table:
    """Give the newest label row of each event whose label was amended or retracted."""
    found = [
        rows.filter(pc.field("outcome").isin(CORRECTING))
        for rows in read_rows(state, wish.from_us, wish.to_us, columns=())
    ]
    table = pa.concat_tables(found) if found else archive_schema((), ()).empty_table()
    newest = table.group_by(["source", "number"]).aggregate([("row", "max")])
    return table.filter(pc.field("row").isin(newest.column("row_max").combine_chunks()))


def _corrected(rows: pa.Table, corrections: pa.Table) -> pa.Table:
    """Give rows the label that was told last."""
    told = {name: place for place, name in enumerate(_names(corrections))}
    may_be = np.flatnonzero(np.isin(rows.column("number").to_numpy(), corrections.column("number").to_numpy()))
    if not may_be.size:
        return rows
    newer_B = np.full(rows.num_rows, -1)
    newer_B[may_be] = [told.get(name, -1) for name in _names(rows.take(may_be))]
    is_newer, newer = pa.array(newer_B >= 0), pa.array(np.maximum(newer_B, 0))
    for name in OF_LABEL:
        values = pc.if_else(is_newer, corrections.column(name).take(newer), rows.column(name))
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), values)
    return rows


def _names(rows: pa.Table) -> Iterator[tuple[int, int]]:
    return zip(rows.column("source").to_pylist(), rows.column("number").to_pylist(), strict=True)
