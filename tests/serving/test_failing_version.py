"""A version that is sound when it is loaded and fails at rows that come: the last good one answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serving.candidate import FOLLOW_EVERY_US, Candidate
from streams.metrics import RoleMetrics
from streams.pipeline import Model
from tests.rows import COLUMNS, control
from tests.serving.test_candidate import PRIOR, publish

ROWS = np.zeros((3, 2))


class Failing:
    """A model of a library that cannot answer rows it has never seen the like of."""

    def __init__(self, said: list[float] | None = None) -> None:
        self.said, self.replaced_predictions = said, 0

    def predict(self, x_BF: object) -> np.ndarray:
        if self.said is None:
            raise RuntimeError("size of tensor a (2) must match the size of tensor b (3)")
        return np.array(self.said)


class Stage:
    """A candidate with two versions, of which the second is at hand and fails."""

    def __init__(self, directory: Path, failing: Failing, model: Model = PRIOR) -> None:
        self.known, self.metrics, self._directory = control(), RoleMetrics("serve", "p"), directory
        self.candidate = Candidate(model, COLUMNS, directory, self.known, self.metrics)
        self.candidate.begin()
        self.turn = 0
        for examples in (2, 8):
            self.publish(examples)
        self.candidate.at_hand.learner = failing  # type: ignore[assignment]  # all that is asked of it here

    def publish(self, examples: int) -> None:
        publish(self.known, self._directory, (0, examples))
        self.follow()

    def follow(self) -> str:
        self.turn += 1
        self.candidate.follow(self.turn * FOLLOW_EVERY_US)
        return self.candidate.version

    def count(self, what: str) -> float | None:
        labels = {"pipeline": "p", "role": "serve", "candidate": "prior", "what": what}
        return self.metrics.registry.get_sample_value("millrace_incidents_total", labels)

    def version_told(self) -> float | None:
        labels = {"pipeline": "p", "role": "serve", "candidate": "prior"}
        return self.metrics.registry.get_sample_value("millrace_version_examples", labels)


@pytest.mark.parametrize("failing", [Failing(), Failing([0.1, np.nan, 0.2]), Failing([np.inf, 0.1, 0.2])])
def test_the_last_good_version_answers_in_place_of_one_that_fails(tmp_path: Path, failing: Failing) -> None:
    """The whole batch, under its own number; the one that failed is refused for good, and a newer one is taken."""
    stage = Stage(tmp_path, failing)

    assert stage.candidate.predict(ROWS).tolist() == [3 / 4] * 3
    assert (stage.candidate.version, stage.version_told()) == ("0.2", 2.0)
    assert (stage.count("version_refused"), stage.count("answer_failed")) == (1.0, None)
    assert stage.follow() == "0.2"
    stage.publish(9)
    assert stage.candidate.predict(ROWS).tolist() == [10 / 11] * 3


def test_where_no_version_can_answer_rows_get_what_an_untrained_model_says(tmp_path: Path) -> None:
    """Only those rows, and they are counted: a row that nobody can answer says nothing against the newer version."""
    stage = Stage(tmp_path, Failing([0.1, np.nan, 0.2]))
    before = stage.candidate._before
    assert before is not None
    before.learner = Failing([0.7, 0.8, np.nan])  # type: ignore[assignment]  # as above

    assert stage.candidate.predict(ROWS).tolist() == [0.1, 0.5, 0.2]
    assert (stage.candidate.version, stage.count("answer_failed")) == ("0.8", 1.0)


def test_answers_that_a_library_gave_no_number_for_are_counted(tmp_path: Path) -> None:
    """Its learner has put something in their place; the version stays."""
    failing = Failing([0.1, 0.5, 0.2])
    stage = Stage(tmp_path, failing)
    failing.replaced_predictions = 4

    def predict(_: object) -> np.ndarray:
        failing.replaced_predictions += 1
        return np.array([0.1, 0.5, 0.2])

    failing.predict = predict  # type: ignore[assignment,method-assign]  # as River's does
    stage.candidate.predict(ROWS)

    assert (stage.candidate.version, stage.count("answer_not_finite"), stage.count("answer_failed")) == (
        "0.8",
        1.0,
        None,
    )


def test_an_answer_that_cannot_be_explained_is_given_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, Failing([0.1, 0.2, 0.3]))

    def broken(*_: object) -> None:
        raise IndexError("no such leaf")

    monkeypatch.setattr("models.explanation.explain", broken)

    assert stage.candidate.explain(ROWS) is None
    assert stage.count("answer_failed") == 3.0
