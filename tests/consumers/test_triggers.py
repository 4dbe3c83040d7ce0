"""When a training is due: at an exact row, in every cut and after every restore."""

from __future__ import annotations

import math
import random
from typing import Any

import msgspec
import numpy as np
import pytest

from consumers.training_queue import FIRST_RETRY_S, LONGEST_RETRY_S, TrainingQueue
from consumers.triggers import Due, Triggers
from consumers.version_rows import version_row
from models.training_job import Training
from models.version import Version
from streams.frames import (
    AMENDED,
    EVENT,
    LABEL,
    MARK,
    MISSING,
    NO_OUTCOME,
    RETRACTED,
    SET,
    Column,
    build,
    examples_schema,
)
from streams.pipeline import Model
from streams.retraining import Retrain
from streams.tables import Table, join

COLUMNS = (Column("a", False),)
SCHEMA = examples_schema(COLUMNS)
SETTINGS = {
    "by_number": Retrain(examples=50),
    "by_time": Retrain(every_us=700),
    "by_both": Retrain(examples=60, every_us=900),
    "cooled": Retrain(examples=20, cooldown_us=500),
    "by_hand": Retrain(),
}


def triggers(**settings: Retrain) -> Triggers:
    chosen = settings or SETTINGS
    return Triggers([Model(name, "torch:mlp", {}, retrain=retrain) for name, retrain in chosen.items()])


def rows_of(count: int = 1_200, seed: int = 0) -> list[tuple[int, int, float, int]]:
    """(kind, time, label, outcome): events out of order here and there, labels of all kinds, marks between."""
    chance, rows = random.Random(seed), []
    for at in range(count):
        kind = chance.choice([EVENT, EVENT, LABEL, LABEL, LABEL, MARK])
        outcome = chance.choice([SET] * 6 + [MISSING, MISSING, AMENDED, RETRACTED]) if kind == LABEL else NO_OUTCOME
        label = math.nan if kind != LABEL or outcome == RETRACTED or chance.random() < 0.1 else 1.0
        rows.append((kind, 10 * at + chance.randint(-100, 100), label, outcome))
    return rows


def table_of(rows: list[tuple[int, int, float, int]]) -> Table:
    kind, time, label, outcome = (np.array(column) for column in zip(*rows, strict=True))
    return build(SCHEMA, {"kind": kind, "time": time, "label": label, "outcome": outcome}, len(rows))


def reference(rows: list[tuple[int, int, float, int]], retrain: Retrain) -> list[Due]:
    """Say what is due one row at a time."""
    found: list[Due] = []
    archived, labelled, since, newest, known = 0, 0, 0, -math.inf, -math.inf
    began: float | None = None
    cooled = -math.inf
    for kind, time, label, outcome in rows:
        if kind == EVENT:
            newest = max(newest, time)
            began = time if began is None else began
        if kind != LABEL:
            continue
        archived, known = archived + 1, max(known, time)
        labelled += outcome in (SET, MISSING) and not math.isnan(label)
        by_time = retrain.every_us is not None and began is not None and newest - began >= retrain.every_us
        by_number = retrain.examples is not None and labelled - since >= retrain.examples
        if (by_time or by_number) and newest >= cooled:
            found.append(Due("every" if by_time else "examples", archived, int(newest), int(known)))
            since, began, cooled = labelled, newest, newest + retrain.cooldown_us
    return found


@pytest.mark.parametrize("name", SETTINGS)
def test_trainings_are_due_at_the_row_that_a_reading_row_by_row_finds(name: str) -> None:
    rows = rows_of()
    found = triggers()
    found.take(table_of(rows))
    expected = reference(rows, SETTINGS[name])

    assert found.courses[name].due == expected
    assert len(expected) >= 5 or name == "by_hand"


@pytest.mark.parametrize("seed", range(4))
def test_what_is_due_does_not_depend_on_batches_or_restarts(seed: int) -> None:
    rows, chance = table_of(rows_of(seed=seed)), random.Random(seed)
    parts = [rows.slice(0, 500), version_row(SCHEMA, version("by_number", 1, "command"), 40), rows.slice(500)]
    table = join(parts)
    whole, cut = triggers(), triggers()
    whole.take(table)
    start = 0
    while start < table.num_rows:
        size = chance.choice([1, 2, 30, 200])
        cut.take(table.slice(start, min(size, table.num_rows - start)))
        start += size
        if chance.random() < 0.3:
            state = cut.state()
            cut = triggers()
            cut.restore(state)

    assert cut.state() == whole.state()
    assert cut.reached.rows == int((rows.numbers("kind") == LABEL).sum())


def version(candidate: str, lineage: int, reason: str, known_us: int = 40) -> Version:
    training = Training(70, 0, 30, known_us, reason=reason)
    return Version(candidate, lineage, 70, "torch:mlp", {}, COLUMNS, "models/x", "d", 5, training=training)


def plain(labels: int, start: int = 0) -> Table:
    """An event and its label, in turns, a microsecond apart."""
    rows: list[tuple[int, int, float, int]] = []
    for at in range(start, start + labels):
        rows += [(EVENT, at, math.nan, NO_OUTCOME), (LABEL, at, 1.0, SET)]
    return table_of(rows)


def test_a_training_that_a_person_started_counts_as_one_and_one_of_ours_does_not_count_twice() -> None:
    ours, theirs = triggers(net=Retrain(examples=50)), triggers(net=Retrain(examples=50))
    for one, reason in ((ours, "examples"), (theirs, "command")):
        row = version_row(SCHEMA, version("net", 1, reason), 20)
        assert [found.number for _, found in one.take(join([plain(30), row, plain(100, 30)]))] == ["1.70"]

    assert [due.rows for due in ours.courses["net"].due] == [50, 100]
    assert [due.rows for due in theirs.courses["net"].due] == [80, 130]


def test_what_was_due_before_a_version_that_knew_as_much_is_due_no_more() -> None:
    """After a crash rows are taken again, and the version that they had led to stands further on."""
    found = triggers(net=Retrain(examples=50))
    found.take(join([plain(120), version_row(SCHEMA, version("net", 1, "examples", 49), 49)]))

    assert [(due.rows, due.known_us) for due in found.courses["net"].due] == [(100, 99)]


def test_older_versions_and_others_say_nothing() -> None:
    found = triggers(net=Retrain(examples=50))
    rows = [
        version_row(SCHEMA, version(*of), 9) for of in (("net", 2, "command"), ("net", 1, "command"), ("x", 9, "?"))
    ]
    told = found.take(join(rows))

    assert [(row, one.number) for row, one in told] == [(0, "2.70")]
    assert found.courses["net"].order == (2, 70)


def test_an_alarm_waits_for_the_cool_down_and_one_of_an_older_model_is_none() -> None:
    found = triggers(net=Retrain(on_drift=True, cooldown_us=100, examples=1_000), deaf=Retrain())
    found.take(plain(10))
    found.alarm("deaf", 0)
    found.alarm("net", 0)
    first = list(found.courses["net"].due)
    found.courses["net"].due = []
    found.take(version_row(SCHEMA, version("net", 1, "drift"), 9))
    found.alarm("net", 0)  # said of the model that was replaced meanwhile
    stale = found.courses["net"].has_alarm
    found.alarm("net", 1)
    found.take(plain(50, 10))
    early = list(found.courses["net"].due)
    found.take(plain(80, 60))

    assert [(due.reason, due.rows, due.time_us) for due in first] == [("drift", 0, 9)]
    assert not stale
    assert early == []
    assert [due.reason for due in found.courses["net"].due] == ["drift"]
    assert found.courses["deaf"].due == []


def queue(**settings: Retrain) -> tuple[Triggers, TrainingQueue]:
    found = triggers(**settings)
    return found, TrainingQueue(found)


def test_a_training_waits_for_its_rows_in_the_archive_and_the_newest_is_taken() -> None:
    found, waiting = queue(second=Retrain(), net=Retrain(examples=50))
    found.take(plain(180))

    assert waiting.next(0, 49) is None
    assert waiting.next(0, 120) == ("net", Due("examples", 100, 99, 99))
    waiting.begin("net", Due("examples", 100, 99, 99), 120, 3, 7)
    assert [due.rows for due in found.courses["net"].due] == [150]
    assert waiting.next(0, 1_000) is None  # one at a time
    waiting.finish()
    assert waiting.next(0, 149) is None
    assert waiting.next(0, 150) == ("net", Due("examples", 150, 149, 149))


def test_candidates_come_in_the_files_order() -> None:
    found, waiting = queue(b=Retrain(examples=10), a=Retrain(examples=5))
    found.take(plain(20))
    order = []
    while (one := waiting.next(0, 20)) is not None:
        order.append(one[0])
        waiting.begin(*one, 20, 1, 0)
        waiting.finish()

    assert order == ["b", "a"]


def test_a_candidate_that_is_always_due_keeps_no_other_waiting() -> None:
    """The one whose training began longest ago is next, whether that made a version or failed, and over restarts."""
    found, waiting = queue(a=Retrain(examples=10), b=Retrain(examples=10), c=Retrain(examples=10))
    order = []
    for rows in range(10, 100, 10):  # a training takes as long as it takes until the next is due
        found.take(plain(10))
        one = waiting.next(10**15, rows)
        assert one is not None
        order.append(one[0])
        waiting.begin(*one, rows, 1, 0)
        if one[0] == "b":
            waiting.fail(0)
        else:
            waiting.finish()
        copy = TrainingQueue(found)
        copy.restore(waiting.state())
        waiting = copy

    assert order == ["a", "b", "c"] * 3


def test_a_training_that_fails_is_tried_again_later_and_later_and_others_go_on() -> None:
    found, waiting = queue(bad=Retrain(examples=10), good=Retrain(examples=1_000))
    found.take(plain(10))
    now_us, waits = 0, []
    for _ in range(9):
        one = waiting.next(now_us, 10)
        assert one is not None
        waiting.begin(*one, 10, 1, now_us)
        waits.append(waiting.fail(now_us))
        assert waiting.next(now_us + int(waits[-1] * 1e6) - 1, 10) is None
        now_us += int(waits[-1] * 1e6)
        copy = TrainingQueue(found)
        copy.restore(waiting.state())
        waiting = copy
    found.courses["good"].due = [Due("examples", 5, 0, 0)]

    assert waits == [min(FIRST_RETRY_S * 2**k, LONGEST_RETRY_S) for k in range(9)]
    assert waiting.next(now_us - 1, 10) == ("good", Due("examples", 5, 0, 0))
    waiting.begin("good", Due("examples", 5, 0, 0), 10, 1, now_us)
    waiting.finish()
    assert waiting.next(now_us, 10) == ("bad", Due("examples", 10, 9, 9))


def test_an_alarm_takes_what_the_archive_has_but_not_the_same_rows_twice() -> None:
    found, waiting = queue(net=Retrain(on_drift=True))
    found.take(plain(10))
    found.alarm("net", 0)

    assert waiting.next(0, 0) is None
    one = waiting.next(0, 6)
    assert one == ("net", Due("drift", 0, 9, 9))
    assert waiting.begin(*one, 6, 1, 0).rows == 6
    waiting.fail(0)
    assert waiting.next(10**9, 6) == one  # a failed one may
    waiting.begin(*one, 6, 1, 0)
    waiting.finish()
    found.alarm("net", 0)
    assert waiting.next(10**9, 6) is None
    assert waiting.next(10**9, 7) is not None


def test_an_alarm_whose_training_is_certain_to_fail_waits_for_other_rows() -> None:
    found, waiting = queue(net=Retrain(on_drift=True))
    found.take(plain(10))
    found.alarm("net", 0)
    one = waiting.next(0, 6)
    assert one is not None
    waiting.begin(*one, 6, 1, 0)
    waiting.fail(0, is_certain=True)

    assert waiting.next(10**12, 6) is None
    assert waiting.next(10**12, 7) == one


def test_a_version_that_others_announced_meanwhile_overtakes_the_training() -> None:
    found, waiting = queue(net=Retrain(examples=10))
    found.take(plain(10))
    waiting.begin("net", found.courses["net"].due[0], 10, 1, 0)
    before = waiting.is_overtaken
    found.take(version_row(SCHEMA, version("net", 1, "command"), 9))

    assert (before, waiting.is_overtaken) == (False, True)


def test_candidates_that_come_and_go_with_the_file_are_begun_and_forgotten() -> None:
    found, waiting = queue(gone=Retrain(examples=10), kept=Retrain(examples=1_000))
    found.take(plain(30))
    waiting.begin("gone", found.courses["gone"].due[0], 30, 1, 0)
    now, later = queue(kept=Retrain(examples=1_000), new=Retrain(examples=10))
    now.restore(found.state())
    later.restore(waiting.state())
    now.take(plain(10, 30))

    assert later.ongoing is None
    assert [due.rows for due in now.courses["new"].due] == [40]
    assert sorted(now.courses) == ["kept", "new"]
    assert msgspec.json.decode(later.state())[1].keys() == {"kept", "new"}


def test_a_row_whose_record_cannot_be_read_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    found = triggers(net=Retrain())
    row: Any = version("net", 1, "command")
    broken = msgspec.structs.replace(row, task="?")

    assert found.take(version_row(SCHEMA, broken, 9)) == []
    assert "net: a version row is passed over: a version record cannot be read" in caplog.text
