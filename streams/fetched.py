"""What a fetch brought, as records.

aiokafka makes an object of eleven fields of each record, in Python, which is most of what reading costs: here its own
records, parsed in C, are handed on as they are. What is in no committed transaction is left out (read committed).
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from aiokafka.errors import CorruptRecordException  # type: ignore[import-untyped]
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aiokafka.record.memory_records import MemoryRecords  # type: ignore[import-untyped]

#: Topic and number. Faust's `TP` and aiokafka's `TopicPartition` are such tuples.
Partition: TypeAlias = tuple[str, int]

#: `Record.timestamp_type` of a topic with `message.timestamp.type=LogAppendTime`: the broker's clock.
APPEND_TIME: Final = 1


class Record(Protocol):
    """A record as it lies in Kafka."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""

    @property
    def key(self) -> bytes | None:
        """The account, where it is well made."""

    @property
    def value(self) -> bytes | None:
        """JSON, where it is well made; None: a tombstone."""

    @property
    def timestamp(self) -> int:
        """Milliseconds since 1970: when it was made, or appended."""

    @property
    def timestamp_type(self) -> int:
        """`APPEND_TIME`, or 0: the producer's clock."""


class OffsetGone(Exception):
    """The record that is to be read next is not in Kafka any more: the partition stops here, it never jumps."""

    def __init__(self, partition: Partition, wanted: int, earliest: int, end: int) -> None:
        topic, number = partition
        if wanted < earliest:
            lost = f"records {wanted} to {earliest - 1} have been deleted (retention?) before they were read"
        else:
            lost = f"record {wanted} is to be read next, but the partition ends at {end}: was the topic made anew?"
        super().__init__(f"{topic} partition {number}: {lost}; nothing of it is skipped")
        self.topic = topic
        self.partition = number
        self.wanted = wanted
        self.earliest = earliest
        self.end = end


def unpack(data: MemoryRecords, aborted: Iterable[tuple[int, int]], position: int) -> tuple[Iterator[Record], int]:
    """The committed records from `position` on, and the position that follows what was fetched.

    Between the two lie only those records, transaction markers, and what was aborted or compacted away. A record is
    made when it is asked for: a million of them at once cost the garbage collector as much as all the rest.

    `aborted`: producer and first offset of each transaction that was aborted. Raises `CorruptRecordException`; so does
    the iterator, and aiokafka's `UnsupportedCodecError` for a compression that needs a package which is not installed.
    """
    batches: list[Iterable[Record]] = []
    waiting = sorted(aborted, key=lambda transaction: transaction[1], reverse=True)
    aborting: set[int] = set()
    after = position
    while data.has_next():
        batch = data.next_batch()
        if not batch.validate_crc():
            raise CorruptRecordException(f"the checksum of the records at offset {batch.base_offset} is wrong")
        while waiting and waiting[-1][1] <= batch.base_offset:
            aborting.add(waiting.pop()[0])
        if batch.is_control_batch:
            if ControlRecord.parse(next(batch).key) == ABORT_MARKER:
                aborting.discard(batch.producer_id)
        elif not (batch.is_transactional and batch.producer_id in aborting):
            begins_before = batch.base_offset < position  # the first one may
            batches.append((record for record in batch if record.offset >= position) if begins_before else batch)
        after = max(after, batch.next_offset)
    return chain.from_iterable(batches), after
