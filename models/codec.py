"""An account's durable bytes: a head, and rows for what is too much to rewrite with every change.

A head is one version byte and a msgpack array. Of an ordinary account it holds everything. When an account has more
than `INLINE` movements, bills, usage ids or unbilled costs, that collection moves to rows (buckets by the hash of the
id), and only rows that have changed are encoded again.

A release writes `VERSION`; it reads that and what came before. Bytes of a newer version raise `NewerState`.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from models.account import Account, Fact
from models.enforcement import STATUSES, Action, Deletion, Enforcement
from models.everybody import Everybody, PoliciesFrom, Stop
from models.instants import Duration, Instant
from models.ledger import Fold, Ledger, Movement, OpenBill, Waiting
from models.money import Fine, Money
from models.packages import Buckets, Costs, Prepaid, Seen, UsageBook
from models.policy import Policies, Policy
from models.records import Payment, Usage
from models.standing import Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VERSION: Final = 1
#: A collection with more items than this lives in rows, about half as many in each.
INLINE: Final = 64
_ROW_LEAST, _ROW_MOST = 16, 128

_Item = TypeVar("_Item")
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class NewerState(Exception):
    """State that was written by a newer release: this one cannot read it."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"state of version {version}; this release reads up to version {VERSION}: start a newer release"
        )
        self.version = version


class _FactState(msgspec.Struct, array_like=True, gc=False):
    kind: str
    usage: Usage | None
    payment: Payment | None
    package_id: str | None
    deletion: Deletion | None


class _FoldState(msgspec.Struct, array_like=True, gc=False):
    balance: Money
    limit: Money
    at: Instant
    since: Instant | None
    integral: bytes
    ended_since: Instant | None = None
    ended_at: Instant = 0
    ended_integral: bytes = b""


class _LedgerState(msgspec.Struct, array_like=True, gc=False):
    base: _FoldState
    tip: _FoldState
    folded: int
    covered: int
    open_total: Money
    stale: bool
    movement_rows: int
    bill_rows: int
    movements: list[Movement]
    bills: list[OpenBill]
    waiting: list[Waiting] = []
    opened_at: Instant | None = None
    opened_since: Instant | None = None


class _UsageState(msgspec.Struct, array_like=True, gc=False):
    packages: list[Prepaid]
    package_events: dict[str, tuple[Instant, int]]
    unbilled: Fine
    seen_rows: int
    seen: dict[str, tuple[Instant, int]]
    cost_rows: int
    costs: dict[Instant, Fine]


class _Head(msgspec.Struct, array_like=True, gc=False):
    due: Instant | None
    flags: int
    currency: str | None
    owed: Money
    ledger: _LedgerState
    enforcement: Enforcement | None = None
    own: Standing | None = None
    control_events: dict[str, tuple[Instant, int]] = {}
    billed_until: Instant | None = None
    usage: _UsageState | None = None
    facts: list[_FactState] = []


class Peek(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The first fields of a head: what a monitor has to know of an account that it does not decode."""

    due: Instant | None
    flags: int
    currency: str | None
    owed: Money

    @property
    def is_active(self) -> bool:
        """Whether anything was ever commanded or told of it."""
        return bool(self.flags & _ACTIVE)

    @property
    def is_touched(self) -> bool:
        """Whether records were applied that no decision has seen."""
        return bool(self.flags & _TOUCHED)

    @property
    def is_waiting(self) -> bool:
        """Whether a change of a bill waits for its bill."""
        return bool(self.flags & _WAITING)

    @property
    def is_unseen(self) -> bool:
        """Whether it has changed since its last view."""
        return bool(self.flags & _UNSEEN)

    @property
    def is_held_back(self) -> bool:
        """Whether a command of it waits until what stops it is gone."""
        return bool(self.flags & _HELD_BACK)

    @property
    def status(self) -> str:
        """That of its view."""
        return STATUSES[self.flags >> _STATUS_FROM]


_USABLE, _STOPPED, _RECHECK, _CHANGED, _TOUCHED, _ACTIVE, _WAITING, _UNSEEN, _HELD_BACK = (1 << bit for bit in range(9))
_STATUS_FROM: Final = 9

_pack = msgspec.msgpack.Encoder().encode


def _encode(value: object) -> bytes:
    """msgpack; or JSON, which no msgpack array or map begins like, where an amount needs more than 64 bits."""
    try:
        return _pack(value)
    except OverflowError:
        return json.dumps(msgspec.to_builtins(value), separators=(",", ":")).encode()


def _decoder(kind: type[_Item]) -> Callable[[bytes], _Item]:
    unpack = msgspec.msgpack.Decoder(kind).decode

    def decode(data: bytes) -> _Item:
        if data[:1] in b"[{":
            return msgspec.convert(json.loads(data), kind, strict=False)
        return unpack(data)

    return decode


_decode_head = _decoder(_Head)
_decode_peek = _decoder(Peek)
_decode_movements = _decoder(list[Movement])
_decode_bills = _decoder(list[OpenBill])
_decode_seen = _decoder(dict[str, tuple[Instant, int]])
_decode_costs = _decoder(dict[Instant, Fine])

#: What is to be written: row name -> bytes, or None for a row that is gone.
Rows = dict[bytes, bytes | None]


def peek(head: bytes) -> Peek:
    """The first fields of a head, without decoding the rest."""
    _check_version(head)
    return _decode_peek(head[1:])


# -- encoding ----------------------------------------------------------------------------------------------------------


def encode_account(account: Account) -> tuple[bytes, Rows]:
    """The head, and the rows that have changed since the account was encoded or decoded last."""
    rows: Rows = {}
    flags = (
        _USABLE * account.usable
        | _STOPPED * account.stopped
        | _RECHECK * account.recheck
        | _CHANGED * account.changed
        | _TOUCHED * account.touched
        | _ACTIVE * (account.enforcement is not None)
        | _WAITING * bool(account.ledger.waiting)
        | _UNSEEN * account.unseen
        | _HELD_BACK * account.held_back
        | (0 if account.enforcement is None else STATUSES.index(account.enforcement.status)) << _STATUS_FROM
    )
    head = _Head(
        account.due,
        flags,
        account.currency,
        account.ledger.owed,
        _ledger_state(account.ledger, rows),
        account.enforcement,
        account.own,
        account.control_events,
        account.billed_until,
        None if account.usage is None else _usage_state(account.usage, rows),
        [_fact_state(fact) for fact in account.facts],
    )
    return bytes((VERSION,)) + _encode(head), rows


def _ledger_state(ledger: Ledger, rows: Rows) -> _LedgerState:
    changes = ledger.changes
    bills = ledger.known_bills()
    movement_rows = _write_rows(
        b"m", ledger.movements, lambda m: m.event_id, changes.movements, changes.movement_rows, rows
    )
    bill_rows = _write_rows(b"b", bills, lambda b: b.bill_id, changes.bills, changes.bill_rows, rows)
    changes.encoded(movement_rows, bill_rows)
    return _LedgerState(
        _fold_state(ledger.base),
        _fold_state(ledger.tip),
        *ledger.position(),
        movement_rows,
        bill_rows,
        [] if movement_rows else ledger.movements,
        [] if bill_rows else bills,
        ledger.waiting,
        ledger.opened_at,
        ledger.opened_since,
    )


def _fold_state(fold: Fold) -> _FoldState:
    # An integral (millionths x µs) soon needs more than the 64 bits of a msgpack integer.
    integral, ended = _big(fold.integral), _big(fold.ended_integral)
    return _FoldState(fold.balance, fold.limit, fold.at, fold.since, integral, fold.ended_since, fold.ended_at, ended)


def _big(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True) if value else b""


def _write_rows(
    kind: bytes,
    items: list[_Item],
    name: Callable[[_Item], str],
    changed: set[str],
    number: int,
    rows: Rows,
) -> int:
    """Encode the buckets with a changed item; returns how many there are now (0: the items stay in the head)."""
    wanted = _row_number(len(items), number)
    buckets = {_bucket(item_id, wanted) for item_id in changed} if wanted else set()
    if wanted != number:
        rows.update({_row(kind, bucket): None for bucket in range(number)})
        buckets = set(range(wanted))
    if buckets:
        content: dict[int, list[_Item]] = {bucket: [] for bucket in buckets}
        for item in items:
            bucket = _bucket(name(item), wanted)
            if bucket in content:
                content[bucket].append(item)
        rows.update({_row(kind, bucket): _encode(found) for bucket, found in content.items()})
    return wanted


def _row_number(size: int, number: int) -> int:
    if size <= INLINE // (2 if number else 1):
        return 0
    if number and _ROW_LEAST * number <= size <= _ROW_MOST * number:
        return number
    wanted = 1
    while wanted * INLINE < size:
        wanted *= 2
    return wanted


def _bucket(name: str, number: int) -> int:
    return zlib.crc32(name.encode()) & (number - 1)


def _row(kind: bytes, number: int) -> bytes:
    return kind + b"%d" % number


def _usage_state(usage: UsageBook, rows: Rows) -> _UsageState:
    seen_rows, seen = _parts(b"u", usage.seen, rows)
    cost_rows, costs = _parts(b"c", usage.costs, rows)
    return _UsageState(usage.packages, usage.package_events, usage.unbilled, seen_rows, seen, cost_rows, costs)


def _parts(kind: bytes, buckets: Buckets[_Key, _Value], rows: Rows) -> tuple[int, dict[_Key, _Value]]:
    """Encode the changed parts; returns how many parts there are (0: one, which stays in the head), and that one."""
    number = len(buckets.parts) if len(buckets.parts) > 1 else 0
    for part in sorted(buckets.changed):
        if part < number:
            rows[_row(kind, part)] = _encode(buckets.parts[part])
        elif buckets.in_rows:
            rows[_row(kind, part)] = None
    buckets.changed.clear()
    buckets.in_rows = bool(number)
    return number, {} if number else buckets.parts[0]


def _fact_state(fact: Fact) -> _FactState:
    record = fact.record
    if isinstance(record, Usage):
        return _FactState(fact.kind, record, None, fact.package_id, fact.deletion)
    return _FactState(fact.kind, None, record, fact.package_id, fact.deletion)


# -- decoding ----------------------------------------------------------------------------------------------------------


def decode_account(account_id: str, head: bytes, rows: Mapping[bytes, bytes]) -> Account:
    """The account of a head and its rows. Raises NewerState."""
    _check_version(head)
    state = _decode_head(head[1:])
    account = Account(account_id)
    account.due = state.due
    account.currency = state.currency
    account.usable = bool(state.flags & _USABLE)
    account.stopped = bool(state.flags & _STOPPED)
    account.recheck = bool(state.flags & _RECHECK)
    account.changed = bool(state.flags & _CHANGED)
    account.touched = bool(state.flags & _TOUCHED)
    account.unseen = bool(state.flags & _UNSEEN)
    account.held_back = bool(state.flags & _HELD_BACK)
    account.ledger = _ledger(state.ledger, rows)
    account.enforcement = state.enforcement
    account.own = state.own
    account.control_events = state.control_events
    account.billed_until = state.billed_until
    if state.usage is not None:
        account.usage = _usage(state.usage, rows)
    account.facts = [_fact(fact) for fact in state.facts]
    return account


def _check_version(head: bytes) -> None:
    if head[0] > VERSION:
        raise NewerState(head[0])


def _ledger(state: _LedgerState, rows: Mapping[bytes, bytes]) -> Ledger:
    movements, bills = state.movements, state.bills
    if state.movement_rows:
        movements = _read_rows(b"m", state.movement_rows, _decode_movements, rows)
    if state.bill_rows:
        bills = _read_rows(b"b", state.bill_rows, _decode_bills, rows)
    ledger = Ledger()
    ledger.base, ledger.tip = _fold(state.base), _fold(state.tip)
    ledger.waiting = state.waiting
    ledger.opened_at, ledger.opened_since = state.opened_at, state.opened_since
    ledger.resume(movements, bills, state.folded, state.covered, state.open_total, stale=state.stale)
    ledger.changes.encoded(state.movement_rows, state.bill_rows)
    return ledger


def _fold(state: _FoldState) -> Fold:
    return Fold(
        state.balance,
        state.limit,
        state.at,
        state.since,
        int.from_bytes(state.integral, "little", signed=True),
        state.ended_since,
        state.ended_at,
        int.from_bytes(state.ended_integral, "little", signed=True),
    )


def _read_rows(
    kind: bytes, number: int, decode: Callable[[bytes], list[_Item]], rows: Mapping[bytes, bytes]
) -> list[_Item]:
    return [item for bucket in range(number) for item in decode(rows[_row(kind, bucket)])]


def _usage(state: _UsageState, rows: Mapping[bytes, bytes]) -> UsageBook:
    usage = UsageBook()
    usage.packages, usage.package_events, usage.unbilled = state.packages, state.package_events, state.unbilled
    if state.seen_rows:
        usage.seen = Seen([_decode_seen(rows[_row(b"u", part)]) for part in range(state.seen_rows)])
    else:
        usage.seen = Seen([state.seen])
    if state.cost_rows:
        usage.costs = Costs([_decode_costs(rows[_row(b"c", part)]) for part in range(state.cost_rows)])
    else:
        usage.costs = Costs([state.costs])
    return usage


def _fact(state: _FactState) -> Fact:
    record = state.usage or state.payment
    assert record is not None  # one of them always is
    return Fact(state.kind, record, state.package_id, state.deletion)


# -- what stands for everybody -----------------------------------------------------------------------------------------


class _EverybodyState(msgspec.Struct, array_like=True):
    decided_to: Instant
    is_touched: bool
    history: Duration
    standing: Standing
    events: dict[str, tuple[Instant, int]]
    versions: list[Policy]
    in_force: list[PoliciesFrom]
    stops: list[Stop]
    recent: dict[Action, dict[Instant, int]]
    unlimited_until: Instant


_decode_everybody = _decoder(_EverybodyState)


def encode_everybody(everybody: Everybody) -> bytes:
    """What stands for the whole partition."""
    state = _EverybodyState(
        everybody.decided_to,
        everybody.is_touched or everybody.is_spreading,  # what was begun and not ended begins again
        everybody.history,
        everybody.standing,
        everybody.events,
        everybody.versions,
        everybody.in_force,
        list(everybody.stops.values()),
        everybody.recent,
        everybody.unlimited_until,
    )
    return bytes((VERSION,)) + _encode(state)


def decode_everybody(data: bytes) -> Everybody:
    """What `encode_everybody` wrote. Raises NewerState."""
    _check_version(data)
    state = _decode_everybody(data[1:])
    everybody = Everybody(Policies(state.in_force[0].policies.versions), state.history)
    everybody.decided_to, everybody.is_touched = state.decided_to, state.is_touched
    everybody.standing, everybody.events = state.standing, state.events
    everybody.versions, everybody.in_force = state.versions, state.in_force
    everybody.stops = {stop.reason: stop for stop in state.stops}
    everybody.recent = state.recent
    everybody.unlimited_until = state.unlimited_until
    return everybody
