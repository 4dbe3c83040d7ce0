"""What a process tells others through a file of the state folder: a record that is replaced, read without Kafka."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from streams.state_folder import Folder

Record = TypeVar("Record", bound=msgspec.Struct)


def tell(folder: Folder, name: str, record: msgspec.Struct) -> None:
    """Write a record where others find it.

    Raises:
        OSError: the directory cannot be written.
        UnavailableError: an object store does not take it.
    """
    folder.publish(name, msgspec.json.encode(record))


def told(folder: Folder, name: str, kind: type[Record]) -> Record | None:
    """Read a record; None: nobody has written any yet, or another release has.

    Raises:
        UnavailableError: an object store does not answer.
    """
    try:
        return msgspec.json.decode(folder.read(name), type=kind)
    except (OSError, msgspec.MsgspecError):
        return None
