"""What a learn task's snapshot says before its model is restored: lineage, task, columns, and whose array is whose.

A snapshot is one flat mapping. An array of a part is named `<part>.<name>`; the rest is the task's own: `version`,
`task`, `columns`, `is_at_example`, and what a quarantine keeps (quarantine.py).
"""

from __future__ import annotations

import msgspec

from models.learner import State
from streams.advice import rebuild_of
from streams.errors import ModelError
from streams.frames import Column
from streams.pipeline import Task

PARTS = ("learner", "board", "scores", "drift")


def parts_of(state: State) -> dict[str, State]:
    """Give each part its arrays, by the names it gave them."""
    parts: dict[str, State] = {part: {} for part in PARTS}
    for name, array in state.items():
        part, _, rest = name.partition(".")
        if part in parts:
            parts[part][rest] = array
    return parts


def lineage_of(state: State) -> int:
    """Give the lineage in a task's saved state."""
    return int(state["version"][0]) if "version" in state else 0


def check_task(state: State, task: Task, candidate: str) -> None:
    """Refuse what was written for another task.

    Raises:
        ModelError: when it was, or there is no model at all.
    """
    command = rebuild_of(f"learn.{candidate}")
    if not {"version", "task"} <= state.keys():
        raise ModelError(f"the snapshot of {candidate} holds no model; run `{command}`")
    found = msgspec.json.decode(state["task"].tobytes(), type=Task)
    if found != task:
        text = f"the snapshot of {candidate} was written for another task ({found}; now {task})"
        raise ModelError(f"{text}; run `{command}`")


def columns_in(state: State) -> tuple[Column, ...]:
    """Give the columns that the model was made for.

    Raises:
        ModelError: when they are absent or damaged.
    """
    try:
        return msgspec.json.decode(state["columns"].tobytes(), type=tuple[Column, ...])
    except (KeyError, msgspec.MsgspecError) as error:
        raise ModelError(f"the snapshot does not say which columns its model is for: {error}") from error


def tell_columns(bound: tuple[Column, ...], declared: tuple[Column, ...]) -> str:
    """Say how the columns of a model differ from those that are declared now, to go behind a sentence."""
    gone = [column.name for column in bound if column not in declared]
    unused = [column.name for column in declared if column not in bound]
    told = f"; no longer declared, and so missing: {', '.join(gone)}" if gone else ""
    return told + (f"; not among them: {', '.join(unused)}" if unused else "")
