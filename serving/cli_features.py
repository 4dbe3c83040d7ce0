"""The command that shows a pipeline's features: what each is, what it costs, what its values look like."""

from __future__ import annotations

from typing import Annotated

import typer

from serving.cli_topics import Broker, PipelineFile


def features(
    file: PipelineFile,
    keys: Annotated[int, typer.Option(min=1, metavar="N", help="For how many keys to tell the memory.")] = 1_000_000,
    describe: Annotated[
        bool, typer.Option("--describe", help="Add the distribution of every column, from the newest rows in Kafka.")
    ] = False,
    rows: Annotated[int, typer.Option(min=1, metavar="N", help="--describe: at most so many rows.")] = 100_000,
    as_json: Annotated[bool, typer.Option("--json", help="JSON in place of tables.")] = False,
    broker: Broker = None,
) -> None:
    """Show every feature: how it is declared, what a missing value means, what state it keeps for each key."""
    from serving.brokers import load_pipeline
    from serving.feature_report import describe_newest, show_features, write_features

    pipeline = load_pipeline(file, broker, needs_brokers=describe)
    described = describe_newest(pipeline, rows) if describe else None
    (write_features if as_json else show_features)(pipeline, keys, described)
