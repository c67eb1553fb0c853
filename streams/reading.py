"""Reads topics as they are, committed records only: without a group, and without leaving a trace.

Laws of this file:

- Positions belong to whoever reads: nothing is committed anywhere.
- Every wait has an end: brokers that do not answer are told as `Unanswered`.
- Of a partition nothing is left out between the first position and the last; an offset that is gone is told as
  `OffsetGone`.
"""

# aiokafka has no types.

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from heapq import heapify, heappop, heapreplace
from typing import TYPE_CHECKING, Any, Final

from aiokafka.errors import OffsetOutOfRangeError, for_code  # type: ignore[import-untyped]
from aiokafka.record.memory_records import MemoryRecords  # type: ignore[import-untyped]

from streams.fetched import OffsetGone, unpack
from streams.partition_reader import Fetched, ask_leader
from streams.watermarks import Unanswered, Watermarks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from streams.fetched import Partition, Record

_TIMEOUT_S: Final = 10.0
#: So much of one partition at once, and of all.
_PARTITION_BYTES: Final = 1 << 20
_FETCH_BYTES: Final = 8 << 20
#: How long the brokers wait for something new where nothing is.
_WAIT_MS: Final = 200
#: A transaction that is open at the end of what is to be read is waited for, no longer than brokers let one live.
_SETTLE_WITHIN_S: Final = 60.0
_SETTLE_RETRY_S: Final = 0.1

_READ_COMMITTED: Final = 1


class Reader(Watermarks):
    """A client. A context; or `start` and `stop`. Every method raises `Unanswered`."""

    def __init__(self, client: Mapping[str, Any], *, timeout_s: float = _TIMEOUT_S) -> None:
        super().__init__(client, timeout_s=timeout_s)

    async def first_since(self, partitions: Iterable[Partition], milliseconds: int) -> dict[Partition, int | None]:
        """The offset of the first record with this timestamp or a later one; None if there is none."""
        asked = set(partitions)
        found = await self.ask(lambda: self._list(asked, _READ_COMMITTED, milliseconds))
        return {partition: None if offset < 0 else offset for partition, offset in found.items()}

    async def fetch(self, positions: Mapping[Partition, int]) -> dict[Partition, tuple[list[Record], int]]:
        """Committed records of some partitions from these positions on, and the position that follows.

        One request a broker; where nothing is, it comes back after a moment. Raises `OffsetGone`.
        """

        async def question() -> list[Fetched]:
            by_leader: defaultdict[int, defaultdict[str, list[tuple[int, int, int]]]]
            by_leader = defaultdict(lambda: defaultdict(list))
            for (topic, number), position in positions.items():
                leader = await self.leader((topic, number))
                by_leader[leader][topic].append((number, position, _PARTITION_BYTES))
            answers = await asyncio.gather(
                *(
                    ask_leader(self, leader, topics, wait_ms=_WAIT_MS, most_bytes=_FETCH_BYTES)
                    for leader, topics in by_leader.items()
                )
            )
            found = [one for answer in answers for one in answer]
            for (topic, number), code, *_ in found:
                if code and for_code(code) is not OffsetOutOfRangeError:
                    raise for_code(code)(f"{topic} partition {number}")
            return found

        read: dict[Partition, tuple[list[Record], int]] = {}
        for partition, code, aborted, data in await self.ask(question):
            if code:
                raise await self._gone(partition, positions[partition])
            records, reached = unpack(MemoryRecords(data), aborted, positions[partition])
            read[partition] = list(records), reached
        return read

    async def _gone(self, partition: Partition, wanted: int) -> OffsetGone:
        earliest, ends = await self.earliest([partition]), await self.ends([partition])
        return OffsetGone(partition, wanted, earliest[partition], ends[partition].high)

    async def settled_ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Where they end, once what is in open transactions now is committed or aborted."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _SETTLE_WITHIN_S
        wanted = {partition: end.high for partition, end in (await self.ends(partitions)).items()}
        while True:
            stable = {partition: end.stable for partition, end in (await self.ends(wanted)).items()}
            hanging = [partition for partition, high in wanted.items() if stable[partition] < high]
            if not hanging:
                return wanted
            if loop.time() > until:
                topic, number = hanging[0]
                raise Unanswered(f"a transaction hangs in {topic} partition {number} at {stable[topic, number]}")
            await asyncio.sleep(_SETTLE_RETRY_S)

    async def until_now(self, positions: Mapping[Partition, int]) -> AsyncIterator[tuple[Partition, list[Record]]]:
        """All records from these positions up to where the partitions end now; of each in order."""
        ends = await self.settled_ends(positions)
        left = {partition: position for partition, position in positions.items() if position < ends[partition]}
        while left:
            for partition, (records, reached) in (await self.fetch(left)).items():
                if records:
                    end = ends[partition]
                    yield partition, [record for record in records if record.offset < end]
                left[partition] = reached
                if reached >= ends[partition]:
                    del left[partition]

    async def merged(
        self, positions: Mapping[Partition, int], ends: Mapping[Partition, int]
    ) -> AsyncIterator[list[tuple[Partition, Record]]]:
        """The records of several partitions up to these ends, by their timestamps; those of one partition in order."""
        left = {partition: position for partition, position in positions.items() if position < ends[partition]}
        here: dict[Partition, deque[Record]] = {partition: deque() for partition in left}
        while left or any(here.values()):
            wanted = {partition: position for partition, position in left.items() if not here[partition]}
            for partition, (records, reached) in (await self.fetch(wanted)).items() if wanted else ():
                here[partition].extend(record for record in records if record.offset < ends[partition])
                left[partition] = reached
                if reached >= ends[partition]:
                    del left[partition]
            if all(here[partition] for partition in left):
                yield _earliest_first(here, left)


def _earliest_first(
    here: Mapping[Partition, deque[Record]], left: Mapping[Partition, int]
) -> list[tuple[Partition, Record]]:
    """Take what is certainly next, up to where one that has more has none here."""
    heads = [(records[0].timestamp, partition) for partition, records in here.items() if records]
    heapify(heads)
    taken: list[tuple[Partition, Record]] = []
    while heads:
        _, partition = heads[0]
        records = here[partition]
        taken.append((partition, records.popleft()))
        if records:
            heapreplace(heads, (records[0].timestamp, partition))
        else:
            heappop(heads)
            if partition in left:
                break
    return taken
