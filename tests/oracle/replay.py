"""The replay of §4: records in order of their instants, every account by its rule, and what comes out of it."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from .account import Account
from .ledger import fold
from .policy import BUILT_IN, Policies, parse_file
from .records import TOPICS, Record, Refused, decode
from .values import DAY, parse_instant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

HISTORY = 45 * DAY
LONGEST_VALUE = 65_536  # bytes of a refused line that a dead letter repeats
ELSE = 4
RANKS = {
    ("controls", "policies"): 0,
    ("controls", "opening"): 1,
    ("controls", "release"): 2,
    ("packages", "purchased"): 3,
    ("bills", "voided"): 5,
    ("packages", "cancelled"): 6,
    ("controls", "reopen"): 7,
}
ABOUT_USAGE = ("usage_while_suspended", "package_exhausted")


@dataclass
class Result:
    commands: list[dict[str, Any]] = field(default_factory=list)
    notices: list[dict[str, Any]] = field(default_factory=list)
    accounts: list[dict[str, Any]] = field(default_factory=list)
    dead_letters: list[dict[str, Any]] = field(default_factory=list)


def replay(
    topics: Mapping[str, Sequence[bytes]],
    *,
    policies: str | None = None,
    until: str | None = None,
    app_id: str = "arrears",
) -> Result:
    """Replay the raw lines of each topic. `policies`: the YAML text of a policy file.

    Raises ValueError for an unusable policy or `until`.
    """
    first_policies = parse_file(BUILT_IN if policies is None else policies)
    records, refusals = decode_all(topics)
    if until is None:
        # The clock ends at the last usable record; which records are usable shows when all have been tried.
        trial = Run(first_policies, app_id)
        trial.take(records)
        refusals += trial.refusals
        if not trial.used:
            return Result(dead_letters=dead_letters(refusals))
        end = max(record.at for record in trial.used)
        run = Run(first_policies, app_id)
        run.take(record for record in records if record.at <= end)
    else:
        end = parse_instant(until)
        run = Run(first_policies, app_id)
        run.take(record for record in records if record.at <= end)
        refusals += run.refusals
    return run.result(end, dead_letters(refusals))


@dataclass(frozen=True)
class Refusal:
    topic: str
    line: int
    raw: bytes
    why: Refused


def decode_all(topics: Mapping[str, Sequence[bytes]]) -> tuple[list[Record], list[Refusal]]:
    records, refusals = [], []
    for topic in TOPICS:
        for line, raw in enumerate(topics.get(topic, ()), start=1):
            if not raw.strip(b" \t\r\n"):
                continue
            try:
                records.append(decode(topic, line, raw))
            except Refused as why:
                refusals.append(Refusal(topic, line, raw, why))
    return records, refusals


def turn(record: Record) -> tuple[int, int, str, bytes, str]:
    """A replay takes records by instant, then rank, then `event_id`, then bytes."""
    rank = RANKS.get((record.topic, record.kind), ELSE)
    return record.at, rank, record.event_id, record.raw, record.topic


class Run:
    """All accounts, from the first record on."""

    def __init__(self, policies: Policies, app_id: str) -> None:
        self.app_id = app_id
        self.first_policies = policies
        self.policies: list[Record] = []  # the usable `policies` controls, of any account
        self.everyone: list[Record] = []
        self.accounts: dict[str, Account] = {}
        self.used: list[Record] = []
        self.refusals: list[Refusal] = []

    # What accounts ask --------------------------------------------------------------------------------------------

    def policies_at(self, instant: int) -> Policies:
        """New policies hold for an episode that begins at their `at` or later."""
        in_force: Policies = self.first_policies
        for control in self.policies:
            if control.at <= instant:
                in_force = control.data["policies"]
        return in_force

    def history_at(self, instant: int) -> int:
        """45 days, or the longest `delete_after` of any policy so far if that is more."""
        longest = max(HISTORY, self.first_policies.longest_delete_after)
        for control in self.policies:
            if control.at <= instant:
                longest = max(longest, control.data["policies"].longest_delete_after)
        return longest

    def forgotten(self, changed_at: int, now: int) -> bool:
        """`history` has passed since `changed_at`: now, or before new policies made it longer."""
        moments = [now, *(control.at - 1 for control in self.policies if control.at <= now)]
        return any(moment - changed_at > self.history_at(moment) for moment in moments)

    # Taking records -----------------------------------------------------------------------------------------------

    def take(self, records: Iterable[Record]) -> None:
        for now, group in groupby(sorted(records, key=turn), key=lambda record: record.at):
            self.take_instant(now, list(group))

    def take_instant(self, now: int, records: list[Record]) -> None:
        own = {record.account for record in records} - {"*"}
        for account_id in own - set(self.accounts):
            self.accounts[account_id] = Account(account_id, self, now)
        everyone = any(record.account == "*" for record in records)
        touched = [account for name, account in sorted(self.accounts.items()) if everyone or name in own]
        for account in touched:
            account.fire_before(now)
        waiting: list[Record] = []
        for record in records:
            self.try_record(record, waiting)
            if record.kind == "issued":  # an adjustment that was first waits for its bill
                for other in [other for other in waiting if bill_of(other) == bill_of(record)]:
                    waiting.remove(other)
                    self.try_record(other, waiting)
        for record in waiting:
            self.try_record(record, None)
        for account in touched:
            account.settle()

    def try_record(self, record: Record, waiting: list[Record] | None) -> None:
        """Use the record, refuse it, or put it to those `waiting` for their bill (None: the wait is over)."""
        try:
            if record.account == "*":
                self.use_for_everyone(record)
            else:
                self.use(self.accounts[record.account], record)
        except Refused as why:
            if why.error == "unknown_bill" and waiting is not None:
                waiting.append(record)
            else:
                self.refusals.append(Refusal(record.topic, record.line, record.raw, why))
        else:
            self.used.append(record)

    def use_for_everyone(self, record: Record) -> None:
        if self.known(self.everyone, record):
            return
        self.check_policy_name(record)
        self.everyone.append(record)
        if record.kind == "policies":
            self.policies.append(record)

    def use(self, account: Account, record: Record) -> None:
        if self.known(account.records, record):
            return
        self.check_standing(account, record)
        currency = record.data.get("currency")
        if currency is not None and account.currency not in (None, currency):
            raise Refused("currency_mismatch", "currency", f"the account's currency is {account.currency}")
        match record.topic:
            case "bills":
                self.check_bill(account, record)
            case "payments":
                self.check_payment(account, record)
            case "packages":
                check_package(account, record, self.forgotten)
            case _:
                pass  # usage and controls: nothing more to check
        account.records.append(record)
        match record.kind:
            case "policies":
                self.policies.append(record)
            case "opening":
                account.take_over(record)
            case "reopen":
                account.reopen()
            case _:
                pass  # the others are read from the list when needed

    def known(self, used: Sequence[Record], record: Record) -> bool:
        """Whether the record was used before; raises `conflict` if its id was, with other content."""
        for other in used:
            same_id = (other.topic, other.event_id) == (record.topic, record.event_id)
            if same_id and not self.forgotten(other.at, record.at):
                if other.same_content(record):
                    return True
                raise Refused("conflict", "event_id", "the event_id is known with other content")
        return False

    def check_policy_name(self, record: Record) -> None:
        if record.kind == "policy" and record.data["policy"] not in self.policies_at(record.at).names:
            raise Refused("invalid", "policy", "an unknown policy")

    def check_standing(self, account: Account, record: Record) -> None:
        """What a control needs of its account."""
        self.check_policy_name(record)
        if record.kind == "opening" and account.records:
            raise Refused("invalid", "kind", "an opening that is not the account's first record")
        if record.kind == "reopen" and account.deletion is None:
            raise Refused("invalid", "kind", "a reopen of an account that is not deleted")

    def check_bill(self, account: Account, record: Record) -> None:
        bill = fold(account.records, record.at, self.forgotten).bills.get(record.data["bill_id"])
        if record.kind == "issued":
            if bill is not None:
                raise Refused("conflict", "bill_id", "a second bill of this bill_id")
        elif bill is None:
            raise Refused("unknown_bill", "bill_id", "no such bill by this instant")
        elif bill.voided:
            raise Refused("conflict", "bill_id", "the bill is voided")

    def check_payment(self, account: Account, record: Record) -> None:
        if record.kind == "topup" and any(
            other.kind == "topup"
            and other.data["payment_id"] == record.data["payment_id"]
            and not self.forgotten(other.at, record.at)
            for other in account.records
        ):
            raise Refused("conflict", "payment_id", "a second top-up of this payment_id")

    # What came of it ----------------------------------------------------------------------------------------------

    def result(self, end: int, letters: list[dict[str, Any]]) -> Result:
        accounts = [account for _, account in sorted(self.accounts.items()) if account.records]
        for account in accounts:
            account.fire_before(end)
        commands = [command for account in accounts for command in account.commands]
        notices = [notice for account in accounts for notice in account.notices]
        commands.sort(key=lambda c: (parse_instant(c["effective_at"]), c["account_id"], c["sequence"]))
        notices.sort(
            key=lambda n: (parse_instant(n["at"]), n["account_id"], n["kind"] in ABOUT_USAGE, n["kind"], n["notice_id"])
        )
        return Result(commands, notices, [account.view() for account in accounts], letters)


def bill_of(record: Record) -> tuple[str, str]:
    return record.account, record.data.get("bill_id", "")


def check_package(account: Account, record: Record, forgotten: Callable[[int, int], bool]) -> None:
    """A package is known until `history` has passed since it ended, or was cancelled."""
    changes = [
        other
        for other in account.records
        if other.topic == "packages" and other.data["package_id"] == record.data["package_id"]
    ]
    purchases = [index for index, other in enumerate(changes) if other.kind == "purchased"]
    known = changes[purchases[-1] :] if purchases else []
    if known:
        last = known[-1].at if len(known) > 1 else known[0].data["ends_at"]
        if forgotten(max(known[0].at, last), record.at):
            known = []
    if record.kind == "purchased" and known:
        raise Refused("conflict", "package_id", "a second purchase of this package_id")
    if record.kind == "cancelled" and not known:
        raise Refused("invalid", "package_id", "no such package")
    if record.kind == "cancelled" and len(known) > 1:
        raise Refused("invalid", "package_id", "the package is cancelled already")


def dead_letters(refusals: Iterable[Refusal]) -> list[dict[str, Any]]:
    ordered = sorted(refusals, key=lambda refusal: (TOPICS.index(refusal.topic), refusal.line))
    return [dead_letter(refusal) for refusal in ordered]


def dead_letter(refusal: Refusal) -> dict[str, Any]:
    try:
        text = refusal.raw.decode("utf-8")
    except UnicodeDecodeError:
        text = base64.b64encode(refusal.raw).decode("ascii")
    value = text.encode("utf-8")[:LONGEST_VALUE].decode("utf-8", errors="ignore")  # cut at a character
    return {
        "topic": refusal.topic,
        "partition": None,
        "offset": refusal.line,
        "key": None,
        "value": value,
        "truncated": value != text,
        "sha256": hashlib.sha256(refusal.raw).hexdigest(),
        "error": refusal.why.error,
        "field": refusal.why.field,
        "message": refusal.why.message,
        "received_at": None,
    }
