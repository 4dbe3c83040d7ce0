"""The command that writes about data and models: `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serving.cli_topics import Broker, PipelineFile
from serving.moment import moment_us


def report(
    file: PipelineFile,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the page goes.")] = Path("report.html"),
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Only events at or after this time (RFC 3339, UTC).")
    ] = None,
    stop: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Only events before this time.")] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FEATURE",
            help="Part losses by this feature; may be given several times.",
            show_default="what matters most",
        ),
    ] = None,
    broker: Broker = None,
) -> None:
    """Write one HTML page about a pipeline's data and models, to look at or to send: charts, league, a summary.

    It reads the archive, the versions and, if a broker answers, what was predicted and lost when the events passed.
    """
    from serving.brokers import load_pipeline
    from serving.report_data import Period

    period = Period(moment_us("--from", start), moment_us("--to", stop))
    _check_installed()
    from serving.report import run_report

    run_report(load_pipeline(file, broker, needs_brokers=False), out, period, by or [])


def _check_installed() -> None:
    """Say how to get what draws charts, where it is missing."""
    from importlib.util import find_spec

    from streams.errors import UnavailableError

    missing = [name for name in ("pandas", "plotly") if find_spec(name) is None]
    if missing:
        raise UnavailableError(f"{missing[0]} is not installed: pip install 'millrace[report]'")
