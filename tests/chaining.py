"""Chains of feature stages for tests: rows wander from stage to stage, in any order that Kafka may give them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from consumers.chain_tasks import LastTask, make_task
from consumers.featurize import FeatureTask
from streams import frames
from streams.features import columns
from streams.frames import Batch, FrameSchema
from streams.pipeline import Pipeline
from streams.stages import stage_specs
from tests import chain_reference as reference
from tests.aggregate_reference import Row
from tests.rows import batch_of

BEFORE = -(2**63)
Clocks = list[tuple[int, int]]
Stream = list[Row]  # rows and marks, in order
NAMES = {0: "event", 1: "label"}


class AnyStage(Protocol):
    """A stage on one partition, of the code under test or of the reference."""

    def process(self, rows: list[Row], clocks: Clocks) -> reference.Made:
        """Take rows in order; gives causes, partitions and rows."""


class RealStage:
    """A task, fed with rows as dicts; with `restores` it is put away and taken up again after every batch."""

    def __init__(self, pipeline: Pipeline, number: int, partition: int, *, restores: bool) -> None:
        self._make: Callable[[], Any] = lambda: make_task(pipeline, number, partition, 100 * number + partition)
        self._restores = restores
        self.task = self._make()
        self._schema = schema_of(pipeline, number - 1)

    def process(self, rows: list[Row], clocks: Clocks) -> reference.Made:
        array = np.array(clocks, np.int64).reshape(-1, 2)
        made = []
        for output in self.task.process(Batch(batch_of(self._schema, rows), array[:, 0].copy(), array[:, 1].copy())):
            if output.topic != "features":
                target = reference.EVERYWHERE if output.topic == "examples" else output.partition
                found = output.table.take(output.picked).to_arrow().to_pylist()
                made += [(int(c), target, row) for c, row in zip(output.cause, found, strict=True)]
        if isinstance(self.task, FeatureTask | LastTask):
            assert self.task.unaccounted_rows() == 0
        if self._restores:
            state, self.task = self.task.state(), self._make()
            self.task.restore(state)
        return made


def schema_of(pipeline: Pipeline, number: int) -> FrameSchema:
    """What a stage writes; 0 is ingest."""
    if number == 0:
        return frames.log_schema(pipeline)
    return frames.stage_schema(stage_specs(pipeline)[number - 1], columns(pipeline))


def by_partition(of: Pipeline, rows: list[Row], clocks: Clocks) -> list[list[tuple[Row, tuple[int, int]]]]:
    """The log: each row in the partition of its key, or of its id where labels have no key, marks in all."""
    is_by_id = reference.is_by_id(of)
    log: list[list[tuple[Row, tuple[int, int]]]] = [[] for _ in range(of.partitions)]
    for row, now in zip(rows, clocks, strict=True):
        everywhere = (
            range(of.partitions)
            if row["kind"] == "mark"
            else [reference.partition_of({"key": row["id"]} if is_by_id else row, None, of.partitions)]
        )
        for partition in everywhere:
            log[partition].append((row, now))
    return log


def real_stages(pipeline: Pipeline, *, restores: bool = False) -> list[list[RealStage]]:
    """All stages, each with one for every partition."""
    return [
        [RealStage(pipeline, spec.number, partition, restores=restores) for partition in range(pipeline.partitions)]
        for spec in stage_specs(pipeline)
    ]


def run_chain(
    pipeline: Pipeline, stages: Any, log: list[list[tuple[Row, tuple[int, int]]]], seed: int | None, cuts: int
) -> list[dict[tuple[int, int], list[Row]]]:
    """Take the log through all stages; gives what each stage wrote, by (writer's partition, target).

    Args:
        pipeline: the pipeline.
        stages: [stages][partitions].
        log: for each partition its rows, with the clocks after each.
        seed: of how the writers' rows fall together in every partition; None: by time, as in a replay.
        cuts: into how many batches each partition's rows are cut.
    """
    written: list[dict[tuple[int, int], list[Row]]] = []
    for number, partitions in enumerate(stages):
        sent: dict[tuple[int, int], Stream] = defaultdict(list)
        for writer, (stage, rows) in enumerate(zip(partitions, log, strict=True)):
            _run_stage(stage, rows, writer, pipeline.partitions, cuts, sent)
        written.append({way: [row for row in rows if row["kind"] != "mark"] for way, rows in sorted(sent.items())})
        rng = None if seed is None else random.Random(seed * 31 + number)
        log = [_fall_together(sent, target, pipeline.partitions, rng) for target in range(pipeline.partitions)]
    return written


def _run_stage(
    stage: AnyStage,
    rows: list[tuple[Row, tuple[int, int]]],
    writer: int,
    partitions: int,
    cuts: int,
    sent: dict[tuple[int, int], Stream],
) -> None:
    size = max(1, -(-len(rows) // cuts))
    mark = BEFORE
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        for _, target, row in stage.process([row for row, _ in part], [clocks for _, clocks in part]):
            sent[writer, target].append(row)
        if part[-1][1][1] > mark:
            mark = part[-1][1][1]
            for target in range(partitions):
                sent[writer, target].append({"kind": "mark", "id": None, "key": None, "time": mark})


def _fall_together(
    sent: dict[tuple[int, int], Stream], target: int, writers: int, rng: random.Random | None
) -> list[tuple[Row, tuple[int, int]]]:
    """Put the writers' streams together by chance or by time, and let the clock run that their marks make."""
    streams = [list(sent.get((writer, target), [])) for writer in range(writers)]
    if rng is None:
        turns = _turns_by_time(streams)
    else:
        turns = [writer for writer, stream in enumerate(streams) for _ in stream]
        rng.shuffle(turns)
    marks, taken = [BEFORE] * writers, [0] * writers
    together = []
    for writer in turns:
        row = streams[writer][taken[writer]]
        taken[writer] += 1
        if row["kind"] == "mark":
            marks[writer] = max(marks[writer], row["time"])
        together.append((row, (min(marks), min(marks))))
    return together


def _turns_by_time(streams: list[Stream]) -> list[int]:
    """Whose row comes next where the smallest running maximum of time goes first (PROTOCOL 10)."""
    found = []
    for writer, stream in enumerate(streams):
        newest = BEFORE
        for row in stream:
            newest = newest if row["kind"] == "mark" else max(newest, row["time"])
            found.append((newest, writer))
    return [writer for _, writer in sorted(found)]


def assert_same_chain(pipeline: Pipeline, log: list[list[tuple[Row, tuple[int, int]]]], seed: int, cuts: int) -> int:
    """Every stage writes what the reference says, to the same partitions in the same order; gives the examples."""
    actual = run_chain(pipeline, real_stages(pipeline), log, seed, cuts)
    expected = run_chain(pipeline, reference.stages(pipeline), log, seed, cuts)
    for number, (mine, wanted) in enumerate(zip(actual, expected, strict=True), 1):
        assert mine.keys() == wanted.keys()
        for way, rows in wanted.items():
            assert_same_rows(pipeline, number, mine[way], rows)
    return sum(len(rows) for rows in actual[-1].values())


def assert_same_rows(pipeline: Pipeline, number: int, actual: list[Row], expected: list[Row]) -> None:
    """What stage `number` wrote; numbers within 1e-9, NaN equal to NaN."""
    is_last = number == len(stage_specs(pipeline))
    names = ["outcome", "number", "time", "id", "key"]
    if not is_last:
        expected = [reference.between(pipeline, row, number) for row in expected]
        names += [name for name in schema_of(pipeline, number).arrow.names if name.startswith("entity.")]
    brief = [[NAMES[row["kind"]], row["produced"], *(row[name] for name in names)] for row in actual]
    wanted = [[row["kind"], row.get("produced", -1), *(row[name] for name in names)] for row in expected]
    assert brief == wanted
    for mine, row in zip(actual, expected, strict=True):
        np.testing.assert_allclose(mine["label"], row["label"], rtol=0)
        np.testing.assert_allclose(mine["vector"], row["vector"], rtol=1e-9, atol=1e-9)
