"""What a running pipeline looks like right now, worked out from the metrics of its processes.

`up` and the demo see what Prometheus would see and nothing else: rates are differences between two looks.
"""

from __future__ import annotations

import math
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from consumers.supervisor import Status
from models.scoring import figure_names
from serving.scrape import NOTHING, Scrape
from streams.pipeline import Model, Pipeline
from streams.scraping import Sample, parse
from streams.served import SERVED, has_served
from streams.stages import stage_specs

FETCH_TIMEOUT_S = 1.0  # a role that compiles or starts may not answer; the next look will show it
RATE_LOOKS = 5  # rates and latencies are taken over this many looks, so that the eye can follow


class ProcessLine(msgspec.Struct, frozen=True):
    """One process. Rates are None until it was seen twice."""

    name: str
    role: str
    state: str
    events_per_s: float | None
    lag_records: int
    cpu_ratio: float | None
    memory_bytes: int
    restarts: int


class ModelLine(msgspec.Struct, frozen=True):
    """One candidate; NaN where nothing is known yet."""

    name: str
    is_champion: bool
    learned: int
    figures: dict[str, float]  # since the start; the task's loss first
    rolling_loss: float
    is_quarantined: bool = False
    trainings: dict[str, int] | None = None  # that have ended, by result; None: it learns from every label

    @property
    def loss(self) -> float:
        """The task's loss since the start."""
        return next(iter(self.figures.values()))


class AnswersLine(msgspec.Struct, frozen=True):
    """What was really answered, scored as a candidate is; NaN where nothing is known yet."""

    scored: int
    figures: dict[str, float]  # since the start; the task's loss first
    rolling_loss: float
    staleness: float  # how much more it lost than the candidates that answered


class Overview(msgspec.Struct, frozen=True):
    """A whole pipeline at one moment."""

    processes: tuple[ProcessLine, ...]
    models: tuple[ModelLine, ...]
    latency_s: tuple[float, float]  # p50 and p99 of the last looks, NaN without predictions
    latency_start_s: tuple[float, float]  # the same since the start
    served: int
    version_examples: int
    version_age_s: float
    pending: int
    dead_letters: dict[str, int]
    accounts: dict[str, dict[str, int]]  # what became of the rows of each account, over all partitions
    unaccounted: int
    repeats: int
    has_ended: bool  # every role and candidate has taken the end of all partitions
    answers: AnswersLine | None = None  # None: they are not scored

    @property
    def champion(self) -> str:
        """Who reigns; of several, while one takes over, the first."""
        return next((model.name for model in self.models if model.is_champion), "nobody")

    def events_per_s(self, role: str) -> float:
        """Events a second of a role, over all its processes."""
        return sum(line.events_per_s or 0.0 for line in self.processes if line.role == role)


class Watch:
    """Looks at the processes again and again.

    Args:
        pipeline: says which candidates and partitions there are.
        fetch: reads /metrics of a port; None when it does not answer.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        fetch: Callable[[int], str | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pipeline, self._fetch, self._clock = pipeline, fetch or fetch_metrics, clock
        self._figures = figure_names(pipeline.task)
        self._looks: deque[tuple[float, dict[str, Scrape]]] = deque(maxlen=RATE_LOOKS)

    def look(self, statuses: Sequence[Status]) -> Overview:
        """Scrape every process that lives (a few ms each) and sum up."""
        found = {status.name: Scrape(self._read(status)) for status in statuses}
        self._looks.append((self._clock(), found))
        everything = Scrape([sample for scrape in found.values() for sample in scrape.samples])
        earlier = Scrape([sample for scrape in self._looks[0][1].values() for sample in scrape.samples])
        buckets, before = _latency_buckets(everything), _latency_buckets(earlier)
        recent = [(bound, count - dict(before).get(bound, 0.0)) for bound, count in buckets]
        return Overview(
            processes=tuple(self._process(status) for status in statuses),
            models=tuple(self._model(everything, model) for model in self._pipeline.models),
            latency_s=(percentile(recent, 0.5), percentile(recent, 0.99)),
            latency_start_s=(percentile(buckets, 0.5), percentile(buckets, 0.99)),
            served=int(everything.sum("millrace_latency_seconds_count", role="serve")),
            version_examples=int(self._of_version(everything, "millrace_version_examples", 0.0)),
            version_age_s=self._of_version(everything, "millrace_version_age_seconds", math.nan),
            pending=int(everything.sum("millrace_pending_events", role="features")),
            dead_letters=everything.by("millrace_dead_letters_total", "reason"),
            accounts=_accounts(everything),
            unaccounted=int(sum(abs(value) for value in everything.values("millrace_unaccounted_rows"))),
            repeats=int(everything.sum("millrace_repeats_total")),
            has_ended=self._has_ended(everything),
            answers=self._answers(everything),
        )

    def _read(self, status: Status) -> list[Sample]:
        text = None if status.pid is None else self._fetch(status.port)
        return [] if text is None else list(parse(text))

    def _process(self, status: Status) -> ProcessLine:
        now, scrapes = self._looks[-1]
        scrape = scrapes[status.name]
        since, earlier = next(
            (look for look in self._looks if look[1].get(status.name, NOTHING).samples), self._looks[-1]
        )
        elapsed_s = now - since
        before = earlier.get(status.name, NOTHING)

        def rate(figure: Callable[[Scrape], float]) -> float | None:
            # A restarted process counts from 0 again.
            return (
                None if elapsed_s <= 0 or not scrape.samples else max(0.0, figure(scrape) - figure(before)) / elapsed_s
            )

        return ProcessLine(
            name=status.name,
            role=status.role,
            state=_state(status, is_ready=scrape.sum("millrace_ready") > 0),
            events_per_s=rate(_events_in),
            lag_records=int(scrape.sum("millrace_lag_records")),
            cpu_ratio=rate(lambda one: one.sum("process_cpu_seconds_total")),
            memory_bytes=int(scrape.sum("process_resident_memory_bytes")),
            restarts=status.restarts,
        )

    def _model(self, everything: Scrape, model: Model) -> ModelLine:
        name = model.name
        of = {"role": "learn", "candidate": name}
        learned, figures, rolling_loss = self._scores(everything, name)
        return ModelLine(
            name=name,
            is_champion=self._is_champion(everything, name),
            learned=learned,
            figures=figures,
            rolling_loss=rolling_loss,
            is_quarantined=everything.sum("millrace_model_quarantined", **of) > 0,
            trainings=None if model.retrain is None else _trainings(everything, name),
        )

    def _answers(self, everything: Scrape) -> AnswersLine | None:
        if not has_served(self._pipeline):
            return None
        return AnswersLine(*self._scores(everything, SERVED), everything.one("millrace_staleness_cost", span="start"))

    def _scores(self, everything: Scrape, name: str) -> tuple[int, dict[str, float], float]:
        """Give examples, figures since the start, and the loss of the last ones."""
        of, quality = {"role": "learn", "candidate": name}, "millrace_model_quality"
        figures = {one: everything.one(quality, figure=one, span="start", **of) for one in self._figures}
        rolling_loss = everything.one(quality, figure=self._figures[0], span="rolling", **of)
        return int(everything.sum("millrace_model_examples", **of)), figures, rolling_loss

    def _is_champion(self, everything: Scrape, name: str) -> bool:
        """Whether it reigns, as serve says; while that says nothing, whether the pipeline file names it."""
        told = everything.values("millrace_champion", role="serve", candidate=name)
        return any(told) if told else name == self._pipeline.serve.champion

    def _of_version(self, everything: Scrape, name: str, unknown: float) -> float:
        """Give a figure of the version that answers: the reigning champion's, or of whoever answers in its place."""
        names = [model.name for model in self._pipeline.models]
        for candidate in sorted(names, key=lambda one: not self._is_champion(everything, one)):
            for value in everything.values(name, role="serve", candidate=candidate):
                return value
        return unknown

    def _has_ended(self, everything: Scrape) -> bool:
        """Whether every role has taken the end; ingest and features too, or their accounts would be of a moment ago."""
        name, partitions = "millrace_mark_seconds", self._pipeline.partitions
        serve, features = (everything.values(name, role=role) for role in ("serve", "features"))
        learners = [*(model.name for model in self._pipeline.models), *([SERVED] if has_served(self._pipeline) else [])]
        learn = [everything.values(name, role="learn", candidate=learner) for learner in learners]
        stages = len(stage_specs(self._pipeline))
        is_whole = len(serve) == partitions and len(features) == stages * partitions and all(learn)
        return is_whole and all(mark == math.inf for mark in everything.values(name))


def percentile(buckets: Sequence[tuple[float, float]], share: float) -> float:
    """Estimate a percentile from cumulative (upper bound, count) pairs, as Prometheus' histogram_quantile does.

    Values above the last finite bound are taken for that bound. NaN when nothing was counted.

    >>> percentile([(0.01, 50.0), (0.02, 100.0), (math.inf, 100.0)], 0.75)
    0.015
    """
    if not buckets or buckets[-1][1] <= 0:
        return math.nan
    rank = share * buckets[-1][1]
    lower = counted = 0.0
    for bound, count in buckets:
        if count >= rank and count > counted:
            return lower if math.isinf(bound) else lower + (bound - lower) * (rank - counted) / (count - counted)
        lower, counted = (lower if math.isinf(bound) else bound), count
    return lower


def fetch_metrics(port: int) -> str | None:
    """Read /metrics of a process on this machine; None when it does not answer in time."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=FETCH_TIMEOUT_S) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return None


def _latency_buckets(scrape: Scrape) -> list[tuple[float, float]]:
    counts: dict[float, float] = {}
    for one in scrape.select("millrace_latency_seconds_bucket", role="serve"):
        bound = float(one.labels["le"])
        counts[bound] = counts.get(bound, 0.0) + one.value
    return sorted(counts.items())


def _trainings(scrape: Scrape, candidate: str) -> dict[str, int]:
    ended = scrape.select("millrace_trainings_total", role="train", candidate=candidate)
    return {one.labels["result"]: int(one.value) for one in ended}


def _accounts(scrape: Scrape) -> dict[str, dict[str, int]]:
    accounts: dict[str, dict[str, int]] = {}
    for one in scrape.select("millrace_account_rows"):
        states = accounts.setdefault(one.labels["account"], {})
        states[one.labels["state"]] = states.get(one.labels["state"], 0) + int(one.value)
    return accounts


def _events_in(scrape: Scrape) -> float:
    """Events taken; candidates that share a process all take the same ones."""
    counts: dict[str, float] = {}
    for one in scrape.select("millrace_rows_in_total", kind="event"):
        counts[one.labels["candidate"]] = counts.get(one.labels["candidate"], 0.0) + one.value
    return max(counts.values(), default=0.0)


def _state(status: Status, *, is_ready: bool) -> str:
    if status.retry_in_s is not None:
        return "stopped" if math.isinf(status.retry_in_s) else f"again in {status.retry_in_s:.0f} s"
    return "up" if is_ready else "starting"
