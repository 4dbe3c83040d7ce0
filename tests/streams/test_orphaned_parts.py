"""Parts of snapshots that a kill left without a manifest: removed at a start, but never what somebody may name."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from streams import snapshots
from streams.snapshots import Manifest, SnapshotStore
from tests.streams.test_snapshots import files, found_position, saved

HOUR_S = 3_600.0


@pytest.fixture
def orphans(tmp_path: Path) -> dict[str, Path]:
    """Snapshots 4 and 5, and parts that kills have left; all were written at the time 0."""
    saved(tmp_path, 1, 2, 3, 4, 5)
    made = {name: tmp_path / f"part-{number:012d}-{name:0>12}.bin" for name, number in (("a", 3), ("b", 4), ("c", 6))}
    for part in made.values():
        part.write_bytes(b"half")
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    return made


def left(directory: Path, orphans: dict[str, Path], now_s: float) -> str:
    """The orphans that are still there after a start at this time; what is named must be."""
    store = SnapshotStore(directory, lambda: now_s)
    store.adopt(store.find())
    assert found_position(directory) == 5
    assert len(files(directory, "manifest-*")) == 2
    assert len(files(directory, "part-*")) == 2 + sum(part.exists() for part in orphans.values())
    return "".join(name for name, part in orphans.items() if part.exists())


def test_what_a_kill_left_is_removed_when_nobody_can_name_it_any_more(tmp_path: Path, orphans: dict[str, Path]) -> None:
    """An hour old, and older than all manifests: a part with a later number may be about to be named."""
    assert left(tmp_path, orphans, HOUR_S - 1) == "abc"
    assert left(tmp_path, orphans, HOUR_S + 1) == "bc"


def test_a_manifest_that_names_a_removed_part_is_passed_over(tmp_path: Path, orphans: dict[str, Path]) -> None:
    """A writer was frozen between part and manifest, for longer than anybody waits."""
    assert left(tmp_path, orphans, HOUR_S + 1) == "bc"
    whole = msgspec.json.decode((tmp_path / files(tmp_path, "manifest-*")[0]).read_bytes(), type=Manifest)
    late = msgspec.structs.replace(whole, number=3, part=orphans["a"].name, position=9, check="")
    late = msgspec.structs.replace(late, check=snapshots._check(late))
    (tmp_path / orphans["a"].name.replace("part-", "manifest-").replace(".bin", ".json")).write_bytes(
        msgspec.json.encode(late)
    )

    assert found_position(tmp_path) == 5


def test_where_no_manifest_is_nothing_is_removed(tmp_path: Path, orphans: dict[str, Path]) -> None:
    """The first snapshot may be on its way."""
    for path in tmp_path.glob("manifest-*"):
        path.unlink()
    store = SnapshotStore(tmp_path, lambda: 1e9)
    store.adopt(store.find())

    assert all(part.exists() for part in orphans.values())
    assert len(files(tmp_path, "part-*")) == 5
