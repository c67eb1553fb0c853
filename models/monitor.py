"""The accounts of one partition: `apply` takes records in, `decide` says what is to be published, `next_due` when.

The caller brings the time. It applies every record up to an instant, then decides at that instant; live, when its fence
has opened; in a replay, at each instant of a record and at each that `next_due` names. Nothing here knows which.
"""

from __future__ import annotations

from bisect import insort
from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

from models.account import Account, Horizon
from models.decision import Decision, Moment, unpaid_bills
from models.enforcement import Commanded
from models.ledger import check_same_content
from models.instants import FIRST_INSTANT, LAST_INSTANT, Instant, format_instant
from models.money import format_fine, format_money
from models.outputs import AccountView, Command, DeadLetter, HoldView, Notice, PackageView, Source, dead_letter
from models.policy import Policies
from models.records import Bill, Control, Package, Payment, Usage, fingerprint
from models.refusal import Refusal
from models.standing import NEVER, Standing, policy_choice

if TYPE_CHECKING:
    from collections.abc import Iterable

    from models.account import Origin

    from models.instants import Duration
    from models.policy import Policy
    from models.records import Record

#: The account of controls that are for everybody.
EVERYBODY = "*"


class Terms(NamedTuple):
    """What a caller sets once: ids and how long is remembered (`history` no less than any policy's `delete_after`)."""

    app_id: str
    history: Duration
    usage_history: Duration
    #: Whether suspends and deletes wait the policy's `lateness` more.
    lateness: bool = False


class Published(NamedTuple):
    """What one decision publishes, account by account."""

    commands: list[Command]
    notices: list[Notice]
    dead_letters: list[DeadLetter]


#: What most decisions publish.
NOTHING = Published([], [], [])


class PoliciesFrom(NamedTuple):
    """The policies that hold from an instant on (R10)."""

    at: Instant
    event_id: str
    policies: Policies


class Monitor:
    """One partition."""

    def __init__(self, policies: Policies, terms: Terms) -> None:
        self.terms = terms
        self.accounts: dict[str, Account] = {}
        self._everybody = Standing()
        self._everybody_events: dict[str, tuple[Instant, int]] = {}
        self._policies = [PoliciesFrom(FIRST_INSTANT - 1, "", policies)]
        #: No shorter than any `delete_after`.
        self._history = max(terms.history, _longest_delete(policies))
        self._horizon = Horizon(FIRST_INSTANT, FIRST_INSTANT)
        self._moment = Moment(terms.app_id, self._everybody, self._policy_for, lateness=terms.lateness)
        self._touched: dict[str, Account] = {}
        self._due: list[tuple[Instant, str]] = []
        self._dead_letters: list[DeadLetter] = []

    # -- records ----------------------------------------------------------------------------------------------------

    def remember_from(self, complete: Instant) -> None:
        """Every record up to `complete` is in: what lies `history` before it may be forgotten."""
        self._horizon = Horizon(complete - self._history, complete - self.terms.usage_history)

    def apply(self, record: Record, origin: Origin) -> None:
        """Change ledgers; send nothing but dead letters.

        `origin` is asked only if the record is refused or has to wait for another.
        """
        account_id = record.account_id
        account = self.accounts.get(account_id)
        try:
            if account_id == EVERYBODY:
                assert isinstance(record, Control)  # the contract's models allow "*" nowhere else
                self._apply_to_everybody(record)
                return
            if account is None:
                account = Account(account_id)
            self._apply_to(account, record, origin)
        except Refusal as refusal:
            self.refuse(origin(), refusal)
        else:
            self.accounts[account_id] = account
            self._touched[account_id] = account

    def refuse(self, source: Source, refusal: Refusal) -> None:
        """A record that cannot be used."""
        self._dead_letters.append(dead_letter(source, refusal))

    def _apply_to(self, account: Account, record: Record, origin: Origin) -> None:
        horizon = self._horizon
        match record:
            case Bill():
                for waited, refusal in account.apply_bill(record, horizon, origin):
                    self.refuse(waited, refusal)
            case Payment():
                account.apply_payment(record, horizon)
            case Usage():
                account.apply_usage(record, horizon)
            case Package():
                account.apply_package(record, horizon)
            case Control():
                account.apply_control(record, horizon, self)
                self._take_policies(record)
            case _:
                account.usable = True

    def _apply_to_everybody(self, control: Control) -> None:
        crc = fingerprint(control)
        known = self._everybody_events.get(control.event_id)
        if known is not None and known[0] >= self._horizon.history:
            check_same_content(control.event_id, known[1], crc)
            return
        self.check_policy(control)
        self._everybody_events[control.event_id] = (control.at, crc)
        if control.kind not in ("policies", "resume"):
            self._everybody.add(control)
            heappush(self._due, (control.at, EVERYBODY))
        self._take_policies(control)

    def _take_policies(self, control: Control) -> None:
        if control.kind == "policies":
            assert control.policies is not None  # the contract's model requires it
            policies = Policies(control.policies)
            insort(self._policies, PoliciesFrom(control.at, control.event_id, policies), key=lambda p: p[:2])
            self._history = max(self._history, _longest_delete(policies))

    # -- policies ---------------------------------------------------------------------------------------------------

    def _policies_at(self, at: Instant) -> Policies:
        for policies in reversed(self._policies):
            if policies.at <= at:
                return policies.policies
        return self._policies[0].policies

    def _policy_for(self, own: Standing | None, since: Instant) -> Policy:
        """The policy of an episode that begins at `since` (R10)."""
        policies = self._policies_at(since)
        name = policy_choice(since, own, self._everybody)
        return policies.version_at(policies.first_name if name is None else name, since)

    def policy_of_opening(self, control: Control) -> Policy:
        """The policy of an account that is taken over: by the start of its arrears, or by the opening's `at`."""
        return self._policy_for(None, control.at if control.arrears_since is None else control.arrears_since)

    def check_policy(self, control: Control) -> None:
        """Raise Refusal if a `policy` control names one that is not in force at its `at`."""
        if control.kind == "policy":
            names = self._policies_at(control.at).names
            if control.policy not in names:
                message = f"{control.policy} is not known: the policies in force are {', '.join(names)}"
                raise Refusal("invalid", "policy", message)

    # -- decisions --------------------------------------------------------------------------------------------------

    def next_due(self) -> Instant | None:
        """The next instant at which a decision may publish something, if no record comes before."""
        due = self._due
        while due:
            at, account_id = due[0]
            if account_id == EVERYBODY or self.accounts[account_id].due == at:
                return at
            heappop(due)
        return None

    def decide(self, now: Instant, *, past: bool) -> Published:
        """Compare what is required with what was commanded, for the accounts touched since the last time or due by now.

        The clock stands at `now`, with `past` just behind it: a mark that falls at `now` fires only then.
        """
        moment = self._moment
        moment.now, moment.past, moment.history = now, past, self._horizon.history
        for account in self._to_decide(now):
            self._decide(account, moment)
        if not (moment.commands or moment.notices or self._dead_letters):
            return NOTHING
        published = Published(moment.commands, moment.notices, self._dead_letters)
        moment.commands, moment.notices, self._dead_letters = [], [], []
        return published

    def _to_decide(self, now: Instant) -> Iterable[Account]:
        touched, self._touched = self._touched, {}
        due = self._due
        while due and due[0][0] <= now:
            at, account_id = heappop(due)
            if account_id == EVERYBODY:
                for account in self.accounts.values():
                    if account.enforcement is not None:
                        account.changed = True
                        touched[account.account_id] = account
            elif (account := self.accounts[account_id]).due == at:
                touched[account_id] = account
        return touched.values()

    def _decide(self, account: Account, moment: Moment) -> None:
        now, ledger = moment.now, account.ledger
        ledger.settle(now, moment.history)
        if ledger.waiting:
            for source, refusal in ledger.refuse_waiting(now, account.currency):
                self.refuse(source, refusal)
        if self._is_quiet(account, now):
            return
        due = Decision(account, moment).decide()
        account.changed = False
        following = ledger.next_after()
        if following is not None:
            due = min(due, following)
        if account.own is not None:
            due = min(due, account.own.next_after(now))
        account.due = due if due <= LAST_INSTANT else None
        if account.due is not None:
            heappush(self._due, (due, account.account_id))

    @staticmethod
    def _is_quiet(account: Account, now: Instant) -> bool:
        """Whether nothing can have come of the records: the account stays clear, or its episode runs on as it did."""
        ledger, enforcement = account.ledger, account.enforcement
        if account.changed or account.facts or ledger.has_more or (account.due is not None and account.due <= now):
            return False
        if enforcement is None:
            return not ledger.in_arrears
        if enforcement.deletion is not None:
            return True
        episode = enforcement.episode
        if episode is None:
            return not ledger.in_arrears and enforcement.suspension is None
        return ledger.in_arrears and ledger.since == episode.since

    # -- accounts ---------------------------------------------------------------------------------------------------

    def views(self, as_of: Instant) -> Iterable[AccountView]:
        """Every account with a usable record, by `account_id`, as it stands at `as_of` (after the decision)."""
        moment = self._moment
        moment.now, moment.past = as_of, False
        for account_id in sorted(self.accounts):
            account = self.accounts[account_id]
            if account.usable:
                yield self._view(account, moment)

    def _view(self, account: Account, moment: Moment) -> AccountView:
        now = moment.now
        ledger, tip = account.ledger, account.ledger.tip
        decision = Decision(account, moment)
        enforcement = decision.enforcement
        commanded = enforcement.commanded
        deletion, missing, episode = enforcement.deletion, enforcement.fee_missing, enforcement.episode
        suspend_at = delete_at = NEVER
        if commanded is Commanded.DELETED:
            status = "deleted"
        elif commanded is Commanded.SUSPENDED:
            status = "suspended"
        else:
            status = "current" if episode is None else "in_arrears"
        if episode is not None:
            if commanded is Commanded.RUN:
                suspend_at = decision.can_suspend_at(episode)
            delete_at = decision.can_delete_at(episode)
        if deletion is not None:
            policy, services = deletion.policy, deletion.services
        else:
            services = enforcement.suspension.services if enforcement.suspension else ()
            if episode is not None or missing is not None:
                policy = episode.policy if episode is not None else missing.policy  # type: ignore[union-attr]
            else:
                policy = self._policy_for(account.own, now)
        unpaid, count = unpaid_bills(account)
        book = account.usage
        hold = decision.held.in_force(now)
        return AccountView(
            account.account_id,
            status,
            format_money(tip.balance),
            format_money(ledger.owed),
            format_money(decision.late_fee()),
            account.currency,
            format_money(tip.limit),
            None if episode is None else format_instant(episode.since),
            _or_null(suspend_at),
            _or_null(delete_at),
            enforcement.sequence,
            enforcement.last_command_id,
            services,
            unpaid,
            count,
            format_fine(book.unbilled) if book else "0",
            tuple(
                PackageView(p.package_id, p.service, p.unit, format_fine(p.remaining), format_instant(p.ends_at))
                for p in (book.left(now) if book else ())
            ),
            None
            if hold is None
            else HoldView(
                "exempt" if hold.exempt else "hold",
                format_instant(hold.at),
                None if hold.until is None else format_instant(hold.until),
                hold.freeze_clock,
            ),
            policy.label,
            format_instant(now),
        )


def _or_null(at: Instant) -> str | None:
    return None if at > LAST_INSTANT else format_instant(at)


def _longest_delete(policies: Policies) -> Duration:
    return max(policy.delete_after for policy in policies.versions)
