"""Names of a library's classes, as pipeline files write them: <module>.<Class>."""

from __future__ import annotations

from collections.abc import Iterable

from streams.toml_table import mistake_line


def parted(name: str, example: str) -> tuple[str, str]:
    """Part a name into module and class; nothing else is taken for one.

    Raises:
        LookupError: it is none.
    """
    module, _, last = name.rpartition(".")
    if not module or "__" in name or not all(part.isidentifier() for part in name.split(".")):
        raise LookupError(f"is not a name; allowed: <module>.<Class>, such as {example}")
    return module, last


def absence(absent: str, name: str, names: Iterable[str], module: str = "") -> LookupError:
    """Say that something is not there, and which of the names is nearest; classes are named with their module."""
    line = mistake_line("", absent, "", name, names)[2:]
    return LookupError(line.replace('mean "', f'mean "{module}.') if module else line)
