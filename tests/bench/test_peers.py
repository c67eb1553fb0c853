"""The bench on Kafka runs, and its ratios are those of its runs; how fast anybody is is nobody's test."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from tests.bench.peers.report import Report
from tests.bench.peers.topics import Told
from tests.bench.peers.watching import Run, Watch, Watched
from tests.bench.tables import peers_table, show

if TYPE_CHECKING:
    from pathlib import Path


def run(name: str, seconds: float) -> Run:
    return Run(name, 1_000, seconds, seconds / 2, 2.0, 100.0, {"changes": 5})


def test_a_ratio_is_that_of_the_medians_to_the_last_committed_record(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(1_000, 100, defaultdict(list))
    for one in (run("ours, 1 process", 1), run("ours, 1 process", 2), run("ours, 1 process", 9), run("peer", 6)):
        report.add(one)
    assert report.ratios() == {"peer": {"ours, 1 process": pytest.approx(3.0)}}
    ours, peer = report.as_json()["who"]
    assert (ours["rate"], ours["positions_rate"], peer["cpu_us_a_record"]) == (500, 1_000, 2_000)
    show([peers_table(report.as_json())])
    assert "3.00 ×" in capsys.readouterr().out


def test_processor_seconds_are_those_between_two_instants() -> None:
    watch = Watch([], [(10.0, 1.0), (10.1, 1.5), (10.2, 2.5), (10.3, 4.0)])
    assert watch.cpu_between(10.15, 10.3) == 2.5
    assert watch.cpu_between(10.15, 10.19) == 1.0
    assert watch.cpu_between(9.0, 11.0) == 3.0


@pytest.mark.parametrize(
    ("positions_at", "last_at", "seconds"), [(12.0, 15.0, 5.0), (12.0, 11.0, 2.0), (12.0, 0.0, 2.0)]
)
def test_a_run_ends_when_all_is_committed_and_told(positions_at: float, last_at: float, seconds: float) -> None:
    watched = Watched("ours", Watch([], [(10.0, 1.0), (20.0, 3.0)]), 100, 10.0, positions_at, 20.0)
    told = watched.run(Told({"commands": 7}, last_at))
    assert (told.seconds, told.positions_s, told.outputs) == (seconds, 2.0, {"commands": 7})


@pytest.mark.live
def test_ours_works_all_off_and_comes_back(tmp_path: Path) -> None:
    kept = tmp_path / "run.json"
    only = ("--only", "ours-1", "--only", "same-1")
    command = [sys.executable, "-m", "tests.bench.peers", "--records", "2000", *only, "--json", str(kept)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(kept.read_text(encoding="utf-8"))
    for measured in told["runs"]:
        assert measured["records"] == 2_000
        assert measured["outputs"]["dead-letters"] == 0
        assert measured["outputs"]["accounts"] >= 200
        assert measured["seconds"] >= measured["positions_s"] > 0
    full, same = told["runs"]
    # The full rule warns, too, of what is ahead.
    assert full["outputs"]["notices"] > same["outputs"]["notices"] > 0
    (recovery,) = told["recoveries"]
    assert recovery["accounts"] == 200
