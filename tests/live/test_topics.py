"""The topics: made as they are designed, and what differs is told with what mends it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition  # type: ignore[import-untyped]
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions  # type: ignore[import-untyped]
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType  # type: ignore[import-untyped]

from models.outputs import Source, dead_letter
from models.records import TOPICS as INPUTS
from models.refusal import Refusal
from streams.faults import Unusable
from streams.local_kafka import free_port
from streams.topic_design import INPUT_BYTES, OUTPUT_BYTES, TOPICS, AppTopics, Role, Severity, settings_to_create
from streams.topics import Problem, _Cluster, _differences, _Found, check, create

if TYPE_CHECKING:
    from streams.local_kafka import LocalKafka
    from tests.live.conftest import FreshTopics

FATAL, WARNING = Severity.FATAL, Severity.WARNING
NAMES = {
    *("bills", "payments", "usage", "packages", "controls", "acks"),
    *("arrears.commands", "arrears.notices", "arrears.accounts", "arrears.dead-letters", "arrears.state"),
}
DAY_MS = 86_400_000


# The design -------------------------------------------------------------------------------------------------------


def test_there_are_the_topics_of_the_contract_and_the_state() -> None:
    assert {design.called("arrears") for design in TOPICS} == NAMES
    assert {design.name for design in TOPICS if design.role is Role.INPUT} == set(INPUTS)
    ours = {design.called("staging") for design in TOPICS} - set(INPUTS)
    assert ours == set(AppTopics.of("staging"))
    assert AppTopics.of("arrears").dead_letters == "arrears.dead-letters"


@pytest.mark.parametrize(
    ("topic", "settings"),
    [
        ("bills", {"cleanup.policy": "delete", "retention.ms": "-1"}),
        ("payments", {"cleanup.policy": "delete", "retention.ms": "-1"}),
        ("controls", {"cleanup.policy": "delete", "retention.ms": "-1"}),
        ("packages", {"cleanup.policy": "delete", "retention.ms": "-1"}),
        ("usage", {"cleanup.policy": "delete", "retention.ms": f"{90 * DAY_MS}"}),
        ("acks", {"cleanup.policy": "delete", "retention.ms": f"{30 * DAY_MS}"}),
        ("arrears.commands", {"cleanup.policy": "delete", "retention.ms": "-1"}),
        ("arrears.notices", {"cleanup.policy": "delete", "retention.ms": "-1"}),
        ("arrears.dead-letters", {"cleanup.policy": "delete", "retention.ms": f"{90 * DAY_MS}"}),
        ("arrears.accounts", {"cleanup.policy": "compact", "segment.bytes": f"{64 << 20}"}),
        (
            "arrears.state",
            {"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime", "segment.ms": "600000"},
        ),
    ],
)
def test_a_topic_keeps_what_has_to_be_kept(topic: str, settings: dict[str, str]) -> None:
    design = next(design for design in TOPICS if design.called("arrears") == topic)
    made = settings_to_create(design, 3)
    assert {name: made[name] for name in settings} == settings
    assert made["min.insync.replicas"] == "2"
    assert made["unclean.leader.election.enable"] == "false"
    assert settings_to_create(design, 1)["min.insync.replicas"] == "1"


@pytest.mark.parametrize("char", [b"\x00", b"\xff", "语".encode()])
def test_the_largest_dead_letter_fits(char: bytes) -> None:
    # A record that is all key, and one that is all value; each as large as its topic takes.
    long = char * (INPUT_BYTES // len(char))
    for key, value in ((long, b""), (b"", long)):
        letter = dead_letter(
            Source("payments", 7, 2**63 - 1, key, value, "2026-01-01T00:00:00.123456Z"),
            Refusal("key_mismatch", "account_id", "x" * 1000),
        )
        assert len(msgspec.json.encode(letter)) + len(key) + 1000 < OUTPUT_BYTES


# What differs -----------------------------------------------------------------------------------------------------

KAFKA = {"bootstrap_servers": ["b1:9092", "b2:9092"]}


def differences(
    topic: str, *, copies: int = 3, brokers: int = 3, partitions: int = 8, **settings: str
) -> list[tuple[Severity, str]]:
    """What is told of a topic that is as designed but for these settings (`__` stands for a dot)."""
    design = next(design for design in TOPICS if design.called("arrears") == topic)
    changed = {name.replace("__", "."): value for name, value in settings.items()}
    found = _Found(partitions, copies, settings_to_create(design, copies) | changed)
    told = _differences(KAFKA, topic, design, _Cluster(brokers, {topic: found}), 8)
    return [(problem.severity, str(problem)) for problem in told]


def test_a_topic_as_designed_has_no_problem() -> None:
    for name in NAMES:
        for copies, brokers in ((1, 1), (2, 2), (3, 3), (3, 5)):
            assert differences(name, copies=copies, brokers=brokers) == []


@pytest.mark.parametrize(
    ("topic", "settings", "severity"),
    [
        ("bills", {"cleanup__policy": "compact"}, FATAL),
        ("bills", {"cleanup__policy": "compact,delete"}, FATAL),
        ("bills", {"retention__ms": f"{7 * DAY_MS}"}, FATAL),
        ("bills", {"retention__ms": f"{400 * DAY_MS}"}, WARNING),
        ("payments", {"retention__bytes": "1000000"}, FATAL),
        ("payments", {"unclean__leader__election__enable": "true"}, FATAL),
        ("payments", {"max__message__bytes": f"{10 << 20}"}, WARNING),
        ("payments", {"max__message__bytes": "1000"}, None),
        ("payments", {"message__timestamp__type": "CreateTime"}, WARNING),
        ("usage", {"retention__ms": f"{DAY_MS}"}, FATAL),
        ("usage", {"retention__ms": f"{30 * DAY_MS}"}, WARNING),
        ("usage", {"retention__ms": "-1"}, None),
        ("usage", {"retention__ms": f"{91 * DAY_MS}"}, None),
        ("arrears.commands", {"cleanup__policy": "compact"}, FATAL),
        ("arrears.commands", {"retention__ms": f"{DAY_MS}"}, FATAL),
        ("arrears.commands", {"max__message__bytes": f"{1 << 20}"}, FATAL),
        ("arrears.accounts", {"cleanup__policy": "delete"}, FATAL),
        ("arrears.accounts", {"segment__ms": "604800000"}, WARNING),
        ("arrears.state", {"cleanup__policy": "delete"}, FATAL),
        ("arrears.state", {"cleanup__policy": "compact,delete"}, FATAL),
        ("arrears.state", {"message__timestamp__type": "CreateTime"}, FATAL),
        ("arrears.state", {"max__message__bytes": f"{1 << 20}"}, FATAL),
        ("arrears.state", {"segment__bytes": f"{1 << 30}"}, WARNING),
        ("arrears.state", {"min__cleanable__dirty__ratio": "0.5"}, WARNING),
        ("arrears.state", {"min__cleanable__dirty__ratio": "0.05"}, None),
        ("arrears.state", {"delete__retention__ms": f"{DAY_MS}"}, WARNING),
    ],
)
def test_a_setting_that_differs(topic: str, settings: dict[str, str], severity: Severity | None) -> None:
    told = differences(topic, **settings)  # type: ignore[arg-type]  # settings alone
    assert [found for found, _ in told] == ([] if severity is None else [severity])
    for _, line in told:
        (name,) = (name.replace("__", ".") for name in settings)
        assert line.startswith(f"{topic} {name} is ")
        assert (
            f"kafka-configs --bootstrap-server b1:9092,b2:9092 --alter --entity-type topics --entity-name {topic}"
            in line
        )
        assert "\n" not in line


@pytest.mark.parametrize(
    ("topic", "copies", "in_sync", "severity"),
    [
        ("arrears.state", 3, "1", FATAL),
        ("bills", 3, "1", WARNING),
        ("bills", 3, "3", WARNING),
        ("bills", 3, "4", FATAL),
        ("bills", 2, "2", WARNING),
        ("bills", 2, "1", None),
        ("bills", 1, "1", WARNING),  # on three brokers
    ],
)
def test_copies(topic: str, copies: int, in_sync: str, severity: Severity | None) -> None:
    told = differences(topic, copies=copies, min__insync__replicas=in_sync)
    assert [found for found, _ in told] == ([] if severity is None else [severity])


def test_another_number_of_partitions_is_fatal() -> None:
    (fewer,), (more,) = differences("payments", partitions=4), differences("payments", partitions=9)
    assert fewer[0] is more[0] is FATAL
    assert "has 4 partitions, it must have 8" in fewer[1]
    assert (
        "kafka-topics --bootstrap-server b1:9092,b2:9092 --alter --topic payments --partitions 8, if it is empty"
        in fewer[1]
    )
    assert "make it anew with 8, partitions cannot be taken away" in more[1]


def test_a_retention_is_told_in_words() -> None:
    ((_, line),) = differences("bills", retention__ms=f"{7 * DAY_MS}")
    assert line == (
        "bills retention.ms is 604800000 (PT168H), it must be at least -1 (no limit), else a worker that was away "
        "misses records, and `arrears replay --brokers` refuses the topic; to mend it: kafka-configs "
        "--bootstrap-server b1:9092,b2:9092 --alter --entity-type topics --entity-name bills "
        "--add-config retention.ms=-1"
    )


# On a broker ------------------------------------------------------------------------------------------------------


def told(problems: list[Problem]) -> list[tuple[Severity, str, str]]:
    return [(problem.severity, problem.topic, problem.told.partition(" is ")[0]) for problem in problems]


@pytest.mark.live
def test_topics_are_made_once_and_fit(fresh_topics: FreshTopics) -> None:
    kafka = fresh_topics(3)
    assert asyncio.run(check(kafka)) == []
    assert asyncio.run(check(kafka, partitions=3)) == []
    made = asyncio.run(create(kafka, partitions=3))
    assert {one.topic for one in made} == NAMES
    assert not any(one.created or one.problems for one in made)


@pytest.mark.live
def test_what_is_missing_or_changed_is_found(fresh_topics: FreshTopics) -> None:
    kafka = fresh_topics(2)

    async def change() -> None:
        admin = AIOKafkaAdminClient(**kafka)
        await admin.start()
        try:
            await admin.delete_topics(["acks"])
            await admin.create_partitions({"usage": NewPartitions(3)})
            # It replaces all settings: those not named are the brokers' own again.
            settings = {"cleanup.policy": "delete", "retention.ms": "3600000"}
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, "arrears.state", settings)])
        finally:
            await admin.close()

    async def changed() -> list[Problem]:
        await change()
        async with asyncio.timeout(20):
            # The brokers say yes before all of them have done it.
            while len(found := await check(kafka)) < 9:
                pass
        return found

    found = asyncio.run(changed())
    assert told(found) == [
        (FATAL, "usage", "has 3 partitions, it must have 2, else an account"),
        (FATAL, "acks", "is not there"),
        (FATAL, "arrears.state", "cleanup.policy"),
        (FATAL, "arrears.state", "message.timestamp.type"),
        (FATAL, "arrears.state", "max.message.bytes"),
        (WARNING, "arrears.state", "segment.ms"),
        (WARNING, "arrears.state", "segment.bytes"),
        (WARNING, "arrears.state", "min.cleanable.dirty.ratio"),
        (WARNING, "arrears.state", "delete.retention.ms"),
    ]
    assert str(found[1]) == (
        f"acks is not there; to mend it: arrears topics create --brokers {kafka['bootstrap_servers']} --partitions 2"
    )
    # What is missing is made only once all have one number of partitions.
    with pytest.raises(Unusable, match=r"these are there with another number: usage \(3\): choose that number"):
        asyncio.run(create(kafka, partitions=2))
    assert "acks" in {problem.topic for problem in asyncio.run(check(kafka))}


@pytest.mark.live
def test_another_app_reads_the_same_inputs_and_writes_topics_of_its_own(fresh_topics: FreshTopics) -> None:
    kafka = fresh_topics(2)
    missing = {problem.topic for problem in asyncio.run(check(kafka, app_id="staging-2"))}
    assert missing == set(AppTopics.of("staging-2"))
    fresh_topics(2, "staging-2")
    made = asyncio.run(create(kafka, partitions=2, app_id="staging-2"))
    assert not any(one.created or one.problems for one in made)


@pytest.mark.live
def test_the_state_has_the_brokers_time_and_takes_what_is_large(fresh_topics: FreshTopics) -> None:
    kafka = fresh_topics(1)
    topics = AppTopics.of("arrears")

    async def write_and_read(topic: str, value: bytes) -> Any:
        producer = AIOKafkaProducer(**kafka, acks="all", max_request_size=OUTPUT_BYTES, enable_idempotence=True)
        consumer = AIOKafkaConsumer(**kafka)
        await producer.start()
        await consumer.start()
        try:
            await producer.send_and_wait(topic, value, key=b"a", timestamp_ms=1)
            consumer.assign([TopicPartition(topic, 0)])
            await consumer.seek_to_beginning()
            return await asyncio.wait_for(consumer.getone(), 20)
        finally:
            await producer.stop()
            await consumer.stop()

    small = asyncio.run(write_and_read(topics.state, b"x"))
    assert small.timestamp_type == 1
    assert small.timestamp > 1_700_000_000_000
    large = asyncio.run(write_and_read(topics.dead_letters, b"x" * (OUTPUT_BYTES - 200)))
    assert len(large.value) == OUTPUT_BYTES - 200


@pytest.mark.live
def test_what_cannot_be_made_is_refused(broker: LocalKafka) -> None:
    kafka = {"bootstrap_servers": broker.address}
    for more, line in [
        ({"replication": 3}, r"--replication 3 cannot be, there is 1 broker: choose from 1 to 1"),
        ({"partitions": 0}, r"--partitions 0 is out of range: choose from 1 to 1000"),
        ({"app_id": "a b"}, r'--app-id must be at most 200 letters, .*; got "a b"'),
    ]:
        with pytest.raises(Unusable, match=line):
            asyncio.run(create(kafka, **more))  # type: ignore[arg-type]  # each is of its own type
    sasl = {"sasl_mechanism": "PLAIN", "sasl_plain_username": "a", "sasl_plain_password": "b"}
    with pytest.raises(Unusable, match=r"do not answer as they should \(Unable connect .*IllegalSaslState"):
        asyncio.run(check({**kafka, **sasl, "security_protocol": "SASL_PLAINTEXT"}))


def test_brokers_that_are_away_are_told_in_one_line() -> None:
    port = free_port()
    with pytest.raises(Unusable) as away:
        asyncio.run(check({"bootstrap_servers": f"127.0.0.1:{port}"}))
    line = str(away.value)
    assert line.startswith(f"the brokers at 127.0.0.1:{port} do not answer as they should (Unable connect")
    assert "\n" not in line
