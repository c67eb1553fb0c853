"""What each command of `arrears` does, once its options are read: files in, files out, a word to the user.

What the user has to mend is raised as `Unusable`; `streams.cli` tells it.
"""

from __future__ import annotations

import gc
import os
import stat
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TextIO

from models.contract import EVERYONE
from models.instants import parse_instant
from models.policy import BUILT_IN, PolicyError, load_policies
from models.refusal import printable
from streams import explain as explaining
from streams.faults import Unusable
from streams.file_parts import file_parts
from streams.files import FILE_TOPICS, STANDARD, read_inputs, shown_path
from streams.outcome import Wanted
from streams.parallel import processes_that_pay, replay_parts
from streams.showing import policies_shown, say, show, story_shown, to_type
from streams.summary import progress, show_summary
from streams.telling import counted
from streams.writers import Output, Outputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.instants import Instant
    from models.policy import Policies
    from models.records import Topic
    from streams.outcome import PartInputs, Progress
    from streams.parallel import Source
    from streams.settings import Settings

#: Exit codes (§4).
OK: Final = 0
STRICT: Final = 3

_MOST_APP_ID_BYTES: Final = 256


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
    since: str | None = None
    account_id: str | None = None

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
        """The outputs that are asked for, by option; the commands go to standard output if none is."""
        options = ("--commands", "--notices", "--accounts", "--dead-letters")
        paths = {option: path for option, path in zip(options, self, strict=True) if path is not None}
        return paths or {"--commands": STANDARD}


# Replay -------------------------------------------------------------------------------------------------------------


def topics_are_meant(sources: Sources, *, typed: list[str]) -> bool:
    """Whether the topics are to be replayed, and not files. `typed` are the options of topics that were typed.

    Brokers that the environment or the settings name are meant if no files are given. Raises `Unusable`.
    """
    files = [f"--{topic}" for topic, _ in sources.paths()]
    if files and typed:
        raise Unusable(f"{typed[0]} reads the topics and {files[0]} a file: leave out one of them")
    return not files


def replay(
    sources: Sources, targets: Targets, settings: Settings | None, *, with_usage: bool, strict: bool, quiet: bool
) -> int:
    """`arrears replay`, of files, or with `settings` of the topics. Returns the exit code."""
    started_at = time.perf_counter()
    outputs = targets.paths()
    if settings is None:
        wanted, inputs = _wanted(sources, sources.policy, sources.app_id), _inputs_given(sources)
    elif settings.brokers is None:
        raise _nothing_to_read(", or --brokers to read the topics")
    else:
        wanted, inputs = _wanted(sources, settings.policy, settings.app_id), []
    _check_outputs(outputs, sources)
    gc.disable()  # a million records live to the end: there is nothing to collect
    with ExitStack() as stack:
        opened = {option: stack.enter_context(Output(option, path)) for option, path in outputs.items()}
        written = Outputs(*map(opened.get, ("--commands", "--notices", "--accounts", "--dead-letters")))
        if settings is None:
            processes = 1 if wanted.account_id is not None else processes_that_pay()
            parts: Sequence[Source] = [partial(_at_hand, part) for part in file_parts(read_inputs(inputs), processes)]
        else:
            parts = _topics(settings, sources.account_id, with_usage=with_usage)
        # On one terminal the bar would run into the commands.
        shown = not quiet and not (STANDARD in outputs.values() and sys.stdout.isatty())
        tally = replay_parts(parts, wanted, written, progress(shown=shown), stop_unread=not strict)
    if not quiet:
        show_summary(tally, time.perf_counter() - started_at)
    if tally.bad_lines and written.dead_letters is None:
        bad = counted(tally.bad_lines, "line" if settings is None else "record")
        say(f"arrears replay: {bad} could not be used; --dead-letters FILE tells which and why")
    return STRICT if strict and tally.bad_lines else OK


def _wanted(sources: Sources, policy: str | None, app_id: str) -> Wanted:
    since, until = _instant("--since", sources.since), _instant("--until", sources.until)
    if since is not None and until is not None and since > until:
        raise Unusable("--since is later than --until: nothing would be left, so choose an earlier one")
    _check_app_id(app_id)
    if sources.account_id == EVERYONE:
        raise Unusable('--account "*" stands for everybody: name one account')
    return Wanted(_policies(policy), app_id, until, since, sources.account_id)


def _topics(settings: Settings, account_id: str | None, *, with_usage: bool) -> Sequence[Source]:
    """The topics as parts of a replay."""
    from streams.kafka_client import kafka_client_options  # noqa: PLC0415  # files need no Kafka
    from streams.topic_replay import Topics, topic_parts  # noqa: PLC0415

    topics = Topics(kafka_client_options(settings), settings.partitioner, with_usage, account_id)
    found = topic_parts(topics, processes_that_pay())
    if found.pending:
        say(
            f"arrears replay: {counted(found.pending, 'record')} at the ends of the topics are left out: "
            "a transaction is open there"
        )
    return found.sources


def _at_hand(part: PartInputs, _: Progress) -> PartInputs:
    return part


def _instant(option: str, text: str | None) -> Instant | None:
    if text is None:
        return None
    try:
        return parse_instant(text)
    except ValueError as error:
        raise Unusable(f"{option} {error}") from None


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
        raise _nothing_to_read()
    _check_standard([f"--{topic}" for topic, path in paths if path == STANDARD], "input")
    return paths


def _nothing_to_read(otherwise: str = "") -> Unusable:
    options = ", ".join(f"--{topic}" for topic in FILE_TOPICS)
    advice = "arrears sample DIR writes some to try"
    return Unusable(f"there is nothing to read: give at least one of {options}{otherwise} ({advice})")


def _check_standard(options: list[str], what: str) -> None:
    if len(options) > 1:
        raise Unusable(
            f"{' and '.join(options)} are '-': only one {what} can be standard {what}, give the others files"
        )


class _Same(NamedTuple):
    """What all names of one file have in common."""

    device: int
    inode: int


def _check_outputs(outputs: dict[str, str], sources: Sources) -> None:
    """No two outputs are one file, and none is an input."""
    _check_standard([option for option, path in outputs.items() if path == STANDARD], "output")
    read: dict[_Same | str, str] = {}
    for option, path in (*((f"--{topic}", path) for topic, path in sources.paths()), ("--policy", sources.policy)):
        if path is not None and (same := _identity(path, sys.stdin)) is not None:
            read[same] = option
    written: dict[_Same | str, str] = {}
    for option, path in outputs.items():
        same = _identity(path, sys.stdout)
        if same is None:
            continue
        name = "standard output" if path == STANDARD else shown_path(path)
        if same in read:
            raise Unusable(f"{option} ({name}) would overwrite what {read[same]} reads: choose another file")
        if same in written:
            raise Unusable(f"{written[same]} and {option} are one file ({name}): give each its own")
        written[same] = option


def _identity(path: str, standard: TextIO | None) -> _Same | str | None:
    """Which file this is; None for a device, which may be named twice."""
    try:
        if path != STANDARD:
            found = Path(path).stat()
        elif standard is not None:
            found = os.fstat(standard.fileno())
        else:
            return None
    except FileNotFoundError:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return None  # whoever opens it tells why
    if stat.S_ISREG(found.st_mode) or stat.S_ISFIFO(found.st_mode):
        return _Same(found.st_dev, found.st_ino)
    return None


# Explain ------------------------------------------------------------------------------------------------------------


def explain(account_id: str, sources: Sources, settings: Settings | None, *, as_json: bool) -> None:
    """`arrears explain`, of files, or with `settings` of the topics."""
    until = _instant("--until", sources.until)
    if account_id == EVERYONE:
        raise Unusable('"*" stands for everybody: name one account')
    if settings is not None:
        _explain_live(account_id, settings, until, as_json=as_json)
        return
    policies = _policies(sources.policy)
    _check_app_id(sources.app_id)
    inputs = read_inputs(_inputs_given(sources))
    story = explaining.explain(inputs, account_id, policies, sources.app_id, until)
    if story is None:
        near = [printable(one) for one in explaining.near_matches(inputs, account_id)]
        advice = f"did you mean {' or '.join(near)}?" if near else "check its id and the files"
        raise Unusable(f"there is no account {printable(account_id)} in the input: {advice}")
    if as_json:
        with Output("--json", STANDARD) as output:
            output.write_all([story.as_json()])
            output.finish()
    else:
        show(*story_shown(story))


def _explain_live(account_id: str, settings: Settings, until: Instant | None, *, as_json: bool) -> None:
    if settings.brokers is None:
        raise _nothing_to_read(", or --brokers to read the topics")
    from streams import explain_live  # noqa: PLC0415  # files need no Kafka

    policies = None if settings.policy is None else _policies(settings.policy)
    explain_live.explain(account_id, settings, policies, until, as_json=as_json)


# Sample, policies ---------------------------------------------------------------------------------------------------


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
    from streams.sample import Sample, write_sample  # noqa: PLC0415  # a replay has no use for it

    try:
        first = parse_instant(start)
    except ValueError as error:
        raise Unusable(f"--start {error}") from None
    try:
        wanted = Sample(accounts, days, seed, first, currency, hourly)
    except ValueError as error:  # it begins with the name of the field
        raise Unusable(f"--{error}") from None
    try:
        written = write_sample(Path(directory), wanted)
    except OSError as error:
        raise unwritable_folder(directory, error) from None
    if not quiet:
        files = ", ".join(f"{name} ({number:,})" for name, number in written.records.items())
        show(f"{shown_path(directory)}: {files}", "Next:", to_type("arrears replay", directory, wanted.end))


def unwritable_folder(directory: str, error: OSError) -> Unusable:
    """What to tell when a sample cannot be written."""
    return Unusable(f"{shown_path(directory)} cannot be written ({error.strerror}): choose another folder")


def check_policies(path: str) -> None:
    """`arrears policy check`."""
    try:
        policies = load_policies(path)
    except PolicyError as error:
        raise Unusable(str(error)) from None
    show(*policies_shown(shown_path(path), policies))
