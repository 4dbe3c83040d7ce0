"""The processes that torchrun starts for a training end with it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from consumers.training_asked import training_command
from models.training_job import Job, read_failure, write_job
from streams.children import Child
from streams.errors import UnavailableError
from streams.pipeline import Model, Task
from streams.retraining import Retrain
from tests.models.written_archive import COLUMNS, write_archive

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ends them")
MAIN = 'import sys; from models.training import main; sys.exit(main(sys.argv[1:], {"TORCHELASTIC_RUN_ID": "1"}))'
PARAMS = {"epochs": 100_000, "patience": 10_000, "batch": 64}


def workers_of(directory: Path) -> list[int]:
    """Process ids of those that train in a directory, without their launcher and its guard."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")
        except OSError:  # it has ended
            continue
        if str(directory) in words and "torch.distributed.run" not in words:
            found.append(int(path.parent.name))
    return found


def is_within(wait_s: float, condition: Callable[[], bool]) -> bool:
    """Whether something comes true in time."""
    deadline = time.monotonic() + wait_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.timeout(400)  # some seconds on a quiet machine, but each process has to load torch
def test_workers_of_a_training_that_is_killed_do_not_live_on(tmp_path: Path) -> None:
    write_archive(tmp_path / "state", 1_500)
    directory, model = tmp_path / "job", Model("net", "torch:logistic", PARAMS, retrain=Retrain(nproc=2, budget_s=600))
    write_job(directory, Job("net", model, COLUMNS, Task(), str(tmp_path / "state")))
    child = Child("a training", training_command(directory, model), log_path=tmp_path / "log")
    child.start()
    try:
        is_within(300.0, lambda: (directory / "progress.json").exists() or not child.is_running())
        assert len(workers_of(directory)) == 2
    finally:
        child.kill()

    assert is_within(10.0, lambda: not workers_of(directory))


def test_a_process_whose_launcher_is_gone_does_not_begin(tmp_path: Path) -> None:
    """Whoever starts this one is no torchrun."""
    directory = tmp_path / "job"
    write_job(directory, Job("net", Model("net", "torch:logistic", {}), COLUMNS, Task(), str(tmp_path)))
    code = subprocess.run([sys.executable, "-c", MAIN, str(directory)], check=False).returncode
    failure = read_failure(directory)

    assert code == UnavailableError.exit_code
    assert failure is not None
    assert failure.reason.startswith("torchrun is gone")
