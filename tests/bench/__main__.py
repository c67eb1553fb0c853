"""`python -m tests.bench [--only NAME] [--quick] [--repeat N] [--json FILE]`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.bench.measures import MEASURES
from tests.bench.measuring import FULL, QUICK, Bench, without_collector
from tests.bench.report import Report
from tests.bench.yardstick import json_and_dict_s, step_s


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=" ".join(_first_paragraphs()), allow_abbrev=False
    )
    parser.add_argument("--only", action="append", choices=MEASURES, help="measure this; may be given several times")
    parser.add_argument("--quick", action="store_true", help="a twentieth of everything, to see that it runs")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="how often each is repeated (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    if options.repeat < 1:
        parser.error("--repeat has to be 1 or more")
    if options.json is not None and not options.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder for {options.json}")
    return options


def _first_paragraphs() -> list[str]:
    from tests import bench  # noqa: PLC0415  # for its words only

    return (bench.__doc__ or "").split("\n\n")[:2]


def main() -> None:
    """Measure, and tell."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="arrears-bench-") as folder:
        bench = Bench(Path(folder), QUICK if options.quick else FULL, options.repeat)
        report = Report(bench)
        _tell("making the inputs")
        files = bench.even[:2]
        for name in options.only or MEASURES:
            _tell(f"measuring {name}")
            with without_collector():  # in the same run as everything that is held against them
                report.steps.append(step_s())
                report.peers.append(json_and_dict_s(files))
            report.add(name, list(MEASURES[name](bench)))
        with without_collector():
            report.steps.append(step_s())
            report.peers.append(json_and_dict_s(files))
    report.show()
    if options.json is not None:
        options.json.write_text(json.dumps(report.as_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _tell(what: str) -> None:
    print(f"bench: {what}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
