"""One real Kafka for the tests that kill processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streams.embedded import EmbeddedKafka


@pytest.fixture(scope="package")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of a broker that runs as long as these tests."""
    with EmbeddedKafka(tmp_path_factory.mktemp("broker")) as server:
        yield server.bootstrap_servers
