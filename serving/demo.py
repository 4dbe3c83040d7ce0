"""The demo: a year of real flights through the whole loop, on a Kafka of its own.

Departures are events, landings are labels with their real delay, published in time order and far faster than real.
Marks tell the readers how far the publisher is, so that no label is learned before an earlier flight was predicted. The
demo is over when serve and every candidate have taken the end.
"""

from __future__ import annotations

import itertools
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from serving.brokers import raw_partitions
from serving.flights import Flights, read_flights
from serving.key_view import read_key
from serving.live import Picture
from serving.overview import Overview
from serving.publish import Publisher, RawRecord, check_rate
from serving.system import System
from serving.table import console, duration, grid, league, number
from serving.training_pace import TrainingPace
from streams.errors import PipelineError, StoreError, UnavailableError
from streams.kafka import KafkaOutbox, Reader, Topics
from streams.pipeline import Pipeline

EXAMPLE = Path("examples/flights.toml")
FILE_NAME = "flights.toml"  # the copy that the demo runs; also the sign that a directory is a demo's
MOST_RESTARTS = 3  # a role that dies so often in a row will not live; the demo must end
START_WAIT_S = 300.0  # usually 15 s; where nothing is cached, kernels compile first
STALL_WAIT_S = 120.0  # without any progress the demo gives up
WORKING_CPU_RATIO = 0.05  # a process above this is busy with a long batch; an idle one stays below 2 %
DAMAGED_AFTER = 500  # departures before the damaged copies
SAMPLES = 4


def run_demo(events: int | None, rate: float, state: Path) -> None:
    """Run the whole demo and print what came of it.

    Raises:
        MillraceError: something is missing, or a role failed.
    """
    check_rate(rate)
    out = console()
    file = prepare(state)
    out.print("reading a year of flights …")
    flights = read_flights(events)
    began = time.monotonic()

    def say(text: str) -> None:
        out.print(text, soft_wrap=True)

    with System(file, is_embedded=True, is_replay=True, say=say, most_restarts=MOST_RESTARTS) as system:
        overview, published_s = _run(system, flights, rate, out)
        report(system, flights, overview, published_s, out)
    _say_where_next(file, time.monotonic() - began, out)


def prepare(state: Path) -> Path:
    """Make a fresh state directory with a copy of the example pipeline in it.

    Raises:
        PipelineError: the directory holds something that is not a demo's.
        UnavailableError: the example is not there.
    """
    example = next((path for path in (EXAMPLE, Path(__file__).parents[1] / EXAMPLE) if path.exists()), None)
    if example is None:
        raise UnavailableError(f"{EXAMPLE} is not here: run the demo from a clone of the repository")
    if state.exists() and any(state.iterdir()):
        if not (state / FILE_NAME).exists():
            raise PipelineError([f"--state {state}: is not empty and no demo's directory; name another"])
        shutil.rmtree(state)
    state.mkdir(parents=True, exist_ok=True)
    text = re.sub(r'^state = ".*"', 'state = "."', example.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (state / FILE_NAME).write_text(text, encoding="utf-8")
    return state / FILE_NAME


def damaged(records: Iterator[RawRecord]) -> Iterator[RawRecord]:
    """Add three broken copies of one departure, which become dead letters and change nothing else."""
    departures = 0
    for record in records:
        yield record
        departures += not record.is_label
        if departures == DAMAGED_AFTER and not record.is_label:
            whole = msgspec.json.decode(record.value)
            yield record._replace(value=record.value[: len(record.value) // 2])
            yield record._replace(value=msgspec.json.encode(whole | {"tail": None}))
            yield record._replace(value=msgspec.json.encode(whole | {"dep_delay": "late"}))


def _run(system: System, flights: Flights, rate: float | None, out: Console) -> tuple[Overview, float]:
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=out
    )
    published = progress.add_task("flights published", total=len(flights))
    learned = progress.add_task("learned by the slowest online candidate", total=flights.labels)

    def words() -> str:
        at = [f"{task.description} {task.completed:,.0f}/{task.total:,.0f}" for task in progress.tasks]
        return ", ".join(at)

    def bars() -> RenderableType:
        return progress.get_renderable()

    outbox = KafkaOutbox(system.pipeline.kafka)
    try:
        with Picture(system, out, "a year of flights out of New York", bars, words) as picture:
            _wait_until_up(picture)

            def moment() -> None:
                progress.update(published, completed=min(publisher.events, len(flights)))
                if picture.overview is not None:
                    progress.update(learned, completed=_learned(picture.overview))
                picture.moment()

            pace = TrainingPace(system.pipeline, lambda: _trained(picture.overview), picture.wait)
            publisher = Publisher(
                system.pipeline,
                outbox,
                raw_partitions(system.pipeline),
                rate=rate,
                has_marks=True,
                clock=pace.clock,
            )
            began = pace.clock()
            records = pace.paced(damaged(flights.records()), publisher.mark_before)
            publisher.publish(records, moment)
            published_s = pace.clock() - began
            overview = _wait_for_end(picture, moment)
    finally:
        outbox.close()
    return overview, published_s


def _wait_until_up(picture: Picture) -> None:
    deadline = time.monotonic() + START_WAIT_S
    while picture.overview is None or any(one.state != "up" for one in picture.overview.processes):
        if time.monotonic() > deadline:
            raise UnavailableError(f"after {START_WAIT_S:.0f} s not all roles were up; see their logs in <state>/run")
        picture.wait()


def _wait_for_end(picture: Picture, moment: Callable[[], None]) -> Overview:
    seen: tuple[int, ...] = ()
    deadline = time.monotonic() + STALL_WAIT_S
    while True:
        moment()
        picture.wait()
        overview = picture.overview
        if overview is not None and overview.has_ended:
            return overview
        if overview is not None and (_figures(overview) != seen or _is_working(overview)):
            seen, deadline = _figures(overview), time.monotonic() + STALL_WAIT_S
        elif time.monotonic() > deadline:
            raise UnavailableError(
                f"nothing moved for {STALL_WAIT_S:.0f} s before the end was reached; see the logs in <state>/run"
            )


def _learned(overview: Overview) -> int:
    """How far the slowest is of those that learn from every label."""
    return min(model.learned for model in overview.models if model.trainings is None)


def _trained(overview: Overview | None) -> dict[str, int]:
    models = () if overview is None else overview.models
    return {model.name: sum(model.trainings.values()) for model in models if model.trainings is not None}


def _figures(overview: Overview) -> tuple[int, ...]:
    return overview.served, *(model.learned for model in overview.models)


def _is_working(overview: Overview) -> bool:
    return any((one.cpu_ratio or 0.0) > WORKING_CPU_RATIO for one in overview.processes)


def report(system: System, flights: Flights, overview: Overview, published_s: float, out: Console) -> None:
    """Print what came of it: the league, what was served, dead letters and accounts."""
    pipeline = system.pipeline
    out.print(Text("\nWho predicted best (each flight was predicted before its label was known):", style="bold"))
    out.print(league(overview.models, overview.answers, is_final=True))
    p50, p99 = overview.latency_start_s
    out.print(Text("What was served:", style="bold"))
    out.print(
        f"{number(overview.served)} predictions on {pipeline.name}.predictions for "
        f"{number(len(flights))} flights, published in {duration(published_s)} "
        f"({number(len(flights) / max(published_s, 1e-9))} flights/s); {overview.champion} reigns",
        soft_wrap=True,
    )
    out.print(f"from departure published to prediction produced: p50 {duration(p50)}, p99 {duration(p99)}")
    answers = [msgspec.json.decode(value) for value in _last_values(pipeline)]
    out.print(_samples(answers, flights))
    if answers and pipeline.serve.redis is not None:
        out.print(Text("Online store:", style="bold"), end=" ")
        out.print(_stored(pipeline, answers[-1]["key"]), soft_wrap=True)
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(overview.dead_letters.items()))
    out.print(Text("Dead letters:", style="bold"), end=" ")
    out.print(f"{reasons or 'none'} (the demo damaged 3 copies of a record to show them)")
    out.print(Text("Accounts:", style="bold"), end=" ")
    out.print(f"{overview.unaccounted} rows unaccounted for", style="bold red" if overview.unaccounted else "green")
    for account, states in overview.accounts.items():
        words = " + ".join(f"{count:,} {state}" for state, count in states.items())
        out.print(f"  {account}: {sum(states.values()):,} = {words}", soft_wrap=True)


def _samples(answers: list[dict[str, Any]], flights: Flights) -> RenderableType:
    table = grid("flight", "departed", ">late, it said", "by version", "it was")
    outcomes = flights.outcomes()
    for answer in answers:
        moment = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(answer["time_us"] / 1e6))
        table.add_row(
            answer["id"],
            moment,
            f"{answer['probability']:.0%}",
            str(answer["version"]),
            {True: "late", False: "on time", None: "never heard of"}[outcomes.get(answer["id"])],
        )
    return table


def _stored(pipeline: Pipeline, key: str) -> str:
    try:
        stored = read_key(pipeline, key)
    except StoreError as error:
        return str(error)
    if stored is None:
        return f"nothing for the aircraft {key}"
    features, answer = (msgspec.json.decode(stored.fields[name]) for name in ("features", "prediction"))
    return f"for the aircraft {key} {len(features)} features, and {answer['id']} late with {answer['probability']:.0%}"


def _last_values(pipeline: Pipeline) -> list[bytes]:
    """The last prediction of each partition, so that several airlines show."""
    topic = f"{pipeline.name}.predictions"
    topics, reader = Topics(pipeline.kafka), Reader(pipeline.kafka)
    try:
        ends = reader.end_offsets(topic, list(range(topics.partitions(topic))))
        reader.assign(topic, {partition: end - 1 for partition, end in ends.items() if end > 0})
        wanted = sum(end > 0 for end in ends.values())
        found: list[bytes] = []
        for _ in itertools.repeat(None, 20):
            found += [message.value() or b"" for message in reader.poll(SAMPLES, 0.5)]
            if len(found) >= min(wanted, SAMPLES):
                break
        return found[:SAMPLES]
    finally:
        reader.close()
        topics.close()


def _say_where_next(file: Path, seconds: float, out: Console) -> None:
    out.print(
        Text(f"\nDone in {duration(seconds)}. Everything is kept in {file.parent}. Where to look next:", style="bold")
    )
    for command, purpose in (
        (f"millrace check {file}", "the pipeline: topics, stages, features, candidates"),
        (f"millrace report {file}", "one page about the data, the models and their trainings, to look at in a browser"),
        (f"millrace show {file} net", "the newest trained version: from what, how long, and how good it is"),
        (f"millrace up {file} --embedded", "start it again; it goes on where it stopped. While it runs:"),
        (f"  millrace tail {file} predictions --from-start", "what was answered"),
        (f"  millrace tail {file} examples --from-start", "what was learned from"),
        (f"  millrace deadletters {file}", "what could not be used, and why"),
        (f"  millrace key {file} N14228", "what is stored for an aircraft, after its next flight"),
    ):
        out.print(f"  {command:<62} {purpose}", soft_wrap=True)
