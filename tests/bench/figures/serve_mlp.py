"""Serve alone with a trained network as champion: archived, trained for some seconds, published by learn.

The network has hidden layers of 256 and 128 over the 16 features. Only serving counts; how good the network is does not
matter for that, so it is trained on part of the input and not to its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from models.version import decode_record
from streams.archive import segments_of
from streams.kafka import read_all
from streams.pipeline import Pipeline
from streams.pipeline_file import read_pipeline
from tests.bench.figure import Figure
from tests.bench.figures.roles_alone import LIMIT_S, run_alone
from tests.bench.kafka import BenchError, read
from tests.bench.load import PARTITIONS
from tests.bench.progress import Output
from tests.bench.weights import feature_events, log_events
from tests.bench.workplace import MILLRACE, Run, Workplace, change

NETWORK = """
[models.net]
kind = "torch:mlp"
hidden = [256, 128]
epochs = 1
retrain = { every = "90d" }
"""
TRAIN_MINUTES = "0.1"
ENOUGH = 0.25  # of the events, to train from

FIGURES = (Figure("serve_mlp", "predictions/s", bound=150_000, scales=True),)


def measure(workplace: Workplace) -> dict[str, float]:
    """Run the chain up to a published network, then serve over all features."""
    workplace.publish()
    events, broker = workplace.size.events, workplace.broker
    with workplace.run() as run:
        change(run.file, 'champion = "logistic"', 'champion = "net"')
        run.file.write_text(run.file.read_text() + NETWORK)
        pipeline = read_pipeline(run.file)
        run_alone(workplace, run, "ingest", Output(broker, run.topic("log"), events, log_events(pipeline)))
        run_alone(workplace, run, "features", Output(broker, run.topic("features"), events, feature_events(pipeline)))
        _publish_network(workplace, run, pipeline)
        predictions = Output(broker, run.topic("predictions"), events)
        served, _, _ = run_alone(workplace, run, "serve", predictions)
        _check_answers(workplace, run)
    return {"serve_mlp": served}


def _publish_network(workplace: Workplace, run: Run, pipeline: Pipeline) -> None:
    """Archive, train and announce; then let learn come to the announcement, and publish."""
    with workplace.group(f"{run.name}-train") as processes:
        workplace.role(processes, run, "train")
        enough = ENOUGH * workplace.size.events
        _wait("an archive", lambda: sum(one.rows for one in segments_of(pipeline.state)) >= enough, processes.check)
    with workplace.group(f"{run.name}-learn") as processes:
        command = [str(MILLRACE), "train", str(run.file), "--candidate", "net", "--minutes", TRAIN_MINUTES]
        training = processes.start("training", command)
        training.wait(LIMIT_S)
        learn = workplace.role(processes, run, "learn", ["net"])
        _wait("a network on P.control", lambda: _is_published(pipeline), learn.check)


def _is_published(pipeline: Pipeline) -> bool:
    messages = read_all(pipeline.kafka, f"{pipeline.name}.control", 0)
    told = [decode_record(message.value() or b"") for message in messages if message.key() == b"version/net"]
    return any(version.lineage > 0 for version in told)


def _wait(what: str, is_there: Callable[[], bool], check: Callable[[], None]) -> None:
    limit_s = time.monotonic() + LIMIT_S
    while not is_there():
        check()
        if time.monotonic() > limit_s:
            raise BenchError(f"there is not {what} after {LIMIT_S:.0f} s")
        time.sleep(0.2)


def _check_answers(workplace: Workplace, run: Run) -> None:
    """Raise BenchError unless the last answers are the trained network's."""
    topic = run.topic("predictions")
    ends = workplace.broker.end_offsets(topic, PARTITIONS)
    for message in read(workplace.broker, topic, [max(0, end - 5) for end in ends], ends):
        answer = msgspec.json.decode(message.value() or b"{}")
        if answer.get("model") != "net" or str(answer["version"]).startswith("0."):
            raise BenchError(f"this is no answer of the trained network: {answer}")
