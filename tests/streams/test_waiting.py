"""What an account waits for, at each hour of its arrears."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from models.instants import HOUR, format_instant
from models.monitor import Live
from streams.waiting import Partition as Standing
from streams.waiting import waits
from tests.models.live import LIVE, START, Partition
from tests.models.test_live_rules import bill, control, top_up


def waiting(partition: Partition, hours: float, *, live: Live | None = None, **standing: Any) -> list[tuple[str, str]]:
    """The kinds and what is said."""
    account = partition.monitor.accounts["a1"]
    given = Standing(
        3,
        partition.monitor.everybody,
        standing.get("unread", {}),
        standing.get("open", ()),
    )
    assert LIVE.live is not None
    found = waits(account, given, live or LIVE.live, START + round(hours * HOUR))
    return [(wait.kind, wait.says) for wait in found]


def kinds(partition: Partition, hours: float, *, live: Live | None = None, **standing: Any) -> list[str]:
    return [kind for kind, _ in waiting(partition, hours, live=live, **standing)]


def at(hours: float) -> str:
    return format_instant(START + round(hours * HOUR)).replace("T", " ").removesuffix("Z")


def in_arrears() -> Partition:
    partition = Partition()
    partition.clock(0)
    bill(partition, 0)
    partition.decide_after(0.001)
    return partition


def suspended() -> Partition:
    partition = in_arrears()
    for hours in (20.5, 24.5):
        partition.decide_after(hours)
    assert [command.action for command in partition.commands] == ["suspend"]
    return partition


def test_an_account_that_owes_nothing_waits_for_nothing() -> None:
    partition = Partition()
    partition.clock(1)
    top_up(partition, 0)
    partition.decide_after(1)
    assert waiting(partition, 1) == []


def test_records_that_are_not_applied_come_first() -> None:
    partition = in_arrears()
    found = waiting(partition, 1, unread={"bills": 0, "payments": 2_000}, open=["usage"])
    assert [kind for kind, _ in found] == ["fence", "fence", "mark"]
    assert found[0][1] == "Partition 3 has records that are not applied yet (payments 2,000): nothing is sent before."
    assert "A transaction is open in usage" in found[1][1]


def test_a_record_that_no_decision_has_seen_waits_for_the_fence() -> None:
    partition = Partition()
    partition.clock(0)
    bill(partition, 0)
    assert kinds(partition, 1) == ["fence"]


def test_the_marks() -> None:
    assert waiting(in_arrears(), 1) == [("mark", f"The suspend mark is at {at(24)}.")]
    ((kind, says),) = waiting(suspended(), 30)
    assert (kind, says[:39]) == ("mark", f"The delete mark is at {at(360)}"[:39])


def test_a_suspend_whose_mark_has_passed_waits_until_it_was_told_long_enough() -> None:
    partition = Partition()
    partition.clock(100)
    bill(partition, 0)  # it comes late: nobody was told before
    partition.decide_after(100)
    ((kind, says),) = waiting(partition, 101)
    assert kind == "notice"
    assert f"until {at(104)}" in says


def test_a_delete_waits_for_its_notice_and_for_records_that_are_late() -> None:
    partition = suspended()
    partition.decide_after(355)  # its notices before lapsed: the last one went out now
    found = waiting(partition, 361)
    assert found[0][0] == "notice"
    assert "a `deletion_ahead` has to be out for long enough" in found[0][1]
    assert kinds(partition, 355 + 24.5) == ["lateness"]
    assert kinds(partition, 355 + 25.5) == ["fence"]


def test_with_notice_acks_it_waits_for_the_ack() -> None:
    partition = suspended()
    partition.decide_after(340)
    live = Live(max_ahead=HOUR, notice_acks=True)
    assert "ack" in kinds(partition, 361, live=live)
    assert "ack" not in kinds(partition, 361)


def test_a_hold() -> None:
    partition = in_arrears()
    control(partition, "hold", 1, until=50)
    partition.decide_after(2)
    found = waiting(partition, 3)
    assert found[0] == ("hold", f"A hold is in force until {at(50)}: no suspend and no delete while it lasts.")
    partition = in_arrears()
    control(partition, "hold", 1)
    partition.decide_after(2)
    assert waiting(partition, 3) == [
        ("hold", "A hold is in force until it is released: no suspend and no delete while it lasts.")
    ]


@pytest.mark.parametrize(
    ("reason", "mend"),
    [
        ("max_suspends", "`arrears control resume '*'` lets it go on"),
        ("payments_silence", "it goes on when that is over"),
        ("something_new", "something_new"),
    ],
)
def test_what_stops_its_partition(reason: str, mend: str) -> None:
    partition = in_arrears()
    partition.monitor.stop(reason, ("suspend",))
    partition.decide_after(25)
    ((kind, says),) = waiting(partition, 25)
    assert kind == "stop"
    assert says.startswith("The suspend is called for, and stopped since ")
    assert mend in says
    # A stop of something else is not its own.
    partition = in_arrears()
    partition.monitor.stop("max_deletes", ("delete",))
    assert kinds(partition, 25) == ["fence"]


def test_an_unusable_payment_of_its_own() -> None:
    partition = in_arrears()
    partition.monitor.stop_account("a1")
    partition.decide_after(25)
    found = waiting(partition, 25)
    assert [kind for kind, _ in found if kind != "fence"] == ["stop"]
    assert "a payment of this account came that cannot be used" in found[-1][1]


def test_a_command_that_is_not_confirmed() -> None:
    terms = LIVE._replace(live=Live(max_ahead=HOUR, subscribers=("gate", "billing")))
    partition = Partition(terms=terms)
    partition.clock(0)
    bill(partition, 0)
    for hours in (0.001, 20.5, 24.5):
        partition.decide_after(hours)
    found = waiting(partition, 24.6, live=terms.live)
    assert found[-1][0] == "confirmation"
    assert "waits to be applied by gate and billing" in found[-1][1]
    command = partition.commands[0].command_id
    assert command in found[-1][1]


def test_it_is_the_same_after_a_restart() -> None:
    partition = suspended()
    before = waiting(partition, 30)
    partition.restart()
    assert waiting(partition, 30) == before
    assert msgspec.json.encode(before)
