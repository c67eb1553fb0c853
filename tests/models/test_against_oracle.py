"""The replay agrees with the slow model (`tests/oracle`), which shares nothing with it, on thousands of histories."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import HealthCheck, given, settings

from models.instants import parse_instant
from models.outputs import Source, dead_letter
from models.policy import BUILT_IN, Policies, load_policies
from models.records import decode
from models.refusal import Refusal
from streams.replay import Entry, Replay, entry
from tests.models.histories import History, histories, lines
from tests.oracle import replay as slow_replay

if TYPE_CHECKING:
    from models.contract import Topic

#: `ARREARS_HISTORIES=20000` makes the long run.
HISTORIES = int(os.environ.get("ARREARS_HISTORIES", "300"))

_COMMAND_IDS = ("command_id", "supersedes", "notice_id", "policy_hash")
_NOTICE_FIELDS = ("account_id", "kind", "at", "owed", "late_fee", "currency", "arrears_since", "deadline")
TOPICS: tuple[Topic, ...] = ("bills", "payments", "usage", "packages", "controls")


def run_replay(history: History) -> dict[str, list[dict[str, Any]]]:
    """The outputs of the real replay, as JSON values."""
    topics, policies_text, until_text = history
    policies = BUILT_IN if policies_text is None else _policies(policies_text)
    until = None if until_text is None else parse_instant(until_text)
    usable_until = until
    found = _run(topics, policies, until)
    if until is None:  # refused records do not move the clock
        usable_until = found["latest"]
        if usable_until is not None and usable_until != found["ended_at"]:
            found = _run(topics, policies, usable_until, dead_letters=found["dead_letters"])
    return {
        name: msgspec.json.decode(msgspec.json.encode(found[name]))
        for name in ("commands", "notices", "accounts", "dead_letters")
    }


@cache
def _policies(text: str) -> Policies:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policies.yaml"
        path.write_text(text)
        return load_policies(str(path))


def _run(
    topics: dict[str, list[dict[str, Any]]],
    policies: Policies,
    until: int | None,
    *,
    dead_letters: list[Any] | None = None,
) -> dict[str, Any]:
    entries: list[Entry] = []
    sources: list[Source] = []
    refused = []
    for topic in TOPICS:
        for number, value in enumerate(lines(topics[topic]), 1):
            source = Source(topic, None, number, None, value, None)
            try:
                record = decode(topic, value)
            except Refusal as refusal:
                refused.append(dead_letter(source, refusal))
                continue
            if until is None or record.at <= until:
                entries.append(entry(record, len(sources)))
                sources.append(source)
    entries.sort(key=lambda e: (e.at, e.rank, e.event_id, sources[e.number].value))
    replay = Replay(policies, "arrears")
    steps = list(replay.run(entries, sources.__getitem__, until=until))
    for step in steps:
        refused += step.published.dead_letters
    dropped = {(letter.topic, letter.offset) for letter in refused}
    accepted = [e.at for e in entries if (sources[e.number].topic, sources[e.number].offset) not in dropped]
    ended_at = replay.ended_at
    return {
        "latest": max(accepted, default=None),
        "ended_at": ended_at,
        "commands": sorted(
            (c for step in steps for c in step.published.commands),
            key=lambda c: (parse_instant(c.effective_at), c.account_id, c.sequence),
        ),
        "notices": [n for step in steps for n in step.published.notices],
        "accounts": [] if ended_at is None else list(replay.monitor.views(ended_at)),
        "dead_letters": refused if dead_letters is None else dead_letters,
    }


def comparable(outputs: dict[str, list[dict[str, Any]]]) -> dict[str, list[Any]]:
    """What both sides must agree on: everything but the ids' values."""
    notices = {n["notice_id"]: n for n in outputs["notices"]}

    def warning(command: dict[str, Any]) -> Any:
        if command.get("_notice_label") is not None:
            return command["_notice_label"]
        notice = notices.get(command["notice_id"] or "")
        return notice and [notice["kind"], notice["at"], notice["deadline"]]

    return {
        "commands": [
            {k: v for k, v in c.items() if k not in _COMMAND_IDS and not k.startswith("_")}
            | {"supersedes": c["supersedes"] is not None, "warning": warning(c)}
            for c in outputs["commands"]
        ],
        "notices": sorted(
            ({k: n[k] for k in _NOTICE_FIELDS} | {"command": n["command_id"] is not None} for n in outputs["notices"]),
            key=str,
        ),
        "accounts": [
            {k: v for k, v in a.items() if not k.startswith("_")}
            | {"last_command_id": a["last_command_id"] is not None}
            for a in outputs["accounts"]
        ],
        "dead_letters": sorted((d["topic"], d["offset"], d["error"]) for d in outputs["dead_letters"]),
    }


def run_oracle(history: History) -> dict[str, list[dict[str, Any]]]:
    """The outputs of the slow model."""
    topics, policies, until = history
    result = slow_replay({topic: lines(records) for topic, records in topics.items()}, policies=policies, until=until)
    outputs = {name: getattr(result, name) for name in ("commands", "notices", "accounts", "dead_letters")}
    return msgspec.json.decode(msgspec.json.encode(outputs))  # type: ignore[no-any-return]


@settings(max_examples=HISTORIES, deadline=None, suppress_health_check=list(HealthCheck))
@given(histories())
def test_replay_agrees_with_the_slow_model(history: History) -> None:
    assert comparable(run_replay(history)) == comparable(run_oracle(history))
