"""The learn role: what happens around a candidate."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from consumers.learn import LearnTask
from consumers.roles import LearnRole
from streams.control import Control
from streams.metrics import RoleMetrics
from tests.memory_kafka import Broker, MemoryControlLog, MemoryOutbox
from tests.rows import pipeline


def test_a_candidate_that_begins_anew_is_a_new_lineage_and_a_decision(tmp_path: Path) -> None:
    """Its old predictions cannot be scored any more, and whoever compares must know (PROTOCOL 22)."""
    broker = Broker(lambda: 0.0, {})
    outbox = MemoryOutbox(broker)
    declared = pipeline(state=tmp_path)
    control = Control(MemoryControlLog(broker, "p.control"))
    role = LearnRole(declared, declared.models[0], control, outbox, RoleMetrics("learn", "p"))
    inlet = role.inlet("p.examples", 0, [])
    task = role.task(inlet, 0, [], 1)

    role.renew(task, {"version": np.array([2, 500])}, "the input was cut by retention: snapshot at 1, earliest is 9")

    assert isinstance(task, LearnTask)
    assert task.version == (3, 0)
    (record,) = broker.logs["p.decisions", 0]
    found = msgspec.json.decode(record.value_ or b"")
    assert found.pop("time_us") > 0
    assert found == {
        "decision": "restarted",
        "candidate": "prior",
        "lineage": 3,
        "generation": 1,
        "reason": "the input was cut by retention: snapshot at 1, earliest is 9",
    }
