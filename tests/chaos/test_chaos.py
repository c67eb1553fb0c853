"""Two workers and a broker, broken again and again: nothing is lost, doubled, out of order or wrong (contract §2, §3).

The long run is `make chaos`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.chaos.faulty import BREAKS
from tests.chaos.harness import Options, Outcome, run_chaos

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.chaos

#: `ARREARS_CHAOS_SEED=7` repeats the run of that seed, as far as a machine can.
SEED = int(os.environ.get("ARREARS_CHAOS_SEED", "1"))


def run(options: Options, folder: Path) -> Outcome:
    lines: list[str] = []
    outcome = run_chaos(options, folder, lines.append)
    print("\n".join([*lines, outcome.told()]))  # noqa: T201  # pytest shows it if the test fails
    return outcome


def test_nothing_is_lost_whatever_breaks(tmp_path: Path) -> None:
    options = Options(seed=SEED, seconds=45, rate=5, every=2.5, longest_freeze=10, self_kill=0.02)
    outcome = run(options, tmp_path)
    assert outcome.good, outcome.told()
    assert sum(outcome.faults.values()) >= 10
    assert outcome.report.figures["commands"] > 100


def test_without_faults_a_run_equals_a_replay_of_its_topics(tmp_path: Path) -> None:
    outcome = run(Options(seed=SEED + 1, seconds=8, rate=10, every=0, self_kill=0), tmp_path)
    assert outcome.good, outcome.told()
    assert outcome.differences_from_replay() == []


@pytest.mark.slow
@pytest.mark.parametrize("broken", BREAKS)
def test_a_protection_taken_out_is_found(broken: str, tmp_path: Path) -> None:
    options = Options(
        seed=SEED,
        seconds=60,
        every=3,
        self_kill=0.05,
        broken=broken,
        kinds=("worker frozen", "worker killed", "worker joined"),
    )
    assert not run(options, tmp_path).good
