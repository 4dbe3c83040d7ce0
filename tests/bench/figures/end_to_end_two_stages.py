"""The whole system with features of two entities: two windowed stages and the last by the key, through Kafka."""

from __future__ import annotations

import re
from pathlib import Path

from tests.bench.figure import Figure
from tests.bench.figures.end_to_end import speed
from tests.bench.kafka import BenchError
from tests.bench.workplace import BENCH_FILE, DIRECTORY, Workplace

OTHER = "region"  # a field with 100 values
FIGURES = (Figure("end_to_end_two_stages", "events/s", bound=120_000, is_rate=True),)


def measure(workplace: Workplace) -> dict[str, float]:
    """Run the bench pipeline with its windows doubled."""
    return {"end_to_end_two_stages": speed(workplace, write_chain())}


def write_chain() -> Path:
    """Write the bench pipeline with every window once more by another entity, under .bench.

    Raises:
        BenchError: bench.toml has no windows by the key any more.
    """
    text, found = re.subn(
        r'^(\w+)( = \{ .*)by = "key"(, window = .*)$',
        rf'\1\2by = "key"\3\n\1_of_{OTHER}\2by = "{OTHER}"\3',
        BENCH_FILE.read_text(),
        flags=re.MULTILINE,
    )
    if not found:
        raise BenchError(f"{BENCH_FILE} has no windows by the key")
    DIRECTORY.mkdir(exist_ok=True)
    file = DIRECTORY / "two_stages.toml"
    file.write_text(text)
    return file
