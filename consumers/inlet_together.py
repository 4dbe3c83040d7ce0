"""Decoding what one poll gave of several raw partitions at once.

A few records of each of eight partitions cost eight times what all of them cost together, and under low load that is
what ingest does all day. Here the kernels run once for a topic; each partition gets its rows as a slice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from consumers.inlet_raw import RecordInlet
from consumers.role import Decoded
from streams.records import Records, joined
from streams.tables import Table

MOST_RECORDS = 500  # of a partition; more are worth a call of their own

Found = Sequence[tuple[RecordInlet, Records]]


def decode_together(found: Found) -> list[Decoded[Table]]:
    """Decode as each inlet would by itself, value for value; a partition with a record that is not plain goes alone."""
    groups: dict[str, list[int]] = {}
    for place, (inlet, records) in enumerate(found):
        if inlet.is_plain and records.sizes.size <= MOST_RECORDS:
            groups.setdefault(inlet.topic, []).append(place)
    made: dict[int, Decoded[Table]] = {}
    for places in groups.values():
        if len(places) > 1:
            whole = _decode_group([found[place] for place in places])
            made |= {place: one for place, one in zip(places, whole, strict=True) if one is not None}
    return [made[place] if place in made else inlet.decode(records) for place, (inlet, records) in enumerate(found)]


def _decode_group(found: Found) -> list[Decoded[Table] | None]:
    """Decode partitions of one topic; None for those that have to go alone."""
    first, sizes = found[0][0], [records.sizes.size for _, records in found]
    columns = first.read_plain(joined([records for _, records in found]))
    ends = np.array(sizes).cumsum()
    stops = ends - columns.rest.searchsorted(ends)  # rows up to each partition's end
    counts = stops.copy()
    counts[1:] -= stops[:-1]
    rows = first.build_plain(columns, np.repeat([inlet.source for inlet, _ in found], counts))
    made: list[Decoded[Table] | None] = []
    for (inlet, _), size, count, stop in zip(found, sizes, counts.tolist(), stops.tolist(), strict=True):
        start = stop - count
        own = Decoded(rows.slice(start, count), columns.offsets[start:stop], columns.stamps[start:stop])
        made.append(inlet.note_plain(own) if count == size else None)
    return made
