"""The late fee (R6, 3.4): simple interest on what was owed, by elapsed time; exact, and rounded only when reported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from models.money import Money
    from models.policy import Policy

#: What one millionth of a fee comes to: (millionths x µs) x (10^-12 of a share a day).
UNITS: Final = 10**12 * 86_400_000_000


def accrued(integral: int, policy: Policy) -> int:
    """The fee, in 1/UNITS millionths, of what was owed times how long (millionths x µs)."""
    return integral * policy.late_fee_per_day


def reported(fee: int) -> Money:
    """The fee rounded half up to 6 decimals."""
    return (2 * fee + UNITS) // (2 * UNITS)
