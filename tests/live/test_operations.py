"""The commands of an operator with a broker: it is started, given its topics, looked at and stopped by them alone."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from streams.local_kafka import LocalKafka, broker, free_port
from tests.streams.command_line import Ended, arrears, inside, told_in_one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.live


class Local:
    """The commands, as typed for one folder and port."""

    def __init__(self, folder: Path, captured: Any) -> None:
        self._captured = captured
        self.port = free_port()
        self.kafka = LocalKafka(self.port, folder)
        self.folder = self.kafka.folder
        self.brokers = ("--brokers", self.kafka.address)

    def __call__(self, word: str, *more: object) -> Ended:
        """`arrears kafka …` with the folder."""
        return self.arrears("kafka", word, "--data", self.folder, *more)

    def arrears(self, *arguments: object) -> Ended:
        """Within this process: quicker."""
        return inside(self._captured, *arguments)

    def status(self) -> tuple[int, str]:
        """Exit code, and what is told as JSON."""
        ended = self("status", "--json")
        return ended.code, ended.lines[0]["state"]


@pytest.fixture
def local(tmp_path: Path, capfdbinary: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Local]:
    monkeypatch.setattr(broker, "ANSWER_TIMEOUT_S", 0.5)
    found = Local(tmp_path / "my kafka", capfdbinary)
    yield found
    found.kafka.stop()
    shutil.rmtree(found.folder / "logs", ignore_errors=True)


def test_a_broker_is_started_given_topics_and_stopped(local: Local) -> None:
    assert local.status() == (1, "stopped")
    started = arrears("kafka", "start", "--port", local.port, "--data", local.folder)  # it outlives this process
    assert (started.code, started.err) == (0, "")
    told = started.out.decode()
    assert f"Kafka 4.3.1 runs at {local.kafka.address}, its data in {local.folder}." in told
    assert f"arrears topics create --brokers {local.kafka.address}\n" in told
    assert f"To stop it: arrears kafka stop --data '{local.folder}'\n" in told
    again = local("start", "--port", local.port)
    assert (again.code, again.err) == (0, "")
    assert "runs already at" in again.out.decode()

    status = local("status", "--json")
    (found,) = status.lines
    assert (status.code, found["state"], found["address"]) == (0, "running", local.kafka.address)
    assert (found["port"], found["folder"]) == (local.port, str(local.folder))
    assert f"(process {found['pid']})" in local("status").out.decode()
    # The port alone names it as well; both have to agree.
    assert local.arrears("kafka", "status", "--port", local.port).code == 0
    other = f"--port 1 is not that of the local Kafka of {local.folder}, which is {local.port}"
    assert other in told_in_one_line(local("status", "--port", 1))
    assert other in told_in_one_line(local("stop", "--port", 1))

    _topics(local)

    stopped = local("stop", "--port", local.port)
    assert stopped.code == 0
    assert stopped.out.decode() == f"Kafka is stopped; its data stays in {local.folder}.\n"
    assert local.status() == (1, "stopped")
    assert "do not answer" in told_in_one_line(local.arrears("topics", "check", *local.brokers))


def _topics(local: Local) -> None:
    missing = local.arrears("topics", "check", *local.brokers, "--partitions", 3)
    assert missing.code == 1
    first, *more = missing.out.decode().splitlines()
    mend = f"topics create {' '.join(local.brokers)} --partitions 3"
    assert first == f"fatal: bills is not there; to mend it: arrears {mend}"
    assert len(more) == 10
    # What is told mends it.
    created = local.arrears(*mend.split(), "--json")
    assert (created.code, created.err) == (0, "")
    assert {topic["created"] for topic in created.lines[0]["topics"]} == {True}
    assert (
        local.arrears("topics", "create", *local.brokers, "--partitions", 3).out.decode().count(": was there\n") == 11
    )
    checked = local.arrears("topics", "check", *local.brokers)
    assert (checked.code, checked.out) == (0, b"The topics of arrears are as they should be.\n")
    assert arrears("topics", "check", env={"ARREARS_BROKERS": local.brokers[1]}).code == 0

    for name, partitions in (("check", 4), ("create", 4)):
        ended = local.arrears("topics", name, *local.brokers, "--partitions", partitions)
        assert (ended.code, "3" in ended.out.decode() + ended.err) == ({"check": 1, "create": 2}[name], True)
    told = told_in_one_line(local.arrears("topics", "create", *local.brokers, "--partitions", 3, "--replication", 2))
    assert "--replication 2 cannot be, there is 1 broker" in told
    fewer = local.arrears("topics", "check", *local.brokers, "--replication", 2)
    assert (fewer.code, fewer.out.decode().count("has 1 of the 2 copies that it should have")) == (1, 11)
    # Another app's topics, with another app's command to make them.
    (one, *_) = local.arrears("topics", "check", *local.brokers, "--app-id", "staging", "--json").lines[0]["problems"]
    assert one["topic"] == "staging.commands"
    assert local.arrears(*one["mend"].split()[1:]).code == 0
    assert local.arrears("topics", "check", *local.brokers, "--app-id", "staging").code == 0


def test_what_is_in_the_way_of_a_start_and_what_a_crash_leaves_behind(local: Local, tmp_path: Path) -> None:
    assert local("start", "--port", local.port).code == 0
    elsewhere = local.arrears("kafka", "start", "--port", local.port, "--data", tmp_path / "elsewhere")
    assert f"port {local.port} is in use by the local Kafka of {local.folder}" in told_in_one_line(elsewhere)
    another = told_in_one_line(local("start", "--port", free_port()))
    assert f"the local Kafka of {local.folder} runs already, on port {local.port}" in another

    # One that hangs is told, and can be stopped.
    local.kafka.freeze()
    assert local.status() == (1, "silent")
    silent = local("status")
    assert (silent.code, "does not answer at" in silent.out.decode()) == (1, True)
    assert "runs but does not answer: end it" in told_in_one_line(local("start", "--port", local.port))
    assert local("stop").code == 0
    assert local.status() == (1, "stopped")

    # Killed, it is started as if nothing had been.
    assert local("start", "--port", local.port).code == 0
    local.kafka.kill()
    assert local.status() == (1, "stopped")
    assert local("start", "--port", local.port).code == 0
    assert local.status() == (0, "running")
