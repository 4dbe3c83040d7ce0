"""The command line: help, mistakes in one line each with their exit codes, and light role processes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serving.cli import app

ROOT = Path(__file__).parents[2]
FLIGHTS = str(ROOT / "examples" / "flights.toml")
COMMANDS = (
    *(
        "check",
        "features",
        "models",
        "show",
        "diff",
        "export",
        "check-learner",
        "run",
        "up",
        "demo",
        "publish",
        "tail",
        "deadletters",
        "backfill",
        "audit",
        "key",
        "pending",
        "rescale",
        "rebuild",
    ),
)


def millrace(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    command = [sys.executable, "-m", "serving.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)


def test_help_names_every_command() -> None:
    """The first screen shows what there is, and where to start."""
    shown = CliRunner().invoke(app, ["--help"]).output

    assert all(command in shown for command in COMMANDS)
    assert "millrace demo" in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_has_help(command: str) -> None:
    """No option without a word about what it does."""
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    options = [line for line in shown.output.splitlines() if line.startswith(("│ --", "│ *"))]

    assert shown.exit_code == 0
    assert all(len(line.strip("│ ").split("  ")) > 1 for line in options)


def test_check_shows_topics_stages_features_and_models() -> None:
    """A good file is spelled out."""
    found = millrace("check", FLIGHTS)

    assert found.returncode == 0
    for text in ("flights.departures", "yours", "flights.predictions", "since_last", "champion: answers", "for ever"):
        assert text in found.stdout
    assert "mean of dep_delay of the same tail over the last 7d" in found.stdout
    lines = " ".join(" ".join(line.split()) for line in found.stdout.splitlines())
    assert '[task] kind = "binary" [labels] match = "id and key", wait = "36h", keep = "36h"' in lines
    assert 'amend = "metrics", missing = "drop", most_pending = 10000000 [drift] loss = ["adwin"]' in lines


def test_check_shows_a_list_as_the_file_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "flights.toml"
    file.write_text(Path(ROOT, FLIGHTS).read_text() + '\n[models.wide]\nkind = "mlp"\nhidden = [16, 8]\n')
    found = millrace("check", str(file))

    assert found.returncode == 0
    assert "hidden = [16, 8]" in found.stdout


def test_check_says_all_mistakes_at_once(tmp_path: Path) -> None:
    """One line per mistake on standard error, exit code 2, no traceback."""
    file = tmp_path / "wrong.toml"
    file.write_text(
        Path(FLIGHTS).read_text().replace('mean = "dep_delay"', 'mean = "dep_dely"').replace("partitions", "partitons")
    )
    found = millrace("check", str(file))

    assert found.returncode == 2
    assert len(found.stderr.splitlines()) >= 3
    assert "did you mean" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "nowhere.toml"), "nowhere.toml: cannot be read"),
        (("up", FLIGHTS, "--scale", "feature=2"), 'did you mean "features"?'),
        (("up", FLIGHTS, "--scale", "features"), "--scale features: role=number is needed"),
        (("tail", FLIGHTS, "prediction"), 'did you mean "predictions"?'),
        (("audit", FLIGHTS, "--sample", "0"), "--sample 0: must be above 0 and at most 1"),
        (("audit", FLIGHTS, "--every", "1 minute"), "allowed: as 60s or 5m"),
        (("audit", FLIGHTS, "--every", "0s"), "--every 0s: must be above 0"),
        (("audit", FLIGHTS, "--metrics", "9100"), "--metrics 9100: HOST:PORT is needed"),
        (("audit", FLIGHTS, "--metrics", "0.0.0.0:9100", "--from-retained"), "--from-retained compares once"),
        (("backfill", FLIGHTS, "--out", "x", "--from", "soon"), "--from soon: is no time; allowed: as 2026-01-31"),
        (
            ("rebuild", FLIGHTS, "--role", "learn.tre", "--yes"),
            "--role learn.tre: there is no such role; allowed: feat",
        ),
        (("rescale", FLIGHTS, "--partitions", "6"), "write it there first: [pipeline] partitions = 6"),
        (("demo", "--rate", "0"), "--rate 0: must be above 0"),
        (("demo", "--state", str(ROOT / "tests")), "is not empty and no demo's directory"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], message: str) -> None:
    """What is wrong, what is allowed, exit code 2."""
    found = millrace(*arguments)

    assert message in found.stderr
    assert found.returncode == 2
    assert len(found.stderr.splitlines()) == 1


def test_a_role_process_starts_light() -> None:
    """`run` brings in neither the terminal's nor the demo's libraries."""
    script = (
        "import sys, types\n"
        "sys.argv = ['millrace', 'run', 'features', 'examples/flights.toml']\n"
        "def run_role(*arguments, **options):\n"
        "    del sys.modules['serving.brokers'], sys.modules['serving.roles']\n"
        "    import serving.brokers, serving.roles\n"  # what a role really brings in, once `run` has come this far
        "nothing = lambda *arguments, **options: None\n"
        "none = types.SimpleNamespace(models=(), serve=types.SimpleNamespace(champion=''))\n"
        "load = lambda *arguments, **options: none\n"
        "sys.modules['serving.brokers'] = types.SimpleNamespace(ensure_topics=nothing, load_pipeline=load)\n"
        "sys.modules['serving.roles'] = types.SimpleNamespace(run_role=run_role)\n"
        "from serving import cli\n"
        "try:\n"
        "    cli.main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "assert 'consumers.process' in sys.modules\n"
        "heavy = {'rich', 'pandas', 'scipy', 'torch', 'river', 'jgo', 'psutil', 'pyarrow.fs'}\n"
        "print(*sorted(heavy & set(sys.modules)))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    )

    assert found.stdout.strip() == ""


def test_the_version_is_shown() -> None:
    """As in the package's metadata."""
    assert CliRunner().invoke(app, ["--version"]).output.startswith("millrace 0.")


def test_the_page_names_every_command_and_option() -> None:
    """docs/commands.md and `--help` agree."""
    page = (ROOT / "docs" / "commands.md").read_text()
    for command in COMMANDS:
        section = page.partition(f"## `millrace {command}")[2].partition("\n## ")[0]
        shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
        options = {word for word in re.findall(r"--[a-z][a-z-]+", shown) if word not in ("--help", "--follow")}

        assert section
        assert {option for option in options if option not in section} == set()


@pytest.mark.parametrize(("name", "code", "said"), [("Running", 0, "keeps the contract"), ("Peeking", 1, "breaks the")])
def test_check_learner_prints_a_line_for_each_check_and_fails_if_one_is_broken(name: str, code: int, said: str) -> None:
    """A table for people; the exit code is for scripts."""
    found = millrace("check-learner", f"tests.own_learners:{name}", "--rows", "200", "--set", "rate=0.2")

    assert found.returncode == code
    assert said in found.stdout
    assert found.stdout.count("pass") + found.stdout.count("FAIL") == 10
    assert ("predict changes the state" in found.stdout) == (name == "Peeking")


def test_check_learner_gives_json_and_names_what_it_cannot_make() -> None:
    """A wrong setting is one line, as in a pipeline file."""
    shown = CliRunner().invoke(app, ["check-learner", "prior", "--task", "regression", "--rows", "200", "--json"])
    found = json.loads(shown.output)
    wrong = millrace("check-learner", "tests.own_learners:Running", "--set", "rat=1")

    assert (found["kind"], found["task"]) == ("prior", "regression")
    assert [check["passed"] for check in found["checks"]] == [True] * 10
    assert wrong.returncode == 2
    assert wrong.stderr == '[models.learner] rat: unknown key; allowed: rate; did you mean "rate"?\n'
