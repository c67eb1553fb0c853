"""`arrears explain`: the story of an account is that of the replay, and is told in sentences."""

from __future__ import annotations

import gc
import json
from typing import TYPE_CHECKING, Any

import pytest

from models.instants import parse_instant
from models.policy import BUILT_IN
from streams.explain import explain, last_usable
from streams.files import FILE_TOPICS, Inputs, read_inputs
from streams.outcome import PartReplay, Progress, Wanted
from streams.sample import Sample, write_sample
from streams.writers import Output, Outputs
from tests.streams.command_line import bill, control, inside, package, payment, read, usage, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from streams.explain import Story

DAY_1 = "2026-01-01T00:00:00Z"
DAY_2 = "2026-01-02T00:00:00Z"
DAY_3 = "2026-01-03T00:00:00Z"
DAY_4 = "2026-01-04T00:00:00Z"
DAY_30 = "2026-01-30T00:00:00Z"


@pytest.fixture(autouse=True)
def _collect_garbage_again() -> Iterator[None]:
    yield
    gc.enable()


def story(capfdbinary: Any, folder: Path, *more: object, **topics: list[Any]) -> tuple[str, dict[str, Any]]:
    """What `arrears explain` tells of "a", on one line, and with --json."""
    options = [word for topic, lines in topics.items() for word in (f"--{topic}", write(folder / topic, *lines))]
    told = inside(capfdbinary, "explain", "a", *options, *more)
    as_json = inside(capfdbinary, "explain", "a", *options, *more, "--json")
    assert (told.code, told.err, as_json.code, as_json.err) == (0, "", 0, "")
    assert as_json.out.count(b"\n") == 1
    return " ".join(told.out.decode().split()), json.loads(as_json.out)


# The same story as the replay's -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A month in which every story of the sample is lived, and what the replay made of it."""
    folder = tmp_path_factory.mktemp("month")
    write_sample(folder, Sample(accounts=17, days=31, hourly=False))
    with Output("", str(folder / "c")) as c, Output("", str(folder / "n")) as n, Output("", str(folder / "a")) as a:
        PartReplay(inputs(folder), Wanted(BUILT_IN, "arrears"), Progress()).run(Outputs(c, n, a))
    return folder


def inputs(folder: Path) -> Inputs:
    return read_inputs([(topic, str(folder / f"{topic}.jsonl")) for topic in FILE_TOPICS])


def stories(folder: Path) -> Iterator[tuple[dict[str, Any], Story]]:
    read_in = inputs(folder)
    for account in read(folder / "a"):
        found = explain(read_in, account["account_id"], BUILT_IN, "arrears", None)
        assert found is not None
        yield account, found


def test_an_explanation_has_the_commands_the_notices_and_the_account_of_the_replay(month: Path) -> None:
    commands, notices = read(month / "c"), read(month / "n")
    told = []
    for account, found in stories(month):
        events = json.loads(json.dumps(jsonable(found)))["events"]
        mine = account["account_id"]
        assert [event["command"] for event in events if event["type"] == "command"] == [
            command for command in commands if command["account_id"] == mine
        ]
        assert [event["notice"] for event in events if event["type"] == "notice"] == [
            notice for notice in notices if notice["account_id"] == mine
        ]
        assert jsonable(found)["account"] == account
        told += [event for event in events if event["type"] in ("command", "notice")]
    assert len(told) == len(commands) + len(notices) > 90


def jsonable(found: Story) -> dict[str, Any]:
    import msgspec  # noqa: PLC0415

    value: dict[str, Any] = json.loads(msgspec.json.encode(found.as_json()))
    return value


def test_balances_follow_each_other_to_the_account_s_own(month: Path) -> None:
    for account, found in stories(month):
        balance = "0"
        for event in found.events:
            if event.type == "record":
                assert event.more["balance_before"] == balance
                balance = event.more["balance_after"]
        assert balance == account["balance"]


def test_events_are_in_order_and_every_one_is_told(month: Path) -> None:
    for _, found in stories(month):
        instants = [event.at for event in found.events]
        assert instants == sorted(instants)
        assert all(" ".join(event.says).endswith(".") for event in found.events)
        assert found.next


def test_without_until_the_clock_ends_where_that_of_the_replay_ends(tmp_path: Path, capfdbinary: Any) -> None:
    bills = [
        bill(1, DAY_1),
        bill(1, DAY_3, account_id="other"),
        bill(2, DAY_30, account_id="other", currency="USD"),  # refused
        bill(3, DAY_30, account_id="third", kind="adjusted"),  # refused
        b'{"account_id": "fourth", "issued_at": "2026-01-30T00:00:00Z"}',  # refused
    ]
    _, found = story(capfdbinary, tmp_path, bills=bills)
    assert (found["as_of"], found["account"]["status"]) == (DAY_3, "suspended")
    assert last_usable(read_inputs([("bills", str(tmp_path / "bills"))]), BUILT_IN) == parse_instant(DAY_3)
    _, found = story(capfdbinary, tmp_path, "--until", DAY_30, bills=bills)
    assert (found["as_of"], found["account"]["status"]) == (DAY_30, "deleted")


# What is told -----------------------------------------------------------------------------------------------------


def test_a_suspension_and_a_restore_are_told_with_their_clauses(tmp_path: Path, capfdbinary: Any) -> None:
    told, _ = story(
        capfdbinary,
        tmp_path,
        bills=[bill(1, DAY_1, amount="12.5")],
        payments=[payment(1, DAY_3, "2.5"), payment(2, DAY_4)],
    )
    for sentence in (
        "2026-01-01 00:00:00 Bill bill-1 of 12.5 CNY is charged. Balance: 0 -> -12.5 CNY.",
        "The balance no longer covers the bills: arrears begin (1.1), under policy maxcompute@2018-03-16 (14.2).",
        "What is paid within 24 hours, by 2026-01-02 00:00:00, stops nothing (1.1.1).",
        "Notice arrears_started: the customer is told that arrears began, that 12.5 CNY is owed and that it has to be",
        "2026-01-01 20:00:00 Notice suspension_ahead: the customer is warned: the suspension comes at",
        "2026-01-02 00:00:00 Command 1: SUSPEND compute and download.",
        "24 hours have passed since arrears began and 12.5 CNY is owed (1.1.2). Late fee so far: 0.00625 CNY (3.4).",
        "and that everything is deleted at 2026-01-16 00:00:00 if it is not paid.",
        "2026-01-03 00:00:00 Top-up pay-1: 2.5 CNY is paid in. Balance: -12.5 -> -10 CNY.",
        "10 CNY is still owed: a part restores nothing and moves no mark (1.1.2, 3.4).",
        "2026-01-04 00:00:00 Top-up pay-2: 10 CNY is paid in. Balance: -10 -> 0 CNY.",
        "The bills are covered again: the arrears are over.",
        "Command 2: RESTORE compute and download. Everything is paid (1.1.2, 3.4).",
        "Notice restored: the customer is told that the services are back.",
        "Current: balance 0 CNY. Nothing is due.",
    ):
        assert sentence in told


@pytest.mark.parametrize(
    ("until", "expected", "next_"),
    [
        (
            "2026-01-01T12:00:00Z",
            """If 10 CNY is paid by 2026-01-02 00:00:00, nothing stops (1.1.1); else compute and download stop then
            (1.1.2). As things stand everything is deleted at 2026-01-16 00:00:00 (1.1.3).""",
            {"suspend_at": DAY_2, "delete_at": "2026-01-16T00:00:00Z", "to_pay": "10", "currency": "CNY"},
        ),
        (
            DAY_3,
            """Once 10 CNY is paid, compute and download are restored (1.1.2). A part of it restores nothing. If it is
            not paid by 2026-01-16 00:00:00, everything is deleted (1.1.3).""",
            {"suspend_at": None, "delete_at": "2026-01-16T00:00:00Z", "to_pay": "10", "currency": "CNY"},
        ),
        (
            DAY_30,
            """The service has ended and all data is gone. No payment brings it back (1.1.3). An operator may reopen the
            account.""",
            {"suspend_at": None, "delete_at": None, "to_pay": "0", "currency": "CNY"},
        ),
    ],
)
def test_what_comes_next_is_told_at_the_end(
    tmp_path: Path, capfdbinary: Any, until: str, expected: str, next_: dict[str, Any]
) -> None:
    told, found = story(capfdbinary, tmp_path, "--until", until, bills=[bill(1, DAY_1)])
    says = " ".join(expected.split())
    assert told.endswith(says)
    assert found["next"] == {**next_, "says": says}


def test_holds_allowances_and_exemptions_are_told_with_what_they_do_to_the_marks(
    tmp_path: Path, capfdbinary: Any
) -> None:
    noon = "2026-01-01T12:00:00Z"
    controls = [
        control(1, noon, "hold", freeze_clock=True, actor="anna"),
        control(2, DAY_2, "release", actor="ben"),
        control(3, DAY_2, "allowance", duration="P1D", actor="carl", account_id="*"),
        control(4, DAY_4, "exempt", until=DAY_30, actor="dora"),
    ]
    told, _ = story(capfdbinary, tmp_path, "--until", DAY_30, bills=[bill(1, DAY_1)], controls=controls)
    for sentence in (
        'anna puts the account on hold until it is released; the clock stands still. Reason: "a ticket".',
        "No suspend comes before the hold ends; it would have come at 2026-01-02 00:00:00.",
        "ben releases the account from holds and exemptions.",
        "carl allows all accounts 24 hours more, for this episode and those that follow.",
        "The suspend mark moves from 2026-01-02 00:00:00 to 2026-01-03 12:00:00.",
        "SUSPEND compute and download. The suspend mark, which an allowance or hold has moved, has passed and 10 CNY",
        "dora exempts the account until 2026-01-30 00:00:00.",
        "RESTORE compute and download. An operator's exemption restores it, although the bills are not paid.",
        "The exemption ended at 2026-01-30 00:00:00.",
    ):
        assert sentence in told


def test_every_kind_of_record_is_told(tmp_path: Path, capfdbinary: Any) -> None:
    opening = control(0, "2025-12-31T00:00:00Z", "opening", balance="5", currency="CNY", status="current", sequence=7)
    policies = [{"name": "other", "version": "2", "effective_from": DAY_1}]
    told, found = story(
        capfdbinary,
        tmp_path,
        bills=[
            bill(1, DAY_1, "3"),
            bill(2, "2026-01-01T00:00:01Z", "2", bill_id="bill-1", kind="adjusted"),
            bill(3, "2026-01-01T00:00:02Z", "0", bill_id="bill-1", kind="voided"),
        ],
        payments=[
            payment(1, DAY_2, "1"),
            payment(2, "2026-01-02T00:00:01Z", "1", payment_id="pay-1", kind="refund"),
            payment(3, "2026-01-02T00:00:02Z", "1", payment_id="pay-1", kind="reversal"),
            payment(4, "2026-01-02T00:00:03Z", "100", kind="gift"),
        ],
        usage=[
            usage(1, DAY_3, cost="0.25", currency="CNY"),
            usage(2, "2026-01-03T00:00:01Z", service="storage", unit="GB", quantity="7"),
        ],
        packages=[package(1, DAY_2, quantity="1.5"), package(2, DAY_4, kind="cancelled", package_id="pack-1")],
        controls=[
            opening,
            control(1, DAY_2, "credit_limit", amount="50"),
            control(2, DAY_2, "policies", policies=policies, account_id="*"),
            control(3, DAY_3, "policy", policy="other"),
            control(4, DAY_3, "resume"),
        ],
    )
    for sentence in (
        "ops takes the account over from another system, current.",
        "Balance: 0 -> 5 CNY.",
        "Bill bill-1 of 3 CNY is charged. Balance: 5 -> 2 CNY.",
        "Bill bill-1 is adjusted from 3 CNY to 2 CNY. Balance: 2 -> 3 CNY.",
        "Bill bill-1 of 2 CNY is voided. Balance: 3 -> 5 CNY.",
        "Top-up pay-1: 1 CNY is paid in. Balance: 5 -> 6 CNY.",
        "Refund pay-1: 1 CNY is paid back to the customer. Balance: 6 -> 5 CNY.",
        "Chargeback of pay-1: the bank takes 1 CNY back. Balance: 5 -> 4 CNY.",
        "Gift credit pay-4 of 100 CNY: it never pays a bill (3.5). The balance stays 4 CNY.",
        "2 records of usage until 2026-01-03 00:00:01: compute 1 h, storage 7 GB; cost 0.25 CNY, which a bill will",
        "charge. Package pack-1 gives 1 h, 0.5 left (9.1.4).",
        "Package pack-1 is bought: 1.5 h of compute, from 2026-01-02 00:00:00 to 2030-01-01 00:00:00 (9.1.4).",
        "Package pack-1 is cancelled: it is drawn on no more.",
        "ops sets the credit limit to 50.",
        "ops puts policies in force: other@2; an episode that runs keeps its own (14.2).",
        "ops chooses policy other for episodes that begin later.",
        "ops lets decisions that a guard stopped go on",
    ):
        assert sentence in told
    records = [event for event in found["events"] if event["type"] == "record"]
    assert {event["result"] for event in records} == {"accepted"}
    assert len(records) == 16
    assert records[0]["record"] == opening
    drawn = [{"package_id": "pack-1", "quantity": "1", "unit": "h", "left": "0.5"}]
    assert [event["drawn"] for event in records if "drawn" in event] == [drawn]


def test_refused_and_repeated_records_are_told_and_why(tmp_path: Path, capfdbinary: Any) -> None:
    told, found = story(
        capfdbinary,
        tmp_path,
        bills=[
            bill(1, DAY_1),
            bill(1, DAY_1),
            bill(2, DAY_2, currency="USD"),
            bill(3, DAY_2, amount="-3"),
            b'{"account',
        ],
    )
    assert "It came before with the same content: it changes nothing." in told
    assert "Bill bill-2 of 10 USD is charged. Refused (currency_mismatch): " in told
    assert "It changes nothing." in told
    assert "Lines that name the account and cannot be used: bills, line 4: invalid: amount: must be a text" in told
    results = [(event["line"], event["result"]) for event in found["events"] if event["type"] == "record"]
    assert results == [(1, "accepted"), (2, "duplicate"), (3, "refused")]
    assert found["as_of"] == DAY_1  # a refused record does not move the clock
    assert [(line["line"], line["error"], line["field"]) for line in found["bad_lines"]] == [(4, "invalid", "amount")]


def test_an_account_with_no_usable_record_is_told_all_the_same(tmp_path: Path, capfdbinary: Any) -> None:
    told, found = story(capfdbinary, tmp_path, bills=[bill(1, DAY_1, amount="-3")])
    assert told.endswith("No record of it can be used.")
    assert (found["account"], found["as_of"], found["events"], len(found["bad_lines"])) == (None, None, [], 1)


def test_a_late_fee_that_is_required_is_told(tmp_path: Path, capfdbinary: Any) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "policies:\n- {name: a, version: '1', effective_from: 2020-01-01T00:00:00Z, late_fee_required: true}\n"
    )
    told, found = story(
        capfdbinary, tmp_path, "--policy", policy, bills=[bill(1, DAY_1, "1000")], payments=[payment(1, DAY_3, "1000")]
    )
    assert "Suspended: balance 0 CNY, late fee 1 CNY (3.4)." in told
    assert "Once 1 CNY is paid, with the late fee of 1 CNY that its policy asks for (3.4)" in told
    assert "only the fee is missing: nothing is deleted for that" in told
    assert (found["next"]["to_pay"], found["next"]["delete_at"]) == ("1", None)


def test_a_credit_limit_is_told(tmp_path: Path, capfdbinary: Any) -> None:
    controls = [control(1, DAY_1, "credit_limit", amount="50")]
    told, _ = story(capfdbinary, tmp_path, bills=[bill(1, DAY_2)], controls=controls)
    assert "Current: balance -10 CNY, credit limit 50 CNY, owed 10 CNY, 1 unpaid bill." in told
    assert told.endswith("10 CNY is owed, within the credit limit of 50 CNY: nothing is due.")


def test_a_breach_and_a_payment_after_the_delete_are_told(tmp_path: Path, capfdbinary: Any) -> None:
    told, _ = story(
        capfdbinary,
        tmp_path,
        bills=[bill(1, DAY_1)],
        usage=[usage(1, DAY_3)],
        payments=[payment(1, DAY_30)],
        controls=[control(1, "2026-01-31T00:00:00Z", "reopen")],
    )
    assert "compute was used from 2026-01-03 00:00:00 on, although it is stopped: a breach." in told
    assert "Command 2: DELETE compute, download, storage, caches and backups. 15 days have passed since" in told
    assert "a payment came after the delete; it is recorded and brings nothing back (1.1.3)." in told
    assert "ops reopens the account: it starts anew." in told


def test_ids_are_found_however_they_are_written(tmp_path: Path, capfdbinary: Any) -> None:
    escaped = json.dumps(bill(1, DAY_1)).replace('"a"', '"\\u0061"').encode()
    _, found = story(capfdbinary, tmp_path, bills=[escaped, bill(2, DAY_1, account_id="b")])
    assert [event["event_id"] for event in found["events"] if event["type"] == "record"] == ["b1"]
    odd = 'quote " back \\ 账户'
    write(tmp_path / "odd", bill(1, DAY_1, account_id=odd))
    ended = inside(capfdbinary, "explain", odd, "--bills", tmp_path / "odd")
    assert ended.code == 0
    assert f"Account {odd}, up to".encode() in ended.out


@pytest.mark.parametrize(
    ("asked", "advice"),
    [
        ("ACCT-0001", "did you mean acct-0001?"),
        ("acct-001", "did you mean acct-0010 or acct-0011 or acct-0012?"),
        ("akct-0007", "did you mean acct-0007 or "),
        ("somebody", "check its id and the files"),
    ],
)
def test_an_unknown_account_is_told_with_those_that_look_like_it(
    tmp_path: Path, capfdbinary: Any, asked: str, advice: str
) -> None:
    bills = write(tmp_path / "bills", *(bill(1, DAY_1, account_id=f"acct-{number:04}") for number in range(1, 20)))
    ended = inside(capfdbinary, "explain", asked, "--bills", bills)
    assert (ended.code, ended.out) == (2, b"")
    assert ended.err.startswith(f"arrears explain: there is no account {asked} in the input: {advice}")
    assert ended.err.count("\n") == 1
