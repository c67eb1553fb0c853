"""Whose turn it is to work: the tables of a worker share one thread, and with it the answers to their commits.

A worker of many partitions that has much to catch up with would else apply, decide and encode for all of them in one
turn of its event loop, and again in the next; the brokers' answers would lie there for so long that transactions are
given up, and what they held is to be done again.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: A turn is over after so long: more for each makes larger transactions, and the others wait for longer.
_TURN_S: Final = 0.1


class Turn:
    """Some work of one table: pieces of a few milliseconds, one after the other."""

    def __init__(self) -> None:
        self._until = time.monotonic() + _TURN_S

    async def goes_on(self) -> bool:
        """Let everybody else in whose work takes no turn; whether there is time for another piece."""
        await asyncio.sleep(0)
        return time.monotonic() < self._until


class Turns:
    """One table at a time has one, in the order in which they asked."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Turn]:
        """Wait for a turn, and have it. It must not be asked for within another."""
        async with self._lock:
            yield Turn()
        await asyncio.sleep(0)
