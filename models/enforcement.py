"""What has been commanded of an account, and the table that says which command comes next.

Laws of this file:

- A command is the difference between what is required and what has been commanded. What is not in the table cannot
  happen.
- A delete never precedes its suspend, and nothing but a reopen follows it.
- `sequence` counts an account's commands without a gap.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal

import msgspec

from models.instants import Duration, Instant
from models.money import Money

Action = Literal["suspend", "restore", "delete"]
Reason = Literal["unpaid_past_suspend_mark", "unpaid_past_delete_mark", "paid_in_full", "late_evidence", "operator"]


class Commanded(Enum):
    """What enforcement has been told last."""

    RUN = "run"
    SUSPENDED = "suspended"
    DELETED = "deleted"


class Required(Enum):
    """What the ledger and the policy ask for now."""

    RUN = "run"  # R4: paid, or exempt
    STAY = "stay"  # in arrears, and no mark has passed; or a hold, a fee or a notice is waited for
    STOP = "stop"  # R3: past the suspend mark
    END = "end"  # R5: past the delete mark, and the notice was given


#: The whole of enforcement: (commanded, required) -> the next command.
TRANSITIONS: Final[dict[tuple[Commanded, Required], Action | None]] = {
    (Commanded.RUN, Required.RUN): None,
    (Commanded.RUN, Required.STAY): None,
    (Commanded.RUN, Required.STOP): "suspend",
    (Commanded.RUN, Required.END): "suspend",
    (Commanded.SUSPENDED, Required.RUN): "restore",
    (Commanded.SUSPENDED, Required.STAY): None,
    (Commanded.SUSPENDED, Required.STOP): None,
    (Commanded.SUSPENDED, Required.END): "delete",
    (Commanded.DELETED, Required.RUN): None,  # no payment restores a deleted account
    (Commanded.DELETED, Required.STAY): None,
    (Commanded.DELETED, Required.STOP): None,
    (Commanded.DELETED, Required.END): None,
}

#: What an account can be (contract §2).
STATUSES: Final = ("current", "in_arrears", "suspended", "deleted")

#: The clause that each command carries.
CLAUSES: Final[dict[Action, str]] = {"suspend": "1.1.2", "restore": "1.1.2", "delete": "1.1.3"}


class Warned(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A warning that has gone out: for which mark, how long ahead, its `at`, when it was decided, its id."""

    kind: str
    mark: Instant
    ahead: Duration
    at: Instant
    decided_at: Instant
    notice_id: str
    #: When a notification service said that the customer has it.
    acked_at: Instant | None = None


class MarkSeen(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A mark's value, since when it has had it, and how many of its warnings are given or have lapsed.

    A moved mark's warnings go out from `since` on.
    """

    mark: Instant
    since: Instant
    given: int


class Episode(msgspec.Struct, array_like=True, gc=False):
    """An episode of arrears as decisions know it. It keeps the policy that held when it began (R10)."""

    since: Instant
    #: Number of the policy in `everybody.Policies`.
    policy: int
    #: Marks lie no earlier: its start, or the `at` of an opening.
    floor: Instant
    #: Whether an opening has brought it: then the customer was told of it before.
    taken_over: bool = False
    #: Fee of an earlier episode that is still missing, in `fees.UNITS`.
    carried: int = 0
    #: `at` of `arrears_started`, and when it was decided; None until it has gone out.
    told_at: Instant | None = None
    told_decided_at: Instant = 0
    warned: list[Warned] = []
    #: When an exemption restored it last: it is suspended again at the exemption's end.
    exempted_at: Instant = 0
    suspend_mark: MarkSeen | None = None
    delete_mark: MarkSeen | None = None


class Suspension(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The suspend that is in force. One taken over by an opening has no command and no `effective_at`."""

    decided_at: Instant
    services: tuple[str, ...]
    command_id: str | None
    effective_at: Instant | None


class Deletion(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The delete that ended the account, with the fee and the policy as at that time.

    One taken over by an opening has no command, no `effective_at` and no `since`.
    """

    decided_at: Instant
    services: tuple[str, ...]
    command_id: str | None
    effective_at: Instant | None
    since: Instant | None
    late_fee: Money
    policy: int
    #: Whether late evidence has shown that it should not have come.
    contradicted: bool = False


class FeeMissing(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Suspended, the bills are paid, and only the fee of the ended episode is missing (`late_fee_required`)."""

    since: Instant
    policy: int
    fee: int


class Stop(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Services stopped from `start` on, until `end` (None: still); their use in between is a breach."""

    start: Instant
    end: Instant | None
    services: tuple[str, ...]
    command_id: str | None

    def covers(self, service: str, started_at: Instant) -> bool:
        """Whether usage of `service` that began at `started_at` is a breach."""
        return service in self.services and self.start < started_at and (self.end is None or started_at < self.end)


class Unconfirmed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A command that not every subscriber has applied yet; `told` are those of whom it was told."""

    command_id: str
    due: Instant
    missing: tuple[str, ...]
    failed: tuple[str, ...] = ()
    told: tuple[str, ...] = ()


class Enforcement(msgspec.Struct, array_like=True):
    """Everything that has been commanded and told of one account."""

    sequence: int = 0
    last_command_id: str | None = None
    episode: Episode | None = None
    suspension: Suspension | None = None
    deletion: Deletion | None = None
    fee_missing: FeeMissing | None = None
    stops: list[Stop] = []
    unconfirmed: list[Unconfirmed] = []
    #: When it was reopened last; live that may lie a little ahead of the clock.
    reopened_at: Instant | None = None

    @property
    def commanded(self) -> Commanded:
        """Where the account stands in the table."""
        if self.deletion is not None:
            return Commanded.DELETED
        return Commanded.RUN if self.suspension is None else Commanded.SUSPENDED

    @property
    def status_number(self) -> int:
        """The place of the account's status in `STATUSES`."""
        if self.deletion is not None:
            return 3
        if self.suspension is not None:
            return 2
        return 0 if self.episode is None else 1

    @property
    def status(self) -> str:
        """The account's: one of `STATUSES`."""
        return STATUSES[self.status_number]

    def may_forbid(self, service: str, started_at: Instant, decided_to: Instant) -> bool:
        """Whether usage is a breach, or may become one by a command of a decision after `decided_to`."""
        if started_at > decided_to:
            return self.episode is not None or bool(self.stops)
        return any(stop.covers(service, started_at) for stop in self.stops)

    def stop(self, start: Instant, services: tuple[str, ...], command_id: str | None) -> None:
        """Usage of these services from `start` on is a breach."""
        self.stops.append(Stop(start, None, services, command_id))

    def acknowledge(self, command_id: str, subscriber: str, *, applied: bool) -> None:
        """A subscriber has applied a command, or has failed to."""
        kept = []
        for command in self.unconfirmed:
            if command.command_id == command_id and subscriber in command.missing:
                if applied:
                    missing = tuple(name for name in command.missing if name != subscriber)
                    failed = tuple(name for name in command.failed if name != subscriber)
                    command = msgspec.structs.replace(command, missing=missing, failed=failed)  # noqa: PLW2901
                elif subscriber not in command.failed:
                    command = msgspec.structs.replace(command, failed=(*command.failed, subscriber))  # noqa: PLW2901
            if command.missing:
                kept.append(command)
        self.unconfirmed = kept

    def acknowledge_notice(self, notice_id: str, at: Instant) -> None:
        """The customer has a warning."""
        if self.episode is not None:
            self.episode.warned = [
                msgspec.structs.replace(warned, acked_at=at)
                if warned.notice_id == notice_id and warned.acked_at is None
                else warned
                for warned in self.episode.warned
            ]

    def end_stops(self, end: Instant, forgotten: Instant) -> None:
        """A restore or a reopen ends them; what ended before `forgotten` is dropped."""
        self.stops = [
            msgspec.structs.replace(stop, end=end) if stop.end is None else stop
            for stop in self.stops
            if stop.end is None or stop.end >= forgotten
        ]

    def reopen(self, at: Instant, forgotten: Instant) -> None:
        """A deleted account starts anew: current, balance kept, sequence goes on."""
        self.end_stops(at, forgotten)
        self.episode = self.suspension = self.deletion = self.fee_missing = None
        self.reopened_at = at
