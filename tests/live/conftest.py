"""One broker for the whole run, whatever the number of pytest's workers; and brokers of a test's own, to break."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Protocol

import pytest
from aiokafka.admin import AIOKafkaAdminClient  # type: ignore[import-untyped]

from streams.local_kafka import LocalKafka, free_port
from streams.topic_design import TOPICS
from streams.topics import create

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DELETE_TIMEOUT_S = 30


@contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all workers of this run share: under xdist each has a folder of its own in it."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def broker(run_folder: Path) -> Iterator[LocalKafka]:
    """The broker of the run. The first worker that asks starts it; the last that leaves stops it.

    A worker that uses it holds a shared lock, which ends with its process: one that crashes leaves no count behind.
    """
    gate, port = run_folder / "kafka.gate", run_folder / "kafka.port"
    with (run_folder / "kafka.users").open("ab") as users:
        with _locked(gate):
            fcntl.flock(users, fcntl.LOCK_SH)
            if not port.exists():
                port.write_text(str(free_port()), encoding="ascii")
            kafka = LocalKafka(int(port.read_text(encoding="ascii")), run_folder / "kafka")
            kafka.start()
        yield kafka
        with _locked(gate):
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            kafka.stop()
            shutil.rmtree(kafka.folder / "logs", ignore_errors=True)


class NewKafka(Protocol):
    """Starts a broker of the test's own; what is given is added to its properties."""

    def __call__(self, **properties: str) -> LocalKafka: ...


@pytest.fixture
def new_kafka(tmp_path: Path) -> Iterator[NewKafka]:
    """Brokers that a test may kill and freeze; they end with it. Of a property's name `__` stands for each dot."""
    brokers: list[LocalKafka] = []

    def start(**properties: str) -> LocalKafka:
        named = {name.replace("__", "."): value for name, value in properties.items()}
        brokers.append(LocalKafka(free_port(), tmp_path / f"kafka-{len(brokers)}", properties=named))
        brokers[-1].start()
        return brokers[-1]

    yield start
    for kafka in brokers:
        kafka.stop()
        shutil.rmtree(kafka.folder / "logs", ignore_errors=True)


class FreshTopics(Protocol):
    """Makes all topics of an app id anew, empty; says what a client takes."""

    def __call__(self, partitions: int = 4, app_id: str = "arrears") -> dict[str, Any]: ...


@pytest.fixture
def fresh_topics(broker: LocalKafka, run_folder: Path) -> Iterator[FreshTopics]:
    """The topics of the shared broker, for this test alone: inputs have one name for all, so tests take turns.

    Topics of other names are left alone, so tests that make up names of their own run beside it.
    """
    client = {"bootstrap_servers": broker.address}

    def make(partitions: int = 4, app_id: str = "arrears") -> dict[str, Any]:
        asyncio.run(_delete(client, {design.called(app_id) for design in TOPICS}))
        asyncio.run(create(client, partitions=partitions, app_id=app_id))
        return dict(client)

    with _locked(run_folder / "kafka.topics"):
        yield make


async def _delete(client: dict[str, Any], names: set[str]) -> None:
    admin = AIOKafkaAdminClient(**client)
    await admin.start()
    try:
        async with asyncio.timeout(_DELETE_TIMEOUT_S):
            while left := names & set(await admin.list_topics()):
                await admin.delete_topics(sorted(left))
    finally:
        await admin.close()
