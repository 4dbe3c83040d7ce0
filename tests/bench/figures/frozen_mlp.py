"""A trained network that answers: rows a second with all that is done to a row, and torch's bare forward beside it.

Both have 16 numbers and hidden layers of 256 and 128, one thread, and no more rows at a time than torch is fastest
with. The bare forward gets what ours must make first: scaled float32 tensors; and gives logits, not probabilities.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from models.networks import make_network
from models.preparation import Preparation
from models.torch_learner import BLOCK_SIZES, TorchLearner, state_of
from streams.frames import Column
from streams.pipeline import Model
from tests.bench.figure import Figure, Ratio
from tests.bench.workplace import FULL, Workplace

COLUMNS = tuple(Column(f"x{number}", False) for number in range(16))
MODEL = Model("net", "torch:mlp", {"hidden": (256, 128)})
ROWS = 8_192  # of a frame at most

FIGURES = (
    Figure("frozen_mlp", "rows/s", bound=200_000, scales=True),
    Figure("frozen_mlp_one_row", "us", bound=200, is_floor=False),
    Figure("torch_mlp", "rows/s"),
)
RATIOS = (Ratio("frozen_mlp_vs_torch", "frozen_mlp", "torch_mlp", bound=0.8),)


def measure(workplace: Workplace) -> dict[str, float]:
    """Give rows a second of batches of 8,192 rows, in turn, and how long one row alone takes."""
    torch.set_num_threads(1)
    X = np.random.default_rng(0).normal(size=(ROWS, len(COLUMNS)))
    learner = _learner(X)
    bare = torch.nn.Sequential(
        torch.nn.Linear(16, 256), torch.nn.ReLU(), torch.nn.Linear(256, 128), torch.nn.ReLU(), torch.nn.Linear(128, 1)
    )
    blocks = torch.split(torch.from_numpy(X.astype(np.float32)), BLOCK_SIZES[-1])

    def forward() -> None:
        with torch.inference_mode():
            for block in blocks:
                bare(block)

    turns = 40 if workplace.size == FULL else 8
    ours_s, bare_s = _fastest([lambda: learner.predict(X), forward], turns)
    (one_s,) = _fastest([lambda: [learner.predict(X[:1]) for _ in range(100)]], turns)
    return {"frozen_mlp": ROWS / ours_s, "torch_mlp": ROWS / bare_s, "frozen_mlp_one_row": one_s / 100 * 1e6}


def _learner(X: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> TorchLearner:
    torch.manual_seed(0)
    preparation = Preparation.fit(X, COLUMNS, MODEL)
    learner = TorchLearner(MODEL, COLUMNS)
    learner.restore(state_of(make_network(MODEL, preparation.sizes), preparation))
    return learner


def _fastest(calls: list[Callable[[], object]], turns: int) -> list[float]:
    """Give the least processor time of each call, all of them in turn, so that another load meets them alike."""
    best = [float("inf")] * len(calls)
    for _ in range(turns):
        for place, call in enumerate(calls):
            began_s = time.thread_time()
            call()
            best[place] = min(best[place], time.thread_time() - began_s)
    return best
