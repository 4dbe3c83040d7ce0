"""Versions: a record names a whole, sound, unchanged model, and a reader takes nothing else."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models.learner import Learner, make_learner
from models.registry import keep_for_good, read_version, read_weights, versions_of, write_version
from models.version import About, Costs, Version, decode_record, encode_record
from streams.errors import ModelError
from streams.frames import Column
from streams.pipeline import Model, Task

KEY = b"k" * 32
COLUMNS = (Column("a", False), Column("c", True))
MODELS = {
    "linear": Model("m", "linear", {"lr": 0.05, "bits": 6}),
    "mlp": Model("m", "mlp", {"hidden": [8, 4], "optimizer": "adam", "bits": 6}),
    "naive_bayes": Model("m", "naive_bayes", {"bits": 6}),
    "hoeffding_tree": Model("m", "hoeffding_tree", {"grace_period": 20, "delta": 0.1}),
    "prior": Model("m", "prior", {}),
    "river": Model("m", "river:tree.HoeffdingTreeClassifier", {"grace_period": 20}),
}
X = np.column_stack([np.random.default_rng(0).normal(size=200), np.arange(200) % 7]).astype(float)
Y = (X[:, 0] > 0).astype(float)


def trained(model: Model, rows: int = 200) -> Learner:
    learner = make_learner(model, COLUMNS, KEY)
    learner.learn(X[:rows], Y[:rows])
    return learner


def write(state: Path, model: Model, learner: Learner, order: tuple[int, int] = (0, 200)) -> Version:
    version = write_version(state, model, COLUMNS, learner, order, created_us=5)
    assert version is not None
    return version


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_version_answers_like_the_model_it_was_made_of(model: Model, tmp_path: Path) -> None:
    learner = trained(model)
    version = decode_record(encode_record(write(tmp_path, model, learner)))
    found = read_version(tmp_path, version, KEY)

    assert np.array_equal(found.predict(X), learner.predict(X))
    assert (version.candidate, version.order, version.kind, version.columns) == ("m", (0, 200), model.kind, COLUMNS)
    assert version.blob == f"models/m/000000-000000000200-{version.digest[:12]}.npz"
    blob = Path(version.blob).name
    assert sorted(path.name for path in (tmp_path / "models" / "m").iterdir()) == [blob, f"{blob}.json"]


def test_the_same_model_makes_the_same_file(tmp_path: Path) -> None:
    first = write(tmp_path / "a", MODELS["linear"], trained(MODELS["linear"]))
    second = write(tmp_path / "b", MODELS["linear"], trained(MODELS["linear"]))

    assert first == second


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_any_flipped_bit_is_refused(model: Model, tmp_path: Path) -> None:
    version = write(tmp_path, model, trained(model, 30))
    path = tmp_path / version.blob
    whole = path.read_bytes()
    for at in np.random.default_rng(0).integers(0, len(whole) * 8, 60).tolist():
        damaged = bytearray(whole)
        damaged[at // 8] ^= 1 << at % 8
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match="is not the file that was published"):
            read_version(tmp_path, version, KEY)
    path.write_bytes(whole[:-1])
    with pytest.raises(ModelError, match="is not the file that was published"):
        read_version(tmp_path, version, KEY)


def rewritten(state: Path, version: Version, payload: bytes) -> Version:
    """Give the record of a file that a writer with access to everything but the code has put there."""
    digest = hashlib.blake2b(payload, digest_size=32).hexdigest()
    blob = f"models/m/000000-000000000200-{digest[:12]}.npz"
    (state / blob).write_bytes(payload)
    return msgspec.structs.replace(version, blob=blob, digest=digest)


def test_a_file_with_pickled_objects_wrong_shapes_or_no_archive_is_refused(tmp_path: Path) -> None:
    version = write(tmp_path, MODELS["linear"], trained(MODELS["linear"]))
    objects, shapes, weights = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.savez(objects, allow_pickle=True, **{"state.seen": np.array([print], object)})
    np.savez(shapes, allow_pickle=False, **{"state.seen": np.zeros(9)})
    state = {f"state.{name}": array for name, array in trained(MODELS["linear"]).state().items()}
    np.savez(weights, allow_pickle=False, **{**state, "state.weight": np.array([np.inf])})

    for buffer, message in (
        (objects, "cannot be read"),
        (shapes, "seen is not whole"),
        (weights, "is not a sound model"),
        (io.BytesIO(b"PK\x03\x04"), "cannot be read"),
        (io.BytesIO(b""), "cannot be read"),
    ):
        with pytest.raises(ModelError, match=message):
            read_version(tmp_path, rewritten(tmp_path, version, buffer.getvalue()), KEY)


@pytest.mark.parametrize("blob", ["../../etc/passwd", "models/other/x.npz", "models/m/x.npz", "/etc/passwd", ""])
def test_a_record_cannot_name_a_file_elsewhere(blob: str, tmp_path: Path) -> None:
    version = write(tmp_path, MODELS["prior"], trained(MODELS["prior"]))
    with pytest.raises(ModelError, match="names a file that is no version"):
        read_version(tmp_path, msgspec.structs.replace(version, blob=blob), KEY)


def test_a_missing_or_too_large_file_and_another_format_are_refused(tmp_path: Path) -> None:
    version = write(tmp_path, MODELS["linear"], trained(MODELS["linear"]))
    with pytest.raises(ModelError, match="is too large"):
        read_version(tmp_path, version, KEY, max_bytes=100)
    with pytest.raises(ModelError, match="was written by another release"):
        read_version(tmp_path, msgspec.structs.replace(version, format=9), KEY)
    (tmp_path / version.blob).unlink()
    with pytest.raises(ModelError, match="cannot be opened"):
        read_version(tmp_path, version, KEY)


def test_a_model_that_is_not_finite_or_too_large_is_not_published(tmp_path: Path) -> None:
    model = MODELS["linear"]
    broken = trained(model)
    state = broken.state()
    state["weight"] = np.array([np.nan])
    broken.restore(state)

    assert write_version(tmp_path, model, COLUMNS, broken, (0, 1), created_us=5) is None
    assert write_version(tmp_path, model, COLUMNS, trained(model), (0, 1), created_us=5, max_bytes=100) is None
    assert not (tmp_path / "models").exists()


def test_the_ten_newest_are_kept_and_a_newer_writers_files_stay(tmp_path: Path) -> None:
    learner = trained(MODELS["prior"])
    newer = write(tmp_path, MODELS["prior"], learner, (1, 5))
    versions = [write(tmp_path, MODELS["prior"], learner, (0, examples)) for examples in range(1, 15)]
    kept = {path.name for path in (tmp_path / "models" / "m").glob("*.npz")}
    assert {path.name.removesuffix(".json") for path in (tmp_path / "models" / "m").glob("*.json")} == kept

    assert kept == {Path(version.blob).name for version in (*versions[-10:], newer)}
    assert max(versions, key=lambda version: version.order) == versions[-1]
    assert newer.order > versions[-1].order


@pytest.mark.parametrize("value", [b"", b"{}", b"\xff", b"[" * 10_000])
def test_a_record_that_is_none_is_refused(value: bytes) -> None:
    with pytest.raises(ModelError, match="a version record cannot be read"):
        decode_record(value)


def test_a_version_that_has_reigned_is_kept_for_good(tmp_path: Path) -> None:
    """It takes no place of those that are kept because they are new."""
    first, *others = [write(tmp_path, MODELS["prior"], trained(MODELS["prior"]), (0, at)) for at in range(1, 4)]
    assert keep_for_good(tmp_path, "nobody", 7) is None
    assert keep_for_good(tmp_path, "m", 0) == first
    others += [write(tmp_path, MODELS["prior"], trained(MODELS["prior"]), (0, at)) for at in range(4, 20)]

    assert versions_of(tmp_path, "m") == [first, *others[-10:]]
    assert np.array_equal(read_version(tmp_path, first, KEY).predict(X), trained(MODELS["prior"]).predict(X))


def test_the_records_of_what_is_kept_lie_beside_it(tmp_path: Path) -> None:
    """With what the candidate said of itself; one that cannot be read is left out."""
    model = MODELS["linear"]
    costs = Costs(predict_us=0.5, size_bytes=9)
    about = About({"log_loss": 0.5, "auc": None}, {"log_loss": 0.25}, costs, parent="0.100")
    learner = trained(model)
    written = [
        write_version(tmp_path, model, COLUMNS, learner, (0, examples), 5, about=about, kept=2)
        for examples in (200, 300, 400)
    ]
    (tmp_path / "models" / "m" / f"000001-000000000007-{'0' * 12}.npz.json").write_text("{}")
    found = versions_of(tmp_path, "m")

    assert found == written[1:]
    assert [version.name for version in found] == ["m@0.300", "m@0.400"]
    assert (found[0].figures, found[0].rolling, found[0].costs, found[0].parent) == (
        {"log_loss": 0.5, "auc": None}, {"log_loss": 0.25}, costs, "0.100",
    )  # fmt: skip
    assert found[0].libraries["numpy"] == np.__version__
    weights = read_weights(tmp_path, found[1])
    assert all(np.array_equal(weights[name], array) for name, array in learner.state().items())


def test_a_record_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    """What it does not say is not known."""
    version = write(tmp_path, MODELS["prior"], trained(MODELS["prior"]))
    told = msgspec.json.decode(encode_record(version))
    for name in ("parent", "figures", "rolling", "costs", "libraries"):
        del told[name]

    found = decode_record(msgspec.json.encode(told))

    assert (found.order, found.figures, found.costs, found.libraries) == ((0, 200), {}, Costs(), {})


def test_another_task_or_column_has_another_schema(tmp_path: Path) -> None:
    version = write(tmp_path, MODELS["prior"], trained(MODELS["prior"]))
    others = [
        msgspec.structs.replace(version, columns=COLUMNS[:1]),
        msgspec.structs.replace(version, columns=(Column("a", True), COLUMNS[1])),
        msgspec.structs.replace(version, task=Task("regression")),
    ]

    assert len({one.schema for one in (version, *others)}) == 4
    assert msgspec.structs.replace(version, examples=201).schema == version.schema
