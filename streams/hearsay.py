"""What other partitions, and so other workers, have heard of customers: from the ends of their journals (contract §3).

`payments_silence` asks whether anybody paid, on any partition. Each partition writes with its commits when a bill and a
payment came last; that row is never far from the end of its journal. It is looked for there, within bounds, and only
when all that this worker knows itself would trip the guard. What cannot be read was not heard: then the guard trips.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from streams.partition_reader import fetch
from streams.payments_watch import Heard
from streams.watermarks import Unanswered, Watermarks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

#: An answer is good for so long.
_AGAIN_S: Final = 5.0
#: How far from the end the row is looked for: the nearer first.
_BACK: Final = (200, 5_000)
#: So much is read of one journal at most, in fetches of up to 2 MiB.
_FETCHES: Final = 8


class Hearsay:
    """Asks for all other partitions at once. `heard_in` reads what a row says, None if the record is another."""

    def __init__(
        self,
        client: Mapping[str, Any],
        state_topic: str,
        heard_in: Callable[[bytes | None, bytes | None], Heard | None],
        *,
        timeout_s: float = 5.0,
    ) -> None:
        self._client = client
        self._state_topic = state_topic
        self._heard_in = heard_in
        self._timeout_s = timeout_s
        self._heard: dict[int, tuple[float, Heard]] = {}
        self._asking = asyncio.Lock()

    async def of(self, partitions: Iterable[int]) -> Heard:
        """When a bill and a payment were accepted last on any of these partitions."""
        asked = set(partitions)
        async with self._asking:
            now = time.monotonic()
            stale = {p for p in asked if p not in self._heard or self._heard[p][0] < now - _AGAIN_S}
            if stale:
                await self._ask_again(stale, now)
        return latest(self._heard[partition][1] for partition in asked)

    async def _ask_again(self, partitions: set[int], now: float) -> None:
        # Noted first: brokers that do not answer are not asked again at once. What was heard once was heard.
        self._heard |= {p: (now, self._heard[p][1] if p in self._heard else Heard()) for p in partitions}
        with suppress(Unanswered):
            async with Watermarks(self._client, timeout_s=self._timeout_s) as reader:
                for partition in partitions:
                    found = await self._ask(reader, partition)
                    if found is not None:
                        self._heard[partition] = (now, found)

    async def _ask(self, reader: Watermarks, partition: int) -> Heard | None:
        """The last row of a journal, if it is near its end."""
        journal = (self._state_topic, partition)
        first, end = (await reader.earliest([journal]))[journal], (await reader.ends([journal]))[journal].stable
        for back in _BACK:
            position, found = max(first, end - back), None
            for _ in range(_FETCHES):
                if position >= end:
                    break
                records, position = await fetch(reader, journal, position)
                for record in records:
                    found = self._heard_in(record.key, record.value) or found
            if found is not None:
                return found
        return None


def latest(heard: Iterable[Heard]) -> Heard:
    """The latest of each."""
    heard = list(heard)
    return Heard(
        max((one.bill_at for one in heard if one.bill_at is not None), default=None),
        max((one.payment_at for one in heard if one.payment_at is not None), default=None),
    )
