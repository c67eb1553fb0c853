"""An enforcement service that was written from deploy/asyncapi.yaml alone, on the live system, killed at random.

Every command is applied exactly once and in order, and in the end the cloud is as the accounts' status says.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

from models.instants import SECOND, format_instant
from streams.partitioner import partition_by
from tests.enforcement.cloud import SERVICES, Cloud
from tests.live.kafka import producing, read, run, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.live.conftest import FreshTopics

pytestmark = pytest.mark.live

_PARTITIONS: Final = 2
_ACCOUNTS: Final = 40
#: When records are sent, and services killed, in seconds; the second service starts in the middle.
_PLAYS_S: Final = 15.0
_SECOND_STARTS_S: Final = 6.0
_WORKER_IS_KILLED_S: Final = 8.0

_POLICY: Final = """
policies:
  - name: quick
    version: "1"
    effective_from: 2018-03-16T00:00:00Z
    suspend_after: PT2S
    delete_after: PT8S
    min_suspended: PT3S
    lateness: {suspend: PT0S, delete: PT0S}
    notices: {suspension_ahead: [PT1S], deletion_ahead: [PT3S]}
"""

_TOUGH: Final = {
    "ARREARS_SUBSCRIBERS": "gateway",
    "ARREARS_INSTANCE_ID": "worker-1",
    "ARREARS_METRICS_PORT": "0",
    "ARREARS_SESSION_TIMEOUT": "PT6S",
    "ARREARS_HEARTBEAT_INTERVAL": "PT0.3S",
}


class Process:
    """A program that is killed and started again."""

    def __init__(self, log: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self._log, self._command = log, [sys.executable, "-m", *arguments]
        own = {name: value for name, value in os.environ.items() if not name.startswith("ARREARS_")}
        self._environment = own | dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.kills = 0

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)

    @property
    def said(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def kill(self) -> None:
        """As kill -9 does. It must not have ended by itself."""
        if self._process is not None:
            assert self._process.poll() is None, self.said
            self._process.kill()
            self._process.wait()
            self._process = None
            self.kills += 1


@contextmanager
def running(*processes: Process) -> Iterator[None]:
    """Whatever runs of them ends with the test."""
    try:
        yield
    finally:
        for process in processes:
            if process._process is not None:
                process._process.kill()
                process._process.wait()


# The customers ----------------------------------------------------------------------------------------------------


class Sent(NamedTuple):
    """A record that is sent so many seconds after the start, dated some seconds before that."""

    at_s: float
    topic: str
    account_id: str
    fields: dict[str, Any]
    dated: str
    ago_s: float = 0


def _bill(at_s: float, account: str, number: int = 1) -> Sent:
    fields = {"event_id": f"b{number}", "bill_id": f"b{number}", "kind": "issued", "amount": "10", "currency": "CNY"}
    return Sent(at_s, "bills", account, fields, "issued_at")


def _top_up(at_s: float, account: str, number: int = 1, ago_s: float = 0) -> Sent:
    fields = {"event_id": f"p{number}", "payment_id": f"p{number}", "kind": "topup", "amount": "10", "currency": "CNY"}
    return Sent(at_s, "payments", account, fields, "paid_at", ago_s)


def _control(at_s: float, account: str, kind: str, **fields: Any) -> Sent:
    return Sent(at_s, "controls", account, {"event_id": kind, "kind": kind, "actor": "a", "reason": "r"} | fields, "at")


def _customers(seed: int) -> list[Sent]:
    """Those who pay late, twice; never; whose bank is late; who come back after the end; who are taken over."""
    dice = random.Random(seed)
    sent: list[Sent] = []
    for number in range(_ACCOUNTS):
        account, at_s = f"acct-{number:02}", dice.uniform(0, 5)
        match number % 5:
            case 0:
                for cycle in (1, 2):
                    pays_s = at_s + dice.uniform(2.5, 4)
                    sent += [_bill(at_s, account, cycle), _top_up(pays_s, account, cycle)]
                    at_s = pays_s + dice.uniform(0.1, 1)
            case 1 | 3:
                sent.append(_bill(at_s, account))
            case 2:
                late_s = dice.uniform(3, 4)
                sent += [_bill(at_s, account), _top_up(at_s + late_s, account, ago_s=late_s - 1)]
            case _:
                since = format_instant(time.time_ns() // 1000 - SECOND)
                given = {"balance": "-10", "currency": "CNY", "status": "suspended", "sequence": 7}
                sent.append(_control(at_s, account, "opening", arrears_since=since, **given))
                sent.append(_top_up(at_s + dice.uniform(1, 3), account))
    return sorted(sent)


_COME_BACK: Final = [f"acct-{number:02}" for number in range(_ACCOUNTS) if number % 5 == 3]
_NEVER_PAY: Final = [f"acct-{number:02}" for number in range(_ACCOUNTS) if number % 5 == 1]


async def _send(producer: Any, one: Sent) -> None:
    dated = format_instant(time.time_ns() // 1000 - round(one.ago_s * SECOND))
    value = json.dumps({"account_id": one.account_id, **one.fields, one.dated: dated})
    key = one.account_id.encode()
    partition = partition_by("murmur2", _PARTITIONS)(key)
    await producer.send_and_wait(one.topic, value.encode(), key=key, partition=partition)


# The play ---------------------------------------------------------------------------------------------------------


async def _play(servers: str, worker: Process, first: Process, second: Process, dice: random.Random) -> None:
    """Send the records; kill the services again and again, and the worker once."""
    await until(lambda: worker.said.count("accounts recovered") == _PARTITIONS, 60)
    began = time.monotonic()
    waiting, kills = _customers(7), {first: dice.uniform(1, 2)}
    worker_dies_s = _WORKER_IS_KILLED_S
    async with producing(servers) as producer:
        while (now := time.monotonic() - began) < _PLAYS_S:
            while waiting and waiting[0].at_s <= now:
                await _send(producer, waiting.pop(0))
            for service, kill_s in list(kills.items()):
                if now > kill_s:
                    service.kill()
                    service.start()
                    kills[service] = now + dice.uniform(0.7, 2)
            if second not in kills and now > _SECOND_STARTS_S:
                second.start()
                kills[second] = now + dice.uniform(1, 2)
            if now > worker_dies_s:
                worker.kill()
                worker.start()
                worker_dies_s = float("inf")
            await asyncio.sleep(0.02)
        assert not waiting
        await _until_views(servers, dict.fromkeys(_NEVER_PAY + _COME_BACK, "deleted"))
        for account in _COME_BACK:
            await _send(producer, _top_up(0, account))
            await _send(producer, _control(0, account, "reopen"))
        first.kill()
        first.start()
        await _until_views(servers, dict.fromkeys(_COME_BACK, "current"))


async def _topic(servers: str, topic: str) -> list[dict[str, Any]]:
    return [json.loads(record.value or b"null") for record in await read(servers, topic, _PARTITIONS)]


async def _views(servers: str) -> dict[str, dict[str, Any]]:
    return {view["account_id"]: view for view in await _topic(servers, "arrears.accounts")}


async def _until_views(servers: str, statuses: dict[str, str]) -> None:
    async def shown() -> bool:
        views = await _views(servers)
        return all(account in views and views[account]["status"] == status for account, status in statuses.items())

    await until(shown, 60)


async def _until_applied(servers: str, clouds: list[Cloud]) -> None:
    """Until each has applied the last command of each account, seen its last view, and sent its acks."""

    async def applied() -> bool:
        views = await _views(servers)
        return all(
            cloud.applied(account) == view["sequence"] and cloud.view(account) == view and not cloud.unsent_acks()
            for cloud in clouds
            for account, view in views.items()
        )

    await until(applied, 60)


# The judgement ----------------------------------------------------------------------------------------------------


def _check_applied_once(cloud: Cloud, commands: list[dict[str, Any]], *, is_late: bool) -> None:
    """The acts of each account go up by one, but where a view has told what came before."""
    by_id = {command["command_id"]: command for command in commands}
    last: Counter[str] = Counter()
    settled = set()
    for account, sequence, act, command_id in cloud.history():
        if act == "settled":
            assert sequence > last[account]
            settled.add(account)
        else:
            assert sequence == last[account] + 1, (account, sequence, act)
            assert by_id[str(command_id)]["sequence"] == sequence
            assert act in {by_id[str(command_id)]["action"], "not done: reopened"}
            assert account in _COME_BACK or not act.startswith("not done")
        last[account] = sequence
    for command in commands:
        assert last[command["account_id"]] >= command["sequence"]
    if not is_late:  # it has seen every command; those who were taken over had seven before
        assert settled <= {f"acct-{number:02}" for number in range(4, _ACCOUNTS, 5)}
        done = {command_id for *_, act, command_id in cloud.history() if act != "settled"}
        assert done == by_id.keys() - {one["command_id"] for one in commands if one["account_id"] in settled}


def _check_state(cloud: Cloud, views: dict[str, dict[str, Any]]) -> None:
    for account, view in views.items():
        state = {"suspended": "stopped", "deleted": "deleted"}.get(view["status"], "running")
        stopped = dict.fromkeys(view["suspended_services"], state)
        assert cloud.services(account) == dict.fromkeys(SERVICES, "running") | stopped, (account, view["status"])


def _check_acks(acks: list[dict[str, Any]], commands: list[dict[str, Any]]) -> None:
    said = defaultdict(set)
    for ack in acks:
        said[ack["event_id"]].add(json.dumps(ack))
    assert {len(contents) for contents in said.values()} == {1}, "the same to the letter"
    gateway = {ack["command_id"] for ack in acks if ack["subscriber"] == "gateway"}
    assert gateway == {command["command_id"] for command in commands}


def test_each_command_is_applied_once_in_order_whoever_is_killed(fresh_topics: FreshTopics, tmp_path: Path) -> None:
    servers = fresh_topics(_PARTITIONS)["bootstrap_servers"]
    policy = tmp_path / "policy.yaml"
    policy.write_text(_POLICY, encoding="utf-8")
    environment = _TOUGH | {"ARREARS_BROKERS": servers, "ARREARS_POLICY": str(policy)}
    worker = Process(tmp_path / "worker.log", "streams.cli", "worker", environment=environment)

    def service(name: str) -> Process:
        file = str(tmp_path / f"{name}.sqlite")
        return Process(tmp_path / f"{name}.log", "tests.enforcement", servers, file, name, "0.01")

    first, second = service("gateway"), service("vault")

    async def scenario() -> None:
        await _play(servers, worker, first, second, random.Random(11))
        clouds = [Cloud(tmp_path / f"{name}.sqlite", name) for name in ("gateway", "vault")]
        await _until_applied(servers, clouds)
        commands, views = await _topic(servers, "arrears.commands"), await _views(servers)
        assert {command["action"] for command in commands} == {"suspend", "restore", "delete"}
        assert {command["reason"] for command in commands} >= {"paid_in_full", "late_evidence"}
        for cloud, is_late in zip(clouds, (False, True), strict=True):
            _check_applied_once(cloud, commands, is_late=is_late)
            _check_state(cloud, views)
            cloud.close()
        acks = await _topic(servers, "acks")
        _check_acks(acks, commands)
        assert await _topic(servers, "arrears.dead-letters") == []
        # A delete that came to the service after its account was reopened is the only one that it refuses.
        refused = {ack["command_id"] for ack in acks if ack["status"] == "failed"}
        notices = await _topic(servers, "arrears.notices")
        assert {one["command_id"] for one in notices if one["kind"] == "command_unconfirmed"} <= refused
        assert {one["account_id"] for one in commands if one["command_id"] in refused} <= set(_COME_BACK)
        assert first.kills >= 5
        assert second.kills >= 2

    worker.start()
    first.start()
    with running(worker, first, second):
        run(scenario(), within_s=240)
