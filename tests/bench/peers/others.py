"""Kafka Streams and Quix Streams: fetched, built, and run with the peers' job."""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import psutil
from aiokafka.admin import AIOKafkaAdminClient  # type: ignore[import-untyped]

from streams.faults import Unusable
from streams.local_kafka.java import find_java
from tests.bench.peers.ours import Recovery
from tests.bench.peers.topics import committed_by_group, make, told
from tests.bench.peers.watching import Failed, Run, watch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streams.fetched import Partition

QUIX: Final = "quixstreams==3.28.1"
#: How the name of every run of it begins.
KAFKA_STREAMS: Final = "Kafka Streams"
_HERE: Final = Path(__file__).parent
_SOURCES: Final = _HERE / "kafka_streams"
_HEAP: Final = "-Xmx1g"
_FETCH_WITHIN_S: Final = 900
_END_WITHIN_S: Final = 60.0
_RESTORED_WITHIN_S: Final = 600.0
_LOOK_EVERY_S: Final = 0.02


class Missing(Exception):
    """A peer cannot be had here; says why."""


class Peer(NamedTuple):
    """One of them, ready to be run."""

    name: str
    #: What starts it; brokers, its name and so on follow.
    command: tuple[str, ...]
    #: What follows them.
    options: tuple[str, ...] = ()


# Getting them -------------------------------------------------------------------------------------------------------


def kafka_streams(cache: Path) -> list[Peer]:
    """With the commit interval that is the default of exactly once, and with a long one. Raises Missing."""
    maven = shutil.which("mvn")
    if maven is None:
        raise Missing("Kafka Streams is left out: there is no Maven (mvn)")
    try:
        java = find_java()
    except Unusable as error:
        raise Missing(f"Kafka Streams is left out: {error}") from None
    target = _built(cache, maven) / "target"
    classes = f"{target / 'peer.jar'}:{target / 'lib'}/*"
    command = (java, _HEAP, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", classes, "arrears.bench.Balances")
    return [
        Peer(f"{KAFKA_STREAMS}, commit 0.1 s", command, ("100",)),
        Peer(f"{KAFKA_STREAMS}, commit 5 s", command, ("5000",)),
    ]


def _built(cache: Path, maven: str) -> Path:
    """The folder in which it is built, once for these sources."""
    files = sorted(path for path in _SOURCES.rglob("*") if path.suffix in {".java", ".xml"})
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
    folder = cache / f"kafka-streams-{digest}"
    done = folder / "done"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(_SOURCES, folder)
        build = [maven, "--quiet", "--batch-mode", "package"]
        # What was fetched once is not asked for again.
        if _fails([*build[:1], "--offline", *build[1:]], folder) and (told := _fails(build, folder)):
            raise Missing(f"Kafka Streams is left out: Maven could not build it ({told})")
        done.touch()
    return folder


def quix(cache: Path) -> list[Peer]:
    """In a venv of its own. Raises Missing."""
    folder = cache / QUIX.replace("==", "-")
    python, done = folder / "bin" / "python", folder / "done"
    if not done.exists():
        told = _fails([sys.executable, "-m", "venv", "--clear", str(folder)], cache) or _fails(
            [str(python), "-m", "pip", "install", "--quiet", QUIX], cache
        )
        if told:
            raise Missing(f"Quix Streams is left out: {QUIX} could not be installed ({told})")
        done.touch()
    return [Peer("Quix Streams, commit 5 s", (str(python), str(_HERE / "quix_job.py")))]


def _fails(command: Sequence[str], folder: Path) -> str | None:
    """The last it said, if it fails."""
    try:
        ended = subprocess.run(
            command, cwd=folder, check=False, capture_output=True, text=True, timeout=_FETCH_WITHIN_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if ended.returncode == 0:
        return None
    lines = [line for line in (ended.stdout + ended.stderr).splitlines() if "ERROR" in line or "error" in line]
    return lines[0] if lines else f"exit code {ended.returncode}"


# Running them -------------------------------------------------------------------------------------------------------


async def run(kafka: Mapping[str, str], folder: Path, peer: Peer, group: str, ends: Mapping[Partition, int]) -> Run:
    """Let a peer work the inputs off, and end. Raises Failed."""
    admin = AIOKafkaAdminClient(**kafka)
    await admin.start()
    output, log = f"{group}.changes", folder / f"{group}.log"
    try:
        await make(admin, output)
        process = _start(kafka, folder, peer, group, sum(ends.values()))
        try:
            watched = await watch(
                peer.name,
                [psutil.Process(process.pid)],
                lambda: _said(log, "first"),
                lambda: committed_by_group(admin, group),
                ends,
            )
            with suppress(subprocess.TimeoutExpired):  # what it was to do is done
                await asyncio.to_thread(process.wait, _END_WITHIN_S)
        except Failed as error:
            raise Failed(f"{error}: {log.read_text(encoding='utf-8', errors='replace')[-2000:]}") from None
        finally:
            process.kill()
            process.wait()
    finally:
        await admin.close()
    return watched.run(await told(kafka, [output]))


async def recover(kafka: Mapping[str, str], folder: Path, peer: Peer, group: str) -> Recovery:
    """Start Kafka Streams with nothing but what is in Kafka. Raises Failed."""
    log = folder / f"{group}.log"
    log.unlink()
    shutil.rmtree(folder / f"{group}.state")
    started = time.time()
    process = _start(kafka, folder, peer, group, 0)
    try:
        await asyncio.to_thread(process.wait, _RESTORED_WITHIN_S)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{peer.name} was not restored: {error}") from None
    finally:
        process.kill()
        process.wait()
    said = log.read_text(encoding="utf-8", errors="replace")
    restored, running = re.search(r"^restored (\d+)", said, re.MULTILINE), _said(log, "running")
    if restored is None or running is None:
        raise Failed(f"{peer.name} was not restored: {said[-2000:]}")
    return Recovery(f"{peer.name} ({int(restored[1]):,} changelog records)", running - started, 0)


def _start(kafka: Mapping[str, str], folder: Path, peer: Peer, group: str, records: int) -> subprocess.Popen[bytes]:
    state = folder / f"{group}.state"
    state.mkdir()
    arguments = (kafka["bootstrap_servers"], group, f"{group}.changes", str(records), str(state))
    with (folder / f"{group}.log").open("wb") as log:
        return subprocess.Popen(
            (*peer.command, *arguments, *peer.options),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )


def _said(log: Path, what: str) -> float | None:
    """The instant at which it said so, in seconds since 1970; the last, if several times."""
    found = re.findall(rf"^{what} (\d+)$", log.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    return int(found[-1]) / 1000 if found else None
