"""Who is champion: promotions where the evidence is, repeats, crashes, rivals, gates, and champions that break."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from consumers.gates import SLOW_RECORDS, Known, closed_gates
from consumers.judging import MOST_LOST
from consumers.quarantine import Quarantined, Released
from consumers.retrain import TrainedVersion
from consumers.score_records import ScoresRecord
from models.evidence import Evidence, taken, verdict
from models.guard import Guard, enthroned, watched
from models.paired_losses import PairedLosses
from streams.reign import Promoted
from tests.selecting import CANDIDATES, SETTINGS, Log, Losses, Selector, record, scores, told

BETTER = {"base": 0.5, "good": 0.45, "slow": 0.52}
WORSE = {"base": 0.5, "good": 0.9, "slow": 0.52}
GUARDED = 320  # blocks after which a guard knows what is usual


def run(records: list[ScoresRecord], **settings: object) -> tuple[Selector, Log]:
    """Let one selector read everything."""
    log = Log()
    selector = Selector(log, msgspec.structs.replace(SETTINGS, **settings))
    selector.read(records, 0, len(records))
    return selector, log


def test_a_better_challenger_is_promoted_at_the_block_that_proves_it() -> None:
    """The same evidence, weighed by itself, is proven at that block and not at the one before."""
    levels = [BETTER] * 130
    records = scores(levels, orders=("number",))
    _, log = run(records)
    evidence, proven = Evidence(challengers=2), None
    for at, found in Losses(0).blocks(levels):
        times = 1_000_000 + 100 * at, 1_000_099 + 100 * at
        pair = PairedLosses(0, at, *times, found["base"].astype(np.float32), found["good"].astype(np.float32))
        evidence = taken(evidence, pair, SETTINGS, 2)
        if proven is None and verdict(evidence, SETTINGS).word == "promoted":
            proven = at, verdict(evidence, SETTINGS)
    assert proven is not None
    (decision,) = log.promotions()
    at, found_alone = proven

    assert told(log) == [("good", "evidence", 3 * at + 1)]
    assert decision.numbers["bound"] == found_alone.bound
    assert decision.numbers["mean"] == found_alone.mean
    assert decision.thresholds == {"bound": 0.0, "alpha": found_alone.a}
    assert (decision.follows, decision.lineage, decision.after_us) == ("", 0, 1_000_099 + 100 * at)


def test_equal_candidates_change_nothing() -> None:
    """A champion stays as long as nobody is proven better."""
    selector, log = run(scores([dict.fromkeys(CANDIDATES, 0.5)] * 150))

    assert log.values == []
    assert selector.selection.state.pairs["good"].evidence.blocks == 150


def test_evidence_begins_again_with_each_reign_and_the_last_champion_can_come_back() -> None:
    """What was better is worse from a block on: by the guard if it knows enough, by the same test if it does not."""
    records = scores([BETTER] * 102 + [{**BETTER, "good": 0.56}] * 300, orders=("number",))
    selector, log = run(records)
    (first, second) = log.promotions()

    assert [(one.candidate, one.why) for one in (first, second)] == [("good", "evidence"), ("base", "taken back")]
    assert second.follows == first.id
    assert second.numbers["epoch"] == 1.0
    assert selector.selection.champion == "base"
    assert selector.selection.state.reign.last == "good"


def test_a_broken_champion_is_taken_back_by_the_guard_within_a_block() -> None:
    """The guard was fed before the promotion, by the order of labels, and acts at the first block of the fault."""
    records = scores([BETTER] * (GUARDED + 5) + [WORSE] * 5)
    _, log = run(records, span_us=100 * GUARDED)
    promoted, back = log.promotions()
    fault = 6 * (GUARDED + 5)

    assert (promoted.candidate, promoted.why) == ("good", "evidence")
    assert (back.candidate, back.why) == ("base", "guard")
    assert fault <= int(back.numbers["scores_offset"] or 0) < fault + 6
    assert back.numbers["alarm_at"] is not None
    assert max(back.numbers[f"line_{at}"] / back.thresholds[f"line_{at}"] for at in (1, 2)) > 1.0  # type: ignore[operator]


def test_the_guard_is_the_one_that_the_challenger_had() -> None:
    """From its first block on, as models.guard says it when driven alone."""
    levels = [BETTER] * 150
    selector, log = run(scores(levels))
    at_promotion = int(log.promotions()[0].numbers["scores_offset"] or 0)
    guard, is_champion = Guard(is_reigning=False), False
    for at, found in Losses(0).blocks(levels):
        times = 1_000_000 + 100 * at, 1_000_099 + 100 * at
        pair = PairedLosses(0, at, *times, found["good"].astype(np.float32), found["base"].astype(np.float32))
        if not is_champion and 6 * at > at_promotion:
            guard, is_champion = enthroned(guard), True
        guard = watched(guard, pair, SETTINGS)

    assert is_champion
    assert selector.selection.state.guard == guard


@pytest.mark.parametrize("step", [1, 7, 40])
def test_a_selector_that_is_killed_again_and_again_decides_the_same(step: int) -> None:
    """What is saved now and then, and what comes again, give the decisions of one that was never killed."""
    blocks = GUARDED if step > 1 else 60
    records = scores([BETTER] * (blocks + 45) + [WORSE] * 3 + [BETTER] * (blocks + 5))
    calm, calm_log = run(records, span_us=100 * blocks)
    log = Log()
    selector = Selector(log, msgspec.structs.replace(SETTINGS, span_us=100 * blocks))
    at, rng = 0, np.random.default_rng(step)
    while at < len(records):
        reached = min(len(records), at + int(rng.integers(1, 40 * step)))
        selector.read(records, at, reached)
        selector.save()
        selector.read(records, reached, min(len(records), reached + int(rng.integers(0, 40))))  # lost again
        at = selector.killed(records)
    selector.read(records, at, len(records))

    assert [why for _, why, _ in told(calm_log)] == (["evidence", "guard", "guard"] if step > 1 else ["evidence"])
    assert told(log) == told(calm_log)
    assert selector.selection.state.pairs == calm.selection.state.pairs
    assert selector.selection.state.guard == calm.selection.state.guard


def test_a_record_that_comes_twice_changes_nothing() -> None:
    """Learn sends blocks again after a crash, under new offsets."""
    records = scores([BETTER] * 110, orders=("number",))
    doubled = [one for at in range(0, len(records), 3) for one in records[max(0, at - 30) : at + 3]]
    _, log = run(records)
    _, repeated = run(doubled)

    assert [one.numbers["bound"] for one in repeated.promotions()] == [one.numbers["bound"] for one in log.promotions()]


def test_of_two_selectors_one_decides_and_both_follow() -> None:
    """The slower one meets the decision at the same block, finds it made, and goes on as the faster one did."""
    records = scores([BETTER] * 102 + [{**BETTER, "good": 0.56}] * 250, orders=("number",))
    _, calm = run(records)
    log = Log()
    fast, slow, rng = Selector(log, name="fast"), Selector(log, name="slow"), np.random.default_rng(3)
    at = {fast: 0, slow: 0}
    while min(at.values()) < len(records):
        one = fast if rng.random() < 0.5 else slow
        stop = min(len(records), at[one] + int(rng.integers(1, 60)))
        one.read(records, at[one], stop)
        at[one] = stop

    assert told(log) == told(calm)
    assert fast.selection.state.reign == slow.selection.state.reign == log.reign()
    assert fast.selection.state.pairs == slow.selection.state.pairs


def test_of_two_decisions_at_once_the_first_in_the_log_counts() -> None:
    """A person promotes another one while the selector writes: its record is void, and it goes on in that reign."""
    records = scores([BETTER] * 130, orders=("number",))
    log, at = Log(), 0
    selector = Selector(log)
    decision = None
    while decision is None:
        decision = selector.selection.take(at, records[at])
        at += decision is None
    log.write(Promoted("person", "", "slow", 0, "manual"))
    log.write(decision)
    selector.hear()
    selector.read(records, at, len(records))

    assert selector.selection.champion == log.reign().champion == "slow"
    assert selector.selection.state.reign.id == "person"


def test_a_pinned_champion_is_left_alone_until_it_is_let_go() -> None:
    """Evidence goes on meanwhile, so that the next block after the pin decides."""
    records = scores([BETTER] * 160, orders=("number",))
    log = Log()
    log.write(Promoted("pin", "", "base", 0, "manual", is_pinned=True))
    selector = Selector(log)
    selector.read(records, 0, 450)

    assert len(log.values) == 1
    log.write(Promoted("unpin", "pin", "base", 0, "manual"))
    selector.read(records, 450, len(records))

    assert [one.candidate for one in log.promotions()] == ["base", "base", "good"]
    assert log.promotions()[2].numbers["blocks"] == 151.0


def test_a_retrained_challenger_earns_its_own_evidence_in_the_next_epoch() -> None:
    """Another lineage is another model: its blocks count from 0, with a smaller share of alpha."""
    found = list(Losses(0).blocks([BETTER] * 120))
    records = [
        record(name, at, some[name], lineage=int(name == "good" and at >= 90)) for at, some in found for name in some
    ]
    selector, log = run(records)
    evidence = selector.selection.state.pairs["good"].evidence

    assert log.values == []
    assert (evidence.epoch, evidence.blocks) == (2, 30)
    assert selector.selection.state.pairs["slow"].evidence.blocks == 120


def test_a_champion_that_is_another_model_ends_all_evidence() -> None:
    """What was proven of its last model says nothing of this one."""
    found = list(Losses(0).blocks([BETTER] * 120))
    records = [
        record(name, at, some[name], lineage=int(name == "base" and at >= 90)) for at, some in found for name in some
    ]
    selector, log = run(records)

    assert log.values == []
    assert [pair.evidence.blocks for pair in selector.selection.state.pairs.values()] == [30, 30]


def test_a_block_waits_for_its_pair_for_max_age_of_event_time_and_is_counted_then() -> None:
    """The challenger stops; its blocks were compared, the champion's wait, then go."""
    found = list(Losses(0).blocks([BETTER] * 95))
    records = [record(name, at, some[name]) for at, some in found for name in some if name != "slow" or at < 10]
    records += [record("slow", at, some["slow"]) for at, some in found if at >= 10]
    selector, _ = run(records, max_age_us=5_000)
    state = selector.selection.state

    assert state.pairs["good"].evidence.blocks == 95
    assert state.pairs["slow"].evidence.blocks == 61  # 10, and the last 51 that were not older than 5 ms
    assert state.seen["number"].uncompared == {"slow": 34}
    assert selector.selection.pairings["number"].waiting() == 0


def test_what_is_learned_again_after_a_rebuild_is_no_evidence_a_second_time() -> None:
    """All candidates begin their next lineage at the first block: who reigns stays, and only what is new counts."""
    levels = [BETTER] * 102 + [{"base": 0.5, "good": 0.5, "slow": 0.52}] * 60
    before = scores(levels, orders=("number",))
    replay = [msgspec.structs.replace(one, lineage=1) for one in before]
    later = [
        record(name, 162 + at, losses, lineage=1)
        for at, found in Losses(1).blocks([{"base": 0.6, "good": 0.55, "slow": 0.5}] * 110)
        for name, losses in found.items()
    ]
    selector, log = run([*before, *replay])
    state = selector.selection.state
    blocks = [pair.evidence.blocks for pair in state.pairs.values()]
    _, longer = run([*before, *replay, *later])

    assert (told(log)[0][:2], state.reign.champion, len(told(log))) == (("good", "evidence"), "good", 1)
    assert blocks == [0, 0]
    assert [one[:2] for one in told(longer)] == [("good", "evidence"), ("slow", "evidence")]


def test_a_champion_that_falls_behind_is_replaced() -> None:
    """By the best of those that go on; a pause of everybody is no reason."""
    found = list(Losses(0).blocks([BETTER] * 100))
    records = [record(name, at, some[name]) for at, some in found for name in some if name != "base" or at < 10]
    _, log = run(records, max_age_us=5_000)
    later = [
        msgspec.structs.replace(
            one,
            blocks=tuple(
                msgspec.structs.replace(b, first_time_us=b.first_time_us + 10**9, last_time_us=b.last_time_us + 10**9)
                for b in one.blocks
            ),
        )
        for one in scores([BETTER] * 20, orders=("number",))[30:]
    ]
    _, quiet = run([*scores([BETTER] * 10, orders=("number",)), *reversed(later[:3]), *later[3:]], max_age_us=5_000)

    assert told(log)[:1] == [("good", "stale", 30 + 2 * 51)]
    assert log.promotions()[0].numbers["age_s"] == pytest.approx(0.0051)
    assert quiet.values == []


def test_a_champion_that_cannot_publish_is_replaced_by_one_that_can() -> None:
    """Its scores are as new as anybody's, but what answers is not what is scored."""

    def failing(names: set[str], since: int, records: list[ScoresRecord]) -> list[ScoresRecord]:
        return [
            msgspec.structs.replace(one, unpublished_s=float(one.blocks[0].block - since))
            if one.candidate in names and one.blocks[0].block > since
            else one
            for one in records
        ]

    records = scores([BETTER] * 130, orders=("number",))
    _, log = run(failing({"base", "good"}, 10, records))
    (decision,) = log.promotions()

    assert told(log) == [("slow", "stale", 3 * 71)]
    assert (decision.numbers["age_s"], decision.thresholds) == (61.0, {"age_s": 60.0})
    assert run(failing(set(BETTER), 10, records))[1].values == []


def test_a_champion_that_owes_answers_is_taken_back_at_once() -> None:
    """Where others give a number and it gives none, its output was not finite."""
    records = scores([BETTER] * 3)
    broken = Losses(5).blocks([BETTER])
    _, losses = next(iter(broken))
    losses["base"][: int(100 * MOST_LOST) + 1] = math.nan
    records += [record(name, 3, losses[name], "label") for name in losses]
    _, log = run(records)

    assert [(one.why, one.numbers["lost_ratio"]) for one in log.promotions()] == [("guard", 0.11)]


def test_a_champion_in_quarantine_is_replaced_and_a_sick_challenger_does_not_come() -> None:
    """Health is a gate of both."""
    log = Log()
    log.write(Quarantined("good", 0, 0, "it raised", "label", 0, 1, 2, ""))
    selector, records = Selector(log), scores([BETTER] * 130, orders=("number",))
    selector.read(records, 0, 330)

    assert len(log.values) == 1
    log.write(Quarantined("base", 0, 0, "it raised", "label", 0, 1, 2, ""))
    selector.read(records, 330, 333)

    assert [(one.candidate, one.why) for one in log.promotions()] == [("slow", "guard")]
    log.write(Released("good", 1, 0, "other parameters"))
    selector.hear()

    assert selector.selection.state.known["good"].illness == ""


def test_a_champion_whose_predictions_take_too_long_is_replaced_at_once() -> None:
    """By the best that is quick enough. One slow record is a pause of the machine, and so is one of everybody."""

    def slowed(names: set[str], blocks: range) -> list[ScoresRecord]:
        return [
            msgspec.structs.replace(
                one, predict_p99_us=1_001.0 if one.candidate in names and one.blocks[0].block in blocks else 1_000.0
            )
            for one in scores([BETTER] * (SLOW_RECORDS + 9), orders=("number",))
        ]

    allowed = {"max_predict_ms": 1.0}
    _, log = run(slowed({"base", "good"}, range(3, SLOW_RECORDS + 9)), **allowed)
    (decision,) = log.promotions()
    place = 3 * (3 + SLOW_RECORDS - 1)  # the champion's record is the first of three

    assert told(log) == [("slow", "slow", place)]
    assert (decision.numbers["predict_ms"], decision.thresholds) == (1.001, {"predict_ms": 1.0})
    for names, blocks in (({"base"}, range(3, 3 + SLOW_RECORDS - 1)), (set(BETTER), range(SLOW_RECORDS + 9))):
        assert run(slowed(names, blocks), **allowed)[1].values == []
    assert run(slowed({"base"}, range(SLOW_RECORDS + 9)))[1].values == []


def test_a_champion_that_is_slow_is_replaced_at_the_same_block_by_a_selector_that_was_killed() -> None:
    """How long it has been slow is part of the state."""
    slow = [msgspec.structs.replace(one, predict_p99_us=2_000.0) for one in scores([BETTER] * 25, orders=("number",))]
    selector = Selector(Log(), msgspec.structs.replace(SETTINGS, max_predict_ms=1.0))
    quick = [one if one.candidate == "base" else msgspec.structs.replace(one, predict_p99_us=1.0) for one in slow]
    selector.read(quick, 0, 31)
    selector.save()
    selector.read(quick, 31, 40)
    selector.read(quick, selector.killed(quick), len(quick))

    assert told(selector.log) == told(run(quick, max_predict_ms=1.0)[1])
    assert [why for _, why, _ in told(selector.log)] == ["slow"]


@pytest.mark.parametrize(
    ("limit", "change"),
    [
        ({"max_predict_ms": 1.0}, {"predict_p99_us": 1_001.0}),
        ({"max_model_mib": 1.0}, {"bytes": 2**20 + 1}),
    ],
)
def test_a_gate_keeps_a_better_challenger_out(limit: dict[str, float], change: dict[str, float]) -> None:
    """One above the limit stays challenger; at the limit it comes."""
    records = scores([BETTER] * 110, orders=("number",))
    below = {name: value - 1 for name, value in change.items()}
    shut, opened = (
        [msgspec.structs.replace(one, **(some if one.candidate == "good" else {})) for one in records]
        for some in (change, below)
    )

    assert run(shut, **limit)[1].values == []
    assert len(run(opened, **limit)[1].values) == 1


def test_the_time_of_a_training_is_a_gate() -> None:
    """It is told by the decision that announces the version."""
    log = Log()
    log.write(TrainedVersion("good", 0, 10, "", "", 10, 61.0, {}, {}, 0))
    selector = Selector(log, msgspec.structs.replace(SETTINGS, max_training_s=60.0))
    records = scores([BETTER] * 110, orders=("number",))
    selector.read(records, 0, len(records))

    assert len(log.values) == 1
    assert [str(gate) for gate in closed_gates(Known(training_s=61.0), 0, SETTINGS)] == []
    limited = msgspec.structs.replace(SETTINGS, max_training_s=60.0)
    assert [str(gate) for gate in closed_gates(Known(training_s=61.0), 0, limited)] == [
        "its training took 61 s, 60 allowed"
    ]


def test_after_a_promotion_there_is_none_by_evidence_before_the_cool_down_is_over() -> None:
    """Event time counts; the same promotion comes back as soon as it may."""
    records = scores([BETTER] * 102 + [{**BETTER, "good": 0.56}] * 300, orders=("number",))
    first, second = run(records, cooldown_us=30_000)[1].promotions()

    assert second.after_us >= first.after_us + 30_000 > run(records)[1].promotions()[1].after_us


def test_sources_that_are_gone_are_forgotten() -> None:
    """Each generation of a writer is a source of its own; the state does not grow with them."""
    selector, _ = run(scores([BETTER] * 30, orders=("number",)), max_age_us=1_000)
    found = list(Losses(1).blocks([BETTER] * 60))
    late = [
        msgspec.structs.replace(one, blocks=tuple(msgspec.structs.replace(b, source=7) for b in one.blocks))
        for at, some in found
        for one in (record(name, at, some[name]) for name in some)
    ]
    start = selector.selection.state.scores_to
    for at, one in enumerate(late, start):
        selector.selection.take(at, one)
    state = selector.selection.saved()

    assert state.seen["number"].newest_us.keys() == {7}
    assert state.pairs["good"].evidence.last_block.keys() == {7}
