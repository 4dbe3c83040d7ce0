"""The scoreboard's arrays: sources with their rings of blocks, and the nodes that hold a block's 100 events.

They grow by doubling and never shrink; a node that is free waits on a stack. In a snapshot lie the nodes in use only,
by source and block, so that a state depends on the rows alone and not on which node a block has got.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.learner import State
from streams.compiled import bare

BLOCK_EVENTS = 100

# Places in `sizes`: sources in use, unused nodes, why planning stopped, the largest that the clock has been, the row
# behind the last one settled.
SOURCES, FREE, STOPPED, CLOCK, SETTLED_TO = 0, 1, 2, 3, 4

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


class Sources(NamedTuple):
    """Per source, in the order of their first event."""

    name: Int32
    first: Int64  # the first number seen: labels of earlier ones find no prediction
    next: Int64
    head: Int64  # the oldest open block
    tail: Int64  # the oldest block that is remembered
    since: Int64  # the first number that the model as it is now has predicted; what came before was another's
    ring: Int32  # [S, R]: node of block b at b % R from the tail on, R a power of two


class Nodes(NamedTuple):
    """Per block: what was said of each event, and its loss and label once that has come. S numbers a prediction."""

    said: npt.NDArray[np.float64]  # [N * 100, S]
    loss: npt.NDArray[np.float64]  # [N, 100]
    status: npt.NDArray[np.uint8]  # [N, 100]
    label: npt.NDArray[np.float64]  # [N, 100] the newest of a settled event, NaN where none counts
    until: Int64  # [N, 100] up to which clock a settled event is remembered; of a pending one its own time
    last_until: Int64  # [N] the largest of these
    first_time: Int64
    last_time: Int64
    block: Int64
    left: Int64  # events not settled yet
    owner: Int32  # place of its source
    free: Int32  # stack of unused nodes; its height is in `sizes`


def new_sources(size: int, ring: int) -> Sources:
    """Make room for so many sources, each with a ring of so many blocks."""
    column = np.zeros(size, np.int64)
    name, rings = np.full(size, -1, np.int32), np.full((size, ring), -1, np.int32)
    return Sources(name, column, column.copy(), column.copy(), column.copy(), column.copy(), rings)


def new_nodes(size: int, outputs: int) -> Nodes:
    """Make room for so many blocks; none of them is on the stack of unused ones."""
    column, owner = np.zeros(size, np.int64), np.zeros(size, np.int32)
    grid = np.full((size, BLOCK_EVENTS), np.nan)
    return Nodes(
        np.full((size * BLOCK_EVENTS, outputs), np.nan),
        grid,
        np.zeros((size, BLOCK_EVENTS), np.uint8),
        grid.copy(),
        np.zeros((size, BLOCK_EVENTS), np.int64),
        column.copy(),
        column,
        column.copy(),
        column.copy(),
        column.copy(),
        owner,
        owner.copy(),
    )


def more_nodes(nodes: Nodes) -> Nodes:
    """Give twice the room, or the first; the new nodes are not on the stack of unused ones yet."""
    more = nodes.left.size or 16
    said = _grown(nodes.said, more * BLOCK_EVENTS)
    return Nodes(said, *(_grown(column, more) for column in nodes[1:]))


def more_sources(sources: Sources) -> Sources:
    """Give room for twice as many sources."""
    return Sources._make(_grown(column, len(column)) for column in sources)


def longer_rings(sources: Sources, nodes: Nodes, used: int) -> Sources:
    """Give the `used` sources, and those to come, rings of twice the length."""
    ring = np.full((sources.ring.shape[0], sources.ring.shape[1] * 2), -1, np.int32)
    node = _known_nodes(sources, used)
    ring[nodes.owner[node], nodes.block[node] % ring.shape[1]] = node
    return sources._replace(ring=ring)


def nodes_of(sources: Sources, place: int) -> Int32:
    """Name the nodes of a source, by block."""
    last = (int(sources.next[place]) - 1) // BLOCK_EVENTS
    blocks = np.arange(int(sources.tail[place]), last + 1)
    node: Int32 = sources.ring[place, blocks % sources.ring.shape[1]]
    return node[node >= 0]


def _known_nodes(sources: Sources, used: int) -> Int32:
    """Name the nodes in use, by source and block."""
    found = [nodes_of(sources, place) for place in range(used)]
    return np.concatenate([np.zeros(0, np.int32), *found])


def arrays_state(sources: Sources, nodes: Nodes, used: int) -> State:
    """Give the `used` sources and the nodes in use."""
    node = _known_nodes(sources, used)
    state: State = {
        f"sources.{name}": column[:used].copy() for name, column in sources._asdict().items() if name != "ring"
    }
    state.update({f"nodes.{name}": _by_node(nodes, name)[node] for name in Nodes._fields if name != "free"})
    return state


def restored_arrays(state: State, outputs: int) -> tuple[Sources, Nodes]:
    """Take back what `arrays_state` gave.

    Raises:
        KeyError, ValueError, IndexError: when arrays are absent or do not fit together.
    """
    used, count = state["sources.name"].size, state["nodes.block"].size
    tail, after = state["sources.tail"], state["sources.next"]
    known_blocks = int(np.max((after - 1) // BLOCK_EVENTS - tail + 1, initial=1))  # type: ignore[operator]
    sources = new_sources(_power_of_two(used + 1), _power_of_two(known_blocks))
    nodes = new_nodes(count, outputs)
    for name in ("name", "first", "next", "head", "tail"):
        getattr(sources, name)[:used] = state[f"sources.{name}"]
    sources.since[:used] = state.get("sources.since", 0)
    for name, column in nodes._asdict().items():
        if name != "free":
            column[...] = state[f"nodes.{name}"].reshape(column.shape)
    sources.ring[nodes.owner, nodes.block % sources.ring.shape[1]] = np.arange(count)
    return sources, nodes


def _by_node(nodes: Nodes, name: str) -> npt.NDArray[Any]:
    """View a column with the nodes as its first axis."""
    column: npt.NDArray[Any] = getattr(nodes, name)
    return column.reshape(-1, BLOCK_EVENTS, nodes.said.shape[1]) if name == "said" else column


def _grown(column: npt.NDArray[Any], by: int) -> npt.NDArray[Any]:
    more = np.full((by, *column.shape[1:]), -1 if column.dtype == np.int32 else 0, column.dtype)
    return np.concatenate([column, more])


def _power_of_two(at_least: int) -> int:
    return max(16, 1 << (at_least - 1).bit_length())


@bare
def forget_kernel(sources: Sources, nodes: Nodes, sizes: Int64) -> None:
    """Free the blocks that have left and of which every event is forgotten, oldest first."""
    for place in range(sizes[SOURCES]):
        mask = sources.ring.shape[1] - 1
        while sources.tail[place] < sources.head[place]:
            node = sources.ring[place, sources.tail[place] & mask]
            if sizes[CLOCK] <= nodes.last_until[node]:
                break
            sources.ring[place, sources.tail[place] & mask] = -1
            sources.tail[place] += 1
            nodes.free[sizes[FREE]] = node
            sizes[FREE] += 1
