"""The commands that compute features again: `backfill` and `audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serving.cli_topics import Broker, PipelineFile
from serving.moment import moment_us


def backfill(
    file: PipelineFile,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the dataset goes.", show_default=False)],
    partition: Annotated[
        list[int] | None, typer.Option(metavar="N", help="Only this partition of the log; may be given several times.")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Only events at or after this time (RFC 3339, UTC).")
    ] = None,
    stop: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Only events before this time.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the dataset in a directory that is not empty.")
    ] = False,
    broker: Broker = None,
) -> None:
    """Compute the features of all events in the log again, with their labels, into a Parquet dataset.

    The code is the stream's own, so every value is the one that was served. One row an event, at
    DIR/partition=N/part-00000.parquet; pandas, DuckDB and others read the directory as it is.
    """
    from streams.lightness import stay_light

    stay_light()
    from serving.backfill import run_backfill
    from serving.brokers import load_pipeline
    from serving.settled_rows import Period

    period = Period(moment_us("--from", start), moment_us("--to", stop))
    run_backfill(load_pipeline(file, broker), out, partition or [], period, is_forced=force)


def audit(
    file: PipelineFile,
    sample: Annotated[float, typer.Option(help="The share of served rows to compare, chosen by their numbers.")] = 1.0,
    from_retained: Annotated[
        bool, typer.Option("--from-retained", help="Go on with a log cut by retention: what lies near the cut differs.")
    ] = False,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Go on for ever, and answer /metrics here.", show_default=False),
    ] = None,
    every: Annotated[str, typer.Option(metavar="DURATION", help="With --metrics: time between two rounds.")] = "60s",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object in place of tables.")] = False,
    broker: Broker = None,
) -> None:
    """Compare the features that were served with a recomputation from the log, bit for bit.

    Every difference is an error in the stream. Ends with exit code 1 if there is one.
    """
    from streams.lightness import stay_light

    stay_light()
    from serving.audit_command import Options, run_audit
    from serving.brokers import load_pipeline

    options = Options(sample, metrics, every, is_from_retained=from_retained, is_json=as_json)
    if not run_audit(load_pipeline(file, broker), options):
        raise typer.Exit(1)
