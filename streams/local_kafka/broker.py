"""Starts, stops and looks after one broker, whose folder holds all that it has.

Laws of this file:

- A broker belongs to its folder: whoever names the folder finds it, after a crash too.
- Only a process that is known as the broker of the folder is ever signalled.
- Every wait has an end. What a user has to mend is `Unusable`, in one line.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import subprocess
import time
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import platformdirs
import psutil

from streams.faults import Unusable
from streams.local_kafka.jars import KAFKA_VERSION, kafka_jars
from streams.local_kafka.java import find_java
from streams.local_kafka.probe import HOST, answers, bind, free_port
from streams.local_kafka.process import Broker, broker_of, brokers, marks
from streams.local_kafka.properties import cluster_id, properties_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["KAFKA_VERSION", "LocalKafka", "State", "Status", "default_data_dir", "free_port"]

#: It takes 4 s of a processor: 6 to 9 s were seen on 2 busy cores, 3 s more after a kill -9.
START_TIMEOUT_S: Final = 60.0
#: One that runs is given this long to answer: perhaps it starts just now.
ANSWER_TIMEOUT_S: Final = 10.0
#: From SIGTERM to SIGKILL.
STOP_TIMEOUT_S: Final = 10.0
#: From SIGKILL to giving up: a process that hangs in the kernel.
KILL_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.05
_FORMAT_TIMEOUT_S: Final = 60

#: A broker on a disk that is full damages its logs: it is not started on one that is nearly so.
LEAST_FREE_BYTES: Final = 256 * 1024 * 1024

#: With these it has 205 to 218 MB resident. The first compiler alone starts sooner, and is quick enough here.
JAVA_OPTIONS: Final = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError")


class State(Enum):
    """What a broker is found to be."""

    STOPPED = "stopped"
    RUNNING = "running"
    SILENT = "does not answer"


class Status(NamedTuple):
    """A broker as it stands; `pid` and `port` are None if none runs."""

    state: State
    folder: Path
    pid: int | None
    port: int | None


class LocalKafka:
    """The broker of one folder. `properties` are added to those of Kafka, or replace them."""

    def __init__(
        self,
        port: int = 9092,
        data_dir: Path | None = None,
        *,
        properties: Mapping[str, str] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Nothing is started yet. `say` is told what takes long, in a line without its end."""
        self.port = port
        self.folder = (data_dir or default_data_dir()).resolve()
        self._properties = dict(properties or {})
        self._say = say

    @property
    def address(self) -> str:
        """What a client calls its bootstrap server."""
        return f"{HOST}:{self.port}"

    @property
    def log(self) -> Path:
        """What the broker says; that of its run before has `.1` added."""
        return self.folder / "broker.log"

    @property
    def pid_file(self) -> Path:
        """For whoever wants to look: it is written, and never trusted."""
        return self.folder / "broker.pid"

    # Start and stop -------------------------------------------------------------------------------------------------

    def start(self) -> bool:
        """Start the broker and wait until it answers. False if it runs already. Raises `Unusable`."""
        self._prepare_folder()
        with self._alone():
            if (broker := broker_of(self.folder)) is not None:
                self._join(broker)
                return False
            self._check_port()
            self._check_room()
            java, jars = find_java(), kafka_jars(cache_dir() / f"kafka-{KAFKA_VERSION}", self._say)
            environment = os.environ | {"CLASSPATH": os.pathsep.join(map(str, jars))}
            self._write_properties()
            self._format(java, environment)
            pid = self._spawn(java, environment)
            self._await_answer(psutil.Process(pid))
        return True

    def stop(self) -> bool:
        """Stop the broker: SIGTERM, after 10 s SIGKILL. False if none runs. Raises `Unusable` if it stays."""
        broker = broker_of(self.folder)
        if broker is None:
            self.pid_file.unlink(missing_ok=True)
            return False
        with _signalled(broker.process):
            broker.process.terminate()
            broker.process.resume()  # a frozen one can end too
        if not _ended(broker.process, STOP_TIMEOUT_S):
            self._kill(broker.process)
        self.pid_file.unlink(missing_ok=True)
        return True

    def status(self) -> Status:
        """What is there now. A broker that starts, hangs or is frozen does not answer."""
        broker = broker_of(self.folder)
        if broker is None:
            return Status(State.STOPPED, self.folder, None, None)
        state = State.RUNNING if answers(broker.port) else State.SILENT
        return Status(state, self.folder, broker.pid, broker.port)

    # For tests that break it ------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """Kill -9. A `start` then finds what a crash leaves behind."""
        self._kill(self._running().process)

    def freeze(self) -> None:
        """Stop the process where it stands (SIGSTOP): connections stay open, and nothing is answered."""
        process = self._running().process
        with _signalled(process):
            process.suspend()

    def thaw(self) -> None:
        """Let a frozen process go on."""
        process = self._running().process
        with _signalled(process):
            process.resume()

    def _running(self) -> Broker:
        broker = broker_of(self.folder)
        if broker is None:
            raise Unusable(f"no local Kafka runs in {self.folder}: start it first")
        return broker

    def _kill(self, process: psutil.Process) -> None:
        with _signalled(process):
            process.kill()
        if not _ended(process, KILL_TIMEOUT_S):
            raise Unusable(
                f"the local Kafka of {self.folder} (process {process.pid}) cannot be killed: see what holds it"
            )

    # The steps of a start ---------------------------------------------------------------------------------------------

    def _prepare_folder(self) -> None:
        if "," in str(self.folder):
            raise Unusable(
                f"the folder {self.folder} has a comma in its name, which Kafka takes for two: choose another"
            )
        with self._told_if_unwritable():
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / ".lock").open("ab"):
                pass

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two starts at a time: the second waits, and finds the broker running."""
        with (self.folder / ".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _told_if_unwritable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            advice = "make room or choose another" if error.errno == errno.ENOSPC else "choose another (--data)"
            raise Unusable(f"the folder {self.folder} cannot be written ({reason}): {advice}") from None

    def _join(self, broker: Broker) -> None:
        """One that runs already is as good as one started, if it answers and where it was asked for."""
        stop = f"arrears kafka stop --data {self.folder}"
        if broker.port != self.port:
            raise Unusable(
                f"the local Kafka of {self.folder} runs already, on port {broker.port}: "
                f"use that, or stop it first ({stop}), or choose another folder (--data)"
            )
        if not _true_within(ANSWER_TIMEOUT_S, lambda: answers(broker.port)):
            raise Unusable(
                f"the local Kafka of {self.folder} (process {broker.pid}) runs but does not answer: "
                f"end it ({stop}), then start again"
            )

    def _check_port(self) -> None:
        try:
            bind(self.port)
        except (OSError, OverflowError) as error:
            if not isinstance(error, OSError) or error.errno != errno.EADDRINUSE:
                reason = getattr(error, "strerror", None) or error
                raise Unusable(
                    f"port {self.port} cannot be used ({reason}): choose another, from 1024 to 65535"
                ) from None
            other = next((broker for broker in brokers() if broker.port == self.port), None)
            if other is None:
                raise Unusable(
                    f"port {self.port} is in use by something else: choose another (--port), or end what listens there"
                ) from None
            raise Unusable(
                f"port {self.port} is in use by the local Kafka of {other.folder}: "
                f"use that, or stop it (arrears kafka stop --data {other.folder}), or choose another port (--port)"
            ) from None

    def _check_room(self) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < LEAST_FREE_BYTES:
            raise Unusable(
                f"there are only {free >> 20} MB left for {self.folder}, too little for a broker "
                f"({LEAST_FREE_BYTES >> 20} MB at least): make room or choose another folder (--data)"
            )

    def _write_properties(self) -> None:
        # The controller talks to nobody but this broker: any free port does, at each start another.
        controller = f"{HOST}:{free_port()}"
        text = properties_text(self.address, controller, self.folder / "logs", self._properties)
        with self._told_if_unwritable():
            self._config.write_text(text, encoding="ascii")

    @property
    def _config(self) -> Path:
        return self.folder / "server.properties"

    def _format(self, java: str, environment: Mapping[str, str]) -> None:
        """Give the logs an identity, once: 1.8 s."""
        if (self.folder / "logs" / "meta.properties").exists():
            return
        tool = ("kafka.tools.StorageTool", "format", "--cluster-id", cluster_id(), "--config", str(self._config))
        command = [java, *JAVA_OPTIONS, *tool, "--ignore-formatted"]
        try:
            ended = subprocess.run(  # noqa: S603  # what runs is the Java that was found
                command,
                env=environment,
                check=False,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                timeout=_FORMAT_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            raise Unusable(f"{java} did not make {self.folder} ready within {_FORMAT_TIMEOUT_S} s: try again") from None
        if ended.returncode:
            said = _last_words(ended.stdout.decode("utf-8", "replace"))
            raise Unusable(f"Kafka cannot keep its logs in {self.folder} ({said}): choose another folder (--data)")

    def _spawn(self, java: str, environment: Mapping[str, str]) -> int:
        """The broker's process, of a session of its own: a Ctrl-C here and the end of the terminal are not for it."""
        command = [
            java,
            *JAVA_OPTIONS,
            *marks(self.port, self.folder),
            f"-Dlog4j2.configurationFile={Path(__file__).parent / 'log4j2.xml'}",
            f"-XX:ErrorFile={self.folder / 'crash.log'}",
            "kafka.Kafka",
            str(self._config),
        ]
        with self._told_if_unwritable():
            if self.log.exists():
                self.log.replace(self.log.with_suffix(".log.1"))
            with self.log.open("wb") as log:
                files = ((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),)
                outputs = tuple((os.POSIX_SPAWN_DUP2, log.fileno(), number) for number in (1, 2))
                # Not `subprocess`: that wants to see the end of what it has started.
                pid = os.posix_spawn(java, command, environment, file_actions=files + outputs, setsid=True)
            self.pid_file.write_text(f"{pid}\n", encoding="ascii")
        return pid

    def _await_answer(self, process: psutil.Process) -> None:
        if not _true_within(START_TIMEOUT_S, lambda: answers(self.port) or not _runs(process)):
            self._kill(process)
            raise Unusable(
                f"the local Kafka did not answer on port {self.port} within {START_TIMEOUT_S:.0f} s "
                f"and was ended: {self.log} says more"
            )
        if not _runs(process):
            self.pid_file.unlink(missing_ok=True)
            said = _last_words(self.log.read_text("utf-8", "replace"))
            raise Unusable(f"the local Kafka has ended at its start ({said}): {self.log} says more")


# Folders --------------------------------------------------------------------------------------------------------------


def cache_dir() -> Path:
    """Where this user keeps what can be fetched again."""
    return Path(platformdirs.user_cache_dir("arrears", appauthor=False))


def default_data_dir() -> Path:
    """The folder of the broker if none is named."""
    return cache_dir() / "kafka"


# Looking at a process -------------------------------------------------------------------------------------------------


@contextmanager
def _signalled(process: psutil.Process) -> Iterator[None]:
    """Around a signal: one that has ended meanwhile needs none; that of another user is his."""
    try:
        yield
    except psutil.NoSuchProcess:
        pass
    except psutil.AccessDenied:
        raise Unusable(f"the local Kafka is another user's (process {process.pid}): let that user do it") from None


def _true_within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _runs(process: psutil.Process) -> bool:
    """Whether it still does. A child of ours that has ended is let go; that of another waits for him as a zombie."""
    with suppress(psutil.NoSuchProcess):
        try:
            process.wait(0)
        except psutil.TimeoutExpired:
            # A zombie of ours has threads that have not ended: it is let go a moment later.
            return process.status() != psutil.STATUS_ZOMBIE or process.ppid() == os.getpid()
    return False


def _ended(process: psutil.Process, within_s: float) -> bool:
    return _true_within(within_s, lambda: not _runs(process))


def _last_words(text: str) -> str:
    """Why it has ended, as far as it says so: the last line that names an error, without its decoration."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("at ")]
    telling = [line for line in lines if re.search(r"Exception|Error|FATAL|ERROR|error", line)] or lines
    said = re.sub(r"^\S+T\S+ +[A-Z]+ +", "", telling[-1]) if telling else "it said nothing"
    said = said.replace("Caused by: ", "")
    return said if len(said) <= 200 else f"{said[:197]}..."  # noqa: PLR2004
