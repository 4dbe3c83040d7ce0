"""The overview: rates, percentiles, the end of a replay, and how both look."""

from __future__ import annotations

import doctest
import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from prometheus_client import generate_latest
from rich.console import Console

from consumers.supervisor import Status
from serving import overview, table
from serving.overview import Overview, Watch, percentile
from streams.metric_families import LATENCY_BOUNDS_S
from streams.metrics import END_US, RoleMetrics
from streams.pipeline import Feature
from streams.pipeline_file import read_pipeline

PIPELINE = read_pipeline(Path(__file__).parents[2] / "examples" / "flights.toml")
NAMES = ("ingest", "features", "serve", "learn")
CANDIDATES = [model.name for model in PIPELINE.models]


class Machine:
    """A pipeline whose processes are metric registries and whose clock is driven by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.roles = {port: RoleMetrics(role, "flights") for port, role in enumerate(NAMES)}
        self.silent: set[int] = set()
        for metrics in self.roles.values():
            metrics.ready()
        self.watch = Watch(PIPELINE, self.fetch, lambda: self.now)

    def fetch(self, port: int) -> str | None:
        return None if port in self.silent else generate_latest(self.roles[port].registry).decode()

    @property
    def learn(self) -> RoleMetrics:
        return self.roles[3]

    @property
    def serve(self) -> RoleMetrics:
        return self.roles[2]

    def look(self, statuses: Sequence[Status] | None = None) -> Overview:
        return self.watch.look(statuses or [Status(name, name, port, 1, 0, None) for port, name in enumerate(NAMES)])

    def end(self) -> None:
        for partition in range(PIPELINE.partitions):
            self.serve.mark("flights.features", partition, END_US)
            self.roles[1].mark("flights.log", partition, END_US)
        for name in (*CANDIDATES, "served"):
            self.learn.of(name).mark("flights.examples", 0, END_US)


def test_rates_are_differences_between_looks() -> None:
    """Events a second need two looks; candidates of a process are not added up, for they take the same events."""
    machine = Machine()
    first = machine.look()
    machine.now = 2.0
    machine.roles[0].add_in("event", 300)
    machine.learn.of("tree").add_in("event", 100)
    machine.learn.of("prior").add_in("event", 200)
    second = machine.look()

    assert first.processes[0].events_per_s is None
    assert second.events_per_s("ingest") == 150
    assert second.events_per_s("learn") == 100


def test_a_restarted_process_has_no_negative_rate() -> None:
    """Counters begin again at 0."""
    machine = Machine()
    machine.roles[0].add_in("event", 300)
    machine.look()
    machine.now = 1.0
    machine.roles[0] = RoleMetrics("ingest", "flights")

    assert machine.look().events_per_s("ingest") == 0


def test_states_tell_up_from_starting_and_down() -> None:
    """A process that does not answer or takes no rows yet is starting; one that waits for its restart says when."""
    machine = Machine()
    machine.silent = {1}
    loading = RoleMetrics("learn", "flights")
    loading.release("1")
    machine.roles[3] = loading
    found = machine.look(
        [
            Status("ingest", "ingest", 0, 1, 0, None),
            Status("features", "features", 1, 1, 0, None),
            Status("serve", "serve", 2, None, 3, 4.2),
            Status("learn", "learn", 3, 1, 0, None),
        ]
    )

    assert [one.state for one in found.processes] == ["up", "starting", "again in 4 s", "starting"]


def test_the_champion_is_whoever_serve_says_reigns() -> None:
    """The pipeline file's until it says so; the version shown is the champion's, or of who answers in its place."""
    machine, (first, second) = Machine(), CANDIDATES[:2]
    silent = machine.look().champion
    machine.serve.of(PIPELINE.serve.champion).champion(is_reigning=False)
    machine.serve.of(second).champion(is_reigning=True)
    machine.serve.of(first).serving(0, 7, 0)
    instead = machine.look()
    machine.serve.of(second).serving(0, 9, 0)
    machine.serve.of(first).not_serving()
    own = machine.look()

    assert silent == PIPELINE.serve.champion
    assert (instead.champion, instead.version_examples) == (second, 7)
    assert (own.champion, own.version_examples) == (second, 9)
    assert [model.name for model in own.models if model.is_champion] == [second]


def latencies(answers: int, each_s: float) -> tuple[npt.NDArray[np.int64], float]:
    """Count answers of one latency by bucket."""
    place = np.searchsorted(LATENCY_BOUNDS_S, each_s)
    return np.bincount([place], minlength=len(LATENCY_BOUNDS_S) + 1) * answers, answers * each_s


def test_latencies_are_those_of_the_last_looks() -> None:
    """An old slow second does not hide how fast it is now."""
    machine = Machine()
    machine.serve.predicted(*latencies(1_000, 2.0))
    for machine.now in range(6):
        machine.look()
    machine.serve.predicted(*latencies(100, 0.009))
    found = machine.look()

    assert 0.0075 <= found.latency_s[0] <= found.latency_s[1] <= 0.01
    assert 1.0 <= found.latency_start_s[0] <= 2.5
    assert found.served == 1_100


def test_models_accounts_and_dead_letters_are_read() -> None:
    """What learn, ingest and features say arrives in the overview."""
    machine = Machine()
    machine.learn.of("tree").scored("start", {"log_loss": 0.4, "accuracy": 0.8, "auc": 0.7})
    machine.learn.of("tree").learned(90, 1_000)
    machine.roles[0].dead_letter("missing", 2)
    for partition in (0, 1):
        machine.roles[1].account("events", partition, 5, {"settled": 3, "pending": 1})
    found = machine.look()
    tree = next(model for model in found.models if model.name == "tree")

    assert (tree.loss, tree.figures["accuracy"], tree.figures["auc"]) == (0.4, 0.8, 0.7)
    assert (tree.learned, tree.is_champion) == (90, False)
    assert [model.name for model in found.models if model.is_champion] == [PIPELINE.serve.champion]
    assert found.dead_letters == {"missing": 2}
    assert found.accounts == {"events": {"settled": 6, "pending": 2}}
    assert found.unaccounted == 2


def test_the_end_needs_serve_and_every_candidate() -> None:
    """One candidate that is not there yet keeps the demo waiting."""
    machine = Machine()
    machine.end()
    machine.learn.of(CANDIDATES[-1]).mark("flights.examples", 0, 5_000_000)
    before = machine.look().has_ended
    machine.end()

    assert (before, machine.look().has_ended) == (False, True)


def test_the_end_needs_every_partition_of_serve() -> None:
    """A partition that serve does not have (yet) counts as not ended."""
    machine = Machine()
    machine.end()
    machine.serve.forget("flights.features", 0)

    assert not machine.look().has_ended


def test_the_end_needs_every_stage_of_features() -> None:
    """Each has marks of its own topic; stages after the first are told apart as candidates are."""
    machine = Machine()
    machine.watch = Watch(
        msgspec.structs.replace(PIPELINE, features=(Feature("n", "lag", "dest", "origin"),)),
        machine.fetch,
        lambda: machine.now,
    )
    machine.end()
    before = machine.look().has_ended
    for stage, topic in (("stage2", "flights.stage1"), ("stage3", "flights.stage2")):
        for partition in range(PIPELINE.partitions):
            machine.roles[1].of(stage).mark(topic, partition, END_US)

    assert (before, machine.look().has_ended) == (False, True)


def test_the_end_needs_ingest_and_features() -> None:
    """Their accounts are final only when they have taken the end themselves."""
    machine = Machine()
    machine.end()
    machine.roles[0].mark("flights.departures", 0, 5_000_000)

    assert not machine.look().has_ended


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ([(1.0, 0.0), (2.0, 10.0), (math.inf, 10.0)], 0.5, 1.5),
        ([(1.0, 5.0), (2.0, 10.0), (math.inf, 10.0)], 0.5, 1.0),
        ([(1.0, 0.0), (2.0, 0.0), (math.inf, 10.0)], 0.5, 2.0),
    ],
)
def test_percentiles_lie_within_their_bucket(buckets: list[tuple[float, float]], share: float, expected: float) -> None:
    """Linear inside a bucket; above the last bound, that bound."""
    assert percentile(buckets, share) == expected


def test_percentiles_of_nothing_are_nan() -> None:
    """No predictions, no latency."""
    assert math.isnan(percentile([], 0.5))
    assert math.isnan(percentile([(1.0, 0.0), (math.inf, 0.0)], 0.5))


def test_the_table_and_the_line_show_what_matters() -> None:
    """Both forms name rates, losses, the champion's latency, and rows that cannot be explained."""
    machine = Machine()
    machine.look()
    machine.now = 1.0
    machine.roles[0].add_in("event", 12_345)
    machine.learn.of("tree").scored("start", {"log_loss": 0.4321, "accuracy": 0.8, "auc": 0.7})
    machine.roles[1].account("events", 0, 5, {"settled": 3})
    found = machine.look()
    console = Console(width=120, record=True, force_terminal=False, file=None, quiet=False)
    with console.capture() as captured:
        console.print(table.render("flights", found))
    plain = table.line(found)

    for text in ("12,345", "0.4321"):
        assert text in captured.get()
        assert text in plain
    assert "unaccounted rows 2" in captured.get()
    assert "UNACCOUNTED ROWS: 2" in plain
    assert "champion: answers" in captured.get()


def test_the_final_league_is_sorted_by_loss() -> None:
    """The best candidate stands first, those without a score last."""
    machine = Machine()
    for name, loss in zip(CANDIDATES[:3], (0.5, 0.3, 0.4), strict=True):
        machine.learn.of(name).scored("start", {"log_loss": loss, "accuracy": 0.8, "auc": 0.7})
    rows = table.league(machine.look().models, is_final=True).columns[0].cells

    assert list(rows) == [CANDIDATES[1], CANDIDATES[2], CANDIDATES[0], *CANDIDATES[3:]]


def test_what_was_answered_stands_below_the_candidates() -> None:
    """It is no candidate: never the best, always last, and nobody waits for what it has learned."""
    machine = Machine()
    served = machine.learn.of("served")
    served.scored("start", {"log_loss": 0.1, "accuracy": 0.9, "auc": 0.8})
    served.scored("rolling", {"log_loss": 0.2})
    served.learned(70, 0)
    served.staleness({"start": 0.0125, "rolling": 0.5})
    found = machine.look()
    rows = table.league(found.models, found.answers, is_final=True)
    last = [str(list(column.cells)[-1]) for column in rows.columns]

    assert "served" not in {model.name for model in found.models}
    assert last == ["served", "0.1000", "0.2000", "90.00%", "0.8000", "-", "70", "answered; stale by +0.0125"]
    assert f"served {0.1:.4f}" in table.line(found)


def test_the_end_needs_the_answers_to_be_scored() -> None:
    """Only where they are; else nobody would ever say so."""
    machine, silent = Machine(), Machine()
    silent.watch = Watch(
        msgspec.structs.replace(PIPELINE, serve=msgspec.structs.replace(PIPELINE.serve, is_declared=False)),
        silent.fetch,
        lambda: silent.now,
    )
    for one in (machine, silent):
        one.end()
        one.learn.of("served").forget("flights.examples", 0)

    assert (machine.look().has_ended, silent.look().has_ended) == (False, True)
    assert silent.look().answers is None


def test_the_league_says_how_often_a_candidate_was_trained() -> None:
    """Only of those that are trained in batches; what failed is no version."""
    machine = Machine()
    train = machine.roles[3] = RoleMetrics("train", "flights")
    for _ in range(3):
        train.of("net").trained("made", 1.0)
    train.of("net").trained("failed", 0.0)
    models = machine.look().models
    rows = table.league(models, is_final=False)
    told = dict(zip(rows.columns[0].cells, map(str, rows.columns[-1].cells), strict=True))

    assert {model.name: model.trainings for model in models if model.trainings is not None} == {
        "net": {"made": 3, "failed": 1}
    }
    assert told["net"] == "3 versions trained"
    assert told["logistic"] == "champion: answers"


def test_examples_in_the_docstrings_run() -> None:
    """The numbers in the docstrings are the numbers the code gives."""
    assert doctest.testmod(overview).failed == doctest.testmod(table).failed == 0


def test_the_league_says_who_is_in_quarantine() -> None:
    """Beside its figures, which go on with what it had learned."""
    machine = Machine()
    for name, is_set_aside in (("tree", True), ("logistic", False)):
        machine.learn.of(name).quarantined(is_set_aside=is_set_aside)
    rows = table.league(machine.look().models, is_final=False)
    names, standings = (rows.columns[at].cells for at in (0, -1))
    told = dict(zip(names, map(str, standings), strict=True))

    assert [name for name, standing in told.items() if "in quarantine" in standing] == ["tree"]
