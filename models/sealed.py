"""Sealed objects: pickle that is read only when we wrote it, and then only with classes on a list.

A sealed object is `HMAC-SHA256 (32 bytes) | one line of JSON: format and library | pickle`. The HMAC is checked before
a byte of pickle is looked at; the unpickler then resolves the names below and classes of the library, nothing else, so
that even a leaked key does not give a shell. The key comes from MILLRACE_MODEL_KEY or from a file that only its owner
can read, never from a place that a network can write to: with an object store only from MILLRACE_MODEL_KEY.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import inspect
import io
import json
import os
import pickle
import random
import secrets
from pathlib import Path
from typing import Any, NamedTuple

from streams.errors import ModelError
from streams.state_folder import Place, folder_of

FORMAT = 1
KEY_VARIABLE = "MILLRACE_MODEL_KEY"
KEY_FILE = "model.key"
SEALED_KINDS = ("river:", "sklearn:")
MIN_KEY_CHARACTERS = 16
_MAC_BYTES = 32
_DOMAIN = b"millrace sealed object\n"  # a MAC made for another purpose under the same key never verifies here

ALLOWED = frozenset(
    {
        ("builtins", "bool"),
        ("builtins", "bytearray"),
        ("builtins", "complex"),
        ("builtins", "dict"),
        ("builtins", "float"),
        ("builtins", "frozenset"),
        ("builtins", "int"),
        ("builtins", "list"),
        ("builtins", "object"),
        ("builtins", "range"),
        ("builtins", "set"),
        ("builtins", "slice"),
        ("builtins", "str"),
        ("builtins", "tuple"),
        ("collections", "Counter"),
        ("collections", "OrderedDict"),
        ("collections", "defaultdict"),
        ("collections", "deque"),
        ("copy", "deepcopy"),
        ("datetime", "date"),
        ("datetime", "datetime"),
        ("datetime", "timedelta"),
        ("functools", "partial"),
        ("numbers", "Number"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy._core.numeric", "_frombuffer"),
        ("numpy.random._mt19937", "MT19937"),
        ("numpy.random._pickle", "__bit_generator_ctor"),
        ("numpy.random._pickle", "__randomstate_ctor"),
        ("numpy.random.mtrand", "RandomState"),
        ("random", "Random"),
        ("statistics", "NormalDist"),
    }
)
REFUSED_PARTS = ("river.datasets", "river.stream", "river.checks")  # they open files and addresses
_METHODS = frozenset({(random.Random, "gauss")})  # River's k-means draws the centres of new columns with it


class Library(NamedTuple):
    """A library whose objects may be sealed: classes of its `parts`, and the `names` of others beside ALLOWED.

    With `has_methods` also methods of its classes. Functions of a `compiled` part are taken if they are built in.
    """

    name: str
    parts: tuple[str, ...]
    refused: tuple[str, ...] = ()
    names: frozenset[tuple[str, str]] = frozenset()
    compiled: str = ""
    has_methods: bool = False

    def has_class(self, found: Any) -> bool:
        """Say whether it is a class of the library's."""
        return inspect.isclass(found) and self.has_module(found.__module__)

    def has_module(self, module: str) -> bool:
        """Say whether a module is one of its parts, and not refused."""
        is_part = (module + ".").startswith(tuple(part + "." for part in self.parts))
        return is_part and not module.startswith(self.refused)


RIVER = Library("river", ("river",), REFUSED_PARTS, compiled="river._river_rust", has_methods=True)


def seal(value: object, key: bytes, library_version: str, library: Library = RIVER) -> bytes:
    """Write an object so that `unseal` with the same key gives an equal one.

    Raises:
        ModelError: when the object can not be written.
    """
    header = json.dumps({"format": FORMAT, library.name: library_version}).encode() + b"\n"
    try:
        payload = header + pickle.dumps(value, protocol=5)
    except Exception as error:
        message = f"a {type(value).__name__} can not be written: {error}; choose another model"
        raise ModelError(message) from error
    return _mac(payload, key) + payload


def unseal(blob: bytes, key: bytes, library_version: str, library: Library = RIVER) -> Any:
    """Read an object that `seal` wrote with the same key and library version.

    Raises:
        ModelError: when the key, the bytes, the version or a name inside does not fit.
    """
    mac, payload = blob[:_MAC_BYTES], blob[_MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(payload, key)):
        found = f"{len(blob)} bytes found"
        raise ModelError(f"a sealed model is not ours or damaged: {found}; check {KEY_VARIABLE} or {KEY_FILE}")
    header, _, body = payload.partition(b"\n")
    written = json.loads(header)
    if written != {"format": FORMAT, library.name: library_version}:
        found = f"format {written.get('format')}, {library.name} {written.get(library.name)}"
        needed = f"format {FORMAT}, {library.name} {library_version}"
        raise ModelError(f"a sealed model was written by {found}, this is {needed}")
    try:
        return _Unpickler(io.BytesIO(body), library).load()
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"a sealed model can not be read: {error}") from error


def model_key(state: Place) -> bytes:
    """Give the key of this pipeline's sealed models, 32 bytes; a key file is made at the first call.

    Reads MILLRACE_MODEL_KEY, else `<state>/model.key`. Hosts that share models must share one of them.

    Raises:
        ModelError: when the key is too short, others can read its file, or state is in an object store and the variable
            is not set.
    """
    secret = os.environ.get(KEY_VARIABLE)
    if secret is not None:
        if len(secret) < MIN_KEY_CHARACTERS:
            found = f"{len(secret)} characters found"
            raise ModelError(f"{KEY_VARIABLE} is too short: {found}; give at least {MIN_KEY_CHARACTERS}")
        return hashlib.sha256(secret.encode()).digest()
    directory = folder_of(state).local
    if directory is None:
        where = f"River models in {state} are sealed with it, and a bucket is no place for a key"
        raise ModelError(f"{KEY_VARIABLE} is not set: {where}; give every host the same secret")
    path = directory / KEY_FILE
    if not path.exists():
        _make_key(path)
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise ModelError(f"{path} can be read by others: mode {mode:04o} found; run `chmod 600 {path}`")
    key = path.read_bytes()
    if len(key) != _MAC_BYTES:
        raise ModelError(f"{path} is not a key: {len(key)} bytes found, {_MAC_BYTES} needed; restore it or rebuild")
    return key


def needed_key(key: bytes | None, what: str) -> bytes:
    """Give the key that a sealed model is written and read by.

    Raises:
        ModelError: there is none; `what` names the model.
    """
    if key is None:
        raise ModelError(f"{what} needs a key to be written or read; none was given")
    return key


def key_for(kind: str, state: Place) -> bytes | None:
    """Give the key if models of this kind are sealed, None of those that are plain arrays. Raises as `model_key`."""
    return model_key(state) if kind.startswith(SEALED_KINDS) else None


def _make_key(path: Path) -> None:
    """Write the key under another name, then link it: of several processes at once exactly one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, secrets.token_bytes(_MAC_BYTES))
        os.fsync(handle)
    finally:
        os.close(handle)
    with contextlib.suppress(FileExistsError):
        os.link(temporary, path)
    temporary.unlink()


def _mac(payload: bytes, key: bytes) -> bytes:
    return hmac.new(key, _DOMAIN + payload, hashlib.sha256).digest()


class _Unpickler(pickle.Unpickler):
    """Resolves names on the list, the library's classes with their methods, and its compiled functions."""

    def __init__(self, file: io.BytesIO, library: Library = RIVER) -> None:
        super().__init__(file)
        self._library = library

    def find_class(self, module: str, name: str) -> Any:
        """Resolve one name; called by the unpickler for every global it meets."""
        library = self._library
        if (module, name) in ALLOWED or (module, name) in library.names:
            return super().find_class(module, name)
        if (module, name) == ("builtins", "getattr") and library.has_methods:
            return self._method
        owner, _, member = name.partition(".")
        if library.has_module(module) and "." not in member and (library.has_methods or not member):
            found = super().find_class(module, owner)
            if library.has_class(found):
                return self._method(found, member) if member else found
            if library.compiled and module.startswith(library.compiled) and inspect.isbuiltin(found) and not member:
                return found
        raise ModelError(f"a sealed model names {module}.{name}, which is not on the list")

    def _method(self, owner: Any, name: str) -> Any:
        """Stand in for getattr, with which pickle writes bound methods: of the library's classes, and those listed."""
        kind = owner if inspect.isclass(owner) else type(owner)
        if (kind, name) in _METHODS:
            return getattr(owner, name)
        if self._library.has_class(kind) and "__" not in name:
            found = getattr(owner, name)
            if inspect.isroutine(found) or self._library.has_class(found):  # a class may stand inside another
                return found
        raise ModelError(f"a sealed model asks for {name} of {kind.__name__}, which is not on the list")
