"""From a record in Kafka until its command can be read, under an even load; the soak's, for a minute, one worker."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from tests.bench.peers.watching import Failed
from tests.bench.scenes.figures import Figure, latencies
from tests.bench.scenes.stage import stage
from tests.bench.soak import PARTITIONS, POLICY, Commands, Load, play, watching

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.sizes import Sizes

#: Until the accounts have been seen for the first time, and the worker is warm.
_WARM_S: Final = 5
_LAST_WITHIN_S: Final = 30.0
_COMMITS_MS: Final = (100, 20)


async def measure(folder: Path, sizes: Sizes) -> list[Figure]:
    """Twice: committed every 100 ms, and every 20 ms."""
    found: list[Figure] = []
    for every_ms in _COMMITS_MS:
        own = folder / f"commit-{every_ms}"
        own.mkdir()
        ages = await _ages(own, sizes, every_ms)
        name = f"record to command, {sizes.latency_rate:,} records/s, committed every {every_ms} ms"
        found += latencies(f"latency-{every_ms}", name, ages)
    return found


async def _ages(folder: Path, sizes: Sizes, every_ms: int) -> list[float]:
    async with (
        stage(folder, PARTITIONS) as here,
        here.worker("--commit-interval", f"PT{every_ms / 1000:g}S", policy=POLICY),
    ):
        load, commands = Load(here.kafka["bootstrap_servers"], sizes.latency_accounts, 1), Commands(here.kafka)
        async with load, watching(commands):
            began = time.monotonic()
            await play(load, sizes.latency_rate, began, began + _WARM_S)
            commands.take()
            await play(load, sizes.latency_rate, began, began + _WARM_S + sizes.latency_s)
            until = time.monotonic() + _LAST_WITHIN_S
            while commands.count < load.changes and time.monotonic() < until:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            if commands.count != load.changes:
                raise Failed(f"{load.changes:,} changes had {commands.count:,} commands")
            return commands.take()
