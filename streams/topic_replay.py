"""The topics themselves as the inputs of a replay: read committed, without a group, nothing committed (contract §4).

Each partition is read from its first record to where it ended when the replay began. Partitions have accounts of their
own, so several processes have some each; the controls are read first, for those for everybody hold in all of them.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from aiokafka.errors import OffsetOutOfRangeError  # type: ignore[import-untyped]

from models.contract import EVERYONE
from models.records import Control, decode
from models.refusal import Refusal
from streams.brokers import address, in_one_line, look_at, one_number
from streams.faults import Unusable
from streams.files import FILE_TOPICS
from streams.partition_reader import read_partition
from streams.partitioner import PartitionerName, partition_by
from streams.topic_log import Log, Logs
from streams.watermarks import Unanswered, Watermarks

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from models.records import Topic
    from streams.fetched import Partition
    from streams.outcome import Progress
    from streams.parallel import Source
    from streams.watermarks import Ends

#: With fewer records than this, processes cost more than they bring.
FEWEST_RECORDS: Final = 50_000
#: How long the brokers may take to answer.
_TIMEOUT_S: Final = 30.0


class Topics(NamedTuple):
    """Which topics are read, and how."""

    #: What an aiokafka client takes.
    kafka: Mapping[str, Any]
    partitioner: PartitionerName
    #: Without it: balances, and so commands, come from the others.
    with_usage: bool = True
    #: Only this account's partition is needed.
    account_id: str | None = None

    @property
    def names(self) -> list[Topic]:
        """The topics, in the order in which dead letters are told."""
        return [topic for topic in FILE_TOPICS if self.with_usage or topic != "usage"]


class Found(NamedTuple):
    """What is to be read."""

    partitions: int
    #: Where each ends; all begin at 0.
    ends: dict[Partition, int]
    #: How many lie in a transaction, or behind one, that is open.
    pending: int
    #: The controls, which have been read already.
    controls: list[Log]


class TopicParts(NamedTuple):
    """The topics as inputs of a replay."""

    sources: Sequence[Source]
    #: How many records lie behind transactions that are open: they are not there yet.
    pending: int


def topic_parts(topics: Topics, processes: int) -> TopicParts:
    """The topics as parts for so many processes, or fewer if more do not pay. Raises `Unusable`."""
    found = asyncio.run(_look(topics))
    partition_of = partition_by(topics.partitioner, found.partitions)
    setting_policies = accounts_that_set_policies(found.controls)
    if topics.account_id is not None:
        named = {topics.account_id, *setting_policies}
        shares = [sorted({partition_of(account_id.encode()) for account_id in named})]
    elif setting_policies or processes == 1 or sum(found.ends.values()) < FEWEST_RECORDS:
        # Policies that one account puts in force hold for all, and whether they do hangs on that account.
        shares = [list(range(found.partitions))]
    else:
        shares = shares_of(found, processes)
    sources = [partial(_fetched, topics, found, frozenset(share), partition_of) for share in shares]
    return TopicParts(sources, found.pending)


def shares_of(found: Found, processes: int) -> list[list[int]]:
    """Partitions for each process, so that all have about as much to do."""
    sizes = [0] * found.partitions
    for (_, partition), end in found.ends.items():
        sizes[partition] += end
    shares: list[list[int]] = [[] for _ in range(min(processes, found.partitions))]
    loads = [0] * len(shares)
    for partition in sorted(range(found.partitions), key=lambda number: -sizes[number]):
        least = loads.index(min(loads))
        shares[least].append(partition)
        loads[least] += sizes[partition]
    return shares


# Before anything is replayed ----------------------------------------------------------------------------------------


async def _look(topics: Topics) -> Found:
    """Where the topics end, whether all of them is there, and their controls. Raises `Unusable`."""
    cluster = await look_at(topics.kafka, topics.names)
    partitions = one_number(cluster, topics.kafka)
    asked: list[Partition] = [(topic, number) for topic in topics.names for number in range(partitions)]
    with in_one_line(topics.kafka):
        async with Watermarks(topics.kafka, timeout_s=_TIMEOUT_S) as reader:
            ends, earliest = await reader.ends(asked), await reader.earliest(asked)
            _refuse_cut({partition: first for partition, first in earliest.items() if first > 0}, topics)
            stable = {partition: end.stable for partition, end in ends.items()}
            known: dict[bytes | None, bytes | None] = {}
            controls = [Log("controls", number) for number in range(partitions)]
            for log in controls:
                await _fill(reader, log, stable["controls", log.partition], known, _silent, topics)
    return Found(partitions, stable, _pending(ends), controls)


def _pending(ends: Mapping[Partition, Ends]) -> int:
    return sum(max(0, end.high - end.stable) for end in ends.values())


def _refuse_cut(cut: Mapping[Partition, int], topics: Topics) -> None:
    """A replay of a part of the records would say what never was. Raises `Unusable`."""
    if not cut:
        return
    names = [topic for topic in topics.names if any(topic == name for name, _ in cut)]
    told = "; ".join(
        f"{name} ({', '.join(f'partition {number} begins at {cut[name, number]:,}' for number in _some(cut, name))})"
        for name in names
    )
    if names == ["usage"]:
        advice = "--without-usage leaves it out: balances and commands come from the other topics"
    else:
        advice = "replay the files that they were loaded from (--bills FILE …)"
    raise Unusable(
        f"retention has cut what is to be replayed: {told}; {advice}, and see that the rest is kept "
        f"(arrears topics check --brokers {address(topics.kafka)})"
    )


def _some(cut: Mapping[Partition, int], topic: str) -> list[int]:
    """One of the partitions, which is enough to look it up."""
    return sorted(number for name, number in cut if name == topic)[:1]


class _Kind(msgspec.Struct):
    account_id: str
    kind: str


_kind_of: Final = msgspec.json.Decoder(_Kind).decode


def accounts_that_set_policies(controls: Sequence[Log]) -> set[str]:
    """The accounts of controls that put policies in force, but for those for everybody."""
    accounts = set()
    for log in controls:
        for value in log.values:
            if value is None:
                continue
            try:
                kind = _kind_of(value)
                is_one, account_id = kind.kind == "policies", kind.account_id
            except (msgspec.MsgspecError, ValueError, RecursionError):
                try:
                    record = decode("controls", value)
                except Refusal:
                    continue
                is_one, account_id = isinstance(record, Control) and record.kind == "policies", record.account_id
            if is_one and account_id != EVERYONE:
                accounts.add(account_id)
    return accounts


# Fetching -----------------------------------------------------------------------------------------------------------


def _fetched(
    topics: Topics, found: Found, share: Collection[int], partition_of: Callable[[bytes], int], progress: Progress
) -> Logs:
    """The records of a share of the partitions. Raises `Unusable`."""
    return Logs(
        [
            *asyncio.run(_fetch(topics, found, share, progress)),
            *(log for log in found.controls if log.partition in share),
        ],
        [log for log in found.controls if log.partition not in share],
        partition_of,
    )


async def _fetch(topics: Topics, found: Found, share: Collection[int], progress: Progress) -> list[Log]:
    logs = [Log(topic, partition) for topic in topics.names if topic != "controls" for partition in sorted(share)]
    progress.fetching(sum(found.ends[log.topic, log.partition] for log in logs))
    known: dict[bytes | None, bytes | None] = {}
    with in_one_line(topics.kafka):
        async with Watermarks(topics.kafka, timeout_s=_TIMEOUT_S) as reader:
            for log in logs:
                await _fill(reader, log, found.ends[log.topic, log.partition], known, progress.fetched, topics)
    return logs


async def _fill(
    reader: Watermarks,
    log: Log,
    end: int,
    known: dict[bytes | None, bytes | None],
    progress: Callable[[int], None],
    topics: Topics,
) -> None:
    """Read all that a partition holds before its end."""
    partition = log.topic, log.partition
    told = 0
    try:
        async with aclosing(read_partition(reader, partition, 0, end)) as chunks:
            async for records in chunks:
                log.extend(records, end, known)
                progress(len(log.values) - told)
                told = len(log.values)
    except Unanswered as error:
        if isinstance(error.__cause__, OffsetOutOfRangeError):  # retention was faster
            _refuse_cut(await reader.earliest([partition]), topics)
        raise


def _silent(_: int) -> None:
    """Nobody waits for what is read before the work begins."""
