"""A split by time uses no label that its time did not know: proved by looking at every example."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.examples import Examples
from models.split_figures import show_split, split_figures
from models.time_split import LEAST_PART, Split, split_by_time
from streams.durations import DAY_US, HOUR_US
from streams.errors import TrainingError
from streams.pipeline import Task

Ints = npt.NDArray[np.int64]

START_US = 1_357_000_000_000_000


def examples_of(time_B: Ints, delay_B: Ints, y_B: npt.ArrayLike | None = None) -> Examples:
    labels = np.arange(len(time_B)) % 2 if y_B is None else y_B
    return Examples(np.empty((len(time_B), 0)), np.asarray(labels, np.float64), time_B, time_B + delay_B)


def steady(rows: int, delay_us: int = 0) -> Examples:
    """Give an example an hour."""
    return examples_of(START_US + np.arange(rows) * HOUR_US, np.full(rows, delay_us))


def by_hand(examples: Examples, split: Split) -> list[list[int]]:
    """Find the examples of each part one by one, from where validation and test begin."""
    v, w, gap = split.validation.from_us, split.test.from_us, split.gap_us
    parts: list[list[int]] = [[], [], []]
    for place, (time, known) in enumerate(zip(examples.time_B.tolist(), examples.known_B.tolist(), strict=True)):
        if time < v - gap and known <= v:
            parts[0].append(place)
        elif v <= time < w - gap and known <= w:
            parts[1].append(place)
        elif time >= w:
            parts[2].append(place)
    return parts


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(60, 400),
    st.sampled_from([1, 50, 10_000]),
    st.sampled_from([0, 5, 2_000]),
    st.none() | st.sampled_from([0, 1, 300]),
    st.booleans(),
)
def test_no_example_is_used_whose_label_was_not_known(
    seed: int, rows: int, span: int, delay: int, gap_us: int | None, is_amended: bool
) -> None:
    """Whatever the delays, ties, order and gap; a split that is refused uses none at all."""
    rng = np.random.default_rng(seed)
    time_B = rng.integers(0, span, rows)
    delay_B = np.floor(rng.exponential(delay, rows)).astype(np.int64) if delay else np.zeros(rows, np.int64)
    if is_amended:
        delay_B[rng.random(rows) < 0.1] += 3 * span
    examples = examples_of(time_B, delay_B)
    try:
        split, *parts = split_by_time(examples, gap_us)
    except TrainingError:
        return
    train_N, validation_N, test_N = parts
    validation_us, test_us = examples.time_B[validation_N].min(), examples.time_B[test_N].min()

    assert [part.tolist() for part in parts] == by_hand(examples, split)
    assert examples.known_B[train_N].max() <= split.validation.from_us <= validation_us
    assert examples.known_B[validation_N].max() <= split.test.from_us <= test_us
    assert examples.time_B[train_N].max() < validation_us - split.gap_us
    assert examples.time_B[validation_N].max() < test_us - split.gap_us
    assert min(part.size for part in parts) >= LEAST_PART
    assert examples.known_B.max() == split.test.known_by_us


def test_parts_have_their_shares_of_what_gaps_leave() -> None:
    """Without a gap of all examples."""
    for rows, gap_us, used in ((1_000, 0, 1_000), (1_000, 100 * HOUR_US, 800)):
        _, *parts = split_by_time(steady(rows), gap_us, (0.6, 0.2, 0.2))

        assert [part.size for part in parts] == pytest.approx([0.6 * used, 0.2 * used, 0.2 * used], abs=1)


def test_shares_are_of_examples_not_of_time() -> None:
    """Where events come faster in the end, the test is shorter."""
    time_B = START_US + np.round(1e9 * np.sqrt(np.arange(1_000))).astype(np.int64)
    split, *parts = split_by_time(examples_of(time_B, np.zeros(1_000, np.int64)))

    assert [part.size for part in parts] == [700, 150, 150]
    assert split.test.to_us - split.test.from_us < split.validation.to_us - split.validation.from_us


def test_the_usual_gap_is_what_nearly_all_labels_keep_within() -> None:
    """One in a hundred is later; a label before its event has no delay."""
    delay_B = np.random.default_rng(0).permutation(1_000) * 60_000_000 - 5
    split = split_by_time(examples_of(START_US + np.arange(1_000) * HOUR_US, delay_B))[0]

    assert split.gap_us == np.quantile(delay_B, 0.99, method="inverted_cdf")


def test_the_usual_gap_is_a_third_of_the_span_at_most() -> None:
    """Labels of a year on examples of a month leave something to train on."""
    examples = steady(901, 30 * DAY_US)
    examples.known_B[::100] += 300 * DAY_US
    examples.known_B[1::2] = examples.time_B[1::2]
    split, *parts = split_by_time(examples)

    assert split.gap_us == 300 * HOUR_US
    assert sum(part.size for part in parts) < 300
    assert parts[0].size > 100


def test_too_few_examples_are_counted() -> None:
    """In one line each: few at all, few for a part, or too long a gap."""
    with pytest.raises(TrainingError, match=r"^29 examples are too few to be split into three parts of 10 at least"):
        split_by_time(steady(29))
    with pytest.raises(
        TrainingError, match="42 for training, 9 for validation, 9 for the test, 0 left out by gaps of 0s"
    ):
        split_by_time(steady(60))
    with pytest.raises(
        TrainingError, match=r"4 for training, 1 for validation, 0 for the test, 495 left out by gaps of 12.5d"
    ):
        split_by_time(steady(500), 300 * HOUR_US)
    with pytest.raises(TrainingError, match=r"^0 examples are too few"):
        split_by_time(steady(0))


def test_equal_times_are_never_parted() -> None:
    """Else one event could be trained on that happened with one of validation."""
    with pytest.raises(TrainingError, match="0 for training, 0 for validation, 1,000 for the test"):
        split_by_time(examples_of(np.full(1_000, START_US), np.zeros(1_000, np.int64)))


def test_figures_say_what_each_part_holds() -> None:
    """Counts, share of yes and dates; what was left out is told by its reason."""
    examples = steady(1_000, 2 * HOUR_US)
    examples.known_B[[3, 5]] += 1_000 * DAY_US
    examples.y_B[:] = np.arange(1_000) % 4 == 0
    split, *parts = split_by_time(examples, 10 * HOUR_US)
    figures = split_figures(split, examples, parts)

    assert show_split(split, figures).splitlines() == [
        "part         examples  yes     first event       last event",
        "training          684  25.15%  2013-01-01 00:26  2013-01-29 13:26",
        "validation        147  25.17%  2013-01-30 00:26  2013-02-05 02:26",
        "test              147  24.49%  2013-02-05 13:26  2013-02-11 15:26",
        "in gaps            20  25.00%  2013-01-29 14:26  2013-02-05 12:26",
        "late labels         2  0.00%   2013-01-01 03:26  2013-01-01 05:26",
        "gap between parts: 10h",
    ]
    assert sum(one.examples for one in figures) == 1_000


def test_figures_of_classes_are_shares_and_of_numbers_a_mean() -> None:
    """A part without examples has none."""
    examples = steady(100)
    examples.y_B[:] = np.arange(100) % 4 // 2 * 2.0
    split, *parts = split_by_time(examples, 0)
    classes, numbers = Task("multiclass", ("a", "b", "c")), Task("regression")

    assert split_figures(split, examples, parts, classes)[0].labels == (36 / 70, 0.0, 34 / 70)
    assert "a 51.4%, b 0.0%, c 48.6%" in show_split(split, split_figures(split, examples, parts, classes), classes)
    assert split_figures(split, examples, parts, numbers)[0].labels == (68 / 70,)
    assert show_split(split, split_figures(split, examples, parts, numbers), numbers).splitlines()[5].split() == [
        "late", "labels", "0", "-", "-", "-",
    ]  # fmt: skip
