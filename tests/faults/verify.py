"""What must hold after any schedule: outputs equal a recomputation from the topics as written, row for row, bit for bit.

Readers' rule applied independently of the code under test: of rows with the same (source, sequence) the first counts,
repeats must be equal, and a stage's sources have no holes.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa

from consumers.featurize import FeatureTask
from consumers.learn import LearnTask
from models.learner import make_learner
from streams import features, frames
from streams.control import Control
from streams.frames import EVENT, LABEL, MISSING, SET
from streams.sources import SourceMemory
from tests.faults.world import PARTITIONS, World
from tests.memory_kafka import MemoryControlLog

Row = dict[str, Any]


def table(world: World, topic: str, partition: int, schema: frames.FrameSchema) -> pa.RecordBatch:
    """All rows of a partition as written."""
    batches = [frames.decode(r.value_ or b"", schema) for r in world.broker.logs[f"w.{topic}", partition]]
    return pa.concat_batches(batches) if batches else frames.build(schema, {}, 0)


def numbered(batch: pa.RecordBatch, *, is_gapless: bool) -> dict[tuple[int, int], str]:
    """Rows by (source, sequence), with what they say; repeats must say the same."""
    found: dict[tuple[int, int], str] = {}
    last: dict[int, int] = {}
    for row in batch.to_pylist():
        if row["kind"] > LABEL:
            continue
        name = (row["source"], row["sequence"])
        text = repr(row)
        assert found.setdefault(name, text) == text, f"row {name} was written twice with different content"
        if is_gapless and row["sequence"] > last.get(row["source"], -1):
            assert row["sequence"] == last.get(row["source"], -1) + 1, f"hole before {name}"
            last[row["source"]] = row["sequence"]
    return found


def check(world: World) -> None:
    """Raise AssertionError with what is wrong."""
    control = Control(MemoryControlLog(world.broker, "w.control"))
    columns = features.columns(world.pipeline)
    schemas = (frames.log_schema(world.pipeline), frames.features_schema(columns), frames.examples_schema(columns))
    logs = [table(world, "log", p, schemas[0]) for p in range(PARTITIONS)]
    check_log(world, logs)
    examples = table(world, "examples", 0, schemas[2])
    written = numbered(examples, is_gapless=True)
    expected: dict[tuple[int, int], str] = {}
    for partition, log in enumerate(logs):
        feature_rows, example_rows = recompute_features(world, control, partition, log)
        got = numbered(table(world, "features", partition, schemas[1]), is_gapless=True)
        assert got == numbered(feature_rows, is_gapless=True), f"features of partition {partition} differ"
        expected |= numbered(example_rows, is_gapless=True)
    assert written == expected, "examples differ from the recomputation"
    check_outcomes(world, examples)
    check_learning(world, control, examples, columns)
    check_answers(world, control, schemas)


def check_log(world: World, logs: list[pa.RecordBatch]) -> None:
    """Every raw record is in the log exactly once, under its own number."""
    names = [name for log in logs for name in numbered(log, is_gapless=False)]
    records = sum(
        sum(r.value_ is not None for r in world.broker.logs[key])
        for key in (("w.events", 0), ("w.events", 1), ("w.labels", 0))
    )
    assert len(names) == len(set(names)) == records, f"{records} records became {len(names)} rows"


def recompute_features(
    world: World, control: Control, partition: int, log: pa.RecordBatch
) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """One task over the whole log at once."""
    memory = SourceMemory(control, is_log=True)
    batch, _ = memory.admit(log)
    source = next(n for n, claim in control_claims(control) if claim.stream == "features" and claim.partition == partition)
    outputs = FeatureTask(world.pipeline, partition, source).process(batch)
    made = {output.topic: output.batch for output in outputs}
    columns = features.columns(world.pipeline)
    empty = (frames.features_schema(columns), frames.examples_schema(columns))
    return tuple(made.get(schema.topic, frames.build(schema, {}, 0)) for schema in empty)


def control_claims(control: Control) -> list[tuple[int, Any]]:
    """Claims by number."""
    control.refresh()
    return sorted(control._claims.items())  # noqa: SLF001 - the test looks inside


def check_outcomes(world: World, examples: pa.RecordBatch) -> None:
    """Every event has one event row and one settled outcome."""
    events: dict[str, int] = {}
    settled: dict[str, int] = {}
    seen = set()
    for row in examples.to_pylist():
        name = (row["source"], row["sequence"])
        if row["kind"] > LABEL or name in seen:
            continue
        seen.add(name)
        if row["kind"] == EVENT:
            events[row["id"]] = events.get(row["id"], 0) + 1
        elif row["outcome"] in (SET, MISSING):
            settled[row["id"]] = settled.get(row["id"], 0) + 1
    published = {
        json.loads(r.value_)["id"] for p in (0, 1) for r in world.broker.logs["w.events", p] if r.value_ is not None
    }
    assert events == dict.fromkeys(published, 1), "events are lost or doubled"
    assert settled == events, "events are not settled exactly once"


def check_learning(world: World, control: Control, examples: pa.RecordBatch, columns: tuple[Any, ...]) -> None:
    """Scores, pending predictions and weights equal one task over all examples."""
    task = replay(world, control, examples, columns)[0]
    worker = next(m.worker for m in world.members if m.role == "learn" and m.worker.stations)
    learned = worker.stations[0].task.state()
    for name, array in task.state().items():
        assert np.array_equal(array, learned[name], equal_nan=array.dtype.kind == "f"), f"learn's {name} differs"
    got = blocks(r.value_ for r in world.broker.logs["w.scores", 0])
    assert got == blocks(task.written), "scores differ from the recomputation"


def blocks(values: Any) -> dict[tuple[int, int], str]:
    """Blocks by (source, block); repeats must be equal."""
    found: dict[tuple[int, int], str] = {}
    for value in values:
        for block in json.loads(value)["blocks"]:
            assert found.setdefault((block["source"], block["block"]), str(block)) == str(block), "a block changed"
    return found


def replay(world: World, control: Control, examples: pa.RecordBatch, columns: tuple[Any, ...]) -> tuple[Any, dict[int, Any]]:
    """Learn row by row; gives the task and a copy of the learner after each number of examples."""
    model = world.pipeline.models[0]
    memory = SourceMemory(control)
    batch, _ = memory.admit(examples)
    task: Any = LearnTask(model.name, make_learner(model, columns), columns)
    task.written = []
    states = {0: task.learner.state()}
    for i in range(batch.rows.num_rows):
        one = frames.Batch(batch.rows.slice(i, 1), batch.label_clock[i : i + 1], batch.clock[i : i + 1])
        task.written += [value for output in task.process(one) for value in output.values]
        if task.examples_seen not in states:
            states[task.examples_seen] = {name: array.copy() for name, array in task.learner.state().items()}
    return task, states


def check_answers(world: World, control: Control, schemas: tuple[Any, ...]) -> None:
    """Every event is answered, once unless a zombie lived, with what the named version gives on that row."""
    columns = schemas[1].columns
    states = replay(world, control, table(world, "examples", 0, schemas[2]), columns)[1]
    learner = make_learner(world.pipeline.models[0], columns)
    for partition in range(PARTITIONS):
        rows = table(world, "features", partition, schemas[1])
        batch, _ = SourceMemory(control, heard_needed=1).admit(rows)
        events = np.flatnonzero(frames.numbers(batch.rows, "kind") == EVENT)
        x_BF = frames.matrix(batch.rows)[events]
        answers = [json.loads(r.value_) for r in world.broker.logs["w.predictions", partition]]
        numbers = [answer["number"] for answer in answers]
        assert set(numbers) == set(range(events.size)), "events without an answer"
        if not world.had_serve_zombie:
            assert len(numbers) == events.size, "events answered twice"
        for answer in answers:
            learner.restore(states[int(answer["version"].split(".")[1])])
            probability = learner.predict(x_BF[answer["number"]][None, :])[0]
            assert probability == answer["probability"], "an answer is not what its version gives"


def check_order(world: World) -> None:
    """In a replay no label is learned before an event that precedes it was predicted (PROTOCOL 10)."""
    columns = features.columns(world.pipeline)
    for topic, partition, schema in (
        ("examples", 0, frames.examples_schema(columns)),
        ("log", 0, frames.log_schema(world.pipeline)),
        ("log", 1, frames.log_schema(world.pipeline)),
    ):
        rows = table(world, topic, partition, schema).to_pylist()
        latest = 0
        for row in reversed([r for r in rows if r["kind"] == EVENT or (r["kind"] == LABEL and r["outcome"] == SET)]):
            if row["kind"] == EVENT:
                latest = row["time"] if not latest else min(latest, row["time"])
            elif latest:
                assert row["time"] <= latest, f"{topic}: a label was written before an earlier event"
