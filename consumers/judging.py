"""Judging: whether another candidate is to be champion, from what is known at this block.

A champion that is broken goes at once: it is in quarantine, owes answers, raises the guard's alarm, is too slow, or too
old. Else a challenger comes when its evidence is proven and its gates are open, and there was no promotion just now.
The last champion, proven better, is the promotion taken back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from consumers.gates import LASTING, STALE, closed_gates
from consumers.selection_state import SelectionState
from models.evidence import LEAST_BLOCKS, Evidence, Verdict, verdict
from models.guard import GuardVerdict, guard_verdict
from streams.reign import Why
from streams.selecting import Select

MOST_LOST = 0.1  # of the answers that a challenger gives on a block's events, those that the champion may owe

Numbers = Mapping[str, float | None]


class Wish(NamedTuple):
    """Who is to be champion, and why."""

    candidate: str
    why: Why
    numbers: dict[str, float | None]
    thresholds: dict[str, float | None]


def broken(state: SelectionState, lost: float, settings: Select) -> Wish | None:
    """Say who comes in place of a champion that cannot stay.

    Args:
        state: what is known.
        lost: the share of answers that the champion owes on the block at hand.
        settings: of `[select]`.
    """
    champion, last = state.known[state.reign.champion], state.reign.last
    if state.guard.alarm_at is not None and last is not None and not _lasting(state, last, settings):
        return Wish(last, "guard", *guard_numbers(guard_verdict(state.guard, settings)))
    found: tuple[Why, dict[str, float | None], dict[str, float | None]] | None = None
    if champion.illness:
        found = "guard", {"quarantined": 1.0}, {"quarantined": 0.0}
    elif lost > MOST_LOST:
        found = "guard", {"lost_ratio": lost}, {"lost_ratio": MOST_LOST}
    elif champion.is_slow:
        found = "slow", {"predict_ms": champion.predict_p99_us / 1e3}, {"predict_ms": settings.max_predict_ms}
    else:
        for gate in closed_gates(champion, state.time_us, settings, is_reigning=True):
            if gate.name in STALE:
                found = "stale", {"age_s": gate.value}, {"age_s": gate.limit}
    successor = None if found is None else _successor(state, settings)
    return None if found is None or successor is None else Wish(successor, *found)


def overtaken(state: SelectionState, compared: Sequence[str], settings: Select) -> Wish | None:
    """Say which of the challengers whose evidence has changed is proven better, and may come."""
    if is_cooling(state, settings):
        return None
    for challenger in compared:
        evidence = state.pairs[challenger].evidence
        if evidence.blocks < LEAST_BLOCKS:
            continue
        found = verdict(evidence, settings)
        if found.word == "promoted" and not closed_gates(state.known[challenger], state.time_us, settings):
            why: Why = "taken back" if challenger == state.reign.last else "evidence"
            return Wish(challenger, why, *evidence_numbers(found))
    return None


def is_cooling(state: SelectionState, settings: Select) -> bool:
    """Say whether a promotion is so recent that there is no other one by evidence."""
    return state.reign.id != "" and state.time_us < state.promoted_us + settings.cooldown_us


def _successor(state: SelectionState, settings: Select) -> str | None:
    """Give the last champion if it is sound, else the best challenger with open gates; None: there is nobody."""
    last = state.reign.last
    if last is not None and not _lasting(state, last, settings):
        return last
    able = [
        name
        for name, known in state.known.items()
        if name in state.pairs and known.lineage >= 0 and not closed_gates(known, state.time_us, settings)
    ]
    return max(able, key=lambda name: advantage(state.pairs[name].evidence), default=None)


def advantage(evidence: Evidence) -> float:
    """Give how much better a challenger is on average, 0 as long as nothing is known."""
    return (evidence.champion_total - evidence.challenger_total) / max(evidence.blocks, 1)


def _lasting(state: SelectionState, candidate: str, settings: Select) -> bool:
    """Say whether a gate is closed that also a champion has to keep."""
    known = state.known[candidate]
    return known.is_slow or any(gate.name in LASTING for gate in closed_gates(known, state.time_us, settings))


def evidence_numbers(found: Verdict) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Give the numbers of a verdict, and the thresholds, as a decision has them."""
    values = msgspec.structs.asdict(found)
    numbers = {name: _number(value) for name, value in values.items() if name not in {"word", "threshold"}}
    return numbers, {"bound": found.threshold, "alpha": found.a}


def guard_numbers(found: GuardVerdict) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Give the numbers of the guard, and the thresholds, as a decision has them."""
    numbers: dict[str, float | None] = {
        "settled": float(found.settled),
        "loss": found.loss,
        "clip": found.clip,
        "sigma": found.sigma,
        "expected_delay_events": found.expected_delay_events,
        "alarm_at": _number(found.alarm_at),
    }
    numbers |= {f"line_{at}": value for at, value in enumerate(found.lines, 1)}
    return numbers, {f"line_{at}": value for at, value in enumerate(found.thresholds or (), 1)}


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)
