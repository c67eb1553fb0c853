"""Late evidence, long catch-ups, acks, policies: what the rest of §3 asks of a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from models.policy import parse_policies, to_json
from models.records import TOPICS
from streams.faults import Unusable
from tests.live.kafka import producing, run, until, unused
from tests.live.worker import Clock, at, kafka_of, working

if TYPE_CHECKING:
    from typing import Any

    from tests.live.conftest import FreshTopics
    from tests.live.worker import Kafka, Live

pytestmark = pytest.mark.live

YEAR = 365 * 24


async def _deleted(live: Live, account: str) -> None:
    """Billed at hour 0 and deleted at 361.1, with everything told."""
    await live.kafka.bill(account, 0)
    for hours in (0, 20.1, 24.1, 192.1, 288.1, 336.1, 361.1):
        await live.at(hours)
    assert await live.kafka.actions(account) == ["suspend", "delete"]


# -- payments that are read late -------------------------------------------------------------------------------------


def test_a_year_of_bills_read_long_before_its_payments_stops_nobody_and_makes_nothing_too_late(
    fresh_topics: FreshTopics,
) -> None:
    """The payments are held back until all else is read.

    Fails with `now` for the watermark of a topic that is not read to its end, in `Table._set_fence` (payments are too
    late); with `return True` in `Table._opens` (who has paid is told of arrears).
    """

    async def scenario() -> None:
        async with kafka_of(client, 1) as kafka:
            pays, owes, held_back = "pays", "owes", 90 * 24
            async with producing(kafka.servers, unused("upstream")) as upstream:
                for hours in range(0, YEAR, 30 * 24):
                    await kafka.bill(pays, hours)
                    if hours == held_back:  # behind this nobody can read the payments until it ends
                        await upstream.begin_transaction()
                        await kafka.pay("somebody", hours, by=upstream)
                    await kafka.pay(pays, hours + 10)
                await kafka.bill(owes, YEAR - 30)
                async with working(kafka, Clock(YEAR)) as live:
                    table, ends = live.tables.tables[0], await kafka.ends()
                    await until(lambda: all(table.next[topic] >= ends[topic, 0] for topic in TOPICS))
                    await until(lambda: live.metrics.partition(0).fence_blocked)
                    assert (table.next["bills"], table.next["payments"]) == (14, 3)
                    assert await kafka.read("commands") == []
                    assert await kafka.read("notices") == []
                    await upstream.commit_transaction()
                    await _caught_up(kafka, live, pays, owes)

    client = fresh_topics(1)
    run(scenario())


async def _caught_up(kafka: Kafka, live: Live, pays: str, owes: str) -> None:
    await live.settled()
    assert await kafka.read("dead-letters") == []
    assert await kafka.actions(pays) == []
    assert [n["account_id"] for n in await kafka.notices()] == [owes]
    await live.at(YEAR + 5)
    assert await kafka.commands() == [(owes, "suspend", "unpaid_past_suspend_mark")]


# -- late evidence ---------------------------------------------------------------------------------------------------


def test_a_payment_in_time_that_arrives_after_the_suspend_restores_and_supersedes_it(fresh_topics: FreshTopics) -> None:
    """Fails without `in_time` in `Decision._end_episode`."""

    async def scenario() -> None:
        async with kafka_of(client, 1) as kafka, working(kafka, Clock()) as live:
            await kafka.bill("a", 0)
            for hours in (0, 20.1, 24.1):
                await live.at(hours)
            await live.at(30)
            await kafka.pay("a", 24)
            await live.settled()
            suspend, restore = await kafka.read("commands")
            assert (restore["reason"], restore["supersedes"]) == ("late_evidence", suspend["command_id"])
            assert (restore["effective_at"], restore["decided_at"]) == (at(24), at(30))
            assert restore["evidence"] == {topic: int(topic in {"bills", "payments"}) for topic in TOPICS}

    client = fresh_topics(1)
    run(scenario())


def test_evidence_against_a_delete_is_told_and_stops_deletes_on_the_partition_until_a_resume_over_a_restart(
    fresh_topics: FreshTopics,
) -> None:
    """Fails without `everybody.stop("delete_contradicted", …)` in `Decision._recheck_delete`."""

    async def scenario() -> None:
        async with kafka_of(client, 1) as kafka:
            async with working(kafka, Clock()) as live:
                await _deleted(live, "wrongly")
                await kafka.bill("owes", 361)
                await live.at(361.2)
                await kafka.pay("wrongly", 300)
                await live.at(362)
                assert [n["account_id"] for n in await kafka.notices("delete_contradicted")] == ["wrongly"]
                assert await kafka.notices("payment_after_delete") == []
                assert await kafka.actions("wrongly") == ["suspend", "delete"]
                assert live.stops() == {"delete_contradicted"}
            async with working(kafka, Clock(362)) as live:
                for hours in (385.1, 553.1, 649.1, 697.1, 722.1):
                    await live.at(hours)
                assert await kafka.actions("owes") == ["suspend"]
                await kafka.control("resume", "*", 722.1)
                await live.at(722.2)
                assert await kafka.actions("owes") == ["suspend", "delete"]
                await kafka.pay("wrongly", 722.2)
                await live.at(722.3)
                assert len(await kafka.notices("payment_after_delete")) == 1
                assert await kafka.actions("wrongly") == ["suspend", "delete"]

    client = fresh_topics(1)
    run(scenario())


# -- acks ------------------------------------------------------------------------------------------------------------


async def _ack(kafka: Kafka, account: str, hours: float, **more: Any) -> None:
    fields = {"account_id": account, "subscriber": "compute", "status": "applied", "at": hours}
    await kafka.send("acks", account, **(fields | more))


def test_a_command_that_a_subscriber_has_not_applied_in_15_minutes_or_failed_to_is_told(
    fresh_topics: FreshTopics,
) -> None:
    """Fails without `subscribers` in `Worker._context`; without `_tell_unconfirmed` in `Decision.decide`."""

    async def scenario() -> None:
        settings: dict[str, Any] = {"subscribers": "compute,network"}
        async with kafka_of(client, 1) as kafka:
            async with working(kafka, Clock(), **settings) as live:
                for account in ("late", "failed", "applied"):
                    await kafka.bill(account, 0)
                for hours in (0, 20.1, 24.1):
                    await live.at(hours)
                by_account = {c["account_id"]: c["command_id"] for c in await kafka.read("commands")}
                await _ack(kafka, "late", 24.1, command_id=by_account["late"])
                for subscriber in ("compute", "network"):
                    await _ack(kafka, "applied", 24.1, command_id=by_account["applied"], subscriber=subscriber)
                await _ack(kafka, "failed", 24.1, command_id=by_account["failed"])
                more = {"subscriber": "network", "status": "failed"}
                await _ack(kafka, "failed", 24.1, command_id=by_account["failed"], **more)
                await live.at(24.2)
                told = [(n["account_id"], n["subscriber"]) for n in await kafka.notices("command_unconfirmed")]
                assert told == [("failed", "network")]
            async with working(kafka, Clock(24.34), **settings) as live:
                await live.settled()
                assert len(await kafka.notices("command_unconfirmed")) == 1
                await live.at(24.36)  # past the quarter of an hour
                told = [(n["account_id"], n["subscriber"]) for n in await kafka.notices("command_unconfirmed")]
                assert told == [("failed", "network"), ("late", "network")]

    client = fresh_topics(1)
    run(scenario())


def test_where_notices_have_to_be_acknowledged_a_delete_waits_from_the_ack(fresh_topics: FreshTopics) -> None:
    """Fails without `notice_acks` in `Worker._context`."""

    async def scenario() -> None:
        async with kafka_of(client, 1) as kafka, working(kafka, Clock(), notice_acks="required") as live:
            await kafka.bill("a", 0)
            for hours in (0, 20.1, 24.1, 192.1, 288.1, 336.1, 361.1, 400):
                await live.at(hours)
            assert await kafka.actions("a") == ["suspend"]
            first = (await kafka.notices("deletion_ahead"))[0]
            await _ack(kafka, "a", 400, notice_id=first["notice_id"], subscriber="mail")
            await live.at(425)
            assert await kafka.actions("a") == ["suspend"]
            await live.past(425)
            _, delete = await kafka.read("commands")
            assert (delete["notice_id"], delete["effective_at"]) == (first["notice_id"], at(424))

    client = fresh_topics(1)
    run(scenario())


# -- policies --------------------------------------------------------------------------------------------------------


def _policies(version: str, suspend_after: str) -> Any:
    fields = {"name": "maxcompute", "version": version, "effective_from": "2020-01-01T00:00:00Z"}
    return parse_policies([fields | {"suspend_after": suspend_after}])


def test_policies_of_a_start_hold_until_some_come_by_the_controls_and_a_versions_content_never_changes(
    fresh_topics: FreshTopics,
) -> None:
    """Fails without `start_with` in `Table.start`; without its `ValueError`."""

    async def scenario() -> None:
        async with kafka_of(client, 1) as kafka:
            async with working(kafka, Clock(), policies=_policies("1", "PT48H")) as live:
                await kafka.bill("first", 0)
                for hours in (0, 30):
                    await live.at(hours)
                assert await kafka.commands() == []
            async with working(kafka, Clock(30), policies=_policies("2", "PT36H")) as live:
                await kafka.bill("second", 30)
                await live.at(30)
                views = {view["account_id"]: view for view in await kafka.read("accounts")}
                assert (views["first"]["policy"], views["second"]["policy"]) == ("maxcompute@1", "maxcompute@2")
                await live.at(40)
                await kafka.control("policies", "*", 40, policies=to_json(_policies("3", "PT20H")))
                await live.settled()
                await kafka.bill("third", 40)
                await live.at(40.1)
            async with working(kafka, Clock(40.1), policies=_policies("4", "PT99H")) as live:
                await kafka.bill("fourth", 40.1)
                await live.at(40.1)
                views = {view["account_id"]: view for view in await kafka.read("accounts")}
                assert (views["third"]["policy"], views["fourth"]["policy"]) == ("maxcompute@3", "maxcompute@3")
                for later in (44.2, 48.1, 56.2, 60.3, 62.2, 66.1):
                    await live.at(later)
                found = [(c["account_id"], c["effective_at"], c["policy"]) for c in await kafka.read("commands")]
                assert found == [
                    ("first", at(48), "maxcompute@1"),
                    ("third", at(60), "maxcompute@3"),
                    ("fourth", at(60.1), "maxcompute@3"),
                    ("second", at(66), "maxcompute@2"),
                ]
            async with working(kafka, Clock(70), policies=_policies("3", "PT21H"), wait=False) as live:
                await until(live.app._crashed.is_set)
                assert isinstance(live.app.crash_reason, Unusable)
                assert "maxcompute@3" in str(live.app.crash_reason)

    client = fresh_topics(1)
    run(scenario())


def test_what_is_too_early_or_too_late_for_the_clock_is_a_dead_letter(fresh_topics: FreshTopics) -> None:
    """Fails without `_check_time` in `Monitor.apply`; after the restart, without `remember_from` in `Table.start`."""

    async def scenario() -> None:
        async with kafka_of(client, 1) as kafka:
            async with working(kafka, Clock(2000)) as live:
                await live.settled()
                await kafka.bill("a", 1999 - 45 * 24)  # of a topic that was empty: read to its end, as of the start
                await kafka.bill("a", 2000.2)
                await kafka.bill("a", 2000.1)
                await kafka.bill("a", 2000 - 45 * 24)
                await live.settled()
                await kafka.bill("a", 1999 - 45 * 24)
                await live.at(2000.1)
            async with working(kafka, Clock(2000.1)) as live:
                await kafka.bill("a", 1998 - 45 * 24)
                await live.settled()
                letters = [(letter["error"], letter["offset"]) for letter in await kafka.read("dead-letters")]
                assert letters == [("too_late", 0), ("too_early", 1), ("too_late", 4), ("too_late", 5)]

    client = fresh_topics(1)
    run(scenario())
