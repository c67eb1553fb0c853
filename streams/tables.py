"""The arrears tables that this worker owns: one a partition, taken over and let go as the group assigns them.

Laws of this file:

- Membership says who tries; the journal's epoch says who may. A table that fails is thrown away, and another recovered,
  as long as the partition is this worker's.
- Nothing in a rebalance waits without a bound.
- What cannot get better by trying again ends the worker: another number of partitions, state of a newer release, a
  second worker of one instance id.
"""

# Faust has few types.
# ruff: noqa: ANN401

from __future__ import annotations

import asyncio
import random
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from aiokafka.errors import KafkaError, MessageSizeTooLargeError  # type: ignore[import-untyped]
from faust.types import TP

from models.records import TOPICS
from models.state_version import NewerState
from streams.faults import Unusable
from streams.fences import Repartitioned
from streams.fetched import OffsetGone
from streams.hearsay import Hearsay, latest
from streams.journal import Fenced, Lost, TooLarge
from streams.table import Defect, OtherPartitions, Table, heard_in
from streams.watermarks import Unanswered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from streams.fetched import Partition
    from streams.payments_watch import Heard
    from streams.table import Context
    from streams.transport import BatchApp, RecordBatch

#: After a loss a zombie waits for so many heartbeats before it tries again: it may have lost the partition.
_HEARTBEATS: Final = 1.5
#: What failed by itself is tried again after so long, then twice as long, at most.
_RETRY_S: Final = 2.0
_RETRY_MOST_S: Final = 60.0
#: A hole is asked for again at most this often.
_SEEK_EVERY_S: Final = 1.0
#: Of the time that the group gives to a rebalance, tables may take this share to commit.
_FLUSH_SHARE: Final = 1 / 3
#: The number of partitions is looked at as often as this, and whether a partition that has more to read moves on.
_WATCH_S: Final = 3.0
#: A worker that is assigned the same again so often within so many heartbeats fights with another over its name; one
#: that was there long before gives the newer one so much more time to notice, and the odds decide between two.
_FIGHTS, _FIGHT_HEARTBEATS, _FIGHTS_ODDS = 8, 100, 8
_LONG_BEFORE_S: Final = 60.0

#: Errors that no new try mends: the worker ends.
FATAL: Final = (NewerState, OtherPartitions, Repartitioned, Unusable)


class Tables:
    """Those of one worker. It follows the app's assignments; agents hand it their batches."""

    def __init__(self, app: BatchApp, context: Callable[[Tables], Context]) -> None:
        self.app = app
        self.context = context(self)
        self.tables: dict[int, Table] = {}
        self._owning: dict[int, asyncio.Task[None]] = {}
        self._wanted: set[int] = set()
        #: Whether the group has ever said what is ours.
        self.has_joined = False
        #: Let go of, and not at their end yet: whoever takes over waits for them.
        self._ending: dict[int, asyncio.Task[None]] = {}
        self._sought: dict[Partition, float] = {}
        self._seen: dict[Partition, int] = {}
        self._gone: dict[int, OffsetGone] = {}
        self._is_stopping = False
        self._fights = Fights(app)
        self._hearsay = Hearsay(self.context.client, self.context.topics.state, heard_in)
        app.on_partitions_assigned.connect(self.on_assigned)  # type: ignore[arg-type]
        app.on_partitions_revoked.connect(self.on_revoked)

    @property
    def is_ready(self) -> bool:
        """Whether every partition that the group has assigned is recovered and worked on."""
        return not self._is_stopping and bool(self._wanted) and self._wanted <= self.tables.keys()

    def not_ready_because(self) -> str | None:
        """Why it is not; None if it is."""
        if self.is_ready:
            return None
        if not self._wanted:
            return "no partition is assigned"
        missing = sorted(self._wanted - self.tables.keys())
        return f"{len(missing)} of {len(self._wanted)} partitions are not recovered: {missing[:10]}"

    # -- the agents' side -------------------------------------------------------------------------------------------

    async def take(self, batch: RecordBatch) -> None:
        """Apply a batch, if its partition is ours; over a hole, read again."""
        table = self.tables.get(batch.partition)
        if table is None or table.take(batch):
            return
        here, now = (batch.topic, batch.partition), asyncio.get_running_loop().time()
        if self._sought.get(here, 0.0) < now - _SEEK_EVERY_S:
            self._sought[here] = now
            expected = table.expected(batch.topic)
            told = f"{expected} was expected and {batch.start} came; reading again"
            self.context.say(f"{batch.topic} partition {batch.partition}: {told}")
            await self.app.batches.release({TP(*here): expected})
        # Else it was asked for just now. Should that bring nothing either, `watch` asks again.

    async def watch(self) -> None:
        """Until it is cancelled: see that the topics keep their partitions, and that none waits for what was lost."""
        while True:
            await asyncio.sleep(_WATCH_S)
            tables = list(self.tables.values())
            inputs = {(topic, 0) for topic in TOPICS}.union(*(table.inputs for table in tables))
            try:
                found = await self.context.fences.ends(inputs)
            except Unanswered:
                continue
            except Repartitioned as error:
                await self.app.crash(error)
                return
            for table in tables:
                await self._read_again(table, {topic: found[topic, table.partition].stable for topic in TOPICS})

    async def _read_again(self, table: Table, ends: Mapping[str, int]) -> None:
        """Ask again for what is committed below these ends and has not come since the last look."""
        for topic in TOPICS:
            here, expected = (topic, table.partition), table.expected(topic)
            is_behind = expected < ends[topic] and not table.has_unapplied(topic)
            if is_behind and self._seen.get(here) == expected and self.tables.get(table.partition) is table:
                await self.app.batches.release({TP(*here): expected})
            self._seen[here] = expected

    def on_offset_gone(self, gone: OffsetGone) -> None:
        """The next record of a partition is not there any more: the partition stops."""
        self._gone[gone.partition] = gone
        self.context.metrics.partition(gone.partition).stopped = _stopped_by(gone)
        owning = self._owning.get(gone.partition)
        if owning is not None:
            owning.cancel()

    def heard_here(self, partition: int) -> Heard:
        """When a bill and a payment were accepted last on our other partitions."""
        return latest(table.kept.payments.heard for p, table in self.tables.items() if p != partition)

    async def heard_elsewhere(self) -> Heard:
        """When they were on the partitions of other workers, as their journals say."""
        return await self._hearsay.of(set(range(self.context.partitions)) - self.tables.keys())

    # -- the group's side -------------------------------------------------------------------------------------------

    async def on_revoked(self, *_: Any, **__: Any) -> None:
        """Commit what is applied, so that a new owner has little to do again; ours they may well be again."""
        await self._bounded([table.flush() for table in self.tables.values()])

    async def _bounded(self, flushes: Iterable[Any]) -> None:
        tasks = [asyncio.ensure_future(flush) for flush in flushes]
        if tasks:
            # Not cancelled: a commit that is under way ends, or is lost.
            await asyncio.wait(tasks, timeout=self.app.conf.broker_rebalance_timeout * _FLUSH_SHARE)
        for task in tasks:
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def on_assigned(self, _: Any, assigned: set[TP], **__: Any) -> None:
        """Let go of what is others', take over what is new, go on with the rest."""
        self.context.metrics.rebalances.inc()
        self.has_joined = True
        before, self._wanted = self._wanted, {tp.partition for tp in assigned}
        self._fights.assigned(is_the_same=before == self._wanted)
        if too_many := sorted(p for p in self._wanted if p >= self.context.partitions):
            raise OtherPartitions(self.context.partitions, max(too_many) + 1)
        await self._let_go(self._owning.keys() - self._wanted)
        for partition in self._wanted:
            self._gone.pop(partition, None)
            owning = self._owning.get(partition)
            if partition in self.tables:
                await self._release(self.tables[partition])
            elif owning is None or owning.done():
                self._owning[partition] = asyncio.ensure_future(self._own(partition))

    async def _let_go(self, partitions: set[int]) -> None:
        """All at once: together they have as long as one."""
        ending = {partition: self._owning.pop(partition) for partition in partitions}
        for partition, owning in ending.items():
            self._gone.pop(partition, None)
            if owning.done():
                self.context.metrics.forget(partition)
            else:
                owning.cancel()
                self._ending[partition] = owning
        if ending:
            await asyncio.wait(ending.values(), timeout=self.app.conf.broker_rebalance_timeout * _FLUSH_SHARE)

    # -- owning -----------------------------------------------------------------------------------------------------

    async def _own(self, partition: int) -> None:
        """Have a table of this partition, and when it fails another, until it is assigned away."""
        metrics, retry_s, stays_stopped = self.context.metrics, _RETRY_S, False
        before = self._ending.pop(partition, None)
        if before is not None:
            await asyncio.wait({before})  # its end is bounded: a last commit, and the journal's stop
        try:
            while partition in self._wanted and not self._is_stopping:
                began = asyncio.get_running_loop().time()
                error = await self._own_once(partition)
                if isinstance(error, FATAL):
                    metrics.partition(partition).stopped = _stopped_by(error)
                    await self.app.crash(error)
                    return
                if asyncio.get_running_loop().time() - began > _RETRY_MOST_S:
                    retry_s = _RETRY_S
                reason = _stopped_by(error)
                metrics.partition(partition).stopped = reason
                if isinstance(error, OffsetGone):
                    stays_stopped = True
                    return
                if reason is None:
                    await asyncio.sleep(self.app.conf.broker_heartbeat_interval * _HEARTBEATS)
                else:
                    await asyncio.sleep(retry_s)
                    retry_s = min(2 * retry_s, _RETRY_MOST_S)
        finally:
            if not stays_stopped and partition not in self._gone:
                metrics.forget(partition)

    async def _own_once(self, partition: int) -> Exception:
        """Recover a table and run it; returns why it ended."""
        table, say = Table(self.context, partition), self.context.say
        try:
            await table.start()
            table.metrics.stopped = None
            say(f"partition {partition}: {len(table.store):,} accounts recovered, reading on at {table.next}")
            self.tables[partition] = table
            await self._release(table)
            await table.run()
        except asyncio.CancelledError:
            gone = self._gone.get(partition)
            if gone is None:
                await self._last_flush(table)
                raise
            self._tell(partition, gone)
            return gone
        except Exception as error:  # noqa: BLE001  # the table is lost with whatever it held
            self._tell(partition, error)
            return error
        finally:
            if self.tables.get(partition) is table:
                del self.tables[partition]
                self.app.batches.hold((topic, partition) for topic in TOPICS)  # nobody reads it till it is released
            table.metrics.recovering = False
            stopping = asyncio.ensure_future(table.stop())
            with suppress(asyncio.CancelledError):
                await asyncio.shield(stopping)
        raise AssertionError("a table runs until it fails")

    async def _last_flush(self, table: Table) -> None:
        if table.partition in self.tables:
            await self._bounded([table.flush()])

    def _tell(self, partition: int, error: Exception) -> None:
        metrics, say = self.context.metrics, self.context.say
        match error:
            case Fenced():
                metrics.transactions.labels("fenced").inc()
                metrics.fenced_producers.inc()
                say(f"partition {partition}: another worker has it now ({error})")
            case Lost() if _is_refused(error):
                metrics.transactions.labels("lost").inc()
                told = "the brokers refuse a record as too large, nothing of its transaction is visible"
                say(f"partition {partition} stops: {told}; see max.message.bytes (arrears topics check): {error}")
            case Lost():
                metrics.transactions.labels("lost").inc()
                if self._are_here(partition, error):
                    say(f"partition {partition}: {error}; recovering it")
            case Defect() | TooLarge():
                say(f"partition {partition} stops, with nothing committed of it; please report this: {error}")
            case OffsetGone():
                say(f"partition {partition} stops: {error}")
            case Unanswered():
                if self._are_here(partition, error):
                    say(f"partition {partition} waits for the brokers: {error}")
            case _:
                say(f"partition {partition} stops: {error!r}")

    def _are_here(self, partition: int, error: Exception) -> bool:
        """Whether the brokers were not away before: that they still are is tried every second, and told once."""
        metrics = self.context.metrics.partition(partition)
        was_away = metrics.brokers_away
        metrics.brokers_away = isinstance(error, Unanswered) or isinstance(error.__cause__, KafkaError | TimeoutError)
        return not (was_away and metrics.brokers_away)

    async def _release(self, table: Table) -> None:
        offsets: dict[Partition, int] = {TP(topic, table.partition): table.expected(topic) for topic in TOPICS}
        table.unpause()
        await self.app.batches.release(offsets)

    async def stop(self) -> None:
        """Commit what is applied, and let go of everything."""
        self._is_stopping = True
        self._wanted = set()
        owning = list(self._owning.values())
        for task in owning:
            task.cancel()
        if owning:
            await asyncio.wait(owning, timeout=self.app.conf.broker_rebalance_timeout * _FLUSH_SHARE)
        await self.context.fences.stop()


def _is_refused(error: BaseException) -> bool:
    return isinstance(error.__cause__, MessageSizeTooLargeError)


_STOPPED_BY: Final[dict[type[BaseException], str | None]] = {
    NewerState: "newer_state",
    OffsetGone: "offset_gone",
    TooLarge: "too_large",
    Unanswered: None,
    Lost: None,
    Fenced: None,
    OtherPartitions: "unusable",
    Repartitioned: "unusable",
    Unusable: "unusable",
}


def _stopped_by(error: BaseException) -> str | None:
    """The word of the metrics for why a partition is not worked on; None if it goes on by itself."""
    return "too_large" if _is_refused(error) else _STOPPED_BY.get(type(error), "bug")


class SameInstance(Exception):
    """Another living worker has this one's instance id: the group gives the partitions to both, by turns."""

    def __init__(self, instance_id: str) -> None:
        super().__init__(
            f"two workers have the instance id {instance_id}, and take the partitions from each other: give each its"
            " own (--instance-id), or end one"
        )


class Fights:
    """Whether another worker has this one's name: then each joins again as soon as the other has joined."""

    def __init__(self, app: BatchApp) -> None:
        self._app = app
        self._began = asyncio.get_running_loop().time()
        self._odds = random.randrange(_FIGHTS_ODDS)  # noqa: S311  # no secret
        self._assigned: deque[float] = deque()

    def assigned(self, *, is_the_same: bool) -> None:
        """The group has assigned partitions, the same as before or others. Raises SameInstance."""
        instance_id, now = self._app.conf.consumer_group_instance_id, asyncio.get_running_loop().time()
        if instance_id is None:
            return
        if not is_the_same:
            self._assigned.clear()
        self._assigned.append(now)
        while self._assigned[0] < now - _FIGHT_HEARTBEATS * self._app.conf.broker_heartbeat_interval:
            self._assigned.popleft()
        most = _FIGHTS + self._odds + (_FIGHTS if self._assigned[0] - self._began > _LONG_BEFORE_S else 0)
        if len(self._assigned) > most:
            raise SameInstance(instance_id)
