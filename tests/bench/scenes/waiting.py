"""One worker, many partitions, a million accounts that wait for a mark: what it costs idle, and how late marks are."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import psutil

from models.instants import HOUR, SECOND
from tests.bench.peers.watching import Failed
from tests.bench.scenes.figures import Figure, latencies
from tests.bench.scenes.stage import ahead, known, marked, stage, until
from tests.bench.soak import Commands, watching

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.sizes import Sizes

#: The marks fall so long after they were made known, one after the other.
_AHEAD_S: Final = 8
_MARKS_A_SECOND: Final = 10
_LATE_S: Final = 60.0


async def measure(folder: Path, sizes: Sizes) -> list[Figure]:
    """Work the accounts off; rest; let marks fall."""
    async with stage(folder, sizes.waiting_partitions) as here:
        # Their marks are hours ahead.
        await here.send(marked(sizes.waiting, ahead(0) + 12 * HOUR, 8 * HOUR, "waits"))
        async with here.worker() as worker:
            caught_up_s = await known(worker, sizes.waiting)
            process = psutil.Process(worker.process.pid)
            rss_bytes = process.memory_info().rss
            share = await _share(process, sizes.idle_s)
            commands = Commands(here.kafka, sizes.waiting_partitions)
            async with watching(commands):
                span = sizes.marks * SECOND // _MARKS_A_SECOND
                await here.send(marked(sizes.marks, ahead(_AHEAD_S), span, "falls"))
                within_s = _AHEAD_S + span / SECOND + _LATE_S
                await until(lambda: commands.count >= sizes.marks, "some marks have no command", within_s)
            if commands.count != sizes.marks:
                raise Failed(f"{sizes.marks} marks had {commands.count} commands")
            ages = commands.take()
            if (lost := worker.metric("arrears_transactions_total", outcome="lost")) > 0:
                raise Failed(f"{lost:.0f} transactions were lost, and done again: their answers came too late")
    of = f"{sizes.waiting_partitions} partitions, {sizes.waiting:,} accounts"
    return [
        Figure("caught-up", f"bills caught up with, {of}", sizes.waiting / caught_up_s, "records/s"),
        Figure("idle", f"idle worker, {of}", share * 100, "% of a core"),
        Figure("idle-rss", f"its memory, an account, {of}", rss_bytes / sizes.waiting, "bytes"),
        *latencies("mark", f"mark to command, {sizes.waiting:,} accounts waiting", ages),
    ]


async def _share(process: psutil.Process, seconds: float) -> float:
    """Of a core, that a process takes."""
    before = sum(process.cpu_times()[:2])
    await asyncio.sleep(seconds)
    return float(sum(process.cpu_times()[:2]) - before) / seconds
