"""Bad input through the whole command line.

A line gets a dead letter with code, field and message, and the next line is processed; a file that cannot be used at
all gets one line and exit code 2.
"""

from __future__ import annotations

import base64
import gc
import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from tests.streams.command_line import (
    ARREARS,
    ROOT,
    bill,
    control,
    environment,
    inside,
    package,
    payment,
    read,
    told_in_one_line,
    usage,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

Values: TypeAlias = tuple[object, ...]

AT = "2026-01-01T00:00:00Z"
LATER = "2026-01-01T01:00:00Z"


@pytest.fixture(autouse=True)
def _collect_garbage_again() -> Iterator[None]:
    yield
    gc.enable()


# Fields -----------------------------------------------------------------------------------------------------------

ABSENT = object()
INFINITE = "a number that JSON can write and nothing can hold"

NO_TEXT: Values = (None, ABSENT, 7, 1.5, True, [], {})
BAD_ID: Values = (*NO_TEXT, "", "x" * 257, "é" * 129)
BAD_MONEY: Values = (
    *("", "-1", "+1", "1.", ".5", "1e2", "1,5", " 1", "1 ", "0x1", "١", "NaN", "Infinity", "1.0000001", "1" * 16),
    *(7, 1.5, True, [], {}, INFINITE),
)
BAD_INSTANT: Values = (
    *("", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01 00:00:00Z", "2026-01-01t00:00:00z", "2026-13-01T00:00:00Z"),
    *("2026-02-30T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T23:59:60Z", "2026-01-01T00:00:00.0000001Z"),
    *("0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"),
    *("2026-01-01T00:00:00+24:00", 1767225600, 1.5, True, [], {}),
)
BAD_KIND: Values = (*NO_TEXT, "", "unknown", "ISSUED", "topup ")
BAD_CURRENCY: Values = (*NO_TEXT, "", "cny", "RMB", "XYZ", "CNY ")
MISSING: Values = (None, ABSENT)

#: Topic, a good record, and of each field the values that are refused.
FIELDS: list[tuple[str, dict[str, object], dict[str, Values]]] = [
    (
        "bills",
        bill(1, AT),
        {
            "event_id": BAD_ID,
            "account_id": (*BAD_ID, "*"),
            "bill_id": BAD_ID,
            "kind": BAD_KIND,
            "amount": (*MISSING, *BAD_MONEY),
            "currency": BAD_CURRENCY,
            "issued_at": (*MISSING, *BAD_INSTANT),
            "period_start": BAD_INSTANT,
            "period_end": BAD_INSTANT,
        },
    ),
    ("bills", bill(1, AT, kind="voided", amount="0"), {"amount": ("1", "0.000001", *BAD_MONEY)}),
    (
        "payments",
        payment(1, AT),
        {
            "event_id": BAD_ID,
            "account_id": (*BAD_ID, "*"),
            "payment_id": BAD_ID,
            "kind": BAD_KIND,
            "amount": (*MISSING, "0", "0.000", *BAD_MONEY),
            "currency": BAD_CURRENCY,
            "paid_at": (*MISSING, *BAD_INSTANT),
        },
    ),
    (
        "usage",
        usage(1, AT),
        {
            "event_id": BAD_ID,
            "account_id": (*BAD_ID, "*"),
            "usage_id": BAD_ID,
            "service": BAD_KIND,
            "quantity": (*MISSING, "-1", "1.0000000000001", "1" * 16, 7, 1.5, "NaN", INFINITE),
            "unit": BAD_ID,
            "cost": ("--1", "+1", "1.0000000000001", 7, 1.5, "NaN", INFINITE),
            "currency": ("cny", "XYZ", 7),
            "started_at": (*MISSING, *BAD_INSTANT),
            "ended_at": (*MISSING, *BAD_INSTANT),
        },
    ),
    (
        "packages",
        package(1, AT),
        {
            "event_id": BAD_ID,
            "account_id": (*BAD_ID, "*"),
            "package_id": BAD_ID,
            "kind": BAD_KIND,
            "service": BAD_KIND,
            "quantity": (*MISSING, *BAD_MONEY),
            "unit": BAD_ID,
            "at": (*MISSING, *BAD_INSTANT),
            "starts_at": (*MISSING, *BAD_INSTANT),
            "ends_at": (*MISSING, *BAD_INSTANT),
        },
    ),
    (
        "controls",
        control(1, AT, "hold"),
        {
            "event_id": BAD_ID,
            "account_id": BAD_ID,
            "kind": BAD_KIND,
            "actor": BAD_ID,
            "reason": (*NO_TEXT, "", "x" * 5000),
            "at": (*MISSING, *BAD_INSTANT),
            "until": (*BAD_INSTANT, AT, "2025-12-31T00:00:00Z"),
            "freeze_clock": ("true", 1, []),
        },
    ),
    ("controls", control(1, AT, "credit_limit", amount="1"), {"amount": (*MISSING, *BAD_MONEY), "account_id": ("*",)}),
    ("controls", control(1, AT, "allowance", duration="PT1H"), {"duration": (*MISSING, "", "1h", "P1M", "-PT1H", 7)}),
    ("controls", control(1, AT, "policy", policy="maxcompute"), {"policy": (*BAD_ID, "unknown")}),
    (
        "controls",
        control(1, AT, "policies", policies=[{"name": "a", "version": "1", "effective_from": AT}]),
        {"policies": (*MISSING, [], {}, "x", ["x"], [{"nam": "a"}])},
    ),
    (
        "controls",
        control(1, AT, "opening", balance="1", currency="CNY", status="current", sequence=0),
        {
            "balance": (*MISSING, "", "+1", "--1", "1.0000001", 7),
            "currency": BAD_CURRENCY,
            "status": (*BAD_KIND, "suspended"),
            "sequence": (*MISSING, -1, 1.0, "1", True),
            "account_id": ("*",),
        },
    ),
]


def line(record: dict[str, object], field: str, value: object) -> bytes:
    changed = {name: content for name, content in record.items() if name != field}
    if value is not ABSENT:
        changed[field] = INFINITE if value is INFINITE else value
    return json.dumps(changed).encode().replace(json.dumps(INFINITE).encode(), b"1e400")


@pytest.mark.parametrize(
    ("topic", "record", "fields"), FIELDS, ids=[f"{topic}-{record.get('kind')}" for topic, record, _ in FIELDS]
)
def test_each_bad_value_of_each_field_is_a_dead_letter_and_the_next_line_is_processed(
    tmp_path: Path, capfdbinary: Any, topic: str, record: dict[str, object], fields: dict[str, Values]
) -> None:
    bad = [(field, line(record, field, value)) for field, values in fields.items() for value in values]
    # After each bad line a good one: an account of its own, so that each that is processed is seen.
    lines = [row for number, (_, text) in enumerate(bad) for row in (text, after(topic, record, number))]
    write(tmp_path / "in", *lines)
    outputs = ["--dead-letters", tmp_path / "letters", "--accounts", tmp_path / "accounts"]
    assert inside(capfdbinary, "replay", "-q", f"--{topic}", tmp_path / "in", *outputs).code == 0
    letters = read(tmp_path / "letters")
    found = [(letter["offset"], letter["field"], letter["value"]) for letter in letters]
    assert found == [(2 * index + 1, field, text.decode()) for index, (field, text) in enumerate(bad)]
    assert {letter["error"] for letter in letters} == {"invalid"}
    for letter in letters:
        assert letter["message"]
        assert letter["message"].isprintable()
        assert len(letter["message"]) < 1000
    assert len(read(tmp_path / "accounts")) == len(bad)


def after(topic: str, record: dict[str, object], number: int) -> bytes:
    account = {"account_id": f"account-{number:05}"}
    if topic == "controls":
        return json.dumps(control(number, AT, "release", **account)).encode()
    if record["kind" if topic != "usage" else "service"] == "voided":
        return json.dumps(bill(number, AT, **account)).encode()
    return json.dumps(record | account).encode()


# Lines ------------------------------------------------------------------------------------------------------------

GOOD = json.dumps(bill(1, AT)).encode()
REPEATED = GOOD[:-1] + b', "amount": "11"}'

LINES: dict[str, tuple[bytes, str, str | None]] = {
    "no JSON": (b"nonsense", "not_json", None),
    "cut off": (GOOD[:-1], "not_json", None),
    "two values": (GOOD + GOOD, "not_json", None),
    "NaN": (GOOD.replace(b'"10"', b"NaN"), "not_json", None),
    "Infinity": (GOOD.replace(b'"10"', b"Infinity"), "not_json", None),
    "a list": (b"[" + GOOD + b"]", "invalid", None),
    "a text": (b'"text"', "invalid", None),
    "null": (b"null", "invalid", None),
    "a key twice": (REPEATED, "invalid", "amount"),
    "100,000 lists deep": (b"[" * 100_000, "not_json", None),
    "100,000 objects deep": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "not_json", None),
    "no UTF-8": (GOOD.replace(b'"b1"', b'"\xff"'), "not_json", None),
    "a lone surrogate": (GOOD.replace(b'"b1"', b'"\\ud800"'), "invalid", "event_id"),
    "a NUL": (b"\0", "not_json", None),
    "UTF-16": (GOOD.decode().encode("utf-16-le"), "not_json", None),
    "50 MB": (GOOD.replace(b'"b1"', b'"' + b"x" * 50_000_000 + b'"'), "invalid", "event_id"),
}


@pytest.mark.parametrize("kind", LINES)
def test_each_bad_line_is_a_dead_letter_and_the_next_line_is_processed(
    tmp_path: Path, capfdbinary: Any, kind: str
) -> None:
    bad, error, field = LINES[kind]
    path = write(tmp_path / "bills", bad, bill(2, LATER), bad)
    outputs = ["--dead-letters", tmp_path / "letters", "--accounts", tmp_path / "accounts"]
    ended = inside(capfdbinary, "replay", "-q", "--strict", "--bills", path, *outputs)
    assert (ended.code, ended.err) == (3, "")
    letters = read(tmp_path / "letters")
    assert [(letter["offset"], letter["error"], letter["field"]) for letter in letters] == [
        (1, error, field),
        (3, error, field),
    ]
    for letter in letters:
        assert letter["sha256"] == hashlib.sha256(bad).hexdigest()
        assert letter["truncated"] == (len(bad) > 65_536)
        text = base64.b64decode(letter["value"]) if kind == "no UTF-8" else letter["value"].encode()
        assert text == bad[:65_536]
        assert letter["message"].isprintable()
    assert [account["balance"] for account in read(tmp_path / "accounts")] == ["-10"]


def test_a_byte_order_mark_spoils_the_first_line_only(tmp_path: Path, capfdbinary: Any) -> None:
    path = write(tmp_path / "bills", b"\xef\xbb\xbf" + GOOD, bill(2, LATER))
    inside(capfdbinary, "replay", "-q", "--bills", path, "--dead-letters", tmp_path / "letters")
    (letter,) = read(tmp_path / "letters")
    assert (letter["offset"], letter["error"]) == (1, "not_json")
    assert letter["message"].endswith("save the file as UTF-8 without BOM")


def test_line_ends_of_other_systems_and_blank_lines_are_no_fault(tmp_path: Path, capfdbinary: Any) -> None:
    third = json.dumps(bill(3, LATER, currency="USD")).encode()
    (tmp_path / "bills").write_bytes(b"\r\n" + GOOD + b"\r\n\n \t\r\n" + third + b"\r\n\r\n" + b'{"a"\r\n' + third)
    inside(capfdbinary, "replay", "-q", "--bills", tmp_path / "bills", "--dead-letters", tmp_path / "letters")
    assert [(letter["offset"], letter["value"]) for letter in read(tmp_path / "letters")] == [
        (5, third.decode()),
        (7, '{"a"'),
        (8, third.decode()),
    ]


def test_the_last_line_needs_no_line_end(tmp_path: Path, capfdbinary: Any) -> None:
    (tmp_path / "bills").write_bytes(GOOD)
    inside(capfdbinary, "replay", "-q", "--bills", tmp_path / "bills", "--accounts", tmp_path / "accounts")
    assert [account["balance"] for account in read(tmp_path / "accounts")] == ["-10"]


def test_unknown_fields_are_ignored(tmp_path: Path, capfdbinary: Any) -> None:
    path = write(tmp_path / "bills", bill(1, AT, more={"deep": [1.5, None]}, NaN="NaN"))
    assert inside(capfdbinary, "replay", "--strict", "--bills", path).code == 0


def test_what_a_stranger_wrote_does_not_reach_the_terminal_as_it_is(tmp_path: Path, capfdbinary: Any) -> None:
    evil = "a\x1b[31m[bold]\x07\u202e"
    bills = write(tmp_path / "bills", bill(1, AT, account_id=evil, bill_id=evil))
    controls = write(tmp_path / "controls", control(1, AT, "hold", account_id=evil, reason=evil, actor=evil))
    ended = inside(capfdbinary, "explain", evil, "--bills", bills, "--controls", controls)
    assert ended.code == 0
    text = ended.out.decode()
    assert "\\x1b[31m[bold]\\x07\\u202e" in text
    assert not {"\x1b", "\x07", "\u202e"} & set(text)
    told = told_in_one_line(inside(capfdbinary, "explain", evil + "\n", "--bills", bills))
    assert "\x1b" not in told


# Files ------------------------------------------------------------------------------------------------------------


def test_an_empty_file_is_no_fault(tmp_path: Path, capfdbinary: Any) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert inside(capfdbinary, "replay", "-q", "--strict", "--bills", tmp_path / "empty") == (0, b"", "")
    assert inside(capfdbinary, "replay", "-q", "--strict", "--bills", "/dev/null") == (0, b"", "")


def test_a_file_that_disappears_while_it_is_read_is_told(tmp_path: Path, capfdbinary: Any) -> None:
    # Reading the memory of no process: it can be opened, and then fails as a lost disk does.
    unreadable = Path("/proc/self/mem")
    if not unreadable.exists():
        return
    told = told_in_one_line(inside(capfdbinary, "replay", "--bills", unreadable, "--commands", tmp_path / "commands"))
    assert told.startswith("arrears replay: --bills: /proc/self/mem cannot be read (Input/output error): ")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_goes_after_it_was_opened_is_read_to_its_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    command = [*ARREARS, "replay", "-q", "--bills", str(tmp_path / "pipe"), "--accounts", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), cwd=ROOT) as process:
        with (tmp_path / "pipe").open("wb") as pipe:
            pipe.write(GOOD[:20])
            pipe.flush()
            (tmp_path / "pipe").unlink()
            pipe.write(GOOD[20:])
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, json.loads(out)["balance"]) == (0, "-10")
