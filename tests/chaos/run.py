"""What a run has left in Kafka, as the checker reads it: the records of all topics, and the terms of the run."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.oracle.policy import Policies, parse_file
from tests.oracle.values import DAY, MINUTE

if TYPE_CHECKING:
    from collections.abc import Iterable

INPUTS = ("bills", "payments", "usage", "packages", "controls", "acks")
OUTPUTS = ("commands", "notices", "accounts", "dead-letters")


class Recorded(NamedTuple):
    """A record as a reader gets it. `appended_at`: µs since the epoch by the broker's clock, cut to the millisecond."""

    partition: int
    offset: int
    appended_at: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def json(self) -> dict[str, Any]:
        """The value of one of our outputs."""
        assert self.value is not None
        read: dict[str, Any] = json.loads(self.value)
        return read

    def header(self, name: str) -> str | None:
        """A header's text."""
        return next((value.decode() for key, value in self.headers if key == name), None)


@dataclass
class Run:
    """Everything that was read, by topic: outputs under their names without the app id."""

    app_id: str
    partitions: int
    policies_text: str
    #: By the workers' clock: when the first record was sent, and when everything had come to rest.
    started_at: int
    ended_at: int
    #: Whether each account was touched once more in the end: its last view then shows what usage has come to.
    closed: bool = True
    #: What the workers' clock shows more than the broker's.
    shift: int = 0
    history: int = 45 * DAY
    max_ahead: int = 10 * MINUTE
    topics: dict[str, list[Recorded]] = field(default_factory=lambda: defaultdict(list))

    @property
    def policies(self) -> Policies:
        return parse_file(self.policies_text)

    def take(self, topic: str, records: Iterable[Recorded]) -> None:
        self.topics[topic].extend(records)

    def of(self, topic: str, partition: int) -> list[Recorded]:
        """The records of one partition, by offset."""
        return sorted((r for r in self.topics[topic] if r.partition == partition), key=lambda r: r.offset)
