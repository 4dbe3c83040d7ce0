"""Who answers: the champion as the fold over P.decisions, from its first record on.

Every change of the champion is a record that names the reign it follows. The first record that follows the present one
begins the next; any other is void. So selectors and people may write at the same time, from anywhere: it is a compare
and swap whose arbiter is the order of one Kafka partition, kept for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

Why = Literal["evidence", "taken back", "guard", "slow", "stale", "manual"]
FIRST = ""  # the name of the reign before any record: the champion is the pipeline file's


class Promoted(msgspec.Struct, frozen=True, tag="promoted", tag_field="decision"):
    """A record of P.decisions: from here on another candidate answers, or the same one pinned or let go.

    Attributes:
        id: names the reign that begins; no two records have the same.
        follows: the reign it ends.
        candidate: who answers.
        lineage: of the candidate's model when it was decided.
        why: a challenger was proven better; the last champion was, by the same test; a guard rail acted at once; the
            champion's newest version was too old; a person said so.
        is_pinned: the selector leaves this champion alone until a person lets it go.
        after_us: event time of the last loss that was weighed, 0 where none was.
        time_us: wall clock.
        numbers, thresholds: what was decided by, by name.
        note: what a person said of it.
    """

    id: str
    follows: str
    candidate: str
    lineage: int
    why: Why
    is_pinned: bool = False
    after_us: int = 0
    time_us: int = 0
    numbers: dict[str, float | None] = {}
    thresholds: dict[str, float | None] = {}
    note: str = ""


class Reign(msgspec.Struct, frozen=True):
    """The present champion, whom it follows, and the record that made it so (None: the pipeline file).

    `id` is the name of the last record that counts, which is that one or a later one of a model that was removed.
    """

    id: str
    champion: str
    last: str | None = None
    is_pinned: bool = False
    record: Promoted | None = None


def first_reign(champion: str) -> Reign:
    """Give the reign before any record."""
    return Reign(FIRST, champion)


def followed(reign: Reign, record: Promoted, candidates: Iterable[str]) -> Reign:
    """Give the reign after a record; the same one where the record is void.

    Where it names nobody of the pipeline file, for a model was removed since, whoever reigned before it goes on under
    its name: what was decided later follows that, and counts.

    >>> reign = first_reign("a")
    >>> reign = followed(reign, Promoted("1", "", "b", 0, "evidence"), ("a", "b"))
    >>> followed(reign, Promoted("2", "", "a", 0, "manual"), ("a", "b")).champion  # it follows a reign that has ended
    'b'
    """
    if record.follows != reign.id:
        return reign
    if record.candidate not in candidates:
        return msgspec.structs.replace(reign, id=record.id)
    last = reign.champion if record.candidate != reign.champion else reign.last
    return Reign(record.id, record.candidate, last, record.is_pinned, record)


def reign_named(name: str, champion: str, records: Iterable[Promoted], candidates: Iterable[str]) -> Reign:
    """Fold records from the first one on, up to the reign of a name; all of them where none has it."""
    reign, names = first_reign(champion), tuple(candidates)
    for record in records:
        if reign.id == name:
            break
        reign = followed(reign, record, names)
    return reign


class _Tagged(msgspec.Struct):
    decision: str = ""


_tag_of = msgspec.json.Decoder(_Tagged).decode
_promoted = msgspec.json.Decoder(Promoted).decode


def promotion_in(value: bytes) -> Promoted | None:
    """Read a record of P.decisions if it is a promotion; None for every other decision, and for what is no record."""
    try:
        return _promoted(value) if _tag_of(value).decision == "promoted" else None
    except msgspec.MsgspecError:
        return None
