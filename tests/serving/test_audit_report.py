"""What an audit says: to people, to programs, and to Prometheus."""

from __future__ import annotations

import math
from collections import Counter

import msgspec
from rich.console import Console

from serving.audit_report import outcome, report_record, show_report
from serving.auditor import ONE_SIDED, Export
from serving.comparison import Difference
from serving.tally import Tally
from streams.pipeline import Feature
from tests.featurizing import SECOND, small_pipeline

PIPELINE = small_pipeline((Feature("count_12s", "count", "*", "key", 12 * SECOND),), raw=True)
SOUND = Tally(0, compared=1_200, unserved=3)
WRONG = Tally(
    1,
    compared=30,
    only_served=1,
    only_recomputed=2,
    unlike=Counter({"amount": 4, "count_12s": 1}),
    first=[Difference(1, 1, 7, "[id]", "amount", 1.5, math.nan)],
)


def shown(*tallies: Tally) -> str:
    """The report as it is printed to a file."""
    out = Console(width=110, color_system=None, highlight=False)
    with out.capture() as captured:
        show_report(out, "p", tallies)
    return captured.get()


def test_a_sound_pipeline_is_one_line_below_its_partitions() -> None:
    """No list of differences."""
    text = shown(SOUND)

    assert "p: 1,200 served rows are equal to their recomputation, bit for bit" in text
    assert "recomputed" not in text.lower().replace("recomputation", "")


def test_differences_are_counted_by_column_and_shown_with_both_values() -> None:
    """The worst column first; an id is text, whatever brackets it has."""
    text = shown(SOUND, WRONG)

    assert "p: SKEW of 8 in 1,230 rows: amount 4, count_12s 1, rows on one side only 3" in text
    assert ["1", "7", "[id]", "amount", "1.5", "nan"] in [line.split() for line in text.splitlines()]
    assert outcome("p", [WRONG]).style == "bold red"


def test_of_a_chain_the_stage_is_said() -> None:
    """Of every partition, of every difference, and in the outcome; a sound stage is not named there."""
    wrong = Tally(
        1, 3, compared=30, unlike=Counter({"amount": 2}), first=[Difference(3, 1, 7, "a", "amount", 1.0, 2.0)]
    )
    second = Tally(0, 2, compared=70, only_served=4)
    text = shown(Tally(0, 1, compared=9), second, wrong)
    lines = [line.split() for line in text.splitlines()]

    assert "p: SKEW of 6 in 109 rows: stage 2: rows on one side only 4; stage 3: amount 2" in text
    assert ["3", "1", "30", "2", "0", "0", "0", "0"] in lines
    assert ["3", "1", "7", "a", "amount", "1.0", "2.0"] in lines
    assert next(line for line in lines if line)[:3] == ["stage", "partition", "compared"]


def test_the_record_has_everything_the_tables_have() -> None:
    """As JSON, where missing is null."""
    record = msgspec.json.decode(msgspec.json.encode(report_record("p", [SOUND, WRONG])))
    wrong = record["partitions"][1]

    assert (record["pipeline"], record["compared"], record["skew"]) == ("p", 1_230, 8)
    assert (wrong["skew"], wrong["only_served"], wrong["only_recomputed"], wrong["unlike"]["amount"]) == (8, 1, 2, 4)
    assert wrong["first"][0] == {
        "stage": 1,
        "partition": 1,
        "number": 7,
        "id": "[id]",
        "column": "amount",
        "served": 1.5,
        "recomputed": None,
    }


def test_metrics_of_a_chain_tell_stages_apart_as_the_roles_do() -> None:
    """Every stage has series for what is compared of its rows; what only later stages know is in none before."""
    of = small_pipeline((Feature("n", "count", "*", "shop", SECOND), Feature("x", "sum", "amount", "is_new", SECOND)))
    export = Export(of)
    export.update([Tally(0, 2, compared=5, unlike=Counter({"entity.3": 2})), Tally(1, 4, compared=1, only_served=1)])

    def value(candidate: str, name: str = "audited", **labels: str) -> float | None:
        own = {"pipeline": "p", "role": "audit", "candidate": candidate}
        return export.metrics.registry.get_sample_value(f"millrace_feature_{name}_total", own | labels)

    assert [value(candidate) for candidate in ("", "stage2", "stage3", "stage4")] == [0, 5, 0, 1]
    assert value("stage2", "skew", column="entity.3") == 2
    assert value("stage4", "skew", column=ONE_SIDED) == 1
    assert [value(candidate, "skew", column="entity.2") for candidate in ("", "stage2")] == [0, None]
    assert [value(candidate, "skew", column="number") for candidate in ("stage3", "stage4")] == [0, None]
    assert value("", "skew", column="field.amount") == 0


def test_metrics_count_what_is_new_and_know_every_column_from_the_start() -> None:
    """A column without skew is at 0, so that an alert on an increase sees the first one."""
    export = Export(PIPELINE)

    def value(name: str, **labels: str) -> float | None:
        own = {"pipeline": "p", "role": "audit", "candidate": ""}
        return export.metrics.registry.get_sample_value(f"millrace_feature_{name}_total", own | labels)

    columns = ("id", "key", "time", "produced", "amount", "shop", "is_new", "count_12s", ONE_SIDED)
    assert [value("skew", column=column) for column in columns] == [0.0] * len(columns)
    assert value("audited") == 0

    assert export.update([SOUND]) == 0
    assert export.update([SOUND, WRONG]) == 8
    assert export.update([SOUND, WRONG]) == 0
    found = {column: value("skew", column=column) for column in columns}
    assert value("audited") == 1_230
    assert found == dict.fromkeys(columns, 0.0) | {"amount": 4.0, "count_12s": 1.0, ONE_SIDED: 3.0}
