"""What stops commands: clocks that are wrong, guards, silence; and what happens once it is over."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from models.instants import HOUR, SECOND, parse_instant
from models.policy import parse_policies
from tests.live.kafka import run, until
from tests.live.worker import START, Clock, at, kafka_of, working

if TYPE_CHECKING:
    from typing import Any

    from models.instants import Instant
    from tests.live.conftest import FreshTopics
    from tests.live.worker import Live

pytestmark = pytest.mark.live

#: A suspend mark 10 s after the arrears began.
QUICK = parse_policies(
    [
        {
            "name": "quick",
            "version": "1",
            "effective_from": "2020-01-01T00:00:00Z",
            "suspend_after": "PT10S",
            "delete_after": "PT1H",
            "min_suspended": "PT30M",
            "notices": {"suspension_ahead": ["PT2S"], "deletion_ahead": ["PT10M"]},
        }
    ]
)
HELD: dict[str, Any] = {"max_clock_skew": "PT5S", "max_ahead": "PT3S", "session_timeout": "PT10S"}


# -- the clock -------------------------------------------------------------------------------------------------------


class Shifted(Clock):
    """The machine's clock, and how far the test has set it wrong."""

    def __init__(self, hours: float = 0) -> None:
        super().__init__()
        self.wrong_by = round(hours * HOUR)

    def __call__(self) -> Instant:
        return time.time_ns() // 1000 + self.wrong_by


def ago(hours: float) -> float:
    """So many hours before the machine's now, in hours after START."""
    return (time.time_ns() // 1000 - START) / HOUR - hours


def _commanded(live: Live) -> int:
    """How many commands `owes` has had."""
    enforcement = live.table("owes").monitor.accounts["owes"].enforcement
    return 0 if enforcement is None else enforcement.sequence


@pytest.mark.parametrize("hours", [24, -24], ids=["a day ahead", "a day behind"])
def test_nobody_is_stopped_by_a_clock_that_jumps_and_all_is_well_when_it_is_right_again(
    fresh_topics: FreshTopics, hours: float
) -> None:
    """Not decided on is what cannot be undone, and no record is refused.

    Fails without `_check_clock` in `Table._decide`; ahead, without `_capped` (what is decided lies a day ahead, and the
    clock never goes back); behind, without the floor of `decided_to` in `Table._now`, with `decided_to` alone in
    `_check_clock`, and without `earliest` in `record_clock`.
    """

    async def scenario() -> None:
        clock = Shifted()
        async with kafka_of(client, 1) as kafka, working(kafka, clock, policies=QUICK, by_brokers=True, **HELD) as live:
            everybody = live.tables.tables[0].monitor.everybody
            await kafka.bill("owes", ago(4 / 3600))
            await live.settled()
            decided_to = everybody.decided_to
            clock.wrong_by = round(hours * HOUR)
            # Longer than `max_ahead`: for a clock that is behind, and stands where it has decided, all would be early.
            await until(lambda: time.time_ns() // 1000 > decided_to + 5 * SECOND)
            await kafka.bill("new", ago(0))  # something to decide on; its own date is right
            await until(lambda: live.stops() == {"clock_skew"})
            assert live.metrics.clock_skew._value.get() == pytest.approx(hours * 3600, abs=30)
            if hours > 0:  # the mark of `owes` has passed for such a clock, and that of `new`
                await until(lambda: everybody.decided_to > decided_to)
            for _ in range(3):
                await live.settled()
            assert decided_to <= everybody.decided_to < time.time_ns() // 1000 + 6 * SECOND
            assert await kafka.commands() == []
            assert await kafka.read("dead-letters") == []
            clock.wrong_by = 0
            await until(lambda: not live.stops(), 15)
            await until(lambda: _commanded(live) == 1, 30)
            await live.settled()
            decided = [parse_instant(command["decided_at"]) for command in await kafka.read("commands")]
            assert decided == sorted(decided)

    client = fresh_topics(1)
    run(scenario())


def test_a_worker_started_with_a_wrong_clock_decides_on_nothing_that_cannot_be_undone(
    fresh_topics: FreshTopics,
) -> None:
    """Fails without `_check_clock`; and with `context.clock()` for `since`: silence would not be seen for a day."""

    async def scenario() -> None:
        async with kafka_of(client, 1) as kafka:
            await kafka.bill("owes", ago(1))
            async with working(kafka, Shifted(24), policies=QUICK, by_brokers=True, **HELD) as live:
                await until(lambda: live.stops() == {"clock_skew"})
                await live.settled()
                assert live.tables.tables[0].kept.payments.since < time.time_ns() // 1000 + 6 * SECOND
                assert await kafka.commands() == []
                assert [notice["kind"] for notice in await kafka.notices()] == ["arrears_started"]
            async with working(kafka, Shifted(), policies=QUICK, by_brokers=True, **HELD) as live:
                await until(lambda: not live.stops(), 15)
                await until(lambda: _commanded(live) == 1, 30)
                await live.settled()
                (suspend,) = await kafka.read("commands")
                # It was told while the clock was capped: the wait runs from there.
                assert parse_instant(suspend["decided_at"]) <= time.time_ns() // 1000 + SECOND

    client = fresh_topics(1)
    run(scenario())


# -- guards ----------------------------------------------------------------------------------------------------------


def test_no_more_deletes_and_suspends_than_allowed_in_an_hour_the_oldest_marks_first_until_a_resume(
    fresh_topics: FreshTopics,
) -> None:
    """Of both actions, with a restart between.

    Fails without `everybody.guard` in `Decision._may`; unordered, without `_held_marks` in `Monitor._mark_of`; after
    the restart, without `stops` in `decode_everybody`; with `until` left out of `Everybody.resume`.
    """

    async def scenario() -> None:
        limits: dict[str, Any] = {"max_suspends": "4", "max_deletes": "2"}
        async with kafka_of(client, 1) as kafka:
            accounts = [f"a{number}" for number in (3, 0, 5, 1, 4, 2)]
            async with working(kafka, Clock(), **limits) as live:
                for number, account in enumerate(accounts):
                    await kafka.bill(account, number / 100)
                await live.at(0.1)
                await live.at(20.2)
                await live.at(24.2)
                assert [account for account, *_ in await kafka.commands()] == accounts[:4]
                assert live.stops() == {"max_suspends"}
                assert live.metrics.breaker_trips.labels("max_suspends")._value.get() == 1
                assert live.metrics.partition(0).guards == ("max_suspends",)
                assert any("max_suspends" in line for line in live.said)
                await live.at(30)  # the hour is over; what was stopped waits for somebody
                assert len(await kafka.commands()) == 4
            async with working(kafka, Clock(30.5), **limits) as live:
                await live.at(31)
                assert live.stops() == {"max_suspends"}
                assert len(await kafka.commands()) == 4
                await kafka.control("resume", "*", 31)
                await live.at(31.1)
                assert [account for account, *_ in await kafka.commands()] == accounts
                assert live.stops() == set()
                for hours in (192.2, 288.2, 336.2, 361.2):
                    await live.at(hours)
                deleted = [account for account, action, _ in await kafka.commands() if action == "delete"]
                assert deleted == accounts[:2]
                assert live.stops() == {"max_deletes"}
                await kafka.control("resume", "*", 361.2, until=362.2)  # without that limit until then
                await live.at(361.3)
                deleted = [account for account, action, _ in await kafka.commands() if action == "delete"]
                assert deleted == accounts

    client = fresh_topics(1)
    run(scenario())


async def _told(live: Live, *accounts: str) -> None:
    """In arrears from hour 0, and told of it."""
    for account in accounts:
        await live.kafka.bill(account, 0)
    await live.at(0)
    await live.at(20.1)


def test_when_bills_come_but_no_payment_of_anybody_suspends_wait(fresh_topics: FreshTopics) -> None:
    """Fails without `_check_payments` in `Table._decide`; after the restart, if `payments` is left out of `Kept`."""

    async def scenario() -> None:
        quiet: dict[str, Any] = {"payments_silence": "PT12H"}
        async with kafka_of(client, 1) as kafka:
            async with working(kafka, Clock(), **quiet) as live:
                await _told(live, "owes")
                await kafka.bill("other", 20.1)
                await live.at(24.1)
                assert live.stops() == {"payments_silence"}
                assert await kafka.commands() == []
                assert live.metrics.breaker_trips.labels("payments_silence")._value.get() == 1
            async with working(kafka, Clock(25), **quiet) as live:
                await kafka.raw("payments", b"unusable", b"{}", partition=0)  # which is none that was accepted
                await live.at(25.1)
                assert live.stops() == {"payments_silence"}
                await kafka.pay("somebody", 25.1)
                await live.at(25.2)
                assert live.stops() == set()
                assert await kafka.actions("owes") == ["suspend"]
                # Silence again; a resume goes on for a while, one with `until` for as long as it says.
                await kafka.bill("third", 25.2)
                await live.at(45.3)
                await kafka.bill("other", 45.3)
                await live.at(49.3)
                assert live.stops() == {"payments_silence"}
                await kafka.control("resume", "*", 49.3, until=90)
                await live.at(49.4)
                assert await kafka.actions("third") == ["suspend"]
                await live.at(65)
                await kafka.bill("fourth", 65)
                await live.settled()
                await live.at(85.1)
                await live.at(89.1)
                assert await kafka.actions("fourth") == ["suspend"]

    client = fresh_topics(1)
    run(scenario())


def test_a_payment_on_another_partition_of_this_worker_or_of_another_is_heard(fresh_topics: FreshTopics) -> None:
    """Silence is everybody's.

    Fails with `Heard()` for `heard_here` (of this worker), and for `heard_elsewhere` (of another), in
    `Table._is_silent`.
    """

    async def scenario() -> None:
        quiet: dict[str, Any] = {"payments_silence": "PT12H"}
        async with kafka_of(client, 2) as kafka:
            (owes, first, second), (pays, late) = kafka.accounts(0, 3), kafka.accounts(1, 2)
            clock = Clock()
            async with AsyncExitStack() as stack:
                live = await stack.enter_async_context(working(kafka, clock, **quiet))
                await _told(live, owes)
                await kafka.pay(pays, 20)
                await kafka.bill(first, 20)
                await live.at(24.1)
                assert live.stops(0) == set()
                assert await kafka.actions(owes) == ["suspend"]
                # Now another worker has one of the two partitions.
                other = await stack.enter_async_context(working(kafka, clock, wait=False, **quiet))
                await until(lambda: live.tables.is_ready and other.tables.is_ready, 30)
                await until(lambda: len(live.tables.tables) == len(other.tables.tables) == 1, 30)
                has = {p: one for one in (live, other) for p in one.tables.tables}
                assert has.keys() == {0, 1}

                async def both(hours: float) -> None:
                    clock.now = START + round(hours * HOUR)
                    await has[1].settled_of(1)
                    await has[0].settled_of(0)

                await both(40.1)
                await kafka.pay(late, 40)  # on the other's partition
                await kafka.bill(second, 40)
                await both(44.1)
                await until(lambda: not has[0].stops(0))  # what was heard of others is good for some seconds
                await has[0].settled_of(0)
                assert await kafka.actions(first) == ["suspend"]
                await both(60)
                await kafka.bill(owes, 60)
                await both(64.1)  # nobody has paid for longer than 12 h by now
                assert has[0].stops(0) == {"payments_silence"}
                assert await kafka.actions(second) == []

    client = fresh_topics(2)
    run(scenario(), within_s=90)


# -- after an outage -------------------------------------------------------------------------------------------------


def test_after_days_of_outage_notices_come_first_and_waits_count_from_them(fresh_topics: FreshTopics) -> None:
    """What waits for a notice waits from the instant at which that was decided.

    Fails without `told_decided_at` and `told_at` in `Decision` (suspended at once), without `_out_since` (deleted so).
    """

    async def scenario() -> None:
        async with kafka_of(client, 1) as kafka:
            async with working(kafka, Clock()) as live:
                await kafka.bill("was-suspended", 0)
                for hours in (0, 20.1, 24.1):
                    await live.at(hours)
            await kafka.bill("new", 30)
            await kafka.bill("pays", 30)
            await kafka.pay("pays", 999)
            async with working(kafka, Clock(1000)) as live:
                await live.settled()
                assert await kafka.commands() == [("was-suspended", "suspend", "unpaid_past_suspend_mark")]
                told = {(n["account_id"], n["kind"]): n for n in await kafka.notices() if n["at"] == at(1000)}
                assert set(told) == {("was-suspended", "deletion_ahead"), ("new", "arrears_started")}
                assert told["new", "arrears_started"]["deadline"] == at(1004)
                assert told["was-suspended", "deletion_ahead"]["deadline"] == at(1024)
                await live.at(1004)
                assert len(await kafka.commands()) == 1
                await live.past(1004)
                assert await kafka.actions("new") == ["suspend"]
                await live.at(1025)  # the notice's day, and its lateness
                assert await kafka.actions("was-suspended") == ["suspend"]
                await live.past(1025)
                (delete,) = [c for c in await kafka.read("commands") if c["action"] == "delete"]
                assert (delete["account_id"], delete["effective_at"]) == ("was-suspended", at(1024))
                assert delete["notice_id"] == told["was-suspended", "deletion_ahead"]["notice_id"]
                # `new`: 72 hours after its suspend at the earliest, with a notice of its own.
                await live.at(1052.1)
                await live.at(1077)
                assert await kafka.actions("new") == ["suspend"]
                await live.at(1077.1)
                assert await kafka.actions("new") == ["suspend", "delete"]
                assert await kafka.actions("pays") == []

    client = fresh_topics(1)
    run(scenario())
