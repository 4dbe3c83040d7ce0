"""`millrace promote`, `pin`, `unpin` and `rollback`: what people decide about the champion, by compare and swap.

A decision names the reign it follows. It is written, and P.decisions is read once more: the first record that follows
that reign counts. A decision that came second changes nothing and says so.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

import msgspec

from serving.versions import newest
from streams.errors import MillraceError, PipelineError
from streams.kafka import KafkaOutbox, read_all
from streams.pipeline import Pipeline
from streams.reign import Promoted, Reign, first_reign, followed, promotion_in
from streams.toml_table import mistake_line

Choice = Callable[[Reign], tuple[str, bool]]  # from the reign as it is: who is to answer, and whether pinned


class OvertakenError(MillraceError):
    """Another decision came first."""


def present_reign(pipeline: Pipeline) -> Reign:
    """Read P.decisions to its end; gives the reign that is now."""
    names = [model.name for model in pipeline.models]
    reign = first_reign(pipeline.serve.champion)
    for message in read_all(pipeline.kafka, f"{pipeline.name}.decisions", 0):
        record = promotion_in(message.value() or b"")
        if record is not None:
            reign = followed(reign, record, names)
    return reign


def decide(pipeline: Pipeline, choose: Choice, note: str) -> Reign:
    """Write what a person decides, and give the reign that begins with it.

    Raises:
        PipelineError: the choice is nobody of the file, or changes nothing.
        OvertakenError: another decision followed the same reign first.
    """
    before = present_reign(pipeline)
    candidate, is_pinned = choose(before)
    if (candidate, is_pinned) == (before.champion, before.is_pinned):
        pinned = "pinned" if is_pinned else "not pinned"
        raise PipelineError([f"{candidate} is champion already, and {pinned}; nothing was decided"])
    version = newest(pipeline).get(candidate)
    record = Promoted(
        id=uuid.uuid4().hex,
        follows=before.id,
        candidate=candidate,
        lineage=0 if version is None else version.lineage,
        why="manual",
        is_pinned=is_pinned,
        time_us=time.time_ns() // 1_000,
        note=note,
    )
    outbox = KafkaOutbox(pipeline.kafka, linger_ms=0)
    outbox.produce(f"{pipeline.name}.decisions", 0, msgspec.json.encode(record))
    outbox.flush()
    outbox.close()
    now = present_reign(pipeline)
    if now.id != record.id:
        raise OvertakenError(f"another decision came first: {now.champion} is champion now; look, and try again")
    return now


def promoting(pipeline: Pipeline, candidate: str) -> Choice:
    """Let a candidate answer; a pin stays."""
    _check(pipeline, candidate)
    return lambda reign: (candidate, reign.is_pinned)


def pinning(pipeline: Pipeline, candidate: str | None) -> Choice:
    """Let a candidate, or who answers now, stay champion until it is let go."""
    if candidate is not None:
        _check(pipeline, candidate)
    return lambda reign: (candidate or reign.champion, True)


def unpinning() -> Choice:
    """Let the selector change the champion again."""
    return lambda reign: (reign.champion, False)


def rolling_back(reign: Reign) -> tuple[str, bool]:
    """Let the last champion answer again.

    Raises:
        PipelineError: there is no last one.
    """
    if reign.last is None:
        raise PipelineError([f"{reign.champion} is champion since the beginning; there is none to go back to"])
    return reign.last, reign.is_pinned


def _check(pipeline: Pipeline, candidate: str) -> None:
    names = [model.name for model in pipeline.models]
    if candidate not in names:
        line = mistake_line(candidate, f"{candidate!r} is no candidate", ", ".join(names), candidate, names)
        raise PipelineError([line])
