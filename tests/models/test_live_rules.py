"""What §3 leaves to the domain: late records, late decisions, stops; driven with a passed clock."""

from __future__ import annotations

from models.instants import HOUR, format_instant
from models.monitor import Live
from models.policy import BUILT_IN
from tests.models.live import LIVE, START, Partition


def at(hours: float) -> str:
    return format_instant(START + round(hours * HOUR))


def bill(partition: Partition, when: float, amount: str = "100", bill_id: str = "b1", account: str = "a1") -> bool:
    return partition.take(
        "bills",
        event_id=f"bill-{bill_id}",
        account_id=account,
        bill_id=bill_id,
        kind="issued",
        amount=amount,
        currency="CNY",
        issued_at=when,
    )


def top_up(partition: Partition, when: float, amount: str = "100", name: str = "p1", account: str = "a1") -> bool:
    return partition.take(
        "payments",
        event_id=f"pay-{name}",
        account_id=account,
        payment_id=name,
        kind="topup",
        amount=amount,
        currency="CNY",
        paid_at=when,
    )


def control(partition: Partition, kind: str, when: float, account: str = "a1", **fields: object) -> bool:
    partition.monitor.clock = max(partition.monitor.clock, START + round(when * HOUR))
    return partition.take(
        "controls",
        event_id=f"{kind}-{when}",
        account_id=account,
        kind=kind,
        actor="op",
        reason="because",
        at=when,
        **fields,
    )


def actions(partition: Partition) -> list[tuple[str, str]]:
    return [(command.action, command.reason) for command in partition.commands]


def suspended() -> Partition:
    """Arrears at 0 h, decided on as they come; suspended at 24 h."""
    partition = Partition()
    partition.clock(0)
    bill(partition, 0)
    for hours in (0, 20.1, 24.01):
        partition.decide_after(hours)
    assert actions(partition) == [("suspend", "unpaid_past_suspend_mark")]
    return partition


def deleted() -> Partition:
    """Deleted past 360 h and the hour of lateness, with all its notices."""
    partition = suspended()
    for hours in (192.01, 288.01, 336.01, 360.5, 361.01):
        partition.decide_after(hours)
    assert actions(partition)[1:] == [("delete", "unpaid_past_delete_mark")]
    return partition


# -- late evidence -------------------------------------------------------------------------------------------------


def test_a_payment_that_happened_in_time_but_arrives_after_the_suspend_restores_by_late_evidence() -> None:
    partition = suspended()
    partition.clock(30)
    top_up(partition, 24)  # at the mark: in time (R2)
    partition.decide_after(30)
    restore = partition.commands[-1]
    assert (restore.action, restore.reason) == ("restore", "late_evidence")
    assert restore.supersedes == partition.commands[0].command_id
    assert restore.effective_at == at(24)
    assert restore.decided_at == at(30)


def test_a_payment_a_microsecond_after_the_mark_is_no_late_evidence() -> None:
    partition = suspended()
    partition.clock(30)
    partition.take(
        "payments",
        event_id="e",
        account_id="a1",
        payment_id="p",
        kind="topup",
        amount="100",
        currency="CNY",
        paid_at=format_instant(START + 24 * HOUR + 1),
    )
    partition.decide_after(30)
    restore = partition.commands[-1]
    assert (restore.reason, restore.supersedes) == ("paid_in_full", None)


def test_arrears_cleared_by_anything_known_when_it_decides_are_never_suspended_however_late() -> None:
    partition = Partition()
    partition.clock(0)
    bill(partition, 0)
    partition.decide_after(0)
    partition.clock(100)
    top_up(partition, 99)
    partition.decide_after(100)
    assert actions(partition) == []
    assert [notice.kind for notice in partition.notices] == ["arrears_started", "arrears_cleared"]


def test_an_episode_that_came_and_went_between_two_decisions_is_skipped() -> None:
    partition = Partition()
    partition.clock(50)
    bill(partition, 0)
    top_up(partition, 40)
    partition.decide_after(50)
    assert partition.commands == []
    assert partition.notices == []


def test_late_evidence_that_ends_one_episode_and_begins_another_restores_until_the_new_mark() -> None:
    partition = suspended()
    partition.clock(30)
    top_up(partition, 20)
    bill(partition, 29, bill_id="b2")
    partition.decide_after(30)
    assert actions(partition)[-1] == ("restore", "late_evidence")
    assert partition.notices[-1].kind == "arrears_started"
    assert partition.account().arrears_since == at(29)
    assert partition.account().suspend_at == at(53)


def test_late_evidence_restores_even_if_a_later_episode_is_past_its_mark_for_of_that_nothing_was_told() -> None:
    partition = suspended()
    partition.clock(60)
    top_up(partition, 10)  # pays b1 in time ...
    bill(partition, 11, bill_id="b2")  # ... but a new episode began, whose mark, 35 h, has passed too
    partition.decide_after(60)
    assert actions(partition)[-1] == ("restore", "late_evidence")
    assert partition.told("arrears_started")[-1].deadline == at(64)
    partition.decide_after(64.01)
    assert actions(partition)[-1] == ("suspend", "unpaid_past_suspend_mark")
    assert partition.commands[-1].effective_at == at(64)


def test_a_late_hold_undoes_nothing() -> None:
    partition = suspended()
    partition.clock(30)
    control(partition, "hold", 10)
    partition.decide_after(30)
    assert len(partition.commands) == 1
    assert partition.account().status == "suspended"


def test_an_allowance_never_undoes_a_suspend_that_has_been_commanded() -> None:
    partition = suspended()
    partition.clock(30)
    control(partition, "allowance", 30, duration="PT48H")
    partition.decide_after(30)
    assert len(partition.commands) == 1
    assert partition.account().delete_at == at(408)


# -- delete --------------------------------------------------------------------------------------------------------


def test_suspends_and_deletes_wait_the_lateness_of_the_policy() -> None:
    partition = suspended()
    for hours in (192.01, 288.01, 336.01, 360.99):
        partition.decide_after(hours)
    assert len(partition.commands) == 1
    partition.decide_after(361.001)
    delete = partition.commands[-1]
    assert (delete.action, delete.effective_at, delete.decided_at) == ("delete", at(360), at(361.001))
    assert delete.notice_id == partition.told("deletion_ahead")[0].notice_id


def test_evidence_that_removes_the_reason_of_a_delete_is_told_and_stops_deletes_until_resume() -> None:
    partition = Partition()
    partition.clock(10)
    for account in ("a1", "a2"):
        bill(partition, 0 if account == "a1" else 10, account=account)
    for hours in (0, 10, 20.1, 24.01, 30.1, 34.01, 192.01, 202.01, 288.01, 298.01, 336.01, 346.01, 361.01):
        partition.decide_after(hours)
    assert [c.account_id for c in partition.commands if c.action == "delete"] == ["a1"]
    top_up(partition, 300)
    partition.decide_after(361.02)
    contradicted = partition.told("delete_contradicted")
    assert [notice.command_id for notice in contradicted] == [partition.commands[-1].command_id]
    assert partition.told("payment_after_delete") == []
    assert partition.account().status == "deleted"
    partition.decide_after(372)
    assert [c.account_id for c in partition.commands if c.action == "delete"] == ["a1"]  # a2's waits
    control(partition, "resume", 372, account="*")
    partition.decide_after(372.1)
    assert [c.account_id for c in partition.commands if c.action == "delete"] == ["a1", "a2"]


def test_evidence_against_a_delete_stops_the_deletes_of_the_decision_that_finds_it_over_a_restart_too() -> None:
    for restarts in (False, True):
        partition = Partition()
        partition.clock(10)
        for account, since in (("a2", 10), ("a1", 0)):
            bill(partition, since, account=account)
        for hours in (0, 10, 20.1, 24.01, 30.1, 34.01, 192.01, 202.01, 288.01, 298.01, 336.01, 346.01, 361.01):
            partition.decide_after(hours)
        top_up(partition, 300)
        if restarts:
            partition.restart()
        partition.decide_after(372)  # a2's delete is due, too
        assert len(partition.told("delete_contradicted")) == 1
        assert [c.account_id for c in partition.commands if c.action == "delete"] == ["a1"]


def test_more_evidence_against_a_delete_is_told_as_a_payment_after_it() -> None:
    partition = deleted()
    top_up(partition, 300)
    partition.decide_after(362)
    top_up(partition, 301, name="p2")
    partition.decide_after(363)
    assert len(partition.told("delete_contradicted")) == 1
    assert [notice.payment_id for notice in partition.told("payment_after_delete")] == ["p2"]


def test_a_stop_outlives_a_restart() -> None:
    partition = deleted()
    top_up(partition, 300)
    partition.decide_after(362)
    partition.restart()
    assert set(partition.monitor.everybody.stops) == {"delete_contradicted"}


def test_a_payment_after_a_delete_is_recorded_and_nothing_is_restored() -> None:
    partition = deleted()
    partition.clock(370)
    top_up(partition, 370)
    partition.decide_after(370)
    assert partition.told("payment_after_delete")[0].amount == "100"
    assert partition.account().status == "deleted"
    assert partition.account().balance == "0"
    assert len(partition.commands) == 2


def test_an_early_payment_that_would_not_have_covered_the_bills_contradicts_no_delete() -> None:
    partition = deleted()
    partition.clock(370)
    top_up(partition, 300, amount="99.999999")
    partition.decide_after(370)
    assert partition.told("delete_contradicted") == []
    assert len(partition.told("payment_after_delete")) == 1


# -- after an outage: notices first --------------------------------------------------------------------------------


def test_after_an_outage_the_customer_is_told_before_anything_stops() -> None:
    partition = Partition()
    partition.clock(1000)
    bill(partition, 0)
    partition.decide_after(1000)
    started = partition.told("arrears_started")[0]
    assert (started.at, started.deadline) == (at(1000), at(1004))  # its clock, not its due instant
    partition.decide_after(1003.9)
    assert partition.commands == []
    partition.decide_after(1004.01)
    suspend = partition.commands[0]
    assert (suspend.action, suspend.effective_at, suspend.decided_at) == ("suspend", at(1004), at(1004.01))
    # ... and `min_suspended` and a `deletion_ahead` before the delete, which also waits its lateness.
    for hours in (1010, 1052.02, 1077):
        partition.decide_after(hours)
    assert len(partition.commands) == 1
    partition.decide_after(1077.02)
    delete = partition.commands[1]
    assert (delete.action, delete.effective_at) == ("delete", at(1076.01))
    assert [notice.notice_id for notice in partition.told("deletion_ahead")].index(delete.notice_id or "") == 1


def test_a_notice_carries_its_due_instant_if_it_goes_out_within_a_minute() -> None:
    partition = Partition()
    partition.clock(0)
    bill(partition, 0)
    partition.decide_after(1 / 60)
    assert partition.told("arrears_started")[0].at == at(0)
    partition.decide_after(20 + 2 / 60)
    assert partition.told("suspension_ahead")[0].at == at(20 + 2 / 60)


# -- early and late records ----------------------------------------------------------------------------------------


def test_a_record_counts_from_its_instant_on() -> None:
    partition = Partition()
    partition.clock(0)
    bill(partition, 0)
    partition.decide_after(0)
    top_up(partition, 0.1)
    partition.decide_after(0.05)
    assert partition.account().status == "in_arrears"
    assert partition.monitor.next_due() == START + HOUR // 10
    partition.decide_after(0.1)
    assert partition.account().status == "current"


def test_an_opening_ahead_of_the_clock_takes_over_at_its_instant() -> None:
    partition = Partition()
    partition.clock(0)
    opening = {"balance": "-100", "currency": "CNY", "status": "suspended", "sequence": 3, "arrears_since": -30}
    record = {"account_id": "a1", "event_id": "o", "kind": "opening", "actor": "op", "reason": "moved", "at": 0.1}
    assert partition.take("controls", **record, **opening)
    partition.decide_after(0.05)
    assert (partition.commands, partition.notices) == ([], [])
    partition.decide_after(0.11)
    assert partition.commands == []
    assert {notice.kind for notice in partition.notices} == {"arrears_started"}
    assert (partition.account().status, partition.account().arrears_since) == ("suspended", at(-30))


def test_a_reopen_ahead_of_the_clock_begins_the_new_episode_at_its_instant() -> None:
    partition = deleted()
    before = len(partition.notices)
    partition.clock(370)
    record = {"account_id": "a1", "event_id": "r", "kind": "reopen", "actor": "op", "reason": "agreed", "at": 370.1}
    assert partition.take("controls", **record)
    partition.decide_after(370.05)
    assert (len(partition.commands), len(partition.notices)) == (2, before)
    partition.decide_after(370.11)
    assert len(partition.commands) == 2
    assert [(notice.kind, notice.arrears_since) for notice in partition.notices[before:]] == [
        ("arrears_started", at(370.1))
    ]


def test_more_than_max_ahead_of_the_clock_is_too_early() -> None:
    partition = Partition()
    partition.clock(0)
    assert not bill(partition, 0.2)
    assert bill(partition, 1 / 6)
    partition.decide_after(0)
    assert [(d.error, d.field) for d in partition.dead_letters] == [("too_early", "issued_at")]


def test_a_record_before_the_horizon_is_too_late_and_one_at_it_is_not() -> None:
    partition = Partition()
    partition.decide_after(45 * 24)
    assert bill(partition, 0)
    assert not bill(partition, -1e-6, bill_id="b2")
    partition.decide_after(45 * 24)
    assert [(d.error, d.field) for d in partition.dead_letters] == [("too_late", "issued_at")]


def test_an_adjustment_waits_for_its_bill_until_history_has_passed() -> None:
    partition = Partition()
    partition.clock(10)
    for bill_id in ("b1", "b2"):
        partition.take(
            "bills",
            event_id=f"adjust-{bill_id}",
            account_id="a1",
            bill_id=bill_id,
            kind="adjusted",
            amount="40",
            currency="CNY",
            issued_at=10,
        )
    partition.decide_after(10)
    assert partition.dead_letters == []
    bill(partition, 5)
    partition.decide_after(11)
    assert partition.account().balance == "-40"
    partition.decide_after(10 + 45 * 24)
    assert partition.dead_letters == []
    partition.restart()
    partition.decide_after(10.1 + 45 * 24)
    assert [d.error for d in partition.dead_letters] == ["unknown_bill"]


# -- stops ---------------------------------------------------------------------------------------------------------


def test_an_account_with_an_unusable_payment_waits_for_its_own_resume_and_restores_go_on() -> None:
    partition = suspended()
    partition.monitor.stop_account("a1")
    for hours in (192.01, 288.01, 336.01, 361.01):
        partition.decide_after(hours)
    assert len(partition.commands) == 1
    control(partition, "resume", 362, account="*")
    partition.decide_after(362)
    assert len(partition.commands) == 1
    control(partition, "resume", 363)
    partition.decide_after(363)
    assert [c.action for c in partition.commands] == ["suspend", "delete"]


def test_a_stopped_account_is_restored_when_it_pays() -> None:
    partition = suspended()
    partition.monitor.stop_account("a1")
    partition.clock(25)
    top_up(partition, 25)
    partition.decide_after(25)
    assert [c.action for c in partition.commands] == ["suspend", "restore"]


#: With the limits that hold unless others are set.
USUAL = Live(HOUR // 6)

# -- guards --------------------------------------------------------------------------------------------------------


def guarded(count: int, live: Live = USUAL) -> Partition:
    """So many accounts in arrears since 0 h, 1 s apart, told of it, up to their suspend marks."""
    partition = Partition(terms=LIVE._replace(live=live))
    partition.clock(0.1)
    for number in range(count):
        bill(partition, number / 3600, account=f"a{number}")
    for hours in (0.1, 20.1):
        partition.decide_after(hours)
    return partition


def test_no_more_than_max_suspends_an_hour_oldest_mark_first_until_a_resume() -> None:
    partition = guarded(5, Live(HOUR // 6, max_suspends=2))
    partition.decide_after(24.1)
    assert [c.account_id for c in partition.commands] == ["a0", "a1"]
    assert set(partition.monitor.everybody.stops) == {"max_suspends"}
    partition.restart()
    partition.decide_after(26)
    assert len(partition.commands) == 2
    control(partition, "resume", 26, account="*")
    partition.decide_after(26)
    assert [c.account_id for c in partition.commands] == ["a0", "a1", "a2", "a3"]  # the window was emptied


def test_the_oldest_mark_comes_first_whatever_the_accounts_are_called_and_wait_for() -> None:
    partition = Partition(terms=LIVE._replace(live=Live(HOUR // 6, max_suspends=2)))
    partition.clock(1000)
    for number in range(5):  # after an outage all wait for the same notice
        bill(partition, 500 - 10 * number, account=f"a{number}")
    for hours in (1000, 1004.01):
        partition.decide_after(hours)
    assert [c.account_id for c in partition.commands] == ["a4", "a3"]
    control(partition, "resume", 1005, account="*")
    partition.restart()
    partition.decide_after(1005)
    assert [c.account_id for c in partition.commands] == ["a4", "a3", "a2", "a1"]


def test_a_resume_with_until_lifts_the_limit_until_then() -> None:
    partition = guarded(5, Live(HOUR // 6, max_suspends=1))
    partition.decide_after(24.1)
    control(partition, "resume", 24.2, account="*", until=25)
    partition.decide_after(24.2)
    assert len(partition.commands) == 5


def test_a_guard_is_off_by_explicit_choice_only() -> None:
    partition = guarded(120, Live(HOUR // 6, max_suspends=None))
    partition.decide_after(24.1)
    assert len(partition.commands) == 120


def test_a_stop_by_the_caller_holds_back_until_its_reason_is_gone_and_restores_go_on() -> None:
    partition = guarded(2)
    partition.monitor.stop("clock_skew", ("suspend", "delete"))
    partition.decide_after(24.1)
    assert partition.commands == []
    partition.monitor.go_on("clock_skew")
    partition.decide_after(24.2)
    assert len(partition.commands) == 2


# -- what a fence covers -------------------------------------------------------------------------------------------


def test_a_decision_leaves_out_what_was_touched_after_the_fence_was_set_up() -> None:
    partition = Partition()
    partition.clock(0)
    bill(partition, 0)
    partition.monitor.seal()
    bill(partition, 0, bill_id="b2", account="a2")
    published = partition.monitor.decide(START, past=False, evidence={"bills": 7})
    assert [notice.account_id for notice in published.notices] == ["a1"]
    bill(partition, 0, bill_id="b3")
    partition.monitor.seal()
    published = partition.monitor.decide(START, past=False)
    assert [notice.account_id for notice in published.notices] == ["a2"]


def test_commands_carry_what_has_been_applied() -> None:
    partition = guarded(1)
    partition.monitor.seal()
    published = partition.monitor.decide(START + 25 * HOUR, past=False, evidence={"bills": 1, "payments": 0})
    assert published.commands[0].evidence == {"bills": 1, "payments": 0}


# -- acks ----------------------------------------------------------------------------------------------------------


def ack(partition: Partition, when: float, subscriber: str, status: str = "applied", **what: str) -> None:
    partition.monitor.clock = max(partition.monitor.clock, START + round(when * HOUR))
    event_id = f"{subscriber}-{when}-{status}"
    partition.take("acks", event_id=event_id, account_id="a0", subscriber=subscriber, status=status, at=when, **what)


def confirmed_by(*subscribers: str, notice_acks: bool = False) -> Partition:
    terms = LIVE._replace(live=Live(HOUR // 6, subscribers=subscribers, notice_acks=notice_acks))
    partition = Partition(terms=terms)
    partition.clock(0)
    bill(partition, 0, account="a0")
    for hours in (0, 20.1, 24.01):
        partition.decide_after(hours)
    return partition


def test_a_command_that_a_subscriber_does_not_apply_in_time_is_told_once() -> None:
    partition = confirmed_by("compute", "network")
    command_id = partition.commands[0].command_id
    ack(partition, 24.1, "network", command_id=command_id)
    partition.decide_after(24.25)
    assert partition.told("command_unconfirmed") == []
    partition.restart()
    for hours in (24.27, 24.3):
        partition.decide_after(hours)
    told = partition.told("command_unconfirmed")
    assert [(n.subscriber, n.command_id, n.detail) for n in told] == [("compute", command_id, "not applied in time")]


def test_a_command_that_is_not_applied_in_time_is_told_at_that_time() -> None:
    partition = confirmed_by("compute")
    partition.decide_after(24.265)  # 18 s after the quarter of an hour
    assert [notice.at for notice in partition.told("command_unconfirmed")] == [at(24.26)]


def test_a_command_that_failed_is_told_at_once_and_one_that_is_applied_is_not() -> None:
    partition = confirmed_by("compute")
    command_id = partition.commands[0].command_id
    ack(partition, 24.02, "compute", "failed", command_id=command_id)
    partition.decide_after(24.02)
    assert [notice.detail for notice in partition.told("command_unconfirmed")] == ["failed"]
    ack(partition, 24.03, "compute", command_id=command_id)
    partition.decide_after(30)
    assert len(partition.told("command_unconfirmed")) == 1


def test_with_notice_acks_the_wait_of_a_delete_runs_from_the_ack() -> None:
    partition = confirmed_by(notice_acks=True)
    for hours in (192.01, 288.01, 336.01, 361.01, 400):
        partition.decide_after(hours)
    assert len(partition.commands) == 1
    ack(partition, 410, "mailer", notice_id=partition.told("deletion_ahead")[-1].notice_id)
    for hours in (410, 434.9):
        partition.decide_after(hours)
    assert len(partition.commands) == 1
    partition.decide_after(435.01)
    assert [c.action for c in partition.commands] == ["suspend", "delete"]
    assert partition.commands[1].effective_at == at(434)


def test_an_ack_dated_before_its_notice_does_not_shorten_the_wait() -> None:
    partition = confirmed_by(notice_acks=True)
    partition.decide_after(400)  # past the mark: the notice comes now
    ack(partition, 1, "mailer", notice_id=partition.told("deletion_ahead")[-1].notice_id)
    for hours in (400.1, 424.9):
        partition.decide_after(hours)
    assert len(partition.commands) == 1
    partition.decide_after(425.01)
    assert partition.commands[-1].effective_at == at(424)


# -- usage, policies -----------------------------------------------------------------------------------------------


def use(partition: Partition, name: str, started: float, ended: float, service: str = "compute") -> bool:
    return partition.take(
        "usage",
        event_id=f"use-{name}",
        account_id="a1",
        usage_id=f"use-{name}",
        service=service,
        quantity="1",
        unit="hours",
        started_at=started,
        ended_at=ended,
    )


def views(partition: Partition) -> int:
    """How many views there are to be published after a decision."""
    return len(partition.monitor.take_views(partition.monitor.clock))


def test_usage_that_no_stop_forbids_is_shown_once_a_minute_though_the_account_was_suspended_once() -> None:
    partition = suspended()
    partition.clock(25)
    top_up(partition, 25)
    partition.decide_after(25)
    partition.decide_after(28)
    views(partition)
    for number, (service, started) in enumerate((("compute", 26), ("storage", 24.5))):
        assert use(partition, str(number), started, 28, service)
        partition.decide_after(28 + (number + 1) / 3600)
        assert views(partition) == 0
    assert partition.told("usage_while_suspended") == []


def test_usage_that_started_behind_the_instant_of_a_suspend_is_told_though_it_was_read_before_it() -> None:
    partition = Partition()
    partition.clock(0)
    bill(partition, 0)
    for hours in (0, 20.1):
        partition.decide_after(hours)
    partition.clock(24.5)
    partition.monitor.seal()  # a fence of 24.01 h that has to wait
    use(partition, "early", 24.1, 24.4)
    published = partition.monitor.decide(START + round(24.01 * HOUR), past=False)
    assert published.commands == []  # a fact of the account came behind the fence: it waits for the next
    partition.decide_after(24.5)
    partition.clock(24.7)
    use(partition, "late", 24.6, 24.7)
    partition.decide_after(24.7)
    assert actions(partition) == [("suspend", "unpaid_past_suspend_mark")]
    assert [notice.usage_id for notice in partition.told("usage_while_suspended")] == ["use-late"]


def test_two_packages_that_are_used_up_at_one_instant_have_notices_of_their_own() -> None:
    partition = Partition()
    partition.clock(0)
    for package_id, ends in (("2x", 100), ("x", 200)):
        fields = {"service": "compute", "unit": "hours", "quantity": "1", "starts_at": 0, "ends_at": ends, "at": 0}
        partition.take(
            "packages", event_id=package_id, account_id="a1", package_id=package_id, kind="purchased", **fields
        )
    partition.clock(2)
    use(partition, "1", 1, 2)
    use(partition, "12", 1, 2)
    partition.decide_after(2)
    told = partition.told("package_exhausted")
    assert [notice.package_id for notice in told] == ["2x", "x"]
    assert len({notice.notice_id for notice in told}) == 2


def test_the_first_usage_of_an_account_is_shown_at_once_though_an_unusable_payment_came_before_it() -> None:
    partition = Partition()
    partition.clock(1)
    partition.monitor.stop_account("a1")
    use(partition, "1", 0, 1)
    partition.decide_after(1)
    assert views(partition) == 1


def test_policies_that_change_the_content_of_a_version_are_refused() -> None:
    partition = Partition()
    control(partition, "policies", 1, account="*", policies=[_policy(suspend_after="PT72H")])
    control(partition, "policies", 2, account="*", policies=[_policy(suspend_after="PT48H")])
    control(partition, "policies", 3, account="a1", policies=[_policy(suspend_after="PT96H")])
    partition.decide_after(3)
    assert [(letter.error, letter.field) for letter in partition.dead_letters] == [("conflict", "policies")] * 2
    partition.monitor.everybody.start_with(BUILT_IN)  # as a worker does that takes over


def _policy(suspend_after: str) -> dict[str, str]:
    return {
        "name": "friendly",
        "version": "1",
        "effective_from": format_instant(START - HOUR),
        "suspend_after": suspend_after,
    }
