"""Start: `millrace up --embedded` with an empty state directory and warm caches, to the first prediction."""

from __future__ import annotations

import time

from tests.bench.figure import Figure
from tests.bench.first_prediction import wait_for_first_prediction
from tests.bench.kafka import BenchError
from tests.bench.workplace import EVENTS_TOPIC, MILLRACE, Workplace

ADDRESS_FILE = "run/broker"  # under the state directory, while the embedded Kafka runs
LIMIT_S = 120.0

FIGURES = (Figure("start_s", "s", bound=20, is_floor=False),)
_is_warm = False  # jars and compiled kernels are cached by a start that is not counted


def measure(workplace: Workplace) -> dict[str, float]:
    """Start once (twice the first time, to fill the caches) and stop."""
    global _is_warm  # noqa: PLW0603  # caches are the machine's, so is knowing that they are filled
    if not _is_warm:
        start_once(workplace)
        _is_warm = True
    return {"start_s": start_once(workplace)}


def start_once(workplace: Workplace) -> float:
    """Give the seconds from the command to the first prediction consumed in every partition."""
    with workplace.run() as run, workplace.group(f"{run.name}-start") as processes:
        start_s = time.monotonic()
        up = processes.start("up", [str(MILLRACE), "up", str(run.file), "--embedded"])
        file = run.state / ADDRESS_FILE
        while not (file.exists() and (address := file.read_text().strip())):
            up.check()
            if time.monotonic() - start_s > LIMIT_S:
                raise BenchError(f"no {file} after {LIMIT_S:.0f} s")
            time.sleep(0.02)
        wait_for_first_prediction(address, EVENTS_TOPIC, run.topic("predictions"), up.check, LIMIT_S)
        return time.monotonic() - start_s
