"""The bare loop: what a Python process on this machine can copy, one Kafka message per record."""

from __future__ import annotations

from tests.bench.figure import Figure
from tests.bench.load import PARTITIONS
from tests.bench.processes import python_module
from tests.bench.progress import Output, steady_rate, watch
from tests.bench.workplace import Workplace

TOPIC = "bare.copy"
FIGURES = (Figure("bare", "records/s"),)


def measure(workplace: Workplace) -> dict[str, float]:
    """Copy the raw events once, labels left out: one record is one event."""
    events_topic, _ = workplace.publish()
    workplace.broker.delete_all(TOPIC)
    workplace.broker.create(TOPIC, partitions=PARTITIONS)
    output = Output(workplace.broker, TOPIC, workplace.size.events)
    with workplace.group("bare") as processes:
        processes.start("bare", python_module("bare", workplace.broker.address, events_topic, TOPIC))
        watch([output], 120, processes.check)
    workplace.broker.delete_all(TOPIC)
    return {"bare": steady_rate(*output.curve())}
