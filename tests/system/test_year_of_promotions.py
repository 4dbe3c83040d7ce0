"""The year of real flights with candidates that are best at different times: who answers changes by itself.

`bayes` is the pipeline file's champion and honest all year. `early` is a logistic regression that is turned round in
June, `late` is one that is half-hearted until it is repaired in September. All by the number of labels learned, so that
a replay changes at the same row. Nobody decides anything by hand.

The year comes in stretches of three days; each waits until the selector has weighed the one before. So a decision
is in effect within some days of the year, however busy the machine is.
"""

from __future__ import annotations

import itertools
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from consumers.score_records import ScoresRecord, decode_scores
from consumers.standings import read_standings
from serving.brokers import raw_partitions
from serving.flights import read_flights
from serving.publish import Publisher
from serving.system import System
from streams import features, frames
from streams.durations import DAY_US
from streams.frames import EVENT, LABEL, SET
from streams.kafka import KafkaOutbox, read_all
from streams.pipeline import Pipeline
from streams.reign import Promoted
from streams.state_folder import state_of
from streams.tables import Table
from tests.selecting import Log, Selector
from tests.system.flights_run import EXAMPLE, claims_of, json_of, numbered, table_of
from tests.system.reference_learning import loss
from tests.system.test_year_of_retraining import wait

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
STRETCH_US = 3 * DAY_US
SETTLED_US = 3 * DAY_US  # a label comes within 36 h, and a block takes half a day
FIRST = 6_000  # departures before which there may be no loss to weigh
BLOCK = 100
SWITCH_US = 30 * DAY_US  # long enough for every partition to have switched, too short for another reign
QUARTERS = ("2013-01", "2013-04", "2013-07", "2013-10")
CANDIDATES = ("bayes", "early", "late", "prior")
MODELS = """[models.bayes]
kind = "naive_bayes"

[models.early]
kind = "tests.changing_learners:Changing"
sound_to = 150_000

[models.late]
kind = "tests.changing_learners:Changing"
sound_from = 230_000

[models.prior]
kind = "prior"

[select]
max_age = "60d"
span = "7d"

[serve]
champion = "bayes"
"""
Floats = npt.NDArray[np.float64]
Name = tuple[int, int]  # of an event: source and number


class Year(NamedTuple):
    """What was written, and of each event that all have a loss for, [E] in the order of time: what it cost whom."""

    pipeline: Pipeline
    examples: Table
    scores: list[ScoresRecord]
    decisions: list[bytes]
    answered: list[dict[str, Any]]
    departed_us: npt.NDArray[np.int64]
    losses: dict[str, Floats]  # of each candidate, and "served"


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Year:
    """Let the year go by, and read what was written."""
    file = write_file(tmp_path_factory.mktemp("promotions"))
    with System(file, is_embedded=True, is_replay=True, most_restarts=0) as system:
        live(system)
        return read_year(system.pipeline)


def write_file(folder: Path) -> Path:
    text = re.sub(r'^state = ".*"', 'state = "."', EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    head, _, _ = text.partition("[models.logistic]")
    file = folder / "flights.toml"
    file.write_text(head + MODELS, encoding="utf-8")
    return file


def live(system: System) -> None:
    """Publish stretch after stretch; the next one waits until the selector has weighed the one before."""
    pipeline = system.pipeline
    outbox = KafkaOutbox(pipeline.kafka)
    publisher = Publisher(pipeline, outbox, raw_partitions(pipeline))
    for _, part in itertools.groupby(read_flights().records(), lambda record: record.time_us // STRETCH_US):
        records = list(part)
        publisher.publish(records, system.tend)
        publisher.mark(str(records[-1].time_us - 1))
        outbox.flush()
        if publisher.events > FIRST:
            wait(system, partial(has_come, pipeline, records[-1].time_us - SETTLED_US))
    publisher.mark("end")
    outbox.close()
    wait(system, lambda: system.look().has_ended)
    wait(system, lambda: has_weighed(pipeline))


def has_come(pipeline: Pipeline, time_us: int) -> bool:
    """Whether the selector has weighed losses of that time."""
    found = read_standings(state_of(pipeline))
    return found is not None and found.time_us >= time_us


def has_weighed(pipeline: Pipeline) -> bool:
    """Whether the selector has come to the last block."""
    blocks = [block for one in scores_of(pipeline) if one.order == "number" for block in one.blocks]
    return has_come(pipeline, max(block.last_time_us for block in blocks))


def scores_of(pipeline: Pipeline) -> list[ScoresRecord]:
    records = read_all(pipeline.kafka, f"{pipeline.name}.scores", 0)
    return [decode_scores(message.value() or b"") for message in records]


def read_year(pipeline: Pipeline) -> Year:
    """Read what was written, and put what was served beside what each candidate would have said to the same events."""
    scores, outcomes = scores_of(pipeline), read_flights().outcomes()
    answered = [one for partition in range(pipeline.partitions) for one in json_of(pipeline, "predictions", partition)]
    shadow = {name: losses_of(scores, name) for name in CANDIDATES}
    common = frozenset.intersection(*(frozenset(found) for found in shadow.values()))
    found = claims_of(pipeline).items()
    source_of = {claim["partition"]: number for number, claim in found if claim["stream"] == "features"}
    told = sorted(
        (one["time_us"], name, loss(one["probability"], is_positive=outcomes[one["id"]]))
        for one in answered
        if (name := (source_of[one["partition"]], one["number"])) in common
    )
    losses = {name: np.array([shadow[name][event] for _, event, _ in told]) for name in CANDIDATES}
    losses["served"] = np.array([served for *_, served in told])
    decisions = [message.value() or b"" for message in read_all(pipeline.kafka, f"{pipeline.name}.decisions", 0)]
    examples = table_of(pipeline, "examples", 0, frames.examples_schema(features.columns(pipeline)))
    times_us = np.array([time_us for time_us, *_ in told], np.int64)
    return Year(pipeline, examples, scores, decisions, answered, times_us, losses)


def losses_of(scores: list[ScoresRecord], candidate: str) -> dict[Name, float]:
    """Give the losses of a candidate's own predictions, as its blocks have them."""
    blocks = [block for one in scores if (one.candidate, one.order) == (candidate, "number") for block in one.blocks]
    return {
        (block.source, block.block * BLOCK + at): value
        for block in blocks
        for at, value in enumerate(block.values().tolist())
        if not np.isnan(value)
    }


def promotions_of(year: Year) -> list[Promoted]:
    log = Log()
    log.values = year.decisions
    return log.promotions()


def by_quarter(year: Year, name: str) -> list[float]:
    """Give the mean loss of the year and of each quarter."""
    starts = np.array(QUARTERS, "datetime64[us]").astype(np.int64)[1:]
    parts = np.split(year.losses[name], np.searchsorted(year.departed_us, starts))
    return [float(part.mean()) for part in (year.losses[name], *parts)]


def departures_until_effect(year: Year, decision: Promoted, before: str) -> int:
    """Count what the one before still answered, of the events after the last loss that was weighed."""
    later = [one for one in year.answered if one["time_us"] > decision.after_us]
    first_us = min(one["time_us"] for one in later if one["model"] == decision.candidate)
    return sum(one["model"] == before for one in later if one["time_us"] < first_us + SWITCH_US)


def table(year: Year) -> str:
    """Give the numbers of the year as docs/selecting.md has them."""
    lines = ["| answers all year | year | Jan-Mar | Apr-Jun | Jul-Sep | Oct-Dec |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {name} | " + " | ".join(f"{value:.4f}" for value in by_quarter(year, name)) + " |"
        for name in (*CANDIDATES, "served")
    ]
    lines += ["", "| weighed up to | champion | why | departures until it answers |", "|---|---|---|---|"]
    before = "bayes"
    for one in promotions_of(year):
        when = np.datetime64(one.after_us, "us").astype("datetime64[D]")
        late = departures_until_effect(year, one, before)
        lines.append(f"| {when} | {one.candidate} | {one.why} | {late:,} |")
        before = one.candidate
    return "\n".join(lines)


def test_every_departure_is_answered_once(year: Year) -> None:
    """And nearly all of them are in whole blocks, with a label, of every candidate."""
    ids = {one["id"] for one in year.answered}

    assert len(year.answered) == len(ids) == len(read_flights())
    assert len(year.departed_us) > 0.99 * len(ids)


def test_who_is_best_takes_over_and_who_breaks_is_taken_back_at_once(year: Year) -> None:
    """Nobody wrote a decision: the reasons are evidence and the guard."""
    decisions = promotions_of(year)

    assert [(one.candidate, one.why) for one in decisions] == [
        ("early", "evidence"),
        ("bayes", "guard"),
        ("late", "evidence"),
    ]
    assert {one["model"] for one in year.answered} == {"bayes", "early", "late"}


def test_what_was_served_beats_every_choice_made_at_the_start(year: Year) -> None:
    served = year.losses["served"].mean()
    sys.stdout.write(f"{table(year)}\n")

    assert served < min(year.losses[name].mean() for name in CANDIDATES)


def test_the_decisions_are_those_of_a_selector_that_reads_the_scores_alone(year: Year) -> None:
    """One thread, no Kafka, no clock: the same candidates, reasons and bits, behind the same block."""
    settings = year.pipeline.select
    assert settings is not None
    alone = Selector(Log(), settings, CANDIDATES, champion="bayes")
    alone.read(year.scores, 0, len(year.scores))
    made, wanted = promotions_of(year), alone.log.promotions()

    assert [shared(one) for one in made] == [shared(one) for one in wanted]


def shared(decision: Promoted) -> Promoted:
    """Give a decision without its name, whom it follows by name, and its clock."""
    return msgspec.structs.replace(decision, id="", follows="", time_us=0)


def test_losses_in_blocks_are_those_that_the_examples_give(year: Year) -> None:
    """Recomputed for `prior` by counting the labels of P.examples, row by row."""
    found, expected = losses_of(year.scores, "prior"), prior_losses(year.examples)

    assert len(found) > 0.99 * len(expected)
    assert np.array([expected[name] for name in found]) == pytest.approx(np.array([*found.values()]), rel=1e-6)


def prior_losses(examples: Table) -> dict[Name, float]:
    """Say the share of late flights known so far, and give what that costs."""
    columns = ("kind", "source", "number", "label", "outcome")
    taken = numbered(examples)
    late, known = 0, 0
    said, losses = dict[Name, float](), dict[Name, float]()
    for kind, source, number, label, outcome in zip(
        *(examples.numbers(c)[taken].tolist() for c in columns), strict=True
    ):
        if kind == EVENT:
            said[source, number] = (late + 1) / (known + 2)
        elif kind == LABEL and outcome == SET:
            losses[source, number] = loss(said.pop((source, number)), is_positive=label > 0.5)
            late, known = late + (label > 0.5), known + 1
    return losses
