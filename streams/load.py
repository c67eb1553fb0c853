"""What a user of `arrears load` sees and says: options in, progress and counts out."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from models.instants import SECOND, format_instant
from streams.faults import Unusable
from streams.files import FILE_TOPICS, STANDARD
from streams.kafka_client import kafka_client_options
from streams.loading.run import Loaded, Wanted
from streams.loading.run import load as run
from streams.showing import Screen, say
from streams.telling import counted, when
from streams.writers import write_one

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.records import Topic
    from streams.settings import Settings

#: Exit codes (§4).
OK: Final = 0
STRICT: Final = 3
STOPPED: Final = 130

_PREFIX: Final = "arrears load"


class Given(NamedTuple):
    """What was typed."""

    bills: str | None
    payments: str | None
    usage: str | None
    packages: str | None
    controls: str | None
    resume: str | None
    again: bool
    as_is: bool

    def inputs(self) -> list[tuple[Topic, str]]:
        """The files that are given, in the order of `FILE_TOPICS`. Raises `Unusable`."""
        paths = (self.bills, self.payments, self.usage, self.packages, self.controls)
        given = [(topic, path) for topic, path in zip(FILE_TOPICS, paths, strict=True) if path is not None]
        if not given:
            options = ", ".join(f"--{topic}" for topic in FILE_TOPICS)
            raise Unusable(f"there is nothing to load: give at least one of {options} (arrears sample DIR writes some)")
        standard = [f"--{topic}" for topic, path in given if path == STANDARD]
        if len(standard) > 1:
            raise Unusable(f"{' and '.join(standard)} are '-': only one can be standard input, give the others files")
        return given


def load(settings: Settings, given: Given, *, strict: bool, quiet: bool, as_json: bool) -> int:
    """`arrears load`. Returns the exit code."""
    inputs = given.inputs()
    if given.resume == "":
        raise Unusable("--resume is empty: name a file, or leave the option out")
    resume = None if given.resume is None else Path(given.resume)
    wanted = Wanted(inputs, settings.partitioner, settings.app_id, resume=resume, again=given.again, as_is=given.as_is)
    kafka = kafka_client_options(settings)
    with _shown(quiet=quiet) as shown:
        loaded = asyncio.run(run(kafka, wanted, shown))
    if as_json:
        write_one(_as_json(loaded))
    if not quiet:
        _show(loaded, settings)
    if loaded.stopped:
        say(f"{_PREFIX}: stopped before the end; the same command goes on from here")
        return STOPPED
    return STRICT if strict and loaded.bad else OK


def _as_json(loaded: Loaded) -> dict[str, object]:
    return {
        "sent": dict(loaded.sent),
        "already_there": dict(loaded.there),
        "bad_lines": dict(loaded.bad),
        "lines_loaded_before": {topic: count for topic, count in loaded.before.items() if count},
        "first": None if loaded.first is None else format_instant(loaded.first),
        "last": None if loaded.last is None else format_instant(loaded.last),
        "finished": not loaded.stopped,
        "seconds": round(loaded.seconds, 3),
    }


# What is seen ---------------------------------------------------------------------------------------------------------


def _show(loaded: Loaded, settings: Settings) -> None:
    if loaded.finished_at is not None:
        lines = counted(loaded.before.total(), "line")
        say(
            f"{_PREFIX}: there is nothing to do: these files ({lines}) were loaded by {when(loaded.finished_at)} UTC, "
            "and nothing has been added since (--again loads them all the same)"
        )
        return
    if sys.stderr is None:
        return
    sent = loaded.sent.total()
    rate = f" ({sent / loaded.seconds:,.0f} records/s)" if loaded.seconds >= 1 else ""
    say(f"{counted(sent, 'record')} sent in {loaded.seconds:,.1f} s{rate}")
    Screen(stderr=True).print(_table(loaded))
    history = settings.history
    now = time.time_ns() // 1000
    if loaded.first is not None and loaded.first < now - history:
        first, horizon = loaded.first // SECOND * SECOND, (now - history) // SECOND * SECOND
        say(
            f"They reach back to {when(first)}: a worker that has read its topics to their end refuses those from "
            f"before {when(horizon)} as too_late (setting history); one that is still behind takes them."
        )


def _table(loaded: Loaded) -> Table:
    columns = {
        "sent": loaded.sent,
        "sent before": loaded.there,
        "could not be used": loaded.bad,
        "lines loaded before": loaded.before,
    }
    shown = {name: counts for name, counts in columns.items() if name == "sent" or counts.total()}
    table = Table("topic")
    for name in shown:
        table.add_column(name, justify="right")
    for topic in FILE_TOPICS:
        if any(topic in counts for counts in shown.values()):
            table.add_row(topic, *(f"{counts[topic]:,}" for counts in shown.values()))
    return table


class _Plain:
    """No bars: what has to be said."""

    def say(self, line: str) -> None:
        say(f"{_PREFIX}: {line}")

    def looking(self, size: int) -> None: ...

    def looked(self, size: int) -> None: ...

    def sending(self, lines: int | None, taken: int) -> None: ...

    def sent(self, lines: int) -> None: ...


class _Barred(_Plain):
    """Two bars: bytes looked through, then lines sent."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._looking = self._sending = bars.add_task("looking through", total=None)

    def say(self, line: str) -> None:
        self._bars.console.print(f"{_PREFIX}: {line}", soft_wrap=True)

    def looking(self, size: int) -> None:
        self._bars.update(self._looking, total=size)

    def looked(self, size: int) -> None:
        self._bars.advance(self._looking, size)

    def sending(self, lines: int | None, taken: int) -> None:
        self._bars.remove_task(self._looking)
        self._sending = self._bars.add_task("sending", total=lines, completed=taken)

    def sent(self, lines: int) -> None:
        self._bars.advance(self._sending, lines)


@contextmanager
def _shown(*, quiet: bool) -> Iterator[_Plain]:
    """Bars on standard error while the context lasts, if that is a terminal."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield _Plain()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(show_speed=True),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Screen(stderr=True), transient=True) as bars:
        yield _Barred(bars)
