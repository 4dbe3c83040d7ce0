"""The command `export`: a version of a model, or the archived examples, as files for elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from serving.cli_topics import PipelineFile
from serving.moment import moment_us

_WHICH = "CANDIDATE[@LINEAGE.EXAMPLES]"
_HELP = "A candidate's newest version, or one of those that are kept. Left out: the archived examples."


def export(
    file: PipelineFile,
    version: Annotated[str | None, typer.Argument(metavar=_WHICH, help=_HELP, show_default=False)] = None,
    *,
    out: Annotated[
        Path, typer.Option(metavar="PATH", help="The file of examples; of a version a directory.", show_default=False)
    ],
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Only events at or after this time (RFC 3339, UTC).")
    ] = None,
    stop: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Only events before this time.")] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="FORMAT", help="parquet or csv; as PATH ends if left out, else parquet."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every label row, also those that were amended or retracted later.")
    ] = False,
) -> None:
    """Write the archived examples into a Parquet or CSV file, or a version's arrays and record into a directory.

    Examples are one row an event, with the label that was told last. Of a version there are its arrays (.npz, no
    pickle) and its record (.json). Nothing is written over.
    """
    from serving.brokers import load_pipeline

    pipeline = load_pipeline(file, needs_brokers=False)
    if version is None:
        _export_examples(pipeline, out, form, moment_us("--from", start), moment_us("--to", stop), everything)
        return
    _refuse({"--from": start, "--to": stop, "--format": form, "--all": everything})
    from serving.versions import export as write
    from serving.versions import find

    for path in write(pipeline, find(pipeline, version), out):
        print(path)


def _export_examples(pipeline: Any, out: Path, form: str | None, *wish: Any) -> None:
    from serving.archive_export import FORMATS, Wish, export_examples
    from serving.table import number
    from streams.advice import NEWER_ARCHIVED
    from streams.errors import PipelineError
    from streams.toml_table import mistake_line

    chosen = form or ("csv" if out.suffix == ".csv" else "parquet")
    if chosen not in FORMATS:
        allowed = " or ".join(FORMATS)
        raise PipelineError([mistake_line("--format", f"{form!r} is no format", allowed, chosen, list(FORMATS))])
    rows = export_examples(pipeline, out, "csv" if chosen == "csv" else "parquet", Wish(*wish))
    print(f"{out}: {number(rows)} rows; {NEWER_ARCHIVED}")


def _refuse(given: dict[str, Any]) -> None:
    """Refuse options that choose examples beside a version."""
    from streams.errors import PipelineError

    for option, value in given.items():
        if value:
            raise PipelineError([f"{option} is for examples, not for a version; leave out one of both"])
