"""`arrears demo`: the main job, live, on a broker of its own.

A month plays in about a minute: its records flow into Kafka as they come due, two workers watch the arrears, one of
them is killed on the way. In the end the accounts are held to a replay of the same topics.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]
from rich.table import Table
from rich.text import Text

from streams.demo.audience import Audience
from streams.demo.crew import WORKERS, Crew
from streams.demo.screen import Stage, View, stage
from streams.demo.script import Script
from streams.demo.verdict import after, differences, quiet_instant, replayed, unchanged_since
from streams.faults import Unusable
from streams.partitioner import partition_by
from streams.sample import Sample, write_sample
from streams.showing import show
from streams.signals import leave_signals
from streams.telling import counted
from streams.topics import create

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.instants import Instant
    from models.outputs import AccountView
    from streams.demo.verdict import Difference

OK, DIFFERS, STOPPED = 0, 1, 130


class _Rest(NamedTuple):
    """How the accounts stand at an instant that no mark is near."""

    at: Instant
    views: dict[str, AccountView]


_PARTITIONS: Final = 4
_APP_ID: Final = "arrears"
_READY_WITHIN_S: Final = 180.0
_SETTLE_WITHIN_S: Final = 120.0
_TICK_S: Final = 0.05
#: When the second worker is killed, and when it comes back, as shares of the story.
_KILLED_AT, _BACK_AT = 0.4, 0.5
_KILLED: Final = WORKERS
_SHOWN_DIFFERENCES: Final = 10


def demo(*, data: str | None, seconds: float, port: int | None, keep: str | None) -> int:
    """Play it; returns the exit code. Raises Unusable."""
    leave_signals()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(keep) if keep is not None else Path(tempfile.mkdtemp(prefix="arrears-demo-"))
    if keep is not None and folder.exists() and any(folder.iterdir()):
        raise Unusable(f"--keep {keep}: there is something in this folder already: name a new one")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return asyncio.run(_play(folder, data, seconds, port))
    except KeyboardInterrupt:
        print("\nstopped: the broker and the workers have ended", file=sys.stderr)  # noqa: T201
        return STOPPED
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


async def _play(folder: Path, data: str | None, seconds: float, port: int | None) -> int:
    script = Script(_records(folder, data), seconds)
    policy = folder / "policy.yaml"
    policy.write_text(script.policy(), encoding="utf-8")
    accounts = len({cue.account_id for cue in script.cues if cue.account_id != "*"})
    _say(f"{counted(len(script.cues), 'record')} of {counted(accounts, 'account')}, to be played in {seconds:g} s")
    async with Crew(folder, _say, port) as crew:
        _say("starting a Kafka broker (the first time it is downloaded: about 45 MB)")
        address = await crew.start_broker()
        kafka = {"bootstrap_servers": address}
        await create(kafka, partitions=_PARTITIONS, app_id=_APP_ID)
        _say(f"Kafka runs at {address}; starting {WORKERS} workers")
        for number in range(1, WORKERS + 1):
            crew.start_worker(number, address, policy)
        await _until_ready(crew)
        audience = Audience(kafka, _APP_ID, _PARTITIONS)
        watching = asyncio.ensure_future(audience.watch())
        try:
            return await _perform(crew, script, audience, address, policy)
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching


def _records(folder: Path, data: str | None) -> Path:
    if data is not None:
        if not Path(data).is_dir():
            raise Unusable(f"--data {data} is no folder: name one with bills.jsonl, payments.jsonl and so on")
        return Path(data)
    write_sample(folder / "month", Sample())
    return folder / "month"


async def _until_ready(crew: Crew) -> None:
    until = time.monotonic() + _READY_WITHIN_S
    while (await crew.seen()).ready < WORKERS:
        if crew.dead() or time.monotonic() > until:
            log = crew.folder / f"worker-{(crew.dead() or [1])[0]}.log"
            last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise Unusable(f"the workers do not get ready: {' '.join(last) or 'they say nothing'}")
        await asyncio.sleep(0.1)


async def _perform(crew: Crew, script: Script, audience: Audience, address: str, policy: Path) -> int:
    view = View(script, audience)
    with stage(view) as shown:
        await _feed(crew, script, view, shown, address, policy)
        until, views = await _settle(crew, audience, view, shown)
    by_replay = await asyncio.to_thread(replayed, address, policy, crew.folder, until)
    found = differences(views, by_replay)
    show(*_summary(script, audience), Text(_verdict(found, audience, len(by_replay)), "bold"))
    for one in found[:_SHOWN_DIFFERENCES]:
        show(f"  {one.account_id}: {one.field} is {one.live}, by the replay {one.replayed}")
    return DIFFERS if found or audience.out_of_order else OK


async def _feed(crew: Crew, script: Script, view: View, shown: Stage, address: str, policy: Path) -> None:
    """Send each record when it is due; kill a worker on the way."""
    partition_of = partition_by("murmur2", _PARTITIONS)
    producer = AIOKafkaProducer(bootstrap_servers=address, enable_idempotence=True, linger_ms=5)
    await producer.start()
    scenes: list[tuple[float, Callable[[], None], str]] = [
        (_KILLED_AT, lambda: crew.kill_worker(_KILLED), f"worker-{_KILLED} is killed (kill -9), with its partitions"),
        (_BACK_AT, lambda: crew.start_worker(_KILLED, address, policy), f"worker-{_KILLED} is started again"),
    ]
    try:
        sent: Counter[str] = Counter()
        view.sent = sent
        script.started = _now()
        last_seen, index = 0.0, 0
        while index < len(script.cues):
            now = _now()
            while index < len(script.cues) and script.played(script.cues[index].at) <= now:
                cue = script.cues[index]
                index += 1
                key, value = cue.account_id.encode(), script.value(cue)
                everywhere = range(_PARTITIONS) if cue.account_id == "*" else (partition_of(key),)
                for partition in everywhere:
                    await producer.send(cue.topic, value, key=key, partition=partition)
                sent[cue.topic] += 1
            while scenes and (now - script.started) / 1e6 > scenes[0][0] * script.seconds:
                _, happen, told = scenes.pop(0)
                happen()
                shown.tell(f"{(now - script.started) / 1e6:.0f} s: {told}")
            if time.monotonic() - last_seen > 0.5:  # noqa: PLR2004
                last_seen, view.seen = time.monotonic(), await crew.seen()
            shown.update(now)
            await asyncio.sleep(_TICK_S)
        await producer.flush()
    finally:
        await producer.stop()
    shown.tell("all records are sent; waiting for what is due to be done")


async def _settle(crew: Crew, audience: Audience, view: View, shown: Stage) -> _Rest:
    """Wait until everything is applied, and for an instant that no mark is near; returns how all stands then."""
    give_up = time.monotonic() + _SETTLE_WITHIN_S
    while True:
        await asyncio.sleep(1.0)  # the lag is as of the last commit
        view.seen = await crew.seen()
        shown.update(_now())
        if view.seen.ready == WORKERS and view.seen.lag == 0 and view.seen.overdue == 0:
            await audience.caught_up()
            at = quiet_instant(audience.views.values(), _now())
            while _now() < after(at):
                await asyncio.sleep(0.2)
                shown.update(_now())
            await audience.caught_up()
            views = audience.views.values()
            if quiet_instant(views, at) == at and unchanged_since(views, at):
                return _Rest(at, dict(audience.views))  # which go on changing while the replay runs
        if time.monotonic() > give_up:
            raise Unusable(f"the workers do not come to rest; their logs are in {crew.folder} (--keep keeps them)")


def _summary(script: Script, audience: Audience) -> list[Any]:
    table = Table("what", "how many")
    table.columns[1].justify = "right"
    table.add_row("records in Kafka", f"{len(script.cues):,}")
    for name, count in sorted(audience.commands.items()):
        table.add_row(f"command {name}", f"{count:,}")
    table.add_row("notices", f"{audience.notices.total():,}")
    table.add_row("dead letters", f"{audience.dead_letters:,}")
    for status, count in sorted(audience.statuses().items()):
        table.add_row(f"accounts {status.replace('_', ' ')} at the end", f"{count:,}")
    if audience.delays_s:
        middle, worst = statistics.median(audience.delays_s), max(audience.delays_s)
        table.add_row("mark or payment to command, median", f"{middle:.2f} s")
        table.add_row("… longest (a worker was dead for a while)", f"{worst:.2f} s")
    return ["", table]


def _verdict(found: list[Difference], audience: Audience, accounts: int) -> str:
    if audience.out_of_order:
        return f"Commands are not in order: {', '.join(audience.out_of_order[:_SHOWN_DIFFERENCES])}"
    if found:
        differing = len({one.account_id for one in found})
        return f"{counted(differing, 'account')} of {accounts:,} differ from the replay of the topics:"
    told = f"{counted(accounts, 'account')}, {counted(audience.commands.total(), 'command')}"
    return f"{told}: matches the replay of the topics."


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def _now() -> int:
    return time.time_ns() // 1000
