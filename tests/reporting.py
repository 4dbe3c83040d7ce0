"""Whole pipelines for tests of reports: events with late labels, learned by real candidates, archived and served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from consumers.learn import LearnTask
from models.learner import LEARN, PREDICT, SKIP, make_learner
from models.registry import write_version
from streams.archive_store import ArchiveStore
from streams.archiver import Archiver
from streams.computed_steps import category_number
from streams.decoding import texts
from streams.frames import EVENT, LABEL, MISSING, NO_OUTCOME, SET, Batch, Column, build, examples_schema
from streams.pipeline import Field, Model, Pipeline, Serve, Task
from streams.tables import Table
from tests import rows

HOUR_US = 3_600_000_000
START_US = 1_700_000_000_000_000
COLUMNS = (Column("amount", False), Column("shop", True), Column("is_new", False), Column("miles", False))
SHOPS = ("north", "south", "east", "west & <b>more</b>")
CLASSES_OF = {"multiclass": ("low", "middle", "high")}
KINDS = {
    "binary": ("linear", "naive_bayes", "prior"),
    "multiclass": ("linear", "naive_bayes", "prior"),
    "regression": ("linear", "prior"),
    "anomaly": ("half_space_trees", "prior"),
    "clustering": ("kmeans", "prior"),
}
BATCH = 500


class MemoryTopics:
    """Topics as lists of values, and rows of the log."""

    def __init__(self) -> None:
        self.lists: dict[str, list[bytes]] = {"scores": [], "predictions": []}
        self.rows: list[dict[str, Any]] = [{"kind": "event", "field.shop": shop} for shop in SHOPS]

    def values(self, what: str) -> Iterator[bytes]:
        yield from self.lists[what]

    def logged(self) -> Iterator[dict[str, Any]]:
        yield from self.rows


class Happened(NamedTuple):
    """N events: features, label (NaN: none came), when, and when their label row came."""

    X_NF: npt.NDArray[np.float64]
    label_N: npt.NDArray[np.float64]
    time_us_N: npt.NDArray[np.int64]
    known_us_N: npt.NDArray[np.int64]


class Made(NamedTuple):
    """A pipeline with all that a report reads; `said` are each candidate's predictions at event time."""

    pipeline: Pipeline
    topics: MemoryTopics
    happened: Happened
    said: dict[str, npt.NDArray[np.float64]]


def happened(kind: str, events: int = 4_000, seed: int = 0) -> Happened:
    """Make up events a minute apart, whose third feature says nothing; one label in twenty never comes."""
    rng = np.random.default_rng(seed)
    X_NF = rng.normal(size=(events, len(COLUMNS)))
    codes = np.array([category_number(shop) for shop in SHOPS])
    shop = rng.choice(len(SHOPS), events, p=[0.5, 0.3, 0.15, 0.05])
    X_NF[:, 1] = codes[shop]
    X_NF[:, 3] += np.linspace(0.0, 2.0, events)  # drifts
    score = 1.5 * X_NF[:, 0] + 0.8 * (shop - 1.0) + rng.normal(scale=0.7, size=events)
    label = score.copy()
    if kind in ("binary", "anomaly"):
        label = (score > (0.5 if kind == "binary" else 3.0)).astype(float)
    elif kind == "multiclass":
        label = np.digitize(score, [-0.5, 1.0]).astype(float)
    X_NF[rng.random(events) < 0.1, 0] = np.nan
    label[(rng.random(events) < 0.05) | (kind == "clustering")] = np.nan
    time_us = START_US + np.arange(events) * 60_000_000
    return Happened(X_NF, label, time_us, time_us + rng.integers(1, 180, events) * 60_000_000)


def make(
    tmp_path: Path, kind: str = "binary", size: int = 4_000, found: Happened | None = None, **changes: Any
) -> Made:
    """Make a pipeline and let its candidates see all events."""
    task = Task(kind, CLASSES_OF.get(kind, ()))  # type: ignore[arg-type]  # its name
    models = tuple(Model(one, one, {}) for one in KINDS[kind])
    declared = rows.events(fields=tuple(
        Field(column.name, "category" if column.is_category else "number", (column.name,)) for column in COLUMNS
    ))  # fmt: skip
    parts = {"task": task, "models": models, "events": declared, "serve": Serve(models[0].name), "state": tmp_path}
    pipeline = rows.pipeline(**{**parts, **changes})
    return fill(pipeline, found or happened(kind, size))


def fill(pipeline: Pipeline, seen: Happened) -> Made:
    """Let a pipeline's candidates see all events, and fill archive and topics."""
    topics, examples_ = MemoryTopics(), examples(seen, columns_of(pipeline))
    said = {model.name: learn(pipeline, model, examples_, topics) for model in pipeline.models}
    write_archive(pipeline, examples_)
    topics.lists["predictions"] = answers(pipeline, seen, said[pipeline.serve.champion])
    return Made(pipeline, topics, seen, said)


def columns_of(pipeline: Pipeline) -> tuple[Column, ...]:
    """The columns of its raw features."""
    return tuple(Column(field.name, field.kind == "category") for field in pipeline.events.fields)


def order_of(seen: Happened) -> npt.NDArray[np.int64]:
    """The order of event rows (below N) and label rows (from N on) by time."""
    return np.argsort(np.concatenate([seen.time_us_N, seen.known_us_N]), kind="stable")


def examples(seen: Happened, columns: tuple[Column, ...]) -> Table:
    """The rows of P.examples; events are numbered in two sources in turn."""
    size, order = seen.label_N.size, order_of(seen)
    at, is_label = order % size, order >= size
    label = np.where(is_label, seen.label_N[at], np.nan)
    parts = {
        "kind": np.where(is_label, LABEL, EVENT),
        "source": 10 + at % 2,
        "number": at // 2,
        "time": np.where(is_label, seen.known_us_N[at], seen.time_us_N[at]),
        "label": label,
        "outcome": np.where(is_label, np.where(np.isnan(label), MISSING, SET), NO_OUTCOME),
        "id": texts([f"e{one}" for one in at.tolist()]),
        "key": texts([f"k{one % 7}" for one in at.tolist()]),
        "vector": seen.X_NF[at],
    }
    return build(examples_schema(columns), parts, at.size)


def batches(rows: Table) -> Iterator[Batch]:
    """Cut rows as a worker gets them."""
    for start in range(0, rows.num_rows, BATCH):
        part = rows.slice(start, min(BATCH, rows.num_rows - start))
        clock = np.maximum.accumulate(part.numbers("time"))
        yield Batch(part, clock, clock)


def learn(pipeline: Pipeline, model: Model, rows: Table, topics: MemoryTopics) -> npt.NDArray[np.float64]:
    """Let a candidate predict and learn all rows, publish its losses and its version; gives what it said of each."""
    columns, task = columns_of(pipeline), pipeline.task
    learning = LearnTask(model.name, make_learner(model, columns, None, task), columns, task=task)
    for batch in batches(rows):
        topics.lists["scores"] += [v for out in learning.process(batch) for v in out.values.unpack()]
    about = learning.about("")
    version = write_version(
        pipeline.state, model, columns, learning.learner, learning.version, START_US, task=task, about=about
    )
    assert version is not None
    is_label, label = rows.numbers("kind") == LABEL, rows.numbers("label")
    learns = is_label & (np.isfinite(label) | task.is_unsupervised)
    action = np.where(is_label, np.where(learns, LEARN, SKIP), PREDICT).astype(np.int8)
    said = make_learner(model, columns, None, task).step(rows.matrix(), label, action)[~is_label]
    event = 2 * rows.numbers("number")[~is_label] + rows.numbers("source")[~is_label] - 10
    ordered: npt.NDArray[np.float64] = said[np.argsort(event)]
    return ordered


def write_archive(pipeline: Pipeline, rows: Table) -> None:
    """Archive all label rows, as the role does, and what waits for more."""
    archiver = Archiver(columns_of(pipeline), pipeline.task.classes, 100 * HOUR_US)
    store = ArchiveStore(pipeline.state, HOUR_US)
    closed = [one for batch in batches(rows) for one in archiver.take(batch)]
    for one in [*closed, *archiver._close()]:
        store.put(one)


def answers(pipeline: Pipeline, seen: Happened, said: npt.NDArray[np.float64]) -> list[bytes]:
    """The answers that serve would have published for all events."""
    task, made = pipeline.task, []
    for i, score in enumerate(said.reshape(len(said), -1).tolist()):
        one: dict[str, Any] = {"id": f"e{i}", "key": f"k{i % 7}", "time_us": int(seen.time_us_N[i])}
        if task.classes:
            best = int(np.argmax(score))
            one |= {"prediction": task.classes[best], "probabilities": dict(zip(task.classes, score, strict=True))}
        elif task.kind == "regression":
            one |= {"prediction": score[0]}
        elif task.kind == "clustering":
            one |= {"prediction": int(score[0]), "distance": float(np.sqrt(score[1]))}
        else:
            name = "score" if task.kind == "anomaly" else "probability"
            one |= {"prediction": int(score[0] >= task.threshold), name: score[0]}
        answered = {
            "model": pipeline.serve.champion,
            "version": "0.1",
            "generation": 0,
            "partition": i % 2,
            "number": i // 2,
        }
        made.append(msgspec.json.encode(one | answered | {"latency_ms": 3.5}))
    return made
