"""Files in parts, one for each process: a part has the lines of its accounts, and the controls for everybody.

All parts look at all lines, but each decodes its own only, which is most of the work. A line that cannot be read is the
first part's.
"""

from __future__ import annotations

from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec

from models.contract import EVERYONE
from models.records import Control
from models.refusal import Refusal
from streams.files import BLANK, LINES_A_REPORT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from models.outputs import DeadLetter, Source
    from models.records import Record, Topic
    from streams.files import Inputs, Lines

#: With fewer lines than this, processes cost more than they bring.
FEWEST_LINES: Final = 50_000


class _Whose(msgspec.Struct, gc=False):
    account_id: str
    kind: object = None


_whose: Final = msgspec.json.Decoder(_Whose).decode

# What the decoder raises: the slow way finds out.
_UNCERTAIN: Final = (msgspec.MsgspecError, ValueError, RecursionError)


def file_parts(inputs: Inputs, processes: int) -> Sequence[Inputs | FilePart]:
    """The inputs as parts for so many processes; one part, if more do not pay or cannot be."""
    lines = sum(file.count for file in inputs.files)
    if processes == 1 or lines < FEWEST_LINES or _one_account_sets_policies(inputs):
        return [inputs]
    return [FilePart(inputs, number, processes) for number in range(processes)]


def _one_account_sets_policies(inputs: Inputs) -> bool:
    """Whether a control of one account may put policies in force: they hold for all accounts, in all parts.

    And whether it is accepted hangs on that account, which only one of the parts would have.
    """
    for file in inputs.files:
        for _, line in file.lines() if file.topic == "controls" else ():
            try:
                whose = _whose(line)
            except _UNCERTAIN:
                try:
                    record = file.decode(line)
                except Refusal:
                    continue
                sets_policies, account_id = isinstance(record, Control) and record.kind == "policies", record.account_id
            else:
                sets_policies, account_id = whose.kind == "policies", whose.account_id
            if sets_policies and account_id != EVERYONE:
                return True
    return False


def _part_of(account_id: str, parts: int) -> int:
    """The part that tells of an account.

    Processes that are forked have one secret in their hashes. In another run it may be another part: no output shows.
    """
    return 0 if account_id == EVERYONE else hash(account_id) % parts


class FilePart:
    """The lines of those accounts that fall to one of `parts` parts."""

    def __init__(self, inputs: Inputs, part: int, parts: int) -> None:
        self._inputs = inputs
        self.portions: list[_Own | _ForEverybody] = [_Own(file, part, parts) for file in inputs.files]
        if part > 0:  # the first part has them among its own
            self.portions += [_ForEverybody(file) for file in inputs.files if file.topic == "controls"]

    @property
    def size(self) -> int:
        """Bytes of all inputs."""
        return self._inputs.size

    def topic(self, number: int) -> Topic:
        """The topic of a line."""
        return self._inputs.topic(number)

    def number_of(self, letter: DeadLetter) -> int:
        """The number of a line by its dead letter."""
        return self._inputs.number_of(letter)

    def source(self, number: int) -> Source:
        """Where a record came from."""
        return self._inputs.source(number)

    def raw(self, number: int) -> bytes:
        """A line without its line end."""
        return self._inputs.raw(number)


class _Own:
    """Of one file, the lines of a part's accounts."""

    is_guest = False

    def __init__(self, file: Lines, part: int, parts: int) -> None:
        self.topic: Topic = file.topic
        self._file = file
        self._part = part
        self._parts = parts

    def records(
        self, refuse: Callable[[int, Refusal], None], progress: Callable[[int], None]
    ) -> Iterator[tuple[int, Record]]:
        file, part, parts = self._file, self._part, self._parts
        first, lines = file.first, BytesIO(file.data)
        while block := list(islice(lines, LINES_A_REPORT)):
            for number, line in enumerate(block, first):
                try:
                    if _part_of(_whose(line).account_id, parts) != part:
                        continue
                except _UNCERTAIN:
                    if not self._is_mine(line):
                        continue
                try:
                    record = file.decode(line)
                except Refusal as refusal:
                    refuse(number, refusal)
                else:
                    yield number, record
            first += len(block)
            progress(sum(map(len, block)))

    def _is_mine(self, line: bytes) -> bool:
        """Whether a line is this part's whose account cannot be read the quick way."""
        if not line.strip(BLANK):
            return False
        try:
            whose = self._file.decode(line).account_id
        except Refusal:
            return self._part == 0
        return _part_of(whose, self._parts) == self._part


class _ForEverybody:
    """The controls for everybody, of which the first part tells."""

    is_guest = True

    def __init__(self, file: Lines) -> None:
        self.topic: Topic = file.topic
        self._file = file

    def records(
        self,
        refuse: Callable[[int, Refusal], None],  # noqa: ARG002  # whose they are tells of them
        progress: Callable[[int], None],  # noqa: ARG002
    ) -> Iterator[tuple[int, Record]]:
        for number, line in self._file.lines():
            try:
                if _whose(line).account_id != EVERYONE:
                    continue
            except _UNCERTAIN:
                pass
            try:
                record = self._file.decode(line)
            except Refusal:
                continue
            if record.account_id == EVERYONE:
                yield number, record
