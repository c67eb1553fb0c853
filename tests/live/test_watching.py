"""`status`, `doctor` and `explain` of a monitor that works."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.live.kafka import producing, run
from tests.live.workers import WorkerProcess, bill, control, payment, send, wait_until
from tests.streams.command_line import Ended, inside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from streams.local_kafka import LocalKafka
    from tests.live.conftest import FreshTopics

pytestmark = pytest.mark.live

PARTITIONS = 2


@pytest.fixture
def tool(fresh_topics: FreshTopics, capfdbinary: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """`arrears …` within this process, on fresh topics."""
    monkeypatch.setenv("ARREARS_BROKERS", fresh_topics(PARTITIONS)["bootstrap_servers"])
    return lambda *arguments: inside(capfdbinary, *arguments)


@pytest.fixture
def worker(tool: Callable[..., Ended], broker: LocalKafka, tmp_path: Path) -> Iterator[WorkerProcess]:
    del tool  # the topics first
    started = WorkerProcess(broker.address, tmp_path).wait_ready()
    yield started
    started.kill()


def test_a_monitor_is_watched(tool: Callable[..., Ended], worker: WorkerProcess, broker: LocalKafka) -> None:
    def status() -> dict[str, Any]:
        ended = tool("status", "--json")
        assert ended.code == 0, ended.err
        return ended.lines[0]

    send(broker.address, [bill("acct-1"), bill("acct-2"), payment("acct-2"), bill("acct-3")], PARTITIONS)
    send(broker.address, [control("acct-3", "hold")], PARTITIONS)
    wait_until(lambda: len(tool("commands").lines) == 1, 60, lambda: worker.said)
    wait_until(lambda: not any(sum(one["lag"].values()) for one in status()["partitions"]), 30)
    found = status()
    assert found["group"] == "Stable"
    assert [len(one["partitions"]) for one in found["workers"]] == [PARTITIONS]
    assert {one["owner"] for one in found["partitions"]} == {found["workers"][0]["name"]}
    assert found["accounts"] == {"suspended": 1, "current": 1, "in_arrears": 1}
    assert found["marks"]["delete"] == {"overdue": 0, "within_an_hour": 1, "within_a_day": 1}

    # Explained: what happened, what was sent, what it waits for.
    (story,) = tool("explain", "acct-1", "--json").lines
    sent = [event for event in story["events"] if event["type"] == "command"]
    assert [event["command"] for event in sent] == tool("commands").lines
    assert story["account"]["status"] == "suspended"
    assert [wait["kind"] for wait in story["waits_for"]] == ["mark"]
    (held,) = tool("explain", "acct-3", "--json").lines
    assert [wait["kind"] for wait in held["waits_for"]] == ["hold"]
    (clear,) = tool("explain", "acct-2", "--json").lines
    assert (clear["account"]["status"], clear["waits_for"]) == ("current", [])
    in_words = tool("explain", "acct-1").out.decode()
    assert "SUSPEND compute and download" in in_words
    assert "- mark: The delete mark is at " in in_words
    nobody = tool("explain", "nobody")
    assert (nobody.code, nobody.err.count("\n")) == (2, 1)
    assert "there is no account nobody in partition" in nobody.err

    well = tool("doctor")
    assert (well.code, well.err) == (0, ""), well.out
    assert "Nothing is wrong with this installation and arrears at" in well.out.decode()
    _payment_that_cannot_be_used(tool, broker)

    worker.signal(signal.SIGTERM)
    worker.ended(30)
    wait_until(lambda: status()["group"] == "Empty", 30)
    ill = tool("doctor", "--json")
    assert ill.code == 1
    assert ill.lines[0]["findings"][0]["told"] == "No worker runs: nothing is decided."


def _payment_that_cannot_be_used(tool: Callable[..., Ended], broker: LocalKafka) -> None:
    async def break_one() -> None:
        async with producing(broker.address) as producer:
            await producer.send_and_wait("payments", b"nonsense", partition=0)

    run(break_one())
    wait_until(lambda: tool("doctor").code == 1, 30)
    findings = tool("doctor", "--json").lines[0]["findings"]
    assert findings[0]["severity"] == "fatal"
    assert findings[0]["told"] == "unusable_payments stops suspends and deletes on partition 0."
    assert "arrears control resume '*'" in findings[0]["mend"]
    assert "could not be used: payments 1." in findings[1]["told"]


def test_topics_that_are_not_there_are_told_by_the_doctor(tool: Callable[..., Ended]) -> None:
    ended = tool("doctor", "--app-id", "other")
    assert ended.code == 1
    assert "fatal: The topic other.commands is not there. To mend it: arrears topics create" in ended.out.decode()
