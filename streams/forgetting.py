"""Forgetting entities: those idle for longer than a pipeline allows, and the longest idle where there are too many.

Entities that are bounded stand in a list in the order in which the log last touched them, by an event or by a label
that began to count. Its links lie in their heads, beside the hash by which the table finds them. An entity is *expired*
once the clock has passed its newest event or label by more than the lifetime: from then on it counts as never seen,
whether its memory is free yet or not. So memory can leave at the idle end of the list, a little with each row, and none
of that shows. A new entity that finds as many as are allowed takes the place of the one at the idle end.

A number is used again when its entity is gone: a guess made ahead of time (prefetching.py) is checked against the hash.
"""

from __future__ import annotations

from streams import accounts as count
from streams.compiled import inlined
from streams.entities import entity_kernel, find_entity_kernel, remove_key_kernel
from streams.exact import drop_blocks_kernel
from streams.frames import END
from streams.inputs import NO_ENTITY, NO_KEY
from streams.plan import Plan
from streams.stage import Stage
from streams.windows import (
    ARENA_DEAD,
    CHUNK,
    FREE,
    HELD,
    KEY,
    NEWER,
    NEWEST,
    NEWEST_LABEL,
    NO_CHUNK,
    OLDER,
    OLDEST,
    ROOM_MASK,
    YOUNGEST,
    Windows,
)

MOST_FREED = 4  # expired entities whose memory leaves with a row; more than a row adds, and never a burst


@inlined
def touched_entity_kernel(plan: Plan, stage: Stage, guess: int, key: int) -> int:
    """Give the entity of an event's key, touched last from here on; one that is new or expired begins anew."""
    entity = guess
    if entity == NO_ENTITY or stage.windows.heads[entity * plan.head_words + KEY] != key:
        entity = find_entity_kernel(stage.entities, key)
    if entity != NO_ENTITY and not is_expired_kernel(plan, stage, entity):
        _touch(plan, stage.windows, entity)
        return entity
    leaving = entity if entity != NO_ENTITY else _surplus(plan, stage.windows)
    while leaving != NO_ENTITY:
        _forget(plan, stage, leaving)
        leaving = _surplus(plan, stage.windows)
    entity = entity_kernel(stage.entities, plan, stage.windows, key)
    _append(plan, stage.windows, entity)
    return entity


@inlined
def labelled_entity_kernel(plan: Plan, stage: Stage, key: int) -> int:
    """Give the entity that a label counts for, touched last from here on; a label whose entity is gone is counted."""
    entity = find_entity_kernel(stage.entities, key)
    if plan.is_bounded and entity != NO_ENTITY:
        if is_expired_kernel(plan, stage, entity):
            entity = NO_ENTITY
        else:
            _touch(plan, stage.windows, entity)
    if entity == NO_ENTITY:
        stage.counters[count.GONE_LABELS] += 1
    return entity


@inlined
def pass_idle_kernel(plan: Plan, stage: Stage, clock_us: int) -> None:
    """Let the clock stand as it does after a row, and free what is expired at the idle end.

    The clock of lifetimes never goes back, and the end of all input is no time at all.
    """
    if clock_us != END:
        stage.counters[count.IDLE_CLOCK] = max(stage.counters[count.IDLE_CLOCK], clock_us)
    if plan.ttl_us > 0:
        for _ in range(MOST_FREED):
            oldest = stage.windows.used[OLDEST] - 1
            if oldest == NO_ENTITY or not is_expired_kernel(plan, stage, oldest):
                break
            _forget(plan, stage, oldest)


@inlined
def is_expired_kernel(plan: Plan, stage: Stage, entity: int) -> bool:
    """Whether an entity has been idle for longer than its lifetime."""
    head = entity * plan.head_words
    newest = max(stage.windows.heads[head + NEWEST], stage.windows.heads[head + NEWEST_LABEL])
    return bool(plan.ttl_us > 0 and stage.counters[count.IDLE_CLOCK] > newest + plan.ttl_us)


@inlined
def _surplus(plan: Plan, windows: Windows) -> int:
    """Give the entity that has to go before a new one comes, if any has."""
    is_full = 0 < plan.most <= windows.used[HELD]
    return int(windows.used[OLDEST] - 1) if is_full else NO_ENTITY


@inlined
def _forget(plan: Plan, stage: Stage, entity: int) -> None:
    """Free all that an entity has; count it as expired if it is, else as evicted."""
    windows, head = stage.windows, entity * plan.head_words
    stage.counters[count.EXPIRED if is_expired_kernel(plan, stage, entity) else count.EVICTED] += 1
    _unlink(plan, windows, entity)
    remove_key_kernel(stage.entities, windows.heads[head + KEY])
    for window in range(plan.bucket_windows):
        word = head + plan.word_W[window] + CHUNK
        chunk = windows.heads[word]
        if chunk != NO_CHUNK:
            lanes = plan.lane_start[window + 1] - plan.lane_start[window]
            windows.used[ARENA_DEAD] += 1 + (windows.arena[chunk] & ROOM_MASK) * lanes
            windows.heads[word] = NO_CHUNK
    if plan.bucket_windows < plan.width_W.size:
        drop_blocks_kernel(stage.exact, windows.heads, head + plan.exact_word)
    windows.heads[head + KEY] = NO_KEY
    windows.heads[head + OLDER] = windows.used[FREE]
    windows.used[FREE] = entity + 1
    windows.used[HELD] -= 1


@inlined
def _touch(plan: Plan, windows: Windows, entity: int) -> None:
    if windows.used[YOUNGEST] != entity + 1:
        _unlink(plan, windows, entity)
        _append(plan, windows, entity)


@inlined
def _unlink(plan: Plan, windows: Windows, entity: int) -> None:
    older = windows.heads[entity * plan.head_words + OLDER]
    newer = windows.heads[entity * plan.head_words + NEWER]
    if older == 0:
        windows.used[OLDEST] = newer
    else:
        windows.heads[(older - 1) * plan.head_words + NEWER] = newer
    if newer == 0:
        windows.used[YOUNGEST] = older
    else:
        windows.heads[(newer - 1) * plan.head_words + OLDER] = older


@inlined
def _append(plan: Plan, windows: Windows, entity: int) -> None:
    """Put an entity that stands nowhere in the list at its young end."""
    last = windows.used[YOUNGEST]
    windows.heads[entity * plan.head_words + OLDER] = last
    windows.heads[entity * plan.head_words + NEWER] = 0
    if last == 0:
        windows.used[OLDEST] = entity + 1
    else:
        windows.heads[(last - 1) * plan.head_words + NEWER] = entity + 1
    windows.used[YOUNGEST] = entity + 1
