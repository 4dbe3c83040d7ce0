"""Features of several entities on real Kafka: real flights through five stages, each a process, equal to a reference.

Every stage is followed in the order in which Kafka has its rows; the reference (tests/chain_reference.py) takes its own
rows in that order, so that an error in one stage cannot hide in the next.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from serving.overview import Overview
from serving.system import System
from streams import features, frames
from streams.frames import EVENT, MARK
from streams.pipeline import Pipeline
from streams.stages import stage_specs
from streams.tables import Table
from tests import chain_reference as reference
from tests.aggregate_reference import Row
from tests.chaining import NAMES, assert_same_rows, schema_of
from tests.system.flights_run import EXAMPLE, claims_of, json_of, make_input, numbered, publish_to_the_end, table_of
from tests.system.reference_ledger import Clocks

FLIGHTS = 1_500  # the reference is quadratic in the flights of an airport
FEATURES = """[features]
delay_of_origin = { mean = "dep_delay", by = "origin", window = "2h" }
late_of_carrier = { rate = "label", by = "carrier", window = "30d" }
late_of_carrier_later = { rate = "label", by = "carrier", window = "30d", delay = "6h" }
flights_of_route = { count = "*", by = ["origin", "dest"], window = "1d" }
since_of_route = { elapsed = "*", by = ["dest", "origin"] }
excess = { difference = ["dep_delay", "delay_of_origin"] }
flights_of_tail = { count = "*", by = "tail", window = "1d" }
late_of_tail = { count = "label", by = "tail", window = "30d" }
share = { ratio = ["flights_of_tail", "flights_of_route"] }
hour = { cyclic = "hour" }
"""
pytestmark = pytest.mark.timeout(600)  # the first test waits for the whole run
Way = tuple[int, int]  # the writer's partition, and the one written to


class Run(NamedTuple):
    """The topics as written; `between` by stage and partition, the log first."""

    pipeline: Pipeline
    flights: set[str]
    claims: dict[int, dict[str, Any]]
    between: list[list[Table]]
    features: list[Table]
    examples: Table
    answers: list[dict[str, Any]]
    overview: Overview


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that all tests look at."""
    state = tmp_path_factory.mktemp("chain")
    records, published = make_input(FLIGHTS)
    with System(_write(state), is_embedded=True, is_replay=True, most_restarts=0) as system:
        overview, of = publish_to_the_end(system, records), system.pipeline
        columns, partitions = features.columns(of), range(of.partitions)
        names = [spec.reads for spec in stage_specs(of)]
        return Run(
            of,
            published.flights,
            claims_of(of),
            [[table_of(of, name, p, schema_of(of, at)) for p in partitions] for at, name in enumerate(names)],
            [table_of(of, "features", p, frames.features_schema(columns)) for p in partitions],
            table_of(of, "examples", 0, frames.examples_schema(columns)),
            [answer for p in partitions for answer in json_of(of, "predictions", p)],
            overview,
        )


def _write(state: Path) -> Path:
    """Give the demo's pipeline other features, three partitions, and only fast candidates."""
    text = re.sub(r'^state = ".*"', 'state = "."', EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    text = re.sub(r"^partitions = 4", "partitions = 3", text, flags=re.MULTILINE)
    text = re.sub(r"^\[features\]\n(.+\n)*", FEATURES, text, flags=re.MULTILINE)
    text = re.sub(r"^\[models\.(tree|bayes|net)\]\n(.+\n)*", "", text, flags=re.MULTILINE)
    text = re.sub(r"^\[archive\].*\n", "", text, flags=re.MULTILINE)
    file = state / "flights.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_every_stage_writes_what_the_reference_says(run: Run) -> None:
    of = by_key(run.pipeline)
    sent: dict[Way, list[Row]] = {}
    for spec, stages in zip(stage_specs(run.pipeline), reference.stages(of), strict=True):
        arriving, sent = sent, defaultdict(list)
        for partition, (stage, written) in enumerate(zip(stages, run.between[spec.number - 1], strict=True)):
            if spec.number == 1:
                rows = log_rows(written, run.claims)
            else:
                rows = _arrived(run, of, spec.number, partition, arriving)
            for row, label_clock, clock in rows:
                for made in stage.take(row, label_clock, clock):
                    sent[partition, stage.target(made)].append(made)
    rows = run.examples.take(numbered(run.examples)).to_arrow().to_pylist()
    assert len(rows) == sum(map(len, sent.values()))
    for (partition, _), expected in sent.items():
        mine = [row for row in rows if _writer(run, row) == partition]
        assert [row["sequence"] for row in mine] == list(range(len(mine)))
        assert_same_rows(of, len(run.between), mine, expected)
        vectors = run.features[partition].take(numbered(run.features[partition])).to_arrow().to_pylist()
        events = [row for row in mine if row["kind"] == EVENT]
        assert [repr(row["vector"]) for row in vectors] == [repr(row["vector"]) for row in events]
        assert [row["number"] for row in vectors] == list(range(len(events)))


def test_every_flight_is_answered_and_settled_once(run: Run) -> None:
    """Through all stages, and the accounts of the first and of the last hold."""
    rows = run.examples.take(numbered(run.examples)).to_arrow().to_pylist()

    assert len(run.flights) == FLIGHTS
    assert Counter(row["id"] for row in rows if row["kind"] == EVENT) == Counter(run.flights)
    assert Counter(row["id"] for row in rows if row["outcome"] in (0, 1)) == Counter(run.flights)
    assert Counter(answer["id"] for answer in run.answers) == Counter(run.flights)
    assert run.overview.unaccounted == 0
    assert run.overview.accounts["rows"] == {"label_rows": FLIGHTS, "pending": 0}
    assert run.overview.accounts["events"]["settled"] == FLIGHTS


def test_the_run_holds_what_a_chain_can_go_wrong_on(run: Run) -> None:
    """Else the tests above would prove little: every column has values, and rows of every kind went every way."""
    rows = run.examples.take(numbered(run.examples)).to_arrow().to_pylist()
    known = [sum(row["vector"][at] == row["vector"][at] for row in rows) for at in range(len(rows[0]["vector"]))]

    assert min(known) > 100
    assert Counter(row["outcome"] for row in rows).keys() == {-1, 0, 1, 2, 3}
    assert all(table.num_rows > 100 for tables in run.between for table in tables)
    assert len({process.name for process in run.overview.processes if process.name.startswith("features")}) == 5


def by_key(pipeline: Pipeline) -> Pipeline:
    """Name the key as the reference does."""
    own = tuple(msgspec.structs.replace(f, by="key" if f.by == "tail" else f.by) for f in pipeline.features)
    return msgspec.structs.replace(pipeline, features=own)


def log_rows(log: Table, claims: dict[int, dict[str, Any]]) -> list[tuple[Row, int, int]]:
    """The rows of a log partition that a reader takes, with the clocks after each."""
    clocks, taken, found = Clocks(claims), set(numbered(log).tolist()), []
    for at, row in enumerate(log.to_arrow().to_pylist()):
        if row["kind"] == MARK:
            clocks.hear(row["source"], row["time"])
        elif at not in taken:
            continue
        kind = "mark" if row["kind"] == MARK else NAMES[row["kind"]]
        label_clock, clock = (int(max(one, -(2**63))) for one in (clocks.label_clock(), clocks.clock()))
        found.append(({**row, "kind": kind}, label_clock, clock))
    return found


def _arrived(
    run: Run, of: Pipeline, number: int, partition: int, arriving: dict[Way, list[Row]]
) -> list[tuple[Row, int, int]]:
    """The reference's rows in the order that Kafka has them in; those that were written must be equal to them."""
    table = run.between[number - 1][partition]
    written = table.take(numbered(table)).to_arrow().to_pylist()
    expected = [arriving[_writer(run, row), partition][row["sequence"]] for row in written]
    assert len(written) == sum(len(rows) for (_, target), rows in arriving.items() if target == partition)
    assert_same_rows(of, number - 1, written, expected)
    return [(row, 0, 0) for row in expected]


def _writer(run: Run, row: Row) -> int:
    """Which partition a row's source stands for."""
    partition: int = run.claims[row["source"]]["partition"]
    return partition
