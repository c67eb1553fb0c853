"""`python -m tests.bench [--part PART] [--only NAME] [--size NAME=N] [--quick|--tiny] [--repeat N] [--json FILE]`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from streams.faults import Unusable
from tests import bench
from tests.bench import domain, kept, quick, tables
from tests.bench.measures import MEASURES, QUICK
from tests.bench.peers.report import Report
from tests.bench.peers.running import WHO, Plan
from tests.bench.peers.running import measure as measure_peers
from tests.bench.peers.watching import Failed
from tests.bench.scenes.running import SCENES
from tests.bench.scenes.running import measure as measure_scenes
from tests.bench.sizes import FULL, NAMES, TINY, resized
from tests.bench.sizes import QUICK as QUICK_SIZES
from tests.bench.telling import tell
from tests.operate.stage import ending_well

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.sizes import Sizes

#: The parts of a run, and what each is made of.
PARTS: Final[dict[str, Sequence[str]]] = {"domain": tuple(MEASURES), "peers": WHO, "live": tuple(SCENES)}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=bench.__doc__, allow_abbrev=False)
    parser.add_argument("--part", action="append", choices=PARTS, help="this part alone; may be given several times")
    everything = [name for names in PARTS.values() for name in names]
    parser.add_argument("--only", action="append", choices=everything, help="this alone; may be given several times")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="a few steps of the domain, beside those that are kept")
    how.add_argument("--tiny", action="store_true", help="next to nothing of everything, to see that it runs")
    sizes = f"how much of it there is: {', '.join(NAMES)}"
    parser.add_argument("--size", action="append", default=[], metavar="NAME=N", help=sizes)
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="how often the domain is measured (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--keep", action="store_true", help="with --quick: keep its figures, to hold others against")
    options = parser.parse_args()
    if options.repeat < 1:
        parser.error("--repeat has to be 1 or more")
    if options.json is not None and not options.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder for {options.json}")
    if options.quick and (options.part or options.only):
        parser.error("--quick is a choice of its own: leave out --part and --only")
    if options.keep and not options.quick:
        parser.error("--keep is for --quick: a whole run is kept anyway, any other with --json FILE")
    try:
        options.sizes = resized(QUICK_SIZES if options.quick else TINY if options.tiny else FULL, options.size)
    except ValueError as error:
        parser.error(f"--size: {error}")
    return options


def _wanted(options: argparse.Namespace) -> dict[str, list[str]]:
    """By part what is to be measured."""
    if options.quick:
        return {"domain": list(QUICK)}
    if options.part is None and options.only is None:
        return {part: list(names) for part, names in PARTS.items()}
    chosen = set(options.only or ()).union(*(PARTS[part] for part in options.part or ()))
    found = {part: [name for name in names if name in chosen] for part, names in PARTS.items()}
    return {part: names for part, names in found.items() if names}


def main() -> int:
    """Measure, and tell; 1 if something did not get to its end."""
    options = _options()
    ending_well()
    wanted, sizes = _wanted(options), options.sizes
    run = kept.origin() | {"sizes": vars(sizes), "missing": list(wanted)}
    is_whole = sizes == FULL and wanted == {part: list(names) for part, names in PARTS.items()}
    places = [path for path in (options.json, kept.place(run) if is_whole else None) if path is not None]
    missing: list[str] = run["missing"]
    with tempfile.TemporaryDirectory(prefix="arrears-bench-") as name:
        for part, names in wanted.items():
            folder = Path(name) / part
            folder.mkdir()
            missing += _measure(part, names, run, folder, sizes, options.repeat)
            missing.remove(part)
            for path in places:
                kept.write(run, path)  # what there is, whatever becomes of the next
    _show(run)
    if options.quick:
        before = kept.read(kept.QUICK) if kept.QUICK.exists() else None
        tables.show([quick.beside(run, before)])
        if options.keep:
            kept.write(run, kept.QUICK)
    if is_whole:
        tell(f"kept as {places[-1].name}; python -m tests.bench.readme writes the README's tables from the newest")
    if missing:
        tell(f"failed: {', '.join(missing)}")
    return 1 if missing else 0


def _measure(part: str, names: Sequence[str], run: kept.Run, folder: Path, sizes: Sizes, repeat: int) -> list[str]:
    """One part into the run; what of it failed."""
    if part == "domain":
        report = domain.measure(names, folder, sizes, repeat)
        report.show()
        run[part] = report.as_json()
        return []
    if part == "live":
        figures, failed = measure_scenes(names, folder, sizes)
        run[part] = [figure._asdict() for figure in figures]
        return failed
    found = Report(sizes.peer_records, sizes.peer_accounts, defaultdict(list))
    try:
        asyncio.run(measure_peers(Plan(found.records, found.accounts, sizes.peer_turns, names), folder, found))
    except (Failed, Unusable) as error:
        tell(f"{part} failed: {error}")
        return [part]
    finally:
        run[part] = found.as_json()
    return []


def _show(run: kept.Run) -> None:
    """The tables of the parts that there are."""
    found = [tables.peers_table(run["peers"])] if "peers" in run else []
    found += [tables.live_table(run["live"])] if run.get("live") else []
    if found:
        tables.show([*found, tables.aims_table(run)])


if __name__ == "__main__":
    sys.exit(main())
