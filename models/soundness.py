"""Whether a model may answer: it is finite, and so are its answers to two canaries."""

from __future__ import annotations

import numpy as np

from models.contained import bare
from models.learner import Learner
from streams.errors import ModelError
from streams.frames import Column
from streams.pipeline import Task


def is_sound(learner: Learner, columns: tuple[Column, ...], task: Task) -> bool:
    """Say whether a model is finite, and answers two canaries (all missing, all zero) as its task wants it."""
    model = bare(learner)  # one that raises here is not sound
    canaries = np.vstack([np.full(len(columns), np.nan), np.zeros(len(columns))])
    try:
        if not model.is_finite():
            return False
        score_BS = model.predict(canaries).reshape(len(canaries), task.outputs)
    except ModelError:
        return False
    if task.kind in ("regression", "clustering"):
        is_number = task.kind == "regression" or (score_BS >= 0.0).all()
        return bool(np.isfinite(score_BS).all() and is_number)
    score_BS = score_BS[:, :1] if task.kind == "anomaly" else score_BS  # a threshold may lie beyond
    is_whole = task.is_yes_or_no or np.allclose(score_BS.sum(axis=1), 1.0, rtol=0, atol=1e-6)
    return bool(is_whole and ((score_BS >= 0.0) & (score_BS <= 1.0)).all())
