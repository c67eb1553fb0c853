"""Runs `arrears` as a user does, and makes up records for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from streams.cli import run

ROOT = Path(__file__).resolve().parent.parent.parent

#: As a process of its own; `run` below does for what needs no pipes and no signals.
ARREARS = (sys.executable, "-m", "streams.cli")


def environment(**more: str) -> dict[str, str]:
    """The environment without anything that `arrears` looks at."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ARREARS_")}
    return kept | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"} | more


class Ended(NamedTuple):
    code: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


def arrears(*arguments: object, stdin: bytes = b"", env: dict[str, str] | None = None) -> Ended:
    """The command line as a process."""
    command = [*ARREARS, *map(str, arguments)]
    ended = subprocess.run(
        command, input=stdin, capture_output=True, check=False, env=environment(**(env or {})), cwd=ROOT
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr.decode())


def inside(capfdbinary: Any, *arguments: object) -> Ended:
    """The same within this process: quicker."""
    capfdbinary.readouterr()
    code = run([str(argument) for argument in arguments])
    out, err = capfdbinary.readouterr()
    return Ended(code, out, err.decode())


def told_in_one_line(ended: Ended) -> str:
    """That one line: an error of the user's."""
    assert ended.code == 2, ended
    assert ended.out == b""
    assert ended.err.count("\n") == 1, ended.err
    assert ended.err.startswith("arrears")
    assert ended.err.endswith("\n")
    return ended.err.rstrip("\n")


# Records ----------------------------------------------------------------------------------------------------------


def bill(number: int, at: str, amount: str = "10", **more: object) -> dict[str, object]:
    """A bill of the account "a"."""
    record = {"event_id": f"b{number}", "account_id": "a", "bill_id": f"bill-{number}", "kind": "issued"}
    return {**record, "amount": amount, "currency": "CNY", "issued_at": at} | more


def payment(number: int, at: str, amount: str = "10", **more: object) -> dict[str, object]:
    """A top-up of the account "a"."""
    record = {"event_id": f"p{number}", "account_id": "a", "payment_id": f"pay-{number}", "kind": "topup"}
    return {**record, "amount": amount, "currency": "CNY", "paid_at": at} | more


def usage(number: int, at: str, **more: object) -> dict[str, object]:
    """An hour of compute of the account "a"."""
    record = {"event_id": f"u{number}", "account_id": "a", "usage_id": f"use-{number}", "service": "compute"}
    return {**record, "quantity": "1", "unit": "h", "started_at": at, "ended_at": at} | more


def package(number: int, at: str, **more: object) -> dict[str, object]:
    """A package of the account "a"."""
    record = {"event_id": f"k{number}", "account_id": "a", "package_id": f"pack-{number}", "kind": "purchased"}
    bought = {"service": "compute", "quantity": "5", "unit": "h", "at": at, "starts_at": at}
    return {**record, **bought, "ends_at": "2030-01-01T00:00:00Z"} | more


def control(number: int, at: str, kind: str, **more: object) -> dict[str, object]:
    """A control of the account "a"."""
    record = {"event_id": f"c{number}", "account_id": "a", "kind": kind, "actor": "ops", "reason": "a ticket", "at": at}
    return record | more


def write(path: Path, *records: dict[str, object] | bytes) -> Path:
    """Records, or lines as they are, as a file of JSON lines."""
    lines = [record if isinstance(record, bytes) else json.dumps(record).encode() for record in records]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """The values of a file of JSON lines."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]
