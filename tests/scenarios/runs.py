"""A scenario's records through a model of the rule, and what came of them against its table."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import msgspec

from models.instants import parse_instant
from models.outputs import Source, dead_letter
from models.policy import BUILT_IN, Policies, load_policies
from models.records import decode
from models.refusal import Refusal
from streams.replay import Entry, Replay, entry, sort_entries
from tests.oracle import replay as slow_replay

from .expectations import COMMAND_OF, LISTED, NOTICE_OF, Output

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from models.contract import Topic

    from .expectations import Fields
    from .timeline import Row, Scenario

_TOPICS: Final[tuple[Topic, ...]] = ("bills", "payments", "usage", "packages", "controls")
#: "Order within one decision", as far as notices go.
_IN_ORDER: Final = ("arrears_started", "suspended", "deletion_ahead", "deleted")

Values: TypeAlias = "dict[str, Any]"
Lines: TypeAlias = "Mapping[str, list[bytes]]"


class Outcome(NamedTuple):
    """What a replay publishes, as JSON values; commands and notices in the order in which they were decided."""

    commands: list[Values]
    notices: list[Values]
    accounts: list[Values]
    dead_letters: list[Values]


Model: TypeAlias = Callable[[Lines, "str | None", str], Outcome]


def the_replay(lines: Lines, policies: str | None, until: str) -> Outcome:
    """The replay of `arrears replay`."""
    end = parse_instant(until)
    entries: list[Entry] = []
    sources: list[Source] = []
    letters = []
    for topic in _TOPICS:
        for number, value in enumerate(lines.get(topic, ()), 1):
            source = Source(topic, None, number, None, value, None)
            try:
                record = decode(topic, value)
            except Refusal as refusal:
                letters.append(dead_letter(source, refusal))
                continue
            if record.at <= end:
                entries.append(entry(record, len(sources)))
                sources.append(source)
    sort_entries(entries, lambda number: sources[number].value or b"")
    replay = Replay(BUILT_IN if policies is None else _policies(policies), "arrears")
    commands, notices = [], []
    for step in replay.run(entries, sources.__getitem__, until=end):
        commands += step.published.commands
        notices += step.published.notices
        letters += step.published.dead_letters
    accounts = list(replay.monitor.views(end))
    return Outcome(*msgspec.json.decode(msgspec.json.encode((commands, notices, accounts, letters))))


@cache
def _policies(text: str) -> Policies:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policies.yaml"
        path.write_text(text)
        return load_policies(str(path))


def the_slow_model(lines: Lines, policies: str | None, until: str) -> Outcome:
    """The independent model of tests/oracle."""
    result = slow_replay(lines, policies=policies, until=until)
    return Outcome(result.commands, result.notices, result.accounts, result.dead_letters)


#: The slow model sorts its notices, and does not have these fields.
_NOT_IN_THE_SLOW_MODEL: Final = frozenset(("policy", "reason", "package_id", "payment_id", "amount", "service"))


def differences(scenario: Scenario, model: Model, *, backwards: bool = False) -> list[str]:
    """Where the model and the table differ, each in a line. `backwards`: the files' lines are in reverse order."""
    assert scenario.end is not None
    lines, places = _lines(scenario.rows, backwards=backwards)
    outcome = model(lines, scenario.policies, scenario.end.instant)
    found = [
        *_differing_outputs(scenario, outcome, slow=model is the_slow_model),
        *_differing_refusals(scenario.rows, outcome, places),
    ]
    for row in scenario.rows:
        if row.shown:
            then = outcome if row is scenario.end else model(lines, scenario.policies, row.instant)
            found += _differing_accounts(scenario, row, then)
    return found


def _lines(rows: Iterable[Row], *, backwards: bool) -> tuple[dict[str, list[bytes]], dict[tuple[str, int], Row]]:
    """The lines of each topic's file, and the row of each line (from 1)."""
    lines: dict[str, list[bytes]] = defaultdict(list)
    places: dict[tuple[str, int], Row] = {}
    for row in reversed(list(rows)) if backwards else rows:
        for happening in reversed(row.happenings) if backwards else row.happenings:
            lines[happening.topic].append(happening.line)
            places[happening.topic, len(lines[happening.topic])] = row
    return dict(lines), places


def _differing_outputs(scenario: Scenario, outcome: Outcome, *, slow: bool) -> Iterable[str]:
    expected: dict[tuple[str, str], list[tuple[Row, Output]]] = defaultdict(list)
    for row in scenario.rows:
        for output in row.outputs:
            expected[row.instant, output.account].append((row, output))
    came: dict[tuple[str, str], list[Values]] = defaultdict(list)
    for command in outcome.commands:
        came[command["effective_at"], command["account_id"]].append(command)
        if command["decided_at"] != command["effective_at"]:
            yield f"{_told(command)} was decided at {command['decided_at']}: in a replay that is its effective_at"
    for notice in outcome.notices:
        came[notice["at"], notice["account_id"]].append(notice)
    for key in sorted(expected.keys() | came.keys()):
        at, account = key
        wanted, got = expected.get(key, []), came.get(key, [])
        where = f"{scenario.file}:{wanted[0][0].line}" if wanted else f"{scenario.file}:{scenario.line}"
        for name in dict.fromkeys([output.name for _, output in wanted] + [_name(value) for value in got]):
            ours = [output for _, output in wanted if output.name == name]
            theirs = [value for value in got if _name(value) == name]
            for output in ours[len(theirs) :]:
                yield f"{where}: {at} {account}: this did not come: {output.phrase}"
            for value in theirs[len(ours) :]:
                yield f"{where}: {at} {account}: this is not in the table: {_told(value)}"
            for output, value in zip(ours, theirs, strict=False):
                yield from (
                    f"{where}: {at} {account}: {line}" for line in _differing(output, value, outcome, slow=slow)
                )
        if not slow:
            yield from _out_of_order(where, [output.name for _, output in wanted], [_name(value) for value in got])


def _out_of_order(where: str, wanted: list[str], got: list[str]) -> Iterable[str]:
    wanted, got = ([name for name in names if name in _IN_ORDER] for names in (wanted, got))
    if sorted(wanted) == sorted(got) and wanted != got:
        yield f"{where}: the order is {wanted} in the table, and came as {got}"


def _differing(output: Output, value: Values, outcome: Outcome, *, slow: bool) -> Iterable[str]:
    for name, wanted in output.fields.items():
        if slow and "kind" in value and name in _NOT_IN_THE_SLOW_MODEL:
            continue
        got = _look(name, value, outcome)
        if got != wanted:
            yield f"{output.phrase}: {name} is {got!r}, not {wanted!r}"


def _look(name: str, value: Values, outcome: Outcome) -> object:
    """A field's value; of the made-up ones, what stands behind it."""
    if name == NOTICE_OF:
        return next((one["at"] for one in outcome.notices if one["notice_id"] == value["notice_id"]), None)
    if name == COMMAND_OF:
        command_id = value["command_id"] if "command_id" in value else value["last_command_id"]
        return next((one["sequence"] for one in outcome.commands if one["command_id"] == command_id), None)
    if name == LISTED:
        return len(value["unpaid_bills"])
    return value.get(name)


def _differing_refusals(rows: Iterable[Row], outcome: Outcome, places: Mapping[tuple[str, int], Row]) -> Iterable[str]:
    came: dict[int, Values] = {}
    for letter in outcome.dead_letters:
        row = places[letter["topic"], letter["offset"]]
        came[row.line] = letter
        if row.refused is None:
            yield f"line {row.line}: this was refused: {letter['error']} {letter['field']}: {letter['message']}"
    for row in rows:
        if row.refused is None:
            continue
        got = came.get(row.line)
        if got is None:
            yield f"line {row.line}: this was not refused, and has to be: {row.refused.error}"
        elif got["error"] != row.refused.error or row.refused.field not in (None, got["field"]):
            yield f"line {row.line}: refused as {got['error']} {got['field']}, not as {row.refused}"


def _differing_accounts(scenario: Scenario, row: Row, outcome: Outcome) -> Iterable[str]:
    views: dict[str, Fields] = {view["account_id"]: view for view in outcome.accounts}
    for shown in row.shown:
        view = views.get(shown.account)
        where = f"{scenario.file}:{row.line}: at {row.time}: {shown.phrase}"
        if view is None or shown.fields is None:
            if (view is None) != (shown.fields is None):
                yield f"{where}: {'is not there' if view is None else 'is there'}"
            continue
        for name, wanted in shown.fields.items():
            got = _look(name, dict(view), outcome)
            if got != wanted:
                yield f"{where}: {name} is {got!r}, not {wanted!r}"


def _name(value: Values) -> str:
    return str(value["action"] if "action" in value else value["kind"])


def _told(value: Values) -> str:
    known = ("effective_at", "at", "deadline", "owed", "late_fee", "reason", "arrears_since")
    said = ", ".join(f"{name} {value[name]}" for name in known if value.get(name) is not None)
    return f"{_name(value)} ({said})"
