"""Whose a partition is: one worker's at a time, of the number the state was made with, of the right accounts."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions  # type: ignore[import-untyped]

from streams.topic_design import TOPICS
from streams.worker import FAILED, OK, UNUSABLE
from tests.live.kafka import run, until
from tests.live.workers import (
    WorkerProcess,
    bill,
    commanded,
    commands,
    inside,
    outputs,
    payment,
    send,
    sending,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from typing import Any

    from streams.local_kafka import LocalKafka
    from tests.live.conftest import FreshTopics

pytestmark = pytest.mark.live

ALL = [design.called("arrears") for design in TOPICS]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Starts workers that end with the test."""
    started: list[WorkerProcess] = []

    def worker(servers: str, *options: str, **more: Any) -> WorkerProcess:
        started.append(WorkerProcess(servers, tmp_path, *options, name=f"worker-{len(started)}", **more))
        return started[-1]

    yield worker
    for one in started:
        one.kill()


async def enlarge(servers: str, topics: Iterable[str], partitions: int) -> None:
    """Give topics more partitions."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.create_partitions({topic: NewPartitions(partitions) for topic in topics})
    finally:
        await admin.close()


# -- the number of partitions -----------------------------------------------------------------------------------------


def test_another_number_of_partitions_is_refused_while_it_runs_and_before_anything_is_served(
    fresh_topics: FreshTopics, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    client = fresh_topics(partitions=2)
    servers = client["bootstrap_servers"]

    async def scenario() -> None:
        async with inside(servers, tmp_path) as worker:
            await worker.ready()
            await sending(client, [bill(f"a{number}") for number in range(10)], 2)
            await until(lambda: sum(table.next["bills"] for table in worker.tables.tables.values()) == 10)
            began = time.monotonic()
            await enlarge(servers, ["usage"], 3)
            assert await worker.ended() == UNUSABLE
            assert time.monotonic() - began < 11
        assert "usage has 3 partitions, and the state was made with 2" in capfd.readouterr().err

        # One topic with more than the others.
        async with inside(servers, tmp_path) as worker:
            with pytest.raises(Exception, match="usage has 3 partitions"):
                await worker.ended()

        # All of them: a worker that has the new partition alone would find no state there to tell it otherwise.
        await enlarge(servers, [name for name in ALL if name != "usage"], 3)
        before = await outputs(servers, "accounts", 3)
        async with inside(servers, tmp_path) as worker:
            assert await worker.ended() == UNUSABLE
            assert worker.worker.tables is None, "it has joined the group"
        assert "the state was made with 2 partitions and the inputs have 3" in capfd.readouterr().err
        assert await outputs(servers, "accounts", 3) == before

    run(scenario(), 90)


def test_all_topics_enlarged_while_it_runs(
    fresh_topics: FreshTopics, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    client = fresh_topics(partitions=1)

    async def scenario() -> None:
        async with inside(client["bootstrap_servers"], tmp_path) as worker:
            await worker.ready()
            began = time.monotonic()
            await enlarge(client["bootstrap_servers"], ALL, 2)
            assert await worker.ended() == UNUSABLE
            assert time.monotonic() - began < 11

    run(scenario())
    assert "partitions again, or begin a new app id" in capfd.readouterr().err


# -- the partition of an account --------------------------------------------------------------------------------------


def test_records_of_another_partitioner_are_dead_letters_and_suspend_nobody(
    fresh_topics: FreshTopics, tmp_path: Path
) -> None:
    client = fresh_topics(partitions=2)
    servers = client["bootstrap_servers"]
    accounts = [f"a{number}" for number in range(40)]

    async def scenario() -> None:
        async with inside(servers, tmp_path) as worker:
            await worker.ready()
            # Bills come as they have to; whoever sends the payments has taken the other partitioner.
            await sending(client, [payment(one) for one in accounts], 2, partitioner="crc32")
            await sending(client, [bill(one) for one in accounts], 2)
            await until(lambda: sum(table.next["bills"] for table in worker.tables.tables.values()) == 40)
            await asyncio.sleep(4)  # the marks are at 2 s
            letters = await outputs(servers, "dead-letters", 2)
            assert {(one["topic"], one["error"]) for one in letters} == {("payments", "wrong_partition")}
            assert 5 < len(letters) < 35
            assert await commanded(servers, 2) == {}
            for table in worker.tables.tables.values():
                assert "unusable_payments" in table.monitor.everybody.stops

    run(scenario())


# -- who has a partition ----------------------------------------------------------------------------------------------


def test_a_zombie_is_fenced_and_nothing_is_doubled(
    broker: LocalKafka, fresh_topics: FreshTopics, start: Callable[..., WorkerProcess]
) -> None:
    fresh_topics(partitions=2)
    servers = broker.address
    zombie = start(servers).wait_ready()
    send(servers, [bill(f"a{number}") for number in range(200)], 2)
    zombie.signal(signal.SIGSTOP)  # it has read some, and committed less
    heir = start(servers)
    heir.wait_ready(60)
    send(servers, [bill(f"b{number}") for number in range(50)], 2)
    wait_until(lambda: len(commands(servers, 2)) == 250, 30, lambda: heir.said)
    zombie.signal(signal.SIGCONT)
    send(servers, [payment(f"a{number}") for number in range(200)], 2)
    wait_until(
        lambda: sum(actions == ["suspend", "restore"] for actions in commands(servers, 2).values()) == 200,
        30,
        lambda: zombie.said + heir.said,
    )
    wait_until(lambda: zombie.metric("arrears_partitions_owned") + heir.metric("arrears_partitions_owned") == 2, 20)
    assert zombie.runs
    assert heir.runs
    # Both work on, side by side, each on one partition; then one has both again.
    wait_until(lambda: zombie.is_ready and heir.is_ready, 20, lambda: zombie.said + heir.said)
    assert heir.stop() == OK
    send(servers, [bill(f"c{number}") for number in range(50)], 2)
    wait_until(lambda: len(commands(servers, 2)) == 300, 30, lambda: zombie.said)
    found = commands(servers, 2)
    assert {tuple(found[f"{kind}{number}"]) for kind in "bc" for number in range(50)} == {("suspend",)}
    assert zombie.stop() == OK


def test_a_worker_that_is_killed_comes_back_under_its_name_without_a_rebalance(
    broker: LocalKafka, fresh_topics: FreshTopics, start: Callable[..., WorkerProcess]
) -> None:
    # A group of its own: the names that are left in it have a minute to come back, and others would wait for them.
    fresh_topics(partitions=2, app_id="named")
    servers = broker.address
    session = (
        "--app-id",
        "named",
        "--session-timeout",
        "PT60S",
        "--heartbeat-interval",
        "PT0.3S",
        "--commit-interval",
        "PT0.05S",
    )
    one = start(servers, "--instance-id", "one", *session).wait_ready()
    other = start(servers, "--instance-id", "other", *session).wait_ready()
    wait_until(lambda: one.metric("arrears_partitions_owned") == 1 and one.is_ready, 30, lambda: one.said)
    rebalances = other.metric("arrears_rebalances_total")
    one.kill()
    began = time.monotonic()
    one = start(servers, "--instance-id", "one", *session).wait_ready(50)
    assert time.monotonic() - began < 55, "it waited for the session to end"
    assert other.metric("arrears_rebalances_total") == rebalances
    send(servers, [bill(f"a{number}") for number in range(20)], 2)
    wait_until(lambda: len(commands(servers, 2, "named")) == 20, 20, lambda: one.said + other.said)

    # A third that calls itself as one that lives.
    third = start(servers, "--instance-id", "one", *session)
    wait_until(lambda: not (one.runs and third.runs), 60, lambda: one.said + third.said)
    ended = third if one.runs else one
    assert ended.ended() == FAILED
    assert "two workers have the instance id one" in ended.said
    assert "Traceback" not in ended.said
    assert set(map(tuple, commands(servers, 2, "named").values())) == {("suspend",)}
