"""Where a pipeline file says that state is kept: a directory, or an object store and a directory beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from streams.state_url import FORM, directory_of, is_url, wrong_with
from streams.toml_table import Table
from streams.variables import expanded


def read_state(head: Table, name: str, beside: Path, environment: Mapping[str, str]) -> tuple[Path, str | None]:
    """Read `state` and `local` of the [pipeline] table.

    Args:
        head: the table.
        name: of the pipeline.
        beside: the pipeline file's directory, from which paths are seen.
        environment: gives the `${ENV}` values.

    Returns:
        The directory of this machine, and the object store's URL if there is one.
    """
    default, before = f"state/{name}", len(head.mistakes)
    state = expanded("[pipeline] state", head.text("state", default), environment, head.mistakes)
    local = head.text("local", default, allowed="a directory")
    url = state if is_url(state) else None
    if url is not None and len(head.mistakes) == before and (wrong := wrong_with(url)):
        head.mistake("state", wrong, FORM)
    directory = state if url is None else directory_of(url)
    if directory is not None and "local" in head.values:
        head.mistake("local", "state is a directory already", "a directory where state is an object store")
    path = Path(os.path.normpath(beside / (directory or local)))  # no "..": it is shown to users
    return path, url if directory is None else None
