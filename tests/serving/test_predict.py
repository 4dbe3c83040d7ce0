"""Serve: what an answer says, that each event is answered once, and which version answers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from consumers.station import Shop
from consumers.worker import Settings, Worker
from models.explanation import explain
from models.learner import make_learner
from models.registry import write_version
from models.version import encode_record
from serving.answers import Answer
from serving.champion import Champion
from serving.key_rows import KeyRows
from serving.predict import ServeRole, ServeTask
from serving.split import SPLIT_SEED
from streams import frames
from streams.control import Control
from streams.event_numbers import MANY
from streams.frames import Batch
from streams.metric_families import LATENCY_BOUNDS_S
from streams.metrics import RoleMetrics
from streams.pipeline import Model, Task
from tests.memory_kafka import Broker, MemoryControlLog, MemoryInbox, MemoryOutbox
from tests.rows import COLUMNS, batch_of, claim_of, control, pipeline

SCHEMA = frames.features_schema(COLUMNS)
PRIOR = Model("prior", "prior", {})
NOW_S = 1_700_000_000.0
NOW_US = int(NOW_S * 1e6)
FEATURES, PREDICTIONS = ("p.features", 0), ("p.predictions", 0)


def champion_of(known: Control, directory: Path) -> Champion:
    """The baseline, untrained: it answers 0.5."""
    return Champion([PRIOR], COLUMNS, directory, known, RoleMetrics("serve", "p"))


class Sum:
    """A champion whose answer tells which row it was asked about: the first feature."""

    name, version, standing = "sum", "1.5", "champion"
    split: Sum | None = None
    share = 0.0

    def __init__(self, task: Task | None = None) -> None:
        self.task = task or Task()

    @property
    def answering(self) -> Sum:
        return self

    def predict(self, x_BF: Any) -> Any:
        self.rows = len(x_BF)
        if self.task.kind == "clustering":
            return np.column_stack([x_BF, x_BF[:, 1]])
        return x_BF[:, : self.task.outputs].copy() if self.task.outputs > 1 else x_BF[:, 0].copy()


class Counter:
    """One partition's answers, with generations by source number."""

    def __init__(self, generations: dict[int, int] | None = None, task: Task | None = None) -> None:
        self.generations = generations or {0: 0}
        champion: Any = Sum(task)
        self.champion = champion
        self.metrics = RoleMetrics("serve", "p")
        self.kept: list[KeyRows] = []
        self.task = ServeTask(0, champion, self.generations.__getitem__, lambda: NOW_S, self.metrics, self.kept.append)

    def answer(self, *rows: dict[str, Any]) -> list[dict[str, Any]]:
        """Give the answers to rows of one batch; the last answers' causes and keys are kept."""
        batch = batch_of(SCHEMA, [event(**row) for row in rows])
        clock = np.zeros(batch.num_rows, np.int64)
        outputs = self.task.process(Batch(batch, clock, clock))
        self.values = [value for out in outputs for value in out.values.unpack()]
        self.keys = [key for out in outputs if out.keys for key in out.keys.unpack()]
        self.causes = [int(cause) for out in outputs for cause in out.cause]
        assert all((out.topic, out.partition) == ("predictions", 0) for out in outputs)
        return [msgspec.json.decode(value) for value in self.values]

    def numbers(self, *rows: dict[str, Any]) -> list[tuple[int, int]]:
        """Generation and number of each answer."""
        return [(answer["generation"], answer["number"]) for answer in self.answer(*rows)]


def event(number: int = 0, source: int = 0, **changes: Any) -> dict[str, Any]:
    """An event row of P.features; its features are its number / 10 and 7."""
    parts = {
        "kind": "event", "source": source, "sequence": number, "number": number, "time": 5, "id": f"e{number}",
        "key": f"k{number}", "produced": NOW_US - 1_500, "vector": np.array([number / 10, 7.0]),
    }  # fmt: skip
    return {**parts, **changes}


def rows_of(*numbers: int, source: int = 0) -> list[dict[str, Any]]:
    """Event rows by number."""
    return [{"number": number, "source": source} for number in numbers]


# Answers


def test_an_answer_says_what_was_asked_and_who_answered() -> None:
    """The event, the prediction, the version that gave it, and the event's name inside."""
    counter = Counter({0: 3})

    assert counter.answer({"number": 6}) == [
        {
            "id": "e6", "key": "k6", "time_us": 5, "prediction": 1, "probability": 0.6, "model": "sum",
            "version": "1.5", "generation": 3, "partition": 0, "number": 6, "latency_ms": 1.5,
        }
    ]  # fmt: skip
    assert counter.keys == [b"k6"]


@pytest.mark.parametrize(("number", "prediction"), [(4, 0), (5, 1), (9, 1)])
def test_from_one_half_on_the_prediction_is_one(number: int, prediction: int) -> None:
    """The midpoint of the probability."""
    assert Counter().answer({"number": number})[0]["prediction"] == prediction


def test_of_several_classes_the_likeliest_is_answered_with_the_probabilities_of_all() -> None:
    """Names are written as JSON; of equals the first in the file is taken."""
    counter = Counter(task=Task("multiclass", ('on "time"', "späť")))

    answers = counter.answer({"vector": np.array([0.25, 0.75])}, {"number": 1, "vector": np.array([0.5, 0.5])})

    assert [list(answer)[3:6] for answer in answers] == [["prediction", "probabilities", "model"]] * 2
    assert [(answer["prediction"], answer["probabilities"]) for answer in answers] == [
        ("späť", {'on "time"': 0.25, "späť": 0.75}),
        ('on "time"', {'on "time"': 0.5, "späť": 0.5}),
    ]


def test_of_a_regression_the_number_alone_is_answered() -> None:
    """Whatever its size."""
    counter = Counter(task=Task("regression"))

    answers = counter.answer(*({"vector": np.array([value, 7.0])} for value in (-2.5, 1e300, 0.1)))

    assert [answer["prediction"] for answer in answers] == [-2.5, 1e300, 0.1]
    assert not {"probability", "probabilities"} & answers[0].keys()


def test_of_an_anomaly_the_score_is_answered_and_whether_it_reaches_the_threshold() -> None:
    """That of the file, or where a share of events is asked for, the one that comes with the score."""
    fixed, moving = Counter(task=Task("anomaly", threshold=0.7)), Counter(task=Task("anomaly", alert=0.01))
    pairs = [(0.69, 9.0), (0.7, 0.6), (0.8, 0.9)]
    rows = [{"number": number, "vector": np.array(pair)} for number, pair in enumerate(pairs)]

    for counter, alerts in ((fixed, [0, 1, 1]), (moving, [0, 1, 0])):
        answers = counter.answer(*rows)
        assert list(answers[0])[3:6] == ["prediction", "score", "model"]
        assert [(a["prediction"], a["score"]) for a in answers] == list(zip(alerts, (0.69, 0.7, 0.8), strict=True))


def test_of_a_clustering_the_number_is_answered_with_the_distance() -> None:
    """The model measures squares; an answer has the distance itself."""
    task = Task("clustering")
    counter = Counter(task=task)
    answers = counter.answer(*({"vector": np.array([k, d])} for k, d in ((0.0, 0.25), (12.0, 2.25))))

    assert [list(answer)[3:6] for answer in answers] == [["prediction", "distance", "model"]] * 2
    assert [(answer["prediction"], answer["distance"]) for answer in answers] == [(0, 0.5), (12, 1.5)]


def test_without_a_producers_timestamp_there_is_no_latency() -> None:
    """Null, not a number that means nothing."""
    assert Counter().answer({"produced": -1})[0]["latency_ms"] is None


def test_only_events_are_answered_each_with_its_own_features() -> None:
    """Marks between them are no questions; one call of the model answers the batch."""
    counter = Counter()

    answers = counter.answer({"number": 1}, {"kind": "mark"}, {"number": 2}, {"number": 3})

    assert [(a["id"], a["key"], a["probability"]) for a in answers] == [
        ("e1", "k1", 0.1), ("e2", "k2", 0.2), ("e3", "k3", 0.3)
    ]  # fmt: skip
    assert (counter.causes, counter.champion.rows) == ([0, 2, 3], 3)
    assert counter.answer({"kind": "mark"}) == []


@given(st.lists(st.text(max_size=5), min_size=1, max_size=5))
def test_any_id_is_one_line_of_json(ids: list[str]) -> None:
    """Line ends and quotes inside an id do not break an answer in two."""
    answers = Counter().answer(*({"number": i, "id": name, "key": name} for i, name in enumerate(ids)))

    assert [(answer["id"], answer["key"]) for answer in answers] == [(name, name) for name in ids]


@given(
    st.lists(
        st.tuples(
            st.text(max_size=12),
            st.none() | st.text(max_size=12),
            st.integers(-(2**62), 2**62),
            st.floats(0, 1),
            st.integers(-1, 2 * NOW_US),
            st.integers(0, 999_999_999_999),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_answers_are_the_bytes_that_msgspec_writes(asked: list[tuple[Any, ...]]) -> None:
    """Field by field, for anything an event may hold."""
    counter = Counter({0: 7})
    counter.answer(
        *(
            {
                "id": name, "key": key, "time": at, "vector": np.array([p, 0.0]), "produced": produced,
                "number": number, "sequence": i,
            }
            for i, (name, key, at, p, produced, number) in enumerate(asked)
        )
    )  # fmt: skip
    expected = [
        Answer(
            name, key, at, int(p >= 0.5), p, "sum", "1.5", 7, 0, number,
            float(np.round((NOW_US - produced) / 1000.0, 3)) if produced >= 0 else None,
        )
        for name, key, at, p, produced, number in asked
    ]  # fmt: skip

    assert counter.values == [msgspec.json.encode(answer) for answer in expected]
    assert counter.keys == [(key or "").encode() for _, key, *_ in asked]


def test_a_probability_that_is_no_number_is_null() -> None:
    """It does not happen, and would not break the record."""
    assert Counter().answer({"vector": np.array([np.nan, 0.0])})[0]["probability"] is None


def test_latencies_are_counted_for_the_scrape() -> None:
    """By bucket as the histogram does, bounds included; rows without a producer's timestamp are left out."""
    counter, ago_us = Counter(), [0, 1_000, 1_001, 7_500, 400_000_000, 2_000, -5]
    counter.answer(*({"number": i, "produced": NOW_US - us} for i, us in enumerate(ago_us)), {"produced": -1})
    registry, labels = counter.metrics.registry, {"pipeline": "p", "role": "serve", "candidate": "sum"}

    def value(name: str, **more: str) -> float | None:
        return registry.get_sample_value(f"millrace_latency_seconds_{name}", {**labels, **more})

    assert value("count") == len(ago_us)
    assert value("sum") == pytest.approx(sum(ago_us) / 1e6)
    for bound in LATENCY_BOUNDS_S:
        assert value("bucket", le=str(bound)) == sum(us / 1e6 <= bound for us in ago_us)


def test_rows_of_several_generations_are_answered_with_their_own() -> None:
    """A poll may hold the last rows of a generation and the first of the next."""
    counter = Counter({4: 0, 9: 1})

    found = counter.numbers(
        *rows_of(7, 8, source=4), *rows_of(0, source=9), *rows_of(9, source=4), *rows_of(1, source=9)
    )

    assert found == [(0, 7), (0, 8), (1, 0), (0, 9), (1, 1)]


# Explained answers


def test_an_explained_answer_ends_with_what_moved_it(tmp_path: Path) -> None:
    """All else is as without; the online store has the same bytes. Of other kinds an answer stays as it is."""
    model, known, registry = Model("linear", "linear", {"bits": 6}), control(), RoleMetrics("serve", "p")
    learner, rng = make_learner(model, COLUMNS), np.random.default_rng(1)
    x_BF = rng.normal(size=(200, 2))
    learner.learn(x_BF, (x_BF[:, 0] > 0).astype(float))
    version = write_version(tmp_path, model, COLUMNS, learner, (0, 200), NOW_US)
    assert version is not None
    known.publish_version("linear", encode_record(version))
    told = {}
    for models in ([model, PRIOR], [PRIOR, model]):
        champion = Champion(models, COLUMNS, tmp_path, known, registry)
        champion.follow(0)
        for is_explained in (False, True):
            counter = Counter()
            counter.task = ServeTask(
                0, champion, lambda _: 0, lambda: NOW_S, registry, counter.kept.append, is_explained=is_explained
            )
            told[models[0].name, is_explained] = counter.answer(*rows_of(3, 7))
            assert [value for kept in counter.kept for value in kept.answers.unpack()] == counter.values
    vectors_BF = np.array([[0.3, 7.0], [0.7, 7.0]])
    expected = explain(learner, COLUMNS, vectors_BF)

    assert expected is not None
    assert [answer["version"] for answer in told["linear", False]] == ["0.200"] * 2
    assert told["linear", True] == [
        answer | {"explanation": [list(pair) for pair in explanation]}
        for answer, explanation in zip(told["linear", False], expected, strict=True)
    ]
    assert expected[0][0][0] == "amount"
    assert told["prior", True] == told["prior", False]


# Split traffic


def test_a_share_of_the_keys_is_answered_by_another() -> None:
    """A key always by the same; each answer names who gave it, and none is missing."""
    counter = Counter()
    other = Sum()
    other.name, other.version = "other", "2.7"
    counter.champion.split, counter.champion.share = other, 0.25
    rows = [{"number": number, "key": f"k{number % 200}"} for number in range(1_000)]
    answers = counter.answer(*rows)
    split = {answer["key"] for answer in answers if answer["model"] == "other"}
    expected = {f"k{i}" for i in range(200) if xxhash.xxh64_intdigest(f"k{i}".encode(), seed=SPLIT_SEED) < 0.25 * 2**64}

    assert sorted(answer["number"] for answer in answers) == list(range(1_000))
    assert all(answer["probability"] == answer["number"] / 10 for answer in answers)
    assert {(answer["model"], answer["version"]) for answer in answers} == {("sum", "1.5"), ("other", "2.7")}
    assert split == expected
    assert 30 < len(split) < 70
    assert {answer["key"] for answer in answers if answer["model"] == "sum"}.isdisjoint(split)
    assert sorted(int(name) for kept in counter.kept for name in kept.names) == list(range(1_000))
    standings = [("sum", "champion", 5 * (200 - len(split))), ("other", "split", 5 * len(split))]
    for name, standing, count in standings:
        labels = {"pipeline": "p", "role": "serve", "candidate": name, "standing": standing}
        assert counter.metrics.registry.get_sample_value("millrace_predictions_total", labels) == count


def test_a_larger_share_lets_no_key_go() -> None:
    """Whoever was on the other side stays there; all are with a share of 1, also those without a key, by their id."""
    counter, other = Counter(), Sum()
    other.name = "other"
    counter.champion.split = other
    rows = [{"number": number, "key": f"k{number}" if number % 2 else None} for number in range(300)]
    taken = []
    for share in (0.1, 0.5, 1.0):
        counter.champion.share = share
        taken.append({a["number"] for a in counter.answer(*rows) if a["model"] == "other"})

    assert taken[0] < taken[1] < taken[2] == set(range(300))
    assert 0 < sum(number % 2 == 0 for number in taken[0]) < 40


# For the online store


def test_every_answer_is_kept_with_its_key_and_the_vector_it_was_made_from() -> None:
    """Byte for byte as it is sent; also of rows that do not lie side by side."""
    counter = Counter({0: 3})
    counter.answer({"number": 1, "time": 8}, {"kind": "mark"}, {"number": 2}, {"number": 4, "time": 9})
    (kept,) = counter.kept

    assert kept.keys.unpack() == [b"k1", b"k2", b"k4"]
    assert kept.answers.unpack() == counter.values
    assert kept.names.tolist() == [3 * MANY + number for number in (1, 2, 4)]
    assert kept.times.tolist() == [8, 5, 9]
    assert kept.vectors_BF.tolist() == [[0.1, 7.0], [0.2, 7.0], [0.4, 7.0]]


def test_what_was_answered_before_a_crash_is_not_kept_again() -> None:
    """It would be another answer than the one that was sent."""
    before, after = Counter(), Counter()
    before.answer(*rows_of(0, 1))
    after.task.answered(before.values)
    after.answer(*rows_of(0, 1, 2))

    assert [kept.names.tolist() for kept in after.kept] == [[2]]


# After a crash


def test_what_was_answered_before_a_crash_is_skipped() -> None:
    """Read back from the output, dropped when it passes, then all is as always (PROTOCOL 24)."""
    before = Counter()
    before.answer(*rows_of(0, 1, 2))
    after = Counter()
    after.task.answered(before.values)
    first = (after.numbers(*rows_of(0, 1)), after.task.is_skip_done())
    second = (after.numbers(*rows_of(2, 3)), after.task.is_skip_done())

    assert (first, second) == (([], False), ([(0, 3)], True))
    assert after.champion.rows == 1


def test_answers_may_have_gaps() -> None:
    """Only what is found is skipped, by name and not by count."""
    before, after = Counter(), Counter()
    before.answer(*rows_of(1, 3))
    after.task.answered(before.values)

    assert after.numbers(*rows_of(0, 1, 2, 3, 4)) == [(0, 0), (0, 2), (0, 4)]


def test_what_was_passed_before_the_snapshot_is_not_waited_for() -> None:
    """Answers found from before the position belong to rows that will not come again."""
    before = Counter()
    before.answer(*rows_of(0, 1, 2))
    after = Counter()
    after.task.restore(before.task.state())
    after.task.answered(before.values)

    assert after.task.is_skip_done()
    assert after.numbers(*rows_of(3)) == [(0, 3)]


def test_the_same_number_of_another_generation_is_another_event() -> None:
    """It is answered though its namesake was."""
    before, after = Counter({4: 0, 9: 1}), Counter({4: 0, 9: 1})
    before.answer(*rows_of(1, 2, source=4), *rows_of(0, source=9))
    after.task.answered(before.values)

    found = after.numbers(*rows_of(1, 2, 3, source=4), *rows_of(0, 1, 2, source=9))

    assert found == [(0, 3), (1, 1), (1, 2)]
    assert after.task.is_skip_done()


def test_answers_of_other_partitions_are_not_ours() -> None:
    """Names are told apart by partition."""
    counter = Counter()
    counter.task.answered([b'{"generation":0,"partition":1,"number":0}'])

    assert counter.numbers(*rows_of(0)) == [(0, 0)]


def test_a_saved_state_does_not_change_with_the_task() -> None:
    """It is written after the next rows were answered."""
    counter = Counter()
    counter.answer(*rows_of(0))
    state = counter.task.state()
    counter.answer(*rows_of(1))

    assert state["passed"].tolist() == [0]


# A whole worker


class Desk:
    """A serve worker over Kafka in memory, crashed and replaced at will."""

    def __init__(self, directory: Path, seed: int = 0) -> None:
        self.directory = directory
        self.rng = random.Random(seed)
        self.broker = Broker(lambda: NOW_S, {"p.features": 1, "p.predictions": 1})
        self.source = self.control().claim(claim_of(topic_id="log", siblings=1))

    def control(self) -> Control:
        return Control(MemoryControlLog(self.broker, "p.control"))

    def ask(self, *numbers: int) -> None:
        """Write events to P.features, as one frame."""
        rows = batch_of(SCHEMA, [event(number, self.source) for number in numbers])
        payload = rows.message()
        self.broker.append(*FEATURES, payload, None, [(frames.SCHEMA_HEADER, SCHEMA.fingerprint.encode())])

    def start(self, begin: str = "earliest") -> None:
        """Start a worker and give it the partition."""
        known = self.control()
        self.outbox, metrics = MemoryOutbox(self.broker), RoleMetrics("serve", "p")
        role = ServeRole("p.features", SCHEMA, known, champion_of(known, self.directory), metrics, begin, lambda: NOW_S)
        self.inbox = MemoryInbox(self.broker, "p.serve")
        self.inbox.rng, self.inbox.limit = self.rng, 2
        shop = Shop(role, pipeline(state=self.directory), self.inbox, known, self.broker, self.broker, self.directory)
        self.worker = Worker(shop, self.outbox, metrics, Settings(snapshot_every_s=1e9), lambda: NOW_S)
        self.worker.start()
        self.inbox.give([FEATURES])

    def drain(self) -> None:
        """Let the worker answer everything there is."""
        while not self.worker.stations[0].is_at_end():
            self.worker.step(0)
        self.worker.snapshot()

    def answers(self) -> list[int]:
        """Numbers answered, as published."""
        return [msgspec.json.decode(record.value_ or b"")["number"] for record in self.broker.logs[PREDICTIONS]]


def test_serve_writes_its_first_snapshot_before_it_reads(tmp_path: Path) -> None:
    """A crash right after the first answers must find where they began."""
    desk = Desk(tmp_path)
    desk.ask(0, 1, 2)
    desk.start()
    desk.inbox.limit = 10
    while not desk.outbox.queue:
        desk.worker.step(0)
    desk.outbox.flush()
    desk.start()
    desk.drain()

    assert desk.answers() == [0, 1, 2]


@pytest.mark.parametrize("seed", range(25))
def test_every_event_is_answered_exactly_once_over_any_crashes(tmp_path: Path, seed: int) -> None:
    """Wherever serve dies, whatever had left it by then, also several times before it has caught up."""
    desk = Desk(tmp_path, seed)
    asked = 0
    for _ in range(6):
        desk.start()
        for _ in range(desk.rng.randrange(8)):
            count = desk.rng.randrange(1, 4)
            desk.ask(*range(asked, asked + count))
            asked += count
            desk.worker.step(0)
            if desk.rng.random() < 0.3:
                desk.worker.snapshot()
            if desk.rng.random() < 0.5:
                desk.outbox.deliver_some(desk.rng)
        desk.outbox.crash(desk.rng)
    desk.start()
    desk.drain()

    assert desk.answers() == list(range(asked))


@pytest.mark.parametrize(("begin", "answered"), [("earliest", [0, 1, 2]), ("latest", [2])])
def test_where_a_new_serve_begins(tmp_path: Path, begin: str, answered: list[int]) -> None:
    """At the earliest event, or only what comes from now on; from then on its snapshot decides."""
    desk = Desk(tmp_path)
    desk.ask(0, 1)
    desk.start(begin)
    desk.ask(2)
    desk.start(begin)
    desk.drain()

    assert desk.answers() == answered
