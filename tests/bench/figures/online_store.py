"""The online store: what a real redis-server takes of it, and what it costs serve, beside which Redis runs.

With the store on, serve is not limited by what Redis takes: rows that newer ones of their key overtake are not sent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from serving.key_rows import KeyRows
from serving.key_script import form_of, warm
from serving.online_store import BATCH_KEYS
from serving.redis_door import RedisDoor
from streams.embedded import EmbeddedRedis
from streams.event_numbers import MANY
from streams.pipeline_file import read_pipeline
from streams.records import pack
from tests.bench.figure import Figure, Ratio
from tests.bench.figures.roles_alone import run_alone
from tests.bench.kafka import BenchError
from tests.bench.progress import Output
from tests.bench.weights import feature_events, log_events
from tests.bench.workplace import DIRECTORY, Workplace, feature_names

KEYS = 50_000
ANSWER = (
    b'{"id":"e0000020000","key":"k077014","time_us":1735689602000000,"prediction":0,"probability":0.4837501834,'
    b'"model":"logistic","version":"0.1234567","generation":0,"partition":2,"number":12345678,"latency_ms":12.345}'
)

FIGURES = (
    Figure("online_store_writes", "keys/s", bound=60_000, scales=True),
    Figure("serve_with_store", "predictions/s"),
)
RATIOS = (Ratio("serve_with_store_vs_without", "serve_with_store", "serve", bound=0.5),)


def measure(workplace: Workplace) -> dict[str, float]:
    """Write keys by the door alone, then run serve with a store (`serve` is the same without one)."""
    workplace.publish()
    with redis() as server:
        return {"online_store_writes": writes(server), "serve_with_store": serve(workplace, server)}


@contextmanager
def redis() -> Iterator[EmbeddedRedis]:
    """Give an empty redis-server."""
    with EmbeddedRedis(DIRECTORY / "store") as server:
        yield server


def writes(server: EmbeddedRedis) -> float:
    """Give the keys a second that the door writes: each key first new, then again with a newer row."""
    names = feature_names()
    form = form_of("bench", names, 604_800_000, "t1")
    warm(form)
    door = RedisDoor(server.url, form)
    rows = made_rows(len(names))
    began = time.perf_counter()
    for turn in range(2):
        newer = rows._replace(names=rows.names + turn)
        for start in range(0, KEYS, BATCH_KEYS):
            done = door.write(newer.part(start, min(start + BATCH_KEYS, KEYS)))
            if done.written != min(start + BATCH_KEYS, KEYS) - start:
                raise BenchError(f"not every key was written: {done}")
    took_s = time.perf_counter() - began
    door.close()
    return 2 * KEYS / took_s


def made_rows(columns: int) -> KeyRows:
    """Rows as serve answers them, one of each key."""
    keys = pack([b"k%06d" % key for key in range(KEYS)])
    numbers = np.arange(KEYS, dtype=np.int64)
    vectors = np.random.default_rng(7).lognormal(3.0, 2.0, (KEYS, columns))
    return KeyRows(keys, pack([ANSWER] * KEYS), 2 * MANY + numbers, numbers, vectors)


def serve(workplace: Workplace, server: EmbeddedRedis) -> float:
    """Give serve's speed over what ingest and features have written."""
    events = workplace.size.events
    with workplace.run() as run:
        run.file.write_text(f'{run.file.read_text()}redis = "{server.url}"\n')  # [serve] is the last table
        pipeline = read_pipeline(run.file)
        run_alone(workplace, run, "ingest", Output(workplace.broker, run.topic("log"), events, log_events(pipeline)))
        vectors = Output(workplace.broker, run.topic("features"), events, feature_events(pipeline))
        run_alone(workplace, run, "features", vectors)
        speed, _, _ = run_alone(workplace, run, "serve", Output(workplace.broker, run.topic("predictions"), events))
    return speed
