"""Usage: what packages it draws down (R8), what of it is not billed yet, which of its records have been seen."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec

from models.instants import Instant
from models.money import Fine
from models.refusal import Refusal

if TYPE_CHECKING:
    from models.records import Package, Usage

_ITEMS_PER_PART: Final = 64


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


_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Buckets(Generic[_Key, _Value]):
    """A dict in parts, so that one more item changes one small part only."""

    __slots__ = ("changed", "in_rows", "parts", "size")

    def __init__(self, parts: list[dict[_Key, _Value]] | None = None) -> None:
        self.parts = [{}] if parts is None else parts
        #: Numbers of the parts changed since they were encoded last.
        self.changed: set[int] = set()
        #: Whether the parts were encoded apart.
        self.in_rows = len(self.parts) > 1
        self.size = sum(len(part) for part in self.parts)

    def part(self, key: _Key) -> dict[_Key, _Value]:
        """The part that `key` belongs to."""
        return self.parts[self._number(key)]

    def put(self, key: _Key, value: _Value) -> None:
        """Set an item."""
        number = self._number(key)
        part = self.parts[number]
        self.size += key not in part
        part[key] = value
        self.changed.add(number)
        if self.size > 2 * _ITEMS_PER_PART * len(self.parts):
            self._spread(4 * len(self.parts))

    def drop(self, number: int, keys: list[_Key]) -> None:
        """Take these items out of a part."""
        for key in keys:
            del self.parts[number][key]
        self.size -= len(keys)
        self.changed.add(number)

    def shrink(self) -> None:
        """Use fewer parts, if there are far too many."""
        if len(self.parts) > 1 and self.size < _ITEMS_PER_PART * len(self.parts) // 8:
            self._spread(len(self.parts) // 4)

    def _spread(self, count: int) -> None:
        everything = [item for part in self.parts for item in part.items()]
        before = len(self.parts)
        self.parts = [{} for _ in range(count)]
        for key, value in everything:
            self.part(key)[key] = value
        self.changed = set(range(max(before, count)))

    def _number(self, key: _Key) -> int:
        return zlib.crc32(str(key).encode()) & (len(self.parts) - 1) if len(self.parts) > 1 else 0


class Seen(Buckets[str, tuple[Instant, int]]):
    """Ids that have been seen, with their instant and the fingerprint of their content."""

    __slots__ = ()

    def get(self, event_id: str, horizon: Instant) -> int | None:
        """The fingerprint seen under this id, unless it is forgotten."""
        known = self.part(event_id).get(event_id)
        return known[1] if known is not None and known[0] >= horizon else None

    def add(self, event_id: str, at: Instant, crc: int, horizon: Instant) -> None:
        """Remember an id, and forget those of its part that lie before the horizon."""
        number = self._number(event_id)
        if len(self.parts[number]) >= _ITEMS_PER_PART:
            self.drop(number, [key for key, (seen_at, _) in self.parts[number].items() if seen_at < horizon])
        self.put(event_id, (at, crc))


class Costs(Buckets[Instant, Fine]):
    """What usage that ended at an instant cost."""

    __slots__ = ()

    def add(self, ended_at: Instant, cost: Fine) -> None:
        """Add the cost of one record."""
        self.put(ended_at, self.part(ended_at).get(ended_at, 0) + cost)

    def take(self, until: Instant) -> Fine:
        """Take out what ended until then; returns what it came to."""
        taken: Fine = 0
        for number, part in enumerate(self.parts):
            ended = [ended_at for ended_at in part if ended_at <= until]
            taken += sum(part[ended_at] for ended_at in ended)
            if ended:
                self.drop(number, ended)
        self.shrink()
        return taken


class UsageBook:
    """The packages of one account, the cost of its usage since the last bill, and the ids of its usage."""

    __slots__ = ("costs", "package_events", "packages", "seen", "unbilled")

    def __init__(self) -> None:
        self.packages: list[Prepaid] = []
        self.package_events: dict[str, tuple[Instant, int]] = {}
        self.seen = Seen()
        #: Of usage that is not billed.
        self.costs = Costs()
        self.unbilled: Fine = 0

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
        if len(self.package_events) > 2 * _ITEMS_PER_PART:
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
