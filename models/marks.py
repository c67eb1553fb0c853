"""When an episode's marks fall: the suspend mark and the delete mark (contract §1 "Marks", "Holds", "Allowance").

Everything here is arithmetic on elapsed time, as known at one instant: a hold or an allowance that begins later does
not count yet. `standing.NEVER` stands for a mark that never comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from models.instants import LAST_INSTANT, Duration, Instant
from models.standing import NEVER, Allowance, Hold, Span, Standing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from models.policy import Policy


def _union(stretches: Iterable[tuple[Instant, Instant]]) -> list[tuple[Instant, Instant]]:
    merged: list[tuple[Instant, Instant]] = []
    for start, end in sorted(stretches):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif start < end:
            merged.append((start, end))
    return merged


class HeldTime:
    """The holds and exemptions that have begun, as stretches of time that do not touch each other."""

    __slots__ = ("_frozen", "_held", "_spans")

    def __init__(self, spans: Sequence[Span] = ()) -> None:
        self._spans = spans
        self._held = _union((span.start, span.end) for span in spans)
        self._frozen = _union((span.start, span.end) for span in spans if span.hold.freeze_clock)

    def covers(self, at: Instant) -> bool:
        """Whether a hold covers `at`: at <= t < its end."""
        return self.free_from(at) != at

    def free_from(self, at: Instant) -> Instant:
        """The first instant at or after `at` that no hold covers."""
        for start, end in self._held:
            if start <= at < end:
                return end
        return at

    def after(self, start: Instant, elapsed: Duration) -> Instant:
        """The instant at which `elapsed` has passed since `start`; frozen time does not count."""
        at = start + elapsed
        for frozen_from, frozen_to in self._frozen:
            if frozen_to <= start:
                continue
            if frozen_from >= at:
                break
            at += frozen_to - max(frozen_from, start)
            if at >= NEVER:
                return NEVER
        return at

    def exempt_since(self, now: Instant) -> Instant | None:
        """Since when the account is exempt at `now`, without a gap; None if it is not."""
        for start, end in _union((span.start, span.end) for span in self._spans if span.hold.exempt):
            if start <= now < end:
                return start
        return None

    def in_force(self, now: Instant) -> Hold | None:
        """The hold that covers `now` and ends last (then the greater `event_id`)."""
        covering = [span for span in self._spans if span.start <= now < span.end]
        return max(covering, key=lambda span: (span.end, span.hold.event_id)).hold if covering else None


#: What most accounts have.
NO_HOLDS: Final = HeldTime()


def held_time(now: Instant, own: Standing | None, everybody: Standing) -> HeldTime:
    """The time held by the account's own holds and by those for everybody, as known at `now`."""
    if (own is None or not own.holds) and not everybody.holds:
        return NO_HOLDS
    spans = ([] if own is None else own.spans(now)) + everybody.spans(now)
    return HeldTime(spans) if spans else NO_HOLDS


class Marks(NamedTuple):
    """The two marks; a mark that fell in a hold is that hold's end."""

    suspend: Instant
    delete: Instant


def marks(
    since: Instant,
    policy: Policy,
    allowances: Sequence[Allowance],
    held: HeldTime,
    *,
    floor: Instant,
    suspended_at: Instant | None,
) -> Marks:
    """The marks of the episode that began at `since`, without the `min_suspended` part of the delete mark.

    `allowances` are those in force by now, oldest first. No mark lies before `floor` (an opening's `at`).
    `suspended_at` is when the account was suspended, None if it is not.
    """
    if held is NO_HOLDS and not allowances:  # nearly always
        suspend = max(since + policy.suspend_after, floor)
        delete = max((suspend if policy.delete_clock == "suspension" else since) + policy.delete_after, floor)
        return Marks(suspend if suspend <= LAST_INSTANT else NEVER, delete if delete <= LAST_INSTANT else NEVER)
    granted: Duration = 0
    later = []
    for allowance in allowances:
        if allowance.at <= since:
            granted = allowance.duration  # the newest replaces the one before
        else:
            later.append(allowance)

    suspend = held.after(since, policy.suspend_after + granted)
    delete = _raw_delete(since, policy, granted, suspend, held, floor)
    for allowance in later:
        at = allowance.at
        moved = held.after(since, policy.suspend_after + allowance.duration)
        if moved < at and (suspended_at is None or at <= suspended_at):
            # Moved into the past it fires at the control's `at`; a mark that had passed before stays where it was.
            moved = at if held.free_from(max(suspend, floor)) >= at else suspend
        moved_delete = _raw_delete(since, policy, allowance.duration, moved, held, floor)
        if moved_delete < at:
            moved_delete = at if held.free_from(delete) >= at else delete
        suspend, delete = moved, moved_delete
    return Marks(_mark(max(suspend, floor), held), _mark(max(delete, floor), held))


def _raw_delete(
    since: Instant, policy: Policy, granted: Duration, suspend: Instant, held: HeldTime, floor: Instant
) -> Instant:
    if policy.delete_clock == "suspension":  # 1.1.3: "from the suspension"
        return held.after(held.free_from(max(suspend, floor)), policy.delete_after)
    return held.after(since, policy.delete_after + granted)


def later_mark(mark: Instant, least: Instant, held: HeldTime) -> Instant:
    """The delete mark once its `min_suspended` part is known: the later of the two, or the end of a hold over it."""
    return _mark(max(mark, least), held)


def _mark(at: Instant, held: HeldTime) -> Instant:
    at = held.free_from(at)
    return at if at <= LAST_INSTANT else NEVER
