"""The versions of a pipeline's models, as its state folder has them: found by what people write."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from models.registry import read_blob, read_weights, versions_of
from models.version import ORDER, Version, encode_record
from streams.errors import PipelineError, UnavailableError
from streams.pipeline import Pipeline
from streams.state_folder import Folder, state_of
from streams.toml_table import mistake_line

Weights = tuple[tuple[str, ...], npt.NDArray[np.float64]]
"""Names of a linear model's number columns, [N], and their weights, [N] or [N, C]."""


def newest(pipeline: Pipeline) -> dict[str, Version | None]:
    """Give the newest version of each candidate, in the file's order; None where there is none yet."""
    state = state_of(pipeline)
    found = {model.name: versions_of(state, model.name) for model in pipeline.models}
    return {name: versions[-1] if versions else None for name, versions in found.items()}


def find(pipeline: Pipeline, text: str) -> Version:
    """Find `candidate` (its newest version) or `candidate@lineage.examples`.

    Raises:
        PipelineError: there is no such candidate or version; says which there are.
    """
    name, _, number = text.partition("@")
    names = [model.name for model in pipeline.models]
    if name not in names:
        raise PipelineError([mistake_line(text, f"{name!r} is no candidate", ", ".join(names), name, names)])
    versions = versions_of(state_of(pipeline), name)
    if not versions:
        raise PipelineError([f"{text}: {name} has no version yet: it publishes once it has learned, and when it stops"])
    if not number:
        return versions[-1]
    numbers = [version.number for version in versions]
    if not ORDER.fullmatch(number) or number not in numbers:
        kept = f"kept are {', '.join(numbers)}"
        raise PipelineError([mistake_line(text, f"{name} has no version {number}", kept, number, numbers)])
    return versions[numbers.index(number)]


def linear_weights(pipeline: Pipeline, version: Version) -> Weights | None:
    """Give what a linear model thinks of each number column, per standard deviation; None of other kinds.

    Raises:
        ModelError: its file is gone or damaged.
    """
    if version.kind != "linear":
        return None
    names = tuple(column.name for column in version.columns if not column.is_category)
    arrays = read_weights(state_of(pipeline), version)
    weight = np.asarray(arrays["weight"], np.float64)
    if "paid" in arrays:  # an optimiser's model has its outputs first, [O, N] (models/adaptive_kernels.py)
        weight = weight.T if version.task.classes else weight[0]
    return names, weight


def export(pipeline: Pipeline, version: Version, directory: Path) -> list[Path]:
    """Write a version's file and its record into a directory, which is made; gives their paths.

    Raises:
        PipelineError: one of them is there already.
        UnavailableError: the directory cannot be written.
        ModelError: the version's file is gone or damaged.
    """
    state: Folder = state_of(pipeline)
    stem = version.name.replace("@", "-")
    contents = {
        directory / f"{stem}{PurePosixPath(version.blob).suffix}": read_blob(state, version),
        directory / f"{stem}.json": encode_record(version),
    }
    for path in contents:
        if path.exists():
            raise PipelineError([f"{path} is there already; choose another --out"])
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, content in contents.items():
            path.write_bytes(content)
    except OSError as error:
        raise UnavailableError(f"cannot write to {directory}: {error.strerror or error}") from None
    return list(contents)
