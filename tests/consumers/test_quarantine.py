"""A candidate that raises is set aside with its reason; nothing else stops, and a replay sets it aside likewise."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from consumers.learn import LearnTask
from consumers.learn_role import LearnRole
from consumers.quarantine import Quarantined, Released, parameters_of
from consumers.role import OpenPartition
from models.learner import make_learner
from models.registry import read_version
from models.river_parts import RIVER_VERSION
from models.version import decode_record
from streams.control import Control
from streams.errors import ModelError
from streams.frames import EVENT, LABEL, NO_OUTCOME, SET, Batch, Column, Outgoing, build, examples_schema
from streams.metrics import RoleMetrics
from streams.pipeline import Model
from streams.tables import Table
from tests.memory_kafka import Broker, MemoryControlLog, MemoryOutbox
from tests.rows import pipeline

KEY = b"k" * 32
COLUMNS = (Column("a", False), Column("b", False))
SCHEMA = examples_schema(COLUMNS)
OWN = Model("m", "tests.own_learners:Fragile", {"limit": 90.0})
RIVER = Model("m", "river:compose.Pipeline", {"steps": [
    {"use": "preprocessing.StandardScaler"},
    {"use": "compose.Select", "keys": ["a", "b"]},
    {"use": "linear_model.LogisticRegression"},
]})  # fmt: skip
MODELS = {"own": OWN, "river": RIVER}
EVENTS, FAILING, DELAY = 400, 203, 30
WHERE = {  # the row that raises, its time, the reason
    "own": ("label", FAILING + DELAY, "ValueError: it is beyond what I know"),
    "river": ("event", FAILING, "failed: KeyError: 'b'"),
}


def task(model: Model, **options: Any) -> LearnTask:
    ticks = iter(range(10**9))
    learner = make_learner(model, COLUMNS, KEY)
    options.setdefault("parameters", parameters_of(model))
    return LearnTask("m", learner, COLUMNS, clock=lambda: float(next(ticks)), **options)


def examples() -> Table:
    """Give events whose labels come 30 events later; one label makes the model raise."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(EVENTS, 2))
    X[FAILING] = [99.0, np.nan]
    order = np.argsort(np.concatenate([np.arange(EVENTS), np.arange(EVENTS) + DELAY + 0.5]), kind="stable")
    at, is_label = order % EVENTS, order >= EVENTS
    columns = {
        "kind": np.where(is_label, LABEL, EVENT),
        "source": np.full(order.size, 7),
        "number": at,
        "time": np.where(is_label, at + DELAY, at) * 1_000,
        "label": np.where(is_label, (X[at, 0] > 0).astype(float), np.nan),
        "outcome": np.where(is_label, SET, NO_OUTCOME),
        "vector": X[at],
    }
    return build(SCHEMA, columns, order.size)


def process(learn: LearnTask, rows: Table) -> list[Outgoing]:
    clock = np.zeros(rows.num_rows, np.int64)
    return learn.process(Batch(rows, clock, clock))


def told(outputs: list[Outgoing]) -> list[Any]:
    """Give the decisions among outputs."""
    found = [value for out in outputs if out.topic == "decisions" for value in out.values.unpack()]
    return [msgspec.json.decode(value, type=Quarantined | Released) for value in found]


def rows_of(outputs: list[Outgoing]) -> list[Any]:
    """Give the blocks among outputs, without what is measured."""
    records = [msgspec.json.decode(value) for out in outputs if out.topic == "scores" for value in out.values.unpack()]
    return [block for record in records if record["order"] == "number" for block in record["blocks"]]


@pytest.mark.parametrize("name", MODELS)
def test_the_decision_names_the_row_and_the_reason(name: str) -> None:
    learn = task(MODELS[name], lineage=2, generation=1)
    (found,) = told(process(learn, examples()))

    assert isinstance(found, Quarantined)
    row, time, wanted = WHERE[name]
    assert (found.candidate, found.lineage, found.generation, found.source, found.number) == ("m", 2, 1, 7, FAILING)
    assert (found.row, found.time_us) == (row, time * 1_000)
    assert wanted in found.reason
    assert learn.ward.quarantine == found
    assert str(found).startswith(f"m is in quarantine: at the {row} row of event {FAILING} of source 7 the model m")


@pytest.mark.parametrize("name", MODELS)
def test_it_is_scored_on_and_learns_nothing_more(name: str) -> None:
    """Its predictions are those of the model before the failing row."""
    rows, learn, clean = examples(), task(MODELS[name]), task(MODELS[name])
    kind = EVENT if name == "river" else LABEL
    at = int(np.flatnonzero((rows.numbers("kind") == kind) & (rows.numbers("number") == FAILING))[0])
    blocks = rows_of(process(learn, rows))
    process(clean, rows.slice(0, at))
    asked = np.random.default_rng(0).normal(size=(20, 2))

    assert learn.examples_seen == clean.examples_seen == FAILING - (DELAY if name == "river" else 0)
    assert [block["n"] for block in blocks] == [100] * 4
    assert np.array_equal(learn.learner.predict(asked), clean.learner.predict(asked))
    assert learn.metrics()["labels_start"] == EVENTS


@pytest.mark.parametrize("name", MODELS)
def test_a_replay_in_other_batches_and_over_restarts_ends_in_the_same_state(name: str) -> None:
    rows, chance, model = examples(), random.Random(2), MODELS[name]
    whole, learn = task(model), task(model)
    expected = process(whole, rows)
    found: list[Outgoing] = []
    start = 0
    while start < rows.num_rows:
        size = chance.choice([1, 3, 40, 200])
        found += process(learn, rows.slice(start, size))
        start += size
        if chance.random() < 0.3:
            state = {name: np.asarray(array).copy() for name, array in learn.state().items()}
            learn = task(model)
            learn.restore(state)

    assert told(found) == told(expected)
    assert rows_of(found) == rows_of(expected)
    ours, theirs = learn.state(), whole.state()
    same = [key for key in theirs if not key.endswith("sealed")]
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[key], theirs[key], equal_nan=key.startswith(("board", "scores"))) for key in same)


def test_a_restart_does_not_end_it_and_says_no_decision_again() -> None:
    rows, learn, again = examples(), task(OWN), task(OWN)
    process(learn, rows.slice(0, 600))
    again.restore(learn.state())
    before, seen = again.learner.predict(np.ones((3, 2))), again.examples_seen
    outputs = process(again, rows.slice(600, rows.num_rows - 600))

    assert told(outputs) == []
    assert again.ward.quarantine == learn.ward.quarantine
    assert again.examples_seen == seen == FAILING
    assert np.array_equal(again.learner.predict(np.ones((3, 2))), before)


def test_other_parameters_end_it_and_the_candidate_begins_anew_in_the_next_lineage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows, learn = examples(), task(OWN, lineage=4)
    other = Model("m", OWN.kind, {"limit": 1e9})
    again = task(other)
    process(learn, rows.slice(0, 600))
    again.restore(learn.state())
    outputs = process(again, rows.slice(600, rows.num_rows - 600))

    assert told(outputs) == [Released("m", 5, 0, "its parameters are others than those that raised")]
    assert again.ward.quarantine is None
    assert again.lineage == 5
    assert 0 < again.examples_seen < EVENTS - FAILING
    assert "is out of quarantine" in caplog.text


def test_the_order_of_parameters_in_the_file_is_no_other_parameter() -> None:
    one = Model("m", "river:x.Y", {"a": 1, "b": {"use": "optim.SGD", "lr": 0.1}})
    same = Model("m", "river:x.Y", {"b": {"lr": 0.1, "use": "optim.SGD"}, "a": 1})
    other = Model("m", "river:x.Y", {"a": 1, "b": {"use": "optim.SGD", "lr": 0.2}})

    assert parameters_of(one) == parameters_of(same) != parameters_of(other)


def test_the_role_says_it_once_and_publishes_the_last_good_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What serves is never the model that raised; the gauge and the log tell people, the others go on."""
    fields = pipeline(state=tmp_path)
    declared = msgspec.structs.replace(fields, models=(Model("mine", OWN.kind, {"limit": 5.0}), *fields.models))
    broker, metrics = Broker(lambda: 0.0, {}), RoleMetrics("learn", "p")
    control = Control(MemoryControlLog(broker, "p.control"))
    role = LearnRole(declared, declared.models[0], control, MemoryOutbox(broker), metrics)
    learn = role.task(role.inlet("p.examples", 0, []), 0, [], 0)
    columns = learn.columns
    X = np.ones((40, len(columns)))
    X[20] = 9.0
    kind, number = np.tile([EVENT, LABEL], 40), np.repeat(np.arange(40), 2)
    parts = {"kind": kind, "source": np.zeros(80), "number": number, "time": number, "vector": np.repeat(X, 2, axis=0)}
    label = {"label": np.where(kind == LABEL, 1.0, np.nan), "outcome": np.where(kind == LABEL, SET, NO_OUTCOME)}
    process(learn, build(examples_schema(columns), parts | label, 80))
    station = cast("OpenPartition", SimpleNamespace(task=learn))
    for now in range(3):
        role.tick(int(now * 1e9), [station])
    learn.measure(metrics)
    control.refresh()
    version = decode_record(control.versions["mine"])
    served = read_version(tmp_path, version, kind=OWN.kind)

    assert version.examples == 20
    assert np.array_equal(served.predict(X[:1]), learn.learner.predict(X[:1]))
    assert sum("is in quarantine" in line for line in caplog.messages) == 1
    labels = {"pipeline": "p", "role": "learn", "candidate": "mine"}
    assert metrics.registry.get_sample_value("millrace_model_quarantined", labels) == 1.0


def test_a_snapshot_of_another_river_version_is_refused_with_both_versions_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, learn, again = examples(), task(RIVER), task(RIVER)
    process(learn, rows.slice(0, 300))
    state = learn.state()
    monkeypatch.setattr("models.river_learner.RIVER_VERSION", "9.9.9")
    with pytest.raises(ModelError) as caught:
        again.restore(state)

    line = str(caught.value)
    assert line.startswith("m cannot go on from its snapshot: ")
    assert f"river {RIVER_VERSION}" in line
    assert "river 9.9.9" in line
    assert line.endswith("; `millrace rebuild FILE --role learn.m` lets it learn again from the examples")
    assert caught.value.exit_code == 9
