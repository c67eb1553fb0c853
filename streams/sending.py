"""A few records to the topics, as an operator sends them: one to its partition, or one to every partition at once."""

# aiokafka has no types.
# ruff: noqa: ANN401

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]

from streams.brokers import Complaints, address, in_one_line, look_at
from streams.faults import Unusable
from streams.partitioner import partition_by

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from streams.partitioner import PartitionerName

#: Start, send and commit, each. As long may an abandoned transaction hold up who reads what is committed.
_TIMEOUT_S: Final = 15.0
_STOP_WITHIN_S: Final = 5.0


class Place(NamedTuple):
    """Where a record is in Kafka."""

    topic: str
    partition: int
    offset: int


async def send_to_account(
    kafka: Mapping[str, Any], topic: str, key: bytes, value: bytes, partitioner: PartitionerName
) -> list[Place]:
    """One record to the partition of its key. Raises `Unusable`."""
    with Complaints():
        cluster = await look_at(kafka, [topic])
        partition = partition_by(partitioner, cluster.partitions[topic])(key)
        producer = AIOKafkaProducer(enable_idempotence=True, request_timeout_ms=_milliseconds(), **kafka)
        try:
            with in_one_line(kafka):
                async with asyncio.timeout(_TIMEOUT_S):
                    await producer.start()
            sent = await _sent_once(kafka, producer, topic, partition, key, value)
        finally:
            await _stop(producer)
    return [Place(topic, partition, sent)]


async def _sent_once(
    kafka: Mapping[str, Any],
    producer: Any,
    topic: str,
    partition: int,
    key: bytes,
    value: bytes,
) -> int:
    with in_one_line(kafka):
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                now = int(time.time() * 1000)
                delivered = await producer.send_and_wait(topic, value, key=key, partition=partition, timestamp_ms=now)
        except TimeoutError:
            raise _unknown(kafka) from None
    return int(delivered.offset)


async def send_to_all(kafka: Mapping[str, Any], topic: str, key: bytes, value: bytes, app_id: str) -> list[Place]:
    """One record to every partition of a topic, or to none. Raises `Unusable`."""
    with Complaints():
        cluster = await look_at(kafka, [topic])
        records = [(topic, number, key, value) for number in range(cluster.partitions[topic])]
        # Another id for each: two operators must not fence each other off.
        async with Transaction(kafka, f"{app_id}-control-{time.time_ns():x}") as transaction:
            offsets = await transaction.send(records)
    return [Place(topic, number, offset) for number, offset in enumerate(offsets)]


class Transaction:
    """A context, in which `send` may be called once. Raises `Unusable` if nothing was sent, or if that is not known."""

    def __init__(self, kafka: Mapping[str, Any], transactional_id: str) -> None:
        self._kafka = kafka
        self._producer: Any = None
        self._id = transactional_id

    async def __aenter__(self) -> Self:
        """Find the brokers, and abort what somebody of this id has left open."""
        self._producer = AIOKafkaProducer(
            transactional_id=self._id,
            transaction_timeout_ms=_milliseconds(),
            request_timeout_ms=_milliseconds(),
            **self._kafka,
        )
        with in_one_line(self._kafka):
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    await self._producer.start()
            except BaseException:
                await _stop(self._producer)
                raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go, within a few seconds."""
        await _stop(self._producer)

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
            except (KafkaError, TimeoutError, AssertionError):
                if committing:
                    raise _unknown(self._kafka) from None
                with suppress(KafkaError, TimeoutError, AssertionError):
                    async with asyncio.timeout(_STOP_WITHIN_S):
                        await self._producer.abort_transaction()
                raise
        return offsets


def _unknown(kafka: Mapping[str, Any]) -> Unusable:
    return Unusable(
        f"the brokers at {address(kafka)} did not say whether they have taken it: see whether it has taken effect, "
        "and send it again if not"
    )


def _milliseconds() -> int:
    return int(_TIMEOUT_S * 1000)


async def _stop(producer: Any) -> None:
    stopping = asyncio.ensure_future(producer.stop())
    await asyncio.wait({stopping}, timeout=_STOP_WITHIN_S)
    if stopping.done() and not stopping.cancelled():
        stopping.exception()
