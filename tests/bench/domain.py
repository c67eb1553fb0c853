"""The first part of a run: the domain alone, in this process and without Kafka, against a yardstick of the same run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.measures import MEASURES
from tests.bench.measuring import Bench, without_collector
from tests.bench.report import Report
from tests.bench.telling import tell
from tests.bench.yardstick import json_and_dict_s, step_s

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.bench.sizes import Sizes


def measure(names: Iterable[str], folder: Path, sizes: Sizes, repeat: int) -> Report:
    """These measures, in turn."""
    bench = Bench(folder, sizes, repeat)
    report = Report(bench)
    tell("making the inputs")
    files = bench.even[:2]
    for name in names:
        tell(f"measuring {name}")
        _time_yardsticks(report, files)  # in the same run as everything that is held against them
        report.add(name, list(MEASURES[name](bench)))
    _time_yardsticks(report, files)
    return report


def _time_yardsticks(report: Report, files: tuple[Path, Path]) -> None:
    with without_collector():
        report.steps.append(step_s())
        report.peers.append(json_and_dict_s(files))
