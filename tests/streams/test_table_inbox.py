"""The inbox of a table: what a fence holds back, and where a transaction has enough."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple, cast
from unittest import mock

import msgspec
import pytest

from models.everybody import Everybody
from models.instants import DAY, FIRST_INSTANT, MINUTE, parse_instant
from models.monitor import Live, Monitor, Terms
from models.policy import BUILT_IN
from models.state_version import WRITES
from streams import table as tables
from streams import turns
from streams.metrics import Metrics
from streams.payments_watch import PaymentsWatch
from streams.table import Fence, Kept, Table
from streams.topic_design import AppTopics
from streams.transport import RecordBatch

if TYPE_CHECKING:
    from streams.fetched import Record
    from streams.table import Context

NOW = parse_instant("2026-01-01T00:00:00Z")
TERMS = Terms("arrears", 45 * DAY, 3 * DAY, Live(max_ahead=10 * MINUTE))


class Sent(NamedTuple):
    offset: int
    key: bytes
    value: bytes
    timestamp: int = 0
    timestamp_type: int = 1


def bills(first: int, end: int, ballast: str = "") -> RecordBatch:
    fields = {
        "account_id": "a",
        "kind": "issued",
        "amount": "1",
        "currency": "CNY",
        "issued_at": "2026-01-01T00:00:00Z",
    }
    records = [
        Sent(n, b"a", msgspec.json.encode({**fields, "event_id": f"e{n}", "bill_id": f"b{n}", "ballast": ballast}))
        for n in range(first, end)
    ]
    return RecordBatch("bills", 0, first, end, cast("list[Record]", records))


@pytest.fixture
def table() -> Table:
    context = mock.MagicMock(
        app_id="arrears",
        client={},
        topics=AppTopics.of("arrears"),
        clock=lambda: NOW,
        record_clock=lambda: NOW,
        metrics=Metrics(),
        commit_records=10_000,
        state_version=WRITES,
        partition_of=lambda _: 0,
        turns=turns.Turns(),
    )
    context.broker_time.latest.return_value = None
    found = Table(cast("Context", context), 0)
    found.kept = Kept(1, PaymentsWatch(FIRST_INSTANT))
    found.monitor = Monitor(Everybody(BUILT_IN, TERMS.history), TERMS, found.store)
    found.next = dict.fromkeys(found._inbox, 0)
    return found


def test_of_a_batch_that_reaches_over_a_fence_the_rest_is_held_back_and_nobody_waits_for_it(table: Table) -> None:
    table._fence = Fence(NOW, {"bills": 4, "payments": 1}, is_blocked=False, hold_until=time.monotonic() + 60)
    began = time.monotonic()
    assert table.take(bills(0, 10))
    assert table._apply_some()
    assert table.next["bills"] == 4
    assert not table._apply_some()
    assert time.monotonic() - began < 30
    table._fence = None
    assert table._apply_some()
    assert table.next["bills"] == 10
    assert table.monitor.refused == 0
    assert table._pending == 10


def test_a_transaction_takes_so_many_bytes_and_the_others_the_rest(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_APPLY_BYTES", 3_000)
    assert table.take(bills(0, 5, ballast="x" * 1_000))
    assert table._apply_some()
    assert table.next["bills"] == 2
    assert table._is_full
    assert not table._apply_some()
    table._pending = table._pending_bytes = 0  # as a commit does
    assert table._apply_some()
    assert table.next["bills"] == 4


def test_a_record_that_is_larger_than_that_is_taken_alone(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_APPLY_BYTES", 100)
    assert table.take(bills(0, 2))
    assert table._apply_some()
    assert table.next["bills"] == 1
    assert table._is_full


def test_a_large_batch_is_applied_in_pieces_and_a_turn_ends_between_two(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_APPLY_AT_ONCE", 3)
    monkeypatch.setattr(turns, "_TURN_S", 0)

    async def drained() -> list[int]:
        reached = []
        while await table._drain():
            reached.append(table.next["bills"])
        return reached

    assert table.take(bills(0, 8))
    assert table.take(bills(8, 10))
    assert asyncio.run(drained()) == [3, 6, 9, 10]
    assert table._pending == 10
    assert not table.has_unapplied("bills")


def test_pieces_that_meet_a_fence_end_at_it(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_APPLY_AT_ONCE", 3)
    table._fence = Fence(NOW, {"bills": 5}, is_blocked=False, hold_until=time.monotonic() + 60)
    assert table.take(bills(0, 8))
    assert asyncio.run(table._drain())
    assert table.next["bills"] == 5
    assert not asyncio.run(table._drain())
    table._fence = None
    assert asyncio.run(table._drain())
    assert table.next["bills"] == 8
