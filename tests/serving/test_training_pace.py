"""A replay waits for the trainings that its own event time makes due, and for nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from serving.publish import RawRecord
from serving.training_pace import MARGIN_US, MOST_WAIT_S, TrainingPace
from streams.durations import DAY_US
from streams.pipeline import Model
from streams.pipeline_file import read_pipeline
from streams.retraining import Retrain

PIPELINE = read_pipeline(Path(__file__).parents[2] / "examples" / "flights.toml")
START_US = 1_357_000_000_000_000
NAP_S = 0.1
MARGIN_DAYS = MARGIN_US // DAY_US


class Machine:
    """A clock that goes on by naps, and trainings that end after some of them."""

    def __init__(self, models: dict[str, Retrain | None], naps: int) -> None:
        self.now_s, self.naps, self.day, self.left = 0.0, naps, -1, naps
        self.rests: list[int] = []  # the day of each record that was held back
        self.told: list[int] = []  # the times of which the publisher was told before
        self.ended: dict[str, int] = {}
        declared = tuple(Model(name, "torch:mlp", {}, retrain=of) for name, of in models.items())
        pipeline = msgspec.structs.replace(PIPELINE, models=declared)
        self.pace = TrainingPace(pipeline, lambda: self.ended, self.nap, lambda: self.now_s)

    def nap(self) -> None:
        assert self.told[-1:] == [START_US + self.day * DAY_US], "nothing was told before records are held back"
        self.now_s += NAP_S
        if self.rests[-1:] != [self.day]:
            self.rests.append(self.day)
        self.left -= 1
        if self.left == 0:
            self.left = self.naps
            self.ended["net"] = self.ended.get("net", 0) + 1

    def records(self, days: int) -> Iterator[RawRecord]:
        for self.day in range(days):
            yield RawRecord(START_US + self.day * DAY_US, False, None, b"")

    def paced(self, days: int) -> Iterator[RawRecord]:
        return self.pace.paced(self.records(days), self.told.append)


def test_records_wait_behind_each_row_that_makes_a_training_due_until_it_has_ended() -> None:
    machine = Machine({"net": Retrain(every_us=10 * DAY_US), "online": None, "hand": Retrain(examples=9)}, naps=5)
    taken = [record.time_us for record in machine.paced(36)]

    assert taken == [START_US + day * DAY_US for day in range(36)]
    assert machine.rests == [10 + MARGIN_DAYS, 20 + MARGIN_DAYS, 30 + MARGIN_DAYS]
    assert machine.told == [START_US + day * DAY_US for day in machine.rests]
    assert machine.ended == {"net": 3}
    assert machine.pace.waited_s == pytest.approx(3 * 5 * NAP_S)


def test_the_clock_stands_still_meanwhile_so_that_nothing_is_caught_up_on() -> None:
    machine = Machine({"net": Retrain(every_us=10 * DAY_US)}, naps=5)
    before = machine.pace.clock()
    list(machine.paced(20))

    assert machine.now_s == pytest.approx(5 * NAP_S)
    assert machine.pace.clock() == pytest.approx(before)


def test_a_training_that_does_not_end_is_given_up_and_the_next_one_waited_for() -> None:
    machine = Machine({"net": Retrain(every_us=10 * DAY_US)}, naps=int(1.5 * MOST_WAIT_S / NAP_S))
    list(machine.paced(30))

    assert machine.rests == [10 + MARGIN_DAYS, 20 + MARGIN_DAYS]
    assert machine.pace.waited_s == pytest.approx(1.5 * MOST_WAIT_S, abs=2 * NAP_S)
    assert machine.ended == {"net": 1}


def test_where_nothing_is_trained_by_time_nothing_waits() -> None:
    machine = Machine({"net": Retrain(on_drift=True), "online": None}, naps=5)

    assert len(list(machine.paced(50))) == 50
    assert machine.rests == []
