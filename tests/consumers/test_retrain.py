"""Retraining: examples are archived, a process trains, its version is announced and taken up, whatever is killed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from consumers import retrain, training_place, trainings
from consumers.learn import LearnTask
from consumers.training_place import TrainingPlace
from models.registry import read_version, versions_of
from models.training import main
from models.training_job import RESULT, read_job
from models.version import decode_record
from models.version_file import digest_of
from models.weights_file import decode, encode
from streams.archive import read_rows, segments_of
from streams.durations import DAY_US
from streams.errors import ModelError
from streams.pipeline import Model
from streams.retraining import Retrain
from tests.consumers.training import LONG_S, START_US, Plant


def decided(plant: Plant, what: str) -> list[dict[str, Any]]:
    plant.outbox.flush()
    found = [msgspec.json.decode(record.value_ or b"") for record in plant.broker.logs["p.decisions", 0]]
    return [record for record in found if record["decision"] == what]


def learned(plant: Plant) -> LearnTask:
    """Give what a learn role makes of all examples."""
    worker = plant.learn()
    while worker.step(0.0):
        pass
    found = worker.stations[0].task
    assert isinstance(found, LearnTask)
    return found


def unreadable(_: Path) -> None:
    raise ModelError("progress.json cannot be read: [Errno 5] Input/output error")


def test_what_is_due_is_trained_announced_taken_up_and_published(tmp_path: Path) -> None:
    plant = Plant(tmp_path, Retrain(examples=20, window_us=3 * DAY_US))
    plant.feed(30)
    plant.step(3)
    [process] = plant.started
    plant.feed(6)
    plant.step(5)  # nobody waits for it
    archived = [int(row) for table in read_rows(tmp_path) for row in table.column("row").to_pylist()]
    process.succeed()
    plant.step(4)

    job = process.job
    assert (job.candidate, job.rows, job.lineage, job.reason) == ("net", 20, 1, "examples")
    assert (job.from_us, job.to_us, job.known_us) == (
        START_US + 19 * DAY_US // 4 - 3 * DAY_US,
        None,
        plant.known_us(20),
    )
    assert (job.columns, job.task, job.state) == (plant.columns, plant.pipeline.task, str(tmp_path))
    assert archived == list(range(32))  # the last day is not over
    [row] = plant.version_rows()
    version = decode_record(row["key"].encode())
    assert (row["id"], row["source"], row["sequence"], row["time"]) == ("net", -1, -1, plant.known_us(20))
    assert version.blob == f"models/net/000001-000000000020-{version.digest[:12]}.safetensors"
    assert versions_of(tmp_path, "net") == [version]
    [said] = decided(plant, "trained")
    assert said == {
        "decision": "trained",
        "candidate": "net",
        "lineage": 1,
        "examples": 20,
        "parent": "",
        "reason": "examples",
        "rows": 20,
        "seconds": 2.5,
        "validation": {},
        "test": {"auc": 0.75},
        "time_us": version.created_us,
    }
    worker = plant.learn()
    while worker.step(0.0):
        pass
    control = plant.control()
    control.refresh()
    published = decode_record(control.versions["net"])
    assert (published.order, published.blob, published.digest) == ((1, 20), version.blob, version.digest)
    task = worker.stations[0].task
    assert isinstance(task, LearnTask)
    X = np.random.default_rng(9).normal(size=(5, len(plant.columns)))
    assert np.array_equal(task.learner.predict(X), read_version(tmp_path, version).predict(X))
    assert sorted(path.name for path in (tmp_path / "models" / "net").iterdir()) == [
        Path(version.blob).name,
        f"{Path(version.blob).name}.json",
    ]


def test_metrics_say_what_is_trained(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    plant.feed(30)
    plant.step(3)
    labels = {"pipeline": "p", "role": "train", "candidate": "net"}

    def value(name: str, **more: str) -> float | None:
        return plant.metrics.registry.get_sample_value(f"millrace_{name}", {**labels, **more})

    running = value("training_running")
    (plant.started[0].directory / "progress.json").write_text('{"loss": 0.5, "validation_loss": 0.75}')
    plant.step(1, after_s=2.0)
    losses = value("training_loss", part="training"), value("training_loss", part="validation")
    plant.started[0].succeed()
    plant.step(4)

    assert (running, losses, value("training_running")) == (1.0, (0.5, 0.75), 0.0)
    assert (value("trainings_total", result="made"), value("training_seconds")) == (1.0, 2.5)


class Killed(BaseException):
    """The process is dead."""


def drive(plant: Plant, *, is_saved: bool) -> None:
    """Feed, train twice and end; a process that is killed is started again."""
    for _ in range(10):
        if plant.events < 60:
            plant.feed(15)
        try:
            plant.step(2)
            if is_saved:
                plant.train.snapshot()
            if plant.started and plant.started[-1].code is None:
                plant.started[-1].succeed()
            plant.step(4)
        except Killed:
            plant.start()
    plant.step(5)


@pytest.mark.parametrize("is_saved", [False, True])
@pytest.mark.parametrize("point", ["after_trained_file", "after_version_row"])
@pytest.mark.parametrize("times", [1, 2])
def test_killed_while_a_version_is_announced_the_same_versions_come_out(
    point: str, times: int, is_saved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version row may stand there twice, and counts once: the model is that of a run that nobody killed."""
    whole = Plant(tmp_path / "whole")
    drive(whole, is_saved=is_saved)
    passed = [0]

    def die(name: str) -> None:
        passed[0] += name == point
        if name == point and passed[0] == times:
            raise Killed

    killed = Plant(tmp_path / "killed")
    with monkeypatch.context() as patch:
        patch.setattr(retrain, "fail_point", die)
        patch.setattr(training_place, "fail_point", die)
        drive(killed, is_saved=is_saved)

    assert passed[0] >= times
    found, expected = (
        {(version.number, version.digest) for version in versions_of(plant.pipeline.state, "net")}
        for plant in (killed, whole)
    )
    assert found == expected
    assert len(expected) >= 2
    ours, theirs = learned(killed), learned(whole)
    assert ours.version == theirs.version
    X = np.random.default_rng(9).normal(size=(20, len(whole.columns)))
    assert np.array_equal(ours.learner.predict(X), theirs.learner.predict(X))
    told, all_told = ([(r["lineage"], r["examples"]) for r in decided(plant, "trained")] for plant in (killed, whole))
    assert set(told) <= set(all_told)  # one that a newer one had replaced meanwhile needs no announcing any more
    assert told[-1] == all_told[-1]


@pytest.mark.parametrize("is_saved", [False, True])
def test_killed_in_the_middle_of_a_training_the_same_directory_goes_on(is_saved: bool, tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    plant.feed(30)
    plant.step(3)
    if is_saved:
        plant.train.snapshot()
    job = plant.started[0].job
    (plant.started[0].directory / "checkpoint").write_bytes(b"weights")
    plant.start()
    plant.step(3)

    assert [one.directory for one in plant.started] == [plant.started[0].directory] * 2
    assert plant.started[1].job == job
    assert (plant.started[1].directory / "checkpoint").read_bytes() == b"weights"


def test_a_training_begins_with_the_newest_version_and_a_killed_one_keeps_to_that(tmp_path: Path) -> None:
    """Its own version is there already when it is begun again, and must not become what it began with."""
    plant = Plant(tmp_path)
    begun = []
    for _ in range(3):
        plant.feed(24)
        plant.step(3)
        begun.append(plant.started[-1].job)
        plant.started[-1].succeed()
        plant.step(4)
    plant.feed(24)
    plant.step(3)
    asked = plant.started[-1].job
    plant.started[-1].succeed()
    job = msgspec.structs.replace(asked, lineage=9, parent="net@4.80", parent_blob="models/net/x")
    again = TrainingPlace(tmp_path).prepare(job)
    versions = versions_of(tmp_path, "net")

    assert [one.parent for one in begun] == ["", versions[0].name, versions[1].name]
    assert [one.parent_blob for one in begun] == ["", versions[0].blob, versions[1].blob]
    assert (asked.parent, asked.parent_blob) == (versions[2].name, versions[2].blob)
    assert again == (plant.started[-1].directory, asked)


def test_a_fresh_start_asks_for_no_earlier_version(tmp_path: Path) -> None:
    plant = Plant(tmp_path, Retrain(examples=20, start="fresh"))
    for _ in range(2):
        plant.feed(24)
        plant.step(3)
        plant.started[-1].succeed()
        plant.step(4)

    assert [(one.job.lineage, one.job.parent, one.job.parent_blob) for one in plant.started] == [
        (1, "", ""),
        (2, "", ""),
    ]


def test_a_version_that_was_announced_after_the_last_snapshot_is_not_trained_again(tmp_path: Path) -> None:
    """Its row says so, before anything is started; if it were read later, the directory would give it once more."""
    plant = Plant(tmp_path)
    plant.feed(30)
    plant.step(3)
    plant.train.snapshot()
    ongoing = plant.task.queue.ongoing
    plant.started[0].succeed()
    plant.step(4)
    plant.start()
    again = plant.task.queue.ongoing
    plant.step(4)

    assert ongoing == again is not None
    assert plant.task.queue.ongoing is None
    assert len(plant.started) == 1
    job = read_job(tmp_path / "train" / "net" / "000001")
    place = TrainingPlace(tmp_path)
    assert place.prepare(job) == (tmp_path / "train" / "net" / "000001", job)
    later = msgspec.structs.replace(job, lineage=2)
    assert place.prepare(later) == (tmp_path / "train" / "net" / "000002", later)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("failure", "the archive is damaged"),
        ("killed", "it was killed by SIGKILL: out of memory"),
        ("no result", "has no result, though its training has ended"),
        ("cut", "is not the file of its result"),
        ("flipped", "is not the file of its result"),
        ("not sound", "is not a sound model"),
        ("elsewhere", "names a file elsewhere"),
        ("half a result", "cannot be read"),
    ],
)
def test_a_training_that_makes_no_sound_version_announces_nothing_and_is_tried_again(
    how: str, told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plant = Plant(tmp_path)
    plant.feed(30)
    plant.step(3)
    process = plant.started[0]
    if how == "failure":
        process.fail("the archive is damaged")
    elif how == "killed":
        process.log.parent.mkdir(exist_ok=True)
        process.log.write_text("out of memory\n")
        process.kill()
    elif how == "no result":
        process.code = 0
    elif how == "cut":
        process.succeed(lambda payload: payload[:-9])
    elif how == "flipped":
        process.succeed(lambda payload: payload[:-9] + bytes([payload[-9] ^ 4]) + payload[-8:])
    elif how == "elsewhere":
        process.succeed(model_file="../x.safetensors")
    elif how == "not sound":
        process.succeed()
        broken = spoilt(process.directory / "model.safetensors")
        process.succeed(lambda _: broken, digest=digest_of(broken))
    else:
        process.succeed()
        (process.directory / RESULT).write_text('{"model_file": ')
    plant.step(4)
    [record] = decided(plant, "training failed")
    plant.step(1, after_s=30.0)
    early = len(plant.started)
    plant.step(3, after_s=LONG_S)
    plant.started[1].succeed()
    plant.step(4)

    assert told in record.pop("error")
    assert record.pop("time_us") > 0
    assert record == {
        "decision": "training failed",
        "candidate": "net",
        "lineage": 1,
        "reason": "examples",
        "rows": 20,
        "failures": 1,
        "retry_in_s": 60.0,
    }
    lines = [text for text in caplog.messages if "a training failed" in text]
    assert len(lines) == 1
    assert told in lines[0]
    assert "\n" not in lines[0]
    assert (early, len(plant.started)) == (1, 2)
    assert [row["id"] for row in plant.version_rows()] == ["net"]
    labels = {"pipeline": "p", "role": "train", "candidate": "net", "result": "failed"}
    assert plant.metrics.registry.get_sample_value("millrace_trainings_total", labels) == 1.0


def spoilt(path: Path) -> bytes:
    """Give a model's file with a weight that is not finite."""
    state, metadata = decode(path.read_bytes())
    state["weight"] = np.full_like(state["weight"], np.inf)
    return encode(state, metadata)


def test_one_training_at_a_time_the_newest_that_is_due_and_two_directories_are_kept(tmp_path: Path) -> None:
    other = Model("other", "linear", {"bits": 4}, retrain=Retrain(examples=20))
    plant = Plant(tmp_path, more=[other])
    begun = []
    for _ in range(4):
        plant.feed(45)
        for _ in range(2):
            plant.step(3)
            begun.append((plant.started[-1].job.candidate, plant.started[-1].job.rows, plant.started[-1].job.lineage))
            plant.started[-1].succeed()
            plant.step(3)

    assert begun == [
        *[("net", 40, 1), ("other", 40, 1), ("net", 80, 2), ("other", 80, 2)],
        *[("net", 120, 3), ("other", 120, 3), ("net", 160, 4), ("other", 160, 4)],
    ]
    assert [path.name for path in sorted((tmp_path / "train" / "net").iterdir())] == ["000003", "000004"]


@pytest.mark.parametrize(("is_deaf", "ended"), [(False, -15), (True, -9)])
def test_without_its_partition_a_role_ends_its_process_and_whoever_gets_it_goes_on(
    is_deaf: bool, ended: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked first, for torchrun has workers to end; one that does not hear is ended by force."""
    monkeypatch.setattr(trainings, "GRACE_S", 0.1)
    plant = Plant(tmp_path)
    plant.feed(30)
    plant.step(3)
    if is_deaf:
        monkeypatch.setattr(plant.started[0], "terminate", lambda: None)
    plant.train._revoke([("p.examples", 0)])
    plant.step(1)
    code = plant.started[0].code
    plant.start()
    plant.step(3)

    assert code == ended
    assert [one.job.rows for one in plant.started] == [20, 20]


def test_a_training_waits_for_another_one_of_this_machine(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    held = TrainingPlace(tmp_path).lock()
    assert held is not None
    plant.feed(30)
    plant.step(3)
    before = len(plant.started)
    os.close(held)
    plant.step(1)

    assert (before, len(plant.started)) == (0, 1)


def test_an_alarm_of_drift_starts_a_training_and_its_repeat_none(tmp_path: Path) -> None:
    plant = Plant(tmp_path, Retrain(on_drift=True))
    plant.feed(30)
    plant.step(3)
    alarm = {
        "decision": "drift",
        "candidate": "net",
        "detector": "adwin",
        "feature": "",
        "direction": "up",
        "lineage": 0,
        "generation": 0,
        "examples": 0,
        "source": 1,
        "number": 5,
        "time_us": 9,
        "value": 0.5,
        "threshold": 0.1,
        "action": "none",
    }
    others: list[dict[str, Any]] = [
        {**alarm},
        {"decision": "trained"},
        {**alarm, "candidate": "x", "action": "retrain"},
    ]
    for record in others:
        plant.broker.append("p.decisions", 0, msgspec.json.encode(record))
    plant.step(1, after_s=2.0)
    before = len(plant.started)
    for _ in range(2):
        plant.broker.append("p.decisions", 0, msgspec.json.encode({**alarm, "action": "retrain"}))
    plant.step(2, after_s=2.0)
    plant.started[0].succeed()
    plant.step(4)
    plant.broker.append("p.decisions", 0, msgspec.json.encode({**alarm, "action": "retrain"}))  # of lineage 0
    plant.feed(10)
    plant.step(4, after_s=2.0)

    assert before == 0
    assert [(one.job.reason, one.job.rows) for one in plant.started] == [("drift", 28)]


def test_a_hung_training_is_ended_and_said_to_have_hung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant = Plant(tmp_path, Retrain(examples=20, budget_s=10.0))
    plant.feed(30)
    plant.step(3)
    monkeypatch.setattr("consumers.trainings.OVERRUN_S", -1e9)
    plant.step(2, after_s=2.0)

    [record] = decided(plant, "training failed")
    assert record["error"] == "it was ended, for it took longer than 2 times its budget of 10 s"


def test_a_training_whose_progress_cannot_be_read_is_ended_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk or a network that gives an error: left alone, its process would hold the lock against all others."""
    plant = Plant(tmp_path, Retrain(examples=20))
    plant.feed(30)
    plant.step(3)
    [process] = plant.started
    with monkeypatch.context() as patch:
        patch.setattr(trainings, "read_progress", unreadable)
        plant.step(2, after_s=2.0)
    code = process.code
    plant.step(2, after_s=LONG_S)

    [record] = decided(plant, "training failed")
    assert record["error"] == "progress.json cannot be read: [Errno 5] Input/output error"
    assert code == -15
    assert [one.directory for one in plant.started] == [process.directory] * 2


def test_several_processes_are_started_by_torchrun(tmp_path: Path) -> None:
    plant = Plant(tmp_path, Retrain(examples=20, nproc=3))
    plant.feed(30)
    plant.step(3)
    command = plant.started[0].command

    assert command[1:-1] == [
        *["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3", "-m", "models.training"]
    ]


def test_a_damaged_segment_of_the_archive_is_one_line_that_names_it_and_nothing_is_announced(tmp_path: Path) -> None:
    """By the very code that trains."""
    plant = Plant(tmp_path)
    plant.feed(30)
    plant.step(3)
    segment = segments_of(tmp_path)[2]
    path = tmp_path / "archive" / segment.name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    process = plant.started[0]
    process.code = main([str(process.directory)], {})
    plant.step(3)

    [record] = decided(plant, "training failed")
    assert segment.name in record["error"]
    assert segment.digest[:12] in record["error"]
    assert "\n" not in record["error"]
    assert plant.version_rows() == []
    assert versions_of(tmp_path, "net") == []


def test_what_a_snapshot_had_collected_is_archived_though_the_topic_was_cut_behind_it(tmp_path: Path) -> None:
    """Only the rows that are gone are in no archive; an event that came before them is known by its time."""
    plant = Plant(tmp_path, Retrain(examples=1_000))
    plant.feed(30)
    plant.step(3)
    assert plant.task.archive.archiver.collected > 0
    plant.train.stop()
    plant.feed(1)
    plant.feed(9)
    plant.broker.low["p.examples", 0] = 2
    plant.start()
    plant.feed(8)
    plant.step(3)
    rows = [row for table in read_rows(tmp_path) for row in table.select(["row", "number", "time"]).to_pylist()]

    numbers = [row["number"] for row in rows]
    assert [row["row"] for row in rows] == list(range(len(rows)))
    assert numbers == [number for number in range(48) if number != 30][: len(numbers)]
    assert numbers[-1] > 40
    assert all(row["time"] is not None for row in rows)
    assert plant.task.triggers.reached.rows == plant.task.archive.taken == 47


def test_where_the_archive_is_ahead_of_the_snapshot_no_row_is_written_over(tmp_path: Path) -> None:
    """The rows that were archived behind the snapshot cannot be told from those that come: it goes on behind them."""
    plant = Plant(tmp_path, Retrain(examples=1_000))
    plant.feed(30)
    plant.step(3)
    plant.train.stop()
    plant.start()
    plant.feed(12)
    plant.step(3)  # archives, and dies without a snapshot
    archived = plant.task.archive.rows
    plant.feed(40)
    plant.broker.low["p.examples", 0] = 2
    plant.start()
    plant.step(3)
    rows = [row for table in read_rows(tmp_path) for row in table.select(["row", "number"]).to_pylist()]

    assert [row["row"] for row in rows] == list(range(len(rows)))
    assert [row["number"] for row in rows[archived - 1 : archived + 1]] == [archived - 1, 42]


def test_a_training_that_is_certain_to_fail_waits_for_the_next_that_is_due(tmp_path: Path) -> None:
    """The same rows would make the same model, however often."""
    plant = Plant(tmp_path)
    plant.feed(30)
    plant.step(3)
    first = plant.started[0].job.rows
    plant.started[0].fail("the model is too large", is_certain=True)
    for _ in range(10):
        plant.step(1, after_s=LONG_S)
    assert len(plant.started) == 1
    plant.feed(20)
    plant.step(4)

    assert (first, plant.started[-1].job.rows, len(plant.started)) == (20, 40, 2)
