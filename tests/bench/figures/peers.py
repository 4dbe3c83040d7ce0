"""What a user would pick instead, on the same broker and input: Faust with a Table, Quix Streams with one window."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from tests.bench.figure import Figure, Ratio
from tests.bench.processes import ROOT
from tests.bench.progress import Output, steady_rate, watch_for
from tests.bench.workplace import DIRECTORY, Workplace, environment

SCRIPTS = ROOT / "tests" / "bench" / "peers"
START_LIMIT_S = 90.0


class Peer(NamedTuple):
    """A program in an environment of its own; `output` gets one record per event."""

    name: str
    requirement: str
    script: str
    output: str


PEERS = (
    Peer("faust", "faust-streaming==0.15.3", "faust_table.py", "faust-totals-changelog"),
    Peer("quix", "quixstreams==3.28.1", "quix_window.py", "quix.results"),
)
FIGURES = tuple(Figure(peer.name, "events/s") for peer in PEERS)
RATIOS = (
    Ratio("end_to_end_vs_faust", "end_to_end", "faust", bound=20.0),
    Ratio("end_to_end_vs_quix", "end_to_end", "quix", bound=2.5),
)


def measure(workplace: Workplace) -> dict[str, float]:
    """Run each alone for a bounded time."""
    return {peer.name: run_peer(workplace, peer) for peer in PEERS}


def run_peer(workplace: Workplace, peer: Peer) -> float:
    """Give a peer's events per second, in the middle of what it does in the time given."""
    events_topic, _ = workplace.publish()
    python = environment(peer.name, peer.requirement)
    state = DIRECTORY / "runs" / peer.name
    clean(workplace, peer, state)
    state.mkdir(parents=True)
    output = Output(workplace.broker, peer.output, workplace.size.events)
    with workplace.group(peer.name) as processes:
        script = str(SCRIPTS / peer.script)
        processes.start(peer.name, [str(python), script, workplace.broker.address, events_topic, peer.name, str(state)])
        watch_for(output, workplace.size.peer_s, START_LIMIT_S, processes.check)
    clean(workplace, peer, state)
    return steady_rate(*output.curve())


def clean(workplace: Workplace, peer: Peer, state: Path) -> None:
    """Remove a peer's topics, changelogs too, and its files, so that every run starts from nothing."""
    workplace.broker.delete_all(peer.name)
    workplace.broker.delete_all(f"changelog__{peer.name}")
    shutil.rmtree(state, ignore_errors=True)
