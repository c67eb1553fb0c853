from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import records
from models.contract import CURRENCIES, TOPICS, ControlKind, Topic
from models.instants import parse_instant
from models.policy import BUILT_IN, to_json
from models.records import (
    Ack,
    Bill,
    Control,
    Package,
    Payment,
    Record,
    Usage,
    decode,
    decode_by_contract,
    fingerprint,
)
from models.refusal import Refusal

NOON = parse_instant("2018-03-16T12:00:00Z")
Fields = dict[str, Any]

BILL: Fields = {
    "event_id": "e1",
    "account_id": "a1",
    "bill_id": "b1",
    "kind": "issued",
    "amount": "128.40",
    "currency": "CNY",
    "issued_at": "2018-03-16T12:00:00Z",
}
PERIOD: Fields = {"period_start": "2018-03-01T00:00:00Z", "period_end": "2018-03-15T16:00:00.5Z"}
PAYMENT: Fields = {
    "event_id": "e1",
    "account_id": "a1",
    "payment_id": "p1",
    "kind": "topup",
    "amount": "100",
    "currency": "CNY",
    "paid_at": "2018-03-16T20:00:00+08:00",
}
USAGE: Fields = {
    "event_id": "e1",
    "account_id": "a1",
    "usage_id": "u1",
    "service": "compute",
    "quantity": "0.000000000001",
    "unit": "CU-hour",
    "cost": "-1.25",
    "currency": "CNY",
    "started_at": "2018-03-16T11:00:00Z",
    "ended_at": "2018-03-16T12:00:00Z",
}
PACKAGE: Fields = {
    "event_id": "e1",
    "account_id": "a1",
    "package_id": "k1",
    "kind": "purchased",
    "service": "compute",
    "quantity": "1000",
    "unit": "CU-hour",
    "at": "2018-03-16T12:00:00Z",
    "starts_at": "2018-03-16T12:00:00Z",
    "ends_at": "2018-06-16T12:00:00Z",
}
CONTROL: Fields = {
    "event_id": "e1",
    "account_id": "a1",
    "kind": "release",
    "actor": "ops",
    "reason": "agreed by phone",
    "at": "2018-03-16T12:00:00Z",
}
OPENING: Fields = CONTROL | {
    "kind": "opening",
    "balance": "-12.5",
    "currency": "CNY",
    "status": "suspended",
    "arrears_since": "2018-03-15T00:00:00Z",
    "sequence": 3,
}
ACK: Fields = {
    "event_id": "e1",
    "command_id": "c1",
    "account_id": "a1",
    "subscriber": "gateway",
    "status": "applied",
    "at": "2018-03-16T12:00:00Z",
}
CONTROLS: dict[str, Fields] = {
    "hold": {"until": "2018-04-01T00:00:00Z", "freeze_clock": True},
    "exempt": {"freeze_clock": False},
    "release": {},
    "credit_limit": {"amount": "0"},
    "allowance": {"duration": "PT48H"},
    "policy": {"policy": "gold"},
    "policies": {"policies": to_json(BUILT_IN)},
    "opening": {key: OPENING[key] for key in ("balance", "currency", "status", "arrears_since", "sequence")},
    "reopen": {},
    "resume": {},
}
SAMPLES: list[tuple[Topic, Fields]] = [
    ("bills", BILL),
    ("bills", BILL | PERIOD | {"kind": "adjusted", "amount": "0"}),
    ("bills", BILL | {"kind": "voided", "amount": "0.00"}),
    ("payments", PAYMENT),
    ("usage", USAGE),
    ("packages", PACKAGE),
    ("packages", PACKAGE | {"kind": "cancelled"}),
    *(("controls", CONTROL | more | {"kind": kind}) for kind, more in CONTROLS.items()),
    ("acks", ACK | {"detail": ""}),
    ("acks", ACK | {"notice_id": "n1"}),
]


def value(fields: Fields) -> bytes:
    return json.dumps(fields).encode()


def outcome(topic: Topic, raw: bytes | None, way: Any = decode) -> Record | tuple[str, str | None, str]:
    """The record, or what the dead letter says; anything else that is raised is a fault."""
    try:
        record = way(topic, raw)
    except Refusal as refusal:
        told = refusal.error, refusal.field, refusal.message
    else:
        assert isinstance(record, Record)
        return record
    _, field, message = told
    assert message.isprintable(), message
    assert len(message) < 600, message
    assert (field or "").isprintable(), field
    return told


def refused(topic: Topic, fields: Fields) -> tuple[str, str]:
    """The field at fault and the message of a record that is `invalid`."""
    told = outcome(topic, value(fields))
    assert isinstance(told, tuple), told
    assert told == outcome(topic, value(fields), decode_by_contract)
    error, field, message = told
    assert error == "invalid"
    assert field is not None
    return field, message


def accepted(topic: Topic, fields: Fields) -> Record:
    record = decode(topic, value(fields))
    assert record == decode_by_contract(topic, value(fields))
    return record


# What becomes of a record -----------------------------------------------------------------------------------------


def test_a_bill() -> None:
    assert accepted("bills", BILL) == Bill("e1", "a1", "b1", "issued", 128_400_000, "CNY", NOON, None, None)
    start, end = parse_instant("2018-03-01T00:00:00Z"), parse_instant("2018-03-15T16:00:00.5Z")
    adjusted = BILL | PERIOD | {"kind": "adjusted", "amount": "0"}
    assert accepted("bills", adjusted) == Bill("e1", "a1", "b1", "adjusted", 0, "CNY", NOON, start, end)


@pytest.mark.parametrize("amount", [..., None, "0", "0.000000", "00"])
def test_a_voided_bill_is_of_nothing(amount: Any) -> None:
    fields = BILL | {"kind": "voided", "amount": amount}
    if amount is ...:
        del fields["amount"]
    assert accepted("bills", fields) == Bill("e1", "a1", "b1", "voided", 0, "CNY", NOON)


def test_a_payment() -> None:
    for kind in ("topup", "refund", "reversal", "gift"):
        assert accepted("payments", PAYMENT | {"kind": kind}) == Payment(
            "e1", "a1", "p1", kind, 100_000_000, "CNY", NOON
        )


def test_usage() -> None:
    start = parse_instant("2018-03-16T11:00:00Z")
    assert accepted("usage", USAGE) == Usage(
        "e1", "a1", "u1", "compute", 1, "CU-hour", -1_250_000_000_000, "CNY", start, NOON
    )
    free = {key: USAGE[key] for key in USAGE if key not in ("cost", "currency")}
    assert accepted("usage", free) == Usage("e1", "a1", "u1", "compute", 1, "CU-hour", None, None, start, NOON)


def test_usage_may_end_before_it_starts_and_a_period_too() -> None:
    accepted("usage", USAGE | {"started_at": "2019-01-01T00:00:00Z"})
    accepted("bills", BILL | {"period_start": "2019-01-01T00:00:00Z", "period_end": "2018-01-01T00:00:00Z"})
    accepted("packages", PACKAGE | {"starts_at": "2019-01-01T00:00:00Z"})


def test_a_package() -> None:
    end = parse_instant("2018-06-16T12:00:00Z")
    assert accepted("packages", PACKAGE) == Package(
        "e1", "a1", "k1", "purchased", "compute", 1000 * 10**12, "CU-hour", NOON, NOON, end
    )
    bare = {key: PACKAGE[key] for key in ("event_id", "account_id", "package_id", "at")} | {"kind": "cancelled"}
    assert accepted("packages", bare) == Package("e1", "a1", "k1", "cancelled", None, None, None, NOON, None, None)


@pytest.mark.parametrize("field", ["service", "quantity", "unit", "starts_at", "ends_at"])
def test_a_cancelled_package_may_leave_out_what_it_was_but_not_say_it_wrong(field: str) -> None:
    cancelled = PACKAGE | {"kind": "cancelled"}
    assert getattr(accepted("packages", cancelled | {field: None}), field) is None
    assert refused("packages", cancelled | {field: "?" * 300})[0] == field


@pytest.mark.parametrize(("kind", "more"), CONTROLS.items())
def test_a_control(kind: ControlKind, more: Fields) -> None:
    record = accepted("controls", CONTROL | more | {"kind": kind})
    assert isinstance(record, Control)
    assert (record.kind, record.actor, record.reason, record.at) == (kind, "ops", "agreed by phone", NOON)
    for field in Control.__struct_fields__[6:]:
        if field not in more:
            assert getattr(record, field) in (None, False)
    match kind:
        case "hold":
            assert record.freeze_clock
            assert record.until == parse_instant("2018-04-01T00:00:00Z")
        case "credit_limit":
            assert record.amount == 0
        case "allowance":
            assert record.duration == 48 * 3600 * 10**6
        case "policy":
            assert record.policy == "gold"
        case "policies":
            assert record.policies == BUILT_IN.versions
        case "opening":
            since = parse_instant("2018-03-15T00:00:00Z")
            assert (record.balance, record.currency, record.status) == (-12_500_000, "CNY", "suspended")
            assert (record.arrears_since, record.sequence) == (since, 3)
        case _:
            assert not record.freeze_clock


def test_every_kind_of_control_has_its_sample() -> None:
    assert set(CONTROLS) == set(get_args(ControlKind))


@pytest.mark.parametrize("kind", CONTROLS)
def test_everyone_is_an_account_for_some_controls_only(kind: str) -> None:
    fields = CONTROL | CONTROLS[kind] | {"kind": kind, "account_id": "*"}
    if kind in {"hold", "exempt", "release", "allowance", "policy", "policies", "resume"}:
        assert accepted("controls", fields).account_id == "*"
    else:
        assert refused("controls", fields)[0] == "account_id"


@pytest.mark.parametrize(
    ("topic", "fields"),
    [("bills", BILL), ("payments", PAYMENT), ("usage", USAGE), ("packages", PACKAGE), ("acks", ACK)],
)
def test_everyone_is_no_account_elsewhere(topic: Topic, fields: Fields) -> None:
    field, message = refused(topic, fields | {"account_id": "*"})
    assert field == "account_id"
    assert message.startswith("account_id: must be one account")


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"until": "2018-03-16T12:00:00Z"}, "until"),
        ({"until": "2018-03-16T11:59:59.999999Z"}, "until"),
        ({"freeze_clock": "true"}, "freeze_clock"),
        ({"freeze_clock": 1}, "freeze_clock"),
        ({"reason": ""}, "reason"),
        ({"reason": "x" * 4097}, "reason"),
        ({"actor": ""}, "actor"),
        ({"kind": "credit_limit"}, "amount"),
        ({"kind": "credit_limit", "amount": "-1"}, "amount"),
        ({"kind": "allowance"}, "duration"),
        ({"kind": "allowance", "duration": "P1M"}, "duration"),
        ({"kind": "policy"}, "policy"),
        ({"kind": "policies"}, "policies"),
        ({"kind": "policies", "policies": []}, "policies"),
        ({"kind": "policies", "policies": {}}, "policies"),
        ({"kind": "policies", "policies": [{"nam": "x"}]}, "policies"),
        ({"kind": "policies", "policies": [{"name": "x\u2028" * 1000}]}, "policies"),
        ({"kind": "policies", "policies": [1e300, 10**200]}, "policies"),
        ({"kind": "warp"}, "kind"),
    ],
)
def test_a_control_that_is_wrong(more: Fields, field: str) -> None:
    assert refused("controls", CONTROL | {"kind": "hold"} | more)[0] == field


def test_until_ends_after_it_begins_whatever_the_kind() -> None:
    for kind, more in CONTROLS.items():
        fields = CONTROL | more | {"kind": kind}
        assert refused("controls", fields | {"until": fields["at"]})[0] == "until"
        accepted("controls", fields | {"until": "2018-03-16T12:00:00.000001Z"})


def test_what_a_kind_does_not_know_is_ignored() -> None:
    noise = {"freeze_clock": "?", "amount": 1, "policies": 7, "sequence": "x", "status": None, "balance": []}
    assert accepted("controls", CONTROL | noise) == accepted("controls", CONTROL)


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"status": "current"}, "status"),
        ({"status": "current", "balance": "0"}, "arrears_since"),
        ({"status": "in_arrears", "balance": "0"}, "status"),
        ({"status": "suspended", "balance": "1"}, "status"),
        ({"status": "in_arrears", "arrears_since": None}, "arrears_since"),
        ({"status": "suspended", "arrears_since": "2018-03-16T12:00:00.000001Z"}, "arrears_since"),
        ({"status": "gone"}, "status"),
        ({"balance": "+1"}, "balance"),
        ({"balance": -1}, "balance"),
        ({"sequence": -1}, "sequence"),
        ({"sequence": 10**15 + 1}, "sequence"),
        ({"sequence": 1.0}, "sequence"),
        ({"sequence": "1"}, "sequence"),
        ({"sequence": True}, "sequence"),
        ({"sequence": None}, "sequence"),
        ({"currency": "XYZ"}, "currency"),
    ],
)
def test_an_opening_that_is_wrong(more: Fields, field: str) -> None:
    assert refused("controls", OPENING | more)[0] == field


@pytest.mark.parametrize(
    ("more", "since"),
    [
        ({"status": "current", "balance": "0", "arrears_since": None, "sequence": 0}, None),
        ({"status": "in_arrears", "arrears_since": "2018-03-16T12:00:00Z"}, NOON),
        ({"status": "deleted", "arrears_since": "yesterday", "sequence": 10**15}, None),
        ({"status": "deleted", "balance": "5"}, None),
    ],
)
def test_an_opening_that_is_right(more: Fields, since: int | None) -> None:
    record = accepted("controls", OPENING | more)
    assert isinstance(record, Control)
    assert record.arrears_since == since


def test_an_ack() -> None:
    assert accepted("acks", ACK) == Ack("e1", "a1", "gateway", "applied", NOON, "c1", None, None)
    both = ACK | {"notice_id": "n1", "detail": "x" * 65_536}
    assert accepted("acks", both) == Ack("e1", "a1", "gateway", "applied", NOON, "c1", "n1", "x" * 65_536)
    assert refused("acks", ACK | {"command_id": None})[0] == "command_id"
    assert refused("acks", ACK | {"detail": "x" * 65_537})[0] == "detail"
    assert refused("acks", ACK | {"status": "maybe"})[0] == "status"


# Every field, every way of being wrong ----------------------------------------------------------------------------

ANYTHING_ELSE: list[Any] = [12.5, 1e300, 7, -1, 10**120, True, False, [], {}, ["a"], {"a": "b"}]
NO_ID: list[Any] = ["", "x" * 257, "é" * 129, "\ud800", "x\udfff", *ANYTHING_ELSE]
NO_AMOUNT: list[Any] = ["", "-1", "+1", "1.1234567", "1e3", "NaN", " 1", "1,5", "1" * 16, *ANYTHING_ELSE]
NO_COST: list[Any] = ["", "--1", "1." + "1" * 13, "Infinity", "1" * 16, *ANYTHING_ELSE]
NO_INSTANT: list[Any] = [
    "2018-03-16T12:00:00",
    "2018-03-16",
    "0000-01-01T00:00:00Z",
    "10000-01-01T00:00:00Z",
    "2018-03-16T12:00:60Z",
    "",
    *ANYTHING_ELSE,
]
NO_CHOICE: list[Any] = ["", "ISSUED", "issued ", "\ud800", "x" * 1000, *ANYTHING_ELSE]
NO_CURRENCY: list[Any] = ["", "cny", "XYZ", "CNY ", "\ud800", *ANYTHING_ELSE]
WRONG: dict[str, list[Any]] = {
    **dict.fromkeys(
        ["event_id", "account_id", "bill_id", "payment_id", "usage_id", "package_id", "unit", "subscriber", "actor"],
        NO_ID,
    ),
    **dict.fromkeys(["command_id", "notice_id"], NO_ID),
    **dict.fromkeys(["kind", "service", "status"], NO_CHOICE),
    **dict.fromkeys(["amount", "quantity"], NO_AMOUNT),
    "cost": NO_COST,
    "currency": NO_CURRENCY,
    **dict.fromkeys(
        ["issued_at", "paid_at", "started_at", "ended_at", "at", "period_start", "period_end", "starts_at", "ends_at"],
        NO_INSTANT,
    ),
}
FULL: list[tuple[Topic, Fields, set[str]]] = [  # with the fields that may be left out
    ("bills", BILL | PERIOD, {"period_start", "period_end"}),
    ("payments", PAYMENT, set()),
    ("usage", USAGE, {"cost", "currency"}),
    ("packages", PACKAGE, set()),
    ("controls", CONTROL, set()),
    ("acks", ACK | {"notice_id": "n1", "detail": "?"}, {"command_id", "notice_id", "detail"}),
]
EACH_FIELD = [(topic, fields, optional, field) for topic, fields, optional in FULL for field in fields]


@pytest.mark.parametrize(
    ("topic", "fields", "optional", "field"), EACH_FIELD, ids=[f"{case[0]}-{case[3]}" for case in EACH_FIELD]
)
def test_each_field_is_told_to_be_wrong(topic: Topic, fields: Fields, optional: set[str], field: str) -> None:
    missing = {key: fields[key] for key in fields if key != field}
    if field in optional:
        assert getattr(accepted(topic, missing), field, None) is None
        assert accepted(topic, missing) == accepted(topic, fields | {field: None})
    else:
        assert refused(topic, missing) == (field, f"{field}: is missing")
        assert refused(topic, fields | {field: None})[0] == field
    for wrong in WRONG.get(field, ANYTHING_ELSE):
        if (field, wrong) == ("quantity", "1.1234567") and topic == "usage":
            continue  # a usage's quantity has up to 12 decimals
        blamed, message = refused(topic, fields | {field: wrong})
        assert blamed == field
        assert message.startswith(f"{field}: must be ")


def test_a_payment_is_of_something() -> None:
    for nothing in ("0", "0.000000", "00"):
        field, message = refused("payments", PAYMENT | {"amount": nothing})
        assert (field, message) == ("amount", f'amount: must be more than 0; got "{nothing}"')


def test_the_message_says_what_is_expected_and_what_came() -> None:
    expected = 'must be a text like "12.50": at most 15 digits, at most 6 decimals, no sign'
    assert refused("bills", BILL | {"amount": 12.5}) == ("amount", f"amount: {expected}; got 12.5")
    assert refused("bills", BILL | {"kind": "paid"}) == (
        "kind",
        'kind: must be issued, adjusted or voided; got "paid"',
    )
    long = refused("bills", BILL | {"amount": "9" * 10_000})[1]
    assert long.endswith(f'got "{"9" * 80}"…')


def test_the_first_field_in_the_contracts_order_is_told() -> None:
    assert refused("bills", {"kind": "?"}) == ("event_id", "event_id: is missing")
    assert refused("bills", {})[0] == "event_id"
    assert refused("bills", BILL | {"kind": None, "amount": 1, "bill_id": ""})[0] == "bill_id"
    assert refused("controls", OPENING | {"status": "?", "balance": 1})[0] == "balance"
    assert refused("controls", CONTROL | {"kind": "?", "account_id": ""})[0] == "account_id"
    assert refused("packages", PACKAGE | {"kind": [], "service": 1})[0] == "kind"


def test_ids_are_measured_in_bytes() -> None:
    for text in ("x" * 64, "x" * 256, "é" * 128, "雲" * 85, "😀" * 64, "\0", "*", "a b", " "):
        assert accepted("bills", BILL | {"bill_id": text}).event_id == "e1"
    assert refused("bills", BILL | {"bill_id": "雲" * 86})[0] == "bill_id"


def test_currencies_are_those_of_iso_4217() -> None:
    assert {"CNY", "TWD", "EUR", "JPY"} <= CURRENCIES
    for currency in CURRENCIES:
        assert accepted("bills", BILL | {"currency": currency}).account_id == "a1"


# JSON -------------------------------------------------------------------------------------------------------------

GOOD = value(BILL)
NOT_JSON = [
    b" ",
    b"\n",
    b"{",
    b"}",
    GOOD[:-1],
    GOOD + b"x",
    GOOD + GOOD,
    GOOD + b"\x00",
    GOOD + b"\x0b",
    b"\xef\xbb\xbf" + GOOD,
    GOOD.replace(b"e1", b"\xff"),
    GOOD.replace(b"e1", b"\xed\xa0\x80"),
    GOOD.replace(b"e1", b"\xc0\x80"),
    GOOD.replace(b"e1", b"a\nb"),
    GOOD.replace(b"e1", rb"\x41"),
    GOOD.replace(b"e1", rb"\u00G1"),
    GOOD.replace(b'"e1"', b"NaN"),
    GOOD.replace(b'"e1"', b"Infinity"),
    GOOD.replace(b'"e1"', b"-Infinity"),
    GOOD.replace(b'"e1"', b"01"),
    GOOD.replace(b'"e1"', b"1."),
    GOOD.replace(b'"e1"', b"'e1'"),
    GOOD.replace(b"}", b",}"),
    GOOD.replace(b"}", b', "x": NaN}'),
    GOOD.replace(b"}", b', "x": "\xff"}'),
    GOOD.replace(b"}", b', "\xff": 1}'),
    GOOD.replace(b"{", b'{"x": ' + b"[" * 64 + b"]" * 64 + b","),
    GOOD.replace(b"{", b'{"x": ' + b'{"y":' * 64 + b"1" + b"}" * 64 + b","),
    b"[" * 65 + b"]" * 65,
    b"[" * 100_000,
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 100_000,
    GOOD.replace(b'"e1"', b"[" * 100_000),
    GOOD.replace(b"{", b'{"event_id": "e0", ') + b"x",  # a key twice, but no JSON anyway
    GOOD.decode().encode("utf-16"),
    b"null null",
    b"nul",
]


@pytest.mark.parametrize("raw", NOT_JSON, ids=lambda raw: ascii(raw)[:50])
def test_what_is_not_json(raw: bytes) -> None:
    for topic in TOPICS:
        told = outcome(topic, raw)
        assert isinstance(told, tuple)
        assert told[:2] == ("not_json", None)
        assert told[2].startswith("not ")


@pytest.mark.parametrize(
    "raw", [None, b"", b"null", b"1", b"1e400", b"true", b'"x"', b"[]", b"[{}]", b" [] ", b"1" * 9999]
)
def test_what_is_no_object(raw: bytes | None) -> None:
    for topic in TOPICS:
        told = outcome(topic, raw)
        assert isinstance(told, tuple)
        assert told[:2] == ("invalid", None)
        assert "must be a JSON object" in told[2] or "is a JSON object" in told[2]


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        (GOOD.replace(b"{", b'{"event_id": "e1", '), "event_id"),
        (GOOD.replace(b"{", b'{"event_id": null, '), "event_id"),
        (GOOD.replace(b"}", b', "amount": "128.40"}'), "amount"),
        (GOOD.replace(b"}", rb', "\u0061mount": "128.40"}'), "amount"),
        (GOOD.replace(b"}", b', "period_end": null, "period_end": null}'), "period_end"),
        (GOOD.replace(b"}", b', "x": 1, "x": 2}'), "x"),
        (GOOD.replace(b"}", b', "x": 1, "y" : 2, "x" : 2}'), "x"),
        (GOOD.replace(b"}", b', "x": {"y": [{"z": 1, "z": 1}]}}'), "z"),
        (GOOD.replace(b"}", rb', "x\n": 1, "x\n": 2}'), r"x\n"),
        (GOOD.replace(b"}", rb', "\ud800": 1, "\ud800": 2}'), r"\ud800"),
        (GOOD.replace(b"}", b', "": 1, "": 2}'), ""),
    ],
)
def test_a_key_that_is_there_twice(raw: bytes, key: str) -> None:
    told = outcome("bills", raw)
    assert told == outcome("bills", raw, decode_by_contract)
    assert told == ("invalid", key, f"{key}: is there more than once in one object")


@pytest.mark.parametrize(
    "raw",
    [
        GOOD,
        b" \r\n\t" + GOOD + b" \r\n\t",
        GOOD + b"\r\n",
        json.dumps(BILL, indent=4).encode(),
        json.dumps(BILL, separators=(" ,\n", "\t: ")).encode(),
        json.dumps(BILL, separators=(",", ":")).encode(),
        json.dumps(dict(reversed(BILL.items()))).encode(),
        json.dumps(BILL | {"x": None}).encode(),
        json.dumps(BILL | {"x": {"y": [1, 2.5, "z", None, True]}}).encode(),
        json.dumps(BILL | {"period_start": None, "period_end": None}).encode(),
        json.dumps(BILL | {"x": "\ud800", "\ud800": 1}).encode(),
        GOOD.replace(b"e1", rb"\u00651"),
        GOOD.replace(b"event_id", rb"\u0065vent_id"),
        GOOD.replace(b"}", b', "x": 1e400, "y": -1e400}'),
        GOOD.replace(b"}", b', "x": ' + b"9" * 10_000 + b"}"),
        GOOD.replace(b"{", b'{"x": ' + b"[" * 63 + b"]" * 63 + b","),
        GOOD.replace(b"}", b', "Event_id": "other", "event_id ": "other"}'),
    ],
    ids=lambda raw: ascii(raw)[:50],
)
def test_one_record_however_it_is_written(raw: bytes) -> None:
    assert decode("bills", raw) == decode_by_contract("bills", raw) == decode("bills", GOOD)


@pytest.mark.parametrize("text", ["\n", '"', "\\", "/", "\t\0\x1f", "é", "雲", "😀", "\x7f\x80\u2028"])
def test_texts_arrive_as_they_were_written(text: str) -> None:
    for ascii_only in (True, False):
        raw = json.dumps(BILL | {"event_id": text}, ensure_ascii=ascii_only).encode()
        assert decode("bills", raw).event_id == text
        assert decode("bills", raw) == decode_by_contract("bills", raw)


MANY = 50_000_000


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(lambda: GOOD.replace(b"e1", b"x" * MANY), id="a text of 50 MB"),
        pytest.param(lambda: GOOD.replace(b'"e1"', b"9" * MANY), id="a number of 50 MB"),
        pytest.param(lambda: GOOD.replace(b'"e1"', b"0." + b"9" * MANY), id="a fraction of 50 MB"),
        pytest.param(lambda: GOOD.replace(b'"e1"', b"[" * MANY), id="50 million deep"),
        pytest.param(lambda: b'{"a":' * (MANY // 5), id="10 million objects deep"),
        pytest.param(lambda: b"\xff" * MANY, id="50 MB of no text"),
        pytest.param(lambda: b'"' * MANY, id="50 MB of quotes"),
        pytest.param(lambda: b" " * MANY, id="50 MB of blanks"),
    ],
)
def test_a_value_of_50_megabytes_is_refused_in_a_line(raw: Any) -> None:
    assert isinstance(outcome("bills", raw()), tuple)


# Both ways agree --------------------------------------------------------------------------------------------------


def test_the_compiled_way_is_taken_by_usual_records() -> None:
    for fields in (BILL, BILL | PERIOD, BILL | {"period_start": None}, BILL | {"kind": "adjusted", "event_id": "雲"}):
        raw = json.dumps(fields, ensure_ascii=False).encode()
        assert records._fast_bill(raw) == decode_by_contract("bills", raw)
        assert records._fast_bill(raw.replace(b" ", b"")) == decode_by_contract("bills", raw)
    assert records._fast_payment(value(PAYMENT)) == decode_by_contract("payments", value(PAYMENT))
    for fields in (USAGE, USAGE | {"cost": None}, {key: USAGE[key] for key in USAGE if key != "currency"}):
        assert records._fast_usage(value(fields)) == decode_by_contract("usage", value(fields))


#: Pieces of JSON that stand where a value should.
PIECES = [
    *("null", "true", "false", "0", "-0", "7", "12.5", "-1", "1e400", "-1e400", "1e3", "NaN", "Infinity", "nil", ""),
    *("[]", "{}", "[[]]", '{"a": 1}', '{"a": 1, "a": 1}', '"', "'x'", '""', '" "', '"*"', '"x"', '"a:b"', '"{}"'),
    *(
        '"0"',
        '"0.0"',
        '"00"',
        '"1"',
        '"-1"',
        '"1.5"',
        '"1.1234567"',
        '"1.' + "1" * 13 + '"',
        '"1e3"',
        '"1_0"',
        '"\u0661"',
    ),
    *('"999999999999999.999999"', '"1000000000000000"', "9" * 30, "9" * 200, '"' + "9" * 200 + '"'),
    *(r'"\ud800"', r'"\udc00\ud800"', r'"\ud83d\ude00"', r'"\u0041"', r'"\""', r'"\\"', r'"\x"', '"\t"', '"\x00"'),
    *(json.dumps("x" * n) for n in (63, 64, 65, 255, 256, 257)),
    *(json.dumps(text * n, ensure_ascii=False) for text in "é雲😀" for n in (1, 63, 64, 65, 85, 86, 128, 129)),
    *('"CNY"', '"USD"', '"XXX"', '"cny"', '"issued"', '"adjusted"', '"voided"', '"topup"', '"gift"', '"compute"'),
    *('"2018-03-16T00:00:00Z"', '"2018-03-16T24:00:00Z"', '"2018-03-16T00:00:00.123456+08:00"', '"2018-03-16"'),
    *('"0000-12-31T23:59:59-00:01"', '"0001-01-01T00:00:00+00:01"', '"9999-12-31T23:59:59.999999Z"'),
    "[" * 63 + "]" * 63,
    "[" * 64 + "]" * 64,
    "[" * 2000 + "]" * 2000,
]
KEYS = sorted({key for _, fields in SAMPLES for key in fields} | {"x", "", "Event_id"})
SEPARATORS = [", ", ",", " , ", ",\n", ",\r\n\t", "\x0b,", ",,", " "]
COLONS = [": ", ":", " : ", "\n:\t", "::", "\x0c:"]
EDGES = ["", " ", "\n", "\r\n", "\t", "\ufeff", "\x00", "x", "}", "[", "{}"]

usually = st.integers(0, 9).map(lambda number: number < 8)


COMPILED = [(topic, fields) for topic, fields in SAMPLES if topic in {"bills", "payments", "usage"}]


@st.composite
def values(draw: st.DrawFn) -> tuple[Topic, bytes]:
    """A record of a topic, hurt in some way or in none."""
    topic, fields = draw(st.sampled_from(SAMPLES + 3 * COMPILED))
    members = [(json.dumps(key), json.dumps(content)) for key, content in fields.items()]
    first_member = draw(st.integers(0, len(members) - 1))
    members = members[first_member:] + members[:first_member]
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(members) - 1)) if members else 0
        piece = draw(st.sampled_from(PIECES))
        match draw(st.sampled_from(["replace", "drop", "add", "repeat", "rename"])):
            case "replace" if members:
                members[place] = (members[place][0], piece)
            case "drop" if members:
                del members[place]
            case "add":
                members.insert(place, (json.dumps(draw(st.sampled_from(KEYS))), piece))
            case "repeat" if members:
                members.append(members[place])
            case "rename" if members:
                key = draw(st.sampled_from(KEYS))
                members[place] = (json.dumps(key).replace("e", r"\u0065"), members[place][1])
            case _:
                pass
    separator, colon, first, last = ", ", ": ", "", ""
    if not draw(usually):
        separator, colon = draw(st.sampled_from(SEPARATORS)), draw(st.sampled_from(COLONS))
        first, last = draw(st.sampled_from(EDGES)), draw(st.sampled_from(EDGES))
    text = first + "{" + separator.join(key + colon + piece for key, piece in members) + "}" + last
    raw = text.encode("utf-8", "surrogatepass")
    if not draw(usually):
        start, length = draw(st.integers(0, len(raw))), draw(st.integers(0, 3))
        raw = raw[:start] + draw(st.binary(max_size=3)) + raw[start + length :]
    return topic, raw


def check_that_both_ways_agree(topic: Topic, raw: bytes) -> None:
    fast, slow = outcome(topic, raw), outcome(topic, raw, decode_by_contract)
    assert fast == slow
    if not isinstance(fast, tuple) and not isinstance(slow, tuple):
        assert fingerprint(fast) == fingerprint(slow)


@given(values())
@settings(max_examples=400)
def test_both_ways_take_and_refuse_the_same(case: tuple[Topic, bytes]) -> None:
    check_that_both_ways_agree(*case)


ANY_BYTES = st.tuples(
    st.sampled_from(TOPICS),
    st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
)
ANY_JSON = st.tuples(
    st.sampled_from(TOPICS),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner),
        max_leaves=20,
    ).map(lambda content: json.dumps(content).encode()),
)


@given(ANY_BYTES | ANY_JSON)
@settings(max_examples=300)
def test_whatever_the_bytes_nothing_but_a_refusal_is_raised(case: tuple[Topic, bytes]) -> None:
    check_that_both_ways_agree(*case)


@pytest.mark.slow
@given(values() | values() | values() | ANY_BYTES | ANY_JSON)
@settings(max_examples=100_000, suppress_health_check=list(HealthCheck))
def test_a_hundred_thousand_values(case: tuple[Topic, bytes]) -> None:
    check_that_both_ways_agree(*case)


ids = st.text(min_size=1, max_size=30).filter(lambda text: text != "*" and text.isascii() | (len(text.encode()) <= 256))
instants = st.datetimes().map(lambda moment: moment.isoformat().zfill(19) + "Z")


@given(
    ids,
    st.sampled_from(["topup", "refund", "reversal", "gift"]),
    st.decimals(Decimal("0.000001"), 10**15 - 1, places=6),
    st.sampled_from(sorted(CURRENCIES)),
    instants,
    st.booleans(),
)
def test_a_payment_arrives_as_it_was_sent(
    text: str, kind: str, amount: Decimal, currency: str, at: str, ascii_only: bool
) -> None:
    fields = dict(PAYMENT, event_id=text, account_id=text, payment_id=text, kind=kind, currency=currency, paid_at=at)
    raw = json.dumps(fields | {"amount": f"{amount:f}"}, ensure_ascii=ascii_only).encode()
    expected = Payment(text, text, text, kind, int(amount * 10**6), currency, parse_instant(at))  # type: ignore[arg-type]
    assert decode("payments", raw) == decode_by_contract("payments", raw) == expected


# Same content -----------------------------------------------------------------------------------------------------

SPELLINGS: list[tuple[Topic, Fields, Fields]] = [
    ("bills", BILL, {"amount": "128.4"}),
    ("bills", BILL, {"issued_at": "2018-03-16T20:00:00.000+08:00"}),
    ("bills", BILL, {"period_end": None, "note": "unknown"}),
    ("bills", BILL | {"kind": "voided", "amount": "0"}, {"amount": None}),
    ("payments", PAYMENT, {"amount": "0100.000000", "paid_at": "2018-03-16T12:00:00Z"}),
    ("usage", USAGE, {"cost": "-1.250"}),
    ("packages", PACKAGE, {"quantity": "1000.0"}),
    ("controls", CONTROL | {"kind": "hold"}, {"freeze_clock": False, "until": None}),
    ("controls", CONTROL | CONTROLS["allowance"] | {"kind": "allowance"}, {"duration": "P2D"}),
    ("acks", ACK, {"detail": None}),
]


@pytest.mark.parametrize(("topic", "fields", "otherwise"), SPELLINGS)
def test_the_same_content_has_the_same_fingerprint(topic: Topic, fields: Fields, otherwise: Fields) -> None:
    one, other = accepted(topic, fields), accepted(topic, fields | otherwise)
    assert one == other
    assert fingerprint(one) == fingerprint(other)


def test_other_content_has_another_fingerprint() -> None:
    seen = {fingerprint(accepted(topic, fields)): fields for topic, fields in SAMPLES}
    assert len(seen) == len(SAMPLES)
    for change in ({"amount": "1"}, {"currency": "USD"}, {"period_end": "2018-03-16T00:00:00Z"}, {"kind": "adjusted"}):
        assert fingerprint(accepted("bills", BILL | change)) != fingerprint(accepted("bills", BILL))


#: Written once. They stand in every account's state: a change makes each record that is delivered again a conflict.
FINGERPRINTS = {
    "0 bills issued": 1751016446,
    "1 bills adjusted": 4145357181,
    "2 bills voided": 1021721205,
    "3 payments topup": 2088592832,
    "4 usage": 3767045175,
    "5 packages purchased": 1667721160,
    "6 packages cancelled": 585734327,
    "7 controls hold": 1600971759,
    "8 controls exempt": 968673224,
    "9 controls release": 1483970211,
    "10 controls credit_limit": 1455427112,
    "11 controls allowance": 391617830,
    "12 controls policy": 356484025,
    "13 controls policies": 3256459372,
    "14 controls opening": 3142190369,
    "15 controls reopen": 4017028112,
    "16 controls resume": 1164533861,
    "17 acks": 4130760358,
    "18 acks": 1249016331,
    "large usage": 2395194038,
}


def test_fingerprints_are_those_of_every_release() -> None:
    found = {}
    for number, (topic, fields) in enumerate(SAMPLES):
        found[f"{number} {topic} {fields.get('kind', '')}".rstrip()] = fingerprint(accepted(topic, fields))
    large = USAGE | {"quantity": "9" * 15, "cost": "-" + "9" * 15}
    found["large usage"] = fingerprint(accepted("usage", large))
    assert found == FINGERPRINTS


def test_large_amounts_have_fingerprints_that_differ() -> None:
    amounts = ("9223372036854.775807", "9223372036854.775808", "18446744073709.551616", "9" * 15)
    prints = {fingerprint(accepted("bills", BILL | {"amount": amount})) for amount in amounts}
    assert len(prints) == len(amounts)
    delays = ("PT9999999999H", "PT999999999999999H")
    for delay in delays:
        policies = [to_json(BUILT_IN)[0] | {"delete_after": delay}]
        prints.add(fingerprint(accepted("controls", CONTROL | {"kind": "policies", "policies": policies})))
    assert len(prints) == len(amounts) + len(delays)
    assert all(0 <= number < 2**32 for number in prints)


def test_a_fingerprint_does_not_depend_on_the_process() -> None:
    code = "import sys; from models.records import *; print(fingerprint(decode('usage', sys.stdin.buffer.read())))"
    for seed in ("0", "1"):
        ran = subprocess.run(
            [sys.executable, "-c", code],
            input=value(USAGE),
            capture_output=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
        )
        assert int(ran.stdout) == fingerprint(accepted("usage", USAGE))


def test_topics_stand_in_the_contracts_order() -> None:
    assert records.TOPICS == ("bills", "payments", "usage", "packages", "controls", "acks")
