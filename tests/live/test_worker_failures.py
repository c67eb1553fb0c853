"""What goes wrong under a worker: nothing half done is visible, nothing is skipped, and what has stopped says why."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from faust.types import TP

from models import state_version
from models.decision import Decision
from models.monitor import Monitor
from models.records import TOPICS
from models.state_version import VERSION, WRITES
from streams.fences import Fences
from streams.journal import CHECKPOINT, Journal, Lost
from streams.local_kafka import LocalKafka, free_port
from streams.partitioner import partition_by
from streams.table import EVERYBODY_KEY, PARTITION_KEY, Table
from streams.tables import Tables
from streams.topics import create as create_topics
from streams.watermarks import Unanswered, Watermarks
from streams.worker import NEWER, OK
from tests.live.conftest import _delete
from tests.live.kafka import delete_records, read, run, until
from tests.live.workers import WorkerProcess, alter, bill, commanded, commands, inside, outputs, send, sending
from tests.live.workers import wait_until as wait_for

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from models.instants import Instant
    from models.records import Record
    from streams.transport import RecordBatch
    from tests.live.conftest import FreshTopics

pytestmark = pytest.mark.live


def accounts_of(partition: int, partitions: int, number: int = 3) -> list[str]:
    """Ids of accounts that belong to a partition."""
    partition_of = partition_by("murmur2", partitions)
    return [f"a{i}" for i in range(200) if partition_of(b"a%d" % i) == partition][:number]


async def suspended(client: dict[str, Any], partitions: int) -> set[str]:
    """The accounts that are; each was told so once, in the same transaction."""
    servers = client["bootstrap_servers"]
    notices = await outputs(servers, "notices", partitions)
    found = await commanded(servers, partitions)
    assert all(actions == ["suspend"] for actions in found.values()), found
    told = [notice["account_id"] for notice in notices if notice["kind"] == "suspended"]
    assert len(told) == len(set(told))
    assert set(told) <= found.keys()  # they were read first
    return set(found)


async def until_suspended(client: dict[str, Any], partitions: int, wanted: set[str], within_s: float = 25) -> None:
    """Wait until exactly these are."""

    async def are() -> bool:
        found = await suspended(client, partitions)
        assert found <= wanted, found - wanted
        return found == wanted

    await until(are, within_s)


# -- a bug ------------------------------------------------------------------------------------------------------------


def test_a_bug_stops_its_partition_which_goes_on_there_once_it_is_mended(
    fresh_topics: FreshTopics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = fresh_topics(partitions=3)
    in_record, in_decision, healthy = (accounts_of(partition, 3) for partition in range(3))
    apply, decide = Monitor.apply, Decision.decide

    def applied(self: Monitor, record: Record, origin: Any) -> bool:
        if record.account_id == in_record[1]:
            raise ZeroDivisionError
        return apply(self, record, origin)

    def decided(self: Decision) -> Instant:
        if self.account.account_id == in_decision[1]:
            raise ZeroDivisionError
        return decide(self)

    async def scenario() -> None:
        async with inside(client["bootstrap_servers"], tmp_path) as worker:
            await worker.ready()
            with monkeypatch.context() as broken:
                broken.setattr(Monitor, "apply", applied)
                broken.setattr(Decision, "decide", decided)
                await sending(client, [bill(one) for one in (*in_record, *in_decision, *healthy)], 3)
                await until_suspended(client, 3, set(healthy))
                await until(lambda: worker.stopped(0) == worker.stopped(1) == "bug")
                assert worker.stopped(2) is None
                assert "2 of 3 partitions" in (worker.worker.not_ready_because() or "")
                await asyncio.sleep(2.5)  # it has tried again by now, in vain
                assert await suspended(client, 3) == set(healthy)
            await until_suspended(client, 3, {*in_record, *in_decision, *healthy})
            assert worker.stopped(0) is worker.stopped(1) is None

    run(scenario())


# -- state and offsets ------------------------------------------------------------------------------------------------


def test_state_of_a_newer_release_ends_the_worker(
    fresh_topics: FreshTopics, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    client = fresh_topics(partitions=2)
    newer = bytes((VERSION + 1,)) + b"whatever comes"

    async def scenario(key: bytes) -> int:
        journal = Journal(client, "arrears", 0, state_topic="arrears.state")
        await journal.start()
        await journal.commit([(key, newer)], {}, {})
        await journal.stop()
        async with inside(client["bootstrap_servers"], tmp_path) as worker:
            return await worker.ended(25)

    for key in (b"an account", b"\xff@partition"):
        assert run(scenario(key)) == NEWER
        assert f"failed: state of version {VERSION + 1}" in capfd.readouterr().err


def test_state_is_written_for_the_release_before_until_a_setting_says_otherwise(
    fresh_topics: FreshTopics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    client = fresh_topics(partitions=1)
    servers, seen = client["bootstrap_servers"], 0

    async def written(account: str, *accounts: str, **settings: Any) -> dict[bytes | None, set[int]]:
        """The versions of what a worker has written, by key: it starts, and suspends an account that is new."""
        nonlocal seen
        async with inside(servers, tmp_path, **settings) as worker:
            await worker.ready()
            await sending(client, [bill(account)], 1)
            await until_suspended(client, 1, {account, *accounts})
        rows = await read(servers, "arrears.state", 1)
        versions: dict[bytes | None, set[int]] = {}
        for row in rows[seen:]:
            versions.setdefault(row.key, set()).add((row.value or b"?")[0])
        seen = len(rows)
        return versions

    async def rolled_back() -> int:
        async with inside(servers, tmp_path) as worker:
            return await worker.ended(25)

    common = {CHECKPOINT, EVERYBODY_KEY, PARTITION_KEY}
    with monkeypatch.context() as next_release:
        next_release.setattr(state_version, "VERSION", VERSION + 1)
        assert run(written("a1")) == {key: {WRITES} for key in (*common, b"a1")}
        raised = run(written("a2", "a1", state_version=VERSION + 1))
        assert raised == {key: {VERSION + 1} for key in (*common, b"a2")}
        assert run(written("a3", "a1", "a2")) == {key: {WRITES} for key in (*common, b"a3")}
    assert run(rolled_back()) == NEWER  # a2 was not written again since
    assert (
        f"failed: state of version {VERSION + 1}; this release reads up to version {VERSION}" in capfd.readouterr().err
    )


def test_records_that_were_deleted_before_they_were_read_stop_their_partition(
    fresh_topics: FreshTopics, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    client = fresh_topics(partitions=2)
    servers = client["bootstrap_servers"]
    cut, whole = (accounts_of(partition, 2) for partition in range(2))

    async def scenario() -> None:
        await sending(client, [bill(one) for one in (*cut, *whole)], 2)
        await delete_records(servers, "bills", 0, 2)
        # At the first start of all, too: an account whose bills are gone would pass for one that owes nothing.
        async with inside(servers, tmp_path) as worker:
            await until(lambda: worker.worker.tables is not None and worker.stopped(0) == "offset_gone", 30)
            await until_suspended(client, 2, set(whole))
            assert worker.stopped(1) is None
            assert not worker.ending.done()
        assert "bills partition 0: records 0 to 1 have been deleted" in capfd.readouterr().err
        # While nobody looks the bills are made anew: what was read of them is more than there is.
        await _delete(client, {"bills"})
        await create_topics(client, partitions=2)
        async with inside(servers, tmp_path) as worker:
            await until(lambda: worker.worker.tables is not None and worker.stopped(1) == "offset_gone", 30)
            await sending(client, [bill(one, 2) for one in whole], 2)
            await asyncio.sleep(3)
            assert worker.stopped(1) == "offset_gone"
        assert await suspended(client, 2) == set(whole)
        assert "was the topic made anew?" in capfd.readouterr().err

    run(scenario(), 90)


# -- transactions -----------------------------------------------------------------------------------------------------


def test_a_record_that_the_brokers_refuse_and_a_transaction_that_times_out(
    fresh_topics: FreshTopics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    client = fresh_topics(partitions=1)
    servers = client["bootstrap_servers"]
    transact, hung = Journal._transact, 0

    async def hanging(self: Journal, producer: Any, batches: Any) -> int:
        nonlocal hung
        if hung < 1 and any(topic == "arrears.commands" for batch in batches for topic, _ in batch):
            hung += 1
            await producer.begin_transaction()
            for topic, batch in (one for several in batches for one in several):
                await (await producer.send_batch(batch, topic, partition=self.partition))
            await asyncio.sleep(600)
        return await transact(self, producer, batches)

    async def scenario() -> None:
        async with inside(servers, tmp_path, transaction_timeout="PT3S") as worker:
            await worker.ready()
            await alter(servers, "arrears.commands", "max.message.bytes", "300")
            await sending(client, [bill("a1")], 1)
            await until(lambda: worker.stopped(0) == "too_large", 20)
            assert await suspended(client, 1) == set()
            await alter(servers, "arrears.commands", "max.message.bytes", "8388608")
            await until_suspended(client, 1, {"a1"})
            assert worker.stopped(0) is None

            monkeypatch.setattr(Journal, "_transact", hanging)
            await sending(client, [bill("a2")], 1)
            await until_suspended(client, 1, {"a1", "a2"})
            assert hung == 1
            assert not worker.ending.done()

    run(scenario(), 90)
    told = capfd.readouterr().err
    assert "the brokers refuse a record as too large" in told
    assert "did not commit: no answer within 3 s; recovering it" in told


# -- taking over -----------------------------------------------------------------------------------------------------


def test_a_takeover_while_the_brokers_do_not_answer(
    fresh_topics: FreshTopics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The transactions' coordinator is away, then the leader of an input: no fault of the partition, which goes on."""
    client = fresh_topics(partitions=1)
    starting, asking, away = Journal.start, Fences.earliest, 0

    async def start(self: Journal) -> None:
        nonlocal away
        away += 1
        if away == 1:
            raise Lost("the coordinator is away")
        await starting(self)

    async def earliest(self: Fences, partitions: Any) -> dict[Any, int]:
        if away == 2:
            raise Unanswered("the leader is away")
        return await asking(self, partitions)

    monkeypatch.setattr(Journal, "start", start)
    monkeypatch.setattr(Fences, "earliest", earliest)

    async def scenario() -> None:
        async with inside(client["bootstrap_servers"], tmp_path) as worker:
            await until(lambda: worker.worker.tables is not None and away > 0)
            while worker.worker.not_ready_because() is not None:
                assert worker.stopped(0) is None
                await asyncio.sleep(0.02)
            assert away == 3

    run(scenario(), 30)
    assert "partition 0 waits for the brokers: the leader is away" in capfd.readouterr().err


def test_a_partition_that_comes_back_before_it_is_quite_let_go(
    fresh_topics: FreshTopics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = fresh_topics(partitions=1)
    stop, stopped = Table.stop, 0

    async def slowly(self: Table) -> None:
        nonlocal stopped
        await asyncio.sleep(4)  # the group was told long before
        await stop(self)
        stopped += 1

    async def scenario() -> None:
        async with inside(client["bootstrap_servers"], tmp_path) as worker:
            await worker.ready()
            with monkeypatch.context() as slow:
                slow.setattr(Table, "stop", slowly)
                await worker.tables.on_assigned(None, set())
                assert stopped == 0
                await worker.tables.on_assigned(None, {TP(topic, 0) for topic in TOPICS})
                await worker.ready()
                assert stopped == 1
            await asyncio.sleep(0.5)  # what has ended takes nothing of what has begun with it
            assert worker.worker.not_ready_because() is None
            assert worker.worker.metrics.partition(0) is worker.tables.tables[0].metrics
            await sending(client, [bill("a1")], 1)
            await until_suspended(client, 1, {"a1"})

    run(scenario())


def test_a_question_whose_connection_is_closed_under_it_has_no_answer(broker: LocalKafka) -> None:
    async def scenario() -> None:
        asked, closed = asyncio.Event(), asyncio.Event()
        watermarks = Watermarks({"bootstrap_servers": broker.address})
        await watermarks.start()

        async def question() -> int:
            asked.set()
            await closed.wait()
            return await watermarks.leader(("bills", 0))

        asking = asyncio.ensure_future(watermarks.ask(question))
        await asked.wait()
        await watermarks.stop()
        closed.set()
        with pytest.raises(Unanswered, match="was stopped"):
            await asking

    run(scenario())


# -- holes ------------------------------------------------------------------------------------------------------------


def test_a_batch_that_got_lost_is_read_again(
    fresh_topics: FreshTopics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    client = fresh_topics(partitions=1)
    take, lost = Tables.take, list[int]()

    async def losing(self: Tables, batch: RecordBatch) -> None:
        if batch.records and batch.topic == "bills" and batch.start in {0, 1} and batch.start not in lost:
            lost.append(batch.start)
            return
        await take(self, batch)

    monkeypatch.setattr(Tables, "take", losing)

    async def scenario() -> None:
        async with inside(client["bootstrap_servers"], tmp_path) as worker:
            await worker.ready()
            # Nothing follows, so nothing shows it.
            await sending(client, [bill("a1")], 1)
            await until_suspended(client, 1, {"a1"})
            assert lost == [0]
            await sending(client, [bill("a2")], 1)
            await until(lambda: lost == [0, 1])
            await sending(client, [bill("a3")], 1)
            await until_suspended(client, 1, {"a1", "a2", "a3"})

    run(scenario())
    assert "bills partition 0: 1 was expected and 2 came; reading again" in capfd.readouterr().err


# -- signing in -------------------------------------------------------------------------------------------------------


def test_every_client_of_a_worker_signs_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told of a listener only that lets nobody in without a password."""
    port, signed, controller = free_port(), free_port(), free_port()
    host = "127.0.0.1"
    login = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_monitor="sesame";'
    kafka = LocalKafka(
        port,
        tmp_path / "kafka",
        properties={
            "controller.quorum.voters": f"1@{host}:{controller}",
            "listeners": f"PLAINTEXT://{host}:{port},SIGNED://{host}:{signed},CONTROLLER://{host}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{host}:{port},SIGNED://{host}:{signed}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SIGNED:SASL_PLAINTEXT",
            "listener.name.signed.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.signed.plain.sasl.jaas.config": login,
        },
    )
    kafka.start()
    worker = None
    try:
        asyncio.run(create_topics({"bootstrap_servers": kafka.address}, partitions=1))
        worker = WorkerProcess(
            f"{host}:{signed}",
            tmp_path,
            "--sasl-mechanism",
            "PLAIN",
            "--sasl-username",
            "monitor",
            variables={"ARREARS_SASL_PASSWORD": "sesame"},
        ).wait_ready()
        send(kafka.address, [bill("a1")], 1)
        wait_for(lambda: commands(kafka.address, 1) == {"a1": ["suspend"]}, 20, str)
        assert worker.stop() == OK
        assert "sesame" not in worker.said
        worker = WorkerProcess(
            f"{host}:{signed}",
            tmp_path,
            "--sasl-mechanism",
            "PLAIN",
            "--sasl-username",
            "monitor",
            name="wrong",
            variables={"ARREARS_SASL_PASSWORD": "wrong"},
        )
        worker.wait_said("waiting for the brokers")
        assert worker.stop() == OK
    finally:
        if worker is not None:
            worker.kill()
        kafka.stop()
