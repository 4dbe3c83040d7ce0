"""A candidate under drift: alarms as River's detector raises them, what they do, and the same in every replay."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from river import drift as river

from consumers.drifting import Drifting, DriftRecord, Recent
from consumers.learn import LearnTask
from consumers.learn_role import LearnRole
from consumers.score_records import Block, ScoresRecord
from consumers.station import Shop
from consumers.worker import Settings, Worker
from models.learner import Learner, make_learner
from models.tally import log_loss
from models.version import Version, decode_record
from streams import frames
from streams.control import Claim, Control
from streams.drift import Drift, OnDrift, PageHinkley, Psi
from streams.features import columns
from streams.frames import EVENT, LABEL, MISSING, NO_OUTCOME, SET, Batch, Column, Outgoing, build, examples_schema
from streams.metrics import RoleMetrics
from streams.pipeline import Model
from streams.state_folder import state_of
from streams.tables import Table
from tests.memory_kafka import Broker, MemoryControlLog, MemoryInbox, MemoryOutbox
from tests.rows import pipeline

COLUMNS = (Column("a", False), Column("b", False), Column("c", True))
MODELS = {
    "linear": Model("m", "linear", {"lr": 0.05, "bits": 8}),
    "slow": Model("m", "linear", {"bits": 8}),
    "prior": Model("m", "prior", {}),
    "tree": Model("m", "river:tree.HoeffdingTreeClassifier", {"grace_period": 50}),
}
KEY = b"k" * 32
FLIP = 1_500  # the event from which on labels mean the opposite
EVENTS = 2_500


def examples(events: int = EVENTS, delay: int = 60, seed: int = 0) -> Table:
    """Events of two sources with labels up to `delay` events later; behind FLIP yes is no, `b` ten times as far."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.normal(size=(events, 2)), rng.integers(0, 3, events)])
    y = (X[:, 0] + rng.normal(0.0, 0.3, events) > -0.8).astype(float)
    y[FLIP:] = 1.0 - y[FLIP:]
    X[FLIP:, 1] *= 10.0
    source = rng.integers(0, 2, events)
    number = np.array([int((source[:i] == source[i]).sum()) for i in range(events)])
    due = np.arange(events) + rng.integers(1, delay, events)
    y[rng.random(events) < 0.05] = math.nan
    at = np.argsort(np.concatenate([np.arange(events) * 1.0, due + 0.5]), kind="stable")
    i, is_label = at % events, at >= events
    fields: dict[str, Any] = {
        "kind": np.where(is_label, LABEL, EVENT),
        "source": source[i] + 10,
        "sequence": np.zeros(at.size),
        "number": number[i],
        "time": np.where(is_label, due[i], i),
        "label": np.where(is_label, y[i], math.nan),
        "outcome": np.where(is_label, np.where(np.isnan(y[i]), MISSING, SET), NO_OUTCOME),
        "vector": X[i],
    }
    return build(examples_schema(COLUMNS), fields, at.size)


def untrained(model: str, _: tuple[Column, ...] = COLUMNS) -> Learner:
    return make_learner(MODELS[model], COLUMNS, KEY)


def task(
    model: str = "linear", on_drift: OnDrift = "none", settings: Drift | None = None, relearn_rows: int = 300
) -> LearnTask:
    drift = Drifting(settings or Drift(features="off"), COLUMNS, on_drift, relearn_rows, watches_features=True)
    return LearnTask("m", untrained(model), COLUMNS, bind=partial(untrained, model), drift=drift)


def process(learn: LearnTask, rows: Table) -> list[Outgoing]:
    clock = np.zeros(rows.num_rows, np.int64)
    return learn.process(Batch(rows, clock, clock))


def alarms_of(found: list[Outgoing]) -> list[DriftRecord]:
    values = [value for out in found if out.topic == "decisions" for value in out.values.unpack()]
    return [msgspec.json.decode(value, type=DriftRecord) for value in values]


def blocks_of(found: list[Outgoing]) -> list[tuple[Any, ...]]:
    values = [value for out in found if out.topic == "scores" for value in out.values.unpack()]
    records = [msgspec.json.decode(value, type=ScoresRecord) for value in values]
    return [(r.lineage, b.source, b.block, b.n, b.losses) for r in records if r.order == "number" for b in r.blocks]


def adwin() -> river.ADWIN:
    return river.ADWIN()  # type: ignore[no-untyped-call]  # River's is


class Reference:
    """The rules of docs/drift.md one row at a time: dictionaries, and River's own ADWIN."""

    def __init__(self, model: str, on_drift: OnDrift, relearn_rows: int) -> None:
        self.model, self.on_drift, self.relearn_rows = model, on_drift, relearn_rows
        self.learner, self.adwin = untrained(model), adwin()
        self.lineage = self.examples = 0
        self.said: dict[tuple[int, int], tuple[float, int]] = {}
        self.loss: dict[tuple[int, int], tuple[float, int]] = {}
        self.learned: list[tuple[npt.NDArray[np.float64], float]] = []
        self.alarms: list[tuple[Any, ...]] = []

    def take(self, kind: int, name: tuple[int, int], label: float, vector: list[float]) -> None:
        x = np.array([vector], np.float64)
        if kind == EVENT:
            self.said[name] = float(self.learner.predict(x)[0]), self.lineage
        elif not math.isnan(label):
            said, lineage = self.said[name]
            self.loss[name] = log_loss(said, label > 0.5), lineage
            self.learner.learn(x, np.array([label]))
            self.learned.append((x, label))
            self.examples += 1
            if lineage == self.lineage:
                self._watch(name, self.loss[name][0])

    def _watch(self, name: tuple[int, int], loss: float) -> None:
        before = self.adwin.total + loss, self.adwin.width + 1
        if self.adwin.drift_detected:
            before = loss, 1
        self.adwin.update(loss)  # type: ignore[no-untyped-call]  # River's is
        if not self.adwin.drift_detected:
            return
        is_up = self.adwin.estimation > before[0] / before[1]
        action = self.on_drift if is_up else "none"
        self.alarms.append((name, "up" if is_up else "down", self.lineage, self.examples, action))
        if action in {"reset", "relearn"}:
            self.learner, self.adwin = untrained(self.model), adwin()
            self.lineage, self.examples = self.lineage + 1, 0
            if action == "relearn":
                for x, label in self.learned[-self.relearn_rows :]:
                    self.learner.learn(x, np.array([label]))
                    self.examples += 1


def reference(rows: Table, model: str, on_drift: OnDrift, relearn_rows: int = 300) -> Reference:
    made = Reference(model, on_drift, relearn_rows)
    names = ("kind", "source", "number", "label", "vector")
    parts = (rows.to_arrow().column(name).to_pylist() for name in names)
    for kind, source, number, label, vector in zip(*parts, strict=True):
        made.take(kind, (source, number), label, vector)
    return made


def losses_in(losses: bytes) -> npt.NDArray[np.float32]:
    return Block(0, 0, 0, 0, 0, losses).values()


def mean_loss(blocks: list[tuple[Any, ...]], since: int) -> float:
    """Mean loss of events from a number of each source on."""
    losses = [losses_in(text) for _, _, block, _, text in blocks if block * 100 >= since]
    return float(np.nanmean(np.concatenate(losses)))


@pytest.mark.parametrize("on_drift", ["none", "reset", "relearn", "retrain"])
@pytest.mark.parametrize("model", ["linear", "prior", "tree"])
def test_losses_alarms_and_models_are_those_of_the_rules_row_by_row(model: str, on_drift: OnDrift) -> None:
    rows = examples()
    learn = task(model, on_drift)
    found = process(learn, rows)
    wanted = reference(rows, model, on_drift)

    alarms = [((a.source, a.number), a.direction, a.lineage, a.examples, a.action) for a in alarms_of(found)]
    assert alarms == wanted.alarms
    assert any(direction == "up" and number >= 700 for (_, number), direction, *_ in alarms)
    assert learn.version == (wanted.lineage, wanted.examples)
    assert (learn.lineage > 0) == (on_drift in {"reset", "relearn"})
    x = np.random.default_rng(1).normal(size=(50, 3))
    assert np.array_equal(learn.learner.predict(x), wanted.learner.predict(x))
    blocks = blocks_of(found)
    assert len(blocks) >= 20
    for lineage, source, block, _, text in blocks:
        names = [(source, block * 100 + k) for k in range(100)]
        losses = np.array([wanted.loss.get(name, (math.nan, 0))[0] for name in names], np.float32)
        assert np.array_equal(losses_in(text), losses, equal_nan=True)
        assert {wanted.said[name][1] for name in names} == {lineage}, "a block is of one lineage only"


@pytest.mark.parametrize("model", ["slow", "prior"])
def test_a_model_that_begins_anew_recovers_sooner(model: str) -> None:
    """Over the blocks behind the flip that all three have."""
    rows = examples(events=4_000)
    loss = {
        on_drift: mean_loss(blocks_of(process(task(model, on_drift), rows)), FLIP // 2 + 200)
        for on_drift in ("none", "reset", "relearn")
    }

    assert loss["reset"] < 0.9 * loss["none"]
    assert loss["relearn"] < loss["none"]


@pytest.mark.parametrize("on_drift", ["none", "reset", "relearn"])
def test_cuts_replays_and_snapshots_give_identical_records(on_drift: OnDrift) -> None:
    rows = examples(seed=3)
    settings = Drift(
        loss=("adwin", "page_hinkley", "kswin"),
        page_hinkley=PageHinkley(threshold=20.0),
        psi=Psi(reference_rows=500, window_rows=300),
    )
    whole = task("linear", on_drift, settings)
    expected = process(whole, rows)
    chance, learn, at = np.random.default_rng(1), task("linear", on_drift, settings), 0
    found: list[Outgoing] = []
    while at < rows.num_rows:
        size = int(chance.choice([1, 3, 40, 200]))
        found += process(learn, rows.slice(at, size))
        at += size
        if chance.random() < 0.2:
            state = {name: np.asarray(array).copy() for name, array in learn.state().items()}
            learn = task("linear", on_drift, settings)
            learn.restore(state)

    assert alarms_of(found) == alarms_of(expected)
    assert blocks_of(found) == blocks_of(expected)
    assert {alarm.detector for alarm in alarms_of(found)} == {"adwin", "page_hinkley", "kswin", "psi"}
    ours, theirs = learn.state(), whole.state()
    assert {name: array.tobytes() for name, array in ours.items()} == {
        name: array.tobytes() for name, array in theirs.items()
    }


def test_retraining_is_only_asked_for() -> None:
    rows = examples()
    asked, alone = task("linear", "retrain"), task("linear", "none")
    found, others = process(asked, rows), process(alone, rows)

    assert [alarm.action for alarm in alarms_of(found) if alarm.direction == "up"] == ["retrain"]
    assert {alarm.action for alarm in alarms_of(others)} == {"none"}
    assert blocks_of(found) == blocks_of(others)
    assert asked.version == alone.version


def test_a_feature_that_drifts_is_named_with_the_model_at_that_row() -> None:
    rows = examples()
    learn = task("linear", "reset", Drift(loss=(), psi=Psi(reference_rows=800, window_rows=500)))
    [alarm] = alarms_of(process(learn, rows))

    kind, source, number, label = (rows.numbers(name) for name in ("kind", "source", "number", "label"))
    at = np.flatnonzero((kind == EVENT) & (source == alarm.source) & (number == alarm.number))[0]
    assert (alarm.detector, alarm.feature, alarm.direction, alarm.action) == ("psi", "b", "", "none")
    assert FLIP < (kind[:at] == EVENT).sum() < FLIP + 300
    assert (alarm.lineage, alarm.examples) == (0, np.isfinite(label[:at]).sum())
    assert learn.lineage == 0


def test_alarms_and_indexes_reach_the_scrape_once() -> None:
    learn, rows = task("linear", "none", Drift(psi=Psi(reference_rows=800, window_rows=500))), examples()
    found = alarms_of(process(learn, rows))
    metrics = RoleMetrics("learn", "flights")
    learn.measure(metrics)
    learn.measure(metrics)

    base = {"pipeline": "flights", "role": "learn", "candidate": "m"}
    for detector, feature, direction in {(a.detector, a.feature, a.direction) for a in found}:
        labels = {**base, "detector": detector, "feature": feature, "direction": direction}
        count = sum((a.detector, a.feature, a.direction) == (detector, feature, direction) for a in found)
        assert metrics.registry.get_sample_value("millrace_drift_alarms_total", labels) == count
    assert {alarm.detector for alarm in found} == {"adwin", "psi"}
    value = metrics.registry.get_sample_value
    assert (value("millrace_feature_drift", {**base, "feature": "b"}) or 0.0) > 0.2
    assert value("millrace_feature_drift", {**base, "feature": "a"}) == pytest.approx(0.03, abs=0.03)


def test_detectors_with_other_settings_begin_anew_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    learn = task("linear", "relearn", Drift(features="off"), relearn_rows=300)
    rows = examples()
    process(learn, rows.slice(0, 2_000))
    other = task("linear", "relearn", Drift(loss=("page_hinkley",), features="off"), relearn_rows=100)
    other.restore(learn.state())

    assert caplog.messages == ["m: detectors of drift begin anew, their settings are not those of the snapshot"]
    assert other.version == learn.version
    kept, all_kept = other.drift.recent(), learn.drift.recent()
    assert kept is not None
    assert all_kept is not None
    assert [part.tolist() for part in kept] == [part[-100:].tolist() for part in all_kept]


def test_a_snapshot_from_before_drift_was_watched_is_taken() -> None:
    """Detectors begin with it; all that was predicted is the model's own."""
    rows = examples()
    learn, resumed = task("linear", settings=Drift(loss=(), features="off")), task("linear", "reset")
    process(learn, rows.slice(0, 2_000))
    old = {
        name: array
        for name, array in learn.state().items()
        if not name.startswith("drift.") and name != "board.sources.since"
    }
    resumed.restore(old)

    assert resumed.version == learn.version
    [alarm] = [one for one in alarms_of(process(resumed, rows.slice(2_000))) if one.direction == "up"]
    assert (alarm.action, resumed.lineage) == ("reset", 1)


def test_what_is_watched_stays_bound_to_the_columns_of_the_model() -> None:
    settings, rows = Drift(psi=Psi(reference_rows=800, window_rows=500)), examples()
    learn = task("linear", "relearn", settings)
    process(learn, rows)
    fewer = COLUMNS[:2]
    drift = Drifting(settings, fewer, "relearn", 300, watches_features=True)
    bind = partial(untrained, "linear")
    other = LearnTask("m", make_learner(MODELS["linear"], fewer), fewer, bind=bind, drift=drift)
    other.restore(learn.state())

    assert other.columns == COLUMNS
    ours, theirs = other.state(), learn.state()
    assert {name: array.tobytes() for name, array in ours.items()} == {
        name: array.tobytes() for name, array in theirs.items()
    }
    assert {"drift.recent.X", "drift.features.parts"} <= ours.keys()


@pytest.mark.parametrize("sizes", [[1] * 25, [10, 3, 12], [25], [7, 7, 0, 11]])
def test_the_ring_keeps_the_last_examples_in_order(sizes: list[int]) -> None:
    ring, X = Recent(8, 2), np.arange(50.0).reshape(25, 2)
    for stop, size in zip(np.cumsum(sizes).tolist(), sizes, strict=True):
        ring.add(X[stop - size : stop], X[stop - size : stop, 0])

    assert ring.rows()[0].tolist() == X[-8:].tolist()
    assert ring.rows()[1].tolist() == X[-8:, 0].tolist()


def started(broker: Broker, directory: Path) -> tuple[Worker, LearnRole, MemoryOutbox]:
    """Start a learn worker whose model is reset by drift, over everything in p.examples."""
    declared = pipeline(
        state=directory, models=(Model("prior", "prior", {}, on_drift="reset"),), drift=Drift(features="off")
    )
    control = Control(MemoryControlLog(broker, "p.control"))
    outbox, metrics = MemoryOutbox(broker), RoleMetrics("learn", "p")
    role = LearnRole(declared, declared.models[0], control, outbox, metrics)
    inbox = MemoryInbox(broker, "p.learn.prior")
    inbox.limit = 2
    shop = Shop(role, declared, inbox, control, broker, broker, state_of(declared) / "snapshots")
    worker = Worker(shop, outbox, metrics, Settings(snapshot_every_s=1e9), broker.clock)
    worker.start()
    inbox.give([("p.examples", 0)])
    return worker, role, outbox


def published(directory: Path) -> Broker:
    """A broker with examples whose labels are all 1, then all 0, in frames of 50 rows."""
    broker = Broker(lambda: 0.0, {"p.examples": 1})
    control = Control(MemoryControlLog(broker, "p.control"))
    source = control.claim(Claim("features", "log", 0, "rows", 0, 1, is_gapless=True))
    schema = frames.examples_schema(columns(pipeline(state=directory)))
    control.announce(schema)
    number, label = np.arange(1_200), (np.arange(1_200) < 800).astype(float)
    for start in range(0, 1_200, 25):
        part = np.repeat(number[start : start + 25], 2)
        is_label = np.tile([False, True], 25)
        fields: dict[str, Any] = {
            "kind": np.where(is_label, LABEL, EVENT),
            "source": np.full(50, source),
            "sequence": np.arange(2 * start, 2 * start + 50),
            "number": part,
            "time": part,
            "label": np.where(is_label, label[part], math.nan),
            "outcome": np.where(is_label, SET, NO_OUTCOME),
            "vector": np.zeros((50, len(columns(pipeline(state=directory))))),
        }
        payload = build(schema, fields, 50).message()
        broker.append("p.examples", 0, payload, None, [(frames.SCHEMA_HEADER, schema.fingerprint.encode())])
    return broker


def decided(broker: Broker) -> list[DriftRecord]:
    return [msgspec.json.decode(record.value_ or b"", type=DriftRecord) for record in broker.logs["p.decisions", 0]]


def run(worker: Worker, until_lineage: int = 99, snapshot_at: int = 99_999) -> LearnTask:
    """Take everything, or until a lineage has begun; take a snapshot once so many examples are learned."""
    learn = worker.stations[0].task
    assert isinstance(learn, LearnTask)
    for _ in range(200):
        worker.step(0.0)
        if learn.examples_seen >= snapshot_at:
            worker.snapshot()
            snapshot_at = 99_999
        if learn.lineage == until_lineage:
            break
    return learn


def versions(broker: Broker) -> Version:
    control = Control(MemoryControlLog(broker, "p.control"))
    control.refresh()
    return decode_record(control.versions["prior"])


def test_a_role_that_crashes_behind_an_alarm_repeats_it_and_no_more(tmp_path: Path) -> None:
    """Readers drop repeats by what a record names; the next lineage is the same one."""
    alone, crashed = published(tmp_path / "alone"), published(tmp_path / "crashed")
    worker, role, outbox = started(alone, tmp_path / "alone")
    expected = run(worker)
    role.publish(expected)
    outbox.flush()
    worker, _, outbox = started(crashed, tmp_path / "crashed")
    run(worker, until_lineage=1, snapshot_at=300)
    outbox.flush()  # the alarm is written, the snapshot lies before it
    worker, role, outbox = started(crashed, tmp_path / "crashed")
    resumed = worker.stations[0].task
    assert isinstance(resumed, LearnTask)
    assert resumed.version[0] == 0
    assert resumed.version[1] >= 300
    found = run(worker)
    role.publish(found)
    outbox.flush()

    records = decided(alone)
    assert [(one.direction, one.action, one.lineage) for one in records] == [("up", "reset", 0)]
    assert decided(crashed) == records * 2
    assert found.version == expected.version
    assert versions(crashed).order == versions(alone).order == (1, expected.examples_seen)
    assert versions(crashed).digest == versions(alone).digest


def test_a_model_that_was_reset_is_not_published_before_it_has_learned(tmp_path: Path) -> None:
    """It would be newer than the one that answers, and know nothing."""
    broker = published(tmp_path)
    worker, role, _ = started(broker, tmp_path)
    learn = run(worker, until_lineage=1)
    role.publish(learn)
    known = versions(broker)

    learn.lineage, learn.examples_seen = 2, 0
    role.tick(10**15, worker.stations)
    assert versions(broker) == known
    learn.examples_seen = 1
    role.tick(2 * 10**15, worker.stations)
    assert versions(broker).order == (2, 1)
