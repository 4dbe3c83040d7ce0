"""In which order blocks of several sources count."""

from __future__ import annotations

import doctest

from models import block_order
from models.block_order import MOST_WAITING, Summed, released


def block(last_time_us: int, source: int, number: int = 0) -> Summed:
    return Summed(last_time_us, source, number, last_time_us - 5, 0.5, 0.5)


def test_one_source_never_waits() -> None:
    assert released((block(10, 3),), {3: 10}, 100) == ([block(10, 3)], ())


def test_a_block_waits_until_every_source_is_past_it() -> None:
    waiting = block(30, 0, 2), block(20, 0, 1), block(15, 1)

    assert released(waiting, {0: 30, 1: 15}, 100) == ([block(15, 1)], (block(20, 0, 1), block(30, 0, 2)))


def test_blocks_of_one_time_go_by_source_and_number() -> None:
    waiting = block(10, 1, 1), block(10, 0, 2), block(10, 0, 1)

    assert released(waiting, {0: 10, 1: 10}, 100)[0] == [block(10, 0, 1), block(10, 0, 2), block(10, 1, 1)]


def test_a_source_that_fell_behind_holds_nobody() -> None:
    assert released((block(200, 0),), {0: 200, 1: 99}, 100) == ([block(200, 0)], ())
    assert released((block(200, 0),), {0: 200, 1: 100}, 100) == ([], (block(200, 0),))


def test_a_source_that_was_replaced_costs_no_memory() -> None:
    """The earliest block goes when there would be one too many."""
    waiting = tuple(block(time_us, 0, time_us) for time_us in range(10, 10 + MOST_WAITING + 1))

    assert released(waiting, {0: 10 + MOST_WAITING, 1: 1}, 10**9) == ([waiting[0]], waiting[1:])
    assert released(waiting[1:], {0: 10 + MOST_WAITING, 1: 1}, 10**9) == ([], waiting[1:])


def test_the_example_of_the_documentation_runs() -> None:
    assert doctest.testmod(block_order).failed == 0
    assert doctest.testmod(block_order).attempted > 0
