"""A million accounts with pending marks in a store. Run as a process of its own, which counts its memory."""

from __future__ import annotations

import gc
import json
import random
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from models.codec import decode_account, encode_account
from models.instants import HOUR
from models.monitor import Monitor
from models.records import Bill, Payment
from models.store import AccountStore
from tests.bench.inputs import START
from tests.bench.live import TERMS, LivePartition
from tests.bench.measuring import Sample, Stopwatch, cost, size, without_collector
from tests.bench.steps import BATCH, origin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.instants import Instant
    from models.records import Record
    from tests.bench.measuring import Bench

_ROOT: Final = Path(__file__).parents[2]

#: Their arrears begin within so long; then no mark falls for a while.
_SPREAD: Final = 12 * HOUR
#: `suspension_ahead` goes out so long after that: the first mark.
_FIRST_MARK: Final = 20 * HOUR
_DUE: Final = 10
_ROUNDS: Final = 50
#: Movements of an account: a bill, its payment, and so on.
_MOVEMENTS: Final = 20


def measure_stored(bench: Bench) -> Iterator[list[Sample]]:
    """What an account takes, and whether `decide` is bothered by those that are not due."""
    yield from _in_child(bench.sizes.stored, bench.repeat)


def measure_bare_stored(bench: Bench) -> Iterator[list[Sample]]:
    """The same with accounts of which nothing is known but one unpaid bill."""
    yield from _in_child(bench.sizes.stored, bench.repeat, "bare")


def measure_few_stored(bench: Bench) -> Iterator[list[Sample]]:
    """The same with far fewer accounts: the times should be the same."""
    yield from _in_child(bench.sizes.few, bench.repeat)


def measure_moved_stored(bench: Bench) -> Iterator[list[Sample]]:
    """What an account takes that has 20 movements."""
    yield from _in_child(bench.sizes.moved, bench.repeat, "moved")


def _in_child(accounts: int, repeat: int, how: str = "") -> list[list[Sample]]:
    command = [sys.executable, "-m", "tests.bench.stored", str(accounts), str(repeat), *([how] if how else [])]
    told = subprocess.run(command, cwd=_ROOT, stdout=subprocess.PIPE, check=True).stdout
    return msgspec.convert(json.loads(told), list[list[Sample]])


# In the child -----------------------------------------------------------------------------------------------------


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def _name(number: int) -> str:
    return f"acc-{number:07d}"


def _records(number: int, at: Instant) -> list[Record]:
    """An account's first bill, its payment, and a bill that is not paid."""
    account = _name(number)
    first, second = f"{number:09d}-1", f"{number:09d}-2"
    amount = 10_000 + number % 50_000 * 10_000
    return [
        Bill(f"b-{first}", account, f"bill-{first}", "issued", amount, "CNY", at - 48 * HOUR),
        Payment(f"p-{first}", account, f"pay-{first}", "topup", amount, "CNY", at - 47 * HOUR),
        Bill(f"b-{second}", account, f"bill-{second}", "issued", amount, "CNY", at),
    ]


def _fill(partition: LivePartition, accounts: int, *, bare: bool) -> Instant:
    """Put that many accounts in arrears; returns how far apart their marks are."""
    first_record = -1 if bare else 0
    apart = _SPREAD // accounts
    monitor = partition.monitor
    for first in range(0, accounts, BATCH):
        last = min(first + BATCH, accounts)
        monitor.clock = START + last * apart
        monitor.remember_from(monitor.clock)
        for number in range(first, last):
            for record in _records(number, START + number * apart)[first_record:]:
                monitor.apply(record, origin)
        partition.decide(START + last * apart)
        partition.commit()
    return apart


def run(accounts: int, repeat: int, *, bare: bool) -> Iterator[list[Sample]]:
    """Fill the store once, then measure again and again."""
    partition = LivePartition()
    gc.collect()
    before = _resident_bytes()
    apart = _fill(partition, accounts, bare=bare)
    partition.forget_times()
    gc.collect()
    taken = (_resident_bytes() - before) / accounts
    written = sum(map(len, partition.store._heads.values())) / accounts
    of = f"of {accounts:,} with one bill each" if bare else f"of {accounts:,}"
    now = START + _FIRST_MARK
    dice = random.Random(7)
    sizes = [size(f"memory of an account, {of}", taken, "bytes"), size(f"encoded account, {of}", written, "bytes")]
    if bare:
        yield sizes
        return
    for repetition in range(repeat):
        found = list(sizes)
        due = []
        for _ in range(_ROUNDS):
            now += _DUE * apart
            partition.forget_times()
            partition.decide(now - 1)
            partition.commit()
            due.append((partition.deciding.seconds, partition.committing.seconds))
        found.append(cost(f"decide, {_DUE} due {of}", 1, statistics.median(d for d, _ in due), "decision"))
        found.append(cost(f"commit of these {_DUE}, {of}", 1, statistics.median(c for _, c in due), "commit"))
        touched = []
        for turn in range(_ROUNDS):
            batch = [_top_up(dice.randrange(accounts), now - 2, f"{repetition}-{turn}-{n}") for n in range(_DUE)]
            partition.forget_times()
            partition.take(batch)
            touched.append(partition.deciding.seconds)
        found.append(cost(f"decide, {_DUE} touched {of}", 1, statistics.median(touched), "decision"))
        partition.forget_times()
        with without_collector():
            for turn in range(20):
                many = range(BATCH)
                partition.take([_top_up(dice.randrange(accounts), now - 2, f"{repetition}-{turn}+{n}") for n in many])
        found += live_samples(partition, f"commits of {BATCH:,} records, {of}")
        found += _codec(partition.store, of)
        found += _take_over(partition, of)
        yield found


def _moved(accounts: int) -> list[Sample]:
    """20 movements an account, each in a commit of its own."""
    partition = LivePartition()
    gc.collect()
    before = _resident_bytes()
    for turn in range(_MOVEMENTS):
        at = START + turn * HOUR
        for first in range(0, accounts, BATCH):
            partition.take([_movement(n, turn, at) for n in range(first, min(first + BATCH, accounts))])
    partition.forget_times()
    gc.collect()
    taken = (_resident_bytes() - before) / accounts
    of = f"of {accounts:,} with {_MOVEMENTS} movements each"
    store = partition.store
    rows = sum(len(row) for of_account in store._rows.values() for row in of_account.values())
    written = (sum(map(len, store._heads.values())) + rows) / accounts
    return [size(f"memory of an account, {of}", taken, "bytes"), size(f"encoded account, {of}", written, "bytes")]


def _movement(number: int, turn: int, at: Instant) -> Record:
    account, name = _name(number), f"{number:09d}-{turn}"
    if turn % 2:
        return Payment(f"p-{name}", account, f"pay-{name}", "topup", 10_000, "CNY", at)
    return Bill(f"b-{name}", account, f"bill-{name}", "issued", 10_000, "CNY", at)


def _top_up(number: int, at: Instant, name: str) -> Payment:
    return Payment(f"p-{name}", _name(number), f"pay-{name}", "topup", 10_000, "CNY", at)


def live_samples(partition: LivePartition, of: str) -> list[Sample]:
    """What a live partition has taken for its records."""
    count = partition.records
    return [
        cost(f"all of it, {of}", count, partition.seconds),
        cost("… opening accounts, applying", count, partition.applying.seconds),
        cost("… deciding", count, partition.deciding.seconds),
        cost("… encoding", count, partition.committing.seconds),
        size("… written", statistics.median(partition.bytes_written), "bytes a commit"),
    ]


def _codec(store: AccountStore, of: str) -> list[Sample]:
    step = max(1, len(store) // 10_000)
    heads = [(_name(number), store._heads[_name(number)]) for number in range(0, len(store), step)]
    decoding, encoding = Stopwatch(), Stopwatch()
    with without_collector():
        with decoding.running():
            accounts = [decode_account(account_id, head, {}) for account_id, head in heads]
        with encoding.running():
            for account in accounts:
                encode_account(account)
    return [
        cost(f"decode, {of}", len(heads), decoding.seconds, "account"),
        cost(f"encode, {of}", len(heads), encoding.seconds, "account"),
    ]


def _take_over(partition: LivePartition, of: str) -> list[Sample]:
    journal = [(account_id.encode(), head) for account_id, head in partition.store._heads.items()]
    everybody = partition.monitor.everybody
    store = AccountStore()
    watch = Stopwatch()
    with without_collector(), watch.running():
        for key, value in journal:
            store.recover(key, value)
        Monitor(everybody, TERMS, store)
    return [cost(f"recover and take over, {of}", len(journal), watch.seconds, "account")]


if __name__ == "__main__":
    if "moved" in sys.argv:
        found = [_moved(int(sys.argv[1]))]
    else:
        found = list(run(int(sys.argv[1]), int(sys.argv[2]), bare="bare" in sys.argv))
    print(json.dumps(found))  # noqa: T201
