"""What a swap of the champion costs: the latency of events around promotions, and of the others in the same run.

All roles run at 1,000 events a second with two candidates that learn, and a person promotes one after the other. Serve
hears a decision on P.decisions, warms the new model beside the old one, and swaps between two frames.
"""

from __future__ import annotations

import time
from functools import partial
from itertools import pairwise

import msgspec
import numpy as np

from serving.reign_command import decide, promoting
from streams.kafka import read_all
from streams.pipeline import Pipeline
from streams.pipeline_file import read_pipeline
from tests.bench.figure import Figure
from tests.bench.kafka import BenchError
from tests.bench.load import PARTITIONS
from tests.bench.processes import wait_until_s
from tests.bench.steady_stream import run_stream, warm_broker
from tests.bench.workplace import QUICK, Workplace, candidates

SECOND = """
[models.second]
kind = "linear"
lr = 0.01
"""
RATE = 1_000
SWAPS, APART_S = 4, 2.5
BEFORE_US, AFTER_US = 100_000, 900_000  # around a decision: serve looks every 0.2 s, and has swapped by then

FIGURES = (
    Figure("swap_added_p99_ms", "ms", bound=50, is_floor=False),
    Figure("swap_p99_ms", "ms"),
    Figure("swap_elsewhere_p99_ms", "ms"),
)


class _Answer(msgspec.Struct):
    model: str


def measure(workplace: Workplace) -> dict[str, float]:
    """Give the 99th percentile around swaps, of the other events, and how much more the first is."""
    decided_us: list[int] = []
    warm_broker(workplace)
    with workplace.run(own_input=True) as run:
        run.file.write_text(run.file.read_text() + SECOND)
        pipeline = read_pipeline(run.file)
        swaps = 1 if workplace.size == QUICK else SWAPS
        meanwhile = partial(_promote, pipeline, decided_us, swaps)
        stream = run_stream(workplace, run, RATE, [*candidates(), "second"], meanwhile)
        _check_swaps(pipeline, swaps)
    is_near = np.zeros(stream.due_us.size, np.bool_)
    for at_us in decided_us:
        is_near |= (stream.due_us >= at_us - BEFORE_US) & (stream.due_us < at_us + AFTER_US)
    near_ms, elsewhere_ms = (float(np.percentile(stream.latency_ms[who], 99)) for who in (is_near, ~is_near))
    return {"swap_added_p99_ms": near_ms - elsewhere_ms, "swap_p99_ms": near_ms, "swap_elsewhere_p99_ms": elsewhere_ms}


def _promote(pipeline: Pipeline, decided_us: list[int], swaps: int) -> None:
    """Promote the one who does not answer, some times; notes when."""
    began_s = time.time()
    for turn in range(swaps):
        wait_until_s(began_s + 1.0 + turn * APART_S)
        made = decide(pipeline, promoting(pipeline, candidates()[0] if turn % 2 else "second"), "bench").record
        assert made is not None
        decided_us.append(made.time_us)


def _check_swaps(pipeline: Pipeline, swaps: int) -> None:
    """Raise BenchError unless the answers of each partition changed their model as often as was decided."""
    decoder = msgspec.json.Decoder(_Answer)
    for partition in range(PARTITIONS):
        messages = read_all(pipeline.kafka, f"{pipeline.name}.predictions", partition)
        models = [decoder.decode(message.value() or b"").model for message in messages]
        changes = sum(one != next_one for one, next_one in pairwise(models))
        if changes != swaps:
            raise BenchError(f"partition {partition} changed its model {changes} times, not {swaps}")
