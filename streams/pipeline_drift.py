"""The `[drift]` table: which detectors watch losses and features, and their settings."""

from __future__ import annotations

from typing import Any, get_args

from streams.drift import WINDOW_PARTS, Adwin, Detector, Drift, Kswin, PageHinkley, Psi
from streams.pipeline import Model
from streams.toml_table import Table, shown

MOST_ROWS = 1_000_000  # of the reference, which is kept whole until it is full
MOST_BINS = 50  # every value is compared with every end of a bin

_DETECTORS: tuple[Detector, ...] = get_args(Detector)
_LOSS_FORM = f"a list of {', '.join(_DETECTORS)}"


def read_drift(
    values: dict[str, Any], models: tuple[Model, ...], mistakes: list[str], *, has_labels: bool = True
) -> Drift:
    """Read `[drift]`; without it ADWIN watches losses and the population stability index features."""
    table = Table("drift", values, mistakes)
    loss = _loss(table)
    features = table.choice("features", ("psi", "off"), "psi")
    drift = Drift(
        loss,
        "off" if features == "off" else "psi",
        _adwin(_inner(table, "adwin")),
        _page_hinkley(_inner(table, "page_hinkley")),
        _kswin(_inner(table, "kswin")),
        _psi(_inner(table, "psi")),
    )
    table.finish()
    has_detector = bool(loss) or "loss" in table.wrong
    for model in models:
        if model.on_drift != "none" and (wrong := _never(has_labels=has_labels, has_detector=has_detector)):
            line = f'"{model.on_drift}" waits for an alarm on the loss, and {wrong[0]}'
            Table(f"models.{model.name}", {}, mistakes).mistake("on_drift", line, f'"none", or {wrong[1]}')
    return drift


def _never(*, has_labels: bool, has_detector: bool) -> tuple[str, str] | None:
    """Say why no alarm can come, and what would let one come."""
    if not has_labels:
        return "without labels there is no loss", "[labels]"
    return None if has_detector else ("[drift] loss names no detector", "a detector")


def _loss(table: Table) -> tuple[Detector, ...]:
    found = table.get("loss")
    if found is None:
        return Drift().loss
    if not isinstance(found, list) or len(set(map(str, found))) < len(found):
        table.mistake("loss", f"{shown(found)} is not right", _LOSS_FORM)
        return ()
    for value in found:
        if value not in _DETECTORS:
            table.mistake("loss", f"{shown(value)} is unknown", _LOSS_FORM, str(value), _DETECTORS)
    return tuple(name for name in _DETECTORS if name in found)


def _inner(table: Table, key: str) -> Table:
    return Table(f"{table.name}.{key}", table.table(key), table.mistakes)


def _adwin(table: Table) -> Adwin:
    usual = Adwin()
    found = Adwin(
        delta=table.number("delta", usual.delta, 0.0, 1.0, is_open=True),
        clock=table.integer("clock", usual.clock, 1, 1_000_000),
        max_buckets=table.integer("max_buckets", usual.max_buckets, 2, 100),
        min_window_length=table.integer("min_window_length", usual.min_window_length, 1, 1_000_000),
        grace_period=table.integer("grace_period", usual.grace_period, 1, 1_000_000_000),
    )
    table.finish()
    return found


def _page_hinkley(table: Table) -> PageHinkley:
    usual = PageHinkley()
    mode = table.choice("mode", ("up", "down", "both"), usual.mode)
    found = PageHinkley(
        min_instances=table.integer("min_instances", usual.min_instances, 1, 1_000_000_000),
        delta=table.number("delta", usual.delta, 0.0, 1e30),
        threshold=table.number("threshold", usual.threshold, 0.0, 1e30, is_open=True),
        alpha=table.number("alpha", usual.alpha, 0.0, 1.0, is_open=True),
        mode=mode,
    )
    table.finish()
    return found


def _kswin(table: Table) -> Kswin:
    usual = Kswin()
    found = Kswin(
        alpha=table.number("alpha", usual.alpha, 0.0, 0.1, is_open=True),
        window_size=table.integer("window_size", usual.window_size, 20, 10_000),
        stat_size=table.integer("stat_size", usual.stat_size, 10, 200),
        seed=table.integer("seed", usual.seed, 0, 2**31),
    )
    if found.window_size < 2 * found.stat_size and not table.wrong:
        table.mistake("stat_size", f"{found.stat_size} newest and as many older ones do not fit", "half of window_size")
        found = usual
    table.finish()
    return found


def _psi(table: Table) -> Psi:
    usual = Psi()
    found = Psi(
        threshold=table.number("threshold", usual.threshold, 0.0, 1e3, is_open=True),
        bins=table.integer("bins", usual.bins, 2, MOST_BINS),
        reference_rows=table.integer("reference_rows", usual.reference_rows, 100, MOST_ROWS),
        window_rows=table.integer("window_rows", usual.window_rows, 100, MOST_ROWS),
        every=table.integer("every", usual.every, 1, 1_000_000),
    )
    if found.window_rows % WINDOW_PARTS:
        table.mistake("window_rows", f"{found.window_rows} is not right", f"a multiple of {WINDOW_PARTS}")
    table.finish()
    return found
