"""The measures run; how fast they are is nobody's test."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.bench.__main__ import main
from tests.bench.inputs import write_files
from tests.bench.measures import MEASURES
from tests.bench.measuring import Bench
from tests.bench.report import Report
from tests.bench.sizes import FULL, TINY, resized

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_tells_its_figures(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(Bench(tmp_path, TINY, repeat=1), steps=[1e-7], peers=[1e-6])
    report.add(name, list(MEASURES[name](report.bench)))
    names = [figure.name for figure in report.figures]
    assert names
    assert len(set(names)) == len(names)
    assert all(figure.value > 0 for figure in report.figures)
    report.show()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[1].strip() for line in lines[-len(names) :]] == names
    assert json.loads(json.dumps(report.as_json()))["figures"][0]["name"] == names[0]


def test_the_inputs_are_the_same_for_the_same_numbers(tmp_path: Path) -> None:
    one, other = (write_files(tmp_path / name, 500, 50) for name in ("one", "other"))
    assert one.bills.read_bytes() == other.bills.read_bytes()
    assert one.payments.read_bytes() == other.payments.read_bytes()
    skewed = write_files(tmp_path / "skewed", 500, 50, skewed=True)
    lines = skewed.bills.read_text().splitlines() + skewed.payments.read_text().splitlines()
    assert len(lines) == 500
    of_the_first = sum(json.loads(line)["account_id"] == "acc-0000000" for line in lines)
    assert 200 < of_the_first < 300


def test_sizes_are_set_by_name() -> None:
    sizes = resized(FULL, ["waiting=10", "idle_s=2"])
    assert (sizes.waiting, sizes.idle_s, sizes.records) == (10, 2, FULL.records)


@pytest.mark.parametrize(
    ("setting", "told"),
    [("wait=10", "there is no size 'wait'"), ("waiting=0", "1 or more"), ("waiting", "waiting=NUMBER")],
)
def test_a_size_that_cannot_be_is_refused(setting: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        resized(FULL, [setting])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--quick", "--part", "domain"], "leave out --part and --only"),
        (["--keep"], "--keep is for --quick"),
        (["--only", "everything"], "invalid choice"),
        (["--size", "wait=3"], "there is no size"),
        (["--repeat", "0"], "--repeat has to be 1 or more"),
        (["--json", "nowhere/run.json"], "there is no folder for nowhere/run.json"),
    ],
)
def test_options_that_cannot_be_are_refused(
    options: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.live
def test_a_scene_tells_its_figures(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    command = [sys.executable, "-m", "tests.bench", "--tiny", "--size", "idle_s=1", "--json", str(path)]
    ended = subprocess.run([*command, "--only", "waiting"], capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    run = json.loads(path.read_text(encoding="utf-8"))
    assert run["missing"] == []
    assert {figure["key"] for figure in run["live"]} == {"caught-up", "idle", "idle-rss", "mark-p50", "mark-p99"}
    assert "mark to command" in ended.stdout
