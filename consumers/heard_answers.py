"""Answers as P.predictions tells them, waiting for their events' rows among the examples.

Serve may repeat itself after a crash (PROTOCOL 24): of an event the first answer counts. Answers of a partition stand
in the order of the events' names, but where traffic is split those of two candidates change places within a batch. So
an answer counts unless the partition has told one MOST_SWAPPED names later by then (any later one, without a split),
and an event that has none by then never gets one. Both follow from the topic alone, whenever it is read.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from streams.event_numbers import MANY
from streams.frames import BEGINNING
from streams.json_lists import json_list
from streams.pipeline import Task
from streams.records import Records, value

MOST_SWAPPED = 20_000  # names; serve answers 10,000 rows in a batch at most
MOST_VERSIONS = 100  # that answers are counted of, those heard of last
NOBODY = -1

Int64s = npt.NDArray[np.int64]
Int16s = npt.NDArray[np.int16]
Floats = npt.NDArray[np.float64]
State = dict[str, npt.NDArray[np.generic]]


class _Answer(msgspec.Struct):
    """What is read of an answer of any task."""

    model: str
    version: str
    generation: int
    partition: int
    number: int


class _Probability(_Answer):
    probability: float | None

    def said(self, _: Task) -> list[float | None]:
        return [self.probability]


class _Probabilities(_Answer):
    probabilities: dict[str, float | None]

    def said(self, task: Task) -> list[float | None]:
        return [self.probabilities.get(name) for name in task.classes]


class _Number(_Answer):
    prediction: float | None

    def said(self, _: Task) -> list[float | None]:
        return [self.prediction]


class _Score(_Answer):
    prediction: int
    score: float | None

    def said(self, _: Task) -> list[float | None]:
        return [self.score, -np.inf if self.prediction else np.inf]  # a threshold that gives the same alert


_SHAPES: dict[str, type[_Answer]] = {
    "binary": _Probability,
    "multiclass": _Probabilities,
    "regression": _Number,
    "anomaly": _Score,
}


class Found(NamedTuple):
    """What is known of events: NaN where nothing was said, and who has said it, an index into `models`."""

    said_NS: Floats
    who_N: Int16s
    is_known_N: npt.NDArray[np.bool_]  # or known to come no more


class Answers:
    """The answers of all partitions that wait for their events.

    Args:
        task: of the pipeline; any but a clustering.
        is_split: whether candidates share the traffic.

    Attributes:
        models: who has ever answered.
        given: answers that counted, by model.
        versions: the same by model and version, of those that were heard of last.
        heard: how many records were read.
        counted: how many of them counted; the others are repeats, late, or no answers.
    """

    def __init__(self, task: Task, *, is_split: bool = False) -> None:
        self.outputs = 2 if task.kind == "anomaly" else task.outputs
        self.models: list[str] = []
        self.given: dict[str, int] = {}
        self.versions: dict[tuple[str, str], int] = {}
        self.heard = self.counted = 0
        self._task, self._most_swapped = task, MOST_SWAPPED if is_split else 0
        self._shape: Any = _SHAPES[task.kind]
        self._decoder: Any = msgspec.json.Decoder(list.__class_getitem__(self._shape))
        self._waiting: dict[int, _Waiting] = {}

    def hear(self, partition: int, records: Records) -> None:
        """Take records of a partition, in order."""
        found = [one for one in self._read(records) if one.partition == partition]
        self.heard += records.sizes.size
        if found:
            name = np.array([one.generation * MANY + one.number for one in found], np.int64)
            said = np.array([one.said(self._task) for one in found], np.float64)
            who = np.array([self._index(one.model) for one in found], np.int16)
            is_new = self._of(partition).add(name, said, who, self._most_swapped)
            self.counted += int(np.count_nonzero(is_new))
            self._count_versions(Counter((one.model, one.version) for one in itertools.compress(found, is_new)))

    def _read(self, records: Records) -> list[Any]:
        """Decode all at once, or one by one where one of them is no answer of ours."""
        try:
            found: list[Any] = self._decoder.decode(json_list(records).data)
            if len(found) == records.sizes.size:
                return found
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
        found = []
        for i in range(records.sizes.size):
            try:
                found.append(msgspec.json.decode(value(records, i) or b"", type=self._shape))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                continue
        return found

    def find(self, partition: int, name_N: Int64s) -> Found:
        """Give what was said of events of a partition."""
        return self._of(partition).find(name_N, self.outputs, self._most_swapped)

    def pass_to(self, partition: int, name: int) -> None:
        """Forget the answers to events below a name: their rows have passed, or never come."""
        self._of(partition).pass_to(name)

    def waiting(self, partition: int) -> int:
        """Count the answers of a partition that wait."""
        return int(self._of(partition).name.size)

    def _of(self, partition: int) -> _Waiting:
        return self._waiting.setdefault(partition, _Waiting(self.outputs))

    def _index(self, model: str) -> int:
        if model not in self.models:
            self.models.append(model)
        return self.models.index(model)

    def _count_versions(self, counts: Counter[tuple[str, str]]) -> None:
        for version, count in counts.items():
            self.given[version[0]] = self.given.get(version[0], 0) + count
            self.versions[version] = self.versions.pop(version, 0) + count  # the last place is the newest's
        for version in list(self.versions)[:-MOST_VERSIONS]:
            del self.versions[version]

    def state(self) -> State:
        """Give what waits, and the counts."""
        parts = sorted(self._waiting.items())
        counts = [[*version, count] for version, count in self.versions.items()]
        about = msgspec.json.encode({"models": self.models, "given": self.given, "versions": counts})
        return {
            "partition": np.array([partition for partition, _ in parts], np.int64),
            "size": np.array([one.name.size for _, one in parts], np.int64),
            "newest": np.array([one.newest for _, one in parts], np.int64),
            "passed": np.array([one.passed for _, one in parts], np.int64),
            "name": np.concatenate([np.empty(0, np.int64), *(one.name for _, one in parts)]),
            "said": np.concatenate([np.empty((0, self.outputs)), *(one.said for _, one in parts)]),
            "who": np.concatenate([np.empty(0, np.int16), *(one.who for _, one in parts)]),
            "counts": np.array([self.heard, self.counted], np.int64),
            "about": np.frombuffer(about, np.uint8),
        }

    def restore(self, state: State) -> None:
        """Take back what `state` gave.

        Raises:
            KeyError, ValueError: arrays are absent or do not fit together.
        """
        ends = np.cumsum(state["size"].astype(np.int64))[:-1]
        columns = [np.split(state[name], ends) for name in ("name", "said", "who")]
        marks = [state[name].tolist() for name in ("partition", "newest", "passed")]
        for (partition, newest, passed), *rows in zip(zip(*marks, strict=True), *columns, strict=False):
            self._waiting[partition] = one = _Waiting(self.outputs)
            one.newest, one.passed = newest, passed
            one.name, one.said, one.who = (row.copy() for row in rows)
        self.heard, self.counted = state["counts"].tolist()
        about = msgspec.json.decode(state["about"].tobytes())
        self.models[:] = about["models"]  # others hold the same list
        self.given = about["given"]
        self.versions = {(model, version): count for model, version, count in about["versions"]}


class _Waiting:
    """The answers of one partition that wait, in the order of names."""

    def __init__(self, outputs: int) -> None:
        self.newest = self.passed = BEGINNING + MOST_SWAPPED
        self.name, self.who = np.empty(0, np.int64), np.empty(0, np.int16)
        self.said = np.empty((0, outputs))

    def add(self, name: Int64s, said: Floats, who: Int16s, most_swapped: int) -> npt.NDArray[np.bool_]:
        """Take answers in order; says which of them count."""
        before = np.maximum.accumulate(np.concatenate([[self.newest], name]))
        self.newest = int(before[-1])
        is_new: npt.NDArray[np.bool_] = (name > before[:-1] - most_swapped) & (name >= self.passed)
        if most_swapped:
            is_new &= ~np.isin(name, self.name)
            is_first = np.zeros(name.size, np.bool_)
            is_first[np.unique(name, return_index=True)[1]] = True
            is_new &= is_first
        self.name = np.concatenate([self.name, name[is_new]])
        self.said, self.who = np.concatenate([self.said, said[is_new]]), np.concatenate([self.who, who[is_new]])
        if most_swapped:
            order = np.argsort(self.name)
            self.name, self.said, self.who = self.name[order], self.said[order], self.who[order]
        return is_new

    def find(self, name_N: Int64s, outputs: int, most_swapped: int) -> Found:
        at = np.searchsorted(self.name, name_N)
        is_there = at < self.name.size
        is_there[is_there] = self.name[at[is_there]] == name_N[is_there]
        said, who = np.full((name_N.size, outputs), np.nan), np.full(name_N.size, NOBODY, np.int16)
        said[is_there], who[is_there] = self.said[at[is_there]], self.who[at[is_there]]
        return Found(said, who, is_there | (name_N <= self.newest - most_swapped))

    def pass_to(self, name: int) -> None:
        self.passed = max(self.passed, name)
        first = int(np.searchsorted(self.name, self.passed))
        self.name, self.said, self.who = self.name[first:], self.said[first:], self.who[first:]
