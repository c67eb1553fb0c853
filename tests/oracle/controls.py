"""What the operators' controls say at an instant: holds, frozen time, allowance, the policy's name.

`own` and `everyone` are the usable controls of the account and of `*`, in the order a replay takes them, none of them
later than the instant that is asked about.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .records import Record


@dataclass(frozen=True)
class Hold:
    """Covers `at` <= t < `end`; `end` None: open."""

    kind: str
    at: int
    until: int | None
    end: int | None
    freeze_clock: bool
    event_id: str

    def covers(self, instant: int) -> bool:
        return self.at <= instant and (self.end is None or instant < self.end)


def holds(own: Sequence[Record], everyone: Sequence[Record]) -> list[Hold]:
    """A release ends the account's own holds, one for `*` the `*` ones; at one instant the release comes first."""
    found = []
    for controls in (own, everyone):
        for control in controls:
            if control.kind in ("hold", "exempt"):
                until = control.data["until"]
                ends = [other.at for other in controls if other.kind == "release" and other.at > control.at]
                end = min([*ends, *([] if until is None else [until])], default=None)
                freeze = control.data["freeze_clock"]
                found.append(Hold(control.kind, control.at, until, end, freeze, control.event_id))
    return found


def out_of_hold(instant: int | None, known: Sequence[Hold]) -> int | None:
    """What falls in a hold comes at its end (holds add up); None: under an open one."""
    while instant is not None:
        covering = [hold for hold in known if hold.covers(instant)]
        if not covering:
            break
        ends = [hold.end for hold in covering if hold.end is not None]
        instant = max(ends) if len(ends) == len(covering) else None
    return instant


def unfrozen(start: int, elapsed: int, known: Sequence[Hold]) -> int | None:
    """The first instant by which `elapsed` µs have passed since `start`, not counting frozen time (each µs once)."""
    now, left = start, elapsed
    for hold in sorted((hold for hold in known if hold.freeze_clock), key=lambda hold: hold.at):
        running = max(0, hold.at - now)
        if left <= running:
            return now + left
        left -= running
        now += running
        if hold.end is None:
            return None
        now = max(now, hold.end)
    return now + left


def newest(kind: str, own: Sequence[Record], everyone: Sequence[Record], before: int | None = None) -> Record | None:
    """Of `policy` and `allowance` the newer `at` wins, at one instant the account's own, then the greater event id."""
    found: Record | None = None
    for controls in (everyone, own):  # a later one of the same instant replaces an earlier one
        for control in controls:
            if control.kind != kind or (before is not None and control.at >= before):
                continue
            if found is None or control.at >= found.at:
                found = control
    return found


def allowance(own: Sequence[Record], everyone: Sequence[Record]) -> int:
    control = newest("allowance", own, everyone)
    return 0 if control is None else int(control.data["duration"])
