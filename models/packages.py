"""Usage: what packages it draws down (R8), what of it is not billed yet, which of its records have been seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from models.instants import Instant
from models.money import Fine
from models.refusal import Refusal
from models.usage_log import Costs, Seen

if TYPE_CHECKING:
    from models.records import Package, Usage

#: With more ids of records of `packages` than this, those before the history are forgotten.
_MANY_EVENTS: Final = 128


class Prepaid(msgspec.Struct, array_like=True, gc=False):
    """A package: `remaining` of `unit` for usage of `service` with `starts_at` <= `ended_at` < `ends_at`."""

    package_id: str
    service: str
    unit: str
    remaining: Fine
    at: Instant
    starts_at: Instant
    ends_at: Instant
    cancelled_at: Instant | None = None

    def covers(self, usage: Usage) -> bool:
        """Whether this usage may draw on it; a cancellation at that instant comes after the usage."""
        return (
            self.remaining > 0
            and self.service == usage.service
            and self.unit == usage.unit
            and self.starts_at <= usage.at < self.ends_at
            and self.at <= usage.at
            and (self.cancelled_at is None or usage.at <= self.cancelled_at)
        )


class UsageBook:
    """The packages of one account, the cost of its usage since the last bill, and the ids of its usage."""

    __slots__ = ("costs", "package_events", "packages", "seen", "unbilled")

    def __init__(
        self,
        packages: list[Prepaid] | None = None,
        package_events: dict[str, tuple[Instant, int]] | None = None,
        unbilled: Fine = 0,
        seen: Seen | None = None,
        costs: Costs | None = None,
    ) -> None:
        self.packages = [] if packages is None else packages
        self.package_events = {} if package_events is None else package_events
        self.unbilled = unbilled
        self.seen = Seen() if seen is None else seen
        #: Of usage that is not billed.
        self.costs = Costs() if costs is None else costs

    # -- packages ---------------------------------------------------------------------------------------------------

    def known_package_event(self, event_id: str, horizon: Instant) -> int | None:
        """The fingerprint of a record of `packages` with this id, unless it is forgotten."""
        known = self.package_events.get(event_id)
        return known[1] if known is not None and known[0] >= horizon else None

    def change_package(self, record: Package, crc: int, horizon: Instant) -> None:
        """Purchase or cancel. Raises Refusal: a known id again, an unknown or cancelled one to cancel."""
        self.packages = [package for package in self.packages if _last_use(package) >= horizon]
        known = next((package for package in self.packages if package.package_id == record.package_id), None)
        if record.kind == "purchased":
            if known is not None:
                message = f"package {record.package_id} has been purchased already by another event"
                raise Refusal("conflict", "package_id", message)
            self.packages.append(_prepaid(record))
            self.packages.sort(key=_drawing_order)
        else:
            if known is None:
                raise Refusal("invalid", "package_id", f"package {record.package_id} is not known: nothing to cancel")
            if known.cancelled_at is not None:
                raise Refusal("invalid", "package_id", f"package {record.package_id} is cancelled already")
            known.cancelled_at = record.at
        self.package_events[record.event_id] = (record.at, crc)
        if len(self.package_events) > _MANY_EVENTS:
            kept = {key: value for key, value in self.package_events.items() if value[0] >= horizon}
            self.package_events = kept

    # -- usage ------------------------------------------------------------------------------------------------------

    def use(self, record: Usage, billed_until: Instant | None) -> list[str]:
        """Draw on the packages and count the cost; returns the ids of packages that are used up by it."""
        if record.cost is not None and (billed_until is None or record.at > billed_until):
            self.costs.add(record.at, record.cost)
            self.unbilled += record.cost
        if not self.packages:
            return []
        left = record.quantity
        exhausted = []
        for package in self.packages:  # the one that ends first is drawn first, then by package_id
            if left == 0:
                break
            if package.covers(record):
                drawn = min(left, package.remaining)
                package.remaining -= drawn
                left -= drawn
                if package.remaining == 0:
                    exhausted.append(package.package_id)
        return exhausted

    def bill(self, until: Instant) -> None:
        """A bill covers what ended until then (its `period_end`, or its `issued_at`)."""
        self.unbilled -= self.costs.take(until)

    def left(self, now: Instant) -> list[Prepaid]:
        """The packages that have something left and have not ended."""
        return [
            package
            for package in self.packages
            if package.remaining > 0 and now < package.ends_at and package.cancelled_at is None
        ]


def _prepaid(record: Package) -> Prepaid:
    service, unit, quantity = record.service, record.unit, record.quantity
    starts_at, ends_at = record.starts_at, record.ends_at
    # The contract's model requires them of a purchase.
    assert service is not None and unit is not None and quantity is not None  # noqa: PT018
    assert starts_at is not None and ends_at is not None  # noqa: PT018
    return Prepaid(record.package_id, service, unit, quantity, record.at, starts_at, ends_at)


def _drawing_order(package: Prepaid) -> tuple[Instant, str]:
    return package.ends_at, package.package_id


def _last_use(package: Prepaid) -> Instant:
    return max(package.at, package.ends_at if package.cancelled_at is None else package.cancelled_at)
