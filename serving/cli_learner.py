"""`millrace check-learner`: the contract of learners, checked on a user's own or any other kind."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from streams.errors import PipelineError

if TYPE_CHECKING:
    from models.contract import Finding

BROKEN = 1  # exit code
_KEY = b"\0" * 32  # what is sealed with it is thrown away


def check_learner(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="As in a pipeline file, such as my.module:Thing.", show_default=False)
    ],
    task: Annotated[
        Literal["binary", "multiclass", "regression", "anomaly", "clustering"], typer.Option(help="What it answers.")
    ] = "binary",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting, as TOML writes it; may be repeated."),
    ] = None,
    rows: Annotated[int, typer.Option(min=200, help="Rows of each made-up stream.")] = 2_000,
    growth: Annotated[float, typer.Option(min=0, help="Bytes a row that its state may grow by.")] = 4.0,
    json: Annotated[bool, typer.Option("--json", help="JSON in place of a table.")] = False,
) -> None:
    """Check that a learner keeps the contract: the same bits in every batch, after every restart, in every replay."""
    import msgspec

    from models.contained import bare
    from models.contract import check_contract
    from models.learner import make_learner
    from models.made_up_rows import COLUMNS, task_of
    from streams.pipeline import Model

    model, wanted = Model("learner", kind, _settings(settings or [])), task_of(task)
    make_learner(model, COLUMNS, _KEY, wanted)  # a kind or setting that is wrong ends it here, in one line
    findings = check_contract(
        lambda: bare(make_learner(model, COLUMNS, _KEY, wanted)), wanted, rows=rows, growth=growth
    )
    if json:
        print(msgspec.json.encode({"kind": kind, "task": task, "checks": findings}).decode())
    else:
        _show(kind, task, findings)
    if not all(finding.passed for finding in findings):
        raise typer.Exit(BROKEN)


def _settings(texts: list[str]) -> dict[str, Any]:
    """Read `key=value`; what is no TOML value is a text, so that words need no quotes."""
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key.strip() or not equals:
            raise PipelineError([f"--set {text}: is not right; allowed: KEY=VALUE, such as rate=0.1"])
        try:
            found[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key.strip()] = value.strip()
    return found


def _show(kind: str, task: str, findings: list[Finding]) -> None:
    from rich.text import Text

    from serving.table import console, grid

    table = grid("check", "", "found", wrap=("found",))
    for finding in findings:
        table.add_row(
            finding.check,
            Text("pass", style="green") if finding.passed else Text("FAIL", style="bold red"),
            Text(finding.text),
        )
    out, broken = console(), sum(not finding.passed for finding in findings)
    out.print(table)
    what = "keeps the contract" if not broken else f"breaks the contract in {broken} of {len(findings)} checks"
    out.print(Text(f"{kind} ({task}) {what}"))
