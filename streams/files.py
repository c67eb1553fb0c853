"""The inputs of a replay: files of JSON lines, each a topic's value (contract §4).

Laws of this file:

- A file's bytes are read once and kept; its lines are not copied, but found again when a dead letter asks for one.
- A line's number counts every line, blank ones too; a carriage return before the line end belongs to that.
- Every line that is not blank is a record or is refused. Nothing is dropped silently.
"""

from __future__ import annotations

import errno
import sys
from array import array
from bisect import bisect_right
from functools import cached_property
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING, Final

from models.outputs import Source
from models.records import decode
from models.refusal import Refusal, printable
from streams.faults import Unusable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from models.outputs import DeadLetter
    from models.records import Record, Topic

#: What stands for standard input and standard output.
STANDARD: Final = "-"

#: The topics that files carry, in the order in which dead letters are told.
FILE_TOPICS: Final[tuple[Topic, ...]] = ("bills", "payments", "usage", "packages", "controls")

_BOM: Final = b"\xef\xbb\xbf"
#: What may stand on a blank line, and around a value.
BLANK: Final = b" \t\r\n"
#: How many lines are read until progress is told.
LINES_A_REPORT: Final = 16_384


class Lines:
    """One input, whole. `first` is the number of its first line, counted over all inputs from 0."""

    is_guest = False

    def __init__(self, topic: Topic, data: bytes, first: int) -> None:
        self.topic: Topic = topic
        self.data = data
        self.first = first
        self.count = data.count(b"\n") + (not data.endswith(b"\n") and len(data) > 0)

    def records(
        self, refuse: Callable[[int, Refusal], None], progress: Callable[[int], None]
    ) -> Iterator[tuple[int, Record]]:
        """Each line's number and record; blank lines are skipped, unusable ones handed to `refuse`.

        `progress` is told now and then how many bytes more have been read.
        """
        topic, first, lines = self.topic, self.first, BytesIO(self.data)  # it shares the bytes
        while block := list(islice(lines, LINES_A_REPORT)):
            for number, line in enumerate(block, first):
                try:
                    record = decode(topic, line)  # for JSON a line end is no more than a blank
                except Refusal:
                    if line.strip(BLANK):
                        refuse(number, self._refusal(line))
                    continue
                yield number, record
            first += len(block)
            progress(sum(map(len, block)))

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Each line that is not blank, with its number and its line end."""
        return ((number, line) for number, line in enumerate(BytesIO(self.data), self.first) if line.strip(BLANK))

    def decode(self, line: bytes) -> Record:
        """The record of a line. Raises `Refusal`."""
        try:
            return decode(self.topic, line)
        except Refusal:
            raise self._refusal(line) from None

    def _refusal(self, line: bytes) -> Refusal:
        """Why a line cannot be used: the line end is no part of that."""
        if line.startswith(_BOM):
            told = "not JSON: begins with a byte order mark: save the file as UTF-8 without BOM"
            return Refusal("not_json", None, told)
        try:
            decode(self.topic, line.removesuffix(b"\n").removesuffix(b"\r"))
        except Refusal as refusal:
            # A new one: what was raised holds on to the line and to all that looked at it.
            return Refusal(refusal.error, refusal.field, refusal.message)
        raise AssertionError("a line end makes no record unusable")

    def line(self, index: int) -> bytes:
        """The line at `index` from 0, without its line end."""
        starts = self._starts
        end = starts[index + 1] - 1 if index + 1 < len(starts) else len(self.data) - self.data.endswith(b"\n")
        return self.data[starts[index] : end].removesuffix(b"\r")

    @cached_property
    def _starts(self) -> array[int]:
        starts = array("Q")
        start = 0
        for line in BytesIO(self.data):
            starts.append(start)
            start += len(line)
        return starts


class Inputs:
    """The inputs of a run; their lines are numbered through, from 0, in the order of `FILE_TOPICS`."""

    def __init__(self, contents: Sequence[tuple[Topic, bytes]]) -> None:
        self.files: list[Lines] = []
        first = 0
        for topic, data in contents:
            self.files.append(Lines(topic, data, first))
            first += self.files[-1].count
        self._firsts = [file.first for file in self.files]

    @property
    def size(self) -> int:
        """Bytes of all inputs."""
        return sum(len(file.data) for file in self.files)

    def topic(self, number: int) -> Topic:
        """The topic of a line."""
        return self._file(number).topic

    @property
    def portions(self) -> Sequence[Lines]:
        """The files, as a replay of all of them takes them."""
        return self.files

    def number_of(self, letter: DeadLetter) -> int:
        """The number of a line by its dead letter."""
        return next(file.first for file in self.files if file.topic == letter.topic) + letter.offset - 1

    def source(self, number: int) -> Source:
        """Where a record came from: `offset` is its line in the file, from 1; the value has no line end."""
        file = self._file(number)
        index = number - file.first
        return Source(file.topic, None, index + 1, None, file.line(index), None)

    def raw(self, number: int) -> bytes:
        """A line without its line end."""
        file = self._file(number)
        return file.line(number - file.first)

    def _file(self, number: int) -> Lines:
        return self.files[bisect_right(self._firsts, number) - 1]


def read_inputs(paths: Sequence[tuple[Topic, str]]) -> Inputs:
    """The inputs at these paths, in the order of `FILE_TOPICS`. Raises `Unusable`."""
    contents: list[tuple[Topic, bytes]] = []
    for topic, path in paths:
        try:
            contents.append((topic, _read(path)))
        except (OSError, ValueError) as error:
            raise Unusable(f"--{topic}: {why_unreadable(path, error)}") from None
        except MemoryError:
            told = f"{shown_path(path)} does not fit into memory: split it by account and replay the parts"
            raise Unusable(f"--{topic}: {told}") from None
    return Inputs(contents)


def _read(path: str) -> bytes:
    if path == STANDARD:
        if sys.stdin is None:
            raise OSError(errno.EBADF, "it is closed")
        with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as file:
            return file.readall()
    with open(path, "rb", buffering=0) as file:
        return file.readall()


def why_unreadable(path: str, error: OSError | ValueError) -> str:
    """Why an input cannot be read, and what to do."""
    name = shown_path(path)
    if isinstance(error, FileNotFoundError):
        return f"there is no file {name}: check the path"
    if isinstance(error, IsADirectoryError):
        return f"{name} is a directory: name a file in it"
    reason = (isinstance(error, OSError) and error.strerror) or str(error)
    return f"{name} cannot be read ({reason}): check the path and its permissions"


def shown_path(path: str) -> str:
    """A path as a message shows it, on one line."""
    if path == STANDARD:
        return "standard input"
    return printable(path) if path.strip() else f'"{printable(path)}"'
