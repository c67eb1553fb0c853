"""The command line `arrears`, with something broken in it: `python -m tests.chaos.faulty worker …`.

What is broken the environment says; the product knows nothing of it.

- `CHAOS_SELF_KILL`: how often the process ends or stops itself when everything of a transaction is delivered, and
  nothing committed; `CHAOS_CALM` names a file: once it is there, no more.
- `CHAOS_BREAK`: protections that are taken out, with commas between them (`BREAKS`): the checker has to find it.
"""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]

from streams import journal, partition_reader
from streams.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable

SELF_KILL: Final = "CHAOS_SELF_KILL"
CALM: Final = "CHAOS_CALM"
BREAK: Final = "CHAOS_BREAK"


def kill_itself_before_commits(odds: float, calm: Path) -> None:
    """Between "delivered" and "committed" is where a crash does most harm."""
    commit, is_calm = AIOKafkaProducer.commit_transaction, calm.exists

    async def commit_or_die(producer: Any) -> None:
        if random.random() < odds and not is_calm():
            os.kill(os.getpid(), random.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP)))
        await commit(producer)

    AIOKafkaProducer.commit_transaction = commit_or_die


def _recover_uncommitted() -> None:
    """A recovery takes what was aborted for committed."""
    partition_reader._READ_COMMITTED = 0  # type: ignore[misc]


def _fence_nobody() -> None:
    """Each process has transactional ids of its own: an owner that has lost its partition writes on."""
    start = journal.Journal.start

    async def start_alone(self: journal.Journal) -> None:
        self.transactional_id = f"{self.transactional_id}-{os.getpid()}"
        await start(self)

    journal.Journal.start = start_alone  # type: ignore[method-assign]


def _wait_for_no_fence() -> None:
    """A decision is made on what is applied, whatever else is in Kafka."""
    set_fence = Table._set_fence

    async def set_none(self: Table) -> None:
        await set_fence(self)
        if self._fence is not None:
            self._fence = self._fence._replace(ends=dict(self.next))

    Table._set_fence = set_none  # type: ignore[method-assign]


BREAKS: Final[dict[str, Callable[[], None]]] = {
    "recovery": _recover_uncommitted,
    "fencing": _fence_nobody,
    "fence": _wait_for_no_fence,
}


def main() -> None:
    """Break what is to be broken, and run the command line."""
    odds = float(os.environ.get(SELF_KILL) or 0)
    if odds:
        kill_itself_before_commits(odds, Path(os.environ[CALM]))
    for name in filter(None, os.environ.get(BREAK, "").split(",")):
        BREAKS[name]()
    from streams.cli import main as run  # noqa: PLC0415  # after what is broken

    run()


if __name__ == "__main__":
    main()
