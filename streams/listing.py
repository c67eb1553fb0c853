"""What came out of the topics: commands, notices, dead letters, account views, once or as they come.

Laws of this file:

- Read committed, of partitions that are assigned: no group, and no trace on the brokers.
- A program gets each value as it stands in its topic, a line each; a person gets a table.
- What is told of many accounts is in the order in which it was published.
"""

from __future__ import annotations

import asyncio
import signal
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import msgspec

from models.contract import EVERYONE
from models.instants import SECOND, parse_duration, parse_instant
from streams.brokers import Complaints, address, in_one_line, look_at
from streams.faults import NobodyReads, Unusable
from streams.fetched import OffsetGone
from streams.files import STANDARD
from streams.kafka_client import kafka_client_options
from streams.listed import LISTED, Listed
from streams.partitioner import partition_by
from streams.reading import Reader
from streams.showing import on_terminal, say, show
from streams.topic_design import AppTopics
from streams.watermarks import Unanswered
from streams.writers import Output

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from models.instants import Instant
    from streams.fetched import Partition, Record
    from streams.settings import Settings

#: What can be listed, as the command line names it.
What = Literal["commands", "notices", "dead-letters", "accounts"]

_AGAIN_AFTER_S: Final = 1.0
_AGAIN_AT_MOST_S: Final = 30.0
#: For the last few, so many offsets are looked at first: about every other one ends a transaction.
_LEAST_LOOKED_AT: Final = 500


class Given(NamedTuple):
    """What was typed."""

    follow: bool
    account: str | None
    since: str | None
    limit: int | None
    #: Of accounts only: their status.
    status: str | None = None


class _Wanted(NamedTuple):
    """The same, understood."""

    listed: Listed
    topic: str
    follow: bool
    account: bytes | None
    since: Instant | None
    limit: int | None
    status: str | None


def list_outputs(what: What, settings: Settings, given: Given, *, as_json: bool) -> None:
    """`arrears commands`, `notices`, `dead-letters` and `accounts`. Raises `Unusable`."""
    wanted = _understood(what, settings, given)
    kafka = kafka_client_options(settings)
    with ExitStack() as stack:
        sink: _Sink
        if as_json or not on_terminal():
            sink = _Lines(stack.enter_context(Output("--json", STANDARD)))
        else:
            sink = _Tables(wanted.listed, follow=wanted.follow)
        try:
            asyncio.run(_List(kafka, settings, wanted, sink).run())
        except OffsetGone as gone:
            raise Unusable(f"{gone}: begin anew") from None


def _understood(what: What, settings: Settings, given: Given) -> _Wanted:
    if given.account == EVERYONE:
        raise Unusable('--account "*" stands for everybody: leave it out, or name one account')
    if given.account == "":
        raise Unusable("--account is empty: name an account, or leave the option out")
    if given.limit is not None and given.limit < 1:
        raise Unusable(f"--limit {given.limit} is too few: choose 1 or more")
    topic = getattr(AppTopics.of(settings.app_id), what.replace("-", "_"))
    since = None if given.since is None else since_instant(given.since, time.time_ns() // 1000)
    account = None if given.account is None else given.account.encode(errors="surrogateescape")
    return _Wanted(LISTED[what], topic, given.follow, account, since, given.limit, given.status)


def since_instant(text: str, now: Instant) -> Instant:
    """An instant, or how long ago (PT1H). Raises `Unusable`."""
    with suppress(ValueError):
        return now - parse_duration(text.removeprefix("-"))
    try:
        return parse_instant(text)
    except ValueError as error:
        raise Unusable(f"--since {error}, or how long ago, like PT1H") from None


# Where it goes --------------------------------------------------------------------------------------------------------


class _Sink(ABC):
    """Where values go."""

    @abstractmethod
    def write(self, values: Sequence[bytes]) -> None:
        """Take these. Raises NobodyReads when there is nobody left."""

    def is_read(self) -> bool:
        """Whether there is anybody left to read."""
        return True

    @abstractmethod
    def end(self) -> None:
        """Nothing more comes."""


class _Lines(_Sink):
    """A line of JSON each."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def write(self, values: Sequence[bytes]) -> None:
        self._output.write_all(map(msgspec.Raw, values))
        self._output.flush()
        if self._output.closed:
            raise NobodyReads

    def is_read(self) -> bool:
        return self._output.is_read()

    def end(self) -> None:
        self._output.finish()


class _Tables(_Sink):
    """A table; with `follow` its rows as they come."""

    def __init__(self, listed: Listed, *, follow: bool) -> None:
        self._listed = listed
        self._follow = follow
        self._counts: Counter[str] = Counter()
        self._values: list[dict[str, Any]] = []

    def write(self, values: Sequence[bytes]) -> None:
        read = [msgspec.json.decode(value) for value in values]
        self._counts.update(self._listed.counted_by(value) for value in read)
        if self._follow:
            show(self._listed.rows(read, header=self._counts.total() == len(read)))
        else:
            self._values += read

    def end(self) -> None:
        if self._values:
            show(self._listed.table(self._values))
        if not self._follow:
            show(self._listed.total(self._counts))


# Reading --------------------------------------------------------------------------------------------------------------


class _List:
    def __init__(self, kafka: Mapping[str, Any], settings: Settings, wanted: _Wanted, sink: _Sink) -> None:
        self._kafka = kafka
        self._settings = settings
        self._wanted = wanted
        self._sink = sink

    async def run(self) -> None:
        """Read, and hand it over; with `follow` until a signal comes."""
        with Complaints():
            if self._wanted.follow:
                with _ends_quietly(), suppress(asyncio.CancelledError):
                    await self._read()
            else:
                await self._read()
        self._sink.end()

    async def _read(self) -> None:
        cluster = await look_at(self._kafka, [self._wanted.topic])
        async with Reader(self._kafka) as reader:
            with in_one_line(self._kafka):
                first, ends = await self._range(reader, self._numbers(cluster.partitions[self._wanted.topic]))
                await self._until(reader, first, ends)
            if self._wanted.follow:
                await self._follow(reader, dict(ends))

    def _numbers(self, partitions: int) -> list[int]:
        account = self._wanted.account
        if account is None or not self._wanted.listed.in_its_partition:
            return list(range(partitions))
        return [partition_by(self._settings.partitioner, partitions)(account)]

    async def _range(self, reader: Reader, numbers: Sequence[int]) -> tuple[dict[Partition, int], dict[Partition, int]]:
        """From where to where: what is committed now."""
        partitions = [(self._wanted.topic, number) for number in numbers]
        first: dict[Partition, int] = await reader.earliest(partitions)
        ends = {partition: end.stable for partition, end in (await reader.ends(partitions)).items()}
        if self._wanted.since is not None:
            found = await reader.first_since(partitions, -(-self._wanted.since // (SECOND // 1000)))
            for partition in partitions:
                begin = found[partition]
                first[partition] = ends[partition] if begin is None else max(begin, first[partition])
        return first, ends

    async def _until(self, reader: Reader, first: Mapping[Partition, int], ends: Mapping[Partition, int]) -> None:
        """What is there."""
        if self._wanted.listed.last_of_each:
            await self._last_of_each(reader, first, ends)
        elif self._wanted.limit is not None:
            self._sink.write(await self._last(reader, first, ends, self._wanted.limit))
        else:
            async for records in reader.merged(first, ends):
                if values := self._of_interest(records):
                    self._sink.write(values)

    async def _last(
        self, reader: Reader, first: Mapping[Partition, int], ends: Mapping[Partition, int], limit: int
    ) -> list[bytes]:
        """The last few, without reading all if that can be helped."""
        looked_at = max(_LEAST_LOOKED_AT, 3 * limit)
        while True:
            begin = {partition: max(offset, ends[partition] - looked_at) for partition, offset in first.items()}
            found: dict[Partition, deque[Record]] = {partition: deque(maxlen=limit) for partition in begin}
            async for records in reader.merged(begin, ends):
                for partition, record in records:
                    if self._is_of_interest(record):
                        found[partition].append(record)
            if all(begin[one] == first[one] or len(found[one]) >= limit for one in begin):
                break
            looked_at *= 8
        rows = sorted(
            (
                (record.timestamp, partition, record.offset, record.value)
                for partition in found
                for record in found[partition]
            ),
        )
        return [value or b"" for *_, value in rows[-limit:]]

    async def _last_of_each(
        self, reader: Reader, first: Mapping[Partition, int], ends: Mapping[Partition, int]
    ) -> None:
        """Of each account the last, in the order of their ids; of those with `limit` the ones that changed last."""
        last: dict[bytes, bytes] = {}
        async for records in reader.merged(first, ends):
            for _, record in records:
                if record.key is None or not self._is_meant(record):
                    continue
                last.pop(record.key, None)  # so that what has changed last comes last
                if record.value is not None and self._has_status(record.value):
                    last[record.key] = record.value
        limit = self._wanted.limit
        keys = list(last)[-limit:] if limit is not None else list(last)
        self._sink.write([last[key] for key in sorted(keys)])

    async def _follow(self, reader: Reader, positions: dict[Partition, int]) -> None:
        """What comes, until somebody has had enough."""
        wait_s = _AGAIN_AFTER_S
        while self._sink.is_read():
            try:
                read = await reader.fetch(positions)
            except Unanswered as error:
                say(f"arrears: the brokers at {address(self._kafka)} do not answer ({error}): waiting for them")
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _AGAIN_AT_MOST_S)
                continue
            wait_s = _AGAIN_AFTER_S
            records = [(partition, record) for partition, (found, _) in read.items() for record in found]
            records.sort(key=lambda one: (one[1].timestamp, one[0], one[1].offset))
            positions.update({partition: reached for partition, (_, reached) in read.items()})
            if values := self._of_interest(records):
                self._sink.write(values)

    # -- what is meant ----------------------------------------------------------------------------------------------

    def _of_interest(self, records: Sequence[tuple[Partition, Record]]) -> list[bytes]:
        return [record.value for _, record in records if record.value is not None and self._is_of_interest(record)]

    def _is_of_interest(self, record: Record) -> bool:
        return record.value is not None and self._is_meant(record) and self._has_status(record.value)

    def _is_meant(self, record: Record) -> bool:
        account = self._wanted.account
        return account is None or self._wanted.listed.is_about(account, record)

    def _has_status(self, value: bytes) -> bool:
        wanted = self._wanted.status
        return wanted is None or msgspec.json.decode(value).get("status") == wanted


@contextmanager
def _ends_quietly() -> Iterator[None]:
    """While it lasts, Ctrl-C and the like cancel this task: that is how one stops to listen."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    ours = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in ours:
        loop.add_signal_handler(number, task.cancel)
    try:
        yield
    finally:
        for number in ours:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])
