"""Rendering: the bytes that msgspec writes, for any number and any text."""

from __future__ import annotations

import json
import math

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.compiled import bare
from streams.rendering import (
    ESCAPED_SIZE,
    FLOAT_SIZE,
    INTEGER_SIZE,
    SLACK,
    write_bytes,
    write_float,
    write_integer,
    write_text,
    write_thousandths,
)

FILLER = 0xAA  # what is there before, so that bytes left out show


@bare
def floats_kernel(at: int, values: npt.NDArray[np.float64], ends: npt.NDArray[np.int64]) -> None:
    """Write floats one behind the other."""
    place = at
    for i in range(values.size):
        place = write_float(place, values[i])
        ends[i] = place - at


@bare
def integers_kernel(at: int, values: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], decimals: int) -> None:
    """Write whole numbers, or thousandths."""
    place = at
    for i in range(values.size):
        place = write_thousandths(place, values[i]) if decimals else write_integer(place, values[i])
        ends[i] = place - at


@bare
def text_kernel(at: int, source: int, size: int, is_text: int) -> int:
    """Write one text or some bytes."""
    return (write_text(at, source, size) if is_text else write_bytes(at, source, size)) - at


def cut(data: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> list[str]:
    whole = data.tobytes().decode("latin-1")
    return [whole[start:end] for start, end in zip([0, *ends.tolist()[:-1]], ends.tolist(), strict=True)]


def floats(values: npt.ArrayLike) -> list[str]:
    values_B = np.asarray(values, np.float64)
    data = np.full(values_B.size * FLOAT_SIZE + SLACK, FILLER, np.uint8)
    ends = np.zeros(values_B.size, np.int64)
    floats_kernel(data.ctypes.data, values_B, ends)
    return cut(data, ends)


def integers(values: list[int], *, decimals: int = 0) -> list[str]:
    values_B = np.array(values, np.int64)
    data = np.full(values_B.size * (INTEGER_SIZE + 2) + SLACK, FILLER, np.uint8)
    ends = np.zeros(values_B.size, np.int64)
    integers_kernel(data.ctypes.data, values_B, ends, decimals)
    return cut(data, ends)


def text(content: bytes, *, is_text: int = 1) -> bytes:
    source = np.frombuffer(content or b"?", np.uint8)
    data = np.full(len(content) * ESCAPED_SIZE + 2 + SLACK, FILLER, np.uint8)
    size = text_kernel(data.ctypes.data, source.ctypes.data, len(content), is_text)
    return data[:size].tobytes()


def dumped(value: object) -> str:
    return msgspec.json.encode(value).decode()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0.0"), (-0.0, "-0.0"), (1.0, "1.0"), (0.5, "0.5"), (0.6, "0.6"), (0.1 + 0.2, "0.30000000000000004"),
        (1e-5, "0.00001"), (1.5e-5, "0.000015"), (1e-6, "1e-6"), (1.5e-7, "1.5e-7"), (5e-324, "5e-324"),
        (2.2250738585072014e-308, "2.2250738585072014e-308"), (1.7976931348623157e308, "1.7976931348623157e308"),
        (123456.0, "123456.0"), (1e15, "1000000000000000.0"), (1e16, "1e16"),
        (9007199254740993.0, "9007199254740992.0"), (1.25, "1.25"),
        (-123.456, "-123.456"), (1e22, "1e22"), (1.2345e22, "1.2345e22"), (9.5, "9.5"),
        (math.nan, "null"), (math.inf, "null"), (-math.inf, "null"),
    ],
)  # fmt: skip
def test_floats_are_written_as_msgspec_writes_them(value: float, expected: str) -> None:
    """Also the ones with few digits, many, an exponent, and those that JSON does not have."""
    assert floats([value]) == [expected] == [dumped(value)]


@given(st.lists(st.floats(), min_size=1, max_size=50))
def test_any_float_is_written_in_the_fewest_digits(values: list[float]) -> None:
    """As msgspec does."""
    assert floats(values) == [dumped(value) for value in values]


@pytest.mark.parametrize("seed", range(3))
def test_probabilities_read_back_bit_for_bit(seed: int) -> None:
    """Uniform ones, those of a sigmoid, those of few digits and the neighbours of powers of two and ten."""
    rng = np.random.default_rng(seed)
    edges = np.concatenate([2.0 ** np.arange(-1074, 1), 10.0 ** np.arange(-323, 1)])
    values = np.concatenate([
        rng.random(20_000), 1 / (1 + np.exp(-rng.normal(0, 8, 20_000))), np.round(rng.random(5_000), 4),
        edges, np.nextafter(edges, 0), np.nextafter(edges, 1),
    ])  # fmt: skip
    written = floats(values)

    assert np.array_equal([float(number) for number in written], values)
    assert written == [dumped(value) for value in values.tolist()]


@pytest.mark.parametrize("decimals", [0, 1])
def test_whole_numbers_and_thousandths_are_written_with_all_their_digits(decimals: int) -> None:
    """Around every power of ten, of both signs."""
    powers = [10**power + step for power in range(19) for step in (-1, 0, 1)]
    values = [sign * value for value in [*powers, 1_234, 567_890, 2**62 + 12_345, 2**63 - 1] for sign in (1, -1)]
    if decimals:
        values = [value for value in values if abs(value) < 10**15]  # beyond, a float64 has no thousandths
        expected = [dumped(value / 1000) for value in values if value]
        assert integers([value for value in values if value], decimals=1) == expected
    else:
        assert integers(values) == [str(value) for value in values]
    assert integers([0], decimals=decimals) == ["0.0" if decimals else "0"]


@given(st.text())
def test_any_text_is_written_as_msgspec_writes_it(content: str) -> None:
    """With nothing escaped that need not be."""
    assert text(content.encode()) == msgspec.json.encode(content)


@pytest.mark.parametrize("size", range(20))
@pytest.mark.parametrize("odd", ['"', "\\", "\n", "\x00", "\x1f", "\x7f", "é", "😀"])
def test_one_odd_character_is_found_wherever_it_stands(size: int, odd: str) -> None:
    """In a whole word or in what is left of one; every other byte stays as it is."""
    for at in range(size + 1):
        content = "a" * at + odd + "z" * (size - at)

        assert text(content.encode()) == msgspec.json.encode(content)
        assert json.loads(text(content.encode())) == content


@pytest.mark.parametrize("size", range(20))
def test_bytes_are_copied_as_they_are(size: int) -> None:
    """Of any length, none beside them."""
    content = bytes(range(1, size + 1))

    assert text(content, is_text=0) == content
