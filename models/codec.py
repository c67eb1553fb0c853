"""An account's durable bytes: a head, and rows for what is too much to rewrite with every change.

A head is one version byte and a msgpack array. Of an ordinary account it holds everything. When an account has more
than `INLINE` movements, bills, usage ids or unbilled costs, that collection moves to rows (buckets by the hash of the
id), and only rows that have changed are encoded again.

Which versions are read and written stands in `state_version`. Bytes of a newer one raise `NewerState`.
"""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec

from models.account import ACTIVE, STATUS, WAITING, Account
from models.enforcement import STATUSES, Action
from models.everybody import Everybody, PoliciesFrom, Stop
from models.instants import Duration, Instant
from models.ledger import Changes, Movement, OpenBill, bill_order, movement_order
from models.money import Fine, Money
from models.packages import Prepaid, UsageBook
from models.policy import Policies, Policy
from models.standing import Standing
from models.state_version import VERSION, VERSION_BYTES, WRITES, check_version
from models.usage_log import Costs, Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from models.ledger import Ledger
    from models.usage_log import Log

#: A collection with more items than this lives in rows, about half as many in each.
INLINE: Final = 64
_ROW_LEAST, _ROW_MOST = 16, 128

_Item = TypeVar("_Item")


class _UsageState(msgspec.Struct, array_like=True, gc=False):
    packages: list[Prepaid]
    package_events: dict[str, tuple[Instant, int]]
    unbilled: Fine
    #: In how many rows a log is, or 0: it stands here.
    seen_rows: int
    seen: bytes
    cost_rows: int
    costs: bytes


class Peek(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The first fields of a head: what a monitor has to know of an account that it does not decode."""

    account_id: str
    due: Instant | None
    mark: Instant | None
    currency: str | None
    summary: int
    owed: Money
    #: Whether records were applied that no decision has seen.
    touched: bool
    #: Whether it has changed since its last view.
    unseen: bool
    #: Whether a command of it waits until what stops it is gone.
    held_back: bool

    @property
    def status(self) -> str:
        """The account's, as in its view."""
        return STATUSES[self.summary & STATUS]

    @property
    def is_active(self) -> bool:
        """Whether anything was ever commanded or told of it."""
        return bool(self.summary & ACTIVE)

    @property
    def is_waiting(self) -> bool:
        """Whether a change of a bill waits for its bill."""
        return bool(self.summary & WAITING)


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
        try:
            return unpack(data)
        except msgspec.DecodeError:
            if data[:1] not in (b"[", b"{"):
                raise
            return msgspec.convert(json.loads(data), kind, strict=False)

    return decode


_decode_head = _decoder(Account)
_decode_usage = _decoder(_UsageState)
_decode_peek = _decoder(Peek)
_decode_movements = _decoder(list[Movement])
_decode_bills = _decoder(list[OpenBill])

#: What is to be written: row name -> bytes, or None for a row that is gone.
Rows = dict[bytes, bytes | None]


def peek(head: bytes) -> Peek:
    """The first fields of a head, without decoding the rest."""
    if head[0] != VERSION:
        check_version(head)
    return _decode_peek(head[1:])


# -- encoding ----------------------------------------------------------------------------------------------------------


def encode_account(account: Account, version: int = WRITES) -> tuple[bytes, Rows]:
    """The head of this version, and the rows that have changed since the account was encoded or decoded last."""
    account.sum_up()
    ledger = account.ledger
    rows: Rows = {}
    account_id, usage = account.account_id, account.usage
    if usage is not None:
        account.packed_usage = _encode(_usage_state(usage, rows))
        account.usage = None
    if ledger.changes is not None or ledger.size() > INLINE:
        _write_ledger(ledger, ledger.changes or Changes(), rows)
    account.account_id = ""
    ledger.carry()
    if ledger.changes is None:
        ledger.pack()
        head = _encode(account)
    else:
        head = _encode_with_rows(account, ledger, ledger.changes)
    account.account_id = account_id
    if usage is not None:
        account.usage = usage
    return VERSION_BYTES[version] + head, rows


def _write_ledger(ledger: Ledger, changes: Changes, rows: Rows) -> None:
    ledger.unpack()
    known = ledger.by_ids()
    movements = _Collection(
        b"m", ledger.movements, attrgetter("event_id"), movement_order, known.movements_of, known.movement_rows
    )
    bills = _Collection(b"b", known.bills.values(), attrgetter("bill_id"), bill_order, known.bills_of, known.bill_rows)
    movement_rows = movements.write(len(ledger.movements), changes.movements, changes.movement_rows, rows)
    bill_rows = bills.write(len(known.bills), changes.bills, changes.bill_rows, rows)
    known.movement_rows, known.bill_rows = movements.kept, bills.kept
    ledger.changes = Changes(movement_rows, bill_rows) if movement_rows or bill_rows else None


def _encode_with_rows(account: Account, ledger: Ledger, changes: Changes) -> bytes:
    """The head without what stands in rows: the account stays as it is."""
    movements, bills, known = ledger.movements, ledger.bills, ledger.known
    ledger.known = None
    if changes.movement_rows:
        ledger.movements = []
    if changes.bill_rows:
        ledger.bills = []
    elif known is not None:
        ledger.ahead = ledger.not_folded(known)
    head = _encode(account)
    ledger.movements, ledger.bills, ledger.known = movements, bills, known
    if known is not None:
        ledger.ahead = []
    return head


class _Collection(Generic[_Item]):
    """Movements or bills on their way to rows."""

    def __init__(
        self,
        kind: bytes,
        items: Iterable[_Item],
        name: Callable[[_Item], str],
        order: Callable[[_Item], tuple[object, ...]],
        find: Callable[[str], list[_Item]],
        kept: list[list[_Item]],
    ) -> None:
        self._kind = kind
        self._items = items
        self._name = name
        #: A row's bytes are the same, however its items came.
        self._order: Any = order
        self._find = find
        #: What each row holds. Empty: not known.
        self.kept = kept

    def write(self, size: int, changed: set[str], number: int, rows: Rows) -> int:
        """Encode the rows with a changed item; returns how many there are now (0: the items stay in the head)."""
        wanted = _row_number(size, number)
        if wanted != number:
            rows.update({_row(self._kind, bucket): None for bucket in range(number)})
        if not wanted:
            self.kept = []
            return 0
        buckets = {_bucket(item_id, wanted) for item_id in changed} if wanted == number else set(range(wanted))
        if buckets and (len(self.kept) != wanted or not self._keep(changed, wanted)):
            self.kept = self._sorted_out(wanted)
        for bucket in buckets:
            self.kept[bucket].sort(key=self._order)
            rows[_row(self._kind, bucket)] = _encode(self.kept[bucket])
        return wanted

    def _keep(self, changed: set[str], number: int) -> bool:
        """Bring what is kept up to date. False if it cannot be told: something is gone, or two have one id."""
        name, found = self._name, defaultdict[int, list[_Item]](list)
        for item_id in changed:
            found[_bucket(item_id, number)] += self._find(item_id)
        for bucket, items in found.items():
            here = set(map(id, items))
            stays = []
            for item in self.kept[bucket]:
                if name(item) not in changed:
                    stays.append(item)
                elif id(item) not in here:
                    return False
            self.kept[bucket] = stays + items
        return True

    def _sorted_out(self, number: int) -> list[list[_Item]]:
        content: list[list[_Item]] = [[] for _ in range(number)]
        for item in self._items:
            content[_bucket(self._name(item), number)].append(item)
        return content


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


def _parts(kind: bytes, log: Log, rows: Rows) -> tuple[int, bytes]:
    """Write the parts that have changed; returns how many there are (0: one, which stays in the head), and that one."""
    number = len(log.parts) if len(log.parts) > 1 else 0
    if number or log.in_rows:
        for part in sorted(log.changed):
            if part < number:
                rows[_row(kind, part)] = log.parts[part]
            elif log.in_rows:
                rows[_row(kind, part)] = None
    log.changed.clear()
    log.in_rows = bool(number)
    return number, b"" if number else log.parts[0]


# -- decoding ----------------------------------------------------------------------------------------------------------


def decode_account(account_id: str, head: bytes, rows: Mapping[bytes, bytes]) -> Account:
    """The account of a head and its rows. Raises NewerState."""
    if head[0] != VERSION:
        check_version(head)
    account = _decode_head(head[1:])
    account.account_id = account_id
    if account.ledger.changes is not None:
        _read_ledger(account.ledger, account.ledger.changes, rows)
    if account.packed_usage:
        account.usage = _usage(_decode_usage(account.packed_usage), rows)
    return account


def _read_ledger(ledger: Ledger, changes: Changes, rows: Mapping[bytes, bytes]) -> None:
    ledger.resume(
        _read_rows(b"m", changes.movement_rows, _decode_movements, rows) if changes.movement_rows else None,
        _read_rows(b"b", changes.bill_rows, _decode_bills, rows) if changes.bill_rows else None,
    )


def _read_rows(
    kind: bytes, number: int, decode: Callable[[bytes], list[_Item]], rows: Mapping[bytes, bytes]
) -> list[_Item]:
    return [item for bucket in range(number) for item in decode(rows[_row(kind, bucket)])]


def _usage(state: _UsageState, rows: Mapping[bytes, bytes]) -> UsageBook:
    return UsageBook(
        state.packages,
        state.package_events,
        state.unbilled,
        Seen(_read_parts(b"u", state.seen_rows, rows) if state.seen_rows else [state.seen]),
        Costs(_read_parts(b"c", state.cost_rows, rows) if state.cost_rows else [state.costs]),
    )


def _read_parts(kind: bytes, number: int, rows: Mapping[bytes, bytes]) -> list[bytes]:
    return [rows[_row(kind, part)] for part in range(number)]


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


def encode_everybody(everybody: Everybody, version: int = WRITES) -> bytes:
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
    return VERSION_BYTES[version] + _encode(state)


def decode_everybody(data: bytes) -> Everybody:
    """What `encode_everybody` wrote. Raises NewerState."""
    check_version(data)
    state = _decode_everybody(data[1:])
    everybody = Everybody(Policies(state.in_force[0].policies.versions), state.history)
    everybody.decided_to, everybody.is_touched = state.decided_to, state.is_touched
    everybody.standing, everybody.events = state.standing, state.events
    everybody.versions, everybody.in_force = state.versions, state.in_force
    everybody.stops = {stop.reason: stop for stop in state.stops}
    everybody.recent = state.recent
    everybody.unlimited_until = state.unlimited_until
    return everybody
