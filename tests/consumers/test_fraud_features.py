"""The features of `examples/fraud.toml` through the real chain of stages: known payments, and pandas' numbers for them.

What a window of buckets says lies within one bucket of w: it is the aggregate over (t - w', t] for a w' between 11/12
of w and w. So a count is nowhere larger than pandas' over (t - w, t], and nowhere smaller than over (t - w + w/12, t].
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from streams.durations import DAY_US
from streams.features import columns
from streams.pipeline import Pipeline
from streams.pipeline_file import read_pipeline
from tests.chaining import by_partition, real_stages, run_chain
from tests.featurizing import mark_clocks
from tests.pandas_windows import bucket_start_us, bucketed, labels_since, rolled
from tests.payments import PAYMENTS, make_payments, payment_rows

FILE = Path(__file__).parents[2] / "examples" / "fraud.toml"
WIDTHS = (1, 7, 30)
DELAY_US = 7 * DAY_US
Floats = npt.NDArray[np.float64]


class Paid(NamedTuple):
    """Payments, what the chain says of each, and the labels as they count after their delay."""

    payments: pd.DataFrame
    found: pd.DataFrame
    labels: pd.DataFrame


def with_exact(pipeline: Pipeline) -> Pipeline:
    """The example with each window of events once more, exactly, as `NAME_exactly`."""
    exact = tuple(
        msgspec.structs.replace(feature, name=f"{feature.name}_exactly", is_exact=True)
        for feature in pipeline.features
        if feature.window_us and not feature.is_label
    )
    return msgspec.structs.replace(pipeline, features=pipeline.features + exact)


@pytest.fixture(scope="module")
def paid() -> Paid:
    """Run the payments through all stages on four partitions, merged by time as in a replay."""
    of, payments = with_exact(read_pipeline(FILE, {})), make_payments()
    rows = payment_rows(payments)
    written = run_chain(of, real_stages(of), by_partition(of, rows, mark_clocks(rows)), None, cuts=7)[-1]
    events = {row["id"]: row["vector"] for found in written.values() for row in found if row["kind"] == 0}
    found = pd.DataFrame([events[id_] for id_ in payments.id], columns=[column.name for column in columns(of)])
    labels = payments.assign(time_us=payments.time_us + DELAY_US, label=payments.is_fraud.astype(float))
    return Paid(payments, found, labels)


def test_the_payments_hold_what_the_features_are_about(paid: Paid) -> None:
    """Else the tests below would prove little: frauds, terminals that are caught and terminals that are not."""
    risk, fraud = paid.found.terminal_fraud_7d, paid.payments.is_fraud

    assert len(paid.found) > 0.99 * PAYMENTS
    assert 0.01 < fraud.mean() < 0.1
    assert (risk > 0.9).sum() > 50
    assert (risk == 0).sum() > 1_000
    assert risk[fraud].mean() > 5 * risk[~fraud].mean()


@pytest.mark.parametrize("days", WIDTHS)
@pytest.mark.parametrize(("entity", "how", "name"), [("customer", "count", "count"), ("customer", "mean", "amount"),
                                                     ("terminal", "count", "count")])  # fmt: skip
def test_windows_of_payments_equal_pandas(paid: Paid, entity: str, how: str, name: str, days: int) -> None:
    """Exact windows are pandas' own; those of buckets are pandas' over the buckets that the definition names."""
    frame, column = paid.payments, f"{entity}_{name}_{days}d"
    exactly = rolled(frame, [entity], "amount", days * DAY_US, how)
    within = bucketed(frame, [entity], "amount", days * DAY_US, how)

    np.testing.assert_allclose(paid.found[f"{column}_exactly"], exactly, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(paid.found[column], within, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("days", WIDTHS)
@pytest.mark.parametrize("entity", ["customer", "terminal"])
def test_counts_lie_within_one_bucket_of_pandas(paid: Paid, entity: str, days: int) -> None:
    """Between the count over the last w less a twelfth and that over the last w; both bounds are reached somewhere."""
    found = paid.found[f"{entity}_count_{days}d"].to_numpy()
    most = rolled(paid.payments, [entity], "amount", days * DAY_US, "count")
    least = rolled(paid.payments, [entity], "amount", days * DAY_US * 11 // 12, "count")

    assert (found <= most).all()
    assert (found >= least).all()
    assert ((found < most) & (found > least)).any() or days == 1
    assert (found < most).any()


@pytest.mark.parametrize("days", WIDTHS)
def test_a_terminals_fraud_rate_equals_pandas(paid: Paid, days: int) -> None:
    """Of the payments between a week and a week and w ago, however early their frauds came out."""
    since_us = bucket_start_us(paid.payments.time_us.to_numpy(), days * DAY_US)
    count, ones = labels_since(paid.payments, paid.labels, ["terminal"], since_us)
    with np.errstate(invalid="ignore"):
        expected = ones / count

    np.testing.assert_allclose(paid.found[f"terminal_fraud_{days}d"], expected, rtol=1e-9)
    assert (count > 0).sum() > 3_000


def test_no_payment_knows_a_fraud_of_the_last_week(paid: Paid) -> None:
    """The first label counts a week after the first payment of the terminal, to the microsecond."""
    first_us = paid.payments.groupby("terminal").time_us.transform("min").to_numpy()
    is_too_early = paid.payments.time_us.to_numpy() < first_us + DELAY_US

    assert is_too_early.sum() > 1_000
    assert paid.found.terminal_fraud_30d[is_too_early].isna().all()
    assert (paid.found.terminal_risk[is_too_early] == 0.01).all()


def test_a_terminal_as_numbers_is_its_count_a_day_and_its_smoothed_rate(paid: Paid) -> None:
    """Computed from pandas' counts of the same 30 days."""
    since_us = bucket_start_us(paid.payments.time_us.to_numpy(), 30 * DAY_US)
    count, ones = labels_since(paid.payments, paid.labels, ["terminal"], since_us)
    often = bucketed(paid.payments, ["terminal"], "amount", 30 * DAY_US, "count") / 30

    np.testing.assert_allclose(paid.found.terminal_often, often, rtol=1e-9)
    np.testing.assert_allclose(paid.found.terminal_risk, (ones + 0.01 * 20) / (count + 20), rtol=1e-9)


def test_weekends_nights_and_ratios_are_those_of_pandas(paid: Paid) -> None:
    """By the UTC clock; the ratio to the customer's mean of 30 days."""
    moment = pd.to_datetime(paid.payments.time_us, unit="us")
    ratio = paid.payments.amount / bucketed(paid.payments, ["customer"], "amount", 30 * DAY_US, "mean")

    np.testing.assert_array_equal(paid.found.weekend, moment.dt.day_of_week >= 5)
    np.testing.assert_array_equal(paid.found.night, moment.dt.hour < 6)
    np.testing.assert_allclose(paid.found.amount_ratio, ratio, rtol=1e-9)
