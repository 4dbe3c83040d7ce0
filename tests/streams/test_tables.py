"""Rows in one block against pyarrow, which reads and writes the same bytes in its own way."""

import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.building import Builder, locate, read, text_of
from streams.errors import FrameError
from streams.layouts import LONG, Layout, ReusedMemory, heap_memory
from streams.records import HeldRecords, Record
from streams.tables import NO_LIMITS, Overlay, Stack, Table, cut, empty, gather, join

LAYOUT = Layout(
    pa.schema(
        [
            ("small", pa.int8()),
            ("middle", pa.int32()),
            ("name", pa.string()),
            ("large", pa.int64()),
            ("vector", pa.list_(pa.float64(), 3)),
            ("place", pa.string()),
        ]
    )
)

Texts = st.none() | st.text(max_size=12)
Rows = st.lists(st.tuples(st.integers(-128, 127), Texts, st.integers(-(2**63), 2**63 - 1), Texts), max_size=40)


def arrow(rows: list[Any]) -> pa.RecordBatch:
    """Rows as pyarrow has them."""
    small, name, large, place = zip(*rows, strict=True) if rows else ((), (), (), ())
    values = pa.array([float(i) for i in range(3 * len(rows))], pa.float64())
    columns = [
        pa.array(small, pa.int8()),
        pa.array([7 * one for one in small], pa.int32()),
        pa.array(name, pa.string()),
        pa.array(large, pa.int64()),
        pa.FixedSizeListArray.from_arrays(values, 3),
        pa.array(place, pa.string()),
    ]
    return pa.RecordBatch.from_arrays(
        [column.cast(field.type) for column, field in zip(columns, LAYOUT.arrow, strict=True)], schema=LAYOUT.arrow
    )


def records(*payloads: bytes) -> HeldRecords:
    """Frames as they come out of Kafka."""
    return HeldRecords("p.log", 2, [Record(payload, 5 + i, 0) for i, payload in enumerate(payloads)])


def table(rows: list[Any]) -> Table:
    """Rows as Millrace has them."""
    batch = arrow(rows)
    return read(LAYOUT, records(batch.serialize().to_pybytes()))[0] if rows else empty(LAYOUT)


@given(rows=Rows.filter(len))
def test_a_message_has_the_bytes_that_pyarrow_writes(rows: list[Any]) -> None:
    """Whoever reads P.features with Arrow sees nothing of ours."""
    batch = arrow(rows)

    found = table(rows)

    assert found.message() == batch.serialize().to_pybytes()
    assert found.to_arrow() == batch


@given(parts=st.lists(Rows, min_size=1, max_size=4), data=st.data())
def test_gathering_equals_pyarrows_take(parts: list[list[Any]], data: st.DataObject) -> None:
    """Any rows of any tables, cut out of others, in any order and as often as one likes."""
    starts = [data.draw(st.integers(0, len(part))) for part in parts]
    tables = [table(part).slice(start) for part, start in zip(parts, starts, strict=True)]
    whole = pa.concat_batches([arrow(part).slice(start) for part, start in zip(parts, starts, strict=True)])
    index = data.draw(st.lists(st.integers(0, whole.num_rows - 1), max_size=50)) if whole.num_rows else []

    found = gather(tables, np.array(index, np.int64))

    assert found.to_arrow() == whole.take(pa.array(index, pa.int64()))
    assert join(tables).to_arrow() == whole


@given(parts=st.lists(Rows, min_size=1, max_size=4), data=st.data())
def test_rows_that_lie_in_their_records_are_copied_as_those_of_tables(
    parts: list[list[Any]], data: st.DataObject
) -> None:
    """Whole frames and pieces of them, at whatever address; nobody needs the records afterwards."""
    found = locate(LAYOUT, records(*(arrow(part).serialize().to_pybytes() for part in parts)))
    cuts = [data.draw(st.integers(0, len(part))) for part in parts]
    pieces = [piece for rows, at in zip(found, cuts, strict=True) for piece in (rows.slice(0, at), rows.slice(at))]

    joined = join(pieces)
    del found, pieces

    assert joined.to_arrow() == pa.concat_batches([arrow(part) for part in parts])


def test_what_is_given_away_is_the_frame_and_leaves_an_empty_table() -> None:
    """Only a whole frame in memory of the heap can be given away."""
    rows = [(n, str(n), n, None) for n in range(10)]
    kept, (frame,) = table(rows), cut(Stack([table(rows)]), np.arange(10), NO_LIMITS, heap_memory)
    message = frame.message()

    given_ = frame.give()

    assert bytes(given_) == message == kept.message()
    assert frame.num_rows == frame.block.size == 0
    for one in (kept, frame):
        with pytest.raises(TypeError, match="only a whole frame"):
            one.give()


def test_memory_is_used_again_when_nobody_looks_at_it() -> None:
    """A table, a view of one of its columns, or rows cut out of it keep what it lies in."""
    memory, rows = ReusedMemory(), [(n, str(n), n, None) for n in range(100)]
    first = join([table(rows)], memory)
    column = first.numbers("large")
    del first
    second = join([table(rows[::-1])], memory)
    assert column.tolist() == list(range(100))
    piece, name = second.slice(90), second.text("name")
    del second
    third = join([table(rows)], memory)
    assert piece.numbers("large").tolist() == list(range(9, -1, -1))
    assert bytes(name.data[: name.offsets[1]]) == b"99"

    address = third.source()[1]
    del third
    fourth = join([table(rows[::-1])], memory)
    assert fourth.source()[1] == address
    assert fourth.to_arrow() == arrow(rows[::-1])


def test_memory_that_was_large_becomes_small_again() -> None:
    """After a burst nobody keeps what it took."""
    memory, sizes = ReusedMemory(), []
    assert memory(40 << 20).size == 40 << 20
    for _ in range(LONG + 1):
        small: Any = memory(1 << 10)
        sizes.append(small.base.size)
        del small

    assert set(sizes[:LONG]) == {50 << 20}
    assert sizes[LONG] < 1 << 20


def test_an_index_may_lie_in_memory_as_it_likes() -> None:
    """Kernels take it as it lies, so it is laid out for them first."""
    rows = [(n, str(n), n, None) for n in range(10)]
    backwards, every_third = np.arange(10)[::-1], np.arange(10)[::3]

    assert table(rows).take(backwards).numbers("large").tolist() == [*range(9, -1, -1)]
    assert table(rows).take(every_third).numbers("large").tolist() == [0, 3, 6, 9]


def test_texts_of_every_length_are_copied_whole() -> None:
    """Short ones go by two words: none of their bytes is left out, and none of the text before is lost."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN"
    rows = [(0, letters[:size], size, letters[size:]) for size in range(len(letters) + 1)]
    index = [*range(len(rows)), *reversed(range(len(rows)))]

    found = gather([table(rows)], np.array(index, np.int64))

    assert found.to_arrow().to_pydict()["name"] == [rows[at][1] for at in index]
    assert found.to_arrow().to_pydict()["place"] == [rows[at][3] for at in index]


@given(rows=Rows.filter(len), most_rows=st.integers(1, 10), most_bytes=st.integers(1, 400))
def test_cutting_keeps_order_and_limits(rows: list[Any], most_rows: int, most_bytes: int) -> None:
    """However small the parts must be, together they are the whole."""
    parts = list(cut(Stack([table(rows)]), np.arange(len(rows)), (most_rows, most_bytes)))

    assert pa.concat_batches([part.to_arrow() for part in parts]) == arrow(rows)
    assert all(part.num_rows <= most_rows for part in parts)
    fixed = 1 + 4 + 8 + 24 + 8
    sizes = [fixed * p.num_rows + sum(int(np.diff(p.text(n).offsets).sum()) for n in ("name", "place")) for p in parts]
    assert all(size <= most_bytes or part.num_rows == 1 for size, part in zip(sizes, parts, strict=True))


@given(parts=st.lists(Rows.filter(len), min_size=1, max_size=4))
def test_frames_of_a_poll_become_one_table(parts: list[list[Any]]) -> None:
    """One pass over all of them; the rows of each are told."""
    found, counts = read(LAYOUT, records(*(arrow(part).serialize().to_pybytes() for part in parts)))

    assert counts.tolist() == [len(part) for part in parts]
    assert found.to_arrow() == pa.concat_batches([arrow(part) for part in parts])


def test_metadata_laid_out_otherwise_are_read_all_the_same() -> None:
    """Another version of Arrow may align bodies by 64 bytes, or give bitmaps of columns without nulls."""
    rows = [(1, "a", 2, None), (3, "bc", 4, "d")]
    options = pa.ipc.IpcWriteOptions(metadata_version=pa.ipc.MetadataVersion.V4)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, LAYOUT.arrow, options=options) as writer:
        writer.write_batch(arrow(rows))
    stream = sink.getvalue().to_pybytes()
    start = 8 + struct.unpack_from("<i", stream, 4)[0]
    other = stream[start:-8]
    assert other != arrow(rows).serialize().to_pybytes()

    found, _ = read(LAYOUT, records(other, arrow(rows).serialize().to_pybytes()))

    assert found.to_arrow() == pa.concat_batches([arrow(rows)] * 2)


@given(rows=Rows.filter(len), data=st.data())
def test_a_damaged_frame_never_shows_memory_that_is_not_its_own(rows: list[Any], data: st.DataObject) -> None:
    """Whatever bytes come, either they are refused or every text lies inside the table."""
    payload = bytearray(arrow(rows).serialize().to_pybytes())
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        found, _ = read(LAYOUT, records(bytes(payload)))
    except FrameError:
        return
    for name in ("name", "place"):
        text = found.text(name)
        assert (np.diff(text.offsets) >= 0).all()
        assert text.offsets[-1] <= text.data.size


def test_a_frame_that_is_none_is_refused_by_its_place() -> None:
    """The line says where to look."""
    with pytest.raises(FrameError, match=r"a frame of p.log cannot be read: .*\(partition 2, offset 6: 4 bytes\)"):
        read(LAYOUT, records(arrow([(1, "a", 2, None)]).serialize().to_pybytes(), b"oops"))


def test_a_builder_fills_in_what_is_absent() -> None:
    """Constants, or -1, NaN and null; again with more rows than before."""
    builder = Builder(LAYOUT, {"middle": 9})
    for rows in (2, 5_000, 3):
        names = text_of(pa.array(["x"] * rows, pa.string()))
        found = builder.build({"large": np.arange(rows), "name": names}, rows)
        assert found.numbers("middle").tolist() == [9] * rows
        assert found.numbers("small").tolist() == [-1] * rows
        assert found.numbers("large").tolist() == list(range(rows))
        assert np.isnan(found.matrix()).all()
        assert found.to_arrow().column("place").null_count == rows
        assert found.to_arrow().column("name").to_pylist() == ["x"] * rows


@given(rows=Rows.filter(len), data=st.data())
def test_columns_laid_over_a_table_are_those_that_are_read_and_copied(rows: list[Any], data: st.DataObject) -> None:
    """Whatever the table was cut out of; columns of the table that the layout does not have are left behind."""
    start = data.draw(st.integers(0, len(rows) - 1))
    own = LAYOUT.arrow.remove(LAYOUT.places["small"])
    large, vector = np.arange(len(rows) - start), np.arange(3.0 * (len(rows) - start)).reshape(-1, 3) + 0.5
    below = arrow(rows).slice(start).drop_columns(["small"])
    laid = [pa.array(large), pa.FixedSizeListArray.from_arrays(pa.array(vector.ravel()), 3)]
    expected = below.set_column(2, own.field("large"), laid[0]).set_column(3, own.field("vector"), laid[1])

    found = Overlay(Layout(own), table(rows).slice(start), {"large": large, "vector": vector})

    assert found.to_arrow() == expected
    assert found.numbers("large").tolist() == large.tolist()
    assert found.numbers("middle").tolist() == expected["middle"].to_pylist()
    assert found.matrix().tolist() == vector.tolist()
    index = np.array(data.draw(st.lists(st.integers(0, large.size - 1), max_size=20)), np.int64)
    assert found.take(index).to_arrow() == expected.take(pa.array(index))
    assert found.slice(1, 2).to_arrow() == expected.slice(1, 2)
