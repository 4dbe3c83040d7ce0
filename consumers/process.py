"""A role's process: its doors to Kafka, its metrics, its loop, and how it stops.

Several workers may share a process (candidates of one learn process). Each has its own consumer, position and thread:
kernels let go of the interpreter, so candidates learn at once as far as there are cores, and none waits for a slow one.
"""

from __future__ import annotations

import gc
import os
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version

from consumers.examples_role import ExamplesRole
from consumers.role import Role
from consumers.station import Shop
from consumers.warming import NoOutbox, warm
from consumers.worker import Settings, Worker
from streams import faults
from streams.control import Control
from streams.kafka import BEGINNING, KafkaInbox, KafkaOutbox, Message, Outbox, Reader, Topics
from streams.memory import release_heap, release_libraries
from streams.metrics import RoleMetrics
from streams.metrics_server import open_metrics
from streams.pipeline import Pipeline
from streams.state_folder import state_of

POLL_S = 0.05  # how long an idle worker waits for messages; signals are noticed in between


class KafkaControlLog:
    """P.control over Kafka: appended with acknowledgement, read to its end on demand."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._topic = f"{pipeline.name}.control"
        self._outbox = KafkaOutbox(pipeline.kafka, linger_ms=0)
        self._reader = Reader(pipeline.kafka)
        self._reader.assign(self._topic, {0: BEGINNING})
        self._position = 0

    def append(self, key: str, value: bytes) -> None:
        """Write one record and wait for its acknowledgement."""
        self._outbox.produce(self._topic, 0, value, key.encode())
        self._outbox.flush()

    def read_new(self) -> list[tuple[int, str, bytes | None]]:
        """Read to the end as the broker has it now."""
        end = self._reader.end_offsets(self._topic, [0])[0]
        found: list[Message] = []
        while self._position < end:
            messages = self._reader.poll(10_000, 0.1)
            found += messages
            self._position = max(self._position, self._reader.reached(self._topic, 0))
            if messages:
                self._position = max(self._position, messages[-1].offset() + 1)
        return [(m.offset(), (m.key() or b"").decode(), m.value()) for m in found]

    def close(self) -> None:
        """Let go of the connections."""
        self._outbox.close()
        self._reader.close()


class KafkaOutputs:
    """Reads back what a role has put out."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._reader = Reader(pipeline.kafka)

    def end(self, topic: str, partition: int) -> int:
        """The offset after the last record."""
        return self._reader.end_offsets(topic, [partition])[partition]

    def read(self, topic: str, partition: int, start: int) -> list[bytes]:
        """All values from `start` to the end as it is now."""
        end = self.end(topic, partition)
        start = max(start, self._reader.start_offsets(topic, [partition])[partition])
        found: list[bytes] = []
        self._reader.assign(topic, {partition: start})
        while start < end:
            messages = self._reader.poll(10_000, 0.1)
            found += [m.value() or b"" for m in messages]
            start = max(start, self._reader.reached(topic, partition), *(m.offset() + 1 for m in messages[-1:]))
        return found


class RoleProcess:
    """Everything one process of a role holds.

    Args:
        pipeline: the pipeline.
        role: the role's name, for metrics.
        metrics_address: `host:port` for /metrics, None for a free loopback port.
        instance: a name that keeps the partitions over a restart of this worker (`group_protocol = "classic"` only).
        is_replay: empty partitions are waited for without limit, and no clock raises marks.
    """

    def __init__(
        self, pipeline: Pipeline, role: str, metrics_address: str | None, instance: str | None, *, is_replay: bool
    ) -> None:
        self.pipeline = pipeline
        self._instance = instance
        self.is_replay = is_replay
        faults.arm(os.environ.get(faults.VARIABLE))
        self.state = state_of(pipeline)
        self.metrics, self.port = open_metrics(role, pipeline.name, version("millrace"), metrics_address)
        self.topics = Topics(pipeline.kafka)
        self._log = KafkaControlLog(pipeline)
        self.control = Control(self._log)
        self._workers: list[Worker] = []
        self._writer = ThreadPoolExecutor(1, "snapshots")  # one after the other: disk and memory are shared

    def add(self, make: Callable[[Control, Outbox, RoleMetrics], Role], candidate: str = "") -> None:
        """Make a worker for a role, its kernels loaded; call `run` when all are added.

        Args:
            make: makes the role; it is called twice, the first time for warming.
            candidate: the model's name, for workers that share a process.
        """
        pipeline, run = self.pipeline, self.pipeline.run
        outbox = KafkaOutbox(pipeline.kafka, linger_ms=0)

        def make_for_warming(control: Control) -> Role:
            role = make(control, NoOutbox(), RoleMetrics("warming", pipeline.name))
            outbox.open(is_for_frames=bool(role.writes))  # asks for its id while kernels are loaded
            return role

        warm(make_for_warming, pipeline)
        metrics = self.metrics.of(candidate)
        role = make(self.control, outbox, metrics)
        instance = f"{pipeline.name}.{role.name}.{self._instance}"
        # A broker refuses a restarted static member of a `consumer` group until its old session has ended (KIP-848).
        is_static = self._instance is not None and run.group_protocol == "classic"
        inbox = KafkaInbox(
            pipeline.kafka,
            f"{pipeline.name}.{role.name}",
            group_protocol=run.group_protocol,
            group_instance_id=instance if is_static else None,
            ahead_kib=role.ahead_kib,
            gather_ms=round(role.gathers * run.poll_interval_ms),
        )
        outputs = KafkaOutputs(pipeline) if role.answers_to else None
        shop = Shop(role, pipeline, inbox, self.control, self.topics, outputs, self.state / "snapshots")
        hold_s = ExamplesRole.gathers * run.poll_interval_ms / 1000
        settings = Settings(self.is_replay, run.snapshot_every_s, run.align_wait_s, hold_s)
        self._workers.append(Worker(shop, outbox, metrics, settings, writer=self._writer.submit))

    def run(self) -> None:
        """Loop until SIGTERM or SIGINT, then drain, snapshot and leave the groups. Errors pass through."""
        stopping = threading.Event()
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: stopping.set())
        for worker in self._workers:
            worker.start()
        # What is loaded stays: a full collection would look through all of it, 0.2 s in the middle of the stream.
        gc.collect()
        gc.freeze()
        release_heap()
        release_libraries()
        self.metrics.ready()
        run_all([partial(self._work, worker, stopping) for worker in self._workers], stopping)
        self._log.close()
        self.topics.close()

    def _work(self, worker: Worker, stopping: threading.Event) -> None:
        while not stopping.is_set():
            worker.step(POLL_S)
        worker.stop()


def run_all(runs: Sequence[Callable[[], None]], stopping: threading.Event) -> None:
    """Let each run in a thread of its own, one alone in this one. When one fails the others stop, and it is raised."""
    if len(runs) == 1:
        runs[0]()
        return
    ended: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    for run in runs:
        threading.Thread(target=_told, args=(run, ended, stopping), daemon=True).start()
    failures = [ended.get() for _ in runs]
    for failure in failures:
        if failure is not None:
            raise failure


def _told(run: Callable[[], None], ended: queue.SimpleQueue[Exception | None], stopping: threading.Event) -> None:
    failure: Exception | None = None
    try:
        run()
    except Exception as error:  # noqa: BLE001  # whatever it is, the thread that waits raises it
        failure = error
        stopping.set()
    ended.put(failure)
