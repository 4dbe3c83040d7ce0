"""The training of a network, from examples to a trained state: preparation, search, warm start, and the loop itself."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from models.checkpoints import Checkpoints
from models.class_weights import balanced_weights
from models.course import Pace, Trained, pace_of
from models.examples import Examples, Indexes
from models.learner import State, settings_of
from models.networks import Network, loss_of, make_network
from models.preparation import Preparation
from models.prepared_rows import Targets, prepare_rows
from models.processes import Processes
from models.tensors import Batch, Batches
from models.torch_learner import NETWORK, PREPARATION, state_of
from models.trainer import Hooks, LossOf, Trainer
from models.training_job import Job, Progress
from models.version_file import MAX_BYTES, digest_of
from models.warm_start import warm_started
from models.weights_file import decode
from streams.errors import MillraceError, ModelError, TrainingError
from streams.pipeline import Model
from streams.retraining import Retrain
from streams.scratch import Scratch
from streams.snapshots import part_of
from streams.state_folder import LocalFolder, Place, folder_of

JUDGED_ROWS = 8_192  # at a time: more would only be slower
TRIAL_EPOCHS = 3  # a trial has so many times fewer epochs than the training, at least one
INNER = "inner."  # before an array's name where a threshold stands around the network
CHOSEN = "chosen.json"  # what the search chose, in the directory of the training

Tell = Callable[[Progress], None]


class _Chosen(msgspec.Struct, frozen=True):
    """What a search has chosen: a training that was killed goes on with it. `seconds` is what it took of the budget."""

    settings: dict[str, Any]
    seconds: float


class NetworkTraining:
    """Trains a network from examples.

    Args:
        job: what is asked.
        directory: of the training, with its checkpoints.
        processes: those that share it.
        tell: is given the progress.
        spent_s: of the budget, before it began.
        to_row: of the archive, the first that the examples do not come from.
    """

    def __init__(
        self, job: Job, directory: Path, processes: Processes, tell: Tell, spent_s: float, to_row: int = 0
    ) -> None:
        self._to_row = to_row
        self._job, self._directory, self._processes, self._tell = job, directory, processes, tell
        self._device = torch.device(processes.device)
        self._retrain = job.model.retrain or Retrain()
        self._began = time.monotonic() - spent_s
        self._notes: list[str] = []

    def train(self, examples: Examples, training_N: Indexes, validation_N: Indexes, state: Place) -> Trained:
        """Train on some examples, choosing by others; all processes give the same.

        Args:
            examples: all of them.
            training_N: places of those to train on.
            validation_N: places of those to choose by.
            state: of the pipeline, with the version to begin with.

        Raises:
            TrainingError: a loss is not finite, or the network is too large.
        """
        self._prepare(examples, training_N, validation_N)
        chosen = self._searched()
        model = _with(self._job.model, chosen.settings)
        pace = pace_of(model, self._job.task, {}, self._job.seed)
        checkpoints = Checkpoints(self._directory, self._fingerprint(examples, model))
        network = self._new_network(model, pace)
        spent_s = chosen.seconds or time.monotonic() - self._began
        trainer = Trainer(
            network,
            self._loss_of(),
            pace,
            max(1.0, self._retrain.budget_s - spent_s),
            Hooks(self._tell, checkpoints),
        )
        found = checkpoints.newest()
        if found is not None:
            trainer.resume(found)
        else:
            self._begin_with_parent(network, model, state)
        trainer.train(*self._batches(pace))
        self._notes += checkpoints.refused
        if trainer.course.stopped == "budget":
            self._notes.append(f"the budget of {self._retrain.budget_s:g} s was over in epoch {trainer.course.epoch}")
        self._fit_outputs(network, pace)
        return Trained(state_of(network, self._preparation), trainer.course, chosen.settings, tuple(self._notes))

    def _prepare(self, examples: Examples, training_N: Indexes, validation_N: Indexes) -> None:
        """Learn from the training examples what all networks of this training get."""
        job, scratch = self._job, Scratch(self._directory / "scratch")
        self._preparation = Preparation.fit(examples.X_BF, job.columns, job.model, training_N)
        self._y_N = examples.y_B[training_N]
        network = self._new_network(job.model, Pace())
        self._rows = [
            prepare_rows(examples.X_BF, rows, self._targets(network, examples, rows), self._preparation, scratch)
            for rows in (training_N, validation_N)
        ]

    def _targets(self, network: Network, examples: Examples, rows: Indexes) -> Targets:
        y_B = torch.from_numpy(examples.y_B[rows]).to(self._device)
        targets: Targets = network.targets(y_B).cpu().numpy()
        return targets

    def _searched(self) -> _Chosen:
        """Search for settings if that is asked, or take what was chosen before this process was killed."""
        if not self._retrain.search:
            return _Chosen({}, 0.0)
        found = _read_chosen(self._directory)
        if found is not None:
            return found
        from models.search import BUDGET_SHARE, search  # Optuna is loaded only where it is used

        trials, settings = self._retrain.search, settings_of(self._job.model, self._job.task)
        if self._retrain.then == "learn":
            settings.pop("hidden", None)  # the compiled network that goes on has the file's layers
        seconds = self._retrain.budget_s * BUDGET_SHARE / trials
        chosen = search(settings, trials, self._job.seed, lambda tried: self._attempt(tried, seconds))
        found = _Chosen(chosen, time.monotonic() - self._began)
        self._processes.wait()  # until all have looked for what was chosen before
        if self._processes.rank == 0:
            LocalFolder(self._directory).publish(CHOSEN, msgspec.json.encode(found))
        return found

    def _attempt(self, tried: Mapping[str, Any], seconds: float) -> float:
        """Train for a short time with other settings; gives the best validation loss."""
        model = _with(self._job.model, tried)
        pace = pace_of(model, self._job.task, {}, self._job.seed)
        pace = msgspec.structs.replace(pace, epochs=max(1, pace.epochs // TRIAL_EPOCHS))
        trainer = Trainer(self._new_network(model, pace), self._loss_of(), pace, seconds, Hooks(self._tell))
        trainer.train(*self._batches(pace))
        assert trainer.course.best_loss is not None  # noqa: S101  # there was an epoch
        return trainer.course.best_loss

    def _new_network(self, model: Model, pace: Pace) -> Network:
        torch.manual_seed(pace.seed)
        network = make_network(model, self._preparation.sizes, self._job.task)
        self._check_size(network)
        network.fit_labels(self._y_N)
        return network.to(self._device)

    def _check_size(self, network: Network) -> None:
        """Refuse before it is trained what could not be written afterwards."""
        size = sum(one.numel() * one.element_size() for one in network.parameters())
        if size > MAX_BYTES:
            told = f"its weights are {size} bytes, {MAX_BYTES} allowed; make it smaller"
            raise TrainingError(f"the model of {self._job.candidate} is too large to be trained: {told}")

    def _loss_of(self) -> LossOf:
        task, weight_C = self._job.task, None
        if settings_of(self._job.model, task).get("class_weights") == "balanced":
            weights = balanced_weights(task, self._y_N)
            weight_C = torch.from_numpy(weights.astype(np.float32)).to(self._device)

        def loss(outputs_BO: Tensor, batch: Batch) -> Tensor:
            return loss_of(task, outputs_BO, batch.target_B, weight_C, batch.rows)

        return loss

    def _batches(self, pace: Pace) -> tuple[Batches, Batches]:
        training, validation = self._rows
        shared = self._device, pace.seed, self._processes.rank, self._processes.size
        return Batches(training, pace.batch, *shared), Batches(validation, JUDGED_ROWS, *shared)

    def _begin_with_parent(self, network: Network, model: Model, state: Place) -> None:
        """Take the weights of an earlier version where they fit; else say why not."""
        job = self._job
        if not job.parent_blob:
            return
        try:
            parent, told = _read_parent(state, job.parent_blob)
            if told.get("columns") != msgspec.json.encode(job.columns).decode():
                self._notes.append(f"began anew: {job.parent} has other columns")
                return
            of_parent = Preparation(job.columns, model)
            of_parent.restore(part_of(parent, PREPARATION))
        except (MillraceError, OSError) as error:
            self._notes.append(f"began anew: {job.parent} cannot be read: {error}")
            return
        fresh = {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}
        taken = warm_started(fresh, self._preparation, part_of(parent, NETWORK), of_parent)
        if isinstance(taken, str):
            self._notes.append(f"began anew: the weights of {job.parent} do not fit: {taken}")
            return
        network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in taken.items()})
        self._notes.append(f"began with the weights of {job.parent}")

    @torch.no_grad()
    def _fit_outputs(self, network: Network, pace: Pace) -> None:
        """Let an autoencoder know what errors are usual; one process alone looks at all training examples."""
        network.eval()
        if self._job.task.kind == "anomaly":
            batches = Batches(self._rows[0], JUDGED_ROWS, self._device, pace.seed)
            outputs = [network(batch.numbers_BN, batch.categories_BC).cpu() for batch in batches.in_order()]
            network.fit_outputs(torch.cat(outputs).double().numpy())

    def _fingerprint(self, examples: Examples, model: Model) -> str:
        """Name what checkpoints belong to: with other examples or settings none of them can be gone on with."""
        told = (
            self._job.columns,
            self._job.task,
            model.kind,
            dict(model.params),
            self._job.seed,
            self._job.parent_blob,
            self._to_row,
        )
        digest = hashlib.blake2b(msgspec.json.encode(told, order="sorted"), digest_size=16)
        for array in (examples.time_B, examples.known_B, examples.y_B):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def _read_parent(state: Place, blob: str) -> tuple[State, dict[str, str]]:
    """Read an earlier model's file; its name carries the first digits of its digest."""
    *folders, name = blob.split("/")
    folder = folder_of(state)
    for one in folders:
        folder /= one
    payload = folder.read(name)
    digest = digest_of(payload)[:12]
    recorded = name.partition(".")[0].rpartition("-")[2]
    if digest != recorded:
        raise ModelError(f"digest {digest} found, {recorded} in its name")
    found, told = decode(payload)
    return {name.removeprefix(INNER): array for name, array in found.items()}, told


def _read_chosen(directory: Path) -> _Chosen | None:
    try:
        return msgspec.json.decode((directory / CHOSEN).read_bytes(), type=_Chosen)
    except (OSError, msgspec.MsgspecError):
        return None  # searched again


def _with(model: Model, settings: Mapping[str, Any]) -> Model:
    return msgspec.structs.replace(model, params={**model.params, **settings})
