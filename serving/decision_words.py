"""Decisions in words, with their numbers: what `millrace explain` prints of the records of P.decisions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from streams.pipeline import Pipeline
from streams.reign import first_reign, followed, promotion_in

Record = dict[str, Any]


def told(values: Iterable[bytes], champion: str, candidates: Iterable[str]) -> Iterator[str]:
    """Give a line for each decision, the oldest first; of a promotion also whether it counts."""
    names, reign = tuple(candidates), first_reign(champion)
    for value in values:
        try:
            record = msgspec.json.decode(value, type=Record)
        except msgspec.MsgspecError:
            yield "a record that cannot be read"
            continue
        promotion = promotion_in(value)
        if promotion is None:
            say = _WORDS.get(str(record.get("decision")), _other)
            yield _dated(record, say(record))
            continue
        before, reign = reign, followed(reign, promotion, names)
        gone = "" if promotion.candidate in names else ", which the pipeline file has no more"
        line = f"{_promoted(record, before.champion)}{gone}"
        yield _dated(record, line if reign is not before else f"void, for another decision came first: {line}")


def _dated(record: Record, line: str) -> str:
    time_us = record.get("time_us") or 0
    if time_us <= 0:
        return line
    return f"{time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(time_us / 1e6))}: {line}"


def _promoted(record: Record, before: str) -> str:
    candidate, why, numbers = record["candidate"], record["why"], record.get("numbers", {})
    bounds = record.get("thresholds", {})
    pin = ", pinned" if record.get("is_pinned") else ""
    same = candidate == before
    head = (
        f"{candidate} stays champion{pin or ', let go'}"
        if same
        else f"{candidate} is champion in place of {before}{pin}"
    )
    note = f" ({record['note']})" if record.get("note") else ""
    return f"{head}: {_reason(why, numbers, bounds)}{note}"


def _reason(why: str, numbers: Record, bounds: Record) -> str:
    if why in {"evidence", "taken back"}:
        lead = (
            "the promotion is taken back, for the last champion is proven better"
            if why == "taken back"
            else "proven better"
        )
        return (
            f"{lead}: its loss is smaller by {_n(numbers, 'mean')}, surely by {_n(numbers, 'bound')} "
            f"(needed: more than {_n(bounds, 'bound')}), {_n(numbers, 'champion_loss')} against "
            f"{_n(numbers, 'challenger_loss')} over {_n(numbers, 'events')} events; "
            f"wrong with chance {_n(bounds, 'alpha')}"
        )
    if why == "stale":
        return f"the champion was {_n(numbers, 'age_s')} s of event time behind, {_n(bounds, 'age_s')} allowed"
    if why == "slow":
        return f"a prediction of the champion took {_n(numbers, 'predict_ms')} ms, {_n(bounds, 'predict_ms')} allowed"
    if why == "guard" and "lost_ratio" in numbers:
        share, most = _n(numbers, "lost_ratio"), _n(bounds, "lost_ratio")
        return f"the champion gave no number for {share} of a block, {most} allowed"
    if why == "guard" and "quarantined" in numbers:
        return "the champion is in quarantine"
    if why == "guard":
        lines = ", ".join(
            f"{_n(numbers, name)} above {_n(bounds, name)}" for name in bounds if _is_above(numbers, bounds, name)
        )
        return (
            f"the guard's alarm at settled event {_n(numbers, 'alarm_at')} of the reign: "
            f"{lines or 'a line was above'}; the last champion's loss was {_n(numbers, 'loss')}, "
            f"a doubled one is noticed after about {_n(numbers, 'expected_delay_events')} events"
        )
    return "a person said so"


def _is_above(numbers: Record, bounds: Record, name: str) -> bool:
    return (numbers.get(name) or 0.0) > (bounds.get(name) or 0.0)


def _n(numbers: Record, name: str) -> str:
    value = numbers.get(name)
    if value is None:
        return "?"
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 1 else f"{value:.4g}"


def _drift(record: Record) -> str:
    what = f"feature {record['feature']}" if record.get("feature") else f"the loss of {record['candidate']}"
    direction = {"up": " has risen", "down": " has fallen"}.get(record.get("direction", ""), " has drifted")
    action = _ACTIONS.get(record.get("action", "none"), "it is not known what was done")
    numbers = f"{_n(record, 'value')} measured, {_n(record, 'threshold')} is an alarm"
    return f"{what}{direction} by {record['detector']} ({numbers}); {action}"


def _trained(record: Record) -> str:
    test = ", ".join(f"{name} {value:.4g}" for name, value in record.get("test", {}).items() if value is not None)
    name = f"{record['candidate']}@{record['lineage']}.{record['examples']}"
    why = record["reason"] or "asked for"
    line = f"{name} was trained from {record['rows']:,} rows in {_n(record, 'seconds')} s ({why})"
    return line + (f"; on what it had not seen: {test}" if test else "")


def _training_failed(record: Record) -> str:
    return f"a training of {record['candidate']} failed ({record['failures']} in a row): {record['error']}"


def _quarantined(record: Record) -> str:
    return f"{record['candidate']} is in quarantine, lineage {record['lineage']}: {record['reason']}"


def _began(record: Record) -> str:
    return f"{record['candidate']} begins anew with lineage {record['lineage']}: {record['reason']}"


def _refused(record: Record) -> str:
    return f"a version of {record['candidate']} is refused, {record['kept']} goes on: {record['reason']}"


def _other(record: Record) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in record.items() if name not in {"decision", "time_us"})
    return f"{record.get('decision', 'a decision without a name')}: {facts}"


_ACTIONS = {
    "none": "nothing was done",
    "reset": "the model began anew",
    "relearn": "the model was relearned",
    "retrain": "a training was asked for",
}
_WORDS: dict[str, Callable[[Record], str]] = {
    "drift": _drift,
    "trained": _trained,
    "training failed": _training_failed,
    "quarantined": _quarantined,
    "released": _began,
    "restarted": _began,
    "refused": _refused,
}


def told_of(pipeline: Pipeline, values: Iterable[bytes]) -> Iterator[str]:
    """Give a line for each decision of a pipeline."""
    return told(values, pipeline.serve.champion, [model.name for model in pipeline.models])
