"""An account as it is published: `arrears.accounts` (contract §2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.decision import Decision, unpaid_bills
from models.enforcement import Commanded
from models.instants import LAST_INSTANT, format_instant
from models.marks import NO_HOLDS
from models.money import format_fine, format_money
from models.outputs import AccountView, HoldView, PackageView
from models.standing import NEVER

if TYPE_CHECKING:
    from models.account import Account
    from models.decision import Moment
    from models.enforcement import Enforcement
    from models.instants import Instant
    from models.policy import Policy


def account_view(account: Account, moment: Moment) -> AccountView:
    """The account as it stands at `moment`, after the decision of that moment."""
    now, ledger, tip = moment.now, account.ledger, account.ledger.tip
    decision = Decision(account, moment)
    enforcement = decision.enforcement
    episode = enforcement.episode
    suspend_at = delete_at = NEVER
    if episode is not None:
        if enforcement.commanded is Commanded.RUN:
            suspend_at = decision.can_suspend_at(episode)
        delete_at = decision.can_delete_at(episode)
    unpaid, count = unpaid_bills(account)
    return AccountView(
        account.account_id,
        enforcement.status,
        format_money(tip.balance),
        format_money(ledger.owed),
        "0" if account.enforcement is None else format_money(decision.late_fee()),
        account.currency,
        format_money(tip.limit),
        None if episode is None else format_instant(episode.since),
        _or_null(suspend_at),
        _or_null(delete_at),
        enforcement.sequence,
        enforcement.last_command_id,
        _stopped_services(enforcement),
        unpaid,
        count,
        "0" if account.usage is None else format_fine(account.usage.unbilled),
        _packages(account, now),
        _hold(decision, now),
        _policy(account, moment, enforcement).label,
        format_instant(now),
    )


def _stopped_services(enforcement: Enforcement) -> tuple[str, ...]:
    stopped = enforcement.deletion or enforcement.suspension
    return () if stopped is None else stopped.services


def _policy(account: Account, moment: Moment, enforcement: Enforcement) -> Policy:
    """That of the delete, of the episode, of the episode whose fee is missing; else the one that would hold now."""
    keeper = enforcement.deletion or enforcement.episode or enforcement.fee_missing
    everybody = moment.everybody
    return everybody.versions[everybody.policy_for(account.own, moment.now) if keeper is None else keeper.policy]


def _packages(account: Account, now: Instant) -> tuple[PackageView, ...]:
    if account.usage is None:
        return ()
    return tuple(
        PackageView(
            package.package_id,
            package.service,
            package.unit,
            format_fine(package.remaining),
            format_instant(package.ends_at),
        )
        for package in account.usage.left(now)
    )


def _hold(decision: Decision, now: Instant) -> HoldView | None:
    hold = None if decision.held is NO_HOLDS else decision.held.in_force(now)
    if hold is None:
        return None
    return HoldView(
        "exempt" if hold.exempt else "hold",
        format_instant(hold.at),
        None if hold.until is None else format_instant(hold.until),
        hold.freeze_clock,
    )


def _or_null(at: Instant) -> str | None:
    return None if at > LAST_INSTANT else format_instant(at)
