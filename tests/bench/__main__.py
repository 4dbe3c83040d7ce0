"""`python -m tests.bench`: measures, prints the table, writes bench.json.

All measurements of a run are taken one after the other, then again, so that a noisy machine hits them alike.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from streams.embedded import EmbeddedKafka
from tests.bench.figure import Measurement, choose, measurements, with_ratios
from tests.bench.kafka import BenchError, Broker
from tests.bench.load import KEYS, MOST_KEYS
from tests.bench.processes import ROOT
from tests.bench.report import make_report, show, shown, write_json
from tests.bench.workplace import DIRECTORY, FULL, QUICK, Workplace


def main() -> int:
    """Run the bench; 1 when a required figure is not reached, 2 when a run went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="alternating runs whose median counts (5)")
    parser.add_argument("--only", default="", metavar="NAME,…", help="these figures, and what they are compared with")
    parser.add_argument("--quick", action="store_true", help="less input and one run: to see that it works")
    parser.add_argument("--keys", type=int, default=KEYS, help=f"over how many keys the input goes ({KEYS:,})")
    parser.add_argument("--broker", metavar="HOST:PORT", help="a running broker, in place of an embedded one")
    parser.add_argument(
        "--json", type=Path, default=ROOT / "bench.json", metavar="FILE", help="where to write (bench.json)"
    )
    asked = parser.parse_args()
    if not 1 <= asked.keys <= MOST_KEYS:
        parser.error(f"--keys {asked.keys}: allowed are 1 to {MOST_KEYS:,}")
    try:
        chosen = choose(measurements(), {name for name in asked.only.split(",") if name})
    except ValueError as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a bench that is stopped stops its children
    console = Console(width=None if sys.stdout.isatty() else 160)
    with broker(asked.broker) as address:
        workplace = Workplace(Broker(address), (QUICK if asked.quick else FULL)._replace(keys=asked.keys))
        try:
            runs = repeat(workplace, chosen, 1 if asked.quick else asked.runs, console)
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 2
    runs = with_ratios(runs, [ratio for measurement in chosen for ratio in measurement.ratios])
    report = make_report(chosen, runs)
    write_json(report, asked.json)
    return 0 if show(report, chosen, console) else 1


def repeat(workplace: Workplace, chosen: list[Measurement], times: int, console: Console) -> dict[str, list[float]]:
    """Take every measurement once a run; give the values of each figure by run."""
    runs: dict[str, list[float]] = {}
    for turn in range(1, times + 1):
        for measurement in chosen:
            found = measurement.measure(workplace)
            words = ", ".join(f"{name} {shown(value)}" for name, value in found.items())
            console.print(f"run {turn}/{times}: {words}", highlight=False)
            for name, value in found.items():
                runs.setdefault(name, []).append(value)
    return runs


@contextmanager
def broker(address: str | None) -> Iterator[str]:
    """Give a broker's address: the one named, or an embedded one with nothing on it."""
    if address is not None:
        yield address
        return
    directory = DIRECTORY / "broker"
    shutil.rmtree(directory, ignore_errors=True)
    kafka = EmbeddedKafka(directory)
    kafka.start()
    try:
        yield kafka.bootstrap_servers
    finally:
        kafka.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
