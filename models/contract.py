"""The contract's records (§2), in and out: one pydantic model for each, from which the JSON Schemas are made.

Every text that comes in is checked here, letter by letter; `models.records` turns what passes into values for the
domain. The models of what goes out describe it to those who read it. `python -m models.contract` writes the schemas to
`models/schemas`, and refuses a change that breaks who writes to us or who reads from us.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn, Self, TypeAlias, TypeVar, get_args

import pycountry
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from models.instants import (
    DURATION_FORM,
    INSTANT_FORM,
    Duration,
    Instant,
    format_duration,
    format_instant,
    parse_duration,
    parse_instant,
)
from models.money import (
    FINE_PER_MONEY,
    Fine,
    Money,
    fine_form,
    format_fine,
    format_money,
    money_form,
    parse_fine,
    parse_money,
    parse_signed_fine,
    parse_signed_money,
)
from models.policy import Policies, Policy, PolicyError, parse_policies, to_json
from models.refusal import ErrorCode, Refusal, printable, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")
JsonSchema: TypeAlias = dict[str, Any]

Topic = Literal["bills", "payments", "usage", "packages", "controls", "acks"]
#: The input topics, in the order of the contract.
TOPICS: Final[tuple[Topic, ...]] = get_args(Topic)

#: `account_id` of a control for everyone.
EVERYONE: Final = "*"

MAX_ID_BYTES: Final = 256
MAX_REASON_BYTES: Final = 4096
MAX_DETAIL_BYTES: Final = 65_536
MAX_SEQUENCE: Final = 10**15

#: ISO 4217.
CURRENCIES: Final = frozenset(str(currency.alpha_3) for currency in pycountry.currencies)


# Values in --------------------------------------------------------------------------------------------------------


_UNICODE: Final = "must be valid Unicode, without lone surrogates"


def _refuse(form: str, value: object) -> NoReturn:
    raise ValueError(f"{form}; got {shown(value)}")


def _text(shortest: int, longest: int) -> Callable[[object], str]:
    form = f"must be a text of {shortest} to {longest:,} bytes of UTF-8"

    def check(value: object) -> str:
        if not isinstance(value, str):
            _refuse(form, value)
        try:
            length = len(value.encode())
        except UnicodeEncodeError:
            _refuse(_UNICODE, value)
        if not shortest <= length <= longest:
            raise ValueError(f"{form}; got {length:,}: {shown(value)}" if length else f"{form}; it is empty")
        return value

    return check


def _reads(parse: Callable[[str], T], form: str) -> Callable[[object], T]:
    def check(value: object) -> T:
        if not isinstance(value, str):
            _refuse(form, value)
        return parse(value)

    return check


_check_id: Final = _text(1, MAX_ID_BYTES)


def _one_account(value: object) -> str:
    account_id = _check_id(value)
    if account_id == EVERYONE:
        kinds = "hold, exempt, release, allowance, policy, policies and resume"
        raise ValueError(f'must be one account: "*" (everyone) is for controls of kind {kinds}')
    return account_id


def _currency(value: object) -> str:
    if not isinstance(value, str) or value not in CURRENCIES:
        _refuse('must be an ISO 4217 code like "CNY"', value)
    return value


def _paid_amount(text: str) -> Money:
    amount = parse_money(text)
    if not amount:
        _refuse("must be more than 0", text)
    return amount


_amount: Final = _reads(parse_money, money_form())


def _voided_amount(value: object) -> Money:
    if value is not None and _amount(value):
        _refuse('must be absent or "0" when a bill is voided', value)
    return 0


def _package_quantity(text: str) -> Fine:
    return parse_money(text) * FINE_PER_MONEY


def _flag(value: object) -> bool:
    if value is not None and not isinstance(value, bool):
        _refuse("must be true or false", value)
    return bool(value)


def _sequence(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_SEQUENCE:
        _refuse(f"must be a whole number (no text), 0 to {MAX_SEQUENCE}", value)
    return value


def _policies(value: object) -> tuple[Policy, ...]:
    if not isinstance(value, list) or not value:
        got = "an empty list" if value == [] else shown(value)
        raise ValueError(f"must be a list of policies, as under policies: in the policy file; got {got}")
    try:
        return parse_policies(value, where="").versions
    except PolicyError as error:
        raise ValueError(str(error)) from None


def _pattern(pattern: str, description: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$", "description": description})


def _id_schema(description: str, *, longest: int = MAX_ID_BYTES, **more: object) -> WithJsonSchema:
    # JSON Schema counts characters; the limit in bytes can only be told.
    told = f"{description}; at most {longest:,} bytes of UTF-8"
    return WithJsonSchema({"type": "string", "minLength": 1, "maxLength": longest, "description": told, **more})


_MONEY_PATTERN: Final = r"[0-9]{1,15}(\.[0-9]{1,6})?"
_FINE_PATTERN: Final = r"[0-9]{1,15}(\.[0-9]{1,12})?"
_NOT_ZERO: Final = {"not": {"pattern": r"^[0.]*$"}}
_OFFSET: Final = r"([01][0-9]|2[0-3]):[0-5][0-9]"
_DATE_TIME: Final = rf"[0-9]{{4}}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T{_OFFSET}:[0-5][0-9]"
_NUMBER: Final = r"[0-9]{1,15}([.,][0-9]{1,15})?"
_DURATION_PATTERN: Final = rf"P({_NUMBER}W|({_NUMBER}D)?(T({_NUMBER}H)?({_NUMBER}M)?({_NUMBER}S)?)?)"

Id = Annotated[str, PlainValidator(_check_id), _id_schema("an id")]
AccountId = Annotated[str, PlainValidator(_one_account), _id_schema("an account", **{"not": {"const": EVERYONE}})]
AccountOrAll = Annotated[str, PlainValidator(_check_id), _id_schema('an account, or "*": everyone')]
Reason = Annotated[
    str, PlainValidator(_text(1, MAX_REASON_BYTES)), _id_schema("why, in words", longest=MAX_REASON_BYTES)
]
Detail = Annotated[
    str, PlainValidator(_text(0, MAX_DETAIL_BYTES)), _id_schema("more", longest=MAX_DETAIL_BYTES, minLength=0)
]
Currency = Annotated[str, PlainValidator(_currency), _pattern("[A-Z]{3}", "an ISO 4217 code")]
Amount = Annotated[
    Money,
    PlainValidator(_amount),
    PlainSerializer(format_money),
    _pattern(_MONEY_PATTERN, "money, at most 6 decimals, never negative"),
]
PaidAmount = Annotated[
    Money,
    PlainValidator(_reads(_paid_amount, money_form())),
    PlainSerializer(format_money),
    WithJsonSchema(
        {"type": "string", "pattern": f"^{_MONEY_PATTERN}$", "description": "money, more than 0"} | _NOT_ZERO
    ),
]
VoidedAmount = Annotated[
    Money,
    PlainValidator(_voided_amount),
    PlainSerializer(format_money),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": r"^0{1,15}(\.0{1,6})?$"}, {"type": "null"}]}),
]
SignedAmount = Annotated[
    Money,
    PlainValidator(_reads(parse_signed_money, money_form(signed=True))),
    PlainSerializer(format_money),
    _pattern(f"-?{_MONEY_PATTERN}", "money, negative with a leading minus"),
]
Quantity = Annotated[
    Fine,
    PlainValidator(_reads(parse_fine, fine_form())),
    PlainSerializer(format_fine),
    _pattern(_FINE_PATTERN, "a quantity, at most 12 decimals, never negative"),
]
Cost = Annotated[
    Fine,
    PlainValidator(_reads(parse_signed_fine, fine_form(signed=True))),
    PlainSerializer(format_fine),
    _pattern(f"-?{_FINE_PATTERN}", "money, at most 12 decimals, may be negative"),
]
PackageQuantity = Annotated[
    Fine,
    PlainValidator(_reads(_package_quantity, money_form())),
    PlainSerializer(format_fine),
    _pattern(_MONEY_PATTERN, "a quantity, at most 6 decimals, never negative"),
]
At = Annotated[
    Instant,
    PlainValidator(_reads(parse_instant, INSTANT_FORM)),
    PlainSerializer(format_instant),
    _pattern(rf"{_DATE_TIME}(\.[0-9]{{1,6}})?(Z|[+-]{_OFFSET})", "an instant, with Z or an offset"),
]
Delay = Annotated[
    Duration,
    PlainValidator(_reads(parse_duration, DURATION_FORM)),
    PlainSerializer(format_duration),
    _pattern(_DURATION_PATTERN, "an ISO 8601 duration without months and years"),
]
Flag = Annotated[
    bool, PlainValidator(_flag), WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "null"}], "default": False})
]
SequenceNumber = Annotated[
    int, PlainValidator(_sequence), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MAX_SEQUENCE})
]
PolicyList = Annotated[
    tuple[Policy, ...],
    PlainValidator(_policies),
    PlainSerializer(lambda versions: to_json(Policies(versions))),
    WithJsonSchema(
        {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object"},
            "description": "the list that stands under policies: in the policy file (§5)",
        }
    ),
]

Service = Literal["compute", "download", "storage"]
BillKind = Literal["issued", "adjusted", "voided"]
PaymentKind = Literal["topup", "refund", "reversal", "gift"]
PackageKind = Literal["purchased", "cancelled"]
ControlKind = Literal[
    "hold",
    "exempt",
    "release",
    "credit_limit",
    "allowance",
    "policy",
    "policies",
    "opening",
    "reopen",
    "resume",
]
AccountStatus = Literal["current", "in_arrears", "suspended", "deleted"]
AckStatus = Literal["applied", "failed"]


# Records in -------------------------------------------------------------------------------------------------------


class _Record(BaseModel):
    """A record: frozen, exact about types; what it does not know it ignores, null is as good as absent."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


def _fault(field: str, message: str) -> PydanticCustomError:
    """What two fields together get wrong; `field` is the one to mend."""
    return PydanticCustomError("contract", "{message}", {"field": field, "message": message})


class AnyBill(_Record):
    """What every bill has, in the order of the contract."""

    event_id: Id
    account_id: AccountId
    bill_id: Id
    kind: BillKind
    amount: Amount
    currency: Currency
    issued_at: At
    period_start: At | None = None
    period_end: At | None = None


class BillIssued(AnyBill):
    """`amount` is charged at `issued_at`."""

    kind: Literal["issued"]


class BillAdjusted(AnyBill):
    """`amount` is the bill's new total, from the adjustment's own `issued_at` on."""

    kind: Literal["adjusted"]


class BillVoided(AnyBill):
    """The bill is taken back, from the void's own `issued_at` on."""

    kind: Literal["voided"]
    amount: VoidedAmount = 0


class Payment(_Record):
    """Money that came in or went back. A gift never pays a bill (3.5)."""

    event_id: Id
    account_id: AccountId
    payment_id: Id
    kind: PaymentKind
    amount: PaidAmount
    currency: Currency
    paid_at: At


class Usage(_Record):
    """What was used of a service. It moves no balance: bills do."""

    event_id: Id
    account_id: AccountId
    usage_id: Id
    service: Service
    quantity: Quantity
    unit: Id
    cost: Cost | None = None
    currency: Currency | None = None
    started_at: At
    ended_at: At


class AnyPackage(_Record):
    """What every package record has, in the order of the contract."""

    event_id: Id
    account_id: AccountId
    package_id: Id
    kind: PackageKind
    service: Service | None = None
    quantity: PackageQuantity | None = None
    unit: Id | None = None
    at: At
    starts_at: At | None = None
    ends_at: At | None = None


class PackagePurchased(AnyPackage):
    """A prepaid quantity, drawn by usage with `starts_at` <= `ended_at` < `ends_at` (9.1.4)."""

    kind: Literal["purchased"]
    service: Service
    quantity: PackageQuantity
    unit: Id
    starts_at: At
    ends_at: At


class PackageCancelled(AnyPackage):
    """The package is drawn no more; what it was is known already."""

    kind: Literal["cancelled"]


class AnyControl(_Record):
    """What every control has, in the order of the contract."""

    event_id: Id
    account_id: AccountOrAll
    kind: ControlKind
    actor: Id
    reason: Reason
    at: At
    until: At | None = None

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Self:
        if self.until is not None and self.until <= self.at:
            raise _fault("until", f"must be after at ({format_instant(self.at)}); got {format_instant(self.until)}")
        return self


class _OneAccountsControl(AnyControl):
    account_id: AccountId


class Hold(AnyControl):
    """No suspend and no delete while it lasts."""

    kind: Literal["hold"]
    freeze_clock: Flag = False


class Exempt(AnyControl):
    """A hold that also restores a suspended account."""

    kind: Literal["exempt"]
    freeze_clock: Flag = False


class Release(AnyControl):
    """Ends the account's own holds and exemptions; for "*" those of "*"."""

    kind: Literal["release"]


class CreditLimit(_OneAccountsControl):
    """How far the balance may fall below zero before it is in arrears."""

    kind: Literal["credit_limit"]
    amount: Amount


class Allowance(AnyControl):
    """Delay-stop: both marks move by `duration`."""

    kind: Literal["allowance"]
    duration: Delay


class ChangePolicy(AnyControl):
    """The policy, by name, of episodes that begin after `at`."""

    kind: Literal["policy"]
    policy: Id


class ChangePolicies(AnyControl):
    """The policies in force from this record on, on its partition."""

    kind: Literal["policies"]
    policies: PolicyList


class Opening(_OneAccountsControl):
    """Takes over an account from another system, as its first record."""

    kind: Literal["opening"]
    balance: SignedAmount
    currency: Currency
    status: AccountStatus
    arrears_since: At | None = None
    sequence: SequenceNumber

    @model_validator(mode="before")
    @classmethod
    def _deleted_has_no_arrears_since(cls, value: object) -> object:
        if isinstance(value, dict) and value.get("status") == "deleted":
            return value | {"arrears_since": None}
        return value

    @model_validator(mode="after")
    def _status_fits(self) -> Self:
        match self.status:
            case "current":
                if self.balance < 0:
                    raise _fault("status", f"current contradicts a balance of {format_money(self.balance)}")
                if self.arrears_since is not None:
                    raise _fault("arrears_since", "must be absent when the status is current")
            case "in_arrears" | "suspended":
                if self.balance >= 0:
                    raise _fault("status", f"{self.status} contradicts a balance of {format_money(self.balance)}")
                if self.arrears_since is None:
                    raise _fault("arrears_since", f"is missing: it is required when the status is {self.status}")
                if self.arrears_since > self.at:
                    got = f"{format_instant(self.at)}); got {format_instant(self.arrears_since)}"
                    raise _fault("arrears_since", f"must not be after at ({got}")
            case "deleted":
                pass
        return self


class Reopen(_OneAccountsControl):
    """A deleted account starts anew."""

    kind: Literal["reopen"]


class Resume(AnyControl):
    """Decisions that a guard stopped go on."""

    kind: Literal["resume"]


class Ack(_Record):
    """What enforcement or a notification service made of a command or a notice."""

    event_id: Id
    command_id: Id | None = None
    notice_id: Id | None = None
    account_id: AccountId
    subscriber: Id
    status: AckStatus
    at: At
    detail: Detail | None = None

    @model_validator(mode="after")
    def _is_of_something(self) -> Self:
        if self.command_id is None and self.notice_id is None:
            raise _fault("command_id", "is missing: an ack has a command_id or a notice_id")
        return self


Bill = BillIssued | BillAdjusted | BillVoided
Package = PackagePurchased | PackageCancelled
Control = Hold | Exempt | Release | CreditLimit | Allowance | ChangePolicy | ChangePolicies | Opening | Reopen | Resume
RecordIn = Bill | Payment | Usage | Package | Control | Ack

_BY_KIND: Final = Field(discriminator="kind")

_IN: Final[dict[Topic, TypeAdapter[RecordIn]]] = {
    "bills": TypeAdapter(Annotated[Bill, _BY_KIND]),
    "payments": TypeAdapter(Payment),
    "usage": TypeAdapter(Usage),
    "packages": TypeAdapter(Annotated[Package, _BY_KIND]),
    "controls": TypeAdapter(Annotated[Control, _BY_KIND]),
    "acks": TypeAdapter(Ack),
}
# Who has no known kind is told what is wrong in the order of the contract all the same: these know all the kinds.
_OF_ANY_KIND: Final[dict[Topic, type[BaseModel]]] = {"bills": AnyBill, "packages": AnyPackage, "controls": AnyControl}


def read(topic: Topic, fields: Mapping[str, object]) -> RecordIn:
    """The record of `topic` with these fields of JSON. Raises `Refusal`: the first field at fault, and what is."""
    try:
        return _IN[topic].validate_python(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"].startswith("union_tag"):
            try:
                _OF_ANY_KIND[topic].model_validate(fields)
            except ValidationError as earlier:
                first = earlier.errors(include_url=False)[0]
        field, message = _told(first)
        colon = "" if message.startswith("[") else ": "  # "policies[0].version: is missing"
        raise Refusal("invalid", field, printable(f"{field}{colon}{message}")) from None


def _told(error: ErrorDetails) -> tuple[str, str]:
    context = error.get("ctx", {})
    field = str(context.get("field") or error["loc"][-1])
    match error["type"]:
        case "missing":
            return field, "is missing"
        case "contract":
            return field, error["msg"]
        case "value_error":
            return field, str(context["error"])
        case "string_unicode":
            return field, f"{_UNICODE}; got {shown(error['input'])}"
        case "literal_error":
            *names, last = re.findall(r"'([^']*)'", str(context["expected"]))
            return field, f"must be {', '.join(names)} or {last}; got {shown(error['input'])}"
        case _:
            return field, f"{error['msg']}; got {shown(error['input'])}"


# Values out -------------------------------------------------------------------------------------------------------

_SHORTEST: Final = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]*[1-9]))?")


def _leaves(decimals: int, *, signed: bool) -> Callable[[object], int]:
    def check(value: object) -> int:
        match = _SHORTEST.fullmatch(value) if isinstance(value, str) else None
        sign, whole, fraction = match.groups(default="") if match else ("", "", "")
        if match is None or len(fraction) > decimals or (sign and (not signed or value == "-0")):
            _refuse(f"must be the shortest form of a number with at most {decimals} decimals", value)
        return int(sign + whole + fraction.ljust(decimals, "0"))

    return check


def _leaves_as_utc(value: object) -> Instant:
    instant = _reads(parse_instant, INSTANT_FORM)(value)
    if format_instant(instant) != value:
        _refuse("must be in UTC with Z, without trailing zeros", value)
    return instant


_UUID_PATTERN: Final = "[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_SHA256_PATTERN: Final = "[0-9a-f]{64}"


def _matches(pattern: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            _refuse(f"must match {pattern}", value)
        return value

    return check


OutMoney = Annotated[
    Money,
    PlainValidator(_leaves(6, signed=False)),
    PlainSerializer(format_money),
    _pattern(r"(0|[1-9][0-9]*)(\.[0-9]{0,5}[1-9])?", "money in its shortest form, any number of digits"),
]
OutBalance = Annotated[
    Money,
    PlainValidator(_leaves(6, signed=True)),
    PlainSerializer(format_money),
    _pattern(r"-?(0|[1-9][0-9]*)(\.[0-9]{0,5}[1-9])?", "money in its shortest form, may be negative"),
]
OutFine = Annotated[
    Fine,
    PlainValidator(_leaves(12, signed=True)),
    PlainSerializer(format_fine),
    _pattern(r"-?(0|[1-9][0-9]*)(\.[0-9]{0,11}[1-9])?", "at most 12 decimals, in its shortest form"),
]
OutInstant = Annotated[
    Instant,
    PlainValidator(_leaves_as_utc),
    PlainSerializer(format_instant),
    _pattern(rf"{_DATE_TIME}(\.[0-9]{{0,5}}[1-9])?Z", "an instant in UTC"),
]
Uuid = Annotated[str, PlainValidator(_matches(_UUID_PATTERN)), _pattern(_UUID_PATTERN, "a UUIDv5: the same each time")]
Sha256 = Annotated[str, PlainValidator(_matches(_SHA256_PATTERN)), _pattern(_SHA256_PATTERN, "SHA-256, lower-case hex")]
Label = Annotated[str, Field(min_length=3, description='name and version: "maxcompute@2018-03-16"')]
Count = Annotated[int, Field(ge=0)]

CommandAction = Literal["suspend", "restore", "delete"]
CommandReason = Literal[
    "unpaid_past_suspend_mark", "unpaid_past_delete_mark", "paid_in_full", "late_evidence", "operator"
]
NoticeKind = Literal[
    "arrears_started",
    "arrears_cleared",
    "suspension_ahead",
    "suspended",
    "deletion_ahead",
    "deleted",
    "restored",
    "payment_after_delete",
    "delete_contradicted",
    "usage_while_suspended",
    "package_exhausted",
    "command_unconfirmed",
]


# Records out ------------------------------------------------------------------------------------------------------


class UnpaidBill(_Record):
    """A bill that payments do not cover; the oldest come first."""

    bill_id: Id
    amount: OutMoney
    outstanding: OutMoney


class Command(_Record):
    """What enforcement has to do. A consumer ignores a `sequence` not above what it has applied."""

    command_id: Uuid
    account_id: AccountId
    sequence: Annotated[int, Field(ge=1)]
    action: CommandAction
    services: tuple[str, ...] = Field(strict=False)
    effective_at: OutInstant
    decided_at: OutInstant
    arrears_since: OutInstant
    owed: OutMoney
    late_fee: OutMoney
    currency: Currency
    unpaid_bills: tuple[UnpaidBill, ...] = Field(strict=False, max_length=100)
    unpaid_bills_count: Count
    policy: Label
    policy_hash: Sha256
    clause: Literal["1.1.2", "1.1.3"]
    reason: CommandReason
    supersedes: Uuid | None
    evidence: dict[str, Count] | None = Field(None, description="next offset applied, by topic; live only")
    notice_id: Uuid | None


class Notice(_Record):
    """What the customer or an operator is told (R9). The fields that may be left out stand where they apply."""

    notice_id: Uuid
    account_id: AccountId
    kind: NoticeKind
    at: OutInstant
    owed: OutMoney
    late_fee: OutMoney
    currency: Currency | None
    arrears_since: OutInstant | None
    deadline: OutInstant | None
    command_id: Uuid | None
    policy: Label | None = None
    reason: CommandReason | None = None
    services: tuple[str, ...] | None = Field(None, strict=False)
    event_id: Id | None = None
    usage_id: Id | None = None
    package_id: Id | None = None
    payment_id: Id | None = None
    service: Service | None = None
    quantity: OutFine | None = None
    unit: Id | None = None
    amount: OutMoney | None = None
    started_at: OutInstant | None = None
    subscriber: Id | None = None
    detail: Detail | None = None


class HoldView(_Record):
    """The hold or exemption that ends last."""

    kind: Literal["hold", "exempt"]
    at: OutInstant
    until: OutInstant | None
    freeze_clock: bool


class PackageView(_Record):
    """A package that has something left and has not ended."""

    package_id: Id
    service: Service
    unit: Id
    remaining: OutFine
    ends_at: OutInstant


class AccountView(_Record):
    """How an account stands."""

    account_id: AccountId
    status: AccountStatus
    balance: OutBalance
    owed: OutMoney
    late_fee: OutMoney
    currency: Currency | None
    credit_limit: OutMoney
    arrears_since: OutInstant | None
    suspend_at: OutInstant | None
    delete_at: OutInstant | None
    sequence: Count
    last_command_id: Uuid | None
    suspended_services: tuple[str, ...] = Field(strict=False)
    unpaid_bills: tuple[UnpaidBill, ...] = Field(strict=False, max_length=100)
    unpaid_bills_count: Count
    unbilled: OutFine
    packages: tuple[PackageView, ...] = Field(strict=False)
    hold: HoldView | None
    policy: Label
    as_of: OutInstant


class DeadLetter(_Record):
    """A record that cannot be used, and why."""

    topic: str
    partition: Count | None
    offset: Count
    key: str | None
    value: str | None
    truncated: bool
    sha256: Sha256 | None
    error: ErrorCode
    field: str | None
    message: str
    received_at: OutInstant | None


OutputTopic = Literal["arrears.commands", "arrears.notices", "arrears.accounts", "arrears.dead-letters"]

OUT: Final[dict[OutputTopic, type[BaseModel]]] = {
    "arrears.commands": Command,
    "arrears.notices": Notice,
    "arrears.accounts": AccountView,
    "arrears.dead-letters": DeadLetter,
}


# JSON Schemas -----------------------------------------------------------------------------------------------------

Direction = Literal["in", "out"]


def schemas() -> dict[str, JsonSchema]:
    """The JSON Schema of a value of each topic, by the topic's name, in the order of the contract."""
    made: dict[str, JsonSchema] = {topic: adapter.json_schema() for topic, adapter in _IN.items()}
    made |= {topic: model.model_json_schema() for topic, model in OUT.items()}
    return {
        topic: {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": topic} | _without_titles(schema)
        for topic, schema in made.items()
    }


def schema_text(schema: JsonSchema) -> str:
    """A schema as its golden file holds it."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _without_titles(schema: JsonSchema) -> JsonSchema:
    """Without the titles that pydantic makes of the fields' names: they say nothing, and change with its versions."""

    def walk(node: object) -> object:
        match node:
            case dict():
                return {key: walk(value) for key, value in node.items() if key != "title" or not isinstance(value, str)}
            case list():
                return [walk(item) for item in node]
            case _:
                return node

    return {key: walk(value) for key, value in schema.items() if key != "title"}


def direction_of(topic: str) -> Direction:
    """Whether others write the topic's records or read them."""
    return "in" if topic in TOPICS else "out"


def incompatibilities(old: JsonSchema, new: JsonSchema, direction: Direction) -> list[str]:
    """Why `new` may not follow `old`, a line for each reason; empty if it may.

    Who writes our input goes on as before: whatever `old` took, `new` takes. Who reads our output does too: whatever
    `new` sends, `old` had announced. And no field is dropped, either way.
    """
    before, after = _resolved(old), _resolved(new)
    dropped = [f"{field}: the field is gone" for field in _dropped(before, after, "")]
    if direction == "in":
        return dropped + [f"{place}: no longer takes {what}" for place, what in _not_covered(after, before, "")]
    return dropped + [f"{place}: now sends {what}" for place, what in _not_covered(before, after, "")]


def _resolved(schema: JsonSchema) -> JsonSchema:
    """The schema with each `$ref` replaced by what it names (there is no recursion in the contract)."""
    definitions = schema.get("$defs", {})

    def walk(node: object) -> object:
        match node:
            case {"$ref": str(name), **rest}:
                return walk(definitions[name.rpartition("/")[2]] | rest)
            case dict():
                return {key: walk(value) for key, value in node.items() if key != "$defs"}
            case list():
                return [walk(item) for item in node]
            case _:
                return node

    return {key: walk(value) for key, value in schema.items() if key != "$defs"}


def _branches(schema: JsonSchema) -> list[JsonSchema]:
    return [branch for key in ("oneOf", "anyOf") for branch in schema.get(key, [])] or [schema]


def _of_its_kind(branch: JsonSchema, others: list[JsonSchema]) -> list[JsonSchema]:
    """Those of the others that have the branch's `kind`; all of them if none has."""
    kind = branch.get("properties", {}).get("kind", {}).get("const")
    return [other for other in others if other.get("properties", {}).get("kind", {}).get("const") == kind] or others


def _dropped(before: JsonSchema, after: JsonSchema, path: str) -> list[str]:
    """The fields of `before` that `after` does not know, in the order of `before`, each once."""
    found: dict[str, None] = {}
    for branch in _branches(before):
        left: JsonSchema = {}
        for other in _of_its_kind(branch, _branches(after)):
            left |= other.get("properties", {})
        for field, schema in branch.get("properties", {}).items():
            if field in left:
                found |= dict.fromkeys(_dropped(_item(schema), _item(left[field]), f"{path}{field}."))
            else:
                found[path + field] = None
    return list(found)


def _item(schema: JsonSchema) -> JsonSchema:
    """What a list holds, if it is one."""
    item: JsonSchema = next((branch["items"] for branch in _branches(schema) if "items" in branch), schema)
    return item


_ANY: Final = float("inf")
_LEAST: Final = ("minLength", "minimum", "exclusiveMinimum", "minItems", "minProperties")
_MOST: Final = ("maxLength", "maximum", "exclusiveMaximum", "maxItems", "maxProperties")
_PARTS: Final = ("required", "properties", "items", "additionalProperties")
_UNDERSTOOD: Final = ("type", "enum", "const", *_PARTS, *_LEAST, *_MOST)
#: What says nothing about which values are taken.
_WORDS: Final = ("$schema", "title", "description", "default", "examples", "deprecated", "discriminator")


def _not_covered(wide: JsonSchema, narrow: JsonSchema, path: str) -> list[tuple[str, str]]:
    """What `narrow` takes and `wide` does not, as (place, what); empty only if `wide` takes all that `narrow` does."""
    ours, theirs = _branches(wide), _branches(narrow)
    if len(ours) > 1 or len(theirs) > 1:
        # Of several that may take a branch, the nearest says why it does not.
        nearest = (
            min((_not_covered(other, branch, path) for other in _of_its_kind(branch, ours)), key=len)
            for branch in theirs
        )
        return [reason for reasons in nearest for reason in reasons]
    wide, narrow = ours[0], theirs[0]
    place = path or "the record"
    if more := _types(narrow) - _types(wide):
        return [(place, " or ".join(sorted(more)))]
    listed, given = _values(wide), _values(narrow)
    if listed is not None and (given is None or given - listed):
        return [(place, "any value" if given is None else ", ".join(sorted(given - listed)))]
    found = [(place, f"less than {key} {wide[key]}") for key in _LEAST if narrow.get(key, -1) < wide.get(key, -1)]
    found += [(place, f"more than {key} {wide[key]}") for key in _MOST if narrow.get(key, _ANY) > wide.get(key, _ANY)]
    # Of a pattern, say, only an equal one is known to take as much.
    unlike = [key for key in wide if key not in _UNDERSTOOD + _WORDS and narrow.get(key) != wide[key]]
    found += [(place, f"what {key} {wide[key]} does not allow") for key in unlike]
    return found + _fields_not_covered(wide, narrow, path)


def _fields_not_covered(wide: JsonSchema, narrow: JsonSchema, path: str) -> list[tuple[str, str]]:
    prefix = f"{path}." if path else ""
    always = narrow.get("required", [])
    found = [(prefix + field, "a record without it") for field in wide.get("required", []) if field not in always]
    known = narrow.get("properties", {})
    for field, schema in wide.get("properties", {}).items():
        if field in known:  # else it is new: what stood there before was ignored
            found += _not_covered(schema, known[field], prefix + field)
    if "items" in wide:
        found += _not_covered(wide["items"], narrow.get("items", {}), f"{path}[]")
    if "additionalProperties" in wide:
        ours, theirs = (_other_fields(schema.get("additionalProperties", {})) for schema in (wide, narrow))
        found += _not_covered(ours, theirs, f"{prefix}*")
    return found


def _other_fields(schema: object) -> JsonSchema:
    """What the fields that have no name may hold: false is nothing, true anything."""
    if isinstance(schema, dict):
        return schema
    return {} if schema else {"type": []}


_TYPES: Final = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})


def _types(schema: JsonSchema) -> frozenset[str]:
    types = schema.get("type", _TYPES)
    named = frozenset([types] if isinstance(types, str) else types)
    return named | {"integer"} if "number" in named else named


def _values(schema: JsonSchema) -> set[str] | None:
    """The values of an enumeration, as JSON; None if it is none."""
    if "const" in schema:
        return {json.dumps(schema["const"])}
    return {json.dumps(value) for value in schema["enum"]} if "enum" in schema else None


def main(arguments: Sequence[str]) -> int:
    """Write the golden schemas to `models/schemas`; refuse (1) to change them incompatibly, unless told to."""
    folder = Path(__file__).with_name("schemas")
    broken = []
    for topic, schema in schemas().items():
        golden = folder / f"{topic}.json"
        if golden.exists():
            old = json.loads(golden.read_text(encoding="utf-8"))
            broken += [f"{topic}: {reason}" for reason in incompatibilities(old, schema, direction_of(topic))]
    if broken and "--incompatible" not in arguments:
        advice = "make the change compatible, or (nothing is released yet) run it again with --incompatible"
        sys.stderr.write("\n".join([*broken, f"nothing written: {advice}"]) + "\n")
        return 1
    folder.mkdir(exist_ok=True)
    for topic, schema in schemas().items():
        (folder / f"{topic}.json").write_text(schema_text(schema), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
