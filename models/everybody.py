"""What stands for all accounts of a partition: policies (R10), the controls for `*`, what stops commands (§3)."""

from __future__ import annotations

from bisect import insort
from typing import TYPE_CHECKING, Final

import msgspec

from models.instants import FIRST_INSTANT, HOUR, Duration, Instant
from models.policy import Policies, Policy
from models.refusal import Refusal
from models.standing import Standing, policy_choice

if TYPE_CHECKING:
    from collections.abc import Iterable

    from models.enforcement import Action
    from models.records import Control

#: The account of controls that are for everybody.
EVERYBODY: Final = "*"


class PoliciesFrom(msgspec.Struct, frozen=True, array_like=True):
    """The policies in force from `at` on; `numbers` are their places in `Everybody.versions`, in the list's order."""

    at: Instant
    event_id: str
    policies: Policies


class Stop(msgspec.Struct, frozen=True, array_like=True):
    """Why no command of these actions is sent on the partition until a `resume`."""

    reason: str
    actions: tuple[str, ...]
    since: Instant


class Everybody:
    """What holds for every account of the partition, present and future."""

    def __init__(self, policies: Policies, history: Duration) -> None:
        self.standing = Standing()
        self.events: dict[str, tuple[Instant, int]] = {}
        #: How long movements are remembered: no shorter than any `delete_after`.
        self.history = history
        #: Each version that was ever in force; accounts keep the number.
        self.versions: list[Policy] = []
        self.in_force: list[PoliciesFrom] = []
        #: The instant of the last decision: the clock never goes back behind it.
        self.decided_to: Instant = FIRST_INSTANT
        #: Whether a control for `*` came since then.
        self.is_touched = False
        #: Whether what came for `*` is being looked at account by account.
        self.is_spreading = False
        self.stops: dict[str, Stop] = {}
        #: When the suspends and deletes of the last hour were decided, and how many at each instant, the oldest first.
        self.recent: dict[Action, dict[Instant, int]] = {"suspend": {}, "delete": {}}
        #: Until when no guard limits them (a `resume` with `until`).
        self.unlimited_until: Instant = FIRST_INSTANT
        #: Accounts whose command waits for a `resume`; each knows it itself, too (`Account.held_back`).
        self.stopped: set[str] = set()
        self.add_policies(FIRST_INSTANT - 1, "", policies)

    # -- policies ---------------------------------------------------------------------------------------------------

    def add_policies(self, at: Instant, event_id: str, policies: Policies) -> None:
        """These hold for episodes that begin at `at` or later; of two lists of one instant the greater event_id."""
        insort(self.in_force, PoliciesFrom(at, event_id, policies), key=lambda item: (item.at, item.event_id))
        self.versions += [policy for policy in policies.versions if policy not in self.versions]
        self.history = max(self.history, *(policy.delete_after for policy in policies.versions))

    def start_with(self, policies: Policies) -> None:
        """At a start: these hold as long as none has come by the controls. Raises ValueError on a changed version."""
        if (changed := self._changed(policies.versions)) is not None:
            raise ValueError(changed)
        if len(self.in_force) == 1 and self.in_force[0].policies != policies:
            self.in_force.clear()
            self.add_policies(FIRST_INSTANT - 1, "", policies)

    def policies_at(self, at: Instant) -> Policies:
        """The policies in force at `at`."""
        for item in reversed(self.in_force):
            if item.at <= at:
                return item.policies
        return self.in_force[0].policies

    def policy_for(self, own: Standing | None, since: Instant) -> int:
        """The number of the policy of an episode that begins at `since` (R10)."""
        policies = self.policies_at(since) if len(self.in_force) > 1 else self.in_force[0].policies
        is_chosen = self.standing.choices or (own is not None and own.choices)
        name = policy_choice(since, own, self.standing) if is_chosen else None
        return self.versions.index(policies.version_at(policies.first_name if name is None else name, since))

    def policy_of_opening(self, control: Control) -> int:
        """That of an account that is taken over: by the start of its arrears, or by the opening's `at`."""
        return self.policy_for(None, control.at if control.arrears_since is None else control.arrears_since)

    def check_policy(self, control: Control) -> None:
        """Raise Refusal if a `policy` control names one that is not in force at its `at`."""
        if control.kind == "policy":
            names = self.policies_at(control.at).names
            if control.policy not in names:
                message = f"policy: {control.policy} is not known; the policies in force are {', '.join(names)}"
                raise Refusal("invalid", "policy", message)

    def check_versions(self, control: Control) -> None:
        """Raise Refusal if `policies` change what a version says (§3)."""
        if (changed := self._changed(control.policies or ())) is not None:
            raise Refusal("conflict", "policies", f"policies: {changed}")

    def _changed(self, policies: Iterable[Policy]) -> str | None:
        """What is wrong if one of them is a known version with another content."""
        known = {policy.label: policy for policy in self.versions}
        for policy in policies:
            if known.get(policy.label, policy) != policy:
                return f"{policy.label} was another policy before: a version's content never changes"
        return None

    # -- stops ------------------------------------------------------------------------------------------------------

    def stop(self, reason: str, actions: tuple[Action, ...], since: Instant) -> None:
        """Send no such command on this partition until a `resume`."""
        self.stops.setdefault(reason, Stop(reason, actions, since))

    def guard(self, action: Action, most: int | None, now: Instant) -> None:
        """Stop an action that would come more often than `most` times in a sliding hour of `decided_at`."""
        recent = self.recent[action]
        while recent and (oldest := next(iter(recent))) <= now - HOUR:
            del recent[oldest]
        if most is not None and sum(recent.values()) >= most and now >= self.unlimited_until:
            self.stop(f"max_{action}s", (action,), now)

    def sent(self, action: Action, now: Instant) -> None:
        """Such a command has been decided."""
        recent = self.recent[action]
        recent[now] = recent.get(now, 0) + 1

    def resume(self, until: Instant | None) -> None:
        """Go on, with empty windows; with `until` without limits until then."""
        self.stops.clear()
        self.recent = {"suspend": {}, "delete": {}}
        if until is not None:
            self.unlimited_until = until

    def may(self, action: Action) -> bool:
        """Whether nothing stops this action on the partition."""
        return not any(action in stop.actions for stop in self.stops.values())
