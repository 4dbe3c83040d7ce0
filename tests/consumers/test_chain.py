"""Chains of feature stages: several entities, label features among them, equal to a reference after every stage."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.chain_tasks import LastTask
from streams.bound import Bound
from streams.pipeline import Feature, Field, Pipeline
from tests.aggregate_reference import Row
from tests.chaining import assert_same_chain, by_partition, real_stages, run_chain
from tests.featurizing import SECOND, event, label, mark, mark_clocks, random_rows
from tests.rows import events, labels, pipeline

MINUTE = 60 * SECOND
LONG = 100_000 * SECOND  # label windows that nothing falls out of: the reference does not follow those that are late
FIELDS = (
    Field("amount", "number", ("amount",)),
    Field("shop", "category", ("shop",)),
    Field("is_new", "boolean", ("is_new",)),
    Field("place", "category", ("place",)),
)
FEATURES = (
    Feature("per_key", "count", "*", "key", MINUTE),
    Feature("per_shop", "mean", "amount", "shop", MINUTE),
    Feature("excess", "difference", "amount", other="per_shop"),
    Feature("where", "sum", "amount", "shop", MINUTE, where="is_new and shop == 'north'"),
    Feature("late", "rate", "label", "place", LONG, is_label=True),
    Feature("later", "count", "label", "place", LONG, is_label=True, delay_us=7 * SECOND),
    Feature("of_key", "rate", "label", "key", LONG, is_label=True),
    Feature("since", "elapsed", "*", ("shop", "place")),
    Feature("places", "count", "place", ("shop", "place"), MINUTE),
    Feature("before", "lag", "shop", "place", k=2),
    Feature("often", "frequency", "*", "place", MINUTE),
    Feature("target", "target", "label", "shop", LONG, is_label=True, delay_us=SECOND, prior=0.1, weight=4.0),
    Feature("share", "ratio", "per_key", other="places"),
    Feature("above", "clip", "excess", low=0.0),
    Feature("hour", "cyclic", "hour"),
    Feature("night", "calendar", "night"),
    Feature("is_north", "one_hot", "shop", values=("north",)),
)


def chain(features: tuple[Feature, ...] = FEATURES, *, raw: bool = True, partitions: int = 3, **of: object) -> Pipeline:
    """Three entities besides the key."""
    return pipeline(
        events=events(fields=FIELDS), labels=labels(**of), features=features, raw_features=raw, partitions=partitions
    )


def placed(rows: list[Row], seed: int) -> list[Row]:
    """Give events a place, or none."""
    dice = random.Random(seed)
    texts = ["a", "b", "c", "", None]
    return [{**row, "field.place": dice.choice(texts)} if row["kind"] == "event" else row for row in rows]


@pytest.mark.parametrize("seed", range(6))
def test_every_stage_writes_what_the_reference_says(seed: int) -> None:
    """Whatever order Kafka gives the rows of several writers, and with ids that come again when they are forgotten."""
    amend = ["metrics", "relearn"][seed // 2 % 2]
    of = chain(wait_us=20 * SECOND, keep_us=10 * SECOND, missing=[None, 0.0][seed % 2], amend=amend)
    rows, clocks = random_rows(seed, 500, ids=150, keys=20, span_s=30)

    assert assert_same_chain(of, by_partition(of, placed(rows, seed), clocks), seed, cuts=5) > 300


@given(seed=st.integers(0, 10**6), cuts=st.integers(1, 40), raw=st.booleans(), partitions=st.integers(1, 3))
@settings(deadline=None, max_examples=25)
def test_a_chain_equals_the_reference(seed: int, cuts: int, raw: bool, partitions: int) -> None:
    """However the partitions are cut into batches."""
    of = chain(raw=raw, partitions=partitions, wait_us=20 * SECOND, keep_us=10 * SECOND, missing=1.0)
    rows, clocks = random_rows(seed, 60, ids=25, keys=5, span_s=30)

    assert_same_chain(of, by_partition(of, placed(rows, seed), clocks), seed, cuts)


BOUNDS = (
    Bound("key", ttl_us=25 * SECOND, most=12),
    Bound("place", most=3),
    Bound(("shop", "place"), ttl_us=5 * SECOND),
    Bound("shop", ttl_us=10 * SECOND, most=3),
)


@pytest.mark.parametrize("bounds", [*((bound,) for bound in BOUNDS), BOUNDS])
def test_each_stage_forgets_its_own_entities(bounds: tuple[Bound, ...]) -> None:
    """Those that are idle too long or too many, as the reference does; all of it lies in the snapshots."""
    free = chain(wait_us=20 * SECOND, keep_us=10 * SECOND, missing=0.0)
    of = msgspec.structs.replace(free, bounds=bounds)
    rows, clocks = random_rows(6, 500, ids=150, keys=20, span_s=30)
    log = by_partition(of, placed(rows, 6), clocks)

    assert assert_same_chain(of, log, 6, cuts=30) > 300
    whole, restored = (run_chain(of, real_stages(of, restores=restores), log, 6, 30) for restores in (False, True))
    assert repr(whole) == repr(restored)
    assert repr(whole) != repr(run_chain(free, real_stages(free), log, 6, 30))


def test_cut_and_restored_anywhere_a_chain_writes_the_same_bits() -> None:
    """Held labels, other entities of what waits and of what was settled, numbers of every partition: all are saved."""
    of = chain(wait_us=20 * SECOND, keep_us=10 * SECOND, missing=0.0, amend="relearn")
    rows, clocks = random_rows(3, 400, ids=120, keys=20, span_s=30)
    log = by_partition(of, placed(rows, 3), clocks)

    # The same cuts, for marks come behind every batch.
    whole, restored = (run_chain(of, real_stages(of, restores=restores), log, 3, 30) for restores in (False, True))

    assert repr(whole) == repr(restored)


def without_keys(rows: list[Row]) -> list[Row]:
    """Labels as they come where they are matched by id."""
    return [{**row, "key": None} if row["kind"] == "label" else row for row in rows]


OF_THE_EVENT = tuple(feature for feature in FEATURES if feature.operation in ("cyclic", "calendar"))


@pytest.mark.parametrize(("features", "stages"), [(FEATURES, 6), (FEATURES[:1] + FEATURES[6:7], 3), (OF_THE_EVENT, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_labels_without_a_key_find_their_event_in_a_stage_of_its_own(
    features: tuple[Feature, ...], stages: int, seed: int
) -> None:
    """By id: the log goes by it, and what is of the key is one stage on; every stage writes what the reference says."""
    amend = ["metrics", "relearn"][seed % 2]
    of = chain(features, wait_us=20 * SECOND, keep_us=10 * SECOND, match="id", key=None, missing=0.0, amend=amend)
    rows, clocks = random_rows(seed, 400, ids=120, keys=20, span_s=30)
    log = by_partition(of, without_keys(placed(rows, seed)), clocks)

    assert assert_same_chain(of, log, seed, cuts=7) > 250
    whole, restored = (run_chain(of, real_stages(of, restores=restores), log, seed, 7) for restores in (False, True))
    assert repr(whole) == repr(restored)
    assert len(whole) == stages


def test_rows_are_numbered_without_gaps_for_every_partition_and_source() -> None:
    """A reader demands it (PROTOCOL 3)."""
    of = chain()
    rows, clocks = random_rows(1, 300, ids=100, keys=20, span_s=30)

    log = by_partition(of, placed(rows, 1), clocks)

    for number, written in enumerate(run_chain(of, real_stages(of), log, 1, 4), 1):
        for (writer, _), found in written.items():
            assert [row["sequence"] for row in found] == list(range(len(found)))
            assert all(row["source"] == 100 * number + writer for row in found)
        assert sum(map(len, written.values())) > 100


def test_an_event_without_an_entity_gets_nothing_of_it_and_leaves_nothing() -> None:
    """Nor does one in which one of two fields is missing; an empty text is there."""
    of = chain((Feature("n", "count", "*", ("shop", "place"), MINUTE), Feature("s", "count", "*", "shop", MINUTE)))
    texts = [("x", "y"), ("x", None), (None, None), ("x", "y"), ("", "y"), ("", "y"), (None, "y")]
    rows = [event(str(at), at, "k", shop=shop, place=place) for at, (shop, place) in enumerate(texts)]

    (found,) = run_chain(of, real_stages(of), by_partition(of, rows, mark_clocks(rows)), 0, 1)[-1].values()

    nan = np.nan
    vectors = {row["id"]: row["vector"][-2:] for row in found}
    np.testing.assert_array_equal(
        [vectors[str(at)] for at in range(7)], [[0, 0], [nan, 1], [nan, nan], [1, 2], [0, 0], [1, 1], [nan, nan]]
    )


def test_entities_of_two_fields_do_not_run_into_one_another() -> None:
    """As texts put behind one another would."""
    of = chain((Feature("n", "count", "*", ("shop", "place"), MINUTE),), partitions=1)
    texts = [("ab", "c"), ("a", "bc"), ("ab", "c")]
    rows = [event(str(at), at, shop=shop, place=place) for at, (shop, place) in enumerate(texts)]

    (found,) = run_chain(of, real_stages(of), by_partition(of, rows, mark_clocks(rows)), 0, 1)[-1].values()

    assert [row["vector"][-1] for row in found] == [0.0, 0.0, 1.0]


def test_what_is_said_of_a_label_later_has_the_number_of_its_event() -> None:
    """Amended and retracted labels follow their event through all stages."""
    of = chain(partitions=2)
    rows = [event(str(n), n, f"k{n}", shop=f"s{n % 5}", place="a") for n in range(20)]
    rows += [label(str(n), 25, 1.0, f"k{n}") for n in range(20)] + [label(str(n), 26, 0.0, f"k{n}") for n in range(20)]
    rows += [label(str(n), 27, None, f"k{n}") for n in range(20)]

    written = run_chain(of, real_stages(of), by_partition(of, rows, mark_clocks(rows)), 5, 3)[-1]

    for found in written.values():
        numbers = {row["id"]: row["number"] for row in found if row["kind"] == 0}
        assert sorted(numbers.values()) == list(range(len(numbers)))
        assert all(row["number"] == numbers[row["id"]] for row in found)
    outcomes = [row["outcome"] for found in written.values() for row in found if row["kind"] == 1]
    assert sorted(outcomes) == [0] * 20 + [2] * 20 + [3] * 20


def test_many_events_wait_and_are_settled_at_once() -> None:
    """More than any table has room for at first, in every stage."""
    of = chain((Feature("late", "rate", "label", "shop", LONG, is_label=True), *FEATURES[:2]), missing=0.0)
    rows = [event(f"e{n}", n / 100, f"k {n % 2500}", shop=f"s{n % 1200}") for n in range(3_000)]
    rows += [mark(400), *(event(f"f{n}", 500 + n, f"k {n}", shop=f"s{n}") for n in range(20))]

    assert assert_same_chain(of, by_partition(of, rows, mark_clocks(rows)), 2, cuts=2) == 6_020


def test_what_waits_at_the_end_of_all_input_is_settled_as_missing_and_not_learned() -> None:
    """Its label row was lost with the first stage's state; nothing waits for ever, and the account holds."""
    of = chain(partitions=1, missing=1.0)
    rows = [event("a", 0), event("b", 1)]
    (sent,) = run_chain(of, real_stages(of)[:4], by_partition(of, rows, mark_clocks(rows)), 0, 1)[-1].values()
    last, end = real_stages(of)[-1][0], 2**63 - 1

    waiting = last.process(sent, [(0, 0), (end - 1, end - 1)])
    ended = last.process([mark(0)], [(end, end)])

    assert [row["kind"] for _, _, row in waiting] == [0, 0]
    assert [(row["id"], row["outcome"], row["number"]) for _, _, row in ended] == [("a", 1, 0), ("b", 1, 1)]
    assert all(np.isnan(row["label"]) for _, _, row in ended)
    assert ended[0][2]["vector"] == pytest.approx(waiting[0][2]["vector"], nan_ok=True)


def test_an_event_that_is_repeated_takes_the_place_of_the_one_that_waits() -> None:
    """As when the first stage goes on without its state: the first is settled as missing, the label is the second's."""
    of = chain(partitions=1)
    rows = [event("a", 0), label("a", 5)]
    (sent,) = run_chain(of, real_stages(of)[:4], by_partition(of, rows, mark_clocks(rows)), 0, 1)[-1].values()
    last = real_stages(of)[-1][0]

    made = last.process([sent[0], sent[0], sent[1], sent[1]], [(0, 0)] * 4)

    found = [(cause, row["kind"], row["outcome"], row["number"]) for cause, _, row in made]
    assert found == [(0, 0, -1, 0), (1, 1, 1, 0), (1, 0, -1, 1), (2, 1, 0, 1)]
    assert isinstance(last.task, LastTask)
    assert last.task.unknown_rows() == 1
