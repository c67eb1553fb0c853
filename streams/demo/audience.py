"""What comes out while a demo runs: commands, notices and account views, as any consumer of the topics gets them."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final

import msgspec

from models.instants import SECOND, Instant, parse_instant
from models.outputs import AccountView, Command
from streams.reading import Reader
from streams.topic_design import AppTopics
from streams.watermarks import Unanswered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.fetched import Partition, Record

_RETRY_S: Final = 0.5
_LATEST: Final = 8


class _Kind(msgspec.Struct):
    kind: str


_command: Final = msgspec.json.Decoder(Command).decode
_view: Final = msgspec.json.Decoder(AccountView).decode
_notice: Final = msgspec.json.Decoder(_Kind).decode


class Audience:
    """Reads what is committed, until it is cancelled."""

    def __init__(self, kafka: Mapping[str, Any], app_id: str, partitions: int) -> None:
        self._kafka = kafka
        self._topics = AppTopics.of(app_id)
        names = (self._topics.commands, self._topics.notices, self._topics.accounts, self._topics.dead_letters)
        self._positions: dict[Partition, int] = {(name, p): 0 for name in names for p in range(partitions)}
        self.views: dict[str, AccountView] = {}
        self.commands: Counter[str] = Counter()
        self.notices: Counter[str] = Counter()
        self.dead_letters = 0
        self.latest: deque[Command] = deque(maxlen=_LATEST)
        #: From the mark, or the payment, to the command in Kafka, in seconds.
        self.delays_s: list[float] = []
        #: Commands that are not the next of their account.
        self.out_of_order: list[str] = []
        self._sequences: dict[str, int] = {}

    def statuses(self) -> Counter[str]:
        """How many accounts are what."""
        return Counter(view.status for view in self.views.values())

    async def watch(self) -> None:
        """Read on and on."""
        while True:
            try:
                async with Reader(self._kafka) as reader:
                    while True:
                        await self._read(reader)
            except Unanswered:
                await asyncio.sleep(_RETRY_S)

    async def _read(self, reader: Reader) -> None:
        for (topic, number), (records, reached) in (await reader.fetch(self._positions)).items():
            for record in records:
                self._take(topic, record)
            self._positions[topic, number] = reached

    async def caught_up(self) -> None:
        """Wait until everything that is out there now has been read."""
        async with Reader(self._kafka) as reader:
            ends = await reader.settled_ends(self._positions)
        while any(self._positions[partition] < end for partition, end in ends.items()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    def _take(self, topic: str, record: Record) -> None:
        assert record.value is not None
        if topic == self._topics.commands:
            self._take_command(_command(record.value), record)
        elif topic == self._topics.notices:
            self.notices[_notice(record.value).kind] += 1
        elif topic == self._topics.accounts:
            view = _view(record.value)
            self.views[view.account_id] = view
        else:
            self.dead_letters += 1

    def _take_command(self, command: Command, record: Record) -> None:
        self.commands[command.action] += 1
        self.latest.append(command)
        due: Instant = parse_instant(command.effective_at)
        self.delays_s.append(max(0.0, record.timestamp / 1000 - due / SECOND))
        if command.sequence != self._sequences.get(command.account_id, 0) + 1:
            self.out_of_order.append(f"{command.account_id} {command.sequence}")
        self._sequences[command.account_id] = command.sequence
