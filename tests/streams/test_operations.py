"""Every operation of a feature: against plain Python over all earlier rows, in any order, cut and restored anywhere."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.featurize import FeatureTask
from streams.metrics import RoleMetrics
from streams.pipeline import Feature, Operation
from tests.aggregate_reference import CONDITIONS, Row, covered_rows
from tests.feature_reference import Reference
from tests.featurizing import SECOND, SOURCE, START, assert_same, event, reference_run, run, small_pipeline

MINUTE = 60 * SECOND
Step = tuple[int, str | None, float | None, str | None, float | None]
NORTH = "is_new and shop == 'north'"
EVERYTHING = (
    Feature("n", "count", "*", "key", MINUTE),
    Feature("mean", "mean", "amount", "key", MINUTE),
    Feature("std", "std", "amount", "key", MINUTE),
    Feature("min", "min", "amount", "key", MINUTE),
    Feature("max", "max", "amount", "key", MINUTE),
    Feature("std_short", "std", "amount", "key", 7 * SECOND),
    Feature("max_short", "max", "amount", "key", 7 * SECOND),
    Feature("rate", "rate", "is_new", "key", MINUTE),
    Feature("n_big", "count", "*", "key", MINUTE, where="amount > 2"),
    Feature("min_north", "min", "amount", "key", MINUTE, where=NORTH),
    Feature("std_big", "std", "amount", "key", MINUTE, where="amount > 2"),
    Feature("shops", "distinct", "shop", "key", MINUTE),
    Feature("amounts", "distinct", "amount", "key", 7 * SECOND, precision=10),
    Feature("n_exactly", "count", "*", "key", 13 * SECOND, is_exact=True),
    Feature("mean_exactly", "mean", "amount", "key", 30 * SECOND, is_exact=True),
    Feature("std_exactly", "std", "amount", "key", 30 * SECOND, is_exact=True),
    Feature("min_exactly", "min", "amount", "key", 13 * SECOND, is_exact=True),
    Feature("n_big_exactly", "count", "*", "key", 30 * SECOND, where="amount > 2", is_exact=True),
    Feature("shops_exactly", "distinct", "shop", "key", 30 * SECOND, is_exact=True),
    Feature("last", "last", "amount", "key"),
    Feature("last_minute", "last", "amount", "key", MINUTE),
    Feature("last_shop", "last", "shop", "key"),
    Feature("last_big", "last", "amount", "key", where="amount > 2"),
    Feature("lag_1", "lag", "amount", "key"),
    Feature("lag_3", "lag", "amount", "key", MINUTE, k=3),
    Feature("ewm", "ewm_mean", "amount", "key", half_life_us=10 * SECOND),
    Feature("ewm_std", "ewm_std", "amount", "key", half_life_us=10 * SECOND),
    Feature("ewm_north", "ewm_mean", "amount", "key", where=NORTH, half_life_us=SECOND),
    Feature("since", "elapsed", "*", "key"),
    Feature("ratio", "ratio", "amount", other="mean"),
    Feature("difference", "difference", "amount", other="last"),
    Feature("log", "log1p", "amount"),
    Feature("clipped", "clip", "difference", low=-1.0, high=2.5),
    Feature("level", "bucketise", "amount", edges=(-1.0, 0.5, 2.0)),
    Feature("shop_is", "one_hot", "shop", values=("north", "south")),
    Feature("shop_code", "hash", "shop", buckets=7),
    Feature("hour", "cyclic", "hour"),
    Feature("often", "frequency", "*", "key", MINUTE),
    Feature("often_big", "frequency", "*", "key", 30 * SECOND, where="amount > 2", is_exact=True),
    Feature("night", "calendar", "night"),
    Feature("weekend", "calendar", "weekend"),
)

STEPS = st.lists(
    st.tuples(
        st.integers(-40_000_000, 25_000_000),  # from the newest row's time, us
        st.sampled_from(["k 0", "k 1", None]),
        st.one_of(st.none(), st.integers(-32, 32).map(lambda n: n / 8)),
        st.sampled_from([None, "north", "south", ""]),
        st.sampled_from([None, 0.0, 1.0]),
    ),
    min_size=1,
    max_size=60,
)


def rows_of(steps: list[Step]) -> list[Row]:
    """Events that jump back and forth in time."""
    rows, now = [], START
    for number, (step, key, amount, shop, is_new) in enumerate(steps):
        row = event(str(number), 0, key, amount=amount, shop=shop, is_new=is_new)
        row["time"] = now + step
        now = max(now, row["time"])
        rows.append(row)
    return rows


@given(steps=STEPS)
@settings(deadline=None)
def test_every_operation_equals_brute_force_in_any_order(steps: list[Step]) -> None:
    """Whatever comes late, is missing, or has no key."""
    of, rows = small_pipeline(EVERYTHING), rows_of(steps)

    assert_same(run(FeatureTask(of, 0, SOURCE), of, rows), reference_run(of, rows).out)


@given(steps=STEPS, cuts=st.sets(st.integers(1, 59), max_size=4))
@settings(deadline=None)
def test_cut_and_restored_anywhere_the_vectors_are_the_same_bits(steps: list[Step], cuts: set[int]) -> None:
    """A state that is saved and taken back goes on as if nothing had happened."""
    of, rows = small_pipeline(EVERYTHING), rows_of(steps)
    whole = run(FeatureTask(of, 0, SOURCE), of, rows)
    task, parts, start = FeatureTask(of, 0, SOURCE), [], 0
    for stop in [*sorted(cut for cut in cuts if cut < len(rows)), len(rows)]:
        parts += run(task, of, rows[start:stop])
        again = FeatureTask(of, 0, SOURCE)
        again.restore(task.state())
        task, start = again, stop

    assert [bits(row) for _, row in parts] == [bits(row) for _, row in whole]


def bits(row: Row) -> bytes:
    """A vector's bytes."""
    return np.array(row["vector"]).tobytes()


def values(feature: Feature, *rows: Row) -> list[float]:
    """One feature's value for each event."""
    of = small_pipeline((feature,))
    return [row["vector"][0] for _, row in run(FeatureTask(of, 0, SOURCE), of, list(rows))]


def test_deviation_keeps_its_digits_far_from_zero() -> None:
    """A billion and a few cents: sums of squares would have lost everything."""
    amounts = [1e9 + 0.01 * (n % 7) for n in range(200)]
    rows = [event(str(n), n / 10, amount=amount) for n, amount in enumerate(amounts)]

    found = values(Feature("std", "std", "amount", "key", 600 * SECOND), *rows)

    assert found[-1] == pytest.approx(statistics.stdev(amounts[:-1]), rel=1e-6)


def test_exponential_weights_equal_pandas() -> None:
    """`ewm(halflife, times).mean()` over the rows before each."""
    rng = np.random.default_rng(1)
    times_s = np.cumsum(rng.exponential(5, 300))
    amounts = rng.normal(3, 2, 300)
    rows = [event(str(n), t, amount=float(a)) for n, (t, a) in enumerate(zip(times_s, amounts, strict=True))]
    times = pd.to_datetime([row["time"] for row in rows], unit="us")
    expected = pd.Series(amounts).ewm(halflife="20s", times=times).mean()

    found = values(Feature("ewm", "ewm_mean", "amount", "key", half_life_us=20 * SECOND), *rows)

    np.testing.assert_allclose(found[1:], expected[:-1], rtol=1e-9)


def test_exponential_deviation_of_even_steps_equals_pandas() -> None:
    """Corrected for bias, as pandas does where it can (it knows no times for deviations)."""
    amounts = np.random.default_rng(2).normal(3, 2, 200)
    rows = [event(str(n), 10 * n, amount=float(a)) for n, a in enumerate(amounts)]
    expected = pd.Series(amounts).ewm(halflife=3).std()

    found = values(Feature("ewm", "ewm_std", "amount", "key", half_life_us=30 * SECOND), *rows)

    np.testing.assert_allclose(found[2:], expected[1:-1], rtol=1e-9)


def test_windows_equal_pandas_within_a_bucket() -> None:
    """Over times at the buckets' edges, where both cover the same rows, `rolling` gives the same numbers."""
    rng = np.random.default_rng(3)
    seconds = np.sort(rng.integers(0, 2_000, 400)) * 5.0 + (-START // SECOND % 5)
    seconds = np.unique(seconds)
    amounts = rng.normal(10, 5, seconds.size)
    rows = [event(str(n), s, amount=float(a)) for n, (s, a) in enumerate(zip(seconds, amounts, strict=True))]
    series = pd.Series(amounts, pd.to_datetime([row["time"] for row in rows], unit="us"))
    for operation in ("mean", "std", "min", "max", "sum"):
        expected = getattr(series.rolling("60s", closed="left"), operation)().to_numpy()
        covered = series.rolling("60s", closed="left").count().to_numpy()

        found = np.array(values(Feature("f", operation, "amount", "key", MINUTE), *rows))

        # A row exactly a window old is in pandas' [t-w, t) but in no bucket of ours: those are left out.
        is_equal = ~np.isin(seconds - 60, seconds) & (covered > (1 if operation == "std" else 0))
        assert is_equal.sum() > 100
        np.testing.assert_allclose(found[is_equal], expected[is_equal], rtol=1e-9)


@given(steps=STEPS, q=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
@settings(deadline=None, max_examples=50)
def test_quantiles_are_within_their_error(steps: list[Step], q: float) -> None:
    """1.1 % of numpy's `lower` quantile of the same rows, in any order: at most 65 values need one level at most."""
    feature, rows = Feature("f", "quantile", "amount", "key", MINUTE, q=q), rows_of(steps)
    of = small_pipeline((feature,))
    reference = Reference(of)
    out = run(FeatureTask(of, 0, SOURCE), of, rows)
    for row, (_, found) in zip(rows, out, strict=True):
        past = reference.past.setdefault(row["key"], [])
        newest = max((other["time"] for other in past), default=None)
        covered = reference._values(feature, covered_rows(past, row["time"], newest, MINUTE))
        past.append(row)
        expected = np.quantile(covered, q, method="lower") if covered and row["key"] else math.nan

        np.testing.assert_allclose(found["vector"][0], expected, rtol=0.011)


def test_exact_windows_equal_pandas() -> None:
    """`rolling` over any times; what is exactly a window old no longer counts, as in pandas' (t-w, t)."""
    rng = np.random.default_rng(4)
    seconds = np.unique(np.round(np.cumsum(rng.exponential(3, 500)), 3))
    amounts = rng.normal(10, 5, seconds.size)
    rows = [event(str(n), s, amount=float(a)) for n, (s, a) in enumerate(zip(seconds, amounts, strict=True))]
    series = pd.Series(amounts, pd.to_datetime([row["time"] for row in rows], unit="us"))
    for operation in ("mean", "std", "min", "max", "sum"):
        expected = getattr(series.rolling("60s", closed="neither"), operation)().to_numpy()

        found = np.array(values(Feature("f", operation, "amount", "key", MINUTE, is_exact=True), *rows))

        if operation == "sum":
            expected = np.nan_to_num(expected)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_blocks_of_rows_are_freed_and_used_again() -> None:
    """A long run over a few keys takes what two windows hold, not what the run holds."""
    of = small_pipeline((Feature("n", "count", "*", "key", 10 * SECOND, is_exact=True),))
    task = FeatureTask(of, 0, SOURCE)
    for start in range(0, 20_000, 2_000):
        rows = [event(str(n), n * 0.1, f"k {n % 3}") for n in range(start, start + 2_000)]
        out = run(task, of, rows)

    assert [row["vector"][0] for _, row in out[-3:]] == [33.0, 33.0, 33.0]
    assert task.state()["exact.next"].size <= 3 * (200 // 3 // 16 + 3)


def test_an_empty_window_has_no_extremes_and_no_deviation() -> None:
    """NaN, not infinity; one value has no deviation; zero and negative zero are values."""
    rows = [event("a", 0, amount=None), event("b", 1, amount=-0.0), event("c", 2)]

    for operation in ("min", "max"):
        found = values(Feature("f", operation, "amount", "key", MINUTE), *rows)
        assert [math.isnan(value) for value in found] == [True, True, False]
        assert found[2] == 0.0
    assert all(math.isnan(value) for value in values(Feature("f", "std", "amount", "key", MINUTE), *rows))


def test_values_leave_extremes_with_their_bucket() -> None:
    """A maximum is forgotten when the window has passed it."""
    rows = [event("a", 0, amount=9.0), event("b", 30, amount=4.0), event("c", 59), event("d", 75), event("e", 200)]

    found = values(Feature("f", "max", "amount", "key", MINUTE), *rows)

    assert found[1:4] == [9.0, 9.0, 4.0]
    assert math.isnan(found[4])


def test_the_reference_knows_the_conditions_that_tests_use() -> None:
    """Those in EVERYTHING, and no others."""
    assert {feature.where for feature in EVERYTHING if feature.where} == set(CONDITIONS)


@pytest.mark.parametrize("operation", ["sum", "last", "max"])
def test_state_of_another_field_is_not_gone_on_with(operation: Operation) -> None:
    """Fields are numbers in the plan: a feature of another one begins empty."""
    made, other = (small_pipeline((Feature("f", operation, of, "key", MINUTE),)) for of in ("amount", "is_new"))
    task, told = FeatureTask(made, 0, SOURCE), list[str]()
    run(task, made, [event("a", 0, amount=7.0, is_new=1.0)])
    successor = FeatureTask(other, 0, SOURCE, tell=told.append)

    successor.restore(task.state())

    ((_, row),) = run(successor, other, [event("b", 1, amount=7.0, is_new=1.0)])
    assert told[1:] == ["feature f changed: starts empty"]
    assert repr(row["vector"]) == repr([0.0 if operation == "sum" else math.nan])


def test_late_events_are_counted_for_all_to_see() -> None:
    """One that is older than the window of its entity's newest raises `late` once."""
    of = small_pipeline((Feature("n", "count", "*", "key", MINUTE),))
    task, metrics = FeatureTask(of, 0, SOURCE), RoleMetrics("features", "p")
    run(task, of, [event("a", 1_000), event("b", 10), event("c", 20)])
    task.measure(metrics)
    task.measure(metrics)

    assert (
        metrics.registry.get_sample_value(
            "millrace_incidents_total", {"role": "features", "pipeline": "p", "candidate": "", "what": "late"}
        )
        == 2.0
    )
