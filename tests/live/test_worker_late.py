"""Payments that were in Kafka at a mark, however late they can be read: nobody is stopped or deleted over them."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.live.kafka import producing, read, run, until, unused
from tests.live.worker import Clock, at, kafka_of, working
from tests.oracle import replay

if TYPE_CHECKING:
    from typing import Any

    from tests.live.conftest import FreshTopics
    from tests.live.worker import Kafka, Live

pytestmark = pytest.mark.live

TICK = 1e-6 / 3600  # a microsecond, in hours
SUSPEND, DELETE, LATENESS = 24, 360, 1


# -- one by one ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["commit", "abort"])
def test_a_payment_inside_an_open_transaction_holds_back_the_suspend_and_the_delete(
    fresh_topics: FreshTopics, ending: str
) -> None:
    """The fence asks for the high watermark. Fails with `end.stable` for `end.high` in `Table._set_fence`."""

    async def scenario() -> None:
        async with kafka_of(client, 1) as kafka, working(kafka, Clock()) as live:
            stopped, deleted = "stopped", "deleted"
            await kafka.bill(deleted, 0)
            for hours in (0, 20.1, 24.1, 200, 300, 340):
                await live.at(hours)
            await kafka.bill(stopped, 340)
            await live.at(340)
            await live.at(360.1)  # `deleted` is past its mark, and waits its lateness; `stopped` was warned
            async with producing(kafka.servers, unused("upstream")) as upstream:
                await upstream.begin_transaction()
                await kafka.pay(stopped, 364, by=upstream)  # at the mark: in time
                await kafka.pay(deleted, 360, by=upstream)
                live.set(364.5)
                await _blocked(live, deleted)
                await until(lambda: live.metrics.partition(0).fence_blocked)
                assert await kafka.commands() == [(deleted, "suspend", "unpaid_past_suspend_mark")]
                await (upstream.commit_transaction if ending == "commit" else upstream.abort_transaction)()
            await live.settled()
            found = await kafka.commands()
            if ending == "commit":
                assert found[1:] == [(deleted, "restore", "paid_in_full")]
            else:
                assert sorted(found[1:]) == [
                    (deleted, "delete", "unpaid_past_delete_mark"),
                    (stopped, "suspend", "unpaid_past_suspend_mark"),
                ]

    client = fresh_topics(1)
    run(scenario())


async def _blocked(live: Live, account: str) -> None:
    """Wait until a fence stands and everything that can be read is applied, then a little."""
    table = live.table(account)
    await until(lambda: table._fence is not None)
    ends = await live.kafka.ends()
    await until(lambda: all(table.next[topic] >= ends[topic, table.partition] for topic in table.next))
    for _ in range(10):
        live.poke()
        await asyncio.sleep(0.02)
    assert table._fence is not None


def test_a_hanging_transaction_holds_back_until_the_brokers_give_it_up_and_then_the_right_thing_happens(
    fresh_topics: FreshTopics,
) -> None:
    """What a customer sent beside it was in Kafka all the time. Fails as the one before."""

    async def scenario() -> None:
        async with kafka_of(client, 1) as kafka, working(kafka, Clock()) as live:
            for account in ("pays", "owes"):
                await kafka.bill(account, 0)
            for hours in (0, 20.1):
                await live.at(hours)
            # Its producer dies with it open; the brokers abort it when its time is over.
            async with producing(kafka.servers, unused("upstream"), transaction_timeout_ms=1000) as upstream:
                await upstream.begin_transaction()
                await kafka.pay("owes", 21, by=upstream)
                await kafka.pay("pays", 21)  # behind it: nobody can read it yet
                live.set(25)
                await _blocked(live, "owes")
                assert await kafka.commands() == []
                await live.settled(within_s=40)
                assert await kafka.commands() == [("owes", "suspend", "unpaid_past_suspend_mark")]
                (suspend,) = await kafka.read("commands")
                assert suspend["effective_at"] == at(24)

    client = fresh_topics(1)
    run(scenario(), within_s=90)


# -- at random -------------------------------------------------------------------------------------------------------


class Schedule(NamedTuple):
    """One account: when its payment comes, how, and what is to follow of it."""

    account: str
    #: It is billed at this hour.
    billed: int
    #: Around which mark.
    mark: int
    #: before: in Kafka before the mark; at: at the mark; lateness: past the delete's mark, within its lateness;
    #: after: once the command is out; never.
    when: str
    #: Hours from the mark to `paid_at`.
    paid: float
    #: plain; committed, aborted, hanging: in a transaction that is open past the mark, ended or fenced off by another.
    how: str

    @property
    def counts(self) -> bool:
        return self.when != "never" and self.how in {"plain", "committed"}

    @property
    def expected(self) -> list[str]:
        suspend, restore, delete = "suspend", "restore", "delete"
        if self.mark == SUSPEND:
            if not self.counts:
                return [suspend, delete]
            return [] if self.when in {"before", "at"} else [suspend, restore]
        if not self.counts or self.when == "after":
            return [suspend, delete]
        return [suspend, restore]


GROUPS, EACH = 10, 20
#: Hours from one group to the next: the marks of two do not meet.
APART = 2


def schedules(kafka: Kafka, dice: random.Random) -> list[list[Schedule]]:
    """Groups of accounts that reach their marks together."""
    names = [name for p in range(kafka.partitions) for name in kafka.accounts(p, GROUPS * EACH // kafka.partitions)]
    dice.shuffle(names)
    groups = []
    for number in range(GROUPS):
        group = []
        for _ in range(EACH):
            mark = dice.choice((SUSPEND, DELETE))
            when = dice.choice(
                ("before", "before", "at", "at", "lateness" if mark == DELETE else "at", "after", "never")
            )
            paid = {
                "before": dice.choice((-TICK, -0.01, -3.0)),
                "at": 0.0,
                "lateness": dice.choice((TICK, 0.5, 1.0)),
                "after": 0.2 if mark == SUSPEND else 1.2,
                "never": 0.0,
            }[when]
            how = "plain" if when == "after" else dice.choice(("plain", "committed", "committed", "aborted", "hanging"))
            group.append(Schedule(names.pop(), APART * number, mark, when, paid, how))
        groups.append(group)
    return groups


class Upstream:
    """Three producers of transactions: one that commits, one that aborts, one that leaves its own open."""

    def __init__(self, servers: str, stack: AsyncExitStack) -> None:
        self.servers = servers
        self.stack = stack
        self.hanging_id = unused("hanging")
        self.by: dict[str, Any] = {}

    async def begin(self) -> None:
        for how in {"committed", "aborted", "hanging"} - self.by.keys():
            name = self.hanging_id if how == "hanging" else unused(how)
            # To start one by the id of the one that hangs fences that off, and so aborts what it left open.
            self.by[how] = await self.stack.enter_async_context(producing(self.servers, name))
        await asyncio.gather(*(producer.begin_transaction() for producer in self.by.values()))

    async def end(self) -> None:
        hanging = await self.stack.enter_async_context(producing(self.servers, self.hanging_id))
        await asyncio.gather(self.by["committed"].commit_transaction(), self.by["aborted"].abort_transaction())
        self.by["hanging"] = hanging


async def _pass_mark(kafka: Kafka, live: Live, upstream: Upstream, group: list[Schedule], mark: int) -> None:
    """The group reaches a mark. Transactions are open when it passes; then they end, in whatever way."""
    billed, mine = group[0].billed, [one for one in group if one.mark == mark and one.when != "never"]
    lateness = LATENESS if mark == DELETE else 0
    live.set(billed + mark - 0.05)
    await upstream.begin()

    async def pay(when: str) -> None:
        due = [one for one in mine if one.when == when]
        await asyncio.gather(
            *(kafka.pay(one.account, billed + mark + one.paid, by=upstream.by.get(one.how)) for one in due)
        )

    for when, clock in (("before", mark - TICK), ("at", mark), ("lateness", mark + lateness)):
        live.set(billed + clock)
        await pay(when)
    live.set(billed + mark + lateness + 0.1)  # past it, and nothing was waited for
    await asyncio.sleep(0.05)
    await upstream.end()
    await live.settled()
    live.set(billed + mark + lateness + 0.5)
    await pay("after")
    await live.at(billed + mark + lateness + 0.9)


def test_200_random_schedules_of_payments_around_their_marks(fresh_topics: FreshTopics) -> None:
    """Each as expected, and as the slow model says of the records.

    Fails with `end.stable` for `end.high` in `Table._set_fence`, and with `return True` in `Table._opens`.
    """

    async def scenario() -> None:
        async with (
            AsyncExitStack() as stack,
            kafka_of(client, 2) as kafka,
            working(kafka, Clock(), max_deletes="off") as live,
        ):
            upstream = Upstream(kafka.servers, stack)
            groups = schedules(kafka, random.Random(20180316))
            for group in groups:
                live.set(group[0].billed)
                await asyncio.gather(*(kafka.bill(one.account, one.billed) for one in group))
                await live.settled()
            for group in groups:
                await _pass_mark(kafka, live, upstream, group, SUSPEND)
            for hours in (192.2, 288.2, 336.2):
                for group in groups:
                    await live.at(group[0].billed + hours)
            for group in groups:
                await _pass_mark(kafka, live, upstream, group, DELETE)
            await live.at(400)
            commands = await kafka.read("commands")
            by_account: defaultdict[str, list[str]] = defaultdict(list)
            for command in commands:
                by_account[command["account_id"]].append(command["action"])
            for one in [one for group in groups for one in group]:
                assert (one, by_account[one.account]) == (one, one.expected)
            await _judge(kafka, commands, {one.account for g in groups for one in g if one.when != "lateness"})

    client = fresh_topics(2)
    run(scenario(), within_s=120)


async def _judge(kafka: Kafka, commands: list[dict[str, Any]], accounts: set[str]) -> None:
    """What the slow model says of the same records is what was commanded."""
    topics = {}
    for topic in ("bills", "payments"):
        records = await read(kafka.servers, topic, kafka.partitions)
        topics[topic] = [record.value or b"" for record in records if (record.key or b"").decode() in accounts]
    said = replay(topics, until=at(400))
    fields = ("account_id", "sequence", "action", "effective_at", "arrears_since", "owed", "reason")
    found = [[command[name] for name in fields] for command in commands if command["account_id"] in accounts]
    assert sorted(found) == sorted([command[name] for name in fields] for command in said.commands)
