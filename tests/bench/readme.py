"""`python -m tests.bench.readme [--check]`: writes the README's tables from the newest whole run that is kept.

With `--check` nothing is written: 1 if the README says something else.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bench.kept import newest
from tests.bench.tables import aims_table, head, markdown, peers_table

if TYPE_CHECKING:
    from tests.bench.kept import Run

README: Final = Path(__file__).parents[2] / "README.md"
BEGIN: Final = "<!-- python -m tests.bench.readme writes from here -->"
END: Final = "<!-- to here -->"
_NONE: Final = "No whole run has been kept yet: `make bench` makes one."


def section(run: Run | None) -> str:
    """What stands between the marks."""
    if run is None:
        return _NONE
    parts = [f"Measured {head(run)}."]
    if peers := run.get("peers"):
        table = peers_table(peers)
        parts += [markdown(table), table.told.partition("\n")[0]]
    return "\n\n".join([*parts, markdown(aims_table(run))])


def written(text: str, run: Run | None) -> str:
    """A README with these tables. Raises ValueError if it has not one place for them."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"the README needs one line {BEGIN!r}, and one {END!r} below it")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{section(run)}\n\n{END}{after}"


def main() -> int:
    """1 if `--check` finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.readme", description=__doc__, allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="only tell whether it is as it should be")
    options = parser.parse_args()
    text = README.read_text(encoding="utf-8")
    new = written(text, newest())
    if not options.check:
        README.write_text(new, encoding="utf-8")
    elif new != text:
        print("README.md differs from the newest kept run: python -m tests.bench.readme writes it", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
