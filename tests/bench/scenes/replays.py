"""`arrears replay`, from files and from topics, as a command that somebody types: its start, and all cores."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Final

from tests.bench.inputs import write_files
from tests.bench.peers import topics
from tests.bench.peers.watching import Failed
from tests.bench.scenes.figures import Figure
from tests.bench.scenes.stage import stage

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.sizes import Sizes

_RECORDS_AN_ACCOUNT: Final = 10
_PARTITIONS: Final = 4


async def measure(folder: Path, sizes: Sizes) -> list[Figure]:
    """As many records, each way."""
    count, accounts = sizes.replayed, max(1, sizes.replayed // _RECORDS_AN_ACCOUNT)
    files = write_files(folder / "files", count, accounts)
    from_files = await _seconds("--bills", str(files.bills), "--payments", str(files.payments), into=folder)
    async with stage(folder, _PARTITIONS) as here:
        await topics.load(here.kafka, count, accounts)
        servers = here.kafka["bootstrap_servers"]
        from_topics = await _seconds("--brokers", servers, into=folder)
    return [
        Figure("replay-files", f"replay of {count:,} records from files", count / from_files, "records/s"),
        Figure("replay-topics", "… from topics", count / from_topics, "records/s"),
    ]


async def _seconds(*inputs: str, into: Path) -> float:
    command = (sys.executable, "-m", "streams.cli", "replay", "--quiet", *inputs)
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(*command, "--commands", str(into / "commands.jsonl"))
    if code := await process.wait():
        raise Failed(f"arrears replay ended with {code}")
    return time.monotonic() - began
