"""What leaves a worker: outputs of all its partitions merged by time, cut into frames, marks behind them.

One instance per worker. A mark never overtakes the rows it stands behind, because it is produced after them into the
same partition by the same idempotent producer (PROTOCOL 7, 11).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from streams import frames
from streams.building import Builder
from streams.frames import MARK, SCHEMA_HEADER, FrameSchema, Outgoing, Rows, Spread
from streams.kafka import Outbox
from streams.merging import Intake, merge_order, spread_order
from streams.metrics import RoleMetrics
from streams.tables import Stack, Table

UNHURRIED = frozenset({"examples"})  # topics whose rows no answer waits for
MOST_HELD = 1_000  # rows of one target; more are worth a frame

Target = tuple[str, int]
Picked = tuple[Stack, npt.NDArray[np.int64]]  # rows by their index, in order


class Outlet:
    """Collects what a step puts out and produces it; rows that may wait, with those of the next steps.

    Args:
        outbox: the producer.
        prefix: the pipeline's name; `log` becomes `<prefix>.log`.
        schemas: the schema of each inner topic this role writes frames to.
        metrics: counts rows and frames.
        hold_s: so long rows may wait that no answer waits for: a frame costs the same for one row as for twenty.
    """

    def __init__(
        self,
        outbox: Outbox,
        prefix: str,
        schemas: dict[str, FrameSchema],
        metrics: RoleMetrics,
        hold_s: float = 0.0,
    ) -> None:
        self._outbox = outbox
        self._prefix = prefix
        self._builders = {topic: Builder(schema.layout, {}) for topic, schema in schemas.items()}  # of marks
        self._headers = {topic: [(SCHEMA_HEADER, schema.fingerprint.encode())] for topic, schema in schemas.items()}
        self._metrics = metrics
        self._rows: dict[Target, list[tuple[Rows, npt.NDArray[np.int64], Intake]]] = {}
        self._spreads: dict[str, list[tuple[Spread, npt.NDArray[np.int64], Intake]]] = {}
        self._marks: dict[Target, list[tuple[int, int]]] = {}
        self._hold_s = hold_s
        self._held_since: dict[Target, float] = {}

    def put(self, output: Rows | Spread | Outgoing, keys: npt.NDArray[np.int64], intake: Intake) -> None:
        """Collect an output of one partition; JSON records are produced at once, rows when `send` finds them due."""
        if isinstance(output, Rows):
            part = (output, keys[output.cause], intake)
            self._rows.setdefault((output.topic, output.partition), []).append(part)
        elif isinstance(output, Spread):
            self._spreads.setdefault(output.topic, []).append((output, keys, intake))
        else:
            self._outbox.produce_many(self.full_name(output.topic), output.partition, output.values, output.keys)
            self._metrics.add_out(output.topic, output.values.size)

    def put_mark(self, target: Target, source: int, time_us: int) -> None:
        """Collect a mark of one source for one output partition."""
        self._marks.setdefault(target, []).append((source, time_us))

    def send(self, now_s: float = math.inf) -> None:
        """Merge, frame and produce what was collected; at `now_s` by a clock, some rows may wait, without it none."""
        for target in self._rows:
            self._held_since.setdefault(target, now_s)
        ready = [target for target in self._rows if not self._is_held(target, now_s)]
        found = {target: self._merged(target) for target in ready}
        for topic in self._spreads:
            found |= self._spread(topic)
        sent: list[npt.NDArray[np.int8]] = []  # the kinds of each frame's rows
        for target in sorted(found.keys() | self._marks.keys()):
            picked = found.get(target)
            if target in self._marks:
                picked = _with_rows(picked, self._mark_rows(target))
            if picked is not None:
                sent += self._produce(target, *picked)
        if sent:
            self._metrics.count_out(np.concatenate(sent))
            self._metrics.frames([kinds.size for kinds in sent])
        for target in ready:
            del self._rows[target]
            del self._held_since[target]
        self._spreads.clear()
        self._marks.clear()

    @property
    def is_holding(self) -> bool:
        """Whether rows wait for more."""
        return bool(self._rows)

    def _is_held(self, target: Target, now_s: float) -> bool:
        """Whether a target's rows are to wait for more; never those that a mark shall stand behind."""
        if target[0] not in UNHURRIED or target in self._marks:
            return False
        waited_s = now_s - self._held_since[target]
        return 0 <= waited_s < self._hold_s and sum(keys.size for _, keys, _ in self._rows[target]) < MOST_HELD

    def _merged(self, target: Target) -> Picked:
        """Say in which order the rows of all partitions go to a target."""
        rows, keys, intakes = zip(*self._rows[target], strict=True)
        index, before = [], 0
        for own in rows:
            index.append(own.picked + before if before else own.picked)
            before += own.table.num_rows
        order = merge_order(list(keys), list(intakes))
        return Stack([own.table for own in rows]), index[0] if order is None else np.concatenate(index)[order]

    def _spread(self, topic: str) -> dict[Target, Picked]:
        """Say in which order the rows of all partitions go to each partition of a topic."""
        spreads, keys, intakes = zip(*self._spreads[topic], strict=True)
        targets = [spread.targets for spread in spreads]
        order, ends = spread_order(list(keys), targets, list(intakes), spreads[0].partitions)
        stack, cuts = Stack([spread.table for spread in spreads]), pairwise([0, *ends.tolist()])
        return {(topic, place): (stack, order[start:end]) for place, (start, end) in enumerate(cuts) if start < end}

    def _mark_rows(self, target: Target) -> Table:
        sources, times = zip(*self._marks[target], strict=True)
        columns = {
            "kind": np.full(len(sources), MARK, np.int8),
            "source": np.array(sources, np.int32),
            "time": np.array(times, np.int64),
        }
        return self._builders[target[0]].build(columns, len(sources))

    def _produce(self, target: Target, stack: Stack, index: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int8]]:
        """Produce some rows; gives the kinds of those of each frame."""
        name, header = self.full_name(target[0]), self._headers[target[0]]
        for frame in frames.encode(stack, index):
            kinds = frame.numbers("kind").copy()
            self._outbox.give(name, target[1], frame.give(), header)
            yield kinds

    def full_name(self, topic: str) -> str:
        """Give the Kafka topic of one of the pipeline's own topics."""
        return f"{self._prefix}.{topic}"


def _with_rows(picked: Picked | None, rows: Table) -> Picked:
    """Pick all rows of another table, too, behind the others."""
    if picked is None:
        return Stack([rows]), np.arange(rows.num_rows)
    stack, index = picked
    behind = np.arange(stack.num_rows, stack.num_rows + rows.num_rows)
    return Stack([*stack.tables, rows]), np.concatenate([index, behind])
