"""The operator's tools against a broker: each record once, controls where they belong, what came out as it stands."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from models.policy import BUILT_IN, parse_policies, to_json
from streams.partitioner import partition_by
from streams.reading import Reader
from streams.topics import create
from tests.live.kafka import producing, read, run, until
from tests.streams.command_line import ARREARS, ROOT, Ended, bill, control, environment, inside, payment, usage, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from streams.local_kafka import LocalKafka
    from tests.live.conftest import FreshTopics, NewKafka

pytestmark = pytest.mark.live

PARTITIONS = 4
partition_of = partition_by("murmur2", PARTITIONS)


def day(number: int, second: int = 0) -> str:
    return f"2026-01-{number:02}T00:{second // 60:02}:{second % 60:02}Z"


@pytest.fixture
def tool(
    fresh_topics: FreshTopics, capfdbinary: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Ended]:
    """`arrears …` within this process, on fresh topics."""
    kafka = fresh_topics(PARTITIONS)
    monkeypatch.setenv("ARREARS_BROKERS", kafka["bootstrap_servers"])
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return lambda *arguments: inside(capfdbinary, *arguments)


def values(broker: LocalKafka, topic: str) -> list[bytes]:
    found = run(read(broker.address, topic, PARTITIONS))
    assert all(one.key is None or partition_of(one.key) == one.partition or one.key == b"*" for one in found)
    return [one.value or b"" for one in found]


# Load -------------------------------------------------------------------------------------------------------------


def test_files_are_loaded_once_into_the_right_partitions(
    tool: Callable[..., Ended], broker: LocalKafka, tmp_path: Path
) -> None:
    bills = write(tmp_path / "b", *(bill(n, day(1, n), account_id=f"acct-{n % 7}") for n in range(50)))
    controls = write(tmp_path / "c", control(1, day(1), "hold"), control(2, day(2), "hold", account_id="*"))
    given = ("load", "--bills", bills, "--controls", controls)
    ended = tool(*given, "--json")
    assert ended.code == 0, ended.err
    assert ended.lines[0]["sent"] == {"bills": 50, "controls": 2}
    assert sorted(values(broker, "bills")) == sorted(bills.read_bytes().splitlines())
    to_all = [one for one in run(read(broker.address, "controls", PARTITIONS)) if one.key == b"*"]
    assert [one.partition for one in to_all] == list(range(PARTITIONS))
    assert {one.value for one in to_all} == {controls.read_bytes().splitlines()[1]}

    again = tool(*given)
    assert again.code == 0
    assert "there is nothing to do: these files (52 lines) were loaded" in again.err
    with bills.open("ab") as more:
        more.write(json.dumps(bill(99, day(3))).encode() + b"\n")
    assert tool(*given, "--json", "-q").lines[0]["sent"] == {"bills": 1}
    assert len(values(broker, "bills")) == 51

    bills.write_bytes(bills.read_bytes().replace(b"CNY", b"USD", 1))
    changed = tool(*given)
    assert (changed.code, changed.err.count("\n")) == (2, 1)
    assert "has changed since it was loaded (that load took 51 lines): --again loads it all once more" in changed.err
    assert tool(*given, "--again", "-q").code == 0
    assert len(values(broker, "bills")) == 102


def test_lines_that_are_no_records_are_told_and_not_sent(
    tool: Callable[..., Ended], broker: LocalKafka, tmp_path: Path
) -> None:
    large = json.dumps(bill(2, day(1), detail="x" * 1_100_000)).encode()
    file = write(tmp_path / "b", b"nonsense", bill(1, day(1)), b"", b'{"event_id":"e"}', large)
    ended = tool("load", "--bills", file, "--strict")
    assert ended.code == 3
    assert f"{file}:1: is no JSON" in ended.err
    assert f'{file}:4: has no "account_id"; it is not sent' in ended.err
    assert f"{file}:5: has {len(large):,} bytes, more than a topic takes; it is not sent" in ended.err
    assert len(values(broker, "bills")) == 1
    assert tool("load", "--bills", file, "--again", "--as-is", "-q").code == 0
    assert Counter(values(broker, "bills"))[b"nonsense"] == 1


def test_records_lie_in_the_order_of_their_instants(
    tool: Callable[..., Ended], broker: LocalKafka, tmp_path: Path
) -> None:
    instants = [day(1, n) for n in range(200)]
    random.Random(7).shuffle(instants)
    file = write(tmp_path / "p", *(payment(n, at, account_id=f"a{n % 9}") for n, at in enumerate(instants)))
    assert tool("load", "--payments", file, "-q").code == 0
    for number in range(PARTITIONS):
        found = [one for one in run(read(broker.address, "payments", PARTITIONS)) if one.partition == number]
        at = [json.loads(one.value or b"")["paid_at"] for one in found]
        assert at == sorted(at)


def test_topics_that_were_made_anew_are_loaded_again(
    fresh_topics: FreshTopics, tool: Callable[..., Ended], broker: LocalKafka, tmp_path: Path
) -> None:
    file = write(tmp_path / "b", bill(1, day(1)))
    assert tool("load", "--bills", file, "-q").code == 0
    fresh_topics(PARTITIONS)
    ended = tool("load", "--bills", file)
    assert "the topics have been made anew" in ended.err
    assert len(values(broker, "bills")) == 1


def test_standard_input_is_sent_as_it_comes(tool: Callable[..., Ended], broker: LocalKafka) -> None:
    del tool
    command = [*ARREARS, "load", "--bills", "-", "--brokers", broker.address]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), cwd=ROOT
    ) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(bill(1, day(1))).encode() + b"\n")
        process.stdin.flush()
        run(until(lambda: _count(broker, "bills", 1)), 60)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr is not None
        err = process.stderr.read()
    assert b"arrears load: stopped before the end" in err
    assert b"Traceback" not in err


async def _count(broker: LocalKafka, topic: str, wanted: int) -> bool:
    return len(await read(broker.address, topic, PARTITIONS)) == wanted


def test_a_load_that_is_killed_goes_on_and_sends_nothing_twice(
    tool: Callable[..., Ended], broker: LocalKafka, tmp_path: Path
) -> None:
    del tool
    rng = random.Random(11)
    count = 60_000
    file = write(tmp_path / "u", *(usage(n, day(1 + n * 27 // count), account_id=f"a{n % 999}") for n in range(count)))
    everybody = write(tmp_path / "c", *(control(n, day(1 + n), "hold", account_id="*") for n in range(27)))
    command = [*ARREARS, "load", "--usage", file, "--controls", everybody, "--brokers", broker.address, "-q"]
    env = environment(XDG_STATE_HOME=str(tmp_path / "state"))
    kills = 0
    for attempt in range(30):
        with subprocess.Popen(list(map(str, command)), env=env, cwd=ROOT) as process:
            try:
                if attempt < 6:
                    process.wait(rng.uniform(0.4, 1.6))
                else:
                    process.wait(60)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                kills += 1
                continue
        assert process.returncode == 0
        break
    assert kills
    assert sorted(values(broker, "usage")) == sorted(file.read_bytes().splitlines())
    assert len(values(broker, "controls")) == PARTITIONS * 27


def test_a_load_waits_for_brokers_that_are_away(new_kafka: NewKafka, tmp_path: Path) -> None:
    kafka = new_kafka()
    asyncio.run(create({"bootstrap_servers": kafka.address}, partitions=PARTITIONS))
    pid = kafka.status().pid
    assert pid is not None
    with subprocess.Popen(
        [*ARREARS, "load", "--bills", "-", "--brokers", kafka.address],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        cwd=ROOT,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(bill(1, day(1))).encode() + b"\n")
        process.stdin.flush()
        run(until(lambda: _count(kafka, "bills", 1)), 60)
        os.kill(pid, signal.SIGSTOP)
        try:
            process.stdin.write(json.dumps(bill(2, day(2))).encode() + b"\n")
            process.stdin.close()
            time.sleep(7)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert process.wait(60) == 0
        assert process.stderr is not None
        err = process.stderr.read().decode()
    assert f"the brokers at {kafka.address} have not answered for 5 s: waiting for them" in err
    assert "the brokers answer again" in err
    assert len(run(read(kafka.address, "bills", PARTITIONS))) == 2


# Control ----------------------------------------------------------------------------------------------------------


def test_a_control_goes_to_its_partition_and_for_everybody_to_all(
    tool: Callable[..., Ended], broker: LocalKafka
) -> None:
    one = tool("control", "hold", "acct-1", "--reason", "ticket 4711", "--until", "+P7D", "--json")
    assert (one.code, one.err) == (0, "")
    (told,) = one.lines
    assert told["sent"] == [{"topic": "controls", "partition": partition_of(b"acct-1"), "offset": 0}]
    (found,) = run(read(broker.address, "controls", PARTITIONS))
    assert (found.partition, found.key, json.loads(found.value or b"")) == (
        partition_of(b"acct-1"),
        b"acct-1",
        told["record"],
    )
    everybody = tool("control", "resume", "*", "--reason", "checked", "--yes")
    assert everybody.code == 0
    assert [line for line in everybody.out.decode().splitlines() if line.startswith("sent to controls")] == [
        f"sent to controls, partition {number}, offset {int(number == partition_of(b'acct-1'))}"
        for number in range(PARTITIONS)
    ]
    sent = [one for one in run(read(broker.address, "controls", PARTITIONS)) if one.key == b"*"]
    assert len(sent) == PARTITIONS
    assert len({one.value for one in sent}) == 1


# What came out ----------------------------------------------------------------------------------------------------


def command(account: str, sequence: int, **more: object) -> dict[str, object]:
    return {"account_id": account, "sequence": sequence, "action": "suspend", "owed": "1", "currency": "CNY"} | more


async def publish(broker: LocalKafka, topic: str, *records: dict[str, object], commit: bool = True) -> None:
    """Each in a transaction of its own."""
    async with producing(broker.address, "apart.outputs") as producer:
        for record in records:
            key = str(record["account_id"]).encode()
            await producer.begin_transaction()
            await producer.send(topic, json.dumps(record).encode(), key=key, partition=partition_of(key))
            await producer.flush()
            await (producer.commit_transaction() if commit else producer.abort_transaction())


def test_commands_are_listed_in_the_order_of_publication(tool: Callable[..., Ended], broker: LocalKafka) -> None:
    published = [command(f"acct-{n % 5}", n) for n in range(40)]
    run(publish(broker, "arrears.commands", *published[:20]))
    run(publish(broker, "arrears.commands", command("acct-9", 99), commit=False))
    run(publish(broker, "arrears.commands", *published[20:]))
    assert tool("commands").lines == published
    assert tool("commands", "--limit", 3).lines == published[-3:]
    assert tool("commands", "--account", "acct-3").lines == [one for one in published if one["account_id"] == "acct-3"]
    assert tool("commands", "--account", "acct-3", "--limit", 1).lines == [published[38]]
    assert tool("commands", "--account", "nobody").lines == []
    assert tool("commands", "--since", "PT1H").lines == published
    assert tool("commands", "--since", "PT0S").lines == []


def test_the_last_few_are_found_however_far_back(tool: Callable[..., Ended], broker: LocalKafka) -> None:
    async def fill() -> None:
        async with producing(broker.address, "apart.outputs") as producer:
            await producer.begin_transaction()
            for n in range(3_000):
                value = json.dumps(command("odd" if n < 3 else "other", n)).encode()
                await producer.send("arrears.commands", value, key=b"odd" if n < 3 else b"k", partition=2)
            await producer.commit_transaction()

    run(fill())
    assert [one["sequence"] for one in tool("commands", "--limit", 2).lines] == [2_998, 2_999]
    assert [one["sequence"] for one in tool("commands", "--limit", 2_999).lines] == list(range(1, 3_000))
    assert partition_of(b"odd") == 2
    assert [one["sequence"] for one in tool("commands", "--limit", 2, "--account", "odd").lines] == [1, 2]


def test_of_each_account_the_last_view_is_listed(tool: Callable[..., Ended], broker: LocalKafka) -> None:
    views: list[dict[str, Any]] = [
        {"account_id": f"acct-{n % 5}", "status": ("current", "suspended")[n % 2], "n": n} for n in range(13)
    ]
    run(publish(broker, "arrears.accounts", *views))
    last = sorted(views[-5:], key=lambda one: str(one["account_id"]))
    assert tool("accounts").lines == last
    assert tool("accounts", "--status", "suspended").lines == [one for one in last if one["status"] == "suspended"]
    assert tool("accounts", "--account", "acct-2").lines == [views[12]]
    assert tool("accounts", "--limit", 2).lines == sorted(views[-2:], key=lambda one: str(one["account_id"]))


def test_dead_letters_of_an_account_are_found_wherever_they_lie(tool: Callable[..., Ended], broker: LocalKafka) -> None:
    letters: list[dict[str, Any]] = [
        {"account_id": "x", "key": "acct-1", "value": "{}", "error": "wrong_partition"},
        {"account_id": "y", "key": None, "value": '{"account_id":"acct-1"}', "error": "key_mismatch"},
        {"account_id": "z", "key": "acct-2", "value": "acct-1", "error": "not_json"},
    ]
    run(publish(broker, "arrears.dead-letters", *letters))
    assert tool("dead-letters", "--account", "acct-1").lines == [letters[1]]
    assert len(tool("dead-letters").lines) == 3


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_what_comes_is_followed_until_a_signal(
    tool: Callable[..., Ended], broker: LocalKafka, ending: signal.Signals
) -> None:
    del tool
    run(publish(broker, "arrears.notices", *(command("a", n) for n in range(5))))
    following = [*ARREARS, "notices", "--follow", "--limit", "2", "--brokers", broker.address]
    with subprocess.Popen(
        following, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert [json.loads(process.stdout.readline())["sequence"] for _ in range(2)] == [3, 4]
        run(publish(broker, "arrears.notices", command("b", 5), command("a", 6)))
        assert [json.loads(process.stdout.readline())["sequence"] for _ in range(2)] == [5, 6]
        process.send_signal(ending)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, b"", b"")


def test_following_ends_when_nobody_reads(tool: Callable[..., Ended], broker: LocalKafka) -> None:
    del tool
    following = [*ARREARS, "commands", "--follow", "--brokers", broker.address]
    with subprocess.Popen(following, stdout=subprocess.PIPE, env=environment(), cwd=ROOT) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 0


# Reading ----------------------------------------------------------------------------------------------------------


def test_partitions_are_merged_by_their_timestamps(fresh_topics: FreshTopics, broker: LocalKafka) -> None:
    kafka = fresh_topics(PARTITIONS)

    async def scenario() -> None:
        rng = random.Random(3)
        stamps: dict[int, list[int]] = {number: [] for number in range(PARTITIONS)}
        async with producing(broker.address) as producer:
            for n in range(3_000):
                number = rng.choice((0, 0, 0, 1, 2))
                await producer.send("arrears.state", b"x" * 2_000, key=b"%d" % n, partition=number)
                stamps[number].append(n)
            await producer.flush()
        places = [("arrears.state", number) for number in range(PARTITIONS)]
        async with Reader(kafka) as reader:
            ends = await reader.settled_ends(places)
            found = [one async for some in reader.merged(dict.fromkeys(places, 0), ends) for one in some]
            assert [record.timestamp for _, record in found] == sorted(record.timestamp for _, record in found)
            for number, wanted in stamps.items():
                assert [int(record.key or b"") for place, record in found if place[1] == number] == wanted

    run(scenario())


# Policies ---------------------------------------------------------------------------------------------------------


def test_policies_are_applied_to_every_partition(
    tool: Callable[..., Ended], broker: LocalKafka, tmp_path: Path
) -> None:
    file = tmp_path / "policies.yaml"
    (built_in,) = to_json(BUILT_IN)
    later = built_in | {"version": "later", "effective_from": "2999-01-01T00:00:00Z", "suspend_after": "PT72H"}
    file.write_text(json.dumps({"policies": [built_in, later]}), encoding="utf-8")
    assert "nothing yet, no worker has been there" in tool("policy", "show").out.decode()

    asked = tool("policy", "apply", file)
    assert (asked.code, asked.err.count("\n")) == (2, 1)
    assert "give --yes if it is meant" in asked.err
    applied = tool("policy", "apply", file, "--yes", "--json", "--reason", "agreed")
    assert applied.code == 0, applied.err
    assert [place["partition"] for place in applied.lines[0]["sent"]] == list(range(PARTITIONS))
    sent = run(read(broker.address, "controls", PARTITIONS))
    assert [(one.partition, one.key) for one in sent] == [(number, b"*") for number in range(PARTITIONS)]
    record = json.loads(sent[0].value or b"")
    assert (record["kind"], record["reason"]) == ("policies", "agreed")
    assert parse_policies(record["policies"]).versions[0] == BUILT_IN.versions[0]

    assert "Nothing to do" in tool("policy", "apply", file).out.decode()
    assert "not taken in yet by partition 0-3: maxcompute@2018-03-16 and maxcompute@later" in (
        tool("policy", "show").out.decode()
    )
    file.write_text(json.dumps({"policies": [built_in, later | {"suspend_after": "PT48H"}]}), encoding="utf-8")
    changed = tool("policy", "apply", file, "--yes", "--without-notice")
    assert (changed.code, changed.err.count("\n")) == (2, 1)
    assert "maxcompute@later is known with other content (it stands in controls, partition 0, offset 0" in changed.err
