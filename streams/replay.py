"""Replay: records in the order of their instants through the same monitor that runs live (contract §4).

Nothing of §3 plays a part. The clock stops at every instant of a record and at every one that the monitor asks for.
"""

from __future__ import annotations

from functools import partial
from itertools import chain, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from models.everybody import Everybody
from models.monitor import Monitor, Published, Terms
from models.records import Bill, Control, Package

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from models.instants import Instant
    from models.outputs import Source
    from models.policy import Policies
    from models.records import Record

#: Movements and ids are remembered for 45 days, or as long as the longest `delete_after`.
HISTORY = 45 * 86_400_000_000

#: At one instant these come first or last; the others in the order of their ids.
_FIRST = {"policies": 0, "opening": 1, "release": 2, "purchased": 3}
_LAST = {"voided": 5, "cancelled": 6, "reopen": 7}
_BETWEEN = 4
RANKS = _FIRST | _LAST
_RANKED = (Bill, Control, Package)


class Entry(NamedTuple):
    """A record in its place: replays take records by instant, then `event_id` (then bytes)."""

    at: Instant
    rank: int
    event_id: str
    #: Where it stands in the input, for the caller.
    number: int
    record: Record


class Step(NamedTuple):
    """One stop of the clock: the records of this instant (none, if only a mark fell), and what came of them."""

    at: Instant
    records: Sequence[Entry]
    published: Published


def entry(record: Record, number: int) -> Entry:
    """The place of a record."""
    rank = RANKS.get(record.kind, _BETWEEN) if isinstance(record, _RANKED) else _BETWEEN
    return tuple.__new__(Entry, (record.at, rank, record.event_id, number, record))  # twice as fast as Entry(…)


def sort_entries(entries: list[Entry], raw: Callable[[int], bytes]) -> None:
    """Put records into the order of a replay: by instant, rank, `event_id`, and then bytes (`raw` of a number)."""
    entries.sort(key=itemgetter(0, 1, 2))
    # The bytes are asked for only where all else is equal: a record that came twice, or two topics with one id.
    equal = [(one[3], other[3]) for one, other in pairwise(entries) if one[0] == other[0] and one[:3] == other[:3]]
    if equal:
        doubtful = set(chain.from_iterable(equal))

        def place_and_bytes(one: Entry) -> tuple[Instant, int, str, bytes]:
            return one.at, one.rank, one.event_id, raw(one.number) if one.number in doubtful else b""

        entries.sort(key=place_and_bytes)


class Replay:
    """One run over sorted entries. `monitor` has the accounts as they stand afterwards, `ended_at` when that is."""

    def __init__(self, policies: Policies, app_id: str) -> None:
        self.monitor = Monitor(Everybody(policies, HISTORY), Terms(app_id, HISTORY, HISTORY))
        self.ended_at: Instant | None = None

    def run(
        self, entries: Sequence[Entry], origin: Callable[[int], Source], *, until: Instant | None
    ) -> Iterator[Step]:
        """Run the clock over `entries`, and on to `until`. `origin` tells where the record of a number came from."""
        monitor = self.monitor
        index, count = 0, len(entries)
        while index < count:
            at = entries[index].at
            due = monitor.next_due()
            if due is not None and due < at:
                yield from self._run_to(at)
            monitor.remember_from(at)
            start = index
            while index < count and (place := entries[index]).at == at:
                monitor.apply(place.record, partial(origin, place.number))
                index += 1
            yield Step(at, entries[start:index], monitor.decide(at, past=False))
            self.ended_at = at
        if until is not None:
            yield from self._run_to(until)
            monitor.remember_from(until)
            yield Step(until, (), monitor.decide(until, past=False))
            self.ended_at = until

    def _run_to(self, end: Instant) -> Iterator[Step]:
        """The marks before `end`: one at `end` itself has not passed yet."""
        while (due := self.monitor.next_due()) is not None and due < end:
            self.monitor.remember_from(due)
            yield Step(due, (), self.monitor.decide(due, past=True))
