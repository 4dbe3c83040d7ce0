"""One run of the whole system over real flights, in replay: real Kafka, real role processes, and what they wrote.

The input is the first flights of 2013 with everything added that a ledger and windows can go wrong on: departures and
landings told twice, labels that are corrected, taken back, early, too late or of unknown flights, departures that come
late (out of order), missing values, records to ignore and records that cannot be read.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from serving.brokers import raw_partitions
from serving.flights import read_flights
from serving.overview import Overview
from serving.publish import Publisher, RawRecord
from serving.system import System
from streams import features, frames
from streams.frames import MARK, FrameSchema
from streams.kafka import KafkaOutbox, read_all
from streams.pipeline import Pipeline
from streams.tables import Table, join

FLIGHTS = 52_000
END_WAIT_S = 450.0  # 30 s with warm kernels, minutes on a busy machine that compiles them first
HOUR_US = 3_600_000_000
EXAMPLE = Path(__file__).parents[2] / "examples" / "flights.toml"
MORE_FEATURES = """[features]
flights_2h = { count = "*", by = "tail", window = "2h" }
delays_known_1d = { count = "dep_delay", by = "tail", window = "1d" }
dep_delay_2h = { sum = "dep_delay", by = "tail", window = "2h" }
dep_delay_mean_2h = { mean = "dep_delay", by = "tail", window = "2h" }
season = { cyclic = "month" }
"""


class Input(NamedTuple):
    """What was published, by what should become of it."""

    flights: set[str]
    stragglers: set[str]  # flights whose departure was published after later ones
    counts: Counter[str]  # records by their disturbance


class Run(NamedTuple):
    """The topics as written, and the last look at the metrics. Lists are by partition."""

    pipeline: Pipeline
    input: Input
    claims: dict[int, dict[str, Any]]  # source number -> claim
    log: list[Table]
    features: list[Table]
    examples: Table
    scores: list[dict[str, Any]]
    predictions: list[list[dict[str, Any]]]
    letters: list[dict[str, Any]]
    overview: Overview


def write_file(state: Path) -> Path:
    """Copy the demo's pipeline with more features without its slowest candidate and what is trained in batches."""
    text = re.sub(r'^state = ".*"', 'state = "."', EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    text = text.replace("[features]\n", MORE_FEATURES)
    text = re.sub(r"^\[models\.(bayes|net)\]\n(.+\n)*", "", text, flags=re.MULTILINE)
    text = re.sub(r"^\[archive\].*\n", "", text, flags=re.MULTILINE)
    text = text.replace("seed = 7\n", 'seed = 7\ncategories = "drop"\n')  # the reference is a tree of numbers
    file = state / "flights.toml"
    file.write_text(text, encoding="utf-8")
    return file


def run_system(state: Path) -> Run:
    """Publish the flights, wait until serve and every candidate have taken the end, and read what was written."""
    file = write_file(state)
    records, published = make_input()
    with System(file, is_embedded=True, is_replay=True, most_restarts=0) as system:
        return _read(system.pipeline, published, publish_to_the_end(system, records))


def publish_to_the_end(system: System, records: Iterator[RawRecord]) -> Overview:
    """Publish everything, and wait until every role has taken it."""
    outbox = KafkaOutbox(system.pipeline.kafka)
    publisher = Publisher(system.pipeline, outbox, raw_partitions(system.pipeline), has_marks=True)
    publisher.publish(records, system.tend)
    outbox.close()
    deadline = time.monotonic() + END_WAIT_S
    while not (overview := system.look()).has_ended:
        assert time.monotonic() < deadline, f"not at the end after {END_WAIT_S:.0f} s: {overview}"
        system.tend()
        time.sleep(0.2)
    return overview


def make_input(count: int = FLIGHTS) -> tuple[Iterator[RawRecord], Input]:
    """Read the flights and disturb them, always in the same way."""
    random_ = random.Random(2013)
    published = Input(set(), set(), Counter())
    flights = list(read_flights(count).records())
    departed_us = {msgspec.json.decode(r.value)["flight"]: r.time_us for r in flights if not r.is_label}
    published.flights.update(departed_us)
    records = [(shown, r) for record in flights for shown, r in _disturbed(record, departed_us, random_, published)]
    order = sorted(range(len(records)), key=lambda at: (records[at][0], records[at][1].is_label, at))
    return (records[at][1] for at in order), published


Shown = tuple[int, RawRecord]  # when it is published (on the flights' own clock), and the record


def _disturbed(record: RawRecord, departed_us: dict[str, int], random_: random.Random, out: Input) -> Iterator[Shown]:
    fields = msgspec.json.decode(record.value)
    if record.is_label:
        yield from _landing(record.time_us, fields, departed_us[fields["flight"]], random_, out)
    else:
        yield from _departure(record.time_us, fields, random_, out)


def _departure(time_us: int, fields: dict[str, Any], random_: random.Random, out: Input) -> Iterator[Shown]:
    later_us = time_us + random_.randrange(30 * HOUR_US)
    for name, share in (("dep_delay", 0.03), ("carrier", 0.02), ("route", 0.01)):
        if random_.random() < share:
            fields[name] = None
            out.counts[f"without_{name}"] += 1
    what = _choose(random_, straggler=0.02, twice=0.01, ignored=0.01, broken=0.001, keyless=0.001, text=0.001)
    out.counts[what] += 1
    if what == "straggler":
        out.stragglers.add(fields["flight"])
        shown_us = time_us + random_.randrange((100 if random_.random() < 0.7 else 400) * HOUR_US)
        yield shown_us, _record(time_us, fields, is_label=False)
        return
    yield time_us, _record(time_us, fields, is_label=False)
    if what == "twice":
        yield later_us, _record(time_us, fields, is_label=False)
    elif what == "ignored":
        yield time_us, _record(time_us, fields | {"type": "boarding", "flight": None}, is_label=False)
    elif what == "broken":
        whole = _record(time_us, fields, is_label=False)
        yield time_us, whole._replace(value=whole.value[:-10])
    elif what == "keyless":
        yield time_us, _record(time_us, fields | {"tail": None}, is_label=False)
    elif what == "text":
        yield time_us, _record(time_us, fields | {"dep_delay": "late"}, is_label=False)


def _landing(
    time_us: int, fields: dict[str, Any], departed_us: int, random_: random.Random, out: Input
) -> Iterator[Shown]:
    later_us = time_us + random_.randrange(30 * HOUR_US)
    what = _choose(random_, again=0.01, amended=0.01, retracted=0.01, unknown=0.01, early=0.01, too_late=0.01)
    out.counts[what] += 1
    if what == "early":
        time_us = departed_us - random_.randrange(1, 20 * HOUR_US)
    elif what == "too_late":
        time_us = departed_us + 36 * HOUR_US + random_.randrange(1, 4 * HOUR_US)
    yield _label(time_us, fields)
    if what == "again":
        yield _label(later_us, fields)
    elif what == "amended":
        yield _label(later_us, fields | {"late": not fields["late"]})
    elif what == "retracted":
        yield _label(later_us, fields | {"late": None})
    elif what == "unknown":
        yield _label(time_us, fields | {"flight": f"NO-{fields['flight']}"})


def _label(time_us: int, fields: dict[str, Any]) -> Shown:
    at = f"{np.datetime64(time_us, 'us')}Z"
    return time_us, _record(time_us, fields | {"arrived_at": at}, is_label=True)


def _record(time_us: int, fields: dict[str, Any], *, is_label: bool) -> RawRecord:
    key = fields["tail"].encode() if fields["tail"] else None
    return RawRecord(time_us, is_label, key, msgspec.json.encode(fields))


def _choose(random_: random.Random, **shares: float) -> str:
    found = random_.random()
    for name, share in shares.items():
        found -= share
        if found < 0:
            return name
    return "plain"


def _read(pipeline: Pipeline, published: Input, overview: Overview) -> Run:
    columns = features.columns(pipeline)
    log, vectors = frames.log_schema(pipeline), frames.features_schema(columns)
    partitions = range(pipeline.partitions)
    return Run(
        pipeline,
        published,
        claims_of(pipeline),
        [table_of(pipeline, "log", p, log) for p in partitions],
        [table_of(pipeline, "features", p, vectors) for p in partitions],
        table_of(pipeline, "examples", 0, frames.examples_schema(columns)),
        json_of(pipeline, "scores", 0),
        [json_of(pipeline, "predictions", p) for p in partitions],
        json_of(pipeline, "deadletters", 0),
        overview,
    )


def claims_of(pipeline: Pipeline) -> dict[int, dict[str, Any]]:
    """Give all claims by their source number."""
    messages = read_all(pipeline.kafka, f"{pipeline.name}.control", 0)
    return {m.offset(): json.loads(m.value() or b"") for m in messages if (m.key() or b"").startswith(b"claim/")}


def json_of(pipeline: Pipeline, topic: str, partition: int) -> list[dict[str, Any]]:
    """Give the JSON records of a partition."""
    return [json.loads(m.value() or b"") for m in read_all(pipeline.kafka, f"{pipeline.name}.{topic}", partition)]


def table_of(pipeline: Pipeline, topic: str, partition: int, schema: FrameSchema) -> Table:
    """Give all rows of a partition as written."""
    tables = []
    for message in read_all(pipeline.kafka, f"{pipeline.name}.{topic}", partition):
        header = dict(message.headers() or [])[frames.SCHEMA_HEADER]
        assert header.decode() == schema.fingerprint
        tables.append(frames.decode(message.value() or b"", schema))
    return join(tables)


def numbered(table: Table) -> npt.NDArray[np.int64]:
    """Give the rows (not marks) that a reader takes: of each source only those above all before them."""
    kind, source, sequence = (table.numbers(name) for name in ("kind", "source", "sequence"))
    is_taken = np.zeros(table.num_rows, bool)
    for one in np.unique(source[kind != MARK]):
        rows = np.flatnonzero((source == one) & (kind != MARK))
        highest = np.maximum.accumulate(sequence[rows])
        is_taken[rows] = np.concatenate([[True], sequence[rows][1:] > highest[:-1]])
    return np.flatnonzero(is_taken)
