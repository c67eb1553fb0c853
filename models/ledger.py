"""The ledger: what happened and when it happened, folded into a balance (contract §1 "Two layers").

Laws of this file:

- The fold is a function of the accepted movements, never of the order in which they arrived.
- All movements of one instant count together: whether an account is in arrears is asked between instants only.
- Movements older than the horizon are folded into the base and forgotten; open bills never are.
- A refused record leaves no trace.

A movement that arrives in order advances the fold by one step. One that arrives late (before what is folded already)
makes it stale, and the next `settle` folds again from the base.

A ledger is what is encoded, too. Most of it is history that is only ever asked whether it knows an id: folded movements
and covered bills stay packed, as the bytes that they are encoded to, until something else is asked of them.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final

import msgspec

from models.instants import Instant
from models.money import Money
from models.outputs import Source
from models.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.account import Origin
    from models.records import Bill, Control, Payment

# Kinds of movement, in the order in which those of one instant are folded: a void after the adjustments, a reopen last.
OPENING, ISSUED, ADJUSTED, VOIDED, TOPUP, DEBIT, GIFT, LIMIT, REOPEN = range(9)

_BILL_KINDS: Final = frozenset((ISSUED, ADJUSTED, VOIDED))
_CHANGES: Final = frozenset((ADJUSTED, VOIDED))
_PAYMENTS: Final = frozenset((TOPUP, DEBIT, GIFT))
_PAYMENT_KINDS: Final = {"topup": TOPUP, "refund": DEBIT, "reversal": DEBIT, "gift": GIFT}

#: How many folded movements may lie before the horizon until they are dropped.
_SLACK: Final = 64

#: So many bits of an integral stay in its lower part.
_CARRIED: Final = 62
_BELOW: Final = (1 << _CARRIED) - 1


class Movement(msgspec.Struct, array_like=True, gc=False):
    """One accepted record that bears on the balance.

    `delta` is what it adds to the balance (of a LIMIT: the new credit limit; of an OPENING: the balance). `ref` is the
    bill's or the payment's id. `crc` is the fingerprint of the record's content.
    """

    at: Instant
    kind: int
    event_id: str
    delta: Money
    ref: str
    crc: int


class OpenBill(msgspec.Struct, array_like=True, gc=False):
    """A bill that is not forgotten: `total` as folded so far, `final` with everything accepted."""

    bill_id: str
    issued_at: Instant
    final: Money
    changed_at: Instant
    voided_at: Instant | None = None
    total: Money = 0
    covered_at: Instant | None = None


class Waiting(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An adjustment or a void whose bill is not there yet."""

    movement: Movement
    total: Money
    currency: str
    source: Source


class Fold(msgspec.Struct, array_like=True, gc=False):
    """The sum of the movements up to `at`. What holds at `at` itself is judged when a later instant is reached.

    Integrals soon need more than the 64 bits that an encoded number has: `carry` moves what is above 2^62 to fields of
    their own.
    """

    balance: Money = 0
    limit: Money = 0
    at: Instant = 0
    #: Start of the episode that ran before `at`; None if the account was clear.
    since: Instant | None = None
    #: What was owed times how long, from `since` to `at` (millionths times µs): its lower part.
    integral: int = 0
    integral_above: int = 0
    #: The episode that ended last: its start, its end, its integral.
    ended_since: Instant | None = None
    ended_at: Instant = 0
    ended_integral: int = 0
    ended_integral_above: int = 0

    def whole_integral(self) -> int:
        """What was owed times how long, from `since` to `at`."""
        return (self.integral_above << _CARRIED) + self.integral

    def carry(self) -> None:
        """Split the integrals, ready to be encoded."""
        if self.integral > _BELOW:
            self.integral_above += self.integral >> _CARRIED
            self.integral &= _BELOW
        if self.ended_integral > _BELOW:
            self.ended_integral_above += self.ended_integral >> _CARRIED
            self.ended_integral &= _BELOW

    def add(self, movement: Movement, opened_since: Instant | None) -> None:
        """Add a movement of the instant `at`; `opened_since` is the `arrears_since` of an opening."""
        kind = movement.kind
        if kind == LIMIT:
            self.limit = movement.delta
        elif kind == REOPEN:  # "if the balance does not cover the bills, a new episode begins at its `at`"
            self.since, self.integral, self.integral_above = None, 0, 0
        elif kind == OPENING:
            self.balance += movement.delta
            # Its `at` counts as the start of the fee.
            self.since, self.integral, self.integral_above = opened_since, 0, 0
        else:
            self.balance += movement.delta

    def close(self, until: Instant) -> None:
        """Everything up to `self.at` is in: judge it, and let time pass until the next instant."""
        balance = self.balance
        if balance + self.limit < 0:  # R1
            if self.since is None:
                self.since, self.integral, self.integral_above = self.at, 0, 0
            self.integral -= balance * (until - self.at)
        elif self.since is not None:
            self.ended_since, self.ended_at = self.since, self.at
            self.ended_integral, self.ended_integral_above = self.integral, self.integral_above
            self.since = None
        self.at = until


class Changes(msgspec.Struct, array_like=True):
    """Of a ledger in rows: in how many rows it was encoded last (0: in none), and the ids of what has changed since."""

    movement_rows: int = 0
    bill_rows: int = 0
    movements: set[str] = set()
    bills: set[str] = set()


class Known(msgspec.Struct, gc=False):
    """What is not packed, by its ids."""

    bills: dict[str, OpenBill] = {}
    bill_events: dict[str, Movement] = {}
    payment_events: dict[str, Movement] = {}
    control_events: dict[str, Movement] = {}
    #: When a payment of this id was made.
    topups: dict[str, Instant] = {}
    #: Of a ledger in rows: what stands in each as it was written last. Empty: not known.
    movement_rows: list[list[Movement]] = []
    bill_rows: list[list[OpenBill]] = []

    def add(self, movement: Movement) -> None:
        """A movement, by its id."""
        self.events(movement.kind)[movement.event_id] = movement
        if movement.kind == TOPUP:
            self.topups[movement.ref] = movement.at

    def events(self, kind: int) -> dict[str, Movement]:
        """Where movements of this kind are: ids are unique within a topic."""
        if kind in _BILL_KINDS:
            return self.bill_events
        return self.payment_events if kind in _PAYMENTS else self.control_events

    def movements_of(self, event_id: str) -> list[Movement]:
        """Those with this id, one of a topic at most: of two the newer."""
        found = (self.bill_events.get(event_id), self.payment_events.get(event_id), self.control_events.get(event_id))
        return [movement for movement in found if movement is not None]

    def bills_of(self, bill_id: str) -> list[OpenBill]:
        """The bill with this id, if there is one."""
        bill = self.bills.get(bill_id)
        return [] if bill is None else [bill]


#: From so many items on an array's beginning has 3 bytes, or 5.
_SHORT_ARRAY: Final = 16
_MEDIUM_ARRAY: Final = 1 << 16

_pack: Final = msgspec.msgpack.Encoder().encode
_unpack_movements: Final = msgspec.msgpack.Decoder(list[Movement]).decode
_unpack_bills: Final = msgspec.msgpack.Decoder(list[OpenBill]).decode


def _items(items: list[Movement] | list[OpenBill]) -> bytes:
    """The encoded items, one after the other."""
    count = len(items)
    return _pack(items)[1 if count < _SHORT_ARRAY else 3 if count < _MEDIUM_ARRAY else 5 :]


def _as_array(count: int, items: bytes) -> bytes:
    """So many encoded items as one msgpack array."""
    return b"\xdd" + count.to_bytes(4, "big") + items


class Ledger(msgspec.Struct, array_like=True, gc=False):
    """The movements of one account within its history, and the fold over them."""

    tip: Fold = msgspec.field(default_factory=Fold)
    #: What was folded before the horizon passed over it.
    base: Fold | None = None
    #: History: movements that are folded, and bills that are covered; they come before all others.
    packed_movements: bytes = b""
    packed_bills: bytes = b""
    packed_movement_count: int = 0
    packed_bill_count: int = 0
    #: The others. How many of the movements are folded already; whether one lies before what is folded.
    movements: list[Movement] = []
    folded: int = 0
    stale: bool = False
    #: Bills that are folded, in the order in which payments cover them: by `issued_at`, then `bill_id`. How many of the
    #: first are covered, and what the others come to.
    bills: list[OpenBill] = []
    covered: int = 0
    open_total: Money = 0
    waiting: list[Waiting] = []
    #: An opening's `at` and `arrears_since`.
    opened_at: Instant | None = None
    opened_since: Instant | None = None
    #: While `known` is None: bills that are not folded.
    ahead: list[OpenBill] = []
    #: Made when it is needed first, and never encoded.
    known: Known | None = None
    #: None of a ledger that is not in rows.
    changes: Changes | None = None

    # -- packing ----------------------------------------------------------------------------------------------------

    def size(self) -> int:
        """How many movements there are, or how many bills, if they are more."""
        bills = len(self.bills) + len(self.ahead) if self.known is None else len(self.known.bills)
        bills += self.packed_bill_count
        movements = len(self.movements) + self.packed_movement_count
        return movements if movements > bills else bills  # noqa: FURB136  # a call less

    def carry(self) -> None:
        """Make the folds ready to be encoded."""
        self.tip.carry()
        if self.base is not None:
            self.base.carry()

    def pack(self) -> None:
        """Pack what can be; of what is looked up by its ids nothing is left."""
        if self.known is not None:
            self._drop_known()
        if self.stale:
            return
        try:
            if self.folded:
                self._pack_movements()
            if self.covered and not any(movement.kind in _CHANGES for movement in self.movements):
                self._pack_bills()
        except OverflowError:  # what needs more than 64 bits stays open
            return

    def _pack_movements(self) -> None:
        self.packed_movements += _items(self.movements[: self.folded])
        self.packed_movement_count += self.folded
        del self.movements[: self.folded]
        self.folded = 0

    def _pack_bills(self) -> None:
        self.packed_bills += _items(self.bills[: self.covered])
        self.packed_bill_count += self.covered
        del self.bills[: self.covered]
        self.covered = 0

    def not_folded(self, known: Known) -> list[OpenBill]:
        """The bills that are not folded."""
        if len(known.bills) == len(self.bills):
            return []
        here = {bill.bill_id for bill in self.bills}
        return sorted((bill for bill in known.bills.values() if bill.bill_id not in here), key=bill_order)

    def _drop_known(self) -> None:
        if self.known is not None:
            self.ahead = self.not_folded(self.known)
            self.known = None

    def unpack(self) -> None:
        """Lay everything open."""
        if not (self.packed_movement_count or self.packed_bill_count):
            return
        self._drop_known()
        if self.packed_movement_count:
            self.movements[:0] = _unpack_movements(_as_array(self.packed_movement_count, self.packed_movements))
            self.folded += self.packed_movement_count
            self.packed_movements, self.packed_movement_count = b"", 0
        if self.packed_bill_count:
            self.bills[:0] = _unpack_bills(_as_array(self.packed_bill_count, self.packed_bills))
            self.covered += self.packed_bill_count
            self.packed_bills, self.packed_bill_count = b"", 0

    def by_ids(self) -> Known:
        """What is not packed, by its ids."""
        known = self.known
        if known is None:
            known = self.known = Known()
            if self.movements or self.bills or self.ahead:
                for movement in self.movements:
                    known.add(movement)
                known.bills = {bill.bill_id: bill for bill in (*self.bills, *self.ahead)}
                self.ahead = []
        return known

    def resume(self, movements: list[Movement] | None, bills: list[OpenBill] | None) -> None:
        """Take in what was in rows (None: it was not), in any order."""
        if movements is not None:
            self.movements = sorted(movements, key=movement_order)
        if bills is not None:
            bills.sort(key=bill_order)
            ahead = {movement.ref for movement in self.movements[self.folded :] if movement.kind == ISSUED}
            self.bills = [bill for bill in bills if bill.bill_id not in ahead]
            self.ahead = [bill for bill in bills if bill.bill_id in ahead]

    # -- what comes in ----------------------------------------------------------------------------------------------

    def known_bill_event(self, event_id: str, horizon: Instant) -> Movement | None:
        """The movement of a record of `bills` with this id, unless it is forgotten."""
        known = (self.known or self.by_ids()).bill_events.get(event_id)
        if known is None:
            if not self.packed_movements or _pack(event_id) not in self.packed_movements:  # nearly always
                return None
            self.unpack()
            known = self.by_ids().bill_events.get(event_id)
        return known if known is not None and known.at >= horizon else None

    def known_payment_event(self, event_id: str, horizon: Instant) -> Movement | None:
        """The movement of a record of `payments` with this id, unless it is forgotten."""
        known = (self.known or self.by_ids()).payment_events.get(event_id)
        if known is None:
            if not self.packed_movements or _pack(event_id) not in self.packed_movements:
                return None
            self.unpack()
            known = self.by_ids().payment_events.get(event_id)
        return known if known is not None and known.at >= horizon else None

    def issue(self, record: Bill, crc: int, horizon: Instant) -> list[tuple[Source, Refusal]]:
        """Charge a bill. Returns what waited for it in vain: adjustments dated before the bill."""
        bill_id, at, amount = record.bill_id, record.at, record.amount
        if self._bill(bill_id, horizon) is not None:
            raise Refusal("conflict", "bill_id", f"bill {bill_id} has been issued already by another event")
        movement = Movement(at, ISSUED, record.event_id, -amount, bill_id, crc)
        self._insert(movement)
        known = self.known or self.by_ids()
        bill = known.bills[bill_id] = OpenBill(bill_id, at, amount, at)
        known.bill_events[record.event_id] = movement
        if self.changes is not None:
            self.changes.bills.add(bill_id)
        return self._take_waiting(bill, record.currency, horizon) if self.waiting else []

    def change(self, record: Bill, crc: int, horizon: Instant, origin: Origin) -> bool:
        """Adjust or void a bill. False if its bill is not there: the change waits for it."""
        kind = ADJUSTED if record.kind == "adjusted" else VOIDED
        movement = Movement(record.at, kind, record.event_id, 0, record.bill_id, crc)
        bill = self._bill(record.bill_id, horizon)
        if bill is None:
            self.waiting.append(Waiting(movement, record.amount, record.currency, origin()))
        else:
            self._change(bill, movement, record.amount)
            self.by_ids().bill_events[record.event_id] = movement
        return bill is not None

    def pay(self, record: Payment, crc: int, horizon: Instant) -> None:
        """Add a top-up, take a refund or a reversal, note a gift (R7: it pays nothing)."""
        kind = _PAYMENT_KINDS[record.kind]
        payment_id, delta = record.payment_id, record.amount
        if kind == TOPUP:
            paid_at = self._topup(payment_id)
            if paid_at is not None and paid_at >= horizon:
                message = f"payment {payment_id} has been made already by another event"
                raise Refusal("conflict", "payment_id", message)
        else:
            delta = -delta if kind == DEBIT else 0
        movement = Movement(record.at, kind, record.event_id, delta, payment_id, crc)
        self._insert(movement)
        known = self.known or self.by_ids()
        known.payment_events[record.event_id] = movement
        if kind == TOPUP:
            known.topups[payment_id] = record.at

    def control(self, record: Control, crc: int) -> None:
        """Take an opening, a credit limit or a reopen."""
        if record.kind == "opening":
            assert record.balance is not None  # the contract's model requires it
            self.opened_at = record.at
            self.opened_since = record.arrears_since if record.status in ("in_arrears", "suspended") else None
            movement = Movement(record.at, OPENING, record.event_id, record.balance, "", crc)
        elif record.kind == "credit_limit":
            assert record.amount is not None
            movement = Movement(record.at, LIMIT, record.event_id, record.amount, "", crc)
        else:
            movement = Movement(record.at, REOPEN, record.event_id, 0, "", crc)
        self._insert(movement)
        self.by_ids().add(movement)

    def refuse_waiting(self, settled: Instant, horizon: Instant, currency: str | None) -> list[tuple[Source, Refusal]]:
        """Give up on the changes dated `settled` or before: every bill up to then is in."""
        refused = []
        for change in self.waiting:
            if change.movement.at > settled:
                continue
            try:
                if self._is_new(change, horizon, currency):
                    raise self._unknown(change)
            except Refusal as refusal:
                refused.append((change.source, refusal))
        self.waiting = [change for change in self.waiting if change.movement.at > settled]
        return refused

    # -- what it says -----------------------------------------------------------------------------------------------

    def settle(self, now: Instant, horizon: Instant) -> None:
        """Fold every movement up to `now`."""
        if self.stale:
            self._restart()
        movements, tip = self.movements, self.tip
        folded, count = self.folded, len(movements)
        remembered = now - horizon  # as of each instant: a movement may be folded long after it happened
        moved = False
        while folded < count and (movement := movements[folded]).at <= now:
            if movement.at > tip.at:
                if moved:
                    self.folded = folded
                    self._cover(tip.at - remembered)
                    folded, count = self.folded, len(movements)  # the horizon may have passed over some
                tip.close(movement.at)
            if ISSUED <= movement.kind <= GIFT:
                tip.balance += movement.delta
            else:
                tip.add(movement, self.opened_since)
            folded += 1
            if movement.kind <= VOIDED and movement.kind != OPENING:
                self._fold_bill(movement)
            moved = True
        if moved:
            self.folded = folded
            self._cover(tip.at - remembered)
            if self.packed_movement_count + self.folded > _SLACK:  # fold what lies before the horizon, if it is much
                self.unpack()
                if self.movements[_SLACK - 1].at < horizon:
                    self.fold(horizon)

    @property
    def in_arrears(self) -> bool:
        """R1, as settled."""
        return self.tip.balance + self.tip.limit < 0

    @property
    def since(self) -> Instant:
        """When the episode began that runs now (only while in arrears)."""
        since = self.tip.since
        return self.tip.at if since is None else since

    @property
    def owed(self) -> Money:
        """max(0, -balance), credit limit or not."""
        balance = self.tip.balance
        return -balance if balance < 0 else 0

    def integral(self, now: Instant) -> int:
        """What was owed times how long, in the episode that runs (only while in arrears)."""
        tip = self.tip
        return (tip.whole_integral() if tip.since is not None else 0) - tip.balance * (now - tip.at)

    def ended(self) -> tuple[Instant | None, Instant, int]:
        """The episode that ended last: its start (None: there was none), its end, its integral."""
        tip = self.tip
        if tip.since is not None and not self.in_arrears:
            return tip.since, tip.at, tip.whole_integral()
        return tip.ended_since, tip.ended_at, (tip.ended_integral_above << _CARRIED) + tip.ended_integral

    @property
    def has_more(self) -> bool:
        """Whether there are movements dated later than what is settled."""
        return self.folded < len(self.movements)

    def next_after(self) -> Instant | None:
        """When the next of them counts."""
        return self.movements[self.folded].at if self.has_more else None

    def enough_since(self, least: Money) -> Instant:
        """Since when balance + limit has been at least `least`, as settled (it is now)."""
        since: Instant | None = None
        for at, fold in self._history():
            if fold.balance + fold.limit < least:
                since = None
            elif since is None:
                since = at
        return self.tip.at if since is None else since

    def arrears_at(self, at: Instant) -> Instant | None:
        """Since when the account was in arrears at `at`, as known now; None if it was not."""
        since = None
        for instant, fold in self._history():
            if instant > at:
                break
            began = fold.at if fold.since is None else fold.since
            since = began if fold.balance + fold.limit < 0 else None
        return since

    def _history(self) -> Iterator[tuple[Instant, Fold]]:
        """Each instant of the history with the fold at its end. For rare questions: it folds anew."""
        self.unpack()
        fold = self._from_base()
        movements = self.movements[: self.folded]
        yield fold.at, fold
        for index, movement in enumerate(movements):
            if movement.at > fold.at:
                fold.close(movement.at)
            fold.add(movement, self.opened_since)
            if index + 1 == len(movements) or movements[index + 1].at > movement.at:
                yield movement.at, fold

    def unpaid(self, most: int) -> tuple[list[tuple[str, Money, Money]], int]:
        """The bills that are not covered, oldest first (bill_id, total, outstanding), at most `most`; and how many."""
        left = max(0, self.tip.balance + self.open_total)  # what covers a part of the first of them
        found: list[tuple[str, Money, Money]] = []
        count = 0
        for bill in self.bills[self.covered :]:
            if bill.total > left:
                count += 1
                if count <= most:
                    found.append((bill.bill_id, bill.total, bill.total - left))
            left = max(0, left - bill.total)
        return found, count

    # -- bills ------------------------------------------------------------------------------------------------------

    def _bill(self, bill_id: str, horizon: Instant) -> OpenBill | None:
        bill = (self.known or self.by_ids()).bills.get(bill_id)
        if bill is None:
            if not self.packed_bills or _pack(bill_id) not in self.packed_bills:  # nearly always
                return None
            self.unpack()
            bill = self.by_ids().bills.get(bill_id)
        if bill is not None and self._is_forgotten(bill, horizon):
            self.fold(horizon)
            return self.by_ids().bills.get(bill_id)
        return bill

    def _topup(self, payment_id: str) -> Instant | None:
        paid_at = (self.known or self.by_ids()).topups.get(payment_id)
        if paid_at is None and self.packed_movements and _pack(payment_id) in self.packed_movements:
            self.unpack()
            return self.by_ids().topups.get(payment_id)
        return paid_at

    def _change(self, bill: OpenBill, movement: Movement, total: Money) -> None:
        if movement.at < bill.issued_at:
            raise self._dated_before(bill)
        if bill.voided_at is not None and (movement.kind == VOIDED or bill.voided_at < movement.at):
            raise Refusal("conflict", "bill_id", f"bill {bill.bill_id} was voided already")
        if movement.kind == VOIDED:
            if self._changes(bill, after=movement.at):
                message = f"bill {bill.bill_id} has an accepted adjustment dated after this void"
                raise Refusal("conflict", "bill_id", message)
            bill.voided_at = movement.at
            total = 0
        before, following = self._neighbours(bill, movement)
        movement.delta = before - total
        if following is None:
            bill.final = total
        else:
            following.delta += total - before
            if self.changes is not None:
                self.changes.movements.add(following.event_id)
            self.stale = self.stale or following.at <= self.tip.at
        bill.changed_at = max(bill.changed_at, movement.at)
        if self.changes is not None:
            self.changes.bills.add(bill.bill_id)
        self._insert(movement)

    def _changes(self, bill: OpenBill, *, after: Instant) -> bool:
        if bill.changed_at <= after:
            return False
        self.unpack()
        return any(m.at > after and m.ref == bill.bill_id and m.kind == ADJUSTED for m in self.movements)

    def _neighbours(self, bill: OpenBill, movement: Movement) -> tuple[Money, Movement | None]:
        """The bill's total before this change, and the change that comes next."""
        if movement.at > bill.changed_at:
            return bill.final, None
        self.unpack()
        key = movement_order(movement)
        later = [
            m for m in self.movements if m.kind in _BILL_KINDS and m.ref == bill.bill_id and movement_order(m) > key
        ]
        return bill.final + sum(m.delta for m in later), later[0] if later else None

    def _take_waiting(self, bill: OpenBill, currency: str, horizon: Instant) -> list[tuple[Source, Refusal]]:
        mine = [change for change in self.waiting if change.movement.ref == bill.bill_id]
        self.waiting = [change for change in self.waiting if change.movement.ref != bill.bill_id]
        refused = []
        for change in sorted(mine, key=lambda change: movement_order(change.movement)):
            try:
                if self._is_new(change, horizon, currency):
                    self._change(bill, change.movement, change.total)
                    self.by_ids().bill_events[change.movement.event_id] = change.movement
            except Refusal as refusal:
                refused.append((change.source, refusal))
        return refused

    def _is_new(self, change: Waiting, horizon: Instant, currency: str | None) -> bool:
        """Whether the event did not come again while it waited. Raises Refusal, as when it came."""
        movement = change.movement
        known = self.known_bill_event(movement.event_id, horizon)
        if known is not None:
            check_same_content(movement.event_id, known.crc, movement.crc)
            return False
        if currency is not None:
            check_currency(change.currency, currency)
        return True

    def _unknown(self, change: Waiting) -> Refusal:
        self.unpack()
        bill = self.by_ids().bills.get(change.movement.ref)
        if bill is not None:
            return self._dated_before(bill)
        message = f"bill {change.movement.ref} is not known: it was never issued, or is paid and forgotten"
        return Refusal("unknown_bill", "bill_id", message)

    @staticmethod
    def _dated_before(bill: OpenBill) -> Refusal:
        return Refusal("unknown_bill", "bill_id", f"bill {bill.bill_id} is dated later than this change of it")

    # -- folding ----------------------------------------------------------------------------------------------------

    def _insert(self, movement: Movement) -> None:
        if self.changes is not None:
            self.changes.movements.add(movement.event_id)
        if movement.at <= self.tip.at and self.packed_movement_count:
            self.unpack()
        movements = self.movements
        if not movements or movements[-1].at < movement.at:
            movements.append(movement)
            return
        index = bisect_right(movements, movement_order(movement), key=movement_order)
        movements.insert(index, movement)
        if index < self.folded:
            if not self.stale:
                self.unpack()
            self.stale = True

    def _fold_bill(self, movement: Movement) -> None:
        bill = (self.known or self.by_ids()).bills[movement.ref]
        bills = self.bills
        bill.total -= movement.delta
        if self.changes is not None:
            self.changes.bills.add(bill.bill_id)
        if movement.kind == ISSUED:
            if not bills or bills[-1].issued_at < bill.issued_at:
                bills.append(bill)
                self.open_total += bill.total
                return
            index = bisect_right(bills, bill_order(bill), key=bill_order)
            bills.insert(index, bill)
            if index < self.covered:
                self.covered += 1
        if not self._is_covered(bill):
            self.open_total -= movement.delta

    def _is_covered(self, bill: OpenBill) -> bool:
        return self.covered > 0 and bill_order(bill) <= bill_order(self.bills[self.covered - 1])

    def _cover(self, horizon: Instant) -> None:
        """Everything of the instant is in: move the line between the covered bills and the open ones.

        The bills up to the line are covered as long as those behind it come to what is owed, or more.
        """
        owed = -self.tip.balance
        if self.open_total < owed and (self.covered or self.packed_bill_count):
            self.unpack()
            self._forget_bills(horizon)  # what is forgotten cannot be owed again
            while self.covered and self.open_total < owed:
                self.covered -= 1
                self.open_total += self.bills[self.covered].total
        bills, covered, open_total = self.bills, self.covered, self.open_total
        while covered < len(bills) and open_total - (bill := bills[covered]).total >= owed:
            open_total -= bill.total
            covered += 1
            bill.covered_at = self.tip.at
            if self.changes is not None:
                self.changes.bills.add(bill.bill_id)
        self.covered, self.open_total = covered, open_total

    def fold(self, horizon: Instant) -> None:
        """Fold what lies before the horizon into the base, and forget the ids and the covered bills of before."""
        if self.stale:
            return
        self.unpack()
        movements, known = self.movements, self.by_ids()
        base = self.base = self.base or Fold()
        count = 0
        while count < self.folded and movements[count].at < horizon:
            movement = movements[count]
            if movement.at > base.at:
                base.close(movement.at)
            base.add(movement, self.opened_since)
            if self.changes is not None:
                self.changes.movements.add(movement.event_id)
            events = known.events(movement.kind)
            if events.get(movement.event_id) is movement:
                del events[movement.event_id]
            if movement.kind == TOPUP and known.topups.get(movement.ref) == movement.at:
                del known.topups[movement.ref]
            count += 1
        del movements[:count]
        self.folded -= count
        self._forget_folded_bills(horizon)

    def _from_base(self) -> Fold:
        return Fold() if self.base is None else msgspec.structs.replace(self.base)

    def _is_forgotten(self, bill: OpenBill, horizon: Instant) -> bool:
        """Covered, and `history` has passed since its last change (being covered is one)."""
        if bill.changed_at >= horizon or self.stale:
            return False
        if bill.total == 0:
            return True
        return self._is_covered(bill) and (bill.covered_at is None or bill.covered_at < horizon)

    def _forget_bills(self, horizon: Instant) -> None:
        if any(self._is_forgotten(bill, horizon) for bill in self.bills[: self.covered]):
            self.fold(horizon)

    def _forget_folded_bills(self, horizon: Instant) -> None:
        forgotten = [bill for bill in self.bills if self._is_forgotten(bill, horizon)]
        if not forgotten:
            return
        ids = {bill.bill_id for bill in forgotten}
        self.covered -= sum(self._is_covered(bill) for bill in forgotten)
        self.bills[:] = [bill for bill in self.bills if bill.bill_id not in ids]
        if self.changes is not None:
            self.changes.bills |= ids
        known = self.by_ids()
        for bill_id in ids:
            del known.bills[bill_id]

    def _restart(self) -> None:
        """Go back to the base: a movement has arrived that belongs before what was folded."""
        in_window: dict[str, Money] = {}
        issued: set[str] = set()
        for movement in self.movements:
            if movement.kind in _BILL_KINDS:
                in_window[movement.ref] = in_window.get(movement.ref, 0) + movement.delta
                if movement.kind == ISSUED:
                    issued.add(movement.ref)
        known = self.by_ids().bills
        for bill in known.values():
            bill.total = bill.final + in_window.get(bill.bill_id, 0)
            bill.covered_at = None
        if self.changes is not None:
            self.changes.bills.update(known)
        self.bills = [bill for bill in self.bills if bill.bill_id not in issued]
        self.tip = self._from_base()
        self.folded, self.stale = 0, False
        self.covered, self.open_total = 0, sum(bill.total for bill in self.bills)
        self._cover(0)
        for bill in self.bills[: self.covered]:
            bill.covered_at = None  # before the horizon, whenever it was


def check_same_content(event_id: str, known: int, crc: int) -> None:
    """A known event again: its fingerprint has to be the same. Raises Refusal."""
    if known != crc:
        message = f"event {event_id} came before with other content; what was accepted first stays"
        raise Refusal("conflict", "event_id", message)


def check_currency(currency: str, of_account: str) -> None:
    """One currency an account, that of its first accepted record. Raises Refusal."""
    if currency != of_account:
        message = f"is {currency}, but the account's currency is {of_account}: one currency an account"
        raise Refusal("currency_mismatch", "currency", message)


def movement_order(movement: Movement) -> tuple[Instant, int, str]:
    """The order in which movements are folded."""
    return movement.at, movement.kind, movement.event_id


def bill_order(bill: OpenBill) -> tuple[Instant, str]:
    """The order in which payments cover bills."""
    return bill.issued_at, bill.bill_id
