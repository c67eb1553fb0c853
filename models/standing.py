"""Operators' controls that stand until they end: holds, releases, allowances, choices of policy.

An account has its own; those for `*` stand once for everybody. All questions are asked for an instant: a control counts
from its `at` on, whenever it arrived.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from models.instants import Duration, Instant

if TYPE_CHECKING:
    from models.records import Control

#: An instant that never comes: later than the year 9999.
NEVER: Final[Instant] = 1 << 62


class Hold(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """No suspend and no delete for `at` <= t < its end; an exemption also restores."""

    at: Instant
    event_id: str
    exempt: bool
    until: Instant | None
    freeze_clock: bool


class Allowance(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Delay-stop: both marks move by `duration`."""

    at: Instant
    event_id: str
    duration: Duration


class PolicyChoice(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The policy's name for episodes that begin after `at`."""

    at: Instant
    event_id: str
    name: str


class Span(msgspec.Struct, frozen=True, gc=False):
    """A hold with the end that it has as things stand (`until`, or the release that came first)."""

    start: Instant
    end: Instant
    hold: Hold


class Standing(msgspec.Struct, array_like=True):
    """The controls of one account, or those of `*`; each list in order of `at`, then `event_id`."""

    holds: list[Hold] = []
    releases: list[Instant] = []
    allowances: list[Allowance] = []
    choices: list[PolicyChoice] = []

    def add(self, control: Control) -> None:
        """Take in a hold, exemption, release, allowance or choice of policy. The order of arrival does not matter."""
        match control.kind:
            case "hold" | "exempt":
                hold = Hold(control.at, control.event_id, control.kind == "exempt", control.until, control.freeze_clock)
                self.holds.append(hold)
                self.holds.sort(key=_in_order)
            case "release":
                self.releases.append(control.at)
                self.releases.sort()
            case "allowance":
                assert control.duration is not None  # the contract's model requires it
                self.allowances.append(Allowance(control.at, control.event_id, control.duration))
                self.allowances.sort(key=_in_order)
            case "policy":
                assert control.policy is not None
                self.choices.append(PolicyChoice(control.at, control.event_id, control.policy))
                self.choices.sort(key=_in_order)
            case _:
                raise AssertionError(f"{control.kind} does not stand")

    @property
    def moves_marks(self) -> bool:
        """Whether any of these can move a mark."""
        return bool(self.holds or self.allowances)

    def spans(self, now: Instant) -> list[Span]:
        """The holds that have begun by `now`, with the ends that they have as known at `now`."""
        found = []
        for hold in self.holds:
            if hold.at > now:
                break
            end = NEVER if hold.until is None else hold.until
            for release in self.releases:
                # At one instant a release comes first: it does not end a hold that begins with it.
                if hold.at < release <= now:
                    end = min(end, release)
                    break
            found.append(Span(hold.at, end, hold))
        return found

    def begins(self) -> list[Instant]:
        """When each of these begins to count."""
        return [item.at for group in (self.holds, self.allowances, self.choices) for item in group] + self.releases

    def next_after(self, now: Instant) -> Instant:
        """The first instant after `now` at which one of these begins to count; NEVER if there is none."""
        return min((at for at in self.begins() if at > now), default=NEVER)

    def forget(self, before: Instant) -> None:
        """Drop what no episode that runs at `before` or later can depend on."""
        ends = {span.hold.event_id: span.end for span in self.spans(before)}
        self.holds = [hold for hold in self.holds if ends.get(hold.event_id, NEVER) >= before]
        oldest = min((hold.at for hold in self.holds), default=NEVER)
        self.releases = [release for release in self.releases if release >= before or release > oldest]
        self.allowances = _from_the_last_before(self.allowances, before)
        self.choices = _from_the_last_before(self.choices, before)


_Dated = TypeVar("_Dated", Allowance, PolicyChoice)


def _in_order(item: Hold | Allowance | PolicyChoice) -> tuple[Instant, str]:
    return item.at, item.event_id


def _from_the_last_before(items: list[_Dated], before: Instant) -> list[_Dated]:
    older = [item for item in items if item.at < before]
    return older[-1:] + [item for item in items if item.at >= before]


def policy_choice(since: Instant, own: Standing | None, everybody: Standing) -> str | None:
    """The name chosen for an episode that begins at `since`: of the newest choice before it, own or for `*`."""
    newest: tuple[Instant, bool, str] | None = None
    for is_own, standing in ((False, everybody), (True, own)):
        if standing is None:
            continue
        for choice in standing.choices:  # for episodes that begin *after* `at`
            # At one instant the account's own holds, and of two the greater event_id (they come in that order).
            if choice.at < since and (newest is None or (choice.at, is_own) >= newest[:2]):
                newest = (choice.at, is_own, choice.name)
    return newest[2] if newest else None


def allowances_in_force(now: Instant, own: Standing | None, everybody: Standing) -> list[Allowance]:
    """The allowances that have begun by `now`, oldest first; of those of one instant the one that holds."""
    found: dict[Instant, Allowance] = {}
    for standing in (everybody, own):  # at one instant the account's own replaces that of `*`
        for allowance in standing.allowances if standing else ():
            if allowance.at <= now:
                found[allowance.at] = allowance
    return [found[at] for at in sorted(found)]
