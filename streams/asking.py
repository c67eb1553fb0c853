"""A question before what cannot be undone."""

from __future__ import annotations

import sys

from streams.faults import Declined, Unusable
from streams.showing import say


def ask(what: str, question: str) -> None:
    """Ask on the terminal. Raises `Declined` if the answer is no, `Unusable` if there is nobody to ask."""
    if sys.stdin is None or not sys.stdin.isatty() or sys.stderr is None:
        short = what.partition("\n")[0].rstrip(".:")
        raise Unusable(f"this is asked first, and there is no terminal to ask ({short}): give --yes if it is meant")
    say(what)
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Declined
