"""A record that cannot be used, and how it is told why (§2, `arrears.dead-letters`)."""

from __future__ import annotations

import json
import math
from typing import Final, Literal

ErrorCode = Literal[
    "not_json",
    "invalid",
    "key_mismatch",
    "wrong_partition",
    "currency_mismatch",
    "conflict",
    "unknown_bill",
    "too_late",
    "too_early",
]

#: Of a value that is refused, a message shows at most so many characters.
SHOWN_CHARS: Final = 80


class Refusal(Exception):
    """A record is refused: `error` is the dead letter's code, `field` the field at fault, `message` one line on why."""

    def __init__(self, error: ErrorCode, field: str | None, message: str) -> None:
        super().__init__(error, field, message)
        self.error: ErrorCode = error
        self.field = field
        self.message = message

    def __str__(self) -> str:
        """Return the message alone."""
        return self.message


def shown(value: object) -> str:
    """`value` as a message shows it: as JSON, on one line, cut to about 80 characters, writable as UTF-8."""
    match value:
        case str():
            text = json.dumps(value[:SHOWN_CHARS], ensure_ascii=False)
            return printable(text if len(value) <= SHOWN_CHARS else f"{text}…")
        case float() if not math.isfinite(value):
            return "a number too large"
        case bool() | int() | float() | None:
            return _cut(json.dumps(value))
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
        case _:
            return f"a {type(value).__name__}"


def printable(text: str) -> str:
    """`text` on one line and writable as UTF-8: controls, line ends and lone surrogates are escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def name_shown(name: str) -> str:
    """The name of a field that a stranger chose, fit for a message."""
    return printable(_cut(name))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"
