"""Which processes are local brokers, and of which folder.

A broker is known by its command line, which names its folder and its port, never by a number in a file: a file outlives
a crash, and by then the number can be anybody's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAIN: Final = "kafka.Kafka"
_PORT: Final = "-Darrears.kafka.port="
_FOLDER: Final = "-Darrears.kafka.folder="


class Broker(NamedTuple):
    """A broker that `arrears` has started."""

    process: psutil.Process
    port: int
    folder: str

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self.process.pid


def marks(port: int, folder: Path) -> list[str]:
    """The arguments of Java by which a broker is found again."""
    return [f"{_PORT}{port}", f"{_FOLDER}{folder}"]


def brokers() -> Iterator[Broker]:
    """The local brokers that run on this machine, frozen ones too, zombies not."""
    for process in psutil.process_iter(["cmdline"]):
        arguments = process.info["cmdline"] or []  # none of a zombie, nor where we may not look
        if _MAIN in arguments:
            told = {mark: argument for argument in arguments for mark in (_PORT, _FOLDER) if argument.startswith(mark)}
            if told.keys() == {_PORT, _FOLDER}:
                yield Broker(process, int(told[_PORT].removeprefix(_PORT)), told[_FOLDER].removeprefix(_FOLDER))


def broker_of(folder: Path) -> Broker | None:
    """The broker that has this folder."""
    return next((broker for broker in brokers() if broker.folder == str(folder)), None)
