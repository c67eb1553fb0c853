"""What the figures are held against: a plain loop, and the least of programs that keeps balances."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: Steps of the yardstick: about a second of them.
STEPS: Final = 3_000_000

_KEYS: Final = 1 << 16


def step_s() -> float:
    """Seconds that a step takes now: integer arithmetic, and an update of a dict of 65,536 keys."""
    sums: dict[int, int] = {}
    number = 1
    started = time.process_time()
    for _ in range(STEPS):
        number = (number * 1_103_515_245 + 12_345) & 0x7FFF_FFFF
        key = number % _KEYS
        sums[key] = sums.get(key, 0) + number
    return (time.process_time() - started) / STEPS


def json_and_dict_s(paths: Sequence[Path]) -> float:
    """Seconds that the peer "json+dict" takes for a record of these files: no rule, no checks, nothing exact."""
    balances: dict[str, float] = {}
    count = 0
    started = time.process_time()
    for path in paths:
        with path.open("rb") as file:
            for line in file:
                record = json.loads(line)
                amount = float(record["amount"])
                if record["kind"] == "issued":
                    amount = -amount
                account_id = record["account_id"]
                balances[account_id] = balances.get(account_id, 0.0) + amount
                count += 1
    return (time.process_time() - started) / count
