"""The steps of a record, each alone: decoded, applied, decided on."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from models.everybody import Everybody
from models.monitor import Monitor, Terms
from models.outputs import Source
from models.policy import BUILT_IN
from models.records import decode
from streams.replay import HISTORY
from tests.bench.measuring import Stopwatch, cost, without_collector

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from models.monitor import Accounts
    from models.records import Record, Topic
    from tests.bench.inputs import Files
    from tests.bench.measuring import Bench, Sample

#: Records that are applied until there is a decision, and a commit.
BATCH: Final = 1_000

_SOURCE: Final = Source("bills", 0, 0, None, None, None)


def origin() -> Source:
    """Where a record came from."""
    return _SOURCE


def records_of(files: Files) -> list[Record]:
    """The records of files, by instant."""
    topics: tuple[tuple[Topic, Path], ...] = (("bills", files.bills), ("payments", files.payments))
    found = [decode(topic, line) for topic, path in topics for line in path.read_bytes().splitlines()]
    return sorted(found, key=lambda record: record.at)


def batches(records: Sequence[Record]) -> Iterator[list[Record]]:
    """A thousand at a time."""
    rest = iter(records)
    while batch := list(islice(rest, BATCH)):
        yield batch


def measure_decode(bench: Bench) -> Iterator[list[Sample]]:
    """Bytes to records."""
    topics: tuple[tuple[Topic, list[bytes]], ...] = (
        ("bills", bench.even.bills.read_bytes().splitlines()),
        ("payments", bench.even.payments.read_bytes().splitlines()),
    )
    for _ in range(bench.repeat):
        samples = []
        for topic, lines in topics:
            read = partial(decode, topic)
            watch = Stopwatch()
            with without_collector(), watch.running():
                for line in lines:
                    read(line)
            samples.append(cost(f"decode, {topic}", len(lines), watch.seconds))
        yield samples


def measure_apply(bench: Bench) -> Iterator[list[Sample]]:
    """Records to ledgers, and a decision after each thousand records; all accounts decoded, as in a replay."""
    records = records_of(bench.even)
    for _ in range(bench.repeat):
        applying, deciding = Stopwatch(), Stopwatch()
        monitor = new_monitor(None)
        with without_collector():
            for batch in batches(records):
                apply_batch(monitor, batch, applying)
                with deciding.running():
                    monitor.decide(batch[-1].at, past=False)
        yield [
            cost("apply", len(records), applying.seconds),
            cost("decide, each 1,000 records", len(records), deciding.seconds),
        ]


def new_monitor(accounts: Accounts | None, terms: Terms | None = None) -> Monitor:
    """A monitor without a record."""
    return Monitor(Everybody(BUILT_IN, HISTORY), terms or Terms("arrears", HISTORY, HISTORY), accounts)


def apply_batch(monitor: Monitor, batch: Sequence[Record], watch: Stopwatch) -> None:
    """Apply them, at the clock of the last."""
    monitor.clock = batch[-1].at
    monitor.remember_from(batch[-1].at)
    with watch.running():
        for record in batch:
            monitor.apply(record, origin)
