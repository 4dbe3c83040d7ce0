"""The learn role: what happens around a candidate."""

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
from models.registry import versions_of
from models.version import decode_record
from streams import frames
from streams.control import Control
from streams.decisions import Succession
from streams.errors import UnavailableError
from streams.features import columns
from streams.metrics import RoleMetrics
from streams.pipeline import Field
from streams.records import HeldRecords, Record
from streams.state_folder import LocalFolder
from tests.memory_kafka import Broker, MemoryControlLog, MemoryOutbox
from tests.rows import batch_of, pipeline
from tests.streams.test_decisions import MemoryDecisions, promoted


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


def test_a_version_that_a_store_does_not_take_is_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning goes on; the same model is tried again at the next interval, and no record names what is not there."""
    declared = pipeline(state=tmp_path)
    broker, metrics = Broker(lambda: 0.0, {}), RoleMetrics("learn", "p")
    control = Control(MemoryControlLog(broker, "p.control"))
    role = LearnRole(declared, declared.models[0], control, MemoryOutbox(broker), metrics)
    task = role.task(role.inlet("p.examples", 0, []), 0, [], 0)
    assert isinstance(task, LearnTask)
    task.examples_seen = 5
    station = cast("OpenPartition", SimpleNamespace(task=task))

    def refuse(*_: Any) -> None:
        raise UnavailableError("cannot write s3://bucket/models/prior: away")

    with monkeypatch.context() as patch:
        patch.setattr(LocalFolder, "publish", refuse)
        with pytest.raises(UnavailableError):
            role.tick(0, [station])
        role.tick(int(declared.run.publish_every_s * 1e6) - 1, [station])
    control.refresh()
    without = dict(control.versions)
    role.tick(1_000_000_000, [station])  # 20 times as long as the first try took, which on a busy machine is a while
    control.refresh()

    assert without == {}
    assert decode_record(control.versions["prior"]).examples == 5
    labels = {"pipeline": "p", "role": "learn", "candidate": "", "what": "version_unwritten"}
    assert metrics.registry.get_sample_value("millrace_incidents_total", labels) == 1.0


def test_what_learned_an_amended_label_is_published_with_the_next_example(tmp_path: Path) -> None:
    """Until then no number of examples names it."""
    declared = pipeline(state=tmp_path)
    broker = Broker(lambda: 0.0, {})
    control = Control(MemoryControlLog(broker, "p.control"))
    role = LearnRole(declared, declared.models[0], control, MemoryOutbox(broker), RoleMetrics("learn", "p"))
    task = role.task(role.inlet("p.examples", 0, []), 0, [], 0)
    station = cast("OpenPartition", SimpleNamespace(task=task))
    found = []
    for now_us, (examples, is_at_example) in enumerate([(5, False), (5, True)]):
        task.examples_seen, task.is_at_example = examples, is_at_example
        role.tick(now_us, [station])
        control.refresh()
        found.append("prior" in control.versions)

    assert found == [False, True]


def test_each_version_names_the_one_published_before_it_as_its_parent(tmp_path: Path) -> None:
    """Also in a process that reads nothing in between; one that another process published again keeps its own."""
    declared = pipeline(state=tmp_path)
    broker, found = Broker(lambda: 0.0, {}), []
    for life in ((5, 9), (9, 14, 20)):
        control = Control(MemoryControlLog(broker, "p.control"))
        role = LearnRole(declared, declared.models[0], control, MemoryOutbox(broker), RoleMetrics("learn", "p"))
        task = role.task(role.inlet("p.examples", 0, []), 0, [], 0)
        station = cast("OpenPartition", SimpleNamespace(task=task))
        for place, examples in enumerate(life):
            task.examples_seen = examples
            role.tick(place * 10**12, [station])
    for _, _, value in MemoryControlLog(broker, "p.control").read_new():
        version = decode_record(value or b"")
        found.append((version.number, version.parent))

    assert found == [("0.5", ""), ("0.9", "0.5"), ("0.9", "0.5"), ("0.14", "0.9"), ("0.20", "0.14")]
    assert {version.number: version.parent for version in versions_of(tmp_path, "prior")} == dict(found)


def test_a_model_stays_bound_to_the_columns_it_was_made_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Under another list it is given these by name, and publishes versions for them; what is gone is missing."""
    broker, old = Broker(lambda: 0.0, {}), pipeline(state=tmp_path)
    control = Control(MemoryControlLog(broker, "p.control"))
    fields = old.events.fields
    new = msgspec.structs.replace(
        old, events=msgspec.structs.replace(old.events, fields=(Field("more", "number", ("more",)), *fields[:0:-1]))
    )
    roles = [LearnRole(of, of.models[0], control, MemoryOutbox(broker), RoleMetrics("learn", "p")) for of in (old, new)]
    before, inlet = roles[0].task(roles[0].inlet("p.examples", 0, []), 0, [], 0), roles[1].inlet("p.examples", 0, [])
    after = roles[1].task(inlet, 0, [], 0)
    written = frames.examples_schema(columns(new))
    control.announce(written)
    row = {"kind": "event", "vector": [9.0, 3.0, 1.0, 7.0]}  # more, miles, is_new, shop
    records = HeldRecords(
        "p.examples",
        0,
        [Record(batch_of(written, [row]).message(), 0, 0, None, [("millrace-schema", written.fingerprint.encode())])],
    )

    after.restore(before.state())

    assert after.columns == columns(old)
    told = "no longer declared, and so missing: amount; not among them: more"
    assert caplog.messages == [f"prior: goes on with the 4 columns it was made for; {told}"]
    np.testing.assert_array_equal(inlet.decode(records).rows.matrix(), [[np.nan, 7.0, 1.0, 3.0]])
    after.examples_seen = 1
    roles[1].publish(after)
    control.refresh()
    assert decode_record(control.versions["prior"]).columns == columns(old)


def test_whoever_reigns_publishes_often(tmp_path: Path) -> None:
    """From the decision on, though the file names another champion; one that reigns no more publishes like any."""
    declared = pipeline(state=tmp_path)
    log, control = MemoryDecisions(), Control(MemoryControlLog(Broker(lambda: 0.0, {}), "p.control"))
    succession = Succession("other", ("other", "prior"), log)
    role = LearnRole(
        declared, declared.models[0], control, MemoryOutbox(Broker(lambda: 0.0, {})), RoleMetrics("learn", "p"),
        succession,
    )  # fmt: skip
    task = role.task(role.inlet("p.examples", 0, []), 0, [], 0)
    assert isinstance(task, LearnTask)
    station, every_us, seen = cast("OpenPartition", SimpleNamespace(task=task)), 10_000_000, []
    for step in range(24):
        log.come += [promoted("1", "", "prior")] if step == 8 else []
        log.come += [promoted("2", "1", "other")] if step == 16 else []
        task.examples_seen += 1
        role.tick(step * every_us, [station])
        control.refresh()
        seen.append(decode_record(control.versions["prior"]).examples)

    assert seen == [1, 1, 1, 1, 1, 1, 7, 7, *range(9, 17), 16, 16, 16, 16, 16, 22, 22, 22]
    assert len(list((tmp_path / "models" / "prior").glob("*.kept"))) == 1  # the version with which it began to reign
