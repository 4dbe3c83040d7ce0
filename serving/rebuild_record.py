"""What a rebuild does, written down before it begins: from then on there is one way, forward."""

from __future__ import annotations

import msgspec

from models.version import decode_record
from serving.brokers import REBUILD_RECORD
from streams.state_folder import Folder


class Record(msgspec.Struct, frozen=True):
    """What is done: this is there from the moment from which there is no way back.

    Attributes:
        role: that was asked for; empty for all.
        generation: of what begins.
        topics: to be made anew, with the UUIDs they had.
        lineages: of the candidates that learn again, the newest that each has had.
        trained: of those that are trained in batches, the record of the version to begin with, for its row is gone;
            empty: rows that are there name the versions.
        archive: the folder in which the archive is set aside; empty: it stays as it is.
    """

    role: str
    generation: int
    topics: dict[str, str]
    lineages: dict[str, int]
    archive: str = ""
    trained: dict[str, str] = {}


def read_record(state: Folder) -> Record | None:
    """Read what was begun; None if nothing was."""
    try:
        return msgspec.json.decode(state.read(REBUILD_RECORD), type=Record)
    except OSError:
        return None


def trained_line(candidate: str, record: str) -> str:
    """Say with what a candidate begins that is trained in batches."""
    if not record:
        return f"{candidate} takes up its trained versions again at their rows among the examples"
    return f"{candidate} begins with {decode_record(record.encode()).number}, its newest trained version"


class _Told(msgspec.Struct):
    """What any release's manifest says of itself."""

    generation: int = 0


def generation_in(folder: Folder, manifest: str) -> int:
    """Read a manifest's generation, of whatever release; 0 if it has none."""
    try:
        return msgspec.json.decode(folder.read(manifest), type=_Told).generation
    except (OSError, msgspec.MsgspecError):  # damaged, or removed just now
        return 0
