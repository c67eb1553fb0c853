"""How a monitor stands now, as the brokers show it: partitions, owners, lag, what is kept, what lies ahead."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from models.instants import DAY, HOUR, Instant, parse_instant
from models.records import TOPICS
from streams.brokers import Complaints, in_one_line, look_at, one_number
from streams.control import now
from streams.group import Group, describe_group
from streams.held import Held, read_held
from streams.reading import Reader
from streams.topic_design import AppTopics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.fetched import Partition
    from streams.settings import Settings
    from streams.watermarks import Ends


class Ahead(NamedTuple):
    """How many marks of a kind have passed without their command, and how many fall soon."""

    overdue: int
    within_an_hour: int
    within_a_day: int


_NONE: Final = Ahead(0, 0, 0)


@dataclass
class Accounts:
    """What the accounts' views say together."""

    by_status: Counter[str] = field(default_factory=Counter)
    suspends: Ahead = _NONE
    deletes: Ahead = _NONE


class Snapshot(NamedTuple):
    """All of it."""

    at: Instant
    app_id: str
    partitions: int
    group: Group
    held: dict[int, Held]
    #: Of the inputs.
    earliest: dict[Partition, int]
    ends: dict[Partition, Ends]
    accounts: Accounts

    def lag(self, number: int) -> dict[str, int]:
        """How many records of each input are not applied yet; of a topic that was never read, all that are there."""
        positions = self.held[number].positions
        return {
            topic: max(0, self.ends[topic, number].high - positions.get(topic, self.earliest[topic, number]))
            for topic in TOPICS
        }

    def open_transactions(self, number: int) -> list[str]:
        """The inputs in which a transaction of somebody is open: a fence waits for its end."""
        return [topic for topic in TOPICS if self.ends[topic, number].stable < self.ends[topic, number].high]

    def gone(self, number: int) -> list[tuple[str, int, int]]:
        """Inputs of which records were deleted before they were read: topic, the next one wanted, the first there."""
        return [
            (topic, position, self.earliest[topic, number])
            for topic, position in self.held[number].positions.items()
            if (topic, number) in self.earliest and position < self.earliest[topic, number]
        ]


async def take_snapshot(kafka: Mapping[str, Any], settings: Settings) -> Snapshot:
    """Look. Raises `Unusable`."""
    topics = AppTopics.of(settings.app_id)
    with Complaints():
        partitions = one_number(await look_at(kafka, [*TOPICS, topics.state, topics.accounts]), kafka)
        group = await describe_group(kafka, settings.app_id)
        inputs: list[Partition] = [(topic, number) for topic in TOPICS for number in range(partitions)]
        async with Reader(kafka) as reader:
            with in_one_line(kafka):
                # The state first: what is applied by then was in the inputs before.
                held = await read_held(reader, topics.state, partitions)
                ends, earliest = await reader.ends(inputs), await reader.earliest(inputs)
                at = now(settings)
                accounts = await _accounts(reader, topics.accounts, partitions, at)
    return Snapshot(at, settings.app_id, partitions, group, held, earliest, ends, accounts)


class _View(msgspec.Struct, gc=False):
    status: str
    suspend_at: str | None = None
    delete_at: str | None = None


_view: Final = msgspec.json.Decoder(_View).decode


async def _accounts(reader: Reader, topic: str, partitions: int, at: Instant) -> Accounts:
    places = [(topic, number) for number in range(partitions)]
    first = await reader.earliest(places)
    ends = {place: end.stable for place, end in (await reader.ends(places)).items()}
    last: dict[bytes, bytes] = {}
    async for records in reader.merged(first, ends):
        last.update({record.key: record.value for _, record in records if record.key and record.value})
    return count(last.values(), at)


def count(views: Any, at: Instant) -> Accounts:  # noqa: ANN401  # any views of bytes
    """What the last views of all accounts say together."""
    found = Accounts()
    suspends: list[Instant] = []
    deletes: list[Instant] = []
    for value in views:
        view = _view(value)
        found.by_status[view.status] += 1
        if view.suspend_at is not None and view.status == "in_arrears":
            suspends.append(parse_instant(view.suspend_at))
        if view.delete_at is not None and view.status == "suspended":
            deletes.append(parse_instant(view.delete_at))
    found.suspends, found.deletes = _ahead(suspends, at), _ahead(deletes, at)
    return found


def _ahead(marks: list[Instant], at: Instant) -> Ahead:
    return Ahead(
        sum(mark < at for mark in marks),
        sum(at <= mark < at + HOUR for mark in marks),
        sum(at <= mark < at + DAY for mark in marks),
    )
