"""Changing the feature list: what goes on, goes on bit for bit; what is new, begins with the change."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.featurize import FeatureTask
from streams import moving
from streams.bound import Bound
from streams.errors import SnapshotError
from streams.list_changes import compare
from streams.outline import Part
from streams.pipeline import Feature
from streams.planning import make_plan
from tests.featurizing import SECOND, SOURCE, event, label, random_rows, run
from tests.growing import FIELDS, changed_run, column, late, listed, marked, plain_rows, whole_run
from tests.rows import events

MINUTE = 60 * SECOND
NORTH = "is_new and shop == 'north'"
POOL = (
    Feature("n", "count", "*", "key", MINUTE),
    Feature("sum", "sum", "amount", "key", MINUTE),
    Feature("mean", "mean", "amount", "key", MINUTE),
    Feature("amounts", "count", "amount", "key", MINUTE),
    Feature("news", "rate", "is_new", "key", MINUTE),
    Feature("news_short", "count", "is_new", "key", 7 * SECOND),
    Feature("std", "std", "amount", "key", MINUTE),
    Feature("min", "min", "amount", "key", MINUTE),
    Feature("max_short", "max", "amount", "key", 7 * SECOND),
    Feature("shops", "distinct", "shop", "key", MINUTE),
    Feature("median", "quantile", "amount", "key", MINUTE),
    Feature("n_north", "count", "*", "key", MINUTE, where=NORTH),
    Feature("mean_north", "mean", "amount", "key", 7 * SECOND, where=NORTH),
    Feature("exact_mean", "mean", "amount", "key", 30 * SECOND, is_exact=True),
    Feature("exact_news", "count", "is_new", "key", 30 * SECOND, is_exact=True),
    Feature("last", "last", "amount", "key"),
    Feature("last_minute", "last", "amount", "key", MINUTE),
    Feature("lag", "lag", "amount", "key", k=2),
    Feature("ewm", "ewm_mean", "amount", "key", half_life_us=10 * SECOND),
    Feature("ewm_std", "ewm_std", "amount", "key", half_life_us=10 * SECOND),
    Feature("exact_long", "sum", "amount", "key", MINUTE, is_exact=True),
)
LABELS = (
    Feature("rate", "rate", "label", "key", MINUTE, is_label=True),
    Feature("later", "rate", "label", "key", MINUTE, is_label=True, delay_us=7 * SECOND),
    Feature("positive", "sum", "label", "key", 30 * SECOND, is_label=True),
)

OF_LABELS = {feature.name for feature in LABELS}


@given(seed=st.integers(0, 10**6), at=st.integers(0, 150), data=st.data())
@settings(deadline=None, max_examples=60)
def test_what_goes_on_is_as_if_it_had_always_been_there_and_what_is_new_as_if_nothing_had_been(
    seed: int, at: int, data: st.DataObject
) -> None:
    """Whichever features are declared before and after; rows may be late, doubled or out of order."""
    lists = [data.draw(st.lists(st.sampled_from((*POOL, *LABELS)), min_size=1, unique=True)) for _ in range(2)]

    assert_goes_on(lists[0], lists[1], seed, at)


def assert_goes_on(before: Sequence[Feature], after: Sequence[Feature], seed: int, at: int) -> None:
    """Change the list at a row; compare with a run that had the new one always, and one that saw nothing before."""
    old, new = (listed(features, wait_us=20 * SECOND, missing=0.0) for features in (before, after))
    rows, clocks = random_rows(seed, 150, ids=60, keys=4, span_s=30)
    rows = marked(rows, at)
    change = compare(make_plan(old).outline, make_plan(new).outline)

    made, _ = changed_run([old, new], rows, clocks, [at])

    whole = whole_run(new, rows, clocks)
    # How far an entity's label windows have come is one time for all of its delays.
    has_same_delays = set(make_plan(old).outline.delays) == set(make_plan(new).outline.delays)
    for name in [name for name in (*change.kept, *change.found) if has_same_delays or name not in OF_LABELS]:
        assert column(new, made, name, since=at) == column(new, whole, name, since=at), name
    fresh = [late(feature) for feature in after if feature.name in change.added and not feature.is_label]
    if fresh:
        of = listed(fresh, wait_us=20 * SECOND, missing=0.0)
        empty = whole_run(of, rows, clocks)
        for feature in fresh:
            assert column(new, made, feature.name, since=at) == column(of, empty, feature.name, since=at), feature.name
    assert {feature.name for feature in before} & {feature.name for feature in after} <= set(change.kept)


def by_place(old: Sequence[Part], new: Sequence[Part]) -> list[moving.Move]:
    """Pair parts by where they stand."""
    return [moving.Move(a.word, b.word, min(a.words, b.words), a.half, b.half) for a, b in zip(old, new, strict=False)]


def by_meaning_alone(old: Sequence[Part], new: Sequence[Part]) -> list[moving.Move]:
    """Pair parts whenever they began."""
    known = {part.meaning: part for part in old}
    pairs = [(known[part.meaning], part) for part in new if part.meaning in known]
    return [moving.Move(a.word, b.word, b.words, a.half, b.half) for a, b in pairs]


@pytest.mark.parametrize(
    ("mutant", "before", "after"),
    [
        (by_place, (POOL[1], POOL[2], POOL[6]), (POOL[4], POOL[2], POOL[6], POOL[1])),
        (by_place, (POOL[15], POOL[17]), (POOL[18], POOL[17], POOL[15])),
        (by_meaning_alone, (POOL[1],), (POOL[1], POOL[2])),
    ],
)
def test_pairing_words_in_another_way_is_noticed(
    mutant: Any, before: Sequence[Feature], after: Sequence[Feature], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What these tests are for."""
    assert_goes_on(before, after, seed=1, at=75)
    monkeypatch.setattr(moving, "_moves", mutant)

    with pytest.raises(AssertionError):
        assert_goes_on(before, after, seed=1, at=75)


@pytest.mark.parametrize("seed", range(4))
def test_a_list_may_change_many_times(seed: int) -> None:
    """What has been there since the first list is the same to the last bit after ten others."""
    dice = random.Random(seed)
    always = [POOL[2], POOL[6], POOL[13], POOL[18], LABELS[1]]
    lists = []
    for _ in range(10):
        features = [*always, *dice.sample([f for f in POOL if f not in always], dice.randrange(12))]
        lists.append(listed(dice.sample(features, len(features)), missing=1.0))
    rows, clocks = random_rows(seed, 600, ids=200, keys=5, span_s=30)
    rows = marked(rows, 0)

    made, _ = changed_run(lists, rows, clocks, [60 * n for n in range(1, 10)])

    of = listed(always, missing=1.0)
    whole = whole_run(of, rows, clocks)
    for place, (of_then, end) in enumerate(zip(lists, [60 * n for n in range(1, 11)], strict=True)):
        span = slice(60 * place, end)
        for feature in always:
            mine, wanted = (
                column(which, [(c, r) for c, r in found if span.start <= c < span.stop], feature.name)
                for which, found in ((of_then, made), (of, whole))
            )
            assert mine == wanted, feature.name


def test_each_feature_says_what_became_of_it() -> None:
    """One line for all, and one for each that does not simply go on; nothing where nothing has changed."""
    old = listed((POOL[0], POOL[2], POOL[7], Feature("hour", "cyclic", "hour"), Feature("gone", "elapsed", "*", "key")))
    new = listed(
        (
            msgspec.structs.replace(POOL[0], name="renamed"),
            POOL[2],
            msgspec.structs.replace(POOL[7], of="is_new"),
            Feature("hour", "cyclic", "month"),
            POOL[6],
        )
    )
    rows, clocks = plain_rows(10)

    told = changed_run([old, new], rows, clocks, [9])[1]

    assert told == [
        "the feature list was changed: 1 kept, 1 on state that is there, 1 new, 2 changed, 2 dropped",
        "feature renamed: goes on with state that is there",
        "feature std is new: starts empty",
        "feature min changed: starts empty",
        "feature hour changed: computed as declared from here on",
        "feature n is no longer declared",
        "feature gone is no longer declared",
    ]
    assert changed_run([new, new], rows, clocks, [9])[1] == []


def test_a_mean_over_a_count_that_was_there_begins_with_both() -> None:
    """Else it would divide the sum of few rows by the count of many."""
    old, new = listed((POOL[3],)), listed((POOL[3], POOL[2]))
    rows, clocks = plain_rows(24)

    made, told = changed_run([old, new], rows, clocks, [24])

    rows_after = marked(rows, 24)
    of = listed((late(POOL[2]),))
    assert told[1] == "feature mean is new: starts empty"
    assert column(new, made, "mean", since=24) == column(of, whole_run(of, rows_after, clocks), "mean", since=24)
    assert column(new, made, "amounts", since=24) == column(old, whole_run(old, rows, clocks), "amounts", since=24)


def test_a_mean_of_parts_that_began_apart_begins_anew() -> None:
    """Sum and count are both there, but one is older."""
    lists = [listed((POOL[1],)), listed((POOL[1], POOL[3])), listed((POOL[1], POOL[3], POOL[2]))]
    rows, clocks = plain_rows(30)
    rows = marked(rows, 40)

    made, told = changed_run(lists, rows, clocks, [20, 40])

    of = listed((late(POOL[2]),))
    assert told[-1] == "feature mean is new: starts empty"
    assert column(lists[2], made, "mean", since=40) == column(of, whole_run(of, rows, clocks), "mean", since=40)


def test_an_exact_window_that_is_longer_than_all_before_begins_empty() -> None:
    """Of what it looks back to, a part was let go of: it would know half."""
    old, new = listed((POOL[13],)), listed((POOL[13], POOL[20]))
    rows, clocks = plain_rows(200, keys=1)
    rows = marked(rows, 300)

    made, told = changed_run([old, new], rows, clocks, [300])

    of = listed((late(POOL[20]),))
    assert told[1:] == ["feature exact_long is new: starts empty"]
    assert column(new, made, "exact_long", since=300) == column(
        of, whole_run(of, rows, clocks), "exact_long", since=300
    )
    assert column(new, made, "exact_mean", since=300) == column(
        old, whole_run(old, rows, clocks), "exact_mean", since=300
    )


def test_a_vector_that_waits_is_mapped_by_name() -> None:
    """Its label row has the columns of the new list, NaN where the event had none."""
    old = listed((POOL[0], POOL[1], POOL[15]), raw=True)
    new = listed((POOL[15], POOL[6], POOL[0]), raw=True)
    rows, clocks = plain_rows(12)
    at = 12

    made, _ = changed_run([old, new], rows, clocks, [at])

    whole = whole_run(old, rows, clocks)
    ids = {row["id"] for cause, row in made if row["kind"] == 0 and cause < at}
    waited = [(cause, row) for cause, row in made if row["kind"] == 1 and cause >= at and row["id"] in ids]
    wanted = [(cause, row) for cause, row in whole if row["kind"] == 1 and cause >= at and row["id"] in ids]
    assert len(waited) == 2
    for name in ("amount", "shop", "last", "n"):
        assert column(new, waited, name, kind=1) == column(old, wanted, name, kind=1)
    assert all(np.isnan(np.frombuffer(bits)[0]) for bits in column(new, waited, "std", kind=1))


def test_a_vector_of_a_settled_event_is_mapped_by_name() -> None:
    """A label that is amended after the change is learned with the columns of the new list."""
    old = listed((POOL[0], POOL[15]), raw=True, amend="relearn")
    new = listed((POOL[15], POOL[6]), raw=True, amend="relearn")
    rows = [event("a", 0, "k", 2.5, shop="s"), label("a", 1)]
    task, after = FeatureTask(old, 0, SOURCE), FeatureTask(new, 0, SOURCE)
    (_, before), _ = run(task, old, rows)
    after.restore(task.state())

    ((_, amended),) = run(after, new, [label("a", 2, 0.0)])

    found = dict(zip((column.name for column in after.columns), amended["vector"], strict=True))
    wanted = dict(zip((column.name for column in task.columns), before["vector"], strict=True))
    assert found.keys() - wanted.keys() == {"std"}
    for name, value in found.items():
        np.testing.assert_equal(value, wanted.get(name, np.nan))


def test_a_new_feature_of_labels_begins_with_those_that_settle_from_then_on() -> None:
    """Also of events that came before the change."""
    old, new = listed((POOL[0],)), listed((POOL[0], LABELS[0]))
    rows, clocks = plain_rows(20, keys=1)
    at = next(place for place, row in enumerate(rows) if row["kind"] == "label" and row["id"] == "e8")

    made, _ = changed_run([old, new], rows, clocks, [at])

    rate = [row["vector"][1] for cause, row in made if row["kind"] == 0 and cause >= at]
    settled = [float(n % 4 == 0) for n in range(8, 20)]
    assert rate == pytest.approx([np.mean(settled[: n + 1]) for n in range(9)])


def test_labels_that_are_held_go_on_waiting_under_their_delay() -> None:
    """Delays are numbered in the order of the features, which has changed."""
    old = listed((LABELS[1], LABELS[0]), missing=0.0)
    new = listed((LABELS[0], POOL[0], LABELS[1]), missing=0.0)
    rows, clocks = plain_rows(40)

    made, _ = changed_run([old, new], rows, clocks, [35])

    whole = whole_run(new, rows, clocks)
    for name in ("rate", "later"):
        assert column(new, made, name, since=35) == column(new, whole, name, since=35)
        assert len(set(column(new, made, name, since=35))) > 5


def test_a_field_that_comes_from_elsewhere_is_another() -> None:
    """By its path in the record, though its name is the same; so is a label of other terms."""
    old, new = listed((POOL[1], LABELS[0])), listed((POOL[1], LABELS[0]), missing=1.0)
    moved = tuple(msgspec.structs.replace(field, path=("other", field.name)) for field in FIELDS)
    new = msgspec.structs.replace(new, events=events(fields=moved))
    rows, clocks = plain_rows(10)

    assert changed_run([old, new], rows, clocks, [9])[1][1:] == [
        "feature sum changed: starts empty",
        "feature rate changed: starts empty",
    ]


@pytest.mark.parametrize(
    ("changes", "line", "command"),
    [
        ({"wait_us": 30 * SECOND}, "the labels' wait changed from 60 s to 30 s", "rebuild FILE --role features"),
        ({"id": ("number",)}, "the labels' id changed from id to number", "rebuild FILE"),
    ],
)
def test_other_rules_of_the_labels_are_refused(changes: dict[str, Any], line: str, command: str) -> None:
    """The ledger knows events by them; what ingest goes by, too, is in the log."""
    state = FeatureTask(listed((POOL[0],)), 0, SOURCE).state()

    with pytest.raises(SnapshotError, match=rf"{line}, which no state outlives; run `millrace {command}`"):
        FeatureTask(listed((POOL[0],), **changes), 0, SOURCE).restore(state)


def test_another_key_is_refused() -> None:
    """All tables go by it."""
    of = listed((POOL[0],))
    other = msgspec.structs.replace(of, events=events(fields=FIELDS, key=("user",)))

    with pytest.raises(SnapshotError, match="the events' key changed from key to user"):
        FeatureTask(other, 0, SOURCE).restore(FeatureTask(of, 0, SOURCE).state())


def test_features_of_another_entity_make_a_chain_and_are_refused() -> None:
    """Its stages have other tables."""
    of, chain = listed((POOL[0],)), listed((POOL[0], Feature("s", "count", "*", "shop", MINUTE)))

    with pytest.raises(
        SnapshotError, match="the entities of the stages changed from the key to the key, then shop, then the key"
    ):
        FeatureTask(chain, 0, SOURCE).restore(FeatureTask(of, 0, SOURCE).state())


def test_bounded_entities_go_on_in_their_list() -> None:
    """The longest idle one goes first, as if the features had not changed; bounds themselves may not come or go."""
    bounds = (Bound("key", ttl_us=200 * SECOND, most=5),)
    before, after = (POOL[13], POOL[2], POOL[15]), (POOL[6], POOL[15], POOL[2], POOL[14])
    old, new = (msgspec.structs.replace(listed(features), bounds=bounds) for features in (before, after))
    rows, clocks = random_rows(2, 400, ids=200, keys=20, span_s=20)

    made, _ = changed_run([old, new], rows, clocks, [200])

    whole = whole_run(new, rows, clocks)
    for name in ("mean", "last"):
        assert column(new, made, name, since=200) == column(new, whole, name, since=200)
    with pytest.raises(SnapshotError, match="what is kept of entities changed from all to bounded"):
        changed_run([listed(before), new], rows, clocks, [200])


def test_many_filled_buckets_are_moved() -> None:
    """Of more entities than tables have room for at first, and with chunks that have grown."""
    old, new = listed((POOL[2], POOL[9], POOL[7])), listed((POOL[7], POOL[10], POOL[2]))
    rows, clocks = plain_rows(3_000, keys=400)

    made, _ = changed_run([old, new], rows, clocks, [4_000])

    whole = whole_run(new, rows, clocks)
    for name in ("min", "mean"):
        assert column(new, made, name, since=4_000) == column(new, whole, name, since=4_000)


def test_the_state_of_a_changed_list_is_restored_like_any() -> None:
    """It remembers what began when, and asks nothing again."""
    old, new = listed((POOL[3],)), listed((POOL[3], POOL[2]))
    rows, clocks = plain_rows(30)
    told: list[str] = []

    made, _ = changed_run([old, new], rows, clocks, [20])
    again, told = changed_run([old, new, new, new], rows, clocks, [20, 30, 40])

    assert repr(again) == repr(made)
    assert len(told) == 2


def test_a_run_of_no_rows_may_change_too() -> None:
    """Nothing is known, nothing is lost."""
    old, new = listed((POOL[3],)), listed((POOL[2],))
    task = FeatureTask(new, 0, SOURCE)
    rows, clocks = plain_rows(5)

    task.restore(FeatureTask(old, 0, SOURCE).state())

    assert repr(run(task, new, rows, clocks)) == repr(whole_run(new, rows, clocks))


def test_a_list_without_entities_in_between_leaves_nothing_known_of_them() -> None:
    """Nobody saw the events in between: what comes after begins as if each key were new."""
    keyed, keyless = listed((Feature("since", "elapsed", "*", "key"), POOL[0])), listed((), raw=True)
    rows, clocks = plain_rows(60)

    made, told = changed_run([keyed, keyless, keyed], rows, clocks, [40, 80])

    first = np.frombuffer(b"".join(column(keyed, made, "since", since=80)[:3]))
    counted = np.frombuffer(b"".join(column(keyed, made, "n", since=80)))
    assert np.isnan(first).all()
    assert counted[:6].tolist() == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    assert "feature since is new: starts empty" in " ".join(told)
