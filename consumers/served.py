"""Served: what was really answered, scored as if it were a candidate.

The rows of P.examples are taken in their order, as candidates take them, with the answer of P.predictions in the place
of a prediction. An event's row waits until its answer was heard, or never comes; so what is scored, and in which order,
follows from the two topics alone, and not from which of them was read first. An event without an answer is not scored.

What the difference to the candidates' own predictions comes to is shadowing.py's, from their blocks on P.scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec
import numpy as np

from consumers.heard_answers import NOBODY, Answers, Floats, Int16s
from consumers.held_rows import Held, HeldRows
from consumers.learn_rows import columns_of, named
from consumers.score_records import ScoresRecord
from consumers.shadowing import Shadowing
from models.blocks import Scoreboard
from models.learner import PREDICT
from models.pending import PREDICTED
from models.scoring import Scores
from streams.advice import rebuild_of
from streams.errors import ModelError
from streams.event_numbers import MANY
from streams.frames import BEGINNING, EVENT, Batch, Outgoing
from streams.metrics import RoleMetrics
from streams.pipeline import Task
from streams.records import Records
from streams.served import ROLE, SERVED
from streams.snapshots import State, part_of

MOST_HELD = 100_000  # rows that wait for answers, 46 bytes each; with more, no further ones are read
MOST_AT_ONCE = 20_000
PATIENCE_US = 3_600_000_000  # of the wall clock, for a serve that is down
_PARTS = ("board", "scores", "answers", "rows", "shadowing")


class _Part(Protocol):
    def state(self) -> State: ...

    def restore(self, state: State) -> None: ...


class _Wait(NamedTuple):
    """The event at the head of what waits, and since when on the wall clock."""

    partition: int
    name: int
    since_us: int


class ServedTask:
    """The scores of what was answered.

    Args:
        task: what labels are; any but a clustering.
        candidates: of the pipeline file.
        place_of: gives the partition and generation of a source, which with its number are an answer's name.
        keep_us: how long a settled event is remembered, for labels that are amended or retracted.
        wait_us: how long an event waits for its label.
        patience_us: how long answers of a partition are waited for when there are none to read.
        is_split: whether candidates share the traffic.
        ended: gives the sources that were replaced by another topic or generation.
        aliases: the sources that numbered events before partitions were parted anew, by alias.

    Attributes:
        positions: the next record of each partition of P.predictions.
        scores_to: the next record of P.scores.
    """

    def __init__(
        self,
        task: Task,
        candidates: tuple[str, ...],
        place_of: Callable[[int], tuple[int, int]],
        keep_us: int = 0,
        wait_us: int = 0,
        patience_us: int = PATIENCE_US,
        *,
        is_split: bool = False,
        ended: Callable[[], list[int]] = list,
        aliases: Mapping[int, int] | None = None,
    ) -> None:
        self.task = task
        self.answers = Answers(task, is_split=is_split)
        self.scores = Scores(task)
        self.board = Scoreboard(
            self.answers.outputs, keep_us, learns_all=task.is_unsupervised, tells_labels=False, may_be_silent=True
        )
        self.rows = HeldRows()
        self.shadowing = Shadowing(candidates, self.answers.models)
        self.positions: dict[int, int] = {}
        self.scores_to = 0
        self.answered = 0  # events whose answer was heard
        self._place_of, self._places = place_of, dict[int, tuple[int, int]]()
        self._wait_us, self._patience_us = wait_us, patience_us
        self._ended, self._aliases = ended, {} if aliases is None else aliases
        self._wait: _Wait | None = None
        self._given_up: dict[int, int] = {}  # by partition, the last event for whose answer nobody waits any more
        self._repeats = 0  # of answers, as metrics know it

    # Rows and answers come

    def process(self, batch: Batch) -> Sequence[Outgoing]:
        """Take rows of P.examples in order; those whose answers are not heard yet wait."""
        rows = named(columns_of(batch), self._aliases)
        partition, name = np.full(rows.kind.size, -1, np.int32), np.full(rows.kind.size, -1, np.int64)
        is_event_B = rows.kind == EVENT
        for source in np.unique(rows.source[is_event_B]).tolist():
            if source not in self._places:
                self._places[source] = self._place_of(source)
            mine = is_event_B & (rows.source == source)
            partition[mine], generation = self._places[source]
            name[mine] = generation * MANY + rows.number[mine]
        self.rows.add(Held(rows, batch.clock, partition, name))
        self.go_on()
        return []

    def hear(self, partition: int, records: Records) -> None:
        """Take records of a partition of P.predictions, in order."""
        self.answers.hear(partition, records)
        self.go_on()

    def hear_scores(self, record: ScoresRecord) -> None:
        """Take a record of P.scores, in order."""
        self.shadowing.hear(record)

    def look(self, now_us: int, is_at_end: Callable[[int], bool]) -> None:
        """Give up answers that did not come for too long, though there is nothing more of their partition to read."""
        head = self.rows.head(1)
        if not head.size or not is_at_end(int(head.partition[0])):
            self._wait = None
            return
        at = int(head.partition[0]), int(head.name[0])
        if self._wait is None or self._wait[:2] != at:
            self._wait = _Wait(*at, now_us)
        elif now_us - self._wait.since_us >= self._patience_us:
            rows = self.rows.head(self.rows.size)
            self._given_up[at[0]] = int(rows.name[rows.partition == at[0]].max())
            self.go_on()

    @property
    def is_full(self) -> bool:
        """Whether no more examples are to be read for now."""
        return self.rows.size >= MOST_HELD

    # What can be scored is scored

    def go_on(self) -> None:
        """Take the rows up to the first event whose answer may still come."""
        while True:
            head = self.rows.head(MOST_AT_ONCE)
            said_BS, who_B, ready = self._answered(head)
            if ready:
                self._score(self.rows.take(ready), said_BS[:ready], who_B[:ready])
            if ready < MOST_AT_ONCE:
                return

    def _answered(self, head: Held) -> tuple[Floats, Int16s, int]:
        """Find the answers to events; gives how many rows there are before the first whose answer may still come."""
        said_BS = np.full((head.size, self.answers.outputs), np.nan)
        who_B, ready = np.full(head.size, NOBODY, np.int16), head.size
        for partition in np.unique(head.partition[head.partition >= 0]).tolist():
            row = np.flatnonzero(head.partition == partition)
            self.answers.pass_to(partition, int(head.name[row[0]]))
            found = self.answers.find(partition, head.name[row])
            said_BS[row], who_B[row] = found.said_NS, found.who_N
            is_open = ~found.is_known_N & (head.name[row] > self._given_up.get(partition, -1))
            if is_open.any():
                ready = min(ready, int(row[is_open.argmax()]))
        return said_BS, who_B, ready

    def _score(self, held: Held, said_BS: Floats, who_B: Int16s) -> None:
        """Let the scoreboard have rows, with what was said of events."""
        rows, start = held.rows, 0
        while start < held.size:
            stop, action_B = self.board.plan(rows, start, held.clock)
            row = start + np.flatnonzero(action_B == PREDICT)
            self.answered += int(np.count_nonzero(who_B[row] != NOBODY))
            self.shadowing.enter(rows.source[row], rows.number[row], who_B[row])
            self.shadowing.leave(self.board.settle(rows, start, stop, said_BS[start:stop], self.scores))
            start = stop
        is_event_B = held.partition >= 0
        for partition in np.unique(held.partition[is_event_B]).tolist():
            self.answers.pass_to(partition, int(held.name[held.partition == partition].max()) + 1)
        self._drop_ended()
        if self.shadowing.is_full and held.clock[-1] > BEGINNING:
            self.shadowing.prune(int(held.clock[-1]) - self._wait_us)

    def _drop_ended(self) -> None:
        ended = set(self._ended()).difference(self._aliases.values())
        if ended:
            waiting = set(np.unique(self.rows.head(self.rows.size).rows.source).tolist())
            for source in sorted(ended - waiting):
                self.board.drop(source)
                self.shadowing.drop(source)

    # Snapshots

    def is_sound(self) -> bool:
        """Nothing here can be unsound."""
        return True

    def state(self) -> State:
        """Give everything, with the positions that it belongs to."""
        parts = self._parts()
        state = {f"{part}.{name}": array for part in _PARTS for name, array in parts[part].state().items()}
        about = {
            "task": self.task,
            "positions": sorted(self.positions.items()),
            "scores_to": self.scores_to,
            "answered": self.answered,
        }
        return state | {"about": np.frombuffer(msgspec.json.encode(about), np.uint8)}

    def restore(self, state: State) -> None:
        """Take back what `state` gave.

        Raises:
            ModelError: something is absent, damaged or of another task.
        """
        try:
            about = msgspec.json.decode(state["about"].tobytes())
            if msgspec.convert(about["task"], Task) != self.task:
                raise ModelError("it was written for another task")
            for part, one in self._parts().items():
                one.restore(part_of(state, f"{part}."))
        except (ModelError, KeyError, ValueError, msgspec.MsgspecError) as error:
            text = f"the scores of what was served cannot go on from their snapshot: {error}"
            raise ModelError(f"{text}; run `{rebuild_of(ROLE)}`") from error
        self.positions, self.scores_to = dict(about["positions"]), about["scores_to"]
        self.answered, self._repeats = about["answered"], self.repeats

    def _parts(self) -> dict[str, _Part]:
        return {part: getattr(self, part) for part in _PARTS}

    # What there is to say

    @property
    def repeats(self) -> int:
        """Count the answers that did not count: repeated, or too late."""
        return self.answers.heard - self.answers.counted

    @property
    def unanswered(self) -> int:
        """Count the events without an answer."""
        return int(self.board.counters[PREDICTED]) - self.answered

    def measure(self, metrics: RoleMetrics) -> None:
        """Set the gauges of what was served."""
        mine, cost = metrics.of(SERVED), self.shadowing.cost
        quality = self.scores.since_start()
        mine.scored("start", quality._asdict())
        mine.scored("rolling", self.scores.rolling()._asdict())
        mine.scored_by_delay(self.scores.by_delay())
        mine.learned(quality.labels, self.size_bytes())
        mine.pending(0, self.board.pending())
        mine.staleness({"start": cost.since_start().cost, "rolling": cost.rolling().cost})
        states = {"answered": self.answered, "unanswered": self.unanswered, "waiting": self.rows.size}
        mine.served(states, self.answers.given)
        mine.repeats(self.repeats - self._repeats)
        self._repeats = self.repeats

    def size_bytes(self) -> int:
        """Give about what waits here takes in memory."""
        waiting = sum(map(self.answers.waiting, self.positions))
        return 46 * self.rows.size + 34 * self.board.pending() + (10 + 8 * self.answers.outputs) * waiting
