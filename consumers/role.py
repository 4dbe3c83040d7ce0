"""What a role is to the worker loop: where it reads, what it writes, and the pure task it runs per input partition.

Roles are pure: a task turns rows of one partition into outputs and state, without clock, I/O or randomness. Tests run
tasks and whole workers without Kafka.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from streams.building import Located
from streams.control import Claim
from streams.frames import Batch, FrameSchema, Outgoing, Rows, Spread
from streams.metrics import RoleMetrics
from streams.records import Records
from streams.snapshots import State
from streams.tables import Table

R = TypeVar("R", Table, Located)


class Task(Protocol):
    """The state of one role on one input partition."""

    def process(self, batch: Batch) -> Sequence[Rows | Spread | Outgoing]:
        """Take rows in order and give what they cause. Called once per step, with all rows that may be taken."""

    def state(self) -> State:
        """Give everything the next worker needs, as arrays."""

    def restore(self, state: State) -> None:
        """Take back what `state` gave. Called once, before the first `process`."""

    def is_sound(self) -> bool:
        """Whether the state may be saved; if not, the last good snapshot stays. Asked before every snapshot."""

    def measure(self, metrics: RoleMetrics) -> None:
        """Set gauges. Called about once a second."""


class Skipping(Protocol):
    """A task whose outputs outside frames must not be repeated after a crash (serve, PROTOCOL 24)."""

    def answered(self, values: list[bytes]) -> None:
        """Take records found in the output after a start; their rows are skipped."""

    def is_skip_done(self) -> bool:
        """Whether all records found answered have been passed."""


class Heard(msgspec.Struct, frozen=True):
    """What ingest has heard of a raw partition; its commits carry it as metadata, for itself and for its siblings.

    `time_us` is the largest time taken in, BEGINNING if there was none, `stamp_us` that record's Kafka timestamp.
    """

    topic_id: str
    time_us: int
    stamp_us: int


class Hearing(Protocol):
    """An inlet that reads raw records (ingest): how far it has heard of its partition."""

    largest_time: int
    largest_stamp: int


class Decoded(NamedTuple, Generic[R]):
    """Messages of one partition as rows, in order; `offsets` and `stamps` (us) are those of each row's message."""

    rows: R
    offsets: npt.NDArray[np.int64]
    stamps: npt.NDArray[np.int64]


Pieces = Sequence[Decoded[Table]] | Sequence[Decoded[Located]]
"""What one poll gave of a partition, in order, cut where its rows do not lie together."""


class Inlet(Protocol):
    """How messages of one partition become rows, and what is remembered of those taken."""

    def decode(self, records: Records) -> Decoded[Table]:
        """Turn records into rows, which need them no more."""

    def admit(self, rows: Table) -> tuple[Batch, npt.NDArray[np.int64] | None]:
        """Drop repeats and run the clocks; gives the indexes kept, None for all."""

    def mark(self) -> int:
        """Time up to which this partition has been read and taken (us)."""

    def state(self) -> State:
        """Arrays for the snapshot."""

    def restore(self, state: State) -> None:
        """Take back what `state` gave."""


class OpenPartition(Protocol):
    """An input partition at hand, as a role sees it in `tick`."""

    topic: str
    partition: int
    generation: int
    inlet: Inlet
    task: Task
    has_changed: bool  # since it was saved last

    def is_at_end(self) -> bool:
        """Ask the broker whether everything there is now was read and taken."""

    def heard(self) -> list[Heard]:
        """Ask the group what it has heard of the topic's partitions, whichever worker has them."""


class Role(Protocol):
    """What differs between roles. All attributes are fixed before the worker starts."""

    name: str  # the consumer group is `<pipeline>.<name>`, the snapshots lie under `<name>/`
    inputs: tuple[str, ...]  # full topic names, in merge order (events before labels)
    reads: FrameSchema | None  # the frames of its inputs; None for raw records
    writes: Mapping[str, FrameSchema]  # inner topics it writes frames to, without the pipeline's prefix
    has_state: bool  # False for ingest: it starts at its committed offset
    start: str  # where serving begins without snapshot and witness: "earliest" or "latest"
    is_renewable: bool  # whether it goes on by itself, as something new, when its input was cut by retention
    gathers: float  # for how many of `poll_interval` the broker lets records gather
    most_rows: int  # of a step: more spread what a step costs by itself, and take memory
    ahead_kib: int  # how much may be fetched of each partition before it is wanted: speed for memory
    answers_to: str | None  # the topic whose records must not be repeated, without the prefix

    @property
    def is_full(self) -> bool:
        """Whether no more is to be read for now, for what it waits for comes another way. Asked at every poll."""

    def claims(self, topic: str, topic_id: str, partition: int, generation: int, siblings: int) -> list[Claim]:
        """Name the sources this role writes as, for one input partition; none for roles that write no frames."""

    def inlet(self, topic: str, partition: int, sources: list[int]) -> Inlet:
        """Make the inlet of one input partition."""

    def decode(self, found: Sequence[tuple[Inlet, Records]]) -> Sequence[Pieces]:
        """Turn what one poll gave of several partitions into rows; releases the records, unless these lie in them."""

    def task(self, inlet: Inlet, partition: int, sources: list[int], generation: int) -> Task:
        """Make the task of one input partition."""

    def renew(self, task: Task, given_up: State, reason: str) -> None:
        """Make a task, still without state, the successor of one whose state is given up (`is_renewable` roles)."""

    def mark_targets(self, partition: int) -> list[tuple[str, int]]:
        """Name the output partitions that a partition's marks go to."""

    def tick(self, now_us: int, partitions: Sequence[OpenPartition]) -> None:
        """Do what goes by the wall clock (publish versions, follow the champion). Called about every 50 ms."""
