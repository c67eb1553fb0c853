"""A partition, read from one position to another: committed records only, no group, nothing committed anywhere."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiokafka.errors import KafkaError, for_code  # type: ignore[import-untyped]
from aiokafka.protocol.fetch import FetchRequest  # type: ignore[import-untyped]
from aiokafka.record.memory_records import MemoryRecords  # type: ignore[import-untyped]

from streams.fetched import unpack

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

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
        wanted = [(topic, [(number, position, _FETCH_BYTES)])]
        answer = await reader.send(
            leader, FetchRequest(_FETCH_WAIT_MS, 1, _FETCH_BYTES, _READ_COMMITTED, wanted, rack_id="")
        )
        ((_, ((_, code, _, *rest),)),) = answer.topics
        if code:
            raise for_code(code)(f"{topic} partition {number}")
        aborted = rest[-3 if answer.API_VERSION >= _REPLICA_SINCE else -2]
        records, reached = unpack(MemoryRecords(rest[-1]), aborted or (), position)
        if reached == position:
            raise _Nothing(f"{topic} partition {number}: nothing at {position}")
        return records, reached

    return await reader.ask(question)
