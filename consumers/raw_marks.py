"""Marks of publishers (PROTOCOL 11): records without value whose header says how far their partition is."""

from __future__ import annotations

import re

from streams.decoding import Bad
from streams.frames import END
from streams.records import Records

MARK_HEADER = "millrace-mark"

_MARK_TIME = re.compile(rb"-?[0-9]{1,18}")  # what fits into int64


class BadRecordError(Exception):
    """A record that cannot be used, and why; it becomes a dead letter."""

    def __init__(self, bad: Bad) -> None:
        super().__init__(bad.reason)
        self.bad = bad


def read_mark(records: Records, i: int, skew_us: int) -> int:
    """Read the mark of record `i`, in microseconds; it is at most `skew_us` ahead of the record's timestamp.

    Raises:
        BadRecordError: when it is no mark.
    """
    text = records.header(i, MARK_HEADER)
    if text is None:
        raise BadRecordError(Bad("empty", "the record has no value"))
    if text == b"end":
        return END
    if not _MARK_TIME.fullmatch(text):
        raise BadRecordError(Bad("invalid", f"{MARK_HEADER} must be microseconds or `end`"))
    if int(text) > records.stamps[i] + skew_us:
        raise BadRecordError(Bad("future", "the mark lies in the future of its record"))
    return int(text)
