"""How a monitor stands and what is wrong with it, from what the brokers show."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from models.everybody import Everybody
from models.instants import DAY, HOUR, MINUTE, SECOND, format_instant, parse_instant
from models.policy import BUILT_IN, parse_policies, to_json
from models.records import TOPICS
from streams.findings import _MENDS, Finding, Weight, of_dead_letters, of_snapshot, of_transactions
from streams.group import Group, Worker
from streams.held import Held
from streams.payments_watch import PaymentsWatch
from streams.snapshot import Accounts, Ahead, Snapshot, count
from streams.status import _STOPS, ago, as_json_object, shown, stops
from streams.table import Kept
from streams.waiting import _STOPS as WAITING
from streams.watermarks import Ends
from tests.streams.command_line import ROOT

NOW = parse_instant("2026-02-01T12:00:00Z")
SKEW = 30 * SECOND


def held(*, committed: int = NOW - SECOND, partitions: int = 2, **positions: int) -> Held:
    everybody = Everybody(BUILT_IN, 45 * DAY)
    everybody.decided_to = NOW - SECOND
    next_offsets = dict.fromkeys(TOPICS, 10) | positions
    return Held(everybody, Kept(partitions, PaymentsWatch(NOW)), next_offsets, committed // 1000)


def snapshot(*partitions: Held, **more: Any) -> Snapshot:
    found = partitions or (held(), held())
    places = [(topic, number) for topic in TOPICS for number in range(len(found))]
    return Snapshot(
        at=NOW,
        app_id="arrears",
        partitions=len(found),
        group=more.pop("group", Group("Stable", [Worker("w1", "10.0.0.1", frozenset(range(len(found))))])),
        held=dict(enumerate(found)),
        earliest=dict.fromkeys(places, 0) | more.pop("earliest", {}),
        ends=dict.fromkeys(places, Ends(10, 10)) | more.pop("ends", {}),
        accounts=more.pop("accounts", Accounts()),
    )


def told(found: Snapshot) -> list[Finding]:
    return list(of_snapshot(found, SKEW))


def only(found: Snapshot) -> Finding:
    (finding,) = told(found)
    return finding


def test_a_monitor_that_is_well_has_nothing() -> None:
    assert told(snapshot()) == []


def test_nobody_there() -> None:
    for state in ("Empty", "Dead"):
        assert only(snapshot(group=Group(state, []))) == (
            Weight.FATAL,
            "No worker runs: nothing is decided.",
            "start one: arrears worker",
        )
    assert only(snapshot(group=Group("PreparingRebalance", []))).weight is Weight.WARNING
    alone = only(snapshot(group=Group("Stable", [Worker("w1", "h", frozenset({0}))])))
    assert alone.told == "Nobody has partition 1: nothing is decided there."


@pytest.mark.parametrize(
    ("reason", "mend"),
    [
        ("max_deletes", "arrears control resume '*' --reason …"),
        ("clock_skew", "set the clock of the worker's machine"),
        ("unheard_of", "arrears control resume '*' --reason …"),
    ],
)
def test_a_stop(reason: str, mend: str) -> None:
    one, two = held(), held()
    assert two.everybody is not None
    two.everybody.stop(reason, ("suspend", "delete"), NOW)
    finding = only(snapshot(one, two))
    assert finding.weight is Weight.FATAL
    assert finding.told == f"{reason} stops suspends and deletes on partition 1."
    assert mend in finding.mend
    assert stops(two)


def test_a_state_of_another_number_of_partitions() -> None:
    finding = only(snapshot(held(partitions=8), held(partitions=8)))
    assert "The state was made with 8 partitions, the topics have 2" in finding.told


def test_records_that_were_deleted_before_they_were_read() -> None:
    finding = only(snapshot(held(bills=3, committed=NOW - HOUR), held(), earliest={("bills", 0): 7}))
    assert "Records 3 to 6 of bills, partition 0, were deleted before they were read" in finding.told


def test_a_partition_that_stands_still() -> None:
    stuck = held(payments=4, committed=NOW - 10 * MINUTE)
    assert only(snapshot(held(), stuck)).told == (
        "Partition 1 has 6 records to apply and has not committed for 10 minutes."
    )
    assert told(snapshot(held(), held(payments=4))) == []  # it is at it
    assert told(snapshot(held(), held(committed=NOW - DAY))) == []  # it has nothing to do


def test_a_clock_behind_the_brokers() -> None:
    finding = only(snapshot(held(committed=NOW + 5 * MINUTE), held()))
    assert finding.told == "The clock of this machine is at least PT5M behind the brokers'."
    assert told(snapshot(held(committed=NOW + 10 * SECOND), held())) == []


def test_partitions_that_hold_different_policies() -> None:
    other = held()
    assert other.everybody is not None
    (built_in,) = to_json(BUILT_IN)
    other.everybody.add_policies(NOW - HOUR, "e", parse_policies([built_in | {"name": "friendly"}]))
    finding = only(snapshot(held(), other))
    assert "partition 0: maxcompute@2018-03-16; partition 1: friendly@2018-03-16" in finding.told


def test_a_transaction_that_hangs() -> None:
    hanging = snapshot(ends={("bills", 1): Ends(10, 6)})
    gone = snapshot(ends={("bills", 1): Ends(12, 12)})
    moved = snapshot(ends={("bills", 1): Ends(12, 11)})
    (finding,) = of_transactions(hanging, hanging)
    assert finding.told == "A transaction hangs in bills, partition 1, at offset 6: decisions wait."
    assert list(of_transactions(hanging, gone)) == list(of_transactions(hanging, moved)) == []


def test_dead_letters() -> None:
    assert list(of_dead_letters({})) == []
    (finding,) = of_dead_letters({"usage": 1, "payments": 1_200})
    assert finding.told == "Records of the last 24 hours could not be used: payments 1,200, usage 1."


def test_marks_are_counted_by_when_they_fall() -> None:
    def view(status: str, suspend: int | None = None, delete: int | None = None) -> bytes:
        marks = {"suspend_at": suspend, "delete_at": delete}
        instants = {name: None if at is None else format_instant(NOW + at) for name, at in marks.items()}
        return json.dumps({"account_id": "a", "status": status} | instants).encode()

    found = count(
        [
            view("current"),
            view("in_arrears", HOUR - 1, DAY),
            view("in_arrears", -SECOND, DAY),
            view("in_arrears", DAY - 1),
            view("in_arrears", DAY),
            view("in_arrears"),
            view("suspended", None, 0),
            view("suspended", None, -1),
            view("deleted"),
        ],
        NOW,
    )
    assert found.by_status == {"current": 1, "in_arrears": 5, "suspended": 2, "deleted": 1}
    assert found.suspends == Ahead(1, 1, 2)
    assert found.deletes == Ahead(1, 1, 1)


def test_the_screen_and_the_json_say_the_same() -> None:
    never = Held(None, None, {}, None)
    found = snapshot(held(bills=7), never, ends={("usage", 0): Ends(10, 9)}, accounts=Accounts())
    told_as_json = as_json_object(found)
    assert json.loads(json.dumps(told_as_json))
    partitions: Any = told_as_json["partitions"]
    assert partitions[0]["lag"] == dict.fromkeys(TOPICS, 0) | {"bills": 3}
    assert partitions[0]["open_transactions"] == ["usage"]
    assert (partitions[1]["decided_to"], partitions[1]["committed_at"]) == (None, None)
    assert partitions[1]["lag"] == dict.fromkeys(TOPICS, 10)
    lines = [str(part) for part in shown(found, {"bootstrap_servers": "b:9092"})]
    assert "arrears at b:9092, 2026-02-01 12:00:00 UTC" in lines
    assert "Not applied yet: bills 13, payments 10, usage 10, packages 10, controls 10, acks 10" in lines
    assert "A transaction is open in usage, partition 0: decisions wait for its end." in lines


@pytest.mark.parametrize(
    ("duration", "words"),
    [
        (0, "0 seconds"),
        (-SECOND, "0 seconds"),
        (90 * SECOND, "90 seconds"),
        (3 * HOUR, "3 hours"),
        (50 * DAY, "50 days"),
    ],
)
def test_how_long_ago(duration: int, words: str) -> None:
    assert ago(duration) == words


def test_every_stop_has_its_words_and_its_mend() -> None:
    files = [path for part in ("models", "streams") for path in (ROOT / part).glob("*.py")]
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    reasons = set(re.findall(r"""\.stop\(\s*"([a-z_]+)", """, text))
    guards = {"max_deletes", "max_suspends"}
    assert reasons | guards == _MENDS.keys() == _STOPS.keys() == WAITING.keys()
