"""The slow, obvious model of the arrears rule: the independent judge of the real one.

It is written from the contract alone (§1, §2 without partitions, §4 replay) and shares no code with what it judges.
It would rather be plain than fast: an account's ledger, marks, holds and packages are worked out from scratch, from
the whole list of its usable records, each time they are asked for.

Units: instants and durations are microseconds (int; instants since 1970-01-01T00:00:00Z); money, costs, quantities and
fees are exact `Fraction`s of the currency's (or the quantity's) unit.
"""

from __future__ import annotations

from .replay import Result, replay

__all__ = ["Result", "replay"]
