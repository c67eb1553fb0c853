"""The model against the contract's own sentences, read one by one, and against the real records."""

from __future__ import annotations

import json
import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from . import Result, replay
from .policy import parse_file
from .values import (
    HOUR,
    format_amount,
    format_instant,
    parse_amount,
    parse_duration,
    parse_instant,
    round_half_up,
)

REPOSITORY = Path(__file__).resolve().parents[2]
START = datetime(2024, 1, 1, tzinfo=UTC)
ACCOUNT = "acme"
Line = tuple[str, dict[str, Any]]  # topic, record


# Writing histories: hours since START ------------------------------------------------------------------------------


def at(hours: float, microseconds: int = 0) -> str:
    return (START + timedelta(hours=hours, microseconds=microseconds)).isoformat().replace("+00:00", "Z")


def bill(hours: float, amount: str, bill_id: str = "b1", **other: Any) -> Line:
    record = {"bill_id": bill_id, "kind": "issued", "amount": amount, "currency": "EUR", "issued_at": at(hours)}
    return "bills", record | other


def void(hours: float, bill_id: str = "b1", **other: Any) -> Line:
    return "bills", {"bill_id": bill_id, "kind": "voided", "currency": "EUR", "issued_at": at(hours)} | other


def pay(hours: float, amount: str, kind: str = "topup", **other: Any) -> Line:
    record = {"payment_id": f"p{hours}{kind}", "kind": kind, "amount": amount, "currency": "EUR", "paid_at": at(hours)}
    return "payments", record | other


def use(hours: float, service: str = "compute", started: float | None = None, **other: Any) -> Line:
    started = hours if started is None else started
    record = {"usage_id": "u", "service": service, "quantity": "1", "unit": "h", "started_at": at(started)}
    return "usage", record | {"ended_at": at(hours)} | other


def package(hours: float, quantity: str = "3", ends: float = 1000, **other: Any) -> Line:
    record = {"package_id": "k1", "kind": "purchased", "service": "compute", "quantity": quantity, "unit": "h"}
    return "packages", record | {"at": at(hours), "starts_at": at(hours), "ends_at": at(ends)} | other


def cancel(hours: float, package_id: str = "k1") -> Line:
    return "packages", {"package_id": package_id, "kind": "cancelled", "at": at(hours)}


def control(kind: str, hours: float, until: float | None = None, **other: Any) -> Line:
    record = {"kind": kind, "actor": "ann", "reason": "asked", "at": at(hours)}
    return "controls", record | ({} if until is None else {"until": at(until)}) | other


def opening(hours: float, balance: str, status: str, since: float | None = None, sequence: int = 7) -> Line:
    record = control("opening", hours, balance=balance, currency="EUR", status=status, sequence=sequence)
    return record if since is None else ("controls", record[1] | {"arrears_since": at(since)})


def run(*lines: Line, until: float | str | None = None, policies: str | None = None) -> Result:
    """Replay the lines; what has no id gets one in the order of the lines."""
    topics: dict[str, list[bytes]] = {}
    for number, (topic, record) in enumerate(lines):
        whole = {"event_id": f"e{number:03d}", "account_id": ACCOUNT} | record
        topics.setdefault(topic, []).append(json.dumps(whole).encode())
    end = at(until) if isinstance(until, int | float) else until
    return replay(topics, until=end, policies=policies)


def policy(**fields: Any) -> str:
    return json.dumps({"policies": [{"name": "p", "version": "1"} | fields]})


def hours_of(text: str | None) -> float | None:
    return None if text is None else (parse_instant(text) - parse_instant(at(0))) / HOUR


def commands(result: Result) -> list[tuple[str, float | None]]:
    return [(command["action"], hours_of(command["effective_at"])) for command in result.commands]


def notices(result: Result, *kinds: str) -> list[tuple[str, float | None, float | None]]:
    return [
        (notice["kind"], hours_of(notice["at"]), hours_of(notice["deadline"]))
        for notice in result.notices
        if not kinds or notice["kind"] in kinds
    ]


def view(result: Result) -> dict[str, Any]:
    (account,) = result.accounts
    return account


def errors(result: Result) -> list[tuple[str, str | None]]:
    return [(letter["error"], letter["field"]) for letter in result.dead_letters]


SUSPENDED = ("suspend", 24.0)
DELETED = ("delete", 360.0)


# The rule ----------------------------------------------------------------------------------------------------------


def test_an_unpaid_bill_suspends_after_24_hours_and_deletes_after_360() -> None:
    result = run(bill(0, "10"), until=400)
    assert commands(result) == [SUSPENDED, DELETED]
    assert notices(result) == [
        ("arrears_started", 0, 24),
        ("suspension_ahead", 20, 24),
        ("suspended", 24, 360),
        ("deletion_ahead", 192, 360),
        ("deletion_ahead", 288, 360),
        ("deletion_ahead", 336, 360),
        ("deleted", 360, None),
    ]
    suspend, delete = result.commands
    assert (suspend["clause"], suspend["reason"]) == ("1.1.2", "unpaid_past_suspend_mark")
    assert (delete["clause"], delete["reason"]) == ("1.1.3", "unpaid_past_delete_mark")
    assert delete["_notice_label"] == ("deletion_ahead", at(192), at(360))
    assert (suspend["owed"], suspend["late_fee"], suspend["policy"]) == ("10", "0.005", "maxcompute@2018-03-16")


def test_a_payment_at_the_suspend_mark_is_in_time_and_one_after_it_is_not() -> None:
    assert commands(run(bill(0, "10"), pay(24, "10"), until=100)) == []
    late = ("payments", pay(0, "10")[1] | {"paid_at": at(24, 1)})
    result = run(bill(0, "10"), late, until=100)
    assert [command["action"] for command in result.commands] == ["suspend", "restore"]
    assert result.commands[1]["effective_at"] == at(24, 1)


def test_until_at_a_mark_fires_nothing() -> None:
    assert commands(run(bill(0, "10"), until=24)) == []
    assert commands(run(bill(0, "10"), until=at(24, 1))) == [SUSPENDED]


def test_a_partial_payment_restores_nothing_and_moves_no_mark() -> None:
    result = run(bill(0, "10"), pay(30, "9.999999"), until=400)
    assert commands(result) == [SUSPENDED, DELETED]


def test_everything_paid_while_suspended_restores_the_same_services() -> None:
    result = run(bill(0, "10"), pay(48, "10"))
    assert commands(result) == [SUSPENDED, ("restore", 48)]
    restore = result.commands[1]
    assert restore["services"] == ["compute", "download"]
    assert (restore["reason"], restore["clause"], restore["arrears_since"]) == ("paid_in_full", "1.1.2", at(0))
    assert (restore["owed"], restore["late_fee"]) == ("0", "0.01")
    assert notices(result)[-1] == ("restored", 48, None)
    assert (view(result)["status"], view(result)["late_fee"]) == ("current", "0")


def test_cleared_before_the_suspend_mark_is_told_by_arrears_cleared() -> None:
    result = run(bill(0, "10"), pay(12, "12"))
    assert notices(result) == [("arrears_started", 0, 24), ("arrears_cleared", 12, None)]
    assert (result.notices[1]["late_fee"], result.notices[1]["arrears_since"]) == ("0.0025", at(0))


def test_a_deleted_account_is_not_restored_and_its_top_ups_are_told() -> None:
    result = run(bill(0, "10"), pay(361, "4"), pay(362, "1", "gift"), pay(363, "20"))
    assert commands(result) == [SUSPENDED, DELETED]
    assert notices(result)[-2:] == [("payment_after_delete", 361, None), ("payment_after_delete", 363, None)]
    account = view(result)
    assert (account["status"], account["arrears_since"], account["delete_at"]) == ("deleted", None, None)
    assert (account["balance"], account["late_fee"]) == ("14", "0.075")
    assert account["suspended_services"] == ["compute", "download", "storage", "caches", "backups"]


def test_gifts_pay_no_bill() -> None:
    assert commands(run(bill(0, "10"), pay(1, "100", "gift"), until=25)) == [SUSPENDED]


def test_a_new_bill_does_not_move_arrears_since_and_the_next_episode_has_a_new_clock() -> None:
    assert commands(run(bill(0, "10"), bill(20, "5", "b2"), until=30)) == [SUSPENDED]
    assert commands(run(bill(0, "10"), pay(20, "10"), bill(22, "5", "b2"), until=50)) == [("suspend", 46)]


def test_a_chargeback_begins_arrears_at_its_own_instant() -> None:
    result = run(pay(0, "10"), bill(1, "10"), pay(30, "10", "reversal"), until=31)
    assert view(result)["arrears_since"] == at(30)


def test_at_one_instant_all_movements_count_together() -> None:
    assert notices(run(bill(0, "10"), pay(0, "10"), until=30)) == []


def test_a_credit_limit_keeps_out_of_arrears_but_what_is_owed_is_owed() -> None:
    result = run(control("credit_limit", 0, amount="15"), bill(1, "10"), bill(2, "10", "b2"), until=2)
    assert (view(result)["arrears_since"], view(result)["owed"], view(result)["credit_limit"]) == (at(2), "20", "15")
    raised = run(bill(0, "10"), control("credit_limit", 30, amount="10"))
    assert commands(raised) == [SUSPENDED, ("restore", 30)]
    assert (raised.commands[1]["reason"], raised.commands[1]["owed"]) == ("paid_in_full", "10")


def test_of_two_limits_at_one_instant_the_greater_event_id_holds() -> None:
    greater = control("credit_limit", 0, amount="1", event_id="z")
    lesser = control("credit_limit", 0, amount="9", event_id="a")
    assert view(run(greater, lesser))["credit_limit"] == "1"


# Late fee ----------------------------------------------------------------------------------------------------------


def test_the_fee_is_the_integral_over_what_was_owed() -> None:
    result = run(bill(0, "100"), pay(12, "50"), until=24)
    assert view(result)["late_fee"] == format_amount(Fraction("0.0005") * (100 + 50) / 2)


def test_the_fee_is_rounded_half_up_to_six_decimals_when_reported() -> None:
    assert round_half_up(Fraction("0.0000005")) == Fraction("0.000001")
    assert round_half_up(Fraction("0.00000049")) == 0


def test_with_late_fee_required_a_suspended_account_waits_for_its_fee() -> None:
    rule = policy(late_fee_required=True)
    result = run(bill(0, "1000"), pay(48, "1000"), until=1000, policies=rule)
    assert commands(result) == [SUSPENDED]  # nobody is deleted for a late fee alone
    account = view(result)
    assert (account["status"], account["late_fee"], account["arrears_since"]) == ("suspended", "1", None)
    assert (account["delete_at"], account["suspended_services"]) == (None, ["compute", "download"])
    paid = run(bill(0, "1000"), pay(48, "1000"), pay(60, "0.9"), pay(70, "0.1"), policies=rule)
    assert commands(paid) == [SUSPENDED, ("restore", 70)]
    assert (paid.commands[1]["late_fee"], paid.commands[1]["arrears_since"]) == ("1", at(0))


def test_a_new_shortfall_while_a_fee_is_missing_is_a_new_episode_with_the_fee_carried_over() -> None:
    rule = policy(late_fee_required=True)
    result = run(bill(0, "1000"), pay(48, "1000"), bill(100, "1000", "b2"), until=148, policies=rule)
    assert commands(result) == [SUSPENDED]
    assert (view(result)["arrears_since"], view(result)["late_fee"]) == (at(100), "2")
    assert notices(result, "arrears_started")[-1] == ("arrears_started", 100, 460)
    assert view(result)["delete_at"] == at(460)


def test_an_exempt_restores_and_drops_a_missing_fee() -> None:
    rule = policy(late_fee_required=True)
    result = run(bill(0, "1000"), pay(48, "1000"), control("exempt", 50), policies=rule)
    assert commands(result) == [SUSPENDED, ("restore", 50)]
    assert (result.commands[1]["reason"], result.commands[1]["late_fee"]) == ("operator", "1")
    assert (view(result)["status"], view(result)["late_fee"]) == ("current", "0")


# Marks, holds, allowances ------------------------------------------------------------------------------------------


def test_a_mark_in_a_hold_fires_at_its_end() -> None:
    result = run(bill(0, "10"), control("hold", 10, until=50), until=60)
    assert commands(result) == [("suspend", 50)]
    assert notices(result, "suspension_ahead") == []  # none in a hold, and at its end the mark has passed
    assert view(run(bill(0, "10"), control("hold", 10, until=50)))["suspend_at"] == at(50)


def test_a_hold_covers_its_at_and_not_its_end() -> None:
    assert commands(run(bill(0, "10"), control("hold", 24, until=30), until=40)) == [("suspend", 30)]
    assert commands(run(bill(0, "10"), control("hold", 10, until=24), until=40)) == [SUSPENDED]


def test_holds_add_up_and_the_last_end_counts() -> None:
    result = run(bill(0, "10"), control("hold", 10, until=40), control("hold", 20, until=30), until=50)
    assert commands(result) == [("suspend", 40)]
    chained = run(bill(0, "10"), control("hold", 10, until=40), control("hold", 40, until=45), until=50)
    assert commands(chained) == [("suspend", 45)]


def test_an_open_hold_leaves_no_date_until_it_is_released() -> None:
    held = run(bill(0, "10"), control("hold", 10))
    assert (view(held)["suspend_at"], view(held)["delete_at"]) == (None, None)
    assert view(held)["hold"] == {"kind": "hold", "at": at(10), "until": None, "freeze_clock": False}
    released = run(bill(0, "10"), control("hold", 10), control("release", 100), until=110)
    assert commands(released) == [("suspend", 100)]
    assert view(released)["hold"] is None


def test_a_release_ends_own_holds_only_and_comes_first_at_its_instant() -> None:
    everyone = control("hold", 10, account_id="*")
    assert commands(run(bill(0, "10"), everyone, control("release", 20), until=50)) == []
    assert commands(run(bill(0, "10"), everyone, control("release", 20, account_id="*"), until=50)) == [SUSPENDED]
    same = run(bill(0, "10"), control("hold", 20, event_id="a"), control("release", 20, event_id="z"), until=50)
    assert commands(same) == []


def test_frozen_time_moves_the_marks_and_counts_once() -> None:
    freeze = {"freeze_clock": True}
    result = run(
        bill(0, "10"), control("hold", 10, until=20, **freeze), control("hold", 12, until=22, **freeze), until=40
    )
    assert commands(result) == [("suspend", 36)]
    assert view(result)["delete_at"] == at(372)
    assert notices(result, "suspension_ahead") == [("suspension_ahead", 32, 36)]


def test_frozen_time_does_not_stop_the_fee() -> None:
    result = run(bill(0, "1000"), control("hold", 0, freeze_clock=True), until=48)
    assert view(result)["late_fee"] == "1"


def test_no_delete_during_a_hold_and_a_notice_whose_deadline_fell_in_it_does_not_count() -> None:
    result = run(bill(0, "10"), control("hold", 350, until=380), until=500)
    assert commands(result) == [SUSPENDED, ("delete", 404)]
    assert notices(result, "deletion_ahead")[-1] == ("deletion_ahead", 380, 404)
    assert result.commands[1]["_notice_label"] == ("deletion_ahead", at(380), at(404))


def test_a_waiting_delete_that_meets_a_hold_is_announced_again() -> None:
    holds = (control("hold", 350, until=380), control("hold", 400, until=410))
    result = run(bill(0, "10"), *holds, until=500)
    assert commands(result) == [SUSPENDED, ("delete", 434)]
    assert notices(result, "deletion_ahead")[-2:] == [("deletion_ahead", 380, 404), ("deletion_ahead", 410, 434)]


def test_a_mark_that_moves_away_and_back_is_the_old_mark() -> None:
    result = run(bill(0, "10"), control("hold", 200), control("release", 300), until=500)
    assert commands(result) == [SUSPENDED, DELETED]
    assert notices(result, "deletion_ahead") == [
        ("deletion_ahead", 192, 360),
        ("deletion_ahead", 300, 360),  # the one of 288 may go out when the hold ends
        ("deletion_ahead", 336, 360),
    ]


def test_an_allowance_moves_both_marks_and_the_newest_replaces_the_one_before() -> None:
    result = run(bill(0, "10"), control("allowance", 1, duration="PT48H"), until=1000)
    assert commands(result) == [("suspend", 72), ("delete", 408)]
    replaced = run(
        bill(0, "10"), control("allowance", 1, duration="PT48H"), control("allowance", 2, duration="PT1H"), until=40
    )
    assert commands(replaced) == [("suspend", 25)]


def test_a_mark_that_an_allowance_moves_into_the_past_fires_at_its_at() -> None:
    result = run(
        bill(0, "10"), control("allowance", 1, duration="PT48H"), control("allowance", 40, duration="PT0S"), until=50
    )
    assert commands(result) == [("suspend", 40)]


def test_an_allowance_never_undoes_a_suspend_but_moves_the_delete_mark() -> None:
    result = run(bill(0, "10"), control("allowance", 30, duration="P10D"), until=1000)
    assert commands(result) == [SUSPENDED, ("delete", 600)]


def test_an_allowance_holds_for_the_episodes_that_follow() -> None:
    allowance = control("allowance", 1, duration="PT10H")
    result = run(bill(0, "10"), allowance, pay(5, "10"), bill(100, "1", "b2"), until=140)
    assert commands(result) == [("suspend", 134)]


def test_of_allowances_the_newer_wins_and_at_one_instant_the_own() -> None:
    own, everyone = (
        control("allowance", 1, duration="PT10H"),
        control("allowance", 2, duration="PT20H", account_id="*"),
    )
    assert view(run(bill(0, "10"), own, everyone))["suspend_at"] == at(44)
    same = control("allowance", 2, duration="PT10H")
    assert view(run(bill(0, "10"), same, everyone))["suspend_at"] == at(34)


def test_a_moved_mark_is_warned_of_again_at_the_first_instant_that_may_be() -> None:
    result = run(bill(0, "10"), control("allowance", 300, duration="PT10H"), until=400)
    assert notices(result, "deletion_ahead") == [
        ("deletion_ahead", 192, 360),
        ("deletion_ahead", 288, 360),
        ("deletion_ahead", 300, 370),  # of 168 h and 72 h only the nearest
        ("deletion_ahead", 346, 370),
    ]
    assert commands(result) == [SUSPENDED, ("delete", 370)]


def test_a_delete_waits_until_its_notice_has_been_out_for_the_shortest_duration() -> None:
    result = run(
        bill(0, "10"), control("allowance", 1, duration="PT100H"), control("allowance", 359, duration="PT0S"), until=500
    )
    assert commands(result) == [("suspend", 124), ("delete", 383)]
    assert notices(result, "deletion_ahead")[-1] == ("deletion_ahead", 359, 383)


def test_a_delete_waits_for_min_suspended() -> None:
    result = run(bill(0, "10"), control("hold", 10, until=350), until=500)
    assert commands(result) == [("suspend", 350), ("delete", 422)]
    assert notices(result, "suspended", "deletion_ahead") == [
        ("deletion_ahead", 350, 422),  # 168 h and 72 h before it: only the nearest
        ("suspended", 350, 422),
        ("deletion_ahead", 398, 422),
    ]


def test_without_deletion_ahead_there_is_no_wait() -> None:
    rule = policy(notices={"suspension_ahead": [], "deletion_ahead": []})
    result = run(bill(0, "10"), control("hold", 350, until=380), until=500, policies=rule)
    assert commands(result) == [SUSPENDED, ("delete", 380)]
    assert result.commands[1]["notice_id"] is None


def test_with_the_suspension_clock_the_delete_mark_counts_from_the_suspend_mark() -> None:
    rule = policy(delete_clock="suspension", min_suspended="PT72H")
    assert commands(run(bill(0, "10"), until=500, policies=rule)) == [SUSPENDED, ("delete", 384)]


def test_marks_beyond_the_year_9999_never_come() -> None:
    issued = bill(0, "10", issued_at="9999-12-31T12:00:00Z")
    result = run(issued, until="9999-12-31T23:59:59.999999Z")
    assert (view(result)["suspend_at"], view(result)["delete_at"]) == (None, None)
    assert result.notices[0]["deadline"] is None


# Exemptions --------------------------------------------------------------------------------------------------------


def test_an_exemption_restores_and_at_its_end_suspends_again() -> None:
    result = run(bill(0, "10"), control("exempt", 50, until=100), until=200)
    assert commands(result) == [SUSPENDED, ("restore", 50), ("suspend", 100)]
    restore = result.commands[1]
    assert (restore["reason"], restore["owed"], restore["unpaid_bills_count"]) == ("operator", "10", 1)
    during = view(run(bill(0, "10"), control("exempt", 50, until=100), until=60))
    assert (during["status"], during["suspend_at"], during["arrears_since"]) == ("in_arrears", at(100), at(0))


def test_paid_at_the_instant_of_an_exemption_is_paid_in_full() -> None:
    result = run(bill(0, "10"), control("exempt", 50), pay(50, "10"))
    assert [command["reason"] for command in result.commands] == ["unpaid_past_suspend_mark", "paid_in_full"]


def test_paid_under_an_exemption_is_arrears_cleared() -> None:
    result = run(bill(0, "10"), control("exempt", 50), pay(60, "10"))
    assert commands(result) == [SUSPENDED, ("restore", 50)]
    assert notices(result)[-1] == ("arrears_cleared", 60, None)


def test_controls_for_everyone_hold_for_later_accounts_too() -> None:
    assert commands(run(control("hold", 0, account_id="*", until=100), bill(50, "1"), until=200)) == [("suspend", 100)]


# Policies ----------------------------------------------------------------------------------------------------------

TWO = json.dumps(
    {
        "policies": [
            {"name": "p", "version": "1", "effective_from": "2024-01-01T00:00:00Z"},
            {"name": "p", "version": "2", "effective_from": "2024-01-03T00:00:00Z", "suspend_after": "PT48H"},
            {"name": "q", "version": "1", "suspend_after": "PT12H"},
        ]
    }
)


def test_an_episode_keeps_the_policy_that_held_when_it_began() -> None:
    assert view(run(bill(47, "10"), until=60, policies=TWO))["suspend_at"] == at(71)
    assert view(run(bill(48, "10"), until=60, policies=TWO))["suspend_at"] == at(96)
    assert view(run(bill(47, "10"), until=50, policies=TWO))["policy"] == "p@1"


def test_a_policy_control_is_for_episodes_that_begin_after_it() -> None:
    chosen = control("policy", 1, policy="q")
    assert view(run(bill(0, "10"), chosen, policies=TWO))["policy"] == "p@1"
    assert view(run(bill(1, "10"), chosen, policies=TWO))["policy"] == "p@1"
    assert view(run(bill(2, "10"), chosen, policies=TWO))["policy"] == "q@1"
    assert errors(run(bill(0, "10"), control("policy", 1, policy="r"), policies=TWO)) == [("invalid", "policy")]


def test_new_policies_hold_from_their_instant_on_and_a_dropped_name_falls_back_to_the_first() -> None:
    new = control("policies", 5, account_id="*", policies=[{"name": "n", "version": "7", "suspend_after": "PT6H"}])
    chosen = control("policy", 1, policy="q")
    assert view(run(chosen, new, bill(5, "10"), policies=TWO))["policy"] == "n@7"
    assert view(run(chosen, bill(4, "10"), new, policies=TWO))["policy"] == "q@1"


@pytest.mark.parametrize(
    "fields",
    [
        {"colour": "red"},
        {"delete_after": "PT24H"},
        {"notices": {"suspension_ahead": ["PT24H"]}},
        {"notices": {"deletion_ahead": ["PT360H"]}},
        {"notices": {"deletion_ahead": ["PT73H"]}},
        {"min_suspended": "PT337H"},
        {"suspend_after": "P1M"},
    ],
)
def test_an_unusable_policy_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_file(policy(**fields))
    assert errors(run(control("policies", 0, policies=[fields]))) == [("invalid", "policies")]


def test_min_suspended_left_out_is_72_hours_or_what_is_there() -> None:
    assert parse_file(policy()).versions[0].min_suspended == 72 * HOUR
    short = policy(delete_after="PT50H", notices={"deletion_ahead": ["PT2H"]})
    assert parse_file(short).versions[0].min_suspended == 26 * HOUR


# Bills and their ids -----------------------------------------------------------------------------------------------


def test_an_adjustment_counts_at_its_own_instant() -> None:
    result = run(bill(0, "10"), bill(30, "4", kind="adjusted"), until=30)
    assert (view(result)["balance"], view(result)["arrears_since"]) == ("-4", at(0))
    assert result.accounts[0]["unpaid_bills"] == [{"bill_id": "b1", "amount": "4", "outstanding": "4"}]
    assert commands(run(bill(0, "10"), void(30))) == [SUSPENDED, ("restore", 30)]


def test_an_adjustment_waits_within_its_instant_but_not_longer() -> None:
    assert view(run(bill(5, "4", kind="adjusted", event_id="a"), bill(5, "10", event_id="b")))["balance"] == "-4"
    assert errors(run(bill(4, "4", kind="adjusted"), bill(5, "10"))) == [("unknown_bill", "bill_id")]
    assert errors(run(pay(0, "1"), void(4, "b9"))) == [("unknown_bill", "bill_id")]


def test_of_two_adjustments_at_one_instant_the_greater_event_id_holds_and_a_void_comes_last() -> None:
    two = (bill(1, "4", kind="adjusted", event_id="z"), bill(1, "7", kind="adjusted", event_id="a"))
    assert view(run(bill(0, "10"), *two))["balance"] == "-4"
    assert view(run(bill(0, "10"), void(1, event_id="a"), two[0]))["balance"] == "0"


def test_a_second_bill_a_second_void_and_an_adjustment_of_a_void_are_conflicts() -> None:
    lines = (bill(0, "10"), bill(1, "10"), void(2), void(3), bill(4, "1", kind="adjusted"))
    assert errors(run(*lines)) == [("conflict", "bill_id")] * 3


def test_a_second_top_up_of_a_payment_id_is_a_conflict_and_a_refund_of_it_is_not() -> None:
    known = {"payment_id": "p"}
    result = run(pay(0, "5", **known), pay(1, "2", "refund", **known), pay(2, "5", **known))
    assert errors(result) == [("conflict", "payment_id")]
    assert view(result)["balance"] == "3"


def test_the_same_event_again_changes_nothing_and_other_content_is_a_conflict() -> None:
    again = run(pay(0, "5", event_id="e"), pay(0, "5.0", event_id="e", colour="red"))
    assert (errors(again), view(again)["balance"]) == ([], "5")
    other = run(pay(0, "5", event_id="e"), pay(0, "6", event_id="e"), pay(1, "7", event_id="e"))
    assert (errors(other), view(other)["balance"]) == ([("conflict", "event_id")] * 2, "5")


def test_a_covered_bill_is_forgotten_past_history_and_its_id_is_free_again() -> None:
    days = 24
    known = run(pay(0, "10"), bill(0, "10"), void(45 * days))
    assert (errors(known), view(known)["balance"]) == ([], "10")
    forgotten = run(pay(0, "10"), bill(0, "10"), void(45 * days + 1))
    assert errors(forgotten) == [("unknown_bill", "bill_id")]
    assert errors(run(pay(0, "30"), bill(0, "10"), bill(45 * days + 1, "10"))) == []
    covered_later = run(bill(0, "10"), pay(10 * days, "10"), void(50 * days))
    assert errors(covered_later) == []  # being covered is a change
    still_open = run(bill(0, "10"), void(300 * days))
    assert errors(still_open) == []


def test_what_is_forgotten_is_owed_without_a_bill_when_it_is_refunded() -> None:
    result = run(pay(0, "10"), bill(0, "10"), pay(2000, "4", "refund"))
    assert (view(result)["owed"], view(result)["unpaid_bills"]) == ("4", [])


def test_history_is_not_below_any_delete_after() -> None:
    rule = policy(delete_after="P60D")
    assert errors(run(pay(0, "10"), bill(0, "10"), void(60 * 24), policies=rule)) == []


def test_event_ids_are_free_again_past_history() -> None:
    assert errors(run(use(0, event_id="e"), use(45 * 24, event_id="e"))) == [("conflict", "event_id")]
    assert errors(run(use(0, event_id="e"), use(45 * 24 + 1, event_id="e"))) == []


def test_payments_cover_the_oldest_bill_first_and_of_one_instant_by_bill_id() -> None:
    result = run(bill(1, "10", "c"), bill(0, "10", "z"), bill(1, "10", "b"), pay(2, "15"))
    assert view(result)["unpaid_bills"] == [
        {"bill_id": "b", "amount": "10", "outstanding": "5"},
        {"bill_id": "c", "amount": "10", "outstanding": "10"},
    ]


def test_refunds_beyond_the_top_ups_are_owed_without_a_bill() -> None:
    result = run(pay(0, "5"), pay(1, "8", "refund"), bill(2, "1"))
    assert (view(result)["owed"], view(result)["unpaid_bills_count"]) == ("4", 1)


def test_one_currency_an_account_that_of_its_first_record() -> None:
    result = run(pay(0, "5"), bill(1, "5", currency="USD"), use(2, cost="1", currency="USD"))
    assert errors(result) == [("currency_mismatch", "currency")] * 2
    assert (view(result)["balance"], view(result)["currency"]) == ("5", "EUR")


# Openings and reopens ----------------------------------------------------------------------------------------------


def test_an_opening_takes_over_balance_status_and_sequence() -> None:
    result = run(opening(0, "-10", "in_arrears", since=-10), until=30)
    assert commands(result) == [("suspend", 14)]
    assert (result.commands[0]["sequence"], result.commands[0]["arrears_since"]) == (8, at(-10))
    assert notices(result, "arrears_started") == [("arrears_started", 0, 14)]
    assert result.commands[0]["late_fee"] == round_text(Fraction("0.005") * 14 / 24)  # from the opening's `at` on


def round_text(value: Fraction) -> str:
    return format_amount(round_half_up(value))


def test_an_overdue_opening_is_suspended_once_it_has_been_told_long_enough() -> None:
    result = run(opening(0, "-10", "in_arrears", since=-100), until=30)
    assert notices(result, "arrears_started", "suspension_ahead") == [("arrears_started", 0, 4)]
    assert commands(result) == [("suspend", 4)]


def test_a_suspended_opening_counts_from_its_at() -> None:
    result = run(opening(0, "-10", "suspended", since=-1000), until=300)
    assert commands(result) == [("delete", 72)]
    assert notices(result, "deletion_ahead") == [("deletion_ahead", 0, 72), ("deletion_ahead", 48, 72)]
    assert commands(run(opening(0, "-10", "suspended", since=-1), pay(5, "10"))) == [("restore", 5)]


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (opening(0, "-1", "current"), "status"),
        (opening(0, "0", "in_arrears", since=-1), "status"),
        (opening(0, "0", "suspended", since=-1), "status"),
        (opening(0, "5", "current", since=-1), "arrears_since"),
        (opening(0, "-5", "in_arrears"), "arrears_since"),
        (opening(0, "-5", "suspended", since=1), "arrears_since"),
        (opening(0, "5", "current", sequence=-1), "sequence"),
    ],
)
def test_an_opening_that_contradicts_itself_is_invalid(line: Line, field: str) -> None:
    assert errors(run(line)) == [("invalid", field)]


def test_an_opening_that_is_not_first_is_invalid() -> None:
    assert errors(run(pay(0, "1"), opening(1, "5", "current"))) == [("invalid", "kind")]
    assert errors(run(pay(1, "1", event_id="a"), opening(1, "5", "current"))) == []  # at one instant it comes first


def test_a_reopened_account_starts_anew_with_its_balance_and_its_sequence() -> None:
    result = run(bill(0, "10"), control("reopen", 400), until=430)
    assert commands(result) == [SUSPENDED, DELETED, ("suspend", 424)]
    assert [command["sequence"] for command in result.commands] == [1, 2, 3]
    assert view(result)["arrears_since"] == at(400)
    paid = run(bill(0, "10"), control("reopen", 400, event_id="a"), pay(400, "10"))
    assert (view(paid)["status"], view(paid)["suspended_services"]) == ("current", [])
    assert errors(run(bill(0, "10"), control("reopen", 360))) == [("invalid", "kind")]


# Usage and packages ------------------------------------------------------------------------------------------------


def test_usage_of_a_suspended_service_that_started_after_the_suspend_is_a_breach() -> None:
    lines = (
        use(30, started=24),  # began before it
        use(31, started=25),
        use(32, "storage", started=25),  # not suspended
        pay(40, "10"),
        use(41, started=39),  # began before the restore
        use(42, started=40),
    )
    result = run(bill(0, "10"), *lines)
    assert notices(result, "usage_while_suspended") == [
        ("usage_while_suspended", 31, None),
        ("usage_while_suspended", 41, None),
    ]


def test_a_reopen_ends_a_breach() -> None:
    result = run(
        bill(0, "10"), use(390, "storage", started=380), control("reopen", 400), use(402, "storage", started=401)
    )
    assert notices(result, "usage_while_suspended") == [("usage_while_suspended", 390, None)]


def test_unbilled_is_the_cost_of_usage_after_the_last_bill() -> None:
    money: dict[str, Any] = {"cost": "0.000000000001", "currency": "EUR"}
    result = run(bill(5, "1", period_end=at(3)), use(3, **money), use(4, **money), use(6, **money))
    assert view(result)["unbilled"] == "0.000000000002"
    assert view(run(use(1, cost="-2")))["unbilled"] == "-2"


def test_usage_draws_on_the_package_that_ends_first() -> None:
    later, sooner = package(0, "3", 900), package(0, "2", 800, package_id="k2")
    result = run(later, sooner, use(1), use(2, quantity="2.5"), use(3, unit="GB"), use(4, "storage"))
    assert notices(result) == [("package_exhausted", 2, None)]
    assert view(result)["packages"] == [
        {"package_id": "k1", "service": "compute", "unit": "h", "remaining": "1.5", "ends_at": at(900)}
    ]


def test_a_package_covers_its_start_and_not_its_end() -> None:
    assert view(run(package(0, "3", 10), use(0)))["packages"][0]["remaining"] == "2"
    assert view(run(package(0, "3", 10), use(10)))["packages"] == []


def test_package_ids() -> None:
    assert errors(run(package(0), package(1))) == [("conflict", "package_id")]
    assert errors(run(cancel(0))) == [("invalid", "package_id")]
    twice = run(package(0), cancel(1), cancel(2), package(3))
    assert errors(twice) == [("invalid", "package_id"), ("conflict", "package_id")]
    assert view(run(cancel(1), package(1), use(1)))["packages"] == []  # purchase first, cancellation last


# What is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "error", "field"),
    [
        (bill(0, "-1"), "invalid", "amount"),
        (bill(0, "1.1234567"), "invalid", "amount"),
        (bill(0, "1e3"), "invalid", "amount"),
        (bill(0, "1" * 16), "invalid", "amount"),
        (bill(0, "1", "x" * 257), "invalid", "bill_id"),
        (bill(0, "1", account_id="*"), "invalid", "account_id"),
        (bill(0, "1", currency="eur"), "invalid", "currency"),
        (bill(0, "1", issued_at="2024-01-01T00:00:00"), "invalid", "issued_at"),
        (bill(0, "1", period_end="yesterday"), "invalid", "period_end"),
        (bill(0, "1", kind="sent"), "invalid", "kind"),
        (void(0, amount="1"), "invalid", "amount"),
        (pay(0, "0"), "invalid", "amount"),
        (pay(0, "1", event_id=""), "invalid", "event_id"),
        (use(0, "caches"), "invalid", "service"),
        (use(0, quantity="-1"), "invalid", "quantity"),
        (control("hold", 5, until=5), "invalid", "until"),
        (control("credit_limit", 0, amount="1", account_id="*"), "invalid", "account_id"),
        (control("allowance", 0, duration="-PT1H"), "invalid", "duration"),
        (control("hold", 0, freeze_clock="yes"), "invalid", "freeze_clock"),
    ],
)
def test_a_field_that_cannot_be_used_is_told(line: Line, error: str, field: str) -> None:
    assert errors(run(line)) == [(error, field)]


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"{", "not_json"),
        (b"\xff", "not_json"),
        (b'{"x": NaN}', "not_json"),
        (b"[" * 100_000, "not_json"),
        (b"[]", "invalid"),
        (b"1e400", "invalid"),
        (b'{"x": 1, "x": 1}', "invalid"),
    ],
)
def test_a_line_that_is_no_record(raw: bytes, error: str) -> None:
    result = replay({"bills": [b"", raw]})
    (letter,) = result.dead_letters
    assert (letter["error"], letter["topic"], letter["offset"], letter["partition"]) == (error, "bills", 2, None)


def test_a_long_line_is_cut_at_a_character() -> None:
    (letter,) = replay({"usage": [b"x" + "é".encode() * 40_000]}).dead_letters
    assert (len(letter["value"].encode()), letter["truncated"]) == (65_535, True)


# Replay ------------------------------------------------------------------------------------------------------------


def test_the_clock_ends_at_the_last_usable_record() -> None:
    assert commands(run(bill(0, "10"), control("reopen", 100))) == []
    assert commands(run(bill(0, "10"), control("resume", 100))) == [SUSPENDED]


def test_records_after_until_are_left_out() -> None:
    result = run(bill(0, "10"), pay(10, "10"), bill(11, "1", kind="adjusted", currency="USD"), until=9)
    assert (view(result)["status"], view(result)["as_of"], errors(result)) == ("in_arrears", at(9), [])


def test_every_account_with_a_usable_record_is_shown_but_not_everyone() -> None:
    result = run(control("hold", 0, account_id="*"), control("allowance", 0, duration="PT1H", account_id="b"))
    assert [account["account_id"] for account in result.accounts] == ["b"]
    assert (result.accounts[0]["currency"], result.accounts[0]["policy"]) == (None, "maxcompute@2018-03-16")


# Values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "leaves_as"),
    [
        ("2024-02-29T23:59:59.100000+08:00", "2024-02-29T15:59:59.1Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
        ("0000-12-31T23:00:00-05:00", "0001-01-01T04:00:00Z"),
    ],
)
def test_instants_leave_as_utc(text: str, leaves_as: str) -> None:
    assert format_instant(parse_instant(text)) == leaves_as


@pytest.mark.parametrize(
    "text",
    [
        "2023-02-29T00:00:00Z",
        "2024-01-01T00:00:60Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01t00:00:00z",
        "2024-01-01T00:00:00.1234567Z",
        "2024-01-01 00:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "2024-01-01T00:00:00+0800",
        "٢024-01-01T00:00:00Z",
    ],
)
def test_what_is_no_instant(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_instant(text)


def test_amounts_leave_in_the_shortest_form() -> None:
    assert [format_amount(parse_amount(text)) for text in ("128.400", "0.000000", "007")] == ["128.4", "0", "7"]
    assert format_amount(Fraction(-3)) == "-3"


def test_durations() -> None:
    assert parse_duration("P1DT2H3M4.5S") == 26 * HOUR + 184_500_000
    assert parse_duration("P2W") == 336 * HOUR
    for text in ("P1M", "P1Y", "P", "PT", "PT1.0000001S", "1H", "-PT1H"):
        with pytest.raises(ValueError, match=r"."):
            parse_duration(text)


# The real records --------------------------------------------------------------------------------------------------


def test_the_real_records() -> None:
    """As many commands as the data's README says an independent model gets."""
    folder = Path(os.environ.get("ARREARS_SHARED_DATA", REPOSITORY.parent / "shared" / "data")) / "uci"
    if not folder.is_dir():
        pytest.skip(f"the shared real records are not here: {folder}")
    topics = {topic: (folder / f"{topic}.jsonl").read_bytes().splitlines() for topic in ("bills", "payments")}
    result = replay(topics, until="2005-12-01T00:00:00Z")
    counts = Counter(command["action"] for command in result.commands)
    assert counts == {"suspend": 1052, "restore": 117, "delete": 935}
    assert (len(result.accounts), result.dead_letters) == (1000, [])
