"""An account's bytes: they come back as what they were, change no more than they must, and stay readable."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from models import codec, store
from models.account import Account
from models.codec import (
    INLINE,
    decode_account,
    decode_everybody,
    encode_account,
    encode_everybody,
    peek,
)
from models.instants import HOUR
from models.ledger import Fold, Ledger
from models.packages import UsageBook
from models.policy import BUILT_IN
from models.state_version import VERSION, NewerState
from models.store import AccountStore
from tests.models.golden_states import (
    STATES,
    bill,
    control,
    file_of,
    journal_of,
    outcome,
    recovered,
    shape,
    shape_of,
    states_kept,
    top_up,
    use,
)
from tests.models.histories import History, histories
from tests.models.live import HISTORY, START, Partition
from tests.models.test_against_oracle import _policies
from tests.models.test_order import records_of

if TYPE_CHECKING:
    from pathlib import Path

SEPARATOR = b"\xff"
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


# What an account is, to the last field --------------------------------------------------------------------------


def everything(account: Account) -> dict[str, Any]:
    """All that an account holds, ready to be compared, but for what is kept from one encoding to the next."""
    held = {name: getattr(account, name) for name in Account.__struct_fields__}
    held["ledger"] = ledger = {name: getattr(account.ledger, name) for name in Ledger.__struct_fields__}
    del ledger["changes"], ledger["known"], held["packed_usage"]
    if account.usage is not None:
        held["usage"] = usage = {name: getattr(account.usage, name) for name in UsageBook.__slots__}
        usage |= {"seen": account.usage.seen.parts, "costs": account.usage.costs.parts}
    return held


def settled(account: Account, now: int) -> Account:
    """The account as its next decision sees it: where a fold has to start anew is no part of the state."""
    account.ledger.settle(now, now - HISTORY)
    return account


def store_of(partition: Partition) -> AccountStore:
    store = partition.monitor.accounts
    assert isinstance(store, AccountStore)
    return store


def in_journal(partition: Partition, account_id: str) -> tuple[bytes, dict[bytes, bytes]]:
    """The head and the rows of an account."""
    key = account_id.encode()
    rows = {
        name.removeprefix(key + SEPARATOR): v
        for name, v in partition.journal.items()
        if name.startswith(key + SEPARATOR)
    }
    return partition.journal[key], rows


def changes_of(partition: Partition) -> dict[bytes, bytes | None]:
    """What the next commit writes, by key."""
    before = dict(partition.journal)
    changes = store_of(partition).take_changes()
    assert len({key for key, _ in changes}) == len(changes)  # no key twice in one transaction
    partition.journal |= {key: value for key, value in changes if value is not None}
    for key, value in changes:
        if value is None:
            assert key in before, f"{key!r} is taken away and was never there"
            del partition.journal[key]
    return dict(changes)


def round_trip(partition: Partition) -> None:
    """Every account of the partition, from its bytes, is what it is now."""
    accounts = {account_id: partition.monitor.accounts[account_id] for account_id in partition.monitor.accounts}
    partition.commit()
    now = partition.monitor.clock
    for account_id, account in accounts.items():
        head, rows = in_journal(partition, account_id)
        decoded = decode_account(account_id, head, rows)
        again, changed = encode_account(decoded)
        assert again == head  # the same state gives the same bytes
        assert changed == {}
        assert everything(settled(decoded, now)) == everything(settled(account, now))


@pytest.mark.parametrize("state", STATES)
def test_an_account_in_every_state_comes_back_as_it_was(state: str) -> None:
    partition = STATES[state]()
    assert partition.dead_letters == []
    round_trip(partition)


@settings(max_examples=60, suppress_health_check=list(HealthCheck), phases=PHASES)
@given(histories(most=25), st.integers(0, 25), st.integers(0, 25))
def test_an_account_of_any_history_comes_back_as_it_was(history: History, decided_at: int, committed_at: int) -> None:
    partition = Partition(BUILT_IN if history[1] is None else _policies(history[1]))
    for number, record in enumerate(records_of(history)):
        partition.monitor.clock = record.at
        partition.apply(record)
        if number == decided_at:
            partition.monitor.remember_from(record.at)
            partition.decide(record.at)
        if number == committed_at:
            partition.commit()
    round_trip(partition)


@settings(max_examples=60, suppress_health_check=list(HealthCheck), phases=PHASES)
@given(history=histories(most=25), random=st.randoms(use_true_random=False))
def test_rows_hold_what_the_account_holds_after_every_record(history: History, random: Any) -> None:
    """Whether it has been open all the time, and in whichever order its records came."""
    partition = Partition(BUILT_IN if history[1] is None else _policies(history[1]))
    records = records_of(history)
    clocks = [record.at for record in records]
    random.shuffle(records)
    with mock.patch.object(codec, "INLINE", 2), mock.patch.object(codec, "_ROW_LEAST", 1):
        for clock, record in zip(clocks, records, strict=True):
            partition.monitor.clock = clock
            partition.monitor.remember_from(min(clock, clocks[0] + 60 * 24 * HOUR))
            partition.apply(record)
            if random.random() < 0.7:
                partition.decide(clock)
            round_trip(partition)


@pytest.mark.parametrize("state", STATES)
def test_what_stands_for_everybody_comes_back_as_it_was(state: str) -> None:
    everybody = STATES[state]().monitor.everybody
    data = encode_everybody(everybody)
    again = decode_everybody(data)
    assert vars(again) == vars(everybody)
    assert encode_everybody(again) == data


@pytest.mark.parametrize("state", STATES)
def test_the_same_records_give_the_same_bytes_with_and_without_a_restart(state: str) -> None:
    kept, restarted = STATES[state](), STATES[state]()
    start = (kept.monitor.clock - START) / HOUR
    kept.commit()
    restarted.restart()
    for hour in (start + 1, start + 3, start + 300):
        for partition in (kept, restarted):
            partition.clock(hour)
            for account_id in sorted(partition.monitor.accounts):
                bill(partition, f"x{hour}", "0.02", hour, account_id)
                top_up(partition, f"x{hour}", "3", hour, account_id)
                use(partition, f"x{hour}", hour, account_id)
            partition.decide_after(hour)
        kept.commit()
        restarted.restart()
        assert kept.journal == restarted.journal


# Commits ----------------------------------------------------------------------------------------------------------


def test_a_commit_between_a_record_and_its_decision_loses_nothing() -> None:
    partition = STATES["new"]()
    bill(partition, 1, "5", 0)
    partition.commit()  # while a fence is not open yet
    for hours in (0, 1, 25, 26):
        partition.decide_after(hours)
        partition.commit()
    assert [notice.kind for notice in partition.notices] == ["arrears_started", "suspended"]
    assert partition.account().status == "suspended"


def test_a_commit_between_a_seal_and_its_decision_loses_nothing() -> None:
    partition = STATES["new"]()
    bill(partition, 1, "5", 0)
    partition.monitor.seal()
    partition.commit()
    partition.decide_after(0)
    partition.commit()
    partition.decide_after(25)
    partition.restart()
    assert partition.account().status == "suspended"


@settings(max_examples=60, suppress_health_check=list(HealthCheck), phases=PHASES)
@given(history=histories(most=20), random=st.randoms(use_true_random=False))
def test_commits_at_any_time_change_nothing(history: History, random: Any) -> None:
    policies = BUILT_IN if history[1] is None else _policies(history[1])
    once, often = Partition(policies), Partition(policies)
    for record in records_of(history):
        decides = random.random() < 0.5
        for partition in (once, often):
            partition.monitor.clock = record.at
            partition.monitor.remember_from(record.at)
            partition.apply(record)
            if partition is often and random.random() < 0.7:
                partition.commit()
            if decides:
                partition.decide(record.at)
                if partition is often and random.random() < 0.7:
                    partition.commit()
    end = once.monitor.clock
    for days in (0, 2, 20):
        for partition in (once, often):
            partition.decide(end + days * 24 * HOUR)
        often.commit()
    once.commit()
    assert once.commands == often.commands
    assert once.notices == often.notices
    views = [list(partition.monitor.views(end + 20 * 24 * HOUR)) for partition in (once, often)]
    assert views[0] == views[1]


# Rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [24, 1], ids=["in a day", "in an hour"])
def test_one_more_usage_of_ten_thousand_rewrites_a_row_of_ids_and_one_of_costs(hours: int) -> None:
    partition = STATES["new"]()
    for number in range(10_000):
        use(partition, number, -number / 10_000 * hours)
    partition.decide_after(0)
    first = changes_of(partition)
    assert sum(len(value or b"") for value in first.values()) > 200_000
    use(partition, "more", 0)
    partition.decide_after(0)
    written = {key: 0 if value is None else len(value) for key, value in changes_of(partition).items()}
    head = written.pop(b"a1")
    assert head < 1_000
    assert len(written) == 2
    assert sum(written.values()) < 16_000
    round_trip(partition)


def _with_open_bills(number: int) -> Partition:
    partition = STATES["new"]()
    for n in range(number):
        bill(partition, n, "1.5", -n / 100)
    partition.decide_after(0)
    changes_of(partition)
    return partition


@pytest.fixture(scope="module")
def journal_of_20_000_open_bills() -> dict[bytes, bytes]:
    partition = _with_open_bills(20_000)
    partition.commit()
    return partition.journal


@pytest.fixture
def owing(journal_of_20_000_open_bills: dict[bytes, bytes]) -> Partition:
    """A partition with an account of 20,000 open bills, as recovered."""
    partition = Partition()
    partition.journal = dict(journal_of_20_000_open_bills)
    partition.monitor = recovered(partition.journal)
    partition.clock(0)
    return partition


def test_20_000_open_bills_come_back_as_they_were(owing: Partition) -> None:
    assert owing.account().unpaid_bills_count == 20_000
    assert owing.account().balance == "-30000"
    round_trip(owing)


@pytest.mark.parametrize(
    ("record", "rows"),
    [
        pytest.param(lambda p: bill(p, "more", "1", 0), 2, id="a bill"),
        pytest.param(lambda p: top_up(p, "more", "0.5", 0), 1, id="a payment that covers none"),
        pytest.param(lambda p: top_up(p, "more", "3", 0), 3, id="a payment that covers two"),
        pytest.param(lambda p: bill(p, "more", "1", 0, bill_id="bill-77", kind="adjusted"), 2, id="an adjustment"),
        pytest.param(lambda p: bill(p, "more", "0", 0, bill_id="bill-0", kind="voided"), 2, id="a void"),
    ],
)
def test_one_more_record_of_20_000_open_bills_rewrites_a_few_rows(owing: Partition, record: Any, rows: int) -> None:
    assert record(owing)
    owing.decide_after(0.1)
    written = changes_of(owing)
    head = written.pop(b"a1")
    assert head is not None
    assert len(head) < 1_000
    assert 1 <= len(written) <= rows
    assert sum(len(value or b"") for value in written.values()) < 16_000
    round_trip(owing)


def test_a_decision_without_a_record_rewrites_the_head_only(owing: Partition) -> None:
    owing.decide_after(0.1)
    owing.decide_after(250)  # suspended, and told of it
    written = changes_of(owing)
    assert set(written) == {b"a1"}
    assert owing.commands != []


def test_no_row_grows_with_the_account() -> None:
    partition = _with_open_bills(INLINE)
    for size in (100, 200, 400, 800, 1600, 3200):
        for number in range(size // 2, size):
            bill(partition, f"grown-{number}", "1", 0)
        partition.decide_after(0)
        changes_of(partition)
        assert all(len(value) < 16_000 for key, value in partition.journal.items() if SEPARATOR in key)
    round_trip(partition)


def test_bills_that_are_paid_and_forgotten_leave_no_rows(owing: Partition) -> None:
    top_up(owing, "all", "30000", 0)
    owing.decide_after(0.1)
    owing.commit()
    assert owing.account().unpaid_bills_count == 0
    later = 46 * 24
    owing.clock(later)
    owing.monitor.remember_from(owing.monitor.clock)
    bill(owing, "much-later", "1", later)
    owing.decide_after(later)
    changes_of(owing)
    head, rows = in_journal(owing, "a1")
    assert rows == {}
    assert len(head) < 600
    round_trip(owing)


def test_rows_shrink_back_into_the_head_and_grow_again() -> None:
    partition = _with_open_bills(0)
    for number in range(2 * INLINE):
        bill(partition, number, "1", 0)
    partition.decide_after(0)
    partition.commit()
    assert in_journal(partition, "a1")[1] != {}
    for number in range(2 * INLINE):
        top_up(partition, number, "1", 0)
    later = 46 * 24
    partition.decide_after(0.1)
    for after, number in ((later, 0), (later + 1, 3 * INLINE), (later + 2, 0)):
        partition.clock(after)
        partition.monitor.remember_from(partition.monitor.clock)
        for n in range(number):
            bill(partition, f"{after}-{n}", "1", after)
        bill(partition, f"one-of-{after}", "1", after)
        partition.decide_after(after)
        changes_of(partition)
        assert (in_journal(partition, "a1")[1] != {}) == (after > later)
        round_trip(partition)
    assert partition.account().unpaid_bills_count == 3 * INLINE + 3


def test_records_of_several_topics_with_one_id_are_all_kept_in_rows() -> None:
    partition = _with_open_bills(2 * INLINE)
    for hour in (1, 2):
        same = {"event_id": f"same-{hour}"}
        partition.clock(hour)
        assert bill(partition, f"same-{hour}", "1", hour, **same)
        assert top_up(partition, f"same-{hour}", "1", hour, **same)
        assert control(partition, "credit_limit", hour, amount="7", **same)
        partition.decide_after(hour)
        changes_of(partition)
        round_trip(partition)
    assert len(partition.monitor.accounts["a1"].ledger.movements) == 2 * INLINE + 6


def test_an_id_that_comes_again_once_it_is_forgotten_stands_in_a_row_twice() -> None:
    """What is forgotten is folded away later, many at a time."""
    partition = _with_open_bills(2 * INLINE)
    assert top_up(partition, 1, "1", 0)
    partition.decide_after(0.1)
    changes_of(partition)
    later = 46 * 24
    partition.clock(later)
    partition.monitor.remember_from(partition.monitor.clock)
    assert top_up(partition, 1, "1", later, payment_id="other")
    changes_of(partition)
    assert sum(m.event_id == "p1" for m in partition.monitor.accounts["a1"].ledger.movements) == 2
    round_trip(partition)
    partition.decide_after(later)
    changes_of(partition)
    round_trip(partition)


def test_usage_that_is_billed_leaves_no_rows_of_cost() -> None:
    partition = STATES["much-usage"]()
    partition.commit()
    rows = in_journal(partition, "a1")[1]
    assert sum(row.startswith(b"c") for row in rows) > 1
    bill(partition, 1, "1", 0, period_end=0)
    partition.decide_after(0.1)
    changes_of(partition)
    head, rows = in_journal(partition, "a1")
    assert not any(row.startswith(b"c") for row in rows)
    assert len(head) < 1_500
    round_trip(partition)


def test_large_accounts_that_are_not_kept_open_write_the_same() -> None:
    kept, dropped = STATES["new"](), STATES["new"]()
    for number in range(6):
        for partition, most in ((kept, 1000), (dropped, 1)):
            partition.clock(number * 100)
            with mock.patch.object(store, "_KEPT_OPEN", most):
                for account_id in ("a1", "a2", "a3")[number % 2 :]:
                    for n in range(INLINE):
                        bill(partition, f"{number}-{n}", "2", number * 100, account_id)
                    top_up(partition, number, "130", number * 100, account_id)
                partition.decide_after(number * 100)
                partition.commit()
        assert kept.journal == dropped.journal
    assert dropped.dead_letters == []
    round_trip(dropped)


# Beyond 64 bits ---------------------------------------------------------------------------------------------------


def test_amounts_beyond_64_bits_come_back_exactly() -> None:
    partition = STATES["beyond-64-bits"]()
    before = {v.account_id: v for v in partition.monitor.views(partition.monitor.clock)}
    assert before["owes"].balance == "-29999999999999999.99997"
    assert before["has"].balance == "29999999999999999.99997"
    assert abs(partition.monitor.accounts["has-rows"].ledger.tip.balance) > 10**21
    partition.restart()
    assert {v.account_id: v for v in partition.monitor.views(partition.monitor.clock)} == before
    peeks = dict(store_of(partition).peeks())
    assert {name for name, seen in peeks.items() if seen.is_waiting} == {"has-rows"}
    assert {name for name, seen in peeks.items() if seen.is_active} >= {"owes", "owes-rows"}
    assert peeks["owes"].due == partition.monitor.accounts["owes"].due


@pytest.mark.parametrize("balance", [2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**40, -(10**40)])
def test_the_edges_of_64_bits(balance: int) -> None:
    account = Account("a1")
    account.ledger.base = Fold(integral=balance)
    account.ledger.tip.balance = account.ledger.tip.ended_integral = balance
    head, rows = encode_account(account)
    again = decode_account("a1", head, {})
    assert rows == {}
    assert everything(again) == everything(account)
    assert peek(head).due is None


# Versions ---------------------------------------------------------------------------------------------------------


def test_state_of_a_newer_version_is_an_error_of_its_own() -> None:
    partition = STATES["warned"]()
    partition.commit()
    head, rows = in_journal(partition, "a1")
    newer = bytes((VERSION + 1,)) + head[1:]
    for read in (lambda: decode_account("a1", newer, rows), lambda: peek(newer), lambda: decode_everybody(newer)):
        with pytest.raises(
            NewerState, match=f"version {VERSION + 1}.*up to version {VERSION}.*start a newer release"
        ) as told:
            read()
        assert told.value.version == VERSION + 1


def test_a_newer_version_is_told_before_anything_else_is_read() -> None:
    for data in (bytes((VERSION + 1,)), bytes((255,)) + b"not msgpack at all"):
        with pytest.raises(NewerState):
            peek(data)


@pytest.mark.parametrize("path", states_kept(), ids=lambda path: path.stem)
def test_states_that_earlier_releases_have_written_are_still_read(path: Path) -> None:
    file = json.loads(path.read_text(encoding="utf-8"))
    journal = journal_of(file)
    assert {value[0] for key, value in journal.items() if SEPARATOR not in key} == {file["version"]}
    found = outcome(recovered(journal))
    assert json.loads(json.dumps(found)) == {name: file[name] for name in found}


def test_every_state_of_this_version_is_kept() -> None:
    missing = [state for state in STATES if not file_of(state).exists()]
    assert missing == [], "python -m tests.models.golden_states writes what is not there yet"


def test_another_layout_has_another_version() -> None:
    kept = json.loads(shape_of().read_text(encoding="utf-8"))
    assert json.loads(json.dumps(shape())) == kept, (
        "the encoding is laid out otherwise than the states of this version that are kept: raise "
        "models.state_version.VERSION, go on reading the old one, and keep the new states "
        "(python -m tests.models.golden_states)"
    )
