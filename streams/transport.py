"""The Faust transport that hands an agent what a fetch brought of one partition, as one `RecordBatch`.

Everything is done by subclassing what Faust lets a transport choose; it is registered as the entry point `batched` of
`faust.transports`. An app for it is a `BatchApp`, and an agent's topic has `schema=BatchSchema()` and `acks=False`.

Laws of this file:

- The positions belong to whoever keeps the tables. A partition is silent until `Consumer.release` places it, and again
  from the moment it is revoked. Faust neither seeks nor commits.
- What is handed out of a partition since it was placed is without a hole: each batch begins where the one before ended,
  and covers all that was committed up to its own end. Where that cannot be, nothing is handed out.
- An offset that is gone is told as `OffsetGone`; nothing jumps over it.
- An error in a rebalance, in the group's coordination or in fetching crashes the app: none is only logged.
- Only the consumer's thread touches aiokafka's consumer.
"""

# aiokafka has no types, and not a public word for everything that is needed here.
# ruff: noqa: ANN401, SLF001

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, cast

import faust
from aiokafka import AIOKafkaConsumer, TopicPartition  # type: ignore[import-untyped]
from aiokafka.consumer.fetcher import FetchError, FetchResult  # type: ignore[import-untyped]
from aiokafka.errors import (  # type: ignore[import-untyped]
    ConsumerStoppedError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode import Service

from streams.fetched import OffsetGone, Record, unpack

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from faust.types import AppT, Message
    from faust.types.transports import ConsumerT, ProducerT

    from streams.fetched import Partition

#: Faust finds this transport by it; the brokers' addresses are not in it, they are among an app's client options.
BROKER: Final = "batched://"

#: Records of a batch at most: what an agent applies without letting anybody else in.
MAX_RECORDS: Final = 4000

#: A fetch brings so much of a partition, as it lies in Kafka; the first record even if it is larger.
_PARTITION_BYTES: Final = 1 << 20
#: Faust has 1500 ms, during which partitions that have something wait for those that have nothing.
_FETCH_WAIT_MS: Final = 50
#: When nothing has come for `_QUIET_S` that is all they wait for: a question names every partition, and costs as much.
_QUIET_FETCH_WAIT_MS: Final = 250
_QUIET_S: Final = 1.0

_POLL_S: Final = 0.1
#: About so many records are taken at once, so that the group hears of this member meanwhile.
_POLL_RECORDS: Final = 20_000
_NOTHING_RELEASED_S: Final = 0.02
_WATCH_EVERY_S: Final = 1.0
_STOP_WITHIN_S: Final = 5.0


class RecordBatch(NamedTuple):
    """The committed records of one partition with offsets from `start` up to, not including, `next`."""

    topic: str
    partition: int
    start: int
    next: int
    records: Sequence[Record]


class NotCopartitioned(Exception):
    """A partition was assigned without its counterparts in other topics: what belongs together would be apart."""


def check_copartitioned(assigned: Iterable[Partition], topics: Iterable[str]) -> None:
    """Refuse an assignment that lacks a topic of a partition. Raises NotCopartitioned."""
    assigned = set(assigned)
    missing = sorted({(topic, number) for _, number in assigned for topic in topics} - assigned)
    if missing:
        told = ", ".join(f"{topic} {number}" for topic, number in missing[:10])
        raise NotCopartitioned(
            f"partitions were assigned without {told}: all input topics need the same number of partitions, and every"
            " worker of the app has to read all of them"
        )


class BatchApp(faust.App):
    """A Faust app for this transport.

    `client` are aiokafka's options that say how to reach the brokers, TLS and SASL too; Faust's own play no part.
    `on_offset_gone` is told of a partition that stops because its next record is gone; without it the app crashes.
    """

    def __init__(
        self,
        app_id: str,
        *,
        client: Mapping[str, Any],
        on_offset_gone: Callable[[OffsetGone], None] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(app_id, **{"broker": BROKER, **options})
        self.client = client
        self.on_offset_gone = on_offset_gone or _raise

    @property
    def batches(self) -> Consumer:
        """Where partitions are released."""
        return cast("Consumer", self.consumer)

    def on_rebalance_return(self) -> None:
        """Faust warns of a sensor's state that it has already taken away itself."""
        if self._rebalancing_sensor_state:
            super().on_rebalance_return()

    def on_rebalance_end(self) -> None:
        """Likewise."""
        if self._rebalancing_sensor_state:
            super().on_rebalance_end()
        else:
            self.rebalancing = False


def _raise(gone: OffsetGone) -> None:
    raise gone


class BatchSchema(faust.Schema[Any, Any]):
    """An event's value is the RecordBatch itself: Faust decodes nothing."""

    def compile(self, app: AppT, **_: Any) -> Any:
        """As Faust asks for it."""

        async def decode(message: Message, *, propagate: bool = False) -> Any:  # noqa: ARG001
            return app.create_event(None, cast("Any", message.value), {}, message)

        return decode


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Owns aiokafka's consumer, in a thread and an event loop of its own, and knows what it has handed out of it."""

    app: BatchApp

    def __post_init__(self) -> None:
        super().__post_init__()
        #: What follows the last record handed out; only of partitions that were placed since they were assigned.
        self._cursors: dict[Partition, int] = {}
        self.topics: set[str] = set()
        self._found_at = time.monotonic()

    def _create_worker_consumer(self, transport: driver.Transport) -> Any:  # noqa: ARG002
        conf = self.app.conf
        self._assignor = self.app.assignor  # without Tables Faust would take round robin, which is not co-partitioned
        return AIOKafkaConsumer(
            group_id=conf.id,
            group_instance_id=conf.consumer_group_instance_id,
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset="none",  # an offset that is gone is an error, never a jump
            isolation_level="read_committed",
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            max_partition_fetch_bytes=_PARTITION_BYTES,
            request_timeout_ms=_milliseconds(conf.broker_request_timeout),
            session_timeout_ms=_milliseconds(conf.broker_session_timeout),
            rebalance_timeout_ms=_milliseconds(conf.broker_rebalance_timeout),
            heartbeat_interval_ms=_milliseconds(conf.broker_heartbeat_interval),
            max_poll_interval_ms=_milliseconds(conf.broker_max_poll_interval or 0),
            metadata_max_age_ms=conf.consumer_metadata_max_age_ms,
            connections_max_idle_ms=conf.consumer_connections_max_idle_ms,
            **self.app.client,
        )

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Join the group."""
        self.topics = set(topics)
        await super().subscribe(self.topics)

    # -- a rebalance ------------------------------------------------------------------------------------------------

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Hand out nothing more; then Faust's part, in the app's thread."""
        self._cursors.clear()
        await self._bounded(super().on_partitions_revoked(revoked))

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Likewise: who owns the partitions places them."""
        self._cursors.clear()
        await self._bounded(super().on_partitions_assigned(assigned, generation_id))

    async def _bounded(self, callback: Awaitable[None]) -> None:
        """Crash the app if it fails, or takes so long that the group has gone on without this member."""
        calling = asyncio.ensure_future(callback)
        timeout_s = self.app.conf.broker_rebalance_timeout
        for _ in range(2):  # twice: a process that was stopped for a while wakes up with its time over
            await asyncio.wait({calling}, timeout=timeout_s)
        try:
            if not calling.done():
                raise TimeoutError(f"a rebalance took longer than {2 * timeout_s:g} s")
            calling.result()
        except Exception as error:  # noqa: BLE001
            # Raised to aiokafka, it would only be logged.
            asyncio.run_coroutine_threadsafe(self.app.crash(error), self.parent_loop)

    # -- records ----------------------------------------------------------------------------------------------------

    async def place(self, offsets: Mapping[Partition, int]) -> set[Partition]:
        """Hand out records from these offsets on; returns the partitions that are assigned."""
        return cast("set[Partition]", await self.call_thread(self._place, offsets))

    async def _place(self, offsets: Mapping[Partition, int]) -> set[Partition]:
        consumer = self._ensure_consumer()
        placed = offsets.keys() & set(consumer.assignment())
        for partition in placed:
            self._seek(consumer, partition, offsets[partition])
        return placed

    def _seek(self, consumer: Any, partition: Partition, offset: int) -> None:
        consumer.seek(TopicPartition(*partition), offset)
        self._cursors[partition] = offset

    async def poll(self, wanted: set[Partition], timeout_s: float) -> list[RecordBatch | OffsetGone]:
        """What has come of these partitions; waits for something if nothing has."""
        return cast("list[RecordBatch | OffsetGone]", await self.call_thread(self._poll, wanted, timeout_s))

    async def _poll(self, wanted: set[Partition], timeout_s: float) -> list[RecordBatch | OffsetGone]:
        consumer = self._ensure_consumer()
        with consumer._subscription.fetch_context():  # the group is told that this member is alive
            found = await self._take(consumer, wanted)
            if not found:
                await self._wait(consumer, timeout_s if wanted else _NOTHING_RELEASED_S)
                found = await self._take(consumer, wanted)
        self._set_pace(consumer, has_found=bool(found))
        return found

    def _set_pace(self, consumer: Any, *, has_found: bool) -> None:
        """How long the brokers may keep the next question. The first record ends the wait of all."""
        now = time.monotonic()
        if has_found:
            self._found_at = now
        is_quiet = now - self._found_at > _QUIET_S
        consumer._fetcher._fetch_max_wait_ms = _QUIET_FETCH_WAIT_MS if is_quiet else _FETCH_WAIT_MS

    async def _wait(self, consumer: Any, timeout_s: float) -> None:
        waiter = consumer._fetcher._create_fetch_waiter()
        await asyncio.wait({waiter}, timeout=timeout_s)
        if not waiter.cancel():
            waiter.exception()  # `check` raises it

    async def _take(self, consumer: Any, wanted: set[Partition]) -> list[RecordBatch | OffsetGone]:
        """As aiokafka's `getmany`, but with its records as they are, and with what lies between them."""
        self.check(consumer)
        if consumer._subscription.reassignment_in_progress:
            return []
        fetcher = consumer._fetcher
        found: list[RecordBatch] = []
        lost: list[TopicPartition] = []
        for tp in [tp for tp in fetcher._records if tp in wanted]:
            fetched = fetcher._records[tp]
            cursor = self._cursors.get(tp)
            match fetched:
                case FetchResult():
                    # Not assigned or elsewhere by now: it is fetched again. Corrupt: raised, and nothing has moved.
                    if fetched.check_assignment(tp) and cursor is not None:
                        found += self._unpack(consumer, tp, cursor, fetched)
                case FetchError(_error=OffsetOutOfRangeError()):
                    lost.append(tp)
                case FetchError(_error=NoOffsetForPartitionError()):
                    if cursor is not None:
                        self._seek(consumer, tp, cursor)
                case _:
                    fetched.check_raise()
            fetcher._records.pop(tp, None)
            fetcher._notify(fetcher._wait_consume_future)  # it may fetch more
            if sum(len(batch.records) for batch in found) >= _POLL_RECORDS:
                break
        # No await up to here: positions and cursors move together.
        return [*found, *[gone for tp in lost for gone in await self._gone(consumer, tp)]]

    def _unpack(self, consumer: Any, tp: Partition, cursor: int, fetched: Any) -> list[RecordBatch]:
        unread = fetched._partition_records
        if unread.next_fetch_offset != cursor:  # somebody else has moved it: that would be a hole
            self.log.warning("%s is at %s and not at %s: placed again", tp, unread.next_fetch_offset, cursor)
            self._seek(consumer, tp, cursor)
            return []
        unpacked, after = unpack(unread._records, unread._aborted_transactions, cursor)
        records = list(unpacked)
        fetched._assignment.state_value(tp).consumed_to(after)
        self._cursors[tp] = after
        return _cut(tp, cursor, after, records)

    async def _gone(self, consumer: Any, tp: TopicPartition) -> list[OffsetGone]:
        """The brokers say that there is no such offset: where the partition begins and ends."""
        wanted = self._cursors.get(tp)
        try:
            earliest = (await consumer.beginning_offsets([tp]))[tp]
            end = (await consumer.end_offsets([tp]))[tp]
        except KafkaError as error:  # it is fetched, and refused, again
            self.log.warning("%s: %r", tp, error)
            return []
        if wanted is None or self._cursors.get(tp) != wanted or earliest <= wanted <= end:
            return []
        return [OffsetGone(tp, wanted, earliest, end)]

    # -- its life ---------------------------------------------------------------------------------------------------

    def check(self, consumer: Any) -> None:
        """Raise what has ended one of aiokafka's tasks, which tell nobody else."""
        if consumer._closed:
            raise ConsumerStoppedError
        if consumer._fetcher._fetch_task.done():
            consumer._fetcher._fetch_task.result()
        coordinator = consumer._coordinator
        try:
            coordinator.check_errors()
        except KafkaError as error:
            if coordinator._coordination_task.done() or not error.retriable:
                raise
            self.log.warning("the group's coordinator: %r; trying again", error)

    async def watch(self) -> None:
        """`check`, from another thread."""
        await self.call_thread(self._watch)

    async def _watch(self) -> None:
        consumer = self._consumer
        if consumer is not None and not consumer._closed:
            self.check(consumer)

    async def on_thread_stop(self) -> None:
        """Leave the group, if a broker answers soon."""
        await super(driver.AIOKafkaConsumerThread, self).on_thread_stop()
        if self._consumer is not None:
            stopping = asyncio.ensure_future(self._consumer.stop())
            await asyncio.wait({stopping}, timeout=_STOP_WITHIN_S)
            # What it waits for inside may be cancelled under it: then it has stopped, too.
            if stopping.done() and not stopping.cancelled() and (error := stopping.exception()):
                self.log.warning("the consumer did not stop well: %r", error)

    def _start_thread(self) -> None:
        # What has failed in the thread has crashed the app by then; raised here, Python would print it once more.
        with suppress(Exception):
            super()._start_thread()

    def _stopped_set(self) -> None:
        with suppress(RuntimeError):  # the thread has ended, and closed its loop
            super()._stopped_set()

    def close(self) -> None:
        """Faust would close parts of the consumer in the wrong thread, and so never leave the group."""


class Consumer(driver.Consumer):
    """Partitions are silent until they are released, from the offset they are released at."""

    app: BatchApp
    _thread: ConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._released: set[Partition] = set()
        self._paused: set[Partition] = set()
        self._assignments = 0

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def release(self, offsets: Mapping[Partition, int]) -> set[Partition]:
        """Hand out records of these partitions, from these offsets on: after every assignment, and over a hole.

        Returns those that are. One that has been revoked meanwhile is not, nor is any when a rebalance came between.
        """
        assignments = self._assignments
        placed = await self._thread.place(offsets)
        if assignments != self._assignments:
            return set()
        self._released |= placed
        self.resume_partitions(TP(*partition) for partition in placed)
        return placed

    def hold(self, partitions: Iterable[Partition]) -> None:
        """Hand out nothing more of these partitions until they are released again.

        What stands in an agent's queue still comes; so it may after a release, and belongs to what was before.
        """
        self._released -= set(partitions)

    def pause(self, partition: Partition) -> None:
        """Hand out nothing of this partition for now: what is fetched of it waits, and no more is fetched."""
        self._paused.add(partition)

    def go_on(self, partition: Partition) -> None:
        """Hand it out again."""
        self._paused.discard(partition)

    # -- what Faust asks for ----------------------------------------------------------------------------------------

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Silence; then the app's part."""
        self._silence()
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Silence; then the app's part. Raises NotCopartitioned."""
        self._silence()
        check_copartitioned(assigned, self._thread.topics)
        await super().on_partitions_assigned(assigned, generation_id)

    def _silence(self) -> None:
        self._released.clear()
        self._paused.clear()
        self._assignments += 1

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Faust resumes everything before anything is placed."""
        super().resume_partitions({tp for tp in tps if tp in self._released})

    async def perform_seek(self) -> None:
        """Faust would seek to what it has committed: nothing."""

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:  # noqa: ARG002, FBT001, FBT002
        """Nothing: positions are committed with the state."""
        return False

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust would report partitions that are not released as stuck."""

    @Service.task
    async def _watch_thread(self) -> None:
        """Without a partition nothing is polled, and nobody would learn of a coordinator that is dead."""
        while not self.should_stop:
            await self.sleep(_WATCH_EVERY_S)
            if not self.should_stop:
                await self._thread.watch()

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self.should_stop or fetcher.should_stop):
                if self.flow_active:
                    # A new set: aiokafka and Faust change theirs.
                    wanted = (self._released - self._paused) & self._get_active_partitions()
                    for found in await self._thread.poll(wanted, _POLL_S):
                        if (found.topic, found.partition) in self._released:  # not held meanwhile
                            await self._hand_out(found)
                else:
                    await self.wait(self.can_resume_flow)  # type: ignore[arg-type]
        except (asyncio.CancelledError, ConsumerStoppedError):
            if not self.app.should_stop:
                raise

    async def _hand_out(self, found: RecordBatch | OffsetGone) -> None:
        tp = TP(found.topic, found.partition)
        if isinstance(found, OffsetGone):
            self.hold([tp])
            self.app.on_offset_gone(found)
            return
        batch = cast("Any", found)
        message = ConsumerMessage(*tp, found.start, 0.0, 0, {}, None, batch, None, 0, 0, tp)
        message.generation_id = self.app.consumer_generation_id
        await self.callback(message)


class Producer(driver.Producer):
    """Nothing is published through Faust: this one connects to no broker."""

    async def on_start(self) -> None:
        """Do nothing."""

    async def on_stop(self) -> None:
        """Do nothing."""


class Transport(driver.Transport):
    """`batched://`."""

    Consumer: ClassVar[type[ConsumerT]] = Consumer
    Producer: ClassVar[type[ProducerT]] = Producer


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def _cut(tp: Partition, start: int, after: int, records: list[Record]) -> list[RecordBatch]:
    """Batches of at most `MAX_RECORDS` that together cover [start, after); one without records for markers alone."""
    batches: list[RecordBatch] = []
    for first in range(0, max(1, len(records)), MAX_RECORDS):
        rest = records[first + MAX_RECORDS : first + MAX_RECORDS + 1]
        end = rest[0].offset if rest else after
        if end > start:
            batches.append(RecordBatch(*tp, start, end, records[first : first + MAX_RECORDS]))
        start = end
    return batches
