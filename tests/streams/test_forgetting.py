"""Bounded entities: against plain Python that keeps all rows, in any order, cut and restored anywhere."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.featurize import FeatureTask
from streams.accounts import EVICTED, EXPIRED, GONE_LABELS
from streams.bound import Bound
from streams.entities import (
    SMALLEST_ARENA,
    SMALLEST_TABLE,
    empty_entities,
    empty_windows,
    entity_kernel,
    find_entity_kernel,
    remove_key_kernel,
)
from streams.errors import SnapshotError
from streams.feature_costs import ARENA_MOST_SHARE, feature_costs
from streams.inputs import NO_ENTITY
from streams.metrics import RoleMetrics
from streams.pipeline import Feature, Pipeline
from streams.planning import make_plan
from streams.windows import ARENA_DEAD, ARENA_END, ARENA_LIMIT, HELD, room_kernel
from tests.aggregate_reference import Row
from tests.feature_reference import Reference
from tests.featurizing import (
    SECOND,
    SOURCE,
    START,
    Clocks,
    assert_same,
    event,
    label,
    mark,
    reference_run,
    run,
    small_pipeline,
)

MINUTE = 60 * SECOND
FEATURES = (
    Feature("n", "count", "*", "key", MINUTE),
    Feature("mean", "mean", "amount", "key", 7 * SECOND),
    Feature("std", "std", "amount", "key", MINUTE),
    Feature("amounts", "distinct", "amount", "key", MINUTE, precision=4),
    Feature("n_exactly", "count", "*", "key", 30 * SECOND, is_exact=True),
    Feature("mean_exactly", "mean", "amount", "key", 13 * SECOND, is_exact=True),
    Feature("last", "last", "amount", "key"),
    Feature("lag", "lag", "amount", "key", k=2),
    Feature("ewm", "ewm_mean", "amount", "key", half_life_us=10 * SECOND),
    Feature("since", "elapsed", "*", "key"),
    Feature("rate", "rate", "label", "key", 600 * SECOND, is_label=True),
    Feature("n_later", "count", "label", "key", 600 * SECOND, is_label=True, delay_us=7 * SECOND),
)
BOUNDS = st.builds(
    Bound,
    st.just("key"),
    st.one_of(st.none(), st.sampled_from([0.5, 5, 20, 90]).map(lambda s: round(s * SECOND))),
    st.one_of(st.none(), st.integers(1, 8)),  # of two partitions
)
Step = tuple[str, int, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["event", "event", "event", "label", "mark"]),
        st.integers(-15_000_000, 20_000_000),  # from the newest row's time, us
        st.integers(0, 6),  # which key
        st.integers(0, 8),  # how many events back a label's is, how far a mark is behind
    ),
    min_size=30,  # far more than rows are looked ahead (prefetching.py)
    max_size=80,
)


def bounded(bound: Bound, features: tuple[Feature, ...] = FEATURES) -> Pipeline:
    """Labels wait 40 s, and those that do not come count as 0."""
    of = small_pipeline(features, missing=0.0, wait_us=40 * SECOND)
    return msgspec.structs.replace(of, bounds=(bound,))


def rows_of(steps: list[Step]) -> list[Row]:
    """Events of a few keys in any order of time, labels of events before, marks a little behind."""
    rows: list[Row] = []
    events: list[Row] = []
    now = START
    for number, (kind, step, which, other) in enumerate(steps):
        time_us = now + step
        if kind == "event":
            row = event(str(number), 0, f"k {which}" if which else None, amount=other / 4)
            events.append(row)
        elif kind == "label" and events:
            of = events[-1 - other % len(events)]
            row = label(of["id"], 0, float(which % 2), key=of["key"])
        else:
            row = mark(0)
            time_us = now - other * SECOND
        row["time"] = time_us
        now = max(now, time_us)
        rows.append(row)
    return rows


def settled(of: Pipeline, task: FeatureTask, reference: Reference) -> dict[str, int]:
    """Let rows pass until all memory is free that can be, and say what was forgotten and what is held."""
    now = reference.idle_clock
    idle = [{"kind": "mark", "id": None, "key": None, "time": now}] * 80
    run(task, of, idle, [reference.clocks] * len(idle))
    state = task.state()
    counters = state["counters"]
    return {
        "expired": int(counters[EXPIRED]),
        "evicted": int(counters[EVICTED]),
        "gone labels": int(counters[GONE_LABELS]),
        "held": int(state["windows.used"][HELD]),
    }


@given(steps=STEPS, bound=BOUNDS)
@settings(deadline=None)
def test_bounded_entities_equal_brute_force(steps: list[Step], bound: Bound) -> None:
    """Every vector, and what was forgotten, in any order of times."""
    of, rows = bounded(bound), rows_of(steps)
    task, reference = FeatureTask(of, 0, SOURCE), reference_run(of, rows)

    assert_same(run(task, of, rows), reference.out)
    told = {name: reference.tally.get(name, 0) for name in ("expired", "evicted", "gone labels")}
    if of.bounds[0].ttl_us or of.bounds[0].most:
        assert settled(of, task, reference) == {**told, "held": len(reference.entities)}


@given(steps=STEPS, bound=BOUNDS, cuts=st.sets(st.integers(1, 79), max_size=5))
@settings(deadline=None)
def test_cut_and_restored_anywhere_the_vectors_and_counts_are_the_same(
    steps: list[Step], bound: Bound, cuts: set[int]
) -> None:
    """List, free heads and clock lie in the snapshot."""
    of, rows = bounded(bound), rows_of(steps)
    clocks = clocks_of(rows)
    uncut = FeatureTask(of, 0, SOURCE)
    whole = run(uncut, of, rows, clocks)
    task, parts = FeatureTask(of, 0, SOURCE), []
    for start, stop in pairwise([0, *sorted(cut for cut in cuts if cut < len(rows)), len(rows)]):
        parts += run(task, of, rows[start:stop], clocks[start:stop])
        again = FeatureTask(of, 0, SOURCE)
        again.restore(task.state())
        task = again

    assert [np.array(r["vector"]).tobytes() for _, r in parts] == [np.array(r["vector"]).tobytes() for _, r in whole]
    assert task.state()["counters"].tolist() == uncut.state()["counters"].tolist()
    assert task.state()["windows.used"].tolist() == uncut.state()["windows.used"].tolist()


def clocks_of(rows: list[Row]) -> Clocks:
    """The clocks of whole streams, which marks move, for streams that are cut."""
    high, clocks = -(2**63), []
    for row in rows:
        high = max(high, row["time"]) if row["kind"] == "mark" else high
        clocks.append((high, high))
    return clocks


COUNTED = (Feature("n", "count", "*", "key", MINUTE),)


def counts(task: FeatureTask, of: Pipeline, rows: list[Row], clocks: Clocks | None = None) -> list[float]:
    """How many earlier events each event's window holds."""
    return [row["vector"][0] for _, row in run(task, of, rows, clocks) if row["kind"] == 0]


def test_an_entity_is_known_for_its_lifetime_and_no_longer() -> None:
    """By the clock of marks: idle for exactly as long is not longer, whatever other entities do."""
    of = bounded(Bound("key", ttl_us=20 * SECOND), COUNTED)
    rows = [event("a", 0), event("o", 15, "other"), mark(20), event("b", 21), mark(41), event("c", 41)]
    rows += [mark(61.5), event("d", 62), event("p", 62, "other")]

    assert counts(FeatureTask(of, 0, SOURCE), of, rows) == [0.0, 0.0, 1.0, 2.0, 0.0, 0.0]


def test_a_label_keeps_an_entity_alive() -> None:
    """From the time at which it counts, delay and all."""
    features = (*COUNTED, Feature("late", "count", "label", "key", 600 * SECOND, is_label=True, delay_us=10 * SECOND))
    of = bounded(Bound("key", ttl_us=20 * SECOND), features)
    rows = [event("a", 0), label("a", 5), mark(14), event("o", 15, "other"), mark(34), event("b", 35)]

    assert counts(FeatureTask(of, 0, SOURCE), of, rows) == [0.0, 0.0, 1.0]


def test_the_longest_idle_makes_room_for_a_new_one() -> None:
    """In the order of the log, not of times; each partition has its share of the cap, rounded up."""
    of = bounded(Bound("key", most=3), COUNTED)  # two in each of two partitions
    rows = [event("a", 50, "k"), event("b", 10, "l"), event("c", 20, "k"), event("d", 5, "m"), event("e", 51, "k")]
    rows += [event("f", 11, "l"), event("g", 52, "m"), event("h", 53, "l")]

    assert counts(FeatureTask(of, 0, SOURCE), of, rows) == [0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 1.0]


def test_a_label_whose_entity_is_gone_touches_nothing() -> None:
    """It is counted; one whose entity has come anew counts there."""
    features = (Feature("late", "count", "label", "key", 600 * SECOND, is_label=True),)
    of = bounded(Bound("key", most=2), features)
    task = FeatureTask(of, 0, SOURCE)
    rows = [event("a", 0, "k"), event("b", 1, "l"), label("a", 2, key="k"), event("c", 3, "l"), event("d", 4, "k")]
    rows += [label("b", 5, key="l"), label("d", 6, key="k"), event("e", 7, "k"), event("f", 8, "l"), event("g", 9, "k")]
    rows += [label("e", 10, key="k"), event("h", 11, "k")]

    assert counts(task, of, rows) == [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    assert task.state()["counters"][GONE_LABELS] == 2


def test_an_expired_entity_is_gone_before_its_memory_is() -> None:
    """One that is touched after another but has older times waits behind it; a label finds it gone all the same."""
    features = (*COUNTED, Feature("late", "count", "label", "key", 600 * SECOND, is_label=True))
    of = bounded(Bound("key", ttl_us=20 * SECOND), features)
    task = FeatureTask(of, 0, SOURCE)
    run(task, of, [event("a", 100, "k"), event("b", 60, "l"), mark(85), label("b", 66, key="l")])
    held, gone = task.state()["windows.used"][HELD], task.state()["counters"][GONE_LABELS]
    out = run(task, of, [event("c", 101, "l")], [(START + 85 * SECOND, START + 85 * SECOND)])

    assert (held, gone) == (2, 0)
    assert task.state()["counters"][[EXPIRED, GONE_LABELS]].tolist() == [1, 1]
    assert out[0][1]["vector"] == [0.0, 0.0]


def test_the_end_of_all_input_forgets_nothing() -> None:
    """It is no time: a stream that goes on afterwards finds what it had, and a clock that goes back forgets nothing."""
    of, end = bounded(Bound("key", ttl_us=20 * SECOND), COUNTED), 2**63 - 1
    rows = [event("a", 0), mark(0), event("b", 1), mark(5), event("c", 2)]
    clocks = [(START, START), (end, end), (end, end), (START, START), (START, START)]

    assert counts(FeatureTask(of, 0, SOURCE), of, rows, clocks) == [0.0, 1.0, 2.0]


def test_a_new_lifetime_or_cap_goes_on_with_the_state() -> None:
    """A smaller cap lets go of the longest idle when the next new one comes."""
    before, after = (bounded(bound, COUNTED) for bound in (Bound("key", most=20), Bound("key", 90 * SECOND, 4)))
    task, again = FeatureTask(before, 0, SOURCE), FeatureTask(after, 0, SOURCE)
    run(task, before, [event(f"e{n}", n, f"k {n}") for n in range(10)])
    again.restore(task.state())

    rows = [event("a", 20, "k 3"), event("b", 21, "new"), event("c", 22, "k 3"), event("d", 22, "k 9")]

    assert counts(again, after, rows) == [1.0, 0.0, 2.0, 0.0]
    assert again.state()["windows.used"][HELD] == 2


@pytest.mark.parametrize("was_bounded", [False, True])
def test_bounds_where_there_were_none_need_a_rebuild(was_bounded: bool) -> None:
    """And the other way round: their heads are not alike."""
    bound = bounded(Bound("key", ttl_us=SECOND), COUNTED)
    free = msgspec.structs.replace(bound, bounds=())
    before, after = (bound, free) if was_bounded else (free, bound)
    change = "from bounded to all" if was_bounded else "from all to bounded"

    with pytest.raises(
        SnapshotError, match=f"what is kept of entities changed {change}, .*run `millrace rebuild FILE --role features`"
    ):
        FeatureTask(after, 0, SOURCE).restore(FeatureTask(before, 0, SOURCE).state())


def test_ten_times_more_keys_than_the_cap_take_no_more_memory() -> None:
    """Heads, table, arena, blocks of exact windows: all as after the first keys, and as `millrace features` says."""
    most, windowed = 200, tuple(feature for feature in FEATURES if not feature.is_label)
    of = bounded(Bound("key", most=2 * most), windowed)
    task, sizes, arenas = FeatureTask(of, 0, SOURCE), [], []
    for first in range(0, 30 * most, 3 * most):
        rows = [event(f"e{n}", n * 6.0, f"k {n // 3}", amount=n % 7) for n in range(first, first + 3 * most)]
        run(task, of, [*rows, mark(6.0 * (first + 3 * most) + 100)])
        state = task.state()
        sizes.append([state[name].size for name in ("windows.heads", "entities", "exact.next")])
        arenas.append(state["windows.used"][[ARENA_END, ARENA_DEAD, ARENA_LIMIT]].tolist())
    (cost,) = feature_costs(of).entities
    chunks = most * (cost.words.windows + room_kernel(2) * cost.words.bucket)  # two buckets besides the open one

    assert state["windows.used"][HELD] == most
    assert {heads for heads, *_ in sizes} == {most * cost.words.head}
    assert {table for _, table, _ in sizes} == {2 * SMALLEST_TABLE}
    assert len({blocks for *_, blocks in sizes[1:]}) == 1
    assert {end - dead for end, dead, _ in arenas} == {chunks}
    assert max(limit for *_, limit in arenas) <= ARENA_MOST_SHARE * chunks + 2 * SMALLEST_ARENA
    assert task.state()["counters"][EVICTED] == 9 * most


KEYS = [home + 1_024 * round_ for home in (1_021, 1_022, 1_023, 1_024, 1_026) for round_ in range(1, 5)]


@given(steps=st.lists(st.tuples(st.booleans(), st.sampled_from(KEYS)), min_size=40, max_size=80))
@settings(deadline=None)
def test_the_table_finds_what_is_there_after_any_removals(steps: list[tuple[bool, int]]) -> None:
    """Keys that want the same places, around the table's end."""
    plan = make_plan(bounded(Bound("key", most=9), COUNTED)).plan
    entities, windows = empty_entities(), empty_windows(1, plan.head_words)
    known: dict[int, int] = {}
    for is_added, key in steps:
        if is_added:
            known[key] = entity_kernel(entities, plan, windows, key)
        elif known.pop(key, None) is not None:
            remove_key_kernel(entities, key)

        assert [find_entity_kernel(entities, each) for each in KEYS] == [known.get(key, NO_ENTITY) for key in KEYS]


def test_metrics_tell_of_what_was_forgotten() -> None:
    """Each once, and how many are known now."""
    features = (Feature("late", "count", "label", "key", 600 * SECOND, is_label=True),)
    of = bounded(Bound("key", 20 * SECOND, 4), features)
    task, metrics = FeatureTask(of, 0, SOURCE), RoleMetrics("features", "p")
    rows = [event(f"e{n}", n, f"k {n}") for n in range(5)]
    run(task, of, [*rows, label("e0", 5, key="k 0"), event("f", 6, "k 4"), mark(23.5)])
    task.measure(metrics)
    task.measure(metrics)

    base = {"role": "features", "pipeline": "p", "candidate": ""}
    told = {
        what: metrics.registry.get_sample_value("millrace_incidents_total", {**base, "what": what})
        for what in ("entity_evicted", "entity_expired", "label_without_entity")
    }
    assert told == {"entity_evicted": 3.0, "entity_expired": 1.0, "label_without_entity": 1.0}
    assert metrics.registry.get_sample_value("millrace_entities", {**base, "partition": "0"}) == 1.0
