"""What a measure is told, and what it tells."""

from __future__ import annotations

import gc
import time
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from tests.bench.inputs import Files, write_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.bench.sizes import Sizes


class Sample(NamedTuple):
    """One figure of one repetition. `seconds`: what one record (account, …) took; None if no time was measured."""

    name: str
    value: float
    unit: str
    seconds: float | None = None
    #: Whether it is the time of one record, which json+dict needs its time for too.
    of_record: bool = False


def rate(name: str, count: int, seconds: float, of: str = "record") -> Sample:
    """So many in so many seconds."""
    return Sample(name, count / seconds, f"{of}s/s", seconds / count, of == "record")


def cost(name: str, count: int, seconds: float, of: str = "record") -> Sample:
    """What one of so many took."""
    return Sample(
        name, seconds / count * 1e6, f"µs a{'n' if of[0] in 'ae' else ''} {of}", seconds / count, of == "record"
    )


def size(name: str, value: float, unit: str) -> Sample:
    """A number of bytes (or of anything else that is not time)."""
    return Sample(name, value, unit)


class Bench:
    """One run: its sizes, and its inputs, which are made when they are first asked for."""

    def __init__(self, folder: Path, sizes: Sizes, repeat: int) -> None:
        self.folder = folder
        self.sizes = sizes
        self.repeat = repeat

    @cached_property
    def even(self) -> Files:
        """All accounts alike."""
        return write_files(self.folder / "even", self.sizes.records, self.sizes.accounts)

    @cached_property
    def skewed(self) -> Files:
        """1 % of the accounts have half of the records."""
        return write_files(self.folder / "skewed", self.sizes.records, self.sizes.accounts, skewed=True)


#: Yields the samples of each repetition.
Measure: TypeAlias = "Callable[[Bench], Iterator[list[Sample]]]"


class Stopwatch:
    """Adds up seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time what is done in this context."""
        started = time.process_time()
        yield
        self.seconds += time.process_time() - started


@contextmanager
def without_collector() -> Iterator[None]:
    """Nothing is collected meanwhile; what was there before is collected first."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
