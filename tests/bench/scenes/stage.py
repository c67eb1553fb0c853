"""What scenes have in common: a broker, its topics, a worker, and those who watch."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from models.instants import DAY, SECOND, format_instant
from streams.local_kafka import LocalKafka, free_port
from streams.topics import create
from tests.bench.peers import topics
from tests.bench.peers.ours import OPTIONS
from tests.bench.peers.watching import Failed
from tests.live.workers import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from models.instants import Duration, Instant
    from tests.bench.peers.topics import Value

APP: Final = "arrears"
#: Suspended a day after arrears began, and told of nothing before.
A_DAY: Final = """policies:
  - name: a-day
    version: "1"
    effective_from: 2018-03-16T00:00:00Z
    suspend_after: PT24H
    delete_after: PT360H
    notices: {suspension_ahead: [], deletion_ahead: [PT24H]}
"""
_LOOK_EVERY_S: Final = 0.2
#: What is not timed is not looked at more often than that: who looks takes time from the worker.
_SETTLE_S: Final = 1.0
_READY_WITHIN_S: Final = 120.0
_WITHIN_S: Final = 900.0


class Stage:
    """A broker, with the topics of one monitor."""

    def __init__(self, kafka: Mapping[str, Any], folder: Path, partitions: int) -> None:
        self.kafka = kafka
        self.folder = folder
        self.partitions = partitions

    async def send(self, records: Iterable[Value]) -> None:
        """Put records into the inputs."""
        await topics.send(self.kafka, records, self.partitions)

    @asynccontextmanager
    async def worker(self, *options: str, policy: str | None = A_DAY) -> AsyncIterator[WorkerProcess]:
        """One worker, ready to work; stopped in the end. Raises Failed."""
        worker = WorkerProcess(
            self.kafka["bootstrap_servers"], self.folder, "--app-id", APP, *OPTIONS, *options, policy=policy
        )
        try:
            await until(lambda: worker.is_ready or not worker.runs, "the worker is not ready", _READY_WITHIN_S)
            if not worker.runs:
                raise Failed("the worker has ended")
            yield worker
        except Failed as error:
            raise Failed(f"{error}; the worker said last: {worker.said[-2000:]}") from None
        finally:
            if worker.runs:
                worker.stop(within_s=60)
            worker.kill()


@asynccontextmanager
async def stage(folder: Path, partitions: int) -> AsyncIterator[Stage]:
    """A broker with its topics, which ends with the scene."""
    broker = LocalKafka(free_port(), folder / "kafka")
    broker.start()
    try:
        kafka = {"bootstrap_servers": broker.address}
        await create(kafka, partitions=partitions, app_id=APP)
        yield Stage(kafka, folder, partitions)
    finally:
        broker.stop()


async def known(worker: WorkerProcess, accounts: int) -> float:
    """Wait until a worker has so many accounts in arrears, applied and decided on; how long that took. Raises Failed.

    That inputs are read and outputs rest says less: whoever has much to decide on publishes nothing for a while.
    """
    began = time.monotonic()
    await until(
        lambda: not worker.runs or worker.metric("arrears_accounts", status="in_arrears") >= accounts,
        "not all accounts are known",
        look_every_s=_SETTLE_S,
    )
    if not worker.runs:
        raise Failed("the worker has ended")
    return time.monotonic() - began


async def until(
    condition: Callable[[], bool], otherwise: str, within_s: float = _WITHIN_S, look_every_s: float = _LOOK_EVERY_S
) -> None:
    """Wait for it. Raises Failed."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(otherwise)
        await asyncio.sleep(look_every_s)


def now() -> Instant:
    """Of the system's clock."""
    return time.time_ns() // 1000


def bills(accounts: int, first: Instant, span: Duration, name: str) -> Iterator[Value]:
    """A bill for each of so many accounts, which nobody pays: evenly from `first` on, over `span`."""
    for number in range(accounts):
        at = format_instant(first + number * span // accounts)
        account = {"account_id": f"{name}-{number:07d}", "event_id": f"b-{name}-{number}"}
        bill = {"bill_id": f"bill-{name}-{number}", "kind": "issued", "amount": "12.5", "currency": "CNY"}
        yield "bills", account | bill | {"issued_at": at}


def marked(count: int, first: Instant, span: Duration, name: str) -> Iterator[Value]:
    """Bills of accounts whose suspend mark (see `A_DAY`) falls from `first` on, evenly over `span`."""
    return bills(count, first - DAY, span, name)


def ahead(seconds: float) -> Instant:
    """So long from now."""
    return now() + round(seconds * SECOND)
