"""Drawing the outline of a plan's state (outline.py) from what the planner has numbered."""

from __future__ import annotations

from typing import NamedTuple

from streams.features import columns
from streams.meanings import Meanings, WindowKey, rules
from streams.outline import Declared, Outline, Part, WindowOutline
from streams.pipeline import Pipeline
from streams.plan import BOUNDS, HEAD, TRAIL_WEIGHTS, WEIGHTS_WORDS
from streams.window_lanes import WindowLanes


class Drawn(NamedTuple):
    """What the planner has laid out.

    Attributes:
        change: how often the list was changed.
        windows: in the plan's order.
        words: where in a head each begins.
        exact: the fields that exact windows keep, and since when.
        exact_word: where their words begin in a head.
        trails: the rows of `Plan.trails_M6`, each followed by its beginning.
        head_words: the length of a head.
        features: as declared.
        is_bounded: whether entities are forgotten, and so stand in a list.
    """

    change: int
    windows: dict[WindowKey, WindowLanes]
    words: list[int]
    exact: list[tuple[int, int]]
    exact_word: int
    trails: list[tuple[int, ...]]
    head_words: int
    features: dict[str, Declared]
    is_bounded: bool


def draw(pipeline: Pipeline, meanings: Meanings, drawn: Drawn) -> Outline:
    """Say what the words of a plan's state mean."""
    has_exact = any(is_exact for _, _, is_exact in drawn.windows)
    return Outline(
        drawn.change,
        rules(pipeline),
        tuple((column.name, column.is_category) for column in columns(pipeline)),
        {name: word for word, name in enumerate((*HEAD, *(BOUNDS if drawn.is_bounded else ())))},
        drawn.head_words,
        _windows(meanings, drawn),
        tuple(meanings.window(key) for key in drawn.windows),
        tuple(Part(meanings.field(number), since, at) for at, (number, since) in enumerate(drawn.exact)),
        drawn.exact_word if has_exact else -1,
        tuple(_trail(meanings, trail) for trail in drawn.trails),
        tuple(dict.fromkeys(delay for _, delay, _ in drawn.windows if delay is not None)),
        drawn.features,
        any(one.needs for one in drawn.features.values()),
    )


def _windows(meanings: Meanings, drawn: Drawn) -> tuple[WindowOutline, ...]:
    found = []
    for (key, window), word in zip(drawn.windows.items(), drawn.words, strict=True):
        width_us, delay_us, is_exact = key
        if not is_exact:
            parts, lanes = window.parts(meanings, key), len(window.lanes())
            found.append(WindowOutline(meanings.window(key), width_us, delay_us is not None, word, lanes, parts))
    return tuple(found)


def _trail(meanings: Meanings, trail: tuple[int, ...]) -> Part:
    kind, field, word, places, span_us, _, since = trail
    words = WEIGHTS_WORDS if kind == TRAIL_WEIGHTS else 1 + 2 * places
    return Part(meanings.trail(kind, field, places, span_us), since, word, words)
