"""Sends a plan to a real broker, each record at its time, whatever becomes of the broker meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]

from streams.journal import Lost, _end
from streams.partitioner import partition_by
from tests.chaos.arrivals import EVERYONE
from tests.chaos.traffic import HANGING_S, closing, for_everybody
from tests.oracle.values import SECOND

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.chaos.traffic import Plan, Step

_SEND_WITHIN_S: Final = 30.0
#: What becomes of a record whose producer is in trouble, or was ended meanwhile.
_TROUBLE: Final = (KafkaError, TimeoutError, AssertionError, Lost)
#: A record of the largest size has to fit.
_MOST_BYTES: Final = 1_000_000
#: Upstream transactions at a time: each has a producer of its own.
_TRANSACTIONS: Final = 2
#: The broker gives up transactions whose time is over as often as this.
_GIVEN_UP_S: Final = 10.0
#: Records sent beside each other in the end.
_AT_ONCE: Final = 200


class Sender:
    """All upstream systems in one: acks of all copies, idempotent, in transactions where the plan says so."""

    def __init__(self, servers: str, partitions: int) -> None:
        self.servers, self.partitions = servers, partitions
        self.start = time.time_ns() // 1000
        self.figures: Counter[str] = Counter()
        self._accounts: set[str] = set()
        self._producer: Any = None
        self._renewing = asyncio.Lock()
        self._partition = partition_by("murmur2", partitions)
        self._free = asyncio.Queue[int]()
        for number in range(_TRANSACTIONS):
            self._free.put_nowait(number)

    @asynccontextmanager
    async def without_transactions(self) -> AsyncIterator[None]:
        """No upstream transaction is open meanwhile.

        A record that stands before a broker which is frozen can come after its transaction was given up: then the
        partition hangs for ever, and Kafka's own tool has to mend it. (With newer clients that cannot be: KIP-890.)
        What the monitor does then, which is nothing, has a test of its own.
        """
        taken = [await self._free.get() for _ in range(_TRANSACTIONS)]
        try:
            yield
        finally:
            for number in taken:
                self._free.put_nowait(number)

    @property
    def now(self) -> float:
        """Seconds after the start, as plans have them."""
        return time.time_ns() / 1e9 - self.start / SECOND

    async def send_all(self, plan: Plan) -> None:
        """Send it all: the records of a customer one after the other, the customers beside each other."""
        self._accounts |= {account for account in plan.accounts if account != EVERYONE}
        async with asyncio.TaskGroup() as lives:
            for steps in plan.lives:
                lives.create_task(self._live(steps))

    async def resume(self) -> None:
        """What a guard or late evidence has stopped goes on."""
        step = for_everybody("rest", round(self.now, 6), "resume")
        for partition in step.partitions(self.partitions):
            await self._send(step, partition)

    async def close(self) -> None:
        """Close the accounts of all that was sent."""
        accounts = sorted(self._accounts)
        for first in range(0, len(accounts), _AT_ONCE):
            steps = [closing(account, round(self.now, 6)) for account in accounts[first : first + _AT_ONCE]]
            await asyncio.gather(*(self._send(step, 0) for step in steps))

    async def stop(self) -> None:
        if self._producer is not None:
            await _end(self._producer)

    async def _live(self, steps: tuple[Step, ...]) -> None:
        async with asyncio.TaskGroup() as transactions:
            for step in steps:
                await asyncio.sleep(max(0, step.at - self.now))
                if step.open is not None:
                    transactions.create_task(self._send_in_transaction(step))
                    continue
                for partition in step.partitions(self.partitions):
                    await self._send(step, partition)

    def _place(self, step: Step, partition: int) -> int:
        """Where Java's partitioner puts it, unless it is to go elsewhere."""
        if step.key is None or step.everywhere or step.astray:
            return partition
        return self._partition(step.key)

    async def _send(self, step: Step, partition: int) -> None:
        """Until it is there. One whose fate is not known is sent again: it may be there twice, as in life."""
        while True:
            producer = await self._current()
            try:
                async with asyncio.timeout(_SEND_WITHIN_S):
                    place = self._place(step, partition)
                    await producer.send_and_wait(step.topic, step.value(self.start), step.key, place)
            except _TROUBLE:
                self.figures["sent again"] += 1
                await self._renew(producer)
            else:
                self.figures["sent"] += 1
                return

    async def _current(self) -> Any:
        if self._producer is None:
            await self._renew(None)
        return self._producer

    async def _renew(self, old: Any) -> None:
        """A producer that has lost a record is of no more use."""
        async with self._renewing:
            if self._producer is not old:
                return
            if old is not None:
                await _end(old)
            self._producer = await _started(
                bootstrap_servers=self.servers,
                enable_idempotence=True,
                acks="all",
                max_request_size=_MOST_BYTES + 10_000,
                max_batch_size=_MOST_BYTES + 5_000,
            )

    async def _send_in_transaction(self, step: Step) -> None:
        assert step.open is not None
        number = await self._free.get()
        producer = None
        # Whoever takes the name of one that hangs ends its transaction.
        name = f"hanging-{step.at}" if step.open.hangs else f"upstream-{number}"
        timeout_ms = round(HANGING_S * 1000) if step.open.hangs else 20_000
        try:
            producer = await _started(
                bootstrap_servers=self.servers, transactional_id=name, transaction_timeout_ms=timeout_ms
            )
            async with asyncio.timeout(_SEND_WITHIN_S):
                await producer.begin_transaction()
                for partition in step.partitions(self.partitions):
                    await producer.send_and_wait(
                        step.topic, step.value(self.start), step.key, self._place(step, partition)
                    )
                await asyncio.sleep(step.open.seconds)
                if step.open.commits:
                    await producer.commit_transaction()
                elif not step.open.hangs:
                    await producer.abort_transaction()
            became = "committed" if step.open.commits else "left hanging" if step.open.hangs else "aborted"
            self.figures[f"transactions {became}"] += 1
        except _TROUBLE:
            self.figures["transactions abandoned"] += 1
        finally:
            if producer is not None:
                await _end(producer)
                if step.open.hangs:
                    await asyncio.sleep(HANGING_S + _GIVEN_UP_S)
            self._free.put_nowait(number)


async def _started(**options: Any) -> Any:
    """A producer, once the broker is there. One that could not start is not asked again."""
    while True:
        producer = AIOKafkaProducer(**options)
        try:
            async with asyncio.timeout(_SEND_WITHIN_S):
                await producer.start()
        except (KafkaError, TimeoutError, OSError):
            await _end(producer)
            await asyncio.sleep(0.5)
        except BaseException:
            await _end(producer)
            raise
        else:
            return producer
