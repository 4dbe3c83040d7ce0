"""A model that learns on more than one core: shards that learn different keys, merged again and again.

Each row belongs to the shard of its key. All shards learn side by side, in threads (kernels let the interpreter go).
After every `MERGE_EVERY` learned rows their models become one (merging.py), which answers until the next merge and with
which the shards of a linear model go on. When that is depends on the rows alone, so cutting them into other batches
changes no bit, and threads share nothing between two merges.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.learner import LEARN, SKIP, Actions, Learner, Matrix, State, Vector
from models.merging import Merge, merge_counts, merge_linear, merge_means, resume_linear
from streams.errors import ModelError, PipelineError
from streams.hashing import hash_column
from streams.layouts import Text
from streams.pipeline import Model, Task

MERGE_EVERY = 16_384  # learned rows: joining tables of 2**18 weights costs milliseconds
LEAST_THREADED = 256  # rows to learn; fewer are not worth a thread
_SEED = 0x51A2D5  # its own, or the keys of one partition would meet in one shard
_LEARNED = "learned"

Ints = npt.NDArray[np.int64]


class Way(NamedTuple):
    """How models of a kind become one, and what each then goes on with."""

    merge: Merge
    resume: Callable[[State, State], State] | None = None


WAYS = {
    "prior": Way(merge_counts),
    "prior regression": Way(merge_means),
    "linear": Way(merge_linear, resume_linear),
}


def way_of(model: Model, task: Task) -> Way:
    """Give how models of this kind become one.

    Raises:
        PipelineError: they cannot.
    """
    found = WAYS.get(f"{model.kind} {task.kind}") or WAYS.get(model.kind)
    if found is None or model.params.get("optimizer", "sgd") != "sgd":  # moments of several cannot be put together
        raise PipelineError([f"[models.{model.name}] shards: models of kind {model.kind!r} cannot become one"])
    return found


class ShardedLearner:
    """Learns as several models of one kind, answers as one.

    Give the keys of the next rows to `place` before they are learned; rows are stepped in the same order. `merged` is
    the model of the last merge, which answers; a version is made of it. `threads_s` is the CPU time of its threads so
    far, which a clock of the caller's own thread does not see.

    Args:
        make: gives an untrained learner of the kind.
        shards: how many learn side by side.
        way: how they become one.
        merge_every: learned rows between merges.
        clock: CPU seconds of the thread that asks.
    """

    def __init__(
        self,
        make: Callable[[], Learner],
        shards: int,
        way: Way,
        merge_every: int = MERGE_EVERY,
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self.merged, self._shards = make(), [make() for _ in range(shards)]
        self._way, self._merge_every = way, merge_every
        self._learned: Ints = np.zeros(shards, np.int64)  # by each shard since the last merge
        self._places: Ints = np.empty(0, np.int64)
        self.threads_s = 0.0
        self._clock = clock
        self._threads = ThreadPoolExecutor(shards, thread_name_prefix="shard")

    def place(self, keys: Text) -> None:
        """Take the keys of rows that will be stepped; a missing key counts as an empty one."""
        hashes = hash_column(keys.offsets, keys.data, _SEED)
        self._places = np.concatenate([self._places, (hashes % np.uint64(len(self._shards))).astype(np.int64)])

    def predict(self, X_BF: Matrix) -> Vector:
        """Answer with the model of the last merge."""
        return self.merged.predict(X_BF)

    def learn(self, X_BF: Matrix, y_B: Vector) -> None:
        """Learn the rows, each in the shard of its key."""
        self.step(X_BF, y_B, np.full(len(y_B), LEARN, np.int8))

    def step(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> Vector:
        """Take the rows in order; a merge falls between two rows, wherever the batch ends."""
        place_B, self._places = self._places[: len(y_B)], self._places[len(y_B) :]
        if place_B.size != len(y_B):
            raise ValueError(f"{len(y_B)} rows to step, {place_B.size} placed")
        is_learned_B = (action_B == LEARN) & ~np.isnan(y_B)
        before_B = np.cumsum(is_learned_B) - is_learned_B + self._learned.sum()
        said = []
        for start, stop in self._cuts(before_B):
            rows = slice(start, stop)
            said.append(self.merged.step(X_BF[rows], y_B[rows], np.where(is_learned_B[rows], SKIP, action_B[rows])))
            self._learn(X_BF[rows], y_B[rows], np.where(is_learned_B[rows], place_B[rows], -1))
            if self._learned.sum() == self._merge_every:
                self._merge()
        return np.concatenate(said) if said else self.merged.step(X_BF, y_B, action_B)

    def _cuts(self, before_B: Ints) -> list[tuple[int, int]]:
        """Give the stretches of rows between merges; `before_B` counts rows learned since the last one before each."""
        merges = np.flatnonzero(np.diff(before_B // self._merge_every, prepend=0)).tolist()
        ends = [0, *merges, before_B.size]
        return [(start, stop) for start, stop in pairwise(ends) if start < stop]

    def _learn(self, X_BF: Matrix, y_B: Vector, shard_B: Ints) -> None:
        def learn(shard: int) -> float:
            began_s = self._clock()
            mine = np.flatnonzero(shard_B == shard)
            if mine.size:
                self._shards[shard].learn(np.ascontiguousarray(X_BF[mine]), y_B[mine])
            return self._clock() - began_s

        shards, counts = range(len(self._shards)), np.bincount(shard_B + 1, minlength=len(self._shards) + 1)[1:]
        if counts.sum() < LEAST_THREADED:
            for shard in shards:
                learn(shard)
        else:
            self.threads_s += sum(self._threads.map(learn, shards))
        self._learned += counts

    def _merge(self) -> None:
        states = [shard.state() for shard in self._shards]
        merged = self._way.merge(states, self._learned / self._learned.sum())
        self.merged.restore(merged)
        if self._way.resume is not None:
            for shard, state in zip(self._shards, states, strict=True):
                shard.restore(self._way.resume(state, merged))
        self._learned[:] = 0

    def state(self) -> State:
        """Give the merged model and those of all shards."""
        parts = {"merged": self.merged, **{str(place): shard for place, shard in enumerate(self._shards)}}
        state = {f"{part}.{name}": array for part, one in parts.items() for name, array in one.state().items()}
        return {**state, _LEARNED: self._learned.copy()}

    def restore(self, state: State) -> None:
        """Take back as many shards."""
        learned = np.asarray(state.get(_LEARNED, ()), np.int64)
        if learned.shape != (len(self._shards),):
            found = learned.size or "no"
            text = f"a model of {len(self._shards)} shards is asked for, the state has {found}"
            raise ModelError(text)
        parts: dict[str, State] = {}
        for name, array in state.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = array
        self.merged.restore(parts.get("merged", {}))
        for place, shard in enumerate(self._shards):
            shard.restore(parts.get(str(place), {}))
        self._learned = learned.copy()

    def is_finite(self) -> bool:
        """Check every shard, and what they made together."""
        return all(one.is_finite() for one in (self.merged, *self._shards))

    def size_bytes(self) -> int:
        """Give the memory of all of them."""
        return sum(one.size_bytes() for one in (self.merged, *self._shards))
