"""The launcher of a training's processes: torchrun gives each a session of its own, so they must not outlive it.

Whoever ends a training by force ends a process group, and torchrun's workers are in none that is known to us: they
would go on with nobody to take their result, and hold a GPU's memory. So each asks the kernel to be killed with it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from streams.child_guard import die_with_parent
from streams.errors import UnavailableError

_OF_TORCHRUN = "TORCHELASTIC_RUN_ID"
_LAUNCHERS = (b"torchrun", b"torch.distributed", b"torch/distributed")  # in its command line


def follow_launcher(environment: Mapping[str, str]) -> None:
    """End when torchrun ends, if that has started this process; called first of all, from its main thread.

    Raises:
        UnavailableError: it is gone already.
    """
    if _OF_TORCHRUN not in environment:
        return
    die_with_parent()
    command = Path(f"/proc/{os.getppid()}/cmdline")
    if command.exists() and not any(name in command.read_bytes() for name in _LAUNCHERS):  # it died before that
        raise UnavailableError("torchrun is gone, so this process of a training ends; start it again")
