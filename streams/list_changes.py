"""What a change of the feature list does to each feature: whether it keeps its state, and with what it begins.

A feature keeps the parts of the state that it reads (outline.py), whatever it is called now, if all of them are there
and began together. Else it begins empty, with the change. What was computed of no state is computed as declared now.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from streams.advice import rebuild_of
from streams.errors import SnapshotError
from streams.outline import EXACT_ROWS, Beginnings, Outline

_OF_FEATURES = ("the labels' wait", "the entities of the stages", "what is kept of entities")
"""Rules that ingest does not go by: the log is the same under others."""


class ListChange(NamedTuple):
    """What became of the features of one stage, by name.

    Attributes:
        beginnings: of the new list.
        kept: their state goes on; a feature without state is as it was.
        found: new or declared otherwise, but their state was there for other features.
        added: they begin empty, if they have state.
        changed: declared otherwise; they begin empty, if they have state.
        dropped: no longer declared.
        has_state: the features of the new list that have any.
    """

    beginnings: Beginnings
    kept: tuple[str, ...]
    found: tuple[str, ...]
    added: tuple[str, ...]
    changed: tuple[str, ...]
    dropped: tuple[str, ...]
    has_state: frozenset[str]

    def lines(self) -> list[str]:
        """Say it: one line for all, and one for each feature that does not simply go on."""
        counts = {"kept": self.kept, "on state that is there": self.found, "new": self.added}
        counts |= {"changed": self.changed, "dropped": self.dropped}
        told = ", ".join(f"{len(names)} {what}" for what, names in counts.items() if names)
        lines = [f"the feature list was changed: {told}"]
        lines += [f"feature {name}: goes on with state that is there" for name in self.found]
        lines += [f"feature {name} is new: {self._beginning(name)}" for name in self.added]
        lines += [f"feature {name} changed: {self._beginning(name)}" for name in self.changed]
        return lines + [f"feature {name} is no longer declared" for name in self.dropped]

    def _beginning(self, name: str) -> str:
        return "starts empty" if name in self.has_state else "computed as declared from here on"


def refuse_other_rules(old: Mapping[str, str], new: Mapping[str, str]) -> None:
    """Refuse a state whose tables know events and entities by other rules than the pipeline's.

    Raises:
        SnapshotError: naming what differs.
    """
    for what, was in old.items():
        if new.get(what) != was:
            command = rebuild_of("features" if what in _OF_FEATURES else "")
            raise SnapshotError(
                f"{what} changed from {was} to {new.get(what)}, which no state outlives; run `{command}`"
            )


def compare(old: Outline, new: Outline) -> ListChange:
    """Say what a change of the list does to each feature; `new` is drawn as if all began with it."""
    change, parts = old.change + 1, old.parts()
    since: dict[str, int] = {}
    became: dict[str, list[str]] = {"kept": [], "found": [], "added": [], "changed": []}
    for name, declared in new.features.items():
        before = old.features.get(name)
        at = _beginning(declared.needs, parts, before.since if before else 0, change)
        if declared.exact_us > old.exact_us() and EXACT_ROWS not in declared.needs:
            at = change  # rows of that age were let go of
        if at and declared.needs:
            since[name] = at
        is_known = at < change and bool(declared.needs)
        if before is not None and before.text == declared.text and (is_known or not declared.needs):
            became["kept"].append(name)
        elif is_known:
            became["found"].append(name)
        else:
            became["added" if before is None else "changed"].append(name)
    dropped = tuple(name for name in old.features if name not in new.features)
    has_state = frozenset(name for name, declared in new.features.items() if declared.needs)
    kept, found, added, changed = (tuple(names) for names in became.values())
    return ListChange(Beginnings(change, since), kept, found, added, changed, dropped, has_state)


def _beginning(needs: tuple[str, ...], parts: set[tuple[str, int]], was: int, change: int) -> int:
    """Give the beginning that all needs have in common: the one that was, else the oldest, else this change."""
    for since in [was, *range(change)]:
        if all((need, since) in parts for need in needs):
            return int(since)
    return change
