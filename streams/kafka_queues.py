"""Reading in bulk: each partition of a consumer by a queue of its own, its records as a table of addresses.

Part of the Kafka door. The Python client makes an object per record, 1.5 us each, and hands out the records of all
partitions as they come, so that one partition can only be held back by `pause`, which throws away what was fetched of
it. Here the client only owns the consumer: it makes, configures and closes it, and serves its callbacks.
"""

from __future__ import annotations

import atexit
import ctypes
import weakref

import numpy as np
import numpy.typing as npt
from confluent_kafka import KafkaError

from streams.compiled import njit, straight
from streams.intrinsics import call_1, call_2, load_64
from streams.librdkafka import CMessage, address_of, error_code_kernel, lib

Int64s = npt.NDArray[np.int64]

_PAYLOAD, _LEN, _OFFSET = CMessage.payload.offset, CMessage.len.offset, CMessage.offset.offset
_TIMESTAMP, _DESTROY = address_of("rd_kafka_message_timestamp"), address_of("rd_kafka_message_destroy")
_COLUMNS = 5  # addresses, sizes, offsets, stamps and error codes
_WAKE_UP = (1).to_bytes(8, "little")  # what an eventfd takes


class Trouble:
    """An error in place of a record; it answers as the client's own message does."""

    def __init__(self, topic: str, partition: int, offset: int, error: KafkaError) -> None:
        self._where, self._offset, self._error = (topic, partition), offset, error

    def topic(self) -> str:
        """Give the topic."""
        return self._where[0]

    def partition(self) -> int:
        """Give the partition."""
        return self._where[1]

    def offset(self) -> int:
        """Give the offset that was asked for."""
        return self._offset

    def error(self) -> KafkaError:
        """Give the error."""
        return self._error


class FetchedRecords:
    """Records of one partition as librdkafka holds them (see `streams.records.Records`), until `release`.

    They are given back when nobody refers to this object any more, or when their queue is closed: a consumer's end
    waits for all of them.

    Args:
        topic, partition: where they lie.
        pointers: to a rd_kafka_message_t for each.
        held: all that were not given back yet.

    Attributes:
        has_troubles: whether some of them are errors.
    """

    def __init__(self, topic: str, partition: int, pointers: Int64s, held: Held) -> None:
        self.topic, self.partition = topic, partition
        self._pointers, self._held = pointers, held
        held.add(self)
        table = np.empty((_COLUMNS, pointers.size), np.int64)
        self.has_troubles = _describe_kernel(pointers, _TIMESTAMP, table) > 0
        self.addresses, self.sizes, self.offsets, self.stamps, self._errors = table

    def key(self, i: int) -> bytes | None:
        """See `Records.key`."""
        message = CMessage.from_address(int(self._pointers[i]))
        return None if message.key is None else ctypes.string_at(message.key, message.key_len)

    def header(self, i: int, name: str) -> bytes | None:
        """See `Records.header`."""
        headers, value, size = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_size_t()
        if lib.rd_kafka_message_headers(int(self._pointers[i]), ctypes.byref(headers)):
            return None
        if lib.rd_kafka_header_get_last(headers, name.encode(), ctypes.byref(value), ctypes.byref(size)):
            return None
        return b"" if value.value is None else ctypes.string_at(value.value, size.value)

    def troubles(self) -> list[Trouble]:
        """Give the errors among the records."""
        return [self._trouble(i) for i in np.flatnonzero(self._errors).tolist()]

    def _trouble(self, i: int) -> Trouble:
        text = lib.rd_kafka_message_errstr(int(self._pointers[i])) or b""
        error = KafkaError(int(self._errors[i]), text.decode(errors="replace"))
        return Trouble(self.topic, self.partition, int(self.offsets[i]), error)

    def without_troubles(self) -> FetchedRecords:
        """Give the good records; this object must not be used any more."""
        good = self._errors == 0
        _destroy_kernel(self._pointers[~good], _DESTROY)
        pointers, self._pointers = self._pointers[good], self._pointers[:0]
        return FetchedRecords(self.topic, self.partition, pointers, self._held)

    def release(self) -> None:
        """Give the records back; their addresses are void from now on."""
        pointers, self._pointers = self._pointers, self._pointers[:0]
        if pointers.size:
            _destroy_kernel(pointers, _DESTROY)

    def __del__(self) -> None:
        """Give back what was not."""
        self.release()


Held = weakref.WeakSet[FetchedRecords]


class _Queue:
    """A queue of librdkafka's that writes to a file descriptor, 8 bytes, when something comes into it while empty."""

    def __init__(self, queue: int, wake_up: int) -> None:
        self._queue = queue
        lib.rd_kafka_queue_io_event_enable(queue, wake_up, _WAKE_UP, len(_WAKE_UP))

    def close(self) -> None:
        """Let go of the queue; what lies in it is dropped with the assignment."""
        lib.rd_kafka_queue_io_event_enable(self._queue, -1, None, 0)
        lib.rd_kafka_queue_destroy(self._queue)


class PartitionQueue(_Queue):
    """What is fetched of one partition of a consumer, apart from all others.

    Make it before the partition is assigned, so that nothing of it goes to the consumer's own queue; close it after
    the partition was given up.

    Args:
        consumer: the handle.
        topic, partition: what is read.
        wake_up: a file descriptor that gets 8 bytes when something comes into the empty queue.
    """

    def __init__(self, consumer: int, topic: str, partition: int, wake_up: int) -> None:
        self._topic, self._partition = topic, partition
        self._held: Held = weakref.WeakSet()
        _OPEN.add(self)
        queue = lib.rd_kafka_queue_get_partition(consumer, topic.encode(), partition)
        lib.rd_kafka_queue_forward(queue, None)
        super().__init__(queue, wake_up)
        self._pointers = np.empty(0, np.int64)
        self._pointers_at = 0

    def take(self, most: int) -> FetchedRecords | None:
        """Take what is here, at most so many records; None if that is nothing. Never waits."""
        if self._pointers.size < most:
            self._pointers = np.empty(most, np.int64)
            self._pointers_at = self._pointers.ctypes.data
        found = lib.rd_kafka_consume_batch_queue(self._queue, 0, self._pointers_at, most)
        if found <= 0:
            return None
        return FetchedRecords(self._topic, self._partition, self._pointers[:found].copy(), self._held)

    def give_back(self) -> None:
        """Give all records back that were not; whoever has some must not look at them any more."""
        for records in list(self._held):
            records.release()

    def close(self) -> None:
        """Let go of the queue, and of all that was taken from it."""
        self.give_back()
        super().close()


_OPEN: weakref.WeakSet[PartitionQueue] = weakref.WeakSet()


@atexit.register
def _give_all_back() -> None:
    """Let no consumer that nobody has closed wait for records, so that a process that failed can end."""
    for queue in list(_OPEN):
        queue.give_back()


class ConsumerEvents(_Queue):
    """Writes to `wake_up` also when the consumer has a callback to serve."""

    def __init__(self, consumer: int, wake_up: int) -> None:
        super().__init__(lib.rd_kafka_queue_get_consumer(consumer), wake_up)


@straight
@njit
def _describe_kernel(pointers: Int64s, timestamp: int, table: Int64s) -> int:
    """Fill in the columns, in the order in which `FetchedRecords` has them; gives how many records are errors."""
    troubles = 0
    for i in range(pointers.size):
        message = pointers[i]
        code = error_code_kernel(message)
        troubles += code != 0
        address = load_64(message + _PAYLOAD)
        table[0, i] = address
        table[1, i] = load_64(message + _LEN) if address else -1
        table[2, i] = load_64(message + _OFFSET)
        table[3, i] = call_2(timestamp, message, 0) * 1000  # 0: its kind is not asked for
        table[4, i] = code
    return troubles


@straight
@njit
def _destroy_kernel(pointers: Int64s, destroy: int) -> None:
    for i in range(pointers.size):
        call_1(destroy, pointers[i])
