"""The commands about models: the league of candidates, and one version shown, compared or taken elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

from serving.cli_topics import PipelineFile

AsJson = Annotated[bool, typer.Option("--json", help="JSON in place of tables.")]
_FORM = "CANDIDATE[@LINEAGE.EXAMPLES]"
_HELP = "A candidate's newest version, or one of those that are kept, as logistic@0.12000."
WhichVersion = Annotated[str, typer.Argument(metavar=_FORM, help=_HELP, show_default=False)]


def models(file: PipelineFile, as_json: AsJson = False) -> None:
    """Show the league: each candidate's newest version with its figures, what it costs, how large and how old it is."""
    from serving.brokers import load_pipeline
    from serving.version_report import show_models, write_models
    from serving.versions import newest

    pipeline = load_pipeline(file, needs_brokers=False)
    (write_models if as_json else show_models)(pipeline, newest(pipeline))


def show(file: PipelineFile, version: WhichVersion, as_json: AsJson = False) -> None:
    """Show one version of a model: what made it, from what, how good it was and, of a linear one, what it weighs."""
    from serving.brokers import load_pipeline
    from serving.json_output import write_json
    from serving.version_report import show_version
    from serving.versions import find, linear_weights

    pipeline = load_pipeline(file, needs_brokers=False)
    found = find(pipeline, version)
    if as_json:
        write_json(found)
    else:
        show_version(found, linear_weights(pipeline, found))


def diff(file: PipelineFile, one: WhichVersion, other: WhichVersion) -> None:
    """Show what differs between two versions: settings, columns, figures, weights of linear ones."""
    from serving.brokers import load_pipeline
    from serving.version_diff import show_diff
    from serving.versions import find, linear_weights

    pipeline = load_pipeline(file, needs_brokers=False)
    before, after = find(pipeline, one), find(pipeline, other)
    show_diff(before, after, [linear_weights(pipeline, version) for version in (before, after)])
