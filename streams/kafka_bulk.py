"""Writing in bulk: many values to one partition by one call, or a large one without a copy. Part of the Kafka door.

A producer of its own, because the Python client's cannot tell of records it did not queue itself: a refusal of one of
them would be overlooked.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from confluent_kafka import KafkaError, KafkaException

from streams.compiled import ADDRESS_OF_WORDS, NOTHING, WORD, callback, njit
from streams.intrinsics import load_32, load_64
from streams.kafka_lifeline import Lifeline
from streams.librdkafka import CArgument, CMessage, error_code_kernel, lib
from streams.memory import HeapBytes, address_of
from streams.records import Headers, Packed

Int64s = npt.NDArray[np.int64]

PRODUCER, PURGE_ALL = 0, 3  # RD_KAFKA_PRODUCER, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT
FREE, COPY = 1, 2  # RD_KAFKA_MSG_F_FREE, RD_KAFKA_MSG_F_COPY
TOPIC, PARTITION, VALUE, FLAGS, HEADER = 2, 3, 4, 7, 9  # RD_KAFKA_VTYPE_RKT, _PARTITION, _VALUE, _MSGFLAGS, _HEADER
QUEUE_FULL, FATAL = int(KafkaError._QUEUE_FULL), int(KafkaError._FATAL)  # noqa: SLF001 - public names begin so
_TOPIC, _PARTITION = CMessage.rkt.offset, CMessage.partition.offset
_WORDS = ctypes.sizeof(CMessage) // 8
_PAYLOAD, _LEN, _KEY, _KEY_LEN = (
    part.offset // 8 for part in (CMessage.payload, CMessage.len, CMessage.key, CMessage.key_len)
)
_ON_ERROR = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class BulkProducer:
    """A producer of packed values and of frames.

    Args:
        settings: librdkafka's.
        on_error: gets what concerns the whole producer; called inside `poll` and `flush`.

    Raises:
        KafkaException: the settings are not right.
    """

    def __init__(self, settings: Mapping[str, Any], on_error: Callable[[KafkaError], None]) -> None:
        self._topics: dict[str, int] = {}
        self._failure = np.zeros(3, np.int64)
        self._on_error = _ON_ERROR(lambda _, code, text, __: on_error(_error(code, text)))  # kept alive here
        config, text = _configured(settings), ctypes.create_string_buffer(512)
        lib.rd_kafka_conf_set_opaque(config, self._failure.ctypes.data)
        lib.rd_kafka_conf_set_dr_msg_cb(config, _note_delivery.address)
        lib.rd_kafka_conf_set_error_cb(config, self._on_error)
        self._producer: int = lib.rd_kafka_new(PRODUCER, config, text, len(text))
        if not self._producer:
            lib.rd_kafka_conf_destroy(config)
            raise KafkaException(_error(int(KafkaError._INVALID_ARG), text.value))  # noqa: SLF001 - see above
        self._lifeline = Lifeline(lambda: self._producer, settings)

    @property
    def failure(self) -> tuple[KafkaError, str, int | None] | None:
        """Why the first record that was refused for good was, and its topic and partition, if it has got one."""
        code, topic, partition = self._failure.tolist()
        if not code:
            return None
        return KafkaError(code), lib.rd_kafka_topic_name(topic).decode(), partition if partition >= 0 else None

    def produce(self, topic: str, partition: int, values: Packed, keys: Packed | None, start: int) -> tuple[int, int]:
        """Queue values from number `start` on, in order, until the first that is refused.

        Args:
            topic: where to.
            partition: -1 lets the key decide.
            values: all of them.
            keys: as many as values; none have no key.
            start: the first to queue.

        Returns:
            The number of the first value that was not queued, and why it was not (an error code, 0 if all were).
        """
        count = values.size - start
        messages = np.zeros((count, _WORDS), np.int64)
        own_keys = keys if keys is not None else Packed(values.data[:1], np.zeros(values.size + 1, np.int64))
        addresses = address_of(values.data), address_of(own_keys.data) if keys is not None else 0
        _fill_kernel(messages, *addresses, values.offsets[start:], own_keys.offsets[start:])
        done = lib.rd_kafka_produce_batch(self._topic(topic), partition, COPY, address_of(messages), count)
        if done == count:
            return values.size, 0
        codes = messages[:, 0].astype(np.int32)
        first = int(np.flatnonzero(codes)[0])
        return start + first, int(codes[first])

    def give(self, topic: str, partition: int, value: HeapBytes, headers: Headers) -> int:
        """Queue one value without a copy of it: if it is queued, its memory is librdkafka's from now on.

        Returns:
            Why it was not queued: an error code, 0 if it was.
        """
        arguments = (CArgument * (4 + len(headers)))()
        for argument, kind in zip(arguments, (TOPIC, PARTITION, FLAGS, VALUE), strict=False):
            argument.vtype = kind
        arguments[0].u.rkt, arguments[1].u.i32, arguments[2].u.i = self._topic(topic), partition, FREE
        memory = arguments[3].u.mem
        memory.ptr, memory.size = value.address, value.size
        for argument, (name, content) in zip(arguments[4:], headers, strict=True):
            argument.vtype, header = HEADER, argument.u.header
            header.name, header.val, header.size = name.encode(), content, len(content)
        error = lib.rd_kafka_produceva(self._producer, arguments, len(arguments))
        if not error:
            value.give()
            return 0
        code = int(lib.rd_kafka_error_code(error))
        lib.rd_kafka_error_destroy(error)
        return code

    def _topic(self, name: str) -> int:
        if name not in self._topics:
            self._topics[name] = lib.rd_kafka_topic_new(self._producer, name.encode(), None)
        return self._topics[name]

    def poll(self, timeout_s: float) -> None:
        """Serve delivery reports and errors; full queues become free here."""
        self._lifeline.look()
        lib.rd_kafka_poll(self._producer, int(timeout_s * 1000))

    def flush(self, timeout_s: float) -> int:
        """Wait until everything is delivered or refused; gives how many records still wait at the end of the time."""
        self._lifeline.look()
        lib.rd_kafka_flush(self._producer, int(timeout_s * 1000))
        return int(lib.rd_kafka_outq_len(self._producer))

    def close(self, timeout_s: float) -> None:
        """Let go of everything, what is not delivered too."""
        lib.rd_kafka_purge(self._producer, PURGE_ALL)
        lib.rd_kafka_flush(self._producer, int(timeout_s * 1000))
        for topic in self._topics.values():
            lib.rd_kafka_topic_destroy(topic)
        self._topics.clear()
        producer, self._producer = self._producer, 0
        lib.rd_kafka_destroy(producer)


def check_settings(settings: Mapping[str, Any]) -> None:
    """Look at each of librdkafka's settings by itself.

    Raises:
        KafkaException: there is no such setting, or its value is none that it may have.
    """
    lib.rd_kafka_conf_destroy(_configured(settings))


def _configured(settings: Mapping[str, Any]) -> int:
    """Give a rd_kafka_conf_t *, which the caller owns; raises as `check_settings`."""
    config, text = lib.rd_kafka_conf_new(), ctypes.create_string_buffer(512)
    for name, value in settings.items():
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        if lib.rd_kafka_conf_set(config, name.encode(), shown.encode(), text, len(text)):
            lib.rd_kafka_conf_destroy(config)
            raise KafkaException(_error(int(KafkaError._INVALID_ARG), text.value))  # noqa: SLF001 - see above
    return int(config)


def _error(code: int, text: bytes | None) -> KafkaError:
    return KafkaError(code, (text or b"").decode(errors="replace"), code == FATAL)


@callback(NOTHING(WORD, WORD, ADDRESS_OF_WORDS))
def _note_delivery(_producer: int, message: int, failure: Int64s) -> None:
    """See rd_kafka_conf_set_dr_msg_cb: the first refusal stays, with its topic and partition."""
    code = error_code_kernel(message)
    if code and not failure[0]:
        partition = load_32(message + _PARTITION)  # never negative here: -1 if the record has got none
        failure[0], failure[1] = code, load_64(message + _TOPIC)
        failure[2] = -1 if partition >> 31 else partition


@njit
def _fill_kernel(
    messages: npt.NDArray[np.int64], data: int, keys: int, value_offsets: Int64s, key_offsets: Int64s
) -> None:
    for i in range(messages.shape[0]):
        messages[i, _PAYLOAD] = data + value_offsets[i]
        messages[i, _LEN] = value_offsets[i + 1] - value_offsets[i]
        if keys:
            messages[i, _KEY] = keys + key_offsets[i]
            messages[i, _KEY_LEN] = key_offsets[i + 1] - key_offsets[i]
