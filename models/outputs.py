"""What goes out: commands, notices, account views and dead letters (contract §2), as they are published.

The structs carry texts ready to be written: amounts in their shortest form, instants in UTC with Z. `models.contract`
holds the same fields as pydantic models, and a test holds the two together.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from models.refusal import Refusal


#: A dead letter's value is cut to this many bytes of its text.
MAX_VALUE_BYTES: Final = 65_536
#: How many unpaid bills are listed; `unpaid_bills_count` counts them all.
MAX_UNPAID_BILLS: Final = 100

#: Every id that the monitor gives out lives in this name space (a UUIDv5 itself).
_NAMESPACE: Final = bytes.fromhex("7c0f6f1c4a3f5a0d9c6e2b1f0a9d8e77")


class UnpaidBill(msgspec.Struct, frozen=True, gc=False):
    """A bill that payments do not cover: its total and what is left of it to pay."""

    bill_id: str
    amount: str
    outstanding: str


class Command(msgspec.Struct, frozen=True, gc=False):
    """An order to enforcement: suspend, restore or delete."""

    command_id: str
    account_id: str
    sequence: int
    action: str
    services: tuple[str, ...]
    effective_at: str
    decided_at: str
    arrears_since: str | None
    owed: str
    late_fee: str
    currency: str | None
    unpaid_bills: tuple[UnpaidBill, ...]
    unpaid_bills_count: int
    policy: str
    policy_hash: str
    clause: str
    reason: str
    supersedes: str | None
    evidence: dict[str, int] | None
    notice_id: str | None


class _NoticeFields(msgspec.Struct, frozen=True, gc=False):
    notice_id: str
    account_id: str
    kind: str
    at: str
    owed: str
    late_fee: str
    currency: str | None
    arrears_since: str | None
    deadline: str | None
    command_id: str | None


class Notice(_NoticeFields, frozen=True, gc=False, omit_defaults=True):
    """Something that the customer or an operator is told (R9). The fields with a default are there where they apply."""

    policy: str | None = None
    reason: str | None = None
    services: tuple[str, ...] | None = None
    event_id: str | None = None
    usage_id: str | None = None
    package_id: str | None = None
    payment_id: str | None = None
    service: str | None = None
    quantity: str | None = None
    unit: str | None = None
    amount: str | None = None
    started_at: str | None = None
    subscriber: str | None = None
    detail: str | None = None


class PackageView(msgspec.Struct, frozen=True, gc=False):
    """A package that has something left and has not ended."""

    package_id: str
    service: str
    unit: str
    remaining: str
    ends_at: str


class HoldView(msgspec.Struct, frozen=True, gc=False):
    """The hold that is in force; of several the one that ends last."""

    kind: str
    at: str
    until: str | None
    freeze_clock: bool


class AccountView(msgspec.Struct, frozen=True, gc=False):
    """An account as it stands at `as_of`."""

    account_id: str
    status: str
    balance: str
    owed: str
    late_fee: str
    currency: str | None
    credit_limit: str
    arrears_since: str | None
    suspend_at: str | None
    delete_at: str | None
    sequence: int
    last_command_id: str | None
    suspended_services: tuple[str, ...]
    unpaid_bills: tuple[UnpaidBill, ...]
    unpaid_bills_count: int
    unbilled: str
    packages: tuple[PackageView, ...]
    hold: HoldView | None
    policy: str
    as_of: str


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """A record that cannot be used, and why."""

    topic: str
    partition: int | None
    offset: int
    key: str | None
    value: str | None
    error: str
    field: str | None
    message: str
    received_at: str | None
    truncated: bool
    sha256: str | None


class Source(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a record came from: what its dead letter will tell, should it come to that."""

    topic: str
    partition: int | None
    offset: int
    key: bytes | None
    value: bytes | None
    received_at: str | None


def dead_letter(source: Source, refusal: Refusal) -> DeadLetter:
    """The dead letter of a refused record."""
    value, truncated, digest = None, False, None
    if source.value is not None:
        value, truncated = _cut(_as_text(source.value))
        digest = hashlib.sha256(source.value).hexdigest()
    return DeadLetter(
        source.topic,
        source.partition,
        source.offset,
        None if source.key is None else _as_text(source.key),
        value,
        refusal.error,
        refusal.field,
        refusal.message,
        source.received_at,
        truncated,
        digest,
    )


def _as_text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return base64.b64encode(raw).decode()


def _cut(text: str) -> tuple[str, bool]:
    if len(text) <= MAX_VALUE_BYTES // 4:  # no character is longer than four bytes
        return text, False
    raw = text.encode()
    if len(raw) <= MAX_VALUE_BYTES:
        return text, False
    return raw[:MAX_VALUE_BYTES].decode(errors="ignore"), True


def stable_id(*parts: object) -> str:
    """A UUIDv5 (RFC 9562) of these parts: computed again it is the same."""
    word = hashlib.sha1(_NAMESPACE + _encode_parts(parts), usedforsecurity=False).hexdigest()
    return f"{word[:8]}-{word[8:12]}-5{word[13:16]}-{_VARIANTS[word[16]]}{word[17:20]}-{word[20:32]}"


#: The digit that says the variant, by the digit of the hash that it takes the place of.
_VARIANTS: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
_encode_parts: Final = msgspec.json.Encoder().encode
