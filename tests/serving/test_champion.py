"""The champion: who answers as decisions come, and who answers where the one they name cannot."""

from __future__ import annotations

import logging
from itertools import count
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models.learner import make_learner
from models.registry import write_version
from models.version import encode_record
from serving.candidate import FOLLOW_EVERY_US, Loader, load_at_once
from serving.champion import Champion
from streams.control import Control
from streams.decisions import Succession
from streams.errors import UnavailableError
from streams.metrics import RoleMetrics
from streams.pipeline import Model
from tests.rows import COLUMNS, control
from tests.serving.shelf import Shelf
from tests.streams.test_decisions import MemoryDecisions, promoted

MODELS = (Model("a", "prior", {}), Model("b", "prior", {}), Model("c", "last", {}))
NOW_US = 1_700_000_000_000_000
ROW = np.zeros((1, 2))


class Stage:
    """A champion over versions and decisions in memory."""

    def __init__(self, directory: Path, loader: Loader = load_at_once, models: tuple[Model, ...] = MODELS) -> None:
        self.directory, self.models = directory, {model.name: model for model in models}
        self.control: Control = control()
        self.log = MemoryDecisions()
        self.metrics = RoleMetrics("serve", "p")
        self.now_us = 0
        self.champion = self.made(loader)

    def made(self, loader: Loader = load_at_once, split_to: str | None = None) -> Champion:
        """Start a process: all that was decided is known."""
        succession = Succession("a", self.models, self.log)
        succession.catch_up()
        models = tuple(self.models.values())
        return Champion(
            models, COLUMNS, self.directory, self.control, self.metrics, loader, None, succession, split_to, 0.5
        )

    def publish(self, name: str, examples: int, digest: str | None = None) -> None:
        """Announce a version that has seen so many positive labels; a false digest makes it one that is refused."""
        model = self.models[name]
        learner = make_learner(model, COLUMNS, None)
        learner.learn(np.zeros((examples, 2)), np.ones(examples))
        version = write_version(self.directory, model, COLUMNS, learner, (0, examples), NOW_US)
        assert version is not None
        changed = version if digest is None else msgspec.structs.replace(version, digest=digest)
        self.control.publish_version(name, encode_record(changed))

    def decide(self, name: str, follows: str, candidate: str) -> None:
        self.log.come.append(promoted(name, follows, candidate))

    def follow(self) -> tuple[str, str, str]:
        """Let a quarter of a second pass; gives who answers then, with which version and as what."""
        self.now_us += FOLLOW_EVERY_US
        self.champion.follow(self.now_us)
        return self.champion.answering.name, self.champion.answering.version, self.champion.standing

    def value(self, name: str, candidate: str, **more: str) -> float | None:
        labels = {"pipeline": "p", "role": "serve", "candidate": candidate, **more}
        return self.metrics.registry.get_sample_value(name, labels)


def test_a_promotion_lets_the_new_champions_newest_version_answer(tmp_path: Path) -> None:
    """And its newer ones after that; those of the old one are not followed any more."""
    stage = Stage(tmp_path)
    stage.publish("a", 2)
    stage.publish("b", 6)
    before = stage.follow()
    stage.decide("1", "", "b")
    after = stage.follow()
    said = stage.champion.answering.predict(ROW).tolist()
    stage.publish("a", 9)
    stage.publish("b", 8)
    later = stage.follow()

    assert (before, after, later) == (("a", "0.2", "champion"), ("b", "0.6", "champion"), ("b", "0.8", "champion"))
    assert said == [7 / 8]


def test_the_old_champion_answers_while_a_slow_loader_works(tmp_path: Path) -> None:
    """It goes on to follow its own versions, and hands over at once when the new one is there."""
    shelf = Shelf()
    stage = Stage(tmp_path, shelf)
    stage.publish("a", 2)
    stage.follow()
    shelf.load()
    stage.publish("b", 6)
    stage.decide("1", "", "b")
    during = [stage.follow() for _ in range(3)]
    stage.publish("a", 3)
    stage.follow()
    (wanted, done), own = shelf.waiting[0], shelf.waiting[1]
    own[1].set_result(own[0]())
    newer = stage.follow()
    done.set_result(wanted())
    stage.champion.follow(stage.now_us + 1)  # the next tick, not the next look

    assert during == [("a", "0.2", "fallback")] * 3
    assert newer == ("a", "0.3", "fallback")
    assert (stage.champion.answering.name, stage.champion.answering.version) == ("b", "0.6")


def test_one_that_answered_before_comes_back_with_its_newest_version(tmp_path: Path) -> None:
    """Not with the one it had when it went."""
    shelf = Shelf()
    stage = Stage(tmp_path, shelf)
    stage.publish("a", 2)
    stage.follow()
    shelf.load()
    stage.publish("b", 6)
    stage.decide("1", "", "b")
    stage.follow()
    shelf.load()
    gone = stage.follow()
    stage.publish("a", 5)
    stage.decide("2", "1", "a")
    waiting = stage.follow()
    shelf.load()
    back = stage.follow()

    assert (gone[:2], waiting[:2], back[:2]) == (("b", "0.6"), ("b", "0.6"), ("a", "0.5"))


def test_one_without_a_version_does_not_answer_until_it_has_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The last one goes on; that is counted and said once."""
    stage = Stage(tmp_path)
    stage.publish("a", 2)
    stage.follow()
    stage.decide("1", "", "b")
    with caplog.at_level(logging.ERROR):
        without = [stage.follow() for _ in range(4)]
    stage.publish("b", 1)

    assert without == [("a", "0.2", "fallback")] * 4
    assert [record.message for record in caplog.records] == [
        "b is promoted and cannot answer, another goes on: it has no version yet"
    ]
    assert stage.value("millrace_incidents_total", "b", what="champion_unready") == 1.0
    assert stage.follow() == ("b", "0.1", "champion")


def test_one_whose_version_is_refused_does_not_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The reason is said; the next version that is sound answers."""
    stage = Stage(tmp_path)
    stage.publish("a", 2)
    stage.follow()
    stage.publish("b", 3, digest="0" * 64)
    stage.decide("1", "", "b")
    with caplog.at_level(logging.ERROR):
        refused = [stage.follow() for _ in range(3)]
    stage.publish("b", 4)

    assert refused == [("a", "0.2", "fallback")] * 3
    assert sum("is not the file that was published" in record.message for record in caplog.records) == 2
    assert stage.value("millrace_incidents_total", "b", what="version_refused") == 1.0
    assert stage.follow() == ("b", "0.4", "champion")


def test_a_store_that_is_away_delays_the_new_champion_and_no_answer(tmp_path: Path) -> None:
    """It is tried again."""
    shelf = Shelf()
    stage = Stage(tmp_path, shelf)
    stage.publish("b", 3)
    stage.decide("1", "", "b")
    stage.follow()
    shelf.load(UnavailableError("cannot read s3://bucket/models/b: away"))
    away = stage.follow()
    shelf.load()
    there = stage.follow()

    assert (away, there) == (("a", "0.0", "fallback"), ("b", "0.3", "champion"))


@pytest.mark.parametrize(
    ("versions", "answers"),
    [
        ({"a": 2, "b": 3, "c": 4}, ("c", "0.4", "champion")),
        ({"a": 2, "b": 3}, ("b", "0.3", "fallback")),
        ({"a": 2}, ("a", "0.2", "fallback")),
        ({}, ("b", "0.0", "fallback")),
    ],
)
def test_after_a_restart_the_best_there_is_answers_from_the_first_row_on(
    tmp_path: Path, versions: dict[str, int], answers: tuple[str, str, str]
) -> None:
    """The champion, the last one, the file's, or what is untrained: `c` reigns and followed `b`."""
    stage = Stage(tmp_path)
    for name, examples in versions.items():
        stage.publish(name, examples)
    stage.log.there = [promoted("1", "", "b"), promoted("2", "1", "c")]
    stage.champion = stage.made()
    moments = count()
    stage.champion.settle(lambda: float(next(moments)), lambda _: None)

    assert (stage.champion.answering.name, stage.champion.answering.version, stage.champion.standing) == answers


def test_a_start_does_not_wait_for_ever(tmp_path: Path) -> None:
    """A store that does not give a version lets the untrained model answer after some seconds."""
    moments = iter(range(100))
    stage = Stage(tmp_path, Shelf())
    stage.publish("a", 2)
    stage.champion.settle(lambda: float(next(moments)), lambda _: None)

    assert stage.champion.answering.version == "0.0"
    assert next(moments) < 20


def test_what_cannot_be_made_is_answered_as_by_an_untrained_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No module of that name is here: serving says so and goes on."""
    stage = Stage(tmp_path, load_at_once, (Model("a", "nowhere.module:Missing", {}), *MODELS[1:]))
    first = stage.follow()
    said = stage.champion.answering.predict(np.zeros((2, 2))).tolist()
    stage.publish("b", 3)
    stage.decide("1", "", "b")

    assert (first, said) == (("a", "0.0", "champion"), [[0.5], [0.5]])
    assert "nowhere" in caplog.text
    assert stage.follow() == ("b", "0.3", "champion")


class Raising:
    """A model of a library that fails at rows it has never seen the like of."""

    def predict(self, x_BF: object) -> None:
        raise RuntimeError("size of tensor a (2) must match the size of tensor b (3)")


def test_rows_at_which_a_librarys_model_raises_are_answered_all_the_same(tmp_path: Path) -> None:
    """As an untrained model does, and counted."""
    stage = Stage(tmp_path)
    stage.champion.answering.at_hand.learner = Raising()  # type: ignore[assignment]  # all that is asked of it here

    assert stage.champion.answering.predict(np.zeros((3, 2))).tolist() == [[0.5]] * 3
    assert stage.value("millrace_incidents_total", "a", what="answer_failed") == 3.0


def test_metrics_name_the_reigning_champion_and_the_version_that_answers(tmp_path: Path) -> None:
    """Two different things while the new champion is not ready; nothing is left of one that has gone."""
    stage = Stage(tmp_path)
    stage.publish("a", 2)
    stage.follow()
    stage.decide("1", "", "b")
    stage.follow()

    def told() -> list[tuple[float | None, float | None]]:
        names = ("millrace_champion", "millrace_version_examples")
        return [(stage.value(names[0], name), stage.value(names[1], name)) for name in ("a", "b")]

    during = told()
    stage.publish("b", 6)
    stage.follow()

    assert during == [(0.0, 2.0), (1.0, None)]
    assert told() == [(0.0, None), (1.0, 6.0)]


def test_traffic_is_split_once_the_other_has_a_version_and_unless_it_reigns(tmp_path: Path) -> None:
    """Its versions are followed like the champion's; whoever reigned before may be the other then."""
    stage, seen = Stage(tmp_path), []
    stage.champion = stage.made(split_to="b")

    def look() -> tuple[str, str | None]:
        answering, _, _ = stage.follow()
        split = stage.champion.split
        return answering, None if split is None else f"{split.name}@{split.version}"

    seen.append(look())
    stage.publish("b", 3)
    seen.append(look())
    stage.publish("b", 4)
    seen.append(look())
    shown = stage.value("millrace_version_examples", "b")
    stage.decide("1", "", "b")
    seen.append(look())
    stage.publish("a", 2)
    stage.decide("2", "1", "a")
    seen.append(look())

    assert seen == [("a", None), ("a", "b@0.3"), ("a", "b@0.4"), ("b", None), ("a", "b@0.4")]
    assert shown == 4.0
    assert look() == ("a", "b@0.4")
    assert stage.value("millrace_version_examples", "b") == 4.0
