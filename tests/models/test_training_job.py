"""A training's files: each is whole or not there, and says the same when it is read."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest

from models.time_split import Span, Split
from models.training_job import (
    Failure,
    Job,
    Progress,
    Result,
    Training,
    forget_failure,
    read_failure,
    read_job,
    read_progress,
    read_result,
    write_failure,
    write_job,
    write_progress,
    write_result,
)
from streams.errors import ModelError
from streams.frames import Column
from streams.pipeline import Model, Task
from streams.retraining import Retrain

JOB = Job(
    "net",
    Model("net", "torch:mlp", {"hidden": [8, 4], "lr": 0.01}, retrain=Retrain(every_us=5, search=3)),
    (Column("x", is_category=False), Column("c", is_category=True)),
    Task("multiclass", ("a", "b")),
    "s3://bucket/state",
    from_us=1,
    known_us=9,
    parent="net@1.20",
)
SPLIT = Split(Span(0, 5, 6), Span(6, 7, 8), Span(8, 9, 9), 1)
TRAINING = Training(10, 0, 9, 9, SPLIT, {"loss": 0.5, "auc": None}, curve=((0.7, 0.6), (0.5, 0.4)), notes=("short",))


def test_a_job_is_read_as_it_was_written_and_only_its_owner_may_look(tmp_path: Path) -> None:
    write_job(tmp_path / "net" / "3", JOB)

    assert read_job(tmp_path / "net" / "3") == JOB
    assert (tmp_path / "net" / "3").stat().st_mode & 0o777 == 0o700


def test_a_training_that_has_said_nothing_yet_has_neither_progress_nor_an_end(tmp_path: Path) -> None:
    write_job(tmp_path, JOB)

    assert (read_progress(tmp_path), read_result(tmp_path), read_failure(tmp_path)) == (None, None, None)


def test_progress_result_and_failure_are_read_as_they_were_written(tmp_path: Path) -> None:
    progress, result = Progress(1, 20, 300, 0.25, best_epoch=0), Result("model.safetensors", "ab", TRAINING)
    write_progress(tmp_path, progress)
    write_result(tmp_path, b"weights", result)
    write_failure(tmp_path, Failure("too few examples: 3 found", 9))

    assert (read_progress(tmp_path), read_result(tmp_path)) == (progress, result)
    assert (tmp_path / "model.safetensors").read_bytes() == b"weights"
    assert read_failure(tmp_path) == Failure("too few examples: 3 found", 9)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("failure.json", "model.safetensors", "progress.json", "result.json"),
    ]


def test_what_an_earlier_try_said_is_forgotten(tmp_path: Path) -> None:
    write_failure(tmp_path, Failure("killed", 9))

    forget_failure(tmp_path)
    forget_failure(tmp_path)

    assert read_failure(tmp_path) is None


def test_a_directory_without_a_job_is_no_training(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is no training: it has no job\.json"):
        read_job(tmp_path)


def test_a_truncated_result_is_refused_in_one_line(tmp_path: Path) -> None:
    write_result(tmp_path, b"", Result("model.safetensors", "ab", TRAINING))
    path = tmp_path / "result.json"
    path.write_bytes(path.read_bytes()[:50])

    with pytest.raises(ModelError, match=r"result\.json cannot be read") as found:
        read_result(tmp_path)
    assert "\n" not in str(found.value)


def test_a_loss_that_is_no_number_leaves_the_progress_readable(tmp_path: Path) -> None:
    write_progress(tmp_path, Progress(loss=math.nan))

    found = read_progress(tmp_path)

    assert found is not None
    assert found.loss is None


def test_older_results_without_newer_fields_are_still_read(tmp_path: Path) -> None:
    old = {"model_file": "m", "digest": "d", "training": {"rows": 1, "from_us": 2, "to_us": 3, "known_us": 4}}
    (tmp_path / "result.json").write_bytes(msgspec.json.encode(old))

    assert read_result(tmp_path) == Result("m", "d", Training(1, 2, 3, 4))
