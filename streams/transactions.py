"""A few records to several partitions, all of them or none: what an operator tells everybody."""

# aiokafka has no types.

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]

from streams.brokers import address, in_one_line
from streams.faults import Unusable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

#: Start, send and commit, each. As long may an abandoned transaction hold up who reads what is committed.
_TIMEOUT_S: Final = 15.0
_STOP_WITHIN_S: Final = 5.0


class Transaction:
    """A context, in which `send` may be called once. Raises `Unusable` if nothing was sent, or if that is not known."""

    def __init__(self, kafka: Mapping[str, Any], transactional_id: str) -> None:
        self._kafka = kafka
        self._producer: Any = None
        self._id = transactional_id

    async def __aenter__(self) -> Self:
        """Find the brokers, and abort what somebody of this id has left open."""
        milliseconds = int(_TIMEOUT_S * 1000)
        self._producer = AIOKafkaProducer(
            transactional_id=self._id,
            transaction_timeout_ms=milliseconds,
            request_timeout_ms=milliseconds,
            **self._kafka,
        )
        with in_one_line(self._kafka):
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    await self._producer.start()
            except BaseException:
                await self._stop()
                raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go, within a few seconds."""
        await self._stop()

    async def send(self, records: Sequence[tuple[str, int, bytes, bytes]]) -> list[int]:
        """Send these (topic, partition, key, value), stamped now, and commit; returns their offsets."""
        now = int(time.time() * 1000)
        committing = False
        with in_one_line(self._kafka):
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    await self._producer.begin_transaction()
                    sent = [
                        await self._producer.send(topic, value, key=key, partition=partition, timestamp_ms=now)
                        for topic, partition, key, value in records
                    ]
                    # `commit_transaction` commits whatever was delivered: each delivery is looked at before.
                    offsets = [int(one.offset) for one in await asyncio.gather(*sent)]
                    committing = True
                    await self._producer.commit_transaction()
            except (KafkaError, TimeoutError, AssertionError) as error:
                if not committing:
                    with suppress(KafkaError, TimeoutError, AssertionError):
                        async with asyncio.timeout(_STOP_WITHIN_S):
                            await self._producer.abort_transaction()
                    raise
                raise Unusable(
                    f"the brokers at {address(self._kafka)} did not say whether they have taken it "
                    f"({type(error).__name__}): see (arrears status), then do it again if they have not"
                ) from None
        return offsets

    async def _stop(self) -> None:
        stopping = asyncio.ensure_future(self._producer.stop())
        await asyncio.wait({stopping}, timeout=_STOP_WITHIN_S)
        if stopping.done() and not stopping.cancelled():
            stopping.exception()
