"""The order of arrival, doubled records, splits, many decisions, restarts: none of them changes the outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from models import codec
from models.everybody import Everybody
from models.instants import HOUR
from models.monitor import Monitor, Terms
from models.outputs import Source
from models.policy import BUILT_IN
from models.records import Bill, Control, Payment, decode
from models.refusal import Refusal
from streams.replay import Replay, entry
from tests.models.histories import History, histories, lines
from tests.models.live import HISTORY, Partition
from tests.models.test_against_oracle import TOPICS, _policies, comparable, run_replay

if TYPE_CHECKING:
    from models.contract import Topic
    from models.records import Record

_settings = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)


def records_of(history: History, *, only: tuple[Topic, ...] = TOPICS) -> list[Record]:
    """The records of a history that can be decoded, in the order of their instants."""
    found = []
    for topic in only:
        for value in lines(history[0][topic]):
            try:
                found.append(decode(topic, value))
            except Refusal:
                continue
    return sorted(found, key=lambda record: (record.at, entry(record, 0).rank, record.event_id))


def _without_conflicts(records: list[Record]) -> list[Record]:
    """Conflicts are the one thing in which the first to arrive wins: of each id the first record is kept."""
    names: set[tuple[Any, ...]] = set()
    voided: dict[tuple[str, str], int] = {}
    kept: list[Record] = []
    for record in records:
        mine: list[tuple[Any, ...]] = [(type(record), record.account_id, record.event_id)]
        match record:
            case Bill(kind="adjusted"):
                if voided.get((record.account_id, record.bill_id), record.at) < record.at:
                    continue
            case Bill(kind="voided"):
                mine.append((record.account_id, "void", record.bill_id))
                voided[record.account_id, record.bill_id] = record.at
            case Bill():
                mine.append((record.account_id, "bill", record.bill_id))
            case Payment(kind="topup"):
                mine.append((record.account_id, "payment", record.payment_id))
            case _:
                pass
        if names.isdisjoint(mine):
            names.update(mine)
            kept.append(record)
    return kept


def _ledgers(monitor: Monitor, as_of: int) -> dict[str, tuple[Any, ...]]:
    found = {}
    for account_id in monitor.accounts:
        account = monitor.accounts[account_id]
        ledger = account.ledger
        ledger.settle(as_of, as_of - HISTORY)
        since = ledger.since if ledger.in_arrears else None
        found[account_id] = ledger.tip.balance, ledger.tip.limit, since, ledger.unpaid(100)
    return found


@_settings
@given(histories(most=20), st.randoms(use_true_random=False), st.lists(st.integers(0, 19), max_size=4))
def test_any_order_of_arrival_gives_the_same_ledger(history: History, random: Any, settled_after: list[int]) -> None:
    records = records_of(history, only=("bills", "payments", "controls"))
    records = [r for r in records if not isinstance(r, Control) or r.kind == "credit_limit"]
    records = _without_conflicts([r for r in records if getattr(r, "currency", None) != "USD"])
    if not records:
        return
    end = records[-1].at
    shuffled = list(records)
    random.shuffle(shuffled)
    outcomes = []
    for arrival in (records, shuffled, shuffled + records):
        monitor = Monitor(Everybody(BUILT_IN, HISTORY), Terms("arrears", HISTORY, HISTORY))
        for number, record in enumerate(arrival):
            assert record.account_id != "*"
            monitor.apply(record, lambda: Source("bills", 0, 0, None, None, None))
            if number in settled_after:  # a decision in between folds what is there
                for account_id in monitor.accounts:
                    monitor.accounts[account_id].ledger.settle(end, end - HISTORY)
        outcomes.append({k: v for k, v in _ledgers(monitor, end).items() if monitor.accounts[k].usable})
    assert outcomes[0] == outcomes[1] == outcomes[2]


@_settings
@given(histories(most=12))
def test_doubling_every_record_changes_nothing(history: History) -> None:
    topics, policies, until = history
    once = run_replay(history)
    twice = run_replay(({topic: records + records for topic, records in topics.items()}, policies, until))
    for name in ("commands", "notices", "accounts"):
        assert once[name] == twice[name]


@_settings
@given(histories(most=14, accounts=3))
def test_splitting_the_accounts_gives_the_same_commands(history: History) -> None:
    topics, policies, until = history
    if until is None:
        until = "2026-12-01T00:00:00Z"
    whole = comparable(run_replay((topics, policies, until)))
    parts: list[Any] = []
    for account in ("a1", "a2", "a3"):
        mine = {t: [r for r in rs if r["account_id"] in (account, "*")] for t, rs in topics.items()}
        # A list of policies counts on the whole partition, whoever's record brings it.
        mine["controls"] = [
            r | {"account_id": "*"} if r["kind"] == "policies" and r["account_id"] != account else r
            for r in topics["controls"]
            if r["account_id"] in (account, "*") or r["kind"] == "policies"
        ]
        parts += comparable(run_replay((mine, policies, until)))["commands"]
    if not any(r["kind"] == "policies" and r["account_id"] != "*" for r in topics["controls"]):
        key = lambda c: (c["account_id"], c["sequence"])  # noqa: E731
        assert sorted(whole["commands"], key=key) == sorted(parts, key=key)


@_settings
@given(histories(most=14), st.lists(st.integers(0, 2000), max_size=30))
def test_more_decisions_give_the_same_commands(history: History, hours: list[int]) -> None:
    policies = BUILT_IN if history[1] is None else _policies(history[1])
    entries = [entry(record, 0) for record in records_of(history)]
    if not entries:
        return
    source = Source("bills", 0, 0, None, None, None)
    until = entries[-1].at + 400 * HOUR
    plain = [s.published for s in Replay(policies, "arrears").run(entries, lambda _: source, until=until)]
    more = Replay(policies, "arrears")
    monitor, found = more.monitor, []
    extra = sorted({entries[0].at + hour * HOUR for hour in hours})
    next_due = monitor.next_due

    def next_due_or_extra() -> int | None:
        due = next_due()
        while extra and extra[0] < monitor.clock:
            extra.pop(0)
        if extra and (due is None or extra[0] <= due):
            return extra.pop(0)
        return due

    with mock.patch.object(monitor, "next_due", next_due_or_extra):
        found = [s.published for s in more.run(entries, lambda _: source, until=until)]
    assert [c for p in plain for c in p.commands] == [c for p in found for c in p.commands]
    assert [n for p in plain for n in p.notices] == [n for p in found for n in p.notices]


def _by_account(published: list[Any]) -> list[Any]:
    return sorted(published, key=lambda item: item.account_id)  # stable: an account's own order stays


@_settings
@pytest.mark.parametrize("inline", [2, 64])
@given(history=histories(most=25), random=st.randoms(use_true_random=False), late=st.booleans())
def test_a_restart_after_every_record_changes_nothing(inline: int, history: History, random: Any, late: bool) -> None:
    policies = BUILT_IN if history[1] is None else _policies(history[1])
    records = records_of(history)
    if not records:
        return
    clocks = [record.at for record in records]
    if late:  # records arrive in another order, each at the clock of its place
        random.shuffle(records)
    kept, restarted = Partition(policies), Partition(policies)
    with mock.patch.object(codec, "INLINE", inline), mock.patch.object(codec, "_ROW_LEAST", 1):
        for clock, record in zip(clocks, records, strict=True):
            decided = random.random() < 0.7
            for partition in (kept, restarted):
                partition.monitor.clock = clock
                partition.monitor.remember_from(min(clock, clocks[0] + 60 * 24 * HOUR))
                partition.apply(record)
                if decided:
                    partition.decide(clock)
            restarted.restart()
        for partition in (kept, restarted):
            partition.decide(clocks[-1] + 500 * HOUR)
        restarted.restart()
    assert _by_account(kept.commands) == _by_account(restarted.commands)
    assert _by_account(kept.notices) == _by_account(restarted.notices)
    assert sorted(kept.dead_letters, key=str) == sorted(restarted.dead_letters, key=str)
    as_of = clocks[-1] + 500 * HOUR
    assert list(kept.monitor.views(as_of)) == list(restarted.monitor.views(as_of))
