"""How far a load has come, kept in a file beside the user's other state: the same command again goes on from there.

What is kept can lag behind what Kafka has: after a crash the records that went out since are found in the topics.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
import platformdirs

from models.refusal import printable
from streams.faults import Unusable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

_VERSION: Final = 1

Ends: TypeAlias = dict[str, list[int]]


class FileState(msgspec.Struct):
    """How far one file has been loaded."""

    path: str
    #: The bytes from `begin` to `end` are loaded in one go; before `begin` all has been.
    begin: int
    lines_before: int
    end: int
    #: SHA-256 of the file up to `end`.
    digest: str
    #: Lines between the two, and how many of them, in order, have been taken.
    lines: int
    taken: int = 0


class State(msgspec.Struct):
    """How far a load has come."""

    files: dict[str, FileState]
    #: By topic and partition, the offset that follows what is known to be delivered.
    ends: Ends
    #: Nothing was under way when this was written.
    settled: bool = True
    finished: bool = False
    saved_at: str = ""
    version: int = _VERSION


class StateFile:
    """The file of one load. A context: while it lasts no other load of the same can run. Raises `Unusable`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = -1

    @classmethod
    def of(cls, cluster: str, files: Iterable[tuple[str, str]]) -> Self:
        """That of these files (topic, path) and this cluster."""
        name = "\0".join((cluster, *(f"{topic}={os.path.realpath(path)}" for topic, path in files)))
        folder = platformdirs.user_state_path("arrears", appauthor=False) / "load"
        return cls(folder / f"{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()[:32]}.json")

    def __enter__(self) -> Self:
        """Take it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unusable("the same files are being loaded already: wait for that, or stop it") from None
        except (OSError, ValueError) as error:
            raise self._unusable("written", error) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def read(self) -> State | None:
        """What it says; None if there is none."""
        try:
            state = msgspec.json.decode(self.path.read_bytes(), type=State)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:  # msgspec's own are ValueErrors
            raise self._unusable("read", error) from None
        if state.version != _VERSION:
            raise self._unusable("read", ValueError(f"version {state.version}"))
        return state

    def save(self, state: State) -> None:
        """Keep it."""
        beside = self.path.with_name(f"{self.path.name}.part")
        try:
            beside.write_bytes(msgspec.json.encode(state))
            beside.replace(self.path)
        except OSError as error:
            raise self._unusable("written", error) from None

    def _unusable(self, done: str, error: OSError | ValueError) -> Unusable:
        reason = getattr(error, "strerror", None) or str(error)
        name = printable(str(self.path))
        return Unusable(
            f"how far the load has come cannot be {done}, in {name} ({printable(reason)}): "
            "name another file (--resume), or remove it: then all is loaded anew"
        )
