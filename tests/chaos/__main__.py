"""`python -m tests.chaos`: break everything for as long as is wanted, and say what was lost (nothing, it is hoped)."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.chaos.faulty import BREAKS
from tests.chaos.harness import KINDS, Options, run_chaos


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="of faults; it takes a minute or two longer (60)")
    parser.add_argument("--faults", type=int, help="end after so many faults, if that is sooner")
    parser.add_argument("--seed", type=int, default=1, help="of the records and of the faults (1)")
    parser.add_argument("--partitions", type=int, default=4, help="of each topic (4)")
    parser.add_argument("--workers", type=int, default=2, help="at the least; up to twice as many join (2)")
    parser.add_argument("--rate", type=float, default=4, help="customers that begin a second (4)")
    parser.add_argument("--every", type=float, default=4, help="seconds between two faults, about; 0: none (4)")
    parser.add_argument("--self-kill", type=float, default=0.01, help="odds of a death just before a commit (0.01)")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of faults, with commas between them (all)")
    parser.add_argument("--dynamic", action="store_true", help="workers have no names: dynamic membership")
    parser.add_argument("--unusable-payments", action="store_true", help="some payments cannot be used")
    parser.add_argument("--break", dest="broken", default="", help=f"a protection taken out: {', '.join(BREAKS)}")
    parser.add_argument("--folder", type=Path, help="what is kept of the run: logs, the broker's data")
    given = parser.parse_args()
    if unknown := [kind for kind in given.kinds.split(",") if kind not in KINDS]:
        parser.error(f"--kinds: there is no {unknown[0]!r}; there are {', '.join(KINDS)}")
    if unknown := [name for name in given.broken.split(",") if name and name not in BREAKS]:
        parser.error(f"--break: there is no {unknown[0]!r}; there are {', '.join(BREAKS)}")
    return given


def _say(told: str) -> None:
    sys.stdout.write(f"{told}\n")
    sys.stdout.flush()


def main() -> int:
    """0 if nothing was found."""
    given = _arguments()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="arrears-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    options = Options(
        seed=given.seed,
        seconds=given.minutes * 60,
        faults=given.faults,
        partitions=given.partitions,
        workers=given.workers,
        most_workers=2 * given.workers,
        rate=given.rate,
        every=given.every,
        self_kill=given.self_kill,
        named=not given.dynamic,
        unusable_payments=given.unusable_payments,
        broken=given.broken,
        kinds=tuple(given.kinds.split(",")),
    )
    _say(f"seed {options.seed}, in {folder}")
    outcome = run_chaos(options, folder, _say)
    _say(outcome.told())
    _say(f"{'GOOD' if outcome.good else 'NOT GOOD'}; the logs are in {folder / 'logs'}")
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
