"""Sealed objects: nothing is unpickled unless it is ours, and then nothing but listed names."""

from __future__ import annotations

import functools
import hashlib
import hmac
import io
import os
import pickle
import random
import stat
import subprocess
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from river import cluster as river_cluster

from models import sealed
from models.sealed import model_key, seal, unseal
from streams.errors import ModelError

KEY = b"k" * 32
cluster: Any = river_cluster  # untyped


class Shell:
    """A pickle that would run a command when read."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


def forge(payload: object) -> bytes:
    """Seal with the right key, as someone who stole it could."""
    return seal(payload, KEY, "1")


def test_what_models_are_made_of_comes_back_equal() -> None:
    rng, generator = random.Random(3), np.random.RandomState(3)
    rng.random()
    generator.random_sample()
    value = {
        "text": [1, 2.5, None, True, "x", b"y", (1, 2), {3}, frozenset({4}), 1j],
        "counter": Counter("aab"),
        "ordered": OrderedDict(b=1, a=2),
        "default": defaultdict(functools.partial(deque, maxlen=3), a=deque([1])),
        "array": np.arange(6.0).reshape(2, 3),
        "scalar": np.float64(0.1),
    }
    found = unseal(forge([value, rng, generator]), KEY, "1")

    assert str(found[0]) == str(value)
    assert found[1].random() == rng.random()
    assert found[2].random_sample() == generator.random_sample()


def test_every_flipped_bit_is_refused_before_pickle_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    blob = forge({"a": [1.5, 2]})
    monkeypatch.setattr(sealed, "_Unpickler", None)  # reading would now fail in another way
    for bit in range(len(blob) * 8):
        damaged = bytearray(blob)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ModelError, match="not ours or damaged"):
            unseal(bytes(damaged), KEY, "1")


@pytest.mark.parametrize("blob", [b"", b"short", b"\0" * 32, pickle.dumps({})])
def test_what_was_never_sealed_is_refused(blob: bytes) -> None:
    with pytest.raises(ModelError, match="not ours or damaged"):
        unseal(blob, KEY, "1")


def test_a_plain_hmac_of_the_same_key_made_for_something_else_does_not_open_it() -> None:
    payload = forge({})[32:]
    with pytest.raises(ModelError, match="not ours or damaged"):
        unseal(hmac.new(KEY, payload, hashlib.sha256).digest() + payload, KEY, "1")


def test_a_malicious_pickle_runs_nothing_even_under_the_right_key(tmp_path: Path) -> None:
    target = tmp_path / "owned"
    with pytest.raises(ModelError, match=r"names (posix|nt)\.system, which is not on the list"):
        unseal(forge([Shell(target)]), KEY, "1")

    assert not target.exists()


class Call:
    """Pickles as a call of any callable that pickle can name."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call[0], self.call[1:]


def name_of(value: object) -> str | None:
    """Name a test the same in every process: by default it would be the object's address."""
    return f"call of {value.call[0].__name__}" if isinstance(value, Call) else None


@pytest.mark.parametrize(
    "value",
    [
        Call(eval, "1"),
        Call(subprocess.Popen, ["true"]),
        Call(getattr, random.Random(), "__class__"),
        Call(getattr, "text", "upper"),
        Call(open, "/etc/passwd"),
        Call(__import__, "os"),
        Call(np.load, "x"),
        io.BytesIO,
        Path("x"),
    ],
    ids=name_of,
)
def test_names_outside_the_list_are_refused(value: object) -> None:
    with pytest.raises(ModelError, match="not on the list"):
        unseal(forge(value), KEY, "1")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("river.base.base", "inspect.os.system"),
        ("river.base", "typing"),
        ("river.tree.hoeffding_tree_classifier", "HoeffdingTreeClassifier.__init__"),
        ("river.tree.hoeffding_tree_classifier", "HoeffdingTreeClassifier.__init__.__globals__"),
        ("river.datasets.base", "SyntheticDataset"),
        ("river.utils.pandas", "import_pandas"),
        ("river.utils.vectordict", "annotations"),
        ("riverbed", "Thing"),
        ("builtins", "exec"),
        ("functools", "reduce"),
    ],
)
def test_the_library_is_no_way_around_the_list(module: str, name: str) -> None:
    reader = sealed._Unpickler(io.BytesIO(b""))
    with pytest.raises(ModelError, match="not on the list"):
        reader.find_class(module, name)


def test_bound_methods_of_the_librarys_own_objects_are_read() -> None:
    found = sealed._Unpickler(io.BytesIO(b"")).find_class("river.naive_bayes.gaussian", "GaussianNB._make_gaussian")

    assert callable(found)


def test_a_class_inside_a_class_and_the_one_method_of_a_generator_that_is_listed_are_read() -> None:
    """DenStream keeps such objects, and k-means draws new centres; any other method of a generator is refused."""
    item = cluster.DenStream.BufferItem({"x": 1.0}, 3, covered=False)
    draw = random.Random(4).gauss

    assert unseal(forge(item), KEY, "1").x == {"x": 1.0}
    assert unseal(forge(draw), KEY, "1")(0, 1) == random.Random(4).gauss(0, 1)
    with pytest.raises(ModelError, match="asks for seed of Random"):
        unseal(forge(random.Random(4).seed), KEY, "1")


def test_another_library_version_or_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    blob = forge({})
    with pytest.raises(ModelError, match=r"written by format 1, river 1, this is format 1, river 2"):
        unseal(blob, KEY, "2")
    monkeypatch.setattr(sealed, "FORMAT", 2)
    with pytest.raises(ModelError, match="this is format 2, river 1"):
        unseal(blob, KEY, "1")


def test_what_cannot_be_written_says_why() -> None:
    with pytest.raises(ModelError, match="a function can not be written"):
        seal(lambda: 1, KEY, "1")


def test_the_key_file_is_made_once_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MILLRACE_MODEL_KEY", raising=False)
    key = model_key(tmp_path / "state")
    path = tmp_path / "state" / "model.key"

    assert len(key) == 32
    assert model_key(tmp_path / "state") == key == path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["model.key"]


def test_of_two_makers_at_once_the_first_wins(tmp_path: Path) -> None:
    path = tmp_path / "model.key"
    path.write_bytes(b"f" * 32)
    path.chmod(0o600)
    sealed._make_key(path)

    assert path.read_bytes() == b"f" * 32


def test_a_key_that_others_can_read_or_that_is_cut_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MILLRACE_MODEL_KEY", raising=False)
    path = tmp_path / "model.key"
    model_key(tmp_path)
    path.chmod(0o640)
    with pytest.raises(ModelError, match="mode 0640 found; run `chmod 600"):
        model_key(tmp_path)
    path.chmod(0o600)
    path.write_bytes(b"cut")
    with pytest.raises(ModelError, match="3 bytes found"):
        model_key(tmp_path)


def test_the_environment_goes_before_the_file_and_must_be_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_MODEL_KEY", "a secret of 16 characters")

    assert model_key(tmp_path) == hashlib.sha256(b"a secret of 16 characters").digest()
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("MILLRACE_MODEL_KEY", "short")
    with pytest.raises(ModelError, match="5 characters found; give at least 16"):
        model_key(tmp_path)
