"""The plan: a pipeline's features as a few arrays of small numbers, so that one compiled kernel serves every pipeline.

Aggregates of the same window share *lanes*, the words that a bucket consists of, in this order: count lanes, which hold
two counters of 32 bits each (of rows, or of a field's values that are present), sum lanes, and *extras* of one or more
words (lanes.py). Count, sum and mean only read lanes. *Trails* (trails.py) lie behind the windows in an entity's head.

What is put out for a row is computed column by column, each by one operation (vectors.py). A `where` makes a *filtered*
field: the field's value where the condition holds, missing elsewhere; so kernels know nothing of conditions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streams.expressions import Expression
from streams.frames import Column
from streams.outline import Outline
from streams.pipeline import Field, Labels
from streams.stages import StageSpec

# Operations: what a column is made of. Those from COUNT to ELAPSED need the entity's state.
(RAW, COUNT, SUM, MEAN, FREQUENCY, TARGET, LEAST, MOST, DEVIATION, DISTINCT, QUANTILE, TRAIL, ELAPSED,
 SINE, COSINE, CALENDAR, RATIO, DIFFERENCE, LOG1P, CLIP, BUCKETISE, ONE_HOT, HASH) = range(23)  # fmt: skip
# Kinds of extra lanes.
MINIMUM, MAXIMUM, MOMENTS, REGISTERS, BINS = 1, 2, 3, 4, 5
# Kinds of trails, and the columns of `trails_M6`.
TRAIL_LAST, TRAIL_LAG, TRAIL_WEIGHTS = 0, 1, 2
TRAIL_KIND, TRAIL_FIELD, TRAIL_WORD, TRAIL_PLACES, TRAIL_SPAN, TRAIL_SLOT = range(6)
WEIGHTS_WORDS = 6
# What a lane's counter counts besides a field's values, which have the field's number.
EVERY_ROW, NOTHING = -1, -2
COUNTER_BITS = 32
COUNTER_MASK = (1 << COUNTER_BITS) - 1
HEAD = ("newest", "newest of labels")  # what an entity's head begins with: its newest time, that of its label windows
FIRST_WINDOW_WORD = len(HEAD)
BOUNDS = ("key", "older", "newer")  # then, where entities are bounded: the hash of its key, and two links
BOUND_WORDS = len(BOUNDS)
WINDOW_WORDS = 2  # limit and chunk, before the lanes
EXACT_WORDS = 3  # of a head: first and last block, and how many rows the last one has

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Plan(NamedTuple):
    """What kernels need to know; F columns of a stage, W windows, T words of one bucket of each window, M trails.

    An *operand* is an earlier column of the matrix, or -1 - the number of a field.
    """

    column_F: Int64s  # where in the matrix it is put out
    operation_F: Int64s
    first_F: Int64s  # by operation: field, operand, counter (2 * lane + half), lane, slot of a trail, or period
    # MEAN, TARGET: the sum lane; DISTINCT: precision; RATIO, DIFFERENCE: an operand; BUCKETISE: the first edge
    second_F: Int64s
    # QUANTILE: q; FREQUENCY: the window's days; TARGET: sum and number of what is counted besides; CALENDAR: the phases
    # from which and up to which it holds; CLIP: bounds; BUCKETISE: how many edges; ONE_HOT: the code; HASH: buckets
    numbers_F2: Floats
    edges: Floats
    event_windows: int  # how many windows of buckets go by events; those of labels come behind
    bucket_windows: int  # how many these are; exact windows come behind
    exact_word: int  # where what they keep begins in an entity's head
    exact_E: Int64s  # the fields they keep; their lanes number fields by place in it
    width_W: Int64s  # window length, us
    delay_W: Int64s  # of a label window: how much later than its time a label counts, us
    delays_D: Int64s  # those that occur
    word_W: Int64s  # where a window's words begin in an entity's head
    lane_start: Int64s  # [W+1]
    sum_start_W: Int64s  # the first sum lane of a window; its count lanes come before
    extra_start_W: Int64s  # the first extra lane; its sum lanes come before
    lane_field_T2: Int64s  # sum lane: the field; extra lane: field and size parameter; count lane: what it counts
    lane_kind_T: Int64s  # of an extra lane's first word
    lane_size_T: Int64s  # words of an extra lane, at its first
    trails_M6: Int64s
    slots: int  # words of `Totals`: T, and those that trails fill
    head_words: int  # length of an entity's head
    is_bounded: bool  # whether heads have the words by which entities are forgotten
    ttl_us: int  # how long an idle entity is known; 0 = for good
    most: int  # how many entities there may be; 0 = any number


class Filtered(NamedTuple):
    """A field that is missing where a condition does not hold; field -1 is 1 in every row."""

    field: int
    condition: Expression


class FeaturePlan(NamedTuple):
    """All columns of a pipeline; the fields that those of one stage read, numbered in this order; the kernels' plan."""

    columns: tuple[Column, ...]
    fields: tuple[Field, ...]
    filtered: tuple[Filtered, ...]  # numbered behind the fields
    plan: Plan
    is_keyed: bool  # whether any column needs the entity's state
    stage: StageSpec
    outline: Outline  # what the words of its state mean
    labels: Labels  # by what they find their events, and whether vectors of settled ones are kept for amended ones


class Totals(NamedTuple):
    """What an event's windows cover: all lanes as one array, then what trails say; seen as integers and as floats."""

    counts_T: Int64s
    sums_T: Floats


def empty_totals(plan: Plan) -> Totals:
    """Give room for the lanes of one event."""
    counts_T = np.zeros(plan.slots, np.int64)
    return Totals(counts_T, counts_T.view(np.float64))
