"""Snapshots in an object store: one PUT for each file, damage, crashes, and what a store says when it does not give.

Over a real S3 server, and over pyarrow's local filesystem, which answers by other means to the same calls.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import fs

from streams.errors import PipelineError, SnapshotError, UnavailableError
from streams.object_folder import ObjectFolder, open_object_folder, with_options
from streams.snapshots import SnapshotStore
from streams.state_folder import LocalFolder, state_of
from tests.rows import pipeline
from tests.s3_server import S3Server, is_shown_safely, refusing_server, url_of
from tests.streams.test_snapshots import STATE, manifest

BIG_BYTES = 12 << 20  # more than one part of a multipart upload


@pytest.fixture(params=["s3", "local"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectFolder:
    """An empty folder that pyarrow writes to."""
    if request.param == "local":
        return ObjectFolder(fs.LocalFileSystem(), str(tmp_path), "file://")
    server: S3Server = request.getfixturevalue("s3")
    return open_object_folder(server.url()) / "snapshots"


def saved(folder: ObjectFolder, *positions: int) -> SnapshotStore:
    """A store that took snapshots at these positions; each one's state is its position."""
    store = SnapshotStore(folder)
    for position in positions:
        store.save(manifest(position), {"at": np.array([position])})
    return store


def found_position(folder: ObjectFolder) -> int | None:
    """The position of the newest snapshot that verifies, read as by another process."""
    found = SnapshotStore(folder).find()
    if found.manifest is None or found.state is None:
        return None
    assert found.state["at"].tolist() == [found.manifest.position]
    return found.manifest.position


def newest(folder: ObjectFolder, kind: str) -> str:
    """The name of the newest part or manifest."""
    return max(name for name in folder.names() if name.startswith(kind))


def numbers(folder: ObjectFolder) -> list[tuple[str, int]]:
    """Kind and number of every file."""
    return [(kind, int(number)) for kind, number, _ in (name.split("-") for name in folder.names())]


def test_what_was_saved_is_found(folder: ObjectFolder) -> None:
    """Bit for bit, and as a local directory gives it back."""
    witness = SnapshotStore(folder).save(manifest(generation=2), STATE)
    found = SnapshotStore(folder).find()

    assert found.manifest is not None
    assert found.state is not None
    assert list(found.state) == list(STATE)
    for name, array in STATE.items():
        np.testing.assert_array_equal(found.state[name], array, strict=True)
        assert found.state[name].flags.writeable
    assert found.digests == {witness.manifest: witness.digest}
    assert (found.newest_number, found.generation) == (1, 2)


def test_the_same_bytes_lie_in_a_store_and_in_a_directory(folder: ObjectFolder, tmp_path: Path) -> None:
    """A state can be copied from one to the other."""
    state = STATE | {"big": np.random.default_rng(0).integers(0, 255, BIG_BYTES, dtype=np.uint8)}
    SnapshotStore(folder).save(manifest(), state)
    here = tmp_path / "copy"
    here.mkdir()
    for name in folder.names():
        (here / name).write_bytes(folder.read(name))
    found = SnapshotStore(here).find()

    assert found.state is not None
    np.testing.assert_array_equal(found.state["big"], state["big"])
    assert SnapshotStore(folder).find().digests == found.digests


def test_a_file_moves_to_another_folder(folder: ObjectFolder, tmp_path: Path) -> None:
    (tmp_path / "aside").mkdir()  # a store knows no folders
    folder.publish("a", b"weights")
    folder.move("a", folder / "aside")

    assert folder.names() == []
    assert (folder / "aside").names() == ["a"]
    assert (folder / "aside").read("a") == b"weights"


def test_an_empty_bucket_holds_nothing(folder: ObjectFolder) -> None:
    """A new role begins so."""
    found = SnapshotStore(folder / "absent").find()

    assert (found.newest_number, found.manifest, found.state) == (0, None, None)


def test_two_are_kept_with_their_parts(folder: ObjectFolder) -> None:
    """And a successor goes on forgetting where it found something."""
    saved(folder, 1, 2, 3, 4)
    kept = numbers(folder)
    successor = SnapshotStore(folder)
    successor.adopt(successor.find())
    successor.save(manifest(5), {"at": np.array([5])})

    assert kept == [("manifest", 3), ("manifest", 4), ("part", 3), ("part", 4)]
    assert numbers(folder) == [("manifest", 4), ("manifest", 5), ("part", 4), ("part", 5)]
    assert found_position(folder) == 5


def test_a_zombie_never_deletes_a_newer_one(folder: ObjectFolder) -> None:
    """It removes only what it wrote or found at its start, and overwrites nothing."""
    zombie = saved(folder, 1)
    successor = SnapshotStore(folder)
    successor.adopt(successor.find())
    for position in (5, 6):
        successor.save(manifest(position), {"at": np.array([position])})
    ours = set(folder.names())
    for position in (2, 3, 4):
        zombie.save(manifest(position), {"at": np.array([position])})

    assert ours <= set(folder.names())
    assert found_position(folder) == 6


@pytest.mark.parametrize("kind", ["part", "manifest"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_any_damage_falls_back_to_the_older_one(folder: ObjectFolder, kind: str, damage: str) -> None:
    saved(folder, 1, 2)
    name = newest(folder, kind)
    whole = folder.read(name)
    flipped = bytes([*whole[:-1], whole[-1] ^ 1])
    folder.write(name, [{"flipped": flipped, "cut": whole[:-1], "empty": b""}[damage]])

    assert found_position(folder) == 1
    assert SnapshotStore(folder).find().newest_number == 2


def test_a_missing_part_falls_back_too(folder: ObjectFolder) -> None:
    saved(folder, 1, 2)
    folder.remove(newest(folder, "part"))

    assert found_position(folder) == 1


def test_nothing_that_verifies_is_told_from_nothing_at_all(folder: ObjectFolder) -> None:
    """A loss is noticed."""
    saved(folder, 1, 2)
    for name in folder.names():
        if name.startswith("part"):
            folder.write(name, [b""])
    found = SnapshotStore(folder).find()

    assert (found.newest_number, found.manifest) == (2, None)


def test_a_crash_between_part_and_manifest_leaves_the_one_before(
    folder: ObjectFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part that nothing names is no snapshot, and the next one does not mind it."""
    store = saved(folder, 1)

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ObjectFolder, "publish", die)
        with pytest.raises(KeyboardInterrupt):
            store.save(manifest(2), {"at": np.array([2])})
    left = numbers(folder)
    successor = SnapshotStore(folder)
    successor.adopt(successor.find())
    before = found_position(folder)
    successor.save(manifest(3), {"at": np.array([3])})

    assert left == [("manifest", 1), ("part", 1), ("part", 2)]
    assert before == 1
    assert found_position(folder) == 3


def test_the_part_is_whole_before_the_manifest_comes_by_one_put(s3: S3Server) -> None:
    """As the server saw it (PROTOCOL 21)."""
    bucket = s3.bucket()
    folder = open_object_folder(s3.url(bucket))
    state = {"big": np.zeros(BIG_BYTES // 2, np.uint8), "more": np.ones(BIG_BYTES // 2, np.uint8)}
    witness = SnapshotStore(folder).save(manifest(), state)
    part = witness.manifest.replace("manifest-", "part-").replace(".json", ".bin")
    asked = [(how, what) for how, what in s3.requests(bucket) if how in {"PUT", "POST"}]

    assert asked[-1] == ("PUT", f"pre/fix/{witness.manifest}")
    assert len(asked) > 1
    assert all(what.startswith(f"pre/fix/{part}") for _, what in asked[:-1])


# What a store says when it does not give


def test_a_file_that_is_not_there_and_one_that_is_too_large(folder: ObjectFolder) -> None:
    folder.publish("a", b"12345")

    assert folder.read("a", 5) == b"12345"
    with pytest.raises(OverflowError, match="5"):
        folder.read("a", 4)
    with pytest.raises(FileNotFoundError):
        folder.read("b")
    folder.remove("b")
    assert folder.names() == ["a"]


def test_a_bucket_that_is_not_there_is_one_line(s3: S3Server) -> None:
    """Not an empty state: a role would begin from the first row, and could not save."""
    url = s3.url("no-such-bucket")
    folder = open_object_folder(url) / "copy"
    with pytest.raises(
        UnavailableError, match=r"cannot list s3://no-such-bucket/pre/fix/copy: there is no bucket"
    ) as one:
        SnapshotStore(folder).find()
    with pytest.raises(UnavailableError, match=r"cannot write s3://no-such-bucket.*NO_SUCH_BUCKET.*; check") as two:
        SnapshotStore(folder).save(manifest(), STATE)

    assert is_shown_safely(f"{one.value}{two.value}", url)


def test_missing_rights_are_one_line_and_never_look_like_an_empty_state() -> None:
    """Listing, reading, writing and deleting."""
    with refusing_server() as port:
        url = url_of(port, "bucket/pre")
        folder = open_object_folder(url)
        said = []
        for ask in (
            folder.names,
            lambda: folder.read("a"),
            lambda: folder.publish("a", b"x"),
            lambda: folder.remove("a"),
            SnapshotStore(folder).find,
        ):
            with pytest.raises(UnavailableError) as caught:
                ask()
            said.append(str(caught.value))

    assert [line.split(":")[0].split()[1] for line in said] == ["list", "read", "write", "delete", "list"]
    assert all("ACCESS_DENIED" in line and line.endswith("; check network, bucket and rights") for line in said)
    assert all(is_shown_safely(line, url) for line in said)


def test_a_manifest_that_cannot_be_read_now_is_not_one_that_is_damaged(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a network that fails for a moment would make a role go back, or stop for good."""
    folder = open_object_folder(s3.url())
    saved(folder, 1, 2)

    def fail(*_: Any) -> None:
        raise OSError("AWS Error NETWORK_CONNECTION during GetObject operation")

    class Failing:
        get_file_info = staticmethod(folder._filesystem.get_file_info)
        open_input_file = fail

    with pytest.raises(UnavailableError, match=r"cannot read s3://.*NETWORK_CONNECTION"):
        SnapshotStore(ObjectFolder(Failing(), folder._path, folder._url)).find()


def test_a_server_that_is_away_is_one_line() -> None:
    """After the client has tried again for some seconds."""
    with refusing_server() as port:
        pass  # and now it is gone
    url = url_of(port, "bucket/pre")
    with pytest.raises(UnavailableError, match=r"cannot list s3://bucket/pre: .*NETWORK_CONNECTION.*; check") as caught:
        open_object_folder(url).names()

    assert is_shown_safely(str(caught.value), url)


def test_a_url_that_pyarrow_does_not_understand_is_a_mistake_in_the_file() -> None:
    """Without its secrets, though pyarrow quotes the URL."""
    for url in (url_of(1, "bucket/pre") + "&bogus=1", url_of(1, "bucket/p e")):
        with pytest.raises(PipelineError, match=r"^\[pipeline\] state: s3://\(hidden\)@bucket/p") as caught:
            open_object_folder(url)

        assert is_shown_safely(str(caught.value), url)


@pytest.mark.parametrize(
    ("url", "opened"),
    [
        ("s3://b/p", "s3://b/p?allow_delayed_open=true"),
        ("s3://b/p?region=x", "s3://b/p?region=x&allow_delayed_open=true"),
        ("s3://b/p?allow_delayed_open=false", "s3://b/p?allow_delayed_open=false"),
        ("gs://b/p", "gs://b/p?retry_limit_seconds=10"),
        ("gs://b/p?retry_limit_seconds=60", "gs://b/p?retry_limit_seconds=60"),
        ("abfs://c@a.dfs.core.windows.net/p", "abfs://c@a.dfs.core.windows.net/p"),
    ],
)
def test_what_a_url_leaves_out_is_chosen_for_a_worker(url: str, opened: str) -> None:
    assert with_options(url) == opened


def test_a_process_has_one_client_and_folders_are_shown_without_secrets(s3: S3Server, tmp_path: Path) -> None:
    url = s3.url("bucket")
    folder = state_of(pipeline(state=tmp_path, state_url=url))

    assert folder is open_object_folder(url)
    assert str(folder / "snapshots" / "features") == "s3://bucket/pre/fix/snapshots/features"
    assert (folder.local, isinstance(state_of(pipeline(state=tmp_path)), LocalFolder)) == (None, True)


def test_a_snapshot_names_the_store_where_it_cannot_be_read(folder: ObjectFolder) -> None:
    """Another format stops with the place in the line."""
    SnapshotStore(folder).save(manifest(format=0), STATE)
    with pytest.raises(SnapshotError, match=f"snapshots in {folder} have format 0, this release reads"):
        SnapshotStore(folder).find()
