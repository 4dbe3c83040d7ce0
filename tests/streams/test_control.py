"""P.control: who has which source number, schemas, and newest versions."""

from __future__ import annotations

import msgspec
import pytest

from streams import frames
from streams.control import Control
from streams.errors import FrameError
from tests.rows import COLUMNS, ControlList, claim_of


def test_a_number_is_the_offset_of_the_earliest_claim() -> None:
    """Two workers that claim the same source at once agree without talking."""
    log, other = ControlList(), ControlList()
    other.records = log.records
    first, second = Control(log), Control(other)
    second.refresh()
    log.append("claim/other", encoded(claim_of(partition=7)))

    numbers = [first.claim(claim_of()), second.claim(claim_of()), first.claim(claim_of())]

    assert numbers == [1, 1, 1]
    assert first.source(1) == claim_of()


def test_claims_made_at_the_same_moment_resolve_to_one() -> None:
    """Both claims are in the log; the later one stands for the same source, and its number is never used."""
    log = ControlList()
    for key in ("claim/a", "claim/b"):
        log.append(key, encoded(claim_of()))

    assert Control(log).claim(claim_of()) == 0
    assert Control(_again(log)).source(1) == claim_of()


def test_an_older_version_never_replaces_a_newer_one() -> None:
    """By lineage, then examples; the same one again has newer figures, and what cannot be read is judged elsewhere."""
    log, found = ControlList(), []
    known = Control(log)
    records = [
        b'{"lineage": 2, "examples": 9}', b'{"lineage": 2, "examples": 8}', b'{"lineage": 1, "examples": 99}',
        b'{"lineage": 2, "examples": 9, "figures": {}}', b'{"lineage": 10, "examples": 1}', b"?",
    ]  # fmt: skip
    for record in records:
        known.publish_version("tree", record)
        known.refresh()
        found.append(records.index(known.versions["tree"]))

    assert found == [0, 0, 0, 3, 4, 5]


def test_whoever_publishes_a_version_knows_it_at_once() -> None:
    """The next one names it as its parent, though nothing is read in between; an older one is not taken for newer."""
    known = Control(ControlList())
    newer, older = b'{"lineage": 2, "examples": 9}', b'{"lineage": 2, "examples": 8}'
    for record in (newer, older):
        known.publish_version("tree", record)

    assert known.versions == {"tree": newer}


def test_every_claim_has_a_key_of_its_own() -> None:
    """Compaction must never remove one."""
    log = ControlList()
    known = Control(log)
    for partition in range(3):
        known.claim(claim_of(partition=partition))

    assert len({key for _, key, _ in log.records}) == 3


@pytest.mark.parametrize(
    "change", [{"stream": "s"}, {"topic_id": "t"}, {"partition": 1}, {"kind": "events"}, {"generation": 1}]
)
def test_a_source_is_its_stream_topic_partition_kind_and_generation(change: dict[str, object]) -> None:
    """Each of them makes another source."""
    known = Control(ControlList())

    assert known.claim(claim_of()) != known.claim(claim_of(**change))


def test_the_number_of_siblings_is_no_part_of_the_identity() -> None:
    """A raw topic that is given more partitions keeps its sources, so that repeats are still recognised."""
    known = Control(ControlList())

    assert known.claim(claim_of(siblings=1)) == known.claim(claim_of(siblings=2))


def test_an_announced_schema_is_resolved_by_others() -> None:
    """Names, kinds and the Arrow types come back as they were; it is written once."""
    log = ControlList()
    schema = frames.features_schema(COLUMNS)
    Control(log).announce(schema)
    Control(_again(log)).announce(schema)

    found = Control(_again(log)).schema(schema.fingerprint)

    assert found == schema
    assert len(log.records) == 1


def test_what_is_unknown_at_the_end_of_the_log_is_an_error() -> None:
    """A reader that meets an unknown schema or source reads to the end, then stops."""
    known = Control(ControlList())

    with pytest.raises(FrameError, match="schema 0123 is not on the control topic"):
        known.schema("0123")
    with pytest.raises(FrameError, match="source 5 is not claimed"):
        known.source(5)


def test_the_newest_version_of_each_candidate_is_kept() -> None:
    """Records that were compacted away leave nothing behind."""
    log = ControlList()
    known = Control(log)
    known.publish_version("a", b"1")
    known.publish_version("b", b"1")
    known.publish_version("a", b"2")
    log.records.append((len(log.records), "version/b", None))
    known.refresh()

    assert known.versions == {"a": b"2", "b": b"1"}


def encoded(claim: object) -> bytes:
    """A claim as it is written."""
    return msgspec.json.encode(claim)


def _again(log: ControlList) -> ControlList:
    copy = ControlList()
    copy.records = log.records
    return copy


def test_an_alias_stands_for_a_source_for_ever() -> None:
    """Said once, however often it is named; whoever reads the topic later knows it."""
    log = ControlList()
    known = Control(log)
    for _ in range(2):
        known.name_alias(0, 7)
    known.name_alias(1, 9)

    assert [key for _, key, _ in log.records] == ["alias/0", "alias/1"]
    later = Control(_again(log))
    later.refresh()
    assert later.aliases == {0: 7, 1: 9}
