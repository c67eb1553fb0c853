"""The ledger: what happened and when it happened, folded into a balance (contract §1 "Two layers").

Laws of this file:

- The fold is a function of the accepted movements, never of the order in which they arrived.
- All movements of one instant count together: whether an account is in arrears is asked between instants only.
- Movements older than the horizon are folded into the base and forgotten; open bills never are.
- A refused record leaves no trace.

A movement that arrives in order advances the fold by one step. One that arrives late (before what is folded already)
makes it stale, and the next `settle` folds again from the base.
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
_PAYMENTS: Final = frozenset((TOPUP, DEBIT, GIFT))
_PAYMENT_KINDS: Final = {"topup": TOPUP, "refund": DEBIT, "reversal": DEBIT, "gift": GIFT}

#: How many folded movements may lie before the horizon until they are dropped.
_SLACK: Final = 64


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
    """The sum of the movements up to `at`. What holds at `at` itself is judged when a later instant is reached."""

    balance: Money = 0
    limit: Money = 0
    at: Instant = 0
    #: Start of the episode that ran before `at`; None if the account was clear.
    since: Instant | None = None
    #: What was owed times how long, from `since` to `at` (millionths times µs).
    integral: int = 0
    #: The episode that ended last: its start, its end, its integral.
    ended_since: Instant | None = None
    ended_at: Instant = 0
    ended_integral: int = 0

    def add(self, movement: Movement, opened_since: Instant | None) -> None:
        """Add a movement of the instant `at`; `opened_since` is the `arrears_since` of an opening."""
        kind = movement.kind
        if kind == LIMIT:
            self.limit = movement.delta
        elif kind == REOPEN:  # "if the balance does not cover the bills, a new episode begins at its `at`"
            self.since, self.integral = None, 0
        elif kind == OPENING:
            self.balance += movement.delta
            self.since, self.integral = opened_since, 0  # its `at` counts as the start of the fee
        else:
            self.balance += movement.delta

    def close(self, until: Instant) -> None:
        """Everything up to `self.at` is in: judge it, and let time pass until the next instant."""
        balance = self.balance
        if balance + self.limit < 0:  # R1
            if self.since is None:
                self.since, self.integral = self.at, 0
            self.integral -= balance * (until - self.at)
        elif self.since is not None:
            self.ended_since, self.ended_at, self.ended_integral = self.since, self.at, self.integral
            self.since = None
        self.at = until


class Changes:
    """What has changed since a ledger was encoded last, and in how many rows it was then.

    Nothing is kept until it is encoded for the first time: a replay never does.
    """

    __slots__ = ("bill_rows", "bills", "movement_rows", "movements", "tracked")

    def __init__(self) -> None:
        self.tracked = False
        self.movements: set[str] = set()
        self.bills: set[str] = set()
        self.movement_rows = 0
        self.bill_rows = 0

    def encoded(self, movement_rows: int, bill_rows: int) -> None:
        """Start anew."""
        self.tracked = True
        self.movement_rows, self.bill_rows = movement_rows, bill_rows
        self.movements.clear()
        self.bills.clear()


class Ledger:
    """The movements of one account within its history, and the fold over them."""

    __slots__ = (
        "_bill_events",
        "_bills_by_id",
        "_covered",
        "_folded",
        "_moved",
        "_open_total",
        "_payment_events",
        "_stale",
        "_topups",
        "base",
        "bills",
        "changes",
        "movements",
        "opened_at",
        "opened_since",
        "tip",
        "waiting",
    )

    def __init__(self) -> None:
        self.base = Fold()
        self.tip = Fold()
        self.movements: list[Movement] = []
        #: In the order in which payments cover them: by `issued_at`, then `bill_id`.
        self.bills: list[OpenBill] = []
        self.waiting: list[Waiting] = []
        #: An opening's `at` and `arrears_since`.
        self.opened_at: Instant | None = None
        self.opened_since: Instant | None = None
        self._folded = 0
        #: Whether something was folded since bills were covered last.
        self._moved = False
        self._stale = False
        # Payments cover the oldest bills: how many of the list's first are covered, and what the others come to.
        self._covered = 0
        self._open_total: Money = 0
        self.changes = Changes()
        self._bills_by_id: dict[str, OpenBill] = {}
        self._bill_events: dict[str, Movement] = {}
        self._payment_events: dict[str, Movement] = {}
        self._topups: dict[str, Instant] = {}

    def resume(
        self,
        movements: list[Movement],
        bills: list[OpenBill],
        folded: int,
        covered: int,
        open_total: Money,
        *,
        stale: bool,
    ) -> None:
        """Take up where `movements`, `known_bills` and `position` were read (in any order of their items)."""
        movements.sort(key=_order)
        bills.sort(key=_bill_order)
        self.movements = movements
        self._folded, self._covered, self._open_total, self._stale = folded, covered, open_total, stale
        self._bills_by_id = {bill.bill_id: bill for bill in bills}
        ahead = {movement.ref for movement in movements[folded:] if movement.kind == ISSUED}
        self.bills = [bill for bill in bills if bill.bill_id not in ahead] if ahead else bills
        for movement in movements:
            if movement.kind in _BILL_KINDS:
                self._bill_events[movement.event_id] = movement
            elif movement.kind in _PAYMENTS:
                self._payment_events[movement.event_id] = movement
                if movement.kind == TOPUP:
                    self._topups[movement.ref] = movement.at

    def position(self) -> tuple[int, int, Money, bool]:
        """How far the fold has come: movements folded, bills covered, the total of the others, whether it is stale."""
        return self._folded, self._covered, self._open_total, self._stale

    def known_bills(self) -> list[OpenBill]:
        """Every bill that is not forgotten, in the order in which payments cover them."""
        return sorted(self._bills_by_id.values(), key=_bill_order)

    # -- what comes in ----------------------------------------------------------------------------------------------

    def known_bill_event(self, event_id: str, horizon: Instant) -> Movement | None:
        """The movement of a record of `bills` with this id, unless it is forgotten."""
        known = self._bill_events.get(event_id)
        return known if known is not None and known.at >= horizon else None

    def known_payment_event(self, event_id: str, horizon: Instant) -> Movement | None:
        """The movement of a record of `payments` with this id, unless it is forgotten."""
        known = self._payment_events.get(event_id)
        return known if known is not None and known.at >= horizon else None

    def issue(self, record: Bill, crc: int, horizon: Instant) -> list[tuple[Source, Refusal]]:
        """Charge a bill. Returns what waited for it in vain: adjustments dated before the bill."""
        if self._bill(record.bill_id, horizon) is not None:
            raise Refusal("conflict", "bill_id", f"bill {record.bill_id} has been issued already by another event")
        bill = OpenBill(record.bill_id, record.at, record.amount, record.at)
        self._bills_by_id[bill.bill_id] = bill
        if self.changes.tracked:
            self.changes.bills.add(bill.bill_id)
        movement = Movement(record.at, ISSUED, record.event_id, -record.amount, record.bill_id, crc)
        self._bill_events[record.event_id] = movement
        self._insert(movement)
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
            self._bill_events[record.event_id] = movement
        return bill is not None

    def pay(self, record: Payment, crc: int, horizon: Instant) -> None:
        """Add a top-up, take a refund or a reversal, note a gift (R7: it pays nothing)."""
        kind = _PAYMENT_KINDS[record.kind]
        delta = record.amount
        if kind == TOPUP:
            paid_at = self._topups.get(record.payment_id)
            if paid_at is not None and paid_at >= horizon:
                message = f"payment {record.payment_id} has been made already by another event"
                raise Refusal("conflict", "payment_id", message)
            self._topups[record.payment_id] = record.at
        else:
            delta = -delta if kind == DEBIT else 0
        movement = Movement(record.at, kind, record.event_id, delta, record.payment_id, crc)
        self._payment_events[record.event_id] = movement
        self._insert(movement)

    def control(self, record: Control, crc: int) -> None:
        """Take an opening, a credit limit or a reopen."""
        if record.kind == "opening":
            assert record.balance is not None  # the contract's model requires it
            self.opened_at = record.at
            self.opened_since = record.arrears_since if record.status in ("in_arrears", "suspended") else None
            self._insert(Movement(record.at, OPENING, record.event_id, record.balance, "", crc))
        elif record.kind == "credit_limit":
            assert record.amount is not None
            self._insert(Movement(record.at, LIMIT, record.event_id, record.amount, "", crc))
        else:
            self._insert(Movement(record.at, REOPEN, record.event_id, 0, "", crc))

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
        if self._stale:
            self._restart()
        movements, tip = self.movements, self.tip
        folded, count = self._folded, len(self.movements)
        remembered = now - horizon  # as of each instant: a movement may be folded long after it happened
        while folded < count and (movement := movements[folded]).at <= now:
            if movement.at > tip.at:
                if self._moved:
                    self._folded = folded
                    self._cover(tip.at - remembered)
                    folded, count = self._folded, len(movements)  # the horizon may have passed over some
                tip.close(movement.at)
            tip.add(movement, self.opened_since)
            folded += 1
            if movement.kind in _BILL_KINDS:
                self._fold_bill(movement)
            self._moved = True
        self._folded = folded
        if self._moved:
            self._cover(tip.at - remembered)
            if folded > _SLACK and movements[_SLACK - 1].at < horizon:
                self.fold(horizon)

    @property
    def in_arrears(self) -> bool:
        """R1, as settled."""
        return self.tip.balance + self.tip.limit < 0

    @property
    def since(self) -> Instant:
        """When the episode began that runs now (only while in arrears)."""
        tip = self.tip
        return tip.at if tip.since is None else tip.since

    @property
    def owed(self) -> Money:
        """max(0, -balance), credit limit or not."""
        return max(0, -self.tip.balance)

    def integral(self, now: Instant) -> int:
        """What was owed times how long, in the episode that runs (only while in arrears)."""
        tip = self.tip
        return (tip.integral if tip.since is not None else 0) - tip.balance * (now - tip.at)

    def ended(self) -> tuple[Instant | None, Instant, int]:
        """The episode that ended last: its start (None: there was none), its end, its integral."""
        tip = self.tip
        if tip.since is not None and not self.in_arrears:
            return tip.since, tip.at, tip.integral
        return tip.ended_since, tip.ended_at, tip.ended_integral

    @property
    def has_more(self) -> bool:
        """Whether there are movements dated later than what is settled."""
        return self._folded < len(self.movements)

    def next_after(self) -> Instant | None:
        """When the next of them counts."""
        return self.movements[self._folded].at if self.has_more else None

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
        fold = msgspec.structs.replace(self.base)
        movements = self.movements[: self._folded]
        yield fold.at, fold
        for index, movement in enumerate(movements):
            if movement.at > fold.at:
                fold.close(movement.at)
            fold.add(movement, self.opened_since)
            if index + 1 == len(movements) or movements[index + 1].at > movement.at:
                yield movement.at, fold

    def unpaid(self, most: int) -> tuple[list[tuple[str, Money, Money]], int]:
        """The bills that are not covered, oldest first (bill_id, total, outstanding), at most `most`; and how many."""
        left = max(0, self.tip.balance + self._open_total)  # what covers a part of the first of them
        found: list[tuple[str, Money, Money]] = []
        count = 0
        for bill in self.bills[self._covered :]:
            if bill.total > left:
                count += 1
                if count <= most:
                    found.append((bill.bill_id, bill.total, bill.total - left))
            left = max(0, left - bill.total)
        return found, count

    # -- bills ------------------------------------------------------------------------------------------------------

    def _bill(self, bill_id: str, horizon: Instant) -> OpenBill | None:
        bill = self._bills_by_id.get(bill_id)
        if bill is not None and self._is_forgotten(bill, horizon):
            self.fold(horizon)
            return self._bills_by_id.get(bill_id)
        return bill

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
            if self.changes.tracked:
                self.changes.movements.add(following.event_id)
            self._stale = self._stale or following.at <= self.tip.at
        bill.changed_at = max(bill.changed_at, movement.at)
        if self.changes.tracked:
            self.changes.bills.add(bill.bill_id)
        self._insert(movement)

    def _changes(self, bill: OpenBill, *, after: Instant) -> bool:
        if bill.changed_at <= after:
            return False
        return any(m.at > after and m.ref == bill.bill_id and m.kind == ADJUSTED for m in self.movements)

    def _neighbours(self, bill: OpenBill, movement: Movement) -> tuple[Money, Movement | None]:
        """The bill's total before this change, and the change that comes next."""
        if movement.at > bill.changed_at:
            return bill.final, None
        key = _order(movement)
        later = [m for m in self.movements if m.kind in _BILL_KINDS and m.ref == bill.bill_id and _order(m) > key]
        return bill.final + sum(m.delta for m in later), later[0] if later else None

    def _take_waiting(self, bill: OpenBill, currency: str, horizon: Instant) -> list[tuple[Source, Refusal]]:
        mine = [change for change in self.waiting if change.movement.ref == bill.bill_id]
        self.waiting = [change for change in self.waiting if change.movement.ref != bill.bill_id]
        refused = []
        for change in sorted(mine, key=lambda change: _order(change.movement)):
            try:
                if self._is_new(change, horizon, currency):
                    self._change(bill, change.movement, change.total)
                    self._bill_events[change.movement.event_id] = change.movement
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
        bill = self._bills_by_id.get(change.movement.ref)
        if bill is not None:
            return self._dated_before(bill)
        message = f"bill {change.movement.ref} is not known: it was never issued, or is paid and forgotten"
        return Refusal("unknown_bill", "bill_id", message)

    @staticmethod
    def _dated_before(bill: OpenBill) -> Refusal:
        return Refusal("unknown_bill", "bill_id", f"bill {bill.bill_id} is dated later than this change of it")

    # -- folding ----------------------------------------------------------------------------------------------------

    def _insert(self, movement: Movement) -> None:
        if self.changes.tracked:
            self.changes.movements.add(movement.event_id)
        movements = self.movements
        if not movements or movements[-1].at < movement.at:
            movements.append(movement)
            return
        index = bisect_right(movements, _order(movement), key=_order)
        movements.insert(index, movement)
        if index < self._folded:
            self._stale = True

    def _fold_bill(self, movement: Movement) -> None:
        bill = self._bills_by_id[movement.ref]
        bills = self.bills
        if movement.kind == ISSUED:
            if bills and _bill_order(bill) < _bill_order(bills[-1]):
                index = bisect_right(bills, _bill_order(bill), key=_bill_order)
                bills.insert(index, bill)
                if index < self._covered:
                    self._covered += 1
            else:
                bills.append(bill)
        bill.total -= movement.delta
        if self.changes.tracked:
            self.changes.bills.add(bill.bill_id)
        if not self._is_covered(bill):
            self._open_total -= movement.delta

    def _is_covered(self, bill: OpenBill) -> bool:
        return self._covered > 0 and _bill_order(bill) <= _bill_order(self.bills[self._covered - 1])

    def _cover(self, horizon: Instant) -> None:
        """Everything of the instant is in: move the line between the covered bills and the open ones.

        The bills up to the line are covered as long as those behind it come to what is owed, or more.
        """
        self._moved = False
        bills = self.bills
        owed = -self.tip.balance
        if self._covered and self._open_total < owed:
            self._forget_bills(horizon)  # what is forgotten cannot be owed again
            while self._covered and self._open_total < owed:
                self._covered -= 1
                self._open_total += bills[self._covered].total
        while self._covered < len(bills) and self._open_total - (bill := bills[self._covered]).total >= owed:
            self._open_total -= bill.total
            self._covered += 1
            bill.covered_at = self.tip.at
            if self.changes.tracked:
                self.changes.bills.add(bill.bill_id)

    def fold(self, horizon: Instant) -> None:
        """Fold what lies before the horizon into the base, and forget the ids and the covered bills of before."""
        if self._stale:
            return
        movements = self.movements
        count = 0
        while count < self._folded and movements[count].at < horizon:
            movement = movements[count]
            if movement.at > self.base.at:
                self.base.close(movement.at)
            self.base.add(movement, self.opened_since)
            if self.changes.tracked:
                self.changes.movements.add(movement.event_id)
            events = self._bill_events if movement.kind in _BILL_KINDS else self._payment_events
            if events.get(movement.event_id) is movement:
                del events[movement.event_id]
            if movement.kind == TOPUP and self._topups.get(movement.ref) == movement.at:
                del self._topups[movement.ref]
            count += 1
        del movements[:count]
        self._folded -= count
        self._forget_folded_bills(horizon)

    def _is_forgotten(self, bill: OpenBill, horizon: Instant) -> bool:
        """Covered, and `history` has passed since its last change (being covered is one)."""
        if bill.changed_at >= horizon or self._stale:
            return False
        if bill.total == 0:
            return True
        return self._is_covered(bill) and (bill.covered_at is None or bill.covered_at < horizon)

    def _forget_bills(self, horizon: Instant) -> None:
        if any(self._is_forgotten(bill, horizon) for bill in self.bills[: self._covered]):
            self.fold(horizon)

    def _forget_folded_bills(self, horizon: Instant) -> None:
        forgotten = [bill for bill in self.bills if self._is_forgotten(bill, horizon)]
        if not forgotten:
            return
        ids = {bill.bill_id for bill in forgotten}
        self._covered -= sum(self._is_covered(bill) for bill in forgotten)
        self.bills[:] = [bill for bill in self.bills if bill.bill_id not in ids]
        if self.changes.tracked:
            self.changes.bills |= ids
        for bill_id in ids:
            del self._bills_by_id[bill_id]

    def _restart(self) -> None:
        """Go back to the base: a movement has arrived that belongs before what was folded."""
        in_window: dict[str, Money] = {}
        issued: set[str] = set()
        for movement in self.movements:
            if movement.kind in _BILL_KINDS:
                in_window[movement.ref] = in_window.get(movement.ref, 0) + movement.delta
                if movement.kind == ISSUED:
                    issued.add(movement.ref)
        for bill in self._bills_by_id.values():
            bill.total = bill.final + in_window.get(bill.bill_id, 0)
            bill.covered_at = None
        if self.changes.tracked:
            self.changes.bills.update(self._bills_by_id)
        self.bills = [bill for bill in self.bills if bill.bill_id not in issued]
        self.tip = msgspec.structs.replace(self.base)
        self._folded, self._stale = 0, False
        self._covered, self._open_total = 0, sum(bill.total for bill in self.bills)
        self._cover(0)
        for bill in self.bills[: self._covered]:
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


def _order(movement: Movement) -> tuple[Instant, int, str]:
    return movement.at, movement.kind, movement.event_id


def _bill_order(bill: OpenBill) -> tuple[Instant, str]:
    return bill.issued_at, bill.bill_id
