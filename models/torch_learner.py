"""A trained network as a learner: it answers, and learns nothing until the next training.

What this keeps: predicting changes nothing, and the bits of an answer depend on its row alone (row_blocks.py). Before
the first training it answers as one that knows nothing. Its state is all of the network's arrays under `network.` and
all of the preparation's under `preparation.`; weights are float32, in any order, and are read without running anything.

`as_online` makes the compiled multi-layer perceptron of a `torch:mlp`: the same weights, from then on learned online.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch

from models.learner import MAX_MAGNITUDE, PREDICT, Actions, Matrix, State, Vector, settings_of, untrained_score
from models.mlp import MOST_WEIGHT, TABLE, MlpLearner
from models.networks import Mlp, Network, make_network
from models.preparation import Preparation, Sizes
from models.row_blocks import Rows, ask_in_blocks, trusted_sizes
from streams.errors import ModelError, PipelineError
from streams.frames import Column
from streams.pipeline import Model, Task
from streams.snapshots import part_of

BLOCK_SIZES = (16, 64, 512)  # one row is asked in 50 us of 16; behind 512 of 256-128 units a cache is full
ONLINE = {"optimizer": "sgd", "lr": 0.005}  # of a trained network that learns on: it must not be thrown by one row
_LEAST = (0.0, -MAX_MAGNITUDE, 0.0)  # of a scale of labels: how many, mean, variance
_ZERO = torch.zeros(1, dtype=torch.float64)
NETWORK, PREPARATION = "network.", "preparation."


class TorchLearner:
    """The network that `torch:<kind>` names, frozen between trainings.

    Params: of each kind its own and those of its training (docs/networks.md).

    Example:
        >>> learner = TorchLearner(Model("net", "torch:mlp", {"hidden": (8,)}), (Column("x", False),), Task())
        >>> learner.predict(np.array([[1.0], [3.0]]))
        array([0.5, 0.5])
    """

    def __init__(self, model: Model, columns: tuple[Column, ...], task: Task | None = None) -> None:
        self._model, self._columns, self._task = model, columns, task or Task()
        self._network: Network | None = None
        self._preparation = Preparation(columns, model)
        self._sizes: tuple[int, ...] = BLOCK_SIZES[:1]
        self._replaced = 0
        _outline(model, self._preparation.sizes, self._task)  # so that what is wrong with the settings is said at once
        if model.retrain is not None and model.retrain.then == "learn":
            _check_online(model, self._task)

    def predict(self, X_BF: Matrix) -> Vector:
        """Give each row's probability of yes, of each class ([B, C]), the number, or how unusual it is."""
        if self._network is None or not len(X_BF):
            score_BS = np.full((len(X_BF), max(1, len(self._task.classes))), untrained_score(self._task))
        else:
            with _asking():
                score_BS = ask_in_blocks(self._ask, (X_BF,), self._sizes)
            score_BS = self._replace(score_BS)
        return score_BS if self._task.classes else score_BS[:, 0]

    def learn(self, X_BF: Matrix, y_B: Vector) -> None:
        """Learn nothing."""

    def step(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> Vector:
        """Answer the rows to predict, all in one call; NaN for others."""
        is_asked = action_B == PREDICT
        if is_asked.all():
            return self.predict(X_BF)
        said = self.predict(X_BF[is_asked])
        score_B = np.full((len(X_BF), *said.shape[1:]), np.nan)
        score_B[is_asked] = said
        return score_B

    def state(self) -> State:
        """Copy the arrays of the network and of its preparation; nothing before the first training."""
        return {} if self._network is None else state_of(self._network, self._preparation)

    def restore(self, state: State) -> None:
        """Take the state of a trained network of the same settings and columns; one without arrays is untrained.

        Raises:
            ModelError: an array is missing or unknown, of another shape or kind; then nothing has changed.
        """
        if not state:
            self._network, self._preparation = None, Preparation(self._columns, self._model)
            return
        preparation = Preparation(self._columns, self._model)
        preparation.restore(part_of(state, PREPARATION))
        network = _restored(self._model, preparation.sizes, self._task, part_of(state, NETWORK))
        if unknown := sorted(name for name in state if not name.startswith((NETWORK, PREPARATION))):
            raise ModelError(f"a network of another kind: {unknown[0]} found, which is none of its arrays")
        self._network, self._preparation = network, preparation
        with _asking():
            self._sizes = trusted_sizes(self._answer, _probe(preparation.sizes), BLOCK_SIZES)

    def is_finite(self) -> bool:
        """Check every weight and statistic."""
        if self._network is None:
            return True
        tensors = self._network.state_dict().values()
        return self._preparation.is_finite() and all(bool(torch.isfinite(tensor).all()) for tensor in tensors)

    def size_bytes(self) -> int:
        """Give the memory of weights, statistics and vocabularies."""
        if self._network is None:
            return 0
        tensors = self._network.state_dict().values()
        return self._preparation.size_bytes() + sum(int(tensor.nbytes) for tensor in tensors)

    @property
    def replaced_predictions(self) -> int:
        """Give how many predictions were not finite, and answered as if nothing had been learned."""
        return self._replaced

    def _ask(self, rows: Rows) -> Matrix:
        (X_RF,) = rows
        return self._answer(
            self._preparation.apply(cast("Matrix", X_RF))
        )  # block by block, while what it makes is in the cache

    def _answer(self, rows: Rows) -> Matrix:
        assert self._network is not None  # noqa: S101  # only asked when trained
        numbers_BN, categories_BC = rows
        return self._network.answers(self._network(torch.from_numpy(numbers_BN), torch.from_numpy(categories_BC)))

    def _replace(self, score_BS: Matrix) -> Matrix:
        is_wrong_B = ~np.isfinite(score_BS).all(axis=1)
        if is_wrong_B.any():  # weights so large that a sum is beyond float32
            self._replaced += int(is_wrong_B.sum())
            score_BS[is_wrong_B] = untrained_score(self._task)
        return score_BS


def state_of(network: Network, preparation: Preparation) -> State:
    """Give the state of a learner that answers by this network: what a trainer writes, and `restore` takes."""
    arrays = {NETWORK + name: tensor.detach().cpu().numpy().copy() for name, tensor in network.state_dict().items()}
    return arrays | {PREPARATION + name: array for name, array in preparation.state().items()}


def as_online(state: State, model: Model, columns: tuple[Column, ...], task: Task) -> MlpLearner:
    """Make the compiled multi-layer perceptron with the weights of a trained `torch:mlp`, to learn on from there.

    Its weights are the network's, exactly, in float64; its scaler is the preparation's. What it predicts differs only
    by the rounding of float32. It learns by `ONLINE`; dropout is of trainings only.

    Raises:
        ModelError: the state is not of such a network.
        PipelineError: it has more units or categories than the compiled one may have.
    """
    learner = _online(model, columns, task)
    trained = TorchLearner(model, columns, task)
    trained.restore(state)
    network, preparation = trained._network, trained._preparation  # noqa: SLF001  # its own way out
    if not isinstance(network, Mlp):
        return learner
    scaler = preparation.scaler._asdict()
    label = {"label": network.label.numpy().copy()} if task.kind == "regression" else {}
    learner.restore(learner.state() | scaler | label)
    learner.take_torch_weights(_online_weights(network))
    return learner


def _online_weights(network: Mlp) -> State:
    """Give a network's weights by the names that the compiled one has for them."""
    found: dict[str, Any] = {}
    for place, layer in enumerate(network.layers):
        found |= {f"{2 * place}.{name}": tensor.numpy() for name, tensor in layer.state_dict().items()}
    if network.categories is not None:
        found[TABLE] = network.categories.weight.detach().numpy()[:-1]  # without the row of what is missing
    return found


def online_model(model: Model, task: Task) -> Model:
    """Give the declaration of the compiled multi-layer perceptron that a `torch:mlp` goes on as."""
    settings = settings_of(model, task)
    kept = {name: settings[name] for name in ("hidden", "activation", "bits", "seed")}
    return Model(model.name, "mlp", {**kept, **ONLINE})


def _online(model: Model, columns: tuple[Column, ...], task: Task) -> MlpLearner:
    return MlpLearner(online_model(model, task), columns, task)


def _check_online(model: Model, task: Task) -> None:
    """See that the compiled multi-layer perceptron can have these settings."""
    try:
        _online(model, (), task)
    except PipelineError as error:
        hint = ' (for retrain.then = "learn")'
        raise PipelineError([mistake + hint for mistake in error.mistakes]) from None


def _outline(model: Model, sizes: Sizes, task: Task) -> Network:
    """Make a network that has shapes and no numbers; costs no memory, whatever its size."""
    with torch.device("meta"):
        return make_network(model, sizes, task).eval()


def _restored(model: Model, sizes: Sizes, task: Task, found: State) -> Network:
    """Make the network that has these arrays, once each is known to be one of its own."""
    needed = _outline(model, sizes, task).state_dict()
    if unknown := sorted(found.keys() - needed.keys()):
        raise ModelError(f"a network of another kind: {unknown[0]} found; needed are {', '.join(needed)}")
    tensors = {name: _tensor(name, found.get(name), outline) for name, outline in needed.items()}
    _check_scales(tensors)
    with torch.random.fork_rng(devices=[]):  # a trainer in this process draws on from where it was
        network = make_network(model, sizes, task)
    network.load_state_dict(tensors)
    return network.eval()


def _tensor(name: str, found: Any, outline: torch.Tensor) -> torch.Tensor:
    shape, kind = tuple(outline.shape), str(outline.dtype).removeprefix("torch.")
    if found is None or found.shape != shape or found.dtype.name != kind:
        what = "none" if found is None else f"{found.dtype.name} of shape {found.shape}"
        raise ModelError(f"a network is not whole: {name} is {what}, {kind} of shape {shape} needed; train it again")
    if kind == "float32" and not bool((np.abs(found) <= MOST_WEIGHT).all()):
        raise ModelError(f"a network nobody can ask: {name} has a weight that is not finite or beyond {MOST_WEIGHT:g}")
    return torch.tensor(found)


def _check_scales(tensors: dict[str, torch.Tensor]) -> None:
    """Refuse scales of labels and quantiles of errors that no training gives."""
    label, error = tensors.get("label"), tensors.get("error")
    if label is not None and not bool(
        ((label.abs() <= MAX_MAGNITUDE**2 * 4) & (label >= label.new_tensor(_LEAST))).all()
    ):
        raise ModelError(f"a network nobody can ask: its label is no scale, {label.tolist()} found; train it again")
    if error is not None and not (bool(torch.isfinite(error).all()) and bool((error.diff(prepend=_ZERO) >= 0.0).all())):
        raise ModelError("a network nobody can ask: its error is no list of quantiles, which ascend from 0")


def _probe(sizes: Sizes) -> Rows:
    """Make up rows, each different, as many as the largest block has."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(BLOCK_SIZES[-1], sizes.numbers)).astype(np.float32)
    columns = [rng.integers(0, entries, BLOCK_SIZES[-1]) for entries in sizes.vocabularies]
    categories = np.stack(columns, axis=1) if columns else np.empty((BLOCK_SIZES[-1], 0))
    return numbers, categories.astype(np.int32)


@contextmanager
def _asking() -> Iterator[None]:
    """Keep torch to one thread, without gradients: several would add up in another order, and share a machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)
