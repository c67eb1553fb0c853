"""The story of a demo: the same records, faster, under a policy that is as much faster."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from models.instants import DAY, SECOND, parse_instant
from models.outputs import AccountView
from models.policy import load_policies
from models.records import decode
from streams.demo.script import Script
from streams.demo.verdict import after, differences, quiet_instant
from streams.faults import Unusable
from streams.sample import Sample, write_sample

if TYPE_CHECKING:
    from pathlib import Path

NOW = parse_instant("2026-11-24T00:00:00Z")


@pytest.fixture
def month(tmp_path: Path) -> Path:
    write_sample(tmp_path, Sample(accounts=30, hourly=False))
    return tmp_path


@pytest.mark.parametrize("seconds", [10.0, 60.0, 600.0])
def test_the_policy_of_a_story_can_be_used(month: Path, seconds: float) -> None:
    script = Script(month, seconds)
    path = month / "policy.yaml"
    path.write_text(script.policy(), encoding="utf-8")
    (policy,) = load_policies(str(path)).versions
    assert policy.suspend_after < policy.delete_after
    assert policy.delete_after >= 6 * SECOND


def test_records_keep_their_order_and_can_be_used(month: Path) -> None:
    script = Script(month, 60.0)
    script.started = NOW
    instants = [decode(cue.topic, script.value(cue)).at for cue in script.cues]
    assert instants == sorted(instants)
    assert instants[0] == NOW
    assert abs(instants[-1] - NOW - 60 * SECOND) < SECOND
    assert abs(script.told(NOW + 60 * SECOND) - script.begins - script.lasts) < DAY


def test_a_duration_is_as_much_shorter(tmp_path: Path) -> None:
    control = {
        "event_id": "c1",
        "account_id": "a1",
        "kind": "allowance",
        "actor": "me",
        "reason": "delay",
        "at": "2026-01-01T00:00:00Z",
        "duration": "PT24H",
    }
    later = control | {"event_id": "c2", "kind": "hold", "at": "2026-01-11T00:00:00Z"}
    del later["duration"]
    text = "\n".join(json.dumps(record) for record in (control, later))
    (tmp_path / "controls.jsonl").write_text(text, encoding="utf-8")
    script = Script(tmp_path, 10.0)
    script.started = NOW
    assert json.loads(script.value(script.cues[0]))["duration"] == "PT1S"


def test_a_line_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "bills.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(Unusable, match=r"bills\.jsonl line 1: "):
        Script(tmp_path, 10.0)


def test_a_folder_without_records_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="there is no record in it"):
        Script(tmp_path, 10.0)


def view(account_id: str, status: str = "current", suspend_at: str | None = None) -> AccountView:
    return AccountView(
        account_id, status, "0", "0", "0", None, "0", None, suspend_at, None, 0, None, (), (), 0, "0", (), None, "p", ""
    )


def test_the_end_is_apart_from_every_mark() -> None:
    marks = ["2026-11-24T00:00:01Z", "2026-11-24T00:00:04Z", "2026-11-24T00:01:00Z"]
    views = [view(f"a{number}", suspend_at=mark) for number, mark in enumerate(marks)]
    at = quiet_instant(views, NOW)
    assert parse_instant(marks[1]) < at < after(at) < parse_instant(marks[2])
    assert quiet_instant([], NOW) == NOW


def test_differences_are_found() -> None:
    live = {"a1": view("a1"), "a2": view("a2", "suspended"), "a3": view("a3")}
    found = differences(live, {"a1": view("a1"), "a2": view("a2")})
    assert [(one.account_id, one.field) for one in found] == [
        ("a2", "status"),
        ("a3", "status"),
        ("a3", "balance"),
        ("a3", "arrears_since"),
    ]
