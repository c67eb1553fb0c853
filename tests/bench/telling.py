"""What is being done now, on standard error."""

from __future__ import annotations

import sys


def tell(what: str) -> None:
    """A line."""
    print(f"bench: {what}", file=sys.stderr, flush=True)  # noqa: T201
