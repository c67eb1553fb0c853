"""What ends a command before its end; `streams.cli` tells it in one line."""

from __future__ import annotations


class Unusable(Exception):
    """Something that the user gave cannot be used; `str()` is one line that says what to do."""


class NobodyReads(Exception):
    """The readers of all outputs have gone: there is nothing left to do."""


class Declined(Exception):
    """Asked whether it is meant, the user said no: nothing was done."""
