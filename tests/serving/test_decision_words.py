"""Decisions in words: every record that is written is told, with its numbers."""

from __future__ import annotations

import msgspec
import pytest

from consumers.drifting import DriftRecord
from consumers.learn_role import Restarted
from consumers.quarantine import Quarantined, Released
from consumers.retrain import TrainedVersion
from consumers.trainings import FailedTraining
from consumers.uptake import Refused
from serving.decision_words import told
from streams.reign import Promoted
from tests.selecting import SETTINGS, Log, Selector, scores

NAMES = ("base", "good", "slow")
BETTER = {"base": 0.5, "good": 0.45, "slow": 0.52}


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (
            DriftRecord("good", "ph", "", "up", 1, 0, 20, 3, 7, 0, 0.25, 0.2, "relearn"),
            "the loss of good has risen by ph (0.25 measured, 0.2 is an alarm); the model was relearned",
        ),
        (
            DriftRecord("base", "psi", "price", "", 1, 0, 20, 3, 7, 0, 0.3, 0.2, "none"),
            "feature price has drifted by psi (0.3 measured, 0.2 is an alarm); nothing was done",
        ),
        (
            TrainedVersion("good", 1, 900, "0.5", "every 1d", 1_000, 61.5, {}, {"log_loss": 0.25}, 0),
            "good@1.900 was trained from 1,000 rows in 61.5 s (every 1d); on what it had not seen: log_loss 0.25",
        ),
        (
            FailedTraining("good", 1, "asked for", 10, "too few rows", 2, 60.0, 0),
            "a training of good failed (2 in a row): too few rows",
        ),
        (Quarantined("good", 1, 0, "it raised", "label", 0, 1, 0, ""), "good is in quarantine, lineage 1: it raised"),
        (Released("good", 2, 0, "other parameters"), "good begins anew with lineage 2: other parameters"),
        (Restarted("good", 2, 1, "cut", 0), "good begins anew with lineage 2: cut"),
        (Refused("good", 2, 1, "1.5", "damaged", 0), "a version of good is refused, 1.5 goes on: damaged"),
        (
            Promoted("x", "", "good", 0, "manual", note="try it"),
            "good is champion in place of base: a person said so (try it)",
        ),
        (Promoted("x", "", "base", 0, "manual", is_pinned=True), "base stays champion, pinned: a person said so"),
        (
            Promoted("x", "y", "good", 0, "manual"),
            "void, for another decision came first: good is champion in place of base: a person said so",
        ),
        (
            Promoted("x", "", "good", 0, "stale", numbers={"age_s": 90000.0}, thresholds={"age_s": 86400.0}),
            "good is champion in place of base: the champion was 90,000 s of event time behind, 86,400 allowed",
        ),
        (
            Promoted("x", "", "good", 0, "slow", numbers={"predict_ms": 7.5}, thresholds={"predict_ms": 5.0}),
            "good is champion in place of base: a prediction of the champion took 7.5 ms, 5 allowed",
        ),
    ],
)
def test_each_kind_of_record_has_its_sentence(record: msgspec.Struct, line: str) -> None:
    assert list(told([msgspec.json.encode(record)], "base", NAMES)) == [line]


def test_promotions_have_the_numbers_that_they_were_decided_by() -> None:
    """Of a proven challenger and of a broken champion; the date is the wall clock's."""
    log = Log()
    records = scores([BETTER] * 325 + [{**BETTER, "good": 0.9}] * 3)
    selector = Selector(log, msgspec.structs.replace(SETTINGS, span_us=32_000))
    selector.read(records, 0, len(records))
    first, second = told(log.values, "base", NAMES)
    proven, broken = log.promotions()

    assert first.startswith("good is champion in place of base: proven better: its loss is smaller by 0.0")
    assert f"surely by {proven.numbers['bound']:.4g} (needed: more than 0)" in first
    assert second.startswith("base is champion in place of good: the guard's alarm at settled event ")
    assert f"the last champion's loss was {broken.numbers['loss']:.4g}" in second
    assert next(told([msgspec.json.encode(msgspec.structs.replace(proven, time_us=1_000_000))], "base", NAMES)) == (
        f"1970-01-01 00:00:01 UTC: {first}"
    )


def test_what_is_no_record_is_told_too() -> None:
    """Nothing is left out, and nothing ends the list."""
    values = [b"[1]", b'{"decision": "new", "candidate": "good"}']

    assert list(told(values, "base", NAMES)) == ["a record that cannot be read", "new: candidate good"]
