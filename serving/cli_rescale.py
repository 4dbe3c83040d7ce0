"""The command that changes how many partitions a pipeline has: `rescale`."""

from __future__ import annotations

from typing import Annotated

import typer

from serving.cli_topics import Broker, PipelineFile


def rescale(
    file: PipelineFile,
    partitions: Annotated[
        int, typer.Option(min=1, metavar="N", help="The new number; the file must have it, too.", show_default=False)
    ],
    embedded: Annotated[bool, typer.Option("--embedded", help="Start the Kafka of `up --embedded` meanwhile.")] = False,
    broker: Broker = None,
) -> None:
    """Give a pipeline that stands still another number of partitions, with all that it knows.

    Stop publishing, wait until all is taken, stop all roles, write the new number into the file, then run this. Broken
    off, it is run again. The log and the feature topics begin anew: make a backfill of what they have before.
    """
    from streams.lightness import stay_light

    stay_light()
    from serving.rescale_command import run_rescale

    run_rescale(file, partitions, broker, is_embedded=embedded)
