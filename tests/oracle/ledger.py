"""What an account's usable records add up to at an instant: balance, bills, fee, packages, exposure.

Every function takes the usable records in the order a replay takes them and starts from nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby
from typing import TYPE_CHECKING

from .values import DAY

if TYPE_CHECKING:
    from .records import Record

ZERO = Fraction(0)
Forgotten = Callable[[int, int], bool]  # (last change, now) -> whether `history` has passed since


@dataclass
class Bill:
    bill_id: str
    issued_at: int
    total: Fraction
    changed_at: int
    voided: bool = False
    outstanding: Fraction = ZERO
    covered: bool = False


@dataclass
class Ledger:
    pool: Fraction = ZERO  # opening + top-ups - refunds - reversals - the bills that are forgotten
    bills: dict[str, Bill] = field(default_factory=dict)
    steps: list[tuple[int, Fraction]] = field(default_factory=list)  # (instant, balance from it on)

    @property
    def balance(self) -> Fraction:
        return self.pool - sum((bill.total for bill in self.bills.values()), ZERO)

    @property
    def owed(self) -> Fraction:
        return max(ZERO, -self.balance)

    @property
    def unpaid(self) -> list[Bill]:
        return [bill for bill in self.oldest_first() if bill.outstanding > 0]

    def oldest_first(self) -> list[Bill]:
        """Bills of one instant are covered in order of `bill_id`."""
        return sorted(self.bills.values(), key=lambda bill: (bill.issued_at, bill.bill_id))

    def forget(self, now: int, forgotten: Forgotten) -> None:
        """A covered bill is forgotten `history` after its last change; an open one never."""
        for bill in list(self.bills.values()):
            if bill.covered and forgotten(bill.changed_at, now):
                del self.bills[bill.bill_id]
                self.pool -= bill.total

    def apply(self, record: Record) -> None:
        match record.kind:
            case "opening":
                self.pool += record.data["balance"]
            case "topup":
                self.pool += record.data["amount"]
            case "refund" | "reversal":
                self.pool -= record.data["amount"]
            case "issued":
                bill_id = record.data["bill_id"]
                self.bills[bill_id] = Bill(bill_id, record.at, record.data["amount"], record.at)
            case "adjusted":
                bill = self.bills[record.data["bill_id"]]
                bill.total, bill.changed_at = record.data["amount"], record.at
            case "voided":
                bill = self.bills[record.data["bill_id"]]
                bill.total, bill.changed_at, bill.voided = ZERO, record.at, True
            case _:
                pass  # moves no balance

    def cover(self, now: int) -> None:
        """Payments cover the oldest bill first; being covered is a change of the bill."""
        left = max(ZERO, self.pool)
        for bill in self.oldest_first():
            paid = min(left, bill.total)
            left -= paid
            bill.outstanding = bill.total - paid
            if bill.outstanding == 0 and not bill.covered:
                bill.changed_at = now
            bill.covered = bill.outstanding == 0


def fold(records: Sequence[Record], now: int, forgotten: Forgotten) -> Ledger:
    """The ledger at `now`. At one instant all movements count together."""
    ledger = Ledger()
    for at, movements in groupby([record for record in records if record.at <= now], key=lambda record: record.at):
        ledger.forget(at, forgotten)
        for movement in movements:
            ledger.apply(movement)
        ledger.cover(at)
        ledger.steps.append((at, ledger.balance))
    ledger.forget(now, forgotten)
    return ledger


def fee(ledger: Ledger, start: int, end: int, per_day: Fraction) -> Fraction:
    """R6: the integral over what was owed from `start` to `end`, exact."""
    total = ZERO
    following = [at for at, _ in ledger.steps[1:]] + [end]
    for (at, balance), until in zip(ledger.steps, following, strict=True):
        elapsed = min(until, end) - max(at, start)
        if elapsed > 0:
            total += max(ZERO, -balance) * elapsed
    return total * per_day / DAY


def credit_limit(records: Sequence[Record]) -> Fraction:
    limits = [record.data["amount"] for record in records if record.kind == "credit_limit"]
    return limits[-1] if limits else ZERO


def unbilled(records: Sequence[Record]) -> Fraction:
    """The cost of usage that ended after the latest of the issued bills' `period_end` or else `issued_at`."""
    bills = [record for record in records if record.kind == "issued"]
    ends = [bill.at if bill.data["period_end"] is None else bill.data["period_end"] for bill in bills]
    costs = [
        record.data["cost"]
        for record in records
        if record.kind == "usage" and record.data["cost"] is not None and (not ends or record.at > max(ends))
    ]
    return sum(costs, ZERO)


@dataclass
class Package:
    package_id: str
    service: str
    unit: str
    remaining: Fraction
    starts_at: int
    ends_at: int
    exhausted_by: Record | None = None  # the usage (or the purchase of nothing) that used it up
    cancelled: bool = False


def packages(records: Sequence[Record]) -> list[Package]:
    """The packages after all usage so far (R8), the one that ends first first."""
    held: dict[str, Package] = {}
    for record in records:
        match record.kind:
            case "purchased":
                data = record.data
                package = Package(
                    data["package_id"],
                    data["service"],
                    data["unit"],
                    data["quantity"],
                    data["starts_at"],
                    data["ends_at"],
                )
                package.exhausted_by = record if package.remaining == 0 else None
                held[package.package_id] = package
            case "cancelled":
                held[record.data["package_id"]].cancelled = True
            case "usage":
                draw(record, drawing_order(package for package in held.values() if not package.cancelled))
            case _:
                pass  # no matter of packages
    return drawing_order(held.values())


def drawing_order(held: Iterable[Package]) -> list[Package]:
    return sorted(held, key=lambda package: (package.ends_at, package.package_id))


def draw(usage: Record, held: list[Package]) -> None:
    wanted = usage.data["quantity"]
    for package in held:
        same = (package.service, package.unit) == (usage.data["service"], usage.data["unit"])
        if same and package.starts_at <= usage.at < package.ends_at and package.remaining > 0:
            taken = min(wanted, package.remaining)
            wanted -= taken
            package.remaining -= taken
            if package.remaining == 0:
                package.exhausted_by = usage
