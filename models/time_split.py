"""A split of examples by time: what a model is trained on, what it is chosen by, and what it is judged by.

With v and w as the times where validation and test begin, the parts are

    training    events before v - gap whose label was known by v
    validation  events from v on and before w - gap whose label was known by w
    test        events from w on, with whatever label was known when the examples were read

so a part holds nothing that its time could not know: at v no label of validation had come, and at w none of the test. A
label that was amended was known when its last amendment came. The gap keeps a part from ending in just those events
whose labels come early; without it these would be over-represented there.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from models.examples import Examples, Indexes, Times
from streams.durations import rough_text
from streams.errors import TrainingError

LEAST_PART = 10  # examples of a part: fewer say nothing
SHARES = (0.7, 0.15, 0.15)
_DELAY_QUANTILE = 0.99  # of label delays: so many labels have come when the gap is over
_MOST_GAP_SHARE = 3  # a gap is a third of the examples' span at most, or two would leave nothing


class Span(msgspec.Struct, frozen=True):
    """Events from the first time on and before the second, of which labels are used that were known by the third."""

    from_us: int
    to_us: int
    known_by_us: int


class Split(msgspec.Struct, frozen=True):
    """The three parts, and the gap of event time before validation and before the test."""

    train: Span
    validation: Span
    test: Span
    gap_us: int


def split_by_time(
    examples: Examples, gap_us: int | None = None, shares: tuple[float, float, float] = SHARES
) -> tuple[Split, Indexes, Indexes, Indexes]:
    """Split examples into three parts by time; gives the places of each part's examples too, in rising order.

    Args:
        examples: in any order.
        gap_us: between parts; None: the 0.99 quantile of label delays, and a third of the examples' span at most.
        shares: of training, validation and test among the examples that the gaps do not leave out.

    Raises:
        TrainingError: a part would have fewer than 10 examples.
    """
    gap_us = _usual_gap(examples) if gap_us is None else gap_us
    sorted_N = np.sort(examples.time_B)
    total = sorted_N.size
    if total < 3 * LEAST_PART:
        raise TrainingError(_too_few([total, 0, 0], 0, gap_us))
    train_to_us, validation_to_us = _cuts(sorted_N, gap_us, shares)
    v, w, end_us = train_to_us + gap_us, validation_to_us + gap_us, int(sorted_N[-1]) + 1
    known_us = int(examples.known_B.max())
    parts = (
        Span(int(sorted_N[0]), train_to_us, v),
        Span(v, validation_to_us, w),
        Span(w, end_us, known_us),
    )
    found = [_places(examples, part) for part in parts]
    if min(part.size for part in found) < LEAST_PART:
        sizes = [part.size for part in found]
        raise TrainingError(_too_few(sizes, total - sum(sizes), gap_us))
    train_N, validation_N, test_N = found
    return Split(*parts, gap_us), train_N, validation_N, test_N


def _usual_gap(examples: Examples) -> int:
    """Give the delay that all but a hundredth of the labels keep within."""
    if not examples.time_B.size:
        return 0
    delay_B = np.maximum(examples.known_B - examples.time_B, 0)
    place = min(math.ceil(_DELAY_QUANTILE * delay_B.size), delay_B.size) - 1
    usual = int(np.partition(delay_B, place)[place])
    return min(usual, int(examples.time_B.max() - examples.time_B.min()) // _MOST_GAP_SHARE)


def _cuts(sorted_N: Times, gap_us: int, shares: tuple[float, float, float]) -> tuple[int, int]:
    """Give where training and validation end, so that the parts have their shares of what the gaps leave.

    The more examples are used, the later all lies and the fewer are left for the test: of all numbers of used examples
    the largest that leaves it its share is found by halving.
    """
    total = sum(shares)
    train, validation, test = (share / total for share in shares)
    low, high = 1, sorted_N.size
    while low < high:
        used = (low + high + 1) // 2
        w = _cuts_of(sorted_N, gap_us, used * train, used * validation)[1] + gap_us
        is_enough = sorted_N.size - int(np.searchsorted(sorted_N, w)) >= math.floor(used * test)
        low, high = (used, high) if is_enough else (low, used - 1)
    return _cuts_of(sorted_N, gap_us, low * train, low * validation)


def _cuts_of(sorted_N: Times, gap_us: int, train: float, validation: float) -> tuple[int, int]:
    last = sorted_N.size - 1
    train_to_us = int(sorted_N[min(round(train), last)])
    start = int(np.searchsorted(sorted_N, train_to_us + gap_us))
    return train_to_us, int(sorted_N[min(start + round(validation), last)])


def _places(examples: Examples, span: Span) -> Indexes:
    is_in = (examples.time_B >= span.from_us) & (examples.time_B < span.to_us)
    is_in &= examples.known_B <= span.known_by_us
    return np.flatnonzero(is_in)


def _too_few(sizes: list[int], left_out: int, gap_us: int) -> str:
    if not any(sizes[1:]):
        return f"{sizes[0]:,} examples are too few to be split into three parts of {LEAST_PART} at least; wait for more"
    train, validation, test = sizes
    return (
        f"too few examples for three parts of {LEAST_PART} at least: {train:,} for training, {validation:,} for "
        f"validation, {test:,} for the test, {left_out:,} left out by gaps of {rough_text(gap_us)} and late labels; "
        "wait for more, or take a longer window"
    )
