"""How challengers stand: words, what is missing, and what people read of it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from consumers.standings import Standing, read_standings, standings_of, write_standings
from models.outlook import events_to_go
from serving.standing_report import to_promotion
from streams.state_folder import LocalFolder
from tests.selecting import SETTINGS, Log, Selector, scores

BETTER = {"base": 0.5, "good": 0.45, "slow": 0.52}


def standings(blocks: int, level: dict[str, float] = BETTER, **settings: object) -> dict[str, Standing]:
    """Give how everybody stands after so many blocks."""
    selector = Selector(Log(), msgspec.structs.replace(SETTINGS, **settings))
    records = scores([level] * blocks)
    selector.read(records, 0, len(records))
    return {one.candidate: one for one in standings_of(selector.selection).challengers}


def test_the_outlook_is_when_the_promotion_comes_if_things_stay_so() -> None:
    """Told at 60 blocks, true at the block it names; who is worse is not expected at all."""
    expected = standings(60)["good"]
    slow = standings(130, {**BETTER, "good": 0.5})["slow"]
    log = Log()
    records = scores([BETTER] * 130)
    Selector(log).read(records, 0, len(records))
    promoted = int(log.promotions()[0].numbers["events"] or 0)

    assert (expected.word, expected.events) == ("too early", 6_000)
    assert expected.events + (expected.events_to_go or 0) == promoted
    assert (slow.word, slow.events_to_go) == ("not proven", None)
    assert to_promotion(slow) == "not in this epoch, as it looks"
    assert to_promotion(expected) == "about 4,000 events, if it goes on so"


def test_a_span_that_was_not_seen_is_missing() -> None:
    """Events are counted at the rate of the epoch so far."""
    selector = Selector(Log(), msgspec.structs.replace(SETTINGS, span_us=30_000))
    records = scores([BETTER] * 150)
    selector.read(records, 0, len(records))
    evidence = selector.selection.state.pairs["good"].evidence

    assert events_to_go(evidence, selector.selection.settings) in {15_000, 15_100}


def test_what_keeps_a_proven_challenger_out_is_said() -> None:
    """The limit that it breaks, or that it is too soon."""
    gated = standings(120, max_model_mib=0.0001)["good"]

    assert gated.word == "gated"
    assert to_promotion(gated) == "its model has 0.000954 MiB, 0.0001 allowed"


def test_standings_are_read_as_they_were_written(tmp_path: Path) -> None:
    """None before anybody has written any."""
    selector = Selector(Log())
    records = scores([BETTER] * 20)
    selector.read(records, 0, len(records))
    folder, found = LocalFolder(tmp_path), standings_of(selector.selection)

    assert read_standings(folder) is None
    write_standings(folder, found)
    assert read_standings(folder) == found
