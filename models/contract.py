"""The contract of learners as a battery of checks: what `millrace check-learner` runs, and our own kinds are held to.

Each check drives fresh learners over a made-up stream and says in one line what it found. A learner that passes is
predicted with, learned, cut, saved and restored by Millrace without a bit being different for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import msgspec
import numpy as np

from models.learner import LEARN, MAX_CODE, PREDICT, Learner, State, Vector, replaced_of
from models.made_up_rows import COLUMNS, Bench
from streams.errors import MillraceError
from streams.frames import Column
from streams.pipeline import Task

CUTS = (1, 2, 3, 50, 51, 120, 300)
HOSTILE = (np.nan, np.inf, -np.inf, 1e308, -1e308, 1e31)
NO_CODES = (-1.0, 0.5, MAX_CODE, np.inf)
GROWTH = 4.0  # bytes a row that a state may grow by in the long run: less than any list of rows
TIMED_S = 0.2  # for each figure of speed


class Finding(msgspec.Struct, frozen=True):
    """What one check found: `text` is the reason of a failure, or what was measured."""

    check: str
    passed: bool
    text: str


class BrokenError(Exception):
    """A check failed, with its reason."""


def check_contract(
    make: Callable[[], Learner],
    task: Task | None = None,
    columns: tuple[Column, ...] = COLUMNS,
    rows: int = 2_000,
    growth: float = GROWTH,
) -> list[Finding]:
    """Run every check; takes about twenty times as long as the learner needs for the rows.

    Args:
        make: gives the untrained learner, each time a new one.
        task: what it answers.
        columns: of the matrices it is made for.
        rows: of each stream, half of them events and half labels.
        growth: bytes a row that its state may grow by.
    """
    bench = Bench(make, columns, task or Task(), rows, growth)
    return [_finding(name, check, bench) for name, check in CHECKS.items()]


def _finding(name: str, check: Callable[[Bench], str], bench: Bench) -> Finding:
    try:
        return Finding(name, passed=True, text=check(bench))
    except (BrokenError, MillraceError) as error:
        return Finding(name, passed=False, text=" ".join(str(error).split()))
    except Exception as error:  # noqa: BLE001 - unknown code
        return Finding(name, passed=False, text=" ".join(f"{type(error).__name__}: {error}".split()))


def _answers(bench: Bench) -> str:
    """Every row is answered, before the first label and after many, by what the task wants."""
    learner, stream = bench.make(), bench.stream()
    untrained_B = learner.predict(stream.X_BF[:5])
    score_B = learner.step(*stream)
    for what, said_B in (("untrained", untrained_B), ("trained", score_B[stream.action_B == PREDICT])):
        _must_be_answers(said_B, bench.task, what)
    if not np.isnan(score_B[stream.action_B != PREDICT]).all():
        raise BrokenError("step answers rows that it was not asked to predict; NaN belongs there")
    _must_replace_nothing(learner)
    return f"{score_B.shape[0]:,} rows"


def _learns(bench: Bench) -> str:
    """Labels change what is answered."""
    learner, stream = bench.make(), bench.stream()
    before_B = learner.predict(stream.X_BF)
    learner.step(*stream)
    changed = ~np.isclose(learner.predict(stream.X_BF), before_B, rtol=0, atol=1e-12)
    if not changed.any():
        raise BrokenError(f"after {bench.rows // 2:,} labels every answer is what it was before the first")
    return f"{changed.reshape(len(before_B), -1).any(axis=1).mean():.0%} of the answers changed"


def _predicting(bench: Bench) -> str:
    """A learner that predicts in between goes on as one that does not, and its state is the same."""
    quiet, asked, stream = bench.make(), bench.make(), bench.stream()
    half = len(stream.y_B) // 2
    quiet.step(*stream.cut(0, half))
    asked.predict(stream.X_BF[:10])
    asked.step(*stream.cut(0, half))
    before = _copied(asked.state())
    asked.predict(stream.X_BF)
    _must_be_same_state(before, asked.state(), "predict changes the state")
    rest = stream.cut(half, len(stream.y_B))
    _must_be_equal(asked.step(*rest), quiet.step(*rest), "after predicting, answers differ")
    return "no answer and no state differs"


def _cuts(bench: Bench) -> str:
    """The same rows in other batches give the same bits."""
    whole, cut, stream = bench.make(), bench.make(), bench.stream()
    bounds = [0, *(at for at in CUTS if at < len(stream.y_B)), len(stream.y_B)]
    said_B = np.concatenate([cut.step(*stream.cut(start, stop)) for start, stop in pairwise(bounds)])
    _must_be_equal(said_B, whole.step(*stream), f"cut at {bounds[1:-1]}, answers differ")
    labels = stream.action_B == LEARN
    together, singly = bench.make(), bench.make()
    together.learn(stream.X_BF[labels], stream.y_B[labels])
    for row in np.flatnonzero(labels).tolist():
        singly.learn(stream.X_BF[row : row + 1], stream.y_B[row : row + 1])
    asked_BF = stream.X_BF[:200]
    _must_be_equal(singly.predict(asked_BF), together.predict(asked_BF), "learned one by one, answers differ")
    return f"{len(bounds) - 1} batches, and one row at a time"


def _turns(bench: Bench) -> str:
    """`step` over mixed rows is `predict` and `learn` in turn."""
    stepping, turning, stream = bench.make(), bench.make(), bench.stream()
    expected_B = stepping.step(*stream)
    said_B = np.full_like(expected_B, np.nan)
    for row, action in enumerate(stream.action_B.tolist()):
        one = slice(row, row + 1)
        if action == PREDICT:
            said_B[row] = turning.predict(stream.X_BF[one])[0]
        elif action == LEARN:
            turning.learn(stream.X_BF[one], stream.y_B[one])
    _must_be_equal(said_B, expected_B, "step answers other than predict and learn in turn")
    return f"{len(said_B):,} rows"


def _round_trip(bench: Bench) -> str:
    """A learner restored from a state goes on bit for bit; the state is plain arrays and stays as it was taken."""
    whole, first, second, stream = bench.make(), bench.make(), bench.make(), bench.stream()
    half = len(stream.y_B) // 2
    expected_B = whole.step(*stream)
    begun_B = first.step(*stream.cut(0, half))
    state = first.state()
    for name, array in state.items():
        if array.dtype.hasobject:
            raise BrokenError(f"state gives {name!r}, which is no array of numbers or texts")
    taken = _copied(state)
    first.step(*stream.cut(half, half + 50))
    _must_be_same_state(taken, state, "a state that was taken changes while its learner goes on")
    second.restore(_copied(taken))
    rest_B = second.step(*stream.cut(half, len(stream.y_B)))
    _must_be_equal(np.concatenate([begun_B, rest_B]), expected_B, "after restore, answers differ")
    return f"{sum(array.nbytes for array in taken.values()):,} bytes in {len(taken)} arrays"


def _twins(bench: Bench) -> str:
    """Two learners with the same rows are the same."""
    one, other, stream = bench.make(), bench.make(), bench.stream()
    _must_be_equal(one.step(*stream), other.step(*stream), "two learners with the same rows answer differently")
    return "two learners agree"


def _hostile(bench: Bench) -> str:
    """Absurd values are as if they were missing; what was never seen is answered; all stays finite."""
    stream = bench.stream()
    absurd, missing = stream.X_BF.copy(), stream.X_BF.copy()
    for place, column in enumerate(bench.columns):
        values = NO_CODES if column.is_category else HOSTILE
        for turn, value in enumerate(values):
            rows = slice(turn * 7 + place, None, 61)
            absurd[rows, place], missing[rows, place] = value, np.nan
    learner, expected = bench.make(), bench.make()
    found_B = learner.step(absurd, stream.y_B, stream.action_B)
    _must_be_equal(
        found_B,
        expected.step(missing, stream.y_B, stream.action_B),
        "an absurd value is not as if it were missing: answers differ",
    )
    learner.learn(np.full_like(absurd[:3], np.nan), stream.y_B[:3])
    learner.learn(stream.X_BF[:3], np.full(3, np.nan))
    _must_be_answers(learner.predict(np.full_like(absurd[:3], np.nan)), bench.task, "rows without any value:")
    _must_be_answers(learner.predict(absurd), bench.task, "absurd rows:")
    if not learner.is_finite():
        raise BrokenError("is_finite says no after absurd rows")
    _must_replace_nothing(learner)
    return f"{len(HOSTILE) + len(NO_CODES)} kinds of absurd values, rows of nothing, labels of NaN"


def _memory(bench: Bench) -> str:
    """A state stops growing, also where every row brings a category that was never seen."""
    learner, sizes = bench.make(), []
    places = [place for place, column in enumerate(bench.columns) if column.is_category]
    for part in range(2):
        for seed in range(2):
            stream = bench.stream(part * 2 + seed)
            new = np.arange(len(stream.y_B)) + (part * 2 + seed) * len(stream.y_B) + 1_000
            stream.X_BF[:, places] = new[:, None]
            learner.step(*stream)
        sizes.append(sum(array.nbytes for array in learner.state().values()))
    growth = (sizes[1] - sizes[0]) / (2 * bench.rows)
    text = f"{sizes[0]:,} bytes after {2 * bench.rows:,} rows, {sizes[1]:,} after {4 * bench.rows:,}"
    if growth > bench.growth:
        raise BrokenError(f"{text}: {growth:,.1f} bytes a row; {bench.growth:g} are allowed")
    return f"{text}: {max(growth, 0.0):,.1f} bytes a row"


def _speed(bench: Bench) -> str:
    """How long a row takes; nothing fails here."""
    learner, stream = bench.make(), bench.stream()
    learner.step(*stream)
    X_BF, y_B = stream.X_BF[:500], stream.y_B[:500]
    figures = (
        ("predict", lambda: learner.predict(X_BF), len(X_BF)),
        ("learn", lambda: learner.learn(X_BF, y_B), len(X_BF)),
        ("a call for one row", lambda: learner.predict(X_BF[:1]), 1),
    )
    return ", ".join(f"{name} {_us(call, rows):.3g} us" for name, call, rows in figures)


CHECKS: dict[str, Callable[[Bench], str]] = {
    "answers every row": _answers,
    "learns": _learns,
    "predicting changes nothing": _predicting,
    "batches change nothing": _cuts,
    "step is predict and learn in turn": _turns,
    "state goes round": _round_trip,
    "the same in every instance": _twins,
    "absurd values are missing ones": _hostile,
    "bounded memory": _memory,
    "speed": _speed,
}


def _us(call: Callable[[], object], rows: int) -> float:
    call()
    calls, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < TIMED_S or calls == 0:
        call()
        calls += 1
    return took * 1e6 / (calls * rows)


def _copied(state: State) -> State:
    return {name: np.array(array) for name, array in state.items()}


def _must_be_same_state(expected: State, found: State, what: str) -> None:
    """Compare arrays; what is sealed has bytes of its own each time, and shows in answers."""
    for name in expected.keys() | found.keys():
        if name == "sealed":
            continue
        ours, theirs = expected.get(name), found.get(name)
        if ours is None or theirs is None or ours.tobytes() != theirs.tobytes():
            raise BrokenError(f"{what}: {name!r} is not what it was")


def _must_be_equal(found_B: Vector, expected_B: Vector, what: str) -> None:
    if found_B.shape != expected_B.shape:
        raise BrokenError(f"{what}: shape {found_B.shape} and {expected_B.shape}")
    differs = (found_B != expected_B) & ~(np.isnan(found_B) & np.isnan(expected_B))
    if differs.any():
        rows = np.flatnonzero(differs.reshape(len(found_B), -1).any(axis=1))
        first = int(rows[0])
        values = f"{found_B[first].tolist()} for {expected_B[first].tolist()}"
        raise BrokenError(f"{what} in {rows.size:,} of {len(found_B):,} rows, first in row {first}: {values}")


def _must_be_answers(said_B: Vector, task: Task, what: str) -> None:
    by_row = said_B.reshape(len(said_B), -1)
    if by_row.shape[1] != task.outputs:
        raise BrokenError(f"{what} answers have {by_row.shape[1]} numbers; {task.outputs} are needed")
    if not np.isfinite(by_row).all():
        raise BrokenError(f"{what} answers are not all finite")
    if task.kind == "clustering" and not (by_row >= 0.0).all():
        raise BrokenError(f"{what} answers are no clusters and distances: {by_row.min():g} found")
    if task.kind not in ("regression", "clustering") and not ((by_row >= 0.0) & (by_row <= 1.0)).all():
        raise BrokenError(f"{what} answers are no probabilities: {by_row.min():g} to {by_row.max():g}")
    if task.classes and not np.allclose(by_row.sum(axis=1), 1.0, rtol=0, atol=1e-6):
        raise BrokenError(f"{what} probabilities of the classes do not add up to 1")


def _must_replace_nothing(learner: Learner) -> None:
    replaced = replaced_of(learner)
    if replaced:
        raise BrokenError(f"{replaced:,} answers were not finite or no probabilities")
