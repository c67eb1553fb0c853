"""Marks that all fall within one second: how fast their commands come. Guards off, one worker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from models.instants import MINUTE, SECOND
from streams.topic_design import AppTopics
from tests.bench.peers import topics
from tests.bench.peers.watching import Failed
from tests.bench.scenes.figures import Figure
from tests.bench.scenes.stage import APP, ahead, known, marked, now, stage, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.sizes import Sizes

_PARTITIONS: Final = 4
#: Before the marks fall all accounts have to be known: time for sending and applying them.
_KNOWN_WITHIN_S: Final = 15.0
_KNOWN_A_SECOND: Final = 4_000
_LOOK_EVERY_S: Final = 1.0
_GIVE_UP: Final = 5 * MINUTE


async def measure(folder: Path, sizes: Sizes) -> list[Figure]:
    """From the first mark until the last command is in Kafka."""
    count, commands = sizes.drained, (AppTopics.of(APP).commands,)
    async with stage(folder, _PARTITIONS) as here, here.worker() as worker:
        first = ahead(_KNOWN_WITHIN_S + count / _KNOWN_A_SECOND)
        await here.send(marked(count, first, SECOND, "falls"))
        await known(worker, count)
        if now() >= first:
            raise Failed(f"the first of {count:,} marks fell before all accounts were known")
        await until(lambda: now() > first + SECOND, "the marks do not fall")
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            # Only asked how far it reaches, until they may all be there: who reads takes time from the worker.
            if await topics.reach(here.kafka, commands, _PARTITIONS) < count and now() < first + _GIVE_UP:
                continue
            told = await topics.told(here.kafka, commands, _PARTITIONS)
            if told.counts[commands[0]] >= count:
                break
            if now() > first + _GIVE_UP:
                raise Failed(f"of {count:,} marks {told.counts[commands[0]]:,} have a command after 5 minutes")
    seconds = told.last_at - first / SECOND
    return [
        Figure("drain", f"{count:,} marks within a second, drained", count / seconds, "commands/s"),
        Figure("drain-s", "… the last command after the first mark", seconds, "s"),
    ]
