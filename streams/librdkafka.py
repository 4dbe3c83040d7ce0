"""librdkafka by its C interface, for what the Python client does one object at a time. Part of the Kafka door.

The functions are those of rdkafka.h, under their names.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import confluent_kafka

from streams.compiled import inlined
from streams.intrinsics import load_32

_HANDLE_AT = 16  # of rd_kafka_t * in the client's object, after Python's own head


class CMessage(ctypes.Structure):
    """rd_kafka_message_t (rdkafka.h)."""

    _fields_ = (
        ("err", ctypes.c_int),
        ("rkt", ctypes.c_void_p),
        ("partition", ctypes.c_int32),
        ("payload", ctypes.c_void_p),
        ("len", ctypes.c_size_t),
        ("key", ctypes.c_void_p),
        ("key_len", ctypes.c_size_t),
        ("offset", ctypes.c_int64),
        ("_private", ctypes.c_void_p),
    )


class _Memory(ctypes.Structure):
    _fields_ = (("ptr", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Header(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("val", ctypes.c_char_p), ("size", ctypes.c_ssize_t))


class _Content(ctypes.Union):
    _fields_ = (
        ("rkt", ctypes.c_void_p),
        ("i", ctypes.c_int),
        ("i32", ctypes.c_int32),
        ("mem", _Memory),
        ("header", _Header),
        ("_pad", ctypes.c_char * 64),
    )


class CArgument(ctypes.Structure):
    """rd_kafka_vu_t (rdkafka.h)."""

    _fields_ = (("vtype", ctypes.c_int), ("u", _Content))


_POINTER = ctypes.c_void_p
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "rd_kafka_version": (ctypes.c_int, []),
    "rd_kafka_controllerid": (ctypes.c_int32, [_POINTER, ctypes.c_int]),
    "rd_kafka_brokers_add": (ctypes.c_int, [_POINTER, ctypes.c_char_p]),
    "rd_kafka_queue_get_partition": (_POINTER, [_POINTER, ctypes.c_char_p, ctypes.c_int32]),
    "rd_kafka_queue_get_consumer": (_POINTER, [_POINTER]),
    "rd_kafka_queue_forward": (None, [_POINTER, _POINTER]),
    "rd_kafka_queue_io_event_enable": (None, [_POINTER, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]),
    "rd_kafka_queue_destroy": (None, [_POINTER]),
    "rd_kafka_consume_batch_queue": (ctypes.c_ssize_t, [_POINTER, ctypes.c_int, _POINTER, ctypes.c_size_t]),
    "rd_kafka_message_headers": (ctypes.c_int, [_POINTER, _POINTER]),
    "rd_kafka_header_get_last": (ctypes.c_int, [_POINTER, ctypes.c_char_p, _POINTER, _POINTER]),
    "rd_kafka_message_errstr": (ctypes.c_char_p, [_POINTER]),
    "rd_kafka_conf_new": (_POINTER, []),
    "rd_kafka_conf_set": (ctypes.c_int, [_POINTER, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]),
    "rd_kafka_conf_set_opaque": (None, [_POINTER, _POINTER]),
    "rd_kafka_conf_set_dr_msg_cb": (None, [_POINTER, _POINTER]),
    "rd_kafka_conf_set_error_cb": (None, [_POINTER, _POINTER]),
    "rd_kafka_conf_destroy": (None, [_POINTER]),
    "rd_kafka_new": (_POINTER, [ctypes.c_int, _POINTER, ctypes.c_char_p, ctypes.c_size_t]),
    "rd_kafka_poll": (ctypes.c_int, [_POINTER, ctypes.c_int]),
    "rd_kafka_flush": (ctypes.c_int, [_POINTER, ctypes.c_int]),
    "rd_kafka_outq_len": (ctypes.c_int, [_POINTER]),
    "rd_kafka_purge": (ctypes.c_int, [_POINTER, ctypes.c_int]),
    "rd_kafka_destroy": (None, [_POINTER]),
    "rd_kafka_topic_new": (_POINTER, [_POINTER, ctypes.c_char_p, _POINTER]),
    "rd_kafka_topic_destroy": (None, [_POINTER]),
    "rd_kafka_topic_name": (ctypes.c_char_p, [_POINTER]),
    "rd_kafka_produceva": (_POINTER, [_POINTER, _POINTER, ctypes.c_size_t]),
    "rd_kafka_error_code": (ctypes.c_int, [_POINTER]),
    "rd_kafka_error_destroy": (None, [_POINTER]),
    "rd_kafka_produce_batch": (ctypes.c_int, [_POINTER, ctypes.c_int32, ctypes.c_int, _POINTER, ctypes.c_int]),
}


def _load() -> Any:
    """Open the library that the client itself has loaded: the one in its wheel, else the system's."""
    bundled = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    paths = [str(path) for path in sorted(bundled.glob("librdkafka*"))]
    library = ctypes.CDLL((paths or ["librdkafka.so.1"])[0])
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    if library.rd_kafka_version() != confluent_kafka.libversion()[1]:
        raise ImportError("the Kafka client uses another librdkafka than the one found; install it from its wheel")
    return library


lib = _load()


def address_of(name: str) -> int:
    """Give the address of one of the library's functions, for kernels."""
    return int(ctypes.cast(getattr(lib, name), ctypes.c_void_p).value or 0)


@inlined
def error_code_kernel(message: int) -> int:
    """Give the error code of a rd_kafka_message_t by its address; 0 is none, the client's own are negative."""
    code = load_32(message)
    return code - (1 << 32) if code >= 1 << 31 else code


def handle_of(client: Any) -> int:
    """Give the rd_kafka_t * of a consumer, producer or admin client of the Python client; 0 if it is closed."""
    return int(ctypes.c_void_p.from_address(id(client) + _HANDLE_AT).value or 0)
