"""Models that learn in shards: one in every cut, exact where statistics add up, near where weights are averages."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
import pytest

from models.learner import LEARN, PREDICT, Learner, make_learner
from models.sharded import LEAST_THREADED, ShardedLearner, way_of
from models.tally import log_loss
from streams.errors import ModelError, PipelineError
from streams.frames import Column
from streams.pipeline import Model, Task
from tests.rows import text_of

COLUMNS = (Column("a", False), Column("b", False), Column("c", True))
TASKS = {"binary": Task(), "multiclass": Task("multiclass", ("x", "y", "z")), "regression": Task("regression")}
KEYS = [f"key-{number}" for number in range(97)]


def rows(count: int, task: Task, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Give features with gaps, labels that follow from them, and keys."""
    rng = np.random.default_rng(seed)
    X_BF = np.column_stack([rng.normal(3.0, 2.0, count), rng.normal(size=count), rng.integers(0, 9, count)])
    score_B = X_BF[:, 0] - 3.0 + (X_BF[:, 2] > 4) + rng.normal(0.0, 0.5, count)
    X_BF[rng.random(X_BF.shape) < 0.05] = np.nan
    y_B = {"binary": score_B > 0, "multiclass": np.clip(np.round(score_B) + 1, 0, 2), "regression": score_B}[task.kind]
    return X_BF, y_B.astype(float), [KEYS[place] for place in rng.integers(0, len(KEYS), count)]


def sharded(kind: str, task: Task, shards: int, merge_every: int = 500, **params: float) -> ShardedLearner:
    model = Model("m", kind, dict(params))
    return ShardedLearner(lambda: make_learner(model, COLUMNS, None, task), shards, way_of(model, task), merge_every)


def drive(learner: Learner, X_BF: np.ndarray, y_B: np.ndarray, keys: list[str], cuts: list[int]) -> np.ndarray:
    """Predict every row and learn it 40 rows later, in batches that end at the cuts."""
    count = len(y_B)
    order = np.argsort(np.concatenate([np.arange(count), np.arange(count) + 40.5]), kind="stable")
    action, index = np.where(order < count, PREDICT, LEARN).astype(np.int8), order % count
    said = []
    for start, stop in pairwise([0, *cuts, 2 * count]):
        at = index[start:stop]
        if isinstance(learner, ShardedLearner):
            learner.place(text_of([keys[place] for place in at]))
        said.append(learner.step(X_BF[at], y_B[at], action[start:stop]))
    answers: np.ndarray = np.concatenate(said)[action == PREDICT]
    return answers


@pytest.mark.parametrize("kind", ["prior", "linear"])
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_cutting_rows_otherwise_changes_no_bit(kind: str, task: Task) -> None:
    X_BF, y_B, keys = rows(4_000, task)
    whole, cut = (sharded(kind, task, 3) for _ in range(2))
    cuts = sorted({int(at) for at in np.random.default_rng(1).integers(1, 8_000, 60)})

    said = drive(whole, X_BF, y_B, keys, [])
    assert np.array_equal(drive(cut, X_BF, y_B, keys, cuts), said)
    for name, array in whole.state().items():
        assert np.array_equal(cut.state()[name], array), name


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_prior_is_after_a_merge_what_one_that_saw_everything_is(task: Task) -> None:
    X_BF, y_B, keys = rows(3_000, task)
    many, one = sharded("prior", task, 4, merge_every=3_000), make_learner(Model("m", "prior", {}), COLUMNS, None, task)
    for learner in (many, one):
        drive(learner, X_BF, y_B, keys, [])

    assert many.predict(X_BF[:1]) == pytest.approx(one.predict(X_BF[:1]), rel=1e-12)


def test_the_scaler_is_after_a_merge_what_one_that_saw_everything_has() -> None:
    """Its weights are an average; its statistics are exact to rounding."""
    X_BF, y_B, keys = rows(3_000, Task())
    many, one = sharded("linear", Task(), 4, merge_every=3_000), make_learner(Model("m", "linear", {}), COLUMNS)
    for learner in (many, one):
        drive(learner, X_BF, y_B, keys, [])
    for name in ("seen", "mean", "variance"):
        found, expected = (np.asarray(learner.state()[name], float) for learner in (many.merged, one))
        np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize(("shards", "loss_more"), [(2, 0.02), (4, 0.05)])
def test_an_averaged_model_is_nearly_as_good(shards: int, loss_more: float) -> None:
    """Of the log loss over the second half, so much more at most; and far better than no features."""
    X_BF, y_B, keys = rows(40_000, Task(), seed=3)

    def loss(learner: Learner) -> float:
        said = drive(learner, X_BF, y_B, keys, [])
        return float(np.mean([log_loss(p, y > 0.5) for p, y in zip(said[20_000:], y_B[20_000:], strict=True)]))

    one = loss(make_learner(Model("m", "linear", {"lr": 0.02}), COLUMNS))
    many = loss(sharded("linear", Task(), shards, merge_every=1_000, lr=0.02))
    prior = loss(make_learner(Model("m", "prior", {}), COLUMNS))
    assert many < one + loss_more < prior - 0.2


def test_it_goes_on_bit_for_bit_after_a_restore() -> None:
    X_BF, y_B, keys = rows(4_000, Task())
    straight, first, second = (sharded("linear", Task(), 3) for _ in range(3))
    half = slice(0, 2_345), slice(2_345, 4_000)
    for part in half:
        straight_said = drive(straight, X_BF[part], y_B[part], keys[part], [])
    drive(first, X_BF[half[0]], y_B[half[0]], keys[half[0]], [])
    second.restore(first.state())

    assert np.array_equal(drive(second, X_BF[half[1]], y_B[half[1]], keys[half[1]], []), straight_said)


def test_a_state_of_another_number_of_shards_is_refused() -> None:
    with pytest.raises(ModelError, match="a model of 3 shards is asked for, the state has 2"):
        sharded("prior", Task(), 3).restore(sharded("prior", Task(), 2).state())
    with pytest.raises(ModelError, match="the state has no"):
        sharded("prior", Task(), 3).restore(make_learner(Model("m", "prior", {}), ()).state())


def test_only_kinds_that_can_become_one_have_shards() -> None:
    """The file says so too (tests/streams/mistakes)."""
    model = Model("m", "prior", {}, shards=2)

    assert isinstance(make_learner(model, COLUMNS), ShardedLearner)
    with pytest.raises(PipelineError, match="models of kind 'last' cannot become one"):
        make_learner(msgspec.structs.replace(model, kind="last"), COLUMNS)


def test_the_cpu_time_of_its_threads_is_counted_and_not_that_of_the_callers() -> None:
    """A clock that moves by a second at each look; a few rows are learned where the caller's own clock sees it."""
    ticks, task, model = iter(range(10**9)), TASKS["binary"], Model("m", "prior", {})
    way = way_of(model, task)
    learner = ShardedLearner(lambda: make_learner(model, COLUMNS), 2, way, clock=lambda: float(next(ticks)))
    X_BF, y_B, keys = rows(LEAST_THREADED, task)
    found = []
    for rows_now in (LEAST_THREADED - 1, LEAST_THREADED):
        learner.place(text_of(keys[:rows_now]))
        learner.learn(X_BF[:rows_now], y_B[:rows_now])
        found.append(learner.threads_s)

    assert found[0] == 0.0
    assert found[1] >= 2.0
