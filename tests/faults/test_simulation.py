"""Random schedules of crashes, zombies, rebalances and snapshots over the real roles; every mutation must be caught."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from models.pending import COUNTERS
from streams import frames
from streams.pipeline import Feature
from tests.faults import mutations, verify
from tests.faults.world import OF_SEVERAL, OF_THE_KEY, World, install
from tests.s3_server import S3Server

SCHEDULES = 24  # about half a second each
CHAINS = 8  # schedules over four stages of features, about a second each
MATCHED = 2  # schedules of each way of matching labels
AMENDED = [(seed, 0.0) for seed in (0, 1, 2)]  # schedules in which amended labels are learned, and how long rows wait
AMENDED += [(seed, 0.5) for seed in (0, 2, 3)]
STORES = 2  # schedules over an S3 server, about 6 seconds each
SEARCHED = 40  # schedules in which a mutation must show at least once


@pytest.fixture(autouse=True)
def _some_workers_hold_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.faults.world.HOLD_S", 0.5)


@pytest.fixture
def fast_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory in memory where there is one, without waiting for disks: what is on disk is not what is tested."""
    monkeypatch.setattr("os.fsync", lambda _: None)
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a throw-away directory below it
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


def simulate(
    seed: int,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_replay: bool = False,
    of: tuple[Feature, ...] = OF_THE_KEY,
    state_url: str | None = None,
    labels: Mapping[str, Any] | None = None,
) -> World:
    state = directory / str(seed)
    faults = not is_replay
    world = World(seed, state, is_replay=is_replay, with_faults=faults, of=of, state_url=state_url, labels=labels)
    install(monkeypatch, world)
    world.run()
    verify.check(world)
    if is_replay:
        verify.check_order(world)
    return world


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_any_schedule_gives_what_the_topics_as_written_say(
    seed: int, fast_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = simulate(seed, fast_directory, monkeypatch)

    assert world.crashes > 0


@pytest.mark.parametrize("seed", range(CHAINS))
def test_any_schedule_of_a_chain_gives_what_the_topics_as_written_say(
    seed: int, fast_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features of several entities: every stage dies, is doubled and moved like any role."""
    world = simulate(seed, fast_directory, monkeypatch, of=OF_SEVERAL)

    assert world.crashes > 0
    assert len(world.inputs) == 7


@pytest.mark.parametrize(("seed", "hold_s"), AMENDED)
@pytest.mark.parametrize("of", [OF_THE_KEY, OF_SEVERAL], ids=["one stage", "chain"])
def test_any_schedule_learns_amended_labels_once_more_and_serves_what_its_versions_say(
    of: tuple[Feature, ...], seed: int, hold_s: float, fast_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.faults.world.HOLD_S", hold_s)
    world = simulate(seed, fast_directory, monkeypatch, of=of, labels={"amend": "relearn"})

    assert world.crashes > 0
    again = COUNTERS.index("relearned")
    assert world.learned("logistic")["board.counters"][again] > 0


MATCHES: dict[str, dict[str, Any]] = {
    "id": {"match": "id", "key": None, "amend": "relearn"},
    "key": {"match": "key", "id": None, "within_us": 60_000_000},
}


@pytest.mark.parametrize("seed", range(MATCHED))
@pytest.mark.parametrize("match", MATCHES)
@pytest.mark.parametrize("of", [OF_THE_KEY, OF_SEVERAL], ids=["of the key", "of several"])
def test_any_schedule_settles_labels_that_lack_their_key_or_their_id(
    of: tuple[Feature, ...], match: str, seed: int, fast_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By id the ledger is a stage of its own, by key one label may stand for several events: nothing else changes."""
    world = simulate(seed, fast_directory, monkeypatch, of=of, labels=MATCHES[match])

    assert world.crashes > 0
    assert world.learned("logistic")["version"][1] > 20


@pytest.mark.parametrize("match", MATCHES)
def test_a_replay_keeps_the_order_however_labels_are_matched(
    match: str, fast_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(1, fast_directory, monkeypatch, is_replay=True, labels=MATCHES[match])


@pytest.mark.parametrize("seed", range(STORES))
def test_any_schedule_over_an_object_store_gives_what_the_topics_as_written_say(
    seed: int, fast_directory: Path, monkeypatch: pytest.MonkeyPatch, s3: S3Server
) -> None:
    """Every worker starts on a host of its own, and finds there what others left in the store."""
    world = simulate(seed, fast_directory, monkeypatch, state_url=s3.url())

    assert world.crashes > 0
    assert world.rebalances + world.zombies > 0
    assert list(fast_directory.rglob("*")) == []


OLD_AND_NEW = {
    "the key": (
        OF_THE_KEY,
        (
            Feature("more", "mean", "amount", "key", 60_000_000, where="amount > 5"),
            *OF_THE_KEY[::-1],
            Feature("least", "min", "amount", "key", 12_000_000),
            Feature("often", "count", "label", "key", 12_000_000, is_label=True, delay_us=3_000_000),
        ),
    ),
    "several": (
        OF_SEVERAL,
        (
            Feature("n_shop", "count", "*", "shop", 9_000_000),
            *OF_SEVERAL[::-1][1:],
            Feature("again", "lag", "amount", ("shop", "place"), k=2),
            OF_SEVERAL[-1],
        ),
    ),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("entities", OLD_AND_NEW)
def test_a_list_that_changes_in_the_middle_changes_nothing_that_was_there(
    entities: str, seed: int, fast_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of both lists, read with the columns of the first: features, scores, weights and answers are as ever."""
    old, new = OLD_AND_NEW[entities]
    world = World(seed, fast_directory, of=old, then=new)
    install(monkeypatch, world)

    world.run()

    assert world.pipeline.features == new
    latest = world.records("w.examples", 0)[-1].headers()
    assert latest == [(frames.SCHEMA_HEADER, verify.schemas_of(world.pipeline).examples.fingerprint.encode())]
    world.pipeline = msgspec.structs.replace(world.pipeline, features=old)
    verify.check(world)


def test_schedules_cover_every_kind_of_fault(fast_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds = [simulate(seed, fast_directory, monkeypatch) for seed in range(100, 104)]

    assert all(sum(getattr(w, what) for w in worlds) > 0 for what in ("crashes", "zombies", "rebalances", "snapshots"))


@pytest.mark.parametrize("seed", range(4))
def test_a_replay_predicts_every_event_before_later_labels_are_learned(
    seed: int, fast_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(seed, fast_directory, monkeypatch, is_replay=True)


@pytest.mark.parametrize("seed", range(2))
def test_a_replay_of_a_chain_keeps_the_order_in_every_stage(
    seed: int, fast_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(seed, fast_directory, monkeypatch, is_replay=True, of=OF_SEVERAL)


@pytest.mark.parametrize("mutation", [*mutations.ALL, *mutations.OF_A_CHAIN], ids=lambda mutation: mutation.__name__)
def test_every_mutation_of_the_protocol_is_caught(
    mutation: Callable[[pytest.MonkeyPatch], None], fast_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_replay = mutation in mutations.OF_THE_MERGE
    of = OF_SEVERAL if mutation in mutations.OF_A_CHAIN else OF_THE_KEY
    for seed in range(SEARCHED):
        world = World(seed, fast_directory / str(seed), is_replay=is_replay, with_faults=not is_replay, of=of)
        with monkeypatch.context() as patch:
            install(patch, world)
            mutation(patch)
            try:
                world.run()
            except Exception:  # noqa: BLE001 - a mutant may also stop with an error; that is being caught
                return
        try:
            verify.check(world)
            if is_replay:
                verify.check_order(world)
        except AssertionError:
            return
    pytest.fail(f"{mutation.__name__} passed {SEARCHED} schedules unnoticed")
