"""The workers of an app as the brokers know them: who is there, and who has which partition."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment  # type: ignore[import-untyped]
from aiokafka.errors import KafkaError, for_code  # type: ignore[import-untyped]

from streams.brokers import connected_admin

if TYPE_CHECKING:
    from collections.abc import Mapping

_RETRY_S: Final = 0.5

#: As the brokers call it: every member has its partitions.
STABLE: Final = "Stable"
#: Nobody is there; "Dead": nobody was ever there.
EMPTY: Final = ("Empty", "Dead")


class Worker(NamedTuple):
    """A member of the group."""

    name: str
    host: str
    partitions: frozenset[int]

    @property
    def told(self) -> str:
        """As a user knows it."""
        return f"{self.name} on {self.host}"


class Group(NamedTuple):
    """All of them."""

    state: str
    workers: list[Worker]

    def owner(self, partition: int) -> Worker | None:
        """Who has a partition."""
        return next((worker for worker in self.workers if partition in worker.partitions), None)


async def describe_group(kafka: Mapping[str, Any], app_id: str) -> Group:
    """The group of an app. Raises `Unusable`."""
    async with connected_admin(kafka) as admin:
        (answer,) = await _asked_until_known(admin, app_id)
        code, _, state, _, _, members, *_ = answer.groups[0]
        if code:
            raise for_code(code)(f"group {app_id}")
    workers = [
        Worker(client_id, host.removeprefix("/"), _partitions(assignment))
        for _, client_id, host, _, assignment, *_ in members
    ]
    return Group(state, sorted(workers))


async def _asked_until_known(admin: Any, app_id: str) -> Any:  # noqa: ANN401  # aiokafka has no types
    while True:
        try:
            return await admin.describe_consumer_groups([app_id])
        except KafkaError as error:
            if not error.retriable:
                raise
        await asyncio.sleep(_RETRY_S)  # of a new cluster the first group has to wait for its topic


def _partitions(assignment: bytes) -> frozenset[int]:
    if not assignment:  # while the group finds out who gets what
        return frozenset()
    decoded = ConsumerProtocolMemberAssignment.decode(assignment)
    return frozenset(number for _, numbers in decoded.assignment for number in numbers)
