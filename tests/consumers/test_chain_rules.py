"""The protocol's rules in a chain of stages, one test a sentence; docs/exactness.md says which rule is tested where."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from consumers.chain_tasks import MiddleTask
from streams import frames
from streams.control import Claim, Control
from streams.features import columns
from streams.frames import MARK, SCHEMA_HEADER
from streams.metrics import RoleMetrics
from streams.pipeline import Feature
from tests.aggregate_reference import Row
from tests.chain_reference import partition_of
from tests.chaining import by_partition, real_stages, run_chain, schema_of
from tests.consumers.test_chain import FIELDS, chain, placed
from tests.featurizing import SECOND, START, event, label, mark, mark_clocks, random_rows
from tests.memory_kafka import MemoryControlLog
from tests.rows import events
from tests.workers import Office

MINUTE = 60 * SECOND
SET, MISSING = 0, 1
OF_SHOP = (
    Feature("n_key", "count", "*", "key", MINUTE),
    Feature("n", "count", "*", "shop", MINUTE),
    Feature("since", "elapsed", "*", "shop"),
    Feature("last", "last", "amount", "shop"),
    Feature("before", "lag", "amount", "shop"),
    Feature("faded", "ewm_mean", "amount", "shop", half_life_us=MINUTE),
    Feature("labels", "count", "label", "shop", MINUTE, is_label=True),
)


class Written(NamedTuple):
    """What every stage wrote: rows by stage, and the partition that each went to."""

    stages: list[list[tuple[int, Row]]]
    names: list[str]

    def vector(self, id_: str) -> dict[str, float]:
        """An event's columns as they leave the last stage."""
        (found,) = [row["vector"] for _, row in self.stages[-1] if row["kind"] == 0 and row["id"] == id_]
        return dict(zip(self.names, found, strict=True))

    def outcomes(self, stage: int) -> list[tuple[str, int]]:
        """Ids and outcomes of the label rows that a stage wrote."""
        return [(row["id"], row["outcome"]) for _, row in self.stages[stage] if row["kind"] == 1]


def write(rows: list[Row], features: tuple[Feature, ...] = OF_SHOP, **changes: object) -> Written:
    """Take rows through a chain, by time where partitions meet."""
    of = chain(features, raw=False, **{"partitions": 2, **changes})  # type: ignore[arg-type]
    written = run_chain(of, real_stages(of), by_partition(of, rows, mark_clocks(rows)), None, 4)
    return Written(
        [[(target, row) for (_, target), found in stage.items() for row in found] for stage in written],
        [column.name for column in columns(of)],
    )


# Rule 9: order


def test_what_one_row_settles_leaves_every_stage_by_deadline_then_log_order() -> None:
    """Not in the order of ids, hashes or events: one mark settles them all."""
    times = {"d": 2, "b": 1, "a": 0, "c": 1, "e": 1}
    rows = [event(id_, at, shop="s", place="p") for id_, at in times.items()]

    written = write([*rows, mark(200)])

    for stage in range(len(written.stages)):
        assert written.outcomes(stage) == [(id_, MISSING) for id_ in "abced"]


def digest_of_a_chain() -> str:
    """Of everything that a chain writes of a hostile stream."""
    of = chain(wait_us=20 * SECOND, keep_us=10 * SECOND, missing=0.0)
    rows, clocks = random_rows(4, 200, ids=70, keys=9, span_s=30)
    written = run_chain(of, real_stages(of), by_partition(of, placed(rows, 4), clocks), 4, cuts=5)
    return hashlib.sha256(repr(written).encode()).hexdigest()


def test_no_hash_order_of_a_process_enters_a_chain() -> None:
    """Processes whose sets and hashes of texts are ordered differently write the same bits."""
    code = "from tests.consumers.test_chain_rules import digest_of_a_chain; print(digest_of_a_chain())"
    root = Path(__file__).parents[2]
    found = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    ]

    assert found == [digest_of_a_chain()] * 2


# Rule 11: marks


def office_of_a_chain(directory: Path) -> Office:
    """A broker with the topics of a chain of three stages."""
    office = Office(directory, events=events(fields=FIELDS), features=OF_SHOP, raw_features=False)
    office.counts |= {"p.stage1": 2, "p.stage2": 2, "p.examples": 1}
    return office


def sources_of_stage_1(office: Office) -> list[int]:
    """What the two partitions of the first stage number their rows by."""
    control = Control(MemoryControlLog(office.broker, "p.control"))
    claims = [Claim("features", "u", partition, "rows", 0, 2, is_gapless=True) for partition in (0, 1)]
    return [control.claim(claim) for claim in claims]


def send_mark(office: Office, partition: int, source: int, time_us: int) -> None:
    """Write what the first stage would."""
    schema = schema_of(office.pipeline, 1)
    marks = {"kind": np.array([MARK], np.int8), "source": np.array([source], np.int32), "time": np.array([time_us])}
    header = [(SCHEMA_HEADER, schema.fingerprint.encode())]
    office.broker.append("p.stage1", partition, frames.build(schema, marks, 1).message(), None, header)


def frames_of_stage_2(office: Office, partition: int) -> list[list[int]]:
    """Times of the marks in each frame that the second stage has written to a partition."""
    schema = schema_of(office.pipeline, 2)
    found = [frames.decode(one.value_ or b"", schema).to_arrow() for one in office.broker.logs["p.stage2", partition]]
    return [[row["time"] for row in frame.to_pylist() if row["kind"] == MARK] for frame in found]


def test_a_stages_mark_is_the_smallest_of_its_inputs_and_goes_into_every_partition(tmp_path: Path) -> None:
    """Both partitions of the stage before have to be heard of; the slower one counts."""
    office = office_of_a_chain(tmp_path)
    sources = sources_of_stage_1(office)
    worker = office.worker("features-2", [("p.stage1", 0)], is_replay=True)
    for source, time_us in ((sources[0], 90), (sources[1], 40), (sources[1], 60)):
        send_mark(office, 0, source, time_us)
        worker.step(0)
    worker.stop()

    for partition in (0, 1):
        assert frames_of_stage_2(office, partition) == [[40], [60]]


def test_one_frame_carries_all_marks_of_a_worker_for_a_partition(tmp_path: Path) -> None:
    """Those of both partitions that it has; else marks would be most of what is sent."""
    office = office_of_a_chain(tmp_path)
    worker = office.worker("features-2", [("p.stage1", 0), ("p.stage1", 1)])
    for source in sources_of_stage_1(office):
        send_mark(office, 0, source, 40)
        send_mark(office, 1, source, 50)
    worker.step(0)
    worker.stop()

    for partition in (0, 1):
        (found,) = frames_of_stage_2(office, partition)
        assert sorted(found) == [40, 50]


# Rule 12: clocks


def test_a_label_later_than_wait_counts_as_missing_in_every_stage() -> None:
    """Though it reached the log before the clock; at the deadline itself it still counts."""
    rows = [event("late", 0, shop="s"), event("just", 0, "other", shop="s")]
    rows += [label("late", 60.000001), label("just", 60, key="other"), mark(70), event("after", 71, shop="s")]

    written = write(rows, missing=None)

    for stage in range(len(written.stages)):
        assert sorted(written.outcomes(stage)) == [("just", SET), ("late", MISSING)]
    assert written.vector("after")["labels"] == 1


# Rule 14: windows


def test_out_of_order_is_meant_among_the_rows_of_the_entity() -> None:
    """An event may be old for its key and the newest of its shop, and the other way round."""
    rows = [event("a", 10, "k", shop="north"), event("b", 5, "k", shop="south"), event("c", 7, "other", shop="north")]
    rows.append(event("d", 11, "k", shop="south"))

    written = write(rows, partitions=1)

    found = {id_: written.vector(id_) for id_ in "abcd"}
    assert [found[id_]["n_key"] for id_ in "abcd"] == [0, 0, 0, 2]  # b is out of order for k and in a's bucket
    assert [found[id_]["n"] for id_ in "abcd"] == [0, 0, 0, 1]  # c is out of order for north and in a's bucket
    assert math.isnan(found["b"]["since"])
    assert math.isnan(found["c"]["since"])
    assert found["d"]["since"] == 6.0


def test_trails_of_a_middle_stage_give_nan_out_of_order_and_keep_no_trace_of_it() -> None:
    """Elapsed, last, lag and ewm; the next event in order sees the one before."""
    rows = [event("a", 0, shop="s", amount=1.0), event("b", 10, "other", shop="s", amount=2.0)]
    rows += [event("old", 4, "third", shop="s", amount=9.0), event("c", 12, "k", shop="s", amount=3.0)]

    written = write(rows, partitions=1)

    trails = ("since", "last", "before", "faded")
    assert all(math.isnan(written.vector("old")[name]) for name in trails)
    assert written.vector("c")["since"] == 2.0
    assert [written.vector("c")[name] for name in ("last", "before")] == [2.0, 2.0]
    assert 1.0 < written.vector("c")["faded"] < 2.0


def test_ties_follow_the_log_of_the_entitys_stage() -> None:
    """Rows of one time see those that their stage has before them, of whichever key."""
    rows = [event(id_, 5, key, shop="s") for id_, key in (("a", "k"), ("b", "other"), ("c", "k"))]

    written = write(rows, partitions=1)

    assert [written.vector(id_)["n"] for id_ in "abc"] == [0, 1, 2]
    assert [written.vector(id_)["since"] for id_ in "bc"] == [0.0, 0.0]


def test_a_middle_stage_counts_late_events_of_its_entity() -> None:
    """Older than the window of the shop's newest, though the newest of its key; what is kept out of buckets is told."""
    of = chain(OF_SHOP, raw=False, partitions=1)
    rows = [event("a", 1_000, shop="s"), event("old", 10, "other", shop="s"), event("c", 1_001, shop="s")]
    stages = real_stages(of)
    (found,) = run_chain(of, stages, by_partition(of, rows, mark_clocks(rows)), 0, 1)[-1].values()
    middle, metrics = stages[1][0].task, RoleMetrics("features", "p")
    assert isinstance(middle, MiddleTask)

    middle.measure(metrics)

    labels = {"role": "features", "pipeline": "p", "candidate": "", "what": "late"}
    assert metrics.registry.get_sample_value("millrace_incidents_total", labels) == 1.0
    names = [column.name for column in columns(of)]
    assert [row["vector"][names.index("n")] for row in found] == [0, 0, 1]


# Rules 15 and 16: labels of entities


def test_a_label_newer_than_the_event_at_hand_is_held_in_the_entitys_stage() -> None:
    """It counts for events at or after its time, of whichever key."""
    rows = [event("a", 0, shop="s"), label("a", 20), event("b", 19.9, "other", shop="s")]
    rows += [event("c", 20, "other", shop="s"), event("d", 21, "third", shop="s")]

    written = write(rows, partitions=1)

    assert [written.vector(id_)["labels"] for id_ in "abcd"] == [0, 0, 1, 1]


@pytest.mark.parametrize("partitions", [1, 3])
def test_an_event_without_an_entity_goes_with_its_label_by_the_hash_of_the_key(partitions: int) -> None:
    """Into every stage, and its label counts for nobody."""
    rows: list[Row] = [event(f"e{n}", n, f"k{n}", shop=None) for n in range(20)]
    rows += [label(f"e{n}", 25, key=f"k{n}") for n in range(20)] + [event("last", 30, "k0", shop="s")]
    by_key = {f"e{n}": partition_of({"key": f"k{n}"}, None, partitions) for n in range(20)}

    written = write(rows, partitions=partitions)

    first = [(target, row) for target, row in written.stages[0] if row["id"] != "last"]
    assert len(first) == 40
    assert all(target == by_key[row["id"]] for target, row in first)
    assert all(math.isnan(written.vector(id_)[name]) for id_ in by_key for name in ("n", "since", "labels"))
    assert written.vector("last")["labels"] == 0


# Rule 17: the label's life


@pytest.mark.parametrize("missing", [None, 0.0])
def test_every_event_has_one_row_and_one_settled_label_row_at_every_hop(missing: float | None) -> None:
    """Also where missing means that nothing is learned: what waits behind must not wait for ever."""
    rows, _ = random_rows(8, 400, ids=150, keys=9, span_s=30)
    end = mark(10**6)
    rows = [*(row for row in placed(rows, 8) if row["kind"] != "mark"), end]

    written = write(rows, missing=missing, keep_us=10**9 * SECOND, wait_us=20 * SECOND)

    seen = sorted({(row["id"], row["key"] or "") for row in rows if row["kind"] == "event"})
    assert len(seen) > 100
    for stage in written.stages:
        assert sorted((row["id"], row["key"] or "") for _, row in stage if row["kind"] == 0) == seen
        settled = [row for _, row in stage if row["kind"] == 1 and row["outcome"] in (SET, MISSING)]
        assert sorted((row["id"], row["key"] or "") for row in settled) == seen
    learned = [row["label"] for _, row in written.stages[-1] if row["kind"] == 1 and row["outcome"] == MISSING]
    assert len(learned) > 20
    assert all(math.isnan(value) if missing is None else value == missing for value in learned)


def test_a_second_event_of_an_id_leaves_no_trace_in_any_stage() -> None:
    """Whether the first waits or is settled; `keep` later it is another event."""
    rows = [event("a", 0, shop="s"), event("a", 1, shop="s"), label("a", 5), event("a", 6, shop="s")]
    rows += [event("b", 10, "other", shop="s"), mark(65.000001), event("a", 70, shop="s")]

    written = write(rows, keep_us=60 * SECOND)

    for stage in written.stages:
        assert [row["time"] - START for _, row in stage if row["kind"] == 0 and row["id"] == "a"] == [0, 70 * SECOND]
    assert written.vector("b")["n"] == 1
