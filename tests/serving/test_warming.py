"""Warming: after it, no row of a stream waits for a compiler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consumers.learn_role import LearnRole
from consumers.warming import NoOutbox, warm
from models import linear_kernels, pending
from serving import answers, key_rows, key_script
from serving.champion import Champion
from serving.predict import ServeRole
from streams import features, frames
from streams.control import Control
from streams.frames import Batch, FrameSchema
from streams.metrics import RoleMetrics
from streams.pipeline import Model
from tests.memory_kafka import Broker, MemoryControlLog
from tests.rows import batch_of, claim_of, pipeline

LINEAR = Model("linear", "linear", {})
PIPELINE = pipeline(models=(LINEAR,))
COLUMNS = features.columns(PIPELINE)


def serve(control: Control) -> ServeRole:
    metrics = RoleMetrics("serve", "p")
    champion = Champion([LINEAR], COLUMNS, Path("nowhere"), control, metrics)
    return ServeRole("", frames.features_schema(COLUMNS), control, champion, metrics, "earliest")


def learn(control: Control) -> LearnRole:
    return LearnRole(PIPELINE, LINEAR, control, NoOutbox(), RoleMetrics("learn", "p"))


def compiled() -> dict[str, int]:
    """Count the types of arguments that each kernel has been compiled for."""
    modules = (answers, key_rows, key_script, linear_kernels, pending)
    kernels = [kernel for module in modules for kernel in vars(module).items()]
    return {name: len(kernel.signatures) for name, kernel in kernels if hasattr(kernel, "signatures")}


def received(schema: FrameSchema, rows: list[dict[str, Any]]) -> Batch:
    """Rows as they come out of Kafka."""
    payload = batch_of(schema, rows).message()
    clock = np.zeros(len(rows), np.int64)
    return Batch(frames.decode(payload, schema), clock, clock)


@pytest.mark.parametrize("make", [serve, learn])
def test_a_warmed_role_compiles_nothing(make: Callable[[Control], Any]) -> None:
    """Whatever stands between the events, and whichever of them are left out."""
    warm(make, PIPELINE)
    warmed = compiled()
    control = Control(MemoryControlLog(Broker(lambda: 0.0, {}), "p.control"))
    source = control.claim(claim_of(topic_id="log", siblings=1))
    role = make(control)
    task = role.task(role.inlet("", 0, [source]), 0, [source], 0)
    vector = np.arange(len(COLUMNS)) * 1.0
    event: dict[str, Any] = {
        "kind": "event", "source": source, "time": 5, "id": "e", "key": "k", "produced": 1, "vector": vector
    }  # fmt: skip
    mark: dict[str, Any] = {"kind": "mark", "source": source, "time": 5}
    rows = [{**event, "number": number, "sequence": number} for number in range(4)]
    task.process(received(role.reads, rows[:1]))
    if make is serve:
        task.answered([b'{"generation":0,"partition":0,"number":2}'])

    assert len(task.process(received(role.reads, [mark, rows[1], mark, *rows[2:], mark]))) == (make is serve)
    assert compiled() == warmed
    assert len(warmed) >= 5


def test_a_warmed_store_compiles_nothing() -> None:
    """The first answers go to Redis without a compiler, whether they lie side by side or not."""
    form = key_script.form_of("p", [column.name for column in COLUMNS], 1_000, "t1")
    key_script.warm(form)
    warm(serve, PIPELINE)
    warmed = compiled()
    control = Control(MemoryControlLog(Broker(lambda: 0.0, {}), "p.control"))
    source = control.claim(claim_of(topic_id="log", siblings=1))
    role, kept = serve(control), list[key_rows.KeyRows]()
    role._keep = kept.append
    task = role.task(role.inlet("", 0, [source]), 0, [source], 0)
    event: dict[str, Any] = {"kind": "event", "source": source, "time": 5, "id": "e", "key": "k", "produced": 1}
    mark: dict[str, Any] = {"kind": "mark", "source": source, "time": 5}
    rows = [{**event, "number": number, "sequence": number, "vector": np.zeros(len(COLUMNS))} for number in range(3)]
    for batch in ([rows[0]], [rows[1], mark, rows[2]]):
        task.process(received(frames.features_schema(COLUMNS), batch))
    calls, count = key_script.render_calls(key_rows.newest(kept).part(0, 1), form)

    assert (count, b'"number":2,' in bytes(calls)) == (1, True)
    assert compiled() == warmed
    assert {"newest_kernel", "gather_kernel", "calls_kernel"} <= warmed.keys()
