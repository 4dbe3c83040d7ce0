"""Feature vectors: one operation a column, over a row's fields and what its entity's state says."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from streams.compiled import inlined
from streams.distinct import count_distinct_kernel
from streams.lanes import LEAST_BITS, MOST_BITS, deviation_kernel, extreme_kernel
from streams.phases import phase_kernel
from streams.plan import (
    CALENDAR,
    CLIP,
    COSINE,
    COUNT,
    COUNTER_BITS,
    COUNTER_MASK,
    DEVIATION,
    DIFFERENCE,
    DISTINCT,
    ELAPSED,
    FREQUENCY,
    HASH,
    LEAST,
    LOG1P,
    MEAN,
    MOST,
    ONE_HOT,
    QUANTILE,
    RATIO,
    RAW,
    SINE,
    SUM,
    TARGET,
    TRAIL,
    Plan,
    Totals,
)
from streams.quantiles import quantile_kernel

Floats = npt.NDArray[np.float64]


@inlined
def counter_kernel(totals: Totals, counter: int) -> float:
    """Read one of the two counters of a count lane."""
    return float((totals.counts_T[counter >> 1] >> (COUNTER_BITS * (counter & 1))) & COUNTER_MASK)


@inlined
def write_vector_kernel(
    plan: Plan,
    values_KB: Floats,
    row: int,
    time_us: int,
    elapsed_s: float,
    totals: Totals,
    is_known: bool,
    vectors_BF: Floats,
    at: int,
) -> None:
    """Fill one row of the feature matrix; `is_known` says whether the event has an entity, and so totals."""
    for column in range(plan.operation_F.size):
        operation, first = plan.operation_F[column], plan.first_F[column]
        if operation == RAW:
            value = values_KB[first, row]
        elif operation <= ELAPSED:
            value = _of_entity(plan, column, elapsed_s, totals) if is_known else math.nan
        elif operation == SINE:
            value = math.sin(2 * math.pi * phase_kernel(first, time_us))
        elif operation == COSINE:
            value = math.cos(2 * math.pi * phase_kernel(first, time_us))
        elif operation == CALENDAR:
            phase = phase_kernel(first, time_us)
            value = 1.0 if plan.numbers_F2[column, 0] <= phase < plan.numbers_F2[column, 1] else 0.0
        elif operation >= ONE_HOT:
            value = _of_category(plan, column, values_KB[first, row])
        else:
            value = _of_operands(plan, column, values_KB, row, vectors_BF, at)
        vectors_BF[at, plan.column_F[column]] = value


@inlined
def _of_entity(plan: Plan, column: int, elapsed_s: float, totals: Totals) -> float:
    """What the entity's windows and trails say."""
    operation, first = plan.operation_F[column], plan.first_F[column]
    if operation == COUNT:
        return counter_kernel(totals, first)
    if operation in (SUM, TRAIL):
        return float(totals.sums_T[first])
    if operation == MEAN:
        present = counter_kernel(totals, first)
        return totals.sums_T[plan.second_F[column]] / present if present > 0 else math.nan
    if operation == FREQUENCY:
        days: float = plan.numbers_F2[column, 0]
        return counter_kernel(totals, first) / days
    if operation == TARGET:
        ones: float = totals.sums_T[plan.second_F[column]] + plan.numbers_F2[column, 0]
        return ones / (counter_kernel(totals, first) + float(plan.numbers_F2[column, 1]))
    if operation == LEAST:
        return extreme_kernel(totals.counts_T[first], LEAST_BITS)
    if operation == MOST:
        return extreme_kernel(totals.counts_T[first], MOST_BITS)
    if operation == DEVIATION:
        return deviation_kernel(totals.sums_T, first)
    if operation == DISTINCT:
        return count_distinct_kernel(totals.counts_T, first, plan.second_F[column])
    if operation == QUANTILE:
        return quantile_kernel(totals.counts_T, first, plan.numbers_F2[column, 0])
    return elapsed_s


@inlined
def _of_category(plan: Plan, column: int, code: float) -> float:
    """ONE_HOT: whether it is this value. HASH: its code, or one of so many buckets."""
    number = plan.numbers_F2[column, 0]
    if math.isnan(code):
        return math.nan
    if plan.operation_F[column] == HASH:
        return float(int(code) % int(number)) if number > 0 else code
    return 1.0 if code == number else 0.0


@inlined
def _of_operands(plan: Plan, column: int, values_KB: Floats, row: int, vectors_BF: Floats, at: int) -> float:
    """What is computed of a field or of an earlier column."""
    operation = plan.operation_F[column]
    x = _operand(plan.first_F[column], values_KB, row, vectors_BF, at)
    if operation in (RATIO, DIFFERENCE):
        y = _operand(plan.second_F[column], values_KB, row, vectors_BF, at)
        if operation == DIFFERENCE:
            return x - y
        return x / y if y != 0 else math.nan
    if operation == LOG1P:
        return math.log1p(x) if x > -1 else math.nan
    if math.isnan(x):
        return math.nan
    if operation == CLIP:
        return float(min(max(x, plan.numbers_F2[column, 0]), plan.numbers_F2[column, 1]))
    edges = 0
    start = plan.second_F[column]
    while edges < int(plan.numbers_F2[column, 0]) and x >= plan.edges[start + edges]:
        edges += 1
    return float(edges)


@inlined
def _operand(place: int, values_KB: Floats, row: int, vectors_BF: Floats, at: int) -> float:
    value: float = vectors_BF[at, place] if place >= 0 else values_KB[-1 - place, row]
    return value
