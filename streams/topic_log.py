"""Partitions of the input topics as a replay reads them: fetched once, kept as they came (contract §2, §4).

Laws of this file:

- A record's number is its place: topic, partition, offset, in that order. So dead letters are told.
- A record is judged as live: one whose key is not its account, or that lies in another partition than its account's, is
  refused.
- What is for everybody is on every partition. A part takes it from all of them, as a replay of files does, but tells of
  its own only.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final

import msgspec

from models.contract import EVERYONE
from models.refusal import Refusal
from streams.admission import admit, check_partition, source_of
from streams.files import FILE_TOPICS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from models.outputs import DeadLetter, Source
    from models.records import Record, Topic
    from streams.fetched import Record as Fetched
    from streams.partitioner import Partition as PartitionOf

#: How many records are decoded until progress is told.
_RECORDS_A_REPORT: Final = 16_384

_EVERYONE: Final = EVERYONE.encode()


class _Kept(msgspec.Struct, gc=False):
    """A record as it lay in Kafka: a `fetched.Record`."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    timestamp_type: int = 0


class Log:
    """What one partition of a topic holds. Column by column: objects would take twice the room."""

    def __init__(self, topic: Topic, partition: int) -> None:
        self.topic: Topic = topic
        self.partition = partition
        self.keys: list[bytes | None] = []
        self.values: list[bytes | None] = []
        self.offsets = array("q")
        self._timestamps = array("q")

    def extend(self, records: Iterable[Fetched], end: int, known: dict[bytes | None, bytes | None]) -> None:
        """Add those before the offset `end`. `known` has each key once, for all logs: there are few accounts."""
        add_key, add_value = self.keys.append, self.values.append
        add_offset, add_timestamp, known_as = self.offsets.append, self._timestamps.append, known.setdefault
        for record in records:
            offset = record.offset
            if offset >= end:
                break
            key = record.key
            add_key(known_as(key, key))
            add_value(record.value)
            add_offset(offset)
            add_timestamp(record.timestamp)

    def source(self, index: int) -> Source:
        """Where the record at `index` came from."""
        record = _Kept(self.offsets[index], self.keys[index], self.values[index], self._timestamps[index])
        return source_of((self.topic, self.partition), record)

    def index(self, offset: int) -> int:
        """The index of an offset that is there."""
        return bisect_left(self.offsets, offset)


class Logs:
    """What a part of a replay reads: `own` partitions, and of `guests` the controls for everybody."""

    def __init__(self, own: Iterable[Log], guests: Iterable[Log], partition_of: PartitionOf) -> None:
        by_place = sorted(
            [(log, False) for log in own] + [(log, True) for log in guests],
            key=lambda one: (FILE_TOPICS.index(one[0].topic), one[0].partition),
        )
        self._logs = [log for log, _ in by_place]
        self._firsts: list[int] = []
        self._portions: list[_Judged] = []
        first = 0
        for log, is_guest in by_place:
            self._firsts.append(first)
            self._portions.append(_Judged(log, first, partition_of, is_guest=is_guest))
            first += len(log.values)
        self.size = first
        self._places = {(log.topic, log.partition): place for place, log in enumerate(self._logs)}

    @property
    def portions(self) -> Sequence[_Judged]:
        """The partitions."""
        return self._portions

    def topic(self, number: int) -> Topic:
        """The topic of a record."""
        return self._find(number)[0].topic

    def number_of(self, letter: DeadLetter) -> int:
        """The number of a record by its dead letter."""
        assert letter.partition is not None  # it is of a topic
        place = self._places[letter.topic, letter.partition]  # type: ignore[index]  # of one of ours
        return self._firsts[place] + self._logs[place].index(letter.offset)

    def source(self, number: int) -> Source:
        """Where a record came from."""
        log, index = self._find(number)
        return log.source(index)

    def raw(self, number: int) -> bytes:
        """The bytes of a record."""
        log, index = self._find(number)
        return log.values[index] or b""

    def _find(self, number: int) -> tuple[Log, int]:
        place = bisect_right(self._firsts, number) - 1  # of empty logs the last, which is not empty
        return self._logs[place], number - self._firsts[place]


class _Judged:
    """The records of a log, each admitted or refused; of a guest's those for everybody."""

    def __init__(self, log: Log, first: int, partition_of: PartitionOf, *, is_guest: bool) -> None:
        self.topic: Topic = log.topic
        self.is_guest = is_guest
        self._log = log
        self._first = first
        self._partition_of = partition_of

    def records(
        self, refuse: Callable[[int, Refusal], None], progress: Callable[[int], None]
    ) -> Iterator[tuple[int, Record]]:
        """Each record with its number."""
        log, topic, number, done = self._log, self.topic, self._first - 1, 0
        partition, partition_of, is_guest = log.partition, self._partition_of, self.is_guest
        seen = _Kept(0, None, None, 0)
        for key, value in zip(log.keys, log.values, strict=True):
            number += 1
            done += 1
            if done == _RECORDS_A_REPORT:
                progress(done)
                done = 0
            if is_guest and key != _EVERYONE:
                continue
            seen.key, seen.value = key, value
            try:
                record = admit(topic, seen)
                check_partition(record.account_id, partition, partition_of)
            except Refusal as refusal:
                if not is_guest:
                    # A new one: what was raised holds on to the record and to all that looked at it.
                    refuse(number, Refusal(refusal.error, refusal.field, refusal.message))
            else:
                yield number, record
        progress(done)
