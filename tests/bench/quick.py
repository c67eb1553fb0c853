"""A run in a hurry beside the last one that was kept: what has become slower, as a multiple of the yardstick.

Nothing fails because of time. What differs by less than a tenth says nothing; on a busy machine, less than a third.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.bench.tables import Table, head, number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.bench.kept import Run


def steps_of(domain: Mapping[str, Any]) -> dict[str, float]:
    """By measure and name, how many steps of the yardstick it took; what is no time is left out."""
    figures: list[dict[str, Any]] = domain["figures"]
    return {f"{one['measure']}: {one['name']}": one["steps"] for one in figures if one["steps"] is not None}


def beside(now: Run, before: Run | None) -> Table:
    """This run's steps, those of the kept one, and their ratio."""
    kept = steps_of(before["domain"]) if before is not None else {}
    rows: list[tuple[str, ...]] = []
    for name, steps in steps_of(now["domain"]).items():
        then = kept.get(name)
        compared = (number(then), f"{steps / then:.2f} ×") if then else ("", "")
        rows.append((name, number(steps), *compared))
    told = "Steps of a plain Python loop, timed in the same run. "
    told += (
        f"Kept: {head(before)}." if before is not None else "None is kept: make bench-quick BENCH=--keep keeps this."
    )
    return Table(("", "steps now", "steps kept", "now / kept"), rows, told)
