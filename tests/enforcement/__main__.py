"""`python -m tests.enforcement BROKERS CLOUD.sqlite SUBSCRIBER [SECONDS]`: runs until it is killed.

SECONDS: how long the cloud takes for an act.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.enforcement.cloud import Cloud
from tests.enforcement.service import Service


async def main(servers: str, path: str, subscriber: str, takes_s: str = "0") -> None:
    """Serve, for ever."""
    await Service(servers, Cloud(Path(path), subscriber, float(takes_s))).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
