"""`millrace rescale`: checks what is asked for, then changes the number of partitions (serving/rescaling.py)."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

from serving.brokers import load_pipeline, with_broker
from serving.rescale_doors import kafka_doors
from serving.rescaling import Rescaling
from serving.table import console
from streams import faults
from streams.embedded import EmbeddedKafka
from streams.errors import PipelineError


def run_rescale(file: Path, partitions: int, broker: str | None, *, is_embedded: bool) -> None:
    """Change the partitions of a pipeline whose file has the new number already.

    Raises:
        PipelineError: the file has another number, or the topics have this one already.
        SnapshotError: something inside the pipeline has not been taken.
        UnavailableError: a role is at work, or a broker does not answer.
    """
    pipeline = load_pipeline(file, broker, needs_brokers=not is_embedded)
    if pipeline.partitions != partitions:
        text = f"--partitions {partitions}: {file} has {pipeline.partitions}; write it there first"
        raise PipelineError([f"{text}: [pipeline] partitions = {partitions}"])
    faults.arm(os.environ.get(faults.VARIABLE))
    out = console()
    with EmbeddedKafka(pipeline.state) if is_embedded else nullcontext() as server:
        if server is not None:
            pipeline = with_broker(pipeline, server.bootstrap_servers)
        Rescaling(pipeline, kafka_doors(pipeline), lambda line: out.print(line, soft_wrap=True)).run()
