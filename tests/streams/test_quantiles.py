"""The sketch of quantiles against its definition in exact integers, and against numpy's quantiles."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streams.compiled import bare
from streams.quantiles import (
    BINS,
    COUNT_BITS,
    LEAST_BINS,
    LEVEL_BITS,
    add_quantile_kernel,
    fold_quantile_kernel,
    quantile_error_kernel,
    quantile_kernel,
    quantile_words,
)

Words = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
PLACE = 3  # a sketch lies somewhere in a larger array, whose other words are not its own
GUARD = -0x123456789ABCDEF
ROUNDING = 1e-12  # of the given values and errors, as a share
SMALLEST = 5e-324
QUANTILES = [0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1.0]
ERRORS = [0.00542, 0.01083, 0.02166, 0.0433, 0.0864, 0.1716, 1 / 3, 3 / 5, 15 / 17]  # by level

finite = st.floats(allow_nan=False, allow_infinity=False)
near = st.floats(-4.0, 4.0) | st.integers(-3, 3).map(float)
several = st.lists(finite, max_size=40) | st.lists(near, max_size=40) | st.lists(finite | near, max_size=40)
rooms = st.sampled_from([LEAST_BINS, 4, 5, 8, 16, BINS])


@bare
def add(words: Words, place: int, bins: int, values: Values) -> None:
    """Add values one by one."""
    for n in range(values.size):
        add_quantile_kernel(words, place, bins, values[n])


@bare
def fold(to_words: Words, to: int, from_words: Words, start: int, bins: int) -> None:
    """Add one sketch to another."""
    fold_quantile_kernel(to_words, to, from_words, start, bins)


@bare
def quantile(words: Words, place: int, q: float) -> float:
    """Give a quantile."""
    return quantile_kernel(words, place, q)


@bare
def error(words: Words, place: int) -> float:
    """Give the error in force."""
    return quantile_error_kernel(words, place)


def sketch(bins: int, values: list[float] | npt.NDArray[np.floating]) -> Words:
    """Give the words of a sketch of values, and fail if one beside them is touched."""
    size = quantile_words(bins)
    words = np.full(PLACE + size + PLACE, GUARD)
    words[PLACE : PLACE + size] = 0
    add(words, PLACE, bins, np.asarray(values, np.float64))

    assert set(words[:PLACE].tolist() + words[PLACE + size :].tolist()) == {GUARD}
    return words[PLACE : PLACE + size].copy()


def reference_bin(value: float) -> tuple[int, int]:
    """Sign and bin of a value: floor(64 log2 |value|), by the 64th power in exact integers, counted from 2**-2048."""
    if value == 0:
        return 0, 0
    fraction, exponent = math.frexp(abs(value))
    power = (int(fraction * 2**53) ** 64).bit_length() - 1 + 64 * (exponent - 53)
    return (1 if value > 0 else -1), power + 64 * 2048


def reference_words(bins: int, values: list[float]) -> list[int]:
    """The definition: at the lowest level where they have room, the filled bins in order with their counts."""
    level, finest = 0, [reference_bin(value) for value in values]
    while len(filled := Counter(sign * ((number >> level) + 1) for sign, number in finest)) > bins:
        level += 1
    words = [(len(filled) << LEVEL_BITS) + level, *((key << COUNT_BITS) + filled[key] for key in sorted(filled))]
    return words + [0] * (quantile_words(bins) - len(words))


def assert_within_error(words: Words, values: Values) -> None:
    """Every quantile is within the error in force of the value of its rank; a subnormal is rounded besides."""
    for q in QUANTILES:
        true, given_for_it = float(np.quantile(values, q, method="lower")), quantile(words, 0, q)

        assert (
            abs(given_for_it - true) <= error(words, 0) * abs(true) * (1 + ROUNDING) + ROUNDING * abs(true) + SMALLEST
        )
        assert (given_for_it > 0, given_for_it < 0) == (true > 0, true < 0)


def folded(bins: int, parts: list[Words], data: st.DataObject) -> Words:
    """Fold sketches into each other, two at a time in an order that is drawn, until one is left."""
    while len(parts) > 1:
        one = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
        before = one.copy()
        fold(parts[data.draw(st.integers(0, len(parts) - 1))], 0, one, 0, bins)

        assert one.tolist() == before.tolist()
    return parts[0]


@given(bins=rooms, values=several)
@example(bins=LEAST_BINS, values=[SMALLEST, sys.float_info.max, -SMALLEST, -sys.float_info.max, 0.0, -0.0])
@example(bins=BINS, values=[2.0**n for n in range(-1074, 1024)])
@example(bins=BINS, values=[-(2.0 ** (n / 64)) for n in range(-70, 70)])
def test_words_follow_the_definition(bins: int, values: list[float]) -> None:
    """Any finite values give the words that the definition names, at whatever level they need."""
    assert sketch(bins, values).tolist() == reference_words(bins, values)


def test_bins_are_exact_at_their_edges() -> None:
    """The float64 at each edge of an octave and the one below it lie where exact integers say, also subnormals."""
    edges = [math.ldexp(2.0 ** (part / 64), octave) for part in range(65) for octave in (0, 1, -1022, -1060, 1022)]
    values = [math.nextafter(edge, edge * side) for edge in edges for side in (0, 1, 2) if edge * side < math.inf]

    assert [sketch(BINS, [value]).tolist() for value in values] == [reference_words(BINS, [value]) for value in values]


@given(bins=rooms, values=several, data=st.data())
def test_neither_order_nor_folds_show(bins: int, values: list[float], data: st.DataObject) -> None:
    """Values shuffled and cut into sketches that are folded in any tree give the same words, bit for bit."""
    shuffled = data.draw(st.permutations(values))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(shuffled)), max_size=6)))
    parts = [sketch(bins, shuffled[a:b]) for a, b in zip([0, *cuts], [*cuts, len(shuffled)], strict=True)]

    assert folded(bins, parts, data).tolist() == sketch(bins, values).tolist()


@given(data=st.data(), seed=st.integers(0, 2**32))
def test_neither_order_nor_folds_show_in_full_sketches(data: st.DataObject, seed: int) -> None:
    """As above with twelve buckets that have each filled their bins, and with values far apart."""
    rng = np.random.default_rng(seed)
    kinds = [rng.normal(size=300) * 10.0 ** rng.integers(-3, 3) + rng.choice([0, 100]) for _ in range(12)]
    whole = np.concatenate(kinds)

    assert folded(BINS, [sketch(BINS, kind) for kind in kinds], data).tolist() == sketch(BINS, whole).tolist()
    assert sketch(BINS, rng.permutation(whole)).tolist() == reference_words(BINS, whole.tolist())


def test_a_fold_touches_its_own_words_only() -> None:
    """Two sketches of one array: the one that is added and what lies around them stay as they were."""
    size = quantile_words(8)
    left, right = [1.0, 2.0, 3.0], [-5.0, 1.0, 1e9, 7.0, 0.0, 2.0, 8.0, 9.0, 11.0]
    words = np.array([GUARD, *sketch(8, left), GUARD, *sketch(8, right), GUARD])

    fold(words, 1, words, size + 2, 8)

    expected = [GUARD, *reference_words(8, left + right), GUARD, *reference_words(8, right), GUARD]
    assert words.tolist() == expected


@given(bins=rooms, values=several.filter(bool))
@example(bins=LEAST_BINS, values=[SMALLEST, 3e-320, 1e-310, 1.0])
@example(bins=LEAST_BINS, values=[sys.float_info.max] * 3 + [-1.0, 1.0])
@example(bins=BINS, values=[sys.float_info.max, -sys.float_info.max])
def test_quantiles_are_within_the_error_in_force(bins: int, values: list[float]) -> None:
    """Any finite values, any level: each quantile is as near as the sketch says, and has the sign it should have."""
    assert_within_error(sketch(bins, values), np.array(values))


DISTRIBUTIONS: dict[str, tuple[Callable[[np.random.Generator], Values], int]] = {  # and the level they come to
    "normal far from zero": (lambda rng: rng.normal(50, 3, 10_000), 0),
    "normal": (lambda rng: rng.normal(size=10_000), 5),
    "lognormal": (lambda rng: rng.lognormal(size=10_000), 4),
    "uniform": (lambda rng: rng.uniform(1, 10, 10_000), 2),
    "uniform from zero": (lambda rng: rng.uniform(size=10_000), 4),
    "pareto": (lambda rng: rng.pareto(1, 10_000), 5),
    "cauchy": (lambda rng: rng.standard_cauchy(10_000), 6),
    "constant": (lambda rng: np.full(10_000, 1234.5), 0),
    "negative": (lambda rng: -rng.lognormal(3, 0.3, 10_000), 2),
    "mixed": (lambda rng: np.concatenate([rng.normal(-9, 1, 900), np.zeros(900), rng.exponential(1e6, 900)]), 4),
    "all magnitudes": (lambda rng: np.exp2(rng.uniform(-1000, 1000, 10_000)), 11),
    "whole numbers": (lambda rng: rng.integers(1, 30, 10_000).astype(float), 0),
    "few": (lambda rng: np.array([3.0, -1e300, 7.0, 1e-300]), 0),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_quantiles_are_those_of_numpy(name: str) -> None:
    """Within the error in force, which with 64 bins is no more than what the values' span calls for."""
    make, level = DISTRIBUTIONS[name]
    values = make(np.random.default_rng(5))
    words = sketch(BINS, values)

    assert error(words, 0) == pytest.approx(math.tanh(2**level * math.log(2) / 128), rel=ROUNDING)
    assert_within_error(words, values)


def test_errors_are_as_documented() -> None:
    """Values that span 1, 2, 4, … octaves, with no bin of level 0 left out, have the errors in the table."""
    for level, stated in enumerate(ERRORS):
        values = 2.0 ** ((np.arange(BINS * 2**level) + 0.5) / 64)

        assert error(sketch(BINS, values), 0) == pytest.approx(stated, rel=1e-3)


def test_one_bin_more_than_there_is_room_for_takes_a_level() -> None:
    """64 bins are kept apart; a 65th value makes two of each one, and another of a bin that is there does not."""
    values = 2.0 ** ((np.arange(65) + 0.5) / 64)

    assert error(sketch(BINS, np.repeat(values[:64], 3)), 0) == pytest.approx(ERRORS[0], rel=1e-3)
    assert error(sketch(BINS, values), 0) == pytest.approx(ERRORS[1], rel=1e-3)


def test_ranks_are_those_of_numpy() -> None:
    """For values that lie in bins of their own each quantile is the right one of them, at any q."""
    values = 1.1 ** np.arange(-20, 20)
    for count in range(1, values.size + 1):
        words = sketch(BINS, values[:count])
        for q in np.linspace(0, 1, 101):
            true = np.quantile(values[:count], q, method="lower")

            assert quantile(words, 0, q) == pytest.approx(true, rel=ERRORS[0])


def test_counts_may_be_large() -> None:
    """A bin of 2**36 values, folded from itself again and again, still has its key and its share."""
    words, copy = sketch(BINS, [-8.0, -8.0, -8.0, 5.0]), sketch(BINS, [])
    for _ in range(35):
        copy[:] = words
        fold(words, 0, copy, 0, BINS)

    assert words[:3].tolist() == [
        word + extra * (2**35 - 1)
        for word, extra in zip(reference_words(BINS, [-8.0] * 3 + [5.0])[:3], (0, 3, 1), strict=True)
    ]
    assert [quantile(words, 0, q) for q in (0.0, 0.7499, 0.7501, 1.0)] == pytest.approx([-8, -8, 5, 5], rel=ERRORS[0])


def test_the_empty_sketch_has_no_quantiles() -> None:
    """All words 0 is no value: NaN at any q, and folding it changes nothing."""
    empty, some = sketch(BINS, []), sketch(BINS, [1.0, -2.0])
    before = some.tolist()
    fold(some, 0, empty, 0, BINS)

    assert np.isnan([quantile(empty, 0, q) for q in QUANTILES]).all()
    assert some.tolist() == before
    fold(empty, 0, some, 0, BINS)
    assert empty.tolist() == before


def test_words_are_the_same_in_every_release() -> None:
    """Golden words: a sketch in a snapshot goes on as it began."""
    assert sketch(4, [1.0, 1.0, -2.5, 0.0]).tolist() == [96, -144208646564216831, 1, 144116287587483650, 0]
    assert sketch(4, [1.0, 3.0, 900.0, -2.5, 0.0]).tolist() == [
        135,
        -1126999418470399,
        1,
        1126999418470402,
        1131397464981505,
    ]
