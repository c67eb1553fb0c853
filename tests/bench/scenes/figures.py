"""What a scene has found."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Figure(NamedTuple):
    """One figure; `key` is what the aims know it by."""

    key: str
    name: str
    value: float
    unit: str


def percentiles_ms(ages_s: Sequence[float]) -> tuple[float, float]:
    """p50 and p99, in milliseconds; 0 if there is next to nothing."""
    if len(ages_s) < 2:
        return (0.0, 0.0)
    cuts = statistics.quantiles(ages_s, n=100)
    return cuts[49] * 1000, cuts[98] * 1000


def latencies(key: str, name: str, ages_s: Sequence[float]) -> list[Figure]:
    """Both of them."""
    p50, p99 = percentiles_ms(ages_s)
    return [Figure(f"{key}-p50", f"{name}, p50", p50, "ms"), Figure(f"{key}-p99", f"{name}, p99", p99, "ms")]
