"""Anomaly scores equal River's, alerts are as rare as asked for, and figures equal their definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from river import anomaly, preprocessing

from models import alerting
from models.learner import LEARN, PREDICT, SKIP, Learner, make_learner
from models.scoring import Scores
from models.scoring_anomaly import AnomalyQuality
from models.soundness import is_sound
from models.tally import add_score
from streams.errors import ModelError, PipelineError
from streams.frames import Column
from streams.pipeline import Model, Task

KEY = b"k" * 32
COLUMNS = (Column("pressure", False), Column("pump", True), Column("heat", False))
TASK, RARE = Task("anomaly"), Task("anomaly", alert=0.1)
ROWS = 500

Floats = npt.NDArray[np.float64]
Actions = npt.NDArray[np.int8]
Params = dict[str, bool | int | float | str]
river: Any = anomaly  # untyped, as is preprocessing
scaling: Any = preprocessing

RIVERS: list[tuple[str, Params]] = [
    ("HalfSpaceTrees", {"scale": "minmax", "window_size": 40}),
    ("OneClassSVM", {"scale": "standard", "nu": 0.2}),
    ("LocalOutlierFactor", {"n_neighbors": 5}),
    ("LODA", {"n_random_cuts": 20}),
    ("GaussianScorer", {"of": "pressure", "grace_period": 30}),
    ("StandardAbsoluteDeviation", {"of": "heat"}),
]


def readings(rows: int = ROWS, seed: int = 0) -> tuple[Floats, Floats]:
    """Give rows of pumps, a twentieth of them odd, and which are."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.normal(5, 1, rows), rng.integers(0, 4, rows).astype(float), rng.normal(70, 8, rows)])
    odd = rng.random(rows) < 0.05
    X[odd, 0] += rng.normal(6, 1, int(odd.sum()))
    X[rng.random(X.shape) < 0.03] = np.nan
    X[0] = [5.0, 1.0, 70.0]
    return X, odd.astype(float)


def interleaved(rows: int, seed: int = 1) -> tuple[npt.NDArray[np.int64], Actions]:
    """Give rows in an order in which each is learned 1 to 60 rows after it was asked about, and some are skipped."""
    rng = np.random.default_rng(seed)
    when = np.concatenate([np.arange(rows), np.arange(rows) + rng.integers(1, 60, rows)])
    order = np.argsort(when, kind="stable")
    action = np.where(order < rows, PREDICT, LEARN).astype(np.int8)
    action[rng.random(order.size) < 0.1] = SKIP
    return order % rows, action


def learner_of(kind: str, task: Task, **params: Any) -> Learner:
    return make_learner(Model("m", kind, params), COLUMNS, KEY, task)


# River


def squashed(name: str, score: float) -> float:
    if name in ("HalfSpaceTrees", "GaussianScorer"):
        return score
    return 1 / (1 + math.exp(-score)) if name == "OneClassSVM" else score / (1 + score)


@pytest.mark.parametrize(("name", "params"), RIVERS)
def test_scores_are_rivers_pressed_into_0_to_1(name: str, params: Params) -> None:
    """Row by row, with labels that come late and are not looked at; asking changes nothing."""
    X, _ = readings()
    at, action = interleaved(len(X))
    ours = learner_of(f"river:anomaly.{name}", TASK, **params).step(X[at], np.full(at.size, np.nan), action)

    own = {key: value for key, value in params.items() if key not in ("of", "scale")}
    seed = {"seed": 0} if name in ("HalfSpaceTrees", "LODA") else {}
    model: Any = getattr(river, name)(**own, **seed)
    scalers: Any = {"minmax": scaling.MinMaxScaler, "standard": scaling.StandardScaler}
    scaler: Any = scalers.get(params.get("scale"))
    model = model if scaler is None else scaler() | model
    of, is_trained = str(params.get("of", "")), False
    for said, row, what in zip(ours.tolist(), X[at].tolist(), action.tolist(), strict=True):
        x = {COLUMNS[i].name: row[i] for i in (0, 2) if not math.isnan(row[i])}
        is_given = of in x if of else bool(x)
        if what == PREDICT and is_given and is_trained:
            expected = model.score_one(None, x[of]) if of else model.score_one(x)
            assert said == pytest.approx(squashed(name, expected), abs=1e-9)
        elif what == PREDICT:
            assert said == 0.0
        elif what == LEARN and is_given:
            model.learn_one(None, x[of]) if of else model.learn_one(x)
            is_trained = True
    assert np.nanstd(ours) > 0.001


def test_a_value_that_never_changes_is_no_anomaly_to_a_gaussian_but_any_other_is() -> None:
    """River says 1.0 of both."""
    learner = learner_of("river:anomaly.GaussianScorer", TASK, of="heat", grace_period=10)
    X = np.full((50, 3), 70.0)
    learner.learn(X, np.full(50, np.nan))

    assert learner.predict(np.array([[1.0, 0.0, 70.0], [1.0, 0.0, 70.5]])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(("name", "params"), RIVERS)
def test_rows_without_a_number_and_numbers_of_no_use_leave_every_model_finite(name: str, params: Params) -> None:
    X, _ = readings()
    X[0] = np.nan
    X[10, :], X[50::50, 0], X[70::70, 2] = np.nan, np.inf, 1e308
    learner = learner_of(f"river:anomaly.{name}", TASK, **params)
    learner.learn(X, np.full(len(X), np.nan))
    said = learner.predict(X)

    assert ((said >= 0.0) & (said <= 1.0)).all()
    assert said[10] == 0.0
    assert np.array_equal(learner.predict(X), said)
    assert is_sound(learner, COLUMNS, TASK)


@pytest.mark.parametrize(
    ("kind", "params", "reason"),
    [
        ("anomaly.QuantileFilter", {"q": 0.9}, r"gives no score; an alert is \[task\]'s to raise"),
        ("anomaly.PredictiveAnomalyDetection", {}, "gives no score"),
        ("tree.HoeffdingTreeClassifier", {}, "gives no score"),
        ("anomaly.GaussianScorer", {}, "of: is missing; allowed: pressure, heat"),
        ("anomaly.GaussianScorer", {"of": "pump"}, "'pump' is no column with numbers"),
        ("anomaly.GaussianScorer", {"of": "heat", "scale": "minmax"}, "scale: 'minmax' found"),
        ("anomaly.HalfSpaceTrees", {"of": "heat"}, "looks at all columns"),
        ("anomaly.HalfSpaceTrees", {"scale": "log"}, "allowed: none, standard, minmax"),
        ("anomaly.HalfSpaceTrees", {"n_treees": 5}, "unknown key"),
    ],
)
def test_a_river_model_that_cannot_score_rows_is_refused(kind: str, params: Params, reason: str) -> None:
    with pytest.raises(PipelineError, match=reason):
        learner_of(f"river:{kind}", TASK, **params)


# Baselines


def test_baselines_say_the_share_of_anomalies_and_the_last_label_and_nothing_before_the_first() -> None:
    label = np.array([0.0, np.nan, 1.0, 0.0, 1.0])
    for kind, expected in (("prior", 0.5), ("last", 1.0)):
        learner = learner_of(kind, TASK)
        untrained = learner.predict(np.empty((1, 3)))
        learner.learn(np.empty((5, 3)), label)

        assert untrained.tolist() == [0.0]
        assert learner.predict(np.empty((1, 3))).tolist() == [expected]


# Alerts


def test_the_threshold_lies_above_all_but_a_share_of_the_latest_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a sorted list in plain Python has it, each score as of right before its row was learned."""
    monkeypatch.setattr(alerting, "WINDOW_ROWS", 60)
    X, y = readings()
    at, action = interleaved(len(X))
    params = dict(RIVERS[2][1])
    ours = learner_of("river:anomaly.LocalOutlierFactor", RARE, **params).step(X[at], y[at], action)

    bare, kept = learner_of("river:anomaly.LocalOutlierFactor", TASK, **params), list[float]()
    for said, row, what in zip(ours, X[at], action.tolist(), strict=True):
        if what == PREDICT:
            ordered = sorted(kept[-60:])
            bar = np.nextafter(ordered[-1 - int(0.1 * len(ordered))], 2.0) if ordered else np.nextafter(1.0, 2.0)
            assert said.tolist() == [bare.predict(row[None])[0], bar]
        elif what == LEARN:
            kept.append(float(bare.predict(row[None])[0]))
            bare.learn(row[None], np.array([np.nan]))
    share = float((ours[action == PREDICT, 0] >= ours[action == PREDICT, 1]).mean())
    assert 0.03 < share < 0.2


def test_a_model_that_says_the_same_of_everything_alerts_on_nothing() -> None:
    learner = learner_of("prior", RARE)
    learner.learn(np.empty((300, 3)), np.full(300, 0.0))
    score, threshold = learner.predict(np.empty((1, 3)))[0]

    assert score < threshold <= 1e-300


@pytest.mark.parametrize("task", [TASK, RARE])
@pytest.mark.parametrize("kind", ["HalfSpaceTrees", "GaussianScorer", "prior"])
def test_how_rows_are_cut_and_where_a_model_is_taken_up_changes_no_bit(
    kind: str, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerting, "WINDOW_ROWS", 100)
    X, y = readings()
    at, action = interleaved(len(X))
    params = dict(RIVERS).get(kind, {})
    name = kind if kind == "prior" else f"river:anomaly.{kind}"
    whole = learner_of(name, task, **params).step(X[at], y[at], action)
    said, learner = [], learner_of(name, task, **params)
    for part in np.split(np.arange(at.size), [1, 2, 77, 340, 341, 800]):
        said.append(learner.step(X[at[part]], y[at[part]], action[part]))
        state, learner = learner.state(), learner_of(name, task, **params)
        learner.restore(state)

    assert np.array_equal(np.concatenate(said), whole, equal_nan=True)
    assert whole.shape == ((at.size, 2) if task is RARE else (at.size,))
    with pytest.raises(ModelError):
        learner.restore({})


def test_a_ring_that_does_not_fit_its_count_is_refused() -> None:
    learner = learner_of("prior", RARE)
    learner.learn(np.empty((5, 3)), np.zeros(5))
    with pytest.raises(ModelError, match="scores are not whole: 3 found"):
        learner.restore({**learner.state(), "scores": np.zeros(3)})


# Figures


def judged(task: Task, said: Floats, label: Floats) -> tuple[Scores, Floats]:
    scores = Scores(task)
    loss = [add_score(scores.tally, said, row, label[row]) for row in range(len(label))]
    return scores, np.array(loss)


def test_figures_equal_their_definitions() -> None:
    """In plain NumPy, pair by pair: areas, average precision, alerts, and each event's loss when it came."""
    rng = np.random.default_rng(2)
    size = 1_500
    label = (rng.random(size) < 0.1).astype(float)
    score = np.round(np.clip(rng.normal(0.4 + 0.2 * label, 0.15), 0.01, 0.99), 3)
    label[rng.random(size) < 0.2] = np.nan
    threshold = rng.uniform(0.5, 0.7, size)
    scores, loss = judged(RARE, np.column_stack([score, threshold]), label)
    found, recent = scores.since_start(), scores.rolling()
    assert isinstance(found, AnomalyQuality)
    assert isinstance(recent, AnomalyQuality)

    for i in range(size):
        others = score[:i][label[:i] == 1 - label[i]][-100:]
        if math.isnan(label[i]) or not others.size:
            assert math.isnan(loss[i])
        else:
            wrong = (others > score[i]) if label[i] else (others < score[i])
            assert loss[i] == pytest.approx(wrong.mean() + 0.5 * (others == score[i]).mean(), abs=1e-12)
    yes, no = score[label == 1], score[label == 0]
    area = ((yes[:, None] > no).sum() + 0.5 * (yes[:, None] == no).sum()) / (yes.size * no.size)
    known = ~np.isnan(label)
    steps = [((label[known] == 1) & (score[known] == s)).sum() / yes.size for s in np.unique(score)]
    precisions = [label[known][score[known] >= s].mean() if (score[known] >= s).any() else 0 for s in np.unique(score)]
    is_alert = score >= threshold
    expected = {
        "auc": area,
        "pr_auc": float(np.dot(steps, precisions)),
        "precision": label[known & is_alert].mean(),
        "recall": is_alert[label == 1].mean(),
        "alert_rate": is_alert.mean(),
        "mean_score": score.mean(),
    }
    for quality in (found, recent):
        assert quality.labels == size
        for name, value in expected.items():
            assert quality._asdict()[name] == pytest.approx(value, abs=1e-9), name
    assert found.rank_loss == pytest.approx(np.nanmean(loss), abs=1e-12)
    assert recent.rank_loss == pytest.approx(1.0 - area, abs=1e-12)
    assert abs(found.rank_loss - recent.rank_loss) < 0.05  # the first anomalies are few to be ranked against


def test_without_labels_alerts_and_scores_are_all_there_is_to_say() -> None:
    score = np.array([[0.1], [0.6], [0.7], [0.2]])
    scores, loss = judged(Task("anomaly", threshold=0.6), score, np.full(4, np.nan))

    assert np.isnan(loss).all()
    for quality in (scores.since_start(), scores.rolling()):
        figures = quality._asdict()
        assert (figures.pop("labels"), figures.pop("alert_rate")) == (4, 0.5)
        assert figures.pop("mean_score") == pytest.approx(0.4)
        assert all(math.isnan(value) for value in figures.values())
    assert Scores(TASK).since_start().labels == 0


def test_a_constant_score_loses_half_and_a_perfect_one_nothing_whatever_the_share_of_anomalies() -> None:
    rng = np.random.default_rng(3)
    for share in (0.5, 0.01):
        label = (rng.random(2_000) < share).astype(float)
        constant, _ = judged(TASK, np.full((2_000, 1), 0.3), label)
        perfect, _ = judged(TASK, 0.2 + 0.5 * label[:, None], label)

        assert constant.since_start().loss == 0.5
        assert perfect.since_start().loss == 0.0


def test_scores_go_on_from_their_state() -> None:
    rng = np.random.default_rng(4)
    said, label = rng.random((400, 1)), (rng.random(400) < 0.2).astype(float)
    whole, _ = judged(TASK, said, label)
    first, _ = judged(TASK, said[:150], label[:150])
    second = Scores(TASK)
    second.restore(first.state())
    for row in range(150, 400):
        add_score(second.tally, said, row, label[row])

    assert second.since_start() == whole.since_start()
    assert second.rolling() == whole.rolling()
