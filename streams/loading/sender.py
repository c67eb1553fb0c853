"""Sends lines to their partitions: each once, in order, all of them acknowledged by every copy in sync.

Laws of this file:

- The producer is idempotent: what the client sends again after trouble is in Kafka once.
- Lines go in batches made here, one or more a partition; nobody has to wait for a batch to fill up.
- A control for everybody goes to every partition in one transaction, between what comes before it and what follows.
- Brokers that are away are waited for, and that is said; not for ever.
"""

# aiokafka has no types.
# ruff: noqa: ANN401

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]
from aiokafka.errors import KafkaError, KafkaTimeoutError  # type: ignore[import-untyped]

from streams.brokers import address, in_one_line, one_line
from streams.faults import Unusable
from streams.sending import Transaction
from streams.topic_design import INPUT_BYTES, KIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Self

    from streams.fetched import Partition

_BATCH_BYTES: Final = 512 * KIB
_REQUEST_TIMEOUT_MS: Final = 10_000
#: aiokafka waits so long before it tries again.
_BACKOFF_MS: Final = 500
_START_WITHIN_S: Final = 30.0
_STOP_WITHIN_S: Final = 10.0

#: After so long without an answer it is said, and then each time after as long again.
_SAY_AFTER_S: Final = 5.0
_SAY_EVERY_S: Final = 60.0
#: So long are the brokers waited for.
PATIENCE_S: Final = 600.0

#: Records are appended in pieces of so many; between them the network has its turn.
_PIECE: Final = 500


class Outgoing(NamedTuple):
    """A record on its way; `line` tells where it stands."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes
    line: tuple[int, int]


class Delivery(NamedTuple):
    """Batches on their way: where each goes, how many records it has, and what will tell its offset."""

    batches: Sequence[tuple[Partition, int, asyncio.Future[Any]]]
    #: The records that are too large for any topic.
    too_large: Sequence[Outgoing]


class Sender:
    """A context. `say` is told what a user should hear of; once `hurry` says so, nobody waits for brokers any more."""

    def __init__(
        self, kafka: Mapping[str, Any], say: Callable[[str], None], hurry: Callable[[], bool], transactional_id: str
    ) -> None:
        self._kafka = kafka
        self._say = say
        self._hurry = hurry
        self._transactional_id = transactional_id
        self._producer: Any = None

    async def __aenter__(self) -> Self:
        """Find the brokers. Raises `Unusable`."""
        self._producer = AIOKafkaProducer(
            enable_idempotence=True,
            acks="all",
            max_batch_size=_BATCH_BYTES,
            compression_type="lz4",
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
            retry_backoff_ms=_BACKOFF_MS,
            **self._kafka,
        )
        with in_one_line(self._kafka):
            try:
                async with asyncio.timeout(_START_WITHIN_S):
                    await self._producer.start()
            except BaseException:
                await self._stop()
                raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go, within a few seconds."""
        await self._stop()

    async def _stop(self) -> None:
        stopping = asyncio.ensure_future(self._producer.stop())
        await asyncio.wait({stopping}, timeout=_STOP_WITHIN_S)
        if stopping.done() and not stopping.cancelled():
            stopping.exception()

    async def send(self, records: Sequence[Outgoing]) -> Delivery:
        """Give them to the client, all at once. Raises `Unusable`."""
        made, too_large = await self._batches(records)
        batches: list[tuple[Partition, int, asyncio.Future[Any]]] = []
        for partition, batch in made:
            delivered = await self._patiently(asyncio.ensure_future(self._queue(batch, partition)))
            delivered.add_done_callback(_retrieve)
            batches.append((partition, batch.record_count(), delivered))
        return Delivery(batches, too_large)

    async def _queue(self, batch: Any, partition: Partition) -> Any:
        topic, number = partition
        while True:
            try:
                return await self._producer.send_batch(batch, topic, partition=number)
            except KafkaTimeoutError:  # the one before has not gone yet: the brokers are away
                continue

    async def _batches(self, records: Sequence[Outgoing]) -> tuple[list[tuple[Partition, Any]], list[Outgoing]]:
        now = int(time.time() * 1000)
        made: list[tuple[Partition, Any]] = []
        too_large: list[Outgoing] = []
        appends: dict[Partition, Any] = {}
        for start in range(0, len(records), _PIECE):
            for record in records[start : start + _PIECE]:
                topic, number, key, value, _ = record
                partition = topic, number
                append = appends.get(partition)
                if append is None or append(timestamp=now, key=key, value=value) is None:
                    batch = self._producer.create_batch()
                    batch.append(timestamp=now, key=key, value=value)  # a batch takes any first record
                    if batch.size() > INPUT_BYTES:
                        too_large.append(record)
                        appends.pop(partition, None)
                    else:
                        appends[partition] = batch.append
                        made.append((partition, batch))
            await asyncio.sleep(0)
        return made, too_large

    async def delivered(self, delivery: Delivery) -> dict[Partition, int]:
        """Wait until they are in Kafka; returns the offset that follows the last of each partition."""
        ends: dict[Partition, int] = {}
        for partition, count, future in delivery.batches:
            base = (await self._patiently(future)).offset
            ends[partition] = max(ends.get(partition, 0), base + count)
        return ends

    async def to_everybody(
        self, topic: str, key: bytes, value: bytes, partitions: Iterable[int]
    ) -> dict[Partition, int]:
        """To each of these partitions, or to none. Returns as `delivered` does."""
        records = [(topic, number, key, value) for number in partitions]
        async with Transaction(self._kafka, self._transactional_id) as transaction:
            offsets = await transaction.send(records)
        return {(topic, number): offset + 1 for (topic, number, *_), offset in zip(records, offsets, strict=True)}

    async def _patiently(self, future: asyncio.Future[Any]) -> Any:
        """Wait for it; say so if that takes long. Raises `Unusable`, too if it takes for ever."""
        begun = time.monotonic()
        say_at, said = begun + _SAY_AFTER_S, False
        while not future.done():
            await asyncio.wait({future}, timeout=min(_SAY_AFTER_S, PATIENCE_S))
            now = time.monotonic()
            if future.done():
                break
            if now - begun >= PATIENCE_S or self._hurry():
                future.cancel()
                raise Unusable(
                    f"the brokers at {address(self._kafka)} have not answered for {now - begun:.0f} s: see that they "
                    "run, then give the same command again, it goes on from here"
                )
            if now >= say_at:
                self._say(
                    f"the brokers at {address(self._kafka)} have not answered for {now - begun:.0f} s: waiting for them"
                )
                say_at, said = now + _SAY_EVERY_S, True
        try:
            answer = future.result()
        except (KafkaError, AssertionError) as error:  # an AssertionError: aiokafka's word for a producer that is dead
            reason = one_line(str(error) or type(error).__name__)
            raise Unusable(f"the brokers at {address(self._kafka)} refuse the records ({reason})") from None
        if said:
            self._say("the brokers answer again")
        return answer


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Read an error that is told elsewhere: asyncio would complain of it when the future goes."""
    if not future.cancelled():
        future.exception()
