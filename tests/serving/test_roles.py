"""Any role by its name: what cannot be run is refused before anything is opened."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from serving.roles import run_role
from streams.errors import PipelineError
from streams.pipeline import Feature
from streams.pipeline_file import read_pipeline

FLIGHTS = read_pipeline(Path(__file__).parents[2] / "examples" / "flights.toml")
CHAIN = msgspec.structs.replace(FLIGHTS, features=(Feature("n", "lag", "dest", "origin"),))


@pytest.mark.parametrize(
    ("role", "stage", "message"),
    [
        ("features", 4, "--stage 4: features has 3 stages in flights; allowed: features with 1 to 3"),
        ("serve", 1, "--stage 1: serve has no stages in flights; allowed: features with 1 to 3"),
    ],
)
def test_only_features_has_stages_and_only_so_many(role: str, stage: int, message: str) -> None:
    """One line says what is allowed."""
    with pytest.raises(PipelineError) as caught:
        run_role(role, CHAIN, stage=stage)

    assert caught.value.mistakes == [message]


def test_nothing_is_trained_where_nothing_is_archived() -> None:
    """One line says what makes an archive."""
    with pytest.raises(PipelineError, match="train: no examples are kept to train from; declare \\[archive\\]"):
        run_role("train", msgspec.structs.replace(FLIGHTS, archive=None))
