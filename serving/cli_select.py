"""The commands about the champion: promote, pin, unpin, rollback, and explain."""

from __future__ import annotations

from typing import Annotated

import typer

from serving.cli_topics import Broker, PipelineFile

Note = Annotated[str, typer.Option(metavar="TEXT", help="What to remember of it; `millrace explain` shows it.")]
Candidate = Annotated[str, typer.Argument(metavar="CANDIDATE", help="A model of the file.", show_default=False)]
MaybeCandidate = Annotated[
    str | None, typer.Argument(metavar="[CANDIDATE]", help="A model of the file; who answers now if left out.")
]


def promote(file: PipelineFile, candidate: Candidate, note: Note = "", broker: Broker = None) -> None:
    """Let a candidate answer from now on. The selector may change that again; `pin` keeps it from it."""
    from serving.brokers import load_pipeline
    from serving.reign_command import decide, promoting

    pipeline = load_pipeline(file, broker)
    reign = decide(pipeline, promoting(pipeline, candidate), note)
    print(f"{reign.champion} is champion in place of {reign.last}" + (", pinned" if reign.is_pinned else ""))


def pin(file: PipelineFile, candidate: MaybeCandidate = None, note: Note = "", broker: Broker = None) -> None:
    """Keep a champion, whatever the evidence says, until `unpin`."""
    from serving.brokers import load_pipeline
    from serving.reign_command import decide, pinning

    pipeline = load_pipeline(file, broker)
    print(f"{decide(pipeline, pinning(pipeline, candidate), note).champion} is champion, pinned")


def unpin(file: PipelineFile, note: Note = "", broker: Broker = None) -> None:
    """Let the selector change the champion again."""
    from serving.brokers import load_pipeline
    from serving.reign_command import decide, unpinning

    pipeline = load_pipeline(file, broker)
    print(f"{decide(pipeline, unpinning(), note).champion} is champion, not pinned any more")


def rollback(file: PipelineFile, note: Note = "", broker: Broker = None) -> None:
    """Let the last champion answer again."""
    from serving.brokers import load_pipeline
    from serving.reign_command import decide, rolling_back

    pipeline = load_pipeline(file, broker)
    reign = decide(pipeline, rolling_back, note)
    print(f"{reign.champion} is champion again, in place of {reign.last}")


def explain(file: PipelineFile, broker: Broker = None) -> None:
    """Tell all decisions in words, with their numbers: promotions, drift, trainings, quarantines, new beginnings."""
    from serving.brokers import load_pipeline
    from serving.decision_words import told_of
    from streams.kafka import read_all

    pipeline, count = load_pipeline(file, broker), 0
    found = read_all(pipeline.kafka, f"{pipeline.name}.decisions", 0)
    for line in told_of(pipeline, (message.value() or b"" for message in found)):
        print(line)
        count += 1
    if not count:
        print(f"nothing was decided yet; {pipeline.serve.champion} answers, as the file says")
