"""The command that lets roles begin anew: `rebuild`."""

from __future__ import annotations

from typing import Annotated

import typer

from serving.cli_topics import Broker, PipelineFile


def rebuild(
    file: PipelineFile,
    role: Annotated[
        str,
        typer.Option(
            help="Only this: learn.NAME, learn (all candidates), train, serve, features and what is behind it."
        ),
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    embedded: Annotated[bool, typer.Option("--embedded", help="Start the Kafka of `up --embedded` meanwhile.")] = False,
    from_retained: Annotated[
        bool, typer.Option("--from-retained", help="Begin at the earliest row there is, where the first are gone.")
    ] = False,
    broker: Broker = None,
) -> None:
    """Compute everything again from the raw topics, or only what one role knows from what it reads.

    Stop all roles first. It says what it deletes and asks. Raw topics, answers, decisions, scores, dead letters and
    versions of models stay. Broken off, it is run again.
    """
    from streams.lightness import stay_light

    stay_light()
    from serving.rebuild_command import run_rebuild

    run_rebuild(file, role, broker, is_agreed=yes, is_embedded=embedded, is_from_retained=from_retained)
