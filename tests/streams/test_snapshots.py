"""Snapshots: order of writing, damage, what is kept and what is never deleted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from streams import snapshots
from streams.errors import SnapshotError
from streams.snapshots import FORMAT, Manifest, SnapshotStore, State
from streams.state_folder import LocalFolder

STATE: State = {
    "counts": np.arange(3),
    "x.y": np.array([[1.5, np.nan]]),
    "empty": np.empty((0, 2)),
    "flag": np.array(True),
}


def manifest(position: int = 5, generation: int = 0, **changes: Any) -> Manifest:
    """What the worker fills in before it saves."""
    parts: dict[str, Any] = {
        "number": 0,
        "topic": "p.log",
        "topic_id": "u",
        "partition": 0,
        "partitions": {"p.log": 2},
        "position": position,
        "generation": generation,
        "schema": "s",
        "part": "",
        "digest": "",
        "arrays": (),
        "outputs": {"p.predictions": 3},
    }
    return Manifest(**{**parts, **changes})


def saved(directory: Path, *positions: int) -> SnapshotStore:
    """A store that took snapshots at these positions; each one's state is its position."""
    store = SnapshotStore(directory)
    for position in positions:
        store.save(manifest(position), {"at": np.array([position])})
    return store


def found_position(directory: Path) -> int | None:
    """The position of the newest snapshot that verifies."""
    found = SnapshotStore(directory).find()
    if found.manifest is None or found.state is None:
        return None
    assert found.state["at"].tolist() == [found.manifest.position]
    return found.manifest.position


def files(directory: Path, pattern: str = "*") -> list[str]:
    """Names in a directory, oldest first."""
    return sorted(path.name for path in directory.glob(pattern))


def test_what_was_saved_is_found(tmp_path: Path) -> None:
    """State comes back bit for bit, with names, types and shapes; the manifest with all it recorded."""
    witness = SnapshotStore(tmp_path / "new").save(manifest(generation=2), STATE)
    found = SnapshotStore(tmp_path / "new").find()

    assert found.manifest is not None
    assert found.state is not None
    assert found.manifest == manifest(
        generation=2, number=1, part=found.manifest.part, digest=found.manifest.digest, arrays=found.manifest.arrays,
        check=found.manifest.check,
    )  # fmt: skip
    assert list(found.state) == list(STATE)
    for name, array in STATE.items():
        np.testing.assert_array_equal(found.state[name], array, strict=True)
    assert (witness.number, witness.generation, found.newest_number, found.generation) == (1, 2, 1, 2)
    assert files(tmp_path / "new", "manifest*") == [witness.manifest]


@given(
    array=nps.arrays(st.sampled_from([np.int64, np.float64, np.bool_, np.uint8, np.int8]), nps.array_shapes(min_dims=0))
)
def test_any_array_comes_back(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray[Any, Any]) -> None:
    """Also slices and transposed ones, which do not lie in one piece."""
    directory = tmp_path_factory.mktemp("state")
    SnapshotStore(directory).save(manifest(), {"a": array.T})
    state = SnapshotStore(directory).find().state

    assert state is not None
    np.testing.assert_array_equal(state["a"], array.T, strict=True)


def test_a_restored_state_can_be_changed(tmp_path: Path) -> None:
    """Kernels write into what they are given."""
    SnapshotStore(tmp_path).save(manifest(), STATE)
    state = SnapshotStore(tmp_path).find().state

    assert state is not None
    assert state["counts"].flags.writeable


def test_an_absent_or_empty_directory_holds_nothing(tmp_path: Path) -> None:
    """Neither is an error: a new role begins so."""
    for directory in (tmp_path, tmp_path / "absent"):
        found = SnapshotStore(directory).find()
        assert (found.newest_number, found.manifest, found.state) == (0, None, None)


# The order of writing


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to the disk, in order."""
    done: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def note_fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        done.append("fsync " + ("directory" if path.is_dir() else path.name.split("-")[0] + path.suffix))
        fsync(descriptor)

    def note_rename(self: Path, target: Path) -> Path:
        done.append(f"rename to {target.name.split('-')[0]}{target.suffix}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "rename", note_rename)
    return done


def test_parts_then_manifest_then_rename_then_directory(tmp_path: Path, steps: list[str]) -> None:
    """A manifest that is there is whole, and so are its parts, whenever the power fails (PROTOCOL 21)."""
    SnapshotStore(tmp_path).save(manifest(), STATE)

    assert steps == ["fsync part.bin", "fsync .manifest.tmp", "rename to manifest.json", "fsync directory"]


def test_a_directory_that_is_made_is_durable_before_what_is_in_it(tmp_path: Path, steps: list[str]) -> None:
    """Else the power could take it away with files that a commit relies on."""
    (LocalFolder(tmp_path) / "models" / "linear").publish("a-1.npz", b"weights")

    assert steps == ["fsync directory"] * 2 + ["fsync .a.tmp", "rename to a.npz", "fsync directory"]


@pytest.mark.parametrize("survived", range(4))
def test_a_crash_at_any_step_leaves_a_whole_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    """Before the rename it is the one before; from then on the new one."""
    store = saved(tmp_path, 1)
    left = [survived]

    def or_die(call: Any) -> Any:
        def step(*args: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return call(*args)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", or_die(os.fsync))
        patch.setattr(Path, "rename", or_die(Path.rename))
        with pytest.raises(KeyboardInterrupt):
            store.save(manifest(2), {"at": np.array([2])})

    assert found_position(tmp_path) == (1 if survived < 3 else 2)


# Damage


@pytest.mark.parametrize("pattern", ["part-*.bin", "manifest-*.json"])
@given(data=st.data())
def test_any_damage_falls_back_to_the_older_one(
    tmp_path_factory: pytest.TempPathFactory, pattern: str, data: st.DataObject
) -> None:
    """One flipped bit, or a file cut short, in the newest part or manifest: the snapshot before it is used."""
    directory = tmp_path_factory.mktemp("state")
    saved(directory, 1, 2)
    path = max(directory.glob(pattern))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[at:]
    path.write_bytes(content)

    assert found_position(directory) == 1
    assert SnapshotStore(directory).find().newest_number == 2


def test_a_missing_part_falls_back_too(tmp_path: Path) -> None:
    """A manifest without its part does not verify."""
    saved(tmp_path, 1, 2)
    max(tmp_path.glob("part-*.bin")).unlink()

    assert found_position(tmp_path) == 1


def test_nothing_that_verifies_is_told_from_nothing_at_all(tmp_path: Path) -> None:
    """The number of a damaged manifest is still known, so that a loss is noticed."""
    saved(tmp_path, 1, 2)
    for path in tmp_path.glob("part-*.bin"):
        path.write_bytes(b"")

    found = SnapshotStore(tmp_path).find()

    assert (found.newest_number, found.manifest) == (2, None)


def test_state_of_another_format_is_refused(tmp_path: Path) -> None:
    """It is not read as if it were ours: the message names what to do."""
    SnapshotStore(tmp_path).save(manifest(format=FORMAT + 1), STATE)

    with pytest.raises(
        SnapshotError, match=f"format {FORMAT + 1}, this release reads {FORMAT}; use `millrace rebuild`"
    ):
        SnapshotStore(tmp_path).find()


# Which one decides, and what is kept


def test_the_newest_is_of_the_highest_generation_then_position(tmp_path: Path) -> None:
    """A zombie's late snapshot has a larger number, but not more rows behind it."""
    store = SnapshotStore(tmp_path)
    for position, generation in ((9, 0), (4, 1), (7, 1), (6, 1)):
        store.save(manifest(position, generation), {})
    kept = SnapshotStore(tmp_path).find().manifest

    assert kept is not None
    assert (kept.generation, kept.position) == (1, 7)


def test_two_are_kept_with_their_parts(tmp_path: Path) -> None:
    """The one before the newest is what a damaged one falls back to."""
    saved(tmp_path, 1, 2, 3, 4)

    assert [name.split("-")[1] for name in files(tmp_path)] == ["000000000003", "000000000004"] * 2
    assert found_position(tmp_path) == 4


def test_a_successor_goes_on_numbering_and_forgets_what_it_found(tmp_path: Path) -> None:
    """Numbers only rise, over restarts too; the old ones are removed as new ones come."""
    saved(tmp_path, 1, 2)
    store = SnapshotStore(tmp_path)
    store.adopt(store.find())
    witness = store.save(manifest(3), {"at": np.array([3])})

    assert witness.number == 3
    assert [int(name.split("-")[1]) for name in files(tmp_path, "manifest*")] == [2, 3]
    assert found_position(tmp_path) == 3


def test_a_zombie_never_deletes_a_newer_one(tmp_path: Path) -> None:
    """It removes only what it wrote or found at its start, and overwrites nothing."""
    zombie = saved(tmp_path, 1)
    successor = SnapshotStore(tmp_path)
    successor.adopt(successor.find())
    for position in (5, 6):
        successor.save(manifest(position), {"at": np.array([position])})
    ours = set(files(tmp_path))

    for position in (2, 3, 4):
        zombie.save(manifest(position), {"at": np.array([position])})

    assert ours <= set(files(tmp_path))
    assert found_position(tmp_path) == 6


def test_parts_that_a_present_manifest_names_stay(tmp_path: Path) -> None:
    """Whatever else lies in the directory is left alone."""
    (tmp_path / "part-000000000001-foreign.bin").write_bytes(b"x")
    saved(tmp_path, 1, 2, 3)

    assert "part-000000000001-foreign.bin" in files(tmp_path)
    for path in tmp_path.glob("manifest-*.json"):
        assert (tmp_path / msgspec.json.decode(path.read_bytes())["part"]).exists()


def test_numbers_can_begin_above_those_of_a_lost_directory(tmp_path: Path) -> None:
    """What is written after a loss must not look older than what the group's commit names."""
    store = SnapshotStore(tmp_path)
    store.count_from(57)

    assert store.save(manifest(), STATE).number == 58


@pytest.mark.parametrize("aligned_bytes", [64, 1])
def test_a_large_part_stays_in_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aligned_bytes: int) -> None:
    """Its arrays can be changed, and nobody else sees it; those that lie askew, as they did before, are read."""
    monkeypatch.setattr(snapshots, "ALIGNED_BYTES", aligned_bytes)
    monkeypatch.setattr(snapshots, "MAPPED_FROM_BYTES", 1)
    state: State = {"text": np.arange(3, dtype=np.uint8), "numbers": np.arange(5.0), "none": np.zeros((0, 2))}
    SnapshotStore(tmp_path).save(manifest(), state)

    first, second = (SnapshotStore(tmp_path).find().state or {} for _ in range(2))
    first["numbers"][:], first["text"][0] = 7.0, 9

    assert {name: array.tolist() for name, array in second.items()} == {
        "text": [0, 1, 2], "numbers": [0.0, 1.0, 2.0, 3.0, 4.0], "none": [],
    }  # fmt: skip
    assert first["numbers"].tolist() == [7.0] * 5
    assert second["numbers"].flags.aligned
    assert second["numbers"].flags.owndata == (aligned_bytes == 1)
    assert second["none"].shape == (0, 2)
    again = SnapshotStore(tmp_path).find().state or {}
    assert again["numbers"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_a_large_part_that_is_damaged_falls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is verified before anything of it is used."""
    monkeypatch.setattr(snapshots, "MAPPED_FROM_BYTES", 1)
    store = SnapshotStore(tmp_path)
    for position in (1, 2):
        store.save(manifest(position), {"at": np.full(100, position)})
    newest = max(tmp_path.glob("part-*.bin"))
    newest.write_bytes(newest.read_bytes()[:-1] + b"\1")

    found = SnapshotStore(tmp_path).find()

    assert found.manifest is not None
    assert found.manifest.position == 1
    assert (found.state or {})["at"].tolist() == [1] * 100
