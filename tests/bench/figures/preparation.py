"""What networks get of rows: rows a second that are prepared, and what a single one costs."""

from __future__ import annotations

import time

import numpy as np

from models.learner import Matrix
from models.preparation import Preparation
from streams.frames import Column
from streams.pipeline import Model
from tests.bench.figure import Figure
from tests.bench.workplace import FULL, Workplace

NUMBERS, CATEGORIES = 12, 4
ROWS, BATCH = 1 << 16, 4_096
CODES = 20_000  # of a category, few of them frequent: twice as many as a vocabulary has entries

FIGURES = (
    Figure("preparation", "rows/s", bound=2_000_000, scales=True),
    Figure("preparation_row_us", "us"),
)


def measure(workplace: Workplace) -> dict[str, float]:
    """Prepare rows of 12 numbers and 4 categories with vocabularies, a twentieth of the values missing."""
    rng = np.random.default_rng(0)
    codes = np.minimum(rng.zipf(1.3, (ROWS, CATEGORIES)), 2**40) % CODES
    X = np.column_stack([rng.normal(size=(ROWS, NUMBERS)), codes])
    X[rng.random(X.shape) < 0.05] = np.nan
    columns = tuple(Column(f"x{place}", place >= NUMBERS) for place in range(NUMBERS + CATEGORIES))
    prepared = Preparation.fit(X, columns, Model("net", "torch:logistic", {}))
    times = 10 if workplace.size == FULL else 2
    batches = [X[start : start + BATCH] for start in range(0, ROWS, BATCH)] * times
    rows = [X[place : place + 1] for place in range(1_000 * times)]
    return {
        "preparation": times * ROWS / _seconds(prepared, batches),
        "preparation_row_us": 1e6 * _seconds(prepared, rows) / len(rows),
    }


def _seconds(preparation: Preparation, batches: list[Matrix]) -> float:
    """Give how long all take behind a first one, which compiles and warms."""
    preparation.apply(batches[0])
    began_s = time.perf_counter()
    for batch in batches:
        preparation.apply(batch)
    return time.perf_counter() - began_s
