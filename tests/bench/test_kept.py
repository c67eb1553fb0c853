"""What a run has found is kept, read again, and told: on a terminal, in the README."""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from tests.bench import __main__ as program
from tests.bench import kept, quick, readme
from tests.bench.aims import AIMS
from tests.bench.peers.report import Report
from tests.bench.peers.watching import Run
from tests.bench.scenes.figures import latencies, percentiles_ms
from tests.bench.sizes import FULL
from tests.bench.tables import aims_table, live_table, markdown, number, peers_table

if TYPE_CHECKING:
    from pathlib import Path

KEYS = ("recovery", "recovery-ratio", "latency-100-p99", "latency-20-p99", "mark-p99", "drain", "idle")
MORE_KEYS = ("replay-files", "replay-topics", "one-ratio", "skewed-ratio")


def domain(**medians: float) -> dict[str, Any]:
    figures = [
        {"measure": "stored-moved", "name": "memory of an account, of 9", "median": 650.0, "steps": None},
        {"measure": "stored", "name": "all of it, of 9", "median": 22.0, "steps": 30.0},
        {"measure": "stored-few", "name": "all of it, of 3", "median": 20.0, "steps": 25.0},
    ]
    return {"figures": [one | {"median": medians.get(str(one["measure"]), one["median"])} for one in figures]}


def peers() -> dict[str, Any]:
    report = Report(1_000, 100, defaultdict(list))
    for name, seconds in {
        "ours, 1 process": 2.0,
        "ours, 2 processes": 1.0,
        "ours, 1 process, same outputs": 1.5,
        "Kafka Streams, commit 0.1 s": 6.0,
        "Kafka Streams, commit 5 s": 4.0,
        "Quix Streams, commit 5 s": 10.0,
    }.items():
        report.add(Run(name, 1_000, seconds, seconds, 2.0, 100.0, {"changes": 5, "accounts": 2}))
    return report.as_json()


def whole(**others: Any) -> kept.Run:
    live = [{"key": key, "name": key, "value": 2.0, "unit": "ms"} for key in (*KEYS, *MORE_KEYS)]
    run = kept.origin() | {"domain": domain(), "peers": peers(), "live": live, "sizes": vars(FULL)}
    return run | {"made_at": "2026-11-24T12:00:00Z", "commit": "abc", "changed": False, "missing": []} | others


def test_a_run_is_read_as_it_was_kept_and_the_newest_counts(tmp_path: Path) -> None:
    assert kept.newest(tmp_path) is None
    for made_at in ("2026-11-24T12:00:00Z", "2026-11-25T09:00:00Z", "2026-11-23T23:59:59Z"):
        kept.write(run := whole(made_at=made_at), kept.place(run, tmp_path))
    kept.write(whole(made_at="2027-01-01T00:00:00Z"), tmp_path / kept.QUICK.name)
    kept.write(whole(made_at="2027-01-02T00:00:00Z", missing=["latency"]), tmp_path / "failed.json")
    assert len(list(tmp_path.iterdir())) == 5
    assert kept.newest(tmp_path) == whole(made_at="2026-11-25T09:00:00Z")


def test_every_aim_is_found_in_a_whole_run() -> None:
    assert all(aim.find(whole()) is not None for aim in AIMS)
    assert all(row[2] != "not measured" for row in aims_table(whole()).rows)


def test_an_aim_is_met_missed_or_not_measured() -> None:
    rows = {row[0]: row[1:] for row in aims_table(whole(live=[])).rows}
    assert rows["one process, full rule, beside Kafka Streams"] == ("at least 1.5 ×", "2 ×", "met")  # at its best
    assert rows["two processes, full rule, beside Quix Streams"] == ("at least 8 ×", "10.0 ×", "met")
    assert rows["memory of an account with 20 movements"] == ("at most 700 bytes", "650.0 bytes", "met")
    assert rows["cost of a record at 1 million accounts against 10,000"][1:] == ("1.1 ×", "met")
    assert rows["replay from files"] == ("at least 200,000 records/s", "not measured", "")
    rows = {row[0]: row[1:] for row in aims_table(whole(domain=domain(**{"stored-moved": 701.0}))).rows}
    assert rows["memory of an account with 20 movements"][-1] == "missed"


def test_whoever_reads_the_aims_is_told_of_other_sizes() -> None:
    assert not aims_table(whole()).told
    told = aims_table(whole(sizes=vars(FULL) | {"drained": 500, "marks": 20})).told
    assert told.endswith("marks=20, drained=500.")


def test_each_of_ours_stands_beside_the_best_setting_of_each_peer() -> None:
    table = peers_table(peers())
    assert table.columns[-2:] == ("× Kafka Streams", "× Quix Streams")
    beside = {row[0]: row[-2:] for row in table.rows}
    assert beside["ours, 1 process"] == ("2.00 ×", "5.00 ×")
    assert beside["ours, 1 process, same outputs"] == ("2.67 ×", "6.67 ×")
    assert beside["Kafka Streams, commit 5 s"] == ("", "")
    assert {len(row) for row in table.rows} == {len(table.columns)}


def test_alone_ours_stands_beside_nobody() -> None:
    report = Report(1_000, 100, defaultdict(list))
    report.add(Run("ours, 1 process", 1_000, 2.0, 1.0, 2.0, 100.0, {"commands": 5}))
    (row,) = peers_table(report.as_json()).rows
    assert row == ("ours, 1 process", "500.0", "1,000", "2,000", "2", "100.0", "5")


def test_a_table_is_markdown() -> None:
    lines = markdown(live_table([{"key": "a", "name": "idle", "value": 1234.5, "unit": "ms"}])).splitlines()
    assert lines == ["| on a broker | | |", "| --- | ---: | ---: |", "| idle | 1,234 | ms |"]


@pytest.mark.parametrize(
    ("value", "told"), [(12345.6, "12,346"), (99.94, "99.9"), (1.2345, "1.23"), (0.0123, "0.0123")]
)
def test_a_number_has_the_digits_that_mean_something(value: float, told: str) -> None:
    assert number(value) == told


def test_the_slowest_hundredth_counts() -> None:
    ages = [number / 1000 for number in range(1, 1001)]
    p50, p99 = percentiles_ms(ages)
    assert p50 == pytest.approx(500.5)
    assert p99 == pytest.approx(990.99)
    assert [figure.key for figure in latencies("mark", "mark", ages)] == ["mark-p50", "mark-p99"]


def test_a_quick_run_stands_beside_the_one_that_was_kept() -> None:
    now, before = whole(), whole(domain=domain())
    before["domain"]["figures"][1]["steps"] = 20.0
    del before["domain"]["figures"][2]
    assert quick.beside(now, before).rows == [
        ("stored: all of it, of 9", "30.0", "20.0", "1.50 ×"),
        ("stored-few: all of it, of 3", "25.0", "", ""),
    ]
    assert [row[2:] for row in quick.beside(now, None).rows] == [("", "")] * 2


@pytest.mark.parametrize(("failed", "code"), [([], 0), (["latency"], 1)])
def test_a_whole_run_is_kept_part_by_part(
    failed: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "run.json", []
    parts = {"domain": domain(), "peers": peers(), "live": whole()["live"]}

    def measure(part: str, names: Any, run: kept.Run, *_: Any) -> list[str]:
        seen.append(kept.read(path)["missing"] if path.exists() else None)
        run[part] = parts[part]
        return failed if part == "live" else []

    monkeypatch.setattr(program, "_measure", measure)
    monkeypatch.setattr(kept, "place", lambda _: path)
    monkeypatch.setattr(sys, "argv", ["bench"])
    assert program.main() == code
    assert seen == [None, ["peers", "live"], ["live"]]
    assert kept.read(path)["missing"] == failed
    assert kept.newest(tmp_path) == (None if failed else kept.read(path))


# The README -------------------------------------------------------------------------------------------------------


def test_the_readme_says_what_the_newest_kept_run_does() -> None:
    text = readme.README.read_text(encoding="utf-8")
    assert readme.written(text, kept.newest()) == text, "python -m tests.bench.readme writes it"


def test_only_what_stands_between_the_marks_is_written() -> None:
    text = f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n"
    new = readme.written(text, whole())
    assert new.startswith("before\n")
    assert new.endswith("after\n")
    assert "old" not in new
    assert "| ours, 1 process | 500.0 |" in new
    assert "Measured 2026-11-24, commit abc, Python" in new
    assert readme.written(new, whole()) == new
    assert "No whole run" in readme.written(text, None)


@pytest.mark.parametrize("text", ["", readme.BEGIN, f"{readme.END} {readme.BEGIN}", f"{readme.BEGIN * 2} {readme.END}"])
def test_a_readme_without_one_place_for_the_tables_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="the README needs"):
        readme.written(text, None)
