"""The label's life: what becomes of every event and label, told as short stories of rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from consumers.featurize import FeatureTask
from streams.frames import END, Batch
from streams.ledger import PLACES, SMALLEST
from streams.pipeline import Pipeline
from tests.aggregate_reference import Row
from tests.featurizing import SECOND, SOURCE, START, batch, event, label, mark, run, small_pipeline

OUTCOMES = {-1: "event", 0: "set", 1: "missing", 2: "retracted", 3: "amended"}
NOTHING = dict.fromkeys(("joined", "waiting", "duplicate", "unknown", "too_late", "amended", "retracted"), 0)

# Labels wait 60 s and settled events are remembered for 60 s. Each story: rows, what leaves, what labels became.
STORIES: dict[str, tuple[list[Row], list[str], dict[str, int]]] = {
    "a label joins its event": (
        [event("a", 0), label("a", 5)],
        ["event a @0", "set 1 a @5"],
        {"joined": 1},
    ),
    "a label at the deadline itself still counts": (
        [event("a", 0), mark(60), label("a", 60)],
        ["event a @0", "set 1 a @60"],
        {"joined": 1},
    ),
    "an event is missing once the clock has passed its deadline": (
        [event("a", 0), mark(60), mark(60.000001)],
        ["event a @0", "missing nan a @60"],
        {},
    ),
    "a label later than wait is too late even if it came before the clock": (
        [event("a", 0), label("a", 61), mark(61)],
        ["event a @0", "missing nan a @60"],
        {"too_late": 1},
    ),
    "a label after its event was settled as missing is too late": (
        [event("a", 0), mark(61), label("a", 5)],
        ["event a @0", "missing nan a @60"],
        {"too_late": 1},
    ),
    "a retraction after its event was settled as missing is too late": (
        [event("a", 0), mark(61), label("a", 5, None)],
        ["event a @0", "missing nan a @60"],
        {"too_late": 1},
    ),
    "an early label waits for its event, and the event row leaves first": (
        [label("a", 5), event("a", 0)],
        ["event a @0", "set 1 a @5"],
        {"joined": 1},
    ),
    "an early label beyond its event's deadline is too late": (
        [label("a", 61), event("a", 0), mark(61)],
        ["event a @0", "missing nan a @60"],
        {"too_late": 1},
    ),
    "an early label waits as long as events do, then it is unknown": (
        [label("a", 5), mark(65), label("b", 5), mark(65.000001), event("a", 0)],
        ["event a @0", "missing nan a @60"],
        {"unknown": 2},
    ),
    "a repeated early label is a duplicate": (
        [label("a", 5), label("a", 7), event("a", 0)],
        ["event a @0", "set 1 a @5"],
        {"duplicate": 1, "joined": 1},
    ),
    "a newer early label replaces the one that waits": (
        [label("a", 5), label("a", 4, 0.0), event("a", 0)],
        ["event a @0", "set 0 a @4"],
        {"amended": 1, "joined": 1},
    ),
    "a retraction drops the early label": (
        [label("a", 5), label("a", 6, None), event("a", 0), label("a", 7, 0.0)],
        ["event a @0", "set 0 a @7"],
        {"retracted": 2, "joined": 1},
    ),
    "a retraction of nothing is counted and forgotten": (
        [label("a", 5, None), event("a", 0)],
        ["event a @0"],
        {"retracted": 1},
    ),
    "a retraction before settling leaves the event waiting": (
        [event("a", 0), label("a", 5, None), label("a", 6)],
        ["event a @0", "set 1 a @6"],
        {"retracted": 1, "joined": 1},
    ),
    "a second label with the same value is a duplicate": (
        [event("a", 0), label("a", 5), label("a", 9)],
        ["event a @0", "set 1 a @5"],
        {"joined": 1, "duplicate": 1},
    ),
    "a second label with another value is passed on as amended, and so is the way back": (
        [event("a", 0), label("a", 5), label("a", 9, 0.0), label("a", 10, 0.0), label("a", 11)],
        ["event a @0", "set 1 a @5", "amended 0 a @9", "amended 1 a @11"],
        {"joined": 1, "amended": 2, "duplicate": 1},
    ),
    "a retraction after settling is passed on once, and a label after it amends": (
        [event("a", 0), label("a", 5), label("a", 9, None), label("a", 10, None), label("a", 11)],
        ["event a @0", "set 1 a @5", "retracted nan a @9", "amended 1 a @11"],
        {"joined": 1, "retracted": 1, "duplicate": 1, "amended": 1},
    ),
    "a settled event is remembered for keep from its label's time": (
        [event("a", 0), label("a", 5), mark(65), label("a", 9, 0.0), event("a", 1)],
        ["event a @0", "set 1 a @5", "amended 0 a @9"],
        {"joined": 1, "amended": 1},
    ),
    "then its id may come again": (
        [event("a", 0), label("a", 5), mark(65.000001), event("a", 70), label("a", 71, 0.0)],
        ["event a @0", "set 1 a @5", "event a @70", "set 0 a @71"],
        {"joined": 2},
    ),
    "a missing event is remembered for keep from its deadline": (
        [event("a", 0), mark(120), event("a", 100), mark(120.000001), event("a", 110)],
        ["event a @0", "missing nan a @60", "event a @110"],
        {},
    ),
    "a second event of an id is dropped, pending or settled": (
        [event("a", 0), event("a", 1), label("a", 5), event("a", 2)],
        ["event a @0", "set 1 a @5"],
        {"joined": 1},
    ),
    "the same id under another key is another event": (
        [event("a", 0), event("a", 0, "other"), label("a", 5, key="other")],
        ["event a @0", "event a @0", "set 1 a @5"],
        {"joined": 1},
    ),
    "an event whose deadline is past settles at once, after its own row": (
        [mark(100), event("a", 0), event("b", 39.999999), event("c", 40)],
        ["event a @0", "missing nan a @60", "event b @39.999999", "missing nan b @99.999999", "event c @40"],
        {},
    ),
    "what one row settles leaves by deadline, then in log order": (
        [event("d", 2), event("b", 1), event("a", 0), event("c", 1), label("b", 3), event("e", 1), mark(200)],
        [
            "event d @2",
            "event b @1",
            "event a @0",
            "event c @1",
            "set 1 b @3",
            "event e @1",
            "missing nan a @60",
            "missing nan c @61",
            "missing nan e @61",
            "missing nan d @62",
        ],
        {"joined": 1},
    ),
}


def story(out: list[tuple[int, Row]]) -> list[str]:
    """Say each output row in a few words."""
    told = []
    for _, row in out:
        value = "" if row["outcome"] == -1 else f" {row['label']:g}"
        told.append(f"{OUTCOMES[row['outcome']]}{value} {row['id']} @{(row['time'] - START) / SECOND:.9g}")
    return told


@pytest.mark.parametrize("name", STORIES)
def test_story(name: str) -> None:
    """Each story leaves the rows it says, and accounts for every label."""
    rows, expected, became = STORIES[name]
    of = small_pipeline()
    task = FeatureTask(of, 0, SOURCE)

    assert story(run(task, of, rows)) == expected
    assert task.accounts()["labels"][1] == NOTHING | became


@pytest.mark.parametrize("name", STORIES)
def test_story_interrupted_after_every_row(name: str) -> None:
    """A snapshot and a fresh task after every single row change nothing."""
    rows, expected, _ = STORIES[name]
    of = small_pipeline()
    task, out = FeatureTask(of, 0, SOURCE), []
    now = 0
    for row in rows:
        now = max(now, row["time"]) if row["kind"] == "mark" else now
        out += run(task, of, [row], [(now, now)])
        state, task = task.state(), FeatureTask(of, 0, SOURCE)
        task.restore(state)

    assert story(out) == expected


def test_a_label_row_is_its_event_with_the_labels_time() -> None:
    """Vector, number, id, key and produced are the event's, time and cause the label's."""
    of = small_pipeline(raw=True)
    rows = [event("a", 0, "k1", 3.5), event("b", 1, "k2", 4.5), label("b", 9, key="k2"), mark(100)]

    out = run(FeatureTask(of, 0, SOURCE), of, rows)

    _, (_, second), (cause, joined), (marked, missing) = out
    names = ("number", "vector", "id", "key", "produced")
    assert repr([joined[name] for name in names]) == repr([second[name] for name in names])
    assert (cause, joined["time"], joined["label"]) == (2, START + 9 * SECOND, 1.0)
    assert (marked, missing["id"], missing["key"], missing["vector"][0]) == (3, "a", "k1", 3.5)


def test_a_correction_carries_the_number_and_no_vector() -> None:
    """Amended and retracted rows name their event by number; there is nothing to learn from them here."""
    of = small_pipeline(raw=True)

    out = run(FeatureTask(of, 0, SOURCE), of, [event("x", 0), event("a", 0), label("a", 5), label("a", 6, 0.0)])

    row = out[-1][1]
    assert (row["number"], row["produced"], row["id"], row["key"]) == (1, -1, "a", "k")
    assert all(math.isnan(value) for value in row["vector"])


def test_a_correction_that_is_to_be_learned_carries_the_vector_of_its_event() -> None:
    """Of one whose label came early, in time, and of one that waits no longer; not of one that is forgotten."""
    of = small_pipeline(raw=True, amend="relearn")
    rows = [label("early", 3), event("early", 0, amount=1.5), event("a", 1, amount=2.5), label("a", 5)]
    rows += [label("a", 6, 0.0), label("early", 7, None), label("early", 8), mark(65.000001), label("a", 9)]

    out = run(FeatureTask(of, 0, SOURCE), of, rows)

    corrections = [(row["id"], row["outcome"], row["vector"][0]) for _, row in out[4:]]
    assert corrections == [("a", 3, 2.5), ("early", 2, 1.5), ("early", 3, 1.5)]


def test_vectors_are_kept_from_the_moment_on_that_corrections_are_to_be_learned() -> None:
    """`amend` may change between two starts: what was settled before has no vector then."""
    plain, kept = (small_pipeline(raw=True, amend=amend) for amend in ("metrics", "relearn"))
    first = [event("a", 0), label("a", 5), event("b", 1)]
    second = [label("b", 6), label("a", 7, 0.0), label("b", 8, 0.0)]

    def settled_first_by(before: Pipeline, after: Pipeline) -> list[float]:
        task, later = FeatureTask(before, 0, SOURCE), FeatureTask(after, 0, SOURCE)
        run(task, before, first)
        later.restore(task.state())
        return [row["vector"][0] for _, row in run(later, after, second)]

    np.testing.assert_array_equal(settled_first_by(plain, kept), [1.0, np.nan, 1.0])
    np.testing.assert_array_equal(settled_first_by(kept, plain), [1.0, np.nan, np.nan])


def test_missing_labels_may_have_a_value() -> None:
    """`missing = "0"` settles events that got no label with 0."""
    of = small_pipeline(missing=0.0)

    assert story(run(FeatureTask(of, 0, SOURCE), of, [event("a", 0), mark(61)])) == ["event a @0", "missing 0 a @60"]


def test_two_clocks() -> None:
    """The labels' clock settles events; what is forgotten goes by the clock of both topics."""
    of = small_pipeline()
    rows = [label("early", 0), event("a", 0), mark(0), mark(0), event("a", 0), mark(0)]
    clocks = [
        (START + s * SECOND, START + c * SECOND) for s, c in ((0, 0), (0, 0), (61, 0), (500, 60), (500, 60), (500, 61))
    ]
    task = FeatureTask(of, 0, SOURCE)

    assert story(run(task, of, rows, clocks)) == ["event a @0", "missing nan a @60"]
    assert task.accounts()["events"][1]["duplicate"] == 1
    assert task.accounts()["labels"][1]["unknown"] == 1


def test_an_ended_partition_settles_everything() -> None:
    """The largest possible mark leaves nothing waiting."""
    of = small_pipeline()
    task = FeatureTask(of, 0, SOURCE)

    out = run(task, of, [label("x", 0), event("a", 0), event("b", -5), mark(0)], [(0, 0)] * 3 + [(int(END), int(END))])

    assert story(out)[2:] == ["missing nan b @55", "missing nan a @60"]
    assert task.pending_events() == 0
    assert task.accounts()["labels"][1] == NOTHING | {"unknown": 1}


def test_rows_without_a_key_have_a_life_too() -> None:
    """A missing key stays missing in every row, and is not the empty key."""
    of = small_pipeline()
    rows = [
        event("a", 0, None),
        event("b", 0, ""),
        event("c", 0, None),
        label("a", 5, key=None),
        label("b", 5, key=None),
    ]

    out = run(FeatureTask(of, 0, SOURCE), of, [*rows, mark(61)])

    assert story(out)[3:] == ["set 1 a @5", "missing nan b @60", "missing nan c @60"]
    assert [row["key"] for _, row in out] == [None, "", None, None, "", None]


def test_label_delays_are_told_to_metrics() -> None:
    """The delay from event to joined label is observed once per join, early ones included."""
    of = small_pipeline()
    task = FeatureTask(of, 0, SOURCE)
    run(task, of, [event("a", 0), label("a", 5), label("b", 3), event("b", 4), mark(1)])
    run(task, of, [event("c", 0), label("c", 7)])
    told = Told()

    task.measure(told)  # type: ignore[arg-type]  # stands for RoleMetrics
    task.measure(told)  # type: ignore[arg-type]  # the second time there is nothing new

    assert [delays.tolist() for delays in told.delays] == [[5 * SECOND, -1 * SECOND, 7 * SECOND]]
    assert told.pendings == [0, 0]
    assert told.accounts["labels"] == (3, NOTHING | {"joined": 3})


class Told:
    def __init__(self) -> None:
        self.delays: list[Any] = []
        self.pendings: list[int] = []
        self.accounts: dict[str, Any] = {}

    def label_delays(self, delays: Any) -> None:
        self.delays.append(delays)

    def pending(self, partition: int, events: int) -> None:
        self.pendings.append(events)

    def account(self, name: str, partition: int, total: int, states: dict[str, int]) -> None:
        self.accounts[name] = (total, states)


def test_memory_follows_what_is_remembered() -> None:
    """A long stream with a short keep ends with small tables: everything forgotten is room again."""
    of = small_pipeline(wait_us=SECOND, keep_us=SECOND)
    task = FeatureTask(of, 0, SOURCE)
    for start in range(0, 60_000, 2_000):
        rows = [event(f"{n}", n / 100, f"k{n % 7}") for n in range(start, start + 2_000)]
        clocks = [(row["time"] - SECOND, row["time"] - SECOND) for row in rows]
        task.process(Batch(*batch(of, rows, clocks)))
    state = task.state()

    assert task.accounts()["events"][1] == {"settled": 59_800 - 1, "pending": 201, "duplicate": 0}
    assert state["ledger.words"].size == SMALLEST
    assert state["ledger.sizes"][PLACES] == SMALLEST
    assert state["ledger.records"].shape[0] < 300
    assert state["pending.rows"].shape[0] < 300
    assert state["pending.arena"].size < 300_000
    assert np.array_equal(state["windows.used"][:2], [0, 0])
