"""What a person reads on standard output: the story of an account, policies, tables of commands."""

from __future__ import annotations

import shlex
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from models.instants import format_instant
from models.refusal import printable
from streams import telling
from streams.explain import paragraphs
from streams.faults import NobodyReads, Unusable
from streams.files import FILE_TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import RenderableType

    from models.instants import Instant
    from models.outputs import AccountView
    from models.policy import Policies
    from streams.explain import Event, Story

#: Columns of what is shown where there is no terminal to ask.
_PLAIN_WIDTH: Final = 120

_STYLES: Final = {"command": "bold", "usage": "dim", "change": "cyan", "refused": "red"}


class Screen(Console):
    """A console that shows things as they are, and leaves a closed pipe to its caller."""

    def __init__(self, *, stderr: bool = False) -> None:
        stream = sys.stderr if stderr else sys.stdout
        width = None if stream.isatty() else _PLAIN_WIDTH
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)

    def on_broken_pipe(self) -> None:
        """Raise it again: rich would end the process."""
        raise BrokenPipeError


def on_terminal() -> bool:
    """Whether standard output is read by a person at once, and not by a program or later."""
    return sys.stdout is not None and sys.stdout.isatty()


def show(*what: RenderableType) -> None:
    """Something to read, on standard output. Plain strings are not broken into lines: they may be for a shell."""
    if sys.stdout is None:
        raise Unusable("standard output is closed: leave it open, there is something to read")
    screen = Screen()
    try:
        with nullcontext() if sys.stdout.isatty() else screen.capture() as captured:
            for part in what:
                screen.print(part, soft_wrap=isinstance(part, str))
        if captured is not None:  # without the blanks that fill up a line
            sys.stdout.writelines(f"{line.rstrip()}\n" for line in captured.get().splitlines())
        sys.stdout.flush()
    except BrokenPipeError:
        raise NobodyReads from None
    except OSError as error:
        raise Unusable(
            f"standard output cannot be written ({error.strerror}): make room, or send it elsewhere"
        ) from None


def say(line: str) -> None:
    """A line on standard error, if there is somebody to read it."""
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


def to_type(command: str, directory: str, until: Instant) -> str:
    """A command on the files of a sample, fit to be pasted into a shell."""
    inputs = [f"--{topic} {shlex.quote(f'{Path(directory) / topic}.jsonl')}" for topic in FILE_TOPICS]
    lines = (
        f"  {command} {' '.join(inputs[:2])}",
        " ".join(inputs[2:4]),
        f"{inputs[4]} --until {format_instant(until)}",
    )
    return " \\\n    ".join(lines)


def story_shown(story: Story, events: Iterable[Event] | None = None) -> Iterator[RenderableType]:
    """The story of an account; of its events only those that are given, if they are."""
    until = "" if story.until is None else f", up to {telling.when(story.until)}"
    yield Text(f"Account {printable(story.account_id)}{until}. All times are UTC.", style="bold")
    yield ""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    last = None
    for at, kind, text in paragraphs(story.events if events is None else events):
        table.add_row("" if at == last else telling.when(at), Text(text, style=_STYLES.get(kind, "")))
        last = at
    yield table
    if story.bad_lines:
        yield ""
        yield Text("Lines that name the account and cannot be used:", style="bold")
        for line in story.bad_lines:
            yield Text(f"{line.topic}, line {line.line}: {line.refusal.error}: {line.refusal.message}", style="red")
    yield ""
    if story.view is not None:
        yield Text(_standing(story.view), style="bold")
    yield Text(" ".join(story.next))


def _standing(view: AccountView) -> str:
    parts = [f"balance {telling.money(view.balance, view.currency)}"]
    if view.credit_limit != "0":
        parts.append(f"credit limit {telling.money(view.credit_limit, view.currency)}")
    if view.owed != "0":
        parts.append(f"owed {telling.money(view.owed, view.currency)}")
    if view.late_fee != "0":
        parts.append(f"late fee {telling.money(view.late_fee, view.currency)} (3.4)")
    if view.unpaid_bills_count:
        parts.append(telling.counted(view.unpaid_bills_count, "unpaid bill"))
    if view.unbilled != "0":
        parts.append(f"not billed yet {telling.money(view.unbilled, view.currency)}")
    parts += [f"package {printable(p.package_id)} {p.remaining} {printable(p.unit)} left" for p in view.packages]
    return f"{view.status.replace('_', ' ').capitalize()}: {', '.join(parts)}."


def policies_shown(name: str, policies: Policies) -> Iterator[RenderableType]:
    """What the policies of a file do, in words."""
    versions = telling.counted(len(policies.versions), "version")
    yield Text(f"{name} is usable: {versions} of {telling.listed(policies.names)}.")
    yield Text(f"An account has {policies.first_name} unless a control chooses another.")
    for policy in policies.versions:
        yield ""
        since = telling.when(policy.effective_from)
        yield Text(f"{policy.label}, for episodes that begin at {since} UTC or later", style="bold")
        for line in telling.policy_sentences(policy):
            yield Text(f"- {line}")
        yield f"- policy_hash {policy.policy_hash}"
