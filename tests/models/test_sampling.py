"""Deterministic samples of events."""

from __future__ import annotations

import pytest

from models.sampling import in_sample
from tests.rows import text_of

IDS = [f"event-{i}" for i in range(20_000)]
CHOSEN = ["event-4", "event-30", "event-33", "event-35", "event-40", "event-41"]  # of the first 60: kept for ever


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_a_sample_has_its_share(share: float) -> None:
    """Within four standard deviations of a fair draw."""
    found = in_sample(text_of(IDS), share).mean()

    assert abs(found - share) < 4 * (share * (1 - share) / len(IDS)) ** 0.5


def test_a_smaller_sample_is_part_of_a_larger_one() -> None:
    small, large = (in_sample(text_of(IDS), share) for share in (0.1, 0.3))

    assert not (small & ~large).any()


def test_the_same_ids_are_in_it_in_every_run_and_every_batch() -> None:
    chosen = [one for one, has in zip(IDS[:60], in_sample(text_of(IDS), 0.1), strict=False) if has]

    assert chosen == CHOSEN
    assert in_sample(text_of(IDS[7:11]), 0.1).tolist() == in_sample(text_of(IDS), 0.1)[7:11].tolist()
