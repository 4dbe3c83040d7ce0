"""Fitting rows to the columns that a reader asks for, by name: those that they lack are missing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.building import Builder
from streams.frames import Column, FrameSchema
from streams.tables import Table


def fit(rows: Table, found: FrameSchema, wanted: FrameSchema) -> Table:
    """Give rows of one schema the columns of another of the same topic.

    A column is the same if its name and its kind are; of the feature matrix a category is none that is a number now.
    """
    if found.fingerprint == wanted.fingerprint:
        return rows
    theirs, ours = found.layout, wanted.layout
    columns: dict[str, Any] = {}
    for place, name in enumerate(ours.names):
        if place == ours.matrix:
            columns[name] = fit_matrix(rows.matrix(), found.columns, wanted.columns)
        elif name in theirs.places and found.arrow.field(name).type == wanted.arrow.field(name).type:
            columns[name] = rows.text(name) if ours.dtypes[place] is None else rows.numbers(name)
    return Builder(ours, {}).build(columns, rows.num_rows)


def fit_matrix(
    x_BF: npt.NDArray[np.float64], found: tuple[Column, ...], wanted: tuple[Column, ...]
) -> npt.NDArray[np.float64]:
    """Give a feature matrix of some columns those that are wanted; the others are NaN."""
    if found == wanted:
        return x_BF
    places = {column: place for place, column in enumerate(found)}
    fitted = np.full((x_BF.shape[0], len(wanted)), math.nan)
    for place, column in enumerate(wanted):
        if column in places:
            fitted[:, place] = x_BF[:, places[column]]
    return fitted
