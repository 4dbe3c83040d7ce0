"""The contract of learners: our own kinds keep it, and each rule has a learner that breaks it and is caught."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from models import contract
from models.contained import bare
from models.contract import CHECKS, Finding, check_contract
from models.learner import Learner, make_learner
from models.made_up_rows import COLUMNS, task_of
from streams.model_kinds import KINDS, ONLINE_KINDS
from streams.pipeline import Model, TaskKind

KEY = b"k" * 32
ROOT = Path(__file__).parents[2]
LOGISTIC = {"use": "linear_model.LogisticRegression"}
STEPS = [
    {"use": "preprocessing.StandardScaler", "only": "numbers"},
    {"use": "preprocessing.FeatureHasher", "n_features": 32, "only": "categories"},
    LOGISTIC,
]
SCALED = Model("m", "river:compose.Pipeline", {"steps": STEPS})
RIVER = {
    "binary": SCALED,
    "multiclass": Model("m", "river:naive_bayes.GaussianNB", {"categories": "drop"}),
    "regression": Model("m", "river:tree.HoeffdingTreeRegressor", {"categories": "drop", "leaf_prediction": "mean"}),
}


@pytest.fixture(autouse=True)
def one_call_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """How fast a learner is, is not asked here."""
    monkeypatch.setattr(contract, "TIMED_S", 0.0)


def findings(model: Model, task: TaskKind = "binary", rows: int = 400, growth: float = 4.0) -> list[Finding]:
    def make() -> Learner:
        return bare(make_learner(model, COLUMNS, KEY, task_of(task)))

    return check_contract(make, task_of(task), rows=rows, growth=growth)


def broken(found: list[Finding]) -> dict[str, str]:
    return {finding.check: finding.text for finding in found if not finding.passed}


@pytest.mark.parametrize(("kind", "task"), [(kind, task) for kind in ONLINE_KINDS for task in KINDS[kind].tasks])
def test_every_kind_of_ours_keeps_the_contract(kind: str, task: TaskKind) -> None:
    """A tree grows as it splits: that is what growth is allowed for."""
    params = {"window_size": 50} if kind == "half_space_trees" else {}  # so that the first window fills
    # 402 rows: the last label is a yes, and there are not as many of yes as of no.
    found = findings(Model("m", kind, params), task, rows=402, growth=100.0 if "tree" in kind else 4.0)

    assert broken(found) == {}
    assert [finding.check for finding in found] == [*CHECKS]


@pytest.mark.parametrize("task", RIVER)
def test_river_models_keep_the_contract(task: TaskKind) -> None:
    """As for ours."""
    assert broken(findings(RIVER[task], task, growth=100.0 if task == "regression" else 4.0)) == {}


@pytest.mark.parametrize(
    ("name", "task"), [("Running", "binary"), ("Stepping", "regression"), ("Shares", "multiclass")]
)
def test_a_users_learner_keeps_the_contract(name: str, task: TaskKind) -> None:
    assert broken(findings(Model("m", f"tests.own_learners:{name}", {}), task)) == {}


@pytest.mark.parametrize(
    ("name", "check", "reason"),
    [
        ("Forgetful", "state goes round", "after restore, answers differ in .* rows, first in row"),
        ("Averaging", "batches change nothing", "learned one by one, answers differ in 200 of 200 rows"),
        ("Peeking", "predicting changes nothing", "predict changes the state: 'mean' is not what it was"),
        ("Moody", "the same in every instance", "two learners with the same rows answer differently"),
        ("Hoarding", "bounded memory", r"bytes a row; 4 are allowed"),
        ("Pickled", "state goes round", "state gives object values as 'mean'; allowed: arrays of numbers"),
        ("Endless", "answers every row", "answers were not finite or no probabilities"),
        ("Misshapen", "answers every row", r"answers an array of shape \(1,\) for 5 rows; needed: \(5,\)"),
        ("Fragile", "answers every row", "failed in learn: ValueError: it is beyond what I know"),
    ],
)
def test_a_learner_that_breaks_a_rule_is_caught_with_the_reason(name: str, check: str, reason: str) -> None:
    params = {"limit": 1.0} if name == "Fragile" else {}
    found = broken(findings(Model("m", f"tests.own_learners:{name}", params)))

    assert re.search(reason, found[check])
    assert "\n" not in found[check]


def test_the_example_of_the_docs_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what people will begin with."""
    page = (ROOT / "docs" / "own-learners.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "shop_models.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()

    assert broken(findings(Model("m", "shop_models:NearestMean", {"rate": 0.1}))) == {}
    assert all(check in page for check in CHECKS)
