"""`arrears demo`: the month of `arrears sample`, the commands that follow by the rule, and one account explained."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from rich.text import Text

from models.outputs import Command
from models.policy import BUILT_IN
from streams.commands import unwritable_folder
from streams.explain import explain
from streams.files import FILE_TOPICS, read_inputs
from streams.outcome import PartReplay, Progress, Wanted
from streams.sample import STORIES, Sample, write_sample
from streams.showing import commands_table, show, story_shown, to_type
from streams.summary import summary_line, summary_table
from streams.writers import UNFINISHED, Output, Outputs

if TYPE_CHECKING:
    from streams.explain import Event, Story

#: The account that is explained, by its story in the sample.
_STORY: Final = "hold"
#: So many records are shown before its trouble begins, and after it ends.
_QUIET_BEFORE: Final = 4
_QUIET_AFTER: Final = 3

_APP_ID: Final = "arrears"
_decode: Final = msgspec.json.Decoder(Command).decode


def demo(directory: str | None) -> None:
    """Write the month into `directory` (or into one that goes again), replay it, and show what came of it."""
    wanted = Sample()
    with ExitStack() as stack:
        folder = directory or stack.enter_context(tempfile.TemporaryDirectory(prefix="arrears-"))
        if not directory:
            UNFINISHED.add(folder)
        try:
            account_id = write_sample(Path(folder), wanted).stories[_STORY][0]
        except OSError as error:
            raise unwritable_folder(folder, error) from None
        started_at = time.perf_counter()
        inputs = read_inputs([(topic, f"{Path(folder) / topic}.jsonl") for topic in FILE_TOPICS])
        paths = [f"{Path(folder) / name}.jsonl" for name in ("commands", "notices", "accounts", "dead-letters")]
        outputs = Outputs(*(stack.enter_context(Output(folder, path)) for path in paths))
        tally = PartReplay(inputs, Wanted(BUILT_IN, _APP_ID, wanted.end), Progress()).run(outputs)
        seconds = time.perf_counter() - started_at
        commands = [_decode(line) for line in Path(paths[0]).read_bytes().splitlines()]
        story = explain(inputs, account_id, BUILT_IN, _APP_ID, wanted.end)
    assert story is not None  # the sample has an account for each story
    show(
        Text(f"A month of a small cloud provider: {wanted.accounts} accounts, {wanted.days} days", style="bold"),
        "",
        commands_table(commands),
        "",
        Text(summary_line(tally, seconds), style="bold"),
        summary_table(tally),
        "",
        Text(f"One account explained: {STORIES[_STORY]}", style="bold"),
        Text("(its usage and its quiet days are left out here)"),
        "",
        *story_shown(story, _eventful(story)),
        "",
        *_what_next(directory, account_id, wanted),
    )


def _eventful(story: Story) -> list[Event]:
    """The events without usage, from a while before the first that is not daily life to a while after the last."""
    told = [event for event in story.events if event.usage is None]
    busy = [index for index, event in enumerate(told) if event.type != "record"]
    return told[max(0, busy[0] - _QUIET_BEFORE) : busy[-1] + _QUIET_AFTER]


def _what_next(directory: str | None, account_id: str, wanted: Sample) -> list[Text | str]:
    folder = directory or "my-month"
    keep = [] if directory else [f"  arrears sample {folder}"]
    replay, explained = (
        to_type(command, folder, wanted.end) for command in ("arrears replay", f"arrears explain {account_id}")
    )
    return [Text("What to try next:", style="bold"), *keep, replay, explained, "  arrears --help"]
