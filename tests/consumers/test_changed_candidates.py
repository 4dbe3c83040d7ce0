"""A selector that goes on under a file with other candidates: it agrees with whoever else reads P.decisions."""

from __future__ import annotations

import pytest

from consumers.quarantine import Quarantined
from streams.reign import Promoted
from tests.selecting import Log, Selector, scores

LEVELS = {"base": 0.5, "good": 0.45, "slow": 0.52}
RECORDS = scores([LEVELS] * 40)


def reigned(*champions: str) -> Selector:
    """One that has seen people promote these, one after the other, and scores after that; saved."""
    log = Log()
    for number, name in enumerate(champions, 1):
        log.write(Promoted(str(number), str(number - 1) if number > 1 else "", name, 0, "manual"))
    selector = Selector(log)
    selector.read(RECORDS, 0, 60)
    selector.save()
    return selector


@pytest.mark.parametrize(
    ("champions", "left", "champion", "expected"),
    [
        (("slow", "good"), ("base", "good"), "base", ("good", "base")),  # one between them is removed
        (("good", "slow"), ("base", "good"), "base", ("good", "base")),  # the present one is
        (("slow", "good"), ("slow", "good"), "slow", ("good", "slow")),  # the first one is
        ((), ("base", "good", "slow"), "slow", ("slow", None)),  # the file names another first one
    ],
)
def test_all_agree_who_reigns_whatever_is_removed(
    champions: tuple[str, ...], left: tuple[str, ...], champion: str, expected: tuple[str, str | None]
) -> None:
    heir = reigned(*champions).under(left, champion)
    heir.hear()
    reign = heir.selection.state.reign

    assert (reign.champion, reign.last) == expected
    assert reign == heir.log.reign(champion, left)


def test_what_is_decided_after_a_removal_counts_for_all() -> None:
    """A person's decision follows the last reign there was, though its champion is gone."""
    heir = reigned("good", "slow").under(("base", "good"), "base")
    heir.log.write(Promoted("3", "2", "base", 0, "manual"))
    heir.hear()

    assert heir.selection.champion == heir.log.reign("base", ("base", "good")).champion == "base"
    assert heir.selection.state.reign.id == "3"


def test_nobody_who_is_removed_succeeds_a_broken_champion() -> None:
    """Though it was the last champion, and better than all others: the one decision names who is there, and counts."""
    heir = reigned("good").under(("good", "slow"), "good")
    heir.log.write(Quarantined("good", 0, 0, "it raised", "label", 0, 1, 2, ""))
    left = [one for one in RECORDS if one.candidate != "base"]
    start = heir.selection.state.scores_to
    heir.read([*left[:1] * start, *left[start:]], start, len(left))

    assert [(one.candidate, one.why) for one in heir.log.promotions()[1:]] == [("slow", "guard")]
    assert heir.selection.champion == heir.log.reign("good", ("good", "slow")).champion == "slow"


def test_evidence_begins_anew_where_another_reigns_and_goes_on_where_the_same_does() -> None:
    kept = reigned("slow", "good").under(("base", "good"), "base").selection.state
    other = reigned("good", "slow").under(("base", "good"), "base").selection.state

    assert kept.pairs["base"].evidence.blocks > 0
    assert other.pairs["base"].evidence.blocks == 0
    assert set(kept.pairs) | set(kept.known) == {"base", "good"}
