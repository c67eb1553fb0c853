"""The worker as a process: how it starts, waits, works, goes on and ends, and what its exit code says."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from models.records import TOPICS
from streams.journal import CHECKPOINT, Journal, newest
from streams.journal import decode_positions as positions_of
from streams.local_kafka import LocalKafka, free_port
from streams.topics import create
from streams.watermarks import Watermarks
from streams.worker import FAILED, OK, UNUSABLE
from tests.live.kafka import run
from tests.live.workers import QUICK, WorkerProcess, alter, bill, commands, inside, payment, send, sending, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    from tests.live.conftest import FreshTopics

pytestmark = pytest.mark.live


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


async def unread(servers: str, partitions: int) -> dict[str, int]:
    """How many committed records of the inputs are not in the committed positions."""
    client = {"bootstrap_servers": servers}
    missing: dict[str, int] = dict.fromkeys(TOPICS, 0)
    async with Watermarks(client) as watermarks:
        for partition in range(partitions):
            row = await newest(client, ("arrears.state", partition), CHECKPOINT)
            positions = positions_of(row)
            ends = await watermarks.ends([(topic, partition) for topic in TOPICS])
            for topic in TOPICS:
                missing[topic] += ends[topic, partition].high - positions.get(topic, 0)
    return missing


# -- a life ------------------------------------------------------------------------------------------------------------


def test_it_works_and_stops_when_it_is_told_to_with_everything_committed(
    broker: LocalKafka, fresh_topics: FreshTopics, start: Callable[..., WorkerProcess]
) -> None:
    fresh_topics(partitions=2)
    servers = broker.address
    first = start(servers).wait_ready()
    second = start(servers)
    send(servers, [bill(f"a{number}") for number in range(20)], 2)
    second.wait_ready()
    wait_until(lambda: len(commands(servers, 2)) == 20, 20, lambda: f"{commands(servers, 2)} {first.said}")
    send(servers, [payment(f"a{number}") for number in range(20)], 2)
    wait_until(lambda: commands(servers, 2)["a0"] == ["suspend", "restore"], 20)
    # Work is under way when it is told to stop.
    send(servers, [bill(f"b{number}") for number in range(3000)], 2)
    began = time.monotonic()
    first.signal(signal.SIGTERM)
    second.signal(signal.SIGINT)
    assert (first.ended(), second.ended()) == (OK, OK), (first.said, second.said)
    assert time.monotonic() - began < 10
    for worker in (first, second):
        assert "Traceback" not in worker.said
        assert worker.said.splitlines()[-1].endswith("stopped")
    # What was committed is a whole: none of it hangs in a transaction that readers have to wait for.
    asyncio.run(no_open_transaction(servers, 2))
    again = start(servers).wait_ready()
    wait_until(lambda: not any(asyncio.run(unread(servers, 2)).values()), 20, lambda: again.said)
    assert again.stop() == OK
    assert not any(asyncio.run(unread(servers, 2)).values())


def test_a_commit_that_is_under_way_ends_before_it_stops(
    fresh_topics: FreshTopics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would hang in the topics, and whoever reads what is committed would wait for its time-out."""
    client = fresh_topics(partitions=1)
    transact = Journal._transact

    async def scenario() -> None:
        under_way = asyncio.Event()

        async def slowly(self: Journal, producer: Any, batches: Any) -> int:
            committing = producer.commit_transaction

            async def commit() -> None:
                under_way.set()
                await asyncio.sleep(1)
                await committing()

            with monkeypatch.context() as slow:
                slow.setattr(producer, "commit_transaction", commit)
                return await transact(self, producer, batches)

        async with inside(client["bootstrap_servers"], tmp_path) as worker:
            await worker.ready()
            monkeypatch.setattr(Journal, "_transact", slowly)
            await sending(client, [bill("a1")], 1)
            async with asyncio.timeout(10):
                await under_way.wait()
            worker.worker.stop()
            assert await worker.ended() == OK
        await no_open_transaction(client["bootstrap_servers"], 1)
        assert not any((await unread(client["bootstrap_servers"], 1)).values())

    run(scenario())


async def no_open_transaction(servers: str, partitions: int) -> None:
    """Of a worker that was told to stop, in what it writes."""
    topics = [f"arrears.{name}" for name in ("commands", "notices", "accounts", "dead-letters", "state")]
    async with Watermarks({"bootstrap_servers": servers}) as watermarks:
        ends = await watermarks.ends((topic, number) for topic in topics for number in range(partitions))
    assert {end.stable < end.high for end in ends.values()} == {False}, ends


def wait_quiet(worker: WorkerProcess) -> None:
    """Until no commit is under way.

    A broker that is killed in one, and starts when its transaction is over, was seen to leave that transaction open in
    a partition for good (see `Journal._settled_end`); tests of chaos kill brokers at any time, but start them at once.
    """
    committed, since = -1.0, time.monotonic()
    while time.monotonic() - since < 0.5:
        if (now := worker.metric("arrears_transactions_total", outcome="committed")) != committed:
            committed, since = now, time.monotonic()
        time.sleep(0.05)


def test_it_outlives_its_broker(tmp_path: Path, start: Callable[..., WorkerProcess]) -> None:
    """Away at the start, killed, frozen: it waits and says so, nothing fires meanwhile, nothing is lost."""
    kafka = LocalKafka(free_port(), tmp_path / "kafka")
    servers = kafka.address
    kafka.start()
    try:
        asyncio.run(create({"bootstrap_servers": servers}, partitions=2))
        kafka.stop()
        # Both the session and an open transaction are over before a frozen broker goes on.
        worker = start(servers, "--transaction-timeout", "PT8S")
        worker.wait_said(r"waiting for the brokers at \S+, trying again in 1 s")
        worker.wait_said(r"waiting for the brokers at \S+, trying again in 2 s")
        assert worker.runs
        kafka.start()
        worker.wait_ready()

        wait_quiet(worker)
        kafka.kill()  # in a quiet hour: nothing has to be asked
        wait_until(lambda: worker.metric("arrears_brokers_away") >= 1, 40, lambda: worker.said)
        kafka.start()
        wait_until(lambda: worker.metric("arrears_brokers_away") == 0, 40, lambda: worker.said)

        send(servers, [bill(f"a{number}") for number in range(10)], 2)
        wait_until(lambda: worker.metric("arrears_records_total", topic="bills", outcome="accepted") >= 10, 15)
        wait_quiet(worker)
        kafka.kill()  # before the marks
        time.sleep(4)
        assert worker.runs, worker.said
        assert worker.metric("arrears_commands_total", action="suspend", reason="unpaid_past_suspend_mark") == 0
        kafka.start()
        wait_until(lambda: len(commands(servers, 2)) == 10, 40, lambda: worker.said)

        send(servers, [payment(f"a{number}") for number in range(10)], 2)
        wait_until(lambda: commands(servers, 2)["a0"] == ["suspend", "restore"], 20, lambda: worker.said)
        # What was not committed when the broker went was taken once more.
        taken = worker.metric("arrears_records_total", topic="bills", outcome="accepted")
        send(servers, [bill(f"b{number}") for number in range(10)], 2)
        wait_until(lambda: worker.metric("arrears_records_total", topic="bills", outcome="accepted") >= taken + 10, 90)
        kafka.freeze()
        time.sleep(14)
        assert worker.runs, worker.said
        assert worker.metric("arrears_commands_total", action="suspend", reason="unpaid_past_suspend_mark") == 10
        kafka.thaw()
        wait_until(lambda: len(commands(servers, 2)) == 20, 40, lambda: worker.said)
        assert set(map(tuple, commands(servers, 2).values())) == {("suspend", "restore"), ("suspend",)}

        kafka.freeze()  # nobody answers any more
        began = time.monotonic()
        assert worker.stop() == OK
        assert time.monotonic() - began < 10
        assert "Traceback" not in worker.said
    finally:
        kafka.thaw()
        kafka.stop()


# -- what it refuses ---------------------------------------------------------------------------------------------------


def test_a_metrics_port_that_is_taken(start: Callable[..., WorkerProcess]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        worker = start("127.0.0.1:1", "--metrics-port", str(taken.getsockname()[1]))
        assert worker.ended() == UNUSABLE
    assert "choose another port, or 0 for a free one" in worker.said
    assert len(worker.said.splitlines()) == 1


def test_a_policy_that_cannot_be_used(start: Callable[..., WorkerProcess]) -> None:
    worker = start("127.0.0.1:1", policy=QUICK.replace("PT2S", "2 s"))
    assert worker.ended() == UNUSABLE
    assert len(worker.said.splitlines()) == 1
    assert "suspend_after" in worker.said


def test_topics_that_are_missing_or_would_lose_data(
    broker: LocalKafka, fresh_topics: FreshTopics, start: Callable[..., WorkerProcess]
) -> None:
    fresh_topics(partitions=1)
    worker = start(broker.address, "--app-id", "nobodys")
    assert worker.ended(20) == UNUSABLE
    assert "nobodys." in worker.said
    assert "arrears topics create" in worker.said
    asyncio.run(alter(broker.address, "bills", "cleanup.policy", "compact"))
    try:
        worker = start(broker.address)
        assert worker.ended(20) == UNUSABLE
    finally:
        asyncio.run(alter(broker.address, "bills", "cleanup.policy", "delete"))
    assert "bills cleanup.policy" in worker.said
    assert "to mend it" in worker.said


# -- what ends it ------------------------------------------------------------------------------------------------------


def test_a_crash_of_the_app_is_told_and_exits_with_1(
    broker: LocalKafka, fresh_topics: FreshTopics, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fresh_topics(partitions=1)

    async def scenario() -> int:
        async with inside(broker.address, tmp_path) as worker:
            await worker.ready()
            await worker.tables.app.crash(RuntimeError("boom"))
            return await worker.ended()

    assert run(scenario()) == FAILED
    told = capfd.readouterr().err
    assert "failed: RuntimeError('boom')" in told
    assert "Traceback" not in told


def test_brokers_that_go_away_between_the_question_and_the_join(
    tmp_path: Path, broker: LocalKafka, fresh_topics: FreshTopics, capfd: pytest.CaptureFixture[str]
) -> None:
    """It looks at the topics, then the group's coordinator cannot be reached: it begins anew."""
    fresh_topics(partitions=1)

    async def scenario() -> None:
        async with inside(broker.address, tmp_path) as worker:
            right = worker.worker.client
            asked = 0

            async def in_between() -> int:
                nonlocal asked
                asked += 1
                worker.worker.client = {**right, "bootstrap_servers": "127.0.0.1:1"} if asked < 3 else right
                return 1

            worker.worker._until_topics_are_right = in_between  # type: ignore[method-assign]
            await worker.ready()
            assert asked == 3

    run(scenario())
    assert "could not join the group, trying again" in capfd.readouterr().err
