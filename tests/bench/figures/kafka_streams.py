"""Kafka Streams and Millrace over the same events: one 60 s window per key, JSON in and out, by processor time.

Millrace is ingest, features and serve, whose predictions are its JSON; Kafka Streams is one process with two threads.
Both have to answer every event, and their windows are compared with what plain Python computes for a sample of keys.
"""

from __future__ import annotations

import secrets

from confluent_kafka import Producer

from streams import features
from streams.embedded_programs import KAFKA_JARS
from streams.frames import features_schema
from streams.pipeline_file import read_pipeline
from tests.bench.cpu import CpuMeter, events_per_cpu_s
from tests.bench.figure import Figure, Ratio
from tests.bench.java import compiled
from tests.bench.kafka import FOR_EVER_MS
from tests.bench.load import PARTITIONS
from tests.bench.processes import ROOT
from tests.bench.progress import Output, steady_rate, watch_for
from tests.bench.publish import END_MARK
from tests.bench.window_answers import in_frames, in_json
from tests.bench.windows import compare, sampled_events, sliding, tumbling
from tests.bench.workplace import Workplace

PIPELINE = ROOT / "tests" / "bench" / "window.toml"
NO_LABELS_TOPIC = "bench.no_labels"
ROLES = ("features", "serve", "ingest")  # ingest last: the others are ready when rows come
PROGRAM = ROOT / "tests" / "bench" / "peers" / "KafkaStreamsWindow.java"
KAFKA_VERSION = KAFKA_JARS.split("+")[0].split(":")[2]  # the broker's own; Jackson comes with it
JARS = f"org.apache.kafka:kafka-streams:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36"
JVM_FLAGS = ("-Xms1g", "-Xmx1g", "-XX:+UseParallelGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
WARM = 0.5  # what a JVM has compiled by then it keeps; before, an event costs it twice as much
START_LIMIT_S = 180.0  # kernels are compiled once, when the cache is cold
LIMIT_S = 300.0

FIGURES = (
    Figure("window", "events/s"),
    Figure("window_per_cpu_s", "events/CPU-s"),
    Figure("kafka_streams", "events/s"),
    Figure("kafka_streams_per_cpu_s", "events/CPU-s"),
)
RATIOS = (
    Ratio("features_vs_kafka_streams_cpu", "window_per_cpu_s", "kafka_streams_per_cpu_s", bound=3.0),
    Ratio("features_vs_kafka_streams", "window", "kafka_streams"),
)


def measure(workplace: Workplace) -> dict[str, float]:
    """Run Millrace, then Kafka Streams, each alone with the broker."""
    workplace.publish()
    speed, frugality = run_millrace(workplace)
    their_speed, their_frugality = run_kafka_streams(workplace)
    return {
        "window": speed,
        "window_per_cpu_s": frugality,
        "kafka_streams": their_speed,
        "kafka_streams_per_cpu_s": their_frugality,
    }


def run_millrace(workplace: Workplace) -> tuple[float, float]:
    """Give predictions a second, and for each second of processor time."""
    publish_no_labels(workplace)
    with workplace.run(PIPELINE) as run:
        output = Output(workplace.broker, run.topic("predictions"), workplace.size.events)
        with workplace.group(f"{run.name}-window") as processes:
            meter = CpuMeter(processes)
            for role in ROLES:
                workplace.role(processes, run, role)
            watch_for(output, LIMIT_S, START_LIMIT_S, meter.sample)
        schema = features_schema(features.columns(read_pipeline(run.file)))
        answers = in_frames(workplace.broker, run.topic("features"), schema)
        expected = sliding(sampled_events(workplace.load, output.events))
        compare("Millrace", answers, expected, is_whole=is_whole(output))
    return speeds(output, meter)


def publish_no_labels(workplace: Workplace) -> None:
    """Make a labels topic that is at its end from the start: nothing waits for a label."""
    if workplace.broker.partitions(NO_LABELS_TOPIC):
        return
    workplace.broker.create(NO_LABELS_TOPIC, partitions=PARTITIONS)
    producer = Producer({"bootstrap.servers": workplace.broker.address})
    for partition in range(PARTITIONS):
        producer.produce(NO_LABELS_TOPIC, None, partition=partition, headers=END_MARK)
    producer.flush()


def run_kafka_streams(workplace: Workplace) -> tuple[float, float]:
    """Give results a second, and for each second of processor time."""
    events_topic, _ = workplace.publish()
    with workplace.run(PIPELINE) as run:  # for its name and directory: all that is called so is removed at the end
        results = run.topic("results")
        # Results are stamped with the time of their event: after a day's retention they would be gone at once.
        workplace.broker.create(results, partitions=PARTITIONS, retention_ms=FOR_EVER_MS)
        output = Output(workplace.broker, results, workplace.size.events)
        application = run.topic(secrets.token_hex(4))  # its group outlives its topics: no run may find another's
        run.state.mkdir(parents=True)
        program, *rest = compiled(PROGRAM, JARS)
        command = [program, *JVM_FLAGS, *rest, PROGRAM.stem, workplace.broker.address, events_topic]
        with workplace.group(f"{run.name}-kafka-streams") as processes:
            meter = CpuMeter(processes)
            processes.start("kafka-streams", [*command, results, application, str(run.state)])
            watch_for(output, LIMIT_S, START_LIMIT_S, meter.sample)
        expected = tumbling(sampled_events(workplace.load, output.events))
        compare("Kafka Streams", in_json(workplace.broker, results), expected, is_whole=is_whole(output))
    return speeds(output, meter)


def is_whole(output: Output) -> bool:
    """Say whether all events were answered."""
    return output.done() >= output.events


def speeds(output: Output, meter: CpuMeter) -> tuple[float, float]:
    """Give events per second and per second of processor time, in the second half of the work."""
    times_s, done = output.curve()
    return steady_rate(times_s, done, WARM), events_per_cpu_s(times_s, done, meter, WARM)
