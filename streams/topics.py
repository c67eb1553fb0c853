"""Makes the topics as they are designed, and tells how those on the brokers differ from that.

Nothing that is there is ever changed: what is wrong is told, with the command that mends it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, assert_never

from aiokafka.admin import NewTopic  # type: ignore[import-untyped]
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType  # type: ignore[import-untyped]
from aiokafka.errors import for_code  # type: ignore[import-untyped]

from models.instants import MINUTE, SECOND, format_duration
from streams.brokers import REQUEST_TIMEOUT_MS, address, connected_admin, one_line
from streams.faults import Unusable
from streams.topic_design import (
    TOPICS,
    Role,
    Rule,
    Setting,
    Severity,
    TopicDesign,
    check_app_id,
    least_in_sync,
    settings_to_create,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aiokafka.admin import AIOKafkaAdminClient

#: Partitions of each topic, unless somebody says otherwise: work for as many workers, and no load for one.
PARTITIONS: Final = 8
#: Kafka's own limits are higher; with more than this a worker's transactions are the load, not its records.
MOST_PARTITIONS: Final = 1_000

_POLL_S: Final = 0.05
_NO_SUCH_TOPIC: Final = 3
_TOPIC_EXISTS: Final = 36


class Problem(NamedTuple):
    """One thing that is not as designed, and how to mend it."""

    severity: Severity
    topic: str
    told: str
    mend: str

    def __str__(self) -> str:
        return f"{self.topic} {self.told}; to mend it: {self.mend}"


class Made(NamedTuple):
    """What `create` did about one topic: it made it, or found it, with the problems it has."""

    topic: str
    created: bool
    problems: tuple[Problem, ...]


class _Found(NamedTuple):
    """A topic on the brokers."""

    partitions: int
    replication: int
    settings: Mapping[str, str]


class _Cluster(NamedTuple):
    brokers: int
    topics: Mapping[str, _Found]


# Creating -----------------------------------------------------------------------------------------------------------


async def create(
    kafka: Mapping[str, Any], *, partitions: int = PARTITIONS, replication: int = 1, app_id: str = "arrears"
) -> list[Made]:
    """Make the topics that are not there, and wait until they can be used. `kafka` is what an aiokafka client takes.

    All or nothing as far as it can be known before: raises `Unusable` if topics are there with another number of
    partitions, and if the brokers refuse one.
    """
    _check_app_id(app_id)
    _check_partitions(partitions)
    async with connected_admin(kafka) as admin:
        cluster = await _look(admin, app_id)
        if not 1 <= replication <= cluster.brokers:
            brokers = "is 1 broker" if cluster.brokers == 1 else f"are {cluster.brokers} brokers"
            raise Unusable(
                f"--replication {replication} cannot be, there {brokers}: choose from 1 to {cluster.brokers}"
            )
        _refuse_other_partitions(cluster, partitions)
        missing = {name: design for name, design in _designs(app_id).items() if name not in cluster.topics}
        await _make(admin, missing, partitions, replication)
        await _await_leaders(admin, missing, partitions)
    return [
        Made(name, created=True, problems=())
        if name in missing
        else Made(name, created=False, problems=tuple(_differences(kafka, name, design, cluster, partitions, app_id)))
        for name, design in _designs(app_id).items()
    ]


def _refuse_other_partitions(cluster: _Cluster, partitions: int) -> None:
    other = {name: found.partitions for name, found in cluster.topics.items() if found.partitions != partitions}
    if other:
        told = ", ".join(f"{name} ({number})" for name, number in other.items())
        raise Unusable(
            f"not all topics would have {partitions} partitions, these are there with another number: {told}: "
            "choose that number (--partitions), or delete them if they hold nothing that is needed"
        )


async def _make(
    admin: AIOKafkaAdminClient, missing: Mapping[str, TopicDesign], partitions: int, replication: int
) -> None:
    new = [
        NewTopic(name, partitions, replication, topic_configs=settings_to_create(design, replication))
        for name, design in missing.items()
    ]
    # First asked, then done: if one cannot be made, none is.
    for asked in (True, False) if new else ():
        answer = await admin.create_topics(new, timeout_ms=REQUEST_TIMEOUT_MS, validate_only=asked)
        for name, code, message, *_ in answer.topic_errors:
            if code not in {0, _TOPIC_EXISTS}:  # somebody else may have made it just now
                reason = message or for_code(code).description or for_code(code).__name__
                raise Unusable(f"the brokers refuse the topic {name} ({one_line(reason)}): mend that and try again")


async def _await_leaders(admin: AIOKafkaAdminClient, missing: Iterable[str], partitions: int) -> None:
    """A topic that was just made is known to every broker a moment later."""
    wanted = set(missing)
    while wanted:
        for topic in await admin.describe_topics():
            led = [partition for partition in topic["partitions"] if partition["leader"] >= 0]
            if len(led) == partitions:
                wanted.discard(topic["topic"])
        if wanted:
            await asyncio.sleep(_POLL_S)


# Checking -----------------------------------------------------------------------------------------------------------


async def check(
    kafka: Mapping[str, Any],
    *,
    partitions: int | None = None,
    replication: int | None = None,
    app_id: str = "arrears",
) -> list[Problem]:
    """What is not as designed, the fatal first; `kafka` is what an aiokafka client takes.

    Without `partitions` the topics are held to one another, with `replication` they have as many copies at least.
    Raises `Unusable` if the brokers cannot be asked.
    """
    _check_app_id(app_id)
    if partitions is not None:
        _check_partitions(partitions)
    if replication is not None and replication < 1:
        raise Unusable(f"--replication {replication} is out of range: choose 1 or more")
    async with connected_admin(kafka) as admin:
        cluster = await _look(admin, app_id)
    wanted = partitions or _agreed_partitions(cluster, app_id)
    problems = [
        problem
        for name, design in _designs(app_id).items()
        for problem in _differences(kafka, name, design, cluster, wanted, app_id, replication or 1)
    ]
    return sorted(problems, key=lambda problem: problem.severity is not Severity.FATAL)


def _agreed_partitions(cluster: _Cluster, app_id: str) -> int:
    """The number that all topics should have: that of the state, which holds it fast (§2), else that of most inputs."""
    state = next(design for design in TOPICS if design.role is Role.STATE).called(app_id)
    if state in cluster.topics:
        return cluster.topics[state].partitions
    inputs = [cluster.topics[design.name] for design in TOPICS if design.name in cluster.topics]
    found = Counter(topic.partitions for topic in inputs or cluster.topics.values())
    return found.most_common(1)[0][0] if found else PARTITIONS


def _differences(
    kafka: Mapping[str, Any],
    name: str,
    design: TopicDesign,
    cluster: _Cluster,
    partitions: int,
    app_id: str = "arrears",
    replication: int = 1,
) -> list[Problem]:
    brokers = address(kafka)
    found = cluster.topics.get(name)
    if found is None:
        mend = f"arrears topics create --brokers {brokers} --partitions {partitions}"
        mend += f" --replication {replication}" if replication > 1 else ""
        mend += f" --app-id {app_id}" if app_id != "arrears" else ""
        return [Problem(Severity.FATAL, name, "is not there", mend)]
    told = [
        *_partitions_wrong(brokers, name, found, partitions),
        *_copies_wrong(brokers, name, design, found, cluster),
        *_copies_lacking(brokers, name, found, replication),
    ]
    for setting in design.settings:
        value = found.settings.get(setting.name)
        if value is None:  # brokers that do not know it
            continue
        severity = _judge(setting, value)
        if severity is not None:
            wrong = f"{setting.name} is {_shown(setting.name, value)}, it {setting.rule.value} "
            wrong += f"{_shown(setting.name, setting.value)}, else {setting.otherwise}"
            told.append(Problem(severity, name, wrong, _set(brokers, name, setting.name, setting.value)))
    return told


def _judge(setting: Setting, value: str) -> Severity | None:
    """How bad a value is; None if it is as wanted."""
    match setting.rule:
        case Rule.EXACTLY:
            fits = value == setting.value
        case Rule.AT_LEAST:
            fits = _number(value) >= _number(setting.value)
        case Rule.AT_MOST:
            fits = _number(value) <= _number(setting.value)
        case _:
            assert_never(setting.rule)
    if fits:
        return None
    if setting.least is not None and _number(value) < setting.least:
        return Severity.FATAL
    return setting.severity


def _number(value: str) -> float:
    number = float(value)
    return number if number >= 0 else float("inf")


def _partitions_wrong(brokers: str, name: str, found: _Found, partitions: int) -> Iterable[Problem]:
    if found.partitions == partitions:
        return
    told = f"has {found.partitions} partitions, it must have {partitions}, else an account is in another than elsewhere"
    if found.partitions < partitions:
        alter = f"kafka-topics --bootstrap-server {brokers} --alter --topic {name} --partitions {partitions}"
        mend = f"{alter}, if it is empty; else make it anew, for its records stay where their keys were"
    else:
        mend = f"make it anew with {partitions}, partitions cannot be taken away"
    yield Problem(Severity.FATAL, name, told, mend)


def _copies_wrong(brokers: str, name: str, design: TopicDesign, found: _Found, cluster: _Cluster) -> Iterable[Problem]:
    setting = "min.insync.replicas"
    wanted = least_in_sync(found.replication)
    mend = _set(brokers, name, setting, str(wanted))
    in_sync = int(found.settings.get(setting, wanted))
    copies = f"{setting} is {in_sync} with {found.replication} copies"
    if in_sync > found.replication:
        yield Problem(Severity.FATAL, name, f"{copies}, so nothing can be written", mend)
    elif in_sync > wanted:
        yield Problem(Severity.WARNING, name, f"{copies}, so with one broker away nothing can be written", mend)
    elif in_sync < wanted:
        # What is written into the inputs is others' care.
        severity = Severity.WARNING if design.role is Role.INPUT else Severity.FATAL
        yield Problem(severity, name, f"{copies}, so what only one of them has can be lost with it", mend)
    if found.replication == 1 and cluster.brokers > 1:
        told = f"has one copy, of {cluster.brokers} brokers, so it can be lost with a disk, and is away with its broker"
        yield Problem(Severity.WARNING, name, told, _more_copies(brokers, min(3, cluster.brokers)))


def _copies_lacking(brokers: str, name: str, found: _Found, replication: int) -> Iterable[Problem]:
    """Fewer than somebody has asked for."""
    if found.replication < replication:
        told = f"has {found.replication} of the {replication} copies that it should have"
        yield Problem(Severity.WARNING, name, told, _more_copies(brokers, replication))


def _more_copies(brokers: str, wanted: int) -> str:
    return f"give it {wanted} copies (kafka-reassign-partitions --bootstrap-server {brokers})"


def _set(brokers: str, topic: str, setting: str, value: str) -> str:
    command = f"kafka-configs --bootstrap-server {brokers} --alter --entity-type topics --entity-name {topic}"
    return f"{command} --add-config {setting}={value}"


def _shown(setting: str, value: str) -> str:
    """A value, and beside long milliseconds what they are."""
    if not setting.endswith(".ms") or not value.isdecimal() or int(value) * 1000 < MINUTE:
        return "-1 (no limit)" if value == "-1" else value
    whole_seconds = int(value) // 1000 * SECOND
    return f"{value} ({format_duration(whole_seconds)})"


# Asking the brokers -------------------------------------------------------------------------------------------------


def _check_app_id(app_id: str) -> None:
    try:
        check_app_id(app_id)
    except ValueError as error:
        raise Unusable(f"--app-id {error}") from None


def _check_partitions(partitions: int) -> None:
    if not 1 <= partitions <= MOST_PARTITIONS:
        raise Unusable(f"--partitions {partitions} is out of range: choose from 1 to {MOST_PARTITIONS}")


def _designs(app_id: str) -> dict[str, TopicDesign]:
    return {design.called(app_id): design for design in TOPICS}


async def _look(admin: AIOKafkaAdminClient, app_id: str) -> _Cluster:
    brokers = len((await admin.describe_cluster())["brokers"])
    # All topics are listed: asked for by name, those that are not there would be made by some brokers.
    listed = {topic["topic"]: topic["partitions"] for topic in await admin.describe_topics()}
    names = [name for name in _designs(app_id) if name in listed]
    settings = await _settings(admin, names)
    topics = {name: _Found(len(listed[name]), _copies(listed[name]), settings[name]) for name in settings}
    return _Cluster(brokers, topics)


def _copies(partitions: Iterable[Mapping[str, Any]]) -> int:
    return max((len(partition["replicas"]) for partition in partitions), default=0)


async def _settings(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    settings: dict[str, dict[str, str]] = {}
    for answer in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names]):
        for code, message, _, name, entries in answer.resources:
            if code == _NO_SUCH_TOPIC:  # deleted since it was listed
                continue
            if code:
                reason = one_line(message or for_code(code).description or for_code(code).__name__)
                raise Unusable(
                    f"the settings of the topic {name} cannot be read ({reason}): allow DescribeConfigs on it"
                )
            settings[name] = {entry[0]: entry[1] for entry in entries}
    return settings
