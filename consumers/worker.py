"""The worker loop, one for all roles.

    poll → decode → align partitions by time → drop repeats → the role's task → merge, frame, produce → marks
    every few seconds: flush outputs → copy a state, write it beside the stream → commit with its name as witness

A crash anywhere repeats rows from the last snapshot, never loses any, and readers drop the repeats (PROTOCOL 3-7,
20-22). Everything from outside (consumer, producer, clock, topics) is a parameter, so tests run this very loop over
partitions in memory.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import msgspec
import numpy as np
import numpy.typing as npt

from consumers.outlet import Outlet
from consumers.saving import Saver, Writer, at_once
from consumers.station import Shop, Station
from streams.errors import UnavailableError
from streams.faults import fail_point
from streams.frames import END
from streams.kafka import Outbox
from streams.merging import LIVE_AGE_US, Aligner
from streams.metrics import RoleMetrics
from streams.records import Records

POLL_RECORDS = 8_000  # raw records of one partition in one poll; more only adds latency
POLL_FRAMES = 16  # of frames, which may hold 512 KiB each
# A partition is not read while it has rows for more steps than the first, or the second divided by all partitions.
BUFFERED_STEPS, BUFFERED_SHARES = 1.2, 2.4
UNCUT_STEPS = 1.5  # so much a fast role may take: what one poll gave of one partition is not cut, and joined again
MARKS_EVERY_S = 1.0  # live; while catching up marks go with every batch
STEP_S = 0.25  # what a step's rows may take: stopping, snapshots and the group wait for it
FIRST_ROWS, LEAST_ROWS = 2_500, 100  # of a step: at first, for the slowest role; for the fastest each says itself
TICK_EVERY_S = 0.05
MEASURE_EVERY_S = 1.0

Partition = tuple[str, int]


class Settings(msgspec.Struct, frozen=True):
    """How a worker runs."""

    is_replay: bool = False
    snapshot_every_s: float = 10.0
    align_wait_s: float = 0.5
    hold_s: float = 0.0


class Worker:
    """One process's share of a role's partitions.

    Call `start`, then `step` for ever, then `stop`. Not thread-safe.
    """

    def __init__(
        self,
        shop: Shop,
        outbox: Outbox,
        metrics: RoleMetrics,
        settings: Settings,
        clock: Callable[[], float] = time.time,
        writer: Writer = at_once,
    ) -> None:
        self.shop = shop
        self._role = shop.role
        self._inbox = shop.inbox
        self._outbox = outbox
        self._metrics = metrics
        self._clock = clock
        self._settings = settings
        self._stations: dict[Partition, Station] = {}
        schemas = dict(shop.role.writes)
        self._outlet = Outlet(outbox, shop.pipeline.name, schemas, metrics, settings.hold_s)
        self._saver = Saver(shop, self._flush, lambda: self.stations, metrics, settings.snapshot_every_s, clock, writer)
        self._aligner = Aligner(is_replay=settings.is_replay, align_wait_us=int(settings.align_wait_s * 1e6))
        self._next_tick = self._next_measure = self._next_marks = 0.0
        self._is_live = False
        self._most_rows = FIRST_ROWS
        self._has_more = False

    # Life cycle

    def start(self) -> None:
        """Announce schemas and join the group; partitions come during `step`."""
        for schema in self._role.writes.values():
            self.shop.control.announce(schema)
        self._saver.start()
        self._inbox.subscribe(list(dict.fromkeys(self._role.inputs)), self._assign, self._revoke, self._lose)

    def step(self, timeout_s: float) -> bool:
        """Do one round, waiting for its first record at most `timeout_s`; gives whether rows were taken."""
        rooms = {key: self._room(station) for key, station in self._stations.items()}
        wanted = {key: room for key, room in rooms.items() if room}
        wait_s = min(timeout_s, self._settings.hold_s) if self._outlet.is_holding else timeout_s
        has_more = self._receive(self._inbox.poll(wanted, 0.0 if self._has_more else wait_s), wanted)
        has_taken = self._take()
        self._has_more |= has_more
        self._regular()
        return has_taken

    def stop(self) -> None:
        """Drain: flush, snapshot, commit, leave the group. Rows read but not taken are left to the next worker."""
        self.snapshot()
        self._stations.clear()
        self._inbox.close()
        self._outbox.close()

    @property
    def stations(self) -> list[Station]:
        """The partitions at hand, in order."""
        return [self._stations[key] for key in sorted(self._stations)]

    # Partitions come and go

    def _assign(self, partitions: list[Partition]) -> dict[Partition, int]:
        for topic, partition in sorted(partitions):
            self._stations[topic, partition] = Station(self.shop, topic, partition)
        return {key: self._stations[key].position for key in partitions}

    def _revoke(self, partitions: list[Partition]) -> None:
        """Flush and snapshot before the partitions are given up, so that outputs stay gapless (PROTOCOL 7)."""
        self.snapshot()
        self._drop(partitions)

    def _lose(self, partitions: list[Partition]) -> None:
        """They belong to someone else already: commit nothing."""
        self._outlet.send()
        self._drop(partitions)

    def _drop(self, partitions: list[Partition]) -> None:
        for key in partitions:
            if self._stations.pop(key, None) is not None:
                self._metrics.forget(*key)

    # Rows

    def _room(self, station: Station) -> int:
        """How many records may be read of a partition now: back-pressure, with what is fetched ahead left in place."""
        if self._role.is_full:
            return 0
        steps = min(BUFFERED_STEPS, BUFFERED_SHARES / len(self._stations))
        room = max(0, max(1, int(steps * self._role.most_rows)) - station.intake.rows)
        if self._role.reads is None:
            return min(room, POLL_RECORDS)
        return min(math.ceil(room / station.rows_a_record), POLL_FRAMES)

    def _receive(self, found: list[Records], wanted: dict[Partition, int]) -> bool:
        """Decode what one poll gave; tells whether some partition gave all that was wanted, and may have more."""
        stations = [self._stations[records.topic, records.partition] for records in found]
        made = self._role.decode([(station.inlet, records) for station, records in zip(stations, found, strict=True)])
        for station, records, pieces in zip(stations, found, made, strict=True):
            before = station.intake.rows
            for piece in pieces:
                station.intake.add(piece.rows, piece.offsets, piece.stamps, int(records.offsets[-1]) + 1)
            station.rows_a_record = max(1.0, (station.intake.rows - before) / records.offsets.size)
            station.has_changed = True
        return any(records.offsets.size == wanted.get((records.topic, records.partition)) for records in found)

    def _take(self) -> bool:
        """Take what may be taken from every partition, and put out what it causes."""
        stations = self.stations
        intakes = [station.intake for station in stations]
        for station in stations:
            station.intake.mark = station.inlet.mark()
        now = self._clock()
        ready = self._aligner.counts(intakes, int(now * 1e6))
        counts = self._aligner.capped(intakes, ready, self._most_of_a_step())
        self._has_more = counts != ready
        stamps = [i.head_stamp for i, count in zip(intakes, counts, strict=True) if count]
        self._is_live = not stamps or now - min(stamps) / 1e6 < self._settings.align_wait_s + LIVE_AGE_US / 1e6
        kinds = [self._process(station, count) for station, count in zip(stations, counts, strict=True) if count]
        if kinds:
            self._metrics.count_in(np.concatenate(kinds))
        self._adapt(sum(counts), self._clock() - now)
        self._put_marks(now, is_due=bool(stamps) and not self._is_live)
        self._outlet.send(now)
        if stamps:
            fail_point("after_produce")
        return bool(stamps)

    def _most_of_a_step(self) -> int:
        is_fast = self._most_rows >= self._role.most_rows
        return int(UNCUT_STEPS * self._most_rows) if is_fast else self._most_rows

    def _adapt(self, rows: int, took_s: float) -> None:
        """Take so many rows a step that it lasts about STEP_S, however slow the role (River costs 1,000x ours)."""
        if took_s > STEP_S:
            self._most_rows = max(LEAST_ROWS, int(rows * STEP_S / took_s))
        elif 2 * rows >= self._most_rows and took_s < STEP_S / 4:
            self._most_rows = min(self._role.most_rows, self._most_rows * 2)

    def _process(self, station: Station, count: int) -> npt.NDArray[np.int8]:
        """Take rows of a partition and collect what they cause; gives the kinds of those that were no repeats."""
        station.has_changed = True
        rows, keys = station.intake.take(count)
        batch, kept = station.inlet.admit(rows)
        if kept is not None:
            self._metrics.repeats(rows.num_rows - kept.size)
            keys = keys[kept]
        if batch.rows.num_rows:
            for output in station.task.process(batch):
                self._outlet.put(output, keys, station.intake)
        return batch.rows.numbers("kind").copy()  # a view would keep the whole batch until the step is over

    def _put_marks(self, now: float, *, is_due: bool) -> None:
        if not is_due and not self._settings.is_replay and now < self._next_marks:
            return
        self._next_marks = now + MARKS_EVERY_S
        for station in self.stations:
            mark = station.inlet.mark()
            if mark > station.mark_sent:
                station.mark_sent = mark
                for target in self._role.mark_targets(station.partition):
                    for source in station.sources:
                        self._outlet.put_mark(target, source, mark)

    # What goes by the wall clock

    def _regular(self) -> None:
        now = self._clock()
        self._saver.tend()
        is_due = now >= self._next_tick
        if is_due:
            self._next_tick = now + TICK_EVERY_S
            self._outbox.poll()
        try:
            if is_due:
                self._role.tick(int(now * 1e6), self.stations)
            if now >= self._next_measure:
                self._next_measure = now + MEASURE_EVERY_S
                self._measure()
        except UnavailableError:  # Kafka is away: what is only looked up can wait, what is sent waits in the outbox
            self._next_measure = now + MEASURE_EVERY_S

    def snapshot(self) -> None:
        """Flush outputs, write snapshots of all partitions, commit."""
        self._saver.save_all()

    def _flush(self) -> None:
        """Let everything put out so far be acknowledged."""
        self._put_marks(self._clock(), is_due=True)  # a mark whose record is committed would not be read again
        self._outlet.send()
        self._outbox.flush()

    def _measure(self) -> None:
        for station in self.stations:
            end = self._inbox.known_end(station.topic, station.partition)
            if end >= 0:
                self._metrics.lag(station.topic, station.partition, max(0, end - station.reached))
            jumps = station.new_jumps()
            if jumps:
                self._metrics.incident("jump", jumps)
            station.task.measure(self._metrics)
            mark = station.inlet.mark()
            if mark == END:  # who sees the end may read what was made of everything before it
                self._flush()
            # Last: a scrape that sees the mark of the end sees the final figures with it.
            self._metrics.mark(station.topic, station.partition, mark)
