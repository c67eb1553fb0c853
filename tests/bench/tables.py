"""A run as a person reads it: on a terminal, and in the README."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rich.console import Console
from rich.table import Table as RichTable

from tests.bench.aims import AIMS
from tests.bench.peers.report import OURS
from tests.bench.sizes import FULL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.bench.kept import Run

#: Wide enough for all columns where the output is no terminal.
_COLUMNS: Final = 150


class Table(NamedTuple):
    """The first column is words; the others are numbers. `told`: what has to be known to read it."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    told: str = ""


def number(value: float) -> str:
    """With as many digits as mean something."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def peers_table(peers: Mapping[str, Any]) -> Table:
    """Ours beside the others, each a line; ratios are to the best setting of each."""
    ratios: dict[str, dict[str, float]] = peers["ratios"]
    families = list(dict.fromkeys(_family(name) for name in ratios))
    rows = []
    for one in peers["who"]:
        name = one["name"]
        beside = [
            [mine[name] for peer, mine in ratios.items() if _family(peer) == family and name in mine]
            for family in families
        ]
        rows.append(
            (
                name,
                number(one["rate"]),
                number(one["positions_rate"]),
                number(one["cpu_us_a_record"]),
                number(one["cpu_s"]),
                number(one["rss_mb"]),
                f"{sum(one['outputs'].values()):,}",
                *(f"{min(found):.2f} ×" if found else "" for found in beside),
            )
        )
    columns = ("records/s", "… to the last position", "CPU µs/record", "CPU s", "MB", "records out")
    told = (
        f"{peers['records']:,} records of {peers['accounts']:,} accounts, exactly once, medians of the runs. Records/s "
        "are counted to the last committed record; ratios are to the best setting."
    )
    recovered = [
        f"Recovery, {one['name']}: {one['seconds']:.2f} s"
        + f" with {one['accounts']:,} accounts" * bool(one["accounts"])
        for one in peers["recoveries"]
    ]
    return Table(("", *columns, *(f"× {family}" for family in families)), rows, "\n".join((told, *recovered)))


def _family(name: str) -> str:
    """Kafka Streams, whatever its commit interval."""
    return name.partition(",")[0] if not name.startswith(OURS) else OURS


def live_table(figures: Iterable[Mapping[str, Any]]) -> Table:
    """What the scenes found."""
    return Table(("on a broker", "", ""), [(one["name"], number(one["value"]), one["unit"]) for one in figures])


def aims_table(run: Run) -> Table:
    """Each aim, and how far it is."""
    rows: list[tuple[str, ...]] = []
    for aim in AIMS:
        value = aim.find(run)
        if value is None:
            rows.append((aim.what, aim.told(), "not measured", ""))
        else:
            met = "met" if aim.is_met_by(value) else "missed"
            rows.append((aim.what, aim.told(), f"{number(value)} {aim.unit}", met))
    full, sizes = vars(FULL), run["sizes"]
    other = ", ".join(f"{name}={sizes[name]:,}" for name in full if sizes[name] != full[name])
    return Table(("", "aim", "measured", ""), rows, f"The sizes are not those of the aims: {other}." if other else "")


def head(run: Run) -> str:
    """What was run on what, when."""
    commit = f"{run['commit']}{', changed' * run['changed']}"
    return f"{run['made_at'][:10]}, commit {commit}, Python {run['python']} on {run['cpus']} CPUs, {run['machine']}"


def markdown(table: Table) -> str:
    """As a README has it."""
    lines = [table.columns, ("---", *("---:" for _ in table.columns[1:])), *table.rows]
    return "\n".join("|" + "".join(f" {cell} |" if cell else " |" for cell in line) for line in lines)


def show(tables: Iterable[Table]) -> None:
    """On a terminal, or in a pipe."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_COLUMNS)
    for table in tables:
        shown = RichTable(caption=table.told or None, caption_justify="left")
        for place, column in enumerate(table.columns):
            shown.add_column(column, justify="right" if place else "left")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown, highlight=False)
