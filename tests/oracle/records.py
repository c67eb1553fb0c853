"""A line of a topic becomes a record, or is refused (contract §2)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import pycountry

from .policy import Policies, parse_list
from .values import parse_amount, parse_duration, parse_instant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TOPICS = ("bills", "payments", "usage", "packages", "controls")
CURRENCIES = {currency.alpha_3 for currency in pycountry.currencies}
KINDS_FOR_EVERYONE = ("hold", "exempt", "release", "allowance", "policy", "policies", "resume")
KINDS_FOR_ONE = ("credit_limit", "opening", "reopen")
SERVICES = ("compute", "download", "storage")
LONGEST_ID = 256  # bytes of UTF-8
T = TypeVar("T")


class Refused(Exception):
    """A record that cannot be used: the `error` and `field` of its dead letter."""

    def __init__(self, error: str, field: str | None, message: str) -> None:
        super().__init__(message)
        self.error, self.field, self.message = error, field, message


@dataclass(frozen=True)
class Record:
    topic: str
    account: str
    event_id: str
    kind: str
    at: int
    data: Mapping[str, Any]  # the other known fields of its kind, parsed; None where absent
    line: int  # from 1
    raw: bytes

    def same_content(self, other: Record) -> bool:
        """Equal known fields after parsing."""
        return (self.kind, self.at, self.data) == (other.kind, other.at, other.data)


class JsonObject(dict[str, Any]):
    """A JSON object that remembers whether a key stood in it twice."""

    repeats = False


@dataclass(frozen=True)
class JsonNumber:
    """A JSON number, as it was written."""

    text: str


def parse_json(raw: bytes) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> JsonObject:
        made = JsonObject(items)
        made.repeats = len(made) != len(items)
        return made

    def no_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is no JSON")

    try:
        return json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=pairs,
            parse_int=JsonNumber,
            parse_float=JsonNumber,
            parse_constant=no_constant,
        )
    except (ValueError, RecursionError) as error:
        raise Refused("not_json", None, str(error)) from None


def id_text(value: str) -> str:
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        raise ValueError("no UTF-8 text") from None
    if not 1 <= size <= LONGEST_ID:
        raise ValueError(f"not 1 to {LONGEST_ID} bytes long")
    return value


def some_text(value: str) -> str:
    if not value:
        raise ValueError("empty")
    return value


def currency(value: str) -> str:
    if value not in CURRENCIES:
        raise ValueError("no currency of ISO 4217")
    return value


class Fields:
    """The fields of one JSON object; each reader refuses the record with `invalid` and the field's name."""

    def __init__(self, values: JsonObject) -> None:
        self.values = values

    def has(self, name: str) -> bool:
        return self.values.get(name) is not None

    def read(self, name: str, parse: Callable[[str], T]) -> T:
        value = self.values.get(name)
        if not isinstance(value, str):
            raise Refused("invalid", name, f"{name} is missing or not a text")
        try:
            return parse(value)
        except ValueError as error:
            raise Refused("invalid", name, f"{name}: {error}") from None

    def read_if_there(self, name: str, parse: Callable[[str], T]) -> T | None:
        return self.read(name, parse) if self.has(name) else None

    def one_of(self, name: str, *choices: str) -> str:
        value = self.read(name, str)
        if value not in choices:
            raise Refused("invalid", name, f"{name} is not one of {', '.join(choices)}")
        return value

    def yes_or_no(self, name: str) -> bool:
        value = self.values.get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise Refused("invalid", name, f"{name} is not true or false")
        return value

    def count(self, name: str) -> int:
        value = self.values.get(name)
        if not isinstance(value, JsonNumber) or not value.text.isdigit() or len(value.text) > 15:
            raise Refused("invalid", name, f"{name} is not a whole number >= 0")
        return int(value.text)

    def policies(self, name: str) -> Policies:
        try:
            return parse_list(self.values.get(name))
        except ValueError as error:
            raise Refused("invalid", name, f"{name}: {error}") from None


def decode(topic: str, line: int, raw: bytes) -> Record:
    """The record of one line; raises Refused."""
    values = parse_json(raw)
    if not isinstance(values, JsonObject):
        raise Refused("invalid", None, "not a JSON object")
    if values.repeats:
        raise Refused("invalid", None, "a key twice")
    fields = Fields(values)
    event_id, account = fields.read("event_id", id_text), fields.read("account_id", id_text)
    kind, at, data = READERS[topic](fields)
    if account == "*" and not (topic == "controls" and kind in KINDS_FOR_EVERYONE):
        raise Refused("invalid", "account_id", "not for everyone")
    return Record(topic, account, event_id, kind, at, data, line, raw)


Reading = tuple[str, int, dict[str, Any]]  # kind, at, the rest


def read_bill(fields: Fields) -> Reading:
    data: dict[str, Any] = {"bill_id": fields.read("bill_id", id_text)}
    kind = fields.one_of("kind", "issued", "adjusted", "voided")
    if kind != "voided" or fields.has("amount"):
        data["amount"] = fields.read("amount", parse_amount)
    if kind == "voided" and data.pop("amount", 0) != 0:
        raise Refused("invalid", "amount", "a void has no amount")
    data["currency"] = fields.read("currency", currency)
    at = fields.read("issued_at", parse_instant)
    data["period_start"] = fields.read_if_there("period_start", parse_instant)
    data["period_end"] = fields.read_if_there("period_end", parse_instant)
    return kind, at, data


def read_payment(fields: Fields) -> Reading:
    data: dict[str, Any] = {"payment_id": fields.read("payment_id", id_text)}
    kind = fields.one_of("kind", "topup", "refund", "reversal", "gift")
    data["amount"] = fields.read("amount", parse_amount)
    if data["amount"] == 0:
        raise Refused("invalid", "amount", "nothing is paid")
    data["currency"] = fields.read("currency", currency)
    return kind, fields.read("paid_at", parse_instant), data


def fine(value: str) -> Any:
    return parse_amount(value, decimals=12)


def signed_fine(value: str) -> Any:
    return parse_amount(value, decimals=12, signed=True)


def signed_amount(value: str) -> Any:
    return parse_amount(value, signed=True)


def read_usage(fields: Fields) -> Reading:
    data: dict[str, Any] = {
        "usage_id": fields.read("usage_id", id_text),
        "service": fields.one_of("service", *SERVICES),
        "quantity": fields.read("quantity", fine),
        "unit": fields.read("unit", id_text),
        "cost": fields.read_if_there("cost", signed_fine),
        "currency": fields.read_if_there("currency", currency),
        "started_at": fields.read("started_at", parse_instant),
    }
    return "usage", fields.read("ended_at", parse_instant), data


def read_package(fields: Fields) -> Reading:
    data: dict[str, Any] = {"package_id": fields.read("package_id", id_text)}
    kind = fields.one_of("kind", "purchased", "cancelled")
    wanted = ("service", "quantity", "unit", "starts_at", "ends_at")
    for name in wanted if kind == "purchased" else [name for name in wanted if fields.has(name)]:
        match name:
            case "service":
                data[name] = fields.one_of(name, *SERVICES)
            case "quantity":
                data[name] = fields.read(name, fine)
            case "unit":
                data[name] = fields.read(name, id_text)
            case _:
                data[name] = fields.read(name, parse_instant)
    return kind, fields.read("at", parse_instant), data


def read_control(fields: Fields) -> Reading:
    kind = fields.one_of("kind", *KINDS_FOR_EVERYONE, *KINDS_FOR_ONE)
    data: dict[str, Any] = {"actor": fields.read("actor", id_text), "reason": fields.read("reason", some_text)}
    at = fields.read("at", parse_instant)
    data["until"] = fields.read_if_there("until", parse_instant)
    if data["until"] is not None and data["until"] <= at:
        raise Refused("invalid", "until", "until is not after at")
    match kind:
        case "hold" | "exempt":
            data["freeze_clock"] = fields.yes_or_no("freeze_clock")
        case "credit_limit":
            data["amount"] = fields.read("amount", parse_amount)
        case "allowance":
            data["duration"] = fields.read("duration", parse_duration)
        case "policy":
            data["policy"] = fields.read("policy", some_text)
        case "policies":
            data["policies"] = fields.policies("policies")
        case "opening":
            data |= read_opening(fields, at)
        case _:
            pass  # release, reopen, resume
    return kind, at, data


def read_opening(fields: Fields, at: int) -> dict[str, Any]:
    data: dict[str, Any] = {
        "balance": fields.read("balance", signed_amount),
        "currency": fields.read("currency", currency),
        "status": fields.one_of("status", "current", "in_arrears", "suspended", "deleted"),
        "arrears_since": fields.read_if_there("arrears_since", parse_instant),
        "sequence": fields.count("sequence"),
    }
    status, since = data["status"], data["arrears_since"]
    owes = status in ("in_arrears", "suspended")
    if (status == "current" and data["balance"] < 0) or (owes and data["balance"] >= 0):
        raise Refused("invalid", "status", "the status contradicts the balance")
    if status == "current" and since is not None:
        raise Refused("invalid", "arrears_since", "a current account is not in arrears")
    if owes and (since is None or since > at):
        raise Refused("invalid", "arrears_since", "arrears_since is missing or after at")
    return data


READERS: Mapping[str, Callable[[Fields], Reading]] = {
    "bills": read_bill,
    "payments": read_payment,
    "usage": read_usage,
    "packages": read_package,
    "controls": read_control,
}
