"""Plain River driven by the rows of P.examples: predict at event rows, score and learn at label rows.

Everything Millrace adds (batches, compiled learners, pending predictions, blocks) is left out: one loop, one dict.
"""

from __future__ import annotations

import numbers
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from river import compose, linear_model, optim, preprocessing, tree

from streams.frames import EVENT, LABEL, MISSING, SET
from streams.pipeline import Pipeline
from streams.tables import Table
from tests.system.flights_run import numbered

Floats = npt.NDArray[np.float64]


class Learned(NamedTuple):
    """What a model said and became. `losses` is by source and number, NaN where nothing was learned."""

    model: Any
    predicted: Floats  # at the event rows of P.examples, in their order
    scored: Floats  # the prediction behind each label that was learned, in order
    labels: npt.NDArray[np.bool_]
    losses: dict[int, Floats]
    final: (
        Floats  # [N, 2] predictions with the labels that they have in the end, amended or not; without retracted ones
    )


def logistic(lr: float) -> Any:
    """Give the pipeline that the compiled `linear` kind must equal."""
    scaled = compose.SelectType(numbers.Number) | preprocessing.StandardScaler()
    encoded = compose.SelectType(str) | preprocessing.OneHotEncoder()
    return (scaled + encoded) | linear_model.LogisticRegression(optimizer=optim.SGD(lr))


def adaptive_tree(seed: int) -> Any:
    """Give the River candidate of the example."""
    return tree.HoeffdingAdaptiveTreeClassifier(seed=seed)


def dicts(pipeline: Pipeline, vectors_BF: Floats, names: list[str]) -> list[dict[str, Any]]:
    """Give rows as River wants them: without missing features, categories as text."""
    categories = {field.name for field in pipeline.events.fields if field.kind == "category"}
    return [
        {
            name: str(int(value)) if name in categories else value
            for name, value in zip(names, row, strict=True)
            if value == value  # noqa: PLR0124 - not NaN
        }
        for row in vectors_BF.tolist()
    ]


def without_categories(rows_x: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the same rows for a model that is declared with `categories = "drop"`."""
    return [{name: value for name, value in x.items() if not isinstance(value, str)} for x in rows_x]


def drive(model: Any, examples: Table, rows_x: list[dict[str, Any]], *, first_answer: float | None) -> Learned:
    """Run a model over the rows as written.

    Args:
        model: River's, untrained.
        examples: P.examples.
        rows_x: what `dicts` gives for `examples`.
        first_answer: the answer before the first label, where the model is not asked.
    """
    columns = ("kind", "source", "number", "label", "outcome")
    kinds, sources, names, labels, outcomes = (examples.numbers(name).tolist() for name in columns)
    is_taken = np.isin(np.arange(examples.num_rows), numbered(examples)).tolist()
    pending: dict[tuple[int, int], float] = {}
    settled: dict[tuple[int, int], float] = {}
    predicted: list[float] = []
    scored: list[float] = []
    answers: list[bool] = []
    final: dict[tuple[int, int], tuple[float, float]] = {}
    for at, x in enumerate(rows_x):
        if not is_taken[at]:
            continue
        name = (sources[at], names[at])
        if kinds[at] == EVENT:
            p = model.predict_proba_one(x).get(True, 0.0) if answers or first_answer is None else first_answer
            pending[name] = p
            predicted.append(p)
        elif kinds[at] == LABEL and outcomes[at] in {SET, MISSING}:
            p, label = pending.pop(name), labels[at]
            settled[name] = np.nan
            final[name] = p, label
            if label == label:  # noqa: PLR0124 - not NaN
                model.learn_one(x, label > 0.5)
                scored.append(p)
                answers.append(label > 0.5)
                settled[name] = loss(p, is_positive=label > 0.5)
        elif kinds[at] == LABEL and name in final:
            final[name] = final[name][0], labels[at]
    in_the_end = np.array([pair for pair in final.values() if not np.isnan(pair[1])])
    return Learned(model, np.array(predicted), np.array(scored), np.array(answers), _by_source(settled), in_the_end)


def loss(p: float, *, is_positive: bool) -> float:
    """Give the log loss of a prediction, as blocks carry it."""
    given = p if is_positive else 1.0 - p
    return float(-np.log(min(max(given, 0.001), 0.999)))


def area_under_curve(p: Floats, is_positive: npt.NDArray[np.bool_]) -> float:
    """Give the area under the ROC curve by ranks, ties at their middle."""
    _, place, count = np.unique(p, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    positives, negatives = int(is_positive.sum()), int((~is_positive).sum())
    return float((rank[is_positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _by_source(settled: dict[tuple[int, int], float]) -> dict[int, Floats]:
    sizes: dict[int, int] = {}
    for source, number in settled:
        sizes[source] = max(sizes.get(source, 0), number + 1)
    losses = {source: np.full(size, np.nan) for source, size in sizes.items()}
    for (source, number), value in settled.items():
        losses[source][number] = value
    return losses
