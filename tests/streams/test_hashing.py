"""The stable hash against the published algorithm, and golden values that must never change."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from streams.building import text_of
from streams.hashing import CATEGORY_SEED, ENTITY_SEED, PLAIN_SEED, category_code, hash_bytes, hash_column

GOLDEN = {  # of the reference implementation, xxhsum -H64
    (b"", 0): 0xEF46DB3751D8E999,
    (b"a", 0): 0xD24EC4F1A98C6E5B,
    (b"abc", 0): 0x44BC2CF5AD770999,
    (b"Nobody inspects the spammish repetition", 0): 0xFBCEA83C8A378BF1,
}
CODES = [542583263791126.0, 1543299012612019.0, 1445336450234368.0]


@pytest.mark.parametrize(("value", "seed"), GOLDEN)
def test_golden_values(value: bytes, seed: int) -> None:
    """The hash of a text is the same in every release."""
    assert hash_bytes(value, seed) == GOLDEN[value, seed]


def test_the_seeds_are_fixed() -> None:
    """Partitions, entities and categories hash with these seeds for ever."""
    assert (PLAIN_SEED, ENTITY_SEED, CATEGORY_SEED) == (0, 1, 2)


@given(value=st.binary(max_size=200), seed=st.integers(0, 2**64 - 1))
def test_equals_xxh64(value: bytes, seed: int) -> None:
    """Any bytes, any seed: XXH64."""
    assert hash_bytes(value, seed) == xxhash.xxh64_intdigest(value, seed)


@given(values=st.lists(st.none() | st.text(max_size=50), min_size=1, max_size=20), start=st.integers(0, 5))
def test_a_column_hashes_as_its_texts_do(values: list[str | None], start: int) -> None:
    """A column, also a slice of one, hashes like each text by itself; null like the empty text."""
    array = pa.array(values, pa.string()).slice(min(start, len(values) - 1))
    column = text_of(array)

    found = hash_column(column.offsets, column.data, CATEGORY_SEED).tolist()

    expected = [xxhash.xxh64_intdigest((v or "").encode(), CATEGORY_SEED) for v in array.to_pylist()]
    assert found == expected


def test_category_codes_are_golden_52_bit_integers() -> None:
    """A category's code is the upper 52 bits of its hash, exact in float64."""
    codes = [category_code(np.uint64(hash_bytes(text, CATEGORY_SEED))) for text in (b"JFK", b"LGA", "Zürich".encode())]

    assert codes == CODES
    assert category_code(np.uint64(2**64 - 1)) == 2.0**52 - 1
