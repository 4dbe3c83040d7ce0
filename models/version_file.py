"""A version's file: its arrays as bytes, and the digest that names it."""

from __future__ import annotations

import hashlib
import io
import zipfile

import numpy as np

from models.learner import State
from models.version import Version
from streams.errors import ModelError

MAX_BYTES = 256 * 2**20  # as the default of `max_model_mib`
_ARRAY = "state."


def digest_of(payload: bytes) -> str:
    """Give the digest that records name a file by: blake2b of 32 bytes, in hex."""
    return hashlib.blake2b(payload, digest_size=32).hexdigest()


def encode_weights(state: State) -> bytes:
    """Write arrays as a file of NumPy's, without pickle."""
    buffer = io.BytesIO()
    arrays = {_ARRAY + name: array for name, array in state.items()}
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def decode_weights(payload: bytes, version: Version) -> State:
    """Read the arrays of a version's file.

    Raises:
        ModelError: it is none.
    """
    if version.blob.endswith(".safetensors"):
        from models.weights_file import decode  # whoever has no network needs no safetensors

        return decode(payload)[0]
    try:
        with np.load(io.BytesIO(payload), allow_pickle=False) as found:
            return {name.removeprefix(_ARRAY): found[name] for name in found.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"version {version.name} cannot be read: {error}") from error
