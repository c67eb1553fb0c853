"""One account that is far larger than others: its usage, its open bills."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Final

from models.codec import decode_account
from models.instants import DAY
from models.records import Bill, Usage
from tests.bench.inputs import START
from tests.bench.live import LivePartition
from tests.bench.measuring import Stopwatch, cost, rate, size, without_collector
from tests.bench.steps import BATCH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.instants import Instant
    from models.records import Record
    from tests.bench.measuring import Bench, Sample

_USAGE_A_DAY: Final = 10_000
_ACCOUNT: Final = "large"
#: Bills that come one by one once the others are there.
_MORE_BILLS: Final = 200


def measure_usage(bench: Bench) -> Iterator[list[Sample]]:
    """10,000 records of usage a day of one account, billed daily."""
    yield from _usage(bench, bench.sizes.usage, "billed daily", billed=True)


def measure_unbilled_usage(bench: Bench) -> Iterator[list[Sample]]:
    """The same, with never a bill: the exposure is kept by the instant of its usage."""
    yield from _usage(bench, bench.sizes.usage // 5, "never billed", billed=False)


def _usage(bench: Bench, count: int, how: str, *, billed: bool) -> Iterator[list[Sample]]:
    for _ in range(bench.repeat):
        partition = LivePartition()
        with without_collector():
            for first in range(0, count, BATCH):
                partition.take(_used(first, billed=billed))
        of = f"{count:,} of one account, {how}"
        yield [
            rate(f"usage live, {of}", partition.records, partition.seconds),
            cost("… applying", partition.records, partition.applying.seconds),
            cost("… deciding", partition.records, partition.deciding.seconds),
            cost("… encoding", partition.records, partition.committing.seconds),
            *written_samples(partition),
            *_opening(partition),
        ]


def written_samples(partition: LivePartition) -> list[Sample]:
    """What the commits wrote."""
    return [
        size("… written", statistics.median(partition.bytes_written), "bytes a commit"),
        size("… written at most", max(partition.bytes_written), "bytes a commit"),
        size("… rows", statistics.median(partition.rows_written), "a commit"),
    ]


def _opening(partition: LivePartition) -> list[Sample]:
    head, rows = partition.store._heads[_ACCOUNT], partition.store._rows.get(_ACCOUNT, {})
    watch = Stopwatch()
    with without_collector(), watch.running():
        decode_account(_ACCOUNT, head, rows)
    return [
        size("… head", len(head), "bytes"),
        size("… head and rows", len(head) + sum(map(len, rows.values())), "bytes"),
        cost("… decoded after a restart", 1, watch.seconds, "account"),
    ]


def _used(first: int, *, billed: bool) -> list[Record]:
    apart = DAY // _USAGE_A_DAY
    batch: list[Record] = []
    for number in range(first, first + BATCH):
        at = START + number * apart
        name = f"{number:09d}"
        cost = 1_234_567_890
        usage = Usage(f"u-{name}", _ACCOUNT, f"use-{name}", "compute", 10**12, "second", cost, "CNY", at - apart, at)
        batch.append(usage)
    if billed and first % _USAGE_A_DAY == 0:
        batch.append(_bill(first, batch[-1].at))
    return batch


def _bill(number: int, at: Instant) -> Bill:
    return Bill(f"b-{number:09d}", _ACCOUNT, f"bill-{number:09d}", "issued", 1_000_000, "CNY", at, at - DAY, at)


def measure_bills(bench: Bench) -> Iterator[list[Sample]]:
    """Many open bills of one account, and then one more in each commit."""
    count = bench.sizes.bills
    for _ in range(bench.repeat):
        partition = LivePartition()
        with without_collector():
            for first in range(0, count, BATCH):
                partition.take([_bill(number, START + number * 60_000_000) for number in range(first, first + BATCH)])
            partition.forget_times()
            for number in range(count, count + _MORE_BILLS):
                partition.take([_bill(number, START + number * 60_000_000)])
        yield [
            cost(f"one more of {count:,} open bills", partition.records, partition.seconds, "commit"),
            cost("… applying", partition.records, partition.applying.seconds, "commit"),
            cost("… deciding", partition.records, partition.deciding.seconds, "commit"),
            cost("… encoding", partition.records, partition.committing.seconds, "commit"),
            *written_samples(partition),
            *_opening(partition),
        ]
