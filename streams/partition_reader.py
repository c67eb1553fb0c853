"""A partition, read from one position to another: committed records only, no group, nothing committed anywhere."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from aiokafka.errors import KafkaError, for_code  # type: ignore[import-untyped]
from aiokafka.protocol.fetch import FetchRequest  # type: ignore[import-untyped]
from aiokafka.record.memory_records import MemoryRecords  # type: ignore[import-untyped]

from streams.fetched import unpack

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence

    from streams.fetched import Partition, Record
    from streams.watermarks import Watermarks

#: So much is fetched at once.
_FETCH_BYTES: Final = 2 << 20
_FETCH_WAIT_MS: Final = 100
_READ_COMMITTED: Final = 1
#: The version of Fetch since which a replica is named between the aborted transactions and the records.
_REPLICA_SINCE: Final = 11


class _Nothing(KafkaError):  # type: ignore[misc]
    """Records lie ahead, but none came."""

    retriable = True


async def read_partition(
    reader: Watermarks, partition: Partition, position: int, end: int
) -> AsyncGenerator[Iterator[Record], None]:
    """The committed records from a position to an end. While some are taken in, the brokers send the next.

    The last of them may lie past the end, if more has been written since. Raises `Unanswered`; its iterators raise what
    `fetched.unpack` raises.
    """
    ahead: asyncio.Future[tuple[Iterator[Record], int]] | None = None
    try:
        while position < end:
            records, position = await (ahead or fetch(reader, partition, position))
            ahead = asyncio.ensure_future(fetch(reader, partition, position)) if position < end else None
            await asyncio.sleep(0)  # the request goes out
            yield records
    finally:
        if ahead is not None:
            ahead.cancel()
            await asyncio.wait({ahead})
            if not ahead.cancelled():
                ahead.exception()  # read, or asyncio would complain of it


async def fetch(reader: Watermarks, partition: Partition, position: int) -> tuple[Iterator[Record], int]:
    """The committed records from a position on, and the next position, which is a later one."""

    async def question() -> tuple[Iterator[Record], int]:
        topic, number = partition
        leader = await reader.leader(partition)
        wanted = {topic: [(number, position, _FETCH_BYTES)]}
        (found,) = await ask_leader(reader, leader, wanted, wait_ms=_FETCH_WAIT_MS, most_bytes=_FETCH_BYTES)
        if found.code:
            raise for_code(found.code)(f"{topic} partition {number}")
        records, reached = unpack(MemoryRecords(found.data), found.aborted, position)
        if reached == position:
            raise _Nothing(f"{topic} partition {number}: nothing at {position}")
        return records, reached

    return await reader.ask(question)


class Fetched(NamedTuple):
    """What a broker answered for one partition."""

    partition: Partition
    #: Kafka's error code; 0 if there is none.
    code: int
    #: Producer and first offset of each transaction that was aborted.
    aborted: Sequence[tuple[int, int]]
    data: bytes


async def ask_leader(
    reader: Watermarks,
    leader: int,
    wanted: Mapping[str, list[tuple[int, int, int]]],
    *,
    wait_ms: int,
    most_bytes: int,
) -> list[Fetched]:
    """One request, inside a question: by topic the partitions, with position and bytes at most; what is committed."""
    request = FetchRequest(wait_ms, 1, most_bytes, _READ_COMMITTED, list(wanted.items()), rack_id="")
    answer = await reader.send(leader, request)
    place = -3 if answer.API_VERSION >= _REPLICA_SINCE else -2
    return [
        Fetched((topic, number), code, rest[place] or (), rest[-1] or b"")
        for topic, rows in answer.topics
        for number, code, _, *rest in rows
    ]
