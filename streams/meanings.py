"""What fields, windows and trails mean, in words that do not depend on how a plan numbers them (see outline.py).

What a state is made of, besides its declaration, is in its words: the path of a field and its kind, the fields of a
condition, what counts as a missing label. Where one of these changes, the words differ and the state is another.
"""

from __future__ import annotations

from collections.abc import Sequence

from streams.pipeline import Field, Pipeline
from streams.plan import (
    BINS,
    EVERY_ROW,
    MAXIMUM,
    MINIMUM,
    MOMENTS,
    REGISTERS,
    TRAIL_LAG,
    TRAIL_LAST,
    Filtered,
)
from streams.stages import ID, KEY, Entity, stage_specs

WindowKey = tuple[int, int | None, bool]  # length, of labels the delay (us), whether it is exact

_EXTRAS = {MINIMUM: "minimum", MAXIMUM: "maximum", MOMENTS: "moments", REGISTERS: "registers", BINS: "bins"}


class Meanings:
    """Names what a stage's plan numbers.

    Args:
        pipeline: the pipeline.
        fields: those the stage reads, as numbered.
        filtered: numbered behind them.
    """

    def __init__(self, pipeline: Pipeline, fields: Sequence[Field], filtered: Sequence[Filtered]) -> None:
        self._labels = pipeline.labels
        self._fields, self._filtered = fields, filtered
        self._declared = {field.name: field for field in pipeline.events.fields}

    def field(self, number: int) -> str:
        """Say what a number stands for: every row, a field, or a field where a condition holds."""
        if number == EVERY_ROW:
            return "every row"
        if number < len(self._fields):
            return _field(self._fields[number])
        of, condition = self._filtered[number - len(self._fields)]
        read = ", ".join(_field(self._declared[name]) for name in condition.fields)
        return f"{self.field(of)} where {condition.text} ({read})"

    def window(self, key: WindowKey) -> str:
        """Name a window."""
        width_us, delay_us, is_exact = key
        if delay_us is None:
            return f"{width_us} us of events{', exact' if is_exact else ''}"
        labels = f"labels ({'.'.join(self._labels.value)}, missing {self._labels.missing})"
        return f"{width_us} us of {labels} {delay_us} us late"

    def counter(self, window: WindowKey, number: int) -> str:
        """Name a counter of a window."""
        return f"{self.window(window)}: count of {self._of(window, number)}"

    def sum(self, window: WindowKey, number: int) -> str:
        """Name a sum lane of a window."""
        return f"{self.window(window)}: sum of {self._of(window, number)}"

    def kept(self, window: WindowKey, key: tuple[int, int, int]) -> str:
        """Name an extra lane of a window by its kind, field and size."""
        kind, number, parameter = key
        return f"{self.window(window)}: {_EXTRAS[kind]} of {self._of(window, number)}, size {parameter}"

    def _of(self, window: WindowKey, number: int) -> str:
        return self.field(number) if window[1] is None else "the label"

    def trail(self, kind: int, number: int, places: int, span_us: int) -> str:
        """Name a trail. How old a last value may be is asked when it is read, and is no part of what is kept."""
        of = self.field(number)
        if kind == TRAIL_LAST:
            return f"last {of}"
        return f"lag {places} of {of}" if kind == TRAIL_LAG else f"weights {span_us} us of {of}"


def _field(field: Field) -> str:
    return f"{field.kind} {'.'.join(field.path)}"


def rules(pipeline: Pipeline) -> dict[str, str]:
    """Name what no state outlives: by these rules its tables know events and entities."""
    events, labels = pipeline.events, pipeline.labels
    entities = [_entity(pipeline, spec.entity) for spec in stage_specs(pipeline)]
    return {
        "the task": pipeline.task.label,  # a class travels as its place in the file
        "the events' key": _path(events.key),
        "the events' id": _path(events.id),
        "the labels' key": _path(labels.key),
        "the labels' id": _path(labels.id),
        "what labels are matched by": labels.match + f" within {labels.within_us / 1e6:g} s" * bool(labels.within_us),
        "the labels' wait": f"{labels.wait_us / 1e6:g} s",
        "the entities of the stages": ", then ".join(entities),
        "what is kept of entities": ", then ".join(
            "bounded" if spec.bound else "all" for spec in stage_specs(pipeline)
        ),
    }


def _path(path: Sequence[str] | None) -> str:
    return ".".join(path) if path else "none"


def _entity(pipeline: Pipeline, entity: Entity) -> str:
    paths = {field.name: ".".join(field.path) for field in pipeline.events.fields}
    if entity == ID:
        return "the id"
    return "the key" if entity == KEY else " and ".join(paths.get(name, name) for name in entity)
