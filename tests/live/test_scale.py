"""Many accounts, many marks passed while nobody worked: notices first, the guard holds, memory stays flat."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]

from models.instants import SECOND, parse_instant
from streams.worker import OK
from tests.live.workers import QUICK, WorkerProcess, bill, outputs, payment, seconds_ago, wait_until

if TYPE_CHECKING:
    from typing import Any

    from streams.local_kafka import LocalKafka
    from tests.live.conftest import FreshTopics

pytestmark = pytest.mark.live

#: Nobody is suspended until the notice has been out for two seconds.
TOLD_FIRST = QUICK.replace("PT2S", "PT24H").replace("PT300S", "PT360H").replace("[],", "[PT2S],", 1)


async def owe(client: dict[str, Any], accounts: int, due: int) -> None:
    """Accounts that have paid, and among them some with a bill whose mark has passed."""
    step = accounts // due
    producer = AIOKafkaProducer(**client)
    await producer.start()
    batches: dict[str, Any] = {}

    async def flush(topic: str) -> None:
        await (await producer.send_batch(batches.pop(topic), topic, partition=0))

    try:
        for number in range(accounts):
            record = bill if number % step == 0 else payment
            topic, account_id, value = record(f"account-{number:07}", at=seconds_ago(30 * 3600))
            for _ in range(2):
                batch = batches.setdefault(topic, producer.create_batch())
                if batch.append(key=account_id.encode(), value=value, timestamp=None) is not None:
                    break
                await flush(topic)
        for topic in list(batches):
            await flush(topic)
    finally:
        await producer.stop()


def resident_mb(worker: WorkerProcess) -> int:
    status = Path(f"/proc/{worker.process.pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) // 1024


@pytest.mark.parametrize(
    ("accounts", "due", "most", "within_s"),
    [
        pytest.param(5_000, 500, 50, 60, id="few"),
        pytest.param(1_000_000, 100_000, 5_000, 1800, id="many", marks=pytest.mark.slow),
    ],
)
def test_marks_that_passed_while_nobody_worked(
    broker: LocalKafka, fresh_topics: FreshTopics, tmp_path: Path, accounts: int, due: int, most: int, within_s: float
) -> None:
    client = fresh_topics(partitions=1)
    asyncio.run(owe(client, accounts, due))
    worker = WorkerProcess(broker.address, tmp_path, "--max-suspends", str(most), policy=TOLD_FIRST).wait_ready()
    try:

        def applied() -> float:
            return sum(
                worker.metric("arrears_records_total", topic=t, outcome="accepted") for t in ("bills", "payments")
            )

        def suspends() -> float:
            return worker.metric("arrears_commands_total", action="suspend", reason="unpaid_past_suspend_mark")

        wait_until(lambda: applied() == accounts, within_s, lambda: worker.said)
        before = resident_mb(worker)
        wait_until(lambda: worker.metric("arrears_commands_held_back") == due - most, within_s, lambda: worker.said)
        assert suspends() == most
        assert worker.metric("arrears_guard", guard="max_suspends") == 1
        assert worker.metric("arrears_rebalances_total") == 1, "the event loop was blocked for so long that it left"
        # What a decision on a tenth of them needs for a while, and not more the more there are.
        assert resident_mb(worker) - before < 60 + 0.2 * before
        assert worker.stop() == OK
    finally:
        worker.kill()

    told = {
        notice["account_id"]: parse_instant(notice["at"])
        for notice in asyncio.run(outputs(broker.address, "notices", 1))
        if notice["kind"] == "arrears_started"
    }
    assert len(told) == due
    sent = asyncio.run(outputs(broker.address, "commands", 1))
    assert Counter(command["action"] for command in sent) == {"suspend": most}
    assert all(parse_instant(one["decided_at"]) - told[one["account_id"]] >= 2 * SECOND for one in sent)
