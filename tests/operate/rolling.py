"""`python -m tests.operate.rolling`: three workers are restarted one after the other, to another release and back.

Customers come, owe, pay and are deleted all the while. At the end everything is judged as after a chaos run, and it is
told how long each partition stood still. The other release is a folder with its code (`--other`); without it a restart
to the same one is tried.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.chaos.harness import Chaos, Options, Outcome
from tests.chaos.reading import read
from tests.chaos.workers import ROOT, Worker, Workers

if TYPE_CHECKING:
    from collections.abc import Callable

_WORKERS: Final = 3
_PARTITIONS: Final = 6
_CUSTOMERS_A_SECOND: Final = 12.0
#: Before, between and after the two roll-outs.
_STEADY_S: Final = 20.0
#: What Kubernetes waits for: the worker is ready.
_READY_WITHIN_S: Final = 60.0
_BETWEEN_WORKERS_S: Final = 3.0
#: Of a partition.
_LONGEST_S: Final = 5.0

_TIMES: Final = frozenset(
    f"ARREARS_{name}" for name in ("SESSION_TIMEOUT", "HEARTBEAT_INTERVAL", "TRANSACTION_TIMEOUT", "COMMIT_INTERVAL")
)

_MAIN: Final = "import sys; from streams.cli import main; sys.argv[0] = 'arrears'; sys.exit(main())"


class Releases(Workers):
    """Workers of the release that is rolled out just now."""

    release: Path = ROOT

    def start(self) -> Worker:
        """A worker more, of that release; it takes the first name that is free."""
        name = next(name for name in (f"w{number}" for number in range(99)) if name not in self.running)
        self.count += 1
        log = self.logs / f"{self.count:03}-{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", _MAIN, "worker", *self.arguments, "--instance-id", name],
                cwd=self.release,
                env=self.environment | {"PYTHONPATH": str(self.release)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        worker = self.running[name] = Worker(name, process, log)
        return worker


class Pause(NamedTuple):
    """How long a partition stood still, at the longest, and when that began, in seconds of the run."""

    partition: int
    seconds: float
    after_s: float


class Rolling(Chaos):
    """A run whose only faults are restarts that are asked for."""

    def __init__(self, folder: Path, releases: list[Path], say: Callable[[str], None]) -> None:
        options = Options(
            seconds=3600, partitions=_PARTITIONS, workers=_WORKERS, rate=_CUSTOMERS_A_SECOND, self_kill=0.0
        )
        super().__init__(options, folder, say)
        # The times are those that workers have by default: it is them that the pauses hang on.
        made = self.workers
        usual = {name: value for name, value in made.environment.items() if name not in _TIMES}
        (folder / "releases").mkdir()
        self.releases, self._order = (
            Releases(made.arguments, folder / "releases", environment=usual),
            releases,
        )
        self.workers = self.releases
        self.rolled: tuple[float, float] = (0.0, 0.0)

    async def _break(self) -> None:
        await asyncio.sleep(_STEADY_S)
        async with self.sender.without_transactions():  # one that its sender leaves open stops a partition, too
            began = time.time()
            for release in self._order:
                self.releases.release = release
                self.say(f"rolling out {'the other release' if release != ROOT else 'this release'}")
                for worker in list(self.releases.running.values()):
                    await self._restart(worker)
                await asyncio.sleep(_STEADY_S)
            self.rolled = (began, time.time())

    async def _restart(self, worker: Worker) -> None:
        asked = time.monotonic()
        await asyncio.to_thread(self.releases.ask_to_stop, worker)
        stopped = time.monotonic()
        new = self.releases.start()
        until = stopped + _READY_WITHIN_S
        while b"accounts recovered" not in new.log.read_bytes():
            if time.monotonic() > until:
                self.trouble.append(f"{new.name} was not ready within {_READY_WITHIN_S:.0f} s")
                break
            await asyncio.sleep(0.1)
        self._count(
            "restart", f": {new.name}, {stopped - asked:.1f} s to stop, {time.monotonic() - stopped:.1f} s to be back"
        )
        await asyncio.sleep(_BETWEEN_WORKERS_S)

    async def _judge(self) -> Outcome:
        outcome = await super()._judge()
        for pause in await self.pauses():
            self.say(
                f"partition {pause.partition} stood still for {pause.seconds:.1f} s, from {pause.after_s:.0f} s on"
            )
            if pause.seconds > _LONGEST_S:
                outcome.trouble.append(f"partition {pause.partition} stood still for {pause.seconds:.1f} s")
        return outcome

    async def pauses(self) -> list[Pause]:
        """The longest of each partition while releases were rolled out, by the brokers' time of its commits."""
        began, ended = self.rolled
        commits: dict[int, list[float]] = {number: [] for number in range(_PARTITIONS)}
        for record in await read(self.kafka.address, f"{self.app_id}.state", _PARTITIONS):
            at = record.appended_at / 1e6
            if began <= at <= ended:
                commits[record.partition].append(at)
        found = []
        for partition, instants in commits.items():
            stood = [(later - earlier, earlier) for earlier, later in pairwise(instants)]
            seconds, at = max(stood, default=(ended - began, began))
            found.append(Pause(partition, seconds, at - began))
        return found


def _say(told: str) -> None:
    print(told, flush=True)


def main() -> int:
    """Roll out another release, and back; 1 if anything was lost, or stood still for too long."""
    parser = argparse.ArgumentParser(prog="python -m tests.operate.rolling", description=__doc__)
    parser.add_argument("--other", type=Path, default=ROOT, help="a folder with the code of another release")
    other = parser.parse_args().other.resolve()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)

    async def run(folder: Path) -> Outcome:
        return await Rolling(folder, [other, ROOT], _say).run()

    with tempfile.TemporaryDirectory(prefix="arrears-rolling-") as folder:
        outcome = asyncio.run(run(Path(folder)))
    print(outcome.told())
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
