"""The kernels of a preparation (preparation.py): a row's numbers scaled and cut, its categories looked up or hashed.

Letters of shapes: B rows, N number columns, C category columns, S slots of the table that codes are looked up in.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.learner import MAX_CODE, MAX_MAGNITUDE, Matrix, Vector
from models.linear_kernels import Indexes, Scratch, category_slot, learn_scale
from models.mlp_kernels import MOST_DEVIATIONS
from streams.compiled import bare, inlined

Numbers = npt.NDArray[np.float32]
Categories = npt.NDArray[np.int32]

FREE = -1  # a slot without a code


class Scaler(NamedTuple):
    """What the examples' numbers were like, N each; the names are those of the online learners' scalers."""

    seen: Vector  # rows that had the number
    mean: Vector
    variance: Vector


class Lexicon(NamedTuple):
    """The vocabularies of all category columns as hash tables, one after the other, each at most half full."""

    starts: Indexes  # C, of each column's table; its size is a power of two
    sizes: Indexes  # C
    codes: Indexes  # S
    entries: Categories  # S, from 1


class Rule(NamedTuple):
    """What is done to each row. `table` is how many rows the hashed table has, 0: categories have vocabularies."""

    number_columns: Indexes  # N
    holed_columns: Indexes  # those of them whose absence is a number of its own
    category_columns: Indexes  # C
    mean: Vector  # N
    deviation: Vector  # N
    table: int


@inlined
def _entry(lexicon: Lexicon, column: int, code: float) -> int:
    """Give a code's place in its vocabulary, 0 if it is not there."""
    start, size, wanted = lexicon.starts[column], lexicon.sizes[column], np.int64(code)
    at = np.int64(category_slot(0, code, size))
    while lexicon.codes[start + at] != FREE:
        if lexicon.codes[start + at] == wanted:
            return int(lexicon.entries[start + at])
        at = (at + 1) & (size - 1)
    return 0


@bare
def prepare_kernel(X_BF: Matrix, rule: Rule, lexicon: Lexicon, numbers_BN: Numbers, categories_BC: Categories) -> None:
    """Run `Preparation.apply`; scales by the same arithmetic as mlp_kernels.py, then rounds to float32."""
    n = rule.number_columns.size
    for i in range(numbers_BN.shape[0]):
        for j in range(n):
            x, deviation = X_BF[i, rule.number_columns[j]], rule.deviation[j]
            scaled = (x - rule.mean[j]) / deviation if deviation > 0.0 else 0.0
            scaled = min(max(scaled, -MOST_DEVIATIONS), MOST_DEVIATIONS)
            numbers_BN[i, j] = scaled if abs(x) <= MAX_MAGNITUDE else 0.0
        for h in range(rule.holed_columns.size):
            numbers_BN[i, n + h] = 0.0 if abs(X_BF[i, rule.holed_columns[h]]) <= MAX_MAGNITUDE else 1.0
        for c in range(rule.category_columns.size):
            code = X_BF[i, rule.category_columns[c]]
            entry = -1 if rule.table else 0
            if code >= 0.0 and code < MAX_CODE and code == math.floor(code):
                if rule.table:
                    entry = category_slot(rule.category_columns[c], code, rule.table)
                else:
                    entry = _entry(lexicon, c, code)
            categories_BC[i, c] = entry


@bare
def learn_scale_kernel(X_BF: Matrix, number_columns: Indexes, scaler: Scaler, scratch: Scratch) -> None:
    """Learn rows into the scaler one after the other, as the online learners do, bit for bit."""
    for i in range(X_BF.shape[0]):
        for j in range(number_columns.size):
            scratch.number[j] = X_BF[i, number_columns[j]]
        learn_scale(scaler, scratch)


@bare
def fill_kernel(codes: Indexes, lexicon: Lexicon, column: int) -> None:
    """Put a column's codes, in the order of their entries, into its table, which is empty."""
    start, size = lexicon.starts[column], lexicon.sizes[column]
    for entry in range(codes.size):
        at = np.int64(category_slot(0, float(codes[entry]), size))
        while lexicon.codes[start + at] != FREE:
            at = (at + 1) & (size - 1)
        lexicon.codes[start + at] = codes[entry]
        lexicon.entries[start + at] = entry + 1
