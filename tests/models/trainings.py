"""Trainings that tests ask for: a job in a directory, trained in this process or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.training import main
from models.training_job import Job, Result, Training, read_failure, read_result, write_job
from streams.pipeline import Model, Task
from streams.retraining import Retrain
from tests.models.written_archive import COLUMNS

MLP = {"hidden": [16, 8], "bits": 6, "epochs": 3, "batch": 128, "lr": 0.01, "dropout": 0.1}
CLASSES = ("low", "middle", "high")
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}


def ask(directory: Path, state: Path, kind: str = "torch:mlp", params: Any = None, **others: Any) -> Path:
    """Write a job."""
    retrain = others.pop("retrain", Retrain())
    model = Model("net", kind, MLP if params is None else params, retrain=retrain)
    task = others.pop("task", Task())
    write_job(directory, Job("net", model, others.pop("columns", COLUMNS), task, str(state), **others))
    return directory


def train(directory: Path, environment: Mapping[str, str] = NO_GPU) -> Training:
    """Train in this process; gives what is told of it."""
    assert main([str(directory)], environment) == 0, read_failure(directory)
    return result_of(directory).training


def result_of(directory: Path) -> Result:
    """Read what came of a training that has ended well."""
    result = read_result(directory)
    assert result is not None
    return result


def start(directory: Path, *command: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start a training as a process of its own."""
    command = command or ("models.training",)
    return subprocess.Popen(
        [sys.executable, "-m", *command, str(directory)], env=os.environ | environment, stderr=subprocess.PIPE
    )
