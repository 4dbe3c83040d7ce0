"""What all tests share: property tests that find the same examples in every run, and one object store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests import checked_kernels  # noqa: F401  # first: kernels are imported behind it
from tests.s3_server import S3Server

# No deadline: the first call of a kernel compiles it. The same examples every time: a failure can be repeated.
settings.register_profile("millrace", deadline=None, derandomize=True, database=None)
settings.load_profile("millrace")


ORDER = ("consumers", "system", "faults")  # what compiles most kernels, then tests of minutes, then all others


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where processes share the tests, let the short ones come last, so that at the end neither waits for the other.

    Directories stay whole, for their tests share a broker.
    """
    if hasattr(config, "workerinput"):
        items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    directory = item.path.parent.name
    return ORDER.index(directory) if directory in ORDER else len(ORDER)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server for the whole session; each test has buckets of its own."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server
