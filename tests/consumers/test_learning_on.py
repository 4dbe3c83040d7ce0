"""A `torch:mlp` with `then = "learn"`: the compiled perceptron goes on from the trained weights, and is published."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from consumers.learn import LearnTask
from consumers.learn_role import LearnRole
from consumers.role import OpenPartition
from consumers.version_rows import version_row
from models.learner import Matrix, Vector
from models.mlp import MlpLearner
from models.networks import make_network
from models.preparation import Preparation
from models.registry import read_version, versions_of, write_trained
from models.torch_learner import TorchLearner, as_online, state_of
from models.training_job import Job, Result, Training
from models.version import Version, decode_record
from models.version_file import digest_of
from models.weights_file import encode
from streams import frames
from streams.control import Control
from streams.features import columns
from streams.frames import EVENT, LABEL, NO_OUTCOME, SET, Batch
from streams.metrics import RoleMetrics
from streams.pipeline import Model, Pipeline, Task
from streams.retraining import Archive, Retrain
from streams.state_folder import LocalFolder
from streams.tables import Table, join
from tests.memory_kafka import Broker, MemoryControlLog, MemoryOutbox
from tests.rows import pipeline

MODEL = Model("net", "torch:mlp", {"hidden": (6,), "bits": 4}, retrain=Retrain(then="learn"))
ROWS = 60


class Desk:
    """A learn role of `net`, its task, and what it wrote."""

    def __init__(self, directory: Path, model: Model = MODEL) -> None:
        self.pipeline: Pipeline = pipeline(state=directory, models=(model,), archive=Archive())
        self.columns = columns(self.pipeline)
        self.schema = frames.examples_schema(self.columns)
        self.broker = Broker(lambda: 0.0, {})
        self.control = Control(MemoryControlLog(self.broker, "p.control"))
        outbox = MemoryOutbox(self.broker)
        self.role = LearnRole(self.pipeline, model, self.control, outbox, RoleMetrics("learn", "p"))
        self.task = self.made()

    def made(self) -> LearnTask:
        return self.role.task(self.role.inlet("p.examples", 0, []), 0, [], 0)

    def process(self, rows: Table) -> None:
        clock = np.zeros(rows.num_rows, np.int64)
        self.task.process(Batch(rows, clock, clock))

    def published(self) -> Version | None:
        self.role.tick(10**15, [cast("OpenPartition", SimpleNamespace(task=self.task))])
        self.role._tried_us = None
        self.control.refresh()
        found = self.control.versions.get("net")
        return None if found is None else decode_record(found)

    def records(self) -> list[tuple[int, str, bytes | None]]:
        """All of P.control."""
        return MemoryControlLog(self.broker, "p.control").read_new()

    def trained(self, lineage: int = 1) -> Version:
        """Write a network with weights of its own as a version."""
        import torch

        torch.manual_seed(lineage)
        X, _ = self.rows()
        model = self.pipeline.models[0]
        preparation = Preparation.fit(X, self.columns, model)
        network = make_network(model, preparation.sizes, Task())
        payload = encode(state_of(network, preparation), {})
        job = Job("net", model, self.columns, Task(), str(self.pipeline.state), lineage=lineage)
        result = Result("model.safetensors", digest_of(payload), Training(70, 0, 1, 2))
        return write_trained(LocalFolder(self.pipeline.state), job, result, payload)

    def rows(self, start: int = 0) -> tuple[Matrix, Vector]:
        rng = np.random.default_rng(start)
        X = rng.normal(size=(ROWS, len(self.columns)))
        X[:, [column.is_category for column in self.columns]] = rng.integers(0, 5, (ROWS, 1))
        return X, (X[:, 0] > 0).astype(float)

    def table(self, start: int = 0) -> Table:
        """Events, then their labels."""
        X, y = self.rows(start)
        values: dict[str, Any] = {
            "kind": np.repeat([EVENT, LABEL], ROWS),
            "source": np.zeros(2 * ROWS),
            "number": np.tile(start + np.arange(ROWS), 2),
            "time": np.zeros(2 * ROWS),
            "label": np.concatenate([np.full(ROWS, np.nan), y]),
            "outcome": np.repeat([NO_OUTCOME, SET], ROWS),
            "vector": np.tile(X, (2, 1)),
        }
        return frames.build(self.schema, values, 2 * ROWS)


def test_it_goes_on_from_the_trained_weights_which_are_published_until_it_has_learned(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.process(desk.table())
    untrained = desk.published()
    version = desk.trained()
    desk.process(version_row(desk.schema, version, 2))
    unlearned = desk.published()
    trained = read_version(tmp_path, version)
    assert isinstance(trained, TorchLearner)
    expected = as_online(trained.state(), MODEL, desk.columns, Task())
    desk.process(desk.table(ROWS))
    X, y = desk.rows(ROWS)
    expected.learn(X, y)
    published = desk.published()

    assert untrained is None
    assert unlearned is not None
    assert (unlearned.order, unlearned.blob) == (version.order, version.blob)
    assert desk.task.version == (1, 70 + ROWS)
    assert published is not None
    assert (published.order, published.kind, published.columns) == ((1, 70 + ROWS), "mlp", desk.columns)
    found = read_version(tmp_path, published)
    assert isinstance(found, MlpLearner)
    assert np.array_equal(found.predict(X), expected.predict(X))
    assert np.array_equal(desk.task.learner.predict(X), expected.predict(X))


def test_its_snapshots_restore_it_bit_for_bit_without_the_trained_file(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    version = desk.trained()
    desk.process(join([version_row(desk.schema, version, 2), desk.table()]))
    before = desk.task
    (tmp_path / version.blob).unlink()
    desk.task = desk.made()
    desk.task.restore(before.state())
    for task in (before, desk.task):
        rows = desk.table(ROWS)
        clock = np.zeros(rows.num_rows, np.int64)
        task.process(Batch(rows, clock, clock))

    ours, theirs = desk.task.state(), before.state()
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert np.array_equal(ours[name], theirs[name], equal_nan=ours[name].dtype.kind == "f"), name


@pytest.mark.parametrize("then", ["freeze", "learn"])
def test_a_snapshot_from_before_the_first_training_is_of_the_untrained_model(then: str, tmp_path: Path) -> None:
    model = msgspec.structs.replace(MODEL, retrain=Retrain(then=cast("Any", then)))
    desk = Desk(tmp_path, model)
    desk.process(desk.table())
    state = desk.task.state()
    desk.task = desk.made()
    desk.task.restore(state)

    assert desk.task.version == (0, 0)
    assert desk.task.learner.predict(desk.rows()[0]).tolist() == [0.5] * ROWS
    assert desk.published() is None


def test_a_frozen_candidate_that_begins_anew_takes_up_what_its_rows_still_announce(tmp_path: Path) -> None:
    """Its versions come from trainings, not from what it has read."""
    frozen = Desk(tmp_path, msgspec.structs.replace(MODEL, retrain=Retrain()))
    version = frozen.trained()
    frozen.process(version_row(frozen.schema, version, 2))
    assert frozen.published() is not None
    anew = frozen.made()
    frozen.role.renew(anew, frozen.task.state(), "the input was cut by retention")
    clock = np.zeros(1, np.int64)
    anew.process(Batch(version_row(frozen.schema, version, 2), clock, clock))

    assert anew.version == version.order


def test_one_that_learns_on_begins_anew_from_the_file_it_had_or_from_its_rows(tmp_path: Path) -> None:
    """Its lineages are its trainings': a row of one that it has been is not passed over."""
    desk = Desk(tmp_path)
    version = desk.trained(3)
    desk.process(join([version_row(desk.schema, version, 2), desk.table()]))
    given_up, (X, _) = desk.task.state(), desk.rows()
    expected = as_online(read_version(tmp_path, version).state(), MODEL, desk.columns, Task())
    with_state, without = desk.made(), desk.made()
    desk.role.renew(with_state, given_up, "the input was cut by retention")
    desk.role.renew(without, {"version": np.array([3, 70 + ROWS])}, "it was rebuilt")
    orders = with_state.version, without.version
    clock = np.zeros(1, np.int64)
    without.process(Batch(version_row(desk.schema, version, 2), clock, clock))
    told = [msgspec.json.decode(record.value_ or b"") for record in desk.broker.logs["p.decisions", 0]]

    assert orders == ((3, 70), (0, 0))
    assert [(one["lineage"], one.get("trained")) for one in told] == [(3, "3.70"), (0, None)]
    for task in (with_state, without):
        assert task.version == (3, 70)
        assert np.array_equal(task.learner.predict(X), expected.predict(X))


@pytest.mark.parametrize(("then", "now"), [("freeze", "learn"), ("learn", "freeze")])
def test_another_then_goes_on_from_the_trained_file(then: str, now: str, tmp_path: Path) -> None:
    """What was learned since the training is of another kind of model, and is given up; what waits for labels stays."""
    before = Desk(tmp_path, msgspec.structs.replace(MODEL, retrain=Retrain(then=cast("Any", then))))
    version = before.trained()
    before.process(join([version_row(before.schema, version, 2), before.table()]))
    state = before.task.state()
    desk = Desk(tmp_path, msgspec.structs.replace(MODEL, retrain=Retrain(then=cast("Any", now))))
    desk.task.restore(state)
    trained = read_version(tmp_path, version)
    expected = as_online(trained.state(), MODEL, desk.columns, Task()) if now == "learn" else trained
    X, y = desk.rows(ROWS)

    assert desk.task.version == version.order
    assert np.array_equal(desk.task.learner.predict(X), expected.predict(X))
    assert desk.task.board.pending() == before.task.board.pending()
    desk.process(desk.table(ROWS))
    expected.learn(X, y)
    assert np.array_equal(desk.task.learner.predict(X), expected.predict(X))
    assert desk.task.version == (1, 70 + ROWS * (now == "learn"))
    again = desk.made()
    again.restore(desk.task.state())
    assert again.version == desk.task.version


def test_rows_that_are_read_again_take_back_nothing_that_was_published(tmp_path: Path) -> None:
    """Whoever follows P.control never comes to an older model; a newer one is published as ever."""
    desk = Desk(tmp_path, msgspec.structs.replace(MODEL, retrain=Retrain()))
    first, second, third = (desk.trained(lineage) for lineage in (1, 2, 3))
    desk.process(version_row(desk.schema, second, 2))
    desk.published()
    desk.task, found = desk.made(), []
    for version in (first, second, third):
        desk.process(version_row(desk.schema, version, 2))
        published = desk.published()
        found.append((desk.task.version, None if published is None else published.order))
    orders = [decode_record(value or b"").order for _, key, value in desk.records() if key == "version/net"]

    assert found == [((1, 70), (2, 70)), ((2, 70), (2, 70)), ((3, 70), (3, 70))]
    assert orders == sorted(orders)


def test_a_frozen_version_tells_its_figures_again_once_a_minute_and_stays_the_same_file(tmp_path: Path) -> None:
    desk = Desk(tmp_path, msgspec.structs.replace(MODEL, retrain=Retrain()))
    version = desk.trained()
    desk.process(join([version_row(desk.schema, version, 2), desk.table()]))
    station = cast("OpenPartition", SimpleNamespace(task=desk.task))
    found = []
    for now_s, start in ((0, None), (30, ROWS), (61, None), (200, None), (300, 2 * ROWS)):
        if start is not None:
            desk.process(desk.table(start))
        desk.role.tick(now_s * 1_000_000, [station])
        desk.control.refresh()
        found.append(decode_record(desk.control.versions["net"]).figures["labels"])

    assert found == [ROWS, ROWS, 2 * ROWS, 2 * ROWS, 3 * ROWS]
    assert decode_record(desk.control.versions["net"]).blob == version.blob
    [kept] = versions_of(tmp_path, "net")
    assert (kept.figures["labels"], kept.digest) == (3 * ROWS, version.digest)
