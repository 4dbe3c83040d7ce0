"""What `millrace features` prints: every feature with its declaration and costs, and distributions of its values."""

from __future__ import annotations

import doctest
import json
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from serving import feature_report
from serving.cli import app
from serving.feature_report import Described, described, show_features
from serving.newest_vectors import Vectors
from streams.bound import Bound
from streams.feature_costs import feature_costs
from streams.pipeline import Feature
from tests.featurizing import SECOND, small_pipeline

FLIGHTS = str(Path(__file__).parents[2] / "examples" / "flights.toml")
MINUTE = 60 * SECOND
OF = small_pipeline(
    (
        Feature("n", "count", "*", "key", MINUTE),
        Feature("mean", "mean", "amount", "key", MINUTE),
        Feature("total", "sum", "amount", "key", MINUTE),
    ),
    raw=True,
)


def lines(text: str) -> dict[str, list[list[str]]]:
    """The rows of all tables by their first cell; cells lie two blanks apart."""
    found: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        name, *cells = [cell.strip() for cell in line.strip().split("  ") if cell.strip()] or [""]
        found.setdefault(name, []).append(cells)
    return found


def test_every_feature_is_listed_with_what_a_missing_value_means() -> None:
    """Raw fields too; a second table has the state of each, the last that of all."""
    done = CliRunner().invoke(app, ["features", FLIGHTS, "--keys", "1000"])
    found = lines(done.output)

    assert done.exit_code == 0
    assert found["carrier"] == [["category", "the category as it came", "NaN"]]
    assert found["flights_1d"] == [
        ["number", 'count = "*", by = "tail", window = "1d"', "0 if there is none"],
        ["tail", "1d", "56", "216"],
    ]
    assert found["dep_delay_mean_1d"][1] == ["tail", "1d", "32", "192"]
    assert found["since_last"] == [
        ["number", 'elapsed = "*", by = "tail"', "NaN for the first"],
        ["tail", "1 event", "shared", "shared"],
    ]
    assert found["hour"] == [["2 numbers", 'cyclic = "hour"', "never missing"]]
    assert found["tail"] == [["1", "263 B", "1,076 B", "1,860 B"], ["1,000", "263,000 B", "1.0 MiB", "1.8 MiB"]]
    assert max(map(len, done.output.splitlines())) <= 110


def test_a_cap_tells_the_worst_case(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a partition's share, and of all; a lifetime alone has none."""
    features = (*OF.features, Feature("exactly", "count", "*", "shop", MINUTE, is_exact=True))
    bounds = (Bound("key", ttl_us=90 * MINUTE, most=1_001), Bound("shop", ttl_us=MINUTE))
    of = msgspec.structs.replace(OF, features=features, bounds=bounds, partitions=2)
    (key, _) = feature_costs(of).entities
    show_features(of, 1)
    printed = capsys.readouterr().out
    found = lines(printed)
    feature_report.write_features(of, 1)
    told = {entity["entity"]: entity["bound"] for entity in json.loads(capsys.readouterr().out)["state"]}

    assert key.words.head == feature_costs(OF).entities[0].words.head + 3
    memory = [feature_report.size(count * 501 * key.unpacked_bytes) for count in (1, 2)]
    assert found["key"][-1] == ["90m", "1,001", "501", *memory]
    assert found["shop"][-1] == ["1m", "any number", "-", "-", "-"]
    assert "What exact windows keep comes on top" in printed
    assert told["key"] == {
        "ttl_us": 90 * MINUTE,
        "most": 1_001,
        "partition_most": 501,
        "partition_bytes": 501 * key.unpacked_bytes,
        "all_bytes": 1_002 * key.unpacked_bytes,
    }
    assert told["shop"] == {
        "ttl_us": MINUTE,
        "most": None,
        "partition_most": None,
        "partition_bytes": None,
        "all_bytes": None,
    }


def test_the_same_comes_as_json() -> None:
    """For whoever plans machines with a program."""
    found = json.loads(CliRunner().invoke(app, ["features", FLIGHTS, "--json", "--keys", "10"]).output)
    features = {feature["name"]: feature for feature in found["features"]}

    assert list(features)[:2] == ["carrier", "origin"]
    assert features["carrier"]["declaration"] is None
    assert features["miles_1d"] == {
        "name": "miles_1d",
        "columns": ["miles_1d"],
        "kind": "number",
        "declaration": '{ sum = "distance", by = "tail", window = "1d" }',
        "meaning": "sum of distance of the same tail over the last 1d",
        "missing": "0 if there is none",
        "looks_back": "1d",
        "entity": "tail",
        "is_shared": False,
        "head_words": 2,
        "bucket_words": 1,
        "typical_bytes": 32,
        "most_bytes": 192,
    }
    assert found["state"] == [
        {
            "entity": "tail",
            "key_bytes": {"typical": 263, "at_most": 1_076, "before_packing": 1_860},
            "keys": 10,
            "keys_bytes": {"typical": 2_630, "at_most": 10_760, "before_packing": 18_600},
            "bound": None,
        }
    ]
    assert "distributions" not in found


def test_distributions_follow_the_features(capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers with quantiles and a histogram, categories with their codes."""
    vectors_BF = np.array([[1.0, 7.0, 0.0, 5.0, math.nan, 0.0], [3.0, 7.0, 1.0, 6.0, 2.5, 1e9]])
    show_features(OF, 1, described(OF, Vectors(np.arange(2), vectors_BF)))
    shown = capsys.readouterr().out
    found = lines(shown.partition("The newest 2 rows of p.features")[2])

    assert found["amount"] == [["0 %", "2", "1", "1.1", "2", "2.9", "3", "█", "█"]]
    assert found["mean"] == [["50.0 %", "2.5", "2.5", "2.5", "2.5", "2.5", "2.5", "█"]]
    assert found["total"] == [["0 %", "500M", "0", "50M", "500M", "950M", "1G", "█", "█"]]
    assert found["shop"] == [["2", "0 %", "1", "100 %"]]
    assert max(map(len, shown.splitlines())) <= 110


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-0.0, "0"),
        (-999.4, "-999"),
        (999.6, "1000"),
        (9_999.4, "9999"),
        (9_999.6, "10k"),
        (999_600.0, "1M"),
        (1.5e15, "1.5e+15"),
        (-0.00123, "-0.00123"),
        (-0.000999, "-1.0e-03"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
    ],
)
def test_a_number_has_three_digits_and_at_most_eight_characters(value: float, text: str) -> None:
    """Its columns stay in a hundred characters."""
    assert feature_report.short(value) == text


@pytest.mark.parametrize(
    ("newest", "line"),
    [
        (None, "p.features does not exist yet: `millrace up` creates and fills it"),
        (
            Vectors(np.zeros(0, np.int64), np.zeros((0, 6))),
            "p.features has no rows with these columns yet: publish events while `millrace up` runs",
        ),
    ],
)
def test_without_rows_there_is_one_line_that_says_so(
    newest: Vectors | None, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In place of tables full of nothing."""
    assert described(OF, newest) == Described(0, note=line)

    show_features(OF, 1, described(OF, newest))

    assert capsys.readouterr().out.splitlines()[-1] == line


def test_features_without_an_entity_show_no_state(capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to keep of any key."""
    show_features(small_pipeline((Feature("log", "log1p", "amount"),)), 1)
    shown = capsys.readouterr().out

    assert 'log1p = "amount"' in shown
    assert "keys" not in shown


def test_examples_in_the_docstrings_run() -> None:
    """What they print is what is printed."""
    assert doctest.testmod(feature_report).failed == 0
