"""Rows of another list of columns, read by name."""

from __future__ import annotations

import msgspec
import numpy as np

from streams import frames
from streams.fitting import fit
from streams.frames import Column
from streams.pipeline import Field
from tests.rows import batch_of, events, pipeline

X, Y, SHOP = Column("x", is_category=False), Column("y", is_category=False), Column("shop", is_category=True)


def test_columns_of_the_matrix_are_found_by_name_and_kind() -> None:
    """A category that is a number now is another column, and missing."""
    found = frames.examples_schema((X, SHOP, Y))
    wanted = frames.examples_schema((Y, Column("new", is_category=False), Column("shop", is_category=False), X))
    rows = [
        {"kind": "event", "source": 3, "sequence": n, "time": 10 * n, "id": f"e{n}", "number": n, "vector": [n, 7, -n]}
        for n in range(3)
    ]

    fitted = fit(batch_of(found, rows), found, wanted)

    nan = np.nan
    np.testing.assert_array_equal(fitted.matrix(), [[0, nan, nan, 0], [-1, nan, nan, 1], [-2, nan, nan, 2]])
    assert [row["id"] for row in fitted.to_arrow().to_pylist()] == ["e0", "e1", "e2"]
    assert fitted.numbers("number").tolist() == [0, 1, 2]
    assert fitted.numbers("sequence").tolist() == [0, 1, 2]
    assert fitted.layout == wanted.layout


def test_fields_of_the_log_are_found_by_name_and_type() -> None:
    """A number that is text now is missing, as is a field that was not declared then; texts keep their nulls."""
    old = pipeline(events=events(fields=(Field("a", "number", ("a",)), Field("b", "category", ("b",)))))
    fields = (Field("b", "category", ("b",)), Field("c", "number", ("c",)), Field("a", "category", ("a",)))
    new = msgspec.structs.replace(old, events=events(fields=fields))
    rows = [{"kind": "event", "field.a": 1.5, "field.b": text} for text in ("north", None, "")]

    fitted = fit(batch_of(frames.log_schema(old), rows), frames.log_schema(old), frames.log_schema(new)).to_arrow()

    assert fitted["field.b"].to_pylist() == ["north", None, ""]
    assert fitted["field.a"].to_pylist() == [None] * 3
    assert np.isnan(fitted["field.c"].to_numpy()).all()


def test_rows_of_the_same_list_are_not_copied() -> None:
    """There is nothing to do."""
    schema = frames.examples_schema((X, SHOP))
    rows = batch_of(schema, [{"kind": "event", "vector": [1.0, 2.0]}])

    assert fit(rows, schema, schema) is rows
