"""Training in the foreground: what is trained, announced and refused; the process makes a small linear model."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumers import version_rows
from consumers.training_place import TrainingPlace
from models.registry import versions_of
from models.training_job import Training
from models.version import Version, encode_record
from serving import training_command
from serving.training_command import Wanted, chosen_models, run_trainings
from serving.training_report import training_facts
from streams import frames
from streams.durations import DAY_US
from streams.errors import MillraceError, ModelError, PipelineError, UnavailableError
from streams.frames import FrameSchema
from streams.pipeline import Model, Pipeline
from streams.retraining import Retrain
from tests.consumers.training import START_US, Plant
from tests.memory_kafka import Broker, MemoryOutbox

SUCCEEDS = """
import sys
from pathlib import Path
from tests.consumers.training import FakeTraining
with open(Path(sys.argv[-1]) / "calls", "a") as calls:
    calls.write("trained ")
FakeTraining(sys.argv, Path()).succeed()
"""
FAILS = """
import sys
from pathlib import Path
from tests.consumers.training import FakeTraining
FakeTraining(sys.argv, Path()).fail("too few examples: 3 found, 30 needed")
sys.exit(11)
"""


DAMAGES = SUCCEEDS.replace("succeed()", "succeed(lambda payload: payload[:-1])")
KILLED = """
import os, sys
from pathlib import Path
with open(Path(sys.argv[-1]) / "calls", "a") as calls:
    calls.write("killed ")
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """A pipeline whose archive has 28 rows of seven days."""
    found = Plant(tmp_path, Retrain(window_us=3 * DAY_US))
    found.feed(30)
    found.step(3)
    return found


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> list[Version]:
    """What is announced, in place of Kafka."""
    found: list[Version] = []
    monkeypatch.setattr(training_command, "_announce", lambda _, version, __: found.append(version))
    return found


def use(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.setattr(
        training_command, "training_command", lambda directory, _: [sys.executable, "-c", script, str(directory)]
    )


def test_a_candidate_is_trained_from_what_is_archived_and_announced(
    plant: Plant, announced: list[Version], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, SUCCEEDS)
    run_trainings(plant.pipeline, Wanted())
    said = capsys.readouterr().out
    [version] = announced

    assert versions_of(plant.pipeline.state, "net") == [version]
    assert version.training is not None
    assert (version.order, version.training.reason) == ((1, 28), "command")
    text = (plant.pipeline.state / "train" / "net" / "000001" / "job.json").read_bytes()
    asked = msgspec.json.decode(text)
    newest_us = START_US + 27 * (DAY_US // 4)
    assert (asked["rows"], asked["from_us"], asked["to_us"], asked["known_us"]) == (
        28,
        newest_us - 3 * DAY_US,
        None,
        None,
    )
    for line in ("net: training version 1 from 28 archived rows", "AUC", "0.7500", "net@1.28 is announced"):
        assert line in said


def test_the_command_line_says_what_is_asked_for(
    plant: Plant, announced: list[Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, SUCCEEDS)
    run_trainings(plant.pipeline, Wanted("net", START_US, START_US + DAY_US, None, 0.5))
    asked = msgspec.json.decode((plant.pipeline.state / "train" / "net" / "000001" / "job.json").read_bytes())

    assert (asked["from_us"], asked["to_us"]) == (START_US, START_US + DAY_US)
    assert asked["model"]["retrain"]["budget_s"] == 30.0
    assert len(announced) == 1


def test_a_second_training_begins_with_the_first_one_s_weights(
    plant: Plant, announced: list[Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, SUCCEEDS)
    for _ in range(2):
        run_trainings(plant.pipeline, Wanted())
    first, second = (
        msgspec.json.decode((plant.pipeline.state / "train" / "net" / f"{lineage:06d}" / "job.json").read_bytes())
        for lineage in (1, 2)
    )

    assert (first["parent"], first["parent_blob"]) == ("", "")
    assert (second["parent"], second["parent_blob"]) == (announced[0].name, announced[0].blob)
    assert announced[1].lineage == 2


def test_without_kafka_the_version_is_written_and_the_next_call_announces_it_without_training(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, SUCCEEDS)
    told: list[int] = []

    def away(_: Any) -> None:
        told.append(1)
        raise UnavailableError("Kafka does not answer at 127.0.0.1:9")

    with monkeypatch.context() as patch:
        patch.setattr(training_command, "ensure_topics", away)
        with pytest.raises(
            UnavailableError, match=r"net@1\.28: it is written but not announced; .*: Kafka does not answer"
        ):
            run_trainings(plant.pipeline, Wanted())
    found: list[Version] = []
    with monkeypatch.context() as patch:
        patch.setattr(training_command, "_announce", lambda _, version, __: found.append(version))
        run_trainings(plant.pipeline, Wanted())

    assert told == [1]
    assert [version.number for version in found] == ["1.28"]
    assert [version.number for version in versions_of(plant.pipeline.state, "net")] == ["1.28"]


def grow(plant: Plant) -> None:
    """Let a week more be archived."""
    plant.feed(28)
    plant.step(3)


def begun(plant: Plant) -> list[tuple[str, int]]:
    """What was done in which directory, and from how many rows."""
    found = sorted((plant.pipeline.state / "train" / "net").iterdir())
    jobs = [msgspec.json.decode((directory / "job.json").read_bytes()) for directory in found]
    return [
        ((directory / "calls").read_text().strip(), job["rows"]) for directory, job in zip(found, jobs, strict=True)
    ]


def test_a_training_that_was_broken_off_goes_on_as_it_was_asked_for_though_the_archive_has_grown(
    plant: Plant, announced: list[Version], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its checkpoints are of the rows that there were; the next training has the newer ones, window and all."""
    use(monkeypatch, KILLED)
    with pytest.raises(MillraceError, match="net could not be trained: it was killed"):
        run_trainings(plant.pipeline, Wanted())
    grow(plant)
    use(monkeypatch, SUCCEEDS)
    for _ in range(2):
        run_trainings(plant.pipeline, Wanted())

    assert [version.number for version in announced] == ["1.28", "2.56"]
    assert begun(plant) == [("killed trained", 28), ("trained", 56)]
    assert "net: going on with version 1 from 28 archived rows" in capsys.readouterr().out


def test_a_version_that_was_not_announced_is_announced_though_the_archive_has_grown(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, SUCCEEDS)
    found: list[Version] = []
    with monkeypatch.context() as patch:
        patch.setattr(training_command, "ensure_topics", unanswered)
        with pytest.raises(UnavailableError, match="the same command announces it without training"):
            run_trainings(plant.pipeline, Wanted())
    grow(plant)
    monkeypatch.setattr(training_command, "_announce", lambda _, version, __: found.append(version))
    run_trainings(plant.pipeline, Wanted())

    assert [version.number for version in found] == ["1.28"]
    assert versions_of(plant.pipeline.state, "net") == found


def unanswered(_: Any) -> None:
    raise UnavailableError("Kafka does not answer at 127.0.0.1:9")


@pytest.mark.parametrize(
    ("first", "wanted"),
    [(FAILS, Wanted()), (KILLED, Wanted(from_us=START_US)), (KILLED, Wanted(minutes=3.0))],
    ids=["failed", "asked for another range", "asked for another budget"],
)
def test_what_failed_or_is_asked_for_otherwise_begins_anew_from_what_is_archived_now(
    plant: Plant, announced: list[Version], monkeypatch: pytest.MonkeyPatch, first: str, wanted: Wanted
) -> None:
    use(monkeypatch, first)
    with pytest.raises(MillraceError):
        run_trainings(plant.pipeline, Wanted())
    grow(plant)
    use(monkeypatch, SUCCEEDS)
    run_trainings(plant.pipeline, wanted)

    assert [version.number for version in announced] == ["1.56"]


def test_a_training_that_another_version_has_overtaken_is_not_gone_on_with(
    plant: Plant, announced: list[Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own would be older than what everyone has, and nobody would take it up."""
    use(monkeypatch, SUCCEEDS)
    run_trainings(plant.pipeline, Wanted())
    (plant.pipeline.state / "train" / "net" / "000001" / "announced").unlink()
    other = msgspec.structs.replace(announced[0], digest="0" * 64, blob=announced[0].blob.replace("1-", "2-", 1))
    beside = plant.pipeline.state / other.blob
    beside.with_name(beside.name + ".json").write_bytes(encode_record(msgspec.structs.replace(other, lineage=2)))
    run_trainings(plant.pipeline, Wanted())

    assert [version.lineage for version in announced] == [1, 3]


def test_a_result_that_nobody_can_use_is_removed(
    plant: Plant, announced: list[Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the same command would find it for ever."""
    use(monkeypatch, DAMAGES)
    with pytest.raises(ModelError, match="is not the file of its result"):
        run_trainings(plant.pipeline, Wanted())
    is_there = (plant.pipeline.state / "train" / "net" / "000001").exists()
    use(monkeypatch, SUCCEEDS)
    run_trainings(plant.pipeline, Wanted())

    assert not is_there
    assert [version.number for version in announced] == ["1.28"]


def test_announced_versions_get_successors(
    plant: Plant, announced: list[Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, SUCCEEDS)
    run_trainings(plant.pipeline, Wanted())
    run_trainings(plant.pipeline, Wanted())

    assert [(version.number, version.parent) for version in announced] == [("1.28", ""), ("2.28", "1.28")]


def test_a_training_that_fails_ends_the_command_with_its_line_and_code(
    plant: Plant, announced: list[Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, FAILS)
    with pytest.raises(MillraceError) as failed:
        run_trainings(plant.pipeline, Wanted())

    assert str(failed.value) == "net could not be trained: too few examples: 3 found, 30 needed"
    assert failed.value.exit_code == 11
    assert announced == []
    assert TrainingPlace(plant.pipeline.state).lock() is not None  # and lets go of the lock


def test_an_empty_archive_and_another_training_are_refused(plant: Plant, tmp_path: Path) -> None:
    empty = msgspec.structs.replace(plant.pipeline, state=tmp_path / "empty")
    with pytest.raises(UnavailableError, match="the archive has no examples yet"):
        run_trainings(empty, Wanted())
    held = TrainingPlace(plant.pipeline.state).lock()
    assert held is not None
    try:
        with pytest.raises(UnavailableError, match="another training runs on this machine"):
            run_trainings(plant.pipeline, Wanted())
    finally:
        os.close(held)


def test_only_candidates_that_are_trained_in_batches_can_be_named(plant: Plant) -> None:
    other = Model("tree", "river:tree.HoeffdingTreeClassifier", {})
    pipeline: Pipeline = msgspec.structs.replace(plant.pipeline, models=(*plant.pipeline.models, other))

    assert [model.name for model in chosen_models(pipeline, Wanted())] == ["net"]
    with pytest.raises(
        PipelineError, match='--candidate ned: is not trained in batches; allowed: net; did you mean "net"'
    ):
        chosen_models(pipeline, Wanted("ned"))
    with pytest.raises(PipelineError, match="no candidate is trained in batches"):
        chosen_models(msgspec.structs.replace(pipeline, models=(other,)), Wanted())
    with pytest.raises(PipelineError, match="--nproc 2: net is of kind linear"):
        chosen_models(pipeline, Wanted(nproc=2))


def test_a_version_is_announced_by_a_frame_that_readers_of_examples_know(plant: Plant) -> None:
    broker = Broker(lambda: 0.0, {})
    version = Version("net", 1, 28, "linear", {}, plant.columns, "models/net/x", "d", 5)
    schema: FrameSchema = plant.schema
    version_rows.announce(MemoryOutbox(broker), "p", schema, version, 9)
    [record] = broker.logs["p.examples", 0]

    assert record.headers_ == [(frames.SCHEMA_HEADER, schema.fingerprint.encode())]
    [row] = version_rows.announced(frames.decode(record.value_ or b"", schema))
    assert (row.candidate, row.time_us) == ("net", 9)


def test_facts_of_a_training_are_told_in_words() -> None:
    training = Training(
        1_000,
        0,
        DAY_US,
        2 * DAY_US,
        seconds=75.0,
        peak_bytes=3 * 2**20,
        epochs=2,
        curve=((0.7, 0.6), (0.5, 0.65)),
        reason="every",
        settings={"lr": 0.01},
        notes=("the time was over",),
    )

    assert training_facts(training) == {
        "trained from": "1,000 examples of 1970-01-01 00:00 to 1970-01-02 00:00, labels known by 1970-01-03 00:00",
        "trained for": "every",
        "trained in": "75 s on cpu, 2 epochs, 3.0 MiB at most",
        "best epoch": "1: loss 0.7000, validation 0.6000",
        "found by search": "lr = 0.01",
        "note": "the time was over",
    }
