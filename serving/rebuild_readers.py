"""Who begins anew where a role does, which topics are made anew for that, and whether what they read is all there."""

from __future__ import annotations

import difflib

from serving.drained import Reader, readers, readers_of_examples
from serving.rescale_doors import Doors
from streams.errors import PipelineError, SnapshotError
from streams.pipeline import Pipeline
from streams.stages import stage_topics

BEHIND_LOG = ("features", "examples")  # made anew with the topics between stages


def readers_of(pipeline: Pipeline, role: str) -> list[Reader]:
    """Name those who begin anew where a role does: it, and whoever reads what it writes anew.

    Raises:
        PipelineError: there is no such role.
    """
    *stages, serve = readers(pipeline)
    of_examples = readers_of_examples(pipeline)
    if role in ("", "features"):
        return [*stages, serve, *of_examples]
    learners = [one for one in of_examples if one.role != "train"]
    by_name = {"serve": [serve], "learn": learners, **{one.role: [one] for one in of_examples}}
    if role not in by_name:
        names = ("features", *by_name)
        close = difflib.get_close_matches(role, names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise PipelineError([f"--role {role}: there is no such role; allowed: {', '.join(names)}{hint}"])
    return by_name[role]


def topics_of(pipeline: Pipeline, role: str) -> list[str]:
    """Name the topics whose rows are computed again."""
    if role not in ("", "features"):
        return []
    log = () if role else ("log",)
    return [f"{pipeline.name}.{topic}" for topic in (*log, *stage_topics(pipeline), *BEHIND_LOG)]


def refuse_cut(pipeline: Pipeline, doors: Doors, role: str) -> None:
    """Refuse to compute rows again that something before them has shaped, where that is gone.

    Raises:
        SnapshotError: what is to be read does not begin with its first row.
    """
    topics = dict.fromkeys((pipeline.events.topic, pipeline.labels.topic))
    how = "--from-retained begins at the earliest there is"
    if role:
        topics, how = {f"{pipeline.name}.log": None}, f"{how}, without --role the raw topics are read again"
    if role and doors.control.aliases:
        text = f"{pipeline.name}.log lacks what came before the last `millrace rescale`"
        raise SnapshotError(f"{text}: run `millrace rebuild FILE` without --role")
    inbox = doors.inbox(f"{pipeline.name}.ingest")
    try:
        for topic in topics:
            for partition in range(doors.cluster.partitions(topic)):
                low, _ = inbox.watermarks(topic, partition)
                if low:
                    text = f"{topic} partition {partition} begins at offset {low:,}: what came before is gone"
                    raise SnapshotError(f"{text}; {how}")
    finally:
        inbox.close()
