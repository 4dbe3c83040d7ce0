"""Key rows for tests, written as one would say them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from serving.key_rows import KeyRows
from streams.event_numbers import MANY
from streams.records import pack


class Said(NamedTuple):
    """One row: its answer and its features tell which one it is."""

    key: str
    number: int
    generation: int = 0
    time_us: int = 5

    @property
    def answer(self) -> bytes:
        return msgspec.json.encode({"key": self.key, "generation": self.generation, "number": self.number})

    @property
    def vector(self) -> list[float]:
        return [self.number / 10, float("nan") if self.number % 2 else -7.0]


def key_rows(*said: Said | tuple[str, int]) -> KeyRows:
    """Rows of two features."""
    rows = [Said(*one) for one in said]
    return KeyRows(
        pack([row.key.encode() for row in rows]),
        pack([row.answer for row in rows]),
        np.array([row.generation * MANY + row.number for row in rows], np.int64),
        np.array([row.time_us for row in rows], np.int64),
        np.array([row.vector for row in rows]).reshape(len(rows), 2),
    )


def spelled(rows: KeyRows | None) -> list[tuple[str, int, bytes, list[float]]]:
    """Key, name, answer and first feature of each row."""
    if rows is None:
        return []
    keys, answers = rows.keys.unpack(), rows.answers.unpack()
    return [
        (key.decode(), int(name), answer, vector[:1])
        for key, name, answer, vector in zip(keys, rows.names, answers, rows.vectors_BF.tolist(), strict=True)
    ]


def expected(said: Sequence[Said | tuple[str, int]]) -> list[tuple[str, int, bytes, list[float]]]:
    """The same of rows as said."""
    rows = [Said(*one) for one in said]
    return [(row.key, row.generation * MANY + row.number, row.answer, row.vector[:1]) for row in rows]
