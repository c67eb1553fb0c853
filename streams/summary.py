"""What a person sees of a replay on standard error: how far it has come, and a table of what it came to."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from models.instants import format_instant
from streams.files import FILE_TOPICS
from streams.outcome import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.progress import Progress as Bars

    from streams.outcome import Tally

#: In the order in which a reader wants them.
_ACTIONS: Final = ("suspend", "restore", "delete")
_STATUSES: Final = ("current", "in_arrears", "suspended", "deleted")


def summary_table(tally: Tally) -> Table:
    """How many there were of each."""
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    records = [(topic, tally.read[topic], _remark(tally, topic)) for topic in FILE_TOPICS if tally.read[topic]]
    _add(table, "records read", records)
    _add(table, "commands", _counts(tally.commands, _ACTIONS))
    _add(table, "notices", _counts(tally.notices, sorted(tally.notices)))
    _add(table, "accounts", _counts(tally.accounts, _STATUSES))
    _add(table, "bad lines", _counts(tally.errors, sorted(tally.errors)))
    return table


def summary_line(tally: Tally, seconds: float) -> str:
    """How many records there were, up to which instant, and how long it took."""
    clock = "no usable record" if tally.ended_at is None else f"up to {format_instant(tally.ended_at)}"
    rate = f" ({tally.read.total() / seconds:,.0f} records/s)" if seconds >= 1 else ""
    return f"{tally.read.total():,} records, {clock}, in {seconds:,.1f} s{rate}"


def _remark(tally: Tally, topic: str) -> str:
    refused, late = tally.refused[topic], tally.left_out[topic]
    used = tally.read[topic] - refused - late
    told = [f"{number:,} {what}" for number, what in ((refused, "bad"), (late, "after the end")) if number]
    return ", ".join([f"{used:,} used", *told]) if told else "all used"


def _counts(counts: dict[str, int], names: Iterable[str]) -> list[tuple[str, int, str]]:
    return [(name, counts.get(name, 0), "") for name in names]


def _add(table: Table, title: str, rows: list[tuple[str, int, str]]) -> None:
    for index, (name, number, remark) in enumerate(rows or [("none", 0, "")]):
        table.add_row("" if index else title, Text(name), f"{number:,}", remark, end_section=index + 1 == len(rows or [0]))


def standard_error() -> Console:
    """The console of standard error."""
    return Console(stderr=True, highlight=False)


class _Shown(Progress):
    """Two bars: bytes read, then records replayed."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._reading = self._replaying = bars.add_task("reading", total=None, visible=False)

    def reading(self, size: int) -> None:
        self._bars.update(self._reading, total=size, visible=True)

    def read(self, size: int) -> None:
        self._bars.advance(self._reading, size)

    def replaying(self, count: int) -> None:
        self._replaying = self._bars.add_task("replaying", total=count)

    def replayed(self, count: int) -> None:
        self._bars.advance(self._replaying, count)


@contextmanager
def progress(*, shown: bool) -> Iterator[Progress]:
    """Progress on standard error, while the context lasts; only if that is a terminal."""
    if not shown or sys.stderr is None or not sys.stderr.isatty():
        yield Progress()
        return
    from rich.progress import BarColumn, Progress as Bars, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415, I001: only a terminal needs them

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Bars(*columns, console=standard_error(), transient=True) as bars:
        yield _Shown(bars)
