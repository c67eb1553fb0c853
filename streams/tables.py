"""The arrears tables that this worker owns: one a partition, taken over and let go as the group assigns them.

Laws of this file:

- Membership says who tries; the journal's epoch says who may. A table that fails is thrown away, and another recovered,
  as long as the partition is this worker's.
- Nothing in a rebalance waits without a bound.
- What cannot get better by trying again ends the worker: another number of partitions, state of a newer release.
"""

# Faust has few types.
# ruff: noqa: ANN401

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from faust.types import TP

from models.codec import NewerState
from models.records import TOPICS
from streams.faults import Unusable
from streams.fences import Repartitioned
from streams.fetched import OffsetGone
from streams.hearsay import Hearsay, latest
from streams.journal import Fenced, Lost, TooLarge
from streams.table import Defect, OtherPartitions, Table, heard_in
from streams.watermarks import Unanswered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
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
_WATCH_S: Final = 5.0

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
        self._sought: dict[Partition, float] = {}
        self._gone: dict[int, OffsetGone] = {}
        self._is_stopping = False
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

    def on_offset_gone(self, gone: OffsetGone) -> None:
        """The next record of a partition is not there any more: the partition stops."""
        self._gone[gone.partition] = gone
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
        self._wanted = {tp.partition for tp in assigned}
        if too_many := sorted(p for p in self._wanted if p >= self.context.partitions):
            raise OtherPartitions(self.context.partitions, max(too_many) + 1)
        await self._let_go(self._owning.keys() - self._wanted)
        for partition in self._gone.keys() - self._wanted:
            del self._gone[partition]
            self.context.metrics.forget(partition)
        for partition in self._wanted:
            self._gone.pop(partition, None)
            owning = self._owning.get(partition)
            if partition in self.tables:
                await self._release(self.tables[partition])
            elif owning is None or owning.done():
                self._owning[partition] = asyncio.ensure_future(self._own(partition))

    async def _let_go(self, partitions: Iterable[int]) -> None:
        owning = {self._owning.pop(partition) for partition in list(partitions)}
        for task in owning:
            task.cancel()
        if owning:  # side by side: the group does not wait for one after the other
            await asyncio.wait(owning, timeout=self.app.conf.broker_rebalance_timeout * _FLUSH_SHARE)

    # -- owning -----------------------------------------------------------------------------------------------------

    async def _own(self, partition: int) -> None:
        """Have a table of this partition, and when it fails another, until it is assigned away."""
        metrics, retry_s = self.context.metrics, _RETRY_S
        try:
            while partition in self._wanted and not self._is_stopping:
                began = asyncio.get_running_loop().time()
                error = await self._own_once(partition)
                if isinstance(error, FATAL):
                    metrics.partition(partition).stopped = _STOPPED_BY.get(type(error), "fatal")
                    await self.app.crash(error)
                    return
                if asyncio.get_running_loop().time() - began > _RETRY_MOST_S:
                    retry_s = _RETRY_S
                if isinstance(error, OffsetGone):
                    self._gone[partition] = error  # what stops it is told for as long as it is ours
                    metrics.partition(partition).stopped = "offset_gone"
                    return
                if isinstance(error, Lost):
                    await asyncio.sleep(self.app.conf.broker_heartbeat_interval * _HEARTBEATS)
                else:
                    metrics.partition(partition).stopped = _STOPPED_BY.get(type(error), "bug")
                    await asyncio.sleep(retry_s)
                    retry_s = min(2 * retry_s, _RETRY_MOST_S)
        finally:
            if partition not in self._gone and self._owning.get(partition) in {None, asyncio.current_task()}:
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
            say(f"partition {partition} stops: {gone}")
            table.metrics.stopped = "offset_gone"
            return gone
        except Exception as error:  # noqa: BLE001  # the table is lost with whatever it held
            self._tell(partition, error)
            return error
        finally:
            if self.tables.get(partition) is table:  # it may be ours again, and another's by now
                del self.tables[partition]
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
            case Lost():
                metrics.transactions.labels("lost").inc()
                say(f"partition {partition}: {error}; recovering it")
            case Defect() | TooLarge():
                say(f"partition {partition} stops, with nothing committed of it; please report this: {error}")
            case OffsetGone():
                say(f"partition {partition} stops: {error}")
            case Unanswered():
                say(f"partition {partition} waits for the brokers: {error}")
            case _:
                say(f"partition {partition} stops: {error!r}")

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


_STOPPED_BY: Final[dict[type[BaseException], str]] = {
    NewerState: "newer_state",
    OffsetGone: "offset_gone",
    TooLarge: "too_large",
    Defect: "bug",
}
