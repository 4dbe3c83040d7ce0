"""The command that shows which events wait for their label."""

from __future__ import annotations

from typing import Annotated

import typer

from serving.cli_topics import PipelineFile


def pending(
    file: PipelineFile,
    as_json: Annotated[bool, typer.Option("--json", help="JSON in place of a table.")] = False,
) -> None:
    """Show how many events wait for their label, where and how old they are, from the newest snapshots.

    Nothing has to run for it; what has happened since a snapshot is not in it.
    """
    from serving.brokers import load_pipeline
    from serving.waiting_report import show_waiting, write_waiting

    (write_waiting if as_json else show_waiting)(load_pipeline(file, needs_brokers=False))
