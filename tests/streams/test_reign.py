"""The champion as the fold over decisions."""

from __future__ import annotations

import itertools

import msgspec

from streams.reign import Promoted, Reign, first_reign, followed, promotion_in, reign_named

NAMES = ("a", "b", "c")


def fold(*records: Promoted) -> Reign:
    """The reign after some records."""
    reign = first_reign("a")
    for record in records:
        reign = followed(reign, record, NAMES)
    return reign


def promoted(id_: str, follows: str, candidate: str, *, is_pinned: bool = False) -> Promoted:
    """A record that a person has written."""
    return Promoted(id_, follows, candidate, 0, "manual", is_pinned)


def test_without_a_record_the_files_champion_answers() -> None:
    assert (fold().champion, fold().last, fold().record) == ("a", None, None)


def test_each_record_follows_the_reign_it_names() -> None:
    reign = fold(promoted("1", "", "b"), promoted("2", "1", "c"))

    assert (reign.id, reign.champion, reign.last) == ("2", "c", "b")


def test_of_two_that_follow_the_same_reign_the_first_wins() -> None:
    """However many write at the same time, there is one champion, and every reader knows the same."""
    rivals = [promoted("1", "", "b"), promoted("2", "", "c"), promoted("3", "1", "a"), promoted("4", "2", "b")]

    for order in itertools.permutations(rivals[:2]):
        assert fold(*order).id == order[0].id
    assert fold(*rivals).id == "3"


def test_a_record_twice_changes_nothing() -> None:
    record = promoted("1", "", "b")

    assert fold(record, record) == fold(record)


def test_who_is_no_candidate_any_more_has_reigned_all_the_same() -> None:
    """What was decided after it follows its reign, and counts whatever the file names now."""
    gone = promoted("1", "", "b"), promoted("2", "1", "gone")

    assert fold(*gone) == msgspec.structs.replace(fold(gone[0]), id="2")
    assert fold(*gone, promoted("3", "1", "c")).champion == "b"
    later = fold(*gone, promoted("3", "2", "c"))
    assert (later.id, later.champion, later.last) == ("3", "c", "b")


def test_a_reign_is_found_by_its_name() -> None:
    records = [promoted("1", "", "b"), promoted("2", "1", "c"), promoted("3", "2", "a")]

    assert reign_named("", "a", records, NAMES) == first_reign("a")
    assert reign_named("2", "a", records, NAMES) == fold(*records[:2])
    assert reign_named("2", "a", records, ("a", "c")).last == "a"


def test_a_pin_keeps_whom_the_champion_follows() -> None:
    """Pinning the champion begins a reign of the same candidate; the one it can be taken back to stays."""
    reign = fold(promoted("1", "", "b"), promoted("2", "1", "b", is_pinned=True))

    assert (reign.champion, reign.last, reign.is_pinned) == ("b", "a", True)


def test_only_promotions_are_read() -> None:
    record = Promoted("1", "", "b", 3, "evidence", numbers={"bound": 0.1}, thresholds={"margin": 0.0})

    assert promotion_in(msgspec.json.encode(record)) == record
    assert promotion_in(b'{"decision":"drift","candidate":"b"}') is None
    assert promotion_in(b'{"decision":"promoted"}') is None
    assert promotion_in(b"\x00") is None
