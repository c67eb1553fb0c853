"""The transport on a real broker: nothing unasked, nothing twice, no hole, and no error that is only logged."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from contextlib import asynccontextmanager
from importlib.metadata import entry_points
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from faust.types import TP

from streams.fetched import APPEND_TIME, OffsetGone
from streams.transport import MAX_RECORDS, BatchApp, BatchSchema, NotCopartitioned, RecordBatch, Transport
from streams.watermarks import Watermarks
from tests.live.kafka import create, delete_records, producing, read, run, until, unused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path
    from typing import Any

    from streams.fetched import Partition
    from streams.local_kafka import LocalKafka
    from tests.live.conftest import NewKafka

pytestmark = pytest.mark.live


class Reader:
    """An app that keeps what it is handed out, and releases what it is assigned at `begin`, or not at all."""

    def __init__(
        self,
        servers: str,
        topics: Iterable[str],
        folder: Path,
        *,
        app_id: str = "",
        begin: dict[Partition, int] | int | None = 0,
        client: dict[str, Any] | None = None,
    ) -> None:
        self.begin = begin
        self.assigned: set[Partition] = set()
        self.assignments = 0
        self.batches: defaultdict[Partition, list[RecordBatch]] = defaultdict(list)
        self.gone: list[OffsetGone] = []
        self.app = BatchApp(
            app_id or unused("reader"),
            client={"bootstrap_servers": servers, **(client or {})},
            on_offset_gone=self.gone.append,
            broker_session_timeout=6.0,
            broker_heartbeat_interval=0.3,
            broker_rebalance_timeout=6.0,
            broker_request_timeout=10.0,
            datadir=str(folder),
            stream_buffer_maxsize=16,
            stream_wait_empty=False,
            table_standby_replicas=0,
            topic_allow_declare=False,
            topic_disable_leader=True,
            web_enabled=False,
        )
        for topic in topics:
            self.app.agent(self.app.topic(topic, schema=BatchSchema(), acks=False), name=topic)(self._keep)
        self.app.on_partitions_assigned.connect(self.on_assigned)  # type: ignore[arg-type]
        self.app.finalize()

    async def _keep(self, stream: Any) -> None:
        async for batch in stream:
            self.batches[batch.topic, batch.partition].append(batch)

    async def on_assigned(self, _: Any, assigned: set[Any], **__: Any) -> None:
        self.assigned = set(assigned)
        if self.begin is not None:
            self.batches.clear()
            begin = self.begin if isinstance(self.begin, dict) else dict.fromkeys(assigned, self.begin)
            await self.app.batches.release(begin)
        self.assignments += 1

    def reached(self, partition: Partition) -> int:
        """The end of what was handed out, which has no hole."""
        batches = self.batches[partition]
        for before, after in pairwise(batches):
            assert before.next == after.start
        for batch in batches:
            offsets = [record.offset for record in batch.records]
            assert offsets == sorted(set(offsets))
            assert all(batch.start <= offset < batch.next for offset in offsets)
            assert len(offsets) <= MAX_RECORDS
        return batches[-1].next if batches else -1

    def values(self, partition: Partition) -> list[bytes | None]:
        return [record.value for batch in self.batches[partition] for record in batch.records]


@asynccontextmanager
async def running(*readers: Reader) -> AsyncIterator[None]:
    try:
        for reader in readers:
            await reader.app.start()
        yield
    finally:
        for reader in readers:
            await reader.app.stop()


@pytest.fixture
def servers(broker: LocalKafka) -> str:
    return broker.address


async def ends(servers: str, *partitions: Partition) -> dict[Partition, int]:
    async with Watermarks({"bootstrap_servers": servers}) as watermarks:
        return {partition: found.high for partition, found in (await watermarks.ends(partitions)).items()}


def test_faust_finds_it_by_its_name() -> None:
    (found,) = entry_points(group="faust.transports", name="batched")
    assert found.load() is Transport


# -- what is handed out ----------------------------------------------------------------------------------------------


def test_batches_cover_everything_that_is_committed_and_what_lies_between(servers: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        topics = [unused("bills"), unused("payments")]
        await create(servers, *topics, partitions=2)
        partitions = [(topic, number) for topic in topics for number in range(2)]
        async with producing(servers, unused("upstream")) as upstream, producing(servers) as plain:
            for turn in range(30):
                await upstream.begin_transaction()
                for topic, number in partitions:
                    await upstream.send(topic, key=b"a", value=b"%d" % turn, partition=number)
                    await plain.send(topic, key=b"a", value=b"plain", partition=number)
                await (upstream.abort_transaction if turn % 3 == 0 else upstream.commit_transaction)()
        reached = await ends(servers, *partitions)
        reader = Reader(servers, topics, tmp_path)
        async with running(reader):
            # To the end itself, although only markers lie before it.
            await until(lambda: {partition: reader.reached(partition) for partition in partitions} == reached)
        for topic, number in partitions:
            expected = [record.value for record in await read(servers, topic, 2) if record.partition == number]
            assert reader.values((topic, number)) == expected
            assert expected.count(b"plain") == 30
            assert len(expected) == 50
            assert reader.batches[topic, number][0].start == 0

    run(scenario())


def test_many_records_come_in_batches(servers: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        topic = unused("bills")
        await create(servers, topic)
        async with producing(servers) as producer:
            await asyncio.gather(
                *[await producer.send(topic, key=b"a", value=b"%d" % n, partition=0) for n in range(10_000)]
            )
        reader = Reader(servers, [topic], tmp_path)
        async with running(reader):
            await until(lambda: reader.reached((topic, 0)) == 10_000)
        assert reader.values((topic, 0)) == [b"%d" % n for n in range(10_000)]
        assert max(len(batch.records) for batch in reader.batches[topic, 0]) == MAX_RECORDS

    run(scenario())


@pytest.mark.parametrize(("time_type", "expected"), [("LogAppendTime", APPEND_TIME), ("CreateTime", 0)])
def test_a_record_has_key_value_and_time(servers: str, tmp_path: Path, time_type: str, expected: int) -> None:
    async def scenario() -> None:
        topic = unused("bills")
        await create(servers, topic, config={"message.timestamp.type": time_type})
        now = int(time.time() * 1000)
        async with producing(servers) as producer:
            await producer.send_and_wait(topic, key=b"a", value=b"{}", partition=0, timestamp_ms=now - 60_000)
            await producer.send_and_wait(topic, key=None, value=b"", partition=0, timestamp_ms=now - 60_000)
            await producer.send_and_wait(topic, key=b"a", value=None, partition=0, timestamp_ms=now - 60_000)
        reader = Reader(servers, [topic], tmp_path)
        async with running(reader):
            await until(lambda: reader.reached((topic, 0)) == 3)
        records = [record for batch in reader.batches[topic, 0] for record in batch.records]
        assert [(record.offset, record.key, record.value) for record in records] == [
            (0, b"a", b"{}"),
            (1, None, b""),
            (2, b"a", None),
        ]
        for record in records:
            assert record.timestamp_type == expected
            if time_type == "CreateTime":
                assert record.timestamp == now - 60_000
            else:
                assert 0 <= record.timestamp - now < 60_000

    run(scenario())


def test_nothing_of_an_open_transaction_is_handed_out(servers: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        topic = unused("bills")
        await create(servers, topic)
        reader = Reader(servers, [topic], tmp_path)
        async with running(reader), producing(servers, unused("upstream")) as upstream, producing(servers) as plain:
            await plain.send_and_wait(topic, value=b"before", partition=0)
            await upstream.begin_transaction()
            await upstream.send_and_wait(topic, value=b"inside", partition=0)
            await plain.send_and_wait(topic, value=b"behind", partition=0)
            await until(lambda: reader.reached((topic, 0)) == 1)
            await asyncio.sleep(0.5)
            assert reader.values((topic, 0)) == [b"before"]
            await upstream.commit_transaction()
            await until(lambda: reader.reached((topic, 0)) == 4)
            assert reader.values((topic, 0)) == [b"before", b"inside", b"behind"]

    run(scenario())


def test_a_busy_partition_does_not_wait_for_idle_ones(servers: str, tmp_path: Path) -> None:
    """One that has just been placed is not in the fetch that waits for the others."""

    async def scenario() -> None:
        topic = unused("bills")
        await create(servers, topic, partitions=8)
        reader = Reader(servers, [topic], tmp_path)
        async with running(reader), producing(servers) as producer:
            await until(lambda: reader.assignments > 0)
            waited_s = 0.0
            for number in range(8):
                reader.app.batches.hold([(topic, 3)])
                await producer.send_and_wait(topic, value=b"x", partition=3)
                await asyncio.sleep(0.3)
                began = time.monotonic()
                await reader.app.batches.release({(topic, 3): number})
                await until(lambda number=number: reader.reached((topic, 3)) == number + 1)  # type: ignore[misc]
                waited_s += time.monotonic() - began
            assert waited_s / 8 < 0.3

    run(scenario())


# -- who says where --------------------------------------------------------------------------------------------------


def test_a_partition_is_silent_until_it_is_released(servers: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        topic = unused("bills")
        await create(servers, topic, partitions=2)
        async with producing(servers) as producer:
            for number in range(20):
                await producer.send_and_wait(topic, value=b"%d" % (number // 2), partition=number % 2)
        reader = Reader(servers, [topic], tmp_path, begin=None)
        async with running(reader):
            await until(lambda: reader.assignments > 0)
            await asyncio.sleep(1.0)
            assert not reader.batches
            batches = reader.app.batches
            assert await batches.release({(topic, 1): 4}) == {(topic, 1)}
            await until(lambda: reader.reached((topic, 1)) == 10)
            assert reader.values((topic, 1)) == [b"%d" % number for number in range(4, 10)]
            assert (topic, 0) not in reader.batches
            # Over a hole: again from where it is, and the others stay where they are.
            reader.batches.clear()
            assert await batches.release({(topic, 1): 7, (topic, 7): 0, ("nowhere", 1): 0}) == {(topic, 1)}
            await until(lambda: reader.reached((topic, 1)) == 10)
            assert reader.values((topic, 1)) == [b"7", b"8", b"9"]
            # Held: what comes then waits until it is released.
            batches.hold([(topic, 1)])
            async with producing(servers) as producer:
                await producer.send_and_wait(topic, value=b"10", partition=1)
                await asyncio.sleep(0.5)
                assert reader.reached((topic, 1)) == 10
            await batches.release({(topic, 1): 10})
            await until(lambda: reader.reached((topic, 1)) == 11)

    run(scenario())


def test_offsets_that_others_committed_for_the_group_play_no_part(
    servers: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are for tools that show lag."""

    async def scenario() -> None:
        from aiokafka import AIOKafkaConsumer, TopicPartition  # type: ignore[import-untyped]  # noqa: PLC0415

        topic, app_id = unused("bills"), unused("reader")
        await create(servers, topic)
        async with producing(servers) as producer:
            for number in range(10):
                await producer.send_and_wait(topic, value=b"%d" % number, partition=0)
        consumer = AIOKafkaConsumer(bootstrap_servers=servers, group_id=app_id, enable_auto_commit=False)
        await consumer.start()
        consumer.assign([TopicPartition(topic, 0)])
        await consumer.commit({TopicPartition(topic, 0): 8})
        await consumer.stop()
        for begin in (None, 3):
            reader = Reader(servers, [topic], tmp_path, app_id=app_id, begin=begin)
            async with running(reader):
                await until(lambda of=reader: of.assignments > 0)  # type: ignore[misc]
                await asyncio.sleep(0.5)
                if begin is None:
                    assert not reader.batches
                    await reader.app.batches.release({(topic, 0): 3})
                await until(lambda of=reader: of.reached((topic, 0)) == 10)  # type: ignore[misc]
            assert reader.batches[topic, 0][0].start == 3
        assert "placed again" not in caplog.text

    run(scenario())


def test_what_somebody_else_moves_is_put_back(servers: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        topic = unused("bills")
        await create(servers, topic)
        reader = Reader(servers, [topic], tmp_path)
        async with running(reader), producing(servers) as producer:
            for number in range(10):
                await producer.send_and_wait(topic, value=b"%d" % number, partition=0)
            await until(lambda: reader.reached((topic, 0)) == 10)
            reader.app.batches.hold([(topic, 0)])
            for number in range(10, 20):
                await producer.send_and_wait(topic, value=b"%d" % number, partition=0)
            await reader.app.batches.release({(topic, 0): 10})
            thread = reader.app.batches._thread

            async def move(to: int) -> None:
                thread.seek(TP(topic, 0), to)

            await thread.call_thread(move, 17)
            await until(lambda: reader.reached((topic, 0)) == 20)
            assert reader.values((topic, 0)) == [b"%d" % number for number in range(20)]
            await thread.call_thread(move, 0)
            await producer.send_and_wait(topic, value=b"20", partition=0)
            await until(lambda: reader.reached((topic, 0)) == 21)
            assert reader.values((topic, 0)) == [b"%d" % number for number in range(21)]

    run(scenario())


def test_partitions_move_with_their_counterparts(servers: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        topics = [unused("bills"), unused("payments")]
        await create(servers, *topics, partitions=4)
        all_of_it = {(topic, number) for topic in topics for number in range(4)}
        async with producing(servers) as producer:
            for topic, number in sorted(all_of_it):
                for turn in range(10):
                    await producer.send_and_wait(topic, value=b"%d" % turn, partition=number)
        app_id = unused("reader")
        readers = [Reader(servers, topics, tmp_path / str(n), app_id=app_id) for n in range(3)]
        async with running(readers[0]):
            await until(lambda: readers[0].assigned == all_of_it)
            async with running(*readers[1:]):
                await until(lambda: sum(bool(reader.assigned) for reader in readers) == 3)
                await until(lambda: sum(len(reader.assigned) for reader in readers) == len(all_of_it))
                assert set.union(*(reader.assigned for reader in readers)) == all_of_it
                for reader in readers:
                    numbers = {number for _, number in reader.assigned}
                    assert reader.assigned == {(topic, number) for topic in topics for number in numbers}
                    await until(lambda of=reader: all(of.reached(p) == 10 for p in of.assigned))  # type: ignore[misc]
                    assert set(reader.batches) <= reader.assigned
                    assert set(reader.app.batches._thread._cursors) <= reader.assigned
            # Who stops leaves at once: nobody waits for the session timeout, 6 s.
            began = time.monotonic()
            await until(lambda: readers[0].assigned == all_of_it)
            assert time.monotonic() - began < 4
            await until(lambda: all(readers[0].reached(partition) == 10 for partition in all_of_it))
        for reader in readers:
            assert not reader.app.crashed

    run(scenario())


# -- what is gone ----------------------------------------------------------------------------------------------------


def test_a_record_that_retention_has_deleted_stops_its_partition_and_is_told(servers: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        topic = unused("bills")
        await create(servers, topic, partitions=3)
        async with producing(servers) as producer:
            for turn in range(10):
                for number in range(3):
                    await producer.send_and_wait(topic, value=b"%d" % turn, partition=number)
            await delete_records(servers, topic, 0, before=6)
            begin = {(topic, 0): 2, (topic, 1): 0, (topic, 2): 50}
            reader = Reader(servers, [topic], tmp_path, begin=begin)
            async with running(reader):
                await until(lambda: len(reader.gone) == 2)
                await until(lambda: reader.reached((topic, 1)) == 10)
                told = {(gone.topic, gone.partition): gone for gone in reader.gone}
                deleted, beyond = told[topic, 0], told[topic, 2]
                assert (deleted.wanted, deleted.earliest, deleted.end) == (2, 6, 10)
                assert "records 2 to 5 have been deleted" in str(deleted)
                assert (beyond.wanted, beyond.earliest, beyond.end) == (50, 0, 10)
                assert "the partition ends at 10" in str(beyond)
                # Told once; it does not jump; the others go on.
                await producer.send_and_wait(topic, value=b"10", partition=1)
                await until(lambda: reader.reached((topic, 1)) == 11)
                await asyncio.sleep(0.5)
                assert len(reader.gone) == 2
                assert set(reader.batches) == {(topic, 1)}
                # Somebody decides.
                await reader.app.batches.release({(topic, 0): 6})
                await until(lambda: reader.reached((topic, 0)) == 10)
                assert reader.values((topic, 0)) == [b"6", b"7", b"8", b"9"]

    run(scenario())


def test_records_deleted_while_it_reads_are_told(servers: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        topic = unused("bills")
        await create(servers, topic)
        reader = Reader(servers, [topic], tmp_path)
        async with running(reader), producing(servers) as producer:
            await producer.send_and_wait(topic, value=b"0", partition=0)
            await until(lambda: reader.reached((topic, 0)) == 1)
            reader.app.batches.hold([(topic, 0)])
            for _ in range(5):
                await producer.send_and_wait(topic, value=b"never", partition=0)
            await delete_records(servers, topic, 0, before=4)
            await reader.app.batches.release({(topic, 0): 1})
            await until(lambda: bool(reader.gone))
            assert (reader.gone[0].wanted, reader.gone[0].earliest) == (1, 4)
            assert reader.values((topic, 0)) == [b"0"]

    run(scenario())


def test_without_anybody_to_tell_the_app_stops(servers: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        topic = unused("bills")
        await create(servers, topic)
        reader = Reader(servers, [topic], tmp_path, begin={(topic, 0): 5})
        reader.app.on_offset_gone = BatchApp("other", client={}).on_offset_gone
        async with running(reader):
            await crashes(reader, OffsetGone)

    run(scenario())


# -- no error is only logged -----------------------------------------------------------------------------------------


async def crashes(reader: Reader, kind: type[BaseException], within_s: float = 20) -> None:
    await until(lambda: reader.app.crashed, within_s)
    assert isinstance(reader.app.crash_reason, kind), reader.app.crash_reason


def test_topics_with_different_numbers_of_partitions_are_refused(servers: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        bills, payments = unused("bills"), unused("payments")
        await create(servers, bills, partitions=4)
        await create(servers, payments, partitions=3)
        reader = Reader(servers, [bills, payments], tmp_path)
        async with running(reader):
            await crashes(reader, NotCopartitioned)
        assert f"without {payments} 3" in str(reader.app.crash_reason)
        assert not reader.batches

    run(scenario())


def test_an_error_of_who_is_told_of_an_assignment_stops_the_app(servers: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        topic = unused("bills")
        await create(servers, topic)
        reader = Reader(servers, [topic], tmp_path)

        async def fail(*_: Any, **__: Any) -> None:
            raise ZeroDivisionError

        reader.app.on_partitions_assigned.connect(fail)
        async with running(reader):
            await crashes(reader, ZeroDivisionError)

    run(scenario())


def test_a_rebalance_that_does_not_end_stops_the_app(servers: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        topic = unused("bills")
        await create(servers, topic)
        reader = Reader(servers, [topic], tmp_path)
        reader.app.conf.broker_rebalance_timeout = 1.0

        async def wait_for_ever(*_: Any, **__: Any) -> None:
            await asyncio.Event().wait()

        reader.app.on_partitions_assigned.connect(wait_for_ever)
        async with running(reader):
            await crashes(reader, TimeoutError)

    run(scenario())


def test_the_end_of_the_groups_coordination_stops_the_app(servers: str, tmp_path: Path) -> None:
    """Faust's assignor asserts what a changed `canonical_url` under static membership breaks."""

    async def scenario() -> None:
        topic = unused("bills")
        await create(servers, topic)
        reader = Reader(servers, [topic], tmp_path)

        def refuse(_: Any) -> None:
            raise AssertionError

        reader.app.assignor.on_assignment = refuse  # type: ignore[attr-defined]
        async with running(reader):
            await crashes(reader, Exception)

    run(scenario())


def test_the_end_of_fetching_stops_the_app(servers: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        topic = unused("bills")
        await create(servers, topic)
        reader = Reader(servers, [topic], tmp_path)
        async with running(reader):
            await until(lambda: reader.assignments > 0)
            thread = reader.app.batches._thread

            async def break_it() -> None:
                def fail(_: Any) -> None:
                    raise ZeroDivisionError

                thread._consumer._fetcher._get_actions_per_node = fail  # type: ignore[union-attr]

            await thread.call_thread(break_it)
            await crashes(reader, Exception)

    run(scenario())


def test_a_record_that_cannot_be_unpacked_stops_the_app(
    servers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        topic = unused("bills")
        await create(servers, topic)
        async with producing(servers) as producer:
            await producer.send_and_wait(topic, value=b"0", partition=0)

        def fail(*_: Any) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr("streams.transport.unpack", fail)
        reader = Reader(servers, [topic], tmp_path)
        async with running(reader):
            await crashes(reader, ZeroDivisionError)
        assert not reader.batches

    run(scenario())


# -- its life --------------------------------------------------------------------------------------------------------


def test_the_client_options_reach_the_consumer_and_nothing_else_connects(servers: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        topic = unused("bills")
        await create(servers, topic)
        client = {"sasl_mechanism": "SCRAM-SHA-512", "sasl_plain_username": "u", "sasl_plain_password": "p"}
        reader = Reader(servers, [topic], tmp_path, client=client)
        async with running(reader):
            await until(lambda: reader.assignments > 0)
            consumer = reader.app.batches._thread._consumer
            assert consumer._client._sasl_mechanism == "SCRAM-SHA-512"  # type: ignore[union-attr]
            assert consumer._client._sasl_plain_username == "u"  # type: ignore[union-attr]
            assert reader.app.producer._producer is None  # type: ignore[attr-defined]

    run(scenario())


def test_it_goes_on_when_a_broker_comes_back(new_kafka: NewKafka, tmp_path: Path) -> None:
    async def scenario() -> None:
        kafka = new_kafka()
        topic = unused("bills")
        await create(kafka.address, topic)
        reader = Reader(kafka.address, [topic], tmp_path)
        async with running(reader):
            await until(lambda: reader.assignments > 0)
            for turn in range(2):
                async with producing(kafka.address) as producer:
                    await producer.send_and_wait(topic, value=b"%d" % turn, partition=0)
                await until(lambda turn=turn: reader.reached((topic, 0)) == turn + 1)  # type: ignore[misc]
                await asyncio.to_thread(kafka.kill if turn else kafka.freeze)
                await asyncio.sleep(1.0)
                await asyncio.to_thread(kafka.start if turn else kafka.thaw)
            async with producing(kafka.address) as producer:
                await producer.send_and_wait(topic, value=b"2", partition=0)
            await until(lambda: reader.reached((topic, 0)) == 3)
            assert reader.values((topic, 0)) == [b"0", b"1", b"2"]
            assert not reader.app.crashed

    run(scenario(), within_s=120)


def test_it_stops_soon_without_a_broker(new_kafka: NewKafka, tmp_path: Path) -> None:
    async def scenario() -> None:
        kafka = new_kafka()
        topic = unused("bills")
        await create(kafka.address, topic)
        reader = Reader(kafka.address, [topic], tmp_path)
        async with running(reader):
            await until(lambda: reader.assignments > 0)
            await asyncio.to_thread(kafka.freeze)
            await asyncio.sleep(0.5)
            began = time.monotonic()
            await reader.app.stop()
            assert time.monotonic() - began < 8

    run(scenario(), within_s=120)


def test_who_stops_in_a_rebalance_leaves_at_once(servers: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        topic = unused("bills")
        await create(servers, topic, partitions=2)
        app_id = unused("reader")
        first, second = (Reader(servers, [topic], tmp_path / name, app_id=app_id) for name in ("1", "2"))
        revoking = asyncio.Event()

        async def take_a_while(*_: Any, **__: Any) -> None:
            revoking.set()
            await asyncio.sleep(1.0)

        first.app.on_partitions_revoked.connect(take_a_while)
        async with running(first):
            await until(lambda: len(first.assigned) == 2)
            async with running(second):
                await revoking.wait()
                began = time.monotonic()
                await first.app.stop()
                await until(lambda: len(second.assigned) == 2)
                assert time.monotonic() - began < 5.5  # nobody waits for the session timeout

    run(scenario())


def test_it_stops_soon(servers: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        topic = unused("bills")
        await create(servers, topic)
        reader = Reader(servers, [topic], tmp_path)
        async with running(reader):
            await until(lambda: reader.assignments > 0)
            began = time.monotonic()
            await reader.app.stop()
            assert time.monotonic() - began < 2

    run(scenario())
