"""The command that trains a candidate now: `train`."""

from __future__ import annotations

from typing import Annotated

import typer

from serving.cli_topics import Broker, PipelineFile


def train(
    file: PipelineFile,
    candidate: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only this candidate; all that are trained in batches if left out."),
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Only events at or after this time (RFC 3339, UTC).")
    ] = None,
    stop: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Only events before this time.")] = None,
    nproc: Annotated[
        int | None, typer.Option(min=1, max=64, metavar="N", help="Processes that share it, in place of the file's.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, metavar="M", help="What it may take, in place of the file's budget.")
    ] = None,
    broker: Broker = None,
) -> None:
    """Train candidates now, from the archive, and announce the versions.

    A running pipeline takes each up at once. Shows the split by time and how good the model is on what it has not seen.
    """
    from serving.brokers import load_pipeline
    from serving.moment import moment_us
    from serving.training_command import Wanted, run_trainings

    wanted = Wanted(candidate, moment_us("--from", start), moment_us("--to", stop), nproc, minutes)
    run_trainings(load_pipeline(file, broker), wanted)
