"""The sketch of distinct values against plain Python, and its counts against the truth."""

from __future__ import annotations

import math
import struct

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.compiled import bare
from streams.distinct import (
    LEAST_PRECISION,
    MOST_PRECISION,
    add_distinct_kernel,
    count_distinct_kernel,
    distinct_error,
    distinct_words,
    fold_distinct_kernel,
    hash_value_kernel,
)
from tests.distinct_reference import reference_count, reference_registers, splitmix

Words = npt.NDArray[np.int64]
PLACE = 3  # a sketch lies somewhere in a larger array, whose other words are not its own
GUARD = -0x123456789ABCDEF
SEEDS = 60
GOLDEN_HASHES = {
    0.0: 0xE220A8397B1DCDAF,
    1.0: 0x88D7C35BBBF3EDED,
    -1.5: 0x5C4CE031A716B337,
    math.inf: 0x249E5410C2F97D99,
}
GOLDEN_COUNTS = {
    4: 809.8369353293285,
    8: 1065.4143269697747,
    12: 999.3558912926815,
}  # of the numbers 0 to 999, by precision
SPLITMIX_SEED_0 = 0xE220A8397B1DCDAF  # the first number of splitmix64 with the seed 0, as published

precisions = st.integers(LEAST_PRECISION, MOST_PRECISION)
numbers = st.floats(allow_nan=False)


@bare
def hash_of(value: float) -> int:
    """Hash a value."""
    return hash_value_kernel(value)


@bare
def add(words: Words, place: int, precision: int, values: npt.NDArray[np.float64]) -> None:
    """Add values one by one."""
    for n in range(values.size):
        add_distinct_kernel(words, place, precision, values[n])


@bare
def fold(to_words: Words, to: int, from_words: Words, start: int, precision: int) -> None:
    """Add one sketch to another."""
    fold_distinct_kernel(to_words, to, from_words, start, precision)


@bare
def count(words: Words, place: int, precision: int) -> float:
    """Estimate the count."""
    return count_distinct_kernel(words, place, precision)


def sketch(precision: int, values: list[float] | npt.NDArray[np.float64]) -> Words:
    """Give the words of a sketch of values, and fail if one beside them is touched."""
    size = distinct_words(precision)
    words = np.full(PLACE + size + PLACE, GUARD)
    words[PLACE : PLACE + size] = 0
    add(words, PLACE, precision, np.asarray(values, np.float64))

    assert set(words[:PLACE].tolist() + words[PLACE + size :].tolist()) == {GUARD}
    return words[PLACE : PLACE + size].copy()


def test_hashes_are_the_same_in_every_release() -> None:
    """A sketch in a snapshot goes on with the hashes it began with; that of 0.0 is the published one of splitmix64."""
    assert {value: hash_of(value) % 2**64 for value in GOLDEN_HASHES} == GOLDEN_HASHES
    assert GOLDEN_HASHES[0.0] == SPLITMIX_SEED_0


@given(value=numbers)
def test_hashes_are_those_of_splitmix(value: float) -> None:
    """Any number hashes as in plain Python, and minus nothing as nothing."""
    assert hash_of(value) % 2**64 == splitmix(value)
    assert hash_of(-0.0) == hash_of(0.0)


def test_a_sketch_has_a_byte_for_each_register() -> None:
    """Eight registers a word, and 0.7 of the error with each doubling."""
    assert [distinct_words(p) for p in (4, 6, 8, 12)] == [2, 8, 32, 512]
    assert [round(distinct_error(p), 4) for p in (4, 6, 8, 12)] == [0.26, 0.13, 0.065, 0.0163]


@given(precision=precisions, values=st.lists(numbers, max_size=200))
def test_registers_are_those_of_plain_python(precision: int, values: list[float]) -> None:
    """Byte by byte the sketch holds what the published algorithm puts there."""
    assert sketch(precision, values).tobytes() == reference_registers(precision, values)


def test_the_highest_rank_is_one_more_than_the_bits_that_are_left() -> None:
    """The one value whose hash is 0 has zeros only: it brings register 0 to a rank that no other value can exceed."""
    (value,) = struct.unpack("<d", struct.pack("<Q", 2**64 - 0x9E3779B97F4A7C15))

    assert hash_of(value) == 0
    for precision in range(LEAST_PRECISION, MOST_PRECISION + 1):
        assert sketch(precision, [value]).tobytes() == bytes([65 - precision]).ljust(1 << precision, b"\0")
        assert 0 < count(sketch(precision, [value]), 0, precision) < 1.1


def test_ranks_of_many_values_are_those_of_plain_python() -> None:
    """Also where registers have been raised many times."""
    values = np.random.default_rng(1).normal(size=20_000)

    assert sketch(4, values).tobytes() == reference_registers(4, values.tolist())


@given(precision=precisions, values=st.lists(numbers, max_size=60), data=st.data())
def test_neither_order_nor_repeats_nor_folds_show(precision: int, values: list[float], data: st.DataObject) -> None:
    """Values shuffled, repeated and cut into sketches that are folded in any tree give the same words."""
    shuffled = data.draw(st.permutations(values + values[::2]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(shuffled)), max_size=6)))
    parts = [sketch(precision, shuffled[a:b]) for a, b in zip([0, *cuts], [*cuts, len(shuffled)], strict=True)]
    while len(parts) > 1:
        one = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
        fold(parts[data.draw(st.integers(0, len(parts) - 1))], 0, one, 0, precision)

    assert parts[0].tolist() == sketch(precision, values).tolist()


@given(precision=precisions, data=st.data())
def test_a_fold_takes_the_larger_of_any_two_ranks(precision: int, data: st.DataObject) -> None:
    """Bytewise maximum over all ranks there are, into one place of a larger array and from another of the same."""
    size, registers = distinct_words(precision), 1 << precision
    seed, most = data.draw(st.integers(0, 2**32)), 65 - precision
    ranks = np.random.default_rng(seed).integers(0, most, (2, registers), np.uint8, endpoint=True)
    words = np.concatenate([[GUARD], ranks[0].view(np.int64), [GUARD], ranks[1].view(np.int64), [GUARD]])

    fold(words, 1, words, size + 2, precision)

    expected = [[GUARD], np.maximum(*ranks).view(np.int64), [GUARD], ranks[1].view(np.int64), [GUARD]]
    assert words.tolist() == np.concatenate(expected).tolist()


@given(precision=precisions, share=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_counts_are_those_of_the_paper(precision: int, share: float, seed: int) -> None:
    """Whatever ranks the registers have, a share of them the highest or none at all, the count is Ertl's."""
    rng, most = np.random.default_rng(seed), 65 - precision
    ranks = rng.integers(0, most, 1 << precision, np.uint8, endpoint=True)
    ranks[rng.random(ranks.size) < share] = rng.choice([0, most])
    ranks[0] = rng.integers(1, most)

    assert count(ranks.view(np.int64), 0, precision) == pytest.approx(
        reference_count(precision, ranks.tobytes()), rel=1e-12
    )


def test_the_empty_sketch_counts_nothing() -> None:
    """All words 0 is no value, at any precision."""
    assert [count(sketch(p, []), 0, p) for p in range(LEAST_PRECISION, MOST_PRECISION + 1)] == [0.0] * 9


def test_counts_are_the_same_in_every_release() -> None:
    """The same numbers have the same estimate."""
    values = np.arange(1_000.0)

    assert {p: count(sketch(p, values), 0, p) for p in (4, 8, 12)} == GOLDEN_COUNTS


@pytest.mark.parametrize("kind", ["random", "whole"])
@pytest.mark.parametrize("precision", [4, 6, 8, 10, 12])
def test_errors_are_as_stated(precision: int, kind: str) -> None:
    """From 1 to 100,000 values, random ones or numbers in a row, the error is the stated one or less."""
    cardinalities = [1, 3, 10, 100, 1_000, 10_000, 100_000]
    errors_SC = np.zeros((SEEDS, len(cardinalities)))
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        values = rng.normal(size=100_000) if kind == "random" else np.arange(100_000.0) + seed * 1e6
        words, done = np.zeros(distinct_words(precision), np.int64), 0
        for column, cardinality in enumerate(cardinalities):
            add(words, 0, precision, values[done:cardinality])
            done, errors_SC[seed, column] = cardinality, count(words, 0, precision) / cardinality - 1
    stated = max(distinct_error(precision), 0.3 if precision == LEAST_PRECISION else 0)
    high = 1.1 / (1 << precision)

    assert np.sqrt(np.square(errors_SC).mean(axis=0)).max() < 1.25 * stated  # 60 seeds know it to 9 %
    assert np.all(np.abs(errors_SC.mean(axis=0) - high / 2) < high / 2 + 3.5 * stated / math.sqrt(SEEDS))
    assert np.sqrt(np.square(errors_SC[:, -1]).mean()) > 0.7 * stated  # and it is no better than that


@pytest.mark.parametrize("precision", [8, 12])
def test_a_million_values_are_counted_as_well(precision: int) -> None:
    """The error does not grow with the count."""
    errors = [
        count(sketch(precision, np.random.default_rng(seed).random(1_000_000)), 0, precision) / 1e6 - 1
        for seed in range(20)
    ]

    assert math.sqrt(np.square(errors).mean()) < 1.5 * distinct_error(precision)  # 20 seeds know it to 16 %
