"""A tiny cloud in a SQLite file: the services of each account, and what the enforcement service has to remember.

All of one act, what it does to the services, its sequence, the position it was read at and the ack that is to be sent,
is one SQLite transaction: after a crash all of it is there, or nothing.
"""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SERVICES: Final = ("compute", "download", "storage", "caches", "backups")

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS applied (account_id TEXT PRIMARY KEY, sequence INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS services (
    account_id TEXT, service TEXT, state TEXT CHECK (state IN ('running', 'stopped', 'deleted')),
    PRIMARY KEY (account_id, service)
);
CREATE TABLE IF NOT EXISTS positions (topic TEXT, partition INTEGER, next INTEGER, PRIMARY KEY (topic, partition));
CREATE TABLE IF NOT EXISTS views (account_id TEXT PRIMARY KEY, partition INTEGER, value TEXT);
CREATE TABLE IF NOT EXISTS notices (notice_id TEXT PRIMARY KEY, kind TEXT, account_id TEXT, command_id TEXT);
CREATE TABLE IF NOT EXISTS acks (event_id TEXT PRIMARY KEY, account_id TEXT, value TEXT, is_sent INTEGER DEFAULT 0);
-- Everything that was ever done, for whoever wants to check it: a line an act.
CREATE TABLE IF NOT EXISTS history (
    number INTEGER PRIMARY KEY AUTOINCREMENT, account_id TEXT, sequence INTEGER, act TEXT, command_id TEXT
);
"""
#: Ids of acks are made in it: the same ack has the same id (5).
_NAMESPACE: Final = uuid.UUID("6d3a1c86-3b0f-4a4e-9a5c-2f6f0f6b9f51")

Fields = dict[str, Any]


class Position(NamedTuple):
    """Where to read on."""

    topic: str
    partition: int
    next: int


class StartedLate(Exception):
    """A command is further above what was applied than the next: those between were never seen (2)."""


class Cloud:
    """One file. `subscriber` is the name in the acks; `takes_s` how long the cloud needs for an act."""

    def __init__(self, path: Path, subscriber: str, takes_s: float = 0) -> None:
        self._subscriber = subscriber
        self._takes_s = takes_s
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.executescript(_TABLES)

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    # -- what is known ----------------------------------------------------------------------------------------------

    def applied(self, account_id: str) -> int:
        """The last sequence that was applied; 0: none."""
        found = self._database.execute("SELECT sequence FROM applied WHERE account_id = ?", (account_id,)).fetchone()
        return 0 if found is None else int(found[0])

    def position(self, topic: str, partition: int) -> int | None:
        """Where to read on; None: nothing of it was ever read."""
        query = "SELECT next FROM positions WHERE topic = ? AND partition = ?"
        found = self._database.execute(query, (topic, partition)).fetchone()
        return None if found is None else int(found[0])

    def services(self, account_id: str) -> dict[str, str]:
        """The state of each service."""
        query = "SELECT service, state FROM services WHERE account_id = ?"
        return dict.fromkeys(SERVICES, "running") | dict(self._database.execute(query, (account_id,)).fetchall())

    def view(self, account_id: str) -> Fields | None:
        """The latest view of an account."""
        found = self._database.execute("SELECT value FROM views WHERE account_id = ?", (account_id,)).fetchone()
        return None if found is None else json.loads(found[0])

    def views(self, partition: int) -> list[Fields]:
        """The latest view of each account of a partition."""
        found = self._database.execute("SELECT value FROM views WHERE partition = ?", (partition,)).fetchall()
        return [json.loads(value) for (value,) in found]

    def history(self) -> list[tuple[str, int, str, str | None]]:
        """(account, sequence, act, command_id) of everything that was done, in order."""
        return self._database.execute(
            "SELECT account_id, sequence, act, command_id FROM history ORDER BY number"
        ).fetchall()

    def unsent_acks(self) -> list[tuple[str, str, str]]:
        """(event_id, account, value) of those that Kafka may not have."""
        return self._database.execute("SELECT event_id, account_id, value FROM acks WHERE NOT is_sent").fetchall()

    # -- what is read -----------------------------------------------------------------------------------------------

    def keep_views(self, views: Sequence[Fields], position: Position) -> None:
        """Remember how accounts stand. One that was reopened starts anew: no command says so (3)."""
        with self._transaction():
            for view in views:
                account_id = view["account_id"]
                row = (account_id, position.partition, json.dumps(view))
                self._database.execute("INSERT OR REPLACE INTO views VALUES (?, ?, ?)", row)
                is_open = view["status"] in {"current", "in_arrears"}
                if is_open and view["sequence"] == self.applied(account_id):
                    self._set(account_id, SERVICES, "running")
            self._keep_position(position)

    def keep_notices(self, notices: Sequence[Fields], position: Position) -> None:
        """Remember what a delete is checked by (4)."""
        with self._transaction():
            for notice in notices:
                if notice["kind"] in {"deletion_ahead", "delete_contradicted"}:
                    row = (notice["notice_id"], notice["kind"], notice["account_id"], notice["command_id"])
                    self._database.execute("INSERT OR REPLACE INTO notices VALUES (?, ?, ?, ?)", row)
            self._keep_position(position)

    def keep_position(self, position: Position) -> None:
        """Read on there."""
        with self._transaction():
            self._keep_position(position)

    def _keep_position(self, position: Position) -> None:
        self._database.execute("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", position)

    # -- what is done -----------------------------------------------------------------------------------------------

    def apply(self, command: Fields, position: Position, *, is_overtaken: bool = False) -> None:
        """Carry out a command, once. Raises StartedLate.

        Before a delete everything was read to its end; `is_overtaken`: a command of the account with a higher sequence
        was found.
        """
        account_id, sequence = command["account_id"], command["sequence"]
        applied = self.applied(account_id)
        with self._transaction():
            self._keep_position(position)
            if sequence <= applied:  # the gate (2)
                return
            if sequence > applied + 1:
                raise StartedLate(f"{account_id}: {applied} is applied, and {sequence} comes")
            why_not = None
            match command["action"]:
                case "suspend":
                    self._set(account_id, command["services"], "stopped")
                case "restore":
                    self._set(account_id, command["services"], "running")
                case "delete":
                    why_not = "overtaken" if is_overtaken else self._why_not_delete(command)
                    if why_not is None:
                        self._set(account_id, command["services"], "deleted")
                    elif why_not == "reopened":
                        self._set(account_id, SERVICES, "running")
                case unknown:
                    why_not = f"no such action: {unknown}"
            act = command["action"] if why_not is None else f"not done: {why_not}"
            self._done(account_id, sequence, act, command["command_id"])
            self._acknowledge(account_id, command["command_id"], why_not)
            time.sleep(self._takes_s)

    def settle(self, view: Fields) -> None:
        """Bring an account into the state that its view tells, if that is not older than what was applied (6)."""
        account_id, sequence = view["account_id"], view["sequence"]
        with self._transaction():
            if sequence < self.applied(account_id):
                return
            stopped, why_not = view["suspended_services"], None
            match view["status"]:
                case "deleted":
                    why_not = "contradicted" if self._is_contradicted(view["last_command_id"]) else None
                    self._set(account_id, stopped, "stopped" if why_not else "deleted")
                case "suspended":
                    self._set(account_id, stopped, "stopped")
                    self._set(account_id, [one for one in SERVICES if one not in stopped], "running")
                case _:
                    self._set(account_id, SERVICES, "running")
            if sequence > self.applied(account_id):
                self._done(account_id, sequence, "settled", view["last_command_id"])
                if view["last_command_id"] is not None:
                    self._acknowledge(account_id, view["last_command_id"], why_not)

    def _why_not_delete(self, command: Fields) -> str | None:
        """Look before you leap (4); None: nothing speaks against it."""
        account_id = command["account_id"]
        view = self.view(account_id)
        if view is None or view["sequence"] < command["sequence"]:
            return "its view is not there"
        if view["status"] != "deleted" or view["last_command_id"] != command["command_id"]:
            return "reopened"
        if self._is_contradicted(command["command_id"]):
            return "contradicted"
        if command["notice_id"] is not None:
            query = "SELECT 1 FROM notices WHERE notice_id = ? AND kind = 'deletion_ahead' AND account_id = ?"
            if self._database.execute(query, (command["notice_id"], account_id)).fetchone() is None:
                return "the customer was not told"
        return None

    def _is_contradicted(self, command_id: str) -> bool:
        query = "SELECT 1 FROM notices WHERE kind = 'delete_contradicted' AND command_id = ?"
        return self._database.execute(query, (command_id,)).fetchone() is not None

    def _set(self, account_id: str, services: Sequence[str], state: str) -> None:
        rows = [(account_id, service, state) for service in services]
        self._database.executemany("INSERT OR REPLACE INTO services VALUES (?, ?, ?)", rows)

    def _done(self, account_id: str, sequence: int, act: str, command_id: str | None) -> None:
        self._database.execute("INSERT OR REPLACE INTO applied VALUES (?, ?)", (account_id, sequence))
        row = (account_id, sequence, act, command_id)
        self._database.execute("INSERT INTO history (account_id, sequence, act, command_id) VALUES (?, ?, ?, ?)", row)

    # -- what is told back ------------------------------------------------------------------------------------------

    def _acknowledge(self, account_id: str, command_id: str, why_not: str | None) -> None:
        status = "applied" if why_not is None else "failed"
        event_id = str(uuid.uuid5(_NAMESPACE, f"{self._subscriber} {command_id} {status}"))
        ack = {"event_id": event_id, "command_id": command_id, "account_id": account_id}
        ack |= {"subscriber": self._subscriber, "status": status, "at": _now()}
        if why_not is not None:
            ack["detail"] = why_not
        row = (event_id, account_id, json.dumps(ack))
        self._database.execute("INSERT OR IGNORE INTO acks (event_id, account_id, value) VALUES (?, ?, ?)", row)

    def sent(self, acks: Sequence[str]) -> None:
        """Kafka has these."""
        with self._transaction():
            self._database.executemany("UPDATE acks SET is_sent = 1 WHERE event_id = ?", [(one,) for one in acks])


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
