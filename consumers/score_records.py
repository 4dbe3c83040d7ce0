"""Records of P.scores: the blocks of losses that one step completed, as evidence for promotions.

    {"candidate", "lineage", "generation", "order": "number" or "label", "predict_p99_us", "bytes", "unpublished_s",
     "blocks": [{"source", "block", "n", "first_time_us", "last_time_us", "losses"}, ...]}

Blocks by number are of 100 consecutive events of a source (models/blocks.py), those by label of up to 100 events in the
order in which their labels were set (models/label_blocks.py).

`predict_p99_us`, `bytes` and `unpublished_s` (for how long no version could be published, 0 if the last one could) are
measurements; all else depends on the rows alone (see docs/learning.md). A record is of one lineage, and leaves with the
row that completed its last block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Literal

import msgspec
import numpy as np

from models.label_blocks import Blocks
from models.paired_losses import BLOCK_EVENTS
from streams.errors import FrameError
from streams.frames import Outgoing
from streams.records import pack

Order = Literal["number", "label"]

MAX_BLOCKS_PER_RECORD = 200  # 540 bytes each: a record stays far below Kafka's 1 MiB


class Block(msgspec.Struct, frozen=True):
    """One block of P.scores; `n` of its 100 losses are numbers; these are little-endian float32, in JSON as base64."""

    source: int
    block: int
    n: int
    first_time_us: int
    last_time_us: int
    losses: bytes

    def values(self) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """Give the 100 losses; NaN where no label counted."""
        return np.frombuffer(self.losses, "<f4").astype(np.float32)


class ScoresRecord(msgspec.Struct, frozen=True):
    """One record of P.scores."""

    candidate: str
    lineage: int
    generation: int
    order: Order
    predict_p99_us: float
    bytes: int
    blocks: tuple[Block, ...]
    unpublished_s: float = 0.0


def decode_scores(value: bytes) -> ScoresRecord:
    """Read a record of P.scores.

    Raises:
        FrameError: it is none.
    """
    try:
        record = msgspec.json.decode(value, type=ScoresRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"a record of scores cannot be read: {error}; {len(value)} bytes found") from error
    if any(len(block.losses) != 4 * BLOCK_EVENTS for block in record.blocks):
        raise FrameError(f"a record of scores of {record.candidate} has a block that has not {BLOCK_EVENTS} losses")
    return record


def encode_records(
    done: list[tuple[int, Blocks]], record: Callable[[int, tuple[Block, ...]], ScoresRecord]
) -> list[Outgoing]:
    """Give the records of blocks, each under the lineage that had its row; `record` makes one of lineage and blocks."""
    values, last = [], []
    for lineage, some in groupby(done, key=itemgetter(0)):
        parts = [blocks for _, blocks in some if blocks.row.size]
        for few, row in _in_records(parts):
            values.append(msgspec.json.encode(record(lineage, few)))
            last.append(row)
    return [Outgoing("scores", 0, pack(values), None, np.array(last, np.int64))] if values else []


def _in_records(parts: list[Blocks]) -> Iterator[tuple[tuple[Block, ...], int]]:
    """Give as many blocks as a record may have, and the row of the last one."""
    blocks = [block for some in parts for block in _encode_blocks(some)]
    row = [row for some in parts for row in some.row.tolist()]
    for at in range(0, len(blocks), MAX_BLOCKS_PER_RECORD):
        few = tuple(blocks[at : at + MAX_BLOCKS_PER_RECORD])
        yield few, row[at + len(few) - 1]


def _encode_blocks(blocks: Blocks) -> list[Block]:
    count = np.isfinite(blocks.losses).sum(axis=1)
    losses = [row.tobytes() for row in blocks.losses.astype("<f4", copy=False)]
    columns = (blocks.source, blocks.block, count, blocks.first_time_us, blocks.last_time_us)
    lists = (column.tolist() for column in columns)
    return [Block(*values) for values in zip(*lists, losses, strict=True)]
