"""Reads what a run has left on the broker, as any consumer would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiokafka import AIOKafkaConsumer, TopicPartition  # type: ignore[import-untyped]

from tests.chaos.run import INPUTS, OUTPUTS, Recorded, Run

if TYPE_CHECKING:
    from collections.abc import Iterable

_FETCH_BYTES: Final = 16 << 20
COMMITTED, UNCOMMITTED = "read_committed", "read_uncommitted"


async def read(servers: str, topic: str, partitions: int, isolation: str = COMMITTED) -> list[Recorded]:
    """All records of a topic."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=servers,
        isolation_level=isolation,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=_FETCH_BYTES,
    )
    await consumer.start()
    found: list[Recorded] = []
    try:
        for number in range(partitions):
            place = TopicPartition(topic, number)
            consumer.assign([place])
            await consumer.seek_to_beginning(place)
            end = (await consumer.end_offsets([place]))[place]
            while await consumer.position(place) < end:
                found.extend(
                    Recorded(
                        number, record.offset, record.timestamp * 1000, record.key, record.value, tuple(record.headers)
                    )
                    for record in (await consumer.getmany(place, timeout_ms=100)).get(place, ())
                )
    finally:
        await consumer.stop()
    return found


async def ends(servers: str, topics: Iterable[str], partitions: int) -> dict[tuple[str, int], int]:
    """Where each partition ends, open transactions included."""
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, isolation_level=UNCOMMITTED, enable_auto_commit=False)
    await consumer.start()
    try:
        places = [TopicPartition(topic, number) for topic in topics for number in range(partitions)]
        return {(place.topic, place.partition): end for place, end in (await consumer.end_offsets(places)).items()}
    finally:
        await consumer.stop()


def names_of(run: Run) -> dict[str, str]:
    """The topics of a run: what they are called on the broker, by what they are called here."""
    return {name: name for name in INPUTS} | {name: f"{run.app_id}.{name}" for name in OUTPUTS}


async def read_run(servers: str, run: Run) -> int:
    """Read everything into the run; returns how many commands there are that nobody may see."""
    for name, topic in names_of(run).items():
        run.take(name, await read(servers, topic, run.partitions))
    everything = await read(servers, f"{run.app_id}.commands", run.partitions, UNCOMMITTED)
    return len(everything) - len(run.topics["commands"])
