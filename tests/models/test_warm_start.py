"""Warm starts: what means the same is taken over, by code where categories have other places."""

from __future__ import annotations

import numpy as np
import torch

from models.learner import Matrix, State
from models.networks import make_network
from models.preparation import Preparation
from models.warm_start import warm_started
from streams.frames import Column
from streams.pipeline import Model, Task

COLUMNS = (Column("x", False), Column("c", True), Column("d", True))
MODEL = Model("net", "torch:resmlp", {"width": 8, "blocks": 1, "embedding": 4})
OLD = np.array([[1.0, 5.0, 70.0], [2.0, 5.0, 80.0], [3.0, 6.0, 80.0]])  # c: 5, 6; d: 80, 70
NEW = np.array([[4.0, 6.0, 80.0], [5.0, 6.0, 90.0], [6.0, 9.0, 90.0], [7.0, 5.0, 90.0]])  # c: 6, 5 and 9; d: 90, 80


def prepared(X_BF: Matrix, model: Model = MODEL) -> Preparation:
    return Preparation.fit(X_BF, COLUMNS, model)


def arrays(preparation: Preparation, seed: int, model: Model = MODEL, task: Task | None = None) -> State:
    torch.manual_seed(seed)
    network = make_network(model, preparation.sizes, task or Task())
    return {name: value.numpy() for name, value in network.state_dict().items()}


def test_rows_of_categories_are_taken_by_their_code() -> None:
    there, here = prepared(OLD), prepared(NEW)
    parent, fresh = arrays(there, 1), arrays(here, 2)

    taken = warm_started(fresh, here, parent, there)

    assert not isinstance(taken, str)
    rows, old, new = (state["categories.weight"] for state in (taken, parent, fresh))
    places = {code: 1 + i for i, code in enumerate(here.codes(0).tolist())}
    second = {code: 5 + i for i, code in enumerate(here.codes(1).tolist())}
    assert np.array_equal(rows[0], old[0])  # unknown of c
    assert np.array_equal(rows[places[5]], old[1])
    assert np.array_equal(rows[places[6]], old[2])
    assert np.array_equal(rows[places[9]], new[places[9]])
    assert np.array_equal(rows[4], old[3])  # unknown of d
    assert np.array_equal(rows[second[80]], old[4])
    assert np.array_equal(rows[second[90]], new[second[90]])


def test_all_other_weights_are_the_parent_s() -> None:
    there, here = prepared(OLD), prepared(NEW)
    parent = arrays(there, 1)

    taken = warm_started(arrays(here, 2), here, parent, there)

    assert not isinstance(taken, str)
    others = taken.keys() - {"categories.weight"}
    assert len(others) > 5
    assert all(np.array_equal(taken[name], parent[name]) for name in others)


def test_the_hashed_table_is_taken_as_it_lies() -> None:
    model = Model("net", "torch:mlp", {"hidden": (4,), "bits": 3})
    there, here = prepared(OLD, model), prepared(NEW, model)
    parent = arrays(there, 1, model)
    parent["categories.weight"] = np.arange(36, dtype=np.float32).reshape(9, 4)

    taken = warm_started(arrays(here, 2, model), here, parent, there)

    assert not isinstance(taken, str)
    assert np.array_equal(taken["categories.weight"], parent["categories.weight"])


def test_the_scale_of_labels_is_that_of_the_new_examples() -> None:
    there, here, task = prepared(OLD), prepared(NEW), Task("regression")
    parent, fresh = arrays(there, 1, task=task), arrays(here, 2, task=task)
    parent["label"], fresh["label"] = np.array([3.0, 1.0, 4.0]), np.array([4.0, 9.0, 16.0])

    taken = warm_started(fresh, here, parent, there)

    assert not isinstance(taken, str)
    assert taken["label"].tolist() == [4.0, 9.0, 16.0]


def test_another_column_with_missing_values_needs_a_new_beginning() -> None:
    holed = NEW.copy()
    holed[0, 0] = np.nan
    there, here = prepared(OLD), prepared(holed)

    assert warm_started(arrays(here, 2), here, arrays(there, 1), there) == "other columns have missing values"


def test_layers_of_another_width_need_a_new_beginning() -> None:
    wide = Model("net", "torch:resmlp", {"width": 16, "blocks": 1, "embedding": 4})
    there, here = prepared(OLD), prepared(NEW)

    found = warm_started(arrays(here, 2, wide), here, arrays(there, 1), there)

    assert found == "its first.weight has shape (8, 9), (16, 9) is needed"
