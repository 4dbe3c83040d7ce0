"""Real flights for months, or the year: candidates are trained by themselves again and again, beside online ones.

The input comes in stretches, each a little longer than `every`; the next one waits until the training that became due
is over. So the versions do not depend on how fast the machine is, but nothing else is done by hand.
"""

from __future__ import annotations

import base64
import itertools
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from models.learner import make_learner
from models.registry import read_version
from models.sealed import key_for
from models.version import Version, decode_record
from serving.brokers import raw_partitions
from serving.flights import read_flights
from serving.overview import Overview
from serving.publish import Publisher, RawRecord
from serving.system import System
from streams import features, frames
from streams.durations import DAY_US
from streams.frames import EVENT, LABEL, MISSING, SET, VERSION
from streams.kafka import KafkaOutbox
from streams.pipeline import Pipeline
from streams.state_folder import state_of
from streams.tables import Table
from tests.system.flights_run import EXAMPLE, json_of, numbered, table_of
from tests.system.reference_learning import loss

BATCH = ("net", "trees")
ONE_IN = 4  # aircraft: 200 flights a day, each with all features of its own aircraft
BLOCK = 100
MARGIN_US = 2 * DAY_US  # until the day of the row that made a training due is archived
WAIT_S = 1_200.0  # for one training of each candidate: 10 s on a quiet machine, in much more beside other tests
MODELS = """[models.net]
kind = "torch:mlp"
hidden = [16]
bits = 6
batch = 64
lr = 0.01
epochs = 4
retrain = { every = "EVERY" }

[models.trees]
kind = "sklearn:ensemble.HistGradientBoostingClassifier"
max_iter = 30
retrain = { every = "EVERY" }

"""


class Span(NamedTuple):
    """How long it runs, and how often it trains."""

    days: int
    every: int


class Run(NamedTuple):
    """What was written, and the last look."""

    pipeline: Pipeline
    span: Span
    overview: Overview
    examples: Table
    scores: list[dict[str, Any]]
    decisions: list[dict[str, Any]]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(Span(77, 21), id="months", marks=pytest.mark.chaos),
        pytest.param(Span(365, 65), id="a year", marks=pytest.mark.chaos),  # no training is due near the end
    ],
)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Let the pipeline of the example, with two candidates that are trained in batches, live through its time."""
    span: Span = request.param
    file = write_file(tmp_path_factory.mktemp("year"), span)
    with System(file, is_embedded=True, is_replay=True, most_restarts=0) as system:
        overview = live(system, span)
        pipeline = system.pipeline
        schema = frames.examples_schema(features.columns(pipeline))
        return Run(
            pipeline,
            span,
            overview,
            table_of(pipeline, "examples", 0, schema),
            json_of(pipeline, "scores", 0),
            json_of(pipeline, "decisions", 0),
        )


def write_file(state: Path, span: Span) -> Path:
    text = re.sub(r'^state = ".*"', 'state = "."', EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    text = re.sub(r"^\[models\.(tree|bayes|net)\]\n(.+\n)*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^redis = .*\n", "", text, flags=re.MULTILINE)
    file = state / "flights.toml"
    file.write_text(
        text.replace("[serve]\n", MODELS.replace("EVERY", f"{span.every}d") + "[serve]\n"), encoding="utf-8"
    )
    return file


def live(system: System, span: Span) -> Overview:
    """Publish stretch after stretch, wait for what each makes due, and for the end."""
    pipeline = system.pipeline
    outbox = KafkaOutbox(pipeline.kafka)
    publisher = Publisher(pipeline, outbox, raw_partitions(pipeline), has_marks=False)
    rows = list(records(span))
    start_us = rows[0].time_us
    lengths_us = [(lap * span.every) * DAY_US + lap * MARGIN_US for lap in range(1, span.days // span.every + 1)]
    for lap, part in itertools.groupby(rows, lambda row: np.searchsorted(lengths_us, row.time_us - start_us, "right")):
        publisher.publish(part, system.tend)
        if lap < len(lengths_us) and start_us + lengths_us[lap] <= rows[-1].time_us:
            publisher.mark(str(start_us + lengths_us[lap] - 1))
            outbox.flush()
            wait(system, partial(has_trained, pipeline, int(lap) + 1))
    publisher.mark("end")
    outbox.close()
    wait(system, lambda: system.look().has_ended)
    return system.look()


def records(span: Span) -> Iterator[RawRecord]:
    """Give the flights of some aircraft, in the order of time."""
    flights = read_flights()
    tails = sorted({record.key for record in flights.records() if record.key})[::ONE_IN]
    kept, start_us = frozenset(tails), int(flights.departed_us[0])
    found = (record for record in flights.records() if record.key in kept)
    return itertools.takewhile(lambda record: record.time_us < start_us + span.days * DAY_US, found)


def has_trained(pipeline: Pipeline, count: int) -> bool:
    decisions = json_of(pipeline, "decisions", 0)
    assert not [one for one in decisions if one["decision"] == "training failed"], decisions[-1]
    return all(len(trained(decisions, name)) >= count for name in BATCH)


def trained(decisions: list[dict[str, Any]], candidate: str) -> list[dict[str, Any]]:
    return [one for one in decisions if (one["decision"], one.get("candidate")) == ("trained", candidate)]


def wait(system: System, is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, f"not within {WAIT_S:.0f} s: {system.look()}"
        system.tend()
        time.sleep(0.3)


def versions_of(run: Run, candidate: str) -> dict[int, Version]:
    """Give the versions that rows of P.examples announce, by the row."""
    rows = run.examples.to_arrow()
    kinds, ids, keys = (rows.column(name).to_pylist() for name in ("kind", "id", "key"))
    places = [at for at, kind in enumerate(kinds) if kind == VERSION and ids[at] == candidate]
    return {at: decode_record(keys[at].encode()) for at in places}


class Judged(NamedTuple):
    """An event's loss, NaN where it has no label; the lineage that predicted it; the row that settled it."""

    loss: float
    lineage: int
    row: int


def judged(run: Run, candidate: str) -> dict[int, list[Judged]]:
    """Ask the trained files themselves: each event by the version whose row was the last before it; by source."""
    answers, lineages = answers_of(run, candidate)
    names = ("kind", "source", "number", "label", "outcome")
    is_taken = np.isin(np.arange(run.examples.num_rows), numbered(run.examples)).tolist()
    pending: dict[tuple[int, int], int] = {}
    found: dict[int, dict[int, Judged]] = {}
    rows = zip(*(run.examples.numbers(name).tolist() for name in names), strict=True)
    for at, (kind, source, number, label, outcome) in enumerate(rows):
        if is_taken[at] and kind == EVENT:
            pending[source, number] = at
        elif is_taken[at] and kind == LABEL and outcome in (SET, MISSING):
            event = pending.pop((source, number))
            value = np.nan if np.isnan(label) else loss(answers[event], is_positive=label > 0.5)
            found.setdefault(source, {})[number] = Judged(value, lineages[event], at)
    return {source: [by_number[number] for number in range(len(by_number))] for source, by_number in found.items()}


def answers_of(run: Run, candidate: str) -> tuple[list[float], list[int]]:
    """Give what each row is answered, and by which lineage."""
    model = next(one for one in run.pipeline.models if one.name == candidate)
    state, columns = state_of(run.pipeline), features.columns(run.pipeline)
    versions, key = versions_of(run, candidate), key_for(model.kind, state)
    X_BF, answers, lineages = run.examples.matrix(), list[float](), list[int]()
    for start, stop in itertools.pairwise([0, *versions, len(X_BF)]):
        is_first = start not in versions
        learner = make_learner(model, columns, key) if is_first else read_version(state, versions[start], key)
        answers += learner.predict(np.ascontiguousarray(X_BF[start:stop])).tolist()
        lineages += [0 if is_first else versions[start].lineage] * (stop - start)
    return answers, lineages


def blocks_of(run: Run, candidate: str, events: list[Judged]) -> Iterator[tuple[int, int, list[float]]]:
    """Give (lineage, block, losses) of one source: those that one lineage predicted, and that were settled under it."""
    ends = [*versions_of(run, candidate), run.examples.num_rows]
    for number in range(len(events) // BLOCK):
        some = events[number * BLOCK : (number + 1) * BLOCK]
        lineage = some[0].lineage
        if {one.lineage for one in some} == {lineage} and max(one.row for one in some) < ends[lineage]:
            yield lineage, number, [one.loss for one in some]


@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("candidate", BATCH)
def test_it_is_trained_again_and_again_each_time_from_what_was_there_before(run: Run, candidate: str) -> None:
    versions = list(versions_of(run, candidate).values())
    told = trained(run.decisions, candidate)
    due_us = [version.training.to_us for version in versions if version.training is not None]

    assert [version.lineage for version in versions] == list(range(1, run.span.days // run.span.every + 1))
    assert len(versions) >= 3
    assert [(one["lineage"], one["examples"]) for one in told] == [version.order for version in versions]
    assert {one["reason"] for one in told} == {"every"}
    assert all((one["test"]["auc"] or 0.0) > 0.8 for one in told)
    assert all(later - earlier > (run.span.every - 1) * DAY_US for earlier, later in itertools.pairwise(due_us))


@pytest.mark.timeout(3_000)
def test_a_network_begins_with_the_weights_of_the_version_before(run: Run) -> None:
    versions = list(versions_of(run, "net").values())
    notes = [" ".join(version.training.notes) for version in versions if version.training is not None]

    assert "began" not in notes[0]
    for before, note in itertools.pairwise([versions[0].name, *notes[1:]]):
        assert "began with the weights of net@" in note, before
    assert f"of {versions[0].name}" in notes[1]


@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("candidate", BATCH)
def test_scores_are_those_of_the_version_whose_row_was_the_last_before_the_event(run: Run, candidate: str) -> None:
    """What a version before has predicted is no evidence for the next one, and blocks that two share are left out."""
    sources = judged(run, candidate)
    records = [one for one in run.scores if one["candidate"] == candidate and one["order"] == "number"]
    lineages = [record["lineage"] for record in records]
    found = [(record["lineage"], block) for record in records for block in record["blocks"]]
    total = 0

    assert lineages == sorted(lineages)
    for source, events in sources.items():
        mine = [(lineage, block) for lineage, block in found if block["source"] == source]
        expected = list(blocks_of(run, candidate, events))
        values = np.array([np.frombuffer(base64.b64decode(block["losses"]), "<f4") for _, block in mine])
        wanted = np.array([losses for _, _, losses in expected], np.float32)
        total += len(mine)

        assert [(lineage, block["block"]) for lineage, block in mine] == [one[:2] for one in expected]
        np.testing.assert_array_equal(np.isnan(values), np.isnan(wanted))
        np.testing.assert_array_max_ulp(np.nan_to_num(values), np.nan_to_num(wanted), maxulp=1)
    assert total == len(found)
    assert set(lineages) == {0, *(version.lineage for version in versions_of(run, candidate).values())}


@pytest.mark.timeout(3_000)
def test_online_and_batch_candidates_stand_in_one_league(run: Run) -> None:
    """All judged by the same labels, the batch ones by those of their untrained time, too."""
    lines = {line.name: line for line in run.overview.models}
    for candidate in BATCH:
        losses = [one.loss for events in judged(run, candidate).values() for one in events]
        known = [value for value in losses if not np.isnan(value)]

        assert lines[candidate].loss == pytest.approx(np.mean(known), rel=1e-9)
    assert set(lines) == {"logistic", "prior", *BATCH}
    assert all(line.figures["auc"] > 0.6 for name, line in lines.items() if name != "prior")
    assert all(not line.is_quarantined for line in lines.values())
    assert run.overview.unaccounted == 0
