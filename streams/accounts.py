"""Conservation accounts of the features role: what became of every event and every label.

Counters are part of the state, so the equations hold across restarts; repeats that a reader drops are outside of them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Places of the counters. The kernels count by place; everything else by name.
EVENTS, SETTLED, PENDING, DUPLICATE = 0, 1, 2, 3
LABELS, JOINED, WAITING, LABEL_DUPLICATE, UNKNOWN, TOO_LATE, AMENDED, RETRACTED = 4, 5, 6, 7, 8, 9, 10, 11
SETTLED_MISSING, NUMBERED, LABEL_ROWS = 12, 13, 14
CLOCK, LABEL_CLOCK = 15, 16  # the clocks after the last row taken
LATEST = 17  # the largest time of a row taken
EXPIRED, EVICTED, GONE_LABELS = 18, 19, 20  # entities forgotten as too long idle, as too many; labels without entity
IDLE_CLOCK = 21  # that of lifetimes: the largest that the clock has been, but for the end
PENDING_EVICTED = 22  # events settled as missing before their time, since too many waited
COUNTERS = 23

ROW_ACCOUNT = "rows"  # of what was numbered

EVENT_STATES = {"settled": SETTLED, "pending": PENDING, "duplicate": DUPLICATE}
LABEL_STATES = {
    "joined": JOINED,
    "waiting": WAITING,
    "duplicate": LABEL_DUPLICATE,
    "unknown": UNKNOWN,
    "too_late": TOO_LATE,
    "amended": AMENDED,
    "retracted": RETRACTED,
}


def new_counters() -> npt.NDArray[np.int64]:
    """Give counters at their beginning."""
    counters = np.zeros(COUNTERS, np.int64)
    counters[[CLOCK, LABEL_CLOCK, LATEST, IDLE_CLOCK]] = np.iinfo(np.int64).min
    return counters


def accounts(counters: npt.NDArray[np.int64], kept_rows: int) -> dict[str, tuple[int, dict[str, int]]]:
    """Give each account as its total and what it is made of; `kept_rows` are the rows that wait for their label row."""
    return {
        "events": (int(counters[EVENTS]), {name: int(counters[at]) for name, at in EVENT_STATES.items()}),
        "labels": (int(counters[LABELS]), {name: int(counters[at]) for name, at in LABEL_STATES.items()}),
        ROW_ACCOUNT: (int(counters[NUMBERED]), {"label_rows": int(counters[LABEL_ROWS]), "pending": kept_rows}),
    }
