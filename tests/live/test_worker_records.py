"""Records that cannot be used, and accounts that grow too large: a partition never stops for one of them."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import pytest

from models.records import TOPICS
from models.store import FULL_BYTES, LARGE_BYTES
from streams.journal import MAX_RECORD_BYTES
from streams.topic_design import INPUT_BYTES
from tests.live.kafka import producing, run
from tests.live.worker import Clock, at, kafka_of, working

if TYPE_CHECKING:
    from typing import Any

    from tests.live.conftest import FreshTopics
    from tests.live.worker import Kafka

pytestmark = pytest.mark.live

#: Room in a batch for what is not the value.
_LARGEST = INPUT_BYTES - 100


class Poison(NamedTuple):
    """A record that cannot be used, and what its dead letter says of it."""

    key: bytes | None
    value: bytes | None
    error: str
    told_key: str | None


def poisons(account: str, elsewhere: str) -> list[Poison]:
    """One of each kind. `elsewhere` is an account of another partition."""
    named = msgspec.json.encode({"account_id": account, "event_id": "e"})
    key = account.encode()
    no_text = b"\xff\xfe"
    return [
        Poison(key, b"{", "not_json", account),
        Poison(key, b"\xff\x00", "not_json", account),
        Poison(key, named, "invalid", account),
        Poison(key, None, "invalid", account),
        Poison(None, named, "key_mismatch", None),
        Poison(b"somebody", _good(account), "key_mismatch", "somebody"),
        Poison(no_text, _good(account), "key_mismatch", base64.b64encode(no_text).decode()),
        Poison(elsewhere.encode(), _good(elsewhere), "wrong_partition", elsewhere),
        Poison(key, b'"' + b"x" * _LARGEST + b'"', "invalid", account),
    ]


def _good(account: str) -> bytes:
    """A value that is good in every topic."""
    return msgspec.json.encode(
        {
            "event_id": "good",
            "account_id": account,
            "bill_id": "b",
            "payment_id": "p",
            "usage_id": "u",
            "package_id": "k",
            "service": "compute",
            "quantity": "1",
            "unit": "h",
            "amount": "1",
            "currency": "CNY",
            "actor": "op",
            "reason": "r",
            "subscriber": "s",
            "status": "applied",
            "command_id": "c",
            **dict.fromkeys(("issued_at", "paid_at", "started_at", "ended_at", "at", "starts_at"), at(0)),
            "ends_at": at(9),
        }
    )


def _of_topic(value: bytes | None, topic: str) -> bytes | None:
    """A `_good` value has the kind that its topic knows."""
    if value is None or not value.startswith(b'{"event_id":"good"'):
        return value
    kinds = {"bills": "issued", "payments": "topup", "packages": "purchased", "controls": "hold"}
    return msgspec.json.encode(msgspec.json.decode(value) | ({"kind": kinds[topic]} if topic in kinds else {}))


def test_a_poison_record_of_each_kind_in_every_topic_is_a_dead_letter_once_and_the_partition_goes_on(
    fresh_topics: FreshTopics,
) -> None:
    """Fails, each of a kind, without `check_partition` in `Table._admit` and the comparison of keys in `admit`.

    Likewise without the cut in `dead_letter`.
    """

    async def scenario() -> None:
        async with kafka_of(client, 2) as kafka, working(kafka, Clock()) as live:
            (account,), (elsewhere,) = kafka.accounts(0, 1), kafka.accounts(1, 1)
            sent: dict[tuple[str, int], Poison] = {}
            async with producing(kafka.servers, max_request_size=2 * INPUT_BYTES) as producer:
                for topic in TOPICS:
                    for poison in poisons(account, elsewhere):
                        value = _of_topic(poison.value, topic)
                        offset = await kafka.raw(topic, poison.key, value, partition=0, by=producer)
                        sent[topic, offset] = poison._replace(value=value)
            await kafka.bill(account, 0)
            await live.at(0)
            letters = await kafka.read("dead-letters")
            assert len(letters) == len(sent)
            for letter in letters:
                poison = sent.pop((letter["topic"], letter["offset"]))
                assert (letter["partition"], letter["key"], letter["error"]) == (0, poison.told_key, poison.error)
                assert letter["received_at"] is not None
                assert letter["message"]
                _check_value(letter, poison.value)
            assert sent == {}
            # The bill came behind them all, and counts; and the payments among them have stopped the partition (§3).
            (view,) = await kafka.read("accounts")
            assert (view["account_id"], view["balance"]) == (account, "-100")
            assert live.stops(0) == {"unusable_payments"}
            assert live.stops(1) == set()

    client = fresh_topics(2)
    run(scenario())


def _check_value(letter: dict[str, Any], value: bytes | None) -> None:
    if value is None:
        assert (letter["value"], letter["truncated"], letter["sha256"]) == (None, False, None)
        return
    assert letter["sha256"] == hashlib.sha256(value).hexdigest()
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = base64.b64encode(value).decode()
    assert letter["value"] == text[:65_536]
    assert letter["truncated"] is (len(text) > 65_536)


async def _owing(kafka: Kafka, live: Any, *accounts: str) -> None:
    for account in accounts:
        await kafka.bill(account, 0)
    await live.at(0)
    await live.at(20.1)


def test_a_payment_that_cannot_be_used_stops_its_own_account_until_the_accounts_own_resume(
    fresh_topics: FreshTopics,
) -> None:
    """Fails without `stop_account` in `Table._unusable_payment`; and with the value's account left unread."""

    async def scenario() -> None:
        async with kafka_of(client, 1) as kafka:
            async with working(kafka, Clock()) as live:
                await _owing(kafka, live, "by-value", "other")
                # Its key names nobody; the account is read from the value.
                await kafka.raw("payments", b"\xff", b'{"account_id":"by-value","amount":7}', partition=0)
                await live.at(30)
                assert await kafka.actions("by-value") == []
                assert await kafka.actions("other") == ["suspend"]
                assert live.stops() == set()
            async with working(kafka, Clock(31)) as live:  # it outlives the worker
                await kafka.control("resume", "*", 31)  # which is not its own
                await live.at(32)
                assert await kafka.actions("by-value") == []
                await kafka.control("resume", "by-value", 32)
                await live.at(33)
                assert await kafka.actions("by-value") == ["suspend"]

    client = fresh_topics(1)
    run(scenario())


def test_a_payment_of_nobody_stops_the_partition_until_a_resume_for_everybody(fresh_topics: FreshTopics) -> None:
    """Fails without `account_id is None` in `Table._unusable_payment`."""

    async def scenario() -> None:
        async with kafka_of(client, 2) as kafka, working(kafka, Clock()) as live:
            (here,), (there,) = kafka.accounts(0, 1), kafka.accounts(1, 1)
            await _owing(kafka, live, here, there)
            await kafka.raw("payments", b"\xff", b"7", partition=0)
            await live.at(30)
            assert live.stops(0) == {"unusable_payments"}
            assert await kafka.actions(here) == []
            assert await kafka.actions(there) == ["suspend"]
            await kafka.control("resume", here, 30)
            await live.at(31)
            assert await kafka.actions(here) == []
            await kafka.control("resume", "*", 31)
            await live.at(32)
            assert await kafka.actions(here) == ["suspend"]

    client = fresh_topics(2)
    run(scenario())


def test_more_than_one_in_a_hundred_payments_within_5_minutes_stops_the_partition(fresh_topics: FreshTopics) -> None:
    """Fails without `too_many_unusable` in `Table._unusable_payment`; too soon, with a longer `_WINDOW`."""

    async def scenario() -> None:
        async with kafka_of(client, 1) as kafka, working(kafka, Clock()) as live:
            await _owing(kafka, live, "owes")
            for number in range(3):  # one in ten minutes each: never more than one of five minutes
                await live.at(20.2 + number / 6)
                await kafka.raw("payments", b"bad", b"{", partition=0)
                await live.settled()
            await live.at(20.7)
            for number in range(198):
                await kafka.pay(f"good{number}", 20.7)
            await live.settled()
            for _ in range(2):
                await kafka.raw("payments", b"bad", b"{", partition=0)
            await live.at(20.71)
            assert live.stops() == set()  # 2 of 200
            await kafka.raw("payments", b"bad", b"{", partition=0)
            await live.at(20.72)
            assert live.stops() == {"unusable_payments"}
            await live.at(30)
            assert await kafka.commands() == []
            await kafka.control("resume", "*", 30)
            await live.at(31)
            assert await kafka.actions("owes") == ["suspend"]

    client = fresh_topics(1)
    run(scenario())


def test_an_account_that_grows_too_large_is_put_on_hold_and_in_the_end_takes_no_more_and_the_others_go_on(
    fresh_topics: FreshTopics,
) -> None:
    """Fails without `stop_account` in `Table._take_changes`: it is suspended.

    Without `is_full` in `Table._admit`, and without `_cut` in `_apply_batch`, a record of the state is larger than the
    brokers take, and the partition stops.
    """

    async def scenario() -> None:
        async with kafka_of(client, 1) as kafka, working(kafka, Clock()) as live:
            await _owing(kafka, live, "large", "other")
            table = live.tables.tables[0]
            # Adjustments that wait for their bill are kept as they came: 60 KB each.
            ballast = "x" * 60_000
            for number in range(10):
                await kafka.bill("large", 20, bill_id=f"later{number}", kind="adjusted", ballast=ballast)
            await live.at(21)
            assert table.store.large["large"] > LARGE_BYTES
            assert live.metrics.partition(0).accounts_held_for_size == 1
            assert any("large" in line and "hold" in line for line in live.said)
            await live.at(30)
            assert await kafka.actions("large") == []
            assert await kafka.actions("other") == ["suspend"]
            # Far more than any record may have, while nothing of it can be decided on.
            for number in range(180):
                await kafka.bill("large", 29, bill_id=f"more{number}", kind="adjusted", ballast=ballast)
            await kafka.pay("other", 30)
            await kafka.pay("large", 30)
            await live.at(31)
            assert FULL_BYTES < len(table.store._heads["large"]) < MAX_RECORD_BYTES
            assert await kafka.actions("other") == ["suspend", "restore"]
            letters = await kafka.read("dead-letters")
            assert {letter["error"] for letter in letters} == {"invalid"}
            assert {letter["topic"] for letter in letters} == {"bills", "payments"}
            assert live.tables.tables[0] is table  # it was never lost

    client = fresh_topics(1)
    run(scenario())
