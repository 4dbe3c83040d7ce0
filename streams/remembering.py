"""What is remembered of settled events, and what a later label changes of it.

The ledger (ledger.py) has a record of every event that was settled, until the clock has passed all that may be said of
it. With the record lie the event's entities of later stages and, where amended labels are learned, its vector.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from streams import accounts as count
from streams import ledger as known
from streams.compiled import inlined
from streams.frames import AMENDED, LABEL, RETRACTED
from streams.inputs import Input, copy_others_kernel
from streams.outputs import Output, copy_row_kernel, emit_kernel, emit_names_kernel, fill_row_kernel
from streams.stage import Stage

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

NO_PRODUCED = -1
MOST_DROPPED = 4  # forgotten records that leave the ledger with a row; more than a row adds, and never a burst


@inlined
def find_kernel(stage: Stage, name: int) -> int:
    """Give the place of a name in the ledger, or of the empty word where it belongs."""
    return known.find_kernel(stage.ledger, stage.pending.waiting.names, stage.early.waiting.names, name)


@inlined
def remember_others_kernel(ledger: known.Ledger, place: int, others: Int64s, row: int) -> None:
    """Keep the other entities of an event that has just been settled, for what may be said of it later."""
    if others.shape[1] > 0:
        copy_others_kernel(ledger.others, known.record_kernel(ledger, ledger.words[place]), others, row)


@inlined
def remember_vector_kernel(ledger: known.Ledger, place: int, vectors_PF: Floats, row: int) -> None:
    """Keep the vector of an event that has just been settled, if amended labels are to be learned with it."""
    if ledger.vectors.shape[1] > 0:
        copy_row_kernel(ledger.vectors, known.record_kernel(ledger, ledger.words[place]), vectors_PF, row)


@inlined
def recall_settled_kernel(ledger: known.Ledger, record: int, output: Output, at: int) -> None:
    """Give a row about a settled event that event's vector, if it is kept."""
    if ledger.vectors.shape[1] > 0:
        copy_row_kernel(output.vectors_BF, at, ledger.vectors, record)
    else:
        fill_row_kernel(output.vectors_BF, at, math.nan)


@inlined
def correct_kernel(
    rows: Input,
    row: int,
    stage: Stage,
    output: Output,
    record: int,
    label: float,
    is_retraction: bool,
) -> None:
    """Pass on what a label changes after its event was settled."""
    number = known.number_kernel(stage.ledger, record)
    outcome = RETRACTED if is_retraction else AMENDED
    label = math.nan if is_retraction else label
    at = emit_kernel(output, LABEL, outcome, row, rows.time[row], NO_PRODUCED, number, label)
    emit_names_kernel(rows, row, output, at)
    recall_settled_kernel(stage.ledger, record, output, at)
    copy_others_kernel(output.others, at, stage.ledger.others, record)
    stage.counters[count.RETRACTED if is_retraction else count.AMENDED] += 1
    kind = known.SETTLED_RETRACTED if is_retraction else known.SETTLED_SET
    known.amend_kernel(stage.ledger, record, kind, number, label)
