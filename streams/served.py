"""The stream `served`: under which name answers stand beside the candidates, and which pipelines have it."""

from __future__ import annotations

from streams.pipeline import Pipeline

SERVED = "served"
ROLE = f"learn.{SERVED}"


def has_served(pipeline: Pipeline) -> bool:
    """Whether answers are scored: where the file declares `[serve]`, and for any task but a clustering.

    An answer of a clustering tells the distance to its own cluster only, and there is no label to judge it by.
    """
    return pipeline.serve.is_declared and pipeline.task.kind != "clustering"
