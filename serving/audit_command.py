"""What `millrace audit` does with its options: one round and a report, or rounds for ever and metrics."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import msgspec
from rich.console import Console

from serving.audit_report import report_record, show_report
from serving.auditor import Auditor, Export, skew_of, watch_on
from serving.backfill import cut_line
from serving.progress import progress
from serving.table import console
from serving.tally import Tally
from streams.durations import SECOND_US, duration_us
from streams.errors import PipelineError
from streams.metrics_server import serve_metrics
from streams.pipeline import Pipeline


class Options(msgspec.Struct, frozen=True):
    """The options of an audit."""

    sample: float
    metrics: str | None
    every: str
    is_from_retained: bool
    is_json: bool


def run_audit(pipeline: Pipeline, options: Options) -> bool:
    """Audit a pipeline; gives whether everything is as it should be. With `metrics` it ends only when interrupted.

    Raises:
        PipelineError: an option is wrong.
        UnavailableError: what is read was cut by retention, and that was not said to be all right.
    """
    every_s = _check(options)
    notes = Console(stderr=True, highlight=False)
    with Auditor(pipeline, sample=options.sample, is_from_retained=options.is_from_retained) as auditor:
        for (topic, partition), start in auditor.cut.items():
            notes.print(cut_line(pipeline, topic, partition, start), soft_wrap=True)
        if options.metrics:
            _go_on(pipeline, auditor, options, every_s)
        _round(auditor, notes)
        if options.is_json:
            sys.stdout.buffer.write(msgspec.json.encode(report_record(pipeline.name, auditor.tallies)) + b"\n")
            sys.stdout.buffer.flush()
        else:
            show_report(console(), pipeline.name, auditor.tallies)
        return not skew_of(auditor.tallies)


def _check(options: Options) -> float:
    if not 0 < options.sample <= 1:
        raise PipelineError([f"--sample {options.sample:g}: must be above 0 and at most 1"])
    if options.metrics and options.is_from_retained:
        raise PipelineError(["--from-retained compares once; leave out --metrics"])
    host, _, port = (options.metrics or "").rpartition(":")
    if options.metrics and not (host and port.isdecimal()):
        raise PipelineError([f"--metrics {options.metrics}: HOST:PORT is needed"])
    try:
        every_s = duration_us(options.every) / SECOND_US
    except ValueError as error:
        raise PipelineError([f"--every: {error}; allowed: as 60s or 5m"]) from None
    if not every_s:
        raise PipelineError([f"--every {options.every}: must be above 0"])
    return every_s


def _round(auditor: Auditor, notes: Console) -> None:
    with progress(notes) as bars:
        is_chain = len({tally.stage for tally in auditor.tallies}) > 1
        tasks = {}
        for tally in auditor.tallies:
            of_stage = f"stage {tally.stage} " if is_chain else ""
            tasks[tally.stage, tally.partition] = bars.add_task(f"{of_stage}partition {tally.partition}")

        def watch(stage: int, partition: int, messages: int, total: int) -> None:
            bars.update(tasks[stage, partition], total=total, advance=messages)

        auditor.round(watch, is_last=True)


def _go_on(pipeline: Pipeline, auditor: Auditor, options: Options, every_s: float) -> None:
    """Repeat for ever; what is found is said as it comes, in full each time.

    Raises:
        UnavailableError: the address is taken or not ours.
    """
    out = console()

    def say(tallies: Sequence[Tally]) -> None:
        if options.is_json:
            print(msgspec.json.encode(report_record(pipeline.name, tallies)).decode(), flush=True)
        else:
            show_report(out, pipeline.name, tallies)

    export = Export(pipeline)
    host, _, port = (options.metrics or "").rpartition(":")
    bound = serve_metrics(export.metrics.registry, host, int(port))
    print(f"auditing {pipeline.name} every {options.every}; http://{host}:{bound}/metrics", file=sys.stderr, flush=True)
    watch_on(auditor, export, every_s, say)
