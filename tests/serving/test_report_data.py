"""What a report reads: the archive's events with their labels, losses and answers of event time, versions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models.tally import P_MAX, P_MIN
from serving.report_data import NO_TIME, Period, in_share, read_archive
from serving.report_tasks import probabilities
from serving.report_topics import read_answers, read_losses, read_names
from streams.computed_steps import category_number
from streams.durations import DAY_US
from streams.errors import UnavailableError
from streams.frames import AMENDED, MISSING, RETRACTED, SET, examples_schema
from tests import reporting
from tests.reporting import HOUR_US, SHOPS, START_US, Made
from tests.rows import batch_of


@pytest.fixture(name="made", scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return reporting.make(tmp_path_factory.mktemp("state"))


def place_of(found: Any) -> np.ndarray[Any, Any]:
    """Which of the made-up events each sampled one is."""
    return np.array([int(one[1:]) for one in found.id_N])


def test_every_event_is_there_once_with_its_label_and_features(made: Made) -> None:
    archived, seen = read_archive(made.pipeline, Period()), made.happened
    events, at = archived.events, place_of(archived.events)

    assert at.tolist() == list(range(seen.label_N.size))
    assert np.array_equal(events.X_NF, seen.X_NF, equal_nan=True)
    assert np.array_equal(events.label_N, seen.label_N, equal_nan=True)
    assert np.array_equal(events.time_us_N, seen.time_us_N)
    has_label = np.isfinite(seen.label_N)
    assert np.array_equal(events.known_us_N[has_label], seen.known_us_N[has_label])
    assert (events.known_us_N[~has_label] == NO_TIME).all()
    assert archived.counted["set"] == has_label.sum()
    assert (archived.share, archived.settled) == (1.0, seen.label_N.size)


@pytest.mark.parametrize("again", [[], [(0, SET, 1.0), (1, MISSING, None), (2, SET, 0.0)]], ids=["once", "begun_anew"])
def test_the_newest_label_counts_and_the_first_is_what_losses_were_of(
    again: list[tuple[int, int, float | None]], tmp_path: Path
) -> None:
    """Amended and retracted labels are later rows of the same event; one that settles it once more is none."""
    made = reporting.make(tmp_path / "other", size=10)
    pipeline = msgspec.structs.replace(made.pipeline, state=tmp_path)
    vector = [1.0, 2.0, 3.0, 4.0]
    rows: list[dict[str, Any]] = [
        {"kind": "event", "source": 3, "number": n, "time": START_US + n, "id": f"e{n}", "vector": vector}
        for n in range(4)
    ]
    told = [(0, SET, 1.0), (1, MISSING, None), (2, SET, 0.0), (3, SET, 1.0), (2, AMENDED, 1.0), (3, RETRACTED, None)]
    told += again
    for later, (n, outcome, label) in enumerate(told, 1):
        time_us = START_US + later * HOUR_US
        row = {"kind": "label", "source": 3, "number": n, "time": time_us, "id": f"e{n}", "vector": vector}
        rows.append(row | {"outcome": outcome, "label": label})
    for row in rows[:4]:
        row["outcome"] = -1
    reporting.write_archive(pipeline, batch_of(examples_schema(reporting.COLUMNS), rows))

    archived = read_archive(pipeline, Period())
    assert archived.events.first_N.tolist() == pytest.approx([1.0, math.nan, 0.0, 1.0], nan_ok=True)
    assert archived.events.label_N.tolist() == pytest.approx([1.0, math.nan, 1.0, math.nan], nan_ok=True)
    assert archived.counted == {"set": 3, "missing": 1, "amended": 1, "retracted": 1}
    assert archived.settled == 4
    assert archived.events.known_us_N.tolist() == [
        START_US + HOUR_US,
        NO_TIME,
        *(START_US + n * HOUR_US for n in (3, 4)),
    ]


def test_a_sample_is_the_same_events_whatever_else_is_read_and_volumes_are_of_all(made: Made) -> None:
    whole, part = (read_archive(made.pipeline, Period(), most) for most in (10**6, 1_000))
    is_in = in_share(whole.events.source_N, whole.events.number_N, part.share)

    assert part.share == 0.25
    assert part.events.id_N.tolist() == whole.events.id_N[is_in].tolist()
    assert 800 < part.events.id_N.size < 1_200
    assert part.days == whole.days


def test_a_period_has_the_events_from_its_beginning_to_before_its_end(made: Made) -> None:
    seen = made.happened
    start_us, stop_us = int(seen.time_us_N[700]), int(seen.time_us_N[2_100])
    archived = read_archive(made.pipeline, Period(start_us, stop_us))

    assert place_of(archived.events).tolist() == list(range(700, 2_100))
    day_N = seen.time_us_N[700:2_100] // DAY_US
    assert {day: archived.days[day, "set"] + archived.days[day, "missing"] for day in set(day_N.tolist())} == dict(
        zip(*(part.tolist() for part in np.unique(day_N, return_counts=True)), strict=True)
    )


def test_without_an_archive_or_events_in_the_period_one_line_says_so(made: Made, tmp_path: Path) -> None:
    empty = msgspec.structs.replace(made.pipeline, state=tmp_path)

    with pytest.raises(UnavailableError, match="the archive has no examples yet: a running pipeline writes them"):
        read_archive(empty, Period())
    with pytest.raises(UnavailableError, match="has no events of p between --from and --to"):
        read_archive(made.pipeline, Period(0, START_US))


def test_losses_are_those_of_what_was_said_when_the_event_passed(made: Made) -> None:
    """Of every event in a complete block of 100 numbers; compared with predictions made one batch apart."""
    events = read_archive(made.pipeline, Period()).events
    found = read_losses(made.topics, events, 1.0, Period())
    label_N = made.happened.label_N

    assert list(found) == ["linear", "naive_bayes", "prior"]
    for name, losses in found.items():
        said_N = made.said[name]
        given_N = np.clip(np.where(label_N > 0.5, said_N, 1.0 - said_N), P_MIN, P_MAX)
        at = place_of(events)[losses.event_M]
        assert losses.loss_M == pytest.approx(-np.log(given_N[at]), rel=1e-6)
        assert losses.events == losses.event_M.size == np.isfinite(label_N).sum()
        assert losses.mean == pytest.approx(losses.loss_M.mean())


def test_the_probabilities_of_a_yes_come_back_from_losses(made: Made) -> None:
    events = read_archive(made.pipeline, Period()).events
    losses = read_losses(made.topics, events, 1.0, Period())
    for name, (said_M, is_yes_M) in probabilities(events, losses).items():
        at = place_of(events)[losses[name].event_M]
        assert said_M == pytest.approx(np.clip(made.said[name][at], P_MIN, P_MAX), abs=2e-6)
        assert np.array_equal(is_yes_M, made.happened.label_N[at] > 0.5)


def test_blocks_that_come_again_after_a_crash_count_once(made: Made) -> None:
    events = read_archive(made.pipeline, Period()).events
    once = read_losses(made.topics, events, 1.0, Period())["linear"]
    again = reporting.MemoryTopics()
    again.lists["scores"] = made.topics.lists["scores"] + made.topics.lists["scores"][:5]

    twice = read_losses(again, events, 1.0, Period())["linear"]
    assert twice.events == once.events
    assert np.array_equal(twice.event_M, once.event_M)


def test_losses_of_a_sample_and_a_period_are_some_of_all(made: Made) -> None:
    part = read_archive(made.pipeline, Period(), 1_000)
    stop_us = int(made.happened.time_us_N[2_000])
    found = read_losses(made.topics, part.events, part.share, Period(None, stop_us))["linear"]
    at = place_of(part.events)[found.event_M]

    assert found.events == np.isfinite(made.happened.label_N[:2_000]).sum()  # twenty whole blocks
    has_label = np.isfinite(part.events.label_N) & (part.events.time_us_N < stop_us)
    assert sorted(at.tolist()) == sorted(place_of(part.events)[has_label].tolist())


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression", "anomaly", "clustering"])
def test_answers_are_joined_to_their_events_and_the_first_counts(kind: str, tmp_path: Path) -> None:
    made = reporting.make(tmp_path, kind, size=300)
    champion, task = made.pipeline.serve.champion, made.pipeline.task
    said_NS = made.said[champion].reshape(300, -1)
    made.topics.lists["predictions"] += reporting.answers(made.pipeline, made.happened, said_NS * 0.0)
    events = read_archive(made.pipeline, Period()).events
    found = read_answers(made.topics, events, task)

    expected = np.sqrt(said_NS[:, 1:2]) if kind == "clustering" else said_NS
    assert found.event_M.tolist() == list(range(300))
    assert found.said_MS == pytest.approx(expected)
    assert set(found.version_M) == {f"{champion}@0.1"}
    right = {"multiclass": said_NS.argmax(axis=1), "regression": said_NS[:, 0], "clustering": said_NS[:, 0]}
    assert found.prediction_M == pytest.approx(right.get(kind, (said_NS[:, 0] >= task.threshold).astype(float)))


def test_categories_get_their_texts_from_the_log(made: Made) -> None:
    assert read_names(made.topics, made.pipeline) == {"shop": {category_number(shop): shop for shop in SHOPS}}
