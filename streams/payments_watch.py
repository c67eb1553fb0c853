"""Whether the payments can be trusted: they come, and they can be used (contract §3). Kept with the state."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from models.instants import MINUTE, SECOND, Duration, Instant

#: Unusable payments are counted over so long, in steps.
_WINDOW: Final = 5 * MINUTE
_STEP: Final = 10 * SECOND
#: More than one in so many stops all accounts of the partition; a single one its own account only.
_ONE_IN: Final = 100
_MORE_THAN: Final = 1


class _Counted(msgspec.Struct, array_like=True):
    step: int
    payments: int
    unusable: int


class PaymentsWatch(msgspec.Struct, array_like=True):
    """Of one partition. The instants are the worker's clock when it read a record."""

    #: Since when it is watched, or anew since a `resume`.
    since: Instant
    payment_at: Instant | None = None
    bill_at: Instant | None = None
    counted: list[_Counted] = []

    @property
    def heard(self) -> Heard:
        """When a bill and a payment were accepted last."""
        return Heard(self.bill_at, self.payment_at)

    def bill(self, now: Instant) -> None:
        """A bill was accepted."""
        self.bill_at = now

    def payment(self, now: Instant, *, usable: bool) -> None:
        """A payment was read."""
        if usable:
            self.payment_at = now
        step = now // _STEP
        if not self.counted or self.counted[-1].step != step:
            oldest = (now - _WINDOW) // _STEP
            self.counted = [one for one in self.counted if one.step >= oldest] + [_Counted(step, 0, 0)]
        self.counted[-1].payments += 1
        self.counted[-1].unusable += not usable

    def too_many_unusable(self, now: Instant) -> bool:
        """Whether more than 1 % of the payments of the last 5 minutes could not be used."""
        oldest = (now - _WINDOW) // _STEP
        recent = [one for one in self.counted if one.step >= oldest]
        unusable = sum(one.unusable for one in recent)
        return unusable > _MORE_THAN and unusable * _ONE_IN > sum(one.payments for one in recent)

    def resume(self, now: Instant) -> None:
        """Begin anew."""
        self.since, self.counted = now, []

    def heard_since(self, elsewhere: Heard) -> Instant:
        """When a payment was accepted last, here or `elsewhere`, as far as it is watched."""
        return max(self.since, self.payment_at or self.since, elsewhere.payment_at or self.since)

    def is_silent(self, now: Instant, silence: Duration, elsewhere: Heard) -> bool:
        """Whether bills have come, but for so long no payment, on this partition or `elsewhere`."""
        heard = self.heard_since(elsewhere)
        bill_at = max(self.bill_at or heard, elsewhere.bill_at or heard)
        return now - heard >= silence and bill_at > heard


class Heard(NamedTuple):
    """When a bill and a payment were accepted last on any other partition."""

    bill_at: Instant | None = None
    payment_at: Instant | None = None
