"""Features in words: every operation is described, and its declaration can be pasted back into a pipeline file."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from streams import feature_words
from streams.durations import DAY_US, HOUR_US
from streams.feature_words import feature_lines, meaning, missing, reach
from streams.features import columns
from streams.pipeline import Feature
from streams.pipeline_file import read_pipeline
from tests.featurizing import small_pipeline

LATER = ", each label from 1h after its time on"
# Feature, what it is, what stands there without a value.
SAID = [
    (
        Feature("f", "count", "*", "key", DAY_US),
        "count of events of the same key over the last 1d",
        "0 if there is none",
    ),
    (
        Feature("f", "count", "shop", "key", DAY_US, where="amount > 100 and is_new"),
        "count of events with shop of the same key over the last 1d, where amount > 100 and is_new",
        "0 if there is none",
    ),
    (
        Feature("f", "sum", "amount", "key", HOUR_US),
        "sum of amount of the same key over the last 1h",
        "0 if there is none",
    ),
    (
        Feature("f", "mean", "amount", "key", HOUR_US, where="shop == 'web'"),
        "mean of amount of the same key over the last 1h, where shop == 'web'",
        "NaN if there is none",
    ),
    (
        Feature("f", "std", "amount", "key", HOUR_US),
        "standard deviation of amount of the same key over the last 1h",
        "NaN for fewer than 2",
    ),
    (
        Feature("f", "min", "amount", "key", HOUR_US),
        "smallest amount of the same key over the last 1h",
        "NaN if there is none",
    ),
    (
        Feature("f", "max", "amount", "key", HOUR_US),
        "largest amount of the same key over the last 1h",
        "NaN if there is none",
    ),
    (
        Feature("f", "rate", "is_new", "key", HOUR_US),
        "share of is_new that is true of the same key over the last 1h",
        "NaN if there is none",
    ),
    (
        Feature("f", "rate", "label", "key", DAY_US, is_label=True),
        "share of labels that are 1 of the same key over the last 1d",
        "NaN if there is none",
    ),
    (
        Feature("f", "count", "label", "key", DAY_US, is_label=True, delay_us=HOUR_US),
        "count of labels of the same key over the last 1d, each label from 1h after its time on",
        "0 if there is none",
    ),
    (Feature("f", "last", "shop", "key"), "last shop of the same key", "NaN if there is none"),
    (
        Feature("f", "last", "amount", "key", DAY_US, where="is_new"),
        "last amount of the same key, not older than 1d, where is_new",
        "NaN if there is none",
    ),
    (
        Feature("f", "lag", "amount", "key"),
        "amount of the event before of the same key",
        "NaN if there is none",
    ),
    (
        Feature("f", "lag", "shop", "key", DAY_US, k=3),
        "shop of the 3rd event before of the same key, not older than 1d",
        "NaN if there is none",
    ),
    (
        Feature("f", "ewm_mean", "amount", "key", half_life_us=HOUR_US),
        "mean of amount of the same key, weights halved every 1h",
        "NaN before the first",
    ),
    (
        Feature("f", "ewm_std", "amount", "key", half_life_us=HOUR_US),
        "standard deviation of amount of the same key, weights halved every 1h",
        "NaN before the second",
    ),
    (Feature("f", "elapsed", "*", "key"), "seconds since the last event of the same key", "NaN for the first"),
    (
        Feature("f", "frequency", "*", "shop", DAY_US, where="is_new"),
        "events a day of the same shop over the last 1d, where is_new",
        "0 if there is none",
    ),
    (
        Feature("f", "target", "label", "shop", DAY_US, prior=0.02, weight=50.0, is_label=True, delay_us=HOUR_US),
        f"share of labels that are 1 of the same shop over the last 1d, drawn to 0.02 as by 50 more{LATER}",
        "0.02 if there is none",
    ),
    (
        Feature("f", "target", "label", "shop", DAY_US, prior=0.0, is_label=True),
        "share of labels that are 1 of the same shop over the last 1d, drawn to 0 as by 20 more",
        "0 if there is none",
    ),
    (Feature("f", "calendar", "weekend"), "1 on Saturday and Sunday (UTC), else 0", "never missing"),
    (Feature("f", "calendar", "night"), "1 from midnight to 6 o'clock (UTC), else 0", "never missing"),
    (Feature("f", "cyclic", "hour"), "the hour of the event's time, as a point on a circle", "never missing"),
    (
        Feature("f", "ratio", "amount", other="is_new"),
        "amount divided by is_new",
        "NaN, also for x / 0",
    ),
    (Feature("f", "difference", "amount", other="is_new"), "amount less is_new", "NaN if either is"),
    (
        Feature("f", "log1p", "amount"),
        "natural logarithm of 1 + amount",
        "NaN, also up to -1",
    ),
    (Feature("f", "clip", "amount", low=-1.0), "amount, at least -1", "NaN"),
    (Feature("f", "clip", "amount", low=0.0, high=2.5), "amount, at least 0, at most 2.5", "NaN"),
    (
        Feature("f", "bucketise", "amount", edges=(10.0, 100.0)),
        "how many of these edges amount has reached: 10, 100",
        "NaN",
    ),
    (
        Feature("f", "bucketise", "amount", edges=tuple(map(float, range(40)))),
        "how many of these edges amount has reached: 0, 1, 2, 3, 4 … 39 (40)",
        "NaN",
    ),
    (
        Feature("f", "one_hot", "shop", values=("web", "app")),
        "1 where shop is the column's value, else 0: web, app",
        "NaN",
    ),
    (Feature("f", "hash", "shop"), "shop as a code", "NaN"),
    (Feature("f", "hash", "shop", buckets=64), "shop as a code below 64", "NaN"),
]
FILE = """
[pipeline]
name = "shop"
[events]
topic = "events"
id = "id"
key = "key"
fields = {{ amount = "number", shop = "category", is_new = "boolean" }}
[labels]
topic = "labels"
id = "id"
key = "key"
value = "y"
wait = "1h"
[features]
f = {{ {declaration} }}
[models.prior]
kind = "prior"
"""


@pytest.mark.parametrize(("feature", "meant", "without"), SAID)
def test_every_operation_is_said_in_words(feature: Feature, meant: str, without: str) -> None:
    """What the value is, and what stands there without one."""
    assert meaning(feature) == meant
    assert missing(feature) == without


@pytest.mark.parametrize("feature", [feature for feature, _, _ in SAID])
def test_what_is_shown_as_declared_declares_it(feature: Feature, tmp_path: Path) -> None:
    """Pasted into a pipeline file it is the same feature."""
    file = tmp_path / "pipeline.toml"
    (line,) = feature_lines(small_pipeline((feature,)))
    file.write_text(FILE.format(declaration=line.declaration), encoding="utf-8")

    assert read_pipeline(file, {}).features == (feature,)


@pytest.mark.parametrize(
    ("feature", "back"),
    [
        (Feature("f", "count", "*", "key", DAY_US), "1d"),
        (Feature("f", "last", "amount", "key", DAY_US), "1 event in 1d"),
        (Feature("f", "lag", "amount", "key", k=3), "3 events"),
        (Feature("f", "ewm_std", "amount", "key", half_life_us=HOUR_US), "half-life 1h"),
        (Feature("f", "elapsed", "*", "key"), "1 event"),
        (Feature("f", "clip", "amount", low=0.0), ""),
    ],
)
def test_how_far_back_a_feature_looks(feature: Feature, back: str) -> None:
    """A time, a number of events, a half-life, or not at all."""
    assert reach(feature) == back


def test_lines_follow_the_columns_and_know_categories() -> None:
    """A last category is a code too, also where raw fields are left out."""
    features = (Feature("was", "last", "shop", "key"), Feature("at", "one_hot", "shop", values=("web", "app")))
    of = small_pipeline(features, raw=True)
    lines = feature_lines(of)

    assert [line.name for line in lines] == ["amount", "shop", "is_new", "was", "at"]
    assert [column for line in lines for column in line.columns] == [column.name for column in columns(of)]
    assert [line.is_category for line in lines] == [False, True, False, True, False]
    assert [line.reach for line in lines] == ["", "", "", "1 event", ""]
    assert (lines[1].meaning, lines[1].missing) == ("the category as it came", "NaN")
    assert [line.name for line in feature_lines(small_pipeline(features))] == ["was", "at"]


def test_both_pages_name_every_operation() -> None:
    """docs/features.md says what each gives, docs/pipeline.md shows how one is declared."""
    docs = Path(__file__).parents[2] / "docs"
    said, declared = (
        (docs / name).read_text(encoding="utf-8").partition(start)[2].partition("\n## ")[0]
        for name, start in (("features.md", "## What a feature says"), ("pipeline.md", "## [features]"))
    )
    operations = {feature.operation for feature, _, _ in SAID}

    assert {one for one in operations if f"`{one} = " not in said} == set()
    assert {one for one in operations if f"`{one}`" not in declared} == set()


def test_the_manuals_examples_are_right(tmp_path: Path) -> None:
    """Those of docs/pipeline.md all together make a pipeline file."""
    root, file = Path(__file__).parents[2], tmp_path / "pipeline.toml"
    manual = (root / "docs" / "pipeline.md").read_text(encoding="utf-8").partition("## [features]")[2]
    examples = re.findall(r"\| `(\w+ = \{ .* \})` \|", manual.partition("\n## ")[0])
    flights = (root / "examples" / "flights.toml").read_text(encoding="utf-8")
    head, _, rest = flights.partition("[features]\n")
    head = head.replace("[events.fields]\n", '[events.fields]\nis_wet = "boolean"\n')
    file.write_text(f"{head}[features]\n" + "\n".join(examples) + f"\n[models{rest.partition('[models')[2]}")
    lines = feature_lines(read_pipeline(file, {}))

    assert len(examples) == 20
    assert [f"{line.name} = {{ {line.declaration} }}" for line in lines if line.declared] == examples


def test_examples_in_the_docstrings_run() -> None:
    """What they print is what is printed."""
    assert doctest.testmod(feature_words).failed == 0
