"""`arrears worker`: one process, or several; with the full rule, or with what the peers' job has of it."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import psutil

from streams.topic_design import AppTopics
from streams.topics import create
from tests.bench.peers.topics import committed_by_app, reach, told
from tests.bench.peers.watching import Failed, Run, watch
from tests.live.workers import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.fetched import Partition

#: No guard holds anything back. The session is as by default: two that start at once join together.
OPTIONS: Final = (
    *("--max-suspends", "off", "--max-deletes", "off", "--payments-silence", "off"),
    *("--session-timeout", "PT10S"),
)
_LOOK_EVERY_S: Final = 0.02
_READY_WITHIN_S: Final = 600.0

#: What the peers' job has of the rule: it is told when an account enters and leaves arrears; nothing is suspended,
#: nothing warned of, no fee grows. `delete_after` is as long as accounts remember by default.
SAME_OUTPUTS: Final = """policies:
  - name: same-outputs
    version: "1"
    effective_from: 2018-03-16T00:00:00Z
    suspend_after: PT1000H
    delete_after: PT1080H
    late_fee_per_day: "0"
    notices: {suspension_ahead: [], deletion_ahead: []}
"""
_APPLIED: Final = re.compile(r'^arrears_records_total\{.*topic="(?:bills|payments|usage)".*\} (\S+)$', re.MULTILINE)


class Recovery(NamedTuple):
    """How long it takes until the state of another process is worked on."""

    name: str
    #: Since the process was started.
    seconds: float
    accounts: int


async def run(
    kafka: Mapping[str, str],
    folder: Path,
    app_id: str,
    processes: int,
    ends: Mapping[Partition, int],
    *,
    policy: str | None = None,
    profile: Path | None = None,
) -> Run:
    """Let so many workers work the inputs off. Raises Failed.

    `policy`: YAML, else the built-in one; `profile`: where py-spy writes what the first worker was at.
    """
    name = f"ours, {processes} process{'es' * (processes > 1)}"
    topics, partitions = AppTopics.of(app_id), 1 + max(number for _, number in ends)
    outputs = (topics.commands, topics.notices, topics.accounts, topics.dead_letters)
    await create(kafka, partitions=partitions, app_id=app_id)
    workers = [_start(kafka, folder, app_id, f"{app_id}-{number}", policy) for number in range(processes)]
    spy: subprocess.Popen[bytes] | None = None
    begun: float | None = None
    looked = time.time()

    def first() -> float | None:
        """The instant at which none was seen to be processed yet, the last: the earliest that it can have been."""
        nonlocal looked, begun, spy
        if begun is None:
            before, looked = looked, time.time()
            if any(_applied(worker) for worker in workers):
                begun = before
                if profile is not None:
                    spy = _spy(workers[0].process.pid, profile)
        return begun

    try:
        watched = await watch(
            name,
            [psutil.Process(worker.process.pid) for worker in workers],
            first,
            lambda: committed_by_app(kafka, app_id, ends),
            ends,
            lambda: reach(kafka, outputs, partitions),
        )
    finally:
        if spy is not None:
            spy.send_signal(signal.SIGINT)  # it writes what it has
            spy.wait(60)
        for worker in workers:
            if worker.runs:
                worker.stop(within_s=60)
            worker.kill()
    found = await told(kafka, outputs, partitions, until=watched.quiet_at)
    if refused := found.counts[topics.dead_letters]:
        raise Failed(f"{name} has refused {refused} records: see {topics.dead_letters}")
    run = watched.run(found)
    return run._replace(outputs={topic.removeprefix(f"{app_id}."): number for topic, number in found.counts.items()})


async def recover(kafka: Mapping[str, str], folder: Path, app_id: str) -> Recovery:
    """Start a worker on the state that another has left."""
    started = time.monotonic()
    worker = _start(kafka, folder, app_id, f"{app_id}-again")
    try:
        while not worker.is_ready:
            if not worker.runs or time.monotonic() - started > _READY_WITHIN_S:
                raise Failed(f"ours is not ready again: {worker.said}")
            await asyncio.sleep(_LOOK_EVERY_S)
        seconds = time.monotonic() - started
        return Recovery("ours", seconds, int(worker.metric("arrears_recovered_accounts_total")))
    finally:
        if worker.runs:
            worker.stop(within_s=60)
        worker.kill()


def _start(kafka: Mapping[str, str], folder: Path, app_id: str, name: str, policy: str | None = None) -> WorkerProcess:
    return WorkerProcess(kafka["bootstrap_servers"], folder, "--app-id", app_id, *OPTIONS, name=name, policy=policy)


def _applied(worker: WorkerProcess) -> float:
    return sum(map(float, _APPLIED.findall(worker.ask("/metrics") or "")))


def _spy(pid: int, profile: Path) -> subprocess.Popen[bytes]:
    """py-spy on a worker until it is told to end. Raises Failed."""
    found = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if found is None:
        raise Failed("there is no py-spy for --profile: pip install py-spy")
    command = [found, "record", "--format", "raw", "--rate", "200", "--duration", "600", "--output", str(profile)]
    return subprocess.Popen([*command, "--pid", str(pid)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
