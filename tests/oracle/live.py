"""What §3 adds to the slow model: an account as it stands at one instant, by the records that were known then.

Live, records come late and in any order, and decisions come when they come. Nothing is stepped through here: whatever
is asked is worked out anew, from the records that are handed over, for the instant that is asked about. Which records
were accepted is not judged here: those handed over were.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from . import ledger
from .account import Account, Episode, Outage
from .controls import Hold, out_of_hold
from .replay import Run, turn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .policy import Policies, Policy
    from .records import Record

ZERO = Fraction(0)


@dataclass(frozen=True)
class Spell:
    """A stretch of arrears as the ledger has it. `until` None: it lasts."""

    since: int
    fee_from: int  # `since`, or an opening's `at`
    until: int | None


@dataclass(frozen=True)
class Marks:
    """None: never, as things stand."""

    suspend: int | None
    delete: int | None


class Known:
    """One account by some set of records; its own, and those for everybody on its partition."""

    def __init__(
        self,
        account_id: str,
        records: Iterable[Record],
        everyone: Iterable[Record] = (),
        *,
        policies: Policies,
        app_id: str = "arrears",
    ) -> None:
        self.account_id = account_id
        self.records = once(sorted(records, key=turn))
        self.everyone = once(sorted(everyone, key=turn))
        self.policies, self.app_id = policies, app_id

    def at(self, now: int) -> Account:
        """A record counts from its instant on; a change of a bill that is not there waits."""
        world = Run(self.policies, self.app_id)
        world.everyone = [record for record in self.everyone if record.at <= now]
        account = Account(self.account_id, world, now)
        account.records = with_their_bills([record for record in self.records if record.at <= now])
        world.policies = sorted(
            (record for record in [*world.everyone, *account.records] if record.kind == "policies"), key=turn
        )
        return account

    def spells(self, now: int) -> list[Spell]:
        """Every stretch of arrears up to `now`, oldest first (R1). A reopen begins a new one."""
        account = self.at(now)
        limits = [(record.at, record.data["amount"]) for record in account.records if record.kind == "credit_limit"]
        reopened = {record.at for record in account.records if record.kind == "reopen"}
        opening = next((record for record in account.records if record.kind == "opening"), None)
        found: list[Spell] = []
        running: Spell | None = None
        for at, balance in account.ledger.steps:
            place = bisect_right(limits, at, key=lambda limit: limit[0])
            limit = limits[place - 1][1] if place else ZERO
            if at in reopened:
                running = None
            if balance + limit < 0:
                since = at
                if opening is not None and opening.at == at and opening.data["arrears_since"] is not None:
                    since = opening.data["arrears_since"]
                running = running or Spell(since, at, None)
            elif running is not None:
                found.append(Spell(running.since, running.fee_from, at))
                running = None
        return found if running is None else [*found, running]

    def fee(self, spell: Spell, policy: Policy, now: int) -> Fraction:
        """R6, for the part of the spell up to `now`."""
        end = now if spell.until is None else min(now, spell.until)
        return ledger.fee(self.at(now).ledger, spell.fee_from, end, policy.late_fee_per_day)

    def marks(self, spell: Spell, now: int, *, told_at: int | None, suspended_at: int | None) -> Marks:
        """Both marks as known at `now`; `suspended_at`: the `decided_at` of the suspend that is in force."""
        policy = self.at(now).policy_for(spell.since)
        episode = Episode(spell.since, spell.fee_from, policy, told_at=told_at)
        controls = [record for record in [*self.records, *self.everyone] if record.topic == "controls"]
        moments = {spell.fee_from, *(control.at for control in controls if spell.fee_from < control.at <= now)}
        if suspended_at is not None:
            moments.add(max(suspended_at, spell.fee_from))
        account = self.at(now)
        for moment in sorted(moments):
            account = self.at(moment)
            if suspended_at is not None and suspended_at <= moment:
                account.suspension = Outage(policy.suspends, suspended_at, None)
            account.place_marks(episode)
        account = self.at(now)
        return Marks(account.suspend_mark(episode), account.delete_mark(episode))


def once(records: Sequence[Record]) -> list[Record]:
    """The same event of the same topic counts once, however often it was delivered."""
    found = {(record.topic, record.event_id): record for record in reversed(records)}
    return sorted(found.values(), key=turn)


def with_their_bills(records: Sequence[Record]) -> list[Record]:
    issued = {record.data["bill_id"]: record.at for record in records if record.kind == "issued"}
    return [
        record
        for record in records
        if record.kind not in ("adjusted", "voided")
        or (record.data["bill_id"] in issued and issued[record.data["bill_id"]] <= record.at)
    ]


def exempt_since(holds: Sequence[Hold], now: int) -> int | None:
    """Since when the account has been exempt at `now` without a gap; None if it is not."""
    exemptions = [hold for hold in holds if hold.kind == "exempt"]
    since: int | None = None
    reaching = [hold for hold in exemptions if hold.covers(now)]
    while reaching:
        earliest = min(hold.at for hold in reaching)
        if since is not None and earliest >= since:
            break
        since = earliest
        reaching = [hold for hold in exemptions if hold.at < earliest and (hold.end is None or hold.end >= earliest)]
    return since


def covered(holds: Sequence[Hold], now: int) -> bool:
    """Whether a hold covers `now`."""
    return out_of_hold(now, holds) != now
