"""Learn: predict at events, score and learn at labels; the same in every cut and after every restore."""

from __future__ import annotations

import base64
import json
import math
import random
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from consumers.learn import LearnTask
from consumers.score_records import MAX_BLOCKS_PER_RECORD, Block, ScoresRecord
from models.learner import make_learner
from models.sampling import in_sample
from models.sharded import ShardedLearner, way_of
from models.tally import log_loss
from streams.errors import ModelError
from streams.frames import (
    AMENDED,
    EVENT,
    LABEL,
    MARK,
    MISSING,
    NO_OUTCOME,
    SET,
    Batch,
    Column,
    Outgoing,
    build,
    examples_schema,
)
from streams.metrics import RoleMetrics
from streams.pipeline import Model, Task
from streams.tables import Table
from tests.rows import text_of

KEY = b"k" * 32
COLUMNS = (Column("a", False), Column("b", False), Column("c", True))
SCHEMA = examples_schema(COLUMNS)
MODELS = {
    "linear": Model("m", "linear", {"lr": 0.05, "bits": 10}),
    "mlp": Model("m", "mlp", {"hidden": (8, 4), "optimizer": "adam", "bits": 6}),
    "prior": Model("m", "prior", {}),
    "tree": Model("m", "river:tree.HoeffdingAdaptiveTreeClassifier", {"grace_period": 20}),
}


def task(model: str = "linear", **options: Any) -> LearnTask:
    ticks = iter(range(10**9))
    learner = make_learner(MODELS[model], COLUMNS, KEY)
    return LearnTask("m", learner, COLUMNS, clock=lambda: float(next(ticks)), **options)


def examples(events: int, seed: int = 0, sources: int = 3) -> Table:
    """Give events of several sources, each with a label up to 400 rows later: set, missing or missing with a value."""
    rng, chance = np.random.default_rng(seed), random.Random(seed)
    X = rng.normal(size=(events, 3))
    X[:, 2] = rng.integers(0, 5, events)
    y = (X[:, 0] + (X[:, 2] > 2) > 0.5).astype(float)
    X[rng.random(X.shape) < 0.05] = np.nan
    source = rng.integers(0, sources, events)
    number = np.array([int((source[:i] == source[i]).sum()) for i in range(events)])
    due = np.arange(events) + rng.integers(1, 400, events)
    rows: list[tuple[float, ...]] = []
    for at in np.argsort(np.concatenate([np.arange(events) * 1.0, due + 0.5]), kind="stable").tolist():
        i, is_label = at % events, at >= events
        if is_label:
            label, outcome = chance.choice([(y[i], SET)] * 8 + [(math.nan, MISSING), (0.0, MISSING)])
            rows.append((LABEL, source[i] + 10, number[i], due[i], label, outcome, i))
        else:
            rows.append((EVENT, source[i] + 10, number[i], i, math.nan, NO_OUTCOME, i))
    return batch_of(rows, X)


def batch_of(rows: list[tuple[float, ...]], X: npt.NDArray[np.float64]) -> Table:
    kind, source, number, time, label, outcome, at = (np.array(column) for column in zip(*rows, strict=True))
    columns = {"kind": kind, "source": source, "number": number, "time": time, "label": label, "outcome": outcome}
    return build(SCHEMA, {**columns, "vector": X[at.astype(int)]}, len(rows))


def process(learn: LearnTask, rows: Table) -> list[Outgoing]:
    clock = np.zeros(rows.num_rows, np.int64)
    return learn.process(Batch(rows, clock, clock))


def blocks_of(outgoing: list[Outgoing], order: str = "number") -> list[tuple[Any, ...]]:
    records = [msgspec.json.decode(value, type=ScoresRecord) for out in outgoing for value in out.values.unpack()]
    return [
        (b.source, b.block, b.n, b.first_time_us, b.last_time_us, b.losses)
        for r in records
        if r.order == order
        for b in r.blocks
    ]


def reference(rows: Table, model: str) -> tuple[dict[tuple[int, int], float], int]:
    """Give every event's loss and the number of examples learned, one row at a time with dictionaries."""
    learner = make_learner(MODELS[model], COLUMNS, KEY)
    prediction, loss, learned = {}, {}, 0
    names = ("kind", "source", "number", "label", "vector")
    for kind, source, number, label, vector in zip(
        *(rows.to_arrow().column(n).to_pylist() for n in names), strict=True
    ):
        x = np.array([vector], np.float64)
        if kind == EVENT:
            prediction[source, number] = float(learner.predict(x)[0])
        elif math.isnan(label):
            loss[source, number] = math.nan
        else:
            loss[source, number] = log_loss(prediction[source, number], label > 0.5)
            learner.learn(x, np.array([label]))
            learned += 1
    return loss, learned


@pytest.mark.parametrize("model", MODELS)
def test_events_are_predicted_when_they_pass_and_labels_scored_and_learned_when_they_pass(model: str) -> None:
    rows = examples(700)
    learn = task(model)
    found = blocks_of(process(learn, rows))
    loss, learned = reference(rows, model)

    assert len(found) == sum(((rows.numbers("source") == s).sum() // 2) // 100 for s in (10, 11, 12))
    for source, block, n, _, _, losses in found:
        expected = np.array([loss[source, block * 100 + k] for k in range(100)], np.float32)
        decoded = Block(source, block, n, 0, 0, losses).values()
        assert np.array_equal(decoded, expected, equal_nan=True)
        assert n == np.isfinite(expected).sum()
    assert learn.examples_seen == learned
    assert learn.version == (0, learned)
    known = [value for value in loss.values() if not math.isnan(value)]
    assert learn.metrics()["log_loss_start"] == pytest.approx(np.mean(known), abs=1e-12)


def test_losses_travel_as_base64_of_little_endian_float32() -> None:
    record = next(value for out in process(task(), examples(700)) for value in out.values.unpack())
    typed, plain = msgspec.json.decode(record, type=ScoresRecord), json.loads(record)

    assert [base64.b64decode(block["losses"]) for block in plain["blocks"]] == [
        block.values().astype("<f4").tobytes() for block in typed.blocks
    ]


@pytest.mark.parametrize("model", MODELS)
def test_outputs_and_state_do_not_depend_on_batches_or_restarts(model: str) -> None:
    rows, chance = examples(500, seed=1), random.Random(1)
    whole, learn = task(model), task(model)
    outgoing = process(whole, rows)
    expected, of_labels = blocks_of(outgoing), blocks_of(outgoing, "label")
    found: list[tuple[Any, ...]] = []
    found_of_labels: list[tuple[Any, ...]] = []
    start = 0
    while start < rows.num_rows:
        size = chance.choice([1, 3, 40, 200])
        outgoing = process(learn, rows.slice(start, size))
        found += blocks_of(outgoing)
        found_of_labels += blocks_of(outgoing, "label")
        start += size
        if chance.random() < 0.2:
            state = {name: np.asarray(array).copy() for name, array in learn.state().items()}
            learn = task(model)
            learn.restore(state)

    assert found == expected
    assert found_of_labels == of_labels
    assert learn.version == whole.version
    ours, theirs = learn.state(), whole.state()
    assert ours.keys() == theirs.keys()
    for name in ours:
        if name != "learner.sealed":  # equal models may be written by pickle in different bytes
            assert np.array_equal(ours[name], theirs[name], equal_nan=ours[name].dtype.kind == "f"), name
    x = np.random.default_rng(3).normal(size=(50, 3))
    assert np.array_equal(learn.learner.predict(x), whole.learner.predict(x))


def test_unseen_amended_and_other_rows_are_counted_and_change_nothing() -> None:
    learn, X = task(), np.ones((1, 3))
    rows: list[tuple[float, ...]] = [
        (EVENT, 1, 5, 0, math.nan, NO_OUTCOME, 0),
        (LABEL, 1, 4, 1, 1.0, SET, 0),
        (LABEL, 2, 0, 1, 1.0, SET, 0),
        (LABEL, 1, 5, 1, 1.0, AMENDED, 0),
        (MARK, 1, -1, 9, math.nan, NO_OUTCOME, 0),
    ]
    before = {name: array for name, array in learn.state().items() if name.startswith("learner.")}
    assert process(learn, batch_of(rows, X)) == []
    metrics = learn.metrics()
    assert (metrics["predicted"], metrics["unseen"], metrics["amended"], metrics["pending"]) == (1, 2, 1, 1)
    assert learn.examples_seen == 0
    assert all(np.array_equal(array, learn.state()[name]) for name, array in before.items())

    assert learn.board.drop(1) == 1
    process(learn, batch_of([(LABEL, 1, 5, 1, 1.0, SET, 0)], X))
    assert learn.metrics()["unseen"] == 3
    assert learn.examples_seen == 0


def test_an_empty_batch_gives_nothing() -> None:
    assert process(task(), examples(1).slice(0, 0)) == []


def test_many_blocks_share_a_record_but_no_record_grows_without_bound() -> None:
    events = (MAX_BLOCKS_PER_RECORD + 50) * 100
    number = np.tile(np.arange(events), 2)
    kind = np.repeat([EVENT, LABEL], events)
    columns = {"kind": kind, "source": kind * 0, "number": number, "time": number}
    columns |= {
        "label": np.where(kind == LABEL, 1.0, math.nan),
        "outcome": kind - 1,
        "vector": np.ones((2 * events, 3)),
    }
    out, of_labels = process(task("prior", lineage=2, generation=3), build(SCHEMA, columns, 2 * events))
    records = [msgspec.json.decode(value) for value in out.values.unpack()]

    assert [len(record["blocks"]) for record in records] == [MAX_BLOCKS_PER_RECORD, 50]
    assert out.cause.tolist() == [events + MAX_BLOCKS_PER_RECORD * 100 - 1, 2 * events - 1]
    assert (out.topic, out.partition, out.keys) == ("scores", 0, None)
    assert [len(record["blocks"]) for record in map(msgspec.json.decode, of_labels.values.unpack())] == [
        MAX_BLOCKS_PER_RECORD,
        50,
    ]
    head = {name: value for name, value in records[0].items() if name != "blocks"}
    assert head == {
        "candidate": "m",
        "lineage": 2,
        "generation": 3,
        "order": "number",
        "predict_p99_us": round(1e6 / (2 * events), 3),
        "bytes": 24,
        "unpublished_s": 0.0,
    }
    assert records[1]["blocks"][-1].keys() == {"source", "block", "n", "first_time_us", "last_time_us", "losses"}
    assert np.diff(out.values.offsets).max() < 200_000


def test_metrics_reach_the_scrape() -> None:
    learn = task()
    process(learn, examples(300))
    metrics = RoleMetrics("learn", "flights")
    learn.measure(metrics)
    labels = {"pipeline": "flights", "role": "learn", "candidate": "m"}

    value = metrics.registry.get_sample_value(
        "millrace_model_quality", {**labels, "figure": "log_loss", "span": "start"}
    )
    assert value == learn.metrics()["log_loss_start"]
    assert metrics.registry.get_sample_value("millrace_model_examples", labels) == learn.examples_seen
    for delay, (scored, loss) in learn.scores.by_delay().items():
        found = metrics.registry.get_sample_value("millrace_model_loss_by_delay", {**labels, "delay": delay})
        assert found == pytest.approx(loss, nan_ok=True)
        assert metrics.registry.get_sample_value("millrace_model_labels_by_delay", {**labels, "delay": delay}) == scored


def test_a_candidate_with_a_sample_predicts_and_scores_all_and_learns_its_share() -> None:
    """As one would that is given the labels of the sample only, and whatever the batches."""
    rows = examples(2_000)
    names = [
        f"{source}-{number}" for source, number in zip(rows.numbers("source"), rows.numbers("number"), strict=True)
    ]
    columns = {name: rows.numbers(name) for name in ("kind", "source", "number", "time", "label", "outcome")}
    rows = build(SCHEMA, {**columns, "id": text_of(names), "vector": rows.matrix()}, rows.num_rows)
    has = in_sample(rows.text("id"), 0.25)
    learn, cut = task(sample=0.25), task(sample=0.25)
    outgoing = process(learn, rows)
    for start in range(0, rows.num_rows, 37):
        process(cut, rows.slice(start, min(37, rows.num_rows - start)))

    learner, learned = make_learner(MODELS["linear"], COLUMNS, KEY), 0
    is_learned = has & (rows.numbers("kind") == LABEL) & np.isfinite(rows.numbers("label"))
    for i in np.flatnonzero(is_learned):
        learner.learn(rows.matrix()[i : i + 1], rows.numbers("label")[i : i + 1])
        learned += 1
    assert 0.2 < learned / np.isfinite(rows.numbers("label")).sum() < 0.3
    assert learn.examples_seen == cut.examples_seen == learned
    for name, array in learner.state().items():
        assert np.array_equal(learn.learner.state()[name], array)
        assert np.array_equal(cut.learner.state()[name], array)
    assert sum(block[2] for block in blocks_of(outgoing)) > 1_000
    assert learn.board.count("scored") == np.isfinite(rows.numbers("label")).sum()


def test_what_a_candidate_costs_reaches_the_scrape() -> None:
    """A tick of this clock for each step, divided by what the steps did."""
    learn = task()
    process(learn, examples(300))
    metrics = RoleMetrics("learn", "flights")
    learn.measure(metrics)
    learn.measure(metrics)
    labels = {"pipeline": "flights", "role": "learn", "candidate": "m"}
    spent = [
        metrics.registry.get_sample_value("millrace_model_cpu_seconds_total", {**labels, "what": what})
        for what in ("predict", "learn")
    ]

    assert sum(value or 0.0 for value in spent) == pytest.approx(1.0)
    row = metrics.registry.get_sample_value("millrace_model_row_seconds", {**labels, "what": "predict"})
    assert row == pytest.approx(learn.cost.predict_us / 1e6)


def test_what_a_sharded_model_costs_has_the_cpu_time_of_its_threads() -> None:
    """Of which the candidate's own clock, which here stands still, knows nothing."""
    ticks, model = iter(range(10**9)), MODELS["prior"]
    made = ShardedLearner(
        lambda: make_learner(model, COLUMNS), 2, way_of(model, Task()), clock=lambda: float(next(ticks))
    )
    learn = LearnTask("m", made, COLUMNS, clock=lambda: 0.0)
    process(learn, examples(2_000))

    assert sum(learn.cost.take()) == made.threads_s >= 2.0


def test_a_model_that_is_not_finite_goes_on_but_may_not_be_published() -> None:
    learn = task()
    process(learn, examples(100))
    assert learn.is_sound()
    state = learn.state()
    state["learner.weight"] = np.full(2, np.inf)
    learn.restore(state)
    process(learn, examples(100, sources=1))

    assert not learn.is_sound()


def test_other_columns_and_foreign_snapshots_are_refused() -> None:
    learn = task()
    other = LearnTask("m", make_learner(MODELS["linear"], COLUMNS[:2]), COLUMNS[:2])
    with pytest.raises(ModelError, match="of a model for other columns"):
        learn.restore(other.state())
    with pytest.raises(ModelError, match="holds no model"):
        learn.restore({})


@pytest.mark.parametrize("at", [1, 150, 400])
def test_label_rows_find_events_whose_source_has_an_alias_now(at: int) -> None:
    """After partitions were parted anew: predictions, scores, blocks and weights are as if nothing had happened."""
    rows = examples(300)
    columns = {name: rows.numbers(name).copy() for name in ("kind", "source", "number", "time", "label", "outcome")}
    is_old = np.isin(columns["source"], [10, 11]) & (columns["kind"] == EVENT) & (np.arange(rows.num_rows) < at)
    last = [int(columns["number"][is_old & (columns["source"] == source)].max(initial=-1)) for source in (10, 11)]
    keep = np.array(
        [
            source == 12 or number <= last[source - 10]
            for source, number in zip(columns["source"].tolist(), columns["number"].tolist(), strict=True)
        ]
    )  # an old source numbers no more events
    kept = rows.take(np.flatnonzero(keep))
    cut = int(keep[:at].sum())
    whole, parted, restored = task(), task(), task()
    blocks = blocks_of(process(whole, kept))
    found = blocks_of(process(parted, kept.slice(0, cut)))
    state = parted.state()
    names = state["board.sources.name"].astype(np.int32)
    state["board.sources.name"] = np.where(names < 12, 9 - names, names)  # 10 and 11 are aliases 0 and 1
    of_labels = state["board.labels.source"].astype(np.int64)
    state["board.labels.source"] = np.where(of_labels < 12, 9 - of_labels, of_labels)

    restored.restore(state)
    found += blocks_of(process(restored, _with_aliases(kept.slice(cut))))

    assert [block[1:] for block in found] == [block[1:] for block in blocks]
    mine, wanted = restored.state(), whole.state()
    named = {"board.sources.name", "board.labels.source", "board.labels.places", "board.labels.losses"}  # by names
    assert {name: array.tobytes() for name, array in mine.items() if name not in named} == {
        name: array.tobytes() for name, array in wanted.items() if name not in named
    }
    assert whole.board.count("scored") > 50


def _with_aliases(rows: Table) -> Table:
    """Label rows of sources 10 and 11 under another source, by aliases 0 and 1."""
    columns = {name: rows.numbers(name).copy() for name in ("kind", "source", "number", "time", "label", "outcome")}
    is_old = (columns["kind"] == LABEL) & (columns["source"] < 12)
    columns["number"][is_old] += (columns["source"][is_old].astype(np.int64) - 9) << 40
    columns["source"][is_old] = 99
    return build(SCHEMA, {**columns, "vector": rows.matrix()}, rows.num_rows)


def test_a_snapshot_of_another_task_is_refused() -> None:
    """Another order of the same classes gives every weight another meaning."""
    tasks = [Task("multiclass", classes) for classes in (("a", "b"), ("b", "a"))]
    before, after = (
        LearnTask("m", make_learner(MODELS["linear"], COLUMNS, None, of), COLUMNS, task=of) for of in tasks
    )

    with pytest.raises(ModelError, match=r"another task \(multiclass, a, b; now multiclass, b, a\); run `millrace"):
        after.restore(before.state())
