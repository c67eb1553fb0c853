"""Two logs of an account's usage, packed as they are kept: which ids were seen, and what each instant cost.

An account may have a million records of usage, of which one more is asked for nothing but "were you here before?". So
the logs stay bytes, in memory as in the state; a part of a log is taken apart only when something is found in it.
"""

from __future__ import annotations

import zlib
from struct import Struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.instants import Instant
    from models.money import Fine

#: A part of a log grows to twice as much at most.
_PART_BYTES: Final = 2048


class Log:
    """Entries one behind the other, in parts, so that one more changes one small part only."""

    __slots__ = ("changed", "in_rows", "parts")

    def __init__(self, parts: list[bytes] | None = None) -> None:
        self.parts: list[bytes] = [b""] if parts is None else parts
        #: Numbers of the parts that have changed since they were encoded last.
        self.changed: set[int] = set()
        #: Whether the parts were encoded apart.
        self.in_rows = len(self.parts) > 1

    def _replace(self, parts: list[bytes]) -> None:
        """Other parts than before: each is to be encoded, and those that are gone, too."""
        self.changed.update(range(max(len(parts), len(self.parts))))
        self.parts = parts


class Seen(Log):
    """Ids that have been seen, with their instant and the fingerprint of their content; by the hash of the id.

    Of an id that was forgotten and came again, the last entry counts.
    """

    __slots__ = ()

    #: Instant, fingerprint, bytes of the id; the id follows.
    _ENTRY: Final = Struct(">qIH")
    _INSTANT: Final = Struct(">q")

    def get(self, event_id: str, horizon: Instant) -> int | None:
        """The fingerprint seen under this id, unless it is forgotten."""
        name = event_id.encode()
        part = self.parts[self._number(name)]
        if name not in part:  # nearly always
            return None
        crc = None
        for seen_at, seen_crc, seen in self._entries(part):
            if seen == name:
                crc = seen_crc if seen_at >= horizon else None
        return crc

    def add(self, event_id: str, at: Instant, crc: int, horizon: Instant) -> None:
        """Remember an id, and forget those of its part that lie before the horizon."""
        name = event_id.encode()
        number = self._number(name)
        part = self.parts[number]
        if len(part) >= _PART_BYTES and self._INSTANT.unpack_from(part)[0] < horizon:
            part = b"".join(self._pack(*entry) for entry in self._entries(part) if entry[0] >= horizon)
        self.parts[number] = part = part + self._pack(at, crc, name)
        self.changed.add(number)
        if len(part) > 2 * _PART_BYTES:
            self._spread()

    def entries(self) -> Iterator[tuple[Instant, int, bytes]]:
        """Each id with its instant and its fingerprint, forgotten ones among them."""
        for part in self.parts:
            yield from self._entries(part)

    def _spread(self) -> None:
        everything, parts = list(self.entries()), [bytearray() for _ in range(4 * len(self.parts))]
        for at, crc, name in everything:
            parts[zlib.crc32(name) & (len(parts) - 1)] += self._pack(at, crc, name)
        self._replace([bytes(part) for part in parts])

    def _number(self, name: bytes) -> int:
        return zlib.crc32(name) & (len(self.parts) - 1) if len(self.parts) > 1 else 0

    def _pack(self, at: Instant, crc: int, name: bytes) -> bytes:
        return self._ENTRY.pack(at, crc, len(name)) + name

    def _entries(self, part: bytes) -> Iterator[tuple[Instant, int, bytes]]:
        place = 0
        while place < len(part):
            at, crc, size = self._ENTRY.unpack_from(part, place)
            place += self._ENTRY.size
            yield at, crc, part[place : place + size]
            place += size


class Costs(Log):
    """What the usage that is not billed cost, by the instant it ended at; as it came."""

    __slots__ = ()

    #: Instant, cost: its sign and upper 64 bits, its lower 64 bits.
    _ENTRY: Final = Struct(">qqQ")
    _LOW_BITS: Final = 64
    _LOW: Final = (1 << 64) - 1

    def add(self, ended_at: Instant, cost: Fine) -> None:
        """Add the cost of one record."""
        last = len(self.parts) - 1
        entry = self._ENTRY.pack(ended_at, cost >> self._LOW_BITS, cost & self._LOW)
        if len(self.parts[last]) + len(entry) > 2 * _PART_BYTES:
            last += 1
            if last == 1:  # what stood in the head goes to rows
                self.changed.add(0)
            self.parts.append(entry)
        else:
            self.parts[last] += entry
        self.changed.add(last)

    def take(self, until: Instant) -> Fine:
        """Take out what ended until then; returns what it came to."""
        taken: Fine = 0
        left: list[bytes] = []
        for ended_at, high, low in self._ENTRY.iter_unpack(b"".join(self.parts)):
            if ended_at <= until:
                taken += (high << self._LOW_BITS) + low
            else:
                left.append(self._ENTRY.pack(ended_at, high, low))
        if len(left) == len(self):
            return 0
        entries = 2 * _PART_BYTES // self._ENTRY.size
        parts = [b"".join(left[first : first + entries]) for first in range(0, len(left), entries)]
        self._replace(parts or [b""])
        return taken

    def __len__(self) -> int:
        return sum(map(len, self.parts)) // self._ENTRY.size
