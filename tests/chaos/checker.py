"""Judges what a run has left in Kafka: all is there, once, in order, and each command was required.

For every command it takes the records that its `evidence` names, works out with the slow model what they required at
`decided_at`, and compares. At the end of the run every account has to stand where all its records put it.
"""

from __future__ import annotations

import json
import uuid
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.chaos.arrivals import EVERYONE, Used, arrivals, partition_of
from tests.chaos.judgement import Background, Command, Notice, judge, left_undone
from tests.chaos.run import INPUTS, Recorded, Run
from tests.oracle.account import CLAUSES
from tests.oracle.ledger import unbilled
from tests.oracle.live import Known
from tests.oracle.values import format_amount, format_instant, parse_instant, round_half_up

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

#: The name space of the monitor's ids (a UUIDv5 itself).
NAMESPACE = uuid.UUID("7c0f6f1c-4a3f-5a0d-9c6e-2b1f0a9d8e77")
MILLISECOND = 1_000

AFTER = {
    ("run", "suspend"): "suspended",
    ("suspended", "restore"): "run",
    ("suspended", "delete"): "deleted",
}
TOLD = {"suspend": "suspended", "restore": "restored", "delete": "deleted"}


@dataclass(frozen=True)
class Fault:
    """One thing that is not as it has to be."""

    kind: str  # lost, doubled, out of order, wrong, unfenced
    account: str | None
    told: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.account or '-'}: {self.told}"


@dataclass
class Report:
    """What a check has found."""

    faults: list[Fault] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, account: str | None, told: str) -> None:
        self.faults.append(Fault(kind, account, told))

    def kinds(self) -> Counter[str]:
        """How many faults of each kind."""
        return Counter(fault.kind for fault in self.faults)


def check(run: Run) -> Report:
    """Everything that the contract promises of a run that has come to rest."""
    report = Report()
    for topic, records in run.topics.items():
        report.figures[topic] = len(records)
    ids: dict[str, Recorded] = {}
    for partition in range(run.partitions):
        _Partition(run, partition, report, ids).check()
    return report


class _Partition:
    def __init__(self, run: Run, partition: int, report: Report, ids: dict[str, Recorded]) -> None:
        self.run, self.partition, self.report = run, partition, report
        #: Of all partitions: ids are unique everywhere.
        self.ids = ids
        self.commands = [Command(recorded, recorded.json) for recorded in run.of("commands", partition)]
        self.notices = [Notice(recorded, recorded.json) for recorded in run.of("notices", partition)]
        self.arrivals = arrivals(run, partition)
        for kind, told in self.arrivals.problems:
            report.add(kind, None, told)
        report.figures["refused"] += len(self.arrivals.refused)
        self.policies = run.policies
        self.appended = {topic: [r.appended_at for r in run.of(topic, partition)] for topic in INPUTS}
        self.offsets = {topic: [r.offset for r in run.of(topic, partition)] for topic in INPUTS}

    def check(self) -> None:
        self._check_order()
        by_account: dict[str, list[Command]] = defaultdict(list)
        told: dict[str, list[Notice]] = defaultdict(list)
        for command in self.commands:
            by_account[command.account].append(command)
        for notice in self.notices:
            told[notice.account].append(notice)
            self._check_notice(notice)
        views = self._views()
        accounts = self.arrivals.used.keys() - {EVERYONE}
        for account in sorted(accounts | by_account.keys() | told.keys() | views.keys()):
            checked = _Account(self, account, by_account[account], told[account], views.get(account))
            checked.check()
        self.report.figures["customers"] += len(accounts)

    # -- the partition's outputs as a whole ----------------------------------------------------------------------------

    def _check_order(self) -> None:
        """Decisions of a partition follow each other: neither the clock nor what was applied ever goes back."""
        clock, applied = 0, dict.fromkeys(INPUTS, 0)
        for command in self.commands:
            if command.decided_at < clock:
                self.report.add("out of order", command.account, f"{command} is decided before the one before it")
            clock = max(clock, command.decided_at)
            if set(command.evidence) != set(INPUTS):
                self.report.add("wrong", command.account, f"{command} has evidence of {sorted(command.evidence)}")
                continue
            if any(command.evidence[topic] < applied[topic] for topic in INPUTS):
                told = f"{command} rests on less than the one before it: {command.evidence} after {applied}"
                self.report.add("out of order", command.account, told)
            applied = {topic: max(applied[topic], command.evidence[topic]) for topic in INPUTS}

    def _check_notice(self, notice: Notice) -> None:
        self._check_event(notice.recorded, notice.account, notice.id, f"arrears.notice.{notice.kind}.v1", str(notice))
        if notice.decided_at is not None and not notice.at <= notice.decided_at <= self.run.ended_at:
            told = f"{notice} has at {notice.data['at']}, decided at {format_instant(notice.decided_at)}"
            self.report.add("wrong", notice.account, told)

    def _check_event(self, recorded: Recorded, account: str, event_id: str, event_type: str, what: str) -> None:
        if event_id in self.ids:
            self.report.add("doubled", account, f"{what}: the id {event_id} comes again at offset {recorded.offset}")
        self.ids[event_id] = recorded
        key = account.encode()
        if recorded.key != key or partition_of(key, self.run.partitions) != self.partition:
            self.report.add("wrong", account, f"{what} has key {recorded.key!r}, in partition {self.partition}")
        expected = {"ce_id": event_id, "ce_type": event_type, "ce_subject": account, "ce_specversion": "1.0"}
        given = {name: recorded.header(name) for name in expected}
        if given != expected:
            self.report.add("wrong", account, f"{what} has headers {given}")

    def check_command(self, command: Command) -> None:
        """What can be seen of it by itself."""
        what = str(command)
        self._check_event(command.recorded, command.account, command.id, f"arrears.command.{command.action}.v1", what)
        parts = [
            self.run.app_id,
            command.account,
            command.sequence,
            command.action,
            command.data["arrears_since"],
            command.data["effective_at"],
        ]
        expected = str(uuid.uuid5(NAMESPACE, json.dumps(parts, separators=(",", ":"), ensure_ascii=False)))
        if command.id != expected:
            self.report.add("wrong", command.account, f"{what} has the id {command.id}, has to be {expected}")
        if command.recorded.header("ce_time") != command.data["decided_at"]:
            told = f"{what} has ce_time {command.recorded.header('ce_time')}, decided at {command.data['decided_at']}"
            self.report.add("wrong", command.account, told)
        if command.data["clause"] != CLAUSES.get(command.action):
            self.report.add("wrong", command.account, f"{what} has the clause {command.data['clause']}")

    def _views(self) -> dict[str, dict[str, Any]]:
        """The last view of each account."""
        views: dict[str, dict[str, Any]] = {}
        for recorded in self.run.of("accounts", self.partition):
            view = recorded.json
            if recorded.key != view["account_id"].encode() or recorded.key is None:
                self.report.add("wrong", view["account_id"], f"a view has the key {recorded.key!r}")
            if partition_of(view["account_id"].encode(), self.run.partitions) != self.partition:
                self.report.add("wrong", view["account_id"], f"a view stands in partition {self.partition}")
            if (before := views.get(view["account_id"])) is not None and (
                before["sequence"] > view["sequence"] or parse_instant(before["as_of"]) > parse_instant(view["as_of"])
            ):
                self.report.add("out of order", view["account_id"], f"a view at offset {recorded.offset} goes back")
            views[view["account_id"]] = view
        return views

    # -- what was in Kafka when ----------------------------------------------------------------------------------------

    def unread(self, instant: int, evidence: dict[str, int]) -> Iterator[str]:
        """§3, fence: records that were in Kafka at an instant of the workers' clock, and that a decision lacks."""
        for topic in INPUTS:
            # An append time is cut to the millisecond: one that is surely before the instant.
            before = bisect_right(self.appended[topic], instant - self.run.shift - MILLISECOND)
            if before and self.offsets[topic][before - 1] >= evidence[topic]:
                missing = before - bisect_left(self.offsets[topic], evidence[topic])
                yield f"{missing} of {topic} up to offset {self.offsets[topic][before - 1]}"


class _Account:
    def __init__(
        self,
        partition: _Partition,
        account: str,
        commands: Sequence[Command],
        notices: Sequence[Notice],
        view: dict[str, Any] | None,
    ) -> None:
        self.partition, self.account = partition, account
        self.commands, self.notices, self.view = commands, notices, view
        self.used = partition.arrivals.used.get(account, [])
        self.everyone = partition.arrivals.used.get(EVERYONE, [])
        self.report, self.run = partition.report, partition.run

    def add(self, kind: str, told: str) -> None:
        self.report.add(kind, self.account, told)

    def known(self, evidence: dict[str, int] | None = None) -> Known:
        """The account by the records that a decision rests on; without evidence by all."""

        def within(used: Iterable[Used]) -> list[Any]:
            return [one.record for one in used if evidence is None or one.offset < evidence[one.topic]]

        return Known(
            self.account,
            within(self.used),
            within(self.everyone),
            policies=self.partition.policies,
            app_id=self.run.app_id,
        )

    @property
    def opening(self) -> Any:
        return next((one.record for one in self.used if one.record.kind == "opening"), None)

    def check(self) -> None:
        good = self._check_sequence()
        self._check_notices(good)
        for place, command in enumerate(good):
            if set(command.evidence) == set(INPUTS):
                self._judge(command, good[:place])
        if self.used:
            self._check_view(good)
            self._check_nothing_left(good)

    # -- exactly once, in order ----------------------------------------------------------------------------------------

    def _check_sequence(self) -> list[Command]:
        """Gapless, alternating; returns the commands without those that came again or out of turn."""
        good: list[Command] = []
        opening = self.opening
        sequence = 0 if opening is None else opening.data["sequence"]
        status = (
            "run"
            if opening is None
            else {"suspended": "suspended", "deleted": "deleted"}.get(opening.data["status"], "run")
        )
        reopens = sorted(one.offset for one in self.used if one.record.kind == "reopen")
        for command in self.commands:
            self.partition.check_command(command)
            if command.sequence <= sequence:
                kind = "doubled" if any(command.id == other.id for other in good) else "out of order"
                self.add(kind, f"{command} at offset {command.recorded.offset} comes after sequence {sequence}")
                continue
            if command.sequence > sequence + 1:
                self.add("lost", f"between sequence {sequence} and {command}")
            if status == "deleted" and any(offset < command.evidence.get("controls", 0) for offset in reopens):
                status = "run"
                reopens = [offset for offset in reopens if offset >= command.evidence.get("controls", 0)]
            after = AFTER.get((status, command.action))
            if after is None and command.sequence == sequence + 1:
                self.add("wrong", f"{command} of an account that is {status}")
            sequence, status = (
                command.sequence,
                after or {"suspend": "suspended", "restore": "run"}.get(command.action, "deleted"),
            )
            good.append(command)
        return good

    def _check_notices(self, good: Sequence[Command]) -> None:
        """Each command is told of once, and nothing is told of a command that is not there."""
        told = Counter((notice.kind, notice.data["command_id"]) for notice in self.notices)
        expected = {(TOLD[command.action], command.id) for command in good}
        for one in sorted(expected):
            if told[one] != 1:
                self.add("lost" if not told[one] else "doubled", f"the notice {one[0]} of {one[1]}: {told[one]} times")
        for kind, command_id in sorted(key for key in told if key[0] in TOLD.values()):
            if (kind, command_id) not in expected:
                self.add("lost", f"the command {command_id} that the notice {kind} tells of")

    # -- each command --------------------------------------------------------------------------------------------------

    def _judge(self, command: Command, before: Sequence[Command]) -> None:
        background = Background(
            self.known(command.evidence),
            before,
            self._notices_before(command),
            self.opening,
            resumed={
                one.record.account
                for one in [*self.used, *self.everyone]
                if one.record.kind == "resume" and one.offset < command.evidence["controls"]
            },
            unusable_payment=any(
                offset < command.evidence["payments"]
                for offset in self.partition.arrivals.unusable_payments.get(self.account, ())
            ),
        )
        for told in judge(command, background):
            self.add("wrong delete" if command.action == "delete" else "wrong", f"{command}: {told}")
        if command.decided_at > self.run.ended_at:
            self.add("wrong", f"{command} is decided after the end of the run")
        for told in self.partition.unread(self._cause(command), command.evidence):
            self.add("unfenced", f"{command} lacks {told}, in Kafka before its cause, {command.data['effective_at']}")

    def _cause(self, command: Command) -> int:
        """Since when all that is in Kafka has to be counted: the mark, or when what it restores for was appended."""
        if command.action != "restore":
            return command.effective_at
        causes = [
            self._appended_at(one)
            for one in self.used
            if one.record.at == command.effective_at and one.offset < command.evidence[one.topic]
        ]
        return max(causes, default=0)

    def _appended_at(self, used: Used) -> int:
        place = bisect_left(self.partition.offsets[used.topic], used.offset)
        return self.partition.appended[used.topic][place] + self.run.shift

    def _notices_before(self, command: Command) -> list[Notice]:
        """Those that were out when it was decided: up to the one that tells of it."""
        found: list[Notice] = []
        for notice in self.notices:
            if notice.data["command_id"] == command.id and notice.kind == TOLD[command.action]:
                return found
            found.append(notice)
        return [notice for notice in self.notices if notice.at <= command.decided_at]

    # -- where it stands in the end ------------------------------------------------------------------------------------

    def _check_view(self, good: Sequence[Command]) -> None:
        view = self.view
        if view is None:
            self.add("lost", "there is no view of it")
            return
        as_of = parse_instant(view["as_of"])
        known = self.known()
        account = known.at(as_of)
        balance = format_amount(account.ledger.balance)
        limit = self._limit(known, as_of)
        last = good[-1] if good else None
        opened = 0 if self.opening is None else self.opening.data["sequence"]
        expected: dict[str, Any] = {
            "balance": balance,
            "owed": format_amount(account.ledger.owed),
            "credit_limit": limit,
            "currency": account.currency,
            "sequence": last.sequence if last is not None else opened,
            "last_command_id": None if last is None else last.id,
            **account.unpaid_bills(),
            **self._standing(known, as_of, good),
        }
        if self.run.closed:
            expected["unbilled"] = format_amount(unbilled(account.records))
        wrong = {name: (view[name], value) for name, value in expected.items() if view[name] != value}
        if wrong:
            told = ", ".join(f"{name} is {got!r}, has to be {want!r}" for name, (got, want) in wrong.items())
            self.add("wrong", f"its last view, as of {view['as_of']}: {told}")
        now = known.at(self.run.ended_at)
        if format_amount(now.ledger.balance) != balance or self._limit(known, self.run.ended_at) != limit:
            self.add("lost", f"its last view, as of {view['as_of']}, is older than its last record")

    @staticmethod
    def _limit(known: Known, now: int) -> str:
        limits = [r.data["amount"] for r in known.at(now).records if r.kind == "credit_limit"]
        return format_amount(limits[-1]) if limits else "0"

    def _standing(self, known: Known, as_of: int, good: Sequence[Command]) -> dict[str, Any]:
        status = self._status(good)
        spells = known.spells(as_of)
        running = spells[-1] if spells and spells[-1].until is None else None
        last = good[-1] if good else None
        if status == "deleted":
            return {"status": "deleted", "arrears_since": None} | (
                {} if last is None else {"suspended_services": last.data["services"]}
            )
        fee = None if running is None else known.fee(running, known.at(as_of).policy_for(running.since), as_of)
        return {
            "status": "suspended" if status == "suspended" else ("current" if running is None else "in_arrears"),
            "arrears_since": None if running is None else format_instant(running.since),
            "late_fee": "0" if fee is None else format_amount(round_half_up(fee)),
            "suspended_services": last.data["services"] if status == "suspended" and last is not None else [],
        }

    def _check_nothing_left(self, good: Sequence[Command]) -> None:
        # Nobody knows whether its `resume` was read before or after the payment that could not be used: it may be
        # stopped.
        stopped = bool(self.partition.arrivals.unusable_payments.get(self.account))
        background = Background(self.known(), good, self.notices, self.opening, unusable_payment=stopped)
        for told in left_undone(background, self._status(good), self.run.ended_at):
            self.add("lost", told)

    def _status(self, good: Sequence[Command]) -> str:
        """What was commanded last: run (also after a reopen), suspended or deleted."""
        last = good[-1] if good else None
        if last is None:
            status = None if self.opening is None else self.opening.data["status"]
            status = status if status in ("suspended", "deleted") else "run"
        else:
            status = {"suspend": "suspended", "restore": "run", "delete": "deleted"}[last.action]
        after = 0 if last is None else last.evidence.get("controls", 0)
        reopened = any(one.record.kind == "reopen" and one.offset >= after for one in self.used)
        return "run" if status == "deleted" and reopened else status
