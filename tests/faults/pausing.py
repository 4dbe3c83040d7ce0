"""The command line, with fail points that pause the process once (SIGSTOP) in place of killing it: a zombie to be."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest

from serving.cli import main
from streams import faults


def pause(process_id: int, _: int) -> None:
    """Stop here until someone sends SIGCONT; never again after that."""
    faults.arm(None)
    os.kill(process_id, signal.SIGSTOP)


if __name__ == "__main__":
    pytest.MonkeyPatch().setattr(faults, "os", SimpleNamespace(kill=pause, getpid=os.getpid))
    main()
