"""Answers: what serve publishes, and the kernels that pick the events of a batch and render their answers.

An answer is one JSON object of `Answer`'s fields, in their order, in the bytes that msgspec would write. What is the
same in many answers (field names, model, version, partition) is rendered once; the rest is written around it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from models.tally import ANOMALY, BINARY, CLUSTERING, CODES, REGRESSION, likeliest
from streams.compiled import bare, inlined, straight
from streams.event_numbers import MANY
from streams.frames import EVENT
from streams.intrinsics import load_8, load_32
from streams.layouts import TextAt
from streams.metric_families import LATENCY_BOUNDS_S
from streams.pipeline import Task
from streams.records import Packed
from streams.rendering import (
    ESCAPED_SIZE,
    FLOAT_SIZE,
    INTEGER_SIZE,
    SLACK,
    aligned,
    write_bytes,
    write_digits,
    write_float,
    write_integer,
    write_text,
    write_thousandths,
    write_words,
)

LATENCY_BOUNDS_US = np.round(np.array(LATENCY_BOUNDS_S) * 1e6).astype(np.int64)

COUNT, NEWEST, ID_BYTES, KEY_BYTES = range(4)  # places in what `pick_kernel` tells
_TOLD = 4
_PARTS = 9  # of JSON in any answer; the last is its closing brace
_SCORES = {"anomaly": b',"score":', "clustering": b',"distance":'}  # else it is a probability
_NUMBERS_SIZE = 3 * INTEGER_SIZE + 2 * FLOAT_SIZE + 5  # of an answer at most: numbers, prediction, two pairs of quotes

Int64s = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.float64]


class Answer(msgspec.Struct):
    """One prediction of a binary task, as published.

    `partition`, `generation` and `number` are the event's name inside Millrace. Of a multiclass task `prediction` is
    the likeliest class, and `probabilities` of all stand in place of `probability`; of a regression it is the number,
    alone. Of an anomaly it is 1 where `score`, in place of `probability`, raises an alert; of a clustering the number
    of the cluster, with the `distance` to its mean in standard deviations.
    """

    id: str
    key: str | None
    time_us: int
    prediction: int
    probability: float
    model: str
    version: str
    generation: int
    partition: int
    number: int
    latency_ms: float | None


class Asked(NamedTuple):
    """The columns of P.features' rows that an answer repeats, over all rows of a batch."""

    time: Int64s
    produced: Int64s  # -1: not known
    id: TextAt
    key: TextAt


class Picked(NamedTuple):
    """The events to answer: their rows, and their names as generation * MANY + number."""

    row: Int64s
    name: Int64s
    told: Int64s

    @classmethod
    def room(cls, rows: int) -> Picked:
        """Make room for the events of a batch."""
        return cls(np.empty(rows, np.int64), np.empty(rows, np.int64), np.zeros(_TOLD, np.int64))


class Frame(NamedTuple):
    """What answers of one version have in common: parts of JSON, each [start, size] in `data`.

    Nine parts of any answer; then, of a multiclass task, each class's name, and what stands before its probability.
    """

    code: int  # of the task
    data: npt.NDArray[np.uint8]
    at: int  # the address of `data`
    parts: Int64s  # [9, 2], with C classes [9 + 2 C, 2]
    size: int  # bytes of an answer at most, without the bytes of id and key
    threshold: float  # from which probability or score on the prediction is 1


def frame_of(model: str, version: str, partition: int, task: Task) -> Frame:
    """Render what all answers of a version in a partition share."""
    classes = [msgspec.json.encode(one) for one in task.classes]
    before = [(b"," if place else b',"probabilities":{') + one + b":" for place, one in enumerate(classes)]
    name, at = msgspec.json.encode(model), msgspec.json.encode(version)
    parts = [
        b'{"id":',
        b',"key":',
        b',"time_us":',
        b',"prediction":',
        _SCORES.get(task.kind, b',"probability":'),
        b',"model":%b,"version":%b,"generation":' % (name, at),
        b',"partition":%d,"number":' % partition,
        b',"latency_ms":',
        b"}",
        *classes,
        *before,
    ]
    data, places = aligned(parts)
    size = sum(map(len, parts)) + _NUMBERS_SIZE + FLOAT_SIZE * len(classes) + 1
    return Frame(CODES[task.kind], data, data.ctypes.data, places, size, task.threshold)


class Rendered(NamedTuple):
    """Answers with their keys, and how their latencies spread."""

    values: Packed
    keys: Packed
    counts: Int64s  # by bucket of LATENCY_BOUNDS_S
    latency_s: float  # their sum


def render(asked: Asked, picked: Picked, score_BS: Matrix, frame: Frame, now_us: int) -> Rendered:
    """Render the answers to picked events, with the model's scores of them; about 0.1 us each."""
    size, told = picked.row.size, picked.told
    room = size * frame.size + ESCAPED_SIZE * int(told[ID_BYTES] + told[KEY_BYTES]) + SLACK
    values = Packed(np.empty(room, np.uint8), np.zeros(size + 1, np.int64))
    keys = Packed(np.empty(int(told[KEY_BYTES]) + SLACK, np.uint8), np.zeros(size + 1, np.int64))
    counts = np.zeros(LATENCY_BOUNDS_US.size + 1, np.int64)
    at, key_at = values.data.ctypes.data, keys.data.ctypes.data
    total_us = render_kernel(
        asked,
        picked,
        np.ascontiguousarray(score_BS, np.float64),
        now_us,
        frame.code,
        frame.threshold,
        frame.at,
        frame.parts,
        at,
        values.offsets,
        key_at,
        keys.offsets,
        counts,
    )
    return Rendered(_filled(values), _filled(keys), counts, total_us / 1e6)


def _filled(packed: Packed) -> Packed:
    return packed._replace(data=packed.data[: packed.offsets[-1]])


@straight
@bare
def pick_kernel(
    kind: npt.NDArray[np.int8],
    source: npt.NDArray[np.int32],
    number: Int64s,
    known: npt.NDArray[np.int32],
    generation: Int64s,
    ids: TextAt,
    keys: TextAt,
    picked: Picked,
) -> int:
    """Find the events of a batch; gives the number of rows, or the row whose source is not among the known ones."""
    count, newest, id_bytes, key_bytes = 0, -1, 0, 0
    last, first_name = -1, 0
    for i in range(kind.size):
        if kind[i] != EVENT:
            continue
        if last < 0 or known[last] != source[i]:
            last = -1
            for place in range(known.size):
                if known[place] == source[i]:
                    last = place
            if last < 0:
                return i
            first_name = generation[last] * MANY
        name = first_name + number[i]
        newest = max(newest, name)
        id_bytes += load_32(ids.offsets + 4 * i + 4) - load_32(ids.offsets + 4 * i)
        key_bytes += load_32(keys.offsets + 4 * i + 4) - load_32(keys.offsets + 4 * i)
        picked.row[count] = i
        picked.name[count] = name
        count += 1
    picked.told[COUNT] = count
    picked.told[NEWEST] = newest
    picked.told[ID_BYTES] = id_bytes
    picked.told[KEY_BYTES] = key_bytes
    return kind.size


@inlined
def _write_score(at: int, code: int, threshold: float, score_BS: Matrix, i: int, frame_at: int, parts: Int64s) -> int:
    """Write the prediction, and the probabilities, score or distance behind it."""
    if code in (BINARY, ANOMALY):
        if code == ANOMALY and score_BS.shape[1] == 2:
            threshold = score_BS[i, 1]
        at = write_digits(at, 1 if score_BS[i, 0] >= threshold else 0)
        at = write_words(at, frame_at + parts[4, 0], parts[4, 1])
        return write_float(at, score_BS[i, 0])
    if code == CLUSTERING:
        at = write_digits(at, int(score_BS[i, 0]))
        at = write_words(at, frame_at + parts[4, 0], parts[4, 1])
        return write_float(at, math.sqrt(score_BS[i, 1]))
    if code == REGRESSION:
        return write_float(at, score_BS[i, 0])
    classes, best = score_BS.shape[1], _PARTS + likeliest(score_BS, i)
    at = write_words(at, frame_at + parts[best, 0], parts[best, 1])
    for place in range(classes):
        before = _PARTS + classes + place
        at = write_words(at, frame_at + parts[before, 0], parts[before, 1])
        at = write_float(at, score_BS[i, place])
    return write_bytes(at, frame_at + parts[_PARTS - 1, 0], 1)


@straight
@bare
def render_kernel(
    asked: Asked,
    picked: Picked,
    score_BS: Matrix,
    now_us: int,
    code: int,
    threshold: float,
    frame_at: int,
    parts: Int64s,
    values_at: int,
    value_ends: Int64s,
    keys_at: int,
    key_ends: Int64s,
    counts: Int64s,
) -> int:
    """Run `render`; gives the sum of latencies in us."""
    at, key_at, bucket, total_us = values_at, keys_at, 0, 0
    for i in range(picked.row.size):
        row = picked.row[i]
        start = load_32(asked.id.offsets + 4 * row)
        size = load_32(asked.id.offsets + 4 * row + 4) - start
        at = write_words(at, frame_at + parts[0, 0], parts[0, 1])
        at = write_text(at, asked.id.data + start, size)

        start = load_32(asked.key.offsets + 4 * row)
        size = load_32(asked.key.offsets + 4 * row + 4) - start
        at = write_words(at, frame_at + parts[1, 0], parts[1, 1])
        bit = asked.key.start + row
        if asked.key.valid == 0 or (load_8(asked.key.valid + (bit >> 3)) >> (bit & 7)) & 1 == 1:
            at = write_text(at, asked.key.data + start, size)
        else:
            at = write_float(at, np.nan)
        key_at = write_bytes(key_at, asked.key.data + start, size)
        key_ends[i + 1] = key_at - keys_at

        at = write_words(at, frame_at + parts[2, 0], parts[2, 1])
        at = write_integer(at, asked.time[row])
        at = write_words(at, frame_at + parts[3, 0], parts[3, 1])
        at = _write_score(at, code, threshold, score_BS, i, frame_at, parts)
        generation = picked.name[i] // MANY
        at = write_words(at, frame_at + parts[5, 0], parts[5, 1])
        at = write_digits(at, generation)
        at = write_words(at, frame_at + parts[6, 0], parts[6, 1])
        at = write_digits(at, picked.name[i] - generation * MANY)

        at = write_words(at, frame_at + parts[7, 0], parts[7, 1])
        if asked.produced[row] >= 0:
            latency_us = now_us - asked.produced[row]
            at = write_thousandths(at, latency_us)
            total_us += latency_us
            while bucket > 0 and latency_us <= LATENCY_BOUNDS_US[bucket - 1]:
                bucket -= 1
            while bucket < LATENCY_BOUNDS_US.size and latency_us > LATENCY_BOUNDS_US[bucket]:
                bucket += 1
            counts[bucket] += 1
        else:
            at = write_float(at, np.nan)
        at = write_words(at, frame_at + parts[8, 0], parts[8, 1])
        value_ends[i + 1] = at - values_at
    return total_us
