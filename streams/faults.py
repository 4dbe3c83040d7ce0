"""Fail points: named places where a test can kill a process as power loss would.

A process started with `MILLRACE_FAIL_POINT=after_flush:3` kills itself with SIGKILL when it passes `after_flush` for
the third time. Without it a fail point costs one comparison. The names are those of the steps of a snapshot
(PROTOCOL 21), in their order.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "MILLRACE_FAIL_POINT"
NAMES = (
    *("after_produce", "before_flush", "after_flush", "after_snapshot", "after_commit", "after_publish"),
    *("after_step", "after_checkpoint", "before_result"),  # of a training
    *("after_staged", "after_deleted", "after_topics", "after_one", "after_published"),  # of `millrace rescale`
    *("after_segment", "after_record", "after_merged", "after_merge"),  # of the archive
    *("after_trained_file", "after_version_row"),  # of announcing what was trained
    *("after_recorded", "after_aside"),  # of `millrace rebuild`, which shares those of `rescale` behind the first
)

_armed: dict[str, int] = {}


def arm(specification: str | None) -> None:
    """Arm a fail point given as `name:count`; None disarms. Called once, when a role starts."""
    _armed.clear()
    if specification:
        name, _, count = specification.partition(":")
        if name not in NAMES:
            raise ValueError(f"no fail point {name!r}; there are {', '.join(NAMES)}")
        _armed[name] = int(count or 1)


def fail_point(name: str) -> None:
    """Die here if armed for this name and the count has run down."""
    if name in _armed:
        _armed[name] -= 1
        if _armed[name] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
