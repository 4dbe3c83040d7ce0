"""Trainings on a GPU: what they learn there, that they repeat it to the bit, and that processes can share one."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.learner import make_learner
from models.sealed import key_for
from models.tensors import Batches, shuffled
from models.weights_file import decode
from streams.pipeline import Model, Task
from tests.models.test_tensors import numbered
from tests.models.trainings import CLASSES, MLP, ask, result_of, start, train
from tests.models.written_archive import COLUMNS, write_archive

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    pytest.mark.timeout(400),  # torch.compile takes its time
]
SIZE = 4_000
train_on_gpu = partial(train, environment={})
EVERY_KIND = [
    ("torch:logistic", {"lr": 0.05, "epochs": 4, "batch": 64}, Task()),
    ("torch:mlp", {**MLP, "dropout": 0.0}, Task()),
    ("torch:resmlp", {"width": 16, "epochs": 3, "batch": 128, "dropout": 0.0}, Task("multiclass", CLASSES)),
    (
        "torch:ft_transformer",
        {"width": 16, "blocks": 1, "heads": 2, "epochs": 3, "batch": 128, "lr": 0.003, "dropout": 0.0},
        Task("regression"),
    ),
    ("torch:autoencoder", {"hidden": [8, 2], "epochs": 2}, Task("anomaly", alert=0.1)),
]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of yes-or-no labels."""
    directory = tmp_path_factory.mktemp("state")
    write_archive(directory, SIZE)
    return directory


@pytest.mark.parametrize(("kind", "params", "task"), EVERY_KIND)
def test_every_kind_learns_what_it_learns_on_a_cpu_but_for_rounding(
    kind: str, params: dict[str, Any], task: Task, tmp_path: Path
) -> None:
    """bf16 has 8 bits. The model's file is as good on a machine that has no GPU."""
    write_archive(tmp_path / "state", SIZE, task)
    on_gpu = train_on_gpu(ask(tmp_path / "gpu", tmp_path / "state", kind, params, task=task))
    on_cpu = train(ask(tmp_path / "cpu", tmp_path / "state", kind, params, task=task))
    learner = make_learner(Model("net", kind, params), COLUMNS, key_for(kind, tmp_path), task)
    learner.restore(decode((tmp_path / "gpu" / "model.safetensors").read_bytes())[0])

    assert on_gpu.device == torch.cuda.get_device_name(0)
    assert on_cpu.device == "cpu"
    assert np.allclose(on_gpu.curve, on_cpu.curve, rtol=0.03, atol=0.02)
    assert learner.is_finite()
    assert on_gpu.peak_bytes < on_cpu.peak_bytes  # of the card, of the process


@pytest.mark.parametrize(("kind", "params", "task"), EVERY_KIND)
def test_what_is_trained_twice_is_the_same_to_the_bit(
    kind: str, params: dict[str, Any], task: Task, tmp_path: Path
) -> None:
    write_archive(tmp_path / "state", SIZE, task)
    params = {**params, "dropout": 0.2} if "dropout" in params else params
    first, second = (ask(tmp_path / name, tmp_path / "state", kind, params, task=task) for name in ("1", "2"))

    assert train_on_gpu(first).curve == train_on_gpu(second).curve
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_a_training_that_was_killed_goes_on_to_the_same_bits(state: Path, tmp_path: Path) -> None:
    whole, killed = (ask(tmp_path / name, state, "torch:mlp", {**MLP, "dropout": 0.2}) for name in ("1", "2"))
    train_on_gpu(whole)
    process = start(killed, MILLRACE_FAIL_POINT="after_checkpoint:2")
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert train_on_gpu(killed).curve == result_of(whole).training.curve
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_two_processes_share_a_gpu_or_take_one_each(state: Path, tmp_path: Path) -> None:
    """By gloo where there are fewer GPUs than processes, which nccl refuses; else by nccl."""
    params = {**MLP, "dropout": 0.0, "batch": 100}
    alone, together = (ask(tmp_path / name, state, "torch:mlp", params) for name in ("1", "2"))
    process = start(together, "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "models.training")
    errors = process.communicate()[1]

    assert process.returncode == 0, errors.decode()
    assert result_of(together).training.device == f"2 x {torch.cuda.get_device_name(0)}"
    assert np.allclose(result_of(together).training.curve, train_on_gpu(alone).curve, rtol=0, atol=0.01)


def test_batches_reach_a_gpu_as_they_are() -> None:
    """Copied while it computes, from memory that is not used again before."""
    prepared = numbered(10_000)
    on_gpu = [batch.target_B for batch in Batches(prepared, 128, "cuda", seed=1).epoch(0)]

    assert {part.device.type for part in on_gpu} == {"cuda"}
    assert torch.cat(on_gpu).long().tolist() == shuffled(10_000, 1, 0).tolist()
