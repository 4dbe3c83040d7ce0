"""Parting state by key: however often the number of partitions changes, rows come out as from one partition."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.chain_tasks import make_task
from consumers.featurize import FeatureTask
from streams import accounts as count
from streams.bound import Bound
from streams.errors import SnapshotError
from streams.frames import MISSING, SET
from streams.hashing import ENTITY_SEED, hash_bytes
from streams.parting import part_states
from streams.pipeline import Feature, Field, Match, Pipeline
from streams.stages import stage_specs
from tests.aggregate_reference import Row
from tests.chaining import RealStage, run_chain
from tests.featurizing import SECOND, START, Clocks, batch, plain, random_rows
from tests.growing import listed, plain_rows
from tests.rows import events
from tests.streams.test_label_life import nameless_rows
from tests.streams.test_list_changes import LABELS, MINUTE, POOL

FEATURES = (*POOL, Feature("since", "elapsed", "*", "key"), Feature("ratio", "ratio", "sum", other="n"))
Lines = list[tuple[Any, ...]]
PARTED = ("source", "sequence", "number")  # what tells of partitions


def partition_of(key: str | None, partitions: int) -> int:
    """Where the log has the rows of a key."""
    return (hash_bytes((key or "").encode(), ENTITY_SEED) >> 32) % partitions


def line(row: Row) -> tuple[Any, ...]:
    """A row to its last bit, without what tells of partitions."""
    told = {name: value for name, value in row.items() if name not in PARTED}
    return tuple(repr(np.float64(v).tobytes() if isinstance(v, float) else v) for v in told.values())


class Log:
    """The features role on some partitions, whose number may change."""

    def __init__(self, of: Pipeline, partitions: int) -> None:
        self.of = of
        self.tasks = [FeatureTask(of, partition, 10 + partition) for partition in range(partitions)]
        self.sources = [10 + partition for partition in range(partitions)]
        self.aliases: list[int] = []  # the source of each

    def part(self, partitions: int) -> None:
        """Go on with so many."""
        aliases = range(len(self.aliases), len(self.aliases) + len(self.sources))
        states = part_states([task.state() for task in self.tasks], partitions, tuple(aliases))
        self.aliases += self.sources
        first = max(self.sources) + 1
        self.sources = [first + partition for partition in range(partitions)]
        self.tasks = [FeatureTask(self.of, partition, self.sources[partition]) for partition in range(partitions)]
        for task, state in zip(self.tasks, states, strict=True):
            task.restore(state | {"sequences": np.zeros(2, np.int64)})

    def take(self, rows: list[Row], clocks: Clocks) -> list[Row]:
        """Take rows in the partitions of their keys; each is a mark in the others, so that clocks go alike."""
        made: list[tuple[int, Row]] = []
        for partition, task in enumerate(self.tasks):
            mine = [row if partition_of(row["key"], len(self.tasks)) == partition else mark_at(row) for row in rows]
            if mine:
                made += plain(task.process(batch(self.of, mine, clocks)))
            assert task.unaccounted_rows() == 0
        return [row for _, row in made]

    def totals(self) -> list[int]:
        """Sum the counters that do not tell of partitions."""
        told = [count.NUMBERED, count.LABEL_ROWS, count.CLOCK, count.LABEL_CLOCK, count.LATEST, count.IDLE_CLOCK]
        sums = np.sum([task._stage.counters for task in self.tasks], axis=0)
        return [int(total) for place, total in enumerate(sums) if place not in told]


def mark_at(row: Row) -> Row:
    """A mark instead of a row."""
    return {"kind": "mark", "id": None, "key": None, "time": row["time"]}


def parted_run(
    of: Pipeline, rows: list[Row], clocks: Clocks, partitions: Sequence[int], cuts: Sequence[int]
) -> tuple[list[Row], Log]:
    """Rows on so many partitions up to the first cut, then on others up to the next, and so on."""
    log, made, start = Log(of, partitions[0]), [], 0
    for place, end in enumerate([*cuts, len(rows)]):
        if place:
            log.part(partitions[place])
        made += log.take(rows[start:end], clocks[start:end])
        start = end
    return made, log


def assert_named(rows: list[Row], aliases: Sequence[int]) -> None:
    """Every label row that settles names the event row of its id, by a source and a number of that."""
    events = {(row["source"], row["number"]): row for row in rows if row["kind"] == 0}
    assert len(events) == sum(row["kind"] == 0 for row in rows)
    for row in (row for row in rows if row["kind"] == 1):
        alias, number = divmod(row["number"], 1 << 40)
        named = events[aliases[alias - 1] if alias else row["source"], number]
        assert (named["id"], named["key"]) == (row["id"], row["key"])


@given(
    seed=st.integers(0, 10**6),
    partitions=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    cuts=st.lists(st.integers(0, 200), min_size=3, max_size=3),
)
@settings(deadline=None, max_examples=30)
def test_whatever_the_partitions_rows_come_out_as_from_one(seed: int, partitions: list[int], cuts: list[int]) -> None:
    """To the last bit, with early, late, doubled and amended labels, rows far out of order and keyless ones."""
    of = listed(FEATURES, raw=True, wait_us=20 * SECOND, keep_us=30 * SECOND, missing=0.0, amend="relearn")
    rows, clocks = random_rows(seed, 200, ids=70, keys=6, span_s=30)

    made, log = parted_run(of, rows, clocks, partitions, sorted(cuts)[: len(partitions) - 1])

    whole, alone = parted_run(of, rows, clocks, [1], [])
    assert Counter(map(line, made)) == Counter(map(line, whole))
    assert log.totals() == alone.totals()
    assert_named(made, log.aliases)


@pytest.mark.parametrize("seed", range(4))
def test_queues_of_events_whose_labels_have_no_id_are_parted_with_their_keys(seed: int) -> None:
    of = listed(FEATURES[:3], wait_us=20 * SECOND, keep_us=30 * SECOND, match="key", within_us=20 * SECOND, id=None)
    rows, clocks = nameless_rows(seed, 300, keys=6)

    made, log = parted_run(of, rows, clocks, [1, 4, 3], [90, 200])

    whole, alone = parted_run(of, rows, clocks, [1], [])
    assert Counter(map(line, made)) == Counter(map(line, whole))
    assert log.totals() == alone.totals()
    assert sum(row["outcome"] == SET for row in made) > 10


def by_lower_half(keys: Any, partitions: int) -> Any:
    """The wrong half of the hash."""
    return (keys & 0xFFFFFFFF) % partitions


def as_they_come(waiting: Any) -> Any:
    """Orders that forget which came first."""
    return np.arange(sum(one.orders.size for one in waiting))[::-1].copy()


@pytest.mark.parametrize(
    ("module", "name", "mutant"),
    [
        ("streams.parted_entities", "places_of", by_lower_half),
        ("streams.parted_events", "places_of", by_lower_half),
        ("streams.parted_events", "_ranks", as_they_come),
        ("streams.parted_events", "named", lambda numbers, alias: numbers),
        ("streams.parted_entities", "_owners", lambda first_E, next_N: np.full(next_N.size, -1)),
    ],
)
def test_parting_in_another_way_is_noticed(
    module: str, name: str, mutant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What these tests are for; which label row leaves first is seen in the rows themselves."""
    of = listed(FEATURES, raw=True, wait_us=20 * SECOND, keep_us=30 * SECOND, missing=0.0)
    rows, clocks = random_rows(4, 200, ids=70, keys=6, span_s=30)
    whole = list(map(line, parted_run(of, rows, clocks, [1, 1], [100])[0]))
    monkeypatch.setattr(f"{module}.{name}", mutant)

    def check() -> None:
        made, log = parted_run(of, rows, clocks, [1, 3, 1], [50, 100])
        assert_named(made, log.aliases)
        assert Counter(map(line, made)) == Counter(whole)
        assert list(map(line, parted_run(of, rows, clocks, [1, 1], [100])[0])) == whole

    with pytest.raises((AssertionError, IndexError, KeyError)):
        check()


def test_windows_of_labels_go_on_in_the_partition_of_their_key() -> None:
    """In order, as they come live; held labels among them."""
    of = listed((*LABELS, POOL[0]), missing=1.0)
    rows, clocks = plain_rows(300, keys=17)

    made, _ = parted_run(of, rows, clocks, [1, 4, 2, 3, 1], [100, 200, 300, 400])

    whole, _ = parted_run(of, rows, clocks, [1], [])
    assert Counter(map(line, made)) == Counter(map(line, whole))
    assert len({line(row) for row in made}) == 600


def test_more_than_small_tables_hold_is_parted() -> None:
    """Entities, records and waiting events beyond the room that tables begin with."""
    of = listed((POOL[2], POOL[9], POOL[13], POOL[17]), keep_us=10_000 * SECOND)
    rows, clocks = plain_rows(5_000, keys=3_000)

    made, log = parted_run(of, rows, clocks, [2, 3, 1], [5_000, 8_000])

    whole, alone = parted_run(of, rows, clocks, [1], [])
    assert Counter(map(line, made)) == Counter(map(line, whole))
    assert log.totals() == alone.totals()


@pytest.mark.parametrize("seed", range(3))
def test_entities_that_are_bounded_are_forgotten_as_they_would_have_been(seed: int) -> None:
    """Idle ones by the clock in whatever partition, the longest idle of too many in their order."""
    rows, clocks = random_rows(seed, 400, ids=200, keys=40, span_s=20)
    for bound, partitions in ((Bound("key", ttl_us=25 * SECOND), [1, 3, 2]), (Bound("key", most=7), [1, 1, 1])):
        of = msgspec.structs.replace(listed(FEATURES, missing=0.0, wait_us=20 * SECOND), bounds=(bound,))

        made, log = parted_run(of, rows, clocks, partitions, [130, 260])

        whole, alone = parted_run(of, rows, clocks, [1], [])
        gone = sum(int(alone.tasks[0]._stage.counters[at]) for at in (count.EXPIRED, count.EVICTED))
        assert gone > 20
        assert Counter(map(line, made)) == Counter(map(line, whole))
        assert log.totals()[:13] == alone.totals()[:13]


def test_each_partition_has_the_keys_of_its_rows_and_no_others() -> None:
    """State that no row finds would be lost, and would never leave."""
    of = listed((POOL[2],))
    rows, clocks = plain_rows(200, keys=50)
    log = Log(of, 1)
    log.take(rows, clocks)

    log.part(4)

    hashes = [hash_bytes(f"k{n}".encode(), ENTITY_SEED) for n in range(50)]
    for partition, task in enumerate(log.tasks):
        table = task._stage.entities.table
        found = set(table[table[:, 1] != 0, 0].view(np.uint64).tolist())
        assert found == {one for one in hashes if (one >> 32) % 4 == partition}


def test_new_numbers_are_above_all_old_ones_and_begin_a_block() -> None:
    """So that what waits is before what comes, and no block of evidence is begun in the middle."""
    of = listed(())
    rows, clocks = plain_rows(130)
    log = Log(of, 2)
    log.take(rows, clocks)

    log.part(3)

    counters = [task._stage.counters for task in log.tasks]
    assert [one[count.NUMBERED] for one in counters] == [100, 100, 100]
    assert sum(one[count.PENDING] for one in counters) == 0
    assert all(one[count.LABEL_ROWS] == 100 for one in counters)


def test_snapshots_of_several_lists_are_refused() -> None:
    """They would have to be made one first."""
    states = [FeatureTask(listed(features), 0, 1).state() for features in ((POOL[0],), (POOL[1],))]

    with pytest.raises(SnapshotError, match="of several lists of features; start the features role once"):
        part_states(states, 3)


# Chains

OF_SHOPS = (
    Feature("n", "count", "*", "key", MINUTE),
    Feature("mean", "mean", "amount", "shop", MINUTE),
    Feature("since", "elapsed", "*", ("shop", "is_in")),
    Feature("median", "quantile", "amount", ("shop", "is_in"), MINUTE),
    Feature("above", "difference", "amount", other="mean"),
)


def of_shops(partitions: int, match: Match = "id and key") -> Pipeline:
    """A chain of four stages, or of five where the key is an entity like others."""
    fields = (*listed(()).events.fields[:3], Field("is_in", "category", ("is_in",)))
    of = listed(OF_SHOPS, missing=0.0, match=match, key=None if match == "id" else ("key",))
    return msgspec.structs.replace(of, events=events(fields=fields), partitions=partitions)


def shop_rows() -> tuple[list[Row], Clocks]:
    """Each key in a shop of its own, so that the order of its rows does not hang on how partitions fall together."""
    rows, clocks = plain_rows(240, keys=9)
    dice = random.Random(1)
    for row in rows:
        if row["kind"] == "event":
            row |= {"field.shop": f"shop of {row['key']}", "field.is_in": dice.choice(["a", "b", None])}
    return rows, [(clock, START + place * SECOND // 4) for place, (clock, _) in enumerate(clocks)]


def by_partition(
    rows: list[Row], clocks: Clocks, partitions: int, name: str = "key"
) -> list[list[tuple[Row, tuple[int, int]]]]:
    """The log: each row in the partition of its key, or of its id."""
    log: list[list[tuple[Row, tuple[int, int]]]] = [[] for _ in range(partitions)]
    for row, now in zip(rows, clocks, strict=True):
        log[partition_of(row[name], partitions)].append((row, now))
    return log


def staged(of: Pipeline, before: list[list[RealStage]] | None = None) -> list[list[RealStage]]:
    """All stages on all partitions, with what others knew before."""
    made = []
    for spec in stage_specs(of):
        own = [RealStage(of, spec.number, partition, restores=False) for partition in range(of.partitions)]
        if before is not None:
            old = before[spec.number - 1]
            aliases = tuple(range(len(old))) if spec.is_last else ()
            states = part_states([one.task.state() for one in old], of.partitions, aliases)
            for partition, (stage, state) in enumerate(zip(own, states, strict=True)):
                stage.task = make_task(of, spec.number, partition, 1_000 + 100 * spec.number + partition)
                zeros = np.zeros(2 if spec.is_last else of.partitions, np.int64)
                stage.task.restore(state | {"sequences": zeros})
        made.append(own)
    return made


def test_a_ledger_by_id_is_parted_by_the_ids() -> None:
    """And each stage behind it by its own entity, with rows of a key coming from every partition of the ledger."""
    rows, clocks = shop_rows()
    rows = [row | {"key": None} if row["kind"] == "label" else row for row in rows]
    half, made, stages = len(rows) // 2, [], None
    for partitions, start in ((2, 0), (5, half)):
        of = of_shops(partitions, "id")
        stages = staged(of, stages)
        part = slice(start, start + half)
        made += written_rows(run_chain(of, stages, by_partition(rows[part], clocks[part], partitions, "id"), None, 60))

    one = of_shops(1, "id")
    whole = written_rows(run_chain(one, staged(one), by_partition(rows, clocks, 1, "id"), None, 1))
    assert len(stages or ()) == 5
    assert Counter(map(line, made)) == Counter(map(line, whole))
    assert_named(made, [500, 501])


def written_rows(written: list[dict[tuple[int, int], list[Row]]]) -> list[Row]:
    """What the last stage wrote."""
    return [row for rows in written[-1].values() for row in rows]


@pytest.mark.parametrize("partitions", [(1, 3), (3, 1), (2, 5)])
def test_every_stage_of_a_chain_is_parted_by_its_entity(partitions: tuple[int, int]) -> None:
    """Events that wait in the first and in the last stage find one another by the first one's number still."""
    rows, clocks = shop_rows()
    half = len(rows) // 2
    stages = staged(of_shops(partitions[0]))
    made = written_rows(
        run_chain(of_shops(partitions[0]), stages, by_partition(rows[:half], clocks[:half], partitions[0]), 1, 4)
    )
    waiting = sum(stage.task.pending_events() for stage in stages[-1])

    stages = staged(of_shops(partitions[1]), stages)
    made += written_rows(
        run_chain(of_shops(partitions[1]), stages, by_partition(rows[half:], clocks[half:], partitions[1]), 2, 4)
    )

    one = of_shops(1)
    whole = written_rows(run_chain(one, staged(one), by_partition(rows, clocks, 1), 3, 1))
    assert waiting > 1
    assert Counter(map(line, made)) == Counter(map(line, whole))
    assert {row["outcome"] for row in made if row["kind"] == 1} <= {SET, MISSING}
    assert not math.isnan(sum(row["label"] for row in made if row["kind"] == 1))
    assert_named(made, [400 + partition for partition in range(partitions[0])])
