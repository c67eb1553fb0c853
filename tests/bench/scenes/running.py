"""All scenes, in turn."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from streams.faults import Unusable
from streams.journal import Lost
from streams.watermarks import Unanswered
from tests.bench.peers.watching import Failed
from tests.bench.scenes import drain, hot, latency, recovery, replays, waiting
from tests.bench.telling import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from pathlib import Path
    from typing import Any

    from tests.bench.scenes.figures import Figure
    from tests.bench.sizes import Sizes

#: By the name that `--only` takes.
SCENES: Final[dict[str, Callable[[Path, Sizes], Coroutine[Any, Any, list[Figure]]]]] = {
    "latency": latency.measure,
    "waiting": waiting.measure,
    "drain": drain.measure,
    "hot": hot.measure,
    "replays": replays.measure,
    "recovery": recovery.measure,
}


def measure(names: Iterable[str], folder: Path, sizes: Sizes) -> tuple[list[Figure], list[str]]:
    """What they found; and which of them did not get to their end."""
    found: list[Figure] = []
    failed: list[str] = []
    for name in names:
        tell(f"measuring {name}")
        own = folder / name
        own.mkdir()
        try:
            found += asyncio.run(SCENES[name](own, sizes))
        except (Failed, Unusable, Unanswered, Lost, AssertionError) as error:  # the last: a worker that does not stop
            tell(f"{name} failed: {error}")
            failed.append(name)
    return found, failed
