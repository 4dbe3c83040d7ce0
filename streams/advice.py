"""What a message tells a user to run where state has to begin anew: the command that helps, and no more than that."""

from __future__ import annotations


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
