"""A candidate that answers: with its newest version, or the last one that could be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models.learner import Learner, make_learner
from models.registry import write_version
from models.river_parts import RIVER_VERSION
from models.sealed import model_key
from models.version import encode_record
from serving.candidate import FOLLOW_EVERY_US, Candidate
from streams.control import Control
from streams.errors import UnavailableError
from streams.frames import Column
from streams.metrics import RoleMetrics
from streams.pipeline import Model
from tests.rows import COLUMNS, control
from tests.serving.shelf import Shelf

PRIOR = Model("prior", "prior", {})
NOW_US = 1_700_000_000_000_000


def candidate_of(known: Control, directory: Path) -> Candidate:
    """The baseline, untrained: it answers 0.5."""
    return Candidate(PRIOR, COLUMNS, directory, known, RoleMetrics("serve", "p"))


def trained(examples: int) -> Learner:
    """A baseline that has seen so many positive labels."""
    learner = make_learner(PRIOR, COLUMNS, None)
    learner.learn(np.zeros((examples, 2)), np.ones(examples))
    return learner


def publish(known: Control, directory: Path, order: tuple[int, int], columns: Any = COLUMNS) -> bytes:
    """Write and announce a version; gives its record."""
    version = write_version(directory, PRIOR, columns, trained(order[1]), order, NOW_US)
    assert version is not None
    record = encode_record(version)
    known.publish_version("prior", record)
    return record


def test_until_a_version_exists_the_untrained_model_answers(tmp_path: Path) -> None:
    """Serve never waits for learn."""
    candidate = candidate_of(control(), tmp_path)
    candidate.follow(0)

    assert candidate.version == "0.0"
    assert candidate.predict(np.zeros((2, 2))).tolist() == [0.5, 0.5]


def test_newer_versions_are_followed_older_ones_are_not(tmp_path: Path) -> None:
    """By lineage, then examples seen; repeats and zombies' versions change nothing."""
    known = control()
    candidate = candidate_of(known, tmp_path)
    versions = []
    for step, order in enumerate([(0, 2), (0, 8), (0, 4), (1, 1), (0, 9)]):
        publish(known, tmp_path, order)
        candidate.follow(step * FOLLOW_EVERY_US)
        versions.append(candidate.version)

    assert versions == ["0.2", "0.8", "0.8", "1.1", "1.1"]
    assert candidate.predict(np.zeros((1, 2))).tolist() == [2 / 3]


def test_the_control_topic_is_read_a_few_times_a_second(tmp_path: Path) -> None:
    """Not with every batch."""
    known = control()
    candidate = candidate_of(known, tmp_path)
    candidate.follow(0)
    publish(known, tmp_path, (0, 2))
    candidate.follow(FOLLOW_EVERY_US - 1)
    early = candidate.version
    candidate.follow(FOLLOW_EVERY_US)

    assert (early, candidate.version) == ("0.0", "0.2")


def test_a_version_that_cannot_be_used_leaves_the_old_one(tmp_path: Path) -> None:
    """A damaged blob, or no record at all: refused, counted once, and the next one is taken."""
    known, metrics = control(), RoleMetrics("serve", "p")
    candidate = Candidate(PRIOR, COLUMNS, tmp_path, known, metrics)
    publish(known, tmp_path, (0, 2))
    candidate.follow(0)
    bad = [
        msgspec.json.encode({**msgspec.json.decode(publish(known, tmp_path, (0, 3))), "digest": "0" * 64}),
        b"not a record",
    ]
    for step, record in enumerate(bad, 1):
        known.publish_version("prior", record)
        candidate.follow((2 * step) * FOLLOW_EVERY_US)
        candidate.follow((2 * step + 1) * FOLLOW_EVERY_US)
    refused = metrics.registry.get_sample_value(
        "millrace_incidents_total",
        {"pipeline": "p", "role": "serve", "candidate": "prior", "what": "version_refused"},
    )
    before = candidate.version
    publish(known, tmp_path, (0, 5))
    candidate.follow(100 * FOLLOW_EVERY_US)

    assert (before, candidate.version, refused) == ("0.2", "0.5", 2.0)


def test_answers_go_on_while_a_version_is_loaded(tmp_path: Path) -> None:
    """One at a time; when it is there, the newest by then is next."""
    known, shelf = control(), Shelf()
    candidate = Candidate(PRIOR, COLUMNS, tmp_path, known, RoleMetrics("serve", "p"), shelf)
    seen = []
    for step, examples in enumerate((2, 3, 4)):
        publish(known, tmp_path, (0, examples))
        candidate.follow(step * FOLLOW_EVERY_US)
        seen.append((candidate.version, len(shelf.waiting)))
    shelf.load()
    candidate.follow(3 * FOLLOW_EVERY_US)
    seen.append((candidate.version, len(shelf.waiting)))
    shelf.load()
    candidate.follow(3 * FOLLOW_EVERY_US)
    seen.append((candidate.version, len(shelf.waiting)))

    assert seen == [("0.0", 1), ("0.0", 1), ("0.0", 1), ("0.2", 1), ("0.4", 0)]
    assert candidate.predict(np.zeros((1, 2))).tolist() == [5 / 6]


def test_a_version_that_a_store_does_not_give_is_tried_again(tmp_path: Path) -> None:
    """Its record is as good as before."""
    known, metrics, shelf = control(), RoleMetrics("serve", "p"), Shelf()
    candidate = Candidate(PRIOR, COLUMNS, tmp_path, known, metrics, shelf)
    publish(known, tmp_path, (0, 2))
    candidate.follow(0)
    shelf.load(UnavailableError("cannot read s3://bucket/models/prior: away"))
    candidate.follow(FOLLOW_EVERY_US)
    before = candidate.version
    shelf.load()
    candidate.follow(2 * FOLLOW_EVERY_US)

    assert (before, candidate.version) == ("0.0", "0.2")
    labels = {"pipeline": "p", "role": "serve", "candidate": "prior", "what": "version_unread"}
    assert metrics.registry.get_sample_value("millrace_incidents_total", labels) == 1.0


def test_a_version_answers_from_the_columns_it_was_made_for(tmp_path: Path) -> None:
    """Whatever the list is now: by name, and what is no longer there is missing."""
    known, model = control(), Model("linear", "linear", {"lr": 0.01, "bits": 6})
    made_for = (Column("gone", is_category=False), Column("amount", is_category=False))
    learner, rng = make_learner(model, made_for), np.random.default_rng(1)
    x_BF = rng.normal(size=(200, 2))
    learner.learn(x_BF, (x_BF[:, 1] > 0).astype(float))
    version = write_version(tmp_path, model, made_for, learner, (0, 200), NOW_US)
    assert version is not None
    known.publish_version("linear", encode_record(version))
    candidate = Candidate(model, COLUMNS, tmp_path, known, RoleMetrics("serve", "p"))

    candidate.follow(0)

    asked = np.array([[-2.0, 7.0], [2.0, 7.0], [np.nan, 7.0]])  # amount, shop
    wanted = learner.predict(np.array([[np.nan, -2.0], [np.nan, 2.0], [np.nan, np.nan]]))
    assert candidate.version == "0.200"
    assert candidate.predict(asked).tolist() == wanted.tolist()
    assert wanted[0] < 0.3
    assert wanted[1] > 0.7


def test_a_champion_that_raises_at_a_row_answers_it_as_an_untrained_model_does(tmp_path: Path) -> None:
    """Every other row has the version's own answer, and the failure is counted."""
    known = control()
    model = Model("mine", "tests.own_learners:Fragile", {"limit": 3.0, "verb": "predict"})
    learner = make_learner(model, COLUMNS)
    learner.learn(np.ones((20, 2)), np.ones(20))
    version = write_version(tmp_path, model, COLUMNS, learner, (0, 20), NOW_US)
    assert version is not None
    known.publish_version("mine", encode_record(version))
    metrics = RoleMetrics("serve", "p")
    candidate = Candidate(model, COLUMNS, tmp_path, known, metrics)
    candidate.follow(0)

    said = candidate.predict(np.array([[1.0, 7.0], [9.0, 7.0], [1.0, 7.0]])).tolist()
    assert candidate.version == "0.20"
    assert said == [learner.predict(np.ones((1, 2)))[0], 0.5, learner.predict(np.ones((1, 2)))[0]]
    labels = {"pipeline": "p", "role": "serve", "candidate": "mine", "what": "answer_failed"}
    assert metrics.registry.get_sample_value("millrace_incidents_total", labels) == 1.0


def test_a_version_that_names_code_which_the_file_does_not_is_refused(tmp_path: Path) -> None:
    """Records come from Kafka: whoever can write one must not choose what is imported."""
    known, metrics = control(), RoleMetrics("serve", "p")
    other = Model("prior", "tests.own_learners:Running", {})
    version = write_version(tmp_path, other, COLUMNS, make_learner(other, COLUMNS), (0, 5), NOW_US)
    assert version is not None
    known.publish_version("prior", encode_record(version))
    candidate = Candidate(PRIOR, COLUMNS, tmp_path, known, metrics)
    candidate.follow(0)

    assert candidate.version == "0.0"
    labels = {"pipeline": "p", "role": "serve", "candidate": "prior", "what": "version_refused"}
    assert metrics.registry.get_sample_value("millrace_incidents_total", labels) == 1.0


def test_a_version_of_another_river_is_refused_and_the_one_at_hand_answers_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, metrics = control(), RoleMetrics("serve", "p")
    model = Model("tree", "river:tree.HoeffdingTreeClassifier", {})
    learner = make_learner(model, COLUMNS, model_key(tmp_path))
    candidate = Candidate(model, COLUMNS, tmp_path, known, metrics)
    for examples, river in ((10, RIVER_VERSION), (20, "9.9.9")):
        learner.learn(np.ones((10, 2)), np.ones(10))
        with monkeypatch.context() as patch:
            patch.setattr("models.river_learner.RIVER_VERSION", river)
            version = write_version(tmp_path, model, COLUMNS, learner, (0, examples), NOW_US)
        assert version is not None
        known.publish_version("tree", encode_record(version))
        candidate.follow(examples * 1_000_000)

    assert candidate.version == "0.10"
    labels = {"pipeline": "p", "role": "serve", "candidate": "tree", "what": "version_refused"}
    assert metrics.registry.get_sample_value("millrace_incidents_total", labels) == 1.0


def test_a_version_whose_parameters_make_no_model_here_is_refused(tmp_path: Path) -> None:
    """Another release of River may have taken them; the one at hand answers on."""
    known, metrics = control(), RoleMetrics("serve", "p")
    model = Model("tree", "river:tree.HoeffdingTreeClassifier", {})
    candidate = Candidate(model, COLUMNS, tmp_path, known, metrics)
    learner = make_learner(model, COLUMNS, model_key(tmp_path))
    version = write_version(tmp_path, model, COLUMNS, learner, (0, 1), NOW_US)
    assert version is not None
    known.publish_version(
        "tree", encode_record(msgspec.structs.replace(version, params={"grace": {"use": "optim.SGD"}}))
    )
    candidate.follow(0)

    assert candidate.version == "0.0"
    labels = {"pipeline": "p", "role": "serve", "candidate": "tree", "what": "version_refused"}
    assert metrics.registry.get_sample_value("millrace_incidents_total", labels) == 1.0
