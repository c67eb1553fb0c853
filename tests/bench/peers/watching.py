"""One run of somebody: from its first record to everything committed, seen from outside."""

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

#: How often is looked; what is measured is late by so much at most.
LOOK_EVERY_S: Final = 0.1
_WITHIN_S: Final = 900.0


class Failed(Exception):
    """It ended, or took too long, before everything was committed."""


class Run(NamedTuple):
    """One run."""

    name: str
    records: int
    #: From the first record processed until all were committed.
    seconds: float
    #: Of all its processes, in that time.
    cpu_s: float
    #: The most that all of them had in memory together.
    rss_mb: float
    #: What can be read committed, by topic.
    outputs: dict[str, int]

    @property
    def rate(self) -> float:
        """Records a second."""
        return self.records / self.seconds


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

    def cpu_since(self, begin: float) -> float:
        """Processor seconds from an instant until now."""
        before = max((used for at, used in self.cpu if at <= begin), default=self.cpu[0][1])
        return self.cpu[-1][1] - before


async def watch(
    name: str,
    processes: Sequence[psutil.Process],
    first: Callable[[], float | None],
    committed: Callable[[], Awaitable[Mapping[Partition, int]]],
    ends: Mapping[Partition, int],
) -> Run:
    """Wait until all is committed. `first` tells when the first record was processed, once it was. Raises Failed."""
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
    now = time.time()
    watched.look()
    return Run(name, sum(ends.values()), now - begin, watched.cpu_since(begin), watched.rss_bytes / 2**20, {})
