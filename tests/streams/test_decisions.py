"""The succession: who reigns, by the decisions there are, followed as they come."""

from __future__ import annotations

import doctest

import msgspec

from streams import decisions
from streams.decisions import FOLLOW_EVERY_US, Succession
from streams.reign import Promoted


class MemoryDecisions:
    """P.decisions in memory: what is in `come` has been fetched, what is in `there` lies at the broker only."""

    def __init__(self) -> None:
        self.come: list[bytes] = []
        self.there: list[bytes] = []
        self.looks = 0

    def read_new(self) -> list[bytes]:
        self.looks += 1
        found, self.come = self.come, []
        return found

    def read_to_end(self) -> list[bytes]:
        found, self.there = self.read_new() + self.there, []
        return found


def promoted(name: str, follows: str, candidate: str) -> bytes:
    """A record of P.decisions."""
    return msgspec.json.encode(Promoted(name, follows, candidate, 0, "evidence"))


def test_until_a_record_says_otherwise_the_files_champion_reigns() -> None:
    log = MemoryDecisions()
    succession = Succession("a", ("a", "b"), log)

    assert succession.catch_up().champion == "a"
    assert succession.follow(0).champion == "a"


def test_a_start_knows_all_that_was_decided_before_it() -> None:
    """Read to the end of the topic, not only to what has come by then."""
    log = MemoryDecisions()
    log.come, log.there = [promoted("1", "", "b")], [promoted("2", "1", "c")]
    reign = Succession("a", ("a", "b", "c"), log).catch_up()

    assert (reign.id, reign.champion, reign.last) == ("2", "c", "b")


def test_promotions_are_followed_and_all_else_is_passed_over() -> None:
    """Other decisions, void promotions, candidates of another file, and what is no record at all."""
    log = MemoryDecisions()
    succession, seen = Succession("a", ("a", "b"), log), []
    records = [
        b'{"decision":"restarted","candidate":"b"}',
        promoted("1", "", "b"),
        promoted("2", "", "a"),
        b"not a record",
        promoted("3", "1", "unknown"),
        b"",
        promoted("4", "1", "a"),  # void, for the reign of one who is not here any more came before
        promoted("5", "3", "a"),
    ]
    for step, record in enumerate(records):
        log.come.append(record)
        seen.append(succession.follow(step * FOLLOW_EVERY_US).champion)

    assert seen == ["a", "b", "b", "b", "b", "b", "b", "a"]


def test_the_topic_is_looked_at_a_few_times_a_second() -> None:
    """Not with every tick."""
    log = MemoryDecisions()
    succession = Succession("a", ("a", "b"), log)
    succession.follow(0)
    log.come.append(promoted("1", "", "b"))
    early = succession.follow(FOLLOW_EVERY_US - 1).champion

    assert (early, succession.follow(FOLLOW_EVERY_US).champion, log.looks) == ("a", "b", 2)


def test_examples_in_the_docstrings_run() -> None:
    assert doctest.testmod(decisions).failed == 0
