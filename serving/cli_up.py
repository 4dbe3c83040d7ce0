"""The commands that run a whole pipeline: `up` and `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PipelineFile = Annotated[Path, typer.Argument(metavar="FILE", help="The pipeline file (TOML).", show_default=False)]


def up(
    file: PipelineFile,
    embedded: Annotated[
        bool,
        typer.Option("--embedded", help="Start a Kafka, and if needed a Redis, of our own under the state directory."),
    ] = False,
    scale: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE=N", help="Processes of a role, as features=2; may be given several times."),
    ] = None,
) -> None:
    """Run a pipeline: all its roles, restarted when they die, stopped together with Ctrl-C.

    On a terminal a table shows events a second, lag, latency and how the models do; elsewhere there is a line every few
    seconds. Logs and Prometheus targets are under <state>/run.
    """
    from serving.live import show_until_stopped
    from serving.system import System, parse_scale
    from serving.table import console

    out = console()
    with System(file, is_embedded=embedded, scale=parse_scale(scale or []), say=out.print) as system:
        show_until_stopped(system, out)


def demo(
    events: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many flights of the year, not all 328,521.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Flights published a second, with their landings beside them.")] = 4_000,
    state: Annotated[Path, typer.Option(help="Where the demo keeps its Kafka, snapshots and models.")] = Path(
        "state/demo"
    ),
) -> None:
    """Turn a year of real flights into live predictions, in about three minutes.

    Every departure from New York in 2013 is an event, every landing a label: did it arrive 15 minutes late or more?
    Four candidates learn as flights land, a network is trained on them every 60 days, one of them answers. Ends by
    itself and shows who predicted best.
    """
    from serving.demo import run_demo

    run_demo(events, rate, state)
