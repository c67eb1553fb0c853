"""The processes of a demo: a broker and two workers, which end with it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from streams.local_kafka import LocalKafka, free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self

WORKERS: Final = 2
_STOP_WITHIN_S: Final = 12.0
_PORT: Final = 9092
_SCRAPE_WITHIN_S: Final = 1.0


class Seen(NamedTuple):
    """What the metrics of the workers say, added up."""

    ready: int
    lag: int
    overdue: int
    partitions: int
    #: From the instant a command is effective until it is committed, on average.
    delay_s: float | None


class Crew:
    """A context. `folder` holds everything that is made."""

    def __init__(self, folder: Path, say: Callable[[str], None], port: int | None) -> None:
        self.folder = folder
        self._say = say
        self._port = port
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        self._metrics_ports: dict[int, int] = {}
        self.kafka: LocalKafka | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop everything; takes a few seconds."""
        await self.stop_workers()
        if self.kafka is not None:
            await asyncio.to_thread(self.kafka.stop)

    async def start_broker(self) -> str:
        """A broker on port 9092, or another if that is taken; returns its address."""
        port = self._port or _PORT
        if self._port is None and not _is_free(port):
            port = free_port()
            self._say(f"Port {_PORT} is taken on this machine, so the broker of the demo takes {port}.")
        self.kafka = LocalKafka(port, self.folder / "kafka")
        starting = asyncio.ensure_future(asyncio.to_thread(self.kafka.start))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.wait({starting})  # then it can be stopped
            raise
        return self.kafka.address

    def start_worker(self, number: int, address: str, policy: Path) -> None:
        """Start a worker, or start it again under its name."""
        port = self._metrics_ports.setdefault(number, free_port())
        own = {name: value for name, value in os.environ.items() if not name.startswith("ARREARS_")}
        settings = {
            "ARREARS_BROKERS": address,
            "ARREARS_POLICY": str(policy),
            "ARREARS_INSTANCE_ID": f"worker-{number}",
            "ARREARS_METRICS_PORT": str(port),
            "ARREARS_SESSION_TIMEOUT": "PT6S",
            # A month in a minute has more deletes an hour than any guard should let pass.
            "ARREARS_MAX_DELETES": "off",
            "ARREARS_MAX_SUSPENDS": "off",
        }
        with (self.folder / f"worker-{number}.log").open("ab") as log:
            self._workers[number] = subprocess.Popen(  # ourselves
                [sys.executable, "-m", "streams.cli", "worker"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=own | settings,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops them
            )

    def kill_worker(self, number: int) -> None:
        """As a power cut does."""
        self._workers[number].kill()
        self._workers[number].wait()

    async def stop_workers(self) -> None:
        """Ask them to stop, and see that they do."""
        running = [worker for worker in self._workers.values() if worker.poll() is None]
        for worker in running:
            worker.send_signal(signal.SIGTERM)
        loop = asyncio.get_running_loop()
        until = loop.time() + _STOP_WITHIN_S
        while any(worker.poll() is None for worker in running) and loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        for worker in running:
            if worker.poll() is None:
                worker.kill()
                worker.wait()

    def dead(self) -> list[int]:
        """Workers that have ended by themselves."""
        return [number for number, worker in self._workers.items() if worker.poll() not in {None, -signal.SIGKILL}]

    async def seen(self) -> Seen:
        """What the workers' metrics say now."""
        texts = await asyncio.gather(*(asyncio.to_thread(_scrape, port) for port in self._metrics_ports.values()))
        sums: dict[str, float] = {}
        for text in texts:
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
        count = sums.get("arrears_decision_delay_seconds_count", 0.0)
        return Seen(
            ready=int(sums.get("arrears_ready", 0)),
            lag=int(sums.get("arrears_lag_records", 0)),
            overdue=int(sums.get("arrears_marks_overdue", 0)),
            partitions=int(sums.get("arrears_partitions_owned", 0)),
            delay_s=sums["arrears_decision_delay_seconds_sum"] / count if count else None,
        )


def _scrape(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=_SCRAPE_WITHIN_S) as answer:
            return str(answer.read(), "utf-8")
    except OSError:
        return ""  # it does not run just now


def _is_free(port: int) -> bool:
    import socket  # noqa: PLC0415

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    with socket.socket() as probe:  # somebody may listen on all addresses
        return probe.connect_ex(("127.0.0.1", port)) != 0
