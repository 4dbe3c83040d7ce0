"""The state of the features role on one partition: all its tables, room in them, and their form in a snapshot.

Kernels never allocate state: they stop before a row for which some table lacks room, `with_room` gives larger tables,
and they go on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.accounts import CLOCK, COUNTERS, new_counters
from streams.compiled import inlined
from streams.deadlines import MEMORY, WAITING, is_full_kernel
from streams.early import Early, early_state, empty_early, longer_early, restored_early
from streams.entities import (
    Entities,
    arena_need_kernel,
    empty_entities,
    empty_windows,
    enter_all_kernel,
    is_crowded_kernel,
    lacks_entity_room_kernel,
    packed,
    with_longer_arena,
)
from streams.exact import Exact, empty_exact, exact_state, has_block_kernel, larger_exact, restored_exact
from streams.held import Held, empty_held, held_state, holds_kernel, longer_held, restored_held
from streams.key_queues import (
    KeyQueues,
    is_short_of_keys_kernel,
    load_queue_kernels,
    no_queues,
    queues_of,
    with_queue_room,
)
from streams.ledger import Ledger, empty_ledger, lacks_room_kernel
from streams.ledger_room import ledger_state, load_ledger_kernels, restored_ledger, with_ledger_room
from streams.memory import resized
from streams.pending import (
    USED,
    Pending,
    empty_pending,
    longer_pending,
    pending_state,
    restored_pending,
    with_text_room,
)
from streams.plan import FeaturePlan, Plan
from streams.scratch import Scratch
from streams.windows import ARENA_END, ARENA_LIMIT, HELD, Windows

Arrays = dict[str, npt.NDArray[Any]]
# Heads that are mapped and not used are never touched, while copying touches all of them again; but a system may refuse
# a mapping that is larger than its memory.
HEADS_GROWTH, LARGE_HEADS_GROWTH, LARGE_HEADS_BYTES = 4, 1.5, 64 << 20


class Stage(NamedTuple):
    """All tables of one partition."""

    entities: Entities
    windows: Windows
    ledger: Ledger
    early: Early
    pending: Pending
    held: Held
    exact: Exact
    queues: KeyQueues
    counters: npt.NDArray[np.int64]


def empty_stage(plan: FeaturePlan) -> Stage:
    """Give the state before the first row."""
    windows = empty_windows(plan.plan.width_W.size, plan.plan.head_words)
    entities = len(plan.stage.entities)
    pending = empty_pending(kept_columns(plan), entities)
    return Stage(
        empty_entities(),
        windows,
        empty_ledger(entities=entities, features=remembered_columns(plan)),
        empty_early(),
        pending,
        empty_held(),
        empty_exact(plan.plan.exact_E.size),
        queues_of(pending) if has_queues(plan) else no_queues(),
        new_counters(),
    )


def kept_columns(plan: FeaturePlan) -> int:
    """Say how long the vectors are that wait for label rows; in a chain only the last stage keeps them."""
    return len(plan.columns) if plan.stage.is_last else 0


def remembered_columns(plan: FeaturePlan) -> int:
    """Say how long the vectors are that are kept of settled events, where amended labels are learned once more."""
    return kept_columns(plan) if plan.labels.is_relearned else 0


def has_queues(plan: FeaturePlan) -> bool:
    """Whether this stage settles events by labels that name none."""
    return plan.stage.number == 1 and plan.labels.match == "key"


@inlined
def has_room_kernel(stage: Stage, plan: Plan, arena_need: int, text_need: int) -> bool:
    """Whether the next row fits, whatever it is."""
    windows, pending = stage.windows, stage.pending
    return not (
        lacks_room_kernel(stage.ledger, pending.waiting.sizes[WAITING])
        or is_full_kernel(stage.early.waiting)
        or is_full_kernel(pending.waiting)
        or is_short_of_keys_kernel(stage.queues)
        or (plan.bucket_windows < plan.width_W.size and not has_block_kernel(stage.exact))
        or (plan.delays_D.size > 0 and not holds_kernel(stage.held, most_held_kernel(plan, pending)))
        or pending.arena.size - pending.arena_sizes[USED] < text_need
        or lacks_entity_room_kernel(stage.entities, plan, windows)
        or windows.used[ARENA_LIMIT] - windows.used[ARENA_END] < arena_need
    )


@inlined
def most_held_kernel(plan: Plan, pending: Pending) -> int:
    """How many labels one row can add to those held: it may settle all events that wait."""
    most: int = (pending.waiting.sizes[WAITING] + 2) * plan.delays_D.size
    return most


def with_room(stage: Stage, plan: Plan, text_need: int, scratch: Scratch = MEMORY) -> Stage:
    """Give the same state with room for a row in every table; events that wait may lie in files of `scratch`."""
    entities, windows, ledger, early, pending, held, exact, queues, counters = stage
    if lacks_entity_room_kernel(entities, plan, windows):
        entities, windows = _with_entity_room(entities, plan, windows)
    arena_need = arena_need_kernel(plan)
    if windows.used[ARENA_LIMIT] - windows.used[ARENA_END] < arena_need:
        windows = with_longer_arena(windows, plan, arena_need)
    if lacks_room_kernel(ledger, waiting_events := int(pending.waiting.sizes[WAITING])):
        ledger = with_ledger_room(ledger, int(counters[CLOCK]), waiting_events, int(early.waiting.sizes[WAITING]))
    if is_full_kernel(early.waiting):
        early = longer_early(early)
    if is_full_kernel(pending.waiting):
        pending = longer_pending(pending, scratch)
    if pending.arena.size - pending.arena_sizes[USED] < text_need:
        pending = with_text_room(pending, text_need, scratch)
    if plan.delays_D.size:
        held = longer_held(held, (int(pending.waiting.sizes[WAITING]) + 2) * plan.delays_D.size)
    if plan.bucket_windows < plan.width_W.size and not has_block_kernel(exact):
        exact = larger_exact(exact)
    queues = with_queue_room(queues, pending)
    return Stage(entities, windows, ledger, early, pending, held, exact, queues, counters)


def _with_entity_room(entities: Entities, plan: Plan, windows: Windows) -> tuple[Entities, Windows]:
    """Give the same entities with a head and a place in the table for one more."""
    held = int(windows.used[HELD])
    if (held + 1) * plan.head_words > windows.heads.size:
        growth = HEADS_GROWTH if windows.heads.nbytes < LARGE_HEADS_BYTES else LARGE_HEADS_GROWTH
        heads = resized(windows.heads, int(growth * windows.heads.size))
        windows = windows._replace(heads=heads, head_sums=heads.view(np.float64))
    if is_crowded_kernel(entities, held):
        larger = empty_entities(2 * entities.table.shape[0])
        enter_all_kernel(entities, larger)
        entities = larger
    return entities, windows


def load_growth_kernels(plan: FeaturePlan) -> None:
    """Make an empty stage's tables larger, so that no growth in the stream has to wait for a kernel, 50 ms each."""
    stage = empty_stage(plan)
    enter_all_kernel(stage.entities, empty_entities())
    packed(stage.windows, plan.plan, arena_need_kernel(plan.plan))
    load_ledger_kernels()
    with_text_room(stage.pending, 0)
    if has_queues(plan):
        load_queue_kernels(stage.pending)


def stage_state(stage: Stage, plan: FeaturePlan) -> Arrays:
    """Give everything that the next rows depend on; of events that wait not as copies (see `pending_state`)."""
    entities, arena_words, *_ = stage.windows.used.tolist()
    state: Arrays = {
        "plan": plan.outline.to_array(),
        "entities": stage.entities.table.copy(),
        "windows.heads": stage.windows.heads[: entities * plan.plan.head_words].copy(),
        "windows.arena": stage.windows.arena[:arena_words].copy(),
        "windows.used": stage.windows.used.copy(),
        "windows.late": stage.windows.late_W.copy(),
        "counters": stage.counters.copy(),
    }
    parts = {
        "ledger": ledger_state(stage.ledger),
        "early": early_state(stage.early),
        "exact": exact_state(stage.exact),
        "held": held_state(stage.held),
        "pending": pending_state(stage.pending),
    }
    state |= {f"{part}.{name}": array for part, arrays in parts.items() for name, array in arrays.items()}
    return state


def restored_stage(state: Mapping[str, npt.NDArray[Any]], plan: FeaturePlan, scratch: Scratch = MEMORY) -> Stage:
    """Give the state that `stage_state` described for the same plan; for another one, `moving.moved_state` does it."""
    fresh = empty_stage(plan)
    heads = _at_least(state["windows.heads"], fresh.windows.heads)
    arena = resized(state["windows.arena"], int(state["windows.used"][ARENA_LIMIT]))
    used, late = (state[f"windows.{name}"].copy() for name in ("used", "late"))
    pending = restored_pending(state, scratch)
    return Stage(
        Entities(state["entities"].copy()),
        Windows(heads, heads.view(np.float64), arena, arena.view(np.float64), used, late),
        restored_ledger(_with_vectors(state, remembered_columns(plan)), int(pending.waiting.sizes[WAITING])),
        restored_early(state),
        pending,
        restored_held(state),
        restored_exact(state),
        queues_of(pending) if has_queues(plan) else no_queues(),
        resized(state["counters"], COUNTERS),  # a release before had fewer
    )


def _with_vectors(state: Mapping[str, npt.NDArray[Any]], features: int) -> Mapping[str, npt.NDArray[Any]]:
    """Give a state whose settled events have vectors of this length; those it does not know are missing."""
    found, held = state.get("ledger.vectors"), state["ledger.halves"].size
    if found is not None and found.shape[1] == features:
        return state
    return {**state, "ledger.vectors": np.full((held, features), math.nan)}


def _at_least(array: npt.NDArray[Any], smallest: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return resized(array, max(array.shape[0], smallest.shape[0]))
