"""A worker in this process, on a real broker, whose clock the test sets: what its customers do, and what comes out."""

from __future__ import annotations

import tempfile
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING
from unittest import mock

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition  # type: ignore[import-untyped]

from models.instants import HOUR, format_instant, parse_instant
from models.policy import BUILT_IN
from models.records import TOPICS
from streams.metrics import Metrics
from streams.partitioner import partition_by
from streams.settings import Settings
from streams.tables import Tables
from streams.transport import BatchSchema
from streams.watermarks import Watermarks
from streams.worker import Worker, _agent, _app
from tests.live.kafka import producing, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from typing import Any

    from models.instants import Instant
    from models.policy import Policies
    from streams.table import Context, Table
    from streams.transport import BatchApp

#: Hours of a test are counted from here.
START = parse_instant("2026-01-01T00:00:00Z")
APP_ID = "arrears"
#: A clock that a test sets is far from the brokers': only tests of the clock itself are held to less.
_ANY_SKEW = 200 * 366 * 24 * HOUR


def at(hours: float) -> str:
    """So many hours after START, as it stands in a record."""
    return format_instant(START + round(hours * HOUR))


class Clock:
    """Stands where the test has put it."""

    def __init__(self, hours: float = 0) -> None:
        self.now: Instant = START + round(hours * HOUR)

    def __call__(self) -> Instant:
        return self.now


class Kafka:
    """The topics of one test: what customers send, what the monitor sends."""

    def __init__(self, client: Mapping[str, Any], producer: Any, partitions: int) -> None:
        self.client = client
        self.servers: str = client["bootstrap_servers"]
        self.producer = producer
        self.partitions = partitions
        self.partition_of = partition_by("murmur2", partitions)
        self._sent = 0
        self._watermarks: Watermarks | None = None
        self._readers: dict[str, Any] = {}
        self._read: dict[str, list[dict[str, Any]]] = {}

    def accounts(self, partition: int, count: int, name: str = "a") -> list[str]:
        """Names of accounts that belong to a partition."""
        found: list[str] = []
        number = 0
        while len(found) < count:
            account = f"{name}{number}"
            if self.partition_of(account.encode()) == partition:
                found.append(account)
            number += 1
        return found

    async def send(self, topic: str, account: str, *, by: Any = None, **fields: Any) -> int:
        """Send a record; its instants may be hours after START. Returns its offset. `by`: another producer."""
        self._sent += 1
        value = {"event_id": f"e{self._sent:06}", "account_id": account, **fields}
        value = {name: at(field) if name.endswith("at") or name == "until" else field for name, field in value.items()}
        return await self.raw(topic, account.encode(), msgspec.json.encode(value), by=by)

    async def raw(
        self, topic: str, key: bytes | None, value: bytes | None, *, partition: int | None = None, by: Any = None
    ) -> int:
        """Send what may be no record; returns its offset."""
        if partition is None:
            partition = 0 if key is None else self.partition_of(key)
        sent = await (by or self.producer).send_and_wait(topic, key=key, value=value, partition=partition)
        offset: int = sent.offset
        return offset

    async def bill(self, account: str, hours: float, amount: str = "100", **more: Any) -> int:
        """A bill."""
        fields = {"bill_id": f"b{hours}", "kind": "issued", "amount": amount, "currency": "CNY", "issued_at": hours}
        return await self.send("bills", account, **(fields | more))

    async def pay(self, account: str, hours: float, amount: str = "100", **more: Any) -> int:
        """A top-up."""
        fields = {"payment_id": f"p{hours}", "kind": "topup", "amount": amount, "currency": "CNY", "paid_at": hours}
        return await self.send("payments", account, **(fields | more))

    async def control(self, kind: str, account: str, hours: float, **more: Any) -> int:
        """A control; for everybody, to every partition."""
        fields = {"kind": kind, "actor": "op", "reason": "because", "at": hours, **more}
        if account != "*":
            return await self.send("controls", account, **fields)
        self._sent += 1
        value = {"event_id": f"e{self._sent:06}", "account_id": "*"} | {
            name: at(field) if name in {"at", "until"} else field for name, field in fields.items()
        }
        for partition in range(self.partitions):
            await self.raw("controls", b"*", msgspec.json.encode(value), partition=partition)
        return 0

    async def read(self, name: str, *, app_id: str = APP_ID) -> list[dict[str, Any]]:
        """Everything that has been committed of an output, in its order within a partition."""
        topic = f"{app_id}.{name}"
        partitions = [TopicPartition(topic, partition) for partition in range(self.partitions)]
        if topic not in self._readers:
            reader = self._readers[topic] = AIOKafkaConsumer(
                bootstrap_servers=self.servers,
                isolation_level="read_committed",
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_wait_ms=20,
            )
            await reader.start()
            reader.assign(partitions)
            await reader.seek_to_beginning()
        reader, found = self._readers[topic], self._read.setdefault(topic, [])
        ends = await reader.end_offsets(partitions)
        while any([await reader.position(tp) < ends[tp] for tp in partitions]):
            for records in (await reader.getmany(timeout_ms=20)).values():
                found.extend(msgspec.json.decode(record.value or b"null") for record in records)
        return list(found)

    async def stop(self) -> None:
        """Let go of the readers."""
        for reader in self._readers.values():
            await reader.stop()
        if self._watermarks is not None:
            await self._watermarks.stop()

    async def commands(self, *accounts: str) -> list[tuple[str, str, str]]:
        """(account, action, reason) of these accounts, or of all."""
        return [
            (command["account_id"], command["action"], command["reason"])
            for command in await self.read("commands")
            if not accounts or command["account_id"] in accounts
        ]

    async def actions(self, account: str) -> list[str]:
        """What an account has been commanded."""
        return [action for _, action, _ in await self.commands(account)]

    async def notices(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Those of a kind, or all."""
        return [notice for notice in await self.read("notices") if kind is None or notice["kind"] == kind]

    async def ends(self) -> dict[tuple[str, int], int]:
        """Where what is stable of the inputs ends."""
        if self._watermarks is None:
            self._watermarks = Watermarks(self.client)
            await self._watermarks.start()
        found = await self._watermarks.ends((topic, p) for topic in TOPICS for p in range(self.partitions))
        return {partition: end.stable for partition, end in found.items()}


class Live:
    """A worker that runs, and the test's hand on its clock."""

    def __init__(self, kafka: Kafka, clock: Clock, tables: Tables, app: BatchApp, metrics: Metrics) -> None:
        self.kafka = kafka
        self.clock = clock
        self.tables = tables
        self.app = app
        self.metrics = metrics
        self.said: list[str] = []

    def table(self, account: str) -> Table:
        """The table of an account's partition."""
        return self.tables.tables[self.kafka.partition_of(account.encode())]

    def stops(self, partition: int = 0) -> set[str]:
        """What stops suspends or deletes on a partition."""
        return set(self.tables.tables[partition].monitor.everybody.stops)

    async def at(self, hours: float) -> None:
        """Set the clock, and wait until nothing is left to do."""
        self.set(hours)
        await self.settled()

    async def past(self, hours: float) -> None:
        """Just past an instant."""
        await self.at(hours + 1e-9)

    def set(self, hours: float) -> None:
        """Set the clock, and go on."""
        self.clock.now = START + round(hours * HOUR)
        self.poke()

    def poke(self) -> None:
        """Have the tables look at the clock now."""
        for table in self.tables.tables.values():
            table._work.set()

    async def settled(self, within_s: float = 20) -> None:
        """Wait until everything is applied, decided on and committed."""
        await until(lambda: self.tables.is_ready, within_s)
        for partition in list(self.tables.tables):
            await self.settled_of(partition, within_s)

    async def settled_of(self, partition: int, within_s: float = 20) -> None:
        """Likewise, of one partition."""
        rests, quiet = self._rests(await self.kafka.ends()), 0

        def is_settled() -> bool:
            nonlocal quiet
            self.poke()
            table = self.tables.tables.get(partition)
            quiet = quiet + 1 if table is not None and rests(table) else 0
            return quiet > 1

        try:
            await until(is_settled, within_s)
        except TimeoutError:
            raise AssertionError(f"partition {partition} does not come to rest: {self.said}") from None

    def _rests(self, ends: Mapping[tuple[str, int], int]) -> Callable[[Table], bool]:
        def rests(table: Table) -> bool:
            due = table.monitor.next_due()
            return (
                all(table.next[topic] >= ends[topic, table.partition] for topic in TOPICS)
                and table._fence is None
                and not table._pending
                and not table._outputs
                and not table.monitor.has_undecided
                and not table._committing.locked()
                and (due is None or due >= table._now())
            )

        return rests


@asynccontextmanager
async def kafka_of(client: Mapping[str, Any], partitions: int) -> AsyncIterator[Kafka]:
    """The topics of one test, and a producer of its customers."""
    async with producing(client["bootstrap_servers"]) as producer:
        kafka = Kafka(client, producer, partitions)
        try:
            yield kafka
        finally:
            await kafka.stop()


def _context(
    worker: Worker, app: BatchApp, tables: Tables, clock: Clock, said: list[str], *, by_brokers: bool, partitions: int
) -> Context:
    with mock.patch("streams.worker.clock_of", return_value=clock):
        context = replace(worker._context(app, tables, partitions), say=said.append)
    return context if by_brokers else replace(context, record_clock=clock)


@asynccontextmanager
async def working(
    kafka: Kafka,
    clock: Clock,
    *,
    policies: Policies = BUILT_IN,
    wait: bool = True,
    by_brokers: bool = False,
    **settings: Any,
) -> AsyncIterator[Live]:
    """A worker, from when its partitions are recovered until it has stopped.

    `by_brokers`: the brokers' clock counts for what is too early, as it does where no test sets the clock.
    """
    settings = {
        "brokers": kafka.servers,
        "commit_interval": "PT0.02S",
        "session_timeout": "PT6S",
        "heartbeat_interval": "PT0.2S",
        "transaction_timeout": "PT10S",
        "max_clock_skew": f"PT{_ANY_SKEW // HOUR}H",
        "payments_silence": "off",
        **settings,
    }
    metrics = Metrics()
    worker = Worker(Settings(**settings), policies, kafka.client, metrics)
    said: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        app = _app(worker.settings, kafka.client, folder)
        tables = Tables(
            app,
            lambda tables: _context(
                worker, app, tables, clock, said, by_brokers=by_brokers, partitions=kafka.partitions
            ),
        )
        app.on_offset_gone = tables.on_offset_gone
        for topic in TOPICS:
            app.agent(app.topic(topic, schema=BatchSchema(), acks=False), name=topic)(_agent(tables))
        app.finalize()
        await app.start()
        live = Live(kafka, clock, tables, app, metrics)
        live.said = said
        try:
            if wait:
                await until(lambda: tables.is_ready, 30)
            yield live
        finally:
            await tables.stop()
            await app.stop()
