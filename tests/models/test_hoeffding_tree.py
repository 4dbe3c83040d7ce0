"""The compiled Hoeffding tree is River's: the same splits at the same rows, and every probability within 1e-9."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from river import tree as river_tree
from river.tree.splitter import nominal_splitter_classif

from models.hoeffding_arrays import EQUAL, LEAF, MULTIWAY, NUMERIC
from models.hoeffding_tree import HoeffdingTreeLearner
from models.learner import LEARN, PREDICT, State, make_learner
from streams.errors import ModelError, PipelineError
from streams.frames import Column
from streams.pipeline import Model, Task
from tests.models.streams_of_river import Stream, flights, made_up, published

river: Any = river_tree  # untyped
Floats = npt.NDArray[np.float64]
WITHIN = 1e-9
pytestmark = pytest.mark.timeout(300)  # the first of them compiles, which a busy machine takes long for
EAGER: dict[str, Any] = {"grace_period": 30, "delta": 0.01, "tau": 0.3}  # hundreds of nodes after a few thousand rows


def make(stream: Stream, params: dict[str, Any]) -> HoeffdingTreeLearner:
    return HoeffdingTreeLearner(Model("m", "hoeffding_tree", params), stream.columns, stream.task)


def make_river(stream: Stream, params: dict[str, Any]) -> Any:
    own = {name: value for name, value in params.items() if name not in {"n_splits", "max_size"}}
    splitter = river.splitter.GaussianSplitter(int(params.get("n_splits", 10)))
    return river.HoeffdingTreeClassifier(splitter=splitter, nominal_attributes=stream.categories, **own)


def in_turn(stream: Stream, delay: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int8]]:
    """Give the rows in which each is predicted, and learned up to `delay` rows later."""
    rows = len(stream.y)
    due = np.arange(rows) + np.random.default_rng(1).integers(0, delay + 1, rows)
    order = np.argsort(np.concatenate([np.arange(rows), due]), kind="stable")
    return order % rows, np.where(order < rows, PREDICT, LEARN).astype(np.int8)


def grown(root: Any) -> Any:
    """Give a tree of River's as nested tuples: the question of a branch and its children, the classes of a leaf."""
    if not hasattr(root, "children"):
        return {place: pytest.approx(rows, abs=WITHIN) for place, rows in root.stats.items()}
    kind = type(root).__name__
    if kind == "NominalMultiwayBranch":
        asked: Any = list(root._mapping)
    else:
        asked = root.value if kind == "NominalBinaryBranch" else pytest.approx(root.threshold, rel=WITHIN)
    return (root.feature, asked, [grown(child) for child in root.children])


def ours(state: State, stream: Stream, node: int = 0) -> Any:
    """Give our tree in the same way."""
    kind = state["kind"][node]
    if kind == LEAF:
        known = state["classes"][node][: state["known"][node]].tolist()
        return {place: state["stats"][node, place] for place in known}
    child, children = int(state["first"][node]), []
    while child >= 0:
        children.append(child)
        child = int(state["next"][child])
    asked = [int(state["category"][child]) for child in children] if kind == MULTIWAY else state["value"][node]
    assert kind in {MULTIWAY, EQUAL, NUMERIC}
    return (stream.columns[state["column"][node]].name, asked, [ours(state, stream, child) for child in children])


def assert_equal_to_river(stream: Stream, params: dict[str, Any], delay: int, least_nodes: int) -> None:
    event, action = in_turn(stream, delay)
    learner, reference, rows = make(stream, params), make_river(stream, params), stream.rows
    said = learner.step(stream.X[event], stream.y[event], action).reshape(len(event), -1)
    expected = np.full(said.shape, np.nan)
    for at, i in enumerate(event.tolist()):
        if action[at] == LEARN:
            reference.learn_one(rows[i], int(stream.y[i]))
        else:
            given = reference.predict_proba_one(rows[i])
            places = range(said.shape[1]) if said.shape[1] > 1 else [1]
            equal_shares = 1.0 / max(len(stream.task.classes), 2)
            expected[at] = [given.get(place, 0.0) if given else equal_shares for place in places]

    np.testing.assert_allclose(said, expected, rtol=0, atol=WITHIN)
    assert np.nanstd(said) > 0.01
    state = learner.state()
    assert state["counts"][0] >= least_nodes
    assert ours(state, stream) == grown(reference._root)


@pytest.mark.parametrize(
    ("name", "params", "nodes"),
    [
        ("Phishing", {}, 3),
        ("Phishing", {**EAGER, "leaf_prediction": "nb"}, 20),
        ("Bananas", {}, 7),
        ("Bananas", {**EAGER, "split_criterion": "hellinger", "n_splits": 25}, 50),
        ("ImageSegments", {}, 1),
        ("ImageSegments", {**EAGER, "split_criterion": "gini"}, 30),
    ],
)
def test_on_published_streams_it_is_rivers_tree(name: str, params: dict[str, Any], nodes: int) -> None:
    assert_equal_to_river(published(name), params, 0, nodes)


class Sorted(set[int]):
    """A set that is gone through in order."""

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(super().__iter__()))


@pytest.fixture
def smallest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let River take the smallest of equally good categories; it takes the first of a set, which of texts is any."""
    splitter: Any = nominal_splitter_classif.NominalSplitterClassif
    begin = splitter.__init__

    def begin_sorted(self: Any) -> None:
        begin(self)
        self._att_values = Sorted()

    monkeypatch.setattr(splitter, "__init__", begin_sorted)


@pytest.mark.usefixtures("smallest_first")
@pytest.mark.parametrize(("params", "delay"), [({}, 300), (EAGER, 0), ({**EAGER, "binary_split": True}, 300)])
def test_on_flights_with_categories_and_late_labels_it_is_rivers_tree(params: dict[str, Any], delay: int) -> None:
    assert_equal_to_river(flights(5_000), params, delay, 3)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    ("params", "nodes"),
    [
        ({}, 90),
        ({"leaf_prediction": "nb", "nb_threshold": 20}, 90),
        ({"leaf_prediction": "mc", "split_criterion": "gini", "min_branch_fraction": 0.1}, 100),
        ({"binary_split": True, "delta": 0.1}, 100),
        ({"max_depth": 2, "n_splits": 5}, 50),
        ({"max_depth": 0}, 1),
        ({"max_share_to_split": 0.6}, 40),
    ],
)
def test_with_gaps_and_new_categories_every_setting_means_what_river_means(
    params: dict[str, Any], nodes: int, classes: int
) -> None:
    assert_equal_to_river(made_up(2_500, classes, seed=classes), {**EAGER, **params}, 0, nodes)


def test_it_splits_at_the_rows_at_which_river_does() -> None:
    stream = made_up(1_500, 2, seed=5)
    learner, reference, found, expected = make(stream, EAGER), make_river(stream, EAGER), [], []
    for i, row in enumerate(stream.rows):
        learner.learn(stream.X[i : i + 1], stream.y[i : i + 1])
        reference.learn_one(row, int(stream.y[i]))
        found.append(int(learner.state()["counts"][0]))
        expected.append(reference.n_nodes)

    assert found == expected
    assert len(set(found)) > 20


def test_cutting_rows_into_other_batches_changes_no_bit_of_answers_or_state() -> None:
    stream = made_up(2_000, 3, seed=6)
    action = np.random.default_rng(2).integers(0, 3, 2_000).astype(np.int8)
    whole, cut, found, start = make(stream, EAGER), make(stream, EAGER), [], 0
    expected = whole.step(stream.X, stream.y, action)
    for stop in (1, 2, 5, 700, 701, 1_999, 2_000):
        found.append(cut.step(stream.X[start:stop], stream.y[start:stop], action[start:stop]))
        start = stop

    assert np.array_equal(np.concatenate(found), expected, equal_nan=True)
    assert {name: array.tobytes() for name, array in whole.state().items()} == {
        name: array.tobytes() for name, array in cut.state().items()
    }
    assert np.isnan(expected[action != PREDICT]).all()


@pytest.mark.parametrize("binary_split", [False, True])
def test_a_restored_tree_goes_on_bit_for_bit_and_predicting_changes_nothing(binary_split: bool) -> None:
    stream = made_up(2_000, 3, seed=7)
    params = {**EAGER, "binary_split": binary_split, "max_depth": 3}  # both free cells, and watches too
    first, whole, second = (make(stream, params) for _ in range(3))
    first.learn(stream.X[:1_000], stream.y[:1_000])
    before = {name: array.tobytes() for name, array in first.state().items()}
    first.predict(stream.X)
    after = {name: array.tobytes() for name, array in first.state().items()}
    second.restore({name: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape) for name, a in first.state().items()})
    second.learn(stream.X[1_000:], stream.y[1_000:])
    whole.learn(stream.X, stream.y)

    assert after == before
    assert np.array_equal(second.predict(stream.X), whole.predict(stream.X))
    assert {n: a.tobytes() for n, a in second.state().items()} == {n: a.tobytes() for n, a in whole.state().items()}


def test_a_row_without_a_label_is_not_learned_and_nothing_learned_is_no_opinion() -> None:
    stream = made_up(50, 3, seed=8)
    learner = make(stream, {})
    learner.learn(stream.X, np.full(50, np.nan))

    np.testing.assert_allclose(learner.predict(stream.X), 1 / 3, rtol=0, atol=1e-15)
    assert make(made_up(9, 2, seed=8), {}).predict(stream.X[:3]).tolist() == [0.5, 0.5, 0.5]


def test_without_columns_it_gives_the_share_of_each_class() -> None:
    learner = HoeffdingTreeLearner(Model("m", "hoeffding_tree", {"grace_period": 5}), ())
    learner.learn(np.empty((40, 0)), (np.arange(40) % 4 == 3).astype(np.float64))

    assert learner.predict(np.empty((2, 0))).tolist() == [0.25, 0.25]


def test_memory_stays_below_max_size_with_endless_categories_and_what_was_learned_stays() -> None:
    rng = np.random.default_rng(3)
    X = np.column_stack([rng.normal(size=20_000), np.arange(20_000) // 2]).astype(np.float64)
    y = (X[:, 0] > 0).astype(np.float64)
    columns = (Column("x", False), Column("id", True))
    learner = HoeffdingTreeLearner(Model("m", "hoeffding_tree", {**EAGER, "max_size": 0.25}), columns)
    learner.learn(X, y)
    said = learner.predict(X)

    assert 0.2 * 2**20 < learner.size_bytes() <= 0.25 * 2**20 + 1_024
    assert np.isfinite(said).all()
    assert ((said > 0.5) == (y > 0.5))[:200].mean() > 0.9


@settings(max_examples=25, deadline=None)
@given(
    X=hnp.arrays(np.float64, st.tuples(st.integers(1, 60), st.just(4)), elements=st.floats(width=64)),
    seed=st.integers(0, 9),
)
def test_no_input_makes_the_tree_not_finite(X: Floats, seed: int) -> None:
    columns = (Column("a", False), Column("b", True), Column("c", False), Column("d", True))
    params: dict[str, Any] = {"grace_period": 2, "delta": 0.5, "tau": 0.9}
    learner = HoeffdingTreeLearner(Model("m", "hoeffding_tree", params), columns)
    y = np.random.default_rng(seed).integers(0, 2, len(X)).astype(np.float64)
    learner.learn(X, y)
    said = learner.predict(X)

    assert learner.is_finite()
    assert ((said >= 0.0) & (said <= 1.0)).all()


@pytest.mark.parametrize("bad", [np.inf, -np.inf, 1e31, np.nan])
def test_what_is_no_number_or_no_category_is_missing(bad: float) -> None:
    stream = made_up(1_000, 2, seed=9)
    X, gaps = stream.X.copy(), np.random.default_rng(4).random(stream.X.shape) < 0.1
    X[gaps] = bad
    spoiled, clean = make(stream, EAGER), make(stream, EAGER)
    spoiled.learn(X, stream.y)
    clean.learn(np.where(gaps, np.nan, X), stream.y)

    assert np.array_equal(spoiled.predict(X), clean.predict(np.where(gaps, np.nan, X)))
    assert not np.array_equal(spoiled.predict(stream.X), spoiled.predict(X))


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("kind", lambda a: a[:-1]),
        ("stats", lambda a: a.astype(np.float32)),
        ("first", lambda a: np.where(a >= 0, 0, a)),
        ("last", lambda a: np.full_like(a, -1)),
        ("watch", lambda a: a + 1_000),
        ("owner", lambda a: a + 10**9),
        ("classes", lambda a: a - 1),
        ("counts", lambda a: a[:3]),
        ("counts", lambda a: a + np.array([0, 0, 0, 10**6, 0, 0])),
        ("counts", lambda a: a * 10**12),
    ],
)
def test_a_state_that_would_lead_out_of_the_arrays_is_refused(name: str, spoil: Any) -> None:
    stream = made_up(1_000, 2, seed=10)
    learner = make(stream, EAGER)
    learner.learn(stream.X, stream.y)
    state = learner.state()
    with pytest.raises(ModelError, match=r"a Hoeffding tree's \w+ is not whole: .*"):
        make(stream, EAGER).restore({**state, name: spoil(state[name])})


def test_a_state_of_other_columns_or_classes_is_refused() -> None:
    stream, other = made_up(100, 2, seed=11), made_up(100, 3, seed=11)
    with pytest.raises(ModelError, match="is not whole"):
        make(other, {}).restore(make(stream, {}).state())
    with pytest.raises(ModelError, match="is not whole"):
        make(stream._replace(columns=stream.columns[:-1]), {}).restore(make(stream, {}).state())


@pytest.mark.parametrize(
    ("params", "task", "message"),
    [
        ({"split_criterion": "hellinger"}, Task("multiclass", ("a", "b", "c")), "knows two classes only"),
        ({}, Task("regression"), "is for a task that is binary or multiclass, this one is regression"),
        ({"leaf_prediction": "best"}, Task(), "leaf_prediction: .* allowed: mc, nb, nba"),
        ({"delta": 0.0}, Task(), "delta: 0.0 is not right; allowed: a number above 0 up to 1"),
        ({"grace": 5}, Task(), "grace: unknown key"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(params: dict[str, Any], task: Task, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        make_learner(Model("m", "hoeffding_tree", params), (Column("x", False),), None, task)
