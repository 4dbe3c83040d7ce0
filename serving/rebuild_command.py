"""`millrace rebuild`: says what it would do, asks, and does it (serving/rebuilding.py)."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import typer

from serving.brokers import load_pipeline, with_broker
from serving.rebuild_readers import readers_of
from serving.rebuilding import Rebuilding
from serving.rescale_doors import kafka_doors
from serving.table import console
from streams import faults
from streams.embedded import EmbeddedKafka


def run_rebuild(
    file: Path, role: str, broker: str | None, *, is_agreed: bool, is_embedded: bool, is_from_retained: bool
) -> None:
    """Let a role, or all of them, begin anew.

    Raises:
        PipelineError: there is no such role, or something else was begun.
        SnapshotError: the input does not begin with its first row.
        UnavailableError: a role is at work, or a broker does not answer.
        Abort: the user does not agree.
    """
    pipeline = load_pipeline(file, broker, needs_brokers=not is_embedded)
    readers_of(pipeline, role)  # before a server is started for nothing
    faults.arm(os.environ.get(faults.VARIABLE))
    out = console()
    with EmbeddedKafka(pipeline.state) if is_embedded else nullcontext() as server:
        if server is not None:
            pipeline = with_broker(pipeline, server.bootstrap_servers)
        rebuilding = Rebuilding(pipeline, kafka_doors(pipeline), role)
        record = rebuilding.plan(is_from_retained=is_from_retained)
        for line in rebuilding.lines(record):
            out.print(line, soft_wrap=True)
        if not is_agreed:
            typer.confirm("do this?", abort=True)
        rebuilding.run(record)
        out.print(f"done; start {pipeline.name} again", soft_wrap=True)
