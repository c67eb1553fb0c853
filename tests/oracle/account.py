"""One account: its records, its episode of arrears, and what is commanded and told, instant by instant.

At instant t first every record of t applies, then `settle` does what is due at t without being past it (restores,
arrears_started, cleared, breaches); what falls at t itself fires "just after t", stamped t, in `fire_before` of a later
instant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

from . import controls, ledger
from .controls import Hold, out_of_hold
from .values import LAST_INSTANT, format_amount, format_instant, round_half_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .policy import Policies, Policy
    from .records import Record

ZERO = Fraction(0)
OLDEST = 100  # unpaid bills that are listed
CLAUSES = {"suspend": "1.1.2", "restore": "1.1.2", "delete": "1.1.3"}


class World(Protocol):
    """What an account has to know of everything around it."""

    app_id: str
    everyone: list[Record]  # the usable controls of `*` so far

    def policies_at(self, instant: int) -> Policies: ...

    def forgotten(self, changed_at: int, now: int) -> bool: ...


@dataclass
class Ahead:
    """A suspension_ahead or deletion_ahead that is out, and the mark it spoke of."""

    kind: str
    at: int
    mark: int
    deadline: int | None
    notice: dict[str, Any]


@dataclass
class Mark:
    """`base`: where the clocks put the mark; when that changes, the mark lies no earlier than the change (`floor`)."""

    base: int | None
    floor: int

    def moved_to(self, base: int | None, now: int, known: Sequence[Hold]) -> Mark:
        if base == self.base:
            return self
        moved, before = Mark(base, now), self.falls(known)
        had_passed = before is not None and before < now
        stays_past = base is not None and base < now
        return self if had_passed and stays_past else moved  # what had passed does not move within the past

    def falls(self, known: Sequence[Hold]) -> int | None:
        return None if self.base is None else out_of_hold(max(self.base, self.floor), known)


@dataclass
class Episode:
    since: int
    fee_from: int  # `since`, or an opening's `at`
    policy: Policy
    carried: Fraction = ZERO  # the fee that was missing when it began
    told_at: int | None = None  # arrears_started
    suspend: Mark | None = None
    delete: Mark | None = None
    warnings: list[Ahead] = field(default_factory=list)


@dataclass(frozen=True)
class FeeMissing:
    """The bills are covered, the services still suspended, for `fee` alone."""

    ended: Episode
    fee: Fraction


@dataclass
class Outage:
    """Services that a command took away, from its `decided_at` to the restore's (or the reopen)."""

    services: tuple[str, ...]
    start: int
    command_id: str | None  # None: an opening's
    end: int | None = None


@dataclass(frozen=True)
class Deletion:
    outage: Outage
    fee: Fraction
    policy: Policy


class Account:
    def __init__(self, account_id: str, world: World, now: int) -> None:
        self.id, self.world, self.now = account_id, world, now
        self.records: list[Record] = []
        self.remembered: tuple[tuple[int, int], ledger.Ledger] | None = None
        self.episode: Episode | None = None
        self.fee_missing: FeeMissing | None = None
        self.suspension: Outage | None = None
        self.deletion: Deletion | None = None
        self.deletion_at_start: Deletion | None = None  # of the instant that is being processed
        self.outages: list[Outage] = []
        self.sequence = 0
        self.last_command_id: str | None = None
        self.commands: list[dict[str, Any]] = []
        self.notices: list[dict[str, Any]] = []

    # What the records say now ------------------------------------------------------------------------------------

    @property
    def ledger(self) -> ledger.Ledger:
        """From scratch; only remembered as long as neither the clock nor the records have changed."""
        key = (self.now, len(self.records))
        if self.remembered is None or self.remembered[0] != key:
            self.remembered = (key, ledger.fold(self.records, self.now, self.world.forgotten))
        return self.remembered[1]

    @property
    def headroom(self) -> Fraction:
        """`balance + credit_limit`: below 0 is in arrears (R1)."""
        return self.ledger.balance + ledger.credit_limit(self.records)

    @property
    def currency(self) -> str | None:
        given = [record.data.get("currency") for record in self.records]
        return next((currency for currency in given if currency is not None), None)

    @property
    def own_controls(self) -> list[Record]:
        return [record for record in self.records if record.topic == "controls"]

    @property
    def holds(self) -> list[Hold]:
        return controls.holds(self.own_controls, self.world.everyone)

    @property
    def holds_in_force(self) -> list[Hold]:
        return [hold for hold in self.holds if hold.covers(self.now)]

    @property
    def exempt(self) -> bool:
        return any(hold.kind == "exempt" for hold in self.holds_in_force)

    def policy_for(self, start: int) -> Policy:
        """R10: the policy of an episode that begins at `start`."""
        policies = self.world.policies_at(start)
        chosen = controls.newest("policy", self.own_controls, self.world.everyone, before=start)
        name = policies.first_name if chosen is None else chosen.data["policy"]
        return policies.version_at(name if name in policies.names else policies.first_name, start)

    def fee_of(self, episode: Episode) -> Fraction:
        rate = episode.policy.late_fee_per_day
        return episode.carried + ledger.fee(self.ledger, episode.fee_from, self.now, rate)

    @property
    def fee(self) -> Fraction:
        if self.deletion is not None:
            return self.deletion.fee
        if self.fee_missing is not None:
            return self.fee_missing.fee
        return ZERO if self.episode is None else self.fee_of(self.episode)

    # Marks, as things stand --------------------------------------------------------------------------------------

    def place_marks(self, episode: Episode) -> None:
        """Work out where the marks are; a mark that has moved into the past falls now."""
        policy, known = episode.policy, self.holds
        allowance = controls.allowance(self.own_controls, self.world.everyone)
        base = controls.unfrozen(episode.since, policy.suspend_after + allowance, known)
        base = base if base is not None and base <= LAST_INSTANT else None
        # An allowance that moves the mark of a suspend that was commanded moves what is counted from it, no more.
        if episode.suspend is None:
            episode.suspend = Mark(base, self.now)
        elif self.suspension is None:
            episode.suspend = episode.suspend.moved_to(base, self.now, known)
        elif base != episode.suspend.base:
            episode.suspend = Mark(base, episode.suspend.floor)

        if policy.delete_clock == "arrears":
            base = controls.unfrozen(episode.since, policy.delete_after + allowance, known)
        else:
            suspend_mark = episode.suspend.falls(known)
            base = None if suspend_mark is None else controls.unfrozen(suspend_mark, policy.delete_after, known)
        suspended_at = self.suspend_due(episode) if self.suspension is None else self.suspension.start
        base = None if base is None or suspended_at is None else max(base, suspended_at + policy.min_suspended)
        base = base if base is not None and base <= LAST_INSTANT else None
        if episode.delete is None:
            episode.delete = Mark(base, self.now)
        else:
            episode.delete = episode.delete.moved_to(base, self.now, known)

    def suspend_mark(self, episode: Episode) -> int | None:
        assert episode.suspend is not None
        return episode.suspend.falls(self.holds)

    def delete_mark(self, episode: Episode) -> int | None:
        assert episode.delete is not None
        return episode.delete.falls(self.holds)

    def suspend_due(self, episode: Episode) -> int | None:
        """When the suspend can come: its mark, once the customer has been told long enough, outside of holds."""
        mark = self.suspend_mark(episode)
        if mark is None:
            return None
        due = max(mark, self.now)
        if episode.policy.suspension_ahead:
            told_at = self.now if episode.told_at is None else episode.told_at
            due = max(due, told_at + min(episode.policy.suspension_ahead))
        return within_time(out_of_hold(due, self.holds))

    def counting(self, episode: Episode) -> list[Ahead]:
        """The deletion_ahead that count: the mark has not moved since, the deadline did not fall in a hold."""
        mark, known = self.delete_mark(episode), self.holds
        return [
            warning
            for warning in episode.warnings
            if warning.kind == "deletion_ahead"
            and warning.mark == mark
            and out_of_hold(warning.deadline, known) == warning.deadline
        ]

    def next_warning(self, kind: str, ahead: Sequence[int], mark: int | None, out: Sequence[Ahead]) -> int | None:
        """When the next warning of the mark goes out; `out`: those of the mark that are out and count.

        Due together only the nearest goes out: what was due when one of `out` went out is done with.
        """
        if mark is None:
            return None
        left = [mark - before for before in ahead if not any(mark - before <= warning.at for warning in out)]
        if not left:
            return None
        at = out_of_hold(max(min(left), self.now), self.holds)
        passed = at is not None and at >= mark
        needed = kind == "deletion_ahead" and not out
        return None if passed and not needed else within_time(at)

    def next_suspension_ahead(self, episode: Episode) -> int | None:
        mark = self.suspend_mark(episode)
        out = [warning for warning in episode.warnings if warning.kind == "suspension_ahead" and warning.mark == mark]
        return self.next_warning("suspension_ahead", episode.policy.suspension_ahead, mark, out)

    def next_deletion_ahead(self, episode: Episode) -> int | None:
        mark, out = self.delete_mark(episode), self.counting(episode)
        return self.next_warning("deletion_ahead", episode.policy.deletion_ahead, mark, out)

    def delete_due(self, episode: Episode) -> int | None:
        """When the delete can come: its mark, once a deletion_ahead has been out for the shortest duration."""
        mark = self.delete_mark(episode)
        if mark is None:
            return None
        due: int | None = max(mark, self.now)
        if episode.policy.deletion_ahead:
            out = [warning.at for warning in self.counting(episode)]
            told_at = min(out) if out else self.next_deletion_ahead(episode)
            due = None if told_at is None else max(mark, self.now, told_at + min(episode.policy.deletion_ahead))
        return within_time(out_of_hold(due, self.holds))

    # What falls ---------------------------------------------------------------------------------------------------

    def fire_before(self, instant: int) -> None:
        """Fire, in order, every warning and mark that falls before `instant`; the clock is then at `instant`."""
        while (episode := self.episode) is not None:
            due = [(at, order) for order, at in enumerate(self.falling(episode)) if at is not None and at < instant]
            if not due:
                break
            self.now, order = min(due)
            match order:
                case 0:
                    self.warn(episode, "suspension_ahead", self.suspend_mark(episode), self.suspend_due(episode))
                case 1:
                    self.suspend(episode)
                case 2:
                    self.warn(episode, "deletion_ahead", self.delete_mark(episode), None)
                case _:
                    self.delete(episode)
        self.now = instant
        self.deletion_at_start = self.deletion

    def falling(self, episode: Episode) -> tuple[int | None, int | None, int | None, int | None]:
        """The next suspension_ahead, suspend, deletion_ahead, delete: the order within one instant."""
        running = self.suspension is None
        can_delete = not running and (not episode.policy.deletion_ahead or bool(self.counting(episode)))
        return (
            self.next_suspension_ahead(episode) if running else None,
            self.suspend_due(episode) if running else None,
            self.next_deletion_ahead(episode),
            self.delete_due(episode) if can_delete else None,
        )

    def warn(self, episode: Episode, kind: str, mark: int | None, deadline: int | None) -> None:
        assert mark is not None
        notice = self.tell(kind, since=episode.since)
        warning = Ahead(kind, self.now, mark, mark, notice)
        episode.warnings.append(warning)
        warning.deadline = self.delete_due(episode) if kind == "deletion_ahead" else deadline
        set_deadline(notice, warning.deadline)

    def suspend(self, episode: Episode) -> None:
        command = self.command("suspend", episode.policy.suspends, "unpaid_past_suspend_mark", episode)
        self.suspension = Outage(episode.policy.suspends, self.now, command["command_id"])
        self.outages.append(self.suspension)
        self.place_marks(episode)
        notice = self.tell("suspended", since=episode.since, command_id=command["command_id"])
        set_deadline(notice, self.delete_due(episode))

    def delete(self, episode: Episode) -> None:
        command = self.command("delete", episode.policy.deletes, "unpaid_past_delete_mark", episode)
        told = min(self.counting(episode), key=lambda warning: warning.at, default=None)
        if told is not None:
            command["notice_id"], command["_notice_label"] = told.notice["notice_id"], told.notice["_label"]
        self.tell("deleted", since=episode.since, command_id=command["command_id"])
        outage = Outage(episode.policy.deletes, self.now, command["command_id"])
        self.outages.append(outage)
        self.deletion = Deletion(outage, self.fee_of(episode), episode.policy)
        self.episode = None

    # What is due at an instant, once its records have applied -----------------------------------------------------

    def settle(self) -> None:
        new = [record for record in self.records if record.at == self.now]
        if self.deletion_at_start is not None:
            self.tell_of_late_topups(self.deletion_at_start, new)
        if self.deletion is None:
            self.end_what_is_paid()
            self.begin_what_is_owed()
            if self.episode is not None:
                self.place_marks(self.episode)
                if self.suspension is not None and self.exempt:
                    self.restore("operator", self.episode, self.fee_of(self.episode))
                    self.place_marks(self.episode)
                self.tell_of_arrears(self.episode)
        for usage in [record for record in new if record.topic == "usage"]:
            self.tell_of_breach(usage)
        for package in ledger.packages(self.records):
            if package.exhausted_by in new:
                self.tell("package_exhausted", since=self.since, subject=package.package_id)

    @property
    def since(self) -> int | None:
        return None if self.episode is None else self.episode.since

    def tell_of_late_topups(self, deletion: Deletion, new: Sequence[Record]) -> None:
        for record in new:
            if record.kind == "topup":
                self.tell(
                    "payment_after_delete",
                    since=None,
                    fee=deletion.fee,
                    command_id=deletion.outage.command_id,
                    subject=record.event_id,
                )

    def end_what_is_paid(self) -> None:
        """R4 and the late fee: the episode is over once the bills are covered, the suspension once the fee is too."""
        headroom, episode = self.headroom, self.episode
        if episode is not None and headroom >= 0:
            fee = self.fee_of(episode)
            self.episode = None
            if self.suspension is None:
                self.tell("arrears_cleared", since=episode.since, fee=fee)
            elif episode.policy.late_fee_required and headroom < round_half_up(fee):
                self.fee_missing = FeeMissing(episode, fee)
            else:
                self.restore("paid_in_full", episode, fee)
        if (missing := self.fee_missing) is not None and headroom >= 0:
            paid = headroom >= round_half_up(missing.fee)
            if paid or self.exempt:
                self.fee_missing = None
                self.restore("paid_in_full" if paid else "operator", missing.ended, missing.fee)

    def begin_what_is_owed(self) -> None:
        if self.episode is None and self.headroom < 0:
            carried = ZERO if self.fee_missing is None else self.fee_missing.fee
            self.fee_missing = None
            self.episode = Episode(self.now, self.now, self.policy_for(self.now), carried)

    def tell_of_arrears(self, episode: Episode) -> None:
        if episode.told_at is None:
            episode.told_at = self.now
            notice = self.tell("arrears_started", since=episode.since)
            due = self.suspend_due(episode) if self.suspension is None else self.delete_due(episode)
            set_deadline(notice, due)

    def restore(self, reason: str, episode: Episode, fee: Fraction) -> None:
        assert self.suspension is not None
        command = self.command("restore", self.suspension.services, reason, episode, fee)
        self.tell("restored", since=episode.since, fee=fee, command_id=command["command_id"])
        self.end_outages()

    def tell_of_breach(self, usage: Record) -> None:
        started_at, service = usage.data["started_at"], usage.data["service"]
        broken = [
            outage
            for outage in self.outages
            if service in outage.services
            and started_at > outage.start
            and (outage.end is None or started_at < outage.end)
        ]
        if broken:
            self.tell(
                "usage_while_suspended",
                since=self.since,
                command_id=broken[-1].command_id,
                subject=usage.event_id,
            )

    # Records that change what has been commanded ------------------------------------------------------------------

    def take_over(self, opening: Record) -> None:
        """An opening: another system's account; its `at` is the suspended account's `decided_at`."""
        status, since = opening.data["status"], opening.data["arrears_since"]
        self.sequence = opening.data["sequence"]
        if status == "deleted":
            policy = self.policy_for(self.now)
            outage = Outage(policy.deletes, self.now, None)
            self.outages.append(outage)
            self.deletion = self.deletion_at_start = Deletion(outage, ZERO, policy)
        elif status != "current":
            self.episode = Episode(since, self.now, self.policy_for(since))
        if status == "suspended" and self.episode is not None:
            self.suspension = Outage(self.episode.policy.suspends, self.now, None)
            self.outages.append(self.suspension)

    def reopen(self) -> None:
        self.deletion = None
        self.end_outages()

    def end_outages(self) -> None:
        self.suspension = None
        for outage in self.outages:
            outage.end = self.now if outage.end is None else outage.end

    # What goes out ------------------------------------------------------------------------------------------------

    def command(
        self, action: str, services: Sequence[str], reason: str, episode: Episode, fee: Fraction | None = None
    ) -> dict[str, Any]:
        self.sequence += 1
        self.last_command_id = f"{self.world.app_id}/{self.id}/command/{self.sequence}"
        command = {
            "command_id": self.last_command_id,
            "account_id": self.id,
            "sequence": self.sequence,
            "action": action,
            "services": list(services),
            "effective_at": format_instant(self.now),
            "decided_at": format_instant(self.now),
            "arrears_since": format_instant(episode.since),
            **self.owing(self.fee_of(episode) if fee is None else fee),
            "currency": self.currency,
            **self.unpaid_bills(),
            "policy": episode.policy.label,
            "policy_hash": "",
            "clause": CLAUSES[action],
            "reason": reason,
            "supersedes": None,
            "evidence": None,
            "notice_id": None,
            "_notice_label": None,
        }
        self.commands.append(command)
        return command

    def tell(
        self,
        kind: str,
        *,
        since: int | None,
        fee: Fraction | None = None,
        command_id: str | None = None,
        subject: str | None = None,
    ) -> dict[str, Any]:
        at = format_instant(self.now)
        notice = {
            "notice_id": f"{self.world.app_id}/{self.id}/notice/{len(self.notices)}",
            "account_id": self.id,
            "kind": kind,
            "at": at,
            **self.owing(self.fee if fee is None else fee),
            "currency": self.currency,
            "arrears_since": None if since is None else format_instant(since),
            "deadline": None,
            "command_id": command_id,
            "_label": (kind, at, None),
            "_subject": subject,
        }
        self.notices.append(notice)
        return notice

    def owing(self, fee: Fraction) -> dict[str, str]:
        return {"owed": format_amount(self.ledger.owed), "late_fee": format_amount(round_half_up(fee))}

    def unpaid_bills(self) -> dict[str, Any]:
        unpaid = self.ledger.unpaid
        return {
            "unpaid_bills": [
                {
                    "bill_id": bill.bill_id,
                    "amount": format_amount(bill.total),
                    "outstanding": format_amount(bill.outstanding),
                }
                for bill in unpaid[:OLDEST]
            ],
            "unpaid_bills_count": len(unpaid),
        }

    def view(self) -> dict[str, Any]:
        status, services, policy = self.standing()
        episode = self.episode
        return {
            "account_id": self.id,
            "status": status,
            "balance": format_amount(self.ledger.balance),
            **self.owing(self.fee),
            "currency": self.currency,
            "credit_limit": format_amount(ledger.credit_limit(self.records)),
            "arrears_since": None if episode is None else format_instant(episode.since),
            "suspend_at": instant_or_null(
                None if episode is None or self.suspension is not None else self.suspend_due(episode)
            ),
            "delete_at": instant_or_null(None if episode is None else self.delete_due(episode)),
            "sequence": self.sequence,
            "last_command_id": self.last_command_id,
            "suspended_services": list(services),
            **self.unpaid_bills(),
            "unbilled": format_amount(ledger.unbilled(self.records)),
            "packages": self.package_views(),
            "hold": self.hold_view(),
            "policy": policy.label,
            "as_of": format_instant(self.now),
        }

    def standing(self) -> tuple[str, tuple[str, ...], Policy]:
        """Status, the services that are away, and the policy that goes with it."""
        if self.deletion is not None:
            return "deleted", self.deletion.outage.services, self.deletion.policy
        current = self.episode or (None if self.fee_missing is None else self.fee_missing.ended)
        policy = self.policy_for(self.now) if current is None else current.policy
        if self.suspension is not None:
            return "suspended", self.suspension.services, policy
        return ("current" if current is None else "in_arrears"), (), policy

    def package_views(self) -> list[dict[str, Any]]:
        return [
            {
                "package_id": package.package_id,
                "service": package.service,
                "unit": package.unit,
                "remaining": format_amount(package.remaining),
                "ends_at": format_instant(package.ends_at),
            }
            for package in ledger.packages(self.records)
            if package.remaining > 0 and not package.cancelled and package.ends_at > self.now
        ]

    def hold_view(self) -> dict[str, Any] | None:
        """The one that ends last, then the greater `event_id`."""
        if not self.holds_in_force:
            return None
        last = max(
            self.holds_in_force,
            key=lambda hold: (LAST_INSTANT + 1 if hold.end is None else hold.end, hold.event_id),
        )
        return {
            "kind": last.kind,
            "at": format_instant(last.at),
            "until": instant_or_null(last.until),
            "freeze_clock": last.freeze_clock,
        }


def within_time(instant: int | None) -> int | None:
    """What lies beyond the year 9999 never comes."""
    return None if instant is None or instant > LAST_INSTANT else instant


def instant_or_null(instant: int | None) -> str | None:
    return None if instant is None else format_instant(instant)


def set_deadline(notice: dict[str, Any], deadline: int | None) -> None:
    notice["deadline"] = instant_or_null(deadline)
    notice["_label"] = (notice["kind"], notice["at"], notice["deadline"])
