"""Keeping data-path processes light: pandas and scipy stay out unless a model needs them.

pyarrow imports pandas by itself when it is first given a list or an array, 60 MiB and over a second in the middle of
the stream, only to learn whether it was given a pandas object. numba imports scipy when it first compiles or loads a
kernel, 16 MiB and 0.3 s, for linear algebra that ours do without. Both cope with their not being there; an entry of
None in `sys.modules` crashes pyarrow, hence a finder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import TYPE_CHECKING

from streams.model_kinds import is_own

if TYPE_CHECKING:
    from streams.pipeline import Pipeline

REFUSED = ("pandas", "scipy")
WITH_MODELS = ("learn", "serve", "train", "api")  # roles whose models may need what others go without
FOREIGN = ("river:", "sklearn:")  # kinds of libraries that load what others go without


class _Refusal(MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname in REFUSED:
            raise ModuleNotFoundError(f"{fullname} is kept out of this process", name=fullname)


def stay_light() -> None:
    """Let every later import of pandas or scipy in this process fail. Called by roles that need no other library."""
    if not any(isinstance(finder, _Refusal) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Refusal())


def has_river(pipeline: Pipeline, role: str, models: Sequence[str]) -> bool:
    """Say whether a process of a role has a model of River, scikit-learn or a user, which may need more than others."""
    if role not in WITH_MODELS:
        return False
    every = [model.name for model in pipeline.models]
    learned = models or every
    trained = [model.name for model in pipeline.models if model.retrain is not None]
    at_hand = {"learn": learned, "serve": every, "train": trained, "api": learned}[role]  # serve: any may be promoted
    foreign = [model.name for model in pipeline.models if model.kind.startswith(FOREIGN) or is_own(model.kind)]
    return any(name in at_hand for name in foreign)
