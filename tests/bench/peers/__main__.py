"""`python -m tests.bench.peers [--records N] [--repeat N] [--only WHO] [--json FILE] [--profile FILE]`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Final

from streams.faults import Unusable
from tests.bench import kept, peers, tables
from tests.bench.peers import topics
from tests.bench.peers.report import Report
from tests.bench.peers.running import WHO, Plan, measure
from tests.bench.peers.watching import Failed
from tests.bench.telling import tell
from tests.operate.stage import ending_well

_RECORDS_AN_ACCOUNT: Final = 10


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=peers.__doc__, allow_abbrev=False)
    parser.add_argument("--records", type=int, default=300_000, metavar="N", help="bills and payments (300000)")
    parser.add_argument("--accounts", type=int, metavar="N", help="accounts that have them (a tenth of the records)")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="how often each runs, in turn (1)")
    parser.add_argument("--only", action="append", choices=WHO, help="run this; may be given several times")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all runs there")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="py-spy's raw stacks of one more run of ours")
    options = parser.parse_args()
    if options.records < topics.PARTITIONS * _RECORDS_AN_ACCOUNT or options.repeat < 1:
        parser.error("--records has to be 40 or more, --repeat 1 or more")
    options.accounts = options.accounts or options.records // _RECORDS_AN_ACCOUNT
    for name in ("json", "profile"):
        given = getattr(options, name)
        if given is not None and not given.absolute().parent.is_dir():
            parser.error(f"--{name}: there is no folder for {given}")
    return options


def main() -> int:
    """Measure, and tell; 1 if somebody did not get to the end."""
    options = _options()
    ending_well()
    plan = Plan(options.records, options.accounts, options.repeat, options.only or WHO, options.profile)
    report = Report(options.records, options.accounts, defaultdict(list))
    try:
        with tempfile.TemporaryDirectory(prefix="arrears-bench-live-") as folder:
            asyncio.run(measure(plan, Path(folder), report))
    except (Failed, Unusable) as error:
        tell(f"failed: {error}")
        return 1
    finally:
        tables.show([tables.peers_table(report.as_json())])
        if options.json is not None:
            kept.write(kept.origin() | report.as_json(), options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
