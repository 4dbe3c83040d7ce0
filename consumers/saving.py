"""Saving: flush outputs, snapshot, commit, in this order (PROTOCOL 21), while the stream goes on as far as it may.

    1. flush: everything put out so far is acknowledged, or rows could be lost
    2. copy the state of one partition; from here on the stream goes on
    3. write the copy: parts, then the manifest, in another thread
    4. commit the offset it belongs to, with the manifest's name as witness

Partitions take turns. A commit tells of an older position than the stream has reached by then, which is what it is
for. When partitions are given up, or at the end, all of this is done at once.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from consumers.station import Shop, Station
from streams.faults import fail_point
from streams.kafka import RebalancedError
from streams.metrics import RoleMetrics

COMMIT_EVERY_S = 1.0  # roles without state only commit, which is cheap
SNAPSHOT_SHARE = 0.05  # snapshots take at most this share of the time

Partition = tuple[str, int]
Offset = tuple[int, str]  # and the metadata committed with it
Writer = Callable[[Callable[[], Offset]], Future[Offset]]  # runs it, maybe in another thread


def at_once(write: Callable[[], Offset]) -> Future[Offset]:
    """Write a snapshot before the stream goes on."""
    done: Future[Offset] = Future()
    done.set_result(write())
    return done


class Writing(NamedTuple):
    """A snapshot that is being written; `done` gives what to commit then."""

    station: Station
    done: Future[Offset]
    began_s: float


class Saver:
    """Saves the partitions of one worker.

    Args:
        shop: the worker's parts.
        flush: lets everything put out so far be acknowledged.
        stations: gives the partitions that the worker has now, in order.
        metrics: the role's.
        every_s: how often each partition is saved, if that takes little of the time.
        clock: in seconds.
        writer: where snapshots are written.
    """

    def __init__(
        self,
        shop: Shop,
        flush: Callable[[], None],
        stations: Callable[[], list[Station]],
        metrics: RoleMetrics,
        every_s: float,
        clock: Callable[[], float],
        writer: Writer,
    ) -> None:
        self._role, self._inbox = shop.role, shop.inbox
        self._flush_outputs, self._stations = flush, stations
        self._metrics, self._every_s, self._clock, self._writer = metrics, every_s, clock, writer
        self._writing: Writing | None = None
        self._turn = -1
        self.next_s = 0.0

    def start(self) -> None:
        """Count the time to the first snapshot from now."""
        self.next_s = self._clock() + self._interval(0.0)

    def tend(self) -> None:
        """Commit what is written, begin what is due. Called every step."""
        self._finish(is_waiting=False)
        if self._writing is None and self._clock() >= self.next_s:
            self._save_next()

    def save_all(self) -> None:
        """Save all partitions before this returns."""
        self._finish(is_waiting=True)
        began_s = self._clock()
        self._save_now(self._flushed(self._stations()), began_s)

    def _save_next(self) -> None:
        """Save the partition whose turn it is; roles without state only commit, all partitions at once."""
        began_s, stations = self._clock(), self._stations()
        if self._role.has_state and stations:
            self._turn += 1
            stations = [stations[self._turn % len(stations)]]
        changed = self._flushed(stations)
        if changed and self._role.has_state and changed[0].task.is_sound():
            self._begin(changed[0], began_s)
        else:
            self._save_now(changed, began_s)

    def _save_now(self, changed: list[Station], began_s: float) -> None:
        """Write and commit partitions before the stream goes on; their outputs are acknowledged."""
        if changed:
            self._commit(self._saved(changed), changed)
        self.next_s = self._clock() + self._interval(self._clock() - began_s)

    def _flushed(self, stations: list[Station]) -> list[Station]:
        """Give those that have changed, their outputs acknowledged."""
        changed = [station for station in stations if station.has_changed]
        if changed:
            fail_point("before_flush")
            self._flush_outputs()
            fail_point("after_flush")
        return changed

    def _begin(self, station: Station, began_s: float) -> None:
        captured = station.capture()
        self._metrics.snapshot_pause(self._clock() - began_s)
        self._writing = Writing(station, self._writer(lambda: station.write(captured)), began_s)
        self._finish(is_waiting=False)

    def _finish(self, *, is_waiting: bool) -> None:
        """Commit a snapshot that is written by now, unless its partition has gone to someone else meanwhile."""
        writing = self._writing
        if writing is None or not (is_waiting or writing.done.done()):
            return
        self._writing = None
        offset, station = writing.done.result(), writing.station
        took_s = self._clock() - writing.began_s
        self.next_s = self._clock() + self._interval(took_s)
        if station in self._stations():
            self._metrics.snapshot_taken(station.partition, took_s, station.saved_bytes)
            fail_point("after_snapshot")
            self._commit({(station.topic, station.partition): offset}, [station])

    def _saved(self, stations: list[Station]) -> dict[Partition, Offset]:
        """Write snapshots of partitions, if they have state; gives what to commit for each."""
        offsets: dict[Partition, Offset] = {}
        for station in stations:
            began_s = self._clock()
            if self._role.has_state and not station.task.is_sound():
                self._metrics.incident("not_finite")  # the last good snapshot stays
            elif self._role.has_state:
                offsets[station.topic, station.partition] = station.save()
                self._metrics.snapshot_taken(station.partition, self._clock() - began_s, station.saved_bytes)
                fail_point("after_snapshot")
            elif station.intake.position >= 0:
                offsets[station.topic, station.partition] = station.progress()
                station.has_changed = station.intake.rows > 0
        return offsets

    def _commit(self, offsets: dict[Partition, Offset], stations: list[Station]) -> None:
        if offsets:
            try:
                self._inbox.commit(offsets)
            except RebalancedError:  # the snapshot stands; whoever has the partition now goes by it
                for station in stations:
                    station.has_changed = True  # if that is still us, the next commit must not be left out
                return
        fail_point("after_commit")

    def _interval(self, took_s: float) -> float:
        if not self._role.has_state:
            return max(COMMIT_EVERY_S, took_s / SNAPSHOT_SHARE)
        return max(self._every_s / max(1, len(self._stations())), took_s / SNAPSHOT_SHARE)
