"""Answers in blocks: every row in its place, and only sizes that say the same bits."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest

from models import error_ranks, row_blocks
from models.error_ranks import LEVELS, quantiles_of, rank
from models.row_blocks import ask_in_blocks, trusted_sizes

SIZES = (4, 8, 32)
PROBE = (np.arange(64.0)[:, None],)


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 8, 11, 32, 47, 100])
def test_every_row_is_answered_in_its_place_and_only_known_sizes_are_asked(rows: int) -> None:
    asked: list[int] = []

    def ask(block: tuple[Any, ...]) -> Any:
        asked.append(len(block[0]))
        assert len(block[0]) == len(block[1])
        return block[0] * 10.0 + block[1]

    x = np.arange(float(rows))[:, None]
    found = ask_in_blocks(ask, (x, x + 1.0), SIZES)

    assert found.tolist() == (x * 11.0 + 1.0).tolist()
    assert set(asked) <= set(SIZES)
    assert sum(asked) < rows + SIZES[0]


def test_sizes_that_say_other_bits_are_not_trusted() -> None:
    def shifted(block: tuple[Any, ...]) -> Any:
        return np.nextafter(block[0], 1e9) if len(block[0]) == 8 else block[0]

    assert trusted_sizes(lambda block: block[0].astype(float), PROBE, SIZES) == SIZES
    assert trusted_sizes(shifted, PROBE, SIZES) == (4, 32)


def test_a_size_whose_answers_depend_on_where_in_the_block_a_row_stands_is_not_trusted() -> None:
    def ask(block: tuple[Any, ...]) -> Any:
        answer = block[0].copy()
        if len(answer) == 32 and answer[-1] != 31.0:  # rows were moved
            answer[-1] = np.nextafter(answer[-1], 1e9)
        return answer

    assert trusted_sizes(ask, PROBE, SIZES) == (4, 8)


def test_errors_are_ranked_among_those_of_training_and_larger_ones_stay_larger() -> None:
    errors = np.random.default_rng(0).exponential(size=20_000)
    kept = quantiles_of(np.append(errors, [np.nan, np.inf]))
    asked = np.sort(np.concatenate([errors, errors.max() * np.array([1.5, 10.0, 1e6, 1e300])]))
    score = rank(asked, kept)

    assert kept.shape == LEVELS.shape
    below = np.searchsorted(np.sort(errors), errors) / len(errors)
    assert np.abs(rank(errors, kept) - below).max() < 0.005
    assert np.abs(np.quantile(rank(errors, kept), [0.5, 0.9, 0.999]) - [0.5, 0.9, 0.999]).max() < 0.003
    assert (np.diff(score) >= 0.0).all()
    assert score[0] >= 0.0
    assert score[-1] < 1.0
    assert score[-4] < score[-3] < score[-2]


def test_errors_that_were_all_the_same_or_none_are_ranked_too() -> None:
    for kept in (quantiles_of(np.zeros(5)), quantiles_of(np.empty(0))):
        found = rank(np.array([0.0, 1.0, 1e300]), kept)

        assert ((found >= 0.0) & (found < 1.0)).all()


@pytest.mark.parametrize("module", [row_blocks, error_ranks])
def test_examples_are_right(module: Any) -> None:
    assert doctest.testmod(module).failed == 0
