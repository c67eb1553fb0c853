"""How far the inputs reach: asked for many partitions at once, as a fence needs it (contract §3)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from streams.watermarks import Unanswered, Watermarks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from streams.fetched import Partition
    from streams.watermarks import Ends

#: The number of partitions of the inputs is looked at as often as this.
_METADATA_MAX_AGE_MS: Final = 5_000
_CLOSE_WITHIN_S: Final = 3.0


class Repartitioned(Exception):
    """An input has another number of partitions now: an account's records would go elsewhere (§2)."""

    def __init__(self, topic: str, found: int, kept: int) -> None:
        super().__init__(
            f"{topic} has {found} partitions, and the state was made with {kept}: an account would be served in two"
            f" places. Give the topic {kept} partitions again, or begin a new app id and replay (see OPERATIONS)"
        )


class Fences:
    """Asks for where partitions end. Whoever asks while a question is under way is in the next one, with all others."""

    def __init__(self, client: Mapping[str, Any], partitions: int, *, timeout_s: float = 5.0) -> None:
        self._client = {**client, "metadata_max_age_ms": _METADATA_MAX_AGE_MS}
        self._partitions = partitions
        self._timeout_s = timeout_s
        self._watermarks: Watermarks | None = None
        self._asked: dict[Partition, list[asyncio.Future[Ends]]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def ends(self, partitions: Iterable[Partition]) -> dict[Partition, Ends]:
        """Where each ends, as of some instant after this call. Raises Unanswered; Repartitioned."""
        loop = asyncio.get_running_loop()
        waiting = {partition: loop.create_future() for partition in partitions}
        for partition, future in waiting.items():
            self._asked.setdefault(partition, []).append(future)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._ask_all())
        done = await asyncio.gather(*waiting.values(), return_exceptions=True)
        for found in done:
            if isinstance(found, BaseException):
                raise found
        return dict(zip(waiting, done, strict=True))  # type: ignore[arg-type]  # no exception is among them

    async def earliest(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The first offset that is still there of each. Raises Unanswered."""
        return await (await self._connected()).earliest(partitions)

    async def _connected(self) -> Watermarks:
        if self._watermarks is None:
            watermarks = Watermarks(self._client, timeout_s=self._timeout_s)
            await watermarks.start()
            if self._watermarks is None:
                self._watermarks = watermarks
            else:  # somebody else was quicker
                await watermarks.stop()
        return self._watermarks

    async def _ask_all(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            try:
                found = await self._ask(asked)
            except Exception as error:  # noqa: BLE001  # whoever asked gets it
                for futures in asked.values():
                    for future in futures:
                        if not future.done():
                            future.set_exception(error)
            else:
                for partition, futures in asked.items():
                    for future in futures:
                        if not future.done():
                            future.set_result(found[partition])

    async def _ask(self, partitions: Iterable[Partition]) -> dict[Partition, Ends]:
        watermarks = await self._connected()
        try:
            found = await watermarks.ends(partitions)
        except Unanswered:
            await self.stop()  # the next question finds the brokers anew
            raise
        for topic in {topic for topic, _ in partitions}:
            number = watermarks.partitions_of(topic)
            if number and number != self._partitions:  # 0: the metadata do not say, just now
                raise Repartitioned(topic, number, self._partitions)
        return found

    async def stop(self) -> None:
        """Close the connections."""
        watermarks, self._watermarks = self._watermarks, None
        if watermarks is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(watermarks.stop(), _CLOSE_WITHIN_S)
