"""The clock that decisions go by, and the brokers' clock, which it is held to (contract §3)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, assert_never

from streams.setting_values import FixedClock, ShiftedClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.instants import Duration, Instant

#: Goes on while the machine sleeps, where the system knows such a clock.
_STEADY: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady_now() -> Duration:
    """Microseconds on a clock that nobody sets."""
    return time.clock_gettime_ns(_STEADY) // 1000


def clock_of(setting: FixedClock | ShiftedClock | None) -> Callable[[], Instant]:
    """What tells the time: the machine's clock, unless a test has set another."""
    match setting:
        case None:
            return lambda: time.time_ns() // 1000
        case ShiftedClock(by):
            return lambda: time.time_ns() // 1000 + by
        case FixedClock(at):
            return lambda: at
        case _:
            assert_never(setting)


class BrokerTime:
    """The brokers' clock as a commit has shown it, carried on by the steady clock of this machine.

    A commit begins, its records are appended at an instant of the brokers' clock, it ends: anywhere in between.
    """

    def __init__(self) -> None:
        self._append: Instant | None = None
        self._began: Duration = 0
        self._ended: Duration = 0

    def measured(self, append: Instant, began: Duration, ended: Duration) -> None:
        """Records were appended at `append`, between these two readings of the steady clock."""
        self._append, self._began, self._ended = append, began, ended

    @property
    def age(self) -> Duration | None:
        """How long ago that was; None if it never was."""
        return None if self._append is None else steady_now() - self._ended

    def latest(self) -> Instant | None:
        """The latest instant that the brokers' clock may show now."""
        return None if self._append is None else self._append + steady_now() - self._began

    def earliest(self) -> Instant | None:
        """The earliest instant that it may show now."""
        return None if self._append is None else self._append + steady_now() - self._ended

    def skew(self, now: Instant) -> Duration:
        """How far `now` is ahead of the brokers' clock (behind it, if negative), at least; 0 if it may be right."""
        if self._append is None:
            return 0
        steady = steady_now()
        ahead = now - (self._append + steady - self._began)
        behind = now - (self._append + steady - self._ended)
        return ahead if ahead > 0 else min(behind, 0)
