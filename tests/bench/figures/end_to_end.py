"""All roles at once on this machine, broker included, over input published beforehand."""

from __future__ import annotations

from pathlib import Path

from tests.bench.figure import Figure
from tests.bench.load import PARTITIONS
from tests.bench.progress import Output, slowest, steady_rate, watch
from tests.bench.weights import scored_events, scored_in_blocks
from tests.bench.workplace import BENCH_FILE, Workplace

LIMIT_S = 180.0
ROLES = ("features", "learn", "serve", "ingest")  # ingest last: the others are ready when rows come

FIGURES = (Figure("end_to_end", "events/s", bound=120_000, scales=True),)


def measure(workplace: Workplace) -> dict[str, float]:
    """Run the bench pipeline."""
    return {"end_to_end": speed(workplace, BENCH_FILE)}


def speed(workplace: Workplace, file: Path) -> float:
    """Give a pipeline's events per second through predicting and learning, whichever is further behind."""
    workplace.publish()
    events = workplace.size.events
    with workplace.run(file) as run, workplace.group(f"{run.name}-end-to-end") as processes:
        predictions = Output(workplace.broker, run.topic("predictions"), events)
        scores = Output(workplace.broker, run.topic("scores"), scored_in_blocks(events, PARTITIONS), scored_events)
        for role in ROLES:
            workplace.role(processes, run, role)
        watch([predictions, scores], LIMIT_S, processes.check)
        return steady_rate(*slowest([predictions, scores]))
