"""What networks get of rows: compared with plain NumPy, and bit for bit with the compiled multi-layer perceptron."""

from __future__ import annotations

import doctest
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import preparation, vocabulary
from models.mlp import MlpLearner
from models.preparation import Preparation, Sizes
from models.vocabulary import CodeCounts
from streams.errors import ModelError
from streams.frames import Column
from streams.pipeline import Model

Floats = npt.NDArray[np.float64]

COLUMNS = (Column("delay", False), Column("carrier", True), Column("distance", False), Column("origin", True))
ABSURD = (np.nan, np.inf, -np.inf, 1e31, -1e308)
NO_CODES = (np.nan, np.inf, -1.0, 2.5, 2.0**53)


def model(kind: str = "torch:logistic", **params: Any) -> Model:
    return Model("net", kind, params)


def rows_of(rows: int, seed: int = 0) -> Floats:
    """Give rows of COLUMNS with holes and absurd values in every column."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(1e6, 40, rows), rng.lognormal(6, 1, rows)
    codes = rng.zipf(1.5, rows) % 1_000, rng.integers(0, 3, rows)
    X = np.column_stack([numbers[0], codes[0], numbers[1], codes[1]]).astype(float)
    for column in COLUMNS:
        place = COLUMNS.index(column)
        where = rng.random(rows) < 0.1
        X[where, place] = rng.choice(NO_CODES if column.is_category else ABSURD, where.sum())
    return X


def is_there(x_B: Floats) -> npt.NDArray[np.bool_]:
    return np.abs(np.nan_to_num(x_B, nan=np.inf)) <= 1e30


def entries_of(x_B: Floats, most: int) -> dict[float, int]:
    """Count codes in plain Python; entry 1 is the most frequent one, of equals the smallest."""
    codes = Counter(x for x in x_B.tolist() if 0 <= x < 2**53 and x == np.floor(x))
    ranked = sorted(codes, key=lambda code: (-codes[code], code))
    return {code: entry for entry, code in enumerate(ranked[:most], 1)}


def test_numbers_are_scaled_by_the_training_rows_and_cut() -> None:
    """Mean and deviation are those of the rows that have the number; missing is 0, its absence a number of its own."""
    X, new = rows_of(5_000), np.vstack([rows_of(1_000, seed=1), [[2e6, 0.0, -1e9, 0.0]]])
    made = Preparation.fit(X, COLUMNS, model())
    numbers, _ = made.apply(new)

    assert made.sizes.numbers == 4
    for place, column in enumerate((0, 2)):
        seen, x = X[is_there(X[:, column]), column], new[:, column]
        with np.errstate(invalid="ignore"):
            expected = np.clip((x - seen.mean()) / seen.std(), -10.0, 10.0)
        expected = np.where(is_there(x), expected, 0.0)

        assert np.allclose(numbers[:, place], expected, rtol=1e-5, atol=1e-6)
        assert np.array_equal(numbers[:, 2 + place], ~is_there(x))
    assert numbers[-1, :2].tolist() == [10.0, -10.0]


def test_a_number_that_no_training_row_lacked_has_no_absence() -> None:
    """A column of zeros would teach nothing."""
    X = rows_of(500)
    X[:, 0] = 1.0 + np.arange(500)
    made = Preparation.fit(X, COLUMNS, model())
    numbers, _ = made.apply(np.array([[np.nan, 0.0, np.nan, 0.0]]))

    assert numbers.tolist() == [[0.0, 0.0, 1.0]]


@pytest.mark.parametrize("most", [5, 10_000])
def test_categories_are_entries_by_frequency(most: int) -> None:
    """Compared with a Counter, for every code that came and for others; what is no code is 0."""
    X = rows_of(5_000)
    made = Preparation.fit(X, COLUMNS, model(vocabulary=most))
    strange = np.array([[0.0, code, 0.0, code] for code in (*NO_CODES, 5e6, 2.0**53 - 1)])
    _, entries = made.apply(np.vstack([X, strange]))
    for place, column in enumerate((1, 3)):
        expected = entries_of(X[:, column], most)

        assert entries[: len(X), place].tolist() == [expected.get(code, 0) for code in X[:, column].tolist()]
        assert not entries[len(X) :, place].any()
        assert made.vocabularies[place] == len(expected) + 1
        assert made.codes(place).tolist() == list(expected)


@pytest.mark.parametrize("bits", [1, 12])
def test_torch_mlp_gets_what_the_compiled_mlp_gets(bits: int) -> None:
    """The scaler is bit-equal to one that learned the same rows online, inputs are its inputs rounded to float32."""
    X, new = rows_of(3_000), rows_of(1_000, seed=1)
    learner = MlpLearner(Model("net", "mlp", {"bits": bits}), COLUMNS)
    learner.learn(X, np.zeros(len(X)))
    made = Preparation.fit(X, COLUMNS, model("torch:mlp", bits=bits))
    numbers, slots = made.apply(new)
    expected_numbers, expected_slots = learner.inputs(new)

    assert all(np.array_equal(array, learner.state()[name]) for name, array in made.scaler._asdict().items())
    assert np.array_equal(numbers, expected_numbers.astype(np.float32))
    assert np.array_equal(slots, expected_slots)
    assert made.sizes == Sizes(2, (2**bits, 2**bits), bits)
    assert (slots == -1).any()


@pytest.mark.parametrize("kind", ["torch:resmlp", "torch:mlp"])
def test_only_the_rows_named_are_learned_from(kind: str) -> None:
    """What validation and test hold shows in nothing."""
    X = rows_of(3_000)
    rows = np.sort(np.random.default_rng(2).choice(3_000, 1_000, replace=False))
    others = np.setdiff1d(np.arange(3_000), rows)
    expected = Preparation.fit(X[rows], COLUMNS, model(kind)).state()
    X[others] = 3.0
    found = Preparation.fit(X, COLUMNS, model(kind), rows).state()

    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], array) for name, array in expected.items())


def test_reading_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the chunks that are read, nor how often counts are united."""
    X = rows_of(3_000)
    expected = Preparation.fit(X, COLUMNS, model()).state()
    monkeypatch.setattr(preparation, "CHUNK_ROWS", 7)
    monkeypatch.setattr(vocabulary, "MOST_WAITING", 100)
    found = Preparation.fit(X, COLUMNS, model()).state()

    assert all(np.array_equal(found[name], array) for name, array in expected.items())


@pytest.mark.parametrize("kind", ["torch:logistic", "torch:mlp"])
def test_cuts_change_no_bit(kind: str) -> None:
    """A row is prepared as if it were alone, wherever it lies in memory."""
    X, made = rows_of(300), Preparation.fit(rows_of(300), COLUMNS, model(kind))
    numbers, categories = made.apply(X)
    parts = [made.apply(X[start:stop]) for start, stop in ((0, 1), (1, 8), (8, 300), (300, 300))]

    assert np.array_equal(np.concatenate([part for part, _ in parts]), numbers)
    assert np.array_equal(np.concatenate([part for _, part in parts]), categories)
    assert np.array_equal(made.apply(np.asfortranarray(X))[0], numbers)


def test_a_constant_is_always_zero() -> None:
    """Its deviation is exactly 0, whatever the constant's last bit."""
    X = np.full((1_000, 1), 0.1)
    numbers, _ = Preparation.fit(X, (Column("x", False),), model()).apply(np.array([[0.1], [7.0]]))

    assert numbers.tolist() == [[0.0], [0.0]]


@given(st.lists(st.floats() | st.sampled_from(ABSURD), min_size=1, max_size=20), st.floats())
def test_numbers_are_always_finite_and_cut(values: list[float], new: float) -> None:
    """Whatever comes."""
    made = Preparation.fit(np.array(values)[:, None], (Column("x", False),), model())
    numbers, _ = made.apply(np.array([[new]]))

    assert np.isfinite(numbers).all()
    assert np.abs(numbers).max() <= 10.0
    assert made.is_finite()


@pytest.mark.parametrize("kind", ["torch:logistic", "torch:mlp"])
def test_a_restored_one_does_the_same(kind: str) -> None:
    """And its copies are its own: nothing that is done to them reaches it."""
    X = rows_of(500)
    made, other = Preparation.fit(X, COLUMNS, model(kind)), Preparation(COLUMNS, model(kind))
    state = made.state()
    other.restore(state)
    for array in state.values():
        array[...] = 0

    assert other.sizes == made.sizes
    assert other.size_bytes() == made.size_bytes() > 0
    assert all(np.array_equal(a, b) for a, b in zip(made.apply(X), other.apply(X), strict=True))


def test_one_that_knows_nothing_says_so() -> None:
    """Every number is 0, and every category unknown."""
    numbers, categories = Preparation(COLUMNS, model()).apply(rows_of(50))

    assert (numbers.shape, categories.shape) == ((50, 2), (50, 2))
    assert not numbers.any()
    assert not categories.any()


def test_no_columns_of_a_kind_are_no_matter() -> None:
    """Rows of numbers alone, of categories alone, or of nothing at all."""
    number, category = (Column("x", False),), (Column("c", True),)
    X = np.array([[1.0], [2.0]])

    assert [part.shape for part in Preparation.fit(X, number, model()).apply(X)] == [(2, 1), (2, 0)]
    assert [part.shape for part in Preparation.fit(X, category, model()).apply(X)] == [(2, 0), (2, 1)]
    assert [part.shape for part in Preparation.fit(X[:, :0], (), model()).apply(X[:, :0])] == [(2, 0), (2, 0)]


DAMAGED: dict[str, tuple[dict[str, Any], str]] = {
    "no mean": ({"mean": None}, "mean is none"),
    "a mean of another shape": ({"mean": np.zeros(3)}, r"mean is float64 of shape \(3,\)"),
    "codes as numbers": ({"codes": np.zeros(2)}, "codes is float64"),
    "a mean that is not a number": ({"mean": np.array([np.nan, 0.0])}, "mean is beyond"),
    "a variance below 0": ({"variance": np.array([1.0, -1.0])}, "variance is below"),
    "an infinite variance": ({"variance": np.array([1.0, np.inf])}, "variance"),
    "fewer codes than said": ({"codes": np.array([1, 2])}, "2 codes found"),
    "a count below 0": ({"entries": np.array([-1, 4]), "codes": np.array([1, 2, 3])}, "vocabularies"),
    "more entries than allowed": ({"entries": np.array([6, 0]), "codes": np.arange(6)}, "at most 5"),
    "a code twice": ({"entries": np.array([2, 1]), "codes": np.array([1, 1, 1])}, "twice"),
    "a code below 0": ({"entries": np.array([1, 0]), "codes": np.array([-1])}, "below 0"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_state_is_refused(case: str) -> None:
    """In one line, and nothing changes."""
    made = Preparation.fit(rows_of(500), COLUMNS, model(vocabulary=5))
    before, (changes, message) = made.state(), DAMAGED[case]
    state = {name: array for name, array in (before | changes).items() if array is not None}
    with pytest.raises(ModelError, match=message):
        made.restore(state)

    assert all(np.array_equal(array, before[name]) for name, array in made.state().items())


def test_a_hashed_one_refuses_absences() -> None:
    """Its width is that of the compiled learner."""
    made = Preparation.fit(rows_of(500), COLUMNS, model("torch:mlp"))

    with pytest.raises(ModelError, match="absences"):
        made.restore(made.state() | {"is_holed": np.array([True, False])})


def test_codes_are_counted_over_any_number_of_parts() -> None:
    """An empty one among them."""
    counts = CodeCounts()
    for part in ([3.0, 3.0, 1.0], [], [1.0, 1.0, 2.0, np.nan]):
        counts.add(np.array(part))

    assert counts.most_frequent(2).tolist() == [1, 3]
    assert counts.most_frequent(9).tolist() == [1, 3, 2]


def test_examples_in_the_docstrings_run() -> None:
    """The numbers in the docstrings are the numbers the code gives."""
    names = {"np": np, "Model": Model, "Column": Column}

    assert doctest.testmod(preparation, extraglobs=names).failed == 0
    assert doctest.testmod(vocabulary).failed == 0
