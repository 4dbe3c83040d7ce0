"""Sums in lanes are sums, and always the same one."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tests.kernels import dot


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 16, 31, 64])
def test_a_sum_of_products_has_every_product_once(size: int) -> None:
    rng = np.random.default_rng(size)
    first, second = rng.integers(-1_000, 1_000, (2, size)).astype(np.float64)

    assert dot(first, second) == sum(a * b for a, b in zip(first.tolist(), second.tolist(), strict=True))


def test_lanes_are_folded_in_the_same_order_everywhere() -> None:
    first, second = np.random.default_rng(0).normal(size=(2, 21))
    lanes = [0.0] * 8
    for place in range(16):
        lanes[place % 8] += first[place] * second[place]
    while len(lanes) > 1:
        lanes = [a + b for a, b in zip(lanes, lanes[len(lanes) // 2 :], strict=False)]
    for place in range(16, 21):
        lanes[0] += first[place] * second[place]

    assert dot(first, second) == lanes[0]
    assert lanes[0] == pytest.approx(float(sum(Fraction(a) * Fraction(b) for a, b in zip(first, second, strict=True))))
