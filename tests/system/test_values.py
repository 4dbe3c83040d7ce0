"""The value test: a run over real flights on real Kafka, compared number by number with references computed otherwise.

Features from P.log by pandas and NumPy, the ledger by dicts, learning by plain River in the order of P.examples.
"""

from __future__ import annotations

import base64
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from consumers.score_records import Block
from consumers.served import ServedTask
from models.learner import LEARN, PREDICT, SKIP, Learner, make_learner
from models.sealed import model_key
from streams import features
from streams.frames import AMENDED, EVENT, LABEL, MISSING, RETRACTED, SET
from streams.snapshots import SnapshotStore, State, part_of
from streams.tables import Table
from tests.system.flights_run import FLIGHTS, Run, numbered, run_system
from tests.system.reference_features import late_events, vectors
from tests.system.reference_learning import (
    Learned,
    adaptive_tree,
    area_under_curve,
    dicts,
    drive,
    logistic,
    without_categories,
)
from tests.system.reference_ledger import Ledger, follow

WITHIN = 1e-9
BLOCK = 100
pytestmark = pytest.mark.timeout(600)  # the first test waits for the whole run
Floats = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that all tests look at."""
    return run_system(tmp_path_factory.mktemp("flights"))


@pytest.fixture(scope="module")
def ledgers(run: Run) -> list[Ledger]:
    """What should have become of every event and label, by log partition."""
    return [follow(log, run.claims, run.pipeline.labels) for log in run.log]


@pytest.fixture(scope="module")
def rows_x(run: Run) -> list[dict[str, Any]]:
    """The rows of P.examples as River wants them."""
    names = [column.name for column in features.columns(run.pipeline)]
    return dicts(run.pipeline, run.examples.matrix(), names)


@pytest.fixture(scope="module")
def learned_logistic(run: Run, rows_x: list[dict[str, Any]]) -> Learned:
    """River's logistic regression over P.examples."""
    lr = float(str(next(model.params["lr"] for model in run.pipeline.models if model.name == "logistic")))
    return drive(logistic(lr), run.examples, rows_x, first_answer=None)


@pytest.fixture(scope="module")
def learned_tree(run: Run, rows_x: list[dict[str, Any]]) -> Learned:
    """River's adaptive tree over the numbers of P.examples."""
    params = next(model.params for model in run.pipeline.models if model.name == "tree")
    assert params == {"seed": 7, "categories": "drop"}
    return drive(adaptive_tree(7), run.examples, without_categories(rows_x), first_answer=0.5)


# Features


def test_every_event_row_has_the_features_of_the_definition(run: Run, ledgers: list[Ledger]) -> None:
    names = [column.name for column in features.columns(run.pipeline)]
    for log, written, ledger in zip(run.log, run.features, ledgers, strict=True):
        events = [row for row in ledger.rows if row.kind == EVENT]
        rows = numbered(written)
        expected = vectors(run.pipeline, log, np.array([row.at for row in events]))

        assert list(expected.columns) == names
        assert _column(written, "number", rows) == [row.number for row in events] == list(range(len(events)))
        assert _column(written, "sequence", rows) == list(range(len(events)))
        assert _names(written, rows) == [row.name for row in events]
        assert _column(written, "time", rows) == [row.time for row in events]
        produced = log.numbers("produced")[[row.at for row in events]].tolist()
        assert _column(written, "produced", rows) == produced
        _assert_close(written.matrix()[rows], expected.to_numpy(), names)


def test_the_run_holds_what_windows_can_go_wrong_on(run: Run, ledgers: list[Ledger]) -> None:
    """Else the test above would prove little."""
    events = [np.array([row.at for row in ledger.rows if row.kind == EVENT]) for ledger in ledgers]
    found = np.array([late_events(run.pipeline, log, at_B) for log, at_B in zip(run.log, events, strict=True)])
    written = run.examples.matrix()

    assert (found.sum(axis=0) > (300, 200)).all(), f"out of order and older than a window: {found.sum(axis=0)}"
    assert np.isnan(written).any(axis=0).sum() >= 6
    assert (np.nanmax(written, axis=0) > np.nanmin(written, axis=0)).all()


def test_examples_hold_every_row_of_the_ledger_in_its_order_with_the_vector_of_its_event(
    run: Run, ledgers: list[Ledger]
) -> None:
    examples = run.examples
    source = examples.numbers("source")
    taken = numbered(examples)
    by_source = _sources_by_partition(run)
    assert set(source[taken].tolist()) == set(by_source.values())
    for partition, ledger in enumerate(ledgers):
        rows = taken[source[taken] == by_source[partition]]

        assert _column(examples, "sequence", rows) == list(range(len(ledger.rows)))
        for name in ("kind", "number", "time", "outcome"):
            assert _column(examples, name, rows) == [getattr(row, name) for row in ledger.rows], name
        assert _names(examples, rows) == [row.name for row in ledger.rows]
        np.testing.assert_array_equal(_column(examples, "label", rows), [row.label for row in ledger.rows])
        vector_of = run.features[partition].matrix()[numbered(run.features[partition])]
        expected = vector_of[[row.number for row in ledger.rows]]
        expected[[row.at < 0 for row in ledger.rows]] = np.nan
        np.testing.assert_array_equal(examples.matrix()[rows], expected)


# Completeness


def test_every_valid_flight_has_one_event_row_one_settled_outcome_and_one_prediction(run: Run) -> None:
    examples = run.examples.to_arrow().select(["kind", "id", "outcome"]).to_pandas().iloc[numbered(run.examples)]
    settled = examples[(examples.kind == LABEL) & examples.outcome.isin([SET, MISSING])]
    once = Counter(run.input.flights)

    assert FLIGHTS >= 50_000
    assert sum(once.values()) == FLIGHTS
    assert Counter(id_ for table in run.features for id_ in _column(table, "id", numbered(table))) == once
    assert Counter(examples.id[examples.kind == EVENT]) == once
    assert Counter(settled.id) == once
    assert Counter(answer["id"] for answers in run.predictions for answer in answers) == once


def test_no_row_is_unaccounted_for_and_the_accounts_say_what_the_reference_says(
    run: Run, ledgers: list[Ledger]
) -> None:
    counts = sum((ledger.counts for ledger in ledgers), Counter[str]())
    accounts, overview = run.overview.accounts, run.overview
    published = run.input.counts
    dead = published["broken"] + published["keyless"] + published["text"]

    assert overview.unaccounted == 0
    assert overview.repeats == 0
    for account, prefix in (("events", "event"), ("labels", "label")):
        assert accounts[account] == {state: counts[f"{prefix} {state}"] for state in accounts[account]}
    assert {name for name, count in counts.items() if count} >= {
        "event duplicate", "label joined", "label duplicate", "label unknown", "label too_late", "label amended",
        "label retracted",
    }  # fmt: skip
    assert accounts["rows"] == {"label_rows": FLIGHTS, "pending": 0}
    assert accounts["records:flights.departures"]["ignored"] == published["ignored"]
    assert accounts["records:flights.departures"]["dead"] == dead == len(run.letters)
    assert overview.dead_letters == {"malformed": published["broken"], "invalid": dead - published["broken"]}


# Learning


def test_every_loss_of_the_linear_model_is_rivers(run: Run, learned_logistic: Learned) -> None:
    _assert_losses(_blocks(run, "logistic"), learned_logistic)


def test_every_loss_of_a_river_candidate_is_rivers(run: Run, learned_tree: Learned) -> None:
    _assert_losses(_blocks(run, "tree"), learned_tree)


def test_metrics_are_those_of_rivers_predictions(run: Run, learned_logistic: Learned, learned_tree: Learned) -> None:
    """Since the start with the labels that events have in the end; rolling ones as they came."""
    lines = {line.name: line for line in run.overview.models}
    for name, learned in (("logistic", learned_logistic), ("tree", learned_tree)):
        losses = np.concatenate(list(learned.losses.values()))
        said, label = learned.final.T
        right, given = (said >= 0.5) == (label > 0.5), np.where(label > 0.5, said, 1.0 - said)
        recent = _recent_losses(learned)

        assert lines[name].learned == learned.labels.size == np.isfinite(losses).sum()
        assert lines[name].loss == pytest.approx(-np.log(np.clip(given, 0.001, 0.999)).mean(), abs=WITHIN)
        assert lines[name].rolling_loss == pytest.approx(recent.mean(), abs=WITHIN)
        assert lines[name].figures["accuracy"] == pytest.approx(right.mean(), abs=WITHIN)
        assert lines[name].figures["auc"] == pytest.approx(area_under_curve(said, label > 0.5), abs=2e-4)


def test_the_linear_model_predicts_what_river_predicts(run: Run, learned_logistic: Learned) -> None:
    """On every row; the learner is driven here, and the one after it shows that the role's ended the same."""
    learner, predicted = _replayed(run, "logistic")

    _assert_close(predicted, learned_logistic.predicted, ["probability"])
    for name, array in learner.state().items():
        np.testing.assert_array_equal(array, _final_state(run, "logistic")[name], err_msg=name)


def test_the_final_weights_are_rivers(run: Run, learned_logistic: Learned) -> None:
    ours = _final_state(run, "logistic")
    scaler, regression = learned_logistic.model["TransformerUnion"].transformers, learned_logistic.model[-1]
    statistics = next(step["StandardScaler"] for step in scaler.values() if "StandardScaler" in step.steps)
    numbers = [column.name for column in features.columns(run.pipeline) if not column.is_category]
    theirs = dict(regression.weights)
    table = ours["table"][ours["table"] != 0]

    np.testing.assert_array_equal(ours["seen"], [statistics.counts[name] for name in numbers])
    np.testing.assert_allclose(ours["mean"], [statistics.means[name] for name in numbers], rtol=WITHIN)
    np.testing.assert_allclose(ours["variance"], [statistics.vars[name] for name in numbers], rtol=WITHIN)
    np.testing.assert_allclose(ours["weight"], [theirs.pop(name, 0.0) for name in numbers], rtol=0, atol=WITHIN)
    np.testing.assert_allclose(np.sort(table), sorted(theirs.values()), rtol=0, atol=WITHIN)
    assert ours["shared"][0] == pytest.approx(regression.intercept, abs=WITHIN)


def test_the_final_river_candidate_is_rivers(run: Run, learned_tree: Learned, rows_x: list[dict[str, Any]]) -> None:
    learner = _new_learner(run, "tree")
    learner.restore(_final_state(run, "tree"))
    expected = [learned_tree.model.predict_proba_one(x).get(True, 0.0) for x in without_categories(rows_x[-2_000:])]

    _assert_close(learner.predict(run.examples.matrix()[-2_000:]), np.array(expected), ["probability"])


# Serving


def test_every_answer_is_what_the_version_it_names_gives_on_that_row(run: Run) -> None:
    vector_of = [table.matrix()[numbered(table)] for table in run.features]
    answers = pd.DataFrame([answer for answers in run.predictions for answer in answers])
    examples = answers.version.str.removeprefix("0.").astype(int)
    row_B = run.examples.numbers("kind") == LABEL
    learned_B = np.flatnonzero(row_B & np.isfinite(run.examples.numbers("label")) & (_outcome(run) <= MISSING))
    learner, seen = _new_learner(run, "logistic"), 0

    assert set(answers.model) == {"logistic"}
    for version in sorted(examples.unique()):
        rows = learned_B[seen:version]
        learner.learn(run.examples.matrix()[rows], run.examples.numbers("label")[rows])
        seen = version
        asked = answers[examples == version]
        vectors_BF = np.array([vector_of[p][n] for p, n in zip(asked.partition, asked.number, strict=True)])
        np.testing.assert_array_equal(asked.probability.to_numpy(), learner.predict(vectors_BF))
    assert (answers.prediction == (answers.probability >= 0.5)).all()


def test_answers_stand_in_the_order_of_the_features_under_their_names(run: Run) -> None:
    for partition, (answers, table) in enumerate(zip(run.predictions, run.features, strict=True)):
        rows = numbered(table)

        assert [(answer["id"], answer["key"]) for answer in answers] == _names(table, rows)
        assert [answer["time_us"] for answer in answers] == _column(table, "time", rows)
        assert [answer["number"] for answer in answers] == _column(table, "number", rows)
        assert {(answer["partition"], answer["generation"]) for answer in answers} == {(partition, 0)}
        versions = [int(answer["version"].removeprefix("0.")) for answer in answers]
        assert versions == sorted(versions)


def test_the_scores_of_what_was_served_are_those_of_the_answers(run: Run) -> None:
    """Each answer with its event's label; since the start by the newest label, rolling as labels came."""
    source_of, served = _sources_by_partition(run), run.overview.answers
    told = {(source_of[p], one["number"]): one["probability"] for p, some in enumerate(run.predictions) for one in some}
    rows = _settled_labels(run)
    newest = rows.drop_duplicates(["source", "number"], keep="last").dropna(subset="label")
    first = rows[rows.outcome <= MISSING].dropna(subset="label")
    losses = {name: _log_losses(told, some) for name, some in (("newest", newest), ("first", first))}
    said = newest.name.map(told).to_numpy()

    assert served is not None
    assert served.scored == len(newest) > 10_000
    assert served.figures["log_loss"] == pytest.approx(losses["newest"].mean(), abs=WITHIN)
    assert served.figures["accuracy"] == pytest.approx(((said >= 0.5) == (newest.label > 0.5)).mean(), abs=WITHIN)
    bound = served.figures["auc_error"] + WITHIN  # versions so stale are often quite certain: these scores are ties
    assert served.figures["auc"] == pytest.approx(area_under_curve(said, newest.label > 0.5), abs=bound)
    assert served.rolling_loss == pytest.approx(losses["first"][-10_000:].mean(), abs=WITHIN)


def test_the_cost_of_staleness_is_what_answers_lost_more_than_the_model_as_it_was_by_then(run: Run) -> None:
    """On all events of whole blocks; here all answers are the champion's."""
    source_of = _sources_by_partition(run)
    told = {(source_of[p], one["number"]): one["probability"] for p, some in enumerate(run.predictions) for one in some}
    own = {
        (block.source, BLOCK * block.block + at): loss
        for block in _blocks(run, "logistic")
        for at, loss in enumerate(block.values().tolist())
    }
    rows = _settled_labels(run)
    first = rows[(rows.outcome <= MISSING) & rows.name.isin(own.keys())].dropna(subset="label")
    difference = _log_losses(told, first).astype(np.float32).astype(float) - first.name.map(own).to_numpy()
    found = SnapshotStore(run.pipeline.state / "snapshots" / "learn.served" / "examples-p0").find()
    task = ServedTask(run.pipeline.task, ("logistic", "tree", "prior"), lambda _: (0, 0))
    task.restore(part_of(found.state or {}, "task."))
    cost = task.shadowing.cost.since_start()

    assert cost.events == difference.size > 10_000
    assert cost.cost == pytest.approx(difference.mean(), abs=1e-8)
    assert (difference != 0.0).any()
    assert task.repeats == task.unanswered == task.shadowing.uncompared == 0
    assert task.answers.given == {"logistic": FLIGHTS}


# Order


def test_no_label_is_learned_before_an_event_that_precedes_it_is_predicted(run: Run) -> None:
    assert _learned_too_early(run.examples, run.input.stragglers) == 0


def test_no_label_comes_before_an_event_that_precedes_it_in_a_partition_of_the_log(run: Run) -> None:
    assert [_learned_too_early(log, run.input.stragglers) for log in run.log] == [0] * run.pipeline.partitions


# Parts


def _learned_too_early(table: Table, stragglers: set[str]) -> int:
    """Count labels before an event of an earlier time; events published late or for the second time do not count."""
    kind, time_us, outcome = (table.numbers(name) for name in ("kind", "time", "outcome"))
    rows = table.to_arrow().select(["kind", "id"]).to_pandas()
    is_in_time = ~(rows.id.isin(stragglers) | rows.duplicated()).to_numpy()
    event_us = np.where((kind == EVENT) & is_in_time, time_us, np.iinfo(np.int64).max)
    earliest_to_come = np.minimum.accumulate(event_us[::-1])[::-1]
    is_label = (kind == LABEL) & (outcome == SET)
    assert is_label.sum() > 1_000
    return int((is_label & (earliest_to_come < time_us)).sum())


def _column(table: Table, name: str, rows: npt.NDArray[np.int64]) -> list[Any]:
    found: list[Any] = table.take(rows).to_arrow().column(name).to_pylist()
    return found


def _names(table: Table, rows: npt.NDArray[np.int64]) -> list[tuple[str, str]]:
    return list(zip(_column(table, "id", rows), _column(table, "key", rows), strict=True))


def _settled_labels(run: Run) -> pd.DataFrame:
    """The label rows of P.examples, in order, with their events' names."""
    names = ("kind", "source", "number", "label", "outcome")
    rows = pd.DataFrame({name: run.examples.numbers(name) for name in names})
    rows = rows[rows.kind == LABEL]
    return rows.assign(name=list(zip(rows.source.tolist(), rows.number.tolist(), strict=True)))


def _log_losses(told: dict[tuple[int, int], float], rows: pd.DataFrame) -> Floats:
    said = rows.name.map(told).to_numpy()
    given: Floats = np.where(rows.label > 0.5, said, 1.0 - said)
    losses: Floats = -np.log(np.clip(given, 0.001, 0.999))
    return losses


def _outcome(run: Run) -> npt.NDArray[np.int8]:
    found: npt.NDArray[np.int8] = run.examples.numbers("outcome")
    return found


def _sources_by_partition(run: Run) -> dict[int, int]:
    return {claim["partition"]: number for number, claim in run.claims.items() if claim["stream"] == "features"}


def _assert_close(found: Floats, expected: Floats, names: list[str]) -> None:
    """Equal within 1e-9, relative where numbers are large; missing where the other is missing."""
    assert found.shape == expected.shape
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    error = np.nan_to_num(np.abs(found - expected) / np.maximum(1.0, np.abs(expected))).reshape(len(found), -1)
    worst = dict(zip(names, error.max(axis=0).tolist(), strict=True))
    assert error.max() <= WITHIN, f"largest errors: {worst}"


def _blocks(run: Run, candidate: str) -> list[Block]:
    records = [record for record in run.scores if record["candidate"] == candidate]
    assert {(record["lineage"], record["generation"]) for record in records} == {(0, 0)}
    records = [record for record in records if record["order"] == "number"]
    blocks = [block for record in records for block in record["blocks"]]
    return [Block(**{**block, "losses": base64.b64decode(block["losses"])}) for block in blocks]


def _assert_losses(blocks: list[Block], learned: Learned) -> None:
    """Every block of every source, once and in order, float32 of the reference's losses."""
    for source, losses in learned.losses.items():
        mine = [block for block in blocks if block.source == source]
        expected = losses[: losses.size // BLOCK * BLOCK].astype(np.float32)

        assert [block.block for block in mine] == list(range(losses.size // BLOCK))
        found = np.concatenate([block.values() for block in mine])
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
        np.testing.assert_array_max_ulp(found[~np.isnan(found)], expected[~np.isnan(expected)], maxulp=1)
        assert [block.n for block in mine] == np.isfinite(expected).reshape(-1, BLOCK).sum(axis=1).tolist()
    assert {block.source for block in blocks} == set(learned.losses)


def _recent_losses(learned: Learned) -> Floats:
    given = np.where(learned.labels, learned.scored, 1 - learned.scored)[-10_000:]
    recent: Floats = -np.log(np.clip(given, 0.001, 0.999))
    return recent


def _new_learner(run: Run, candidate: str) -> Learner:
    model = next(model for model in run.pipeline.models if model.name == candidate)
    return make_learner(model, features.columns(run.pipeline), model_key(run.pipeline.state))


def _replayed(run: Run, candidate: str) -> tuple[Learner, Floats]:
    """Drive the product's learner over P.examples in one call."""
    kind, label = run.examples.numbers("kind"), run.examples.numbers("label")
    is_learned = (kind == LABEL) & ~np.isin(_outcome(run), [AMENDED, RETRACTED])
    action = np.where(kind == EVENT, PREDICT, np.where(is_learned, LEARN, SKIP)).astype(np.int8)
    learner = _new_learner(run, candidate)
    return learner, learner.step(run.examples.matrix(), label, action)[kind == EVENT]


def _final_state(run: Run, candidate: str) -> State:
    """Read the learner from the snapshot that the role wrote when it was stopped."""
    found = SnapshotStore(run.pipeline.state / "snapshots" / f"learn.{candidate}" / "examples-p0").find()
    assert found.state is not None
    prefix = "task.learner."
    return {name.removeprefix(prefix): array for name, array in found.state.items() if name.startswith(prefix)}
