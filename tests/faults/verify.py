"""What must hold after any schedule: outputs equal a recomputation from the topics as written, bit for bit.

Readers' rule applied independently of the code under test: of rows with the same (source, sequence) the first counts,
repeats must be equal, and a stage's sources have no holes. The same checks serve partitions in memory (`world.py`) and
real Kafka (`harness.py`): each is a `Written`.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from consumers.chain_tasks import make_task
from consumers.drifting import drifting_of
from consumers.learn import LearnTask
from consumers.learn_snapshot import parts_of
from consumers.quarantine import parameters_of
from models.learner import LEARN, Learner, make_learner
from models.sealed import model_key
from streams import features, frames
from streams.control import Claim, Control
from streams.fitting import fit
from streams.frames import AMENDED, EVENT, LABEL, MISSING, SET, FrameSchema
from streams.kafka import Message
from streams.model_kinds import KINDS
from streams.pipeline import Model, Pipeline
from streams.snapshots import State
from streams.sources import SourceMemory
from streams.stages import StageSpec, stage_specs
from streams.state_folder import state_of
from streams.tables import Table, empty, join

Numbered = dict[tuple[int, int], str]


class Written(Protocol):
    """All that a run has left behind."""

    @property
    def pipeline(self) -> Pipeline:
        """What ran."""

    @property
    def had_serve_zombie(self) -> bool:
        """Whether a worker of serve lived beside its successor: only then may an event be answered twice."""

    @property
    def raw(self) -> Sequence[tuple[str, int]]:
        """The raw partitions."""

    def records(self, topic: str, partition: int) -> Sequence[Message]:
        """Give all records of a partition, by the topic's full name."""

    def control(self) -> Control:
        """Give a reader of the control topic."""

    def learned(self, candidate: str) -> State:
        """Give a candidate's final state."""


class Schemas(NamedTuple):
    log: FrameSchema
    features: FrameSchema
    examples: FrameSchema


def check(written: Written, lineages: Mapping[str, int] | None = None) -> None:
    """Raise AssertionError with what is wrong; `lineages` are those of candidates that were rebuilt."""
    pipeline, control = written.pipeline, written.control()
    control.refresh()
    schemas = schemas_of(pipeline)
    logs = [table(written, "log", p, schemas.log) for p in range(pipeline.partitions)]
    check_log(written, control, logs)
    examples = table(written, "examples", 0, schemas.examples)
    for spec in stage_specs(pipeline):
        check_stage(written, control, spec)
    check_outcomes(written, examples)
    answers = [json.loads(r.value() or b"") for p in range(pipeline.partitions) for r in of(written, "predictions", p)]
    wanted = {int(answer["version"].split(".")[1]) for answer in answers}
    for model in pipeline.models:
        is_champion = model.name == pipeline.serve.champion
        lineage = (lineages or {}).get(model.name, 0)
        states = check_learning(written, control, examples, model, wanted if is_champion else set(), lineage)
        if is_champion:
            check_answers(written, control, answers, model, states)


def schemas_of(pipeline: Pipeline) -> Schemas:
    """The frames of the inner topics."""
    columns = features.columns(pipeline)
    return Schemas(frames.log_schema(pipeline), frames.features_schema(columns), frames.examples_schema(columns))


def of(written: Written, topic: str, partition: int) -> Sequence[Message]:
    """The records of an inner topic's partition."""
    return written.records(f"{written.pipeline.name}.{topic}", partition)


def table(written: Written, topic: str, partition: int, schema: FrameSchema) -> Table:
    """All rows of a partition as written; those of another list of features with the columns of this one."""
    control, tables = written.control(), []
    for record in of(written, topic, partition):
        fingerprint = dict(record.headers() or []).get(frames.SCHEMA_HEADER, b"").decode()
        found = schema if fingerprint == schema.fingerprint else control.schema(fingerprint)
        tables.append(fit(frames.decode(record.value() or b"", found), found, schema))
    return join(tables) if tables else empty(schema.layout)


def numbered(batch: Table, *, is_gapless: bool) -> Numbered:
    """Rows by (source, sequence), with what they say; repeats must say the same."""
    found: Numbered = {}
    last: dict[int, int] = {}
    for row in batch.to_arrow().to_pylist():
        if row["kind"] > LABEL:
            continue
        name = (row["source"], row["sequence"])
        text = repr(row)
        assert found.setdefault(name, text) == text, f"row {name} was written twice with different content"
        if is_gapless and row["sequence"] > last.get(row["source"], -1):
            assert row["sequence"] == last.get(row["source"], -1) + 1, f"hole before {name}"
            last[row["source"]] = row["sequence"]
    return found


# Ingest


def check_log(written: Written, control: Control, logs: list[Table]) -> None:
    """Every good raw record is in the log exactly once, under its own number; every bad one is a dead letter."""
    names = [name for log in logs for name in numbered(log, is_gapless=False)]
    assert len(names) == len(set(names)), "a record went to two partitions of the log"
    kinds = {written.pipeline.events.topic: "events", written.pipeline.labels.topic: "labels"}
    good: set[tuple[str, int, int]] = set()
    bad: set[tuple[str, int, int]] = set()
    for topic, partition in written.raw:
        for record in written.records(topic, partition):
            value = record.value()
            if value is not None:
                kept = good if is_json(value) else bad
                kept.add((kinds[topic], partition, record.offset()))
    claims = claims_of(control)
    taken = {(claims[source].kind, claims[source].partition, sequence) for source, sequence in names}
    assert taken == good, f"{len(good)} good records became {len(taken)} rows"
    letters = [json.loads(r.value() or b"") for r in of(written, "deadletters", 0)]
    assert {(kinds[one["topic"]], one["partition"], one["offset"]) for one in letters} == bad, "dead letters differ"


def is_json(value: bytes) -> bool:
    """Whether a record is whole; those that publishers of tests damage are not."""
    try:
        json.loads(value)
    except ValueError:
        return False
    return True


def claims_of(control: Control) -> dict[int, Claim]:
    """Claims by number."""
    return dict(sorted(control._claims.items()))


# Features


def check_stage(written: Written, control: Control, spec: StageSpec) -> None:
    """What a stage wrote is what its tasks give over all of their input at once."""
    pipeline, schemas = written.pipeline, schemas_of(written.pipeline)
    reads = schemas.log if spec.number == 1 else stage_schema(pipeline, spec.number - 1)
    expected: dict[tuple[str, int], Numbered] = defaultdict(dict)
    for partition in range(pipeline.partitions):
        rows = table(written, spec.reads, partition, reads)
        for output in recompute(pipeline, control, spec, partition, rows):
            made = numbered(output.table.take(output.picked), is_gapless=True)
            expected[output.topic, output.partition] |= made
    targets = {("examples", 0): schemas.examples}
    targets |= {("features", p): schemas.features for p in range(pipeline.partitions)}
    if not spec.is_last:
        own = stage_schema(pipeline, spec.number)
        targets = {(own.topic, p): own for p in range(pipeline.partitions)}
    for (topic, partition), schema in targets.items():
        got = numbered(table(written, topic, partition, schema), is_gapless=True)
        assert got == expected[topic, partition], f"{topic} of partition {partition} differ from the recomputation"


def stage_schema(pipeline: Pipeline, number: int) -> FrameSchema:
    """The frames behind a stage that is not the last."""
    return frames.stage_schema(stage_specs(pipeline)[number - 1], features.columns(pipeline))


def recompute(
    pipeline: Pipeline, control: Control, spec: StageSpec, partition: int, rows: Table
) -> Sequence[frames.Rows]:
    """One task over all rows of its partition at once."""
    batch, _ = SourceMemory(control, is_log=spec.number == 1).admit(rows)
    claims = claims_of(control).items()
    source = next(n for n, claim in claims if (claim.stream, claim.partition) == (spec.name, partition))
    return make_task(pipeline, spec.number, partition, source).process(batch)


def check_outcomes(written: Written, examples: Table) -> None:
    """Every event has one event row and one settled outcome."""
    events: dict[str, int] = {}
    settled: dict[str, int] = {}
    seen = set()
    for row in examples.to_arrow().to_pylist():
        name = (row["source"], row["sequence"])
        if row["kind"] > LABEL or name in seen:
            continue
        seen.add(name)
        if row["kind"] == EVENT:
            events[row["id"]] = events.get(row["id"], 0) + 1
        elif row["outcome"] in (SET, MISSING):
            settled[row["id"]] = settled.get(row["id"], 0) + 1
    topic = written.pipeline.events.topic
    values = [r.value() for name, p in written.raw if name == topic for r in written.records(name, p)]
    published = {json.loads(value)["id"] for value in values if value is not None and is_json(value)}
    assert events == dict.fromkeys(published, 1), "events are lost or doubled"
    assert settled == events, "events are not settled exactly once"


# Learn


def check_learning(
    written: Written, control: Control, examples: Table, model: Model, wanted: set[int], lineage: int = 0
) -> dict[int, State]:
    """Scores, pending predictions and weights equal one task over all examples; gives the learner at `wanted`."""
    task, values, states = replay(written.pipeline, control, examples, model, wanted, lineage)
    learned, expected = written.learned(model.name), task.state()
    if model.kind not in KINDS:  # the bytes of a pickle tell of the way it came; what the model says does not
        check_foreign(written.pipeline, model, learned, task.learner, examples.matrix())
        expected = {name: array for name, array in expected.items() if not name.startswith("learner.")}
    differing = [n for n, a in expected.items() if not np.array_equal(a, learned[n], equal_nan=a.dtype.kind == "f")]
    assert not differing, f"learn's {', '.join(differing)} of {model.name} differ"
    records = [json.loads(r.value() or b"") for r in of(written, "scores", 0)]
    got = blocks(record for record in records if record["candidate"] == model.name)
    assert got == blocks(json.loads(value) for value in values["scores"]), "scores differ from the recomputation"
    decided = [r.value() or b"" for r in of(written, "decisions", 0)]
    assert alarms(decided, model) == alarms(values["decisions"], model), "alarms of drift, or quarantines, differ"
    return states


def check_foreign(
    pipeline: Pipeline, model: Model, learned: State, expected: Learner, X_BF: npt.NDArray[np.float64]
) -> None:
    """A model of River's or of a user's own says of every row there was what the expected one says, to the last bit."""
    found = make_learner(model, features.columns(pipeline), key_of(pipeline, model))
    found.restore(parts_of(learned)["learner"])
    X_BF = np.ascontiguousarray(X_BF)
    assert found.predict(X_BF).tobytes() == expected.predict(X_BF).tobytes(), f"what {model.name} says differs"


def key_of(pipeline: Pipeline, model: Model) -> bytes | None:
    """What seals a River model; others need none."""
    return model_key(state_of(pipeline)) if model.kind.startswith("river:") else None


def alarms(values: Iterable[bytes], model: Model) -> set[str]:
    """A candidate's alarms of drift and quarantines, without repeats, in whichever generation and lineage."""
    found = [json.loads(value) for value in values]
    return {
        str({**one, "generation": 0, "lineage": 0})
        for one in found
        if one["decision"] in ("drift", "quarantined") and one["candidate"] == model.name
    }


def blocks(records: Iterable[Any]) -> Numbered:
    """Blocks of both orders by (source, block); repeats must be equal."""
    found: Numbered = {}
    for record in records:
        for block in record["blocks"]:
            name = block["source"], block["block"] if record["order"] == "number" else -1 - block["block"]
            assert found.setdefault(name, str(block)) == str(block), "a block changed"
    return found


def replay(
    pipeline: Pipeline, control: Control, examples: Table, model: Model, wanted: set[int], lineage: int = 0
) -> tuple[LearnTask, dict[str, list[bytes]], dict[int, State]]:
    """Learn everything at once; gives the task, what it put out, and the learner's state at the wanted versions."""
    columns = features.columns(pipeline)
    batch, _ = SourceMemory(control).admit(examples)
    learner: Learner = make_learner(model, columns, key_of(pipeline, model))
    states: dict[int, State] = {}
    if model.kind in KINDS:
        learner = Observed(learner, wanted, batch.rows.numbers("outcome") == AMENDED)
        states = learner.states
    labels = pipeline.labels
    task = LearnTask(
        model.name,
        learner,
        columns,
        lineage,
        aliases=control.aliases,
        parameters=parameters_of(model),
        keep_us=labels.keep_us,
        is_relearned=labels.amend == "relearn",
        drift=drifting_of(pipeline, model, columns),
        tells_labels=pipeline.select is not None,
    )
    values: dict[str, list[bytes]] = {"scores": [], "decisions": []}
    for output in task.process(batch):
        values[output.topic] += output.values.unpack()
    return task, values, states


class Observed:
    """A learner whose state is kept at the wanted numbers of examples. Steps are cut there; they are row by row.

    A row that is learned once more (`is_again_B`, of all rows that will come) is no example.
    """

    def __init__(self, learner: Learner, wanted: set[int], is_again_B: npt.NDArray[np.bool_]) -> None:
        self._learner, self._wanted, self._seen = learner, wanted, 0
        self._is_again_B, self._at = is_again_B, 0
        self.predict, self.learn = learner.predict, learner.learn
        self.state, self.restore = learner.state, learner.restore
        self.is_finite, self.size_bytes = learner.is_finite, learner.size_bytes
        self.states: dict[int, State] = {}
        self._keep()

    def step(
        self, X_BF: npt.NDArray[np.float64], y_B: npt.NDArray[np.float64], action_B: npt.NDArray[np.int8]
    ) -> npt.NDArray[np.float64]:
        """Step from one wanted version to the next."""
        is_example_B = (action_B == LEARN) & ~self._is_again_B[self._at : self._at + action_B.size]
        self._at += action_B.size
        learned = np.flatnonzero(is_example_B) + 1
        inside = sorted(one - self._seen for one in self._wanted if self._seen < one <= self._seen + learned.size)
        cuts = [0, *(int(learned[count - 1]) for count in inside), action_B.size]
        scores = []
        for start, stop in itertools.pairwise(cuts):
            scores.append(self._learner.step(X_BF[start:stop], y_B[start:stop], action_B[start:stop]))
            self._seen += int(is_example_B[start:stop].sum())
            self._keep()
        return np.concatenate(scores)

    def _keep(self) -> None:
        if self._seen in self._wanted and self._seen not in self.states:
            self.states[self._seen] = {name: array.copy() for name, array in self._learner.state().items()}


# Serve


def check_answers(
    written: Written, control: Control, answers: list[Any], model: Model, states: dict[int, State]
) -> None:
    """Every event is answered, once unless a zombie lived, with what the named version gives on that row."""
    columns = features.columns(written.pipeline)
    learner = make_learner(model, columns)
    for partition in range(written.pipeline.partitions):
        rows = table(written, "features", partition, schemas_of(written.pipeline).features)
        batch, _ = SourceMemory(control, heard_needed=1).admit(rows)
        is_event = batch.rows.numbers("kind") == EVENT
        events, x_BF = batch.rows.take(np.flatnonzero(is_event)).to_arrow(), batch.rows.matrix()[is_event]
        mine = [answer for answer in answers if answer["partition"] == partition]
        numbers = [answer["number"] for answer in mine]
        assert set(numbers) == set(range(events.num_rows)), "events without an answer"
        if not written.had_serve_zombie:
            assert len(numbers) == events.num_rows, "events answered twice"
        named = list(zip(*(events.column(name).to_pylist() for name in ("id", "key", "time")), strict=True))
        for answer in mine:
            assert named[answer["number"]] == (answer["id"], answer["key"], answer["time_us"]), "an answer is misnamed"
        by_version: dict[int, list[Any]] = defaultdict(list)
        for answer in mine:
            by_version[int(answer["version"].split(".")[1])].append(answer)
        for version, some in by_version.items():
            learner.restore(states[version])
            check_version(some, learner.predict(np.ascontiguousarray(x_BF[[a["number"] for a in some]])))


def check_version(answers: list[Any], probability_B: npt.NDArray[np.float64]) -> None:
    """Answers say what their version gives."""
    assert [a["probability"] for a in answers] == probability_B.tolist(), "an answer is not what its version gives"
    assert [a["prediction"] for a in answers] == (probability_B >= 0.5).astype(int).tolist(), "a prediction is rounded"


# Replay


def check_order(written: Written) -> None:
    """In a replay no label is learned before an event that precedes it was predicted (PROTOCOL 10)."""
    schemas = schemas_of(written.pipeline)
    for topic, partition, schema in (
        ("examples", 0, schemas.examples),
        *(("log", p, schemas.log) for p in range(written.pipeline.partitions)),
        *(
            (spec.reads, p, stage_schema(written.pipeline, spec.number - 1))
            for spec in stage_specs(written.pipeline)[1:]
            for p in range(written.pipeline.partitions)
        ),
    ):
        rows = table(written, topic, partition, schema).to_arrow().to_pylist()
        latest = 0
        for row in reversed([r for r in rows if r["kind"] == EVENT or (r["kind"] == LABEL and r["outcome"] == SET)]):
            if row["kind"] == EVENT:
                latest = row["time"] if not latest else min(latest, row["time"])
            elif latest:
                assert row["time"] <= latest, f"{topic}: a label was written before an earlier event"
