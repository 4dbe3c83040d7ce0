"""Parting events: those that wait, early labels, held labels and what was settled, of the keys of one partition.

Where things wait in order, they keep it: those of one old partition among themselves, and across partitions by the same
order, then by partition. Their places in it are counted anew from 0; what comes later comes behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streams import ledger as known
from streams import pending as kept
from streams.deadlines import NO_SLOT
from streams.event_numbers import named
from streams.ledger_room import restored_index
from streams.parted_entities import places_of, spans

Int64s = npt.NDArray[np.int64]
State = dict[str, npt.NDArray[Any]]


class Waiting(NamedTuple):
    """Things that wait in one partition and go to the same new one."""

    slots: Int64s  # in the old partition
    deadlines: Int64s
    orders: Int64s
    names: Int64s


class Rule(NamedTuple):
    """How events are parted: to which of how many partitions, and by what they were numbered.

    `aliases` are those of the old partitions where an event's number is its name outside (the last stage), else empty.
    """

    partition: int
    partitions: int
    aliases: tuple[int, ...]


def parted_events(states: Sequence[State], rule: Rule, delays: int, clock_us: int) -> State:
    """Give what one partition knows of events; what was forgotten at `clock_us` is left out."""
    pending = [_ours(state, "pending.", state["pending.rows"][:, kept.KEY], rule) for state in states]
    early = [_ours(state, "early.", state["early.keys"], rule) for state in states]
    held = [_ours(state, "held.", state["held.waiting.names"], rule) for state in states]
    parted = _heap("pending.", pending, _ranks(pending)) | _parted_pending(states, pending, rule)
    parted |= _heap("early.", early, _ranks(early))
    for name in ("labels", "times", "keys"):
        parted[f"early.{name}"] = _gathered(states, early, f"early.{name}")
    size = max(1, delays)
    ranks = _ranks([one._replace(orders=one.orders // size) for one in held])  # of labels: each waits once for a delay
    orders = ranks * size + np.concatenate([one.orders for one in held]) % size
    parted |= _heap("held.", held, orders)
    parted["held.labels"] = _gathered(states, held, "held.labels")
    parted["held.order"] = np.array([(ranks.max(initial=-1) + 1) * delays])
    return parted | _parted_ledger(states, parted, rule, clock_us)


def _ours(state: State, part: str, keys_P: Int64s, rule: Rule) -> Waiting:
    heap, orders, names = (state[f"{part}waiting.{name}"] for name in ("heap", "orders", "names"))
    alive = heap[orders[heap[:, 2]] == heap[:, 1]]
    ours = alive[places_of(keys_P[alive[:, 2]], rule.partitions) == rule.partition]
    return Waiting(ours[:, 2], ours[:, 0], ours[:, 1], names[ours[:, 2]])


def _ranks(waiting: Sequence[Waiting]) -> Int64s:
    """Give the places of all in their order, from 0; what has the same order in the same partition shares a place."""
    orders = np.concatenate([one.orders for one in waiting])
    partitions = np.repeat(np.arange(len(waiting)), [one.orders.size for one in waiting])
    pairs = np.stack([orders, partitions], 1)
    return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _heap(part: str, waiting: Sequence[Waiting], orders: Int64s) -> State:
    """Give the heap of things in slots 0, 1 and so on, as they stand here; sorted, it is one."""
    deadlines = np.concatenate([one.deadlines for one in waiting])
    heap = np.stack([deadlines, orders, np.arange(orders.size)], 1)[np.lexsort((orders, deadlines))]
    return {
        f"{part}waiting.heap": heap,
        f"{part}waiting.orders": orders,
        f"{part}waiting.names": np.concatenate([one.names for one in waiting]),
        f"{part}waiting.sizes": np.array([orders.size, orders.size, NO_SLOT, orders.size]),
    }


def _gathered(states: Sequence[State], waiting: Sequence[Waiting], name: str) -> npt.NDArray[Any]:
    return np.concatenate([state[name][one.slots] for state, one in zip(states, waiting, strict=True)])


def _parted_pending(states: Sequence[State], pending: Sequence[Waiting], rule: Rule) -> State:
    """Give rows, vectors and texts of events that wait."""
    rows, texts = [], []
    for place, (state, one) in enumerate(zip(states, pending, strict=True)):
        own = state["pending.rows"][one.slots]
        if rule.aliases:
            own[:, kept.NUMBER] = named(own[:, kept.NUMBER], rule.aliases[place])
        texts.append(state["pending.arena"][spans(own[:, kept.TEXT], _text_sizes(own))])
        rows.append(own)
    together = np.concatenate(rows)
    sizes = _text_sizes(together)
    together[:, kept.TEXT] = np.cumsum(sizes) - sizes
    return {
        "pending.rows": together,
        "pending.vectors": _gathered(states, pending, "pending.vectors"),
        "pending.others": _gathered(states, pending, "pending.others"),
        "pending.arena": np.concatenate(texts),
        "pending.arena_sizes": np.array([sizes.sum(), sizes.sum()]),
    }


def _text_sizes(rows: Int64s) -> Int64s:
    sizes: Int64s = rows[:, kept.ID_SIZE] + np.maximum(rows[:, kept.KEY_SIZE], 0)
    return sizes


def _parted_ledger(states: Sequence[State], parted: State, rule: Rule, clock_us: int) -> State:
    """Give records of what was settled, oldest first, and an index of these and of all that waits."""
    names, columns = [], []
    for place, state in enumerate(states):
        name, at = _settled(state)
        is_ours = state["ledger.homes"][at] % rule.partitions == rule.partition
        is_ours &= state["ledger.records"][at, known.UNTIL] >= clock_us
        names.append(name[is_ours])
        own = {column: state[f"ledger.{column}"][at[is_ours]] for column in known.RING}
        if rule.aliases:
            how = own["records"][:, known.HOW]
            numbers = named(how >> known.KIND_BITS, rule.aliases[place])
            own["records"][:, known.HOW] = (numbers << known.KIND_BITS) | (how & known.KIND_MASK)
        columns.append(own)
    ring = {column: np.concatenate([own[column] for own in columns]) for column in known.RING}
    order = np.argsort(ring["records"][:, known.UNTIL], kind="stable")
    ring = {column: array[order] for column, array in ring.items()}
    words = [_words(np.concatenate(names)[order], known.SETTLED)]
    words.append(_words(parted["pending.waiting.names"], known.PENDING))
    words.append(_words(parted["early.waiting.names"], known.EARLY))
    index, sizes = restored_index(np.concatenate(words), ring)
    state = {f"ledger.{column}": array for column, array in ring.items()}
    return state | {"ledger.words": index, "ledger.sizes": sizes}


def _settled(state: State) -> tuple[Int64s, Int64s]:
    """Give the full names of all records that can be found, and where they lie in the ring."""
    words, sizes = state["ledger.words"], state["ledger.sizes"]
    words = words[(words & known.KIND_MASK) == known.SETTLED]
    at = ((words >> known.KIND_BITS) - sizes[known.FIRST]) & known.SERIAL_MASK
    is_there = at < sizes[known.NEXT] - sizes[known.FIRST]
    words, at = words[is_there], at[is_there]
    return (words & ~known.HALF_MASK) | state["ledger.halves"][at].astype(np.int64), at


def _words(names: Int64s, kind: int) -> Int64s:
    """Give the index words of things in places 0, 1 and so on."""
    return (names & ~known.HALF_MASK) | (np.arange(names.size) << known.KIND_BITS) | kind
