"""Keeping data-path processes light: pandas stays out unless a model needs it.

pyarrow imports pandas by itself when it is first given a list or an array, 60 MiB and over a second in the middle of
the stream, only to learn whether it was given a pandas object. It copes with pandas not being there; an entry of None
in `sys.modules` crashes it, hence a finder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

REFUSED = ("pandas",)


class _Refusal(MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname in REFUSED:
            raise ModuleNotFoundError(f"{fullname} is kept out of this process", name=fullname)


def refuse_pandas() -> None:
    """Let every later `import pandas` in this process fail. Called by roles that run no River model."""
    if not any(isinstance(finder, _Refusal) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Refusal())
