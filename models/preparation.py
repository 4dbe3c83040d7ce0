"""What networks get of a row: numbers scaled to float32, categories as places in a vocabulary or in a hashed table.

Everything is learned from the training examples alone. A number is scaled by mean and standard deviation, cut at 10
deviations, and 0 where it is missing; where some training example lacked it, its absence is a number too. A category is
one of its column's vocabulary, the most frequent first, 0 for any other or none. `torch:mlp` has a hashed table and no
absences instead: what it gets is what the compiled `mlp` (mlp.py) gets, but for rounding to float32, so its weights
mean the same there.

The scaler is learned row by row like that of the online learners, which can go on from it.

Letters of shapes: B rows, F features, N numbers, C category columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from models.learner import MAX_CODE, MAX_MAGNITUDE, Matrix, State
from models.linear_kernels import Indexes, Scratch
from models.preparation_kernels import (
    FREE,
    Categories,
    Lexicon,
    Numbers,
    Rule,
    Scaler,
    fill_kernel,
    learn_scale_kernel,
    prepare_kernel,
)
from models.vocabulary import CodeCounts
from streams.batch_kinds import BATCH_KINDS
from streams.errors import ModelError
from streams.frames import Column
from streams.pipeline import Model

HASHED = "torch:mlp"
CHUNK_ROWS = 65_536  # read at a time while fitting
USUAL_VOCABULARY = 10_000  # of kinds that have no such setting


class Sizes(NamedTuple):
    """What a network has to be made for.

    Attributes:
        numbers: width of the numbers, absences included.
        vocabularies: of each category column, how many entries there are, 0 included; rows of the hashed table.
        bits: the hashed table, which all columns share, has 2**bits rows; 0: there is none.
    """

    numbers: int
    vocabularies: tuple[int, ...]
    bits: int


class Preparation:
    """Turns rows into what a network gets.

    Example:
        >>> columns = Column("delay", False), Column("carrier", True)
        >>> X = np.array([[1.0, 7.0], [3.0, 7.0], [np.nan, 5.0]])
        >>> preparation = Preparation.fit(X, columns, Model("net", "torch:logistic", {}))
        >>> preparation.sizes
        Sizes(numbers=2, vocabularies=(3,), bits=0)
        >>> numbers, categories = preparation.apply(np.array([[3.0, 5.0], [np.nan, 6.0]]))
        >>> numbers.tolist(), categories.tolist()
        ([[1.0, 0.0], [0.0, 1.0]], [[2], [0]])
    """

    def __init__(self, columns: tuple[Column, ...], model: Model) -> None:
        """Make one that knows nothing yet: every number is 0, every vocabulary empty."""
        self.bits = _setting(model, "bits") if model.kind == HASHED else 0
        self._most_entries = 0 if self.bits else _setting(model, "vocabulary")
        self._number_columns = np.array([i for i, one in enumerate(columns) if not one.is_category], np.int64)
        self._category_columns = np.array([i for i, one in enumerate(columns) if one.is_category], np.int64)
        self._state: dict[str, Any] = self._empty()
        self._take(self._state)

    @classmethod
    def fit(cls, X_BF: Matrix, columns: tuple[Column, ...], model: Model, rows: Indexes | None = None) -> Preparation:
        """Learn from training examples, in their order; costs a pass over them.

        Args:
            X_BF: examples. They may lie in a file; 65,536 rows are read at a time.
            columns: theirs.
            model: the candidate that is trained; its `vocabulary` or `bits` count.
            rows: indexes of those that may be learned from, all of them if left out.
        """
        made = cls(columns, model)
        scaler, counts = _scaler(made._number_columns.size), [CodeCounts() for _ in made._category_columns]
        scratch = _scratch(made._number_columns.size)
        size = 0
        for chunk_BF in _chunks(X_BF, rows):
            size += len(chunk_BF)
            learn_scale_kernel(chunk_BF, made._number_columns, scaler, scratch)
            if made._most_entries:
                for column, count in zip(made._category_columns.tolist(), counts, strict=True):
                    count.add(chunk_BF[:, column])
        codes = [count.most_frequent(made._most_entries) for count in counts]
        made._take(
            scaler._asdict()
            | {
                "is_holed": np.array([not made.bits and seen < size for seen in scaler.seen.tolist()], np.bool_),
                "entries": np.array([one.size for one in codes], np.int64),
                "codes": np.concatenate([np.empty(0, np.int64), *codes]),
            }
        )
        return made

    def apply(self, X_BF: Matrix) -> tuple[Numbers, Categories]:
        """Give the numbers [B, N] and the categories [B, C] of rows; about 5 us, and 0.1 us a row of 16 columns.

        A hashed category is its row of the table, -1 for none; others are places in their vocabularies.
        """
        rows = len(X_BF)
        numbers_BN = np.empty((rows, self.sizes.numbers), np.float32)
        categories_BC = np.empty((rows, self._category_columns.size), np.int32)
        prepare_kernel(X_BF, self._rule, self._lexicon, numbers_BN, categories_BC)
        return numbers_BN, categories_BC

    @property
    def numbers(self) -> int:
        """The width of the numbers, absences included."""
        return self.sizes.numbers

    @property
    def vocabularies(self) -> tuple[int, ...]:
        """Of each category column, how many entries there are, 0 included; rows of the hashed table."""
        return self.sizes.vocabularies

    @property
    def scaler(self) -> Scaler:
        """What the numbers of the training examples were like; copies."""
        return Scaler(*(self._state[name].copy() for name in Scaler._fields))

    def codes(self, place: int) -> Indexes:
        """Give the vocabulary of a category column: the code of entry 1, 2, …; `place` is among category columns."""
        stop = int(self._state["entries"][: place + 1].sum())
        found: Indexes = self._state["codes"][stop - int(self._state["entries"][place]) : stop].copy()
        return found

    def state(self) -> State:
        """Copy all that `restore` needs."""
        return {name: array.copy() for name, array in self._state.items()}

    def restore(self, state: State) -> None:
        """Take what `state` gave, of a preparation of the same columns and kind.

        Raises:
            ModelError: an array is missing, of another shape, or holds what no examples give; then nothing has changed.
        """
        self._check(state)
        self._take({name: np.array(state[name]) for name in self._state})

    def is_finite(self) -> bool:
        """Check what numbers are scaled by."""
        return all(bool(np.isfinite(self._state[name]).all()) for name in Scaler._fields)

    def size_bytes(self) -> int:
        """Give the memory that it takes, with the tables for looking up."""
        return sum(array.nbytes for array in (*self._state.values(), *self._lexicon))

    def _empty(self) -> dict[str, Any]:
        n, c = self._number_columns.size, self._category_columns.size
        empty = {"is_holed": np.zeros(n, np.bool_), "entries": np.zeros(c, np.int64), "codes": np.empty(0, np.int64)}
        return _scaler(n)._asdict() | empty

    def _take(self, state: dict[str, Any]) -> None:
        self._state = state
        self._lexicon = _lexicon(state["entries"], state["codes"])
        holed = self._number_columns[state["is_holed"]]
        deviation = np.sqrt(state["variance"])
        table = 2**self.bits if self.bits else 0
        columns = self._number_columns, holed, self._category_columns
        self._rule = Rule(*columns, state["mean"], deviation, table)
        entries = [table or int(count) + 1 for count in state["entries"]]
        self.sizes = Sizes(self._number_columns.size + holed.size, tuple(entries), self.bits)

    def _check(self, state: State) -> None:
        for name, ours in self._state.items():
            found = state.get(name)
            is_shaped = found is not None and (found.shape == ours.shape or (name == "codes" and found.ndim == 1))
            if found is None or not is_shaped or found.dtype != ours.dtype:
                shape = "none" if found is None else f"{found.dtype} of shape {found.shape}"
                raise ModelError(
                    f"a model's preparation is not whole: {name} is {shape}, {ours.dtype} of shape {ours.shape} needed"
                )
        problem = self._problem({name: state[name] for name in self._state})
        if problem:
            raise ModelError(f"a model's preparation is damaged: {problem}; train the model anew")

    def _problem(self, state: dict[str, Any]) -> str:
        """Say what no examples give, nothing if all is well."""
        entries, codes, variance = state["entries"], state["codes"], state["variance"]
        if not (np.abs(state["mean"]) <= MAX_MAGNITUDE).all() or not (state["seen"] >= 0.0).all():
            return "a mean is beyond 1e30, or a count below 0"
        if not ((variance >= 0.0) & (variance <= (2.0 * MAX_MAGNITUDE) ** 2)).all():
            return "a variance is below 0, or beyond what numbers have"
        if self.bits and state["is_holed"].any():
            return "it has absences, a hashed one has none"
        if (entries < 0).any() or (entries > self._most_entries).any() or entries.sum() != codes.size:
            return f"vocabularies of {entries.tolist()} codes, {codes.size} codes found, at most {self._most_entries}"
        is_twice = any(np.unique(part).size < part.size for part in np.split(codes, np.cumsum(entries)))
        if is_twice or (codes < 0).any() or (codes >= MAX_CODE).any():
            return "a code is there twice, below 0 or beyond 2**53"
        return ""


def _setting(model: Model, name: str) -> int:
    """Give a setting that is a whole number; the pipeline file has been judged when it was read."""
    kind = BATCH_KINDS.get(model.kind)
    usual = kind.settings[name].default if kind is not None and name in kind.settings else USUAL_VOCABULARY
    return int(model.params.get(name, usual)) if kind is not None else USUAL_VOCABULARY


def _scaler(numbers: int) -> Scaler:
    return Scaler(np.zeros(numbers), np.zeros(numbers), np.zeros(numbers))


def _scratch(numbers: int) -> Scratch:
    return Scratch(np.zeros(numbers), np.zeros(0), np.zeros(0), np.zeros(0, np.int64), np.zeros(0))


def _chunks(X_BF: Matrix, rows: Indexes | None) -> Iterator[Matrix]:
    size = len(X_BF) if rows is None else len(rows)
    for start in range(0, size, CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        yield np.ascontiguousarray(X_BF[part] if rows is None else X_BF[rows[part]])


def _lexicon(entries: Indexes, codes: Indexes) -> Lexicon:
    """Make the hash tables; each has at least twice as many slots as codes."""
    sizes = np.array([2 ** (2 * int(count) + 1).bit_length() for count in entries], np.int64)
    starts = (np.cumsum(sizes) - sizes).astype(np.int64)
    slots = int(sizes.sum())
    made = Lexicon(starts, sizes, np.full(slots, FREE, np.int64), np.zeros(slots, np.int32))
    for column, part in enumerate(np.split(codes, np.cumsum(entries))[:-1]):
        fill_kernel(np.ascontiguousarray(part), made, column)
    return made
