"""The population stability index of features: its definition in plain NumPy, its bins, and what does not change it."""

from __future__ import annotations

import doctest
import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from models import drift_psi
from models.drift_psi import FeatureAlarm, FeatureDrift, psi
from models.learner import LEARN, PREDICT, SKIP
from models.psi_bins import make_bins
from streams.drift import WINDOW_PARTS, Psi
from streams.frames import Column

Matrix = npt.NDArray[np.float64]
COLUMNS = (Column("amount", False), Column("flag", False), Column("shop", True), Column("empty", False))
SETTINGS = Psi(reference_rows=1_000, window_rows=500)


def rows(count: int, seed: int = 0) -> Matrix:
    """Numbers with missing ones, a flag that is mostly 1, categories of unequal frequency, and nothing."""
    rng = np.random.default_rng(seed)
    amount = np.where(rng.random(count) < 0.1, np.nan, rng.lognormal(0.0, 1.0, count))
    flag, shop = (rng.random(count) < 0.95).astype(float), np.floor(rng.exponential(4.0, count)) * 7.0
    return np.column_stack([amount, flag, np.where(rng.random(count) < 0.02, 0.5, shop), np.full(count, np.nan)])


def reference_bins(column: Matrix, bins: int, *, is_category: bool) -> Callable[[float], Any]:
    """Give what names the bin of a value; `column` is the reference."""
    if is_category:
        times = Counter(v for v in column.tolist() if v >= 0 and v == math.floor(v))
        common = sorted(times, key=lambda v: (-times[v], v))[: bins - 1]
        return lambda x: "missing" if not (x >= 0 and x == math.floor(x)) else x if x in common else "other"
    known = sorted(v for v in column.tolist() if abs(v) <= 1e30)
    ends = [known[math.ceil(Fraction(len(known) * k, bins)) - 1] for k in range(1, bins)] if known else []
    own = {end for end in ends if ends.count(end) > 1}  # a value that several quantiles fall on has its own bin
    return lambda x: "missing" if not abs(x) <= 1e30 else (sum(end < x for end in set(ends)), x in own)


def reference_psi(reference: Matrix, window: Matrix, bins: int, *, is_category: bool) -> float:
    """The definition: shares by bin, half a row for what is empty on one side."""
    name_of = reference_bins(reference, bins, is_category=is_category)
    before, now = (Counter(map(name_of, part.tolist())) for part in (reference, window))
    total = 0.0
    for name in {*before, *now}:
        p = max(before[name], 0.5) / len(reference)
        q = max(now[name], 0.5) / len(window)
        total += (q - p) * math.log(q / p)
    return total


def predicted(X: Matrix) -> npt.NDArray[np.int8]:
    return np.full(len(X), PREDICT, np.int8)


@pytest.mark.parametrize("bins", [2, 5, 10, 50])
def test_the_index_is_that_of_a_plain_computation(bins: int) -> None:
    X = np.concatenate([rows(1_000), rows(500, seed=1) * [1.3, 1.0, 2.0, 1.0]])
    drift = FeatureDrift(COLUMNS, Psi(bins=bins, reference_rows=1_000, window_rows=500))
    drift.watch(X, predicted(X))

    for at, column in enumerate(COLUMNS):
        expected = reference_psi(X[:1_000, at], X[1_000:, at], bins, is_category=column.is_category)
        assert drift.index()[column.name] == pytest.approx(expected, abs=1e-12)


def test_a_value_of_the_index_by_hand() -> None:
    """Shares 0.5 and 0.5 against 0.8 and 0.2, the third bin empty on both sides."""
    found = psi(np.array([[50, 50, 0]]), np.array([[80, 20, 0]]))

    assert found.tolist() == [pytest.approx(0.3 * math.log(1.6) - 0.3 * math.log(0.4))]


def test_without_drift_the_index_is_small_and_as_large_as_theory_says() -> None:
    """(1/n + 1/m) chi-square with bins - 1 degrees of freedom: its mean over 40 columns within four standard errors."""
    rng = np.random.default_rng(3)
    columns = tuple(Column(f"x{i}", False) for i in range(40))
    X = rng.normal(size=(4_000, 40))
    drift = FeatureDrift(columns, Psi(reference_rows=2_000, window_rows=2_000))

    assert drift.watch(X, predicted(X)) == []
    mean, expected = np.mean(list(drift.index().values())), 9 * (1 / 2_000 + 1 / 2_000)
    assert abs(mean - expected) < 4 * math.sqrt(2 * 9 / 40) / 1_000


@pytest.mark.parametrize(
    ("at", "change"),
    [
        (0, lambda x: x * 2.0),
        (0, lambda x: np.where(np.arange(x.size) % 2 == 0, np.nan, x)),
        (1, lambda x: np.where(np.arange(x.size) % 3 == 0, 0.0, x)),
        (2, lambda x: x + 7.0),
        (2, lambda x: np.where(np.arange(x.size) % 2 == 0, 1e6, x)),
        (3, lambda x: np.where(np.arange(x.size) % 10 == 0, 4.0, x)),
    ],
)
def test_a_column_that_drifts_raises_one_alarm_and_the_others_none(at: int, change: Any) -> None:
    """A larger scale, more missing, a rare value, shifted codes, a new code, a column that was empty before."""
    X = np.concatenate([rows(1_000), rows(2_000, seed=1)])
    X[1_800:, at] = change(X[1_800:, at])
    found = FeatureDrift(COLUMNS, SETTINGS).watch(X, predicted(X))

    assert [alarm.feature for alarm in found] == [COLUMNS[at].name]
    assert 1_800 <= found[0].row < 2_300
    assert found[0].row % (500 // WINDOW_PARTS) == 500 // WINDOW_PARTS - 1
    assert found[0].value >= found[0].threshold == 0.2


def test_a_drift_that_ends_and_comes_again_raises_a_second_alarm() -> None:
    X = np.concatenate(
        [rows(1_000), *(rows(1_000, seed=seed) * [scale, 1, 1, 1] for seed, scale in ((1, 4), (2, 1), (3, 4)))]
    )
    found = FeatureDrift(COLUMNS, SETTINGS).watch(X, predicted(X))

    assert [alarm.feature for alarm in found] == ["amount", "amount"]
    assert [alarm.row // 1_000 for alarm in found] == [1, 3]


@pytest.mark.parametrize("every", [1, 3])
def test_cuts_and_snapshots_change_nothing(every: int) -> None:
    settings = Psi(reference_rows=300, window_rows=200, every=every)
    X = np.concatenate([rows(1_000 * every), rows(400 * every, seed=1) * [3.0, 1, 1, 1]])
    rng = np.random.default_rng(2)
    action = rng.choice([PREDICT, PREDICT, LEARN, SKIP], len(X)).astype(np.int8)
    whole, drift = FeatureDrift(COLUMNS, settings), FeatureDrift(COLUMNS, settings)
    expected = whole.watch(X, action)
    found: list[FeatureAlarm] = []
    at = 0
    while at < len(X):
        size = int(rng.choice([1, 3, 40, 130]))
        found += [
            alarm._replace(row=at + alarm.row) for alarm in drift.watch(X[at : at + size], action[at : at + size])
        ]
        at += size
        if rng.random() < 0.3:
            state = drift.state()
            drift = FeatureDrift(COLUMNS, settings)
            assert drift.restore(state)

    assert found == expected
    assert expected
    assert all(action[alarm.row] == PREDICT for alarm in found)
    ours, theirs = drift.state(), whole.state()
    assert {name: array.tobytes() for name, array in ours.items()} == {
        name: array.tobytes() for name, array in theirs.items()
    }


def test_only_every_so_many_th_event_is_watched() -> None:
    X = rows(4_500)
    sampled = FeatureDrift(COLUMNS, Psi(reference_rows=1_000, window_rows=500, every=3))
    alone = FeatureDrift(COLUMNS, SETTINGS)
    sampled.watch(X, predicted(X))
    alone.watch(X[::3], predicted(X[::3]))

    assert sampled.index() == alone.index()
    assert not math.isnan(alone.index()["amount"])


@pytest.mark.parametrize("strange", [np.inf, -np.inf, 1e31, -1e308])
def test_what_models_take_as_missing_is_missing_here(strange: float) -> None:
    X = rows(1_500)
    other = np.where(np.isnan(X), strange, X)
    plain, guarded = FeatureDrift(COLUMNS, SETTINGS), FeatureDrift(COLUMNS, SETTINGS)
    plain.watch(X, predicted(X))
    guarded.watch(other, predicted(X))

    assert guarded.index() == plain.index()


def test_memory_does_not_grow_once_the_reference_is_full() -> None:
    drift = FeatureDrift(COLUMNS, SETTINGS)
    sizes = []
    for seed in range(6):
        X = rows(1_000, seed=seed)
        drift.watch(X, predicted(X))
        sizes.append(sum(array.nbytes for array in drift.state().values()))

    assert len(set(sizes)) == 1
    assert sizes[0] < 6_000


def test_state_of_other_columns_or_settings_is_not_taken() -> None:
    drift, X = FeatureDrift(COLUMNS, SETTINGS), rows(700)
    drift.watch(X, predicted(X))

    assert not FeatureDrift(COLUMNS[:3], SETTINGS).restore(drift.state())
    assert not FeatureDrift(COLUMNS, Psi()).restore(drift.state())
    assert FeatureDrift(COLUMNS, SETTINGS).restore(drift.state())


def test_a_value_that_many_rows_have_has_a_bin_of_its_own() -> None:
    """Or a flag that is nearly always 1 could fall to half of it unseen: both values would lie below one end."""
    bins = make_bins(np.r_[np.zeros(5), np.ones(95)][:, None], np.array([False]), 10)

    assert bins.ends_EF[:2, 0].tolist() == [np.nextafter(1.0, 0.0), 1.0]
    assert np.isinf(bins.ends_EF[2:, 0]).all()


def test_the_example_runs() -> None:
    found = doctest.testmod(drift_psi)

    assert (found.attempted > 0, found.failed) == (True, 0)
