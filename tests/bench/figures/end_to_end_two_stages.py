"""The whole system with features of two entities: two windowed stages and the last by the key, through Kafka.

Once with the sixteen features of the bench pipeline, every other window of them by a category; and once, for
comparison, with each window by both, 31 features in all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import count
from pathlib import Path

from tests.bench.figure import Figure
from tests.bench.figures.end_to_end import speed
from tests.bench.kafka import BenchError
from tests.bench.workplace import BENCH_FILE, DIRECTORY, Workplace

OTHER = "region"  # a field with 100 values
WINDOW = re.compile(r'^(\w+)( = \{ .*)by = "key"(, window = .*)$', re.MULTILINE)
FIGURES = (
    Figure("end_to_end_two_stages", "events/s", bound=120_000, scales=True),
    Figure("end_to_end_two_stages_doubled", "events/s", scales=True),
)


def measure(workplace: Workplace) -> dict[str, float]:
    """Run the bench pipeline with its windows shared between two entities, and with all of them by both."""
    return {
        "end_to_end_two_stages": speed(workplace, write_chain("shared", _shared)),
        "end_to_end_two_stages_doubled": speed(workplace, write_chain("doubled", _doubled)),
    }


def write_chain(name: str, change: Callable[[int, re.Match[str]], str]) -> Path:
    """Write the bench pipeline with other windows, under .bench.

    Raises:
        BenchError: bench.toml has no windows by the key any more.
    """
    place = count()
    text, found = WINDOW.subn(lambda match: change(next(place), match), BENCH_FILE.read_text())
    if not found:
        raise BenchError(f"{BENCH_FILE} has no windows by the key")
    DIRECTORY.mkdir(exist_ok=True)
    file = DIRECTORY / f"two_stages_{name}.toml"
    file.write_text(text)
    return file


def _shared(place: int, window: re.Match[str]) -> str:
    name, before, behind = window.groups()
    return f'{name}{before}by = "{OTHER if place % 2 else "key"}"{behind}'


def _doubled(_place: int, window: re.Match[str]) -> str:
    name, before, behind = window.groups()
    return f'{window[0]}\n{name}_of_{OTHER}{before}by = "{OTHER}"{behind}'
