"""The HTTP API beside all roles: keys looked up at a steady rate, and events whose predictions are waited for.

Open loop for the keys: requests leave by a schedule and the clock of each starts when it was due. One after the other
for the events, as a user who waits sends them. The client speaks HTTP/1.1 over plain streams, for a library would cost
more than the API.
"""

from __future__ import annotations

import asyncio
import time

import numpy as np

from serving.api_guard import MOST_BODY_BYTES
from tests.bench.figure import Figure
from tests.bench.figures.online_store import redis
from tests.bench.first_prediction import wait_for_first_prediction
from tests.bench.kafka import BenchError
from tests.bench.workplace import FULL, Workplace, change, free_port

ROLES = ("ingest", "features", "learn", "serve", "api")
RATE, CONNECTIONS = 500, 32
KEYS = 100
WARM_UP = 0.2  # of the requests

FIGURES = (
    Figure("keys_p50_ms", "ms"),
    Figure("keys_p99_ms", "ms", bound=5, is_floor=False),
    Figure("event_wait_p50_ms", "ms", bound=20, is_floor=False),
    Figure("event_wait_p99_ms", "ms"),
)


def measure(workplace: Workplace) -> dict[str, float]:
    """Start everything, publish an event of each key and wait for it, then look keys up."""
    port = free_port()
    with redis() as server, workplace.run(own_input=True) as run, workplace.group(f"{run.name}-http") as processes:
        champion = 'champion = "logistic"\n'
        change(run.file, champion, f'{champion}redis = "{server.url}"\nhttp = "127.0.0.1:{port}"\n')
        for role in ROLES:
            workplace.role(processes, run, role)
        wait_for_first_prediction(
            workplace.broker.address, run.topic("events"), run.topic("predictions"), processes.check
        )
        is_full = workplace.size == FULL
        waits_ms = asyncio.run(_events(port, 500 if is_full else 100))
        lookups_ms = asyncio.run(_keys(port, (10 if is_full else 2) * RATE))
    return {
        "keys_p50_ms": float(np.percentile(lookups_ms, 50)),
        "keys_p99_ms": float(np.percentile(lookups_ms, 99)),
        "event_wait_p50_ms": float(np.percentile(waits_ms, 50)),
        "event_wait_p99_ms": float(np.percentile(waits_ms, 99)),
    }


async def _events(port: int, count: int) -> list[float]:
    """Publish events one after the other, each of the next key, and wait for its prediction; in ms, without warm-up."""
    connection, took_ms = await _Connection.open(port), []
    for number in range(count):
        body = (
            f'{{"id":"h{number}","key":"k{number % KEYS}","time":{time.time_ns() // 1_000},'
            '"amount":1.5,"distance":2.5,"speed":3.5,"channel":"web","region":"eu"}'
        )
        began_s = time.perf_counter()
        await connection.ask("POST", "/events?wait=10s", body.encode())
        took_ms.append((time.perf_counter() - began_s) * 1e3)
    connection.close()
    return took_ms[int(WARM_UP * count) :]


async def _keys(port: int, count: int) -> list[float]:
    """Look keys up at a steady rate; in ms since each was due, without warm-up."""
    connections = asyncio.Queue[_Connection]()
    for _ in range(CONNECTIONS):
        connections.put_nowait(await _Connection.open(port))
    start_s = time.perf_counter() + 0.1

    async def look(number: int) -> float:
        due_s = start_s + number / RATE
        await asyncio.sleep(due_s - time.perf_counter())
        connection = await connections.get()
        await connection.ask("GET", f"/keys/k{number % KEYS}")
        connections.put_nowait(connection)
        return (time.perf_counter() - due_s) * 1e3

    took_ms = await asyncio.gather(*(look(number) for number in range(count)))
    return took_ms[int(WARM_UP * count) :]


class _Connection:
    """One kept-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> _Connection:
        """Connect to the API on this machine."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Send a request and give the answer's body.

        Raises:
            BenchError: it is not a good one.
        """
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        sizes = [int(line.split(":")[1]) for line in lines if line.startswith("content-length:")]
        answer = await self._reader.readexactly(min(sizes[0], MOST_BODY_BYTES))
        if " 200 " not in lines[0]:
            raise BenchError(f"{method} {path}: {lines[0]}: {answer[:200]!r}")
        return answer

    def close(self) -> None:
        """Hang up."""
        self._writer.close()
