"""What an operator types becomes a control as the contract has it, or is refused in one line."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from models.instants import parse_instant
from streams import asking
from streams.control import KINDS, Given, checked, encoded, fields_of, question
from streams.faults import Declined, Unusable
from tests.streams.command_line import arrears, inside, told_in_one_line

NOW = parse_instant("2026-02-01T12:00:00Z")

OPENING: dict[str, Any] = {"balance": "-12.5", "currency": "CNY", "status": "in_arrears", "sequence": 3}


def given(kind: str, account: str = "acct-1", /, **fields: Any) -> Given:
    return Given(kind, account, "a ticket", "ops", None, fields)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("hold", {}),
        ("hold", {"until": "2026-03-01T00:00:00+08:00", "freeze_clock": True}),
        ("exempt", {"until": "2026-03-01T00:00:00Z"}),
        ("release", {}),
        ("credit_limit", {"amount": "100"}),
        ("allowance", {"duration": "P3D"}),
        ("policy", {"policy": "friendly"}),
        ("opening", {**OPENING, "arrears_since": "2026-01-30T00:00:00Z"}),
        ("reopen", {}),
        ("resume", {"until": "2026-02-02T00:00:00Z"}),
    ],
)
def test_every_kind_is_made(kind: str, fields: dict[str, Any]) -> None:
    made = fields_of(given(kind, **fields), NOW)
    record = checked(made)
    assert json.loads(encoded(made)) == made
    assert (record.kind, record.account_id, record.actor, record.reason, record.at) == (
        kind,
        "acct-1",
        "ops",
        "a ticket",
        NOW,
    )
    assert fields.items() <= made.items()
    assert made["event_id"] != fields_of(given(kind, **fields), NOW)["event_id"]


def test_every_kind_can_be_typed() -> None:
    made = {"hold", "exempt", "release", "credit_limit", "allowance", "policy", "opening", "reopen", "resume"}
    assert set(KINDS) == made | {"policies"}


def test_until_may_be_how_long_it_lasts() -> None:
    assert fields_of(given("hold", until="+P7D"), NOW)["until"] == "2026-02-08T12:00:00Z"
    later = Given("hold", "a", "why", "ops", "2026-02-03T00:00:00Z", {"until": "+PT1H"})
    assert fields_of(later, NOW)["until"] == "2026-02-03T01:00:00Z"
    assert fields_of(later, NOW)["at"] == "2026-02-03T00:00:00Z"


@pytest.mark.parametrize(
    ("control", "told"),
    [
        (given("hodl"), "hodl is no kind of control: choose hold, exempt, "),
        (given("policies", "*"), "arrears policy apply FILE"),
        (Given("hold", "a", None, "ops", None, {}), "--reason is missing: "),
        (Given("hold", "a", "why", "ops", "now", {}), "--at must be an instant"),
        (given("hold", amount="3"), "--amount is for credit_limit, not for hold: leave it out"),
        (given("release", until="+P1D"), "--until is for hold, exempt and resume, not for release"),
        (given("hold", until="+7"), "--until must be a duration"),
        (given("hold", until="2026-02-01T12:00:00Z"), "--until must be after at"),
        (given("credit-limit"), "--amount is missing"),
        (given("credit_limit", amount="-5"), "--amount must be a text like"),
        (given("credit_limit", "*", amount="5"), "ACCOUNT must be one account"),
        (given("allowance"), "--duration is missing"),
        (given("opening", **OPENING), "--arrears-since is missing: "),
        (given("opening", **OPENING | {"status": "suspend"}), "--status must be current, in_arrears, "),
        (given("hold", ""), "ACCOUNT must be a text of 1 to 256 bytes"),
        (given("hold", "a" * 257), "ACCOUNT must be a text of 1 to 256 bytes"),
        (given("hold", "\udcff"), "ACCOUNT must be valid Unicode"),
    ],
)
def test_what_cannot_be_sent_is_told(control: Given, told: str) -> None:
    with pytest.raises(Unusable) as refused:
        checked(fields_of(control, NOW))
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["hold", "credit_limit", "allowance", "policy"])
def test_what_can_be_taken_back_is_not_asked(kind: str) -> None:
    fields: dict[str, dict[str, Any]] = {
        "credit_limit": {"amount": "1"},
        "allowance": {"duration": "P1D"},
        "policy": {"policy": "p"},
    }
    assert question(checked(fields_of(given(kind, **fields.get(kind, {})), NOW))) is None


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("exempt", "it is restored at once"),
        ("release", "a delete is for good"),
        ("resume", "a delete is for good"),
        ("reopen", "cannot be taken back"),
    ],
)
def test_what_cannot_be_taken_back_is_asked(kind: str, said: str) -> None:
    asked = question(checked(fields_of(given(kind), NOW)))
    assert asked is not None
    assert said in asked


@pytest.mark.parametrize("kind", ["hold", "exempt", "release", "allowance", "policy", "resume"])
def test_what_is_for_everybody_is_asked(kind: str) -> None:
    fields: dict[str, dict[str, Any]] = {"allowance": {"duration": "P1D"}, "policy": {"policy": "p"}}
    asked = question(checked(fields_of(given(kind, "*", **fields.get(kind, {})), NOW)))
    assert asked is not None
    assert "every account, those to come too" in asked


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "meant"), [("y\n", True), ("Yes\n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_only_a_yes_is_a_yes(monkeypatch: pytest.MonkeyPatch, typed: str, meant: bool) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    if meant:
        asking.ask("This is for good.", "Send it?")
    else:
        with pytest.raises(Declined):
            asking.ask("This is for good.", "Send it?")


def test_where_nobody_can_be_asked_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(Unusable, match="give --yes if it is meant"):
        asking.ask("This is for good.\nIn many lines.", "Send it?")


# Without a broker -------------------------------------------------------------------------------------------------

NOBODY = ("--brokers", "127.0.0.1:1")

COMMANDS: list[tuple[str, ...]] = [
    ("control", "hold", "acct-1", "--reason", "why"),
    ("commands",),
    ("notices", "--follow"),
    ("dead-letters",),
    ("accounts", "--account", "acct-1"),
    ("policy", "show"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_brokers_that_do_not_answer_are_told_with_their_address(capfdbinary: Any, command: tuple[str, ...]) -> None:
    told = told_in_one_line(inside(capfdbinary, *command, *NOBODY))
    assert told.startswith(f"arrears {command[0]}")
    assert "the brokers at 127.0.0.1:1 do not answer" in told


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_no_brokers_are_told(capfdbinary: Any, command: tuple[str, ...]) -> None:
    assert "no brokers are named: give --brokers HOST:PORT" in told_in_one_line(inside(capfdbinary, *command))


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("load", *NOBODY), "there is nothing to load: give at least one of --bills"),
        (("load", "--bills", "-", "--usage", "-", *NOBODY), "only one can be standard input"),
        (("load", "--bills", "x", "--resume", "", *NOBODY), "--resume is empty"),
        (("commands", "--since", "yesterday", *NOBODY), "--since must be an instant"),
        (("commands", "--limit", "0", *NOBODY), "--limit 0 is too few"),
        (("notices", "--account", "*", *NOBODY), '--account "*" stands for everybody'),
        (("notices", "--account", "", *NOBODY), "--account is empty"),
        (("accounts", "--status", "odd", *NOBODY), "--status must be current, in_arrears, suspended or deleted"),
        (("policy", "apply", "none.yaml", *NOBODY), "there is no such file"),
    ],
)
def test_what_cannot_be_meant_is_told(capfdbinary: Any, command: tuple[str, ...], told: str) -> None:
    assert told in told_in_one_line(inside(capfdbinary, *command))


def test_a_question_without_a_terminal_is_told_as_a_process() -> None:
    ended = arrears("control", "hold", "*", "--reason", "why", *NOBODY)
    assert "give --yes if it is meant" in told_in_one_line(ended)
