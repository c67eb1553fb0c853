"""What is wrong with a monitor that was looked at, in order of importance, and what to do about it."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from models.instants import SECOND, format_duration
from streams import telling
from streams.group import EMPTY, STABLE
from streams.held import same
from streams.status import ago
from streams.topic_design import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from models.account import Account
    from models.instants import Duration
    from models.policy import Policies
    from streams.snapshot import Snapshot
    from streams.topics import Problem

#: A partition that has something to do commits far more often than this.
_STUCK_AFTER: Final = 60 * SECOND
#: So many are named.
_MOST_NAMED: Final = 3


class Weight(IntEnum):
    """How bad it is."""

    FATAL = 0  # commands do not come, or records are lost
    WARNING = 1  # it works, less safely than it could
    NOTE = 2  # nothing is wrong: something cannot be done here


class Finding(NamedTuple):
    """One thing."""

    weight: Weight
    told: str
    mend: str


_MENDS: Final = {
    "max_deletes": "see that these deletes are right (arrears accounts --status suspended), then {resume}",
    "max_suspends": "see that these suspends are right (arrears accounts --status in_arrears), then {resume}",
    "payments_silence": "see why no payments come into the topic; it goes on when they do, or: {resume}",
    "unusable_payments": "see arrears dead-letters, have the payments sent again as they should be, then {resume}",
    "clock_skew": "set the clock of the worker's machine (NTP); it goes on by itself",
    "delete_contradicted": "find out why the payment came so late (arrears notices), then {resume}",
}
_RESUME: Final = "arrears control resume '*' --reason …"


def of_topics(problems: Iterable[Problem]) -> Iterator[Finding]:
    """What differs from the design."""
    for problem in problems:
        weight = Weight.FATAL if problem.severity is Severity.FATAL else Weight.WARNING
        yield Finding(weight, f"The topic {problem.topic} {problem.told}.", problem.mend)


def of_snapshot(found: Snapshot, max_clock_skew: Duration) -> Iterator[Finding]:
    """What is wrong with how it stands."""
    yield from _state(found)
    yield from _workers(found)
    yield from _stops(found)
    yield from _stuck(found)
    yield from _clock(found, max_clock_skew)
    yield from _policies(found)


def _state(found: Snapshot) -> Iterator[Finding]:
    for number, held in found.held.items():
        if held.kept is not None and held.kept.partitions != found.partitions:
            yield Finding(
                Weight.FATAL,
                f"The state was made with {held.kept.partitions} partitions, the topics have {found.partitions}: "
                "an account would be served in two places, so no worker starts.",
                "begin a new app id and replay (see OPERATIONS), or make the topics as they were",
            )
            return
        for topic, wanted, first in found.gone(number):
            yield Finding(
                Weight.FATAL,
                f"Records {wanted:,} to {first - 1:,} of {topic}, partition {number}, were deleted before they were "
                "read: it stands still.",
                "load them again from where they came from into a new app id (see OPERATIONS), and keep them longer "
                "(arrears topics check)",
            )


def _workers(found: Snapshot) -> Iterator[Finding]:
    group = found.group
    if group.state in EMPTY:
        yield Finding(Weight.FATAL, "No worker runs: nothing is decided.", "start one: arrears worker")
        return
    if group.state != STABLE:
        yield Finding(
            Weight.WARNING,
            f"The partitions are being given out anew ({group.state}).",
            "look again in a minute; if it goes on, see the workers' logs",
        )
        return
    alone = [number for number in range(found.partitions) if group.owner(number) is None]
    if alone:
        yield Finding(
            Weight.FATAL, f"Nobody has partition {same(alone)}: nothing is decided there.", "restart the workers"
        )


def _stops(found: Snapshot) -> Iterator[Finding]:
    stopped: dict[str, list[int]] = {}
    actions: dict[str, str] = {}
    for number, held in found.held.items():
        for stop in () if held.everybody is None else held.everybody.stops.values():
            stopped.setdefault(stop.reason, []).append(number)
            actions[stop.reason] = telling.listed(f"{action}s" for action in stop.actions)
    for reason, numbers in stopped.items():
        yield Finding(
            Weight.FATAL,
            f"{reason} stops {actions[reason]} on partition {same(numbers)}.",
            _MENDS.get(reason, "{resume}").format(resume=_RESUME),
        )


def _stuck(found: Snapshot) -> Iterator[Finding]:
    for number, held in found.held.items():
        lag = sum(found.lag(number).values())
        if not lag or held.committed_ms is None or found.group.owner(number) is None:
            continue
        silent = found.at - held.committed_ms * 1000
        if silent > _STUCK_AFTER and not found.gone(number):
            records = telling.counted(lag, "record")
            yield Finding(
                Weight.FATAL,
                f"Partition {number} has {records} to apply and has not committed for {ago(silent)}.",
                "see the log of its worker; restart that",
            )


def _clock(found: Snapshot, most: Duration) -> Iterator[Finding]:
    ahead = max(
        (held.committed_ms * 1000 - found.at for held in found.held.values() if held.committed_ms is not None),
        default=0,
    )
    if ahead > most:
        yield Finding(
            Weight.WARNING,
            f"The clock of this machine is at least {format_duration(ahead // SECOND * SECOND)} behind the brokers'.",
            "set it (NTP): controls that are sent from here would count from the wrong instant",
        )


def _policies(found: Snapshot) -> Iterator[Finding]:
    lists: list[tuple[Policies, list[int]]] = []
    for number, held in found.held.items():
        if held.everybody is None:
            continue
        policies = held.everybody.policies_at(found.at)
        for known, numbers in lists:
            if known == policies:
                numbers.append(number)
                break
        else:
            lists.append((policies, [number]))
    if len(lists) > 1:
        told = "; ".join(
            f"partition {same(numbers)}: {telling.listed(p.label for p in policies.versions)}"
            for policies, numbers in lists
        )
        yield Finding(
            Weight.WARNING,
            f"The partitions hold different policies ({told}).",
            "one may be behind: look again when all is applied (arrears status); else arrears policy apply FILE",
        )


def of_transactions(before: Snapshot, after: Snapshot) -> Iterator[Finding]:
    """Transactions that were open at both looks, at the same place."""
    for number in range(before.partitions):
        for topic in before.open_transactions(number):
            stable = after.ends[topic, number].stable
            if topic in after.open_transactions(number) and stable == before.ends[topic, number].stable:
                yield Finding(
                    Weight.WARNING,
                    f"A transaction hangs in {topic}, partition {number}, at offset {stable:,}: decisions wait.",
                    "see which producer it is (kafka-transactions find-hanging), and end it",
                )


def of_accounts(held_back: Iterable[Account]) -> Iterator[Finding]:
    """Accounts with a command that is held back."""
    stopped: list[str] = []
    others = 0
    for account in held_back:
        if account.stopped:
            stopped.append(account.account_id)
        else:
            others += 1
    if stopped:
        named = telling.listed(sorted(stopped)[:_MOST_NAMED])
        more = f" and {len(stopped) - _MOST_NAMED:,} more" if len(stopped) > _MOST_NAMED else ""
        yield Finding(
            Weight.FATAL,
            f"A payment that cannot be used, or a state that is too large, holds back commands of {named}{more}.",
            "see arrears dead-letters --account ACCOUNT, have it sent again (too large: see the runbook), "
            "then arrears control resume ACCOUNT",
        )
    if others:
        yield Finding(
            Weight.WARNING,
            f"{telling.counted(others, 'account')} with a command that is held back.",
            "they go on with what stops their partition",
        )


def of_dead_letters(counts: Mapping[str, int]) -> Iterator[Finding]:
    """What could not be used within a day, by topic."""
    if any(counts.values()):
        told = ", ".join(f"{topic} {count:,}" for topic, count in sorted(counts.items()) if count)
        yield Finding(
            Weight.WARNING,
            f"Records of the last 24 hours could not be used: {told}.",
            "arrears dead-letters --since PT24H tells which and why",
        )
