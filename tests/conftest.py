"""What all tests share: property tests that find the same examples in every run, and one object store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.s3_server import S3Server

# No deadline: the first call of a kernel compiles it. The same examples every time: a failure can be repeated.
settings.register_profile("millrace", deadline=None, derandomize=True, database=None)
settings.load_profile("millrace")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server for the whole session; each test has buckets of its own."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server
