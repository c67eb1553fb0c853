"""Times as the tables write them: elapsed time from one fixed start, "360h - 1us", and as the contract's instants."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

#: 0h of every table.
START: Final = datetime(2026, 1, 1, tzinfo=UTC)

_UNITS: Final = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "us": 1}

_SUM: Final = r"-?\d+(?:us|[dhms])(?: [+-] \d+(?:us|[dhms]))*"
_INSTANT: Final = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z"
#: A time: a sum such as "360h - 1us", or an instant in UTC as it is published.
TIME: Final = rf"(?:{_SUM}|{_INSTANT})"


def elapsed(text: str) -> int:
    """A sum such as "360h - 1us" in µs. Raises ValueError."""
    if re.fullmatch(_SUM, text) is None:
        raise ValueError(f"{text!r} is no elapsed time: write one like 24h, 15d or 360h - 1us")
    total = 0
    for sign, amount, unit in re.findall(r"(?:(^-|[+-]) ?)?(\d+)(us|[dhms])", text):
        total += (-1 if sign == "-" else 1) * int(amount) * _UNITS[unit]
    return total


def position(text: str) -> int:
    """A time as µs from the start; before it, negative. Raises ValueError."""
    if re.fullmatch(_INSTANT, text):
        return (datetime.fromisoformat(text) - START) // timedelta(microseconds=1)
    return elapsed(text)


def written(position_us: int) -> str:
    """The instant so many µs from the start as the contract has it: UTC with Z, no fraction that is not needed."""
    text = (START + timedelta(microseconds=position_us)).replace(tzinfo=None).isoformat()
    return (text.rstrip("0") if "." in text else text) + "Z"


def instant(text: str) -> str:
    """A time as the contract's instant. One that is an instant already stays as it is, letter by letter."""
    return text if re.fullmatch(_INSTANT, text) else written(elapsed(text))


def duration(text: str) -> str:
    """An elapsed time as an ISO 8601 duration; what is none ("P1M", say) stays as it is."""
    if re.fullmatch(_SUM, text) is None:
        return text
    seconds, fraction = divmod(elapsed(text), 1_000_000)
    if not fraction and seconds % 3600 == 0:
        return f"PT{seconds // 3600}H"
    return f"PT{seconds}.{fraction:06}S" if fraction else f"PT{seconds}S"
