"""Whether what the workers made of the records is what a replay of the same topics makes of them."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from models.instants import SECOND, Instant, format_instant, parse_instant
from models.outputs import AccountView
from streams.faults import Unusable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_view: Final = msgspec.json.Decoder(AccountView).decode
#: A mark this close to the end could have been followed by one and not by the other.
_BEFORE: Final = 2 * SECOND
_AFTER: Final = 4 * SECOND


class Difference(NamedTuple):
    """An account that is not what the replay says."""

    account_id: str
    field: str
    live: object
    replayed: object


def quiet_instant(views: Iterable[AccountView], now: Instant) -> Instant:
    """The first instant from `now` on that is well apart from every mark, as far as is known now."""
    marks = sorted(
        parse_instant(mark) for view in views for mark in (view.suspend_at, view.delete_at) if mark is not None
    )
    at = now
    for mark in marks:
        if mark > at + _AFTER:
            break
        if mark >= at - _BEFORE:
            at = mark + _BEFORE + 1
    return at


def unchanged_since(views: Iterable[AccountView], at: Instant) -> bool:
    """Whether none of them is of later: on a busy machine what follows a quiet instant is read along with it."""
    return all(parse_instant(view.as_of) <= at for view in views)


def after(at: Instant) -> Instant:
    """When everything up to a quiet instant has been decided, and nothing later is due."""
    return at + _AFTER // 2


def replayed(address: str, policy: Path, folder: Path, until: Instant) -> dict[str, AccountView]:
    """The accounts by `arrears replay` of the topics. Raises Unusable if that fails."""
    accounts = folder / "replayed-accounts.jsonl"
    command = [sys.executable, "-m", "streams.cli", "replay", "--brokers", address, "--policy", str(policy)]
    command += ["--until", format_instant(until), "--accounts", str(accounts), "--quiet"]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # noqa: S603
    if ended.returncode:
        raise Unusable(f"the replay of the topics failed: {ended.stderr.strip()}")
    views = map(_view, accounts.read_bytes().splitlines())
    return {view.account_id: view for view in views}


def differences(live: Mapping[str, AccountView], by_replay: Mapping[str, AccountView]) -> list[Difference]:
    """Where status, balance or the start of the arrears differ."""
    found = []
    for account_id in sorted(live.keys() | by_replay.keys()):
        one, other = live.get(account_id), by_replay.get(account_id)
        for field in ("status", "balance", "arrears_since"):
            values = getattr(one, field, "no such account"), getattr(other, field, "no such account")
            if values[0] != values[1]:
                found.append(Difference(account_id, field, *values))
    return found
