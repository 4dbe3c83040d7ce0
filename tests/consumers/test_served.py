"""Served: answers scored once each, whatever was read first and wherever it was killed."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

from consumers.served import ServedTask
from streams.errors import ModelError
from streams.event_numbers import named
from streams.frames import EVENT, LABEL, build
from streams.metrics import RoleMetrics
from streams.pipeline import Task
from tests.answering import (
    PLACES,
    SCHEMA,
    TASKS,
    World,
    answer,
    batch,
    expected,
    first_answers,
    floats,
    read_some,
    records,
    served_task,
    world,
)


def run(found: World, seed: int, restarts: float = 0.0) -> ServedTask:
    """Read everything in an order that chance has, killed and started again from an older snapshot now and then."""
    chance, task, at = random.Random(seed), served_task(found), dict[str, int]()
    saved = task.state(), dict(at)
    while read_some(task, found, at, chance):
        if chance.random() < 0.2:
            saved = task.state(), dict(at)
        if chance.random() < restarts:
            task, at = served_task(found), dict(saved[1])
            task.restore(saved[0])
    for partition in found.answers:  # what has no answer by the end never gets one
        task.hear(partition, records([answer(_beyond(partition), _some(found), "linear", "9.9", found.task.kind)]))
    return task


def _beyond(partition: int) -> tuple[int, int]:
    return next(source for source, place in PLACES.items() if place[0] == partition), 10**6


def _some(found: World) -> Any:
    return [0.2, 0.3, 0.5] if found.task.kind == "multiclass" else 0.5


def assert_same(one: ServedTask, other: ServedTask) -> None:
    """Every array of both states is the same bit for bit, but for the order in which models and blocks were met."""
    mine, theirs = one.state(), other.state()
    by_order = {"answers.about", "answers.who", "shadowing.open", "shadowing.cost.recent", "shadowing.cost.sums"}
    assert mine.keys() == theirs.keys()
    for name in mine.keys() - by_order:
        np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)
    assert one.answers.versions == other.answers.versions
    assert one.answers.given == other.answers.given
    assert one.shadowing.cost.since_start() == other.shadowing.cost.since_start()


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_read_first_and_wherever_it_is_killed_each_answer_is_scored_once(seed: int) -> None:
    """The state at the end is the same bit for bit, and its figures are those of a plain recomputation."""
    found = world(seed)
    straight, wanted = run(found, 0), expected(found)
    quality = straight.scores.since_start()._asdict()
    cost = straight.shadowing.cost.since_start()

    for order in range(1, 6):
        assert_same(run(found, order, restarts=0.15), straight)
    assert straight.rows.size == 0
    assert quality["labels"] == len(wanted.losses) > 400
    assert quality["log_loss"] == pytest.approx(math.fsum(wanted.losses) / len(wanted.losses), abs=1e-12)
    right = [(said >= 0.5) == (label > 0.5) for said, label in wanted.settled]
    assert quality["accuracy"] == pytest.approx(sum(right) / len(right), abs=1e-12)
    assert cost.events == wanted.compared > 300
    assert cost.cost == pytest.approx(wanted.cost, abs=1e-12)
    assert straight.answered == wanted.answered
    assert straight.unanswered > 20
    assert straight.answers.given == {**wanted.given, "linear": wanted.given["linear"] + len(PLACES)}


@pytest.mark.parametrize("kind", ["multiclass", "regression", "anomaly"])
def test_all_tasks_with_answers_to_judge_are_scored(kind: str) -> None:
    """By the loss of the task, also where answers of all sources are read last."""
    found = world(7, kind)
    straight, wanted = run(found, 0), expected(found)
    quality = straight.scores.since_start()._asdict()

    assert_same(run(found, 3, restarts=0.15), straight)
    if kind == "anomaly":
        first = first_answers(found)
        alerts = [one["prediction"] for one in first.values()]
        is_yes = [label > 0.5 for _, label in wanted.settled]
        is_alert = [said >= 0.7 for said, _ in wanted.settled]
        hits = sum(yes and alert for yes, alert in zip(is_yes, is_alert, strict=True))

        assert quality["labels"] == len(alerts)
        assert quality["alert_rate"] == pytest.approx(sum(alerts) / len(alerts), abs=1e-12)
        assert (quality["precision"], quality["recall"]) == (hits / sum(is_alert), hits / sum(is_yes))
        return
    loss = {"multiclass": "log_loss", "regression": "mae"}[kind]
    cost = straight.shadowing.cost.since_start()
    assert quality["labels"] == len(wanted.losses) > 400
    assert quality[loss] == pytest.approx(math.fsum(wanted.losses) / len(wanted.losses), abs=1e-12)
    assert cost.events == wanted.compared
    assert cost.cost == pytest.approx(wanted.cost, abs=1e-12)


def test_answers_that_say_what_the_candidate_said_itself_cost_nothing() -> None:
    """The difference is exactly 0, not only about: losses are compared as P.scores carries them."""
    found = world(3)
    straight = run(found, 0)
    told = {name: one["probability"] for name, one in first_answers(found).items()}
    own = [_own_scores(record, told, found) for record in found.scores if record.order == "number"]
    same = run(found._replace(scores=own), 1)

    assert straight.shadowing.cost.since_start().cost != 0.0
    assert same.shadowing.cost.since_start().events > 300
    assert (same.shadowing.cost.since_start().cost, same.shadowing.cost.rolling().cost) == (0.0, 0.0)


def _own_scores(record: Any, told: dict[Any, float], found: World) -> Any:
    import msgspec

    from models.tally import log_loss

    names = ("kind", "source", "number", "label", "outcome")
    rows = zip(*(found.rows.numbers(name).tolist() for name in names), strict=True)
    first = {(s, n): y for kind, s, n, y, outcome in rows if kind == 1 and outcome < 2}
    blocks = []
    for block in record.blocks:
        numbers = range(100 * block.block, 100 * block.block + 100)
        pairs = [(told.get((block.source, n), math.nan), first[block.source, n]) for n in numbers]
        losses = [math.nan if math.isnan(p) or math.isnan(y) else log_loss(p, y > 0.5) for p, y in pairs]
        blocks.append(msgspec.structs.replace(block, losses=np.array(losses, "<f4").tobytes()))
    return msgspec.structs.replace(record, blocks=tuple(blocks))


def test_where_traffic_is_split_answers_change_places_within_a_batch() -> None:
    """They count all the same; of a repeated one the first does."""
    found = world(1)
    swapped = {p: [*told[1::2], *told[::2], *told[:40]] for p, told in found.answers.items()}
    numbers = {p: [one for one in told if b"number" in one] for p, told in swapped.items()}
    task = served_task(found, is_split=True)
    task.process(batch(found.rows, 0, found.rows.num_rows))
    for partition, told in numbers.items():
        task.hear(partition, records(told))
        task.hear(partition, records([answer(_beyond(partition), 0.5, "linear", "9.9", "binary")]))
    wanted = first_answers(found._replace(answers=numbers))

    told_N = floats([wanted[name]["probability"] for name in sorted(wanted)])

    assert task.rows.size == 0
    assert task.answered == len(wanted)
    assert task.answers.counted == len(wanted) + len(PLACES)
    assert task.board.count("predicted") == task.answered + task.unanswered
    np.testing.assert_array_equal(_said(task), told_N)


def _said(task: ServedTask) -> Any:
    """What is kept of answers, in the order of their events' sources and numbers."""
    said = task.board.state()["nodes.said"].astype(np.float64).ravel()
    return said[~np.isnan(said)]


def test_label_rows_find_events_that_were_numbered_before_partitions_were_parted_anew() -> None:
    """They bear another source and the alias of the event's own, as for candidates."""
    found = world(4)
    is_before = (found.rows.numbers("kind") == LABEL) & (found.rows.numbers("source") == 10)
    columns = {name: found.rows.numbers(name) for name in ("kind", "source", "number", "time", "label", "outcome")}
    columns["number"] = np.where(is_before, named(columns["number"], 0), columns["number"])
    columns["source"] = np.where(is_before, 99, columns["source"]).astype(np.int32)
    rows = build(SCHEMA, columns, is_before.size)
    task = served_task(found, aliases={0: 10})
    task.process(batch(rows, 0, rows.num_rows))
    for partition, told in found.answers.items():
        task.hear(partition, records([*told, answer(_beyond(partition), 0.5, "linear", "9.9", "binary")]))

    assert is_before.sum() > 100
    assert task.scores.since_start() == run(found, 0).scores.since_start()


def test_rows_wait_for_answers_and_no_more_are_read_than_have_room() -> None:
    """A serve that is down holds up nothing but this; after a while of silence its events pass without an answer."""
    found = world(2)
    task = served_task(found, patience_us=1_000)
    task.process(batch(found.rows, 0, found.rows.num_rows))
    task.look(0, lambda _: True)
    task.look(999, lambda _: True)
    waiting, is_full = task.rows.size, task.is_full
    task.look(1_500, lambda _: False)  # there is more to read
    task.look(2_000, lambda _: True)
    task.look(2_999, lambda _: True)
    still = task.rows.size
    for now_us in range(3_000, 20_000, 1_000):
        task.look(now_us, lambda _: True)

    assert (waiting, is_full, still) == (found.rows.num_rows, False, found.rows.num_rows)
    assert task.rows.size == 0
    assert task.answered == 0
    assert task.unanswered == int((found.rows.numbers("kind") == EVENT).sum())
    assert task.scores.since_start().labels == 0
    assert task.board.pending() == 0


def test_what_was_given_up_is_what_waited_and_nothing_after_it() -> None:
    """An answer that comes after all is too late; those to the next events are scored as ever."""
    found = world(2)
    rows = found.rows.num_rows // 2
    task = served_task(found, patience_us=1)
    task.process(batch(found.rows, 0, rows))
    for now_us in range(20):
        task.look(now_us, lambda _: True)
    passed = task.unanswered
    task.process(batch(found.rows, rows, found.rows.num_rows))
    for partition, told in found.answers.items():
        task.hear(partition, records([*told, answer(_beyond(partition), 0.5, "linear", "9.9", "binary")]))
    kind, source, number = (found.rows.numbers(name)[rows:].tolist() for name in ("kind", "source", "number"))
    later = {(s, n) for what, s, n in zip(kind, source, number, strict=True) if what == EVENT}

    assert passed == int((found.rows.numbers("kind")[:rows] == EVENT).sum()) > 100
    assert task.rows.size == 0
    assert task.answered == len(later & first_answers(found).keys()) > 100


def test_what_is_kept_is_that_of_open_blocks_and_of_what_waits() -> None:
    """When all is settled and forgotten nothing is left but sums and the last block of each source."""
    found = world(5)
    task = run(found, 2)
    sizes = {name: array.size for name, array in task.state().items()}

    assert sizes["rows.kind"] == 0
    assert sizes["answers.name"] == len(PLACES)  # those that end the test
    assert sizes["shadowing.own.losses"] == sizes["shadowing.answered.losses"] == 0


def test_metrics_have_the_figures_under_the_name_served() -> None:
    """The same as a candidate's, with the cost of staleness beside them."""
    found = world(6)
    task, metrics = run(found, 0), RoleMetrics("learn", "p")
    task.measure(metrics)
    cost = task.shadowing.cost.since_start().cost

    def sample(name: str, **labels: str) -> float | None:
        of = {"pipeline": "p", "role": "learn", "candidate": "served", **labels}
        return metrics.registry.get_sample_value(name, of)

    quality = task.scores.since_start()._asdict()
    assert sample("millrace_model_quality", figure="log_loss", span="start") == quality["log_loss"]
    by_delay = task.scores.by_delay()
    assert {delay: sample("millrace_model_labels_by_delay", delay=delay) for delay in by_delay} == {
        delay: labels for delay, (labels, _) in by_delay.items()
    }
    assert sample("millrace_staleness_cost", span="start") == cost
    assert sample("millrace_served_events", state="answered") == task.answered
    assert sample("millrace_served_answers", model="tree") == task.answers.given["tree"]
    assert sample("millrace_repeats_total") == task.repeats > 0


def test_a_snapshot_that_is_damaged_or_of_another_task_is_refused_with_the_command_that_helps() -> None:
    found = world(0)
    state = run(found, 0).state()
    other = ServedTask(Task("regression"), (), PLACES.__getitem__)
    for task, damaged in ((other, state), (served_task(found), {**state, "about": floats([1.0])})):
        with pytest.raises(ModelError, match=r"millrace rebuild FILE --role learn\.served"):
            task.restore(damaged)


def test_every_kind_of_task_but_clusterings_is_here() -> None:
    """Else one would be left out without a word."""
    assert TASKS.keys() == {"binary", "multiclass", "regression", "anomaly"}
