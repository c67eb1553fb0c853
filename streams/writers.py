"""The outputs of a replay: JSON lines, one value a line (contract §4).

Laws of this file:

- A regular file, or one that is not there yet, is written beside its place and put there at the end: a failed run
  leaves no half of one, and what was there before stays. Pipes and devices are written as the run goes.
- A pipe whose reader has gone is no error: who reads has what he wanted.
- What cannot be written is told in one line.
"""

from __future__ import annotations

import os
import re
import secrets
import select
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from streams.faults import Unusable
from streams.files import STANDARD, shown_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType
    from typing import Self

#: Bytes that are gathered until they are written.
_WRITE_AT: Final = 1 << 20

#: What is open already: what a shell hands over for `>(…)`, say.
_DESCRIPTOR: Final = re.compile(r"/(?:dev|proc/self)/fd/([0-9]{1,6})")
_NAMED: Final = {"/dev/stdout": "/dev/fd/1", "/dev/stderr": "/dev/fd/2"}

#: Files and folders that are to go if the process has to stop before its end.
UNFINISHED: Final[set[str]] = set()

#: A value as its line has it, without the line end.
encode: Final = msgspec.json.Encoder().encode


class Output:
    """One output, named by the option that asks for it. A context: left without `finish`, nothing is left behind.

    Every method raises `Unusable` if the output cannot be written.
    """

    def __init__(self, option: str, path: str) -> None:
        self._option = option
        self._path = path
        #: Whether its reader has gone: what is written then is thrown away.
        self.closed = False
        self._parts: list[bytes] = []
        self._size = 0
        self._fd = -1
        self._target = self._temporary = ""

    def __enter__(self) -> Self:
        """Open it, before the work begins: what cannot be written is told at once."""
        try:
            self._open()
        except (OSError, ValueError) as error:
            raise self._unwritable(error) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of it; what was not finished goes."""
        with suppress(OSError):
            self._close()
        if self._temporary:
            with suppress(OSError):
                Path(self._temporary).unlink()
            UNFINISHED.discard(self._temporary)

    def write_all(self, values: Iterable[object]) -> None:
        """Add a line for each."""
        self.write_lines(map(encode, values))

    def write_lines(self, lines: Iterable[bytes]) -> None:
        """Add lines that are encoded already."""
        parts = self._parts
        for line in lines:
            parts += (line, b"\n")
            self._size += len(line)
            if self._size >= _WRITE_AT:
                self.flush()

    def finish(self) -> None:
        """Everything has been written: put the file in its place."""
        self.flush()
        try:
            self._close()
            if self._temporary:
                Path(self._temporary).replace(self._target)
                UNFINISHED.discard(self._temporary)
                self._temporary = ""
        except OSError as error:
            raise self._unwritable(error) from None

    def _open(self) -> None:
        if self._path == STANDARD:
            if sys.stdout is None:
                raise ValueError("it is closed")
            self._fd = os.dup(sys.stdout.fileno())
            return
        descriptor = _DESCRIPTOR.fullmatch(_NAMED.get(self._path, self._path))
        if descriptor is not None:  # opened by its name it would be written from its beginning, whatever is in it
            self._fd = os.dup(int(descriptor[1]))
            return
        target = os.path.realpath(self._path)
        try:
            there = Path(target).stat()
        except FileNotFoundError:
            there = None
        if there is not None and stat.S_ISDIR(there.st_mode):
            raise IsADirectoryError
        if there is None:
            self._open_beside(target)
        elif stat.S_ISREG(there.st_mode) and _can_be_replaced(target, there):
            self._open_beside(target)
            with suppress(OSError):  # only root may give a file away
                os.fchown(self._fd, there.st_uid, there.st_gid)
            os.fchmod(self._fd, stat.S_IMODE(there.st_mode))
        else:
            self._fd = os.open(target, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)

    def _open_beside(self, target: str) -> None:
        temporary = str(Path(target).with_name(f".arrears-{secrets.token_hex(6)}.part"))
        UNFINISHED.add(temporary)
        self._fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._target, self._temporary = target, temporary

    def flush(self) -> None:
        """Write out what has been gathered."""
        left = memoryview(b"".join(self._parts))
        self._parts.clear()
        self._size = 0
        try:
            while left and not self.closed:
                try:
                    left = left[os.write(self._fd, left) :]
                except BlockingIOError:  # a pipe that somebody has set to non-blocking
                    select.select([], [self._fd], [])
        except BrokenPipeError:
            self.closed = True
        except OSError as error:
            raise self._unwritable(error) from None

    def is_read(self) -> bool:
        """Whether somebody may still read: a pipe says so before anything is written to it."""
        if not self.closed:
            poll = select.poll()
            poll.register(self._fd, 0)
            self.closed = any(event & select.POLLERR for _, event in poll.poll(0))
        return not self.closed

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _unwritable(self, error: OSError | ValueError) -> Unusable:
        name = shown_path(self._path)
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        match error:
            case _ if self._path == STANDARD:
                told = f"standard output cannot be written ({reason}): make room, or send it elsewhere"
            case IsADirectoryError():
                told = f"{name} is a directory: name a file in it"
            case FileNotFoundError():
                told = f"there is no folder for {name}: make it first, or choose another"
            case _:
                told = f"{name} cannot be written ({reason}): make room or set its permissions, or choose another place"
        return Unusable(f"{self._option}: {told}")


class Outputs:
    """The outputs that are asked for, by what they carry."""

    def __init__(
        self,
        commands: Output | None = None,
        notices: Output | None = None,
        accounts: Output | None = None,
        dead_letters: Output | None = None,
    ) -> None:
        self.commands = commands
        self.notices = notices
        self.accounts = accounts
        self.dead_letters = dead_letters
        self._there = [output for output in (commands, notices, accounts, dead_letters) if output is not None]

    def __iter__(self) -> Iterator[Output]:
        """Those that are there."""
        return iter(self._there)

    def finish(self) -> None:
        """Everything has been written: put the files in their places."""
        for output in self._there:  # first all to the disk: if one fails, none takes its place
            output.flush()
        for output in self._there:
            output.finish()

    @property
    def unread(self) -> bool:
        """Whether there are outputs, and the readers of all have gone."""
        for output in self._there:  # a generator would cost more than the look
            if not output.closed:
                return False
        return bool(self._there)


def write_one(value: object) -> None:
    """One value to standard output, as a line of JSON: what a command says to a program. Raises `Unusable`."""
    with Output("--json", STANDARD) as output:
        output.write_all([value])
        output.finish()


def _can_be_replaced(target: str, there: os.stat_result) -> bool:
    """Whether another file can be put into the place of this one; raises PermissionError if it is not to be written."""
    if not os.access(target, os.W_OK):
        raise PermissionError(1, "it is write-protected")
    folder = Path(target).parent
    # A file that is mounted by itself (in a container, say) lies on another device than its folder.
    return os.access(folder, os.W_OK) and folder.stat().st_dev == there.st_dev
