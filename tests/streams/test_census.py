"""What lies ahead of the accounts of a partition, as the metrics tell it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from models.instants import HOUR, SECOND
from models.monitor import Live
from models.store import AccountStore
from streams.census import count, keep_counting
from streams.metrics import PartitionMetrics
from tests.models.live import LIVE, START, Partition

if TYPE_CHECKING:
    from models.monitor import Terms
    from streams.census import Census

SUBSCRIBED = LIVE._replace(live=Live(max_ahead=HOUR // 6, subscribers=("compute",)))


def owing(account_id: str, since_hours: float, terms: Terms = LIVE) -> Partition:
    partition = Partition(terms=terms)
    owe(partition, account_id, since_hours)
    return partition


def owe(partition: Partition, account_id: str, since_hours: float) -> None:
    partition.clock(since_hours)
    partition.take(
        "bills",
        event_id=f"b-{account_id}",
        account_id=account_id,
        bill_id="bill",
        kind="issued",
        amount="10",
        currency="CNY",
        issued_at=since_hours,
    )


def counted(partition: Partition, at_hours: float, terms: Terms = LIVE) -> Census:
    partition.commit()
    store = partition.monitor.accounts
    assert isinstance(store, AccountStore)
    return asyncio.run(count(store, partition.monitor.everybody, terms, START + round(at_hours * HOUR)))


def test_the_marks_of_an_account_in_arrears_lie_ahead() -> None:
    partition = owing("acct-1", 0)
    partition.decide_after(1)
    assert counted(partition, 1).marks_ahead == {("suspend", "24h"): 1, ("suspend", "7d"): 1}


def test_a_suspended_account_has_its_delete_ahead_only() -> None:
    partition = owing("acct-1", 0)
    partition.decide_after(1)
    partition.decide_after(24.01)
    assert counted(partition, 25).marks_ahead == {}
    assert counted(partition, 200).marks_ahead == {("delete", "7d"): 1}
    assert counted(partition, 340).marks_ahead == {("delete", "24h"): 1, ("delete", "7d"): 1}


def test_whoever_owes_nothing_has_nothing_ahead() -> None:
    partition = owing("acct-1", 0)
    partition.clock(0.5)
    partition.take(
        "payments",
        event_id="p",
        account_id="acct-1",
        payment_id="p",
        kind="topup",
        amount="10",
        currency="CNY",
        paid_at=0.5,
    )
    partition.decide_after(1)
    assert counted(partition, 1) == ({}, 0, None)


def test_a_mark_under_an_open_hold_lies_nowhere() -> None:
    partition = owing("acct-1", 0)
    partition.clock(0.5)
    partition.take("controls", event_id="c", account_id="acct-1", kind="hold", actor="ops", reason="dispute", at=0.5)
    partition.decide_after(1)
    assert counted(partition, 1).marks_ahead == {}


def test_commands_that_are_not_confirmed_are_counted_from_their_decision() -> None:
    partition = owing("acct-1", 0, SUBSCRIBED)
    owe(partition, "acct-2", 2)
    partition.decide_after(3)
    partition.decide_after(24.01)
    assert counted(partition, 24.1, SUBSCRIBED).unconfirmed == 0  # there is time yet
    partition.decide_after(24.5)
    partition.decide_after(26.01)
    census = counted(partition, 27, SUBSCRIBED)
    assert census.unconfirmed == 1
    assert census.oldest_unconfirmed == START + round(24.01 * HOUR)
    partition.decide_after(27)
    assert counted(partition, 27, SUBSCRIBED).unconfirmed == 2
    assert partition.commands[0].action == "suspend"
    partition.take(
        "acks",
        event_id="a",
        account_id="acct-1",
        command_id=partition.commands[0].command_id,
        subscriber="compute",
        status="applied",
        at=27,
    )
    partition.decide_after(27.1)
    assert counted(partition, 28, SUBSCRIBED).oldest_unconfirmed == START + round(26.01 * HOUR)


def test_counting_changes_no_account() -> None:
    partition = owing("acct-1", 0)
    partition.decide_after(1)
    partition.commit()
    before = dict(partition.journal)
    counted(partition, 30)
    partition.commit()
    assert partition.journal == before


def test_it_is_told_to_the_metrics_and_counted_again_later() -> None:
    partition, metrics = owing("acct-1", 0, SUBSCRIBED), PartitionMetrics()
    partition.decide_after(1)
    partition.decide_after(24.01)
    partition.decide_after(24.5)
    partition.commit()
    store = partition.monitor.accounts
    assert isinstance(store, AccountStore)

    async def counting() -> None:
        lock = asyncio.Lock()
        task = asyncio.ensure_future(
            keep_counting(store, partition.monitor.everybody, SUBSCRIBED, lambda: START + 340 * HOUR, metrics, lock)
        )
        for _ in range(10):  # turns of the loop: it has few accounts to look at
            await asyncio.sleep(0)
        task.cancel()

    asyncio.run(counting())
    assert metrics.marks_ahead == {("delete", "24h"): 1, ("delete", "7d"): 1}
    assert metrics.unconfirmed == 1
    assert metrics.oldest_unconfirmed == (START + 24 * HOUR) / SECOND + 36
