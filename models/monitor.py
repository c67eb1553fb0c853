"""The accounts of one partition: `apply` takes records in, `decide` says what is to be published, `next_due` when.

The caller brings the time. It applies every record up to an instant, then decides at that instant; live, when its fence
has opened; in a replay, at each instant of a record and at each that `next_due` names. Nothing here knows which.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

from models.account import Account, Horizon
from models.decision import Decision, Moment
from models.everybody import EVERYBODY, Everybody
from models.instants import FIRST_INSTANT, LAST_INSTANT, MINUTE, Instant, format_instant
from models.ledger import check_same_content
from models.outputs import AccountView, Command, DeadLetter, Notice, Source, dead_letter
from models.policy import Policies
from models.records import Ack, Bill, Control, Package, Payment, Usage, fingerprint
from models.refusal import Refusal
from models.standing import NEVER
from models.views import account_view

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from models.account import Origin
    from models.codec import Peek
    from models.enforcement import Action
    from models.instants import Duration
    from models.records import Record


class Terms(NamedTuple):
    """What a caller sets once: the ids' name space, how long is remembered, and whether §3 plays a part."""

    app_id: str
    #: Of movements and ids; no policy's `delete_after` is longer (the monitor sees to it).
    history: Duration
    #: Of the ids of usage.
    usage_history: Duration
    #: None in a replay: records come in order, and nothing is too early or too late.
    live: Live | None = None


class Live(NamedTuple):
    """§3, as far as the domain decides it."""

    #: A record dated later than this past the clock is `too_early`.
    max_ahead: Duration
    #: The most deletes and suspends of a sliding hour; None: without limit.
    max_deletes: int | None = 100
    max_suspends: int | None = 5_000
    #: Services that have to confirm each command, and by when.
    subscribers: tuple[str, ...] = ()
    confirm_within: Duration = 15 * MINUTE
    #: Whether the wait of a delete runs from the ack of its `deletion_ahead`.
    notice_acks: bool = False


class Published(NamedTuple):
    """What one decision publishes."""

    commands: list[Command]
    notices: list[Notice]
    dead_letters: list[DeadLetter]


#: What most decisions publish.
NOTHING = Published([], [], [])


class Accounts(Protocol):
    """Where the accounts are: in memory for a replay, in a `store.AccountStore` live."""

    def __iter__(self) -> Iterator[str]:
        """Their ids."""

    def get(self, account_id: str, /) -> Account | None:
        """The account, if there is one."""

    def __getitem__(self, account_id: str, /) -> Account:
        """The account, which is there."""

    def __setitem__(self, account_id: str, account: Account, /) -> None:
        """Put it there."""

    def due_of(self, account_id: str, /) -> Instant | None:
        """When the account, which is there, has to be decided on next."""

    def mark_of(self, account_id: str, /) -> Instant | None:
        """The mark of the command that is ahead of the account, which is there."""

    def active(self) -> Iterable[str]:
        """Ids of those of which anything was ever commanded or told."""

    def peeks(self) -> Iterable[tuple[str, Peek]]:
        """What has to be known of each to take it over."""


class AccountsInMemory(dict[str, Account]):
    """All accounts, decoded."""

    def due_of(self, account_id: str) -> Instant | None:
        """When the account, which is there, has to be decided on next."""
        return self[account_id].due

    def mark_of(self, account_id: str) -> Instant | None:
        """The mark of the command that is ahead of the account, which is there."""
        return self[account_id].mark

    def active(self) -> Iterable[str]:
        """Ids of those of which anything was ever commanded or told."""
        return [account_id for account_id, account in self.items() if account.enforcement is not None]

    def peeks(self) -> Iterable[tuple[str, Peek]]:
        """There is nothing to take over."""
        return ()


class Monitor:
    """One partition."""

    def __init__(self, everybody: Everybody, terms: Terms, accounts: Accounts | None = None) -> None:
        self.terms = terms
        self.accounts: Accounts = AccountsInMemory() if accounts is None else accounts
        self.everybody = everybody
        #: The clock that records are judged by (§3); decisions move it on.
        self.clock: Instant = everybody.decided_to
        self._horizon = Horizon(FIRST_INSTANT, FIRST_INSTANT)
        #: Bills up to here are all in: a change that still waits for one waits in vain.
        self._settled: Instant = FIRST_INSTANT - 1
        self._moment = Moment(terms.app_id, self.everybody, terms.live)
        #: Ids of accounts with records that no decision has seen (a dict keeps their order), and those of them that a
        #: fence covers. Ids only: a commit in between closes the accounts. The values are those of `_chosen`.
        self._touched: dict[str, bool] = {}
        self._sealed: dict[str, bool] = {}
        self._sealed_for_all = False
        #: What the decision in progress has chosen and not come to yet, the oldest mark last; whether what holds for it
        #: may have changed besides.
        self._chosen: list[tuple[str, bool]] = []
        #: Live: accounts decided on since their last view; and those of which only usage or packages have changed, with
        #: the instant of their next.
        self._decided: dict[str, None] = {}
        self._unseen: dict[str, Instant] = {}
        #: Accounts with late evidence about their delete: it may stop all others', so they are decided on first.
        self._doubted: set[str] = set()
        self._waiting: set[str] = set()
        self._due: list[tuple[Instant, str]] = []
        self._dead_letters: list[DeadLetter] = []
        #: How many records were refused so far.
        self.refused = 0
        self._take_over()

    def _take_over(self) -> None:
        """Go on with recovered accounts: when they are due, and what was left undecided."""
        for account_id, seen in self.accounts.peeks():
            if seen.due is not None:
                self._due.append((seen.due, account_id))
            if seen.held_back:  # tried again: what held it back may be gone
                self.everybody.stopped.add(account_id)
                self._touched[account_id] = True
            elif seen.touched:
                self._touched[account_id] = False
                if seen.status == "deleted":
                    self._doubted.add(account_id)
            if seen.is_waiting:
                self._waiting.add(account_id)
            if seen.unseen and not seen.touched:
                self._unseen[account_id] = self.clock
        self._due += [(at, EVERYBODY) for at in self.everybody.standing.begins() if at > self.everybody.decided_to]
        heapify(self._due)

    # -- records ----------------------------------------------------------------------------------------------------

    def remember_from(self, complete: Instant) -> None:
        """Every record up to `complete` is in: what lies `history` before it is forgotten.

        Live, that is the oldest of the inputs' watermarks, and changes of a bill go on waiting for it.
        """
        history = complete - self.everybody.history
        self._horizon.history = history
        self._horizon.usage = complete - self.terms.usage_history
        self._settled = complete if self.terms.live is None else history - 1

    def apply(self, record: Record, origin: Origin) -> bool:
        """Change ledgers; send nothing but dead letters. Returns whether the record was accepted.

        `origin` is asked only if the record is refused, or has to wait for another.
        """
        account_id, live = record.account_id, self.terms.live
        account = self.accounts.get(account_id)
        is_new = account is None
        is_first = account is None or not account.usable
        try:
            if live is not None:
                self._check_live(record, live)
            if account_id == EVERYBODY:
                assert isinstance(record, Control)  # the contract's models allow "*" nowhere else
                self._apply_to_everybody(record)
                return True
            if account is None:
                if isinstance(record, Ack):
                    return True  # of nothing that was ever sent
                account = Account(account_id)
            accepted = self._apply_to(account, record, origin)
        except Refusal as refusal:
            self.refuse(origin(), refusal)
            return False
        if is_new:
            self.accounts[account_id] = account
        if live is not None:
            account.unseen = True
        if type(record) in _MOVES_NOTHING and not account.facts and not (is_first and live is not None):
            if live is not None:
                self._unseen.setdefault(account_id, self.clock + MINUTE)  # nothing for a decision to see
        else:
            self._touched.setdefault(account_id, False)
            account.touched = True
        if account.recheck:
            self._doubted.add(account_id)
        if not accepted:
            self._waiting.add(account_id)
        return accepted

    def refuse(self, source: Source, refusal: Refusal) -> None:
        """A record that cannot be used."""
        self.refused += 1
        self._dead_letters.append(dead_letter(source, refusal))

    def stop(self, reason: str, actions: tuple[Action, ...]) -> None:
        """§3: send no such command until `go_on` or a `resume` for everybody."""
        self.everybody.stop(reason, actions, self.clock)

    def go_on(self, reason: str) -> None:
        """The reason of a stop is gone."""
        if self.everybody.stops.pop(reason, None) is not None:
            self._try_stopped_again()

    def _try_stopped_again(self) -> None:
        self._touched.update(dict.fromkeys(self.everybody.stopped, True))

    def take_dead_letters(self) -> list[DeadLetter]:
        """Those since the last decision: they need not wait for one."""
        dead_letters, self._dead_letters = self._dead_letters, []
        return dead_letters

    def stop_account(self, account_id: str) -> None:
        """§3: after an unusable payment its suspends and deletes wait for the account's own `resume`."""
        account = self.accounts.get(account_id)
        if account is None:
            account = self.accounts[account_id] = Account(account_id)
        account.stopped = True

    def _check_live(self, record: Record, live: Live) -> None:
        """What §3 refuses of a record. Raises Refusal."""
        self._check_time(record, live)
        if isinstance(record, Control) and record.kind == "policies":
            self.everybody.check_versions(record)

    def _check_time(self, record: Record, live: Live) -> None:
        if self._horizon.history <= record.at <= self.clock + live.max_ahead:
            return
        if record.at > self.clock + live.max_ahead:
            message = (
                f"{_field(record)}: {format_instant(record.at)} is more than {live.max_ahead // 1_000_000} s ahead"
            )
            raise Refusal("too_early", _field(record), f"{message} of the clock, {format_instant(self.clock)}")
        message = f"{_field(record)}: {format_instant(record.at)} lies before the history that is kept"
        raise Refusal("too_late", _field(record), f"{message}, from {format_instant(self._horizon.history)} on")

    def _apply_to(self, account: Account, record: Record, origin: Origin) -> bool:
        horizon = self._horizon
        match record:
            case Bill():
                return account.apply_bill(record, horizon, origin, self.refuse)
            case Payment():
                account.apply_payment(record, horizon)
            case Usage():
                account.apply_usage(record, horizon, self.everybody.decided_to)
            case Package():
                account.apply_package(record, horizon)
            case Control():
                account.apply_control(record, horizon, self.everybody)
                if record.kind == "policies":
                    self._add_policies(record)
            case Ack():
                account.apply_ack(record, horizon)
        return True

    def _apply_to_everybody(self, control: Control) -> None:
        everybody = self.everybody
        crc = fingerprint(control)
        known = everybody.events.get(control.event_id)
        if known is not None and known[0] >= self._horizon.history:
            check_same_content(control.event_id, known[1], crc)
            return
        everybody.check_policy(control)
        everybody.events[control.event_id] = (control.at, crc)
        if control.kind == "policies":
            self._add_policies(control)
        elif control.kind == "resume":
            everybody.resume(control.until)
            self._try_stopped_again()
        else:
            everybody.standing.add(control)
            everybody.is_touched = True

    def _add_policies(self, control: Control) -> None:
        assert control.policies is not None  # the contract's model requires it
        self.everybody.add_policies(control.at, control.event_id, Policies(control.policies))

    # -- decisions --------------------------------------------------------------------------------------------------

    def next_due(self) -> Instant | None:
        """The next instant at which a decision may publish something, if no record comes before."""
        due = self._due
        while due:
            at, account_id = due[0]
            if account_id == EVERYBODY or self.accounts.due_of(account_id) == at:
                return at
            heappop(due)
        return None

    def seal(self) -> None:
        """Live, a decision covers the accounts touched before the fence was set up, which is when this is called."""
        for account_id, changed in self._sealed.items():
            self._touched[account_id] = changed or self._touched.get(account_id, False)
        self._sealed = self._touched
        self._touched = {}
        everybody = self.everybody
        if everybody.is_touched:
            everybody.is_touched, self._sealed_for_all = False, True
            everybody.is_spreading = self.terms.live is not None

    def decide(
        self, now: Instant, *, past: bool, evidence: dict[str, int] | None = None, most: int | None = None
    ) -> Published:
        """Compare what is required with what was commanded, for the accounts touched since the last time or due by now.

        The clock stands at `now`, with `past` just behind it: a mark that falls at `now` fires only then. `evidence` is
        what has been applied, by topic; commands carry it. Live, `most` accounts at most are decided on, those with the
        oldest marks first: while `is_deciding`, the same call goes on with the rest.
        """
        if self.terms.live is None:
            self.seal()
        moment = self._moment
        moment.evidence = evidence
        self.clock = self.everybody.decided_to = moment.now = now
        moment.past, moment.history = past, self._horizon.history
        if self.terms.live is None:
            for account_id, changed in self._choose(now, past=past).items():
                account = self.accounts[account_id]
                if changed:
                    account.changed = True
                self._decide(account, moment)
        else:
            self._decide_some(moment, most)
        if self._waiting:
            self._refuse_waiting()
        if not (moment.commands or moment.notices or self._dead_letters):
            return NOTHING
        published = Published(moment.commands, moment.notices, self.take_dead_letters())
        moment.commands, moment.notices = [], []
        return published

    @property
    def has_undecided(self) -> bool:
        """Live: whether records were applied that no decision has seen."""
        return bool(self._touched or self._sealed or self._chosen or self._sealed_for_all or self.everybody.is_touched)

    @property
    def is_deciding(self) -> bool:
        """Whether the decision in progress has not come to the end of the accounts it has chosen."""
        return bool(self._chosen)

    def _choose(self, now: Instant, *, past: bool) -> dict[str, bool]:
        """The accounts to decide on; and whether a change for everybody is why."""
        sealed, self._sealed = self._sealed, {}
        for_all, self._sealed_for_all = self._sealed_for_all, False
        everybody, due = self.everybody, self._due
        chosen: dict[str, bool] = {}
        if for_all:
            for at in everybody.standing.begins():
                if at > now:
                    heappush(due, (at, EVERYBODY))
        # What falls due at `now` itself comes once the clock is past it.
        while due and (due[0][0] < now or (past and due[0][0] == now)):
            at, account_id = heappop(due)
            if account_id == EVERYBODY:
                for_all = True
            elif self.accounts.due_of(account_id) == at:
                chosen[account_id] = False
        chosen = chosen | sealed if chosen else sealed
        if for_all:
            chosen |= dict.fromkeys(self.accounts.active(), True)
            everybody.is_spreading = self.terms.live is not None
        return chosen

    def _decide_some(self, moment: Moment, most: int | None) -> None:
        """Live: the next of the chosen accounts; one at a time stays decoded until the next commit."""
        if not self._chosen:
            self._chosen = list(self._choose(moment.now, past=moment.past).items())
            self._chosen.reverse()
            self._chosen.sort(key=self._place_of, reverse=True)
        chosen, touched = self._chosen, self._touched
        for _ in range(len(chosen) if most is None else min(most, len(chosen))):
            account_id, changed = chosen.pop()
            account = self.accounts[account_id]
            if changed:
                account.changed = True
            # What was touched since the fence was set up has a cause that it does not cover: it waits for the next one.
            if account_id not in touched:
                self._decide(account, moment)
                self._decided[account_id] = None
        if not chosen:
            self.everybody.is_spreading = False

    def _place_of(self, item: tuple[str, bool]) -> Instant:
        """The oldest marks come first (§3), before them what may stop deletes, and last what has no mark yet."""
        account_id = item[0]
        if account_id in self._doubted:
            return FIRST_INSTANT
        mark = self.accounts.mark_of(account_id)
        return NEVER if mark is None else mark

    def overdue(self, now: Instant) -> int:
        """How many accounts wait for a decision that was due before `now`."""
        count, due, ahead = len(self._chosen), self._due, [0]
        while ahead:  # only the part of the heap that is due is looked at
            place = ahead.pop()
            if place < len(due) and due[place][0] < now:
                count += 1
                ahead += (2 * place + 1, 2 * place + 2)
        return count

    def _decide(self, account: Account, moment: Moment) -> None:
        account.touched = False
        if account.held_back:
            account.held_back = False
            self.everybody.stopped.discard(account.account_id)
        self._doubted.discard(account.account_id)
        now, ledger = moment.now, account.ledger
        ledger.settle(now, moment.history)
        if _is_quiet(account, moment):
            return
        due = Decision(account, moment).decide()
        account.mark = _mark_ahead(account)
        account.changed = False
        following = ledger.next_after()
        if following is not None:
            due = min(due, following)
        if account.own is not None:
            due = min(due, account.own.next_after(now))
        if due == account.due and due > now:
            return  # it is on the heap already
        account.due = due if due <= LAST_INSTANT else None
        if account.due is not None:
            heappush(self._due, (due, account.account_id))

    def _refuse_waiting(self) -> None:
        for account_id in sorted(self._waiting):
            account = self.accounts[account_id]
            refused = account.ledger.refuse_waiting(self._settled, self._horizon.history, account.currency)
            for source, refusal in refused:
                self.refuse(source, refusal)
            if not account.ledger.waiting:
                self._waiting.discard(account_id)

    # -- accounts ---------------------------------------------------------------------------------------------------

    def views(self, as_of: Instant) -> Iterable[AccountView]:
        """Every account with a usable record, by `account_id`, as it stands at `as_of` (after the decision)."""
        return self._views(sorted(self.accounts), as_of)

    def take_views(self, as_of: Instant) -> list[AccountView]:
        """Live: of the accounts decided on since the last time."""
        chosen, self._decided = self._decided, {}
        for account_id in chosen:
            self._unseen.pop(account_id, None)
        return list(self._views(chosen, as_of))

    def has_usage_views(self, now: Instant) -> bool:
        """Live: whether a minute has passed since only the usage or the packages of some account changed."""
        return next(iter(self._unseen.values()), NEVER) <= now

    def take_usage_views(self, as_of: Instant, most: int) -> list[AccountView]:
        """Live: of so many of those accounts at most. One that waits for a decision has its view after that.

        No decision is for an earlier instant after that.
        """
        self.everybody.decided_to = max(self.everybody.decided_to, as_of)
        chosen = []
        for account_id, at in islice(self._unseen.items(), most):
            if at > as_of:
                break
            chosen.append(account_id)
        for account_id in chosen:
            del self._unseen[account_id]
        waiting = self._touched.keys() | self._sealed.keys()
        return list(self._views((account_id for account_id in chosen if account_id not in waiting), as_of))

    def _views(self, account_ids: Iterable[str], as_of: Instant) -> Iterator[AccountView]:
        moment = self._moment
        moment.now, moment.past = as_of, False
        for account_id in account_ids:
            account = self.accounts[account_id]
            if account.usable:
                yield account_view(account, moment)
            account.unseen = False


def _is_quiet(account: Account, moment: Moment) -> bool:
    """Whether nothing can have come of the records: the account stays clear, or its episode runs on as it did."""
    ledger, enforcement = account.ledger, account.enforcement
    if account.changed or account.facts or ledger.folded < len(ledger.movements):
        return False
    if account.due is not None and moment.passed(account.due):
        return False
    tip = ledger.tip
    in_arrears = tip.balance + tip.limit < 0
    if enforcement is None:
        return not in_arrears
    if enforcement.deletion is not None:
        return not account.recheck
    episode = enforcement.episode
    if episode is None:
        return not in_arrears and enforcement.suspension is None
    return in_arrears and ledger.since == episode.since


_MOVES_NOTHING = frozenset((Usage, Package))
_FIELDS = {Bill: "issued_at", Payment: "paid_at", Usage: "ended_at"}


def _mark_ahead(account: Account) -> Instant | None:
    """The mark of the command that is ahead of it."""
    enforcement = account.enforcement
    episode = None if enforcement is None else enforcement.episode
    if enforcement is None or episode is None:
        return None
    seen = episode.suspend_mark if enforcement.suspension is None else episode.delete_mark
    return None if seen is None or seen.mark >= NEVER else seen.mark


def _field(record: Record) -> str:
    """The name of the field that holds a record's instant."""
    return _FIELDS.get(type(record), "at")
