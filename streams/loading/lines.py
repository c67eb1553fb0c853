"""The lines of several files as one sequence, in the order of their instants.

Laws of this file:

- The same files give the same sequence: how many lines of each have been taken says where a load goes on.
- A file whose lines are in order is never held in memory. Of one that is not, the instants and places are; standard
  input is taken as it comes.
- No line is judged beyond whose it is and when: what else is wrong with it, the worker tells by a dead letter.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import select
import stat
import sys
from array import array
from heapq import merge
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec

from models.instants import FIRST_INSTANT, Instant, parse_instant
from models.refusal import printable
from streams.faults import Unusable
from streams.files import FILE_TOPICS, STANDARD, shown_path, why_unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from models.records import Topic

_BLANK: Final = b" \t\r\n"
_BOM: Final = b"\xef\xbb\xbf"
#: Standard input is looked at so often for something new.
_LOOK_EVERY_S: Final = 0.2
_READ_BYTES: Final = 1 << 16
#: How many lines are looked through until progress is told.
_LINES_A_REPORT: Final = 16_384


class _Whose(msgspec.Struct, gc=False):
    """What has to be known of a record to send it."""

    account_id: str
    at: object = None


class _Bill(msgspec.Struct, rename={"at": "issued_at"}, gc=False):
    account_id: str
    at: object = None


class _Payment(msgspec.Struct, rename={"at": "paid_at"}, gc=False):
    account_id: str
    at: object = None


class _Usage(msgspec.Struct, rename={"at": "ended_at"}, gc=False):
    account_id: str
    at: object = None


_Decode: TypeAlias = "Callable[[bytes], _Whose | _Bill | _Payment | _Usage]"

_DECODERS: Final[dict[Topic, _Decode]] = {
    "bills": msgspec.json.Decoder(_Bill).decode,
    "payments": msgspec.json.Decoder(_Payment).decode,
    "usage": msgspec.json.Decoder(_Usage).decode,
    "packages": msgspec.json.Decoder(_Whose).decode,
    "controls": msgspec.json.Decoder(_Whose).decode,
}


class Line(NamedTuple):
    """A line in its place. Of two at one instant that of the earlier topic comes first."""

    #: Its instant; that of the line before it, if it has none or an earlier one.
    at: Instant
    #: The place of its file in `FILE_TOPICS`.
    file: int
    #: How many lines of its file have been taken with it.
    taken: int
    #: Its number in the file, from 1. 0: no line, nothing has come for a while.
    number: int
    #: The account; None if it cannot be read.
    key: bytes | None
    #: Without line end. None: the line is blank, or none.
    value: bytes | None
    #: Why it cannot be used; empty if it can.
    fault: str = ""


class Survey(NamedTuple):
    """What a file holds between two places."""

    lines: int
    in_order: bool
    #: SHA-256 of the file from its beginning to `end`, and to an earlier place, if a line ends there.
    digest: str
    earlier: str | None


class InputFile:
    """A regular file, of which the bytes from `begin` to `end` are loaded. Every method raises `Unusable`."""

    def __init__(self, topic: Topic, path: str) -> None:
        self.topic: Topic = topic
        self.path = path
        self.index = FILE_TOPICS.index(topic)
        self.name = shown_path(path)
        self.begin = 0
        #: Lines before `begin`.
        self.lines_before = 0
        self.end = self._size()
        self._decode = _DECODERS[topic]
        self._in_order = True

    def _open(self) -> IO[bytes]:
        try:
            return open(self.path, "rb")
        except (OSError, ValueError) as error:
            raise Unusable(f"--{self.topic}: {why_unreadable(self.path, error)}") from None

    def _size(self) -> int:
        with self._open() as file:
            return os.fstat(file.fileno()).st_size

    def survey(self, earlier: int | None, told: Callable[[int], None]) -> Survey:
        """Look it through, from the beginning to `end`; `told` hears how many bytes more have been looked at."""
        hashed, digest = hashlib.sha256(), None
        place = count = told_to = 0
        in_order, last = True, FIRST_INSTANT
        with self._open() as file:
            for whole in file:
                if earlier == place:
                    digest = hashed.hexdigest()
                if place >= self.end:  # it has grown since
                    break
                line = whole[: self.end - place]
                hashed.update(line)
                if place >= self.begin:
                    count += 1
                    if in_order:
                        at = self._instant(line, last)
                        in_order, last = at >= last, at
                place += len(line)
                if not count % _LINES_A_REPORT:
                    told(place - told_to)
                    told_to = place
        told(place - told_to)
        if earlier == place:
            digest = hashed.hexdigest()
        if place != self.end:
            raise Unusable(f"--{self.topic}: {self.name} has become shorter while it was read: try again")
        self._in_order = in_order
        return Survey(count, in_order, hashed.hexdigest(), digest)

    def lines(self, taken: int) -> Iterator[Line]:
        """Its lines in order, without the first `taken`."""
        return self._as_they_stand(taken) if self._in_order else self._sorted(taken)

    def _as_they_stand(self, taken: int) -> Iterator[Line]:
        place, last = self.begin, FIRST_INSTANT
        with self._open() as file:
            file.seek(self.begin)
            for count, whole in enumerate(file, 1):
                if place >= self.end:
                    break
                line = whole[: self.end - place]
                place += len(line)
                if count <= taken:
                    last = self._instant(line, last)
                else:
                    read = self._read(line, last, count, self.lines_before + count)
                    last = read.at
                    yield read

    def _sorted(self, taken: int) -> Iterator[Line]:
        instants, starts = array("q"), array("Q")
        with self._open() as file:
            file.seek(self.begin)
            place, last = self.begin, FIRST_INSTANT
            for line in file:
                if place >= self.end:
                    break
                last = self._instant(line, last)
                instants.append(last)
                starts.append(place)
                place += len(line)
            starts.append(self.end)
            order = sorted(range(len(instants)), key=instants.__getitem__)
            last = instants[order[taken - 1]] if 0 < taken <= len(order) else FIRST_INSTANT
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                for count, index in enumerate(order[taken:], taken + 1):
                    line = content[starts[index] : min(starts[index + 1], self.end)]
                    yield self._read(line, instants[index], count, self.lines_before + index + 1)

    def _instant(self, line: bytes, last: Instant) -> Instant:
        """The instant of a line; `last` if it has none."""
        try:
            at = self._decode(line).at
            return parse_instant(at) if isinstance(at, str) else last
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return last

    def _read(self, line: bytes, last: Instant, taken: int, number: int) -> Line:
        return _read(self._decode, self.index, line, last, taken, number)


class Stream:
    """Standard input, or a pipe: its lines as they come. Between them, when none does, a line without a value."""

    def __init__(self, topic: Topic, path: str) -> None:
        self.topic: Topic = topic
        self.path = path
        self.index = FILE_TOPICS.index(topic)
        self.name = shown_path(path)
        self._decode = _DECODERS[topic]
        try:
            self._fd = _standard_input() if path == STANDARD else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise Unusable(f"--{topic}: {why_unreadable(path, error)}") from None

    def lines(self, taken: int) -> Iterator[Line]:  # noqa: ARG002  # it cannot be read again
        """Its lines. Raises `Unusable`."""
        last, count, rest = FIRST_INSTANT, 0, b""
        while True:
            try:
                ready, _, _ = select.select([self._fd], [], [], _LOOK_EVERY_S)
                if not ready:
                    yield Line(last, self.index, count, 0, None, None)
                    continue
                data = os.read(self._fd, _READ_BYTES)
            except OSError as error:
                raise Unusable(f"--{self.topic}: {why_unreadable(self.path, error)}") from None
            *lines, rest = (rest + data).split(b"\n") if data else ([rest, b""] if rest else [b""])
            for line in lines:
                count += 1
                read = _read(self._decode, self.index, line, last, count, count)
                last = read.at
                yield read
            if not data:
                return


def _standard_input() -> int:
    if sys.stdin is None:
        raise OSError(errno.EBADF, "it is closed")
    return sys.stdin.fileno()


Source = InputFile | Stream


def open_source(topic: Topic, path: str) -> Source:
    """What stands at a path. Raises `Unusable`."""
    if path == STANDARD:
        return Stream(topic, path)
    try:
        found = Path(path).stat()
    except (OSError, ValueError) as error:
        raise Unusable(f"--{topic}: {why_unreadable(path, error)}") from None
    regular = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(
        found.st_mode
    )  # whoever opens a directory tells that it is one
    return InputFile(topic, path) if regular else Stream(topic, path)


def _read(decode: _Decode, file: int, line: bytes, last: Instant, taken: int, number: int) -> Line:
    try:
        whose = decode(line)
        key = whose.account_id.encode()
        at = whose.at
        at = parse_instant(at) if isinstance(at, str) else last
        if key:
            at = max(at, last)
            return tuple.__new__(Line, (at, file, taken, number, key, line.removesuffix(b"\n").removesuffix(b"\r"), ""))
        fault = 'has an empty "account_id"'
    except ValueError as error:  # msgspec's own are ValueErrors too
        if not line.strip(_BLANK):
            return Line(last, file, taken, number, None, None)
        fault, known = _fault(line, error), _whose_at_least(decode, line)
        if known:  # its instant alone cannot be read
            return Line(last, file, taken, number, known, line.removesuffix(b"\n").removesuffix(b"\r"))
    except RecursionError:
        fault = "is nested too deep"
    return Line(last, file, taken, number, None, line.removesuffix(b"\n").removesuffix(b"\r"), fault)


def _whose_at_least(decode: _Decode, line: bytes) -> bytes | None:
    try:
        return decode(line).account_id.encode()
    except ValueError:
        return None


def _fault(line: bytes, error: ValueError) -> str:
    if line.startswith(_BOM):
        return "begins with a byte order mark: save the file as UTF-8 without BOM"
    if isinstance(error, msgspec.ValidationError):
        text = str(error)
        return 'has no "account_id"' if "account_id" in text else f"is no record: {printable(text)}"
    return f"is no JSON: {printable(str(error))}"


def in_order(sources: Sequence[Source], taken: Sequence[int]) -> Iterator[Line]:
    """The lines of all, without the first `taken` of each."""
    sequences = [source.lines(count) for source, count in zip(sources, taken, strict=True)]
    return merge(*sequences) if len(sequences) > 1 else sequences[0]
