"""Frames: golden fingerprints and bytes, how batches are cut, what is refused, and views without copies."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import decoding, frames
from streams.errors import FrameError
from streams.frames import MAX_FRAME_BYTES, MAX_FRAME_ROWS, Column, build, decode, encode
from streams.tables import Stack, Table, join
from tests.rows import COLUMNS, batch_of, log_rows, pipeline

LOG = frames.log_schema(pipeline())
FEATURES = frames.features_schema(COLUMNS)
EXAMPLES = frames.examples_schema(COLUMNS)
COMMON = ["kind", "source", "sequence", "time", "id", "key", "produced"]


def test_columns_of_each_topic() -> None:
    """Every row has the common columns; each topic adds its own."""
    assert LOG.arrow.names == [*COMMON, "label", "outcome", "field.amount", "field.shop", "field.is_new", "field.miles"]
    assert FEATURES.arrow.names == [*COMMON, "number", "vector"]
    assert EXAMPLES.arrow.names == [*COMMON, "number", "label", "outcome", "vector"]


def test_fingerprints_are_golden() -> None:
    """A schema is known by the same fingerprint in every process and release."""
    assert LOG.fingerprint == "8818483e8263758f"
    assert FEATURES.fingerprint == "40beae21f5a8ad53"
    assert EXAMPLES.fingerprint == "996be32d5e782f5b"


def test_a_fingerprint_tells_names_kinds_and_order() -> None:
    """Another name, kind or order of the feature columns is another schema."""
    amount, shop = COLUMNS
    others = [
        (shop, amount),
        (amount,),
        (amount, Column("shop", is_category=False)),
        (amount, Column("shops", is_category=True)),
    ]
    assert len({frames.features_schema(other).fingerprint for other in [COLUMNS, *others]}) == 5


def sent(rows: Table) -> list[bytes]:
    """The frames of all rows of a table."""
    return [frame.message() for frame in encode(Stack([rows]), np.arange(rows.num_rows))]


def test_a_frames_bytes_are_golden() -> None:
    """What lies in Kafka can be read by another release: these bytes never change."""
    rows = log_rows(
        [
            {"kind": "event", "source": 3, "sequence": 7, "time": 1, "id": "é", "key": "k", "produced": 9,
             "field.amount": 1.5, "field.shop": None},
            {"kind": "label", "source": 4, "sequence": 0, "time": 2, "id": "é", "key": "k", "label": 1.0},
            {"kind": "mark", "source": 3, "time": 5},
        ]
    )  # fmt: skip

    payloads = sent(rows)

    assert [len(payload) for payload in payloads] == [1056]
    assert hashlib.blake2b(payloads[0], digest_size=16).hexdigest() == "8f509bd7d06aeecfe6fc571d14b42d80"


def test_absent_columns_become_minus_one_nan_or_null() -> None:
    """Numbers never carry Arrow nulls, so that they are views."""
    rows = build(EXAMPLES, {"kind": np.zeros(2, np.int8)}, 2)

    assert rows.numbers("source").tolist() == [-1, -1]
    assert np.isnan(rows.numbers("label")).all()
    assert np.isnan(rows.matrix()).all()
    assert rows.matrix().shape == (2, 2)
    assert rows.to_arrow().column("id").to_pylist() == [None, None]


def test_numbers_text_and_matrix_are_views() -> None:
    """Reading a column of a decoded frame copies nothing, also in the middle of a batch."""
    vector = np.arange(8.0).reshape(4, 2)
    rows = batch_of(FEATURES, [{"kind": "event", "id": f"i{i}", "number": i, "vector": vector[i]} for i in range(4)])
    part = decode(rows.message(), FEATURES).slice(1, 2)

    matrix, ids = part.matrix(), part.text("id")

    assert matrix.tolist() == vector[1:3].tolist()
    assert not matrix.flags.owndata
    assert not part.numbers("number").flags.owndata
    assert bytes(ids.data[ids.offsets[0] : ids.offsets[2]]) == b"i1i2"


@given(texts=st.lists(st.none() | st.text(max_size=5), max_size=20), start=st.integers(0, 20))
def test_text_tells_which_are_null(texts: list[str | None], start: int) -> None:
    """The bitmap belongs to the rows at hand, wherever they were cut out of a batch; without nulls it is empty."""
    whole = build(LOG, {"key": decoding.texts(texts)}, len(texts))

    offsets, data, valid = whole.slice(min(start, len(texts))).text("key")

    wanted = texts[start:]
    bits = [not valid.size or bool(valid[i // 8] >> (i % 8) & 1) for i in range(len(wanted))]
    found = [bytes(data[a:b]).decode() for a, b in pairwise(offsets)]
    assert [text if bit else None for text, bit in zip(found, bits, strict=True)] == wanted
    assert valid.size == 0 or None in texts


def wide_rows(count: int, width: int) -> Table:
    """Rows with a text of `width` bytes each."""
    text = decoding.texts([str(i).rjust(width, "x") for i in range(count)])
    return build(LOG, {"kind": np.zeros(count, np.int8), "sequence": np.arange(count), "id": text}, count)


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (1, [1]), (8_192, [8_192]), (8_193, [8_192, 1])])
def test_a_frame_has_at_most_8192_rows(count: int, sizes: list[int]) -> None:
    """One poll's rows leave in as few frames as the limit allows; nothing leaves for no rows."""
    schema = frames.features_schema(())
    rows = build(schema, {"kind": np.zeros(count, np.int8)}, count)

    assert [decode(payload, schema).num_rows for payload in sent(rows)] == sizes


@given(count=st.integers(1, 1_500), width=st.sampled_from([10, 500, 3_000]))
def test_frames_are_at_most_512_kib_and_join_to_what_was_cut(count: int, width: int) -> None:
    """However rows are cut into frames, order and content stay."""
    rows = wide_rows(count, width)

    payloads = sent(rows)

    assert max(map(len, payloads)) <= MAX_FRAME_BYTES
    joined = join([decode(payload, LOG) for payload in payloads])
    for name in ("sequence", "id"):
        assert joined.to_arrow().column(name) == rows.to_arrow().column(name)
    assert len(payloads) <= 1 + 2 * (count * (width + 100)) // MAX_FRAME_BYTES


def test_one_row_above_the_limit_is_a_frame_of_its_own() -> None:
    """A row cannot be cut; its neighbours leave in other frames."""
    big = decoding.texts(["a", "x" * (MAX_FRAME_BYTES + 1), "b"])
    rows = build(LOG, {"kind": np.zeros(3, np.int8), "id": big}, 3)

    assert [decode(payload, LOG).num_rows for payload in sent(rows)] == [1, 1, 1]


@given(rows=st.integers(1, MAX_FRAME_ROWS), cut=st.floats(0, 1, exclude_max=True))
def test_a_truncated_frame_is_an_error_of_its_own(rows: int, cut: float) -> None:
    """Damage has an exit code and says which topic."""
    payload = build(FEATURES, {"kind": np.zeros(min(rows, 50), np.int8)}, min(rows, 50)).message()

    with pytest.raises(FrameError, match="a frame of features cannot be read"):
        decode(payload[: int(len(payload) * cut)], FEATURES)


@given(st.binary(max_size=300))
def test_bytes_that_are_no_frame_are_refused(payload: bytes) -> None:
    """A foreign message on an inner topic does not crash in Arrow's own words."""
    with pytest.raises(FrameError):
        decode(payload, LOG)


def test_a_schema_describes_itself() -> None:
    """P.control carries names and kinds in words."""
    described = FEATURES.describe()

    assert described["topic"] == "features"
    assert described["columns"] == [["amount", "number"], ["shop", "category"]]
    assert list(described["fields"]) == FEATURES.arrow.names
