"""The outline of a stage's state: what its words mean, so that it can be read under another list of features.

State is arrays of words whose places follow from the order of the features. An outline names every word by what it is
of: the window, the field or condition, the operation. It travels in the snapshot, beside the words. Two features that
need the same thing share it, so a *part* of the state is known by its meaning and not by a feature's name.

A part also says with which change of the list it began (`since`, 0 is the first list). A mean has two parts, and takes
both from the same beginning: a count that is older than its sum would make it wrong.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from streams.advice import rebuild_of
from streams.errors import SnapshotError

WHOLE = -1  # instead of a half


class Part(msgspec.Struct, frozen=True, array_like=True):
    """Some words of the state, or half a word.

    Attributes:
        meaning: what it is of, whatever the features are called.
        since: the change of the list with which it began.
        word: the first, counted from where its window or head begins; of exact windows the place among their fields.
        words: how many.
        half: 0 or 1 where two counters share a word, else WHOLE.
    """

    meaning: str
    since: int
    word: int
    words: int = 1
    half: int = WHOLE

    @property
    def name(self) -> tuple[str, int]:
        """By which the same part is found in another outline."""
        return self.meaning, self.since


class WindowOutline(msgspec.Struct, frozen=True, array_like=True):
    """One window of buckets: its place in a head, the words of a bucket, and what they are."""

    meaning: str
    width_us: int
    is_of_labels: bool
    word: int
    lanes: int
    parts: tuple[Part, ...]


class Declared(msgspec.Struct, frozen=True, array_like=True):
    """One feature: the parts it reads, with which change they began, all that was declared of it, its exact window."""

    needs: tuple[str, ...]
    since: int
    text: str
    exact_us: int = 0


class Outline(msgspec.Struct, frozen=True):
    """What the state of one stage on one partition consists of.

    Attributes:
        change: how often the list was changed since the state began.
        rules: what the state cannot outlive, by what a message calls it: the key, the entities, the label's wait.
        columns: of the vectors that wait, by name and kind.
        head: the words that every entity has, by name.
        head_words: the length of a head.
        windows: those of buckets.
        late: what `late_W` counts, in its order.
        exact: the fields that exact windows keep.
        exact_word: where in a head their words begin; -1 if there are none.
        trails: in a head.
        delays: of label features (us), in the order in which held labels name them.
        features: of this stage, by name.
        is_keyed: whether entities were kept at all.
    """

    change: int
    rules: dict[str, str]
    columns: tuple[tuple[str, bool], ...]
    head: dict[str, int]
    head_words: int
    windows: tuple[WindowOutline, ...]
    late: tuple[str, ...]
    exact: tuple[Part, ...]
    exact_word: int
    trails: tuple[Part, ...]
    delays: tuple[int, ...]
    features: dict[str, Declared]
    is_keyed: bool

    def parts(self) -> set[tuple[str, int]]:
        """Name all parts there are."""
        found = {part.name for window in self.windows for part in window.parts}
        found |= {part.name for part in (*self.exact, *self.trails)}
        if self.is_keyed:
            found |= {(name, 0) for name in self.head}
        return found | ({(EXACT_ROWS, 0)} if self.exact_word >= 0 else set())

    def exact_us(self) -> int:
        """Give the longest exact window; rows are kept for twice as long."""
        return max((one.exact_us for one in self.features.values()), default=0)

    def beginnings(self) -> Beginnings:
        """Say when each feature began."""
        return Beginnings(self.change, {name: one.since for name, one in self.features.items() if one.since})

    def to_array(self) -> npt.NDArray[np.uint8]:
        """Give its form in a snapshot."""
        return np.frombuffer(msgspec.json.encode(self), np.uint8)


class Beginnings(NamedTuple):
    """How often the list was changed, and the features that began with a change: those that are not named did not."""

    change: int
    since: dict[str, int]


EXACT_ROWS = "rows of exact windows"  # the part that counts of all rows read there
FIRST_LIST = Beginnings(0, {})


def read_outline(array: npt.NDArray[np.generic]) -> Outline:
    """Read what `Outline.to_array` gave.

    Raises:
        SnapshotError: when it is none.
    """
    try:
        return msgspec.json.decode(array.tobytes(), type=Outline)
    except msgspec.MsgspecError as error:
        raise SnapshotError(
            f"the snapshot does not say what it is of: {error}; run `{rebuild_of('features')}`"
        ) from error
