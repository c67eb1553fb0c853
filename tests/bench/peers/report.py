"""The runs side by side, as a person reads them, and as a program does."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from tests.bench.peers.ours import Recovery
    from tests.bench.peers.watching import Run

_OURS = "ours"
#: Wide enough for all columns where the output is no terminal.
_COLUMNS = 150


@dataclass
class Report:
    """All runs on one broker."""

    records: int
    accounts: int
    #: By who ran.
    runs: dict[str, list[Run]]
    recoveries: list[Recovery] = field(default_factory=list)

    def add(self, run: Run) -> None:
        """One more."""
        self.runs[run.name].append(run)

    def rate(self, name: str) -> float:
        """Records a second, the median of its runs."""
        return statistics.median(run.rate for run in self.runs[name])

    def cpu_us(self, name: str) -> float:
        """Microseconds of processor a record, likewise: what other load of the machine changes least."""
        return statistics.median(run.cpu_s / run.records for run in self.runs[name]) * 1e6

    def ratios(self) -> dict[str, dict[str, float]]:
        """How many times as fast as each peer ours is: by peer, by ours."""
        names = [name for name in self.runs if name.startswith(_OURS)]
        peers = [name for name in self.runs if not name.startswith(_OURS)]
        return {peer: {name: self.rate(name) / self.rate(peer) for name in names} for peer in peers}

    def show(self) -> None:
        """Tables."""
        console = Console()
        if not console.is_terminal:
            console = Console(width=_COLUMNS)
        ratios = self.ratios()
        title = f"{self.records:,} records of {self.accounts:,} accounts; medians of the runs, ratios are ours / peer"
        table = Table(title=title, title_justify="left")
        table.add_column("who")
        mine = [name for name in self.runs if name.startswith(_OURS)] if ratios else []
        for column in ("runs", "records/s", "CPU s", "CPU µs/record", "MB", "records out", *mine):
            table.add_column(column, justify="right")
        for name, runs in self.runs.items():
            table.add_row(
                name,
                str(len(runs)),
                f"{self.rate(name):,.0f}",
                f"{statistics.median(run.cpu_s for run in runs):.1f}",
                f"{self.cpu_us(name):.1f}",
                f"{statistics.median(run.rss_mb for run in runs):,.0f}",
                f"{sum(runs[-1].outputs.values()):,}",
                *(f"{ratio:.2f} ×" for ratio in ratios.get(name, {}).values()),
            )
        console.print(table)
        for name, runs in self.runs.items():
            outputs = ", ".join(f"{number:,} {topic}" for topic, number in runs[-1].outputs.items())
            console.print(f"{name}: {outputs}", highlight=False)
        for recovery in self.recoveries:
            of = f" with {recovery.accounts:,} accounts" if recovery.accounts else ""
            console.print(f"recovery of {recovery.name}: ready after {recovery.seconds:.2f} s{of}", highlight=False)

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "records": self.records,
            "accounts": self.accounts,
            "runs": [run._asdict() | {"rate": run.rate} for runs in self.runs.values() for run in runs],
            "ratios": self.ratios(),
            "recoveries": [recovery._asdict() for recovery in self.recoveries],
        }
