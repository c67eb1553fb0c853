"""What is told when the optional extra is not installed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from streams.faults import Unusable

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTALL: Final = "pip install 'arrears-monitor[local-kafka]'"


@contextmanager
def needs_the_extra() -> Iterator[None]:
    """Around imports: raises `Unusable` if one of them is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise Unusable(f"a local Kafka needs the Python package {error.name}: {INSTALL}") from None
