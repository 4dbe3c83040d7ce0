"""The order in which blocks of several sources count: by event time, not by when their labels had come.

A block completes with its last label, and a source's blocks come in order; one source may so run ahead of another by
many blocks. Blocks of the same time look alike where losses remember. Put far apart, they would pass for independent,
and equal models would be promoted several times as often as alpha allows (docs/evidence.md). So a block waits until
every source is known to be past it. A source that has fallen behind the newest by more than a patience holds nobody,
and nobody holds more than MOST_WAITING blocks: a source that was replaced, or is idle, costs delay and not memory.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

MOST_WAITING = 200  # 18 KB; four sources with labels 5,000 events late have hardly more waiting


class Summed(msgspec.Struct, frozen=True, array_like=True):
    """What counts of a block: when it was, and the mean losses of both models. 90 bytes as JSON."""

    last_time_us: int
    source: int
    block: int
    first_time_us: int
    champion: float
    challenger: float


def released(
    waiting: tuple[Summed, ...], newest_us: Mapping[int, int], patience_us: int
) -> tuple[list[Summed], tuple[Summed, ...]]:
    """Give the blocks whose turn has come and those that wait on, both in order.

    `newest_us` is the latest time known of each source, the newest block's among them.

    Example:
        >>> early, late = Summed(5, 0, 0, 1, 0.4, 0.3), Summed(9, 1, 0, 2, 0.4, 0.3)
        >>> ready, waiting = released((late, early), {0: 5, 1: 9}, 100)
        >>> [block.last_time_us for block in ready], len(waiting)
        ([5], 1)
    """
    newest = max(newest_us.values())
    frontier_us = min(time_us for time_us in newest_us.values() if time_us >= newest - patience_us)
    blocks = sorted(waiting, key=lambda block: (block.last_time_us, block.source, block.block))
    ready = max(sum(block.last_time_us <= frontier_us for block in blocks), len(blocks) - MOST_WAITING)
    return blocks[:ready], tuple(blocks[ready:])
