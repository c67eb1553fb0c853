"""The topics are replayed to the bytes of files with the same records, and nothing is left on the brokers."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient  # type: ignore[import-untyped]
from hypothesis import HealthCheck, given, settings

from streams import topic_replay
from streams.files import FILE_TOPICS
from streams.partitioner import partition_by
from streams.sample import Sample, write_sample
from tests.live import kafka
from tests.models.histories import History, histories, lines
from tests.streams.command_line import Ended, arrears, bill, control, inside, payment, read, usage, write
from tests.streams.test_histories import NAMES, inputs_of, replayed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.live.conftest import FreshTopics

pytestmark = pytest.mark.live

PARTITIONS = 4
_partition_of = partition_by("murmur2", PARTITIONS)

Sent = tuple[str, bytes | None, bytes | None, int]


def _spread(topic: str, value: bytes) -> Iterator[Sent]:
    """As producers send it: to its account's partition; what is for everybody to all."""
    key = json.loads(value)["account_id"].encode()
    for partition in range(PARTITIONS) if key == b"*" else (_partition_of(key),):
        yield topic, key, value, partition


async def _produce(servers: str, records: Iterable[Sent]) -> None:
    async with kafka.producing(servers) as producer:
        for topic, key, value, partition in records:
            await producer.send(topic, value, key, partition)
        await producer.flush()


def _load(servers: str, files: dict[str, Path]) -> None:
    values = [(topic, value) for topic, path in files.items() for value in path.read_bytes().splitlines()]
    asyncio.run(_produce(servers, [sent for topic, value in values for sent in _spread(topic, value)]))


def _outputs(folder: Path) -> list[object]:
    folder.mkdir(exist_ok=True)
    return [part for name in NAMES for part in (f"--{name.replace('_', '-')}", folder / name)]


def _bytes(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in NAMES}


@pytest.fixture
def topics(fresh_topics: FreshTopics) -> str:
    """The brokers, with empty topics."""
    return str(fresh_topics(PARTITIONS)["bootstrap_servers"])


@pytest.fixture
def month(tmp_path: Path) -> dict[str, Path]:
    """A sample month."""
    write_sample(tmp_path, Sample(accounts=40))
    return {topic: tmp_path / f"{topic}.jsonl" for topic in FILE_TOPICS}


def _options(files: dict[str, Path]) -> list[object]:
    return [part for topic, path in files.items() for part in (f"--{topic}", path)]


def test_a_month_replays_to_the_bytes_of_its_files(topics: str, month: dict[str, Path], tmp_path: Path) -> None:
    assert sum(path.read_bytes().count(b"\n") for path in month.values()) > topic_replay.FEWEST_RECORDS
    _load(topics, month)
    groups = asyncio.run(_groups(topics))  # those of other tests
    limits: tuple[list[object], ...] = (
        [],
        ["--since", "2026-01-20T00:00:00Z", "--until", "2026-01-25T00:00:00Z"],
        ["--account", "acct-0027"],
        ["--account", "acct-0027", "--until", "2026-01-15T00:00:00Z"],
    )
    for options in limits:
        files, brokers = tmp_path / "files", tmp_path / "brokers"
        ended = arrears("replay", *_options(month), *_outputs(files), *options)
        assert ended.code == 0, ended
        ended = arrears("replay", "--brokers", topics, *_outputs(brokers), *options)
        assert ended.code == 0, ended
        found = _bytes(brokers)
        assert found["commands"]
        if "--account" in options and "--until" not in options:  # the clock ends with the partition's last record
            assert found["commands"] == _bytes(files)["commands"]
        else:
            assert found == _bytes(files)
    assert set(asyncio.run(_groups(topics))) <= set(groups)


async def _groups(servers: str) -> list[Any]:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        return list(await admin.list_consumer_groups())
    finally:
        await admin.close()


def _replay(capfdbinary: Any, servers: str, *options: object) -> Ended:
    return inside(capfdbinary, "replay", "--brokers", servers, *options)


@settings(deadline=None, max_examples=8, suppress_health_check=list(HealthCheck))
@given(histories(accounts=6, most=30))
def test_whatever_happened_topics_replay_as_files(
    fresh_topics: FreshTopics,
    tmp_path: Path,
    capfdbinary: Any,
    monkeypatch: pytest.MonkeyPatch,
    history: History,
) -> None:
    servers = str(fresh_topics(PARTITIONS)["bootstrap_servers"])
    values = [(topic, value) for topic in FILE_TOPICS for value in lines(history[0][topic])]
    asyncio.run(_produce(servers, [sent for topic, value in values for sent in _spread(topic, value)]))
    policy = tmp_path / "policy.yaml"
    policy.write_text(history[1] or "")
    options = [*(["--policy", policy] if history[1] else []), *(["--until", history[2]] if history[2] else [])]
    from_files = replayed(history, inputs_of(history))
    for processes in (1, 3):
        monkeypatch.setattr(topic_replay, "FEWEST_RECORDS", 0)
        monkeypatch.setattr("streams.commands.processes_that_pay", lambda processes=processes: processes)
        ended = _replay(capfdbinary, servers, *_outputs(tmp_path / "out"), *options)
        assert ended.code == 0, ended
        found = _bytes(tmp_path / "out")
        assert {name: found[name] for name in NAMES[:3]} == {name: from_files[name] for name in NAMES[:3]}


def _value(record: dict[str, object]) -> bytes:
    return json.dumps(record).encode()


def test_what_cannot_be_used_is_told_with_its_place(topics: str, tmp_path: Path, capfdbinary: Any) -> None:
    first, second = bill(1, "2026-01-01T00:00:00Z"), bill(2, "2026-01-02T00:00:00Z")
    own = _partition_of(b"a")
    elsewhere = (own + 1) % PARTITIONS
    bad = control(1, "2026-01-02T00:00:00Z", "hold", account_id="*", until="2026-01-01T00:00:00Z")
    sent: list[Sent] = [
        ("bills", b"a", _value(first), own),
        ("bills", None, _value(second), own),
        ("bills", b"b", _value(second), own),
        ("bills", b"a", _value({**first, "amount": "7"}), own),
        ("bills", b"a", _value(second), elsewhere),
        ("payments", b"a", None, own),
        ("payments", b"\xff", b"\xfe", elsewhere),
        *(("controls", b"*", _value(bad), partition) for partition in range(PARTITIONS)),
        ("acks", b"a", b"not read", own),
    ]
    asyncio.run(_produce(topics, sent))
    letters = tmp_path / "letters"
    ended = _replay(capfdbinary, topics, "--dead-letters", letters, "--strict")
    assert ended.code == 3
    found = read(letters)
    assert [
        (one["topic"], one["partition"], one["offset"], one["key"], one["error"])
        for one in found
        if one["topic"] != "controls"
    ] == [
        *sorted(
            [
                ("bills", own, 1, None, "key_mismatch"),
                ("bills", own, 2, "b", "key_mismatch"),
                ("bills", own, 3, "a", "conflict"),
                ("bills", elsewhere, 0, "a", "wrong_partition"),
            ],
            key=lambda one: one[1:3],
        ),
        *sorted(
            [("payments", own, 0, "a", "invalid"), ("payments", elsewhere, 0, "/w==", "not_json")],
            key=lambda one: one[1:3],
        ),
    ]
    controls = [(one["partition"], one["offset"], one["key"]) for one in found if one["topic"] == "controls"]
    assert controls == [(partition, 0, "*") for partition in range(PARTITIONS)]
    assert all(one["received_at"].endswith("Z") for one in found)
    for since, left in (("2020-01-01T00:00:00Z", len(found)), ("2099-01-01T00:00:00Z", 0)):
        _replay(capfdbinary, topics, "--dead-letters", letters, "--since", since)
        assert len(read(letters)) == left
    _replay(capfdbinary, topics, "--dead-letters", letters, "--account", "a")
    assert {one["error"] for one in read(letters)} == {"key_mismatch", "conflict", "invalid"}


def test_policies_that_an_account_puts_in_force_hold_for_accounts_of_other_partitions(
    topics: str, tmp_path: Path, capfdbinary: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_replay, "FEWEST_RECORDS", 0)
    others = [name for name in ("b", "c", "d", "e", "f") if _partition_of(name.encode()) != _partition_of(b"a")]
    quick = {"name": "quick", "version": "1", "effective_from": "2020-01-01T00:00:00Z", "suspend_after": "PT5H"}
    records: dict[str, list[dict[str, object]]] = {
        "bills": [bill(1, "2026-01-02T00:00:00Z", account_id=others[0]), bill(2, "2026-01-03T00:00:00Z")],
        "controls": [control(1, "2026-01-01T00:00:00Z", "policies", policies=[quick])],
    }
    files = {topic: write(tmp_path / topic, *values) for topic, values in records.items()}
    _load(topics, files)
    until = ["--until", "2026-01-04T00:00:00Z"]
    alone = inside(capfdbinary, "replay", *_options(files), *until)
    assert [command["policy"] for command in alone.lines] == ["quick@1", "quick@1"]
    assert _replay(capfdbinary, topics, *until).out == alone.out
    one = _replay(capfdbinary, topics, *until, "--account", others[0])
    assert one.lines == [command for command in alone.lines if command["account_id"] == others[0]]


# Refused ------------------------------------------------------------------------------------------------------------


def _refused(ended: Ended) -> str:
    assert ended.code == 2, ended
    assert ended.err.count("\n") == 1, ended.err
    return ended.err


@pytest.mark.parametrize("topic", FILE_TOPICS)
def test_topics_that_retention_has_cut_are_refused(topics: str, topic: str, capfdbinary: Any) -> None:
    records: dict[str, dict[str, object]] = {
        "bills": bill(1, "2026-01-01T00:00:00Z"),
        "payments": payment(1, "2026-01-01T00:00:00Z"),
        "usage": usage(1, "2026-01-01T00:00:00Z"),
        "packages": {"account_id": "a"},
        "controls": control(1, "2026-01-01T00:00:00Z", "hold"),
    }
    own = _partition_of(b"a")
    asyncio.run(_produce(topics, [(topic, b"a", _value(records[topic]), own)] * 3))
    asyncio.run(kafka.delete_records(topics, topic, own, before=2))
    told = _refused(_replay(capfdbinary, topics))
    assert f"{topic} (partition {own} begins at 2)" in told
    if topic == "usage":
        assert "--without-usage" in told
        assert _replay(capfdbinary, topics, "--without-usage").code == 0
    else:
        assert "replay the files" in told
        assert _refused(_replay(capfdbinary, topics, "--without-usage", "--account", "a")) == told


def test_topics_that_are_not_there_are_told(fresh_topics: FreshTopics, capfdbinary: Any) -> None:
    servers = str(fresh_topics(PARTITIONS)["bootstrap_servers"])

    async def delete() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=servers)
        await admin.start()
        try:
            await admin.delete_topics(["packages"])
            await kafka.until(lambda: _is_gone(admin))
        finally:
            await admin.close()

    async def _is_gone(admin: Any) -> bool:
        return "packages" not in await admin.list_topics()

    asyncio.run(delete())
    assert "packages" in _refused(_replay(capfdbinary, servers))


def test_only_what_was_committed_before_the_start_is_read(topics: str, capfdbinary: Any) -> None:
    """Records of an open transaction, and those behind it, are not there yet; those of an aborted one never were."""

    async def scenario() -> Ended:
        own = _partition_of(b"a")
        async with kafka.producing(topics, "a-loader") as producer:
            async with producer.transaction():
                await producer.send("bills", _value(bill(1, "2026-01-01T00:00:00Z")), b"a", own)
            await producer.begin_transaction()
            await producer.send("bills", _value(bill(2, "2026-01-02T00:00:00Z")), b"a", own)
            await producer.flush()
            await producer.abort_transaction()
            await producer.begin_transaction()
            await producer.send("bills", _value(bill(3, "2026-01-03T00:00:00Z")), b"a", own)
            await producer.flush()
            ended = await asyncio.to_thread(arrears, "replay", "--brokers", topics, "--accounts", "-")
            await producer.abort_transaction()
        return ended

    ended = asyncio.run(scenario())
    assert ended.code == 0
    assert [(account["balance"], account["as_of"]) for account in ended.lines] == [("-10", "2026-01-01T00:00:00Z")]
    assert "a transaction is open" in ended.err


def test_empty_topics_come_to_nothing(topics: str, capfdbinary: Any) -> None:
    ended = _replay(capfdbinary, topics)
    assert (ended.code, ended.out) == (0, b"")
    assert "no usable record" in ended.err
    assert "no record of an account a" in _refused(_replay(capfdbinary, topics, "--account", "a"))
