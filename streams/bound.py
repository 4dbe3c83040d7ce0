"""The bound: how long, and how many entities of one kind are known."""

from __future__ import annotations

import msgspec


class Bound(msgspec.Struct, frozen=True):
    """How long, and how many entities of one kind are known.

    Attributes:
        by: what names the entity, as in `Feature`.
        ttl_us: how long one is known that has no events and labels, None: for good.
        most: how many there may be in all partitions, None: any number.
    """

    by: str | tuple[str, ...]
    ttl_us: int | None = None
    most: int | None = None

    def most_in_each(self, partitions: int) -> int:
        """Give how many a partition may have; 0: any number.

        >>> Bound("card", most=10).most_in_each(4)
        3
        """
        return -(-(self.most or 0) // partitions)
