"""The online store without Redis: what waits, what is dropped, and when writing is tried."""

from __future__ import annotations

import doctest
import logging
import threading
from collections import Counter

import numpy as np
import pytest

from serving import breaker, pending_keys
from serving.breaker import FAILURES_IN_A_ROW, FIRST_BACKOFF_S, LONGEST_BACKOFF_S, Breaker
from serving.key_rows import KeyRows
from serving.key_script import Written
from serving.online_store import BATCH_KEYS, OnlineStore
from serving.pending_keys import MOST_BATCHES, PendingKeys
from streams.errors import StoreError
from streams.metrics import RoleMetrics
from tests.key_rows import Said, expected, key_rows, spelled
from tests.system.conftest import until

# What waits


class Pending(PendingKeys):
    """With the counts it tells."""

    def __init__(self, most_rows: int = 4, most_bytes: int = 1 << 30) -> None:
        self.counts: Counter[str] = Counter()
        super().__init__(lambda outcome, rows: self.counts.update({outcome: rows}), most_rows, most_bytes)


def test_what_waits_is_taken_at_once_the_newest_of_each_key() -> None:
    """What a newer row made useless is counted; then nothing waits any more."""
    pending = Pending()
    pending.put(key_rows(("a", 1), ("b", 2)))
    pending.put(key_rows(("a", 3)))

    assert spelled(pending.take(0)) == expected([("b", 2), ("a", 3)])
    assert pending.counts == {"superseded": 1}
    assert (pending.take(0), pending.rows) == (None, 0)


def test_with_too_many_keys_the_oldest_are_dropped_and_counted() -> None:
    """Superseded ones first: a key whose newest row came late is kept."""
    pending = Pending(most_rows=4)
    for number in range(8):
        pending.put(key_rows((f"k{number % 6}", number)))
    pending.put(key_rows(("k9", 9)))

    assert spelled(pending.take(0)) == expected([("k5", 5), ("k0", 6), ("k1", 7), ("k9", 9)])
    assert pending.counts == {"superseded": 2, "dropped": 3}


def test_what_waits_is_bounded_in_bytes_too() -> None:
    """Long keys count for what they are; the newest are kept."""
    pending = Pending(most_rows=1_000, most_bytes=50_000)
    for number in range(100):
        pending.put(key_rows((f"{number}" + "k" * 1_000, number)))
    rows = pending.take(0)

    assert rows is not None
    assert rows.size_bytes < 100_000
    assert rows.names[-1] == 99
    assert rows.size + pending.counts["dropped"] == 100


@pytest.mark.parametrize("keys", [1, 3_000])
def test_many_small_batches_are_joined(keys: int) -> None:
    """An object for each of thousands of rows would cost more than they do; none is lost."""
    pending = Pending(most_rows=10_000)
    said = [(f"k{number % keys}", number) for number in range(3_000)]
    for one in said:
        pending.put(key_rows(one))

    assert len(pending._parts) < 2 * MOST_BATCHES
    assert pending.rows - 3_000 + pending.counts["superseded"] == 0
    assert spelled(pending.take(0)) == expected(said[-keys:])


def test_joined_batches_are_joined_again_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their number is bounded too."""
    monkeypatch.setattr(pending_keys, "MOST_BATCHES", 3)
    monkeypatch.setattr(pending_keys, "MOST_PARTS", 4)
    pending, lengths = Pending(most_rows=1_000), []
    for number in range(100):
        pending.put(key_rows((f"k{number}", number)))
        lengths.append(len(pending._parts))

    assert max(lengths) == 4 + 3
    assert spelled(pending.take(0)) == expected([(f"k{number}", number) for number in range(100)])


@pytest.mark.parametrize("rows", [4, 7])
def test_what_waits_is_gone_through_only_when_it_is_much(rows: int) -> None:
    """By whoever would write: then putting need not; what comes meanwhile is newer."""
    pending = Pending(most_rows=4)
    for number in range(rows):
        pending.put(key_rows((f"k{number % 6}", number)))
    pending.tidy()
    pending.put(key_rows(("k5", 99)))

    assert pending.counts == ({} if rows == 4 else {"superseded": 1, "dropped": 2})
    assert len(pending._parts) == (5 if rows == 4 else 2)
    assert spelled(pending.take(0))[-1:] == expected([("k5", 99)])


def test_what_could_not_be_written_is_older_than_what_came_meanwhile() -> None:
    """It waits again, and goes first when there is too much."""
    pending = Pending(most_rows=2)
    pending.put(key_rows(("a", 1), ("b", 2)))
    taken = pending.take(0)
    pending.put(key_rows(("b", 3), ("c", 4)))
    assert taken is not None
    pending.give_back(taken)
    pending.put(key_rows(("b", 5)))

    assert spelled(pending.take(0)) == expected([("c", 4), ("b", 5)])
    assert pending.counts == {"superseded": 2, "dropped": 1}


def test_whoever_waits_for_rows_is_woken_by_them_and_by_the_end() -> None:
    """Not by the time alone."""
    pending, found = Pending(), []
    waiting = threading.Thread(target=lambda: found.extend([*spelled(pending.take(60)), pending.take(60)]))
    waiting.start()
    pending.put(key_rows(("a", 1)))
    until(lambda: bool(pending.rows == 0))
    pending.close()
    waiting.join(10)

    assert found == [*expected([("a", 1)]), None]


# When writing is tried


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_the_breaker_opens_after_failures_in_a_row_and_waits_longer_each_time() -> None:
    """Half a second, doubled up to half a minute; a success ends it all."""
    clock = Clock()
    circuit = Breaker(clock)
    opened = [circuit.failed() for _ in range(FAILURES_IN_A_ROW)]
    waits = []
    for _ in range(9):
        waits.append(circuit.wait_s)
        clock.now_s += circuit.wait_s
        opened.append(circuit.failed())

    assert opened == [False] * (FAILURES_IN_A_ROW - 1) + [True] + [False] * 9
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert (waits[0], waits[-1]) == (FIRST_BACKOFF_S, LONGEST_BACKOFF_S)
    assert circuit.open_s == sum(waits)

    circuit.succeeded()

    assert (circuit.is_open, circuit.wait_s, circuit.open_s, circuit.failed()) == (False, 0.0, 0.0, False)


def test_failures_with_successes_between_them_open_nothing() -> None:
    """Only those in a row count."""
    circuit = Breaker(Clock())
    for _ in range(10):
        circuit.failed()
        circuit.failed()
        circuit.succeeded()

    assert not circuit.is_open


def test_examples_in_the_docstrings_run() -> None:
    """The numbers in the docstrings are the numbers the code gives."""
    assert doctest.testmod(breaker).failed == 0


# The store


class Shelf:
    """Stands for Redis: takes batches, or fails."""

    address = "redis://shelf"

    def __init__(self) -> None:
        self.batches: list[KeyRows] = []
        self.is_down = False
        self.is_closed = False

    def write(self, rows: KeyRows) -> Written:
        if self.is_down:
            raise StoreError("unreachable", "redis://shelf cannot be reached: gone")
        self.batches.append(rows)
        return Written(rows.size - 1, 1, 0)

    def close(self) -> None:
        self.is_closed = True


class Counting:
    """A store over a shelf, whose rounds the test calls itself."""

    def __init__(self) -> None:
        self.shelf, self.metrics, self.clock = Shelf(), RoleMetrics("serve", "p"), Clock()
        self.store = OnlineStore(self.shelf, self.metrics, self.clock)

    def put(self, *said: Said | tuple[str, int]) -> None:
        self.store._pending.put(key_rows(*said))

    def value(self, name: str, **labels: str) -> float | None:
        base = {"pipeline": "p", "role": "serve", "candidate": ""}
        return self.metrics.registry.get_sample_value(f"millrace_store_{name}", {**base, **labels})

    def outcome(self, outcome: str) -> float:
        return self.value("rows_total", outcome=outcome) or 0.0


def test_rows_are_written_in_batches_and_each_is_counted_once() -> None:
    """Those written, those that Redis held newer ones of, and those superseded on the way."""
    counting = Counting()
    said = [(f"k{number}", number) for number in range(BATCH_KEYS + 10)]
    counting.put(*said, *((key, number + 9_999) for key, number in said[:5]))
    counting.store.round(0)

    assert [batch.size for batch in counting.shelf.batches] == [BATCH_KEYS, 10]
    assert (counting.outcome("written"), counting.outcome("older")) == (BATCH_KEYS + 8, 2)
    assert counting.outcome("superseded") == 5
    assert counting.value("write_seconds_count") == 2


def test_a_store_that_is_down_keeps_the_newest_rows_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    """One line when it is given up for now, one when it is back, a count for each failure."""
    counting = Counting()
    counting.shelf.is_down = True
    with caplog.at_level(logging.WARNING):
        for number in range(FAILURES_IN_A_ROW + 2):
            counting.put(("a", number), (f"b{number}", 100 + number))
            counting.store.round(0)
        open_then = counting.value("open")
        counting.clock.now_s += 7.25
        counting.shelf.is_down = False
        counting.store.round(0)

    assert spelled(counting.shelf.batches[0]) == expected(
        [*((f"b{n}", 100 + n) for n in range(4)), ("a", 4), ("b4", 104)]
    )
    assert (open_then, counting.value("open")) == (1, 0)
    assert counting.value("failures_total", reason="unreachable") == FAILURES_IN_A_ROW + 2
    assert [record.getMessage() for record in caplog.records] == [
        "online store: redis://shelf cannot be reached: gone; answers go on, the newest rows wait for it",
        "online store: redis://shelf takes writes again, after 7.2 s",
    ]


def test_nothing_is_kept_before_the_start_and_everything_is_written_at_the_end() -> None:
    """The rows that warm a role are no answers; a normal end loses nothing."""
    shelf, metrics = Shelf(), RoleMetrics("serve", "p")
    store = OnlineStore(shelf, metrics)
    store.put(key_rows(("warming", 1)))
    store.start()
    for number in range(50):
        store.put(key_rows(("a", number), ("b", 1_000 + number)))
    store.close()
    written = [row for batch in shelf.batches for row in spelled(batch)]

    assert written[-2:] == expected([("a", 49), ("b", 1_049)])
    assert {key for key, *_ in written} == {"a", "b"}
    assert shelf.is_closed


def test_putting_never_waits_for_a_store_that_hangs() -> None:
    """The thread that answers goes on while the other one waits for Redis."""
    gate, hanging = threading.Event(), threading.Event()

    class Hanging(Shelf):
        def write(self, rows: KeyRows) -> Written:
            hanging.set()
            gate.wait(60)
            return super().write(rows)

    store = OnlineStore(Hanging(), RoleMetrics("serve", "p"))
    store.start()
    store.put(key_rows(("a", 1)))
    assert hanging.wait(60)
    for number in range(3 * MOST_BATCHES):
        store.put(key_rows(("a", number)))

    assert not gate.is_set()

    gate.set()
    store.close()


def test_a_fault_of_ours_ends_the_writing_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    """It is said and counted, and whoever answers goes on."""

    class Faulty(Shelf):
        def write(self, rows: KeyRows) -> Written:
            raise ZeroDivisionError

    metrics = RoleMetrics("serve", "p")
    store = OnlineStore(Faulty(), metrics)
    base = {"pipeline": "p", "role": "serve", "candidate": ""}
    store.start()
    store.put(key_rows(("a", 1)))
    until(lambda: metrics.registry.get_sample_value("millrace_store_open", base) == 1)
    store.put(key_rows(("a", 2)))
    store.close()

    assert metrics.registry.get_sample_value("millrace_store_failures_total", {**base, "reason": "ended"}) == 1
    assert "online store: writing has ended; answers go on" in caplog.text


def test_a_vector_is_the_one_that_was_put() -> None:
    """Rows are copied before they are written, whatever becomes of the batch they came in."""
    counting = Counting()
    rows = key_rows(("a", 1), ("b", 2))
    counting.store._pending.put(rows)
    counting.store.round(0)

    assert np.array_equal(counting.shelf.batches[0].vectors_BF, rows.vectors_BF, equal_nan=True)
