"""Records in: the bytes of a topic's value (§2) as the values that the domain works with.

`models.contract` is the one judge of what a record is: `decode_by_contract` reads strict JSON and asks it. Bills,
payments and usage come by the million, so `decode` tries a compiled way first. That way may only ever answer what the
contract would; of what it is not certain (a field it does not know, an escape, a void, any fault) it says nothing.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from models import contract
from models.contract import (
    CURRENCIES,
    EVERYONE,
    MAX_ID_BYTES,
    TOPICS,
    AccountStatus,
    AckStatus,
    BillKind,
    ControlKind,
    PackageKind,
    PaymentKind,
    Service,
    Topic,
)
from models.instants import Duration, Instant, parse_instant
from models.money import Fine, Money, parse_fine, parse_money, parse_signed_fine
from models.policy import Policy
from models.refusal import Refusal, name_shown, printable, shown

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "TOPICS",
    "Ack",
    "Bill",
    "Control",
    "Package",
    "Payment",
    "Record",
    "Topic",
    "Usage",
    "decode",
    "decode_by_contract",
    "fingerprint",
]


class Bill(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """`amount`: what is charged; adjusted: the bill's new total; voided: 0."""

    event_id: str
    account_id: str
    bill_id: str
    kind: BillKind
    amount: Money
    currency: str
    #: `issued_at`
    at: Instant
    period_start: Instant | None = None
    period_end: Instant | None = None


class Payment(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """`amount` is above 0, whichever way the money went."""

    event_id: str
    account_id: str
    payment_id: str
    kind: PaymentKind
    amount: Money
    currency: str
    #: `paid_at`
    at: Instant


class Usage(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """`cost` may be negative; it and `quantity` have up to 12 decimals."""

    event_id: str
    account_id: str
    usage_id: str
    service: Service
    quantity: Fine
    unit: str
    cost: Fine | None
    currency: str | None
    started_at: Instant
    #: `ended_at`
    at: Instant


class Package(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Only of a cancelled package may `service`, `quantity`, `unit`, `starts_at` and `ends_at` be None."""

    event_id: str
    account_id: str
    package_id: str
    kind: PackageKind
    service: Service | None
    quantity: Fine | None
    unit: str | None
    at: Instant
    starts_at: Instant | None
    ends_at: Instant | None


class Control(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What its kind requires is there; what its kind does not know is as if it had not been written."""

    event_id: str
    #: "*": everyone.
    account_id: str
    kind: ControlKind
    actor: str
    reason: str
    at: Instant
    until: Instant | None = None
    #: hold, exempt
    freeze_clock: bool = False
    #: credit_limit
    amount: Money | None = None
    #: allowance
    duration: Duration | None = None
    #: policy: its name
    policy: str | None = None
    #: policies
    policies: tuple[Policy, ...] | None = None
    #: opening, from here on
    balance: Money | None = None
    currency: str | None = None
    status: AccountStatus | None = None
    arrears_since: Instant | None = None
    sequence: int | None = None


class Ack(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """At least one of `command_id` and `notice_id` is there."""

    event_id: str
    account_id: str
    subscriber: str
    status: AckStatus
    at: Instant
    command_id: str | None = None
    notice_id: str | None = None
    detail: str | None = None


Record: TypeAlias = Bill | Payment | Usage | Package | Control | Ack


def decode(topic: Topic, value: bytes | None) -> Record:
    """The record that `value` is. Raises `Refusal` (`not_json` or `invalid`), and nothing else, whatever the bytes."""
    fast = _FAST.get(topic)
    if fast is not None and value:
        record = fast(value)
        if record is not None:
            return record
    return decode_by_contract(topic, value)


def decode_by_contract(topic: Topic, value: bytes | None) -> Record:
    """The same, always the slow way: strict JSON, then the contract's model."""
    fields = _json_object(value)
    model = contract.read(topic, fields)
    match topic:
        case "bills":
            return _record(Bill, model, at="issued_at")
        case "payments":
            return _record(Payment, model, at="paid_at")
        case "usage":
            return _record(Usage, model, at="ended_at")
        case "packages":
            return _record(Package, model)
        case "controls":
            return _record(Control, model)
        case "acks":
            return _record(Ack, model)


def _record(struct: type[Record], model: contract.RecordIn, *, at: str = "at") -> Record:
    """The struct with the model's fields of the same names; a field that the model's kind lacks keeps its default."""
    names = [name for name in struct.__struct_fields__ if hasattr(model, name)]
    values: dict[str, Any] = {name: getattr(model, name) for name in names}
    return struct(**values | {"at": getattr(model, at)})


# Strict JSON ------------------------------------------------------------------------------------------------------

#: An object in an object is two deep.
MAX_DEPTH: Final = 64

# A whole number with more digits is read as a float, which no field takes: int() would be slow, or refuse.
_MOST_DIGITS: Final = 100


class _Repeated(Exception):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _json_object(value: bytes | None) -> dict[str, object]:
    """The fields of a JSON object, each there once. Raises `Refusal`."""
    if not value:
        raise Refusal("invalid", None, "there is no value: a record is a JSON object")
    try:
        text = value.decode("utf-8")
        repeated = None
        try:
            content: object = _STRICT.decode(text)
        except _Repeated as error:
            repeated = error.key
            content = _TOLERANT.decode(text)  # what is not JSON further on is not JSON at all
        if value.count(b"[") + value.count(b"{") > MAX_DEPTH and _is_deeper(content, MAX_DEPTH):
            raise RecursionError
    except UnicodeDecodeError as error:
        raise Refusal("not_json", None, f"not JSON: byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise Refusal("not_json", None, printable(f"not JSON at character {error.pos}: {error.msg}")) from None
    except RecursionError:
        raise Refusal("not_json", None, f"not usable JSON: nested more than {MAX_DEPTH} deep") from None
    if repeated is not None:
        key = name_shown(repeated)
        raise Refusal("invalid", key, f"{key}: is there more than once in one object")
    if not isinstance(content, dict):
        raise Refusal("invalid", None, f"must be a JSON object; got {shown(content)}")
    return content


def _is_deeper(content: object, limit: int) -> bool:
    layer = [content]
    for _ in range(limit):
        layer = [
            part
            for whole in layer
            if isinstance(whole, dict | list)
            for part in (whole.values() if isinstance(whole, dict) else whole)
        ]
    return any(isinstance(part, dict | list) for part in layer)


def _no_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Repeated(key)
            seen.add(key)
    return fields


def _whole_number(text: str) -> int | float:
    return int(text) if len(text) <= _MOST_DIGITS else float(text[: 4 * _MOST_DIGITS])  # beyond, it is infinite anyway


def _no_constant(name: str) -> NoReturn:
    raise Refusal("not_json", None, f"not JSON: {name} is no number of JSON")


_STRICT: Final = json.JSONDecoder(object_pairs_hook=_no_repeats, parse_int=_whole_number, parse_constant=_no_constant)
_TOLERANT: Final = json.JSONDecoder(parse_int=_whole_number, parse_constant=_no_constant)


# The compiled way -------------------------------------------------------------------------------------------------
#
# Each `_...Wire` names the texts of its record, and the compiled decoder checks that the value is one JSON object with
# them and no others (of a repeated one it takes the last). None is there twice if the value has no commas but those
# between the fields found.

# No text of 64 characters has more than 256 bytes; longer ids go the slow way.
_Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_BYTES // 4)]
_Optional = str | UnsetType | None
if TYPE_CHECKING:
    _Currency: TypeAlias = str
else:
    _Currency = Literal[tuple(sorted(CURRENCIES))]

_COMMAS_OF_BILL: Final = 6
_COMMAS_OF_PAYMENT: Final = 6
_COMMAS_OF_USAGE: Final = 7
_BACKSLASH: Final = ord("\\")


class _BillWire(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    event_id: _Id
    account_id: _Id
    bill_id: _Id
    kind: Literal["issued", "adjusted"]
    amount: str
    currency: _Currency
    issued_at: str
    period_start: _Optional = UNSET
    period_end: _Optional = UNSET


class _PaymentWire(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    event_id: _Id
    account_id: _Id
    payment_id: _Id
    kind: PaymentKind
    amount: str
    currency: _Currency
    paid_at: str


class _UsageWire(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    event_id: _Id
    account_id: _Id
    usage_id: _Id
    service: Service
    quantity: str
    unit: _Id
    started_at: str
    ended_at: str
    cost: _Optional = UNSET
    currency: _Currency | UnsetType | None = UNSET


# What the decoder and the parsers raise: the slow way finds the words.
_UNCERTAIN: Final = (msgspec.MsgspecError, ValueError, RecursionError)

_bill_wire: Final = msgspec.json.Decoder(_BillWire).decode
_payment_wire: Final = msgspec.json.Decoder(_PaymentWire).decode
_usage_wire: Final = msgspec.json.Decoder(_UsageWire).decode


def _fast_bill(value: bytes) -> Bill | None:
    try:
        wire = _bill_wire(value)
        period_start, period_end = wire.period_start, wire.period_end
        commas, start, end = _COMMAS_OF_BILL, None, None
        if period_start is not UNSET:
            commas += 1
            if period_start is not None:
                start = _PERIODS.get(period_start) or _parse_period(period_start)
        if period_end is not UNSET:
            commas += 1
            if period_end is not None:
                end = _PERIODS.get(period_end) or _parse_period(period_end)
        if value.count(b",") != commas or _BACKSLASH in value or wire.account_id == EVERYONE:
            return None
        return Bill(
            wire.event_id,
            wire.account_id,
            wire.bill_id,
            wire.kind,
            parse_money(wire.amount),
            wire.currency,
            parse_instant(wire.issued_at),
            start,
            end,
        )
    except _UNCERTAIN:
        return None


# Bills of one month name the same two instants.
_PERIODS: Final[dict[str, Instant]] = {}
_PERIODS_KEPT: Final = 10_000


def _parse_period(text: str) -> Instant:
    if len(_PERIODS) >= _PERIODS_KEPT:
        _PERIODS.clear()
    instant = _PERIODS[text] = parse_instant(text)
    return instant


def _fast_payment(value: bytes) -> Payment | None:
    try:
        wire = _payment_wire(value)
        amount = parse_money(wire.amount)
        if value.count(b",") != _COMMAS_OF_PAYMENT or _BACKSLASH in value or wire.account_id == EVERYONE or not amount:
            return None
        return Payment(
            wire.event_id,
            wire.account_id,
            wire.payment_id,
            wire.kind,
            amount,
            wire.currency,
            parse_instant(wire.paid_at),
        )
    except _UNCERTAIN:
        return None


def _fast_usage(value: bytes) -> Usage | None:
    try:
        wire = _usage_wire(value)
        commas, cost, currency = _COMMAS_OF_USAGE, None, None
        if wire.cost is not UNSET:
            commas += 1
            if wire.cost is not None:
                cost = parse_signed_fine(wire.cost)
        if wire.currency is not UNSET:
            commas += 1
            currency = wire.currency
        if value.count(b",") != commas or _BACKSLASH in value or wire.account_id == EVERYONE:
            return None
        return Usage(
            wire.event_id,
            wire.account_id,
            wire.usage_id,
            wire.service,
            parse_fine(wire.quantity),
            wire.unit,
            cost,
            currency,
            parse_instant(wire.started_at),
            parse_instant(wire.ended_at),
        )
    except _UNCERTAIN:
        return None


_FAST: Final[dict[Topic, Callable[[bytes], Record | None]]] = {
    "bills": _fast_bill,
    "payments": _fast_payment,
    "usage": _fast_usage,
}


# Same content -----------------------------------------------------------------------------------------------------

_LARGEST: Final = 2**63  # what MessagePack can carry either side of 0
_encode: Final = msgspec.msgpack.Encoder().encode
_crc32: Final = zlib.crc32


def fingerprint(record: Record) -> int:
    """32 bits of the record's known fields: equal for equal content (§1), the same in every process and release."""
    try:
        return _crc32(_encode(record))
    except OverflowError:
        return zlib.crc32(_encode(_with_large_numbers_as_texts(msgspec.to_builtins(record))))


def _with_large_numbers_as_texts(content: object) -> object:
    match content:
        case int() if not -_LARGEST <= content < _LARGEST:
            return str(content)
        case list() | tuple():
            return [_with_large_numbers_as_texts(part) for part in content]
        case dict():
            return {key: _with_large_numbers_as_texts(part) for key, part in content.items()}
        case _:
            return content
