"""The bench on Kafka runs, and its ratios are those of its runs; how fast anybody is is nobody's test."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from tests.bench.peers.report import Report
from tests.bench.peers.watching import Run, Watch

if TYPE_CHECKING:
    from pathlib import Path


def run(name: str, seconds: float) -> Run:
    return Run(name, 1_000, seconds, 2.0, 100.0, {"changes": 5})


def test_a_ratio_is_that_of_the_medians(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(1_000, 100, defaultdict(list))
    for one in (run("ours, 1 process", 1), run("ours, 1 process", 2), run("ours, 1 process", 9), run("peer", 6)):
        report.add(one)
    assert report.ratios() == {"peer": {"ours, 1 process": pytest.approx(3.0)}}
    assert report.cpu_us("peer") == 2_000
    report.show()
    assert "3.00 ×" in capsys.readouterr().out


def test_processor_seconds_are_those_since_the_first_record() -> None:
    watch = Watch([], [(10.0, 1.0), (10.1, 1.5), (10.2, 2.5), (10.3, 4.0)])
    assert watch.cpu_since(10.15) == 2.5
    assert watch.cpu_since(9.0) == 3.0


@pytest.mark.live
def test_ours_works_all_off_and_comes_back(tmp_path: Path) -> None:
    kept = tmp_path / "run.json"
    command = [sys.executable, "-m", "tests.bench.peers", "--records", "2000", "--only", "ours-1", "--json", str(kept)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(kept.read_text(encoding="utf-8"))
    (measured,) = told["runs"]
    assert measured["records"] == 2_000
    assert measured["outputs"]["dead-letters"] == 0
    assert measured["outputs"]["accounts"] >= 200
    (recovery,) = told["recoveries"]
    assert recovery["accounts"] == 200
