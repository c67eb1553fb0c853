"""The stage: a broker of its own, topics, workers as an operator starts them."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from streams.local_kafka import LocalKafka, free_port
from streams.topics import create
from tests.operate.feed import POLICY, Feed
from tests.operate.prometheus import Watch, ready, wait

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

_PARTITIONS: Final = 4
_READY_WITHIN_S: Final = 60.0
_STOP_WITHIN_S: Final = 15.0


def ending_well() -> None:
    """Whoever ends this program by a signal leaves nothing behind; what clients say of dead brokers is not told."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


class Stage:
    """Everything; a context. `settings` are those of the workers, by variable."""

    def __init__(self, workers: int = 2, settings: Mapping[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="arrears-stage-"))
        self.kafka = LocalKafka(free_port(), self.folder / "kafka")
        self.workers = {f"worker-{number}": free_port() for number in range(1, workers + 1)}
        self.watch = Watch(self.folder / "watch", self.workers)
        self.feed = Feed(self.kafka.address)
        self._settings = dict(settings or {})
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            stack.callback(self.kafka.stop)
            self.kafka.start()
            asyncio.run(create({"bootstrap_servers": self.kafka.address}, partitions=_PARTITIONS))
            (self.folder / "policy.yaml").write_text(POLICY, encoding="utf-8")
            stack.callback(self._stop_all)
            for name in self.workers:
                self.start(name)
            stack.enter_context(self.watch)
            self.await_ready()
            stack.enter_context(self.feed)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # -- workers ----------------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start a worker, or start it again."""
        command = [str(Path(sys.executable).with_name("arrears")), "worker", "--brokers", self.kafka.address]
        command += ["--instance-id", name, "--metrics-port", str(self.workers[name])]
        command += ["--policy", str(self.folder / "policy.yaml")]
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | self._settings
            )

    def kill(self, name: str) -> None:
        """As the machine does when memory is short."""
        process = self._processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def await_ready(self) -> float:
        """Until all workers are; returns how long it took, in seconds."""
        return wait(lambda: all(ready(port) for port in self.workers.values()), _READY_WITHIN_S)

    def log(self, name: str) -> str:
        """What a worker has said."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def resume(self) -> None:
        """As an operator does who has looked: it goes on, for an hour without the limit that stopped it."""
        arrears = str(Path(sys.executable).with_name("arrears"))
        until = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        command = [arrears, "control", "resume", "*", "--brokers", self.kafka.address, "--reason", "drill", "--yes"]
        command += ["--until", until]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)

    def _stop_all(self) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(_STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
