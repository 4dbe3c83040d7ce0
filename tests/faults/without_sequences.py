"""The command line with the sequence rule switched off: a program that the tests must find out."""

from __future__ import annotations

import pytest

from serving.cli import main
from tests.faults.mutations import no_dedupe

if __name__ == "__main__":
    no_dedupe(pytest.MonkeyPatch())
    main()
