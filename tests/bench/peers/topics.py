"""The topics that everybody reads, what is in them, and how much of it somebody has committed."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]
from aiokafka.admin import NewTopic  # type: ignore[import-untyped]

from models.instants import DAY, MINUTE
from streams.journal import CHECKPOINT, decode_positions, newest
from streams.partition_reader import read_partition
from streams.partitioner import partition_by
from streams.topic_design import AppTopics
from streams.topics import create
from streams.watermarks import Watermarks
from tests.bench.inputs import values

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aiokafka.admin import AIOKafkaAdminClient

    from streams.fetched import Partition

PARTITIONS: Final = 4
READ: Final = ("bills", "payments")
#: Over which the records are spread, up to a minute ago: none is too early, and none too late.
SPAN: Final = 3 * DAY
_BATCH_BYTES: Final = 256 * 1024


async def load(kafka: Mapping[str, Any], records: int, accounts: int) -> None:
    """Make the inputs' topics, and fill bills and payments."""
    await create(kafka, partitions=PARTITIONS, app_id="bench")
    partition_of, encode = partition_by("murmur2", PARTITIONS), msgspec.json.Encoder().encode
    producer = AIOKafkaProducer(max_batch_size=_BATCH_BYTES, **kafka)
    await producer.start()
    batches: dict[Partition, Any] = {}
    try:
        start = time.time_ns() // 1000 - MINUTE - SPAN
        for topic, value in values(records, accounts, start=start, span=SPAN):
            key, encoded = value["account_id"].encode(), encode(value)
            place: Partition = (topic, partition_of(key))
            batch = batches.get(place)
            if batch is None or batch.append(key=key, value=encoded, timestamp=None) is None:
                if batch is not None:
                    await producer.send_batch(batch, place[0], partition=place[1])
                batches[place] = batch = producer.create_batch()
                batch.append(key=key, value=encoded, timestamp=None)
        for place, batch in batches.items():
            await producer.send_batch(batch, place[0], partition=place[1])
        await producer.flush()
    finally:
        await producer.stop()


async def make(admin: AIOKafkaAdminClient, name: str) -> None:
    """A topic for what a peer tells."""
    await admin.create_topics([NewTopic(name, PARTITIONS, 1)])


def partitions(topics: Iterable[str]) -> list[Partition]:
    """All of some topics."""
    return [(topic, number) for topic in topics for number in range(PARTITIONS)]


async def ends(kafka: Mapping[str, Any]) -> dict[Partition, int]:
    """How far bills and payments reach."""
    async with Watermarks(kafka) as watermarks:
        found = await watermarks.ends(partitions(READ))
    return {partition: end.high for partition, end in found.items()}


async def committed_by_app(kafka: Mapping[str, Any], app_id: str) -> dict[Partition, int]:
    """How far ours has come: the positions in the checkpoints of its state."""
    state = AppTopics.of(app_id).state
    found = await asyncio.gather(*(newest(kafka, (state, number), CHECKPOINT) for number in range(PARTITIONS)))
    return {
        (topic, number): offset
        for number, value in enumerate(found)
        for topic, offset in decode_positions(value).items()
        if topic in READ
    }


async def committed_by_group(admin: AIOKafkaAdminClient, group: str) -> dict[Partition, int]:
    """How far a peer has come: the offsets of its group."""
    found = await admin.list_consumer_group_offsets(group)
    return {(place.topic, place.partition): offset.offset for place, offset in found.items() if place.topic in READ}


async def count(kafka: Mapping[str, Any], topics: Iterable[str]) -> dict[str, int]:
    """The committed records of each topic."""
    counted: dict[str, int] = dict.fromkeys(topics, 0)
    async with Watermarks(kafka, timeout_s=30) as reader:
        reach = await reader.ends(partitions(counted))
        for (topic, number), end in reach.items():
            async with aclosing(read_partition(reader, (topic, number), 0, end.stable)) as chunks:
                async for records in chunks:
                    counted[topic] += sum(1 for _ in records)
    return counted
