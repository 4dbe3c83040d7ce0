"""A model's arrays as safetensors: a header of JSON and raw bytes, so that reading them runs nothing.

The registry checks a file's digest before it comes here; this refuses what is no whole safetensors file all the same.
Metadata lie as one sorted JSON text in the header, for the format's own table of texts is written in no set order: the
same arrays and metadata are the same bytes.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from models.learner import State
from streams.errors import ModelError

_METADATA = "millrace"  # the one key in the format's table of texts
_HEADER_BYTES = 8  # the header's length, little-endian, before it
_DTYPES = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "I16": np.int16,
    "I32": np.int32,
    "I64": np.int64,
    "U32": np.uint32,
    "U64": np.uint64,
    "F32": np.float32,
    "F64": np.float64,
}


def encode(state: State, metadata: dict[str, str]) -> bytes:
    """Write arrays and texts so that `decode` gives equal ones.

    Example:
        >>> state, metadata = decode(encode({"weight": np.float32([1, 2])}, {"epoch": "3"}))
        >>> state["weight"].tolist(), metadata
        ([1.0, 2.0], {'epoch': '3'})
    """
    arrays = {name: np.require(array, requirements="C") for name, array in state.items()}
    return save(arrays, {_METADATA: json.dumps(metadata, sort_keys=True)})


def decode(payload: bytes) -> tuple[State, dict[str, str]]:
    """Read arrays and texts that `encode` wrote; the arrays are copies that may be written to.

    Raises:
        ModelError: when the bytes are cut, changed in their header, or were not written by `encode`.
    """
    try:
        found = dict(deserialize(payload))  # type: ignore[no-untyped-call]  # it ships no types
        metadata = _metadata(payload)
        return {name: _array(one) for name, one in sorted(found.items())}, metadata
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        message = f"a file of weights is not whole: {len(payload)} bytes found, {_one_line(error)}"
        raise ModelError(f"{message}; train again, or take an older version") from error


def _array(found: dict[str, Any]) -> np.ndarray[Any, np.dtype[Any]]:
    return np.frombuffer(bytearray(found["data"]), _DTYPES[found["dtype"]]).reshape(found["shape"])


def _metadata(payload: bytes) -> dict[str, str]:
    """Read the texts from the header, which `deserialize` has found to be JSON."""
    size = int.from_bytes(payload[:_HEADER_BYTES], "little")
    header = json.loads(payload[_HEADER_BYTES : _HEADER_BYTES + size])
    found = json.loads(header["__metadata__"][_METADATA])
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError("its metadata are no texts")
    return found


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())
