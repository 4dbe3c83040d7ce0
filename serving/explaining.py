"""Explained answers: what moved a prediction, behind the other fields of its answer."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from serving.answers import Rendered
from streams.records import pack


def explained(rendered: Rendered, explanations: Sequence[list[tuple[str, float]]] | None) -> Rendered:
    """Let each answer end with its `explanation`, a list of [feature, contribution]; None: they stay as they are."""
    if explanations is None:
        return rendered
    encode = msgspec.json.Encoder().encode
    values = [
        b'%b,"explanation":%b}' % (value[:-1], encode(explanation))
        for value, explanation in zip(rendered.values.unpack(), explanations, strict=True)
    ]
    return rendered._replace(values=pack(values))
