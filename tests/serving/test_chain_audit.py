"""The audit of a chain: each stage beside what its input gives as written, whatever order rows fell together in."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from serving.audit import Audit, is_sampled
from serving.course import Course, Courses
from serving.hop import Hop, hops
from serving.names import Names
from serving.replica import Naming
from serving.stage_audit import StageAudit
from serving.tally import Tally
from streams import frames
from streams.control import Control
from streams.frames import EVENT, LABEL
from tests.faults.world import OF_SEVERAL, PARTITIONS, World, install
from tests.memory_feed import MemoryFeed, Row, changed, rows_of
from tests.memory_kafka import Record

Way = tuple[int, int, int]  # partition, source, number


class Written:
    """The topics of a chain that was killed again and again, to be damaged and audited by a test."""

    def __init__(self, world: World) -> None:
        self.world, self.hops = world, hops(world.pipeline)
        names = ["log", *(hop.writes for hop in self.hops)]
        self.topics: dict[str, list[list[Record]]] = {
            name: [list(world.records(f"w.{name}", partition)) for partition in range(PARTITIONS)] for name in names
        }

    def rows(self, hop: Hop) -> dict[Way, Row]:
        """The events and labels that a stage wrote, as readers take them."""
        found: dict[Way, Row] = {}
        for partition, records in enumerate(self.topics[hop.writes]):
            for row in (row for record in records for row in rows_of(hop.output, record)):
                if row["kind"] <= LABEL:
                    found.setdefault((partition, row["source"], row[hop.counted_by]), row)
        return found

    def change(self, hop: Hop, way: Way, change: Callable[[Row], Row | None]) -> None:
        """Change a row wherever it stands, or leave it out."""
        partition, source, number = way

        def is_it(row: Row) -> bool:
            return (row["kind"] <= LABEL, row["source"], row[hop.counted_by]) == (True, source, number)

        def changes(rows: list[Row]) -> list[Row]:
            made = [change(row) if is_it(row) else row for row in rows]
            return [row for row in made if row is not None]

        records = self.topics[hop.writes][partition]
        for at, record in enumerate(records):
            if any(map(is_it, rows_of(hop.output, record))):
                records[at] = changed(hop.output, record, changes)

    def audits(self, *, sample: float = 1.0, cut: dict[str, int] | None = None) -> list[StageAudit]:
        """The audits of all stages; of topics named in `cut` so many records are gone in every partition."""
        return [self._audit(hop, self.world.control(), sample, cut or {}) for hop in self.hops]

    def _audit(self, hop: Hop, control: Control, sample: float, cut: dict[str, int]) -> StageAudit:
        topic_id, read = self.world.broker.uuid(f"w.{hop.reads}"), self.topics[hop.reads]
        start = cut.get(hop.reads, 0)
        courses = Courses(self.world.pipeline, hop, control, topic_id, lambda p: MemoryFeed(read[p], start))
        audits = []
        for partition, served in enumerate(self.topics[hop.writes]):
            feed = MemoryFeed(served, cut.get(hop.writes, 0))
            rows = (frames.decode(r.value_ or b"", hop.output) for r in served[feed.start :])
            naming: Callable[[int], Naming | None] = Names(rows, hop.counted_by).of if start else lambda _: None
            audits.append(Audit(hop, partition, control, feed, courses, sample=sample, naming=naming))
        return StageAudit(hop, courses, audits)

    def go(self, audits: list[StageAudit], share: float = 1.0, *, is_last: bool = True) -> None:
        """Let audits go on through this share of what was written, and through all that was read."""
        for audit in audits:
            written, read = self.topics[audit.hop.writes], self.topics[audit.hop.reads]
            ends = {p: int(len(records) * share) for p, records in enumerate(written)}
            audit.run(ends, {p: len(records) for p, records in enumerate(read)}, is_last=is_last)

    def tallies(self, *, sample: float = 1.0, cut: dict[str, int] | None = None) -> list[list[Tally]]:
        """Audit everything there is; gives tallies by stage and partition."""
        audits = self.audits(sample=sample, cut=cut)
        self.go(audits)
        return [audit.tallies for audit in audits]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A chain of four stages under crashes, rebalances and zombies, run once."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as directory:
        patch.setattr("os.fsync", lambda _: None)
        made = World(5, Path(directory), events=250, of=OF_SEVERAL)
        install(patch, made)
        made.run()
        yield made


@pytest.fixture
def written(world: World) -> Written:
    """A fresh copy of what it has written."""
    return Written(world)


def skew(tallies: list[list[Tally]]) -> list[int]:
    """What is wrong, by stage."""
    return [sum(tally.skew for tally in stage) for stage in tallies]


def vector(row: Row, place: int, value: float) -> Row:
    """A row with another value in its vector."""
    return row | {"vector": [value if at == place else old for at, old in enumerate(row["vector"])]}


def test_a_chain_that_was_killed_again_and_again_has_no_skew(written: Written, world: World) -> None:
    """Every row that a stage wrote is compared once, in the order as written, which no other rule gives."""
    tallies = written.tallies()

    for hop, stage in zip(written.hops, tallies, strict=True):
        ways = list(written.rows(hop))
        mine = [sum(partition == at for partition, _, _ in ways) for at in range(PARTITIONS)]
        assert stage == [Tally(at, hop.spec.number, compared=rows) for at, rows in enumerate(mine)]
        assert min(mine) > 50
    assert len(tallies) == 4
    assert min(world.crashes, world.zombies) > 0, "else this world would prove little"


def test_a_chain_behind_a_ledger_by_id_has_no_skew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels without a key, and amended ones that bear their event's vector."""
    monkeypatch.setattr("os.fsync", lambda _: None)
    labels = {"match": "id", "key": None, "amend": "relearn"}
    world = World(2, tmp_path, events=120, of=OF_SEVERAL, labels=labels)
    with monkeypatch.context() as patch:
        install(patch, world)
        world.run()

    tallies = Written(world).tallies()

    assert skew(tallies) == [0] * 5
    assert all(sum(tally.compared for tally in stage) >= 120 for stage in tallies)


def test_a_wrong_value_that_was_served_is_found_in_the_last_stage(written: Written) -> None:
    """By stage, feature and row."""
    hop = written.hops[-1]
    place = [column.name for column in hop.output.columns].index("of_shop")
    way, row = next((w, r) for w, r in written.rows(hop).items() if r["vector"][place] == r["vector"][place])
    wrong = float(np.nextafter(row["vector"][place], np.inf))
    written.change(hop, way, lambda row: vector(row, place, wrong))
    tallies = written.tallies()
    (found,) = tallies[-1][way[0]].first

    assert skew(tallies) == [0, 0, 0, 1]
    assert (found.stage, found.partition, found.number) == (4, way[0], way[2])
    assert (found.id, found.column) == (row["id"], "of_shop")
    assert (found.served, found.recomputed) == (wrong, row["vector"][place])


def test_a_stage_that_computed_otherwise_is_found_and_none_behind_it(written: Written) -> None:
    """Stages behind it did right with what they were given: all of them have the wrong value."""
    *_, second, third, last = written.hops
    place = [column.name for column in last.output.columns].index("rate")
    way, row = next((w, r) for w, r in written.rows(last).items() if r["vector"][place] == r["vector"][place])
    for hop in (second, third, last):
        for other, found in written.rows(hop).items():
            if found["id"] == row["id"] and found["kind"] == EVENT:
                written.change(hop, other, lambda row: vector(row, place, 77.0))
    tallies = written.tallies()

    assert skew(tallies) == [0, 1, 0, 0]
    assert sum((tally.unlike for tally in tallies[1]), start=tallies[1][0].unlike - tallies[1][0].unlike) == {"rate": 1}
    assert way[0] in {tally.partition for tally in tallies[1]}


@pytest.mark.parametrize("column", ["id", "key", "time", "produced", "number", "entity.2", "entity.3", "field.amount"])
def test_all_that_travels_between_stages_is_compared(written: Written, column: str) -> None:
    """What later stages read is as much a matter of values as what they are given."""
    hop = written.hops[0]
    way = next(way for way, row in written.rows(hop).items() if row["kind"] == EVENT)
    wrong = "another" if column in ("id", "key") else 5
    written.change(hop, way, lambda row: row | {column: wrong})
    first = written.tallies()[0]

    assert [tally.unlike for tally in first if tally.skew] == [{column: 1}]
    assert first[way[0]].first[0].served == wrong


@pytest.mark.parametrize("column", ["label", "outcome"])
def test_what_label_rows_say_between_stages_is_compared(written: Written, column: str) -> None:
    hop = written.hops[1]
    way = next(way for way, row in written.rows(hop).items() if row["kind"] == LABEL and row["outcome"] == 0)
    written.change(hop, way, lambda row: row | {column: 3})
    second = written.tallies()[1]

    assert [tally.unlike for tally in second if tally.skew] == [{column: 1}]


def test_a_row_missing_between_stages_is_counted_where_it_is_missing(written: Written) -> None:
    """The audit goes on: the next stage is compared with what the topic gives."""
    hop = written.hops[0]
    way = next(way for way, row in written.rows(hop).items() if row["kind"] == LABEL and row["outcome"] == 1)
    written.change(hop, way, lambda _: None)
    tallies = written.tallies()

    assert [tally.only_recomputed for tally in tallies[0]] == [int(at == way[0]) for at in range(PARTITIONS)]
    assert sum(tally.only_served for tally in tallies[1]) == 1


def test_rows_not_written_yet_are_no_skew(written: Written) -> None:
    """Stages behind one another are each behind by what their own input gives."""
    whole = len(written.rows(written.hops[1]))
    for name in ("stage2", "stage3", "features"):
        for records in written.topics[name]:
            del records[0 if name != "stage2" else len(records) // 2 :]
    tallies = written.tallies()
    second = tallies[1]

    assert skew(tallies) == [0, 0, 0, 0]
    assert sum(tally.compared + tally.unserved for tally in second) == whole
    assert min(tally.unserved for tally in second) > 0
    assert sum(tally.unserved for tally in tallies[2]) == sum(tally.compared for tally in second)


def test_a_chain_of_which_nothing_is_written_is_not_served_yet(written: Written) -> None:
    whole = len(written.rows(written.hops[0]))
    for name in ("stage1", "stage2", "stage3", "features"):
        for records in written.topics[name]:
            records.clear()
    first, *others = written.tallies()

    assert sum(tally.unserved for tally in first) == whole
    assert [tally for stage in others for tally in stage] == [
        Tally(at, stage) for stage in (2, 3, 4) for at in range(PARTITIONS)
    ]


def test_an_audit_of_a_chain_goes_on_where_it_stopped(written: Written) -> None:
    """However often it looks, it finds the same as one that looks once."""
    third, last = written.hops[2:]
    ways = [way for way, row in written.rows(third).items() if row["kind"] == EVENT]
    written.change(third, ways[40], lambda row: row | {"time": 7})
    written.change(last, list(written.rows(last))[70], lambda _: None)
    going_on = written.audits()
    for step in range(1, 6):
        written.go(going_on, step / 5, is_last=step == 5)

    assert [audit.tallies for audit in going_on] == written.tallies()
    assert skew([audit.tallies for audit in going_on]) == [0, 0, 1, 2]


def test_a_sample_of_a_chain_is_chosen_by_numbers_in_every_stage(written: Written) -> None:
    """About the share asked for; a difference is found if its number belongs to it, and only then."""
    hop = written.hops[0]
    ways = list(written.rows(hop))
    drawn = is_sampled(np.array([number for _, _, number in ways]), 0.3)
    left, taken = (ways[int(np.flatnonzero(drawn == is_drawn)[20])] for is_drawn in (False, True))
    for way in (left, taken):
        written.change(hop, way, lambda row: row | {"key": "wrong"})
    first = written.tallies(sample=0.3)[0]

    assert sum(tally.compared for tally in first) == drawn.sum()
    assert [tally.unlike for tally in first if tally.skew] == [{"key": 1}]
    assert [(one.partition, one.number) for tally in first for one in tally.first] == [(taken[0], taken[2])]


def test_topics_that_were_cut_are_compared_by_the_names_of_events(written: Written) -> None:
    """Rows behind the cut are found; only what looks back over it may differ, and the last stage looks at nothing."""
    cut = {name: len(written.topics[name][0]) // 4 for name in ("log", "stage1", "stage2", "stage3", "features")}
    tallies = written.tallies(cut=cut)

    assert all(tally.one_sided == 0 for stage in tallies for tally in stage)
    assert all(sum(tally.compared for tally in stage) > 60 for stage in tallies)
    assert sum(tally.out_of_reach for stage in tallies for tally in stage) > 0
    assert skew(tallies)[-1] == 0
    named = {feature.name for feature in written.world.pipeline.features}
    assert {column for stage in tallies for tally in stage for column in tally.unlike} <= named


def test_a_wrong_value_behind_the_cut_is_found(written: Written) -> None:
    hop = written.hops[1]
    way = [way for way, row in written.rows(hop).items() if row["kind"] == EVENT][-3]
    written.change(hop, way, lambda row: vector(row, 0, -5.0))
    tallies = written.tallies(cut={"log": 20, "stage1": 20})

    assert tallies[1][way[0]].unlike["amount"] == 1


def test_what_a_topic_was_cut_of_and_its_input_was_not_is_not_missed(written: Written) -> None:
    """Each writer's rows begin somewhere in the middle."""
    tallies = written.tallies(cut={"features": len(written.topics["features"][0]) // 2})

    assert skew(tallies) == [0, 0, 0, 0]
    assert 0 < tallies[-1][0].compared < tallies[-1][1].compared + tallies[-1][0].compared


def test_recomputed_rows_wait_for_what_was_written_with_them_and_no_longer(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Partitions are gone through together, in Kafka's order: else one would wait as a whole for the others."""
    most, advance = [0], Course.advance

    def noted(self: Course) -> bool:
        has_more = advance(self)
        waiting = sum(table.num_rows for tables in self._waiting.values() for table in tables)
        most[0] = max(most[0], waiting)
        return has_more

    monkeypatch.setattr(Course, "advance", noted)
    written.go(written.audits()[:1], is_last=False)

    assert 0 < most[0] < len(written.rows(written.hops[0])) / 3
