"""`python -m tests.bench.soak`: two workers and a broker for a long while, under an even load.

A minute a line: how long it takes from a record in Kafka until its command can be read, how far the workers are behind,
what they hold in memory and use of a processor. Each bill puts its account into arrears and is suspended for at once,
each payment pays all: so every such record has one command, whose instant is that of the record.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import sys
import tempfile
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import psutil
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]

from models.instants import HOUR, SECOND, format_instant, parse_instant
from models.outputs import Command
from streams.demo.crew import WORKERS, Crew
from streams.local_kafka import free_port
from streams.partitioner import partition_by
from streams.reading import Reader
from streams.topics import create
from tests.bench.scenes.figures import percentiles_ms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from typing import Self

    from models.instants import Instant
    from streams.fetched import Partition

PARTITIONS: Final = 8
POLICY: Final = """policies:
  - name: at-once
    version: "1"
    effective_from: 2020-01-01T00:00:00Z
    suspend_after: PT0S
    delete_after: PT360H
    notices: {suspension_ahead: [], deletion_ahead: [PT24H]}
"""
_TICK_S: Final = 0.02
_encode: Final = msgspec.json.Encoder().encode
_command: Final = msgspec.json.Decoder(Command).decode


class Load:
    """Records at an even rate: one in ten enters or leaves arrears, two are top-ups, the rest is usage."""

    def __init__(self, address: str, accounts: int, seed: int) -> None:
        self._random = random.Random(seed)
        self._accounts = [f"acct-{number:07d}" for number in range(accounts)]
        # Those that enter or leave arrears take turns: of two changes within one commit nothing would be told.
        self._turns = itertools.cycle(self._random.sample(self._accounts, accounts))
        self._owing: dict[str, bool] = {}
        self._partition_of = partition_by("murmur2", PARTITIONS)
        self._number = itertools.count()
        self._run = f"{time.time_ns():x}"
        self.producer = AIOKafkaProducer(bootstrap_servers=address, enable_idempotence=True, max_batch_size=256 * 1024)
        self.sent = self.changes = 0

    async def __aenter__(self) -> Self:
        await self.producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.producer.stop()

    async def send(self, count: int) -> None:
        """So many records, dated now."""
        batches: dict[Partition, Any] = {}
        for _ in range(count):
            topic, account_id, record = self._record(time.time_ns() // 1000)
            key = account_id.encode()
            place = (topic, self._partition_of(key))
            batch = batches.get(place)
            if batch is None:
                batch = batches[place] = self.producer.create_batch()
            if batch.append(key=key, value=_encode(record), timestamp=None) is None:
                await self._send(place, batch)
                batch = batches[place] = self.producer.create_batch()
                batch.append(key=key, value=_encode(record), timestamp=None)
        for place, batch in batches.items():
            await self._send(place, batch)
        self.sent += count

    async def _send(self, place: Partition, batch: Any) -> None:
        await self.producer.send_batch(batch, place[0], partition=place[1])

    def _record(self, now: Instant) -> tuple[str, str, dict[str, str]]:
        at, started = format_instant(now), format_instant(now - HOUR)
        number, kind = next(self._number), self._random.random()
        is_change = kind < 0.1
        account_id = next(self._turns) if is_change else self._random.choice(self._accounts)
        event_id = f"{self._run}-{number}"
        common = {"event_id": event_id, "account_id": account_id}
        if is_change:
            self.changes += 1
            owing = self._owing[account_id] = not self._owing.get(account_id, False)
            if owing:
                bill = {"bill_id": f"b-{event_id}", "kind": "issued", "amount": "900000", "currency": "CNY"}
                return "bills", account_id, common | bill | {"issued_at": at}
            amount = "900000"
        elif kind < 0.3:
            amount = "0.01"
        else:
            usage = {"usage_id": event_id, "service": "compute", "quantity": "1.5", "unit": "cu-hours", "cost": "0.3"}
            return "usage", account_id, common | usage | {"currency": "CNY", "started_at": started, "ended_at": at}
        payment = {"payment_id": f"p-{event_id}", "kind": "topup", "amount": amount, "currency": "CNY"}
        return "payments", account_id, common | payment | {"paid_at": at}


class Commands:
    """Reads what is committed, and notes how old each command's cause is."""

    def __init__(self, kafka: Mapping[str, Any], partitions: int = PARTITIONS) -> None:
        self._kafka = kafka
        self._partitions = partitions
        self.ages_s: list[float] = []
        self.count = 0

    async def watch(self) -> None:
        positions: dict[Partition, int] = {("arrears.commands", number): 0 for number in range(self._partitions)}
        async with Reader(self._kafka) as reader:
            while True:
                for partition, (records, reached) in (await reader.fetch(positions)).items():
                    now = time.time_ns() // 1000
                    for record in records:
                        assert record.value is not None
                        self.ages_s.append((now - parse_instant(_command(record.value).effective_at)) / SECOND)
                    self.count += len(records)
                    positions[partition] = reached

    def take(self) -> list[float]:
        """The ages since the last time."""
        ages, self.ages_s = self.ages_s, []
        return ages


@asynccontextmanager
async def watching(commands: Commands) -> AsyncIterator[None]:
    """Meanwhile they are read."""
    reading = asyncio.ensure_future(commands.watch())
    try:
        yield
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading


def _workers(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words, environment = process.info["cmdline"] or [], process.info["environ"] or {}
        if "worker" in words and environment.get("ARREARS_POLICY", "").startswith(str(folder)):
            found.append(process)
    return found


async def _soak(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    policy = folder / "policy.yaml"
    policy.write_text(POLICY, encoding="utf-8")
    minutes: list[dict[str, Any]] = []
    async with Crew(folder, _say, free_port()) as crew:
        address = await crew.start_broker()
        kafka = {"bootstrap_servers": address}
        await create(kafka, partitions=PARTITIONS)
        for number in range(1, WORKERS + 1):
            crew.start_worker(number, address, policy)
        while (await crew.seen()).ready < WORKERS:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        load, commands = Load(address, options.accounts, options.seed), Commands(kafka)
        async with load, watching(commands):
            began = time.monotonic()
            processes, every = _workers(folder), []
            for minute in range(1, options.minutes + 1):
                await play(load, options.rate, began, began + 60 * minute)
                ages, seen = commands.take(), await crew.seen()
                every += ages
                p50, p99 = percentiles_ms(ages)
                line = {
                    "minute": minute,
                    "sent": load.sent,
                    "commands": commands.count,
                    "p50_ms": round(p50),
                    "p99_ms": round(p99),
                    "lag": seen.lag,
                    "rss_mb": [round(process.memory_info().rss / 2**20) for process in processes],
                    "cpu_s": [round(sum(process.cpu_times()[:2]), 1) for process in processes],
                }
                minutes.append(line)
                _say(json.dumps(line))
            await asyncio.sleep(5)
            every += commands.take()
    p50, p99 = percentiles_ms(every)
    told = {"sent": load.sent, "changes": load.changes, "commands": commands.count}
    return told | {"p50_ms": round(p50), "p99_ms": round(p99), "minutes": minutes}


async def play(load: Load, rate: int, began: float, until: float) -> None:
    """Send at an even rate, since `began` (of the monotonic clock)."""
    while (now := time.monotonic()) < until:
        due = int((now - began) * rate) - load.sent
        if due > 0:
            await load.send(due)
        await asyncio.sleep(_TICK_S)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def main() -> int:
    """0 if every change has had its command."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--rate", type=int, default=5_000, help="records a second (5000)")
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="arrears-soak-") as folder:
        found = asyncio.run(_soak(options, Path(folder)))
    _say(json.dumps({name: value for name, value in found.items() if name != "minutes"}))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0 if found["changes"] == found["commands"] else 1


if __name__ == "__main__":
    sys.exit(main())
