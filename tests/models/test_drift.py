"""Detectors of drift raise their alarms where River's do, however losses come, and go on from a snapshot."""

from __future__ import annotations

import doctest
import functools
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from river import datasets, drift
from scipy import stats

from models import drift as detectors
from models.drift import Alarm, LossDrift
from models.drift_kswin import p_value
from models.learner import make_learner
from models.scoring import bounded_log_loss
from streams.drift import Adwin, Detector, Drift, Kswin, PageHinkley
from streams.frames import Column
from streams.pipeline import Model

Losses = npt.NDArray[np.float64]
CASES: list[tuple[Detector, Any]] = [
    ("adwin", Adwin()),
    ("adwin", Adwin(delta=0.05, clock=1, max_buckets=2, min_window_length=2, grace_period=3)),
    ("page_hinkley", PageHinkley()),
    ("page_hinkley", PageHinkley(threshold=5.0, mode="up")),
    ("page_hinkley", PageHinkley(min_instances=10, delta=0.01, threshold=5.0, alpha=0.99, mode="down")),
    ("kswin", Kswin(seed=3)),
    ("kswin", Kswin(alpha=0.05, window_size=500, stat_size=20, seed=5)),  # a sample drawn by trying again
]
NAMES = ("flip", "slow", "ties", "wide", "same", "phishing", "bananas", "segments")
RIVERS: dict[Detector, Any] = {"adwin": drift.ADWIN, "page_hinkley": drift.PageHinkley, "kswin": drift.KSWIN}


def synthetic() -> dict[str, Losses]:
    """Streams with a change, a slow one, many ties, any scale, and none."""
    rng = np.random.default_rng(0)
    rate = np.repeat([0.1, 0.4, 0.1, 0.6], 500)
    return {
        "flip": np.concatenate([rng.random(900) * 0.4, rng.random(600) * 0.4 + 0.4, rng.random(900) * 0.4]),
        "slow": rng.random(4_000) * 0.3 + np.linspace(0.0, 2.0, 4_000),
        "ties": (rng.random(rate.size) < rate).astype(np.float64),
        "wide": np.concatenate([rng.normal(0.0, 1e6, 1_000), rng.normal(1e6, 2e6, 1_000)]),
        "same": rng.random(1_500),
    }


def learned(stream: Any, target: str | None = None) -> Losses:
    """Losses of the linear model on one of River's streams, its labels turned over behind the middle."""
    rows = [(list(x.values()), y if target is None else y == target) for x, y in stream]
    X, y = np.array([x for x, _ in rows], np.float64), np.array([float(y) for _, y in rows])
    y[len(y) // 2 :] = 1.0 - y[len(y) // 2 :]
    learner = make_learner(Model("m", "linear", {"lr": 0.02}), tuple(Column(f"x{i}", False) for i in range(X.shape[1])))
    p = np.empty(len(y))
    for i in range(len(y)):
        p[i] = learner.predict(X[i : i + 1])[0]
        learner.learn(X[i : i + 1], y[i : i + 1])
    return bounded_log_loss(np.where(y > 0.5, p, 1.0 - p))


@functools.cache
def streams() -> dict[str, Losses]:
    """Made-up losses, and those of a model on real streams."""
    rivers: Any = datasets
    return {
        **synthetic(),
        "phishing": learned(rivers.Phishing()),
        "bananas": learned(rivers.Bananas().take(2_500)),
        "segments": learned(rivers.ImageSegments(), "sky"),
    }


def made(name: Detector, settings: Any) -> LossDrift:
    return LossDrift(Drift(loss=(name,), **{name: settings}))


def rivers(name: Detector, settings: Any, losses: Losses) -> list[int]:
    """Where River raises alarms."""
    fields = {field: getattr(settings, field) for field in settings.__struct_fields__}
    detector = RIVERS[name](**fields)
    found = []
    for i, loss in enumerate(losses.tolist()):
        detector.update(loss)
        if detector.drift_detected:
            found.append(i)
    return found


@pytest.mark.parametrize("stream", NAMES)
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_alarms_come_where_rivers_do(name: Detector, settings: Any, stream: str) -> None:
    losses = streams()[stream]
    if name == "kswin":  # River's takes a millisecond for each loss
        losses = losses[losses.size // 2 - 350 : losses.size // 2 + 350]
    found = [place for place, _ in made(name, settings).observe(losses)]

    assert found == rivers(name, settings, losses)


@pytest.mark.parametrize("name", RIVERS)
@pytest.mark.parametrize("stream", ["flip", "phishing", "segments"])
def test_every_detector_finds_a_flip_and_says_that_the_loss_went_up(name: Detector, stream: str) -> None:
    """Where nothing raised an alarm, equal lists would say little."""
    losses = streams()[stream]
    middle = 900 if stream == "flip" else losses.size // 2
    found = LossDrift(Drift(loss=(name,), page_hinkley=PageHinkley(threshold=20.0))).observe(losses)
    [first, *_] = [alarm for place, alarm in found if middle <= place < middle + 200]

    assert first.is_up
    assert first.detector == name
    assert first.value >= first.threshold > 0.0


@pytest.mark.parametrize("name", RIVERS)
def test_a_loss_that_went_down_is_told_from_one_that_went_up(name: Detector) -> None:
    """A model that gets better is no reason to begin anew."""
    found = LossDrift(Drift(loss=(name,), page_hinkley=PageHinkley(threshold=20.0))).observe(streams()["flip"])
    [first, *_] = [alarm for place, alarm in found if 1_500 <= place < 1_700]

    assert not first.is_up


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_cuts_and_snapshots_change_no_alarm(name: Detector, settings: Any) -> None:
    losses = streams()["flip"]
    expected = made(name, settings).observe(losses)
    found: list[tuple[int, Alarm]] = []
    rng, watch, at = np.random.default_rng(1), made(name, settings), 0
    while at < losses.size:
        size = int(rng.choice([1, 2, 7, 150]))
        found += [(at + place, alarm) for place, alarm in watch.observe(losses[at : at + size])]
        at += size
        if rng.random() < 0.3:
            state = watch.state()
            watch = made(name, settings)
            assert watch.restore(state)

    assert found == expected
    assert expected
    whole = made(name, settings)
    whole.observe(losses)
    assert {key: array.tobytes() for key, array in whole.state().items()} == {
        key: array.tobytes() for key, array in watch.state().items()
    }


def test_several_detectors_do_as_each_alone() -> None:
    names: tuple[Detector, ...] = ("adwin", "page_hinkley", "kswin")
    settings = Drift(loss=names, page_hinkley=PageHinkley(threshold=20.0))
    losses = streams()["segments"]
    together = LossDrift(settings).observe(losses)

    for name in names:
        alone = LossDrift(Drift(loss=(name,), page_hinkley=settings.page_hinkley)).observe(losses)
        assert [(place, alarm) for place, alarm in together if alarm.detector == name] == alone
        assert alone


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf, 1e308, 1e31])
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_a_loss_that_is_no_number_is_passed_over(name: Detector, settings: Any, strange: float) -> None:
    losses = streams()["flip"]
    places = np.arange(3, losses.size, 50)
    found = made(name, settings).observe(np.insert(losses, places, strange))
    clean = made(name, settings).observe(losses)

    moved = [place + int(np.searchsorted(places, place, side="right")) for place, _ in clean]
    assert [place for place, _ in found] == moved
    assert [alarm for _, alarm in found] == [alarm for _, alarm in clean]


def test_memory_does_not_grow() -> None:
    watch = LossDrift(Drift(loss=("adwin", "page_hinkley", "kswin")))
    before = sum(array.nbytes for array in watch.state().values())
    watch.observe(np.random.default_rng(0).random(100_000))

    assert sum(array.nbytes for array in watch.state().values()) == before < 20_000


def test_state_of_other_settings_is_not_taken() -> None:
    """A detector whose file has changed begins anew instead of mixing two meanings."""
    watch = LossDrift(Drift())
    watch.observe(streams()["same"])
    other = LossDrift(Drift(adwin=Adwin(delta=0.1)))
    untouched = {name: array.tobytes() for name, array in other.state().items()}

    assert not other.restore(watch.state())
    assert not other.restore({})
    assert {name: array.tobytes() for name, array in other.state().items()} == untouched


def test_what_is_cleared_is_as_new() -> None:
    settings = Drift(loss=("adwin", "page_hinkley", "kswin"), page_hinkley=PageHinkley(threshold=5.0))
    watch = LossDrift(settings)
    watch.observe(streams()["flip"])
    watch.clear()

    assert watch.observe(streams()["ties"]) == LossDrift(settings).observe(streams()["ties"])


@pytest.mark.parametrize("n", [10, 30, 200])
def test_the_chance_of_a_difference_in_ranks_is_scipys(n: int) -> None:
    """Of samples whose largest difference is h ranks: n numbers, and the same moved up by h places."""
    for h in range(1, n + 1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a chance just above 1 SciPy takes the asymptotic one
            found = stats.ks_2samp(np.arange(n), np.arange(n) + h - 0.5, method="exact").pvalue
        if found < 0.9:
            assert p_value(n, h) == pytest.approx(found, rel=1e-12)
        else:
            assert p_value(n, h) == pytest.approx(found, abs=0.01)


def test_the_example_runs() -> None:
    found = doctest.testmod(detectors)

    assert (found.attempted > 0, found.failed) == (True, 0)
