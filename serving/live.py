"""The running picture of a pipeline: a live table on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live

from serving.overview import Overview
from serving.system import System
from serving.table import line, render

LOOK_EVERY_S = 1.0
LINE_EVERY_S = 5.0
TEND_EVERY_S = 0.1


class Picture:
    """Tends a system and shows how it does. Call `moment` as often as you can spare some milliseconds.

    Args:
        system: what runs.
        out: where to show it.
        title: the line above the tables.
        extra: something to show below them, such as a progress bar.
        extra_line: the same in words, for the plain lines.
    """

    def __init__(
        self,
        system: System,
        out: Console,
        title: str,
        extra: Callable[[], RenderableType] | None = None,
        extra_line: Callable[[], str] | None = None,
    ) -> None:
        self._system, self._out, self._title = system, out, title
        self._extra, self._extra_line = extra, extra_line
        self._live = Live(console=out, auto_refresh=False, transient=True) if out.is_terminal else None
        self._next_tend = self._next_look = self._next_line = 0.0
        self.overview: Overview | None = None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def moment(self) -> None:
        """Do what is due: look after the roles, scrape, draw."""
        now = time.monotonic()
        if now >= self._next_tend:
            self._next_tend = now + TEND_EVERY_S
            self._system.tend()
        if now >= self._next_look:
            self._next_look = now + LOOK_EVERY_S
            self.overview = self._system.look()
            self._show(now, self.overview)

    def wait(self) -> None:
        """Let a moment pass when there is nothing else to do."""
        self.moment()
        time.sleep(TEND_EVERY_S)

    def _show(self, now: float, overview: Overview) -> None:
        if self._live is not None:
            parts = [render(self._title, overview), *([self._extra()] if self._extra else [])]
            self._live.update(Group(*parts), refresh=True)
        elif now >= self._next_line:
            self._next_line = now + LINE_EVERY_S
            words = f"{self._extra_line()} | " if self._extra_line else ""
            self._out.print(words + line(overview), soft_wrap=True)


def show_until_stopped(system: System, out: Console) -> None:
    """Show a pipeline until Ctrl-C or SIGTERM; that is a normal end."""
    pipeline = system.pipeline
    brokers = pipeline.kafka["bootstrap.servers"]
    http = "" if pipeline.serve.http is None else f" · HTTP on http://{':'.join(map(str, pipeline.serve.http))}"
    title = f"{pipeline.name}: Kafka on {brokers}{http} · logs in {pipeline.state / 'run'} · Ctrl-C stops"
    out.print(title, soft_wrap=True)
    try:
        with Picture(system, out, title) as picture:
            while True:
                picture.wait()
    except KeyboardInterrupt:
        out.print("stopping: the roles write their last snapshots …")
