"""Each role alone: the chain is run role after role, every role over what the one before it has written."""

from __future__ import annotations

from streams.pipeline_file import read_pipeline
from tests.bench.figure import Figure, Ratio
from tests.bench.load import PARTITIONS
from tests.bench.progress import Output, steady_rate, watch
from tests.bench.weights import feature_events, log_events, scored_events, scored_in_blocks
from tests.bench.workplace import Run, Workplace

LIMIT_S = 120.0
ROWS_AN_EVENT = 2  # each has one label

FIGURES = (
    Figure("ingest", "events/s", bound=250_000, scales=True),
    Figure("features", "rows/s", bound=700_000, scales=True),  # of P.log: an event and its label are two
    Figure("features_events", "events/s"),
    Figure("learn", "examples/s", bound=1_000_000, scales=True),
    Figure("serve", "predictions/s", bound=300_000, scales=True),
    Figure("serve_compiled", "predictions/s", bound=300_000, scales=True),  # the same, named beside serve_mlp
    Figure("features_rss_mib", "MiB", bound=300, is_floor=False),
    Figure("features_peak_rss_mib", "MiB"),
)
RATIOS = (
    Ratio("ingest_vs_bare", "ingest", "bare", bound=0.5),
    Ratio("ingest_vs_bare_records", "ingest", "bare", factor=2.0),
)


def measure(workplace: Workplace) -> dict[str, float]:
    """Run ingest, features, learn and serve one after the other over the published input."""
    workplace.publish()
    events = workplace.size.events
    with workplace.run() as run:
        pipeline = read_pipeline(run.file)
        broker = workplace.broker
        log = Output(broker, run.topic("log"), events, log_events(pipeline))
        vectors = Output(broker, run.topic("features"), events, feature_events(pipeline))
        scores = Output(broker, run.topic("scores"), scored_in_blocks(events, PARTITIONS), scored_events)
        predictions = Output(broker, run.topic("predictions"), events)
        ingest, _, _ = run_alone(workplace, run, "ingest", log)
        features, memory_mib, peak_mib = run_alone(workplace, run, "features", vectors)
        learn, _, _ = run_alone(workplace, run, "learn", scores)
        serve, _, _ = run_alone(workplace, run, "serve", predictions)
    return {
        "ingest": ingest,
        "features": ROWS_AN_EVENT * features,
        "features_events": features,
        "learn": learn,
        "serve": serve,
        "serve_compiled": serve,
        "features_rss_mib": memory_mib,
        "features_peak_rss_mib": peak_mib,
    }


def run_alone(workplace: Workplace, run: Run, role: str, output: Output) -> tuple[float, float, float]:
    """Give a role's speed in its steady phase, its memory at the end of the work, and the peak of it, in MiB."""
    with workplace.group(f"{run.name}-alone") as processes:
        process = workplace.role(processes, run, role)
        watch([output], LIMIT_S, processes.check)
        memory_mib, peak_mib = process.memory_mib()
    return steady_rate(*output.curve()), memory_mib, peak_mib
