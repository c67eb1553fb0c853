"""What each command of `arrears` does, once its options are read: files in, outputs, a word to the user.

Raises `Unusable` for whatever the user has to mend; `streams.cli` tells it.
"""

from __future__ import annotations

import gc
import os
import shlex
import stat
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TextIO

import msgspec
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from models.instants import format_instant, parse_instant
from models.outputs import Command
from models.policy import BUILT_IN, PolicyError, load_policies
from models.refusal import printable
from streams import explain as explaining
from streams import telling
from streams.files import FILE_TOPICS, STANDARD, Unusable, read_inputs, shown_path
from streams.outcome import FileReplay, NobodyReads, Progress
from streams.summary import progress, summary_line, summary_table
from streams.writers import Output, Outputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import RenderableType

    from models.instants import Instant
    from models.policy import Policies
    from models.records import Topic
    from streams.files import Inputs
    from streams.outcome import Tally

#: Exit codes (§4).
OK: Final = 0
STRICT: Final = 3

_MOST_APP_ID_BYTES: Final = 256
#: Columns of what is shown where there is no terminal to ask.
_PLAIN_WIDTH: Final = 120


class Sources(NamedTuple):
    """Where a replay's input comes from, as typed."""

    bills: str | None
    payments: str | None
    usage: str | None
    packages: str | None
    controls: str | None
    policy: str | None
    until: str | None
    app_id: str

    def paths(self) -> list[tuple[Topic, str]]:
        """The inputs that are given, in the order of `FILE_TOPICS`."""
        given = (self.bills, self.payments, self.usage, self.packages, self.controls)
        return [(topic, path) for topic, path in zip(FILE_TOPICS, given, strict=True) if path is not None]


class Targets(NamedTuple):
    """Where a replay's output goes, as typed."""

    commands: str | None
    notices: str | None
    accounts: str | None
    dead_letters: str | None

    def paths(self) -> dict[str, str]:
        """Option to path, of the outputs that are asked for; the commands go to standard output if none is."""
        given = zip(self._fields, self, strict=True)
        paths = {f"--{name.replace('_', '-')}": path for name, path in given if path is not None}
        return paths or {"--commands": STANDARD}


# Replay -------------------------------------------------------------------------------------------------------------


def replay(sources: Sources, targets: Targets, *, strict: bool, quiet: bool) -> int:
    """`arrears replay`. Returns the exit code."""
    started_at = time.perf_counter()
    until, policies, paths = _until(sources.until), _policies(sources.policy), targets.paths()
    _check_app_id(sources.app_id)
    inputs_given = _inputs_given(sources)
    _check_outputs(paths, sources)
    gc.disable()  # a million records live to the end: there is nothing to collect
    with ExitStack() as stack:
        opened = {option: stack.enter_context(Output(option, path)) for option, path in paths.items()}
        outputs = Outputs(*(opened.get(option) for option in ("--commands", "--notices", "--accounts", "--dead-letters")))
        shows = not quiet and not (STANDARD in paths.values() and sys.stdout.isatty())
        bar = stack.enter_context(progress(shown=shows))
        run = FileReplay(read_inputs(inputs_given), policies, sources.app_id, until, bar)
        try:
            tally = run.run(outputs, stop_unread=not strict)
        except NobodyReads:
            return OK
    if not quiet:
        _show_summary(tally, time.perf_counter() - started_at)
    if tally.bad_lines and outputs.dead_letters is None:
        _tell_bad_lines(tally.bad_lines)
    return STRICT if strict and tally.bad_lines else OK


def _until(text: str | None) -> Instant | None:
    if text is None:
        return None
    try:
        return parse_instant(text)
    except ValueError as error:
        raise Unusable(f"--until {error}") from None


def _policies(path: str | None) -> Policies:
    if path is None:
        return BUILT_IN
    try:
        return load_policies(path)
    except PolicyError as error:
        raise Unusable(f"--policy: {error}") from None


def _check_app_id(app_id: str) -> None:
    try:
        size = len(app_id.encode())
    except UnicodeEncodeError:
        raise Unusable("--app-id is not UTF-8: choose a name of plain letters") from None
    if not 1 <= size <= _MOST_APP_ID_BYTES:
        raise Unusable(f"--app-id has to have 1 to {_MOST_APP_ID_BYTES} bytes, not {size}: choose another name")


def _inputs_given(sources: Sources) -> list[tuple[Topic, str]]:
    paths = sources.paths()
    if not paths:
        options = ", ".join(f"--{topic}" for topic in FILE_TOPICS)
        raise Unusable(f"there is nothing to read: give at least one of {options} (arrears sample DIR writes some to try)")
    from_standard = [f"--{topic}" for topic, path in paths if path == STANDARD]
    if len(from_standard) > 1:
        raise Unusable(f"{' and '.join(from_standard)} are both '-': only one input can be standard input")
    return paths


class _Same(NamedTuple):
    """What two names of one file have in common."""

    device: int
    inode: int


def _check_outputs(paths: dict[str, str], sources: Sources) -> None:
    """No two outputs are one file, and none is an input."""
    from_standard = [option for option, path in paths.items() if path == STANDARD]
    if len(from_standard) > 1:
        raise Unusable(f"{' and '.join(from_standard)} are both '-': only one output can be standard output")
    read: dict[_Same | str, str] = {}
    for option, path in [*((f"--{topic}", path) for topic, path in sources.paths()), ("--policy", sources.policy)]:
        if path is not None and (same := _identity(path, sys.stdin)) is not None:
            read[same] = option
    written: dict[_Same | str, str] = {}
    for option, path in paths.items():
        same = _identity(path, sys.stdout)
        if same is None:
            continue
        if same in read:
            raise Unusable(f"{option} would overwrite {read[same]} ({shown_path(path)}): choose another file")
        if same in written:
            raise Unusable(f"{written[same]} and {option} are one file ({shown_path(path)}): give each its own")
        written[same] = option


def _identity(path: str, standard: TextIO | None) -> _Same | str | None:
    """Which file this is; None for a device, which may be named twice."""
    try:
        if path == STANDARD:
            found = os.fstat(standard.fileno()) if standard is not None else None
        else:
            found = os.stat(path)
    except FileNotFoundError:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return None  # whoever opens it tells why
    if found is None or not (stat.S_ISREG(found.st_mode) or stat.S_ISFIFO(found.st_mode)):
        return None
    return _Same(found.st_dev, found.st_ino)


def _tell_bad_lines(count: int) -> None:
    lines = "1 line" if count == 1 else f"{count:,} lines"
    _say(f"arrears replay: {lines} could not be used; --dead-letters FILE tells which and why")


def _say(line: str) -> None:
    """A line on standard error."""
    if sys.stderr is not None:
        try:
            print(line, file=sys.stderr, flush=True)
        except OSError:
            pass  # there is nobody to tell


# Explain ------------------------------------------------------------------------------------------------------------


def explain(account_id: str, sources: Sources, *, as_json: bool) -> None:
    """`arrears explain`."""
    until, policies = _until(sources.until), _policies(sources.policy)
    _check_app_id(sources.app_id)
    inputs = read_inputs(_inputs_given(sources))
    story = _story(inputs, account_id, policies, sources.app_id, until)
    if as_json:
        sys.stdout.buffer.write(msgspec.json.encode(story.as_json()) + b"\n")
    else:
        _show(*_story_shown(story))


def _story(inputs: Inputs, account_id: str, policies: Policies, app_id: str, until: Instant | None) -> explaining.Story:
    story = explaining.explain(inputs, account_id, policies, app_id, until)
    if story is None:
        near = explaining.near_matches(inputs, account_id)
        advice = f"did you mean {' or '.join(near)}?" if near else "check its id and the files given"
        raise Unusable(f"there is no account {printable(account_id)} in the input: {advice}")
    return story


_STYLES: Final = {"command": "bold", "usage": "dim", "change": "cyan"}


def _story_shown(story: explaining.Story, events: Iterable[explaining.Event] | None = None) -> Iterator[RenderableType]:
    """The story, or of its events those that are given."""
    until = "" if story.until is None else f", up to {telling.when(story.until)}"
    yield Text(f"Account {printable(story.account_id)}{until}. All times are UTC.", style="bold")
    yield ""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    last = None
    for at, kind, text in explaining.paragraphs(story.events if events is None else events):
        table.add_row("" if at == last else telling.when(at), Text(text, style=_STYLES.get(kind, "")))
        last = at
    yield table
    if story.bad_lines:
        yield ""
        yield Text("Lines that name the account and cannot be read:", style="bold")
        for line in story.bad_lines:
            yield Text(f"{line.topic}, line {line.line}: {line.refusal.error}: {line.refusal.message}")
    yield ""
    if story.view is not None:
        yield Text(_standing(story), style="bold")
    yield Text(" ".join(story.next))


def _standing(story: explaining.Story) -> str:
    view = story.view
    assert view is not None  # the caller has looked
    parts = [f"balance {telling.money(view.balance, view.currency)}"]
    if view.credit_limit != "0":
        parts.append(f"credit limit {telling.money(view.credit_limit, view.currency)}")
    if view.owed != "0":
        parts.append(f"owed {telling.money(view.owed, view.currency)}")
    if view.late_fee != "0":
        parts.append(f"late fee {telling.money(view.late_fee, view.currency)} (3.4)")
    if view.unpaid_bills_count:
        parts.append("1 bill unpaid" if view.unpaid_bills_count == 1 else f"{view.unpaid_bills_count:,} bills unpaid")
    if view.unbilled != "0":
        parts.append(f"not billed yet {telling.money(view.unbilled, view.currency)}")
    parts += [f"package {printable(p.package_id)}: {p.remaining} {printable(p.unit)} left" for p in view.packages]
    return f"{view.status.replace('_', ' ').capitalize()}: {', '.join(parts)}."


# Sample, demo, policies ---------------------------------------------------------------------------------------------


def sample(
    directory: str,
    *,
    accounts: int,
    days: int,
    seed: int,
    start: str,
    currency: str,
    hourly: bool,
    quiet: bool,
) -> None:
    """`arrears sample`."""
    from streams.sample import Sample, write_sample  # noqa: PLC0415: it takes its time to load

    try:
        wanted = Sample(accounts, days, seed, parse_instant(start), currency, hourly)
    except ValueError as error:
        raise Unusable(f"--{error}" if str(error).startswith(("accounts", "days", "start", "currency")) else f"--start {error}") from None
    try:
        written = write_sample(Path(directory), wanted)
    except OSError as error:
        raise _no_folder(directory, error) from None
    if not quiet:
        names = ", ".join(f"{name} ({number:,})" for name, number in written.records.items())
        _say(f"{shown_path(directory)}: {names}")
        _say(f"next: {_to_type('arrears replay', directory, format_instant(wanted.end))}")


def _no_folder(directory: str, error: OSError) -> Unusable:
    reason = error.strerror or str(error)
    return Unusable(f"{shown_path(directory)} cannot be written ({reason}): choose another folder")


def _to_type(command: str, directory: str, until: str) -> str:
    """A command on the files of a sample, fit to be pasted into a shell."""
    inputs = [f"--{topic} {shlex.quote(str(Path(directory) / topic))}.jsonl" for topic in FILE_TOPICS]
    return f"{command} {' '.join(inputs[:2])} \\\n    {' '.join(inputs[2:])} --until {until}"


def demo(directory: str | None) -> None:
    """`arrears demo`."""
    from streams.sample import STORIES, Sample, write_sample  # noqa: PLC0415: it takes its time to load

    wanted = Sample()
    until = format_instant(wanted.end)
    with ExitStack() as stack:
        folder = Path(directory or stack.enter_context(tempfile.TemporaryDirectory(prefix="arrears-")))
        try:
            written = write_sample(folder, wanted)
        except OSError as error:
            raise _no_folder(str(folder), error) from None
        started_at = time.perf_counter()
        inputs = read_inputs([(topic, str(folder / f"{topic}.jsonl")) for topic in FILE_TOPICS])
        paths = {name: str(folder / f"{name}.jsonl") for name in ("commands", "notices", "accounts", "dead-letters")}
        outputs = Outputs(*(stack.enter_context(Output(f"--{name}", path)) for name, path in paths.items()))
        tally = FileReplay(inputs, BUILT_IN, "arrears", wanted.end, Progress()).run(outputs)
        commands = [_command(line) for line in Path(paths["commands"]).read_bytes().splitlines()]
        seconds = time.perf_counter() - started_at
        account_id = written.stories[_EXPLAINED][0]
        story = _story(inputs, account_id, BUILT_IN, "arrears", wanted.end)
        _show(
            Text(f"A month of a small cloud provider: {wanted.accounts} accounts, {wanted.days} days.", style="bold"),
            "",
            _commands_table(commands),
            "",
            Text(summary_line(tally, seconds), style="bold"),
            summary_table(tally),
            "",
            Text(f"One of them explained (arrears explain). Its story: {STORIES[_EXPLAINED]}.", style="bold"),
            "Usage and the quiet days are left out here.",
            "",
            *_story_shown(story, _eventful(story.events)),
            "",
            *_what_next(directory, account_id, until),
        )


def _eventful(events: list[explaining.Event]) -> list[explaining.Event]:
    """The events without usage, from a while before the first that is not daily life until a while after the last."""
    told = [event for event in events if event.usage is None]
    busy = [index for index, event in enumerate(told) if event.type != "record"]
    return told[max(0, busy[0] - _QUIET_BEFORE) : busy[-1] + _QUIET_AFTER]


#: The account that is explained, by its story.
_EXPLAINED: Final = "hold"
_QUIET_BEFORE: Final = 4
_QUIET_AFTER: Final = 3
_command: Final = msgspec.json.Decoder(Command).decode


def _commands_table(commands: list[Command]) -> Table:
    table = Table("at (UTC)", "account", "command", Column("owed", justify="right"), "why", "clause")
    for command in commands:
        owed = telling.money(command.owed, command.currency)
        why = command.reason.replace("_", " ")
        table.add_row(telling.when(command.effective_at), command.account_id, command.action, owed, why, command.clause)
    return table


def _what_next(directory: str | None, account_id: str, until: str) -> Iterator[RenderableType]:
    folder = directory or "my-month"
    yield Text("What to try next:", style="bold")
    if directory is None:
        yield f"arrears sample {folder}"
    yield _to_type("arrears replay", folder, until)
    yield _to_type(f"arrears explain {account_id}", folder, until)
    yield "arrears --help"


def check_policies(path: str) -> None:
    """`arrears policy check`."""
    try:
        policies = load_policies(path)
    except PolicyError as error:
        raise Unusable(str(error)) from None
    _show(*_policies_shown(path, policies))


def _policies_shown(path: str, policies: Policies) -> Iterator[RenderableType]:
    number = "1 policy" if len(policies.versions) == 1 else f"{len(policies.versions)} policies"
    yield Text(f"{shown_path(path)}: {number}, usable. Accounts have {policies.first_name} unless a control says otherwise.")
    for policy in policies.versions:
        yield ""
        yield Text(f"{policy.label}, for episodes that begin on {telling.when(policy.effective_from)} UTC or later", style="bold")
        for line in telling.policy_sentences(policy):
            yield Text(f"  {line}")
        yield Text(f"  policy_hash {policy.policy_hash}")


# Showing ------------------------------------------------------------------------------------------------------------


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Let `streams.cli` end the process: rich would, with an exit code of its own."""
        raise BrokenPipeError


def _show(*what: RenderableType) -> None:
    """Something to read, on standard output."""
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    console = _Console(highlight=False, markup=False, width=width)
    for part in what:
        console.print(part, soft_wrap=isinstance(part, str))  # what is to be pasted is not broken into lines


def _show_summary(tally: Tally, seconds: float) -> None:
    if sys.stderr is None:
        return
    console = _Console(stderr=True, highlight=False, markup=False)
    try:
        console.print(summary_line(tally, seconds), style="bold")
        console.print(summary_table(tally))
    except OSError:
        pass  # there is nobody to tell
