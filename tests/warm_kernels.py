"""Compile the kernels that many tests need, each once: `python -m tests.warm_kernels`, ahead of tests in parallel.

Kernels are kept on disk, but processes that begin at the same time all compile what is not there yet: in tests with
faults learn and serve of several workers, up to six times the minute that a Hoeffding tree takes.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import msgspec

from serving.prepare import compile_kernels
from streams.pipeline_file import read_pipeline

FILE = Path(__file__).parent / "faults" / "pipeline.toml"
PROCESSES = 2


def main() -> None:
    """Compile what the pipeline of the tests with faults needs, model by model."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "pipeline.toml"
        file.write_text(FILE.read_text().replace("NAME", "warm").replace("BROKERS", "127.0.0.1:9092"))
        names = [model.name for model in read_pipeline(file).models]
        with ProcessPoolExecutor(PROCESSES) as pool:
            list(pool.map(compile_for, [file] * len(names), names))


def compile_for(file: Path, name: str) -> None:
    """Compile what the roles need that learn and answer with one of the file's models."""
    pipeline = read_pipeline(file)
    models = tuple(model for model in pipeline.models if model.name == name)
    compile_kernels(msgspec.structs.replace(pipeline, models=models, state=file.parent / name))


if __name__ == "__main__":
    main()
