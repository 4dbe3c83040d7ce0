"""Candidates that are trained in batches, when they begin anew: no training is lost or gets another name."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumers.learn import LearnTask
from models.registry import read_version, versions_of
from models.version import Version, decode_record
from serving.rebuilding import Rebuilding
from serving.rescale_doors import Doors
from streams.retraining import Retrain
from tests.consumers.training import Plant
from tests.memory_kafka import MemoryInbox
from tests.rows import claim_of


class Trained(Plant):
    """A plant whose candidate was trained three times and has published the newest."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, Retrain(examples=20))
        for _ in range(3):
            self.feed(24)
            self.step(4)
            self.started[-1].succeed()
            self.step(4)
        self.read_all()
        self.train.stop()

    def read_all(self) -> LearnTask:
        """Let a learn role read what there is, and publish; it is stopped then."""
        worker = self.learn()
        for _ in range(20):
            self.now_s += 61.0
            worker.step(0.0)
        found = worker.stations[0].task
        worker.stop()
        assert isinstance(found, LearnTask)
        return found

    def rebuild(self, role: str) -> list[str]:
        """Run the command's work; gives what it says."""
        log = self.broker.logs
        doors = Doors(
            self.broker, partial(MemoryInbox, self.broker), lambda t, p, start: log[t, p][start:], self.control()
        )
        rebuilding = Rebuilding(self.pipeline, doors, role)
        record = rebuilding.plan(is_from_retained=True)
        lines = rebuilding.lines(record)
        rebuilding.run(record)
        return lines

    def published(self) -> Version:
        """The newest version on P.control."""
        control = self.control()
        control.refresh()
        return decode_record(control.versions["net"])

    def restarted(self) -> list[dict[str, Any]]:
        """The records of candidates that began anew."""
        found = [msgspec.json.decode(record.value_ or b"") for record in self.broker.logs["p.decisions", 0]]
        return [one for one in found if one["decision"] == "restarted"]


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    monkeypatch.setattr("os.fsync", lambda _: None)
    found = Trained(tmp_path)
    assert [version.number for version in versions_of(tmp_path, "net")] == ["1.20", "2.40", "3.60"]
    assert found.published().number == "3.60"
    return found


def assert_newest(plant: Trained, task: LearnTask) -> None:
    """The candidate answers by the file that was trained last, and that is what is published."""
    newest = versions_of(plant.pipeline.state, "net")[-1]
    told = [one for one in task.state() if one.startswith("learner.")]

    assert task.version == newest.order == plant.published().order
    assert told
    expected = read_version(plant.pipeline.state, newest).state()
    assert {name: array.tobytes() for name, array in task.learner.state().items()} == {
        name: array.tobytes() for name, array in expected.items()
    }


def test_of_examples_that_are_made_anew_it_begins_with_its_newest_training(plant: Trained) -> None:
    """The rows that announced its versions are gone with the topic."""
    lines = plant.rebuild("features")
    plant.events = 0
    plant.source = plant.control().claim(claim_of(generation=1))
    plant.feed(40)
    task = plant.read_all()

    assert plant.version_rows() == []
    assert_newest(plant, task)
    assert [(one["lineage"], one["trained"]) for one in plant.restarted()] == [(3, "3.60")]
    assert "net begins with 3.60, its newest trained version" in lines
    assert not any("learned again" in line for line in lines)


def test_what_is_trained_next_is_newer_than_all_before(plant: Trained) -> None:
    """Also by a role that begins anew, with an archive that begins anew."""
    plant.rebuild("features")
    plant.start()
    plant.events = 0
    plant.source = plant.control().claim(claim_of(generation=1))
    plant.feed(24)
    plant.step(4)
    plant.started[-1].succeed()
    plant.step(4)

    assert plant.read_all().version == (4, 20)
    assert plant.published().number == "4.20"


def test_alone_it_takes_up_its_versions_at_their_rows(plant: Trained) -> None:
    lines = plant.rebuild("learn.net")

    assert_newest(plant, plant.read_all())
    assert [(one["lineage"], one.get("trained")) for one in plant.restarted()] == [(0, None)]
    assert "net takes up its trained versions again at their rows among the examples" in lines


def test_alone_where_rows_are_gone_it_begins_with_its_newest_training(plant: Trained) -> None:
    plant.broker.low["p.examples", 0] = len(plant.broker.logs["p.examples", 0])
    plant.rebuild("learn.net")

    assert_newest(plant, plant.read_all())


def test_without_the_file_an_untrained_model_begins(plant: Trained, caplog: pytest.LogCaptureFixture) -> None:
    (plant.pipeline.state / plant.published().blob).unlink()
    plant.rebuild("features")
    task = plant.read_all()

    assert task.version == (0, 0)
    assert "a trained version is refused, an untrained model begins" in caplog.text
    assert plant.published().number == "3.60"
