"""How the brokers are asked for what is there, and how a user is told that they do not answer: in one line."""

# aiokafka has no types.

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from aiokafka.admin import AIOKafkaAdminClient  # type: ignore[import-untyped]
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]

from streams.faults import Unusable
from streams.watermarks import Unanswered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

_TIMEOUT_S: Final = 30.0
REQUEST_TIMEOUT_MS: Final = 10_000


class Silent(Unusable):
    """The brokers do not answer, or not as they should: who can wait tries again."""


class Cluster(NamedTuple):
    """What a tool has to know of the brokers before it begins."""

    #: Given once, when the cluster was made.
    id: str
    #: Of each topic that was asked for, how many partitions it has.
    partitions: Mapping[str, int]


async def look_at(kafka: Mapping[str, Any], topics: Iterable[str]) -> Cluster:
    """See whether topics are there. `kafka` is what an aiokafka client takes. Raises `Unusable` if one is not."""
    async with connected_admin(kafka) as client:
        name = str((await client.describe_cluster())["cluster_id"])
        # All topics are listed: asked for by name, those that are not there would be made by some brokers.
        listed = {topic["topic"]: len(topic["partitions"]) for topic in await client.describe_topics()}
    wanted = list(topics)
    missing = [topic for topic in wanted if topic not in listed]
    if missing:
        told = f"the topic {missing[0]} is" if len(missing) == 1 else f"the topics {', '.join(missing)} are"
        at = address(kafka)
        raise Unusable(f"{told} not there: make them (arrears topics create --brokers {at}), or see to --app-id")
    return Cluster(name, {topic: listed[topic] for topic in wanted})


def one_number(cluster: Cluster, kafka: Mapping[str, Any]) -> int:
    """The number of partitions that the topics have in common (§2). Raises `Unusable` if they differ."""
    if len(set(cluster.partitions.values())) > 1:
        told = ", ".join(f"{topic} has {number}" for topic, number in cluster.partitions.items())
        check = f"arrears topics check --brokers {address(kafka)}"
        raise Unusable(f"the topics differ in their numbers of partitions ({told}): {check} tells what to do")
    return next(iter(cluster.partitions.values()))


def address(kafka: Mapping[str, Any]) -> str:
    """The brokers, as a user names them."""
    servers = kafka["bootstrap_servers"]
    return servers if isinstance(servers, str) else ",".join(servers)


@asynccontextmanager
async def connected_admin(kafka: Mapping[str, Any]) -> AsyncIterator[AIOKafkaAdminClient]:
    """A client that is connected; whatever goes wrong with the brokers becomes `Silent`, within a minute."""
    client = AIOKafkaAdminClient(**{"request_timeout_ms": REQUEST_TIMEOUT_MS, **kafka})
    with in_one_line(kafka):
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await client.start()
                yield client
        finally:
            await asyncio.wait({asyncio.create_task(client.close())}, timeout=REQUEST_TIMEOUT_MS / 1000)


@contextmanager
def in_one_line(kafka: Mapping[str, Any]) -> Iterator[None]:
    """Around what is asked of the brokers and nothing else: what goes wrong with them becomes `Silent`."""
    with Complaints() as complaints:
        try:
            yield
        # An AssertionError: aiokafka's word for a producer that is dead.
        except (KafkaError, OSError, TimeoutError, Unanswered, AssertionError) as error:
            own = str(error) if isinstance(error, Unanswered) else None
            reason = one_line(own or complaints.last or str(error) or type(error).__name__)
            raise Silent(
                f"the brokers at {address(kafka)} do not answer as they should ({reason}): "
                "see that they run, and that address, TLS and SASL are right"
            ) from None


class Complaints(logging.Handler):
    """aiokafka says why only in its log: while this lasts it is listened to, and nothing of it is printed."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Remember it."""
        self.last = record.getMessage()

    def __enter__(self) -> Self:
        logging.getLogger("aiokafka").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("aiokafka").removeHandler(self)


def one_line(text: str) -> str:
    """A reason of somebody else's, fit to stand in brackets."""
    return " ".join(text.split()).rstrip(".:")
