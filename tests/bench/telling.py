"""What is being done now, on standard error."""

from __future__ import annotations

import logging
import sys


def tell(what: str) -> None:
    """A line."""
    print(f"bench: {what}", file=sys.stderr, flush=True)  # noqa: T201


def say_nothing_of_retries() -> None:
    """A broker that has just started sends clients from one leader to the next: aiokafka asks again, and warns."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
