"""The bench input: events of about 140 bytes and one label per event, the same bytes in every run.

Every record of a kind has the same length, so a block is one matrix of bytes [B, length] whose columns of digits are
filled by numpy, then cut into records. Record i depends only on (seed, block, i), never on how much is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

KEYS = 100_000
MOST_KEYS = 1_000_000  # they have six digits
PARTITIONS = 4
BLOCK_ROWS = 20_000
LABEL_AFTER_US = 1_000_000
START_US = 1_735_689_600_000_000  # 2025-01-01: old enough never to be an event from the future
EVENTS_PER_S = 10_000  # of event time, when events are published as fast as possible

CHANNELS = (b"web", b"app", b"tel", b"pos")
EVENT = (
    b'{"id":"e0000000000","key":"k000000","time":0000000000000000,"amount":000.00,"distance":0000.0,'
    b'"speed":00.00,"channel":"web","region":"r00"}'
)
LABEL = b'{"id":"e0000000000","key":"k000000","time":0000000000000000,"late":0}'


class Load(NamedTuple):
    """What to generate: event i happens at `start_us` + i / `events_per_s`, its label one second later."""

    start_us: int = START_US
    events_per_s: int = EVENTS_PER_S
    keys: int = KEYS
    partitions: int = PARTITIONS
    seed: int = 7


class Block(NamedTuple):
    """B events in time order, and the label of each; both go to the raw partition `partitions[i]`."""

    first: int
    partitions: list[int]
    keys: list[bytes]
    events: list[bytes]
    labels: list[bytes]


def blocks(load: Load, events: int) -> Iterator[Block]:
    """Give the first `events` events of a load, block by block (about 1 us an event)."""
    for first in range(0, events, BLOCK_ROWS):
        yield block(load, first, min(BLOCK_ROWS, events - first))


def block(load: Load, first: int, rows: int) -> Block:
    """Make one block; `first` is a multiple of BLOCK_ROWS, and a short block is the beginning of the long one."""
    rng = np.random.default_rng((load.seed, first // BLOCK_ROWS))
    draws = rng.random((BLOCK_ROWS, 7))[:rows]
    number = np.arange(first, first + rows, dtype=np.int64)
    key = (draws[:, 0] * load.keys).astype(np.int64)
    time_us = event_time_us(load, number)
    amount_cents = 10_000 + (draws[:, 1] * 90_000).astype(np.int64)
    distance_tenths = 10_000 + (draws[:, 2] * 90_000).astype(np.int64)
    is_late = draws[:, 6] < 1 / (1 + np.exp(-(amount_cents - 55_000) / 10_000))

    events = _rows(EVENT, rows)
    _fill(events, EVENT.index(b"e0") + 1, 10, number)
    _fill(events, EVENT.index(b"k0") + 1, 6, key)
    _fill(events, EVENT.index(b'"time":') + 7, 16, time_us)
    _fill_decimal(events, EVENT.index(b'"amount":') + 9, 3, 2, amount_cents)
    _fill_decimal(events, EVENT.index(b'"distance":') + 11, 4, 1, distance_tenths)
    _fill_decimal(events, EVENT.index(b'"speed":') + 8, 2, 2, 1_000 + (draws[:, 3] * 9_000).astype(np.int64))
    channels = np.frombuffer(b"".join(CHANNELS), np.uint8).reshape(len(CHANNELS), 3)
    start = EVENT.index(b"web")
    events[:, start : start + 3] = channels[(draws[:, 4] * len(CHANNELS)).astype(np.int64)]
    _fill(events, EVENT.index(b'"r00') + 2, 2, (draws[:, 5] * 50).astype(np.int64))

    labels = _rows(LABEL, rows)
    _fill(labels, LABEL.index(b"e0") + 1, 10, number)
    _fill(labels, LABEL.index(b"k0") + 1, 6, key)
    _fill(labels, LABEL.index(b'"time":') + 7, 16, time_us + LABEL_AFTER_US)
    _fill(labels, LABEL.index(b'"late":') + 7, 1, is_late.astype(np.int64))

    start = EVENT.index(b"k0")
    keys = np.ascontiguousarray(events[:, start : start + 7])
    return Block(first, _partitions(key, load.partitions), _cut(keys), _cut(events), _cut(labels))


def event_time_us(load: Load, number: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """When events of these numbers happen."""
    return load.start_us + number * 1_000_000 // load.events_per_s


def event_number(identity: str) -> int:
    """Give the number of an event from its id."""
    return int(identity[1:])


def _partitions(key: npt.NDArray[np.int64], partitions: int) -> list[int]:
    mixed = key.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing: neighbours go far apart
    placed: list[int] = ((mixed >> np.uint64(40)) % np.uint64(partitions)).tolist()
    return placed


def _rows(template: bytes, rows: int) -> npt.NDArray[np.uint8]:
    return np.tile(np.frombuffer(template, np.uint8), (rows, 1))


def _fill(rows_BL: npt.NDArray[np.uint8], start: int, digits: int, values_B: npt.NDArray[np.int64]) -> None:
    for place in range(start + digits - 1, start - 1, -1):
        values_B, digit_B = np.divmod(values_B, 10)
        rows_BL[:, place] = 48 + digit_B


def _fill_decimal(
    rows_BL: npt.NDArray[np.uint8], start: int, whole: int, decimals: int, values_B: npt.NDArray[np.int64]
) -> None:
    whole_B, rest_B = np.divmod(values_B, 10**decimals)
    _fill(rows_BL, start, whole, whole_B)
    _fill(rows_BL, start + whole + 1, decimals, rest_B)


def _cut(rows_BL: npt.NDArray[np.uint8]) -> list[bytes]:
    length, data = rows_BL.shape[1], rows_BL.tobytes()
    return [data[at : at + length] for at in range(0, len(data), length)]
