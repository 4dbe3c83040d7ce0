"""Learning: a compiled candidate, four of them in one process, and River's own, each in a running learn role.

The examples are made once a run. Then one learn role after the other reads them from the beginning, with candidates of
its own, so that each has to learn all of them. What an event costs is the processor time that the role tells of its
candidate (`millrace_model_row_seconds`): reading, decoding and scoring are the same for all and belong to none.
"""

from __future__ import annotations

from streams.pipeline_file import read_pipeline
from tests.bench.figure import Figure, Ratio
from tests.bench.kafka import BenchError
from tests.bench.load import PARTITIONS
from tests.bench.processes import Process
from tests.bench.progress import Output, slowest, steady_rate, watch, watch_for
from tests.bench.weights import feature_events, log_events, scored_by, scored_in_blocks
from tests.bench.workplace import Run, Workplace

LIMIT_S = 120.0

FIGURES = (
    Figure("learn_1", "examples/s", bound=1_000_000, scales=True),
    Figure("learn_4", "examples/s", bound=300_000, scales=True),
    Figure("learn_river", "examples/s"),
    Figure("learn_1_event_us", "us"),
    Figure("learn_river_event_us", "us"),
)
RATIOS = (
    Ratio("logistic_vs_river_throughput", "learn_1", "learn_river"),
    Ratio("logistic_vs_river", "learn_river_event_us", "learn_1_event_us", bound=50.0),
)

ONE = ("logistic",)
FOUR = ("logistic_2", "faster", "adagrad", "ftrl")
RIVER = ("river",)
CANDIDATES = """
[models.logistic_2]
kind = "linear"

[models.faster]
kind = "linear"
lr = 0.05

[models.adagrad]
kind = "linear"
optimizer = "adagrad"

[models.ftrl]
kind = "linear"
optimizer = "ftrl"

[models.river]
kind = "river:compose.Pipeline"
steps = [
    { use = "preprocessing.StandardScaler" },
    { use = "linear_model.LogisticRegression", optimizer = { use = "optim.SGD", lr = 0.005 } },
]
"""


def measure(workplace: Workplace) -> dict[str, float]:
    """Make the examples, then learn them three times."""
    workplace.publish()
    with workplace.run() as run:
        make_examples(workplace, run)
        learning = run._replace(file=run.file.with_name("learning.toml"))
        learning.file.write_text(run.file.read_text() + CANDIDATES)
        one, event_us = speed(workplace, learning, ONE)
        river, river_event_us = speed_for_a_while(workplace, learning, RIVER)
        return {
            "learn_1": one,
            "learn_4": speed(workplace, learning, FOUR)[0],
            "learn_river": river,
            "learn_1_event_us": event_us,
            "learn_river_event_us": river_event_us,
        }


def make_examples(workplace: Workplace, run: Run) -> None:
    """Run ingest and features over the published input."""
    events, pipeline = workplace.size.events, read_pipeline(run.file)
    weights = {"ingest": ("log", log_events(pipeline)), "features": ("features", feature_events(pipeline))}
    for role, (topic, weight) in weights.items():
        with workplace.group(f"{run.name}-learning") as processes:
            workplace.role(processes, run, role)
            watch([Output(workplace.broker, run.topic(topic), events, weight)], LIMIT_S, processes.check)


def speed(workplace: Workplace, run: Run, candidates: tuple[str, ...]) -> tuple[float, float]:
    """Give the speed of the slowest candidate of a role, in the steady phase, and what an event costs the first."""
    outputs = [scores(workplace, run, candidate) for candidate in candidates]
    with workplace.group(f"{run.name}-learning") as processes:
        learn = workplace.role(processes, run, "learn", candidates)
        watch(outputs, LIMIT_S, processes.check)
        event_us = event_cost_us(learn, candidates[0])
    return steady_rate(*slowest(outputs)), event_us


def speed_for_a_while(workplace: Workplace, run: Run, candidates: tuple[str, ...]) -> tuple[float, float]:
    """Give the same of a candidate that would take minutes for all examples."""
    output = scores(workplace, run, candidates[0])
    with workplace.group(f"{run.name}-learning") as processes:
        learn = workplace.role(processes, run, "learn", candidates)
        watch_for(output, workplace.size.peer_s, LIMIT_S, processes.check)
        event_us = event_cost_us(learn, candidates[0])
    return steady_rate(*output.curve()), event_us


def event_cost_us(learn: Process, candidate: str) -> float:
    """Give the processor time that predicting and learning an event take in a running role, as it measures them."""
    name = "millrace_model_row_seconds"
    found = [one.value for one in learn.metrics() if one.name == name and one.labels["candidate"] == candidate]
    if len(found) != len(("predict", "learn")):
        raise BenchError(f"{learn.name} does not tell what {candidate} costs")
    return 1e6 * sum(found)


def scores(workplace: Workplace, run: Run, candidate: str) -> Output:
    """Watch what one candidate has scored."""
    events = scored_in_blocks(workplace.size.events, PARTITIONS)
    return Output(workplace.broker, run.topic("scores"), events, scored_by(candidate))
