"""Many JSON records as one JSON list, so that one call decodes them all."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streams.compiled import bare
from streams.intrinsics import store_8
from streams.records import Values
from streams.rendering import SLACK, write_bytes

Int64s = npt.NDArray[np.int64]
OPEN, COMMA, CLOSE = b"[,]"


def json_list(values: Values) -> npt.NDArray[np.uint8]:
    """Write values behind one another as a JSON list would have them; what is in them is not looked at.

    Example:
        >>> from streams.records import HeldRecords, Record
        >>> json_list(HeldRecords("t", 0, [Record(b"1", 0, 0), Record(b'{"a":2}', 1, 0)])).tobytes()
        b'[1,{"a":2}]'
    """
    held_bytes = int(np.maximum(values.sizes, 0).sum())
    list_B = np.empty(held_bytes + values.sizes.size + 2 + SLACK, np.uint8)
    end = _write_kernel(values.addresses, values.sizes, list_B.ctypes.data)
    return list_B[: end - list_B.ctypes.data]


@bare
def _write_kernel(addresses: Int64s, sizes: Int64s, at: int) -> int:
    store_8(at, OPEN)
    start = at + 1
    at = start
    for i in range(addresses.size):
        if at > start:
            store_8(at, COMMA)
            at += 1
        if sizes[i] > 0:
            at = write_bytes(at, addresses[i], sizes[i])
    store_8(at, CLOSE)
    return at + 1
