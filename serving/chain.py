"""All stages of features over all partitions, chained in memory: what a replay of the log gives, without Kafka between.

Rows travel with the key by which the log's partitions were merged (serving/merged_log.py): a running maximum of time.
In every partition behind a stage they stand by that key, of equal keys the row of the first partition first, as one
worker of the stage sends them in a replay (PROTOCOL 10). Whatever the log gives up to some key has passed all stages
before anything later is taken, so nothing waits between stages, and how the log is cut into steps shows in no row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from consumers.chain_tasks import make_task
from serving.hop import hops
from serving.recomputation import NO_SOURCE
from streams.frames import BEGINNING, END, MARK, Batch, Rows, build
from streams.pipeline import Pipeline
from streams.tables import gather

Int64s = npt.NDArray[np.int64]


class Keyed(NamedTuple):
    """Rows of one partition in order, each with its merge key."""

    batch: Batch
    keys: Int64s


class Chain:
    """The tasks of all stages and partitions, from an empty state.

    Example:
        >>> chain = Chain(pipeline)
        >>> examples = chain.take({0: Keyed(batch, keys)})[0]
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._hops = hops(pipeline)
        partitions = range(pipeline.partitions)
        self._tasks = [[make_task(pipeline, hop.spec.number, p, NO_SOURCE) for p in partitions] for hop in self._hops]
        self._clock = int(BEGINNING)

    def take(self, parts: Mapping[int, Keyed], clock_us: int | None = None) -> dict[int, list[Rows]]:
        """Take rows of the log through all stages; gives by partition what the last stage puts out.

        Args:
            parts: by partition of the log. All rows of one merge key must come in one call.
            clock_us: the smallest mark of the log's partitions before these rows.
        """
        if clock_us is not None:
            self._clock = min(clock_us, int(END) - 1)  # the end settles what waits in the last stage: labels do
        for tasks in self._tasks[:-1]:
            parts = self._passed(tasks, parts)
        last = self._tasks[-1]
        return {partition: last[partition].process(part.batch) for partition, part in parts.items()}

    def settle(self, partitions: Iterable[int], clock_us: int) -> dict[int, list[Rows]]:
        """Let the first stage's clocks stand at `clock_us` in some partitions of the log.

        What waits there until before then is missing.
        """
        clock = np.array([clock_us])
        rows = build(self._hops[0].input, {"kind": np.array([MARK], np.int8)}, 1)
        return self.take({partition: Keyed(Batch(rows, clock, clock), np.array([END])) for partition in partitions})

    def _passed(self, tasks: list[Any], parts: Mapping[int, Keyed]) -> dict[int, Keyed]:
        """Take rows through one stage; gives the next one's."""
        sent: dict[int, list[tuple[Rows, Int64s]]] = defaultdict(list)
        for partition, (batch, keys) in sorted(parts.items()):
            for output in tasks[partition].process(batch):
                sent[output.partition].append((output, keys[output.cause]))
        return {target: self._merged(found) for target, found in sorted(sent.items())}

    def _merged(self, found: list[tuple[Rows, Int64s]]) -> Keyed:
        """Merge what several partitions send to one, given by partition."""
        keys = np.concatenate([keys for _, keys in found])
        ends = np.cumsum([0, *(rows.table.num_rows for rows, _ in found)]).tolist()
        index = np.concatenate([rows.picked + before for (rows, _), before in zip(found, ends, strict=False)])
        order = np.argsort(keys, kind="stable")
        table = gather([rows.table for rows, _ in found], index[order])
        clock = np.full(keys.size, self._clock)
        return Keyed(Batch(table, clock, clock), keys[order])
