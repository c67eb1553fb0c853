"""How far the partitions of topics reach: asked of their leaders, in few requests, within a bounded time."""

# aiokafka has no types.
# ruff: noqa: ANN401

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from aiokafka.client import AIOKafkaClient  # type: ignore[import-untyped]
from aiokafka.errors import (  # type: ignore[import-untyped]
    KafkaError,
    LeaderNotAvailableError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.offset import OffsetRequest  # type: ignore[import-untyped]
from aiokafka.structs import TopicPartition  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from typing import Any, Self

    from streams.fetched import Partition

_Answer = TypeVar("_Answer")

_RETRY_AFTER_S: Final = 0.05
_CLOSE_WITHIN_S: Final = 2.0

# What ListOffsets knows: isolation levels and places.
_READ_UNCOMMITTED, _READ_COMMITTED = 0, 1
_LATEST, _EARLIEST = -1, -2


class Unanswered(Exception):
    """The brokers did not answer in time, or refused to."""


class Ends(NamedTuple):
    """Where a partition ends."""

    #: The high watermark: what is below is in Kafka, in open transactions too.
    high: int
    #: The last stable offset: no open transaction lies below. What is read committed ends here.
    stable: int


class Watermarks:
    """A client of its own, without a group. A context; or `start` and `stop`.

    Every method but `stop` raises `Unanswered`, at the latest `timeout_s` after the call.
    `client` are aiokafka's options that say how to reach the brokers.
    """

    def __init__(self, client: Mapping[str, Any], *, timeout_s: float = 5.0) -> None:
        self.timeout_s = timeout_s
        self._options = {"request_timeout_ms": max(1, int(timeout_s * 1000)), **client}
        self._client: Any = None

    async def start(self) -> None:
        """Find the brokers."""
        self._client = AIOKafkaClient(**self._options)
        try:
            async with asyncio.timeout(self.timeout_s):
                await self._client.bootstrap()
        except (KafkaError, TimeoutError, OSError) as error:
            await self.stop()
            servers = self._options["bootstrap_servers"]
            raise Unanswered(f"no broker answers at {servers}: {error}") from error
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close the connections, within 2 s."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(TimeoutError, KafkaError, OSError):
                await asyncio.wait_for(client.close(), _CLOSE_WITHIN_S)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def ends(self, partitions: Iterable[Partition]) -> dict[Partition, Ends]:
        """Where each ends now: two requests a broker, at once."""
        asked = set(partitions)

        async def both() -> dict[Partition, Ends]:
            high, stable = await asyncio.gather(
                self._list(asked, _READ_UNCOMMITTED, _LATEST), self._list(asked, _READ_COMMITTED, _LATEST)
            )
            return {partition: Ends(high[partition], stable[partition]) for partition in asked}

        return await self.ask(both)

    async def earliest(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The offset of the first record that is still there."""
        asked = set(partitions)
        return await self.ask(lambda: self._list(asked, _READ_COMMITTED, _EARLIEST))

    async def ask(self, question: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Ask until there is an answer: leaders move, brokers restart."""
        error: KafkaError | None = None
        try:
            async with asyncio.timeout(self.timeout_s):
                while True:
                    try:
                        return await question()
                    except KafkaError as refused:
                        if not (refused.retriable or refused.invalid_metadata):
                            raise
                        error = refused
                    await self._connected.force_metadata_update()
                    await asyncio.sleep(_RETRY_AFTER_S)
        except TimeoutError:
            raise Unanswered(f"the brokers did not answer within {self.timeout_s:g} s: {error!r}") from error
        except KafkaError as refused:
            raise Unanswered(f"the brokers refuse: {refused!r}") from refused

    def partitions_of(self, topic: str) -> int:
        """How many partitions a topic has, as of the last metadata; 0 if it is not known."""
        return len(self._connected.cluster.partitions_for_topic(topic) or ())

    @property
    def _connected(self) -> Any:
        if self._client is None:  # stopped, perhaps under a question of somebody else
            raise Unanswered("the connection to the brokers is not started, or was stopped")
        return self._client

    async def leader(self, partition: Partition) -> int:
        """The broker to ask, inside a question."""
        topic, number = partition
        await self._connected.add_topic(topic)
        cluster = self._connected.cluster
        known = cluster.partitions_for_topic(topic)
        if known is None or number not in known:
            raise UnknownTopicOrPartitionError(f"{topic} partition {number} is not there")
        leader: int | None = cluster.leader_for_partition(TopicPartition(topic, number))
        if leader is None or leader == -1:
            raise LeaderNotAvailableError(f"{topic} partition {number} has no leader")
        return leader

    async def send(self, broker: int, request: object) -> Any:
        """Send a request of aiokafka's protocol, inside a question."""
        return await self._connected.send(broker, request)

    async def _list(self, partitions: set[Partition], isolation: int, place: int) -> dict[Partition, int]:
        by_broker: defaultdict[int, defaultdict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
        for partition in partitions:
            by_broker[await self.leader(partition)][partition[0]].append((partition[1], place))
        answers = await asyncio.gather(
            *(
                self.send(broker, OffsetRequest(-1, isolation, list(topics.items())))
                for broker, topics in by_broker.items()
            )
        )
        offsets: dict[Partition, int] = {}
        for answer in answers:
            for topic, rows in answer.topics:
                for number, code, _, offset, *_ in rows:
                    if code:
                        raise for_code(code)(f"{topic} partition {number}")
                    offsets[topic, number] = offset
        return offsets
