"""The guard over a promotion: event by event in plain Python, what it overlooks, and what it may not overlook."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from models.cusum import line_path
from models.guard import Guard, GuardVerdict, enthroned, guard_verdict, watched
from models.paired_losses import PairedLosses
from streams.selecting import LARGEST, Select
from tests.models.json_table import through_json

Floats = npt.NDArray[np.float64]
SETTINGS = Select()
LEARNING = 25_000  # events: 5,000 for the loss, 20,000 for the spread
LOG = math.log(2e6)


def losses(events: int, sd: float = 0.2, seed: int = 0) -> tuple[Floats, Floats]:
    """Losses of a champion and of the last one, equally good on average."""
    rng = np.random.default_rng(seed)
    last = rng.uniform(0.1, 0.8, events)
    return last + rng.normal(0.0, sd, events), last


def watch(champion: Floats, last: Floats, guard: Guard | None = None, settings: Select = SETTINGS) -> Guard:
    guard = guard or Guard()
    first = guard.last_block.get(7, -1) + 1
    for at in range(0, champion.size, 100):
        part = slice(at, at + 100)
        pair = PairedLosses(7, first + at // 100, at, at + 99, champion[part], last[part])
        guard = watched(guard, pair, settings)
    return guard


def spread_of(clipped: Floats) -> float:
    """The long-run variance of one event, from whole lists of means."""
    means, largest, level = clipped.reshape(-1, 100).mean(axis=1), 0.0, 0
    while means.size >= 16:
        apart = means - means.mean()
        correlation = (apart[1:] * apart[:-1]).sum() / (apart**2).sum()
        largest = max(largest, 2**level * means.var(ddof=1) * (1.0 + 2.0 * max(0.0, correlation)))
        means = means[: means.size // 2 * 2].reshape(-1, 2).mean(axis=1)
        level += 1
    return 100.0 * largest


def reference(champion: Floats, last: Floats) -> tuple[float, float, list[float], list[float], int | None]:
    """L0, variance, thresholds, lines and the event of the alarm, one event after the other."""
    usual = math.fsum(last[:5_000]) / 5_000
    clip, kappas = 2.0 * usual, (0.1 * usual, 0.25 * usual)
    clipped = np.clip(champion - last, -clip, clip)
    variance = spread_of(clipped[5_000:25_000])
    thresholds = [(variance / (2.0 * kappa) + clip / 3.0) * LOG for kappa in kappas]
    lines, alarm = [0.0, 0.0], None
    for event, apart in enumerate(clipped.tolist()):
        if event < 5_000:
            continue
        lines = [max(0.0, line + apart - kappa) for line, kappa in zip(lines, kappas, strict=True)]
        is_above = any(line > h for line, h in zip(lines, thresholds, strict=True))
        if alarm is None and event >= 24_900 and is_above:  # with the block that completes the variance
            alarm = event + 1
    return usual, variance, thresholds, lines, alarm


@pytest.mark.parametrize("factor", [1.0, 1.3, 2.0])
@pytest.mark.parametrize("sd", [0.05, 0.4])
def test_every_number_is_that_of_one_event_after_the_other(sd: float, factor: float) -> None:
    champion, last = losses(27_000, sd)
    champion[26_050:] *= factor
    guard = watch(champion, last)
    found = guard_verdict(guard, SETTINGS)
    usual, variance, thresholds, lines, alarm = reference(champion, last)

    assert found.loss == pytest.approx(usual, rel=1e-12)
    assert found.sigma == pytest.approx(math.sqrt(variance), rel=1e-10)
    assert found.thresholds == pytest.approx(thresholds, rel=1e-10)
    assert found.lines == pytest.approx(lines, rel=1e-9, abs=1e-9)
    assert found.alarm_at == alarm
    assert found.word == ("quiet" if alarm is None else "alarm")
    assert (alarm is None) == (factor == 1.0)


def test_a_line_is_that_of_pages_recursion() -> None:
    x = np.random.default_rng(1).normal(size=500)
    line, expected = 1.5, []
    for value in x.tolist():
        line = max(0.0, line + value - 0.1)
        expected.append(line)

    assert line_path(1.5, x, 0.1).tolist() == pytest.approx(expected, abs=1e-12)
    assert min(expected) == 0.0


def test_it_says_that_it_is_learning_until_it_can_raise_an_alarm() -> None:
    champion, last = losses(LEARNING)
    before, after = (guard_verdict(watch(champion[:events], last[:events]), SETTINGS) for events in (24_900, LEARNING))

    assert (before.word, before.thresholds, before.expected_delay_events, before.settled) == (
        "learning", None, None, 24_900,
    )  # fmt: skip
    assert (after.word, after.settled) == ("quiet", LEARNING)
    assert after.expected_delay_events is not None


def test_where_nothing_varies_the_delay_is_the_one_it_tells() -> None:
    """The threshold is c/3 ln(2 ARL), and the flatter line climbs by 0.9 L0 an event: alarm at the 11th."""
    champion = np.full(LEARNING + 100, 0.5)
    champion[LEARNING:] = 1.0
    last = np.full(LEARNING + 100, 0.5)
    found = guard_verdict(watch(champion, last), SETTINGS)

    assert found.expected_delay_events == pytest.approx(2.0 / 3.0 * LOG / 0.9, rel=1e-9)
    assert found.alarm_at == LEARNING + 11


@pytest.mark.parametrize("advantage", [0.0, 0.2, 0.5])
def test_past_advantage_is_no_credit(advantage: float) -> None:
    """A champion that was better for 75,000 events and then loses twice what the last one does."""
    champion, last = losses(102_000)
    champion[:100_000] *= 1.0 - advantage
    champion[100_000:] *= 2.0
    found = guard_verdict(watch(champion, last), SETTINGS)

    assert found.alarm_at is not None
    assert 100_000 < found.alarm_at <= 100_050


def test_it_tells_no_delay_where_a_doubled_loss_would_be_no_reason() -> None:
    """Twice as good as the last champion, it would be as good as that."""
    champion, last = losses(LEARNING + 20_000, sd=0.02)
    champion *= 0.5
    guard = watch(champion[:LEARNING], last[:LEARNING])
    found = guard_verdict(watch(2.0 * champion[LEARNING:], last[LEARNING:], guard), SETTINGS)

    assert (found.expected_delay_events, found.word) == (None, "quiet")


def test_the_told_delay_is_about_the_one_that_comes() -> None:
    delays, told = [], []
    for seed in range(9):
        champion, last = losses(LEARNING + 1_000, sd=0.6, seed=seed)
        champion[LEARNING:] *= 2.0
        found = guard_verdict(watch(champion, last), SETTINGS)
        delays.append((found.alarm_at or 10**9) - LEARNING)
        told.append(found.expected_delay_events or 0.0)

    assert np.median(delays) == pytest.approx(np.median(told), rel=0.3)


def test_one_monstrous_loss_is_no_fault() -> None:
    champion, last = losses(LEARNING + 1_000)
    champion[LEARNING + 500] = 1e6
    settings = Select(metric="mae", cap=1e6)

    assert guard_verdict(watch(champion, last, settings=settings), settings).word == "quiet"


def test_a_fault_while_it_learns_is_noticed_later() -> None:
    """It counts as usual variance, but the lines have seen it."""
    champion, last = losses(LEARNING + 5_000)
    champion[24_000:] += 2.0 * last[24_000:]
    found = guard_verdict(watch(champion, last), SETTINGS)

    assert found.alarm_at is not None
    assert LEARNING < found.alarm_at < LEARNING + 5_000


def test_a_challenger_that_was_watched_is_guarded_from_its_first_event_on() -> None:
    champion, last = losses(70_100)
    champion[:24_000] += 1.0  # as long as it had learned nothing, it was far worse
    guard = watch(champion[:70_000], last[:70_000], Guard(is_reigning=False))
    crowned = guard_verdict(watch(2.0 * champion[70_000:], last[70_000:], enthroned(guard)), SETTINGS)
    alone = guard_verdict(watch(champion[LEARNING : 2 * LEARNING], last[LEARNING : 2 * LEARNING]), SETTINGS)

    assert (guard_verdict(guard, SETTINGS).word, guard.lines, guard.alarm_at) == ("ready", (0.0, 0.0), None)
    assert (crowned.loss, crowned.sigma) == (alone.loss, alone.sigma)
    assert crowned.alarm_at is not None
    assert 0 < crowned.alarm_at <= 50


def test_an_alarm_stays() -> None:
    champion, last = losses(LEARNING + 200)
    champion[LEARNING:] *= 3.0
    alarmed = watch(champion, last)
    later = watch(*losses(2_000, seed=1), alarmed)

    assert alarmed.alarm_at is not None
    assert (later.alarm_at, guard_verdict(later, SETTINGS).word) == (alarmed.alarm_at, "alarm")


def test_a_fault_does_not_raise_the_threshold_it_has_to_pass() -> None:
    champion, last = losses(LEARNING + 5_000)
    guard = watch(champion[:LEARNING], last[:LEARNING])
    before = guard_verdict(guard, SETTINGS)
    after = guard_verdict(watch(10.0 * champion[LEARNING:], last[LEARNING:], guard), SETTINGS)

    assert (after.thresholds, after.loss) == (before.thresholds, before.loss)


def test_a_block_that_comes_again_changes_nothing() -> None:
    champion, last = losses(26_000)
    guard = watch(champion, last)

    for block in (0, 100, 259):
        assert watched(guard, PairedLosses(7, block, 0, 99, 9.0 + champion[:100], last[:100]), SETTINGS) is guard


def test_events_without_a_loss_on_either_side_are_passed_over() -> None:
    champion, last = losses(1_000)
    champion[::4], last[1::4] = np.nan, np.inf
    guard = watch(champion, last)

    assert (guard.settled, guard.loss_events) == (500, 500)
    assert guard.loss_total == pytest.approx(last[2::4].sum() + last[3::4].sum(), rel=1e-12)


def test_blocks_with_hardly_a_loss_teach_nothing_of_the_spread_but_are_watched() -> None:
    champion, last = losses(LEARNING + 100)
    champion[LEARNING - 100 : LEARNING - 49] = np.nan
    champion[LEARNING : LEARNING + 51] = np.nan
    guard = watch(champion[:-100], last[:-100])
    after = watch(champion[-100:], last[-100:] - 0.5, guard)

    assert (guard.blocks, guard.usual) == (199, None)
    assert (after.blocks, after.usual) == (199, None)
    assert after.lines > guard.lines


def test_the_best_champion_of_all_is_no_measure() -> None:
    """A loss of 0 would make every other one infinitely worse."""
    nothing = np.zeros(LEARNING)
    found = guard_verdict(watch(nothing, nothing), SETTINGS)

    assert found.loss == pytest.approx(1e-3 * LARGEST["log_loss"])
    assert (found.word, found.sigma) == ("quiet", 0.0)


def test_it_takes_under_a_kilobyte_and_comes_back_from_a_table_of_json() -> None:
    champion, last = losses(26_000)
    champion[25_000:] *= 3.0
    guard = watch(champion, last)
    found = guard_verdict(guard, SETTINGS)

    assert through_json(guard) == guard
    assert len(msgspec.json.encode(guard)) < 1_024
    assert msgspec.json.decode(msgspec.json.encode(found), type=GuardVerdict) == found
