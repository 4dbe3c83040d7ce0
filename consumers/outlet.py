"""What leaves a worker: outputs of all its partitions merged by time, cut into frames, marks behind them.

One instance per worker. A mark never overtakes the rows it stands behind, because it is produced after them into the
same partition by the same idempotent producer (PROTOCOL 7, 11).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streams import frames
from streams.frames import MARK, SCHEMA_HEADER, FrameSchema, Outgoing, Rows, Spread
from streams.kafka import Outbox
from streams.merging import Intake, merge_order, spread_order
from streams.metrics import RoleMetrics
from streams.sources import take

Target = tuple[str, int]


class Outlet:
    """Collects what one step puts out and produces it.

    Args:
        outbox: the producer.
        prefix: the pipeline's name; `log` becomes `<prefix>.log`.
        schemas: the schema of each inner topic this role writes frames to.
        metrics: counts rows and frames.
    """

    def __init__(self, outbox: Outbox, prefix: str, schemas: dict[str, FrameSchema], metrics: RoleMetrics) -> None:
        self._outbox = outbox
        self._prefix = prefix
        self._schemas = schemas
        self._metrics = metrics
        self._rows: dict[Target, list[tuple[pa.RecordBatch, npt.NDArray[np.int64], Intake]]] = {}
        self._spreads: dict[str, list[tuple[Spread, npt.NDArray[np.int64], Intake]]] = {}
        self._marks: dict[Target, list[tuple[int, int]]] = {}

    def put(self, output: Rows | Spread | Outgoing, keys: npt.NDArray[np.int64], intake: Intake) -> None:
        """Collect an output of one partition; JSON records are produced at once, rows when `send` is called."""
        if isinstance(output, Rows):
            part = (output.batch, keys[output.cause], intake)
            self._rows.setdefault((output.topic, output.partition), []).append(part)
        elif isinstance(output, Spread):
            self._spreads.setdefault(output.topic, []).append((output, keys, intake))
        else:
            self._outbox.produce_many(self.full_name(output.topic), output.partition, output.values, output.keys)
            self._metrics.add_out(output.topic, output.values.size)

    def put_mark(self, target: Target, source: int, time_us: int) -> None:
        """Collect a mark of one source for one output partition."""
        self._marks.setdefault(target, []).append((source, time_us))

    def send(self) -> None:
        """Merge, frame and produce everything collected since the last call."""
        merged = {target: self._merged(target) for target in self._rows}
        for topic in self._spreads:
            merged |= self._gathered(topic)
        for target in sorted(merged.keys() | self._marks.keys()):
            batches = []
            if target in merged:
                batches.append(merged[target])
            if target in self._marks:
                batches.append(self._mark_rows(target))
            schema = self._schemas[target[0]]
            self._produce(target, schema, batches[0] if len(batches) == 1 else pa.concat_batches(batches))
        self._rows.clear()
        self._spreads.clear()
        self._marks.clear()

    def _merged(self, target: Target) -> pa.RecordBatch:
        parts = self._rows[target]
        if len(parts) == 1:
            return parts[0][0]
        order = merge_order([keys for _, keys, _ in parts], [intake for _, _, intake in parts])
        whole = pa.concat_batches([batch for batch, _, _ in parts])
        return whole if order is None else take(whole, order)

    def _gathered(self, topic: str) -> dict[Target, pa.RecordBatch]:
        """Merge all partitions' rows for a topic and cut them by target."""
        spreads, keys, intakes = zip(*self._spreads[topic], strict=True)
        targets = [spread.targets for spread in spreads]
        partitions = 1 + max(int(own.max()) for own in targets)
        order, ends = spread_order(list(keys), targets, list(intakes), partitions)
        whole = spreads[0].batch if len(spreads) == 1 else pa.concat_batches([spread.batch for spread in spreads])
        stops = ends.tolist()
        merged = take(whole, order[: stops[-1]] if stops else order[:0])
        cuts = pairwise([0, *stops])
        return {
            (topic, place): merged.slice(start, end - start) for place, (start, end) in enumerate(cuts) if start < end
        }

    def _mark_rows(self, target: Target) -> pa.RecordBatch:
        sources, times = zip(*self._marks[target], strict=True)
        columns = {
            "kind": np.full(len(sources), MARK, np.int8),
            "source": np.array(sources, np.int32),
            "time": np.array(times, np.int64),
        }
        return frames.build(self._schemas[target[0]], columns, len(sources))

    def _produce(self, target: Target, schema: FrameSchema, batch: pa.RecordBatch) -> None:
        name = self.full_name(target[0])
        header = [(SCHEMA_HEADER, schema.fingerprint.encode())]
        for payload in frames.encode(batch):
            self._outbox.produce(name, target[1], payload, None, header)
        self._metrics.count_out(frames.numbers(batch, "kind"))
        self._metrics.frame(batch.num_rows)

    def full_name(self, topic: str) -> str:
        """Give the Kafka topic of one of the pipeline's own topics."""
        return f"{self._prefix}.{topic}"
