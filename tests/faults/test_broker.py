"""The broker dies and comes back on the same port under load: roles go on by themselves and nothing is lost."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from streams.embedded import EmbeddedKafka
from tests.faults import verify
from tests.faults.harness import System
from tests.faults.traffic import Traffic

AWAY_S = 3.0
BETWEEN_S = 4.0


@pytest.mark.timeout(600)
def test_a_broker_that_goes_away_costs_nothing(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path / "broker") as broker:
        address = broker.bootstrap_servers
        system = System(tmp_path / "system", "away", address)
        traffic = Traffic(system.pipeline, seed=2, rate=150)
        traffic.start()
        try:
            system.start()
            system.until_rows("serve")
            for leave in (broker.kill, broker.stop):
                leave()
                time.sleep(AWAY_S)
                broker.start()
                system.rest(BETWEEN_S)
            traffic.end()
            overview = system.finish()
        finally:
            system.stop()
        verify.check(system)

    assert broker.bootstrap_servers == address
    assert [process.deaths for process in system.processes] == [0, 0, 0, 0]
    assert overview.unaccounted == 0
