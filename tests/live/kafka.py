"""What the live tests do with a broker themselves, without the code under test."""

from __future__ import annotations

import asyncio
import gc
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition  # type: ignore[import-untyped]
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
    from typing import Any, TypeVar

    _Result = TypeVar("_Result")


class Read(NamedTuple):
    """A record as a reader gets it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


def run(scenario: Coroutine[Any, Any, _Result], within_s: float = 60) -> _Result:
    """Run it, and see that the event loop has nothing to complain of: no task forgotten, no error left unread."""
    complaints: list[str] = []

    async def watched() -> _Result:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(str(context)))
        async with asyncio.timeout(within_s):
            return await scenario

    result = asyncio.run(watched())
    gc.collect()
    assert not complaints, complaints
    return result


async def until(condition: Callable[[], bool | Awaitable[bool]], within_s: float = 20) -> None:
    """Wait for it."""
    async with asyncio.timeout(within_s):
        while True:
            met = condition()
            if met if isinstance(met, bool) else await met:
                return
            await asyncio.sleep(0.02)


def unused(name: str) -> str:
    """A name that nobody has; the topics of others leave those that begin so alone."""
    return f"apart.{name}-{uuid.uuid4().hex[:8]}"


async def create(servers: str, *topics: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
    """Create topics."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        new = [NewTopic(topic, partitions, 1, topic_configs=dict(config or {})) for topic in topics]
        answer = await admin.create_topics(new)
        assert not any(code for _, code, *_ in answer.topic_errors), answer
    finally:
        await admin.close()


async def delete_records(servers: str, topic: str, partition: int, before: int) -> None:
    """As retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before_offset=before)})
    finally:
        await admin.close()


@asynccontextmanager
async def producing(servers: str, transactional_id: str | None = None, **options: Any) -> AsyncIterator[Any]:
    """A producer of others."""
    producer = AIOKafkaProducer(bootstrap_servers=servers, transactional_id=transactional_id, **options)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def read(servers: str, topic: str, partitions: int = 1, isolation: str = "read_committed") -> list[Read]:
    """All records of a topic."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=servers, isolation_level=isolation, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    found: list[Read] = []
    try:
        for partition in range(partitions):
            tp = TopicPartition(topic, partition)
            consumer.assign([tp])
            await consumer.seek_to_beginning(tp)
            end = (await consumer.end_offsets([tp]))[tp]
            while await consumer.position(tp) < end:
                found.extend(
                    Read(partition, record.offset, record.key, record.value, record.headers)
                    for record in (await consumer.getmany(tp, timeout_ms=100)).get(tp, ())
                )
    finally:
        await consumer.stop()
    return found
