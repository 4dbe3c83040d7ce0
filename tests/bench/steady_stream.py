"""Events at a steady rate through all roles: when each was due, and when its prediction came.

Open loop: events leave by a schedule, whatever comes back, and the clock of each starts when it was due.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tests.bench.first_prediction import wait_for_first_prediction
from tests.bench.kafka import BenchError
from tests.bench.processes import python_module, wait_until_s
from tests.bench.workplace import DIRECTORY, Run, Workplace

ROLES = ("ingest", "features", "learn", "serve")
WARMING_RATE = 1_000
START_IN_S = 4.0  # the publisher makes its records before the first is due

Floats = npt.NDArray[np.float64]


class Stream(NamedTuple):
    """The events after the warm-up, [N] each.

    Attributes:
        due_us: when each was to be sent, in us since 1970.
        latency_ms: from then until its prediction was consumed.
        sent_late_ms: how late the publisher sent it.
    """

    due_us: npt.NDArray[np.int64]
    latency_ms: Floats
    sent_late_ms: Floats


def run_stream(
    workplace: Workplace,
    run: Run,
    rate: int,
    models: Sequence[str] = (),
    meanwhile: Callable[[], None] = lambda: None,
    lasts_s: float | None = None,
) -> Stream:
    """Start all roles, publish `rate` events a second, and give what came of each.

    Args:
        workplace: where.
        run: a pipeline with raw topics of its own.
        rate: events a second.
        models: the candidates that learn; those of the bench pipeline if none is named.
        meanwhile: called when the warm-up is over; it is waited for.
        lasts_s: for how long events are due; as long as latency is measured, if it is not said.

    Raises:
        BenchError: an event has no prediction.
    """
    size, address = workplace.size, workplace.broker.address
    lasts_s = lasts_s or size.latency_s
    events = int(rate * lasts_s)
    with workplace.group(f"{run.name}-latency-{rate}") as processes:
        for role in ROLES:
            workplace.role(processes, run, role, models)
        topics = run.topic("events"), run.topic("labels")
        wait_for_first_prediction(address, topics[0], run.topic("predictions"), processes.check)
        arrivals, delays = (DIRECTORY / "logs" / f"{run.name}-{what}.npy" for what in ("arrivals", "delays"))
        receive = python_module("receive", address, run.topic("predictions"), "--events", str(events))
        receiver = processes.start("receive", [*receive, "--to", str(arrivals)])
        start_us = int((time.time() + START_IN_S) * 1e6)
        publish = python_module("publish", address, *topics, "--events", str(events), "--rate", str(rate))
        publisher = processes.start("publish", [*publish, "--start", str(start_us), "--delays", str(delays)])
        wait_until_s(start_us / 1e6 + size.warm_up_s)
        meanwhile()
        publisher.wait(START_IN_S + lasts_s + 60)
        receiver.wait(60)
    number, arrived_us = np.load(arrivals).T
    number, first = np.unique(number, return_index=True)  # an answer may come twice, never not at all
    if number.size != events:
        raise BenchError(f"{events - number.size:,} of {events:,} events at {rate:,}/s have no prediction")
    due_us = start_us + number * 1_000_000 // rate
    latency_ms, sent_late_ms = (arrived_us[first] - due_us) / 1e3, np.load(delays) / 1e3
    is_warm = number >= int(rate * size.warm_up_s)
    return Stream(due_us[is_warm], latency_ms[is_warm], sent_late_ms[is_warm])


def warm_broker(workplace: Workplace) -> None:
    """Let small requests run for a minute, once: until then a JVM interprets them, or takes a core to compile them."""
    if not workplace.is_warm:
        with workplace.run(own_input=True) as run:
            run_stream(workplace, run, WARMING_RATE, lasts_s=workplace.size.warm_broker_s)
        workplace.is_warm = True
