"""Setting an archive aside: its files keep their names in a folder beside it, which nobody reads but people.

Rows are numbered by their topic, so an archive of a topic that is made anew is not gone on with. Files move one by one,
for an object store knows no folders; those that were moved before a crash are not there to be moved again.
"""

from __future__ import annotations

from streams.archive import ARCHIVE, archive_of, names_in
from streams.state_folder import Place, folder_of


def has_archive(state: Place) -> bool:
    """Whether there is any file of an archive, whole or not."""
    return any(names_in(archive_of(state)).values())


def name_aside(state: Place, generation: int) -> str:
    """Name the folder for an archive that makes way for this generation; one that is not there yet."""
    taken = set(folder_of(state).folders())
    while f"{ARCHIVE}-{generation}" in taken:
        generation += 1
    return f"{ARCHIVE}-{generation}"


def set_aside(state: Place, name: str) -> None:
    """Move all files of the archive below the folder of this name; may be done again after a crash.

    Raises:
        OSError: a directory cannot be written.
        UnavailableError: an object store does not answer.
    """
    archive, aside = archive_of(state), folder_of(state) / name
    for folder, names in names_in(archive).items():
        for file in names:
            (archive / folder).move(file, aside / folder)
