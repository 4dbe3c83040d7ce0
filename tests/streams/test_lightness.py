"""Which processes stay light."""

from __future__ import annotations

import pytest

from streams.lightness import has_river
from streams.pipeline import Model, Serve
from tests.rows import pipeline

KINDS = {"plain": "linear", "tree": "river:tree.HoeffdingTreeClassifier", "mine": "my_package.my_module:Mine"}


@pytest.mark.parametrize(
    ("role", "models", "champion", "is_heavy"),
    [
        ("learn", ["plain"], "tree", False),
        ("learn", ["plain", "tree"], "plain", True),
        ("learn", ["mine"], "plain", True),
        ("learn", [], "plain", True),
        ("serve", [], "plain", True),  # another may be promoted
        ("serve", [], "tree", True),
        ("serve", [], "mine", True),
        ("features", [], "tree", False),
    ],
)
def test_only_processes_with_unknown_code_may_load_what_others_go_without(
    role: str, models: list[str], champion: str, is_heavy: bool
) -> None:
    """A user's own learner may want pandas or scipy as River does."""
    declared = tuple(Model(name, kind, {}) for name, kind in KINDS.items())

    assert has_river(pipeline(models=declared, serve=Serve(champion)), role, models) is is_heavy
