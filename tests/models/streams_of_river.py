"""Streams for tests of learners, and as River takes their rows: its own, flights, and made-up ones with gaps."""

from __future__ import annotations

import csv
import io
import zipfile
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from river import datasets as river_datasets

from serving.flights import _data_folder
from streams.frames import Column
from streams.pipeline import Task

datasets: Any = river_datasets  # untyped
Floats = npt.NDArray[np.float64]


class Stream(NamedTuple):
    """Rows, and the place of each row's class."""

    columns: tuple[Column, ...]
    X: Floats
    y: Floats
    task: Task

    @property
    def rows(self) -> list[dict[str, float | int]]:
        """Rows as River takes them: without what is missing, categories as whole numbers."""
        return [
            {c.name: int(v) if c.is_category else v for c, v in zip(self.columns, row, strict=True) if not np.isnan(v)}
            for row in self.X.tolist()
        ]

    @property
    def categories(self) -> list[str]:
        """Names of the columns of categories."""
        return [column.name for column in self.columns if column.is_category]


def task_of(classes: int) -> Task:
    return Task() if classes == 2 else Task("multiclass", tuple(f"class {place}" for place in range(classes)))


def published(name: str) -> Stream:
    """Give one of River's streams: Phishing, Bananas, ImageSegments."""
    found = list(getattr(datasets, name)())
    columns = tuple(Column(str(feature), False) for feature in found[0][0])
    known = sorted({label for _, label in found})
    X = np.array([list(x.values()) for x, _ in found], np.float64)
    return Stream(columns, X, np.array([known.index(label) for _, label in found], float), task_of(len(known)))


def flights(rows: int) -> Stream:
    """Give the first flights of 2013 and whether each arrived late; what was not recorded is missing."""
    names = ("dep_delay", "distance", "hour", "air_time", "carrier", "origin", "dest")
    with zipfile.ZipFile(_data_folder() / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        found = list(islice(csv.DictReader(io.TextIOWrapper(file)), rows))
    columns = tuple(Column(name, name in ("carrier", "origin", "dest")) for name in names)
    codes = {name: {value: at for at, value in enumerate(sorted({row[name] for row in found}))} for name in names[4:]}
    X = np.array(
        [[codes[n][row[n]] if n in codes else float(row[n].replace("NA", "nan")) for n in names] for row in found]
    )
    return Stream(
        columns, X, np.array([float(row["arr_delay"].replace("NA", "0")) >= 15 for row in found], float), Task()
    )


def made_up(rows: int, classes: int, seed: int) -> Stream:
    """Give numbers and categories of which the class depends, a twelfth of them missing."""
    rng = np.random.default_rng(seed)
    X = np.column_stack(
        [
            rng.normal(10, 40, rows),
            rng.integers(0, 9, rows),
            rng.lognormal(6, 1, rows),
            rng.integers(0, 40, rows) ** 2 // 40,
            rng.integers(0, 3, rows),
            rng.normal(0, 2, rows).round(),
        ]
    ).astype(np.float64)
    score = X[:, 0] / 40 + (X[:, 1] > 5) + 0.3 * (X[:, 3] % 3) - 0.5 * (X[:, 4] == 1) * X[:, 5]
    score += rng.normal(0, 0.5, rows)
    y = np.digitize(score, np.quantile(score, np.arange(1, classes) / classes)).astype(np.float64)
    X[rng.random(X.shape) < 0.08] = np.nan
    columns = tuple(Column(name, name in "bde") for name in "abcdef")
    return Stream(columns, X, y, task_of(classes))
