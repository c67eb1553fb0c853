"""Was this command required, then, by these records? The slow model's answer, field by field (contract §1, §3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tests.oracle.controls import out_of_hold
from tests.oracle.live import covered, exempt_since
from tests.oracle.values import SECOND, format_amount, format_instant, parse_instant, round_half_up

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.chaos.run import Recorded
    from tests.oracle.live import Known, Spell
    from tests.oracle.policy import Policy
    from tests.oracle.records import Record

#: How long after it was due something may still be missing at the end of a run.
GRACE = 5 * SECOND


@dataclass(frozen=True)
class Command:
    recorded: Recorded
    data: dict[str, Any]

    def __str__(self) -> str:
        return f"command {self.sequence} ({self.action}) of {self.account}"

    @property
    def id(self) -> str:
        return str(self.data["command_id"])

    @property
    def account(self) -> str:
        return str(self.data["account_id"])

    @property
    def sequence(self) -> int:
        return int(self.data["sequence"])

    @property
    def action(self) -> str:
        return str(self.data["action"])

    @property
    def evidence(self) -> dict[str, int]:
        return dict(self.data["evidence"] or {})

    @cached_property
    def decided_at(self) -> int:
        return parse_instant(self.data["decided_at"])

    @cached_property
    def effective_at(self) -> int:
        return parse_instant(self.data["effective_at"])

    @cached_property
    def since(self) -> int:
        return parse_instant(self.data["arrears_since"])


@dataclass(frozen=True)
class Notice:
    recorded: Recorded
    data: dict[str, Any]

    def __str__(self) -> str:
        return f"notice {self.kind} of {self.account} at offset {self.recorded.offset}"

    @property
    def id(self) -> str:
        return str(self.data["notice_id"])

    @property
    def account(self) -> str:
        return str(self.data["account_id"])

    @property
    def kind(self) -> str:
        return str(self.data["kind"])

    @cached_property
    def at(self) -> int:
        return parse_instant(self.data["at"])

    @cached_property
    def decided_at(self) -> int | None:
        time = self.recorded.header("ce_time")
        return None if time is None else parse_instant(time)

    @property
    def out_since(self) -> int:
        """What waits for it waits from the instant it was decided."""
        return self.at if self.decided_at is None else self.decided_at


@dataclass(frozen=True)
class Background:
    """What was known of the account, and what had gone out."""

    known: Known
    commands: Sequence[Command]
    notices: Sequence[Notice]
    opening: Record | None
    #: Accounts (its own, `*`) of which a `resume` was known.
    resumed: frozenset[str] | set[str] = frozenset()
    unusable_payment: bool = False

    def told(self, kind: str) -> list[Notice]:
        return [notice for notice in self.notices if notice.kind == kind]

    @property
    def suspended_at(self) -> int | None:
        """The `decided_at` of the suspend that is in force."""
        if self.commands:
            last = self.commands[-1]
            return last.decided_at if last.action == "suspend" else None
        opening = self.opening
        return opening.at if opening is not None and opening.data["status"] == "suspended" else None

    @property
    def exempted_at(self) -> int:
        """When an exemption restored the episode that runs, 0 if none did."""
        last = self.commands[-1] if self.commands else None
        return last.effective_at if last is not None and last.data["reason"] == "operator" else 0


def judge(command: Command, background: Background) -> Iterator[str]:
    """Everything that is wrong with it."""
    match command.action:
        case "suspend":
            yield from _judge_suspend(command, background)
        case "delete":
            yield from _judge_delete(command, background)
        case "restore":
            yield from _judge_restore(command, background)
        case _:
            yield "there is no such action"


def _compare(command: Command, **expected: Any) -> Iterator[str]:
    for name, value in expected.items():
        given = command.data[name]
        if given != value:
            yield f"{name} is {given!r}, has to be {value!r}"


def _running(background: Background, now: int) -> Spell | None:
    spells = background.known.spells(now)
    return spells[-1] if spells and spells[-1].until is None else None


def _owing(command: Command, background: Background) -> dict[str, Any]:
    account = background.known.at(command.decided_at)
    return {
        "owed": format_amount(account.ledger.owed),
        "currency": account.currency,
        **account.unpaid_bills(),
    }


def _fee(background: Background, spell: Spell, policy: Policy, now: int) -> str:
    return format_amount(round_half_up(background.known.fee(spell, policy, now)))


def _stopped(command: Command, background: Background) -> Iterator[str]:
    """§3, unusable payments and late evidence: what waits for a `resume`."""
    if background.unusable_payment and command.account not in background.resumed:
        yield "a payment of the account could not be used, and there was no resume"


def _held(command: Command, background: Background) -> Iterator[str]:
    if covered(background.known.at(command.decided_at).holds, command.decided_at):
        yield f"a hold covers {command.data['decided_at']}"


# -- suspend -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Due:
    """When a command can come: its `effective_at`, and what the clock has to be past."""

    effective_at: int | None
    past: int | None


def _suspend_due(background: Background, spell: Spell, policy: Policy, now: int) -> _Due | str:
    started = background.told("arrears_started")
    shortest = min(policy.suspension_ahead, default=None)
    if shortest is not None and not started:
        return "no arrears_started has been out"
    told = started[-1] if started else None
    marks = background.known.marks(spell, now, told_at=None if told is None else told.at, suspended_at=None)
    if marks.suspend is None:
        return _Due(None, None)
    effective_at = past = max(marks.suspend, background.exempted_at)
    if shortest is not None and told is not None:
        effective_at = max(effective_at, told.at + shortest)
        past = max(past, told.out_since + shortest)
    holds = background.known.at(now).holds
    free = out_of_hold(effective_at, holds)
    return _Due(free, None if free is None else max(free, past) + policy.lateness_suspend)


def _judge_suspend(command: Command, background: Background) -> Iterator[str]:
    now = command.decided_at
    spell = _running(background, now)
    if spell is None:
        yield "the account was not in arrears"
        return
    policy = background.known.at(now).policy_for(spell.since)
    due = _suspend_due(background, spell, policy, now)
    if isinstance(due, str):
        yield due
        return
    yield from _not_before(due, now)
    yield from _held(command, background)
    yield from _stopped(command, background)
    yield from _compare(
        command,
        arrears_since=format_instant(spell.since),
        effective_at=None if due.effective_at is None else format_instant(due.effective_at),
        reason="unpaid_past_suspend_mark",
        policy=policy.label,
        services=list(policy.suspends),
        supersedes=None,
        notice_id=None,
        late_fee=_fee(background, spell, policy, now),
        **_owing(command, background),
    )


def _not_before(due: _Due, now: int) -> Iterator[str]:
    """A mark fires once the clock is past it, and past the policy's lateness (§3)."""
    if due.past is None:
        yield "its mark never comes, as things stand"
    elif now <= due.past:
        yield f"decided at {format_instant(now)}, not past {format_instant(due.past)}"


# -- delete ------------------------------------------------------------------------------------------------------------


def _counting(background: Background, mark: int, shortest: int, now: int, needed: str | None = None) -> Notice | None:
    """The earliest `deletion_ahead` that can count for the mark, by its deadline; or the one that is `needed`."""
    holds = background.known.at(now).holds
    for notice in background.told("deletion_ahead"):
        if needed is not None and notice.id != needed:
            continue
        deadline = max(mark, notice.out_since + shortest)
        if out_of_hold(deadline, holds) == deadline:
            return notice
    return None


def _delete_due(background: Background, spell: Spell, policy: Policy, now: int, needed: str | None) -> _Due | str:
    marks = background.known.marks(spell, now, told_at=None, suspended_at=background.suspended_at)
    mark = marks.delete
    if mark is None:
        return _Due(None, None)
    effective_at = past = mark
    if policy.deletion_ahead:
        shortest = min(policy.deletion_ahead)
        notice = _counting(background, mark, shortest, now, needed)
        if notice is None:
            return f"no deletion_ahead {needed} that counts for the mark {format_instant(mark)} has been out"
        effective_at = max(mark, notice.at + shortest)
        past = max(mark, notice.out_since + shortest)
    return _Due(effective_at, max(effective_at, past) + policy.lateness_delete)


def _judge_delete(command: Command, background: Background) -> Iterator[str]:
    now = command.decided_at
    spell = _running(background, now)
    if spell is None:
        yield "the account was not in arrears"
        return
    policy = background.known.at(now).policy_for(spell.since)
    needed = command.data["notice_id"]
    if (needed is None) == bool(policy.deletion_ahead):
        yield f"its notice is {needed}, and the policy has {len(policy.deletion_ahead)} deletion_ahead"
        return
    due = _delete_due(background, spell, policy, now, needed)
    if isinstance(due, str):
        yield due
        return
    yield from _not_before(due, now)
    yield from _held(command, background)
    yield from _stopped(command, background)
    yield from _compare(
        command,
        arrears_since=format_instant(spell.since),
        effective_at=None if due.effective_at is None else format_instant(due.effective_at),
        reason="unpaid_past_delete_mark",
        policy=policy.label,
        services=list(policy.deletes),
        supersedes=None,
        late_fee=_fee(background, spell, policy, now),
        **_owing(command, background),
    )


# -- restore -----------------------------------------------------------------------------------------------------------


def _judge_restore(command: Command, background: Background) -> Iterator[str]:
    now = command.decided_at
    suspend = background.commands[-1] if background.commands else None
    begun = _begun(background, suspend)
    if begun is None:
        yield "nothing was suspended"
        return
    spells = background.known.spells(now)
    running = _running(background, now)
    yield from _compare(command, **_owing(command, background))
    if suspend is not None:
        yield from _compare(command, services=suspend.data["services"])
    # Late evidence moves the start of an episode, so this may be a stretch that the suspend did not know.
    if running is not None and running.since <= max(begun, command.since):
        yield from _judge_exempt(command, background, running)
        return
    ended = [spell for spell in spells if spell.until is not None]
    ends = [max(spell.until or 0, command.since) for spell in ended if (spell.until or 0) > begun] or [
        max((ended[-1].until or 0) if ended else 0, command.since)
    ]
    if command.effective_at not in ends:
        told = " or ".join(format_instant(end) for end in sorted(set(ends)))
        yield f"effective_at is {command.data['effective_at']}, has to be {told}"
    in_time = suspend is not None and command.effective_at <= suspend.effective_at
    yield from _compare(
        command,
        reason="late_evidence" if in_time else "paid_in_full",
        supersedes=suspend.id if in_time and suspend is not None else None,
        notice_id=None,
    )
    same = [spell for spell in ended if spell.since == command.since and spell.until == command.effective_at]
    if same:
        policy = background.known.at(now).policy_for(command.since)
        yield from _compare(command, policy=policy.label, late_fee=_fee(background, same[-1], policy, now))
    if command.since != begun and command.since not in {spell.since for spell in spells}:
        yield f"arrears_since is {command.data['arrears_since']}, and no episode of the account began then"


def _begun(background: Background, suspend: Command | None) -> int | None:
    """The start of the episode that is suspended."""
    if suspend is not None:
        return suspend.since if suspend.action == "suspend" else None
    opening = background.opening
    if opening is None or opening.data["status"] != "suspended":
        return None
    since: int = opening.data["arrears_since"]
    return since


def _judge_exempt(command: Command, background: Background, running: Spell) -> Iterator[str]:
    now = command.decided_at
    since = exempt_since(background.known.at(now).holds, now)
    if since is None:
        yield "the account was neither paid up nor exempt"
        return
    policy = background.known.at(now).policy_for(running.since)
    yield from _compare(
        command,
        reason="operator",
        effective_at=format_instant(max(since, background.suspended_at or 0)),
        arrears_since=format_instant(running.since),
        policy=policy.label,
        supersedes=None,
        late_fee=_fee(background, running, policy, now),
    )


# -- the end of a run --------------------------------------------------------------------------------------------------


def left_undone(background: Background, status: str, now: int) -> Iterator[str]:
    """What all the records require at the end of the run, and was never commanded or told."""
    spell = _running(background, now)
    if status == "deleted":
        return
    if spell is None:
        if status == "suspended":
            yield "it is suspended, and its bills are paid: a restore is missing"
        yield from _cleared(background)
        return
    account = background.known.at(now)
    policy = account.policy_for(spell.since)
    if spell.fee_from + GRACE < now and not any(
        notice.at >= spell.fee_from - GRACE for notice in background.told("arrears_started")
    ):
        yield f"it is in arrears since {format_instant(spell.since)}: arrears_started is missing"
        return
    if covered(account.holds, now) or background.unusable_payment:
        if status == "suspended" and account.exempt:
            yield "it is suspended, and exempt: a restore is missing"
        return
    due = (
        _delete_due(background, spell, policy, now, None)
        if status == "suspended"
        else _suspend_due(background, spell, policy, now)
    )
    what = "delete" if status == "suspended" else "suspend"
    if isinstance(due, str):
        marks = background.known.marks(spell, now, told_at=None, suspended_at=background.suspended_at)
        if marks.delete is not None and marks.delete + GRACE < now:
            yield f"a {what} is missing: {due}"
    elif due.past is not None and due.past + GRACE < now:
        yield f"a {what} is missing that was due past {format_instant(due.past)}"


def _cleared(background: Background) -> Iterator[str]:
    """An episode that was told of, and ended without a suspend, is told to be over."""
    last = [
        notice.kind
        for notice in background.notices
        if notice.kind in ("arrears_started", "arrears_cleared", "restored", "deleted")
    ]
    if last and last[-1] == "arrears_started":
        yield "its bills are paid: arrears_cleared is missing"
