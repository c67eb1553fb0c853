"""Workers as processes: started, killed, frozen, stopped, and started again when they have ended by themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from tests.chaos import faulty

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT: Final = Path(__file__).resolve().parents[2]
#: What the issue asks of SIGTERM.
STOP_WITHIN_S: Final = 10.0
_POLL_S: Final = 0.05
#: A worker says with these that somebody has to mend something: to start it again would be of no use.
HOPELESS: Final = (2, 3)


@dataclass
class Worker:
    """One process, and the name that it has among those of the app."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    started: float = field(default_factory=time.monotonic)
    frozen_until: float | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether it stands still, by whoever's signal."""
        with suppress(psutil.NoSuchProcess):
            return bool(psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED)
        return False

    def thaw(self) -> None:
        self.frozen_until = None
        self.process.send_signal(signal.SIGCONT)


class Workers:
    """All workers of a run. `environment` are settings of theirs; `named`: static membership."""

    def __init__(
        self,
        arguments: tuple[str, ...],
        folder: Path,
        *,
        environment: Mapping[str, str],
        named: bool = True,
        self_kill: float = 0,
        broken: str = "",
    ) -> None:
        self.arguments, self.folder, self.named = arguments, folder, named
        self.calm = folder / "calm"
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True)
        foreign = {name: value for name, value in os.environ.items() if not name.startswith("ARREARS_")}
        self.environment = foreign | {
            "PYTHONPATH": str(ROOT),
            faulty.SELF_KILL: str(self_kill),
            faulty.CALM: str(self.calm),
            faulty.BREAK: broken,
            **environment,
        }
        self.running: dict[str, Worker] = {}
        self.count = 0
        #: What ended by itself, by exit code; and what did not end in time when asked to.
        self.exits: Counter[int] = Counter()
        self.hung: list[str] = []

    def start(self) -> Worker:
        """A worker more; it takes the first name that is free."""
        name = next(name for name in (f"w{number}" for number in range(99)) if name not in self.running)
        self.count += 1
        log = self.logs / f"{self.count:03}-{name}.log"
        command = [sys.executable, "-m", "tests.chaos.faulty", "worker", *self.arguments]
        command += ["--instance-id", name] if self.named else []
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        worker = self.running[name] = Worker(name, process, log)
        return worker

    def look_after(self) -> list[str]:
        """Start again what has ended, wake what has slept enough; returns the self-inflicted faults that it found."""
        found = []
        for worker in list(self.running.values()):
            code = worker.process.poll()
            if code is not None:
                if code == -signal.SIGKILL:
                    found.append("killed itself")
                else:
                    self.exits[code] += 1
                del self.running[worker.name]
                self.start()
            elif worker.frozen_until is None and worker.is_stopped:
                worker.frozen_until = time.monotonic() + 8
                found.append("froze itself")
            elif worker.frozen_until is not None and time.monotonic() > worker.frozen_until:
                worker.thaw()
        return found

    @property
    def hopeless(self) -> bool:
        """Whether one has ended with a code that says: mend something first."""
        return any(self.exits[code] for code in HOPELESS)

    @property
    def awake(self) -> list[Worker]:
        """Those that a fault can be done to."""
        return [worker for worker in self.running.values() if worker.frozen_until is None and not worker.is_stopped]

    # What is done to them -------------------------------------------------------------------------------------------

    def kill(self, worker: Worker) -> None:
        worker.process.kill()
        worker.process.wait()
        del self.running[worker.name]

    def freeze(self, worker: Worker, seconds: float) -> None:
        worker.frozen_until = time.monotonic() + seconds
        worker.process.send_signal(signal.SIGSTOP)

    def ask_to_stop(self, worker: Worker) -> None:
        """SIGTERM, and an end within ten seconds."""
        worker.process.terminate()
        del self.running[worker.name]
        until = time.monotonic() + STOP_WITHIN_S
        while worker.process.poll() is None and time.monotonic() < until:
            if worker.is_stopped:  # it has frozen itself just before: its ten seconds begin when it wakes
                worker.thaw()
                until = time.monotonic() + STOP_WITHIN_S
            time.sleep(_POLL_S)
        if worker.process.poll() is None:
            self.hung.append(worker.log.name)
            worker.process.kill()
        if (code := worker.process.wait()) not in (0, -signal.SIGKILL):
            self.exits[code] += 1

    def calm_down(self, least: int) -> None:
        """No more faults: everybody is awake, and there are enough."""
        self.calm.touch()
        for worker in self.running.values():
            worker.thaw()
        while len(self.running) < least:
            self.start()

    def stop(self) -> None:
        """All of them, asked first."""
        for worker in list(self.running.values()):
            worker.process.send_signal(signal.SIGCONT)
            self.ask_to_stop(worker)

    def kill_all(self) -> None:
        """Whatever happened, nothing is left behind."""
        for worker in list(self.running.values()):
            self.kill(worker)

    def last_words(self, lines: int = 12) -> str:
        """The ends of the logs of those that had trouble; else of all."""
        told = []
        for log in sorted(self.logs.glob("*.log")):
            text = log.read_text("utf-8", "replace").splitlines()
            if any("Traceback" in line or "CRITICAL" in line or "ERROR" in line for line in text):
                told += [f"--- {log.name}", *text[-lines:]]
        return "\n".join(told)
