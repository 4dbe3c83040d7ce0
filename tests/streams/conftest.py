"""What tests of streams share."""

from __future__ import annotations

import pytest

from streams import archive_file
from tests.archiving import make_small


@pytest.fixture
def small_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let segments be small, of several groups of rows, and not wait for the disk."""
    make_small(monkeypatch)
    monkeypatch.setattr(archive_file, "GROUP_ROWS", 25)
