"""`millrace models`, `show`, `diff` and `export`: versions as a candidate published them, read without Kafka."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from consumers.served_figures import Given, ServedFigures, StalenessFigure, write_served
from models.learner import make_learner
from models.registry import write_version
from models.version import About, Costs, Version, decode_record
from serving.api_doors import League
from serving.cli import app
from streams.errors import MillraceError
from streams.frames import Column
from streams.pipeline import Model, Task
from streams.pipeline_file import read_pipeline
from streams.state_folder import LocalFolder

COLUMNS = (Column("distance", False), Column("carrier", True), Column("delay", False))
FILE = """
[pipeline]
name = "flights"
state = "."
[events]
topic = "departures"
id = "flight"
key = "tail"
[events.fields]
delay = "number"
[labels]
topic = "arrivals"
id = "flight"
key = "tail"
value = "late"
wait = "1h"
[models.logistic]
kind = "linear"
[models.prior]
kind = "prior"
[models.last]
kind = "last"
[serve]
champion = "prior"
"""
NOW_US = 1_700_000_000_000_000


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> str:
    """A pipeline with two versions of a linear model, one of the prior, and none of the third candidate."""
    path = tmp_path / "flights.toml"
    path.write_text(FILE, encoding="utf-8")
    model, rng = Model("logistic", "linear", {"lr": 0.05, "bits": 6}), np.random.default_rng(0)
    learner = make_learner(model, COLUMNS)
    for number, loss in ((1, 0.5), (2, 0.25)):
        X_BF = np.column_stack([rng.normal(size=300), rng.integers(0, 5, 300), rng.normal(size=300)])
        learner.learn(X_BF, (X_BF[:, 2] > 0).astype(float))
        figures: dict[str, float | None] = {"log_loss": loss, "accuracy": 0.75, "auc": None, "brier": loss / 2}
        about = About(figures, {"log_loss": loss / 2}, Costs(0.41, 2.5, 0.82, 1_536), "" if number == 1 else "0.300")
        write_version(tmp_path, model, COLUMNS, learner, (0, 300 * number), NOW_US, about=about)
    prior = Model("prior", "prior", {})
    told = About({"log_loss": 0.69, "accuracy": 0.5, "auc": 0.5, "brier": 0.3}, {"log_loss": 0.7}, Costs(0.001))
    write_version(tmp_path, prior, COLUMNS[:1], make_learner(prior, ()), (1, 7), NOW_US, about=told)
    return str(path)


def millrace(*arguments: str) -> str:
    """The output of a command that goes well."""
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.output


def rows(text: str) -> dict[str, list[str]]:
    """The rows of all tables by their first cell; cells lie two blanks apart."""
    cells = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    return {first: rest for first, *rest in cells}


def test_the_league_has_the_best_first(file: str) -> None:
    """One that has published nothing yet is last."""
    output = millrace("models", file)
    found = [line.split() for line in output.splitlines()[4:] if line.strip()]

    assert [row[0] for row in found] == ["logistic", "prior", "last"]
    assert found[0][1:9] == ["0.600", "0.2500", "0.1250", "75.00%", "-", "0.41", "us", "0.82"]
    assert found[1][1:6] == ["1.7", "0.6900", "0.7000", "50.00%", "0.5000"]
    assert found[1][-1] == "champion"
    assert found[2][1:4] == ["none", "yet", "-"]
    assert max(map(len, output.splitlines())) <= 110


def test_where_a_candidate_tells_a_quantile_the_league_has_its_loss(tmp_path: Path) -> None:
    path, columns, task = tmp_path / "delays.toml", COLUMNS[:1], Task("regression")
    text = FILE[: FILE.index("[models.logistic]")].replace("[labels]", '[task]\nkind = "regression"\n[labels]')
    linear = '[models.linear]\nkind = "linear"\n'
    path.write_text(text + linear + '[serve]\nchampion = "linear"\n', encoding="utf-8")
    model = Model("linear", "linear", {})
    figures: dict[str, float | None] = {"mae": 3.0, "r2": 0.5, "pinball_10": 2.4, "pinball_90": 0.6, "coverage": 0.875}
    about = About(figures, {"mae": 2.5}, Costs(0.4, 2.5, 0.8, 1_536))
    write_version(
        tmp_path, model, columns, make_learner(model, columns, task=task), (0, 300), NOW_US, task=task, about=about
    )
    before = millrace("models", str(path))
    path.write_text(
        f'{text}{linear}loss = "quantile"\nquantile = 0.9\n[serve]\nchampion = "linear"\n', encoding="utf-8"
    )
    output = millrace("models", str(path))

    assert "R2" in before
    assert "MAE rolling pinball 0.1 pinball 0.9 predict" in " ".join(output.split())
    assert "3.0000 2.5000 2.4000 0.6000" in " ".join(output.split())
    assert "87.50%" in millrace("show", str(path), "linear")


def test_the_league_as_json_has_whole_records(file: str) -> None:
    found = json.loads(millrace("models", file, "--json"))

    assert [(one["candidate"], one["is_champion"]) for one in found["models"]] == [
        ("logistic", False), ("prior", True), ("last", False),
    ]  # fmt: skip
    version = msgspec.convert(found["models"][0]["version"], Version)
    assert (version.order, version.parent, version.costs.learn_us) == ((0, 600), "0.300", 0.82)
    assert found["models"][2]["version"] is None


def test_what_was_answered_stands_below_the_candidates(file: str, tmp_path: Path) -> None:
    """With the cost of its staleness, and who gave it; where `[serve]` is declared and something was scored."""
    before = millrace("models", file)
    told = ServedFigures(
        int(time.time() * 1e6), 1_234, {"log_loss": 0.31, "accuracy": 0.8}, {"log_loss": 0.3},
        StalenessFigure(900, 0.0125), StalenessFigure(400, -0.5), 1_300, 7, 2, 1, {"prior": 1_290, "logistic": 10},
        (Given("logistic", "0.3", 10), Given("prior", "1.7", 1_290)),
    )  # fmt: skip
    write_served(LocalFolder(tmp_path), told)
    output = millrace("models", file)
    found = rows(output)

    assert "served" not in before
    assert found["served"][:4] == ["-", "0.3100", "0.3000", "80.00%"]
    assert "1,234 answers scored, 7 events without an answer" in output
    assert "answered by prior 1,290, logistic 10 (last: prior@1.7 1,290, logistic@0.3 10)" in output
    assert "+0.0125 more than its model's own prediction, -0.5000 over the last 400 compared" in output
    assert json.loads(millrace("models", file, "--json"))["served"]["staleness"] == {"events": 900, "cost": 0.0125}
    versions, said = League(read_pipeline(Path(file))).look()
    assert ([name for name, one in versions.items() if one], said) == (["logistic", "prior"], told)


def test_a_version_is_shown_with_its_largest_weights(file: str) -> None:
    """Numbers by name, the strongest first; which version follows which."""
    found = rows(millrace("show", file, "logistic"))

    assert found["kind"] == ["linear (lr = 0.05, bits = 6)"]
    assert (found["follows"], found["examples"]) == (["0.300"], ["600"])
    assert found["columns"][0].startswith("2 numbers, 1 categories; schema ")
    assert found["a row costs"] == ["0.41 us to predict (p99 2.5 us), 0.82 us to learn"]
    assert (found["log loss"], found["AUC"]) == (["0.2500", "0.1250"], ["-", "-"])
    assert list(found).index("delay") < list(found).index("distance")
    assert float(found["delay"][0]) > 10 * abs(float(found["distance"][0]))


def test_an_older_version_is_shown_by_its_number(file: str) -> None:
    found = json.loads(millrace("show", file, "logistic@0.300", "--json"))

    assert (found["examples"], found["parent"]) == (300, "")


def test_two_versions_are_compared(file: str) -> None:
    """What is the same is left out; figures say by how much."""
    found = rows(millrace("diff", file, "logistic@0.300", "logistic"))

    assert found["examples"] == ["300", "600"]
    assert "kind" not in found
    assert found["log loss"] == ["0.5000", "0.2500", "-0.2500"]
    before, after, change = (float(value) for value in found["delay"])
    assert change == pytest.approx(after - before, abs=2e-4)


def test_versions_for_other_columns_say_which(file: str) -> None:
    output = millrace("diff", file, "logistic", "prior")

    assert re.search(r"made for different columns or tasks: schema [0-9a-f]{16} and [0-9a-f]{16}", output)
    found = rows(output)
    assert (found["column carrier"], found["column delay"]) == (["category", "-"], ["number", "-"])


def test_an_exported_version_is_whole_and_is_not_written_over(file: str, tmp_path: Path) -> None:
    """Its arrays are read by NumPy alone."""
    output = millrace("export", file, "logistic@0.300", "--out", str(tmp_path / "out"))
    again = CliRunner().invoke(app, ["export", file, "logistic@0.300", "--out", str(tmp_path / "out")])
    blob, record = (Path(line) for line in output.split())

    assert (blob.name, record.name) == ("logistic-0.300.npz", "logistic-0.300.json")
    assert decode_record(record.read_bytes()).order == (0, 300)
    with np.load(blob, allow_pickle=False) as arrays:
        assert arrays["state.weight"].shape == (2,)
    assert "logistic-0.300.npz is there already; choose another --out" in str(again.exception)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("logistik", "'logistik' is no candidate; allowed: logistic, prior, last; did you mean \"logistic\"?"),
        ("last", "last has no version yet"),
        ("logistic@0.301", 'logistic has no version 0.301; allowed: kept are 0.300, 0.600; did you mean "0.300"?'),
        ("logistic@newest", "logistic has no version newest; allowed: kept are 0.300, 0.600"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(file: str, version: str, message: str) -> None:
    """A version that is yet to come is no wrong command line."""
    done = CliRunner().invoke(app, ["show", file, version])

    assert message in str(done.exception)
    assert "\n" not in str(done.exception)
    assert isinstance(done.exception, MillraceError)
    assert done.exception.exit_code == (1 if version == "last" else 2)


@pytest.mark.parametrize(
    ("params", "task"),
    [
        ({"optimizer": "adagrad"}, Task()),
        ({"l1": 0.001}, Task()),
        ({"optimizer": "ftrl"}, Task("multiclass", ("a", "b"))),  # as many classes as numbers: shapes tell nothing
        ({}, Task("multiclass", ("a", "b"))),
    ],
)
def test_weights_of_every_optimiser_bear_the_names_of_their_columns(
    params: dict[str, str | float], task: Task, file: str, tmp_path: Path
) -> None:
    """Of `delay`, which decides, and `distance`, which says nothing; a version does not differ from itself."""
    model, rng = Model("logistic", "linear", {"bits": 6, **params}), np.random.default_rng(0)
    learner = make_learner(model, COLUMNS, None, task)
    X_BF = np.column_stack([rng.normal(size=2_000), rng.integers(0, 5, 2_000), rng.normal(size=2_000)])
    learner.learn(X_BF, (X_BF[:, 2] > 0).astype(float))
    write_version(tmp_path, model, COLUMNS, learner, (1, 2_000), NOW_US, task=task)

    found = rows(millrace("show", file, "logistic"))
    outputs = max(1, len(task.classes))
    strength = {name: max(abs(float(weight)) for weight in found[name]) for name in ("delay", "distance")}
    assert [len(found[name]) for name in ("delay", "distance")] == [outputs, outputs]
    assert strength["delay"] > 5 * strength["distance"]
    assert millrace("diff", file, "logistic", "logistic@1.2000") == (
        "logistic@1.2000 and logistic@1.2000 are one version: no difference\n"
    )
