"""What a demo shows while it plays: a live view on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, get_args

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from models.enforcement import STATUSES, Action
from models.instants import format_instant
from streams.files import FILE_TOPICS
from streams.showing import Screen
from streams.telling import counted, money

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from models.instants import Instant
    from models.outputs import Command
    from streams.demo.audience import Audience
    from streams.demo.crew import Seen
    from streams.demo.script import Script

_ACTIONS: Final = get_args(Action)
_STYLES: Final = {"suspend": "yellow", "restore": "green", "delete": "red"}
_A_LINE_EVERY: Final = 5.0


class View:
    """The state of the play, to be shown."""

    def __init__(self, script: Script, audience: Audience) -> None:
        self.script = script
        self.audience = audience
        self.sent: Counter[str] | None = None
        self.seen: Seen | None = None
        #: What has happened to the workers, latest last.
        self.events: list[str] = []

    def rendered(self, now: Instant) -> Group:
        """All of it."""
        return Group(
            self._head(now), self._numbers(), self._commands(), *(Text(f"  {line}", "dim") for line in self.events[-4:])
        )

    def line(self, now: Instant) -> str:
        """The same in a line."""
        statuses, commands = self.audience.statuses(), self.audience.commands
        parts = [f"{statuses[name]} {name.replace('_', ' ')}" for name in STATUSES]
        parts += [f"{commands[name]} {name}" for name in _ACTIONS]
        lag = "" if self.seen is None else f", lag {self.seen.lag}"
        return f"{self._told(now)}: {counted(self._total(), 'record')} sent; {', '.join(parts)}{lag}"

    def _total(self) -> int:
        return 0 if self.sent is None else self.sent.total()

    def _told(self, now: Instant) -> str:
        at = min(max(self.script.told(now), self.script.begins), self.script.begins + self.script.lasts)
        return f"{format_instant(at)[:16].replace('T', ' ')} in the story"

    def _head(self, now: Instant) -> Text:
        seen = self.seen
        workers = "" if seen is None else f"   workers ready: {seen.ready}   partitions: {seen.partitions}"
        return Text(f"{self._told(now)}   ({self.script.times:,.0f} times as fast){workers}", "bold")

    def _numbers(self) -> Table:
        table = Table("records sent", "", "accounts", "", "commands", "", "worker", "")
        for column in (1, 3, 5, 7):
            table.columns[column].justify = "right"
        statuses, commands, seen = self.audience.statuses(), self.audience.commands, self.seen
        delay = "" if seen is None or seen.delay_s is None else f"{seen.delay_s:.2f} s"
        worker = [
            ("lag", "" if seen is None else f"{seen.lag:,}"),
            ("delay", delay),
            ("notices", f"{self.audience.notices.total():,}"),
            ("dead letters", f"{self.audience.dead_letters:,}"),
            ("", ""),
        ]
        sent = [(topic, f"{self.sent[topic]:,}" if self.sent else "0") for topic in FILE_TOPICS]
        by_status = [(name.replace("_", " "), f"{statuses[name]:,}") for name in STATUSES] + [("", "")]
        by_action = [(name, f"{commands[name]:,}") for name in _ACTIONS] + [("", ""), ("", "")]
        for row in zip(sent, by_status, by_action, worker, strict=True):
            table.add_row(*(cell for pair in row for cell in pair))
        return table

    def _commands(self) -> Table:
        table = Table("latest commands", "account", "owed", "why", min_width=70)
        for command in self.audience.latest:
            table.add_row(*_shown(command))
        return table


def _shown(command: Command) -> tuple[Text, str, str, str]:
    why = command.reason.replace("_", " ")
    return Text(command.action, _STYLES[command.action]), command.account_id, money(command.owed, command.currency), why


class Stage:
    """Shows a view, again and again."""

    def __init__(self, view: View, live: Live | None) -> None:
        self._view = view
        self._live = live
        self._last_line = 0.0

    def update(self, now: Instant) -> None:
        """As it stands now."""
        if self._live is not None:
            self._live.update(self._view.rendered(now), refresh=True)
        elif now / 1e6 - self._last_line >= _A_LINE_EVERY:
            self._last_line = now / 1e6
            print(self._view.line(now), flush=True)  # noqa: T201

    def tell(self, line: str) -> None:
        """Something has happened."""
        self._view.events.append(line)
        if self._live is None:
            print(line, flush=True)  # noqa: T201


@contextmanager
def stage(view: View) -> Iterator[Stage]:
    """A live view on a terminal; lines elsewhere."""
    if not sys.stdout.isatty():
        yield Stage(view, None)
        return
    with Live(console=Screen(), auto_refresh=False) as live:
        yield Stage(view, live)
