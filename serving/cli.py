"""The command line: `millrace --help`.

Each command imports what it needs when it runs, so that a role process carries no more than its role. Errors that
Millrace raises on purpose become one line each on standard error and their own exit code.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from serving import (
    cli_export,
    cli_features,
    cli_learner,
    cli_models,
    cli_pending,
    cli_rebuild,
    cli_recompute,
    cli_report,
    cli_rescale,
    cli_select,
    cli_topics,
    cli_train,
    cli_up,
)
from streams.errors import MillraceError
from streams.lightness import WITH_MODELS, has_river, stay_light

EPILOG = "Start here: millrace demo, then millrace check examples/flights.toml"
INTERRUPTED = 130  # as shells count Ctrl-C

app = typer.Typer(
    name="millrace",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EPILOG,
)
PipelineFile = Annotated[Path, typer.Argument(metavar="FILE", help="The pipeline file (TOML).", show_default=False)]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"millrace {version('millrace')}")
        raise typer.Exit


@app.callback()
def millrace(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Turn Kafka topics of raw events into live predictions, from models that learn as labels arrive.

    One TOML file describes a pipeline: what an event is, what its label is and when it comes, which features and which
    candidate models. `millrace up` runs it, predictions come out on a Kafka topic.
    """


@app.command()
def check(file: PipelineFile) -> None:
    """Say everything that is wrong with a pipeline file, or show what it stands for: topics, stages, features."""
    from models.model_check import find_mistakes
    from serving.description import show
    from streams.pipeline_file import read_pipeline

    pipeline = read_pipeline(file, judge=find_mistakes)
    show(pipeline, file)


@app.command()
def run(
    role: Annotated[
        str, typer.Argument(help="ingest, features, learn, serve, train, api or select.", show_default=False)
    ],
    file: PipelineFile,
    models: Annotated[
        str, typer.Option(help="learn: only these candidates, comma-separated.", show_default=False)
    ] = "",
    stage: Annotated[
        int | None, typer.Option(min=1, help="features: only this stage, where there are several; else all of them.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where /metrics answers; a free loopback port if left out.")
    ] = None,
    instance: Annotated[
        str | None, typer.Option(help="A name of this process; after a restart it has its partitions back at once.")
    ] = None,
    broker: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Use this broker in place of the file's kafka table.")
    ] = None,
    redis: Annotated[
        str | None, typer.Option(metavar="URL", help="Keep the online store in this Redis in place of the file's.")
    ] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="The input is history with marks: wait for partitions that are behind.")
    ] = False,
) -> None:
    """Run one process of one role. Start the same again, here or on another machine, to scale it out."""
    if role not in WITH_MODELS:
        stay_light()  # before the first kernel is loaded
    from serving.brokers import ensure_topics, load_pipeline

    pipeline = load_pipeline(file, broker, redis)
    chosen = [name.strip() for name in models.split(",") if name.strip()]
    if not has_river(pipeline, role, chosen):
        stay_light()
    from serving.roles import run_role

    ensure_topics(pipeline)
    try:
        run_role(role, pipeline, chosen or None, metrics, instance, stage, is_replay=replay)
    except MillraceError as error:
        print(error, file=sys.stderr, flush=True)
        # Left without clean-up: nothing is there to save, and the client may spin for ever over a half-done rebalance.
        os._exit(error.exit_code)
    except Exception as error:
        logging.getLogger("millrace").debug("the role ended", exc_info=True)
        print(f"{role} ended: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


app.command()(cli_up.up)
app.command()(cli_up.demo)
app.command()(cli_features.features)
app.command()(cli_models.models)
app.command()(cli_models.show)
app.command()(cli_models.diff)
app.command()(cli_export.export)
app.command()(cli_pending.pending)
app.command()(cli_learner.check_learner)
app.command()(cli_topics.publish)
app.command()(cli_topics.tail)
app.command()(cli_topics.deadletters)
app.command()(cli_recompute.backfill)
app.command()(cli_recompute.audit)
app.command()(cli_topics.key)
app.command()(cli_rescale.rescale)
app.command()(cli_train.train)
app.command()(cli_report.report)
app.command()(cli_rebuild.rebuild)
app.command()(cli_select.promote)
app.command()(cli_select.pin)
app.command()(cli_select.unpin)
app.command()(cli_select.rollback)
app.command()(cli_select.explain)


def main() -> None:
    """Run the command line; the `millrace` script."""
    try:
        app()
    except MillraceError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # `millrace tail … | head` is a normal end; Python must not complain again when it closes the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
