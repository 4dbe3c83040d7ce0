"""What a served stream reads, made up: examples of several sources, their answers, and what candidates said themselves.

Everything is drawn from one seed; `expected` recomputes what should come of it with dictionaries, one event at a time.
"""

from __future__ import annotations

import math
import random
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from consumers.score_records import Block, ScoresRecord
from consumers.served import ServedTask
from streams.frames import AMENDED, EVENT, LABEL, MISSING, NO_OUTCOME, RETRACTED, SET, Batch, build, examples_schema
from streams.pipeline import Task
from streams.records import HeldRecords, Record
from streams.tables import Table

SCHEMA = examples_schema(())
PLACES = {10: (0, 0), 11: (1, 0), 12: (2, 3)}  # of sources: partition and generation
CANDIDATES = ("linear", "tree")
KEEP_US = 10**9
CLASSES = ("a", "b", "c")
TASKS = {
    "binary": Task(),
    "multiclass": Task("multiclass", CLASSES),
    "regression": Task("regression"),
    "anomaly": Task("anomaly", threshold=0.7),
}
Name = tuple[int, int]  # an event's source and number


class World(NamedTuple):
    """What there is on the three topics."""

    task: Task
    rows: Table
    answers: dict[int, list[bytes]]  # by partition
    scores: list[ScoresRecord]


class Expected(NamedTuple):
    """What should come of it."""

    losses: list[float]  # of answered events, by their newest label
    settled: list[tuple[Any, float]]  # what was said of answered events, and their newest label
    cost: float
    compared: int
    answered: int
    given: dict[str, int]


def answer(name: Name, said: Any, model: str, version: str, kind: str) -> bytes:
    """One answer as serve writes it."""
    partition, generation = PLACES[name[0]]
    fields: dict[str, Any] = {"id": f"{name}", "key": None, "time_us": 0, "prediction": 0}
    if kind == "multiclass":
        fields |= {"prediction": CLASSES[int(np.argmax(said))], "probabilities": dict(zip(CLASSES, said, strict=True))}
    elif kind == "regression":
        fields |= {"prediction": said}
    elif kind == "anomaly":
        fields |= {"prediction": int(said >= 0.7), "score": said}
    else:
        fields |= {"probability": said}
    fields |= {"model": model, "version": version, "generation": generation, "partition": partition}
    return msgspec.json.encode({**fields, "number": name[1], "latency_ms": 1.5, "explanation": [["amount", 0.5]]})


def world(seed: int, kind: str = "binary", events: int = 700) -> World:
    """Make up topics: answers that are repeated or missing, labels of all outcomes, two models that answer by turns."""
    chance = random.Random(seed)
    numbers = dict.fromkeys(PLACES, 0)
    rows: list[tuple[float, tuple[Any, ...]]] = []
    answers: dict[int, list[tuple[Name, bytes]]] = {partition: [] for partition, _ in PLACES.values()}
    for at in range(events):
        source = chance.choice(list(PLACES))
        name = source, numbers[source]
        numbers[source] += 1
        rows.append((at, (EVENT, *name, at, math.nan, NO_OUTCOME)))
        due = at + chance.randint(1, 200) + 0.5
        rows += [(due + after, (LABEL, *name, int(due), *what)) for after, what in _labels(chance, kind)]
        if chance.random() < 0.9:
            model = "tree" if at % 300 > 200 else "linear"
            made = answer(name, _said(chance, kind), model, f"0.{at // 50}", kind)
            answers[PLACES[source][0]].append((name, made))
    order = [row for _, row in sorted(rows, key=lambda one: one[0])]
    columns = dict(zip(("kind", "source", "number", "time", "label", "outcome"), zip(*order, strict=True), strict=True))
    arrays = {name: np.array(column) for name, column in columns.items()}
    arrays["sequence"] = np.zeros(len(order), np.int64)
    for source in PLACES:
        mine = arrays["source"] == source
        arrays["sequence"][mine] = np.arange(mine.sum())
    table = build(SCHEMA, arrays, len(order))
    repeated = {partition: _repeated(chance, kind, told) for partition, told in answers.items()}
    found = World(TASKS[kind], table, repeated, [])
    return found._replace(scores=_scores(chance, found))


def _labels(chance: random.Random, kind: str) -> list[tuple[float, tuple[float, int]]]:
    """Give the label rows of an event, and how long after its first each comes."""
    what = chance.random()
    first = (math.nan, MISSING) if what < 0.1 else (_label(chance, kind), SET)
    later = [(300.0, (_label(chance, kind), AMENDED))] if what > 0.9 else []
    return [(0.0, first), *later, *([(350.0, (math.nan, RETRACTED))] if what > 0.95 else [])]


def _label(chance: random.Random, kind: str) -> float:
    return {"regression": chance.gauss(0, 3), "multiclass": float(chance.randrange(3))}.get(
        kind, float(chance.random() < 0.3)
    )


def _said(chance: random.Random, kind: str) -> Any:
    if kind == "multiclass":
        parts = [chance.random() + 0.1 for _ in CLASSES]
        return [part / sum(parts) for part in parts]
    return chance.gauss(0, 3) if kind == "regression" else chance.random()


def _repeated(chance: random.Random, kind: str, told: list[tuple[Name, bytes]]) -> list[bytes]:
    """Let serve go back now and then and answer again, with another version, and others write what is no answer."""
    found: list[bytes] = []
    for at, (_, made) in enumerate(told):
        found.append(made)
        if chance.random() < 0.02:
            back = told[max(0, at - chance.randint(0, 30)) : at + 1]
            found += [answer(name, _said(chance, kind), "linear", "9.9", kind) for name, _ in back]
        if chance.random() < 0.005:
            found.append(chance.choice([b"", b"{}", b"nothing", b'{"partition": 0}, {"partition": 0}']))
    return found


def loss_of(kind: str, said: Any, label: float) -> float:
    """The task's loss."""
    if kind == "regression":
        return float(abs(said - label))
    given = said[int(label)] if kind == "multiclass" else said if label > 0.5 else 1 - said
    return -math.log(min(max(given, 0.001), 0.999))


def _scores(chance: random.Random, found: World) -> list[ScoresRecord]:
    """What candidates have said of all events, as blocks; some come again."""
    first = {name: label for name, label, outcome in _label_rows(found) if outcome in (SET, MISSING)}
    records: list[ScoresRecord] = []
    for source in PLACES:
        count = sum(name[0] == source for name in first) // 100
        for block in range(count):
            for candidate in CANDIDATES:
                labels = [first[source, number] for number in range(100 * block, 100 * block + 100)]
                losses = [math.nan if math.isnan(label) else chance.random() for label in labels]
                data = np.array(losses, "<f4").tobytes()
                made = Block(source, block, 100, 0, 0, data)
                records.append(ScoresRecord(candidate, 0, 0, "number", 1.0, 1, (made,)))
    strange = ScoresRecord("nobody", 0, 0, "number", 1.0, 1, records[0].blocks if records else ())
    chance.shuffle(records)
    records.sort(key=lambda record: (record.blocks[0].block, chance.random()))
    again = [ScoresRecord(r.candidate, 1, 1, r.order, 2.0, 1, (_other(r.blocks[0]),)) for r in records[:3]]
    by_label = [ScoresRecord(r.candidate, 0, 0, "label", 1.0, 1, (_other(r.blocks[0]),)) for r in records[:2]]
    return [*by_label, *records, strange, *again]


def _other(block: Block) -> Block:
    return Block(block.source, block.block, 100, 0, 0, np.full(100, 5.0, "<f4").tobytes())


def _label_rows(found: World) -> list[tuple[Name, float, int]]:
    names = ("kind", "source", "number", "label", "outcome")
    columns = (found.rows.numbers(name).tolist() for name in names)
    return [((s, n), y, o) for kind, s, n, y, o in zip(*columns, strict=True) if kind == LABEL]


def first_answers(found: World) -> dict[Name, dict[str, Any]]:
    """The answers that count: of each event the first."""
    source_of = {place: source for source, place in PLACES.items()}
    first: dict[Name, dict[str, Any]] = {}
    for told in found.answers.values():
        for value in told:
            try:
                one = msgspec.json.decode(value)
                name = source_of[one["partition"], one["generation"]], one["number"]
            except (msgspec.MsgspecError, KeyError):
                continue
            first.setdefault(name, one)
    return first


def expected(found: World) -> Expected:
    """Recompute everything."""
    kind, first = found.task.kind, first_answers(found)
    told = {name: _read(kind, one) for name, one in first.items()}
    once: dict[Name, float] = {}
    newest: dict[Name, float] = {}
    for name, label, outcome in _label_rows(found):
        if outcome in (SET, MISSING):
            once[name] = label
        newest[name] = label
    settled = [(told[name], label) for name, label in newest.items() if name in told and not math.isnan(label)]
    pairs = [] if kind == "anomaly" else _pairs(found, first, told, once)
    given: dict[str, int] = {}
    for one in first.values():
        given[one["model"]] = given.get(one["model"], 0) + 1
    losses = [] if kind == "anomaly" else [loss_of(kind, said, label) for said, label in settled]
    cost = math.fsum(pairs) / len(pairs) if pairs else math.nan
    return Expected(losses, settled, cost, len(pairs), len(first), given)


def _pairs(
    found: World, first: dict[Name, dict[str, Any]], told: dict[Name, Any], once: dict[Name, float]
) -> list[float]:
    """Differences of losses, as float32, of all events in whole blocks."""
    own: dict[tuple[str, Name], float] = {}
    for record in found.scores:
        for block in record.blocks if record.order == "number" else ():
            for at, loss in enumerate(block.values().tolist()):
                own.setdefault((record.candidate, (block.source, 100 * block.block + at)), loss)
    pairs = []
    for name, label in once.items():
        shadow = own.get((first[name]["model"], name), math.nan) if name in first else math.nan
        if not math.isnan(shadow) and not math.isnan(label):
            pairs.append(float(np.float32(loss_of(found.task.kind, told[name], label))) - shadow)
    return pairs


def _read(kind: str, one: dict[str, Any]) -> Any:
    if kind == "multiclass":
        return list(one["probabilities"].values())
    return one[{"regression": "prediction", "anomaly": "score"}.get(kind, "probability")]


def served_task(found: World, **options: Any) -> ServedTask:
    """A stream that has read nothing yet."""
    return ServedTask(found.task, CANDIDATES, PLACES.__getitem__, KEEP_US, **options)


def batch(rows: Table, start: int, stop: int) -> Batch:
    """Some of the rows."""
    part = rows.slice(start, stop - start)
    clock = np.zeros(part.num_rows, np.int64)
    return Batch(part, clock, clock)


def records(values: list[bytes]) -> HeldRecords:
    """Values as a reader of Kafka gives them."""
    return HeldRecords("p.predictions", 0, [Record(value, at, 0) for at, value in enumerate(values)])


def read_some(task: ServedTask, found: World, at: dict[str, int], chance: random.Random) -> bool:
    """Let the stream read on somewhere, as far as chance has it; False when there is nothing left anywhere.

    `at` says how far each topic was read, and is moved on.
    """
    ends = {"rows": found.rows.num_rows, "scores": len(found.scores)}
    ends |= {f"answers{partition}": len(told) for partition, told in found.answers.items()}
    left = sorted(topic for topic, end in ends.items() if at.get(topic, 0) < end)
    if not left:
        return False
    topic = chance.choice(left)
    start = at.get(topic, 0)
    stop = at[topic] = min(ends[topic], start + chance.choice([1, 7, 60, 400]))
    if topic == "rows":
        task.process(batch(found.rows, start, stop))
    elif topic == "scores":
        for record in found.scores[start:stop]:
            task.hear_scores(record)
    else:
        partition = int(topic.removeprefix("answers"))
        task.hear(partition, records(found.answers[partition][start:stop]))
    return True


def floats(values: Any) -> npt.NDArray[np.float64]:
    """An array of numbers."""
    return np.array(values, np.float64)
