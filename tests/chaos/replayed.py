"""A run without faults against a replay of its topics by the slow model: status, balance, `arrears_since` (issue 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.chaos.arrivals import EVERYONE, arrivals
from tests.oracle import replay
from tests.oracle.values import SECOND, format_instant, parse_instant

if TYPE_CHECKING:
    from tests.chaos.run import Run

#: After the slowest of the live decisions. What is paid between a mark and its decision counts live, where a replay
#: has suspended or deleted at the mark itself.
_MARGIN = SECOND
_COMPARED = ("status", "balance", "arrears_since")


def differences_from_replay(run: Run) -> list[str]:
    """What differs, account by account."""
    found: list[str] = []
    compared = 0
    commands = [recorded.json for recorded in run.topics["commands"]]
    latest = max((parse_instant(one["decided_at"]) - parse_instant(one["effective_at"]) for one in commands), default=0)
    for partition in range(run.partitions):
        used = arrivals(run, partition).used
        topics: dict[str, list[bytes]] = {}
        moments: dict[str, list[int]] = {}
        for account, records in used.items():
            for one in records:
                if one.topic != "acks":
                    topics.setdefault(one.topic, []).append(one.record.raw)
                moments.setdefault(account, []).append(one.record.at)
        result = replay(topics, policies=run.policies_text, until=format_instant(run.ended_at), app_id=run.app_id)
        live = {recorded.json["account_id"]: recorded.json for recorded in run.of("accounts", partition)}
        for expected in result.accounts:
            name = expected["account_id"]
            if _depends_on_latency(name, result.commands, moments[name] + moments.get(EVERYONE, []), latest + _MARGIN):
                continue
            compared += 1
            view: dict[str, Any] = live.get(name, {})
            for field in _COMPARED:
                if view.get(field) != expected[field]:
                    found.append(f"{name}: {field} is {view.get(field)!r}, in a replay {expected[field]!r}")  # noqa: PERF401
    assert compared
    return found


def _depends_on_latency(account: str, commands: list[dict[str, Any]], moments: list[int], within: int) -> bool:
    marks = [
        parse_instant(command["effective_at"])
        for command in commands
        if command["account_id"] == account and command["action"] != "restore"
    ]
    return any(mark < moment <= mark + within for mark in marks for moment in moments)
