"""Taking up a trained version: from the row on that announces it, in every cut and after every restore."""

from __future__ import annotations

import math
import random
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from consumers.learn import LearnTask
from consumers.score_records import ScoresRecord
from consumers.uptake import Uptake
from consumers.version_rows import version_row
from models.learner import Learner, Matrix, make_learner
from models.registry import read_version, write_version
from models.tally import log_loss
from models.training_job import Training
from models.version import Version
from streams.errors import UnavailableError
from streams.frames import EVENT, LABEL, MISSING, NO_OUTCOME, SET, Batch, Column, Outgoing, build, examples_schema
from streams.metrics import RoleMetrics
from streams.pipeline import Model, Task
from streams.tables import Table, join

COLUMNS = (Column("a", False), Column("b", False), Column("c", True))
SCHEMA = examples_schema(COLUMNS)
MODEL = Model("m", "linear", {"lr": 0.05, "bits": 8})
EVENTS = 2_000
AT = (900, 901, 2_300)  # rows before which versions are announced


class Row(NamedTuple):
    """A row as one would say it; `at` is the event's place among the events."""

    kind: int
    source: int
    number: int
    label: float
    at: int


def rows_of(events: int = EVENTS, seed: int = 0) -> tuple[list[Row], Matrix]:
    """Events of two sources, each with a label up to 400 rows later."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.normal(size=(events, 2)), rng.integers(0, 4, events)])
    y = np.where(rng.random(events) < 0.05, math.nan, X[:, 0] > 0)
    source = rng.integers(10, 12, events)
    number = [int((source[:i] == source[i]).sum()) for i in range(events)]
    due = np.arange(events) + rng.integers(1, 400, events)
    order = np.argsort(np.concatenate([np.arange(events) * 1.0, due + 0.5]), kind="stable").tolist()
    rows = [
        Row(*(LABEL, int(source[at - events]), number[at - events], float(y[at - events]), at - events))
        if at >= events
        else Row(EVENT, int(source[at]), number[at], math.nan, at)
        for at in order
    ]
    return rows, X


def table_of(rows: list[Row], X: Matrix, columns: tuple[Column, ...] = COLUMNS) -> Table:
    kind, source, number, label, at = (np.array(column) for column in zip(*rows, strict=True))
    outcome = np.where(kind == EVENT, NO_OUTCOME, np.where(np.isnan(label), MISSING, SET))
    values = {"kind": kind, "source": source, "number": number, "time": at, "label": label, "outcome": outcome}
    return build(examples_schema(columns), {**values, "vector": X[at]}, len(rows))


def trained(state: Path, order: tuple[int, int], rows: int, columns: tuple[Column, ...] = COLUMNS) -> Version:
    """Write a version of a model that has learned so many rows of its own."""
    rng = np.random.default_rng(order[0])
    learner = make_learner(MODEL, columns)
    X = np.column_stack([rng.normal(size=(rows, len(columns) - 1)), rng.integers(0, 4, rows)])
    learner.learn(X, (X[:, 0] * (-1.0) ** order[0] > 0).astype(float))
    version = write_version(state, MODEL, columns, learner, order, created_us=7)
    assert version is not None
    return msgspec.structs.replace(version, training=Training(order[1], 0, 9, 10))


def learn_task(state: Path, *, is_frozen: bool, columns: tuple[Column, ...] = COLUMNS, **options: Any) -> LearnTask:
    def blank(version: Version) -> Learner:
        return make_learner(MODEL, version.columns)

    uptake = Uptake(partial(read_version, state), blank, is_frozen=is_frozen)
    return LearnTask("m", make_learner(MODEL, columns), columns, clock=lambda: 0.0, uptake=uptake, **options)


def process(learn: LearnTask, rows: Table) -> list[Outgoing]:
    clock = np.zeros(rows.num_rows, np.int64)
    return learn.process(Batch(rows, clock, clock))


def told(outgoing: list[Outgoing], topic: str) -> list[dict[str, Any]]:
    return [msgspec.json.decode(value) for out in outgoing if out.topic == topic for value in out.values.unpack()]


def blocks_of(outgoing: list[Outgoing]) -> list[tuple[Any, ...]]:
    found = [out for out in outgoing if out.topic == "scores"]
    records = [msgspec.json.decode(value, type=ScoresRecord) for out in found for value in out.values.unpack()]
    return [(r.lineage, b.source, b.block, b.n, b.losses) for r in records if r.order == "number" for b in r.blocks]


def announced(rows: Table, versions: list[Version]) -> Table:
    """Put versions before the rows AT."""
    cuts = [0, *AT[: len(versions)], rows.num_rows]
    parts: list[Table] = []
    for place, version in enumerate(versions):
        parts += [rows.slice(cuts[place], cuts[place + 1] - cuts[place]), version_row(SCHEMA, version, 10)]
    return join([*parts, rows.slice(cuts[-2])])


def versions_in(state: Path) -> list[Version]:
    return [trained(state, (1, 50), 200), trained(state, (2, 60), 300), trained(state, (3, 70), 400)]


def reference(rows: list[Row], X: Matrix, state: Path, versions: list[Version], *, learns: bool) -> tuple[float, int]:
    """Give the mean loss and the examples seen in the end, row by row, with dictionaries."""
    learner, said, losses, seen = make_learner(MODEL, COLUMNS), {}, [], 0
    order = dict(zip(AT, versions, strict=False))
    for place, row in enumerate(rows):
        if place in order:
            learner, seen = read_version(state, order[place]), order[place].examples
        x = X[row.at : row.at + 1]
        if row.kind == EVENT:
            said[row.source, row.number] = float(learner.predict(x)[0])
        elif not math.isnan(row.label):
            losses.append(log_loss(said[row.source, row.number], row.label > 0.5))
            if learns and seen:
                learner.learn(x, np.array([row.label]))
                seen += 1
    return float(np.mean(losses)), seen


@pytest.mark.parametrize("learns", [False, True])
def test_each_row_is_predicted_by_the_model_that_was_announced_before_it(learns: bool, tmp_path: Path) -> None:
    """What is frozen learns nothing; what learns on counts from the examples of its training."""
    rows, X = rows_of()
    versions = versions_in(tmp_path)
    learn = learn_task(tmp_path, is_frozen=not learns)
    process(learn, announced(table_of(rows, X), versions))
    loss, seen = reference(rows, X, tmp_path, versions, learns=learns)

    assert learn.metrics()["log_loss_start"] == pytest.approx(loss, abs=1e-12)
    assert learn.version == (3, seen)
    assert seen > 70 if learns else seen == 70


@pytest.mark.parametrize("is_frozen", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_outputs_and_state_do_not_depend_on_batches_or_restarts(is_frozen: bool, seed: int, tmp_path: Path) -> None:
    rows, X = rows_of(seed=seed)
    table, chance = announced(table_of(rows, X), versions_in(tmp_path)), random.Random(seed)
    whole, learn = learn_task(tmp_path, is_frozen=is_frozen), learn_task(tmp_path, is_frozen=is_frozen)
    expected = blocks_of(process(whole, table))
    found: list[tuple[Any, ...]] = []
    start = 0
    while start < table.num_rows:
        size = chance.choice([1, 2, 40, 300])
        found += blocks_of(process(learn, table.slice(start, size)))
        start += size
        if chance.random() < 0.3:
            state = {name: np.asarray(array).copy() for name, array in learn.state().items()}
            learn = learn_task(tmp_path, is_frozen=is_frozen)
            learn.restore(state)

    assert found == expected
    assert {2, 3} <= {block[0] for block in found} <= {0, 2, 3}  # of the first version no row is
    ours, theirs = learn.state(), whole.state()
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert np.array_equal(ours[name], theirs[name], equal_nan=ours[name].dtype.kind == "f"), name


def test_what_waits_for_its_label_stays_what_the_model_before_has_said_and_is_no_evidence_of_the_new_one(
    tmp_path: Path,
) -> None:
    """Every block that leaves under a lineage was said by it as a whole."""
    rows, X = rows_of()
    versions = versions_in(tmp_path)
    learn = learn_task(tmp_path, is_frozen=True)
    blocks = blocks_of(process(learn, announced(table_of(rows, X), versions)))
    since = {version.lineage: at for version, at in zip(versions, AT, strict=True)}
    place = {(row.source, row.number): at for at, row in enumerate(rows) if row.kind == EVENT}

    assert blocks
    for lineage, source, block, *_ in blocks:
        says = [place[source, number] for number in range(block * 100, block * 100 + 100)]
        assert lineage == 0 or min(says) >= since[lineage]


def test_an_older_or_repeated_version_and_another_candidates_change_nothing(tmp_path: Path) -> None:
    old, new = trained(tmp_path, (1, 50), 200), trained(tmp_path, (2, 60), 300)
    other = msgspec.structs.replace(trained(tmp_path, (9, 1), 50), candidate="other")
    learn = learn_task(tmp_path, is_frozen=False)
    rows, X = rows_of(100)
    process(learn, join([version_row(SCHEMA, new, 10), table_of(rows, X)]))
    before = learn.state()
    outgoing = process(learn, join([version_row(SCHEMA, version, 10) for version in (old, new, other)]))

    assert outgoing == []
    assert learn.version > (2, 60)
    assert all(
        np.array_equal(array, before[name], equal_nan=array.dtype.kind == "f") for name, array in learn.state().items()
    )


@pytest.mark.parametrize("damage", ["lost", "flipped", "cut", "no record", "other task"])
def test_a_version_that_cannot_be_read_is_refused_with_a_record_and_the_old_model_goes_on(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = trained(tmp_path, (1, 50), 200), trained(tmp_path, (2, 60), 300)
    path = tmp_path / second.blob
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content) if damage == "flipped" else path.read_bytes()[:-7])
    if damage == "lost":
        path.unlink()
    row = version_row(SCHEMA, second, 10)
    if damage == "no record":
        row = version_row(SCHEMA, msgspec.structs.replace(second, candidate="m", lineage=2, task="?"), 10)
    elif damage == "other task":
        row = version_row(SCHEMA, msgspec.structs.replace(second, task=Task("regression")), 10)
    learn, metrics = learn_task(tmp_path, is_frozen=True), RoleMetrics("learn", "p")
    rows, X = rows_of(300)
    table = table_of(rows, X)
    outgoing = process(learn, join([version_row(SCHEMA, first, 10), table.slice(0, 100), row, table.slice(100)]))
    learn.measure(metrics)

    [record] = told(outgoing, "decisions")
    reasons = {"lost": "cannot be opened", "no record": "cannot be read", "other task": "was made for another task"}
    reason = reasons.get(damage, "is not the file that was published")
    assert reason in record.pop("reason")
    lineage = 1 if damage == "no record" else 2
    known: dict[str, Any] = {
        "decision": "refused",
        "candidate": "m",
        "lineage": lineage,
        "generation": 0,
        "kept": "1.50",
        "time_us": 10,
    }
    assert record == known
    assert learn.version == (1, 50)
    assert np.array_equal(learn.learner.predict(X), read_version(tmp_path, first).predict(X))
    labels = {"pipeline": "p", "role": "learn", "candidate": "m", "what": "version_refused"}
    assert metrics.registry.get_sample_value("millrace_incidents_total", labels) == 1.0
    assert "m: a version is refused, 1.50 goes on" in caplog.text


def test_a_store_that_does_not_answer_is_no_lost_file(tmp_path: Path) -> None:
    """It ends the process, which tries again from its snapshot: what the model is must not depend on the network."""
    version = trained(tmp_path, (1, 50), 200)

    def load(_: Version) -> Learner:
        raise UnavailableError("s3://bucket: away")

    learn = learn_task(tmp_path, is_frozen=True)
    learn.uptake = Uptake(load, load)
    with pytest.raises(UnavailableError):
        process(learn, version_row(SCHEMA, version, 10))


def test_a_version_of_other_columns_takes_its_own_by_name_and_misses_those_that_are_gone(tmp_path: Path) -> None:
    theirs = (Column("b", False), Column("gone", False), Column("a", False), Column("c", True))
    version = trained(tmp_path, (1, 50), 200, theirs)
    rows, X = rows_of(150)
    learn = learn_task(tmp_path, is_frozen=True)
    process(learn, join([version_row(SCHEMA, version, 10), table_of(rows, X)]))
    fitted = np.column_stack([X[:, 1], np.full(len(X), math.nan), X[:, 0], X[:, 2]])
    said = read_version(tmp_path, version).predict(fitted)
    losses = [log_loss(said[row.at], row.label > 0.5) for row in rows if not math.isnan(row.label)]

    assert learn.metrics()["log_loss_start"] == pytest.approx(np.mean(losses), abs=1e-12)


def test_a_restored_model_still_reads_a_column_that_is_declared_no_more(tmp_path: Path) -> None:
    """Frames from before the change carry it; a version for the new list takes over at its row without a restart."""
    version = trained(tmp_path, (1, 50), 200)
    before = learn_task(tmp_path, is_frozen=True)
    process(before, version_row(SCHEMA, version, 10))
    now, asked = (COLUMNS[0], Column("new", False), COLUMNS[2]), []

    def bind(columns: tuple[Column, ...]) -> Learner:
        asked.append(columns)
        return make_learner(MODEL, columns)

    after = learn_task(tmp_path, is_frozen=True, columns=now, bind=bind)
    after.restore(before.state())

    assert asked == [(*now, COLUMNS[1])]
    rows, X = rows_of(150)
    wide = np.column_stack([X[:, 0], X[:, 1] * 5, X[:, 2], X[:, 1]])
    newer = trained(tmp_path, (2, 50), 300, now)
    schema = examples_schema(asked[0])
    table = table_of(rows, wide, asked[0])
    process(after, join([table.slice(0, 100), version_row(schema, newer, 10), table.slice(100)]))
    old, new = read_version(tmp_path, version).predict(X), read_version(tmp_path, newer).predict(wide[:, :3])
    said = {row.at: (old if place < 100 else new)[row.at] for place, row in enumerate(rows) if row.kind == EVENT}
    losses = [log_loss(said[row.at], row.label > 0.5) for row in rows if not math.isnan(row.label)]
    assert after.metrics()["log_loss_start"] == pytest.approx(np.mean(losses), abs=1e-12)
