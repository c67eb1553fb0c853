"""One run of somebody: from its first record to everything committed and told, seen from outside.

It has two ends. All *positions* are committed as soon as every record is in somebody's state. All is *told* with the
last record that it has published: ours tells nothing before it is fenced, and so has more to do then. The second is
what speeds are counted to; where somebody tells as he goes, the two are one.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import psutil

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from streams.fetched import Partition
    from tests.bench.peers.topics import Told

#: How often is looked; what is measured is late by so much at most.
LOOK_EVERY_S: Final = 0.1
#: All is told when for so long next to nothing has come: marks go on falling, a few a second.
_QUIET_S: Final = 10.0
_NEXT_TO_NOTHING: Final = 0.001
_WITHIN_S: Final = 900.0


class Failed(Exception):
    """It ended, or took too long, before everything was committed."""


class Run(NamedTuple):
    """One run."""

    name: str
    records: int
    #: From the first record processed until all was committed, and all that follows from it told.
    seconds: float
    #: Until the positions alone were committed.
    positions_s: float
    #: Of all its processes, in `seconds`.
    cpu_s: float
    #: The most that all of them had in memory together.
    rss_mb: float
    #: What can be read committed, by topic.
    outputs: dict[str, int]

    @property
    def rate(self) -> float:
        """Records a second, to the last committed record."""
        return self.records / self.seconds

    @property
    def positions_rate(self) -> float:
        """Records a second, to the last committed position."""
        return self.records / self.positions_s


@dataclass
class Watch:
    """Samples of some processes while they work."""

    processes: Sequence[psutil.Process]
    cpu: list[tuple[float, float]] = field(default_factory=list)
    rss_bytes: int = 0

    def look(self) -> None:
        """One more; one that has ended is seen no more."""
        with suppress(psutil.NoSuchProcess):
            seconds = sum(sum(process.cpu_times()[:2]) for process in self.processes)
            self.cpu.append((time.time(), seconds))
            self.rss_bytes = max(self.rss_bytes, sum(process.memory_info().rss for process in self.processes))

    def cpu_between(self, begin: float, end: float) -> float:
        """Processor seconds from an instant (the look before it) to another (the look after it)."""
        before = max((used for at, used in self.cpu if at <= begin), default=self.cpu[0][1])
        after = min((used for at, used in self.cpu if at >= end), default=self.cpu[-1][1])
        return after - before


class Watched(NamedTuple):
    """What was seen until all positions were committed, and (of one that goes on) until it was quiet."""

    name: str
    watch: Watch
    records: int
    #: Seconds since 1970: the first record processed, all positions committed, the last moment before it was quiet.
    begin: float
    positions_at: float
    quiet_at: float

    def run(self, told: Told) -> Run:
        """With what was told meanwhile."""
        end = max(self.positions_at, told.last_at)
        seconds, positions_s = end - self.begin, self.positions_at - self.begin
        cpu_s, rss_mb = self.watch.cpu_between(self.begin, end), self.watch.rss_bytes / 2**20
        return Run(self.name, self.records, seconds, positions_s, cpu_s, rss_mb, told.counts)


async def watch(
    name: str,
    processes: Sequence[psutil.Process],
    first: Callable[[], float | None],
    committed: Callable[[], Awaitable[Mapping[Partition, int]]],
    ends: Mapping[Partition, int],
    reach: Callable[[], Awaitable[int]] | None = None,
) -> Watched:
    """Wait until all is committed, and told. `first` tells when the first record was processed, once it was.

    `reach`: how much somebody has written who goes on running; one who ends has told all. Raises Failed.
    """
    watched = Watch(processes)
    deadline = time.monotonic() + _WITHIN_S
    begin: float | None = None
    while True:
        watched.look()
        if begin is None:
            begin = first()
        if begin is not None:
            reached = await committed()
            if all(reached.get(partition, 0) >= end for partition, end in ends.items()):
                break
        if time.monotonic() > deadline:
            raise Failed(f"{name} has not committed everything within {_WITHIN_S:g} s")
        if not all(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes):
            reached = await committed()
            if begin is None or any(reached.get(partition, 0) < end for partition, end in ends.items()):
                raise Failed(f"{name} has ended before everything was committed")
            break
        await asyncio.sleep(LOOK_EVERY_S)
    positions_at = quiet_at = time.time()
    watched.look()
    if reach is not None:
        quiet_at = await _quiet(reach, watched, deadline)
        if quiet_at == 0:
            raise Failed(f"{name} still tells a lot after {_WITHIN_S:g} s")
    return Watched(name, watched, sum(ends.values()), begin, positions_at, quiet_at)


async def _quiet(reach: Callable[[], Awaitable[int]], watched: Watch, deadline: float) -> float:
    """Since when next to nothing has been written; 0 if that is not so by the deadline."""
    since, written = time.time(), await reach()
    while time.time() - since < _QUIET_S:
        if time.monotonic() > deadline:
            return 0
        await asyncio.sleep(LOOK_EVERY_S)
        watched.look()
        now = await reach()
        if now - written > now * _NEXT_TO_NOTHING:
            since, written = time.time(), now
    return since
