"""The commands for trying things by hand: publish, tail, deadletters and key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PipelineFile = Annotated[Path, typer.Argument(metavar="FILE", help="The pipeline file (TOML).", show_default=False)]
Broker = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="Use this broker in place of the file's kafka table.")
]


def publish(
    file: PipelineFile,
    events: Annotated[
        str | None, typer.Option(metavar="LINES", help="Events: a file of JSON lines, or - for standard input.")
    ] = None,
    labels: Annotated[str | None, typer.Option(metavar="LINES", help="Labels: the same.")] = None,
    rate: Annotated[float | None, typer.Option(help="Events a second; full speed if left out.")] = None,
    broker: Broker = None,
) -> None:
    """Publish events and labels from JSON lines, as they are. Given both, they are merged by their declared times.

    \b
    echo '{"flight": "UA-1", "tail": "N14228", "departed_at": "2013-01-01T10:17:00Z"}' |
        millrace publish examples/flights.toml --events -
    """  # noqa: D301 -- \b is typer's mark for text to be kept as it is
    from serving.brokers import ensure_topics, load_pipeline
    from serving.publish import publish_files

    pipeline = load_pipeline(file, broker)
    ensure_topics(pipeline)
    counts = publish_files(pipeline, events, labels, rate)
    print(f"published {counts.events:,} events and {counts.labels:,} labels")


def tail(
    file: PipelineFile,
    what: Annotated[
        str,
        typer.Argument(help="predictions, features, examples, log, scores, deadletters, control or decisions."),
    ] = "predictions",
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="Stop after so many rows.")] = None,
    start: Annotated[bool, typer.Option("--from-start", help="Begin at the earliest row, not with new ones.")] = False,
    follow: Annotated[bool, typer.Option(help="Go on when the end is reached.")] = True,
    broker: Broker = None,
) -> None:
    """Show what passes on one of the pipeline's topics, one JSON line per row; frames are decoded."""
    from serving.brokers import load_pipeline
    from serving.tail import show_topic

    show_topic(load_pipeline(file, broker), what, count=count, is_from_start=start, is_following=follow)


def deadletters(
    file: PipelineFile,
    replay: Annotated[
        bool, typer.Option("--replay", help="Send each record again to the topic it came from, once and for all.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="JSON lines with the original bytes, in place of a table.")
    ] = False,
    broker: Broker = None,
) -> None:
    """List the records that could not be used, and why; or send them again after the reason is mended."""
    from serving.brokers import load_pipeline
    from serving.deadletters import replay_letters, show_letters

    pipeline = load_pipeline(file, broker)
    if replay:
        sent = replay_letters(pipeline)
        print(f"sent {sent:,} records again" if sent else "nothing to send: every dead letter was sent again before")
    else:
        show_letters(pipeline, as_json=as_json)


def key(
    file: PipelineFile,
    name: Annotated[str, typer.Argument(metavar="KEY", help="A key of events.", show_default=False)],
    redis: Annotated[
        str | None, typer.Option(metavar="URL", help="Look into this Redis in place of the file's.")
    ] = None,
) -> None:
    """Show what the online store holds for a key: its last features and prediction, and how old they are."""
    from serving.brokers import load_pipeline
    from serving.key_view import show_key

    show_key(load_pipeline(file, redis=redis, needs_brokers=False), name)
