"""The windows that the bench expects of both sides: plain Python, checked by hand; wrong answers end a run."""

from __future__ import annotations

import json
import math

import pytest

from streams import features
from streams.embedded_programs import KAFKA_JARS
from streams.pipeline_file import read_pipeline
from tests.bench.figures.kafka_streams import JARS, PIPELINE
from tests.bench.kafka import BenchError
from tests.bench.load import Load, block
from tests.bench.windows import Answer, Event, compare, is_sampled, sampled_events, sliding, tumbling

S = 1_000_000
EVENTS = [
    Event("a", "x", 0 * S, 10.0),
    Event("b", "x", 4 * S, 20.0),
    Event("c", "y", 5 * S, 1.0),
    Event("d", "x", 59 * S, 60.0),
    Event("e", "x", 60 * S, 5.0),
    Event("f", "x", 61 * S, 7.0),
]


def test_a_tumbling_window_has_the_event_in_it_and_begins_anew_every_minute() -> None:
    assert tumbling(EVENTS) == {
        "a": (1, 10.0),
        "b": (2, 15.0),
        "c": (1, 1.0),
        "d": (3, 30.0),
        "e": (1, 5.0),
        "f": (2, 6.0),
    }


def test_a_sliding_window_has_the_events_before_and_drops_them_in_steps_of_five_seconds() -> None:
    found = sliding(EVENTS)

    assert (found["b"], found["d"]) == ((1, 10.0), (2, 15.0))
    assert (found["e"], found["f"]) == ((1, 60.0), (2, 32.5))  # what came before 5 s has left
    assert found["c"].events == 0
    assert math.isnan(found["c"].mean)


def test_the_sample_is_one_key_in_a_hundred_with_all_its_events() -> None:
    made = block(Load(keys=1_000), 0, 5_000)
    expected = [json.loads(value)["id"] for value in made.events if json.loads(value)["key"][-2:] == "07"]

    assert [event.id for event in sampled_events(Load(keys=1_000), 5_000)] == expected
    assert 30 <= len(expected) <= 70
    assert not is_sampled(None)


def test_right_answers_are_counted_and_a_part_of_them_is_enough_where_a_run_was_cut_short() -> None:
    expected = sliding(EVENTS)

    assert compare("it", expected.items(), expected, is_whole=True) == 6
    assert compare("it", list(expected.items())[:2], expected, is_whole=False) == 2


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([("a", Answer(1, 10.1))], "answers a with .*10.1.* should be .*10.0"),
        ([("b", Answer(1, 15.0))], "answers b with"),
        ([("a", Answer(1, math.nan))], "answers a with"),
        ([("a", Answer(1, 10.0))] * 2, "answers a twice"),
        ([("z", Answer(1, 10.0))], "answers z which is no event"),
        ([("a", Answer(1, 10.0))], "answers 1 events of a sample of 6"),
        ([], "answers 0 events"),
    ],
)
def test_a_wrong_repeated_unknown_or_missing_answer_ends_the_run(found: list[tuple[str, Answer]], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        compare("it", found, tumbling(EVENTS), is_whole=True)


def test_the_pipeline_of_the_comparison_has_one_window_with_count_and_mean() -> None:
    pipeline = read_pipeline(PIPELINE)

    assert [column.name for column in features.columns(pipeline)] == ["count_1m", "mean_1m"]
    assert [field.name for field in pipeline.events.fields] == ["amount"]


def test_the_peer_has_the_version_of_the_embedded_broker() -> None:
    assert f"org.apache.kafka:kafka_2.13:{JARS.split('+')[0].split(':')[2]}" in KAFKA_JARS.split("+")
