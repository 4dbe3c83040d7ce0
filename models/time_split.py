"""Three parts of a span of time: what a model is trained on, chosen by, and judged by."""

from __future__ import annotations

import msgspec


class Span(msgspec.Struct, frozen=True):
    """Examples whose event lies in [from_us, to_us) and whose label was known by `known_by_us`."""

    from_us: int
    to_us: int
    known_by_us: int


class Split(msgspec.Struct, frozen=True):
    """The three parts in their order; between two of them lies a gap, so that no label was known too late."""

    train: Span
    validation: Span
    test: Span
    gap_us: int
