"""What a person sees of a replay on standard error: how far it has come, and a table of what it came to."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from models.instants import format_instant
from streams.files import FILE_TOPICS
from streams.outcome import Progress
from streams.showing import Screen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rich.progress import TaskID

    from streams.outcome import Tally

#: In the order in which a reader wants them.
_ACTIONS: Final = ("suspend", "restore", "delete")
_STATUSES: Final = ("current", "in_arrears", "suspended", "deleted")


def show_summary(tally: Tally, seconds: float) -> None:
    """The summary on standard error, if there is somebody to read it."""
    if sys.stderr is None:
        return
    with suppress(OSError):
        screen = Screen(stderr=True)
        screen.print(summary_line(tally, seconds), style="bold")
        screen.print(summary_table(tally))


def summary_line(tally: Tally, seconds: float) -> str:
    """How many records there were, up to which instant, and how long it took."""
    clock = "no usable record" if tally.ended_at is None else f"up to {format_instant(tally.ended_at)}"
    rate = f" ({tally.read.total() / seconds:,.0f} records/s)" if seconds >= 1 else ""
    return f"{tally.read.total():,} records, {clock}, in {seconds:,.1f} s{rate}"


def summary_table(tally: Tally) -> Table:
    """How many there were of each."""
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    _add(table, "records read", [(topic, tally.read[topic], _remark(tally, topic)) for topic in FILE_TOPICS])
    _add(table, "commands", _counts(tally.commands, _ACTIONS))
    _add(table, "notices", _counts(tally.notices, sorted(tally.notices)))
    _add(table, "accounts", _counts(tally.accounts, _STATUSES))
    _add(table, "bad lines", _counts(tally.errors, sorted(tally.errors)))
    return table


def _remark(tally: Tally, topic: str) -> str:
    read, refused, late = tally.read[topic], tally.refused[topic], tally.left_out[topic]
    if not refused and not late:
        return "all used" if read else ""
    told = [f"{number:,} {what}" for number, what in ((refused, "bad"), (late, "after the end")) if number]
    return ", ".join([f"{read - refused - late:,} used", *told])


def _counts(counts: Mapping[str, int], names: Iterable[str]) -> list[tuple[str, int, str]]:
    return [(name, counts.get(name, 0), "") for name in names]


def _add(table: Table, title: str, rows: Sequence[tuple[str, int, str]]) -> None:
    for name, number, remark in rows or [("none", 0, "")]:
        table.add_row(title, Text(name), f"{number:,}", remark)
        title = ""
    table.add_section()


class _Shown(Progress):
    """Bars: records fetched (of topics), then read, then replayed. Each process adds to what is to be done."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._totals: Counter[str] = Counter()

    def fetching(self, count: int) -> None:
        self._add("fetching", count)

    def fetched(self, count: int) -> None:
        self._bars.advance(self._tasks["fetching"], count)

    def reading(self, size: int) -> None:
        self._add("reading", size)

    def read(self, size: int) -> None:
        self._bars.advance(self._tasks["reading"], size)

    def replaying(self, count: int) -> None:
        self._add("replaying", count)

    def replayed(self, count: int) -> None:
        self._bars.advance(self._tasks["replaying"], count)

    def _add(self, stage: str, more: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=None)
        self._totals[stage] += more
        self._bars.update(self._tasks[stage], total=self._totals[stage])


@contextmanager
def progress(*, shown: bool) -> Iterator[Progress]:
    """Progress on standard error while the context lasts, if that is a terminal."""
    if not shown or sys.stderr is None or not sys.stderr.isatty():
        yield Progress()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Screen(stderr=True), transient=True) as bars:
        yield _Shown(bars)
