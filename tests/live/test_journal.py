"""The journal on a real broker: all or nothing, one owner, nothing forgotten, and every wait ends."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiokafka.errors import IllegalOperation, KafkaError, ProducerFenced  # type: ignore[import-untyped]

from models.state_version import VERSION, NewerState
from streams.fetched import OffsetGone
from streams.journal import CHECKPOINT, MAX_RECORD_BYTES, Fenced, Journal, Lost, Message, TooLarge
from streams.topic_design import OUTPUT_BYTES
from streams.turns import Turns
from streams.watermarks import Ends, Unanswered, Watermarks
from tests.live.kafka import create, delete_records, producing, read, run, until, unused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any

    from streams.local_kafka import LocalKafka
    from tests.live.conftest import NewKafka

pytestmark = pytest.mark.live

COMPACT = {"cleanup.policy": "compact"}


class Place:
    """An app's topics, and what is asked of them."""

    def __init__(self, servers: str) -> None:
        self.servers = servers
        self.client = {"bootstrap_servers": servers}
        self.app_id = unused("app")
        self.state = f"{self.app_id}.state"
        self.commands = f"{self.app_id}.commands"

    def journal(self, timeout_s: float = 15.0) -> Journal:
        return Journal(self.client, self.app_id, 0, state_topic=self.state, timeout_s=timeout_s)

    async def create(self) -> Place:
        large = {"max.message.bytes": str(OUTPUT_BYTES)}
        await create(self.servers, self.state, config=COMPACT | large)
        await create(self.servers, self.commands, config=large)
        return self

    async def recovered(self, journal: Journal) -> tuple[dict[bytes, bytes], dict[str, int]]:
        state: dict[bytes, bytes] = {}

        def take(key: bytes, value: bytes | None) -> None:
            if value is None:
                state.pop(key, None)
            else:
                state[key] = value

        positions = await journal.recover(take, Turns())
        return state, positions

    async def published(self, isolation: str = "read_committed") -> list[bytes | None]:
        return [record.value for record in await read(self.servers, self.commands, isolation=isolation)]


@asynccontextmanager
async def owning(place: Place, timeout_s: float = 15.0) -> AsyncIterator[Journal]:
    journal = place.journal(timeout_s)
    await journal.start()
    try:
        yield journal
    finally:
        await journal.stop()


@pytest.fixture
def place(broker: LocalKafka) -> Place:
    return Place(broker.address)


# -- what was committed, and nothing else ----------------------------------------------------------------------------


def test_what_was_committed_is_recovered_whatever_was_aborted_in_between(place: Place) -> None:
    async def scenario() -> None:
        await place.create()
        dice = random.Random(7)
        expected: dict[bytes, bytes] = {}
        positions: dict[str, int] = {}
        for owner in range(4):
            async with owning(place) as journal:
                assert await place.recovered(journal) == (expected, positions)
                for turn in range(3):
                    changes: dict[bytes, bytes | None] = {}
                    for _ in range(12_000):
                        key = b"account-%d" % dice.randrange(120_000)
                        changes[key] = None if dice.random() < 0.1 else b"%d/%d" % (owner, turn) + key * 10
                    if turn == 1:  # the owner dies with everything delivered, and nothing committed
                        producer = journal._producer
                        await producer.begin_transaction()
                        for key, value in list(changes.items())[:1000]:
                            await producer.send(place.state, key=key, value=value and b"never", partition=0)
                        await producer.flush()
                        break
                    positions = {"bills": owner * 100 + turn, "payments": 0}
                    await journal.commit(changes.items(), {place.commands: [Message(b"a", b"%d" % owner)]}, positions)
                    expected |= {key: value for key, value in changes.items() if value is not None}
                    expected = {key: value for key, value in expected.items() if changes.get(key, value) is not None}
        assert len(expected) > 20_000
        assert await place.published() == [b"0", b"1", b"2", b"3"]

    run(scenario())


def test_a_hundred_thousand_accounts_in_one_transaction(place: Place) -> None:
    async def scenario() -> None:
        await place.create()
        accounts = {b"account-%06d" % number: b"%0240d" % number for number in range(100_000)}
        async with owning(place) as journal:
            await journal.commit(accounts.items(), {}, {"bills": 1})
        async with owning(place) as journal:
            assert await place.recovered(journal) == (accounts, {"bills": 1})

    run(scenario())


def test_a_new_app_has_no_state(place: Place) -> None:
    async def scenario() -> None:
        await place.create()
        async with owning(place) as journal:
            assert await place.recovered(journal) == ({}, {})

    run(scenario())


def test_messages_keep_key_value_and_headers(place: Place) -> None:
    async def scenario() -> None:
        await place.create()
        message = Message(b"a1", b"{}", (("ce_id", b"1"), ("ce_subject", "Zoë".encode())))
        async with owning(place) as journal:
            await journal.commit([], {place.commands: [message, Message(b"a2", None)]}, {})
        assert [record[2:] for record in await read(place.servers, place.commands)] == [
            (b"a1", b"{}", message.headers),
            (b"a2", None, ()),
        ]

    run(scenario())


def test_no_account_is_taken_for_the_positions(place: Place) -> None:
    async def scenario() -> None:
        await place.create()
        state = {b"@checkpoint": b"an account", b"@": b"another"}
        async with owning(place) as journal:
            await journal.commit(state.items(), {}, {"bills": 3})
            assert await place.recovered(journal) == (state, {"bills": 3})

    run(scenario())


def test_state_of_a_newer_release_is_refused(place: Place) -> None:
    async def scenario() -> None:
        await place.create()
        async with producing(place.servers) as producer:
            await producer.send_and_wait(place.state, key=CHECKPOINT, value=bytes((VERSION + 1,)) + b"?", partition=0)
        async with owning(place) as journal:
            with pytest.raises(NewerState):
                await place.recovered(journal)

    run(scenario())


def test_state_whose_beginning_was_deleted_is_refused(place: Place) -> None:
    async def scenario() -> None:
        await create(place.servers, place.state)
        async with owning(place) as journal:
            await journal.commit([(b"a", b"1"), (b"b", b"1")], {}, {"bills": 1})
            await delete_records(place.servers, place.state, 0, before=1)
            with pytest.raises(OffsetGone, match=r"records 0 to 0 have been deleted"):
                await place.recovered(journal)

    run(scenario())


def test_less_than_the_whole_state_is_not_taken_for_it(place: Place) -> None:
    """A transaction that hangs hides what was committed after it from everybody who reads what is committed."""

    async def scenario() -> None:
        await place.create()
        async with producing(place.servers, unused("stranger")) as stranger:
            await stranger.begin_transaction()
            await stranger.send_and_wait(place.state, key=b"?", value=b"?", partition=0)
            async with owning(place, timeout_s=1.0) as journal:
                await journal.commit([(b"a", b"1")], {}, {"bills": 1})
                with pytest.raises(Lost, match="a transaction hangs"):
                    await place.recovered(journal)
                await stranger.abort_transaction()
                assert await place.recovered(journal) == ({b"a": b"1"}, {"bills": 1})

    run(scenario())


def test_a_transaction_that_hangs_in_an_output_is_not_committed_with_the_next_one(place: Place) -> None:
    """Kafka 4.3.1 may skip the end of an aborted one while it starts: the next commit would publish what it holds."""

    async def scenario() -> None:
        await place.create()
        async with producing(place.servers, unused("stranger")) as stranger:
            await stranger.begin_transaction()
            await stranger.send_and_wait(place.commands, key=b"a", value=b"aborted", partition=0)
            journal = Journal(
                place.client, place.app_id, 0, state_topic=place.state, outputs=[place.commands], timeout_s=1.0
            )
            await journal.start()
            try:
                told = f"hangs in {place.commands} partition 0.*kafka-transactions.sh abort .* --start-offset 0"
                with pytest.raises(Lost, match=told):
                    await place.recovered(journal)
                await stranger.abort_transaction()
                assert await place.recovered(journal) == ({}, {})
            finally:
                await journal.stop()

    run(scenario())


# -- one owner -------------------------------------------------------------------------------------------------------


async def _send_and_commit(producer: Any, topic: str) -> None:
    await producer.send_and_wait(topic, key=b"a", value=b"stale", partition=0)
    await producer.commit_transaction()


@pytest.mark.parametrize("point", ["idle", "begun", "sent", "delivered", "committing"])
def test_an_earlier_owner_is_fenced_off_wherever_it_stands(place: Place, point: str) -> None:
    async def scenario() -> None:
        await place.create()
        async with owning(place) as old:
            await old.commit([(b"a", b"1")], {place.commands: [Message(b"a", b"c1")]}, {"bills": 1})
            producer = old._producer
            if point != "idle":
                await producer.begin_transaction()
            deliveries = []
            if point in ("sent", "delivered", "committing"):
                deliveries = [
                    await producer.send(topic, key=b"a", value=b"stale", partition=0)
                    for topic in (place.state, place.commands)
                ]
            if point in ("delivered", "committing"):
                await asyncio.gather(*deliveries)
            ending = asyncio.ensure_future(producer.commit_transaction()) if point == "committing" else None
            await asyncio.sleep(0)
            async with owning(place) as new:
                committed = await place.recovered(new)
                if ending is not None:
                    await asyncio.wait([ending])
                    # What the brokers had accepted before is seen by the new owner; otherwise nobody ever sees it.
                    assert committed[0] == {b"a": b"1" if ending.exception() else b"stale"}
                else:
                    assert committed == ({b"a": b"1"}, {"bills": 1})
                    if point != "idle":
                        await asyncio.gather(*deliveries, return_exceptions=True)
                        with pytest.raises((ProducerFenced, IllegalOperation)):
                            await _send_and_commit(producer, place.state)
                stale = [(b"a", b"stale" * 100_000)] * 5  # more than goes at once: some is never sent
                with pytest.raises(Fenced if point == "idle" else Lost):
                    await old.commit(stale, {place.commands: [Message(b"a", b"stale")]}, {"bills": 2})
                assert await place.recovered(new) == committed
                before = await place.published()
                await new.commit([(b"a", b"2")], {place.commands: [Message(b"a", b"c2")]}, {"bills": 2})
                assert await place.recovered(new) == ({b"a": b"2"}, {"bills": 2})
                assert await place.published() == [*before, b"c2"]
                assert before == ([b"c1", b"stale"] if committed[0] == {b"a": b"stale"} else [b"c1"])

    run(scenario())


def test_an_owner_that_was_fenced_while_it_commits_leaves_nothing(place: Place) -> None:
    async def scenario() -> None:
        await place.create()
        stale = [Message(b"a", b"stale" * 1000)] * 300  # several batches, of which some are still to be sent
        for head_start in (0.0, 0.002, 0.004, 0.008, 0.016):
            async with owning(place) as old:
                committing = asyncio.ensure_future(
                    old.commit([(b"a", b"stale" * 100_000)] * 5, {place.commands: stale}, {})
                )
                await asyncio.sleep(head_start)
                async with owning(place) as new:
                    state = (await place.recovered(new))[0]
                    await asyncio.wait([committing])
                    error = committing.exception()
                    assert (error is None) == bool(state), error
                    assert error is None or isinstance(error, Lost)
                    await new.commit([(b"a", None)], {}, {})

    run(scenario())


# -- all or nothing --------------------------------------------------------------------------------------------------


def test_what_one_topic_refuses_is_committed_in_none(place: Place) -> None:
    async def scenario() -> None:
        await create(place.servers, place.state, config=COMPACT)
        await create(place.servers, place.commands, config={"max.message.bytes": "2000"})
        async with owning(place) as journal:
            with pytest.raises(Lost, match="MessageSizeTooLarge"):
                await journal.commit([(b"a", b"1")], {place.commands: [Message(b"a", b"x" * 5000)]}, {"bills": 1})
            with pytest.raises(Lost):
                await journal.commit([(b"a", b"1")], {}, {"bills": 1})
        async with owning(place) as journal:
            assert await place.recovered(journal) == ({}, {})
            assert await place.published() == []

    run(scenario())


def test_a_record_that_no_broker_takes_is_told_before_anything_is_sent(place: Place) -> None:
    async def scenario() -> None:
        await place.create()
        async with owning(place) as journal:
            small = Message(b"a", b"small")
            with pytest.raises(TooLarge) as told:
                await journal.commit(
                    [(b"a", b"1")], {place.commands: [small, Message(b"b", b"x" * MAX_RECORD_BYTES)]}, {}
                )
            assert (told.value.topic, told.value.key) == (place.commands, b"b")
            assert told.value.size > MAX_RECORD_BYTES
            with pytest.raises(TooLarge):
                await journal.commit([(b"a", b"x" * OUTPUT_BYTES)], {place.commands: [small]}, {"bills": 1})
            await journal.commit([(b"a", b"x" * (MAX_RECORD_BYTES - 200))], {place.commands: [small]}, {"bills": 1})
            assert (await place.recovered(journal))[1] == {"bills": 1}
            assert await place.published("read_uncommitted") == [b"small"]

    run(scenario())


def test_one_commit_waits_for_the_other(place: Place) -> None:
    async def scenario() -> None:
        await place.create()
        async with owning(place) as journal:
            await asyncio.gather(
                *(
                    journal.commit(
                        [(b"a", b"%d" % turn)], {place.commands: [Message(b"a", b"%d" % turn)]}, {"bills": turn}
                    )
                    for turn in range(20)
                )
            )
            assert await place.recovered(journal) == ({b"a": b"19"}, {"bills": 19})
            assert await place.published() == [b"%d" % turn for turn in range(20)]

    run(scenario())


# -- every wait ends -------------------------------------------------------------------------------------------------


def test_a_transaction_that_the_brokers_have_given_up_does_not_commit(place: Place) -> None:
    """They look every 10 s for transactions that are open longer than they may be."""

    async def scenario() -> None:
        await place.create()
        async with owning(place, timeout_s=1.0) as journal:
            producer = journal._producer
            await producer.begin_transaction()
            await (await producer.send(place.state, key=b"a", value=b"never", partition=0))
            async with Watermarks(place.client) as watermarks:

                async def given_up() -> bool:
                    ends = (await watermarks.ends([(place.state, 0)]))[place.state, 0]
                    return ends.stable == ends.high

                await until(given_up)
            with pytest.raises((ProducerFenced, KafkaError)):
                await producer.commit_transaction()
            with pytest.raises(Lost):
                await journal.commit([(b"a", b"1")], {}, {})
        async with owning(place) as journal:
            assert await place.recovered(journal) == ({}, {})

    run(scenario())


def _unanswered(journal: Journal, *, committed: bool = False) -> None:
    """The brokers do not answer the end of the transaction; whether they got it or not."""
    commit_transaction = journal._producer.commit_transaction

    async def commit() -> None:
        if committed:
            await commit_transaction()
        await asyncio.Event().wait()

    journal._producer.commit_transaction = commit


@pytest.mark.parametrize("committed", [False, True])
def test_a_commit_that_is_not_answered_is_lost(place: Place, committed: bool) -> None:
    async def scenario() -> None:
        await place.create()
        async with owning(place, timeout_s=1.0) as journal:
            _unanswered(journal, committed=committed)
            with pytest.raises(Lost, match="no answer within 1 s"):
                await journal.commit([(b"a", b"1")], {}, {"bills": 1})
            with pytest.raises(Lost):
                await journal.commit([(b"a", b"2")], {}, {"bills": 2})
        async with owning(place) as journal:
            assert await place.recovered(journal) == (({b"a": b"1"}, {"bills": 1}) if committed else ({}, {}))

    run(scenario())


def test_a_broker_that_stands_still_or_dies_loses_the_journal_and_no_more(new_kafka: NewKafka) -> None:
    async def scenario() -> None:
        kafka = new_kafka()
        place = await Place(kafka.address).create()
        expected: dict[bytes, bytes] = {}
        for turn in range(3):
            async with owning(place) as journal:
                assert (await place.recovered(journal))[0] == expected
                await journal.commit([(b"a", b"%d" % turn)], {place.commands: [Message(b"a", b"%d" % turn)]}, {})
                expected = {b"a": b"%d" % turn}
            tasks = asyncio.all_tasks()
            journal = place.journal(timeout_s=15.0 if turn == 2 else 1.5)
            await journal.start()
            stops, comes_back = (kafka.freeze, kafka.thaw) if turn else (kafka.kill, kafka.start)
            stopping = asyncio.to_thread(stops)
            if turn == 0:  # it has not even begun
                await stopping
            committing = asyncio.ensure_future(journal.commit([(b"a", b"x" * 800_000)] * 5, {}, {}))
            if turn > 0:  # it is under way
                await asyncio.sleep(turn / 200)
                await stopping
            if turn < 2:  # else it is stopped with its requests still on their way
                await asyncio.wait([committing])
            began = time.monotonic()
            await journal.stop()
            assert time.monotonic() - began < 10
            await until(lambda before=tasks: asyncio.all_tasks() <= before, within_s=3)  # type: ignore[misc]
            await asyncio.wait([committing])
            await asyncio.to_thread(comes_back)
            if committing.exception() is None:
                expected = {b"a": b"x" * 800_000}
            else:
                assert isinstance(committing.exception(), Lost)
                async with owning(place) as journal:  # it may have committed all the same
                    state = (await place.recovered(journal))[0]
                    assert state in (expected, {b"a": b"x" * 800_000})
                    expected = state
        assert await place.published() == [b"0", b"1", b"2"]

    run(scenario(), within_s=180)


def test_stop_ends_a_commit(place: Place) -> None:
    async def scenario() -> None:
        await place.create()
        async with owning(place) as journal:
            _unanswered(journal)
            first = asyncio.ensure_future(journal.commit([(b"a", b"1")], {}, {}))
            second = asyncio.ensure_future(journal.commit([(b"a", b"2")], {}, {}))
            await asyncio.sleep(0.1)
            began = time.monotonic()
            await journal.stop()
            assert time.monotonic() - began < 6
            await asyncio.wait([first, second], timeout=1)
            assert isinstance(first.exception(), Lost)
            assert isinstance(second.exception(), Lost)

    run(scenario())


def test_stop_lets_a_commit_end_but_none_begin(place: Place) -> None:
    async def scenario() -> None:
        await place.create()
        async with owning(place) as journal:
            first = asyncio.ensure_future(journal.commit([(b"a", b"1")], {}, {"bills": 1}))
            second = asyncio.ensure_future(journal.commit([(b"a", b"2")], {}, {"bills": 2}))
            await asyncio.sleep(0)
            await journal.stop()
            await first
            with pytest.raises(Lost, match="stopped"):
                await second
        async with owning(place) as journal:
            assert await place.recovered(journal) == ({b"a": b"1"}, {"bills": 1})

    run(scenario())


def test_a_cancelled_commit_loses_the_journal(place: Place) -> None:
    """It may have committed; what its owner holds in memory is then older than the journal."""

    async def scenario() -> None:
        await place.create()
        async with owning(place) as journal:
            _unanswered(journal, committed=True)
            committing = asyncio.ensure_future(journal.commit([(b"a", b"1")], {}, {}))
            await asyncio.sleep(0.2)
            committing.cancel()
            await asyncio.wait([committing])
            with pytest.raises(Lost):
                await asyncio.wait_for(journal.commit([(b"a", b"2")], {}, {}), 1)

    run(scenario())


def test_without_a_broker_a_start_is_lost() -> None:
    async def scenario() -> None:
        journal = Place("127.0.0.1:1").journal(timeout_s=1.0)
        with pytest.raises(Lost, match="could not start"):
            await journal.start()
        with pytest.raises(Lost):
            await journal.commit([], {}, {})
        await journal.stop()

    run(scenario())


def test_a_state_topic_that_is_not_there_is_told(place: Place) -> None:
    async def scenario() -> None:
        async with owning(place, timeout_s=1.0) as journal:
            with pytest.raises(Lost, match="is not there"):
                await place.recovered(journal)

    run(scenario())


# -- how far the inputs reach ----------------------------------------------------------------------------------------


def test_the_high_watermark_sees_what_is_behind_an_open_transaction(place: Place) -> None:
    async def scenario() -> None:
        topics = [unused("bills"), unused("payments")]
        await create(place.servers, *topics, partitions=3)
        asked = [(topic, partition) for topic in topics for partition in range(3)]
        open_, other = topics
        async with Watermarks(place.client) as watermarks, producing(place.servers, unused("upstream")) as upstream:
            assert set((await watermarks.ends(asked)).values()) == {Ends(0, 0)}
            await upstream.begin_transaction()
            await upstream.send_and_wait(open_, key=b"a", value=b"1", partition=1)
            async with producing(place.servers) as producer:
                for _ in range(3):
                    await producer.send_and_wait(open_, key=b"a", value=b"2", partition=1)
                    await producer.send_and_wait(other, key=b"a", value=b"2", partition=2)
            ends = await watermarks.ends(asked)
            assert ends.pop((open_, 1)) == Ends(high=4, stable=0)
            assert ends.pop((other, 2)) == Ends(high=3, stable=3)
            assert set(ends.values()) == {Ends(0, 0)}
            await upstream.commit_transaction()

            async def ended() -> bool:
                return (await watermarks.ends(asked))[open_, 1] == Ends(5, 5)  # with its marker

            await until(ended)
            await delete_records(place.servers, open_, 1, before=2)
            assert await watermarks.earliest([(open_, 1), (other, 2)]) == {(open_, 1): 2, (other, 2): 0}

    run(scenario())


def test_what_cannot_be_asked_is_told_in_time(place: Place) -> None:
    async def scenario() -> None:
        async with Watermarks(place.client, timeout_s=0.5) as watermarks:
            with pytest.raises(Unanswered, match=r"nowhere partition 3 is not there"):
                await watermarks.ends([("nowhere", 3)])
        with pytest.raises(Unanswered, match="not started"):
            await watermarks.ends([("nowhere", 3)])
        with pytest.raises(Unanswered, match=r"no broker answers at 127\.0\.0\.1:1"):
            await Watermarks({"bootstrap_servers": "127.0.0.1:1"}, timeout_s=1.0).start()

    run(scenario())
