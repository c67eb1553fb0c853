"""`arrears explain ACCOUNT --brokers B`: what happened, what was sent, and what the account waits for now.

The records are told as a replay tells them. Commands and notices are those that were sent, and the account stands as
its last view says: live they may come later than the rule alone would have it, or not at all.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from rich.text import Text

from models.contract import EVERYONE
from models.instants import parse_instant
from models.monitor import Live
from models.outputs import AccountView, Command, Notice
from models.policy import BUILT_IN
from models.refusal import printable
from models.store import AccountStore
from streams import explain as explaining
from streams import telling
from streams.brokers import Complaints, in_one_line, look_at, one_number
from streams.control import now
from streams.explain import Event
from streams.faults import Unusable
from streams.files import FILE_TOPICS, Inputs
from streams.held import Held, of_this_release, read_held
from streams.kafka_client import kafka_client_options
from streams.listed import LISTED
from streams.partitioner import partition_by
from streams.reading import Reader
from streams.showing import show, story_shown
from streams.topic_design import AppTopics
from streams.waiting import Partition as Standing
from streams.waiting import Wait, waits
from streams.writers import write_one

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import RenderableType

    from models.account import Account
    from models.instants import Instant
    from models.policy import Policies
    from models.records import Topic
    from streams.explain import Story
    from streams.fetched import Partition, Record
    from streams.settings import Settings
    from streams.watermarks import Ends

_EVERYONE: Final = EVERYONE.encode()
_SEPARATOR: Final = b"\xff"
#: Kept for a while only; balances come from the others.
_MAY_BE_CUT: Final = "usage"


class _Found(NamedTuple):
    """What the topics say of an account."""

    partition: int
    inputs: Inputs
    #: Whether retention has taken usage away.
    is_cut: bool
    commands: list[bytes]
    notices: list[bytes]
    letters: list[bytes]
    #: Its last view.
    view: bytes | None
    account: Account | None
    held: Held
    unread: dict[str, int]
    open_transactions: list[str]


def explain(
    account_id: str, settings: Settings, policies: Policies | None, until: Instant | None, *, as_json: bool
) -> None:
    """Tell it. `policies` are those of `--policy`; with `until` the rule alone is told. Raises `Unusable`."""
    kafka = kafka_client_options(settings)
    found = asyncio.run(_read(kafka, settings, account_id))
    at = now(settings) if until is None else until
    everybody = found.held.everybody
    first = BUILT_IN if everybody is None else everybody.in_force[0].policies
    story = explaining.explain(found.inputs, account_id, policies or first, settings.app_id, at)
    if story is None and not found.letters:
        raise Unusable(
            f"there is no account {printable(account_id)} in partition {found.partition}: check its id, and the "
            f"partitioner ({settings.partitioner})"
        )
    waiting: list[Wait] = []
    by_the_rule = None
    if until is None:
        waiting = _waits(found, settings, at)
        by_the_rule = _as_sent(story, found) if story is not None else None
    if as_json:
        write_one(_as_json(story, found, waiting))
    else:
        show(*_shown(story, found, waiting, by_the_rule))


def _as_sent(story: Story, found: _Found) -> str | None:
    """Put what was sent in the place of what the rule alone would have sent. Its status by the rule, if another."""
    by_rule = None if story.view is None else story.view.status
    versions = [] if found.held.everybody is None else found.held.everybody.versions
    policies = {policy.label: policy for policy in versions}
    told = [event for event in story.events if event.type not in {"command", "notice"}]
    for value in found.notices:
        notice = msgspec.json.decode(value, type=Notice)
        told.append(Event(parse_instant(notice.at), "notice", [telling.notice_sentence(notice)], {"notice": notice}))
    for value in found.commands:
        command = msgspec.json.decode(value, type=Command)
        says = telling.command_sentence(command, policies.get(command.policy), ())
        told.append(Event(parse_instant(command.decided_at), "command", [says], {"command": command}))
    story.events = sorted(told, key=lambda event: event.at)
    story.view = None if found.view is None else msgspec.json.decode(found.view, type=AccountView)
    if story.view is None:
        story.next, story.to_pay = ["No worker has published a view of it yet."], 0
        return None
    policy = policies.get(story.view.policy)
    story.next, story.to_pay = telling.next_sentences(story.view, policy), telling.to_pay(story.view, policy)
    return by_rule if by_rule != story.view.status else None


def _waits(found: _Found, settings: Settings, at: Instant) -> list[Wait]:
    everybody = found.held.everybody
    if everybody is None or found.account is None:
        number = sum(found.unread.values())
        told = f"partition {found.partition} has {telling.counted(number, 'record')} that are not applied"
        return [Wait("fence", f"No worker has decided on it yet: {told}.")] if number else []
    live = Live(
        settings.max_ahead,
        settings.max_deletes,
        settings.max_suspends,
        settings.subscribers,
        notice_acks=settings.notice_acks == "required",
    )
    standing = Standing(found.partition, everybody, found.unread, found.open_transactions)
    return waits(found.account, standing, live, at)


# Reading --------------------------------------------------------------------------------------------------------------


async def _read(kafka: Mapping[str, Any], settings: Settings, account_id: str) -> _Found:
    topics = AppTopics.of(settings.app_id)
    names = [*FILE_TOPICS, "acks", *topics]
    key = account_id.encode(errors="surrogateescape")
    with Complaints():
        partitions = one_number(await look_at(kafka, names), kafka)
        number = partition_by(settings.partitioner, partitions)(key)
        async with Reader(kafka) as reader:
            with in_one_line(kafka):
                held = (await read_held(reader, topics.state, partitions))[number]
                places: list[Partition] = [(topic, number) for topic in names]
                first, ends = await reader.earliest(places), await reader.ends(places)
                cut = [topic for topic in FILE_TOPICS if first[topic, number]]
                _refuse_cut([topic for topic in cut if topic != _MAY_BE_CUT], number)
                kept = _Kept(key, topics)
                stable = {place: end.stable for place, end in ends.items() if place[0] != "acks"}
                with of_this_release(topics.state):
                    async for records in reader.merged({place: first[place] for place in stable}, stable):
                        for (topic, _), record in records:
                            kept.take(topic, record)
    unread, open_ = _unread(number, held, first, ends)
    return _Found(
        number,
        kept.inputs(),
        bool(cut),
        kept.sent[topics.commands],
        kept.sent[topics.notices],
        kept.letters,
        next(reversed(kept.sent[topics.accounts]), None),
        kept.store.get(account_id),
        held,
        unread,
        open_,
    )


def _refuse_cut(cut: list[Topic], number: int) -> None:
    if cut:
        raise Unusable(
            f"retention has cut {', '.join(cut)} (partition {number}): what the balance comes from is not all there; "
            "explain the files that they were loaded from (--bills FILE …), see arrears topics check"
        )


def _unread(
    number: int, held: Held, first: Mapping[Partition, int], ends: Mapping[Partition, Ends]
) -> tuple[dict[str, int], list[str]]:
    inputs: tuple[str, ...] = (*FILE_TOPICS, "acks")
    unread = {
        topic: max(0, ends[topic, number].high - held.positions.get(topic, first[topic, number])) for topic in inputs
    }
    return unread, [topic for topic in inputs if ends[topic, number].stable < ends[topic, number].high]


class _Kept:
    """What is kept of the topics."""

    def __init__(self, key: bytes, topics: AppTopics) -> None:
        self._key = key
        self._topics = topics
        self._values: dict[Topic, list[bytes]] = {topic: [] for topic in FILE_TOPICS}
        #: What was published of it.
        self.sent: dict[str, list[bytes]] = {topics.commands: [], topics.notices: [], topics.accounts: []}
        self.letters: list[bytes] = []
        self.store = AccountStore()

    def take(self, topic: str, record: Record) -> None:
        """Look at a record."""
        key, value = record.key, record.value
        if topic in self._values:
            sets_policies = topic == "controls" and value is not None and b"policies" in value
            if value is not None and (key in {self._key, _EVERYONE} or sets_policies):
                self._values[topic].append(value.replace(b"\n", b" "))
        elif topic == self._topics.state:
            if key is not None and (key == self._key or key.startswith(self._key + _SEPARATOR)):
                self.store.recover(key, value)
        elif topic in self.sent:
            if value is not None and key == self._key:
                self.sent[topic].append(value)
        elif topic == self._topics.dead_letters and LISTED["dead-letters"].is_about(self._key, record):
            self.letters.append(value or b"{}")

    def inputs(self) -> Inputs:
        """The records as lines."""
        return Inputs([(topic, b"".join(value + b"\n" for value in values)) for topic, values in self._values.items()])


# Telling --------------------------------------------------------------------------------------------------------------


def _as_json(story: Story | None, found: _Found, waiting: list[Wait]) -> dict[str, object]:
    told: dict[str, object] = {} if story is None else story.as_json()
    return told | {
        "partition": found.partition,
        "dead_letters": [msgspec.Raw(value) for value in found.letters],
        "waits_for": [wait._asdict() for wait in waiting],
    }


def _shown(
    story: Story | None, found: _Found, waiting: list[Wait], by_the_rule: str | None
) -> Iterator[RenderableType]:
    if story is not None:
        yield from story_shown(story)
    if by_the_rule is not None:
        status = by_the_rule.replace("_", " ")
        told = f"By the rule alone, with each record in its time, it would be {status}; what counts is what was sent."
        yield Text(told, style="yellow")
    if found.is_cut:
        yield Text("Older usage is not kept in its topic any more; no balance comes from it.", style="dim")
    if found.letters:
        yield ""
        yield Text("Records of it that the worker could not use:", style="bold")
        yield LISTED["dead-letters"].rows([msgspec.json.decode(value) for value in found.letters], header=True)
    if waiting:
        yield ""
        yield Text(f"It waits, in partition {found.partition}, for:", style="bold")
        for wait in waiting:
            yield Text(f"- {wait.kind}: {wait.says}")
