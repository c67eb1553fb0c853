"""Workers as processes of their own, to be signalled and killed, and in this one; what they read and write."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]
from aiokafka.admin import AIOKafkaAdminClient  # type: ignore[import-untyped]
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType  # type: ignore[import-untyped]

from models.instants import SECOND, format_instant
from models.policy import load_policies
from streams.kafka_client import kafka_client_options
from streams.metrics import Metrics
from streams.partitioner import partition_by
from streams.settings import Settings
from streams.worker import Worker
from tests.live.kafka import read, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping
    from pathlib import Path

    from streams.tables import Tables

_POLL_S: Final = 0.05
#: In a hurry: a broker takes no shorter session.
HASTE: Final = ("--session-timeout", "PT6S", "--heartbeat-interval", "PT0.3S", "--commit-interval", "PT0.05S")

#: Suspends after two seconds, and tells nothing before.
QUICK: Final = """
policies:
  - name: quick
    version: "1"
    effective_from: 2018-03-16T00:00:00Z
    suspend_after: PT2S
    delete_after: PT300S
    min_suspended: PT10S
    lateness: {suspend: PT0S, delete: PT0S}
    notices: {suspension_ahead: [], deletion_ahead: []}
"""


def wait_until(condition: Callable[[], bool], within_s: float, what: Callable[[], str] = str) -> None:
    """Wait for it; fails with what is so instead."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(_POLL_S)


class WorkerProcess:
    """`arrears worker`."""

    def __init__(
        self,
        servers: str,
        folder: Path,
        *options: str,
        name: str = "worker",
        policy: str | None = QUICK,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.log = folder / f"{name}.log"
        given = list(options)
        if policy is not None:
            path = folder / f"{name}.yaml"
            path.write_text(policy, encoding="utf-8")
            given += ["--policy", str(path)]
        if "--metrics-port" not in given:
            given += ["--metrics-port", "0"]
        hasty = [] if "--session-timeout" in given else list(HASTE)
        command = [sys.executable, "-m", "streams.cli", "worker", "--brokers", servers, *hasty, *given]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ARREARS_")}
        environment |= variables or {}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, env=environment
            )

    @property
    def said(self) -> str:
        """All that it has said."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    def wait_said(self, words: str, within_s: float = 30) -> None:
        """Wait for words (a pattern)."""
        wait_until(lambda: re.search(words, self.said) is not None, within_s, lambda: f"{words!r}: {self.said}")

    def ask(self, page: str) -> str | None:
        """A page of its metrics port; None while it has none or says no."""
        found = re.findall(r"metrics at http://(\S+)/metrics", self.said)
        if not found:
            return None
        try:
            with urllib.request.urlopen(f"http://{found[-1]}{page}", timeout=5) as answer:
                text: str = answer.read().decode()
                return text
        except (urllib.error.URLError, OSError):
            return None

    @property
    def is_ready(self) -> bool:
        return self.ask("/ready") is not None

    def wait_ready(self, within_s: float = 45) -> WorkerProcess:
        wait_until(lambda: self.is_ready or not self.runs, within_s, lambda: f"not ready: {self.said}")
        assert self.runs, self.said
        return self

    def metric(self, name: str, **labels: str) -> float:
        """A metric's value; -1 if it is not there."""
        text = self.ask("/metrics") or ""
        for line in text.splitlines():
            found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if found and found[1] == name:
                given = dict(re.findall(r'(\w+)="([^"]*)"', found[2] or ""))
                if given == labels:
                    return float(found[3])
        return -1.0

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self, within_s: float = 15) -> int:
        """Wait for its end; returns the exit code."""
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {within_s} s: {self.said}") from None

    def stop(self, within_s: float = 10) -> int:
        self.signal(signal.SIGTERM)
        return self.ended(within_s)

    def kill(self) -> None:
        """Whatever state it is in."""
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(10)


class Sent(NamedTuple):
    """A record for an input."""

    topic: str
    account_id: str
    value: bytes


def now_us() -> int:
    return time.time_ns() // 1000


def bill(account_id: str, number: int = 1, *, at: int | None = None, amount: str = "10") -> Sent:
    """A bill as of now, or of an instant."""
    return _record(
        "bills",
        account_id,
        event_id=f"b-{account_id}-{number}",
        bill_id=f"bill-{number}",
        kind="issued",
        amount=amount,
        currency="EUR",
        issued_at=format_instant(now_us() if at is None else at),
    )


def payment(account_id: str, number: int = 1, *, at: int | None = None, amount: str = "10") -> Sent:
    """A top-up as of now, or of an instant."""
    return _record(
        "payments",
        account_id,
        event_id=f"p-{account_id}-{number}",
        payment_id=f"payment-{number}",
        kind="topup",
        amount=amount,
        currency="EUR",
        paid_at=format_instant(now_us() if at is None else at),
    )


def control(account_id: str, kind: str, number: int = 1, **fields: Any) -> Sent:
    """An operator's control as of now."""
    fields = {"event_id": f"c-{account_id}-{kind}-{number}", "kind": kind, "actor": "a", "reason": "r"} | fields
    return _record("controls", account_id, **({"at": format_instant(now_us())} | fields))


def _record(topic: str, account_id: str, **fields: Any) -> Sent:
    return Sent(topic, account_id, json.dumps({"account_id": account_id, **fields}).encode())


def send(servers: str, records: Iterable[Sent], partitions: int, **where: Any) -> None:
    """Send them; to the right partition as the `partitioner` has it, or to the `partition` that is given."""
    asyncio.run(sending({"bootstrap_servers": servers}, records, partitions, **where))


async def sending(
    client: Mapping[str, Any],
    records: Iterable[Sent],
    partitions: int,
    *,
    partitioner: str = "murmur2",
    partition: int | None = None,
) -> None:
    """As `send`, for a client that is told how to reach the brokers."""
    partition_of = partition_by(partitioner, partitions)  # type: ignore[arg-type]
    producer = AIOKafkaProducer(linger_ms=5, max_batch_size=500_000, **client)
    await producer.start()
    try:
        sent = [
            await producer.send(
                one.topic,
                one.value,
                one.account_id.encode(),
                partition=partition_of(one.account_id.encode()) if partition is None else partition,
            )
            for one in records
        ]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def outputs(servers: str, name: str, partitions: int, app_id: str = "arrears") -> list[dict[str, Any]]:
    """What is committed of an output, decoded."""
    found = await read(servers, f"{app_id}.{name}", partitions)
    return [json.loads(record.value or b"null") for record in found]


def commands(servers: str, partitions: int, app_id: str = "arrears") -> dict[str, list[str]]:
    """The actions commanded of each account; sequences have no gap and nothing is doubled."""
    return asyncio.run(commanded(servers, partitions, app_id))


async def commanded(servers: str, partitions: int, app_id: str = "arrears") -> dict[str, list[str]]:
    """As `commands`."""
    actions: dict[str, list[str]] = {}
    for command in await outputs(servers, "commands", partitions, app_id):
        before = actions.setdefault(command["account_id"], [])
        before.append(command["action"])
        assert command["sequence"] == len(before), command
    return actions


def seconds_ago(seconds: float) -> int:
    return now_us() - round(seconds * SECOND)


async def alter(servers: str, topic: str, setting: str, value: str) -> None:
    """Change a setting of a topic."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs={setting: value})])
    finally:
        await admin.close()


@asynccontextmanager
async def inside(servers: str, folder: Path, **settings: Any) -> AsyncIterator[Inside]:
    """A worker in this process, to be looked into and broken; stopped at the end if it has not ended before."""
    policy = folder / "quick.yaml"
    policy.write_text(QUICK, encoding="utf-8")
    told = {
        "brokers": servers,
        "policy": str(policy),
        "session_timeout": "PT6S",
        "heartbeat_interval": "PT0.3S",
        "commit_interval": "PT0.05S",
    }
    chosen = Settings(**(told | settings))
    worker = Worker(chosen, load_policies(str(policy)), kafka_client_options(chosen), Metrics())
    running = Inside(worker, asyncio.ensure_future(worker.run()))
    try:
        yield running
    finally:
        worker.stop()
        await asyncio.wait({running.ending}, timeout=20)


class Inside(NamedTuple):
    """A worker of this process, and its end: the exit code."""

    worker: Worker
    ending: asyncio.Future[int]

    @property
    def tables(self) -> Tables:
        assert self.worker.tables is not None
        return self.worker.tables

    def stopped(self, partition: int) -> str | None:
        """The reason that the metrics have for a partition that is not worked on."""
        return self.worker.metrics.partition(partition).stopped

    async def ready(self) -> None:
        await until(lambda: self.worker.not_ready_because() is None or self.ending.done(), 30)
        assert not self.ending.done(), self.ending

    async def ended(self, within_s: float = 15) -> int:
        await asyncio.wait({self.ending}, timeout=within_s)
        assert self.ending.done(), "it still works"
        return self.ending.result()
