"""Beginning a training with the weights of an earlier one, where they still mean the same.

What a network gets is prepared anew from newer examples: numbers are scaled a little differently, which it learns in a
few steps, but a category may have another place in its vocabulary. So rows of categories are taken by their code, and
one that is new begins as in a network that begins anew. Scales of labels and of errors are of the new examples.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.learner import State
from models.preparation import Preparation
from models.registry import versions_of
from models.version import Version
from streams.pipeline import Model
from streams.state_folder import Place

CATEGORY_ROWS = "categories.weight"  # how names of tables with a row for each category end
RENEWED = ("label", "error")
ESTIMATORS = "sklearn:"  # how kinds begin that have no weights to begin with
TRAINED = ".safetensors"  # how the file of a training ends

Array = npt.NDArray[np.generic]


def parent_of(state: Place, model: Model, lineage: int) -> Version | None:
    """Give the newest version that was trained for a candidate before a lineage, None: its training begins anew.

    What a network that learns on has published since is none: it is the compiled one's, in other arrays.

    Args:
        state: of the pipeline.
        model: the candidate's declaration; `retrain` says whether it begins with earlier weights.
        lineage: of the version that is to be trained.

    Raises:
        UnavailableError: an object store does not answer.
    """
    is_warm = model.retrain is None or model.retrain.start == "warm"
    if not is_warm or model.kind.startswith(ESTIMATORS):
        return None
    found = [one for one in versions_of(state, model.name) if one.kind == model.kind and one.lineage < lineage]
    return next((one for one in reversed(found) if one.blob.endswith(TRAINED)), None)


def warm_started(fresh: State, preparation: Preparation, parent: State, of_parent: Preparation) -> State | str:
    """Give the arrays that a network begins with, or in words why it begins anew.

    Args:
        fresh: the arrays of the untrained network.
        preparation: what it gets is made by it.
        parent: the arrays of the trained one.
        of_parent: its preparation, of the same columns.
    """
    if preparation.numbers != of_parent.numbers:
        return "other columns have missing values"
    taken = {}
    for name, array in fresh.items():
        found = parent.get(name)
        if name in RENEWED:
            taken[name] = array
        elif found is None:
            return f"the earlier network has no {name}"
        elif name.endswith(CATEGORY_ROWS) and not preparation.bits:
            if found.shape[1:] != array.shape[1:]:
                return _other_shape(name, found, array)
            taken[name] = _by_code(array, preparation, found, of_parent)
        elif found.shape != array.shape:
            return _other_shape(name, found, array)
        else:
            taken[name] = found
    return taken


def _by_code(fresh: Array, preparation: Preparation, found: Array, of_parent: Preparation) -> Array:
    """Take the row of each category that both know, column by column; row 0 of each is what is unknown."""
    taken, start, start_there = fresh.copy(), 0, 0
    for column, (size, size_there) in enumerate(
        zip(preparation.vocabularies, of_parent.vocabularies, strict=True),
    ):
        _, here, there = np.intersect1d(preparation.codes(column), of_parent.codes(column), return_indices=True)
        taken[start] = found[start_there]
        taken[start + 1 + here] = found[start_there + 1 + there]
        start, start_there = start + size, start_there + size_there
    return taken


def _other_shape(name: str, found: Array, needed: Array) -> str:
    return f"its {name} has shape {found.shape}, {needed.shape} is needed"
