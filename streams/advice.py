"""What messages of several commands tell a user to do."""

from __future__ import annotations

NOTHING_ARCHIVED = (
    "the archive has no examples yet: a running pipeline writes them when a day is over, or 65,536 are there; "
    "start it with `millrace up`, or wait"
)
NEWER_ARCHIVED = "newer ones are archived when their day is over, or 65,536 are there"


def rebuild_of(role: str = "") -> str:
    """Give the command that lets a role begin anew.

    Args:
        role: `features` or a later stage of it, `serve`, `learn.NAME`, `train`; without one all that is behind the
            raw topics.

    Example:
        >>> rebuild_of("learn.tree"), rebuild_of("features-2"), rebuild_of()
        ('millrace rebuild FILE --role learn.tree', 'millrace rebuild FILE --role features', 'millrace rebuild FILE')
    """
    stem = "features" if role.startswith("features") else role
    return f"millrace rebuild FILE --role {stem}" if stem else "millrace rebuild FILE"
