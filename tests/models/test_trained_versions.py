"""Versions that were trained in a batch: the training's own file, a record that says how, and nothing unsound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models.learner import Learner, make_learner
from models.registry import read_version, tell_again, versions_of, write_trained, write_version
from models.training_job import Job, Result, Training
from models.version import About, Version, decode_record, encode_record
from models.version_file import digest_of
from models.warm_start import parent_of
from models.weights_file import encode
from streams.errors import ModelError
from streams.frames import Column
from streams.pipeline import Model, Task
from streams.retraining import Retrain

COLUMNS = (Column("a", False), Column("c", True))
MODEL = Model("m", "linear", {"lr": 0.05, "bits": 6})


def learner(rows: int = 200) -> Learner:
    found, rng = make_learner(MODEL, COLUMNS), np.random.default_rng(0)
    X = np.column_stack([rng.normal(size=rows), np.arange(rows) % 7]).astype(float)
    found.learn(X, (X[:, 0] > 0).astype(float))
    return found


def write(state: Path, lineage: int = 1, rows: int = 200, **changes: Any) -> Version:
    payload = encode(learner(rows).state(), {"candidate": "m"})
    training = Training(rows, 0, 9, 10, seconds=1.5, settings={"lr": 0.1}, libraries={"torch": "2"})
    job = Job("m", MODEL, COLUMNS, Task(), str(state), lineage=lineage, created_us=7)
    result = Result("model.safetensors", digest_of(payload), training)
    options: dict[str, Any] = {"payload": payload, "result": result, **changes}
    return write_trained(state, job, **options)


def test_it_answers_like_the_model_it_was_made_of_and_its_record_says_how_it_was_made(tmp_path: Path) -> None:
    version = decode_record(encode_record(write(tmp_path)))
    X = np.array([[0.5, 3.0], [np.nan, 1.0]])

    assert np.array_equal(read_version(tmp_path, version).predict(X), learner().predict(X))
    assert (version.order, version.created_us, version.libraries) == ((1, 200), 1_500_007, {"torch": "2"})
    assert version.params == {"lr": 0.1, "bits": 6}  # as a search has found them
    assert version.training is not None
    assert version.training.known_us == 10
    assert version.blob == f"models/m/000001-000000000200-{version.digest[:12]}.safetensors"
    assert versions_of(tmp_path, "m") == [version]


def test_written_again_after_a_crash_it_is_the_same_file_and_the_same_record(tmp_path: Path) -> None:
    first = write(tmp_path)
    files = {path.name: path.read_bytes() for path in (tmp_path / "models" / "m").iterdir()}

    assert write(tmp_path) == first
    assert {path.name: path.read_bytes() for path in (tmp_path / "models" / "m").iterdir()} == files


def test_it_follows_the_version_before(tmp_path: Path) -> None:
    versions = [write(tmp_path, lineage) for lineage in (1, 2, 3)]

    assert [version.parent for version in versions] == ["", "1.200", "2.200"]


def test_any_flipped_bit_and_any_cut_are_refused(tmp_path: Path) -> None:
    version = write(tmp_path)
    path = tmp_path / version.blob
    whole = path.read_bytes()
    for at in np.random.default_rng(0).integers(0, len(whole) * 8, 60).tolist():
        damaged = bytearray(whole)
        damaged[at // 8] ^= 1 << at % 8
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match="is not the file that was published"):
            read_version(tmp_path, version)
    path.write_bytes(whole[:-1])
    with pytest.raises(ModelError, match="is not the file that was published"):
        read_version(tmp_path, version)


def test_what_is_no_whole_file_of_weights_is_refused_though_its_digest_is_right(tmp_path: Path) -> None:
    """A record comes from Kafka, and may name whatever was put there."""
    version = write(tmp_path)
    for payload in (b"", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", b"\xff" * 64):
        digest = digest_of(payload)
        blob = f"models/m/000001-000000000200-{digest[:12]}.safetensors"
        (tmp_path / blob).write_bytes(payload)
        with pytest.raises(ModelError):
            read_version(tmp_path, msgspec.structs.replace(version, blob=blob, digest=digest))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"payload": b"other"}, "is not the file of its result"),
        ({"max_bytes": 10}, "is too large"),
        ({"result": Result("model.pickle", "", Training(1, 0, 0, 0))}, "is not the file of its result"),
    ],
)
def test_what_a_training_should_not_have_made_is_not_written(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        write(tmp_path, **changes)

    assert not (tmp_path / "models").exists()


def test_only_files_of_arrays_are_versions(tmp_path: Path) -> None:
    payload = encode(learner().state(), {})
    with pytest.raises(ModelError, match=r"is no name of a version's file; \.npz and \.safetensors are"):
        write(tmp_path, payload=payload, result=Result("model.pickle", digest_of(payload), Training(200, 0, 9, 10)))


def test_files_that_were_trained_are_not_pushed_out_by_those_published_each_second(tmp_path: Path) -> None:
    """A candidate that starts from an older snapshot comes to their rows again."""
    trained = write(tmp_path)
    for examples in range(201, 221):
        write_version(tmp_path, MODEL, COLUMNS, learner(5), (1, examples), 8, kept=3)
    later = [write(tmp_path, lineage, kept=2) for lineage in (2, 3)]
    names = {path.name for path in (tmp_path / "models" / "m").glob("*.safetensors")}

    assert names == {Path(version.blob).name for version in later}
    assert len(list((tmp_path / "models" / "m").glob("*.npz"))) == 3
    assert trained.blob not in names


def test_its_record_may_tell_newer_figures_of_the_same_file(tmp_path: Path) -> None:
    version = write(tmp_path)
    told = tell_again(tmp_path, version, About(figures={"auc": 0.5}))

    assert versions_of(tmp_path, "m") == [told]
    assert told == msgspec.structs.replace(version, figures={"auc": 0.5})
    assert read_version(tmp_path, told).is_finite()


def test_the_parent_of_a_training_is_the_newest_trained_version_before_it(tmp_path: Path) -> None:
    """Not what has been learned on since, not its own, and none of another kind."""
    first, second = write(tmp_path, 1), write(tmp_path, 2, rows=250)
    learned_on = write_version(tmp_path, MODEL, COLUMNS, learner(300), (2, 300), 7)
    boosted = Model("m", "sklearn:tree.DecisionTreeClassifier", {})
    other = msgspec.structs.replace(MODEL, kind="prior")
    fresh = msgspec.structs.replace(MODEL, retrain=Retrain(start="fresh"))

    assert learned_on is not None
    assert [parent_of(tmp_path, MODEL, lineage) for lineage in (1, 2, 3)] == [None, first, second]
    assert [parent_of(tmp_path, model, 3) for model in (boosted, other, fresh)] == [None, None, None]
