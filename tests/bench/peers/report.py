"""The runs side by side, as a program reads them: `tests.bench.tables` makes of it what a person reads."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.bench.peers.ours import Recovery
    from tests.bench.peers.watching import Run

#: How the name of every run of ours begins.
OURS = "ours"


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
        """Records a second to the last committed record, the median of its runs."""
        return statistics.median(run.rate for run in self.runs[name])

    def ratios(self) -> dict[str, dict[str, float]]:
        """How many times as fast as each peer ours is: by peer, by ours."""
        names = [name for name in self.runs if name.startswith(OURS)]
        peers = [name for name in self.runs if not name.startswith(OURS)]
        return {peer: {name: self.rate(name) / self.rate(peer) for name in names} for peer in peers}

    def as_json(self) -> dict[str, Any]:
        """All of it: by who ran, the medians and each run."""
        return {
            "records": self.records,
            "accounts": self.accounts,
            "who": [self._row(name, runs) for name, runs in self.runs.items()],
            "runs": [run._asdict() | {"rate": run.rate} for runs in self.runs.values() for run in runs],
            "ratios": self.ratios(),
            "recoveries": [recovery._asdict() for recovery in self.recoveries],
        }

    def _row(self, name: str, runs: list[Run]) -> dict[str, Any]:
        return {
            "name": name,
            "runs": len(runs),
            "rate": self.rate(name),
            "positions_rate": statistics.median(run.positions_rate for run in runs),
            "cpu_s": statistics.median(run.cpu_s for run in runs),
            "cpu_us_a_record": statistics.median(run.cpu_s / run.records for run in runs) * 1e6,
            "rss_mb": statistics.median(run.rss_mb for run in runs),
            "outputs": runs[-1].outputs,
        }
