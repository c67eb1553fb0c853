"""The topics that everybody reads, what is in them, and how much of it somebody has committed."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

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

    from models.records import Topic
    from streams.fetched import Partition

#: A topic, and a record for it.
Value: TypeAlias = "tuple[Topic, dict[str, str]]"

PARTITIONS: Final = 4
READ: Final = ("bills", "payments")
#: Over which the records are spread, up to a minute ago: none is too early, and none too late.
SPAN: Final = 3 * DAY
_BATCH_BYTES: Final = 256 * 1024


class Told(NamedTuple):
    """What somebody has published."""

    #: Committed records, by topic.
    counts: dict[str, int]
    #: When the last of them was appended, in seconds since 1970, by the broker's clock; 0 if there is none.
    last_at: float


async def load(kafka: Mapping[str, Any], records: int, accounts: int) -> None:
    """Make the inputs' topics, and fill bills and payments."""
    start = time.time_ns() // 1000 - MINUTE - SPAN
    await fill(kafka, values(records, accounts, start=start, span=SPAN))


async def fill(kafka: Mapping[str, Any], records: Iterable[Value], number_of_partitions: int = PARTITIONS) -> None:
    """Make the inputs' topics, and put these records into them."""
    await create(kafka, partitions=number_of_partitions, app_id="bench")
    await send(kafka, records, number_of_partitions)


async def send(kafka: Mapping[str, Any], records: Iterable[Value], number_of_partitions: int) -> None:
    """Put records into topics that are there, in large batches."""
    partition_of, encode = partition_by("murmur2", number_of_partitions), msgspec.json.Encoder().encode
    producer = AIOKafkaProducer(max_batch_size=_BATCH_BYTES, **kafka)
    await producer.start()
    batches: dict[Partition, Any] = {}
    try:
        for topic, value in records:
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
    settings = {"message.timestamp.type": "LogAppendTime"}  # as ours have it
    await admin.create_topics([NewTopic(name, PARTITIONS, 1, topic_configs=settings)])


async def ends(
    kafka: Mapping[str, Any], topics: Iterable[str] = READ, number_of_partitions: int = PARTITIONS
) -> dict[Partition, int]:
    """How far some inputs reach."""
    async with Watermarks(kafka) as watermarks:
        found = await watermarks.ends(_partitions(topics, number_of_partitions))
    return {partition: end.high for partition, end in found.items()}


def _partitions(topics: Iterable[str], number_of_partitions: int) -> list[Partition]:
    return [(topic, number) for topic in topics for number in range(number_of_partitions)]


async def committed_by_app(kafka: Mapping[str, Any], app_id: str, wanted: Iterable[Partition]) -> dict[Partition, int]:
    """How far ours has come in these: the positions in the checkpoints of its state."""
    state, asked = AppTopics.of(app_id).state, set(wanted)
    numbers = sorted({number for _, number in asked})
    found = await asyncio.gather(*(newest(kafka, (state, number), CHECKPOINT) for number in numbers))
    return {
        (topic, number): offset
        for number, value in zip(numbers, found, strict=True)
        for topic, offset in decode_positions(value).items()
        if (topic, number) in asked
    }


async def committed_by_group(admin: AIOKafkaAdminClient, group: str) -> dict[Partition, int]:
    """How far a peer has come: the offsets of its group."""
    found = await admin.list_consumer_group_offsets(group)
    return {(place.topic, place.partition): offset.offset for place, offset in found.items() if place.topic in READ}


async def reach(kafka: Mapping[str, Any], topics: Iterable[str], number_of_partitions: int = PARTITIONS) -> int:
    """How much has been written to some topics: records, and markers of transactions."""
    return sum((await ends(kafka, topics, number_of_partitions)).values())


async def told(
    kafka: Mapping[str, Any],
    topics: Iterable[str],
    number_of_partitions: int = PARTITIONS,
    *,
    until: float = float("inf"),
) -> Told:
    """The committed records of each topic, and the instant of the last one appended up to `until`."""
    counts: dict[str, int] = dict.fromkeys(topics, 0)
    last_at = 0.0
    async with Watermarks(kafka, timeout_s=30) as reader:
        found = await reader.ends(_partitions(counts, number_of_partitions))
        for (topic, number), end in found.items():
            async with aclosing(read_partition(reader, (topic, number), 0, end.stable)) as chunks:
                async for records in chunks:
                    instants = [record.timestamp / 1000 for record in records]
                    counts[topic] += len(instants)
                    last_at = max((at for at in (last_at, *instants) if at <= until), default=last_at)
    return Told(counts, last_at)
