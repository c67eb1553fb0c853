"""A monitor of `models/` fed with a plan's records in memory, as the live worker feeds it: for trying the checker.

No broker, no transaction, nothing that breaks: what it publishes is what a worker has to publish. Decisions come at
random instants, some of them late; topics are read at different speeds; nothing is decided while a transaction is open.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import msgspec

from models.everybody import Everybody
from models.instants import DAY, MINUTE, SECOND, format_instant
from models.monitor import Live, Monitor, Terms
from models.outputs import Source
from models.policy import load_policies
from models.records import decode
from models.refusal import Refusal
from models.store import AccountStore
from tests.chaos.arrivals import partition_of
from tests.chaos.run import INPUTS, Recorded, Run

if TYPE_CHECKING:
    from pathlib import Path

    from models.contract import Topic
    from models.outputs import AccountView, Command, DeadLetter, Notice
    from tests.chaos.traffic import Plan

START = 1_800_000_000 * SECOND
APP_ID = "arrears"


@dataclass
class _Log:
    """One partition of a topic: its records, and those of open transactions, which nobody reads yet."""

    records: list[tuple[Recorded, int | None]] = field(default_factory=list)  # (record, readable from; None: never)
    end: int = 0
    #: (since when, until when, its first offset) of each transaction.
    transactions: list[tuple[int, int, int]] = field(default_factory=list)


def simulate(plan: Plan, policies: str, folder: Path, *, seed: int, partitions: int = 3, outages: float = 0.01) -> Run:
    """The run of a plan. `outages`: how often a partition's decisions stop for some seconds."""
    file = folder / "policies.yaml"
    file.write_text(policies)
    logs = _logs(plan, partitions)
    ended_at = START + round((plan.seconds + 60) * SECOND)
    run = Run(APP_ID, partitions, policies, START, ended_at)
    for (topic, _), log in logs.items():
        run.take(topic, (recorded for recorded, readable in log.records if readable is not None))
    for partition in range(partitions):
        worker = _Worker(run, logs, partition, load_policies(str(file)), random.Random(seed * 1000 + partition))
        worker.work(ended_at, outages)
    return run


def _logs(plan: Plan, partitions: int) -> dict[tuple[str, int], _Log]:
    logs: dict[tuple[str, int], _Log] = defaultdict(_Log)
    markers: list[tuple[int, _Log]] = []
    for step in plan.steps():
        now = START + round(step.at * SECOND)
        for partition in step.partitions(partitions):
            log = logs[step.topic, partition]
            for marker in [marker for marker in markers if marker[1] is log and marker[0] <= now]:
                log.end += 2
                markers.remove(marker)
            recorded = Recorded(partition, log.end, now // 1000 * 1000, step.key, step.value(START))
            readable: int | None = now
            if step.open is not None:
                closed = now + round(step.open.seconds * SECOND)
                readable = closed if step.open.commits else None
                log.transactions.append((now, closed, log.end))
                markers.append((closed, log))
            log.records.append((recorded, readable))
            log.end += 2  # between them the ends of transactions
    for _, log in markers:
        log.end += 2
    return logs


class _Worker:
    def __init__(
        self, run: Run, logs: dict[tuple[str, int], _Log], partition: int, policies: Any, dice: random.Random
    ) -> None:
        terms = Terms(APP_ID, 45 * DAY, 3 * DAY, Live(max_ahead=10 * MINUTE, max_deletes=None, max_suspends=None))
        self.run, self.partition, self.dice = run, partition, dice
        self.logs = {topic: logs[topic, partition] for topic in INPUTS}
        self.next = dict.fromkeys(INPUTS, 0)
        self.monitor = Monitor(Everybody(policies, terms.history), terms, AccountStore())
        self.monitor.clock = START
        self.monitor.remember_from(START)
        self.seen: dict[str, AccountView] = {}
        self.offsets: dict[str, int] = defaultdict(int)

    def work(self, until: int, outages: float) -> None:
        now = START
        while now < until:
            now += round(self.dice.uniform(0.02, 0.4) * SECOND)
            if self.dice.random() < outages:
                now += round(self.dice.uniform(3, 12) * SECOND)
            settled = [self._read(topic, now) for topic in self.dice.sample(INPUTS, len(INPUTS))]
            self.monitor.clock = now
            if all(settled):
                self.monitor.remember_from(now)
                self._decide(now)

    def _read(self, topic: str, now: int) -> bool:
        """Apply what can be read, or a part of it; whether that is everything that is in Kafka."""
        log = self.logs[topic]
        opened = [first for since, closed, first in log.transactions if since <= now < closed]
        stable = min(opened, default=log.end)
        there = [
            (recorded, readable)
            for recorded, readable in log.records
            if self.next[topic] <= recorded.offset < stable and recorded.appended_at <= now - 1000
        ]
        paused = self.dice.random() < 0.1
        if paused:
            there = there[: len(there) // 2]
        for recorded, readable in there:
            self.next[topic] = recorded.offset + 1
            if readable is not None:
                self.monitor.clock = now
                self._apply(topic, recorded)
        return not paused and not opened

    def _apply(self, topic: str, recorded: Recorded) -> None:
        source = Source(topic, self.partition, recorded.offset, recorded.key, recorded.value, format_instant(0))
        account = recorded.key
        try:
            record = self._decoded(topic, recorded)
            if self.monitor.apply(record, lambda: source):
                return
            if topic != "payments":
                return
            account = record.account_id.encode()
        except Refusal as refusal:
            self.monitor.refuse(source, refusal)
        if topic == "payments" and account is not None:
            self.monitor.stop_account(account.decode())

    def _decoded(self, topic: str, recorded: Recorded) -> Any:
        if recorded.value is None:
            raise Refusal("invalid", None, "no value")
        record = decode(cast("Topic", topic), recorded.value)
        if recorded.key != record.account_id.encode():
            raise Refusal("key_mismatch", "account_id", "another key")
        if record.account_id != "*" and partition_of(recorded.key, self.run.partitions) != self.partition:
            raise Refusal("wrong_partition", "account_id", "elsewhere")
        return record

    def _decide(self, now: int) -> None:
        self.monitor.seal()
        for past in (False, True):
            published = self.monitor.decide(now, past=past, evidence=dict(self.next))
            for command in published.commands:
                self._command(command, now)
            for notice in published.notices:
                self._notice(notice, now)
            self._letters(published.dead_letters, now)
        self._letters(self.monitor.take_dead_letters(), now)
        for view in self.monitor.views(now):
            before = self.seen.get(view.account_id)
            same = (
                before is not None
                and msgspec.structs.replace(view, as_of=before.as_of, late_fee=before.late_fee) == before
            )
            if not same:
                self.seen[view.account_id] = view
                self._publish("accounts", now, view.account_id, view)

    def _command(self, command: Command, now: int) -> None:
        kind = f"arrears.command.{command.action}.v1"
        self._publish("commands", now, command.account_id, command, command.command_id, kind)

    def _notice(self, notice: Notice, now: int) -> None:
        self._publish("notices", now, notice.account_id, notice, notice.notice_id, f"arrears.notice.{notice.kind}.v1")

    def _letters(self, letters: list[DeadLetter], now: int) -> None:
        for letter in letters:
            self._publish("dead-letters", now, letter.key or "", letter)

    def _publish(
        self, topic: str, now: int, account: str, value: Any, event_id: str | None = None, kind: str = ""
    ) -> None:
        headers: tuple[tuple[str, bytes], ...] = ()
        if event_id is not None:
            texts = {"ce_specversion": "1.0", "ce_id": event_id, "ce_type": kind, "ce_subject": account}
            texts["ce_time"] = format_instant(now)
            headers = tuple((name, text.encode()) for name, text in texts.items())
        offset = self.offsets[topic]
        self.offsets[topic] += 2
        value = msgspec.json.encode(value)
        self.run.take(topic, [Recorded(self.partition, offset, now // 1000 * 1000, account.encode(), value, headers)])
