"""The checker itself: it has nothing to say of a run that is right, and finds each fault that is planted in one.

The runs are those of a monitor in memory (`simulated`): no broker is needed.
"""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.chaos.arrivals import partition_of
from tests.chaos.checker import Report, check
from tests.chaos.simulated import simulate
from tests.chaos.traffic import POLICIES, Plan, Step, plan
from tests.oracle.values import SECOND, format_instant, parse_instant

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chaos.run import Recorded, Run


def simulated(seed: int, folder: Path, accounts: int = 40, **how: Any) -> Run:
    """A run that is right."""
    made = plan(seed, accounts=accounts, seconds=30, unusable_payments=seed % 3 == 2, **how)
    return simulate(made, POLICIES, folder, seed=seed)


@pytest.mark.parametrize("seed", range(100, 106))
def test_a_run_that_is_right_has_no_faults(seed: int, tmp_path: Path) -> None:
    report = check(simulated(seed, tmp_path))
    assert report.faults == []
    assert report.figures["commands"] > 20
    assert report.figures["customers"] == 40


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1200))
def test_200_random_schedules(seed: int, tmp_path: Path) -> None:
    assert check(simulated(seed, tmp_path, accounts=80)).faults == []


# Faults -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = simulated(7, tmp_path_factory.mktemp("run"), accounts=60)
    assert check(run).faults == []
    return run


@pytest.fixture
def run(good: Run) -> Run:
    """To spoil."""
    return copy.deepcopy(good)


def changed(recorded: Recorded, **fields: Any) -> Recorded:
    return recorded._replace(value=json.dumps(recorded.json | fields).encode())


def found(run: Run, recorded: Recorded | None = None) -> dict[str, int]:
    """What kinds of faults, and how many; all of one account."""
    report: Report = check(run)
    account = None if recorded is None else recorded.json.get("account_id")
    assert {fault.account for fault in report.faults} <= {account, None}, report.faults
    return dict(report.kinds())


def replace(run: Run, topic: str, old: Recorded, *new: Recorded) -> None:
    records = run.topics[topic]
    place = records.index(old)
    records[place : place + 1] = new


def command(run: Run, action: str, **fields: Any) -> Recorded:
    """The first such command."""
    return next(
        one
        for one in run.topics["commands"]
        if one.json["action"] == action and all(one.json[name] == value for name, value in fields.items())
    )


def last_of(run: Run, action: str) -> Recorded:
    """Such a command that is its account's last. In the end no suspend is: a delete or a restore has followed."""
    if action == "suspend":
        return command(run, action, sequence=1)
    last = {one.json["account_id"]: one for one in run.topics["commands"]}
    return next(one for one in last.values() if one.json["action"] == action)


def of_account(run: Run, topic: str, recorded: Recorded) -> list[Recorded]:
    return [one for one in run.topics[topic] if one.key == recorded.key]


def test_a_lost_command_in_the_middle_is_found(run: Run) -> None:
    lost = command(run, "suspend")
    assert [one for one in of_account(run, "commands", lost) if one.offset > lost.offset]
    replace(run, "commands", lost)
    assert found(run, lost)["lost"]


@pytest.mark.parametrize("action", ["restore", "delete"])
def test_a_lost_last_command_is_found(run: Run, action: str) -> None:
    lost = last_of(run, action)
    replace(run, "commands", lost)
    assert found(run, lost)["lost"]


@pytest.mark.parametrize("action", ["restore", "delete"])
def test_a_command_that_was_never_sent_nor_told_of_is_found(run: Run, action: str) -> None:
    """The worker has lost the record that called for it, or its mark: nothing of it is there, and the view agrees."""
    lost = last_of(run, action)
    replace(run, "commands", lost)
    kinds = {"suspend": "suspended", "restore": "restored", "delete": "deleted"}
    for notice in of_account(run, "notices", lost):
        if notice.json["command_id"] == lost.json["command_id"] and notice.json["kind"] == kinds[action]:
            replace(run, "notices", notice)
    views = of_account(run, "accounts", lost)
    before = [one for one in views if one.json["sequence"] < lost.json["sequence"]]
    for view in views:
        if view not in before:
            replace(run, "accounts", view)
    assert before
    assert found(run, lost)["lost"]


def test_a_doubled_command_is_found(run: Run) -> None:
    doubled = command(run, "suspend")
    replace(run, "commands", doubled, doubled, doubled._replace(offset=doubled.offset + 1))
    assert found(run, doubled)["doubled"]


def test_a_command_given_twice_with_another_id_is_found(run: Run) -> None:
    first = last_of(run, "delete")
    again = changed(first, command_id="5f0e4c5e-0000-5000-8000-000000000000", sequence=first.json["sequence"] + 1)
    replace(run, "commands", first, first, again._replace(offset=first.offset + 1))
    assert found(run, first)["wrong"]


def test_commands_out_of_order_are_found(run: Run) -> None:
    first = command(run, "suspend", sequence=1)
    second = next(one for one in of_account(run, "commands", first) if one.json["sequence"] == 2)
    replace(run, "commands", first, first._replace(offset=second.offset))
    replace(run, "commands", second, second._replace(offset=first.offset))
    report = check(run)
    assert report.kinds()["out of order"]


@pytest.mark.parametrize("action", ["suspend", "restore", "delete"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("owed", "0.000007"),
        ("late_fee", "17"),
        ("currency", "CHF"),
        ("policy", "quick@2"),
        ("reason", "operator"),
        ("services", ["storage"]),
        ("unpaid_bills_count", 99),
        ("unpaid_bills", [{"bill_id": "nobody's", "amount": "1", "outstanding": "1"}]),
        ("clause", "3.5"),
        ("supersedes", "5f0e4c5e-0000-5000-8000-000000000000"),
        ("effective_at", "2027-01-15T08:00:00.5Z"),
        ("arrears_since", "2027-01-15T08:00:00.5Z"),
        ("decided_at", "2027-01-15T08:00:00.5Z"),
        ("command_id", "5f0e4c5e-0000-5000-8000-000000000000"),
        ("evidence", {"bills": 0}),
    ],
)
def test_a_wrong_field_of_a_command_is_found(run: Run, action: str, name: str, value: Any) -> None:
    wrong = last_of(run, action)
    replace(run, "commands", wrong, changed(wrong, **{name: value}))
    assert check(run).faults


def test_a_command_that_comes_too_early_is_found(run: Run) -> None:
    early = command(run, "delete")
    at = format_instant(parse_instant(early.json["effective_at"]) + SECOND)  # lateness is 1 s at least
    replace(run, "commands", early, changed(early, decided_at=at))
    assert any("not past" in fault.told for fault in check(run).faults)


def test_a_command_elsewhere_than_its_account_is_found(run: Run) -> None:
    astray = command(run, "suspend")
    replace(run, "commands", astray, astray._replace(partition=(astray.partition + 1) % run.partitions, offset=10**6))
    assert found(run, astray)["wrong"]


def test_headers_that_do_not_go_with_the_command_are_found(run: Run) -> None:
    wrong = command(run, "suspend")
    replace(run, "commands", wrong, wrong._replace(headers=()))
    assert found(run, wrong) == {"wrong": 2}  # the event's headers, and its time


def test_a_delete_that_did_not_know_of_a_payment_in_kafka_at_its_mark_is_found(run: Run) -> None:
    """The checker's first task: the payment was there, and the worker decided without it."""
    delete = last_of(run, "delete")
    mark = parse_instant(delete.json["effective_at"])
    unread = [one for one in run.of("payments", delete.partition) if one.appended_at < mark - 1000][-1]
    evidence = delete.json["evidence"] | {"payments": unread.offset}
    replace(run, "commands", delete, changed(delete, evidence=evidence))
    assert check(run).kinds()["unfenced"]


@pytest.mark.parametrize("before_mark", [True, False])
def test_a_payment_that_the_worker_has_overlooked_is_found(run: Run, before_mark: bool) -> None:
    """It was read, by the evidence; but the account was deleted all the same, or its balance lacks it."""
    delete = last_of(run, "delete")
    mark, decided_at = (parse_instant(delete.json[name]) for name in ("effective_at", "decided_at"))
    within = delete.json["evidence"]["payments"]
    there = run.of("payments", delete.partition)
    beside = [one for one in there if (one.offset < within) == before_mark][-1 if before_mark else 0]
    payment = {
        "event_id": "overlooked",
        "account_id": delete.json["account_id"],
        "payment_id": "overlooked",
        "kind": "topup",
        "amount": "1000",
        "currency": delete.json["currency"],
        "paid_at": format_instant(mark - 1 if before_mark else decided_at + 1),
    }
    # Offsets have room between them, for the ends of transactions.
    place = beside._replace(offset=beside.offset - 1, key=delete.key)
    run.take("payments", [place._replace(value=json.dumps(payment).encode())])
    kinds = found(run, delete)
    assert kinds["wrong delete"] if before_mark else kinds["lost"]


def test_evidence_that_goes_back_is_found(run: Run) -> None:
    late = [one for one in run.topics["commands"] if one.partition == 0][-1]
    evidence = dict.fromkeys(late.json["evidence"], 1)
    replace(run, "commands", late, changed(late, evidence=evidence))
    assert check(run).kinds()["out of order"]


def test_a_lost_and_a_doubled_notice_are_found(run: Run) -> None:
    delete = command(run, "delete")
    told = next(one for one in of_account(run, "notices", delete) if one.json["kind"] == "deleted")
    spoilt = copy.deepcopy(run)
    replace(spoilt, "notices", told)
    assert found(spoilt, delete) == {"lost": 1}
    replace(run, "notices", told, told, told._replace(offset=told.offset + 1))
    assert found(run, delete)["doubled"]


def test_a_delete_whose_notice_was_never_out_is_found(run: Run) -> None:
    delete = next(one for one in run.topics["commands"] if one.json["notice_id"] is not None)
    notice = next(
        one for one in of_account(run, "notices", delete) if one.json["notice_id"] == delete.json["notice_id"]
    )
    replace(run, "notices", notice)
    assert found(run, delete) == {"wrong delete": 1}


def test_a_lost_and_a_doubled_dead_letter_and_one_of_a_good_record_are_found(run: Run) -> None:
    letter = run.topics["dead-letters"][0]
    spoilt = copy.deepcopy(run)
    replace(spoilt, "dead-letters", letter)
    assert check(spoilt).kinds()["lost"]
    spoilt = copy.deepcopy(run)
    replace(spoilt, "dead-letters", letter, letter, letter._replace(offset=letter.offset + 1))
    assert check(spoilt).kinds()["doubled"]
    spoilt = copy.deepcopy(run)
    replace(spoilt, "dead-letters", letter, changed(letter, error="too_late"))
    assert check(spoilt).kinds()["wrong"]
    refused = {(one.json["topic"], one.partition, one.json["offset"]) for one in run.topics["dead-letters"]}
    payment = next(
        one for one in run.topics["bills"] if ("bills", one.partition, one.offset) not in refused and one.value
    )
    more = changed(letter, topic="bills", partition=payment.partition, offset=payment.offset)
    run.take("dead-letters", [more._replace(partition=payment.partition, offset=10**6)])
    assert check(run).kinds()["wrong"]


def test_a_view_that_is_lost_or_old_is_found(run: Run) -> None:
    account = command(run, "restore")
    views = of_account(run, "accounts", account)
    spoilt = copy.deepcopy(run)
    for view in views:
        replace(spoilt, "accounts", view)
    assert found(spoilt, account)["lost"]
    replace(run, "accounts", views[-1])
    assert check(run).faults


def test_a_view_that_comes_after_a_newer_one_is_found(run: Run) -> None:
    account = command(run, "restore")
    first, *_, last = of_account(run, "accounts", account)
    run.take("accounts", [first._replace(offset=last.offset + 1)])
    assert found(run, account)["out of order"]


def test_keys_go_where_java_puts_them() -> None:
    """Values of Kafka's own tests (`UtilsTest.testMurmur2`)."""
    hashes = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536, b"abc": 479470107}
    for key, hashed in hashes.items():
        assert partition_of(key, 2**31) == hashed & 0x7FFFFFFF


def test_the_customers_of_a_plan_have_names_though_the_first_record_of_one_is_spoilt() -> None:
    spoilt, sound = Step(1, "bills", {"account_id": 7}, b"a"), Step(2, "bills", {"account_id": "b"}, b"b")
    assert Plan(1, ((spoilt,), (sound,))).accounts == {"b"}
