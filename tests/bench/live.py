"""The live way, without Kafka: batches of records applied, decided on and committed, on accounts kept as bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.instants import DAY, MINUTE
from models.monitor import Live, Terms
from models.store import AccountStore
from streams.replay import HISTORY
from tests.bench.measuring import Stopwatch
from tests.bench.steps import apply_batch, new_monitor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.instants import Instant
    from models.monitor import Monitor
    from models.records import Record

TERMS = Terms("arrears", HISTORY, 3 * DAY, Live(max_ahead=10 * MINUTE))


class LivePartition:
    """One partition: a monitor over a store, and how long it has taken for what."""

    def __init__(self) -> None:
        self.store = AccountStore()
        self.monitor: Monitor = new_monitor(self.store, TERMS)
        self.forget_times()

    def forget_times(self) -> None:
        """Begin to measure."""
        self.applying, self.deciding, self.committing = Stopwatch(), Stopwatch(), Stopwatch()
        #: Bytes and records of the journal, a commit.
        self.bytes_written: list[int] = []
        self.rows_written: list[int] = []
        self.records = 0

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.applying.seconds + self.deciding.seconds + self.committing.seconds

    def take(self, batch: Sequence[Record]) -> None:
        """Records in, a commit out."""
        apply_batch(self.monitor, batch, self.applying)
        self.decide(batch[-1].at)
        self.commit()
        self.records += len(batch)

    def decide(self, at: Instant) -> None:
        """A decision at an instant, and just behind it."""
        monitor = self.monitor
        monitor.clock = at
        monitor.remember_from(at)
        with self.deciding.running():
            monitor.seal()
            monitor.decide(at, past=False)
            monitor.decide(at, past=True)

    def commit(self) -> list[tuple[bytes, bytes | None]]:
        """What goes to the journal."""
        with self.committing.running():
            changes = self.store.take_changes()
        self.bytes_written.append(sum(len(key) + len(value or b"") for key, value in changes))
        self.rows_written.append(len(changes))
        return changes
