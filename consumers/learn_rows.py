"""The rows of P.examples as candidates look at them, and what one step over them has found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from consumers.drifting import Alarmed, Bools
from consumers.uptake import Refused
from models.label_blocks import Blocks
from models.learner import Matrix
from models.pending import Rows
from streams.event_numbers import resolved
from streams.frames import Batch


class Found(NamedTuple):
    """What one step has to say: blocks with the lineage that completed them, alarms and refusals with their rows."""

    blocks: list[tuple[int, Blocks]]  # by number
    labels: list[tuple[int, Blocks]]  # in the order of labels
    told: list[Alarmed | tuple[int, Refused]]


class Stretch(NamedTuple):
    """The rows of a batch, or those before a row that announces a version."""

    rows: Rows
    X_BF: Matrix
    clock: npt.NDArray[np.int64]
    is_left_B: Bools | None

    def before(self, stop: int) -> Stretch:
        """Give the rows before `stop`, by the same places."""
        rows, is_left_B = Rows._make(column[:stop] for column in self.rows), self.is_left_B
        return Stretch(rows, self.X_BF[:stop], self.clock[:stop], None if is_left_B is None else is_left_B[:stop])


def columns_of(batch: Batch) -> Rows:
    """Give the columns of a batch that the scoreboard looks at."""
    return Rows(*(batch.rows.numbers(name) for name in Rows._fields))


def named(rows: Rows, aliases: Mapping[int, int]) -> Rows:
    """Give label rows the names that their events had when they were predicted."""
    number, source = resolved(rows.number, rows.source, aliases)
    return rows._replace(number=number, source=source)
