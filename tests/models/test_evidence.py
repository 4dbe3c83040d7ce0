"""Evidence for promotions: every number against a second implementation, words, epochs, repeats, order."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import mpmath
import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from models.evidence import Evidence, Verdict, renewed, taken, verdict
from models.paired_losses import PairedLosses, bounded
from models.tally import P_MAX, P_MIN, log_loss
from streams.selecting import LARGEST, Select
from tests.models.json_table import through_json

Floats = npt.NDArray[np.float64]
SETTINGS = Select(span_us=5_000)  # an event a microsecond: fifty blocks


def losses(blocks: int, gain: float = 0.0, phi: float = 0.0, seed: int = 0) -> tuple[Floats, Floats]:
    """Losses [blocks, 100] of a champion, and of a challenger better by `gain`; the difference remembers by `phi`."""
    rng, value = np.random.default_rng(seed), 0.0
    champion, apart = rng.uniform(0.1, 0.9, 100 * blocks), []
    for fresh in rng.normal(0.0, 0.05 * math.sqrt(1.0 - phi * phi), 100 * blocks).tolist():
        value = phi * value + fresh
        apart.append(value)
    return champion.reshape(-1, 100), (champion - gain + np.array(apart)).reshape(-1, 100)


def pairs(champion: Floats, challenger: Floats, sources: int = 1, from_block: int = 0) -> list[PairedLosses]:
    """Blocks that sources give in turn, one after the other in time."""
    made = []
    for at, (one, other) in enumerate(zip(champion, challenger, strict=True), from_block):
        first_us = 1_000_000 + 100 * at
        made.append(PairedLosses(at % sources, at // sources, first_us, first_us + 99, one, other))
    return made


def weigh(blocks: Iterable[PairedLosses], settings: Select = SETTINGS, challengers: int = 1) -> Evidence:
    evidence = Evidence()
    for pair in blocks:
        evidence = taken(evidence, pair, settings, challengers)
    return evidence


def reference(y: Sequence[float], a: Any, largest: float) -> dict[str, Any]:
    """The rule once more, in forty digits: whole lists at each level, the formulas as they are written down."""
    with mpmath.workdps(40):
        t, level, variances, a = len(y), 0, [], mpmath.mpf(a)
        means = [mpmath.mpf(value) for value in y]
        mean, found = mpmath.fsum(means) / t, (0, 0, mpmath.mpf(0))
        while len(means) >= 50:
            n, m = len(means), mpmath.fsum(means) / len(means)
            squares = mpmath.fsum((x - m) ** 2 for x in means)
            r = mpmath.fsum((means[i] - m) * (means[i + 1] - m) for i in range(n - 1)) / squares
            variances.append(2**level * squares / (n - 1) * (1 + 2 * max(mpmath.mpf(0), r)))
            found = level, n, r
            means = [(means[i] + means[i + 1]) / 2 for i in range(0, n - 1, 2)]
            level += 1
        f, q = found[1] - 1, -2 * mpmath.log(2 * a)
        rho2 = (q + mpmath.log(1 + q)) / 100
        z = mpmath.sqrt(2 * (t * rho2 + 1) / (t * rho2) * mpmath.log(1 + mpmath.sqrt(t * rho2 + 1) / (2 * a)))
        z_star = mpmath.sqrt(f * (mpmath.exp((z * (8 * f + 3) / (8 * f + 1)) ** 2 / f) - 1))
        variance = max(variances)
        bound = mean - z_star * mpmath.sqrt(variance / t) - largest * mpmath.log(1 / a) / (100 * t)
        return {
            "mean": mean, "z": z, "z_star": z_star, "long_run_variance": variance, "sigma": mpmath.sqrt(variance),
            "level": found[0], "correlation": found[2], "bound": bound,
        }  # fmt: skip


def share(alpha: float, epoch: int, challengers: int) -> Any:
    return alpha * 6 / (mpmath.pi**2 * epoch**2 * challengers)


@pytest.mark.parametrize("phi", [0.0, 0.99])
@pytest.mark.parametrize(("blocks", "challengers"), [(50, 1), (99, 2), (100, 1), (333, 7), (1_000, 1)])
def test_every_number_is_that_of_a_second_implementation(phi: float, blocks: int, challengers: int) -> None:
    champion, challenger = losses(blocks, 0.01, phi)
    found = verdict(weigh(pairs(champion, challenger), challengers=challengers), SETTINGS)
    y = [math.fsum(one - other) / 100 for one, other in zip(champion, challenger, strict=True)]
    expected = reference(y, share(0.05, 1, challengers), math.log(1000.0))

    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(float(value), rel=1e-9, abs=1e-12), name
    assert found.champion_loss == pytest.approx(champion.mean(), rel=1e-12)
    assert found.challenger_loss == pytest.approx(challenger.mean(), rel=1e-12)
    assert (found.blocks, found.events, found.span_us) == (blocks, 100 * blocks, 100 * blocks - 1)
    assert (found.threshold, found.epoch, found.challengers) == (0.0, 1, challengers)


def test_nothing_is_told_before_there_is_anything() -> None:
    found = verdict(Evidence(), SETTINGS)

    assert (found.word, found.mean, found.bound, found.sigma, found.level) == ("too early", None, None, None, None)
    assert json.loads(msgspec.json.encode(found))["bound"] is None


def test_a_better_challenger_is_promoted_after_a_hundred_blocks_and_no_sooner() -> None:
    blocks = pairs(*losses(100, 0.02))

    assert verdict(weigh(blocks[:99]), SETTINGS).word == "too early"
    assert verdict(weigh(blocks), SETTINGS).word == "promoted"


def test_nobody_is_promoted_before_a_span_has_been_seen() -> None:
    """100 blocks last 9,999 us from their first event to the last."""
    evidence = weigh(pairs(*losses(100, 0.02)))

    assert verdict(evidence, Select(span_us=9_999)).word == "promoted"
    assert verdict(evidence, Select(span_us=10_000)).word == "too early"


def test_equal_or_worse_challengers_are_not_proven() -> None:
    for gain in (0.0, -0.02):
        assert verdict(weigh(pairs(*losses(200, gain))), SETTINGS).word == "not proven"


def test_the_bound_must_pass_the_margin() -> None:
    evidence = weigh(pairs(*losses(300, 0.02)))
    found = verdict(evidence, SETTINGS)

    assert found.bound is not None
    assert found.bound > 0.0
    for margin, word in ((found.bound - 1e-9, "promoted"), (found.bound, "not proven")):
        assert verdict(evidence, msgspec.structs.replace(SETTINGS, margin=margin)).word == word


def test_a_challenger_whose_advantage_drifts_is_called_correlated() -> None:
    """However large it is: its coarsest means are no independent ones."""
    champion, challenger = losses(400, 0.3)
    found = verdict(weigh(pairs(champion, challenger + np.linspace(0.0, 0.2, 400)[:, None])), SETTINGS)

    assert found.word == "correlated"
    assert found.correlation is not None
    assert found.correlation >= 0.3


def test_a_constant_advantage_waits_only_for_losses_that_are_rare() -> None:
    """Nothing varies, so that the bound is d - C ln(1/a) / N, and passes 0 after N = 24,131 events."""
    champion = np.full((300, 100), 0.5)
    needed = math.log(1000.0) * math.log(math.pi**2 / 0.3) / 2.0**-10
    blocks = pairs(champion, champion - 2.0**-10)
    sure = math.ceil(needed / 100)

    assert 100 < sure < 300
    assert verdict(weigh(blocks[: sure - 1]), SETTINGS).word == "not proven"
    assert verdict(weigh(blocks[:sure]), SETTINGS).word == "promoted"


def test_the_same_model_twice_is_never_promoted() -> None:
    champion, _ = losses(1_000)
    found = verdict(weigh(pairs(champion, champion)), SETTINGS)

    assert (found.word, found.mean, found.sigma) == ("not proven", 0.0, 0.0)


def test_with_the_roles_exchanged_the_mean_is_the_other_way_round() -> None:
    blocks = pairs(*losses(120, 0.02))
    ahead, behind = verdict(weigh(blocks), SETTINGS), verdict(weigh(pair.exchanged() for pair in blocks), SETTINGS)

    assert ahead.mean is not None
    assert behind.mean == pytest.approx(-ahead.mean, rel=1e-12)
    assert (ahead.word, behind.word) == ("promoted", "not proven")


def test_a_block_that_comes_again_changes_nothing() -> None:
    blocks = pairs(*losses(40, 0.02), sources=3)
    evidence = weigh(blocks)

    assert all(taken(evidence, pair, SETTINGS) is evidence for pair in blocks)
    assert weigh([*blocks[:20], *blocks[5:25], *blocks[10:]]) == evidence


def test_events_count_where_both_have_a_loss() -> None:
    champion, challenger = losses(1)
    champion[0, :30], challenger[0, 20:50] = np.nan, np.inf
    evidence = weigh(pairs(champion, challenger))

    assert verdict(evidence, SETTINGS).mean == pytest.approx((champion - challenger)[0, 50:].mean(), rel=1e-12)
    assert (evidence.blocks, evidence.skipped) == (1, 0)


def test_a_block_with_too_few_such_events_is_skipped_and_counted() -> None:
    champion, challenger = losses(3)
    champion[1, :51] = np.nan
    blocks = pairs(champion, challenger)
    evidence = weigh(blocks)

    assert (evidence.blocks, evidence.skipped) == (2, 1)
    assert taken(evidence, blocks[1], SETTINGS) is evidence


@pytest.mark.parametrize("seed", range(5))
def test_it_does_not_matter_which_source_completes_its_blocks_first(seed: int) -> None:
    blocks = pairs(*losses(300, 0.005, 0.99), sources=4)
    rng, queues, mixed = np.random.default_rng(seed), [blocks[source::4] for source in range(4)], []
    while any(queues):
        queue = queues[rng.choice([at for at, queue in enumerate(queues) if queue])]
        mixed += [queue.pop(0) for _ in range(min(len(queue), int(rng.integers(1, 20))))]

    assert mixed != blocks
    assert weigh([*blocks[:4], *(pair for pair in mixed if pair.block)]) == weigh(blocks)


def test_a_silent_source_holds_evidence_back_for_max_age_alone() -> None:
    settings = msgspec.structs.replace(SETTINGS, max_age_us=1_000)
    champion, challenger = losses(40)
    blocks = pairs(champion, challenger, sources=2)
    alone = [pair for pair in blocks if pair.source == 0 or pair.block < 3]
    evidence = weigh(alone, settings)

    assert evidence.waiting == ()
    assert evidence.blocks == len(alone)
    assert weigh(alone[:8], settings).waiting != ()


def test_an_epoch_ends_with_a_hundred_thousand_events_and_ten_spans() -> None:
    champion, challenger = losses(1_100)
    long = msgspec.structs.replace(SETTINGS, span_us=10_900)
    evidence = weigh(pairs(champion, challenger), challengers=2)

    assert (evidence.epoch, evidence.blocks, evidence.challengers) == (2, 100, 2)
    assert evidence.first_time_us == 1_000_000 + 100 * 1_000
    assert weigh(pairs(champion, challenger), long).epoch == 2
    assert weigh(pairs(champion, challenger)[:1_090], long).epoch == 1
    assert weigh(pairs(champion, challenger)[:1_000]).epoch == 1


def test_a_later_epoch_is_judged_by_itself_with_its_own_share_of_alpha() -> None:
    champion, challenger = losses(1_150, 0.01)
    blocks = pairs(champion, challenger)
    found = verdict(weigh(blocks), SETTINGS)
    y = [math.fsum(one - other) / 100 for one, other in zip(champion[1_000:], challenger[1_000:], strict=True)]

    assert found.a == pytest.approx(0.05 * 6 / (math.pi**2 * 4), rel=1e-12)
    assert found.bound == pytest.approx(float(reference(y, share(0.05, 2, 1), math.log(1000.0))["bound"]), rel=1e-9)


def test_a_challenger_made_anew_earns_its_own_evidence_in_the_next_epoch() -> None:
    blocks = pairs(*losses(300, 0.02))
    evidence = weigh(blocks[:150])
    again = renewed(evidence)

    assert (again.epoch, again.blocks, verdict(again, SETTINGS).word) == (2, 0, "too early")
    assert renewed(again) == again
    assert taken(again, blocks[149], SETTINGS) is again
    assert taken(again, blocks[150], SETTINGS, 4).challengers == 4


def test_a_million_events_of_four_sources_take_under_a_kilobyte() -> None:
    settings = msgspec.structs.replace(SETTINGS, span_us=10**9)
    champion, challenger = losses(100)
    evidence = weigh(pairs(champion, challenger, 4), settings, 5)
    for turn in range(1, 100):
        for pair in pairs(champion, challenger, 4, 100 * turn):
            evidence = taken(evidence, pair._replace(first_time_us=pair.first_time_us + 10**15), settings, 5)
    complete = msgspec.structs.replace(evidence, waiting=())

    assert evidence.blocks > 9_990
    assert len(msgspec.json.encode(complete)) < 1_024


def test_a_table_of_json_gives_back_what_it_was_given() -> None:
    evidence = weigh(pairs(*losses(77, 0.01), sources=3))

    assert evidence.waiting
    assert through_json(evidence) == evidence
    assert through_json(Evidence()) == Evidence()


def test_a_verdict_is_json_with_all_its_numbers() -> None:
    found = verdict(weigh(pairs(*losses(120, 0.02))), SETTINGS)

    assert msgspec.json.decode(msgspec.json.encode(found), type=Verdict) == found
    assert None not in msgspec.to_builtins(found).values()


def test_log_losses_are_bounded_as_learning_bounds_them() -> None:
    assert LARGEST["log_loss"] == log_loss(0.0, True) == -math.log(P_MIN)
    assert bounded(np.array([0.3, 9.0, np.nan]), Select()).tolist() == pytest.approx(
        [0.3, math.log(1000.0), math.nan], nan_ok=True
    )


@pytest.mark.parametrize("p", [P_MIN, 0.2, 0.5, 0.93, P_MAX])
@pytest.mark.parametrize("label", [False, True])
def test_the_brier_loss_follows_from_the_log_loss(p: float, label: bool) -> None:
    found = bounded(np.array([log_loss(p, label)]), Select(metric="brier"))

    assert found.tolist() == pytest.approx([(p - label) ** 2], rel=1e-12)


def test_a_loss_without_a_bound_counts_up_to_the_declared_one() -> None:
    settings = Select(metric="mae", cap=10.0)

    assert bounded(np.array([3.0, 1e9]), settings).tolist() == [3.0, 10.0]
    assert settings.largest_loss == 10.0
