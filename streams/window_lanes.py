"""Which lanes a window's buckets have: what its features count, sum and keep besides, once for all that share it."""

from __future__ import annotations

from streams.distinct import distinct_words
from streams.meanings import Meanings, WindowKey
from streams.outline import Part
from streams.pipeline import Feature
from streams.plan import BINS, MAXIMUM, MINIMUM, MOMENTS, NOTHING, REGISTERS
from streams.quantiles import BINS as QUANTILE_BINS
from streams.quantiles import quantile_words

EXTRAS = {"min": MINIMUM, "max": MAXIMUM, "std": MOMENTS, "distinct": REGISTERS, "quantile": BINS}
ExtraKey = tuple[int, int, int]  # kind, field, parameter of its size


class WindowLanes:
    """What the features of one window count, sum and keep besides, each once for all that share it.

    `since` is the change of the list with which a feature began; only those that began together share (outline.py).
    """

    def __init__(self) -> None:
        self.counted: list[tuple[int, int]] = []  # what, since
        self.summed: list[tuple[int, int]] = []
        self.extras: list[tuple[ExtraKey, int]] = []
        self.first = 0  # lane

    def count(self, what: int, since: int) -> None:
        """Let there be a counter of a field's values, or of every row."""
        if (what, since) not in self.counted:
            self.counted.append((what, since))

    def sum(self, field: int, since: int) -> None:
        """Let there be a sum of a field."""
        if (field, since) not in self.summed:
            self.summed.append((field, since))

    def keep(self, extra: ExtraKey, since: int) -> None:
        """Let there be an extra lane."""
        if (extra, since) not in self.extras:
            self.extras.append((extra, since))

    def lanes(self) -> list[tuple[int, int, int, int]]:
        """Give [field or first counter, second counter, kind, size] for each word."""
        padded = [*(what for what, _ in self.counted), NOTHING]
        lanes = [(padded[at], padded[at + 1], 0, 1) for at in range(0, len(self.counted), 2)]
        lanes += [(field, NOTHING, 0, 1) for field, _ in self.summed]
        for (kind, field, parameter), _ in self.extras:
            words = extra_words(kind, parameter)
            lanes += [(field, parameter, kind, words)] * words
        return lanes

    def parts(self, meanings: Meanings, window: WindowKey) -> tuple[Part, ...]:
        """Say what the words of a bucket are, by meaning."""
        parts = [
            Part(meanings.counter(window, what), since, at // 2, 1, at % 2)
            for at, (what, since) in enumerate(self.counted)
        ]
        sums = enumerate(self.summed, self.sums_at - self.first)
        parts += [Part(meanings.sum(window, field), since, at) for at, (field, since) in sums]
        at = self.extras_at - self.first
        for extra, since in self.extras:
            words = extra_words(extra[0], extra[2])
            parts.append(Part(meanings.kept(window, extra), since, at, words))
            at += words
        return tuple(parts)

    def counter(self, what: int, since: int) -> int:
        """Give the number of a counter."""
        return 2 * self.first + self.counted.index((what, since))

    @property
    def sums_at(self) -> int:
        """Give the first sum lane."""
        return self.first + (len(self.counted) + 1) // 2

    @property
    def extras_at(self) -> int:
        """Give the first extra lane."""
        return self.sums_at + len(self.summed)

    def sum_lane(self, field: int, since: int) -> int:
        """Give the lane of a field's sum."""
        return self.sums_at + self.summed.index((field, since))

    def extra_lane(self, extra: ExtraKey, since: int) -> int:
        """Give the first word of an extra lane."""
        before = self.extras[: self.extras.index((extra, since))]
        return self.extras_at + sum(extra_words(kind, parameter) for (kind, _, parameter), _ in before)


def extra_words(kind: int, parameter: int) -> int:
    """Give the words of an extra lane."""
    if kind == REGISTERS:
        return distinct_words(parameter)
    if kind == BINS:
        return quantile_words(parameter)
    return 3 if kind == MOMENTS else 1


def extra_key(feature: Feature, what: int) -> ExtraKey:
    """Give what an operation keeps of a field besides counts and sums."""
    kind = EXTRAS[feature.operation]
    return kind, what, {REGISTERS: feature.precision, BINS: QUANTILE_BINS}.get(kind, 0)
