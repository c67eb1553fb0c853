"""A replay in several processes, each with a part of the accounts; together they say what one would, byte for byte.

Laws of this file:

- Processes are forked before anything else runs in this one: what was read before is theirs without a copy.
- A part first replays its records, and says which was its last usable one. The last of all parts is the end of the
  clock for each (§4); then each goes on to that, and hands over its outputs, which are in order and merged here.
- No process outlives this one, whatever ends it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from heapq import merge
from itertools import islice
from multiprocessing.connection import wait
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, TypeAlias

import msgspec

from streams.faults import NobodyReads, Unusable
from streams.files import FILE_TOPICS
from streams.outcome import PartReplay, Progress, Tally, place_of_command, place_of_notice
from streams.writers import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess
    from types import TracebackType
    from typing import Self

    from models.instants import Instant
    from models.outputs import DeadLetter
    from streams.outcome import PartInputs, Wanted
    from streams.writers import Outputs

    #: How a process gets at what its part reads: files are there already, topics are yet to be fetched.
    Source: TypeAlias = Callable[[Progress], PartInputs]

#: Lines that are handed over at once.
_LINES_A_CHUNK: Final = 512

_pack: Final = msgspec.msgpack.Encoder().encode
#: Each with its place among those of its kind.
_unpack: Final = msgspec.msgpack.Decoder(list[tuple[Any, bytes]]).decode


class Needed(NamedTuple):
    """Which outputs are asked for: the others need not be made."""

    commands: bool
    notices: bool
    accounts: bool
    dead_letters: bool


class _Told(NamedTuple):
    """A process tells how far it has come: calls a method of `Progress`."""

    what: str
    much: int


class _Through(NamedTuple):
    """A process is through its records."""

    last_usable: Instant | None


class _Failed(NamedTuple):
    """A process has failed."""

    error: BaseException


def processes_that_pay() -> int:
    """As many as there are cores for this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def replay_parts(
    sources: Sequence[Source],
    wanted: Wanted,
    outputs: Outputs,
    progress: AbstractContextManager[Progress],
    *,
    stop_unread: bool = True,
) -> Tally:
    """Replay one part here, or several in a process each, and write what is asked for.

    Raises `Unusable` if that cannot be, and `NobodyReads`.
    """
    if len(sources) == 1:
        with progress as bar:
            return PartReplay(sources[0](bar), wanted, bar).run(outputs, stop_unread=stop_unread)
    asked_for = (outputs.commands, outputs.notices, outputs.accounts, outputs.dead_letters)
    with Parts(sources, wanted, Needed(*(output is not None for output in asked_for))) as parts, progress as bar:
        return parts.run(outputs, bar, stop_unread=stop_unread)


class Parts:
    """The processes, one for each of `sources`. A context: left early, they are ended."""

    def __init__(self, sources: Sequence[Source], wanted: Wanted, needed: Needed) -> None:
        self._sources = sources
        self._wanted = wanted
        self._needed = needed
        self._processes: list[BaseProcess] = []
        self._connections: list[Connection[Any, Any]] = []
        #: Nothing is ever written to it: that it is closed tells that this process has gone.
        self._life = (-1, -1)

    def __enter__(self) -> Self:
        """Start the processes."""
        fork = multiprocessing.get_context("fork")
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()  # what is not written yet would be written twice
        self._life = os.pipe()
        for source in self._sources:
            ours, theirs = fork.Pipe()
            self._connections.append(ours)
            process = fork.Process(target=self._work, args=(source, theirs), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End them."""
        for process in self._processes:
            process.kill()
            process.join()
            process.close()
        for connection in self._connections:
            connection.close()
        for end in self._life:
            os.close(end)

    def run(self, outputs: Outputs, progress: Progress, *, stop_unread: bool = True) -> Tally:
        """Replay, and write what is asked for. Raises `Unusable` if that cannot be, and `NobodyReads`."""
        ends = self._await_ends(progress)
        ended_at = max((end for end in ends if end is not None), default=None)
        for connection in self._connections:
            connection.send(ended_at)
        for output in (outputs.commands, outputs.notices, outputs.accounts, outputs.dead_letters):
            lines = merge(*map(self._lines_of, range(len(self._connections))), key=itemgetter(0))
            while chunk := list(islice(lines, _LINES_A_CHUNK)):
                if output is not None:
                    output.write_lines(line for _, line in chunk)
                if stop_unread and outputs.unread:
                    raise NobodyReads
        tally = Tally(ended_at=ended_at)
        for index in range(len(self._connections)):
            tally.add(self._receive(index))
        outputs.finish()
        return tally

    def _await_ends(self, progress: Progress) -> list[Instant | None]:
        """Which instant each part says that its last usable record has."""
        ends: list[Instant | None] = []
        running = dict(zip(self._connections, range(len(self._connections)), strict=True))
        while running:
            for connection in wait(list(running)):
                told = self._receive(running[connection])  # type: ignore[index]  # it is one of those asked for
                if isinstance(told, _Through):
                    ends.append(told.last_usable)
                    del running[connection]  # type: ignore[arg-type]
                else:
                    getattr(progress, told.what)(told.much)
        return ends

    def _receive(self, index: int) -> Any:  # noqa: ANN401  # what a process says
        try:
            told = self._connections[index].recv()
        except (EOFError, ConnectionError):
            process = self._processes[index]
            process.join()
            raise Unusable(_why_gone(process.exitcode)) from None
        if isinstance(told, _Failed):
            raise told.error
        return told

    def _lines_of(self, index: int) -> Iterator[tuple[Any, bytes]]:
        """The lines of the next kind of output, each with its place."""
        while chunk := self._receive(index):
            yield from _unpack(chunk)

    # -- in a process -----------------------------------------------------------------------------------------------

    def _work(self, source: Source, connection: Connection[Any, Any]) -> NoReturn:
        # Whoever presses Ctrl-C gets a word of the process that he started, which ends the others.
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for other in self._connections:
            other.close()  # or the end of this process would not be seen by those who talk with it
        os.close(self._life[1])
        threading.Thread(target=_end_with, args=(self._life[0],), daemon=True).start()
        try:
            self._replay(PartReplay(source(_Telling(connection)), self._wanted, _Telling(connection)), connection)
        except BaseException as error:  # noqa: BLE001  # told where it is heard
            error.add_note("".join(traceback.format_exception(error)))
            connection.send(_Failed(error))
        finally:
            os._exit(0)  # a million records need not be freed one by one

    def _replay(self, part: PartReplay, connection: Connection[Any, Any]) -> None:
        needed = self._needed
        commands, notices = _Lines(), _Lines()

        def agree(last_usable: Instant | None) -> Instant | None:
            connection.send(_Through(last_usable))
            ended_at: Instant | None = connection.recv()
            return ended_at

        for at, published in part.instants(agree):
            for command in published.commands if needed.commands else ():
                commands.add((at, *place_of_command(command)), command)
            for notice in published.notices if needed.notices else ():
                notices.add((at, *place_of_notice(notice)), notice)
        commands.hand_over(connection)
        notices.hand_over(connection)
        _hand_over(connection, ((view.account_id, encode(view)) for view in part.views() if needed.accounts))
        letters = part.letters() if needed.dead_letters else iter(())
        _hand_over(connection, ((_place_of_letter(letter), encode(letter)) for letter in letters))
        connection.send(part.tally)


class _Lines:
    """Lines of one kind of output, packed."""

    def __init__(self) -> None:
        self._packed: list[bytes] = []
        self._open: list[tuple[object, bytes]] = []

    def add(self, place: object, value: object) -> None:
        self._open.append((place, encode(value)))
        if len(self._open) == _LINES_A_CHUNK:
            self._packed.append(_pack(self._open))
            self._open = []

    def hand_over(self, connection: Connection[Any, Any]) -> None:
        for chunk in self._packed:
            connection.send(chunk)
        _hand_over(connection, self._open)


def _hand_over(connection: Connection[Any, Any], lines: Iterable[tuple[object, bytes]]) -> None:
    """Lines to the end of their kind."""
    left = iter(lines)
    while chunk := list(islice(left, _LINES_A_CHUNK)):
        connection.send(_pack(chunk))
    connection.send(b"")


def _place_of_letter(letter: DeadLetter) -> tuple[int, int, int]:
    """By topic, partition, offset (§4); in files the lines of a topic are numbered through."""
    return FILE_TOPICS.index(letter.topic), letter.partition or 0, letter.offset


class _Telling(Progress):
    """Tells it the process that shows it."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection

    def fetching(self, count: int) -> None:
        self._connection.send(_Told("fetching", count))

    def fetched(self, count: int) -> None:
        self._connection.send(_Told("fetched", count))

    def reading(self, size: int) -> None:
        self._connection.send(_Told("reading", size))

    def read(self, size: int) -> None:
        self._connection.send(_Told("read", size))

    def replaying(self, count: int) -> None:
        self._connection.send(_Told("replaying", count))

    def replayed(self, count: int) -> None:
        self._connection.send(_Told("replayed", count))


def _end_with(life: int) -> None:
    """End this process when the one that started it has gone."""
    os.read(life, 1)
    os._exit(0)


def _why_gone(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "a process of it was killed, perhaps because memory ran out: replay a part of the accounts at a time"
    return f"a process of it ended before its work was done (exit code {code}): try again"
