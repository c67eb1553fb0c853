"""A run: a broker, workers, customers; everything is broken that can break; then it comes to rest and is judged."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from streams.local_kafka import LocalKafka, free_port
from streams.topics import create
from tests.chaos.checker import Report, check
from tests.chaos.reading import ends, read_run
from tests.chaos.replayed import differences_from_replay
from tests.chaos.run import OUTPUTS, Run
from tests.chaos.sending import Sender
from tests.chaos.traffic import POLICIES, plan
from tests.chaos.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Shorter than the defaults, so that a zombie's partitions are taken over while it sleeps.
SETTINGS: Final = {
    "ARREARS_SESSION_TIMEOUT": "PT6S",
    "ARREARS_HEARTBEAT_INTERVAL": "PT1S",
    "ARREARS_TRANSACTION_TIMEOUT": "PT10S",
    "ARREARS_COMMIT_INTERVAL": "PT0.05S",
    # As many as the customers deserve.
    "ARREARS_MAX_DELETES": "off",
    "ARREARS_MAX_SUSPENDS": "off",
}
#: The outputs have come to rest if nothing was published for so long: no policy has a longer wait between two steps,
#: and a broker looks every 10 s for transactions that hang. (It is not told to look more often: Kafka 4.3.1 may skip
#: the ends of transactions that it gives up while it still starts, which leaves them open for ever.)
QUIET_S: Final = 14.0
#: When nothing is due any more, a shorter while tells.
LAST_QUIET_S: Final = 4.0
RESUME_EVERY_S: Final = 4.0
REST_WITHIN_S: Final = 150.0
READY_WITHIN_S: Final = 60.0
#: A chunk of the plan: customers that begin within a minute.
CHUNK_S: Final = 60.0

KINDS: Final = {
    "worker killed": 5.0,
    "worker frozen": 3.0,
    "worker stopped": 2.0,
    "worker joined": 2.0,
    "worker left": 2.0,
    "broker killed": 1.0,
    "broker frozen": 1.5,
}


@dataclass
class Options:
    """How long, how hard."""

    seed: int = 1
    #: The run ends after so many seconds of faults, or so many faults; customers that have begun go on to their end.
    seconds: float = 60.0
    faults: int | None = None
    partitions: int = 4
    workers: int = 2
    most_workers: int = 4
    #: Customers that begin a second.
    rate: float = 4.0
    #: Seconds between two faults, on the average; 0: none.
    every: float = 4.0
    self_kill: float = 0.01
    longest_freeze: float = 30.0
    named: bool = True
    unusable_payments: bool = False
    broken: str = ""
    kinds: tuple[str, ...] = tuple(KINDS)


@dataclass
class Outcome:
    """What a run has shown."""

    report: Report
    run: Run
    faults: Counter[str] = field(default_factory=Counter)
    figures: Counter[str] = field(default_factory=Counter)
    trouble: list[str] = field(default_factory=list)
    words: str = ""

    @property
    def good(self) -> bool:
        return not self.report.faults and not self.trouble

    def differences_from_replay(self) -> list[str]:
        """Of a run without faults: there are none."""
        return differences_from_replay(self.run)

    def told(self, most: int = 40) -> str:
        """All of it, for people."""
        kinds = self.report.kinds()
        names = ("lost", "doubled", "out of order", "wrong", "wrong delete", "unfenced")
        lines = [
            f"faults done: {sum(self.faults.values())}: " + _listed(self.faults),
            "figures: " + _listed(self.report.figures + self.figures),
            "found: " + ", ".join(f"{kinds[name]} {name}" for name in names),
            *(f"trouble: {told}" for told in self.trouble),
            *map(str, self.report.faults[:most]),
        ]
        if len(self.report.faults) > most:
            lines.append(f"… and {len(self.report.faults) - most} more")
        return "\n".join([*lines, *([self.words] if not self.good else [])])


def _listed(counted: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counted.items()))


class Chaos:
    """One run in a folder of its own. `say` is told each fault, in a line."""

    def __init__(self, options: Options, folder: Path, say: Callable[[str], None] = lambda _: None) -> None:
        self.options, self.folder = options, folder
        self.dice = random.Random(options.seed)
        self.app_id = f"chaos-{options.seed}"
        self.kafka = LocalKafka(free_port(), folder / "kafka")
        self.faults: Counter[str] = Counter()
        self.trouble: list[str] = []
        self._say = say
        self._began = time.monotonic()
        policy = folder / "policies.yaml"
        policy.write_text(POLICIES, encoding="utf-8")
        arguments = (
            *("--brokers", self.kafka.address),
            *("--app-id", self.app_id),
            *("--policy", str(policy)),
            *("--metrics-port", "0"),
        )
        self.workers = Workers(
            arguments,
            folder,
            environment=SETTINGS,
            named=options.named,
            self_kill=options.self_kill,
            broken=options.broken,
        )
        self.sender = Sender(self.kafka.address, options.partitions)
        self._broker: asyncio.Task[None] | None = None  # being killed or frozen
        self._begun = 0  # chunks of the plan

    def say(self, told: str) -> None:
        self._say(f"{time.monotonic() - self._began:7.1f} s  {told}")

    async def run(self) -> Outcome:
        """All of it. The broker and the workers end with it, whatever happens."""
        try:
            await asyncio.to_thread(self.kafka.start)
            client = {"bootstrap_servers": self.kafka.address}
            await create(client, partitions=self.options.partitions, app_id=self.app_id)
            for _ in range(self.options.workers):
                self.workers.start()
            await self._until_ready()
            self.sender = Sender(self.kafka.address, self.options.partitions)
            await self._send_and_break()
            return await self._judge()
        finally:
            self.workers.kill_all()
            await asyncio.to_thread(self.kafka.stop)

    async def _until_ready(self) -> None:
        """Until each partition has an owner, who commits that it is."""
        state = (f"{self.app_id}.state",)
        until = time.monotonic() + READY_WITHIN_S
        while not all((await ends(self.kafka.address, state, self.options.partitions)).values()):
            if time.monotonic() > until or self.workers.exits:
                self.trouble.append(f"the workers have not begun within {READY_WITHIN_S:.0f} s")
                return
            self.workers.look_after()
            await asyncio.sleep(0.2)

    # -- customers and faults ------------------------------------------------------------------------------------------

    async def _send_and_break(self) -> None:
        watching = asyncio.create_task(self._watch())
        try:
            async with asyncio.TaskGroup() as sending:
                began = time.monotonic()
                breaking = asyncio.create_task(self._break())
                try:
                    while not breaking.done() and not self.workers.hopeless:
                        left = self.options.seconds - (time.monotonic() - began)
                        if left <= 0:
                            break
                        begins = self._begun * CHUNK_S
                        if self.sender.now >= begins - 5:
                            self._begun += 1
                            seconds = min(CHUNK_S, self.options.seconds - begins)
                            if seconds > 0:
                                sending.create_task(self._send_chunk(self._begun, begins, seconds))
                        await asyncio.sleep(0.2)
                finally:
                    breaking.cancel()
                    await asyncio.wait({breaking})
                    if not breaking.cancelled() and (error := breaking.exception()) is not None:
                        raise error
                await self._calm_down()
        finally:
            watching.cancel()
            await asyncio.wait({watching})

    async def _send_chunk(self, number: int, begins: float, seconds: float) -> None:
        options = self.options
        customers = plan(
            options.seed * 10_000 + number,
            accounts=max(1, round(seconds * options.rate)),
            seconds=seconds,
            after=begins,
            unusable_payments=options.unusable_payments,
        )
        await self.sender.send_all(customers)

    async def _watch(self) -> None:
        while True:
            for fault in self.workers.look_after():
                self._count(f"worker {fault} before a commit")
            await asyncio.sleep(0.25)

    def _count(self, kind: str, more: str = "") -> None:
        self.faults[kind] += 1
        self.say(f"{kind}{more}")

    async def _break(self) -> None:
        """One fault after the other; ends when there were enough."""
        options = self.options
        while options.every and (options.faults is None or sum(self.faults.values()) < options.faults):
            await asyncio.sleep(self.dice.uniform(0.2, 1.8) * options.every)
            weights = [KINDS[kind] for kind in options.kinds]
            await self._do(self.dice.choices(options.kinds, weights)[0])
        await asyncio.Event().wait() if not options.every else None

    async def _do(self, kind: str) -> None:
        workers, awake = self.workers, self.workers.awake
        match kind:
            case "broker killed" | "broker frozen":
                await self._break_broker(kind)
            case "worker joined":
                if len(workers.running) < self.options.most_workers:
                    self._count(kind, f": {workers.start().name}")
            case _ if not awake:
                pass
            case "worker killed":
                worker = self.dice.choice(awake)
                workers.kill(worker)
                self._count(kind, f": {worker.name}")
                await asyncio.sleep(self.dice.choice((0, 0, 1, 8)))
                if len(workers.running) < self.options.workers:
                    workers.start()
            case "worker frozen" if len(awake) > 1:
                worker, seconds = self.dice.choice(awake), self.dice.uniform(7, 14)
                workers.freeze(worker, seconds)
                self._count(kind, f": {worker.name} for {seconds:.1f} s")
            case "worker stopped" | "worker left":
                worker = self.dice.choice(awake)
                if kind == "worker left" and len(workers.running) <= self.options.workers:
                    return
                self._count(kind, f": {worker.name}")
                await asyncio.to_thread(workers.ask_to_stop, worker)
                if kind == "worker stopped":
                    workers.start()
            case _:
                pass

    async def _break_broker(self, kind: str) -> None:
        """It is away, and workers go on being broken meanwhile."""
        if self._broker is not None and not self._broker.done():
            return
        away = self._kill_broker() if kind == "broker killed" else self._freeze_broker()
        self._broker = asyncio.create_task(away)

    async def _kill_broker(self) -> None:
        async with self.sender.without_transactions():
            self._count("broker killed")
            await asyncio.to_thread(self.kafka.kill)
            await asyncio.sleep(self.dice.uniform(0, 4))
            await asyncio.to_thread(self.kafka.start)
            self.say("broker is back")

    async def _freeze_broker(self) -> None:
        async with self.sender.without_transactions():
            self._count("broker frozen")
            await asyncio.to_thread(self.kafka.freeze)
            await asyncio.sleep(self.dice.uniform(3, self.options.longest_freeze))
            await asyncio.to_thread(self.kafka.thaw)
            self.say("broker goes on")

    # -- the end -------------------------------------------------------------------------------------------------------

    async def _calm_down(self) -> None:
        self.say("no more faults")
        if self._broker is not None:
            await self._broker
        self.workers.calm_down(self.options.workers)

    async def _rest(self, quiet_s: float, *, resuming: bool) -> None:
        """Wait until nothing is published any more; meanwhile whatever a guard has stopped goes on."""
        # What waits for a resume is looked at with each, and its view is published again: that is no unrest.
        names = [name for name in OUTPUTS if name != "accounts"] if resuming else OUTPUTS
        topics = [f"{self.app_id}.{name}" for name in names]
        until = time.monotonic() + REST_WITHIN_S
        seen: dict[tuple[str, int], int] = {}
        since = resumed = time.monotonic()
        if resuming:
            await self.sender.resume()
        while time.monotonic() - since < quiet_s:
            if time.monotonic() > until:
                self.trouble.append(f"something was published all the time for {REST_WITHIN_S:.0f} s after the end")
                return
            self.workers.look_after()
            if resuming and time.monotonic() - resumed > RESUME_EVERY_S:
                resumed = time.monotonic()
                await self.sender.resume()
            now = await ends(self.kafka.address, topics, self.options.partitions)
            if now != seen:
                seen, since = now, time.monotonic()
            await asyncio.sleep(0.5)

    async def _judge(self) -> Outcome:
        self.say("all is sent; waiting until everything has come to rest")
        await self._rest(QUIET_S, resuming=True)
        self.say("closing the accounts")
        await self.sender.close()
        await self._rest(LAST_QUIET_S, resuming=False)
        await self.sender.stop()
        run = Run(self.app_id, self.options.partitions, POLICIES, self.sender.start, time.time_ns() // 1000)
        self.say("stopping the workers")
        await asyncio.to_thread(self.workers.stop)
        self.say("reading")
        invisible = await read_run(self.kafka.address, run)
        self.say("judging")
        report = await asyncio.to_thread(check, run)
        figures = self.sender.figures + Counter({"commands that were aborted, invisible": invisible})
        figures += Counter({f"workers that ended with {code}": n for code, n in self.workers.exits.items()})
        trouble = self.trouble + [f"{name} did not end within 10 s of SIGTERM" for name in self.workers.hung]
        if self.workers.hopeless:
            trouble.append(f"workers ended with {dict(self.workers.exits)}")
        return Outcome(report, run, self.faults, figures, trouble, self.workers.last_words())


def run_chaos(options: Options, folder: Path, say: Callable[[str], None] = lambda _: None) -> Outcome:
    """One run, from the start of its broker to the verdict."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # that brokers go away is no news

    async def main() -> Outcome:
        return await Chaos(options, folder, say).run()

    return asyncio.run(main())
