"""The service: reads commands, views and notices of all partitions, applies, acknowledges, until it is stopped."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition  # type: ignore[import-untyped]

from tests.enforcement.cloud import Cloud, Position, StartedLate

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from tests.enforcement.cloud import Fields

COMMANDS, ACCOUNTS, NOTICES, ACKS = "arrears.commands", "arrears.accounts", "arrears.notices", "acks"

_POLL_MS: Final = 100


class Service:
    """One process that serves every partition; with more load each would serve some."""

    def __init__(self, servers: str, cloud: Cloud) -> None:
        self._cloud = cloud
        options: dict[str, Any] = {"bootstrap_servers": servers, "enable_auto_commit": False}
        self._consumer = AIOKafkaConsumer(isolation_level="read_committed", fetch_max_wait_ms=50, **options)
        #: Asks for high watermarks only.
        self._watermarks = AIOKafkaConsumer(isolation_level="read_uncommitted", **options)
        self._producer = AIOKafkaProducer(bootstrap_servers=servers, enable_idempotence=True, acks="all")
        #: Commands that were read and are not applied, by partition, with where to read on after each.
        self._waiting: dict[int, deque[tuple[Fields, int]]] = defaultdict(deque)

    async def run(self) -> None:
        """Serve, for ever."""
        for client in (self._consumer, self._watermarks, self._producer):
            await client.start()
        try:
            await self._begin()
            while True:
                for tp, records in (await self._consumer.getmany(timeout_ms=_POLL_MS)).items():
                    self._take(tp, records)
                for partition in list(self._waiting):
                    await self._apply(partition)
                await self._send_acks()
        finally:
            for client in (self._consumer, self._watermarks, self._producer):
                await client.stop()

    # -- reading ----------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Read on where this service was; a partition that it has never seen is bootstrapped."""
        partitions = sorted(await self._producer.partitions_for(COMMANDS))
        self._consumer.assign([TopicPartition(topic, p) for topic in (COMMANDS, ACCOUNTS, NOTICES) for p in partitions])
        for tp in self._consumer.assignment():
            self._consumer.seek(tp, self._cloud.position(tp.topic, tp.partition) or 0)
        for partition in partitions:
            if self._cloud.position(COMMANDS, partition) is None:
                await self._bootstrap(partition)

    async def _bootstrap(self, partition: int) -> None:
        """Take the state from the views, then read the commands that came since (6)."""
        commands = TopicPartition(COMMANDS, partition)
        end = (await self._consumer.end_offsets([commands]))[commands]
        await self._read_to_end(partition, ACCOUNTS, NOTICES)
        for view in self._cloud.views(partition):
            self._cloud.settle(view)
        self._cloud.keep_position(Position(COMMANDS, partition, end))
        self._waiting[partition].clear()
        self._consumer.seek(commands, end)

    async def _read_to_end(self, partition: int, *topics: str) -> None:
        """Read all that is in these topics now, transactions that are open included."""
        for tp in [TopicPartition(topic, partition) for topic in topics]:
            end = (await self._watermarks.end_offsets([tp]))[tp]
            while await self._consumer.position(tp) < end:
                found = await self._consumer.getmany(tp, timeout_ms=_POLL_MS)
                self._take(tp, found.get(tp, []))

    def _take(self, tp: Any, records: list[Any]) -> None:  # aiokafka has no types
        if not records:
            return
        values = [(json.loads(record.value), record.offset + 1) for record in records if record.value is not None]
        position = Position(tp.topic, tp.partition, records[-1].offset + 1)
        if tp.topic == COMMANDS:
            self._waiting[tp.partition].extend(values)
        elif tp.topic == ACCOUNTS:
            self._cloud.keep_views([view for view, _ in values], position)
        else:
            self._cloud.keep_notices([notice for notice, _ in values], position)

    # -- applying ---------------------------------------------------------------------------------------------------

    async def _apply(self, partition: int) -> None:
        """Carry out what waits of a partition, in order."""
        waiting = self._waiting[partition]
        while waiting:
            command, after = waiting[0]
            is_overtaken = False
            if command["action"] == "delete":  # (4)
                await self._read_to_end(partition, COMMANDS, ACCOUNTS, NOTICES)
                is_overtaken = any(
                    later["account_id"] == command["account_id"] and later["sequence"] > command["sequence"]
                    for later, _ in waiting
                )
            try:
                self._cloud.apply(command, Position(COMMANDS, partition, after), is_overtaken=is_overtaken)
            except StartedLate:
                await self._read_to_end(partition, ACCOUNTS, NOTICES)
                view = self._cloud.view(command["account_id"])
                assert view is not None, "a view is published with its command"
                self._cloud.settle(view)
            else:
                waiting.popleft()

    async def _send_acks(self) -> None:
        unsent = self._cloud.unsent_acks()
        deliveries: list[Awaitable[Any]] = [
            await self._producer.send(ACKS, value.encode(), key=account_id.encode()) for _, account_id, value in unsent
        ]
        for delivery in deliveries:
            await delivery
        if unsent:
            self._cloud.sent([event_id for event_id, _, _ in unsent])
