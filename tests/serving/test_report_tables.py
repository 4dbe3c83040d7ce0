"""Tables of a report, compared with pandas, SciPy and plain Python over the events as they happened."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from serving import report_tables as tables
from serving.report_data import Archived, Period, read_archive
from serving.report_topics import Losses, Names, read_losses, read_names
from tests import reporting
from tests.reporting import COLUMNS, SHOPS, Made


@pytest.fixture(name="made", scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return reporting.make(tmp_path_factory.mktemp("state"))


@pytest.fixture(name="archived", scope="module")
def _archived(made: Made) -> Archived:
    return read_archive(made.pipeline, Period())


@pytest.fixture(name="losses", scope="module")
def _losses(made: Made, archived: Archived) -> dict[str, Losses]:
    return read_losses(made.topics, archived.events, 1.0, Period())


@pytest.fixture(name="names", scope="module")
def _names(made: Made) -> Names:
    return read_names(made.topics, made.pipeline)


@pytest.fixture(name="frame", scope="module")
def _frame(made: Made) -> Any:
    """What happened, as one data frame, with what the linear model lost."""
    seen = made.happened
    frame = pd.DataFrame(seen.X_NF, columns=[column.name for column in COLUMNS])
    frame["label"], frame["time"] = seen.label_N, pd.to_datetime(seen.time_us_N, unit="us")
    frame["delay_s"] = np.where(frame.label.isna(), np.nan, (seen.known_us_N - seen.time_us_N) / 1e6)
    said = np.clip(np.where(frame.label > 0.5, made.said["linear"], 1.0 - made.said["linear"]), 0.001, 0.999)
    frame["loss"] = np.where(frame.label.isna(), np.nan, -np.log(said))
    return frame


def test_volumes_are_events_by_day_and_what_became_of_their_labels(archived: Archived, frame: Any) -> None:
    found = tables.volumes(archived)
    day = frame.time.dt.floor("D")

    assert found.set.to_dict() == frame.label.notna().groupby(day).sum().to_dict()
    assert found.missing.to_dict() == frame.label.isna().groupby(day).sum().to_dict()


def test_volumes_of_many_days_are_by_week(archived: Archived) -> None:
    days = {(19_000 + day, "set"): day for day in range(300)}
    found = tables.volumes(archived._replace(days=days))

    assert found.set.sum() == sum(range(300))
    assert set(found.index.day_of_week) == {0}
    assert len(found) == 44


def test_delays_are_quantiles_of_the_time_to_the_label(archived: Archived, frame: Any) -> None:
    found = tables.delays(archived.events)

    assert found.to_numpy() == pytest.approx(np.nanquantile(frame.delay_s, found.index))


def test_missing_shares_are_of_all_events_and_of_quarters(archived: Archived, frame: Any) -> None:
    found = tables.missing_shares(archived.events)

    assert found.index[0] == "amount"
    amount = frame.amount.isna()
    assert found.loc["amount"].tolist() == pytest.approx([amount.mean(), amount[:1_000].mean(), amount[-1_000:].mean()])
    assert (found.loc[["shop", "is_new", "miles"]] == 0.0).all(axis=None)


def test_drift_is_the_stability_index_of_ten_bins_and_missing(archived: Archived, frame: Any) -> None:
    found = tables.drift(archived.events)

    assert found.index[0] == "miles"
    for name in ("amount", "is_new", "miles"):
        first, last = frame[name][:1_000], frame[name][-1_000:]
        edges = [-np.inf, *np.quantile(first.dropna(), np.arange(1, 10) / 10, method="inverted_cdf"), np.inf]
        parts = [pd.cut(part, edges).value_counts(sort=False, dropna=False).to_numpy() for part in (first, last)]
        p, q = (np.maximum(part, 0.5) / part.sum() for part in parts)
        assert found[name] == pytest.approx(float(((q - p) * np.log(q / p)).sum()))
    parts = [frame.shop[part].value_counts(sort=False).sort_index() for part in (slice(1_000), slice(-1_000, None))]
    p, q = (part / part.sum() for part in parts)
    assert found["shop"] == pytest.approx(float(((q - p) * np.log(q / p)).sum()))


def test_distributions_are_shares_of_each_quarter(archived: Archived, frame: Any, names: Names) -> None:
    """Of numbers what lies outside is in the outermost bins, so that shares add up."""
    shops = tables.distribution(archived.events, "shop", names)
    assert shops["last"].to_dict() == pytest.approx(
        frame.shop[-1_000:].map(names["shop"]).value_counts(normalize=True).to_dict()
    )

    miles = tables.distribution(archived.events, "miles", names)
    assert miles.sum().tolist() == pytest.approx([1.0, 1.0])
    assert (miles["last"] * miles.index).sum() == pytest.approx(frame.miles[-1_000:].mean(), abs=0.1)


def test_correlations_are_ranks_of_pairs_that_are_both_known(archived: Archived, made: Made, frame: Any) -> None:
    found = tables.correlations(archived.events, made.pipeline.task)

    assert list(found.columns[:2]) == ["label", "amount"]
    for one in found.columns:
        for other in found.columns:
            both = frame[[one, other]].dropna() if one != other else None
            expected = 1.0 if both is None else spearmanr(both[one], both[other]).statistic
            assert found.loc[one, other] == pytest.approx(expected)


def test_categories_are_counted_with_the_mean_of_their_labels(archived: Archived, frame: Any, names: Names) -> None:
    found = tables.categories(archived.events, "shop", names)
    shop = frame.shop.map(names["shop"])

    assert list(found.index) == list(SHOPS)
    assert found.events.to_dict() == shop.value_counts().to_dict()
    assert found["mean"].to_dict() == pytest.approx(frame.label.groupby(shop).mean().to_dict())


def test_losses_by_slice_are_means_over_the_events_of_the_slice(
    archived: Archived, losses: dict[str, Losses], frame: Any, names: Names
) -> None:
    shop = frame.shop.map(names["shop"])
    found = tables.loss_by(tables.slice_by(archived.events, "shop", names), losses)
    assert found.linear.to_dict() == pytest.approx(frame.loss.groupby(shop).mean().to_dict(), rel=1e-6)
    assert found.events.to_dict() == shop.value_counts().to_dict()

    found = tables.loss_by(tables.slice_by(archived.events, "amount", names), losses)
    high = frame.amount.quantile(1 / 6)
    in_first = frame.amount <= high
    assert found.index[0] == f"{frame.amount.min():.4g} to {high:.3g}"
    assert found.linear.iloc[0] == pytest.approx(frame.loss[in_first].mean(), rel=1e-6)
    assert found.index[-1] == "missing"
    assert found.linear.iloc[-1] == pytest.approx(frame.loss[frame.amount.isna()].mean(), rel=1e-6)

    found = tables.loss_by(tables.slice_by_delay(archived.events), losses)
    last = frame.delay_s > frame.delay_s.quantile(5 / 6)
    assert found.linear.iloc[-1] == pytest.approx(frame.loss[last].mean(), rel=1e-6)
    assert found.events.sum() == frame.label.notna().sum()


def test_a_slice_of_too_few_events_has_no_loss(archived: Archived, losses: dict[str, Losses], names: Names) -> None:
    slices = tables.slice_by(archived.events, "shop", names)
    part_N = np.where(np.arange(slices.part_N.size) < 10, 0, 1)
    found = tables.loss_by(slices._replace(names=("few", "many"), part_N=part_N), losses)

    assert found.linear.isna().tolist() == [True, False]
    assert found.events.tolist() == [10, 3_990]


def test_categories_beyond_the_largest_are_one_slice_and_unnamed_ones_show_their_code(archived: Archived) -> None:
    events = archived.events
    X_NF = events.X_NF.copy()
    X_NF[:, 1] = np.arange(len(X_NF)) % 12
    X_NF[:30, 1], X_NF[30:50, 1], X_NF[-5:, 1] = 0.0, 1.0, np.nan  # 0 is the largest, then 1
    found = tables.slice_by(events._replace(X_NF=X_NF), "shop", {"shop": {1.0: "one"}})

    assert found.names[:2] == ("code 0", "one")
    assert all(name.startswith("code ") for name in found.names[2:-2])
    assert found.names[-2:] == ("others", "missing")
    assert len(found.names) == tables.TOP + 2
    assert (found.part_N[-5:] == len(found.names) - 1).all()


def test_losses_over_time_are_means_by_the_middle_of_blocks(losses: dict[str, Losses]) -> None:
    found = tables.losses_over_time(losses)
    one = losses["linear"]
    edges = np.linspace(one.time_us_B.min(), one.time_us_B.max() + 1, tables.TIME_BINS + 1)
    sums, counts = (np.histogram(one.time_us_B, edges, weights=part)[0] for part in (one.sum_B, one.count_B))

    assert found.linear.to_numpy() == pytest.approx((sums / np.maximum(counts, 1))[counts > 0])
    assert found.index.to_numpy().astype("datetime64[us]").astype(np.int64) == pytest.approx(
        ((edges[1:] + edges[:-1]) / 2)[counts > 0], abs=2
    )


def test_labels_over_time_are_the_share_of_yes_by_time(archived: Archived, made: Made, frame: Any) -> None:
    found = tables.labels_over_time(archived.events, made.pipeline.task)
    at = np.arange(4_000) * tables.TIME_BINS // 4_000

    assert found["mean"].to_numpy() == pytest.approx(frame.label.groupby(at).mean().to_numpy(), abs=0.02)
    assert len(found) == tables.TIME_BINS
