"""The features role's own work without Kafka: rows a second, and what a state of a million keys costs to save."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import msgspec
import numpy as np

from consumers.chain_tasks import MiddleTask
from consumers.featurize import FeatureTask
from streams.bound import Bound
from streams.frames import Batch
from streams.pipeline import Pipeline
from streams.pipeline_file import read_pipeline
from streams.planning import make_plan
from streams.snapshots import Manifest, SnapshotStore, State
from streams.windows import CHUNK, NO_CHUNK, ROOM_BITS
from tests.bench.feature_state import HOUR_US, batches, large_features
from tests.bench.figure import Figure, middle
from tests.bench.kafka import BenchError
from tests.bench.load import PARTITIONS
from tests.bench.workplace import BENCH_FILE, DIRECTORY, FULL, Workplace

KEYS = {"features16_100k": 100_000, "features16_1k": 1_000}
EVENT_US = 100
SNAPSHOTS = 3  # the median counts: the first one touches memory that the machine has not given out yet
KEPT_AS_IT_IS = ("entities", "windows.heads", "windows.arena")
LARGE_KEYS = 1_000_000
LARGE_EVENTS_A_KEY, LARGE_EVENT_US = 5, 32_000  # of one partition: spread over eleven hours

FIGURES = (
    Figure("features16_100k", "rows/s", bound=800_000, scales=True),
    Figure("features16_1k", "rows/s", bound=1_500_000, scales=True),
    Figure("features16_evicting", "rows/s", scales=True),
    Figure("two_stages", "rows/s", bound=500_000, scales=True),
    Figure("snapshot_pause_ms", "ms", bound=200, is_floor=False),
    Figure("recovery_1m_keys_s", "s", bound=10, is_floor=False),
    Figure("state_1m_keys_mib", "MiB", bound=1_024, is_floor=False),
    Figure("buckets_1m_keys", "buckets"),
)


def measure(workplace: Workplace) -> dict[str, float]:
    """Run tasks in this process: 16 features over 100,000 and 1,000 keys, then 20 features over a million."""
    is_full = workplace.size == FULL
    pipeline = read_pipeline(BENCH_FILE)
    found = {name: _speed(pipeline, keys, 2_000_000 if is_full else 300_000) for name, keys in KEYS.items()}
    bound = Bound("key", ttl_us=HOUR_US, most=KEYS["features16_100k"] * pipeline.partitions // 2)
    bounded = msgspec.structs.replace(pipeline, bounds=(bound,))
    found["features16_evicting"] = _speed(bounded, KEYS["features16_100k"], 2_000_000 if is_full else 300_000)
    found["two_stages"] = _two_stages(pipeline, 1_000_000 if is_full else 200_000)
    return found | _large(pipeline, LARGE_KEYS if is_full else 50_000, DIRECTORY / "large")


def _speed(pipeline: Pipeline, keys: int, events: int) -> float:
    """Give the rows a second after the first third, by when every key has its state."""
    made = list(batches(pipeline, keys, events, EVENT_US))
    task = FeatureTask(pipeline, 0, 7)
    warm = len(made) // 3
    for batch in made[:warm]:
        task.process(batch)
    began_s = time.perf_counter()
    for batch in made[warm:]:
        task.process(batch)
    return sum(batch.rows.num_rows for batch in made[warm:]) / (time.perf_counter() - began_s)


def _two_stages(pipeline: Pipeline, events: int) -> float:
    """Give the rows a second through a stage by the key and one by another field, one after the other."""
    windowed = [feature for feature in pipeline.features if feature.window_us]
    others = tuple(msgspec.structs.replace(f, name=f"{f.name}_of_region", by="region") for f in windowed)
    chained = msgspec.structs.replace(pipeline, features=pipeline.features + others, partitions=1)
    first, second, rows = FeatureTask(chained, 0, 7), MiddleTask(chained, 2, 0, 8), 0
    made = list(batches(chained, 100_000, events, EVENT_US))
    began_s = time.perf_counter()
    for batch in made:
        for output in first.process(batch):
            clock = batch.clock[output.cause]
            second.process(Batch(output.table.take(output.picked), clock, clock))
        rows += batch.rows.num_rows
    return rows / (time.perf_counter() - began_s)


def _large(pipeline: Pipeline, keys: int, directory: Path) -> dict[str, float]:
    """Fill the state of all partitions, copy each as a worker does, write them, and begin again from disk."""
    shutil.rmtree(directory, ignore_errors=True)
    labels = msgspec.structs.replace(pipeline.labels, wait_us=1, keep_us=1)
    large = msgspec.structs.replace(pipeline, features=large_features(), labels=labels)
    pauses_s, expected, size, filled = [], [], 0, 0.0
    for partition in range(PARTITIONS):
        task = FeatureTask(large, partition, 7)
        own = keys // PARTITIONS
        for batch in batches(large, own, LARGE_EVENTS_A_KEY * own, LARGE_EVENT_US, with_labels=False):
            task.process(batch)
        for _ in range(SNAPSHOTS):
            began_s = time.perf_counter()
            state = task.state()
            pauses_s.append(time.perf_counter() - began_s)
        size += sum(array.nbytes for name, array in state.items() if name.startswith(("windows.", "entities")))
        filled += _filled(large, state) / PARTITIONS
        SnapshotStore(directory / str(partition)).save(_manifest(), state)
        expected.append({name: state[name].tobytes() for name in KEPT_AS_IT_IS})
        del task, state
    recovery_s = sum(
        _recover(large, directory / str(partition), expected[partition]) for partition in range(PARTITIONS)
    )
    shutil.rmtree(directory, ignore_errors=True)
    return {
        "snapshot_pause_ms": 1e3 * middle(pauses_s),
        "recovery_1m_keys_s": recovery_s,
        "state_1m_keys_mib": size / 2**20,
        "buckets_1m_keys": filled,
    }


def _recover(pipeline: Pipeline, directory: Path, expected: dict[str, bytes]) -> float:
    began_s = time.perf_counter()
    found = SnapshotStore(directory).find()
    task = FeatureTask(pipeline, 0, 7)
    task.restore(found.state or {})
    recovery_s = time.perf_counter() - began_s
    again = task.state()
    if {name: again[name].tobytes() for name in KEPT_AS_IT_IS} != expected:
        raise BenchError("the state that was read back is another")
    return recovery_s


def _filled(pipeline: Pipeline, state: State) -> float:
    """Give the filled buckets of a key's window, the open one among them, on average."""
    plan = make_plan(pipeline).plan
    heads = state["windows.heads"].reshape(-1, plan.head_words)
    chunks = heads[:, plan.word_W + CHUNK]
    headers = np.where(chunks == NO_CHUNK, 0, state["windows.arena"][np.maximum(chunks, 0)])
    return 1.0 + float(np.bitwise_count(headers >> ROOM_BITS).mean())


def _manifest() -> Manifest:
    return Manifest(0, "bench", "", 0, {}, 0, 0, "", "", "", (), {})
