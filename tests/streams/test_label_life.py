"""The life of a label under each way of matching: what leaves, and what became of every label, case by case."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.featurize import FeatureTask
from streams.pipeline import Feature, Match, Pipeline
from tests.aggregate_reference import Row
from tests.chaining import by_partition, real_stages, run_chain
from tests.featurizing import (
    SECOND,
    SOURCE,
    START,
    assert_accounts,
    assert_same,
    batch,
    event,
    label,
    mark,
    mark_clocks,
    plain,
    random_rows,
    reference_run,
    run,
    small_pipeline,
)

MODES: tuple[Match, ...] = ("id and key", "id", "key")
OUTCOMES = {-1: "event", 0: "set", 1: "missing", 2: "retracted", 3: "amended"}
BY_NAME: tuple[Match, ...] = ("id and key", "id")


class Case(NamedTuple):
    """Rows, and for labels that name their event, and for those that do not, what leaves and what became of them."""

    rows: list[Row]
    named: list[str]
    became: dict[str, int]
    nameless: list[str]
    became_nameless: dict[str, int]


A, B = "event a @0", "event b @1"
CASES = {
    "in time": Case(
        [event("a", 0), label("a", 5)],
        [A, "set 1 a @5"],
        {"joined": 1},
        [A, "set 1 a @5"],
        {"joined": 1},
    ),
    "late": Case(
        [event("a", 0), label("a", 61), mark(61)],
        [A, "missing nan a @60"],
        {"too_late": 1},
        [A, "missing nan a @60"],
        {"unknown": 1},
    ),
    "after its event was settled as missing": Case(
        [event("a", 0), mark(61), label("a", 5)],
        [A, "missing nan a @60"],
        {"too_late": 1},
        [A, "missing nan a @60"],
        {"unknown": 1},
    ),
    "early": Case(
        [label("a", 5), event("a", 0), mark(61)],
        [A, "set 1 a @5"],
        {"joined": 1},
        [A, "missing nan a @60"],
        {"unknown": 1},
    ),
    "older than its event": Case(
        [event("a", 5), label("a", 3), mark(66)],
        ["event a @5", "set 1 a @3"],
        {"joined": 1},
        ["event a @5", "missing nan a @65"],
        {"unknown": 1},
    ),
    "duplicate": Case(
        [event("a", 0), label("a", 5), label("a", 9)],
        [A, "set 1 a @5"],
        {"joined": 1, "duplicate": 1},
        [A, "set 1 a @5"],
        {"joined": 1, "unknown": 1},
    ),
    "duplicate, while another event of the key waits": Case(
        [event("a", 0), event("b", 1), label("a", 5), label("a", 9)],
        [A, B, "set 1 a @5"],
        {"joined": 1, "duplicate": 1},
        [A, B, "set 1 a @5", "set 1 b @9"],
        {"joined": 2},
    ),
    "of the second of two events": Case(
        [event("a", 0), event("b", 1), label("b", 5)],
        [A, B, "set 1 b @5"],
        {"joined": 1},
        [A, B, "set 1 a @5"],
        {"joined": 1},
    ),
    "conflicting": Case(
        [event("a", 0), label("a", 5), label("a", 9, 0.0)],
        [A, "set 1 a @5", "amended 0 a @9"],
        {"joined": 1, "amended": 1},
        [A, "set 1 a @5"],
        {"joined": 1, "unknown": 1},
    ),
    "amended and amended back": Case(
        [event("a", 0), label("a", 5), label("a", 9, 0.0), label("a", 11)],
        [A, "set 1 a @5", "amended 0 a @9", "amended 1 a @11"],
        {"joined": 1, "amended": 2},
        [A, "set 1 a @5"],
        {"joined": 1, "unknown": 2},
    ),
    "amended when its event is forgotten": Case(
        [event("a", 0), label("a", 5), mark(65.000001), label("a", 9, 0.0), mark(70)],
        [A, "set 1 a @5"],
        {"joined": 1, "unknown": 1},
        [A, "set 1 a @5"],
        {"joined": 1, "unknown": 1},
    ),
    "retracted, and set again": Case(
        [event("a", 0), label("a", 5), label("a", 9, None), label("a", 10)],
        [A, "set 1 a @5", "retracted nan a @9", "amended 1 a @10"],
        {"joined": 1, "retracted": 1, "amended": 1},
        [A, "set 1 a @5"],
        {"joined": 1, "retracted": 1, "unknown": 1},
    ),
    "retracted before it came": Case(
        [event("a", 0), label("a", 4, None), label("a", 5)],
        [A, "set 1 a @5"],
        {"joined": 1, "retracted": 1},
        [A, "set 1 a @5"],
        {"joined": 1, "retracted": 1},
    ),
    "never": Case(
        [event("a", 0), mark(61)],
        [A, "missing nan a @60"],
        {},
        [A, "missing nan a @60"],
        {},
    ),
    "of nobody": Case(
        [label("z", 5, key="stranger"), event("a", 0), mark(70)],
        [A, "missing nan a @60"],
        {"unknown": 1},
        [A, "missing nan a @60"],
        {"unknown": 1},
    ),
}
NOTHING = dict.fromkeys(("joined", "waiting", "duplicate", "unknown", "too_late", "amended", "retracted"), 0)
EARLY = [
    ([label("a", 5), label("a", 7), event("a", 0)], [A, "set 1 a @5"], {"duplicate": 1, "joined": 1}),
    ([label("a", 5), label("a", 4, 0.0), event("a", 0)], [A, "set 0 a @4"], {"amended": 1, "joined": 1}),
    ([label("a", 5), label("a", 6, None), event("a", 0)], [A], {"retracted": 2}),
]


def declared(match: Match, *features: Feature, **labels: Any) -> Pipeline:
    within = {"within_us": 60 * SECOND, "id": None} if match == "key" else {}
    key = {"key": None} if match == "id" else {}
    return small_pipeline(features, raw=True, match=match, **{**within, **key, **labels})


def as_published(rows: list[Row], match: Match) -> list[Row]:
    """Labels as they lie in the log: without their key, or with their place in the topic as their id."""
    absent: dict[Match, Row] = {"id and key": {}, "id": {"key": None}}
    return [
        {**row, **absent.get(match, {"id": f"labels-0-{at}"})} if row["kind"] == "label" else row
        for at, row in enumerate(rows)
    ]


def lived(rows: list[Row], match: Match, *, restores: bool) -> tuple[list[str], dict[str, int]]:
    """Let rows pass all stages there are; gives what leaves in words, and what became of the labels."""
    of = declared(match)
    rows = as_published(rows, match)
    if match == "id":
        stages = real_stages(of, restores=restores)
        log = by_partition(of, rows, mark_clocks(rows))
        written = run_chain(of, stages, log, None, cuts=len(rows))[-1]
        out = [row for _, found in sorted(written.items()) for row in found]
        out.sort(key=lambda row: row["sequence"])
        accounts = [stage.task.accounts()["labels"][1] for stage in stages[0]]
        became = {name: sum(account[name] for account in accounts) for name in NOTHING}
        assert {row["key"] for row in out if row["outcome"] in (-1, 0, 1)} <= {"k"}
        return told(out), became
    task, out = FeatureTask(of, 0, SOURCE), []
    for row, clocks in zip(rows, mark_clocks(rows), strict=True):
        out += [made for _, made in run(task, of, [row], [clocks])]
        if restores:
            state, task = task.state(), FeatureTask(of, 0, SOURCE)
            task.restore(state)
    assert {row["key"] for row in out} <= {"k"}
    return told(out), task.accounts()["labels"][1]


def told(out: list[Row]) -> list[str]:
    values = ["" if row["outcome"] == -1 else f" {row['label']:g}" for row in out]
    return [
        f"{OUTCOMES[row['outcome']]}{value} {row['id']} @{(row['time'] - START) / SECOND:.9g}"
        for row, value in zip(out, values, strict=True)
    ]


@pytest.mark.parametrize("restores", [False, True], ids=["whole", "restored"])
@pytest.mark.parametrize("match", MODES)
@pytest.mark.parametrize("name", CASES)
def test_each_case_leaves_what_the_table_says(name: str, match: Match, restores: bool) -> None:
    case = CASES[name]
    expected = (case.nameless, case.became_nameless) if match == "key" else (case.named, case.became)

    out, became = lived(case.rows, match, restores=restores)

    assert out == expected[0]
    assert became == NOTHING | expected[1]


@pytest.mark.parametrize("match", BY_NAME)
@pytest.mark.parametrize(("rows", "expected", "became"), EARLY, ids=["duplicate", "conflicting", "retracted"])
def test_an_early_label_may_change_before_its_event_comes(
    rows: list[Row], expected: list[str], became: dict[str, int], match: Match
) -> None:
    assert lived(rows, match, restores=False) == (expected, NOTHING | became)


def test_a_label_that_names_no_event_takes_the_oldest_within_its_time() -> None:
    """Later than label - within, up to the label's time itself; of equal times the one that came first."""
    of = declared("key", within_us=10 * SECOND, wait_us=10 * SECOND)
    rows = [event("old", 0), event("c", 3), event("b", 2), event("b2", 2), event("later", 12.000001)]
    rows += [label("", 10), label("", 12), label("", 12), label("", 12)]

    out = run(FeatureTask(of, 0, SOURCE), of, as_published(rows, "key"))

    joined = [(row["id"], (row["time"] - START) / SECOND) for _, row in out if row["outcome"] == 0]
    assert joined == [("b", 10), ("c", 12)]  # b2 is as old as the second label allows no more, and "later" is newer


FEATURES = (
    Feature("count", "count", "*", "key", 12 * SECOND),
    Feature("sum", "sum", "amount", "key", 12 * SECOND),
)


def nameless_rows(seed: int, count: int, keys: int) -> tuple[list[Row], list[tuple[int, int]]]:
    rows, clocks = random_rows(seed, count, ids=count // 3, keys=keys, span_s=12.0)
    keyed = [{**row, "key": row["key"] or "key-0"} if row["kind"] != "mark" else row for row in rows]
    return as_published(keyed, "key"), clocks


@pytest.mark.parametrize("seed", range(6))
def test_labels_that_name_no_event_settle_what_the_reference_says(seed: int) -> None:
    """Rows out of order, ties, events that come twice, few keys and many; rows, causes and accounts exactly."""
    of = declared("key", *FEATURES, wait_us=20 * SECOND, within_us=[20, 9, 50][seed % 3] * SECOND, keep_us=15 * SECOND)
    rows, clocks = nameless_rows(seed, 600, keys=[2, 6][seed // 3])
    task = FeatureTask(of, 0, SOURCE)

    out = run(task, of, rows, clocks, cuts=tuple(range(0, 600, 37)))

    reference = reference_run(of, rows, clocks)
    assert_same(out, reference.out)
    assert_accounts(task, reference)
    assert reference.tally["joined"] > 30


@given(seed=st.integers(0, 1_000), cut=st.integers(1, 60), restarts=st.booleans())
def test_cuts_and_restarts_change_nothing_where_labels_name_no_event(seed: int, cut: int, restarts: bool) -> None:
    """Queues are no part of a snapshot: they follow from what waits."""
    of = declared("key", *FEATURES, wait_us=20 * SECOND, within_us=20 * SECOND, keep_us=15 * SECOND)
    rows, clocks = nameless_rows(seed, 120, keys=3)
    expected = run(FeatureTask(of, 0, SOURCE), of, rows, clocks)
    task, out = FeatureTask(of, 0, SOURCE), []
    for start in range(0, len(rows), cut):
        stop = start + cut
        out += plain(task.process(batch(of, rows[start:stop], clocks[start:stop])), first=start)
        if restarts:
            state, task = task.state(), FeatureTask(of, 0, SOURCE)
            task.restore(state)

    assert repr(out) == repr(expected)


def test_more_keys_and_longer_names_than_small_tables_hold() -> None:
    """Every queue and link moves several times; label rows are longer than the labels that cause them."""
    of = declared("key", wait_us=1_000 * SECOND, within_us=1_000 * SECOND)
    dice = random.Random(1)
    rows = [event(f"{'x' * (n % 90)}{n}", n * 0.01, f"key-{n % 1_300}") for n in range(2_600)]
    labels = [label(str(n), 30, key=f"key-{n % 1_300}") for n in range(1_950)]
    dice.shuffle(labels)
    task = FeatureTask(of, 0, SOURCE)

    run(task, of, rows)
    out = run(task, of, as_published(labels, "key"))

    keys = [row["key"] for row in labels]
    firsts = {key: iter([row["id"] for row in rows if row["key"] == key]) for key in set(keys)}
    assert [(row["id"], row["key"]) for _, row in out] == [(next(firsts[key]), key) for key in keys]
    assert task.pending_events() == 650


def test_events_without_a_key_wait_beside_the_queues() -> None:
    """No label can name them; many of them once filled the table for ever."""
    of = declared("key")
    task = FeatureTask(of, 0, SOURCE)
    rows = [event(f"e{number}", number * 0.001, key=None) for number in range(1_500)]

    out = run(task, of, as_published([*rows, event("mine", 2), label("", 3)], "key"))

    assert [row["id"] for _, row in out if row["outcome"] == 0] == ["mine"]
