"""Columns, shared lanes and what a feature says of missing values, missing keys and time."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest

from consumers.featurize import FeatureTask
from streams.features import columns
from streams.frames import Column
from streams.hashing import CATEGORY_SEED, hash_bytes
from streams.phases import phase_kernel
from streams.pipeline import Feature
from streams.planning import make_plan
from tests.aggregate_reference import Row, phase
from tests.featurizing import SECOND, SOURCE, event, run, small_pipeline

WINDOW_US = 12 * SECOND


def vectors(rows: list[Row], *features: Feature, raw: bool = False) -> list[list[float]]:
    """The vectors of these events."""
    of = small_pipeline(features, raw=raw)
    return [row["vector"] for _, row in run(FeatureTask(of, 0, SOURCE), of, rows)]


def test_columns_are_raw_fields_then_features_as_declared() -> None:
    """A category stays marked as one; a cyclic feature has two columns."""
    of = small_pipeline((Feature("hour", "cyclic", "hour"), Feature("n", "count", "*", "key", WINDOW_US)), raw=True)

    assert columns(of) == (
        Column("amount", is_category=False),
        Column("shop", is_category=True),
        Column("is_new", is_category=False),
        Column("hour_sin", is_category=False),
        Column("hour_cos", is_category=False),
        Column("n", is_category=False),
    )
    assert columns(small_pipeline()) == ()


def test_raw_fields_are_numbers_and_stable_codes() -> None:
    """A category is 52 bits of its hash, exact in a float; what is missing is NaN."""
    (vector,) = vectors([event("a", 0, amount=2.5, shop="north", is_new=1.0)], raw=True)
    (missing,) = vectors([event("a", 0, amount=None, shop=None)], raw=True)

    assert vector == [2.5, float(hash_bytes(b"north", CATEGORY_SEED) >> 12), 1.0]
    assert vector[1] == int(vector[1]) < 2**52
    assert all(math.isnan(value) for value in missing)


def test_aggregates_of_a_window_share_lanes() -> None:
    """Count, sum and mean of one field need one counter and one sum; two counters share a word."""
    aggregates = [
        Feature("rows", "count", "*", "key", WINDOW_US),
        Feature("present", "count", "amount", "key", WINDOW_US),
        Feature("sum", "sum", "amount", "key", WINDOW_US),
        Feature("mean", "mean", "amount", "key", WINDOW_US),
    ]
    plan = make_plan(small_pipeline(tuple(aggregates))).plan
    twice = make_plan(small_pipeline((*aggregates, Feature("other", "sum", "is_new", "key", WINDOW_US)))).plan

    assert plan.lane_field_T2.tolist() == [[-1, 0], [0, -2]]
    assert plan.width_W.tolist() == [WINDOW_US]
    assert len(twice.lane_field_T2) == 3


def test_fields_that_no_column_reads_are_left_out() -> None:
    """Without raw fields only aggregated fields are copied from the log."""
    plan = make_plan(
        small_pipeline((Feature("s", "sum", "is_new", "key", WINDOW_US), Feature("e", "elapsed", "*", "key")))
    )

    assert [field.name for field in plan.fields] == ["is_new"]
    assert plan.is_keyed
    assert not make_plan(small_pipeline((Feature("h", "cyclic", "hour"),), raw=True)).is_keyed


def test_missing_values_are_skipped() -> None:
    """Sum and count of none are 0, the mean of none is NaN; rows are counted all the same."""
    features = [Feature(name, name, "amount", "key", WINDOW_US) for name in ("count", "sum", "mean")]
    rows = [event("a", 0, amount=None), event("b", 1, amount=4.0), event("c", 2, amount=6.0), event("d", 3)]

    out = vectors(rows, *features, Feature("rows", "count", "*", "key", WINDOW_US))

    assert repr(out) == repr(
        [[0.0, 0.0, math.nan, 0.0], [0.0, 0.0, math.nan, 1.0], [1.0, 4.0, 4.0, 2.0], [2.0, 10.0, 5.0, 3.0]]
    )


def test_categories_and_booleans_can_be_counted() -> None:
    """A count of a category counts values that are there; a boolean's mean is its rate."""
    rows = [
        event("a", 0, shop="x", is_new=1.0),
        event("b", 1, shop=None, is_new=0.0),
        event("c", 2, shop="", is_new=None),
        event("d", 3),
    ]

    out = vectors(
        rows, Feature("n", "count", "shop", "key", WINDOW_US), Feature("rate", "mean", "is_new", "key", WINDOW_US)
    )

    assert out[1:] == [[1.0, 1.0], [1.0, 0.5], [2.0, 0.5]]


def test_an_event_is_not_in_its_own_aggregates() -> None:
    """The first event of an entity sees nothing, also when it repeats in time."""
    out = vectors([event("a", 0), event("b", 0)], Feature("n", "count", "*", "key", WINDOW_US))

    assert out == [[0.0], [1.0]]


def test_without_a_key_there_is_no_entity() -> None:
    """Its features are NaN and no state is touched: not of the empty key, not of each other."""
    rows = [event("a", 0, None), event("b", 1, None), event("c", 2, ""), event("d", 3, "")]

    out = vectors(rows, Feature("n", "count", "*", "key", WINDOW_US), Feature("e", "elapsed", "*", "key"))

    assert repr(out) == repr([[math.nan, math.nan]] * 2 + [[0.0, math.nan], [1.0, 1.0]])


def test_elapsed_is_the_time_since_the_last_event_in_order() -> None:
    """An event out of order gets NaN and changes nothing; a tie is in order."""
    rows = [event("a", 0), event("b", 2.5), event("c", 1), event("d", 3), event("e", 3)]

    out = vectors(rows, Feature("since", "elapsed", "*", "key"))

    assert repr(out) == repr([[math.nan], [2.5], [math.nan], [0.5], [0.0]])


@pytest.mark.parametrize("period", ["hour", "weekday", "month"])
@pytest.mark.parametrize(
    "moment",
    ["1970-01-01T00:00:00", "1969-12-31T23:59:59", "2000-02-29T12:00:00", "2024-12-31T23:59:59", "2023-03-01T06:30:00",
     "2026-01-05T00:00:00", "1900-03-01T00:00:00", "2100-02-28T18:00:00", "0001-01-01T00:00:00", "9998-12-31T00:00:01"],
)  # fmt: skip
def test_phases_follow_the_calendar(period: str, moment: str) -> None:
    """How much of the UTC day, the week from Monday and the calendar year has passed, leap years and all."""
    since = datetime.fromisoformat(moment).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    time_us = (since.days * 86_400 + since.seconds) * SECOND

    assert phase_kernel(("hour", "weekday", "month").index(period), time_us) == pytest.approx(
        phase(period, time_us), abs=1e-12
    )


@pytest.mark.parametrize(
    ("moment", "is_weekend", "is_night"),
    [
        (datetime(2023, 11, 17, 23, 59, 59, 999_999, tzinfo=UTC), 0.0, 0.0),  # the last of Friday
        (datetime(2023, 11, 18, tzinfo=UTC), 1.0, 1.0),
        (datetime(2023, 11, 18, 5, 59, 59, 999_999, tzinfo=UTC), 1.0, 1.0),
        (datetime(2023, 11, 19, 6, tzinfo=UTC), 1.0, 0.0),
        (datetime(2023, 11, 19, 23, 59, 59, 999_999, tzinfo=UTC), 1.0, 0.0),
        (datetime(2023, 11, 20, tzinfo=UTC), 0.0, 1.0),
        (datetime(1969, 12, 27, 3, tzinfo=UTC), 1.0, 1.0),  # a Saturday before the epoch
    ],
)
def test_the_calendar_knows_weekends_and_nights_to_the_microsecond(
    moment: datetime, is_weekend: float, is_night: float
) -> None:
    """Saturday and Sunday; from midnight to 6 o'clock; both in UTC."""
    row = {**event("a", 0, key=None), "time": (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)}

    assert vectors([row], Feature("weekend", "calendar", "weekend"), Feature("night", "calendar", "night")) == [
        [is_weekend, is_night]
    ]


def test_cyclic_features_are_points_on_a_circle() -> None:
    """Six in the morning of a Monday is a quarter of the day: sine 1, cosine 0."""
    monday_6 = datetime(2023, 11, 13, 6, tzinfo=UTC).timestamp()
    row = {**event("a", 0), "time": round(monday_6 * SECOND)}

    ((sine, cosine),) = vectors([row], Feature("hour", "cyclic", "hour"))

    assert [sine, cosine] == pytest.approx([1.0, 0.0])
