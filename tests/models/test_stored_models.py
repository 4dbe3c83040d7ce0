"""Versions in an object store: the same files under the same names, and a key that never lies beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.registry import read_version, versions_of, write_version
from models.sealed import model_key
from streams.errors import ModelError, UnavailableError
from streams.object_folder import open_object_folder
from tests.models.test_registry import COLUMNS, KEY, MODELS, X, trained, write
from tests.s3_server import S3Server, refusing_server, url_of


@pytest.mark.parametrize("kind", MODELS)
def test_a_version_is_the_same_file_as_in_a_directory(kind: str, s3: S3Server, tmp_path: Path) -> None:
    folder, learner = open_object_folder(s3.url()), trained(MODELS[kind])
    version = write_version(folder, MODELS[kind], COLUMNS, learner, (0, 200), created_us=5)
    local = write_version(tmp_path, MODELS[kind], COLUMNS, learner, (0, 200), created_us=5)

    assert version is not None
    assert version == local
    name, record = (folder / "models" / "m").names()
    assert (version.blob, record) == (f"models/m/{name}", f"{name}.json")
    assert versions_of(folder, "m") == [version]
    assert (folder / "models" / "m").read(name) == (tmp_path / version.blob).read_bytes()
    assert np.array_equal(read_version(folder, version, KEY).predict(X), learner.predict(X))


def test_the_ten_newest_are_kept(s3: S3Server) -> None:
    folder, learner = open_object_folder(s3.url()), trained(MODELS["prior"])
    newer = write_version(folder, MODELS["prior"], COLUMNS, learner, (1, 5), created_us=5)
    for examples in range(1, 14):
        write_version(folder, MODELS["prior"], COLUMNS, learner, (0, examples), created_us=5)
    orders = [version.order for version in versions_of(folder, "m")]

    assert newer is not None
    assert len((folder / "models" / "m").names()) == 2 * len(orders)
    assert orders == [*((0, examples) for examples in range(4, 14)), (1, 5)]


def test_what_is_damaged_absent_or_too_large_is_refused(s3: S3Server, tmp_path: Path) -> None:
    folder = open_object_folder(s3.url())
    version = write(tmp_path, MODELS["linear"], trained(MODELS["linear"]))
    name, models = Path(version.blob).name, folder / "models" / "m"
    with pytest.raises(ModelError, match=r"cannot be opened: .*; check that hosts share it"):
        read_version(folder, version, KEY)
    models.publish(name, (tmp_path / version.blob).read_bytes())
    with pytest.raises(ModelError, match=r"is too large: \d+ bytes found, 100 allowed"):
        read_version(folder, version, KEY, max_bytes=100)
    models.publish(name, (tmp_path / version.blob).read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"is not the file that was published: .*; s3://.*/models/m/.*\.npz"):
        read_version(folder, version, KEY)


def test_a_store_that_refuses_says_nothing_of_the_version(tmp_path: Path) -> None:
    """It may be had the next time."""
    version = write(tmp_path, MODELS["prior"], trained(MODELS["prior"]))
    with refusing_server() as port:
        folder = open_object_folder(url_of(port, "bucket"))
        with pytest.raises(UnavailableError, match="cannot read s3://bucket/models/m/"):
            read_version(folder, version)
        with pytest.raises(UnavailableError, match="cannot write s3://bucket/models/m/"):
            write_version(folder, MODELS["prior"], COLUMNS, trained(MODELS["prior"]), (0, 1), created_us=5)


def test_the_key_of_models_in_a_store_comes_from_the_environment_alone(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write to the bucket must not be able to seal."""
    folder = open_object_folder(s3.url())
    monkeypatch.delenv("MILLRACE_MODEL_KEY", raising=False)
    with pytest.raises(ModelError, match=r"MILLRACE_MODEL_KEY is not set: River models in s3://.*; give every host"):
        model_key(folder)
    monkeypatch.setenv("MILLRACE_MODEL_KEY", "a secret of 16 characters")

    assert len(model_key(folder)) == 32
    assert folder.names() == []
