"""Kafka records in bulk, in and out, without a Python object per record.

What was read stays where the client put it, and kernels read it there: `Records` is a table of addresses. What is to be
written is `Packed`: many byte strings in one array.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Headers = list[tuple[str, bytes]]
Payload = bytes | npt.NDArray[np.uint8]
"""What a record to be written holds; an outbox copies it before it returns, unlike what it is given."""


class Values(Protocol):
    """Values of B records, as kernels read them.

    Attributes:
        addresses: of each value's first byte.
        sizes: of each value in bytes, -1 for null.
        offsets: of each record.
        stamps: each record's timestamp, us since 1970.
    """

    addresses: Int64s
    sizes: Int64s
    offsets: Int64s
    stamps: Int64s


class Records(Values, Protocol):
    """Records of one partition, in offset order; valid until `release`.

    Attributes:
        topic, partition: where they lie.
    """

    topic: str
    partition: int

    def key(self, i: int) -> bytes | None:
        """Copy the key of record i."""

    def header(self, i: int, name: str) -> bytes | None:
        """Give the last header of record i with this name; None if there is none."""

    def release(self) -> None:
        """Give the records back; their addresses are void from now on."""


class JoinedValues:
    """Values of several partitions behind one another; valid as long as theirs."""

    def __init__(self, addresses: Int64s, sizes: Int64s, offsets: Int64s, stamps: Int64s) -> None:
        self.addresses, self.sizes, self.offsets, self.stamps = addresses, sizes, offsets, stamps


def joined(parts: Sequence[Values]) -> JoinedValues:
    """Put the values of at least one partition behind one another."""
    return JoinedValues(
        np.concatenate([part.addresses for part in parts]),
        np.concatenate([part.sizes for part in parts]),
        np.concatenate([part.offsets for part in parts]),
        np.concatenate([part.stamps for part in parts]),
    )


def value(records: Records, i: int) -> bytes | None:
    """Copy the value of record i."""
    size = int(records.sizes[i])
    return None if size < 0 else ctypes.string_at(int(records.addresses[i]), size)


class Record(NamedTuple):
    """One record, to be made into `Records` by `records_of`."""

    value: bytes | None
    offset: int
    stamp_us: int
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


class HeldRecords:
    """`Records` over bytes that Python holds."""

    def __init__(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        self.topic, self.partition = topic, partition
        self._records = records
        values = [record.value for record in records]
        self.sizes = np.array([-1 if v is None else len(v) for v in values], np.int64)
        self._data = np.frombuffer(b"".join(v or b"" for v in values) + bytes(8), np.uint8)
        starts = np.concatenate([[0], np.maximum(self.sizes, 0).cumsum()[:-1]]) if values else np.zeros(0)
        self.addresses = self._data.ctypes.data + starts.astype(np.int64)
        self.offsets = np.array([record.offset for record in records], np.int64)
        self.stamps = np.array([record.stamp_us for record in records], np.int64)

    def key(self, i: int) -> bytes | None:
        """See `Records.key`."""
        return self._records[i].key

    def header(self, i: int, name: str) -> bytes | None:
        """See `Records.header`."""
        return dict(self._records[i].headers).get(name)

    def release(self) -> None:
        """See `Records.release`; here the bytes stay as long as the object."""


class RecordsSpan:
    """Some records behind one another of others; valid as long as those."""

    def __init__(self, records: Records, start: int, stop: int) -> None:
        self.topic, self.partition = records.topic, records.partition
        self._records, self._start = records, start
        span = slice(start, stop)
        self.addresses, self.sizes = records.addresses[span], records.sizes[span]
        self.offsets, self.stamps = records.offsets[span], records.stamps[span]

    def key(self, i: int) -> bytes | None:
        """See `Records.key`."""
        return self._records.key(self._start + i)

    def header(self, i: int, name: str) -> bytes | None:
        """See `Records.header`."""
        return self._records.header(self._start + i, name)

    def release(self) -> None:
        """Nothing: whoever has all the records gives them back."""


class Packed(NamedTuple):
    """B byte strings in one array: string i is `data[offsets[i]:offsets[i + 1]]`."""

    data: npt.NDArray[np.uint8]
    offsets: Int64s

    @property
    def size(self) -> int:
        """How many there are."""
        return int(self.offsets.size) - 1

    def unpack(self) -> list[bytes]:
        """Give each as bytes of its own."""
        data, ends = self.data.tobytes(), self.offsets.tolist()
        return [data[start:end] for start, end in pairwise(ends)]


def pack(values: Sequence[bytes]) -> Packed:
    """Put byte strings into one array."""
    ends = np.cumsum([0, *map(len, values)], dtype=np.int64)
    return Packed(np.frombuffer(b"".join(values) or bytes(1), np.uint8), ends)
