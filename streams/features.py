"""Which columns a pipeline's feature matrix has."""

from __future__ import annotations

from streams.frames import Column
from streams.pipeline import Feature, Pipeline

_CODED = ("last", "lag")  # of a category they give its code


def columns(pipeline: Pipeline) -> tuple[Column, ...]:
    """Name the feature matrix: raw fields in declared order, then features in declared order.

    A cyclic feature gives two columns, `<name>_sin` and `<name>_cos`, one_hot one for each value, `<name>_<value>`.
    """
    raw = pipeline.events.fields if pipeline.raw_features else ()
    categories = {field.name for field in pipeline.events.fields if field.kind == "category"}
    named = [Column(field.name, field.kind == "category") for field in raw]
    named += [Column(name, _is_category(f, categories)) for f in pipeline.features for name in f.columns]
    return tuple(named)


def _is_category(feature: Feature, categories: set[str]) -> bool:
    return feature.operation == "hash" or (feature.operation in _CODED and feature.of in categories)
