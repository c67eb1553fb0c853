"""The command line on files (contract §4): what comes out, where to, in which order, and with which exit code."""

from __future__ import annotations

import gc
import json
import os
import random
import re
import signal
import stat
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer

from streams.arguments import app
from streams.sample import Sample, write_sample
from tests.streams.command_line import (
    ARREARS,
    ROOT,
    Ended,
    arrears,
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

DAY_1 = "2026-01-01T00:00:00Z"
DAY_2 = "2026-01-02T00:00:00Z"
DAY_3 = "2026-01-03T00:00:00Z"
DAY_30 = "2026-01-30T00:00:00Z"

OUTPUTS = ("commands", "notices", "accounts", "dead-letters")
TOPICS = ("bills", "payments", "usage", "packages", "controls")


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command turns the garbage collector off for the rest of its process."""
    for name in os.environ:
        if name.startswith("ARREARS_"):
            monkeypatch.delenv(name)
    yield
    gc.enable()


def replay(capfdbinary: Any, folder: Path, *more: object, **topics: Path) -> dict[str, list[dict[str, Any]]]:
    """A replay with all outputs; what they hold."""
    outputs = {name: folder / f"out-{name}.jsonl" for name in OUTPUTS}
    options = [word for topic, path in topics.items() for word in (f"--{topic}", path)]
    options += [word for name, path in outputs.items() for word in (f"--{name}", path)]
    ended = inside(capfdbinary, "replay", *options, *more)
    assert (ended.code, ended.out) == (0, b""), ended.err
    return {name: read(path) for name, path in outputs.items()}


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All topics, and all stories that the sample knows."""
    folder = tmp_path_factory.mktemp("month")
    write_sample(folder, Sample(accounts=20, days=24, hourly=False))
    return folder


def sources(folder: Path) -> list[object]:
    return [word for topic in TOPICS for word in (f"--{topic}", folder / f"{topic}.jsonl")]


# Where it goes ----------------------------------------------------------------------------------------------------


def test_without_an_output_option_the_commands_go_to_standard_output_and_a_summary_to_standard_error(
    tmp_path: Path,
) -> None:
    bills = write(tmp_path / "bills", bill(1, DAY_1), bill(2, DAY_30))
    ended = arrears("replay", "--bills", bills)
    assert ended.code == 0
    assert [command["action"] for command in ended.lines] == ["suspend", "delete"]
    assert "2 records, up to 2026-01-30T00:00:00Z" in ended.err
    assert re.search(r"delete +│ +1 ", ended.err)
    assert "\x1b" not in ended.err  # neither colours nor a progress bar in a pipe


def test_quiet_says_nothing(tmp_path: Path, capfdbinary: Any) -> None:
    bills = write(tmp_path / "bills", bill(1, DAY_1))
    assert inside(capfdbinary, "replay", "--bills", bills, "--quiet") == Ended(0, b"", "")


def test_only_what_is_asked_for_is_written(tmp_path: Path, capfdbinary: Any) -> None:
    bills = write(tmp_path / "bills", bill(1, DAY_1), bill(2, DAY_30))
    ended = inside(capfdbinary, "replay", "-q", "--bills", bills, "--accounts", tmp_path / "accounts")
    assert ended == Ended(0, b"", "")
    assert [account["status"] for account in read(tmp_path / "accounts")] == ["deleted"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["accounts", "bills"]


def test_a_dash_is_standard_input_and_output(tmp_path: Path) -> None:
    bills = write(tmp_path / "bills", bill(1, DAY_1), bill(2, DAY_3))
    straight = arrears("replay", "-q", "--bills", bills, "--notices", tmp_path / "notices")
    piped = arrears("replay", "-q", "--bills", "-", "--notices", "-", stdin=bills.read_bytes())
    assert (straight.code, piped.code) == (0, 0)
    assert piped.out == (tmp_path / "notices").read_bytes() != b""


def test_an_output_keeps_its_permissions_and_its_link(tmp_path: Path, capfdbinary: Any) -> None:
    bills = write(tmp_path / "bills", bill(1, DAY_1), bill(2, DAY_3))
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("before")
    real.chmod(0o640)
    link.symlink_to(real)
    assert inside(capfdbinary, "replay", "-q", "--bills", bills, "--commands", link).code == 0
    assert link.is_symlink()
    assert [command["action"] for command in read(real)] == ["suspend"]
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_a_named_pipe_is_written_as_the_run_goes(tmp_path: Path) -> None:
    bills = write(tmp_path / "bills", bill(1, DAY_1), bill(2, DAY_3))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        assert arrears("replay", "-q", "--bills", bills, "--commands", pipe).code == 0
        out, _ = reader.communicate(timeout=30)
    assert json.loads(out)["action"] == "suspend"
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "-", "/dev/stderr"])
def test_what_is_appended_to_keeps_what_it_holds(tmp_path: Path, name: str) -> None:
    bills, appended = write(tmp_path / "bills", bill(1, DAY_1), bill(2, DAY_3)), tmp_path / "appended"
    appended.write_text('{"action":"before"}\n')
    with appended.open("ab") as out:
        command = [*ARREARS, "replay", "-q", "--bills", str(bills), "--commands", name]
        assert subprocess.run(command, stdout=out, stderr=out, check=False, env=environment(), cwd=ROOT).returncode == 0
    assert [command["action"] for command in read(appended)] == ["before", "suspend"]


def test_a_run_that_fails_leaves_no_file_and_changes_none(tmp_path: Path, capfdbinary: Any) -> None:
    bills = write(tmp_path / "bills", bill(1, DAY_1), bill(2, DAY_3))
    (tmp_path / "commands").write_text("before")
    outputs = ["--commands", tmp_path / "commands", "--notices", tmp_path / "notices", "--accounts", "/dev/full"]
    told = told_in_one_line(inside(capfdbinary, "replay", "-q", "--bills", bills, *outputs))
    assert told.startswith("arrears replay: --accounts: /dev/full cannot be written (No space left on device)")
    assert (tmp_path / "commands").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bills", "commands"]


# In which order ---------------------------------------------------------------------------------------------------


def test_the_order_of_the_lines_does_not_matter(month: Path, tmp_path: Path, capfdbinary: Any) -> None:
    outputs = []
    for seed in (None, 1, 2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        for topic in TOPICS:
            lines = (month / f"{topic}.jsonl").read_bytes().splitlines()
            if topic == "bills":
                lines += [*lines[:5], b"{}", b"not json"]  # some twice, and some bad
            if seed is not None:
                random.Random(seed).shuffle(lines)
            ending = b"\n" if seed is None else b"\r\n\n"
            (folder / f"{topic}.jsonl").write_bytes(ending.join(lines))
        paths = [word for name in OUTPUTS for word in (f"--{name}", folder / name)]
        assert inside(capfdbinary, "replay", "-q", *sources(folder), *paths).code == 0
        letters = [{**letter, "offset": 0} for letter in read(folder / "dead-letters")]
        letters.sort(key=str)
        outputs.append(([(folder / name).read_bytes() for name in OUTPUTS[:3]], letters))
    assert outputs[0] == outputs[1] == outputs[2]
    assert all(outputs[0][0])
    assert len(outputs[0][1]) == 2


def test_outputs_are_in_the_contract_s_order(month: Path, tmp_path: Path, capfdbinary: Any) -> None:
    found = replay(capfdbinary, tmp_path, **{topic: month / f"{topic}.jsonl" for topic in TOPICS})

    def instant(text: str) -> tuple[str, str]:
        return text[:19], text[19:].strip(".Z")

    commands = [(instant(c["effective_at"]), c["account_id"], c["sequence"]) for c in found["commands"]]
    last = ("usage_while_suspended", "package_exhausted")
    notices = [(instant(n["at"]), n["account_id"], n["kind"] in last, n["notice_id"]) for n in found["notices"]]
    accounts = [account["account_id"] for account in found["accounts"]]
    assert commands == sorted(commands)
    assert notices == sorted(notices)
    assert accounts == sorted(accounts)
    assert {n["kind"] for n in found["notices"]} >= set(last)
    assert len(set(commands)) == len(commands) > 10


def test_marks_and_records_of_one_instant_are_put_in_order_together(tmp_path: Path, capfdbinary: Any) -> None:
    # At one instant z is restored by a record, and just behind it the mark of a falls: both are effective then.
    bills = write(
        tmp_path / "bills",
        bill(1, "2026-01-01T12:00:00Z", account_id="z"),
        bill(2, "2026-01-02T00:00:00Z", account_id="a"),
        bill(3, "2026-01-05T00:00:00Z", account_id="k"),
    )
    payments = write(tmp_path / "payments", payment(1, DAY_3, account_id="z"))
    found = replay(capfdbinary, tmp_path, bills=bills, payments=payments)
    at_that_instant = [c for c in found["commands"] if c["effective_at"] == DAY_3]
    assert [(c["account_id"], c["action"]) for c in at_that_instant] == [("a", "suspend"), ("z", "restore")]


# Until when -------------------------------------------------------------------------------------------------------


def test_until_at_a_mark_fires_nothing_and_a_microsecond_later_it_does(tmp_path: Path, capfdbinary: Any) -> None:
    bills = write(tmp_path / "bills", bill(1, DAY_1))
    at = inside(capfdbinary, "replay", "-q", "--bills", bills, "--until", DAY_2)
    past = inside(capfdbinary, "replay", "-q", "--bills", bills, "--until", "2026-01-02T00:00:00.000001Z")
    assert at == Ended(0, b"", "")
    (command,) = past.lines
    assert (command["action"], command["effective_at"], command["decided_at"]) == ("suspend", DAY_2, DAY_2)


def test_records_after_until_are_left_out_but_what_cannot_be_read_is_told(tmp_path: Path, capfdbinary: Any) -> None:
    bills = write(
        tmp_path / "bills",
        bill(1, DAY_1),
        bill(2, DAY_2, amount="-1"),
        bill(3, DAY_3, currency="USD"),
        b"{",
        bill(4, DAY_3),
    )
    found = replay(capfdbinary, tmp_path, "--until", DAY_2, bills=bills)
    assert [(letter["offset"], letter["error"]) for letter in found["dead-letters"]] == [
        (2, "invalid"),
        (4, "not_json"),
    ]
    (account,) = found["accounts"]
    assert (account["balance"], account["as_of"]) == ("-10", DAY_2)
    summary = inside(capfdbinary, "replay", "--bills", bills, "--until", DAY_2).err
    assert "1 used, 2 bad, 2 after the end" in summary


def test_without_until_the_clock_ends_with_the_last_record_that_is_used(tmp_path: Path, capfdbinary: Any) -> None:
    # The last ones are refused: dated on day 30, they would carry the clock past both marks.
    refused = [
        bill(2, DAY_30, currency="USD"),
        bill(3, DAY_30, kind="adjusted", bill_id="never-issued"),
        bill(4, DAY_30, bill_id="bill-1"),
        bill(5, "2026-02-30T00:00:00Z"),
        bill(1, "2026-01-20T00:00:00Z"),
    ]
    used = [bill(1, DAY_1), bill(6, "2026-01-01T23:00:00Z", amount="1")]
    bills = write(tmp_path / "bills", *refused, *used)
    alone = write(tmp_path / "alone", *used)
    found = replay(capfdbinary, tmp_path, bills=bills)
    letters = {letter["offset"]: letter["error"] for letter in found.pop("dead-letters")}
    assert letters == {1: "currency_mismatch", 2: "unknown_bill", 3: "conflict", 4: "invalid", 5: "conflict"}
    expected = replay(capfdbinary, tmp_path, bills=alone)
    assert expected.pop("dead-letters") == []
    assert found == expected
    assert (found["commands"], found["accounts"][0]["as_of"]) == ([], "2026-01-01T23:00:00Z")
    assert found["accounts"][0]["status"] == "in_arrears"
    told = replay(capfdbinary, tmp_path, "--until", "2026-01-01T23:00:00Z", bills=bills)
    assert [letter["offset"] for letter in told.pop("dead-letters")] == [4]  # no one knows when it was
    assert found == told


def test_a_refused_record_in_between_changes_nothing(tmp_path: Path, capfdbinary: Any) -> None:
    between = [bill(1, DAY_1), bill(2, DAY_3, currency="USD"), bill(3, DAY_30, amount="0")]
    found = replay(capfdbinary, tmp_path, bills=write(tmp_path / "bills", *between))
    assert [c["action"] for c in found["commands"]] == ["suspend", "delete"]


@pytest.mark.parametrize("lines", [b"", b"\n\n \r\n", b"nonsense\n"], ids=["empty", "blank", "bad"])
def test_without_a_usable_record_nothing_comes_out(tmp_path: Path, capfdbinary: Any, lines: bytes) -> None:
    (tmp_path / "bills").write_bytes(lines)
    found = replay(capfdbinary, tmp_path, bills=tmp_path / "bills")
    assert (found["commands"], found["notices"], found["accounts"]) == ([], [], [])
    assert len(found["dead-letters"]) == (b"nonsense" in lines)


def test_a_control_for_everybody_counts_for_the_clock_and_has_no_account(tmp_path: Path, capfdbinary: Any) -> None:
    bills = write(tmp_path / "bills", bill(1, DAY_1))
    controls = write(tmp_path / "controls", control(1, DAY_3, "release", account_id="*"))
    found = replay(capfdbinary, tmp_path, bills=bills, controls=controls)
    assert [c["action"] for c in found["commands"]] == ["suspend"]
    assert [(account["account_id"], account["as_of"]) for account in found["accounts"]] == [("a", DAY_3)]


# Bad lines and exit codes -----------------------------------------------------------------------------------------


def test_strict_is_an_exit_code_and_the_work_is_done_all_the_same(tmp_path: Path, capfdbinary: Any) -> None:
    bad = write(tmp_path / "bad", bill(1, DAY_1), b"{", bill(2, DAY_3), bill(3, DAY_3, bill_id="bill-1"))
    good = write(tmp_path / "good", bill(1, DAY_1), bill(2, DAY_3))
    letters = tmp_path / "letters"
    assert [
        inside(capfdbinary, "replay", "-q", "--bills", bad).code,
        inside(capfdbinary, "replay", "-q", "--bills", bad, "--strict").code,
        inside(capfdbinary, "replay", "-q", "--bills", bad, "--strict", "--dead-letters", letters).code,
        inside(capfdbinary, "replay", "-q", "--bills", good, "--strict").code,
    ] == [0, 3, 3, 0]
    assert [(letter["offset"], letter["error"]) for letter in read(letters)] == [(2, "not_json"), (4, "conflict")]
    ended = inside(capfdbinary, "replay", "-q", "--bills", bad, "--strict")
    assert [command["action"] for command in ended.lines] == ["suspend"]


def test_bad_lines_are_counted_on_standard_error_unless_they_are_written(tmp_path: Path, capfdbinary: Any) -> None:
    bills = write(tmp_path / "bills", bill(1, DAY_1), b"{", b"[]")
    quiet = inside(capfdbinary, "replay", "-q", "--bills", bills)
    assert quiet.err == "arrears replay: 2 lines could not be used; --dead-letters FILE tells which and why\n"
    assert inside(capfdbinary, "replay", "-q", "--bills", bills, "--dead-letters", "-").err == ""


def test_dead_letters_come_by_topic_and_line(tmp_path: Path, capfdbinary: Any) -> None:
    unknown = control(1, DAY_1, "policy", policy="unknown")
    cancelled = package(1, DAY_1, kind="cancelled")
    topics = {
        "controls": write(tmp_path / "controls", b"", unknown, b"x"),
        "packages": write(tmp_path / "packages", b"x", cancelled),
        "usage": write(tmp_path / "usage", usage(1, DAY_1), b"x", usage(1, DAY_1, quantity="2")),
        "payments": write(tmp_path / "payments", b"", b"x"),
        "bills": write(tmp_path / "bills", bill(1, DAY_2), bill(1, DAY_1), b"x", bill(2, DAY_1, currency="EUR")),
    }
    found = replay(capfdbinary, tmp_path, **topics)["dead-letters"]
    assert [(letter["topic"], letter["offset"], letter["error"]) for letter in found] == [
        ("bills", 1, "conflict"),
        ("bills", 3, "not_json"),
        ("bills", 4, "currency_mismatch"),
        ("payments", 2, "not_json"),
        ("usage", 2, "not_json"),
        ("usage", 3, "conflict"),
        ("packages", 1, "not_json"),
        ("packages", 2, "invalid"),
        ("controls", 2, "invalid"),
        ("controls", 3, "not_json"),
    ]
    assert {(letter["partition"], letter["key"], letter["received_at"]) for letter in found} == {(None, None, None)}


# What a user gets wrong: one line, exit code 2 --------------------------------------------------------------------

WRONG: dict[str, tuple[list[str], str]] = {
    "nothing to read": (["replay"], "give at least one of --bills, --payments"),
    "unknown command": (["replya"], "No such command 'replya'"),
    "unknown option": (["replay", "--bill", "x"], "--bills"),
    "option without value": (["replay", "--bills"], "requires an argument"),
    "something left over": (["replay", "--bills", "GOOD", "more"], "more"),
    "an option twice": (["replay", "--bills", "GOOD", "--bills", "GOOD"], "--bills is given twice"),
    "missing file": (["replay", "--bills", "NONE"], "there is no file"),
    "a directory": (["replay", "--payments", "FOLDER"], "is a directory: name a file in it"),
    "an empty name": (["replay", "--bills", ""], "there is no file"),
    "until": (["replay", "--bills", "GOOD", "--until", "2026-01-01"], "--until must be an instant like"),
    "two inputs from standard input": (["replay", "--bills", "-", "--payments", "-"], "only one input can be"),
    "two outputs to standard output": (
        ["replay", "--bills", "GOOD", "--commands", "-", "--accounts", "-"],
        "only one output can be",
    ),
    "two outputs to one file": (
        ["replay", "--bills", "GOOD", "--commands", "FOLDER/x", "--accounts", "FOLDER/../FOLDER_NAME/x"],
        "--commands and --accounts are one file",
    ),
    "an output that is an input": (
        ["replay", "--bills", "GOOD", "--commands", "GOOD"],
        "would overwrite what --bills reads",
    ),
    "an output that is the policy": (
        ["replay", "--bills", "GOOD", "--policy", "POLICY", "--commands", "POLICY"],
        "would overwrite what --policy reads",
    ),
    "an output in no folder": (["replay", "--bills", "GOOD", "--commands", "NONE/x"], "there is no folder for"),
    "an output that is a folder": (["replay", "--bills", "GOOD", "--commands", "FOLDER"], "is a directory"),
    "no policy": (["replay", "--bills", "GOOD", "--policy", "NONE"], "there is no such file"),
    "an unusable policy": (["replay", "--bills", "GOOD", "--policy", "GOOD"], "--policy: "),
    "an empty app id": (["replay", "--bills", "GOOD", "--app-id", ""], "--app-id has to have 1 to 256 bytes"),
    "no account": (["explain", "--bills", "GOOD"], "Missing argument 'ACCOUNT'"),
    "everybody": (["explain", "*", "--bills", "GOOD"], "name one account"),
    "unknown account": (["explain", "nobody", "--bills", "GOOD"], "there is no account nobody"),
    "an account that is written otherwise": (["explain", "A", "--bills", "GOOD"], "did you mean a?"),
    "explain nothing": (["explain", "a"], "give at least one of --bills"),
    "explain a missing file": (["explain", "a", "--bills", "NONE"], "there is no file"),
    "no policy to check": (["policy", "check", "NONE"], "there is no such file"),
    "unknown policy command": (["policy", "chek"], "No such command 'chek'"),
    "a sample in a file": (["sample", "GOOD"], "choose another folder"),
    "a sample of nobody": (["sample", "FOLDER", "--accounts", "0"], "--accounts must be from 1"),
    "a sample of something": (["sample", "FOLDER", "--accounts", "x"], "--accounts"),
    "a sample of a bad currency": (["sample", "FOLDER", "--currency", "cny"], "--currency must be"),
    "a sample from no instant": (["sample", "FOLDER", "--start", "today"], "--start must be an instant"),
    "a sample from noon": (["sample", "FOLDER", "--start", "2026-01-01T12:00:00Z"], "--start must be a midnight"),
    "a demo of no folder": (["demo", "--data", "GOOD"], "name one with bills.jsonl"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_mistake_is_told_in_one_line(tmp_path: Path, capfdbinary: Any, wrong: str) -> None:
    arguments, expected = WRONG[wrong]
    folder = tmp_path / "folder"
    folder.mkdir()
    good, policy = write(tmp_path / "good.jsonl", bill(1, DAY_1)), tmp_path / "policy.yaml"
    policy.write_text("policies: [{name: a, version: b, effective_from: 2020-01-01T00:00:00Z}]")
    before = good.read_bytes(), policy.read_bytes()
    places = {"GOOD": good, "POLICY": policy, "NONE": tmp_path / "none", "FOLDER_NAME": folder.name, "FOLDER": folder}
    for name, place in places.items():
        arguments = [argument.replace(name, str(place)) for argument in arguments]
    told = told_in_one_line(inside(capfdbinary, *arguments))
    assert expected in told
    known = [word for word in arguments[:2] if word in ("replay", "explain", "sample", "demo", "policy", "check")]
    assert told.startswith(f"{' '.join(['arrears', *known])}: ")
    assert (good.read_bytes(), policy.read_bytes()) == before
    assert not [path for path in tmp_path.rglob("*") if ".part" in path.name]


def test_a_file_that_may_not_be_read_or_written_is_told(tmp_path: Path) -> None:
    bills = write(tmp_path / "bills", bill(1, DAY_1))
    protected = tmp_path / "protected"
    protected.write_text("before")
    protected.chmod(0o000)
    if os.access(protected, os.R_OK):
        return  # the super-user may do everything
    assert "Permission denied" in told_in_one_line(arrears("replay", "--bills", protected))
    assert "write-protected" in told_in_one_line(arrears("replay", "--bills", bills, "--commands", protected))


# Pipes, devices, signals ------------------------------------------------------------------------------------------


def test_a_reader_that_has_enough_ends_it_quietly(tmp_path: Path) -> None:
    bills = write(tmp_path / "bills", *(bill(n, DAY_1, account_id=f"account-{n}") for n in range(3000)))
    command = [*ARREARS, "replay", "--bills", str(bills), "--until", DAY_30]
    with (
        (tmp_path / "err").open("wb") as err,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, env=environment(), cwd=ROOT) as process,
    ):
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["action"] == "suspend"
        process.stdout.close()
        assert process.wait(timeout=60) == 0
    assert (tmp_path / "err").read_text() == ""


def test_a_reader_that_has_enough_does_not_end_what_else_is_asked_for(tmp_path: Path) -> None:
    bills = write(tmp_path / "bills", *(bill(n, DAY_1, account_id=f"account-{n}") for n in range(1500)))
    outputs = ["--commands", "-", "--accounts", str(tmp_path / "accounts")]
    command = [*ARREARS, "replay", "-q", "--bills", str(bills), "--until", DAY_30, *outputs]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), cwd=ROOT) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=60) == 0
    assert Counter(account["status"] for account in read(tmp_path / "accounts")) == {"deleted": 1500}


@pytest.mark.parametrize(
    ("command", "redirect"),
    [
        ("replay --quiet --until 2026-01-03T00:00:00Z", ">/dev/full"),
        ("replay --quiet", ">&-"),
        ("explain a", ">/dev/full"),
        ("explain a --json", ">/dev/full"),
        ("explain a", ">&-"),
        ("explain a --json", ">&-"),
    ],
)
def test_a_standard_output_that_takes_nothing_is_told_in_one_line(tmp_path: Path, command: str, redirect: str) -> None:
    bills = write(tmp_path / "bills", bill(1, DAY_1))
    line = f"exec {' '.join(ARREARS)} {command} --bills {bills} {redirect}"
    ended = subprocess.run(["sh", "-c", line], capture_output=True, check=False, env=environment(), cwd=ROOT)
    assert "standard output" in told_in_one_line(Ended(ended.returncode, ended.stdout, ended.stderr.decode()))


@pytest.mark.parametrize("redirect", ["2>/dev/full", "2>&-", "<&-"])
def test_a_standard_error_or_input_that_is_not_there_does_no_harm(tmp_path: Path, redirect: str) -> None:
    bills = write(tmp_path / "bills", bill(1, DAY_1), bill(2, DAY_3))
    line = f"exec {' '.join(ARREARS)} replay --bills {bills} {redirect}"
    ended = subprocess.run(["sh", "-c", line], capture_output=True, check=False, env=environment(), cwd=ROOT)
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["action"] == "suspend"


def test_a_closed_standard_input_is_told() -> None:
    line = f"exec {' '.join(ARREARS)} replay --bills - <&-"
    ended = subprocess.run(["sh", "-c", line], capture_output=True, check=False, env=environment(), cwd=ROOT)
    assert "it is closed" in told_in_one_line(Ended(ended.returncode, ended.stdout, ended.stderr.decode()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_one_line_and_no_half_file(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "commands").write_text("before")
    command = [*ARREARS, "replay", "--bills", "-", "--commands", str(tmp_path / "commands")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), cwd=ROOT
    ) as process:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) == 1:  # until it has begun to write, and waits for its input
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (128 + number, b"arrears replay: stopped before the end\n")
    assert [path.name for path in tmp_path.iterdir()] == ["commands"]
    assert (tmp_path / "commands").read_text() == "before"


# Options ----------------------------------------------------------------------------------------------------------


def commands(group: Any = None, name: str = "arrears") -> Iterator[tuple[str, Any]]:
    group = typer.main.get_command(app) if group is None else group
    yield name, group
    for word, command in getattr(group, "commands", {}).items():
        yield from commands(command, f"{name} {word}")


def test_every_option_has_an_environment_variable() -> None:
    without = [
        (name, option.opts[0])
        for name, command in commands()
        for option in command.get_params(typer.Context(command))
        if option.param_type_name == "option" and not str(option.envvar).startswith("ARREARS_")
    ]
    assert {option for _, option in without} == {"--help", "--version", "--install-completion", "--show-completion"}


def test_environment_variables_do_what_the_options_do(tmp_path: Path) -> None:
    bills = write(tmp_path / "bills", bill(1, DAY_1), b"{")
    by_option = ("replay", "--bills", bills, "--until", DAY_3, "--app-id", "other", "--strict", "--quiet")
    by_variable = {"BILLS": str(bills), "UNTIL": DAY_3, "APP_ID": "other", "STRICT": "1", "QUIET": "1"}
    expected = arrears(*by_option)
    assert expected.code == 3
    assert expected == arrears("replay", env={f"ARREARS_{name}": value for name, value in by_variable.items()})


def test_the_app_id_enters_the_ids(tmp_path: Path, capfdbinary: Any) -> None:
    bills = write(tmp_path / "bills", bill(1, DAY_1), bill(2, DAY_3))
    ids = {
        inside(capfdbinary, "replay", "-q", "--bills", bills, *more).lines[0]["command_id"]
        for more in ((), ("--app-id", "arrears"), ("--app-id", "other"))
    }
    assert len(ids) == 2


def test_a_policy_file_holds(tmp_path: Path, capfdbinary: Any) -> None:
    bills = write(tmp_path / "bills", bill(1, DAY_1), bill(2, "2026-01-01T00:01:00Z"))
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "policies:\n- {name: quick, version: '1', effective_from: 2020-01-01T00:00:00Z, suspend_after: PT5S,"
        " delete_after: PT30S, notices: {suspension_ahead: [], deletion_ahead: []}}\n"
    )
    found = inside(capfdbinary, "replay", "-q", "--bills", bills, "--policy", policy).lines
    assert [(c["action"], c["effective_at"], c["policy"]) for c in found] == [
        ("suspend", "2026-01-01T00:00:05Z", "quick@1"),
        ("delete", "2026-01-01T00:00:30Z", "quick@1"),
    ]
    told = inside(capfdbinary, "policy", "check", policy)
    assert (told.code, told.err) == (0, "")
    assert (
        "suspends compute and download 5 seconds after arrears began (1.1.2); warns nobody before" in told.out.decode()
    )


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_help_reads_well_and_has_an_example(capfdbinary: Any, name: str) -> None:
    words = name.split()[1:]
    asked = inside(capfdbinary, *words, "--help")
    assert (asked.code, asked.err) == (0, "")
    assert inside(capfdbinary, *words, "-h") == asked
    text = asked.out.decode()
    assert f"Usage: {name} " in text
    assert "None" not in text
    if words not in (["policy"], ["topics"], ["kafka"]):
        assert f"Example: {name} " in text


def test_without_a_command_the_help_is_shown(capfdbinary: Any) -> None:
    assert inside(capfdbinary) == inside(capfdbinary, "--help")


def test_the_version_is_that_of_the_project(capfdbinary: Any) -> None:
    declared = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert declared is not None
    assert inside(capfdbinary, "--version") == Ended(0, f"arrears {declared[1]}\n".encode(), "")


def test_shells_complete_commands_and_options() -> None:
    begun = {"_ARREARS_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    assert arrears(env={"COMP_WORDS": "arrears re", **begun}).out.split() == [b"replay"]
    begun["COMP_CWORD"] = "2"
    assert b"--dead-letters" in arrears(env={"COMP_WORDS": "arrears replay --de", **begun}).out.split()
    # Told which shell, for the one that runs the tests may be one that has no completion.
    told = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    assert b"complete" in arrears("--show-completion", "bash", env=told).out


# Sample and demo --------------------------------------------------------------------------------------------------


def test_a_sample_is_written_and_the_next_step_is_told(tmp_path: Path, capfdbinary: Any) -> None:
    folder = tmp_path / "my month"
    ended = inside(capfdbinary, "sample", folder, "--accounts", 5, "--days", 3, "--daily")
    assert (ended.code, ended.err) == (0, "")
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{topic}.jsonl" for topic in TOPICS)
    typed = ended.out.decode().split("Next:\n")[1].replace("arrears", " ".join(ARREARS), 1)
    pasted = subprocess.run(
        ["sh", "-c", typed], capture_output=True, check=False, env=environment(ARREARS_QUIET="1"), cwd=ROOT
    )
    assert (pasted.returncode, pasted.stderr) == (0, b"")


def test_real_records_of_credit_card_clients(tmp_path: Path) -> None:
    """UCI "Default of credit card clients": an independent model gets 1,052 suspend, 117 restore, 935 delete."""
    folder = Path(os.environ.get("ARREARS_SHARED_DATA", ROOT.parent / "shared" / "data")) / "uci"
    if not folder.is_dir():
        print("the real records are not there: nothing was replayed")  # noqa: T201
        return
    inputs = ["--bills", folder / "bills.jsonl", "--payments", folder / "payments.jsonl"]
    ended = arrears(
        "replay", *inputs, "--until", "2005-12-01T00:00:00Z", "--accounts", tmp_path / "a", "--commands", "-"
    )
    assert ended.code == 0
    assert Counter(c["action"] for c in ended.lines) == {"suspend": 1052, "restore": 117, "delete": 935}
    assert Counter(account["status"] for account in read(tmp_path / "a")) == {"deleted": 935, "current": 65}
