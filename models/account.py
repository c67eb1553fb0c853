"""One account: its ledger, its usage, its controls and what has been commanded of it; `apply` takes a record in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from models.enforcement import Deletion, Enforcement, Episode, Suspension
from models.instants import Instant
from models.ledger import Ledger, check_currency, check_same_content
from models.money import Money
from models.packages import UsageBook
from models.records import Ack, Bill, Control, Package, Payment, Usage, fingerprint
from models.refusal import Refusal
from models.standing import Standing

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from models.everybody import Everybody
    from models.outputs import Source

    #: Where a record came from, told when asked.
    Origin: TypeAlias = Callable[[], Source]
    #: Takes a refused record.
    Refuse: TypeAlias = Callable[[Source, Refusal], None]


#: With more ids of controls than this, those before the history are forgotten.
_MANY_EVENTS: Final = 128


class Horizon:
    """How far back accounts remember: their movements and ids, and the ids of usage. It moves on with time."""

    __slots__ = ("history", "usage")

    def __init__(self, history: Instant, usage: Instant) -> None:
        self.history = history
        self.usage = usage


class Fact(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Something that happened and has to be told with the next decision."""

    kind: str  # of the notice: usage_while_suspended (if it proves one), package_exhausted, payment_after_delete
    usage: Usage | None = None
    payment: Payment | None = None
    package_id: str | None = None
    #: Of a payment after a delete: that delete (a reopen of the same instant comes after it).
    deletion: Deletion | None = None


#: Parts of a summary: the status (a place in `STATUSES`), whether it is due at some time, whether anything was ever
#: commanded or told of it, whether a change of a bill waits for its bill.
STATUS, PENDING, ACTIVE, WAITING = 3, 4, 8, 16


class Account(msgspec.Struct, array_like=True, gc=False):
    """The state of one account. Records change it through the `apply_…` methods, decisions through `decision`.

    What is encoded is this, field by field; `codec` says what of it is left out or stands in rows.
    """

    #: Not encoded: it is the key.
    account_id: str
    #: When it has to be decided on next, if no record comes before.
    due: Instant | None = None
    #: The mark of the command that is ahead of it, as the last decision saw it.
    mark: Instant | None = None
    #: That of its first accepted record; one currency an account.
    currency: str | None = None
    #: As it was encoded last: its summary (see above), and what it owed.
    summary: int = 0
    owed: Money = 0
    #: Whether records were applied that no decision has seen.
    touched: bool = False
    #: Live: whether it has changed since its last view.
    unseen: bool = False
    #: Whether a command of it waits until what stops it is gone (§3).
    held_back: bool = False
    #: Whether a record of it was accepted (one that still waits for its bill is not yet).
    usable: bool = False
    #: Whether a control came since the last decision: marks may have moved.
    changed: bool = False
    #: Whether a record dated before its delete came after it: was the delete right?
    recheck: bool = False
    #: Whether an unusable payment stops its suspends and deletes (§3).
    stopped: bool = False
    #: Usage that ended until then is billed: the latest `period_end` (or else `issued_at`) of its bills.
    billed_until: Instant | None = None
    ledger: Ledger = msgspec.field(default_factory=Ledger)
    enforcement: Enforcement | None = None
    own: Standing | None = None
    control_events: dict[str, tuple[Instant, int]] = {}
    facts: list[Fact] = []
    #: What `usage` is encoded to, apart.
    packed_usage: bytes = b""
    usage: UsageBook | None = None

    def sum_up(self) -> None:
        """Bring `summary` and `owed` up to date."""
        enforcement, balance = self.enforcement, self.ledger.tip.balance
        summary = 0 if enforcement is None else enforcement.status_number | ACTIVE
        if self.due is not None:
            summary |= PENDING
        if self.ledger.waiting:
            summary |= WAITING
        self.summary = summary
        self.owed = -balance if balance < 0 else 0

    # -- records ----------------------------------------------------------------------------------------------------
    # Each raises Refusal, having changed nothing.

    def apply_bill(self, record: Bill, horizon: Horizon, origin: Origin, refuse: Refuse) -> bool:
        """Charge, adjust or void a bill. False if it has to wait for its bill.

        `refuse` takes those that had waited for this one in vain.
        """
        ledger, history = self.ledger, horizon.history
        crc = fingerprint(record)
        known = ledger.known_bill_event(record.event_id, history)
        if known is not None:
            check_same_content(record.event_id, known.crc, crc)
            return True
        if record.currency != self.currency:
            self._check_currency(record.currency)
        if record.kind == "issued":
            for source, refusal in ledger.issue(record, crc, history):
                refuse(source, refusal)
            until = record.at if record.period_end is None else record.period_end
            if self.billed_until is None or until > self.billed_until:
                self._bill_usage(until)
        elif not ledger.change(record, crc, history, origin):
            return False
        if self.currency is None or not self.usable:
            self._accept(record.currency)
        if self.enforcement is not None and self.enforcement.deletion is not None:
            self._doubt_delete(self.enforcement.deletion, record.at)
        return True

    def apply_payment(self, record: Payment, horizon: Horizon) -> None:
        """Add a top-up, a refund, a reversal or a gift."""
        ledger, history = self.ledger, horizon.history
        crc = fingerprint(record)
        known = ledger.known_payment_event(record.event_id, history)
        if known is not None:
            check_same_content(record.event_id, known.crc, crc)
            return
        if record.currency != self.currency:
            self._check_currency(record.currency)
        ledger.pay(record, crc, history)
        if self.currency is None or not self.usable:
            self._accept(record.currency)
        deletion = None if self.enforcement is None else self.enforcement.deletion
        if deletion is not None:
            self._doubt_delete(deletion, record.at)
            if record.kind == "topup":
                self.facts.append(Fact("payment_after_delete", payment=record, deletion=deletion))

    def apply_usage(self, record: Usage, horizon: Horizon, decided_to: Instant) -> None:
        """Draw on packages and count what is not billed; it moves no balance."""
        book = self._usage_book()
        crc = fingerprint(record)
        known = book.seen.get(record.event_id, horizon.usage)
        if known is not None:
            check_same_content(record.event_id, known, crc)
            return
        if record.currency is not None:
            self._check_currency(record.currency)
        book.seen.add(record.event_id, record.at, crc, horizon.usage)
        for package_id in book.use(record, self.billed_until):
            self.facts.append(Fact("package_exhausted", usage=record, package_id=package_id))
        if self.enforcement is not None and self.enforcement.may_forbid(record.service, record.started_at, decided_to):
            self.facts.append(Fact("usage_while_suspended", usage=record))
        self._accept(record.currency)

    def apply_package(self, record: Package, horizon: Horizon) -> None:
        """Purchase or cancel a prepaid package."""
        book = self._usage_book()
        crc = fingerprint(record)
        known = book.known_package_event(record.event_id, horizon.history)
        if known is not None:
            check_same_content(record.event_id, known, crc)
            return
        book.change_package(record, crc, horizon.history)
        self._accept(None)

    def apply_control(self, record: Control, horizon: Horizon, everybody: Everybody) -> None:
        """Take an operator's control."""
        crc = fingerprint(record)
        known = self.control_events.get(record.event_id)
        if known is not None and known[0] >= horizon.history:
            check_same_content(record.event_id, known[1], crc)
            return
        match record.kind:
            case "opening":
                self._open(record, crc, everybody)
            case "reopen":
                self._reopen(record, crc, horizon)
            case "credit_limit":
                self.ledger.control(record, crc)
                if self.enforcement is not None and self.enforcement.deletion is not None:
                    self._doubt_delete(self.enforcement.deletion, record.at)
            case "resume":
                self.stopped = False
            case "policies":
                pass  # for everybody, whoever's record it is
            case _:
                everybody.check_policy(record)
                if self.own is None:
                    self.own = Standing()
                self.own.add(record)
        self._remember(record.event_id, record.at, crc, horizon)
        self.changed = True
        self._accept(record.currency if record.kind == "opening" else None)

    def apply_ack(self, record: Ack, horizon: Horizon) -> None:
        """A subscriber has applied a command or given a notice, or has failed to."""
        crc = fingerprint(record)
        key = f"\0{record.event_id}"  # acks have ids of their own, beside those of controls
        known = self.control_events.get(key)
        if known is not None and known[0] >= horizon.history:
            check_same_content(record.event_id, known[1], crc)
            return
        self._remember(key, record.at, crc, horizon)
        enforcement, applied = self.enforcement, record.status == "applied"
        if enforcement is None:
            return
        if record.command_id is not None:
            enforcement.acknowledge(record.command_id, record.subscriber, applied=applied)
        if record.notice_id is not None and applied:
            enforcement.acknowledge_notice(record.notice_id, record.at)
        self.changed = True

    # -- inside -----------------------------------------------------------------------------------------------------

    def _remember(self, event_id: str, at: Instant, crc: int, horizon: Horizon) -> None:
        events = self.control_events
        events[event_id] = (at, crc)
        if len(events) > _MANY_EVENTS:
            self.control_events = {key: value for key, value in events.items() if value[0] >= horizon.history}
            if self.own is not None:
                episode = None if self.enforcement is None else self.enforcement.episode
                self.own.forget(horizon.history if episode is None else min(horizon.history, episode.since))

    def _open(self, record: Control, crc: int, everybody: Everybody) -> None:
        if self.usable or self.ledger.waiting:
            raise Refusal("invalid", "kind", "an opening must be the first record of its account")
        assert record.sequence is not None  # the contract's model requires it
        self.ledger.control(record, crc)
        enforcement = self.enforcement = Enforcement(record.sequence)
        number = everybody.policy_of_opening(record)
        policy = everybody.versions[number]
        if record.arrears_since is not None and record.status in ("in_arrears", "suspended"):
            enforcement.episode = Episode(record.arrears_since, number, record.at, taken_over=True)
        if record.status == "suspended":
            enforcement.suspension = Suspension(record.at, policy.suspends, None, None)
            enforcement.stop(record.at, policy.suspends, None)
        elif record.status == "deleted":
            enforcement.deletion = Deletion(record.at, policy.deletes, None, None, None, 0, number)
            enforcement.stop(record.at, policy.deletes, None)

    def _reopen(self, record: Control, crc: int, horizon: Horizon) -> None:
        if self.enforcement is None or self.enforcement.deletion is None:
            raise Refusal("invalid", "kind", "only a deleted account can be reopened, and this one is not deleted")
        self.ledger.control(record, crc)
        self.enforcement.reopen(record.at, horizon.history)

    def _bill_usage(self, until: Instant) -> None:
        self.billed_until = until
        if self.usage is not None:
            self.usage.bill(until)

    def _doubt_delete(self, deletion: Deletion, at: Instant) -> None:
        if deletion.effective_at is not None and at <= deletion.effective_at:
            self.recheck = True

    def _usage_book(self) -> UsageBook:
        if self.usage is None:
            self.usage = UsageBook()
        return self.usage

    def _check_currency(self, currency: str) -> None:
        if self.currency is not None:
            check_currency(currency, self.currency)

    def _accept(self, currency: str | None) -> None:
        self.usable = True
        if self.currency is None:
            self.currency = currency
