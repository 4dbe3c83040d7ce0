"""Partitions that move between two workers: to the other one and back, through the bytes of snapshots, cut anywhere.

Given the topics as written, what every stage writes is the same bit for bit as in one run by one worker.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.pipeline import Feature, Pipeline
from streams.snapshots import Manifest, SnapshotStore
from streams.stages import stage_specs
from tests import chain_reference as reference
from tests.aggregate_reference import Row
from tests.chaining import Clocks, RealStage, by_partition, real_stages, run_chain
from tests.consumers.test_chain import chain, placed
from tests.featurizing import SECOND, random_rows

MINUTE = 60 * SECOND
FAST = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a snapshot waits for its disk twice
MOST_ROWS = {"a": 40, "b": 3}  # in one batch, by worker
WINDOWS = (
    Feature("rate", "rate", "label", "key", MINUTE, is_label=True, delay_us=7 * SECOND),
    Feature("n_labels", "count", "label", "key", MINUTE, is_label=True),
    Feature("target", "target", "label", "key", 600 * SECOND, is_label=True, delay_us=7 * SECOND),
    Feature("often", "frequency", "*", "key", MINUTE),
    Feature("mean", "mean", "amount", "key", MINUTE),
    Feature("std", "std", "amount", "key", 7 * SECOND, where="amount > 2"),
    Feature("exactly", "mean", "amount", "key", 13 * SECOND, is_exact=True),
    Feature("most_exactly", "max", "amount", "key", 30 * SECOND, is_exact=True),
    Feature("middle", "quantile", "amount", "key", MINUTE, q=0.5),
    Feature("shops", "distinct", "shop", "key", MINUTE, precision=5),
    Feature("shops_exactly", "distinct", "shop", "key", 13 * SECOND, precision=4, is_exact=True),
)
TRAILS = (
    Feature("last", "last", "amount", "key"),
    Feature("lag", "lag", "shop", "key", k=3),
    Feature("faded", "ewm_std", "amount", "key", half_life_us=10 * SECOND),
    Feature("since", "elapsed", "*", "key"),
)


def by(entity: str | tuple[str, ...], features: tuple[Feature, ...]) -> tuple[Feature, ...]:
    """The same features of another entity."""
    name = entity if isinstance(entity, str) else "_".join(entity)
    return tuple(msgspec.structs.replace(f, name=f"{f.name}_of_{name}", by=entity) for f in features)


OF_THE_KEY = WINDOWS + TRAILS
OF_SEVERAL = OF_THE_KEY + by("shop", WINDOWS + TRAILS) + by(("shop", "place"), WINDOWS)


class MovingStage:
    """A stage that worker A begins with, gives to B and gets back, where `dice` says; A's batches are larger."""

    def __init__(self, pipeline: Pipeline, number: int, partition: int, dice: random.Random, directory: Path) -> None:
        self._new: Callable[[], RealStage] = lambda: RealStage(pipeline, number, partition, restores=False)
        self._dice, self._directory = dice, directory
        self._owner, self._stage = "a", self._new()
        self.moves = 0

    def process(self, rows: list[Row], clocks: Clocks) -> reference.Made:
        """Take rows in batches of the owner's size, with a move before some of them."""
        made: reference.Made = []
        start = 0
        while start < len(rows):
            if self._dice.random() < 0.2:
                self._move()
            stop = start + self._dice.randint(1, MOST_ROWS[self._owner])
            found = self._stage.process(rows[start:stop], clocks[start:stop])
            made += [(start + cause, target, row) for cause, target, row in found]
            start = stop
        return made

    def _move(self) -> None:
        """Save, and let a worker that has nothing but the directory go on."""
        SnapshotStore(self._directory).save(_manifest(), self._stage.task.state())
        found = SnapshotStore(self._directory).find()
        assert found.state is not None
        self._owner, self._stage = "b" if self._owner == "a" else "a", self._new()
        self._stage.task.restore(found.state)
        for path in self._directory.iterdir():
            path.unlink()
        self.moves += 1


def _manifest() -> Manifest:
    return Manifest(0, "log", "", 0, {}, 0, 0, "", "", "", (), {})


def moving_stages(pipeline: Pipeline, seed: int, directory: Path) -> list[list[MovingStage]]:
    """All stages, each with one for every partition, that move at places of their own."""
    made = []
    for spec in stage_specs(pipeline):
        row = []
        for partition in range(pipeline.partitions):
            place = directory / f"{spec.number}-{partition}"
            place.mkdir()
            dice = random.Random(seed * 1_000 + 10 * spec.number + partition)
            row.append(MovingStage(pipeline, spec.number, partition, dice, place))
        made.append(row)
    return made


def outputs(pipeline: Pipeline, stages: Any, seed: int, count: int) -> list[Any]:
    """What all stages write of a hostile stream; floats are told apart to the last bit."""
    rows, clocks = random_rows(seed, count, ids=count // 3, keys=7, span_s=30)
    log = by_partition(pipeline, placed(rows, seed), clocks)
    return run_chain(pipeline, stages, log, seed, cuts=3)


def assert_moves_change_nothing(pipeline: Pipeline, seed: int, count: int) -> int:
    """Two workers write what one run writes; gives how often partitions moved."""
    with tempfile.TemporaryDirectory(dir=FAST) as directory:
        moving = moving_stages(pipeline, seed, Path(directory))
        moved, whole = outputs(pipeline, moving, seed, count), outputs(pipeline, real_stages(pipeline), seed, count)

    assert repr(moved) == repr(whole)
    return sum(stage.moves for row in moving for stage in row)


@given(seed=st.integers(0, 10**6), count=st.integers(20, 150), missing=st.sampled_from([None, 0.0]))
@settings(deadline=None, max_examples=25)
def test_a_stage_that_moves_between_two_workers_writes_what_one_run_writes(
    seed: int, count: int, missing: float | None
) -> None:
    """With label features, exact windows, quantiles, distinct counts and trails."""
    of = chain(OF_THE_KEY, partitions=2, wait_us=20 * SECOND, keep_us=10 * SECOND, missing=missing)

    assert_moves_change_nothing(of, seed, count)


@given(seed=st.integers(0, 10**6), count=st.integers(20, 100), missing=st.sampled_from([None, 0.0]))
@settings(deadline=None, max_examples=15)
def test_a_chain_whose_partitions_move_writes_what_one_run_writes(seed: int, count: int, missing: float | None) -> None:
    """Every partition of every stage at places of its own."""
    of = chain(OF_SEVERAL, partitions=2, wait_us=20 * SECOND, keep_us=10 * SECOND, missing=missing)

    assert_moves_change_nothing(of, seed, count)


@pytest.mark.parametrize("features", [OF_THE_KEY, OF_SEVERAL], ids=["one stage", "a chain"])
def test_a_long_stream_moves_back_and_forth_many_times(features: tuple[Feature, ...]) -> None:
    """Each partition several times, so that there is state of every kind to be lost."""
    of = chain(features, partitions=2, wait_us=20 * SECOND, keep_us=10 * SECOND, missing=0.0)

    assert assert_moves_change_nothing(of, 5, 600) > 5 * of.partitions * len(stage_specs(of))
