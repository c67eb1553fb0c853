"""The story of one account: what each record did to it, what came of that and why, and what comes next (contract §4).

It is a replay of the account's own records and of the controls for everybody, through the same engine: an account does
not depend on others. Without `until` the clock ends where that of the whole replay ends.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from models.contract import EVERYONE
from models.instants import FIRST_INSTANT, Instant, format_instant, parse_instant
from models.money import format_money, parse_signed_money
from models.records import Bill, Control, Payment, Usage, fingerprint
from models.refusal import Refusal
from streams import telling
from streams.outcome import in_order, refusal_of
from streams.replay import Replay, entry, sort_entries
from streams.telling import Draw

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from models.money import Fine, Money
    from models.outputs import AccountView
    from models.packages import Prepaid
    from models.policy import Policies, Policy
    from models.records import Record
    from streams.files import Inputs, Lines
    from streams.replay import Entry, Step

#: How many accounts are named when the one asked for is not there.
_MOST_NEAR: Final = 3
#: So many ids are compared letter by letter, no more.
_MOST_COMPARED: Final = 20_000


class _Whose(msgspec.Struct):
    """Of a line that may be unusable, whose it is and when."""

    account_id: str
    issued_at: object = None
    paid_at: object = None
    ended_at: object = None
    at: object = None


_whose: Final = msgspec.json.Decoder(_Whose).decode
_INSTANTS: Final = {"bills": "issued_at", "payments": "paid_at", "usage": "ended_at"}


@dataclass
class Event:
    """Something in the account's story. `says` is told in sentences; `more` are the fields of its kind."""

    at: Instant
    #: record, change, notice or command.
    type: str
    says: list[str]
    more: dict[str, Any] = field(default_factory=dict)
    #: Of a usage record: itself, and what it drew on packages. Those that follow each other are told in one.
    usage: Usage | None = None
    draws: list[Draw] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The event as `--json` gives it."""
        more = {"drawn": [draw.as_json() for draw in self.draws]} if self.draws else {}
        return {"at": format_instant(self.at), "type": self.type, "says": " ".join(self.says), **self.more, **more}


@dataclass
class BadLine:
    """A line that names the account and cannot be read as a record."""

    topic: str
    line: int
    refusal: Refusal

    def as_json(self) -> dict[str, Any]:
        """The line as `--json` gives it."""
        refusal = self.refusal
        where = {"topic": self.topic, "line": self.line}
        return {**where, "error": refusal.error, "field": refusal.field, "message": refusal.message}


@dataclass
class Story:
    """What `arrears explain` tells. `view` is None if no record of the account could be used."""

    account_id: str
    until: Instant | None
    events: list[Event]
    bad_lines: list[BadLine]
    view: AccountView | None
    #: What has to be paid for the account to be clear, or restored.
    to_pay: Money
    next: list[str]

    def as_json(self) -> dict[str, Any]:
        """The whole as one JSON object."""
        view = self.view
        return {
            "account_id": self.account_id,
            "as_of": None if self.until is None else format_instant(self.until),
            "account": view,
            "events": [event.as_json() for event in self.events],
            "bad_lines": [line.as_json() for line in self.bad_lines],
            "next": {
                "suspend_at": view and view.suspend_at,
                "delete_at": view and view.delete_at,
                "to_pay": format_money(self.to_pay),
                "currency": view and view.currency,
                "says": " ".join(self.next),
            },
        }


def explain(inputs: Inputs, account_id: str, policies: Policies, app_id: str, until: Instant | None) -> Story | None:
    """The story of an account; None if no line names it."""
    entries, bad_lines = _about(inputs, account_id)
    if not bad_lines and not any(one.record.account_id == account_id for one in entries):
        return None
    told = _Teller(inputs, account_id, policies, app_id)
    later: list[Entry] = []
    if until is None:
        until = last_usable(inputs, policies)
        later = [one for one in entries if until is None or one.at > until]
    if until is not None:
        for step in told.replay.run([one for one in entries if one.at <= until], inputs.source, until=until):
            told.tell(step)
    if later:  # they are all refused, or the clock would have gone on to them
        told.tell_refused(later, _refusals(entries, inputs, policies))
    view = None if until is None else told.view(until)
    policy = None if view is None else told.policy_of(view)
    return Story(
        account_id,
        until,
        told.events,
        bad_lines,
        view,
        0 if view is None else telling.to_pay(view, policy),
        ["No record of it can be used."] if view is None else telling.next_sentences(view, policy),
    )


def _refusals(entries: list[Entry], inputs: Inputs, policies: Policies) -> dict[int, Refusal]:
    """Why records are refused, by their number."""
    steps = Replay(policies, "").run(entries, inputs.source, until=None)
    return {inputs.number_of(letter): refusal_of(letter) for step in steps for letter in step.published.dead_letters}


# What the inputs hold -----------------------------------------------------------------------------------------------


def _about(inputs: Inputs, account_id: str) -> tuple[list[Entry], list[BadLine]]:
    """The records that bear on the account, in order; and the lines of it that cannot be read.

    Those are its own, the controls for everybody, and all of an account that puts policies in force: they hold for
    everybody too, and whether such a control is accepted depends on that account.
    """
    accounts = _with_policies(inputs) | {account_id, EVERYONE}
    names = [name.encode(errors="surrogateescape") for name in accounts]
    entries: list[Entry] = []
    bad_lines: list[BadLine] = []
    for file in inputs.files:
        for number, line in file.lines():
            # Written with an escape, an id may not be there letter by letter.
            if b"\\" not in line and not any(name in line for name in names):
                continue
            try:
                record = file.decode(line)
            except Refusal as refusal:
                whose = _read_whose(line)
                if whose is not None and whose.account_id == account_id:
                    bad_lines.append(BadLine(file.topic, number - file.first + 1, refusal))
                continue
            if record.account_id in accounts:
                entries.append(entry(record, number))
    sort_entries(entries, inputs.raw)
    return entries, bad_lines


def _with_policies(inputs: Inputs) -> set[str]:
    """The accounts that controls of kind `policies` name."""
    found = set()
    for file in inputs.files:
        for _, line in file.lines() if file.topic == "controls" else ():
            if b"policies" in line or b"\\" in line:
                try:
                    record = file.decode(line)
                except Refusal:
                    continue
                if isinstance(record, Control) and record.kind == "policies":
                    found.add(record.account_id)
    return found


def _read_whose(line: bytes) -> _Whose | None:
    try:
        return _whose(line)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def _read_when(file: Lines, line: bytes) -> tuple[Instant, str] | None:
    """When a record is, and whose; None if the line is certainly none."""
    whose = _read_whose(line)
    if whose is not None:
        at = getattr(whose, _INSTANTS.get(file.topic, "at"))
        try:
            return parse_instant(at) if isinstance(at, str) else FIRST_INSTANT, whose.account_id
        except ValueError:
            return None
    try:
        record = file.decode(line)  # it is stricter in some ways, and more lenient in others
    except Refusal:
        return None
    return record.at, record.account_id


def last_usable(inputs: Inputs, policies: Policies) -> Instant | None:
    """The instant of the last usable record of all accounts, without replaying all of them.

    From the latest record back: whose it is, and which is that account's last usable one.
    """
    found = [when for file in inputs.files for _, line in file.lines() if (when := _read_when(file, line)) is not None]
    found.sort(reverse=True)
    last: Instant | None = None
    seen: set[str] = set()
    for at, account_id in found:
        if last is not None and at <= last:
            break
        if account_id in seen:
            continue
        seen.add(account_id)
        entries, _ = _about(inputs, account_id)
        for step in Replay(policies, "").run(entries, inputs.source, until=None):
            if len(step.published.dead_letters) < len(step.records):
                last = step.at if last is None else max(last, step.at)
    return last


def near_matches(inputs: Inputs, account_id: str) -> list[str]:
    """The accounts whose ids look most like this one."""
    ids = {whose.account_id for file in inputs.files for _, line in file.lines() if (whose := _read_whose(line))}
    ids.discard(EVERYONE)
    folded = account_id.casefold()
    parts = sorted(one for one in ids if folded in one.casefold() or one.casefold() in folded)
    if parts or not ids:
        return parts[:_MOST_NEAR]
    of_like_length = sorted(ids, key=lambda one: (abs(len(one) - len(account_id)), one))
    return difflib.get_close_matches(account_id, of_like_length[:_MOST_COMPARED], _MOST_NEAR)


# The telling --------------------------------------------------------------------------------------------------------

#: Within one instant records are told in the order in which they count.
_TOLD_FIRST: Final = {"policies": 0, "opening": 1, "release": 2}
_TOLD_LAST: Final = {"adjusted": 4, "voided": 5, "cancelled": 6, "reopen": 7}  # a bill comes before what changes it


def _telling_order(one: Entry) -> tuple[int, str]:
    kind = getattr(one.record, "kind", "")
    return _TOLD_FIRST.get(kind, _TOLD_LAST.get(kind, 3)), one.event_id


class _Teller:
    """Follows the steps of the replay and turns them into events."""

    def __init__(self, inputs: Inputs, account_id: str, policies: Policies, app_id: str) -> None:
        self.replay = Replay(policies, app_id)
        self.events: list[Event] = []
        self._inputs = inputs
        self._account_id = account_id
        self._policies: dict[str, Policy] = {policy.label: policy for policy in policies.versions}
        self._balance: Money = 0
        self._bills: dict[str, Money] = {}
        self._accepted: set[tuple[str, str, int]] = set()
        self._view: AccountView | None = None
        #: What the packages have left.
        self._left: dict[str, Fine] = {}
        #: Kinds of control that move marks, of those taken so far.
        self._moved_by: set[str] = set()
        #: The marks of the episode as last known; a hold without an end hides them.
        self._marks: dict[str, str | None] = {}

    def view(self, at: Instant) -> AccountView | None:
        """The account as it stands."""
        views = self.replay.monitor.views(at)
        return next((view for view in views if view.account_id == self._account_id), None)

    def policy_of(self, view: AccountView) -> Policy | None:
        """The policy that the view names."""
        return self._policies.get(view.policy)

    def tell(self, step: Step) -> None:
        """Tell what happened at one stop of the clock."""
        refused = {self._inputs.number_of(letter): refusal_of(letter) for letter in step.published.dead_letters}
        for one in sorted(step.records, key=_telling_order):
            if self._concerns(one.record):
                self._tell_record(one, refused.get(one.number))
        self._tell_draws()
        published = in_order(step.published)
        commands = [command for command in published.commands if command.account_id == self._account_id]
        notices = [notice for notice in published.notices if notice.account_id == self._account_id]
        only_usage = step.records and all(isinstance(one.record, Usage) for one in step.records)
        if only_usage and not commands and not notices:
            return  # an account with a million of them is looked at when something comes of them
        before, self._view = self._view, self.view(step.at)
        if self._view is not None:
            self._tell_changes(step, before, self._view)
        for command in commands:
            says = telling.command_sentence(command, self._policies.get(command.policy), sorted(self._moved_by))
            self.events.append(Event(step.at, "command", [says], {"command": command}))
        for notice in notices:
            self.events.append(Event(step.at, "notice", [telling.notice_sentence(notice)], {"notice": notice}))

    def tell_refused(self, entries: Iterable[Entry], refusals: Mapping[int, Refusal]) -> None:
        """Tell of refused records after the end of the clock."""
        for one in entries:
            if self._concerns(one.record):
                self._tell_record(one, refusals[one.number])

    def _concerns(self, record: Record) -> bool:
        """Whether it is told: the account's own, and what holds for everybody."""
        puts_policies = isinstance(record, Control) and record.kind == "policies"
        return puts_policies or record.account_id in (self._account_id, EVERYONE)

    # -- records ----------------------------------------------------------------------------------------------------

    def _tell_record(self, one: Entry, refusal: Refusal | None) -> None:
        record, source = one.record, self._inputs.source(one.number)
        says = [telling.record_sentence(record, self._bills.get(getattr(record, "bill_id", ""), 0))]
        before = self._balance
        key = (source.topic, record.event_id, fingerprint(record))
        if refusal is not None:
            result = "refused"
            says.append(f"Refused ({refusal.error}): {refusal.message}. It changes nothing.")
        elif key in self._accepted:
            result = "duplicate"
            says.append("It came before with the same content: it changes nothing.")
        else:
            result = "accepted"
            self._accepted.add(key)
            self._take(record)
            if isinstance(record, Bill | Payment) or self._balance != before:
                says.append(self._balance_sentence(record, before))
        more: dict[str, Any] = {
            "topic": source.topic,
            "line": source.offset,
            "event_id": record.event_id,
            "kind": getattr(record, "kind", "usage"),
            "account_id": record.account_id,
            "result": result,
            "balance_before": format_money(before),
            "balance_after": format_money(self._balance),
            "record": msgspec.Raw(source.value or b"null"),
        }
        if refusal is not None:
            more |= {"error": refusal.error, "field": refusal.field, "message": refusal.message}
        usage = record if isinstance(record, Usage) and result == "accepted" else None
        self.events.append(Event(one.at, "record", says, more, usage))

    def _tell_draws(self) -> None:
        """What the usage of this instant drew on packages; told with the last record that can have done it."""
        account = self.replay.monitor.accounts.get(self._account_id)
        if account is None or account.usage is None or not account.usage.packages:
            return
        before, self._left = self._left, {one.package_id: one.remaining for one in account.usage.packages}
        for one in account.usage.packages:
            drawn = before.get(one.package_id, one.remaining) - one.remaining
            if drawn > 0:
                drawing = (event for event in reversed(self.events) if event.usage and _draws_on(event.usage, one))
                next(drawing).draws.append(Draw(one.package_id, drawn, one.unit, one.remaining))

    def _balance_sentence(self, record: Record, before: Money) -> str:
        currency = getattr(record, "currency", None)
        if self._balance == before:
            return f"The balance stays {telling.money(format_money(before), currency)}."
        after = telling.money(format_money(self._balance), currency)
        return f"Balance: {format_money(before)} -> {after}."

    def _take(self, record: Record) -> None:
        """What an accepted record does to the balance."""
        match record:
            case Bill():
                total = 0 if record.kind == "voided" else record.amount
                # The id of a forgotten bill is free again.
                before = 0 if record.kind == "issued" else self._bills.get(record.bill_id, 0)
                self._balance += before - total
                self._bills[record.bill_id] = total
            case Payment(kind="topup"):
                self._balance += record.amount
            case Payment(kind="refund" | "reversal"):
                self._balance -= record.amount
            case Control(kind="opening"):
                self._balance = record.balance or 0
            case Control(kind="hold" | "exempt" | "allowance"):
                self._moved_by.add({"exempt": "exemption"}.get(record.kind, record.kind))
            case Control(kind="policies"):
                self._policies |= {policy.label: policy for policy in record.policies or ()}
            case _:
                pass

    # -- what came of them ------------------------------------------------------------------------------------------

    def _tell_changes(self, step: Step, before: AccountView | None, after: AccountView) -> None:
        says = [*self._episode_sentences(before, after)]
        controlled = any(isinstance(one.record, Control) for one in step.records)
        if before is not None and before.hold is not None and after.hold is None and not controlled:
            name = "exemption" if before.hold.kind == "exempt" else "hold"
            says.append(f"The {name} ended at {telling.when(before.hold.until or after.as_of)}.")
        if before is not None and before.arrears_since is not None and before.arrears_since == after.arrears_since:
            says += self._mark_sentences(before, after)
            paid = any(isinstance(one.record, Payment) and one.record.kind == "topup" for one in step.records)
            if paid and parse_signed_money(after.owed) < parse_signed_money(before.owed):
                owed = telling.money(after.owed, after.currency)
                says.append(f"{owed} is still owed: a part restores nothing and moves no mark (1.1.2, 3.4).")
        if says:
            more = {"status": after.status, "arrears_since": after.arrears_since}
            marks = {"suspend_at": after.suspend_at, "delete_at": after.delete_at}
            self.events.append(Event(step.at, "change", says, {**more, **marks}))

    def _episode_sentences(self, before: AccountView | None, after: AccountView) -> Iterator[str]:
        since_before = None if before is None else before.arrears_since
        if after.status == "deleted" or since_before == after.arrears_since:
            return
        if since_before is not None:
            yield "The bills are covered again: the arrears are over."
        if after.arrears_since is None:
            return
        policy = self.policy_of(after)
        since = (
            ""
            if parse_instant(after.arrears_since) == parse_instant(after.as_of)
            else f" at {telling.when(after.arrears_since)}"
        )
        yield f"The balance no longer covers the bills: arrears begin{since} (1.1), under policy {after.policy} (14.2)."
        if policy is not None and after.suspend_at is not None:
            hours = telling.length(policy.suspend_after)
            yield f"What is paid within {hours}, by {telling.when(after.suspend_at)}, stops nothing (1.1.1)."

    def _mark_sentences(self, before: AccountView, after: AccountView) -> Iterator[str]:
        marks = [("delete", before.delete_at, after.delete_at)]
        if after.status != "suspended":
            marks.insert(0, ("suspend", before.suspend_at, after.suspend_at))
        for name, old, new in marks:
            if old == new or after.status == "deleted":
                continue
            known = old or self._marks.get(name)
            if new is None:
                self._marks[name] = old
                yield f"No {name} comes before the hold ends; it would have come at {telling.when(old or '')}."
            elif known is None or known == new:
                yield f"The {name} mark is at {telling.when(new)}."
            else:
                yield f"The {name} mark moves from {telling.when(known)} to {telling.when(new)}."


def _draws_on(usage: Usage, package: Prepaid) -> bool:
    return usage.service == package.service and usage.unit == package.unit


def paragraphs(events: Iterable[Event]) -> Iterator[tuple[Instant, str, str]]:
    """The events as paragraphs (instant, type, text); usage that nothing came of is told together."""
    usage: list[Usage] = []
    draws: list[Draw] = []
    for event in events:
        if event.usage is not None:
            usage.append(event.usage)
            draws += event.draws
            continue
        if usage:
            yield usage[0].at, "usage", telling.usage_sentence(usage, draws)
            usage, draws = [], []
        yield event.at, "refused" if event.more.get("result") == "refused" else event.type, " ".join(event.says)
    if usage:
        yield usage[0].at, "usage", telling.usage_sentence(usage, draws)
