"""Instants and durations, exact to the microsecond (§1): texts as whole µs and back.

An instant is µs since 1970-01-01T00:00:00Z. Hours are elapsed hours: no calendar arithmetic, no leap seconds.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Final, TypeAlias

from models.refusal import shown

#: Microseconds since 1970-01-01T00:00:00Z.
Instant: TypeAlias = int
#: Microseconds.
Duration: TypeAlias = int

SECOND: Final[Duration] = 1_000_000
MINUTE: Final[Duration] = 60 * SECOND
HOUR: Final[Duration] = 60 * MINUTE
DAY: Final[Duration] = 24 * HOUR

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()

#: 0001-01-01T00:00:00Z
FIRST_INSTANT: Final[Instant] = (date.min.toordinal() - _EPOCH_DAY) * DAY
#: 9999-12-31T23:59:59.999999Z
LAST_INSTANT: Final[Instant] = (date.max.toordinal() + 1 - _EPOCH_DAY) * DAY - 1

INSTANT_FORM: Final = (
    'must be an instant like "2018-03-16T08:00:00+08:00": at most 6 decimals, Z or an offset, years 0001 to 9999 in UTC'
)
DURATION_FORM: Final = (
    'must be a duration like "PT24H", "P15D" or "PT1M30.5S": ISO 8601 without months and years, not negative, '
    "exact to the microsecond"
)

# An instant is read in pieces that are looked up: "2018-03-16T08", and ":00:00Z" or ":00:00+08:00" (what is added to
# the hour), or with a fraction ":00:00", ".123" and "456Z". What is in the tables is an instant for certain; the rest
# is read letter by letter, then remembered.
_HOUR: Final = slice(0, 13)
_END: Final = slice(13, None)
_SECOND: Final = slice(13, 19)
_MILLI: Final = slice(19, 23)
_MICRO: Final = slice(23, None)

_HOURS: Final[dict[str, Instant]] = {}
_HOURS_KEPT: Final = 50_000  # those of five years and a half, 8 MB
_SECONDS: Final = {f":{second // 60:02}:{second % 60:02}": second * SECOND for second in range(3600)}
_ENDS: Final = {f"{text}Z": second for text, second in _SECONDS.items()}
_ENDS_KEPT: Final = 20_000  # 3,600 with Z and those of a few offsets, 3 MB
_MILLIS: Final = {f".{milli:03}": milli * 1000 for milli in range(1000)}
_MICROS: Final = {"Z": 0} | {
    f"{part:0{digits}}Z": part * unit for digits, unit in ((1, 100), (2, 10), (3, 1)) for part in range(1000 // unit)
}

# The same the other way round, by the number of the hour since the epoch, by that of the second in its hour, and by the
# microseconds of whole seconds in it.
_HOUR_TEXTS: Final[dict[int, str]] = {}
_SECOND_TEXTS: Final = tuple(_SECONDS)
_END_TEXTS: Final = {shift: f"{text}Z" for text, shift in _SECONDS.items()}

# Within a decision the same instants are written again and again.
_RECENT: Final[dict[Instant, str]] = {}
_RECENT_KEPT: Final = 500

_HOUR_TEXT: Final = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([01][0-9]|2[0-3])")
_END_TEXT: Final = re.compile(
    r":([0-5][0-9]):([0-5][0-9])(?:\.([0-9]{1,6}))?(?:Z|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)

# An offset may carry an instant of these years out of 0001-9999, or into it: they are not remembered.
_EDGE_YEARS: Final = (0, 1, 9999)
_GREGORIAN_YEARS: Final = 400
_GREGORIAN_DAYS: Final = 146_097


def parse_instant(text: str) -> Instant:
    """`YYYY-MM-DDThh:mm:ss[.1-6 digits](Z|±hh:mm)` as µs since the epoch. Raises ValueError with a message.

    Strict to the letter: upper case, ASCII digits, no 24:00, no leap second, within the years 0001-9999 in UTC.
    """
    hour, end = _HOURS.get(text[_HOUR]), _ENDS.get(text[_END])
    if hour is not None and end is not None:
        return hour + end
    try:
        return _HOURS[text[_HOUR]] + _SECONDS[text[_SECOND]] + _MILLIS[text[_MILLI]] + _MICROS[text[_MICRO]]
    except LookupError:
        hour, end = _parse_hour(text[_HOUR]), _parse_end(text[_END])
    if hour is None or end is None or not FIRST_INSTANT <= hour + end <= LAST_INSTANT:
        raise ValueError(f"{INSTANT_FORM}; got {shown(text)}")
    return hour + end


def format_instant(value: Instant) -> str:
    """UTC with Z, a fraction only if there is one, without trailing zeros. Raises OverflowError beyond the years."""
    recent = _RECENT.get(value)
    if recent is not None:
        return recent
    hour = value // HOUR
    rest = value - hour * HOUR
    text = _HOUR_TEXTS.get(hour) or _format_hour(hour)
    whole = _END_TEXTS.get(rest)
    if whole is None:
        second, fraction = divmod(rest, SECOND)
        text, whole = f"{text}{_SECOND_TEXTS[second]}.{fraction:06}".rstrip("0"), "Z"
    if len(_RECENT) >= _RECENT_KEPT:
        _RECENT.clear()
    text = _RECENT[value] = text + whole
    return text


def _format_hour(hour: int) -> str:
    """The hours since the epoch as "2018-03-16T08"."""
    text = (_EPOCH + timedelta(hours=hour)).isoformat()[: len("YYYY-MM-DDThh")]
    if len(_HOUR_TEXTS) >= _HOURS_KEPT:
        _HOUR_TEXTS.clear()
    _HOUR_TEXTS[hour] = text
    return text


def _parse_hour(text: str) -> Instant | None:
    """The start of the hour "YYYY-MM-DDThh"; None if it is none."""
    match = _HOUR_TEXT.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour = map(int, match.groups())
    # The last hours of the year 0000 lie, with a negative offset, in the year 0001 of UTC.
    cycles = 0 if year else 1
    try:
        ordinal = date(year + cycles * _GREGORIAN_YEARS, month, day).toordinal() - cycles * _GREGORIAN_DAYS
    except ValueError:
        return None
    instant = (ordinal - _EPOCH_DAY) * DAY + hour * HOUR
    if year not in _EDGE_YEARS:
        if len(_HOURS) >= _HOURS_KEPT:
            _HOURS.clear()
        _HOURS[text] = instant
    return instant


def _parse_end(text: str) -> Duration | None:
    """What ":mm:ss.123456+08:00" adds to the hour before it; None if it is no such end."""
    match = _END_TEXT.fullmatch(text)
    if match is None:
        return None
    minute, seconds, fraction, sign, hours, minutes = match.groups()
    shift = int(minute) * MINUTE + int(seconds) * SECOND
    if fraction:
        shift += int(fraction.ljust(6, "0"))
    if sign:
        offset = int(hours) * HOUR + int(minutes) * MINUTE
        shift += offset if sign == "-" else -offset
    if not fraction and len(_ENDS) < _ENDS_KEPT:
        _ENDS[text] = shift
    return shift


# Durations --------------------------------------------------------------------------------------------------------

_NUMBER: Final = r"([0-9]{1,15}(?:[.,][0-9]{1,15})?)"
_DURATION: Final = re.compile(
    rf"P(?:{_NUMBER}W|(?=[0-9T])(?:{_NUMBER}D)?(?:T(?=[0-9])(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?)"
)
_UNITS: Final = (7 * DAY, DAY, HOUR, MINUTE, SECOND)


def parse_duration(text: str) -> Duration:
    """µs of an ISO 8601 duration: `PnW`, or `PnDTnHnMnS` of which the smallest part may have a fraction.

    Raises ValueError with a message: months, years, signs and what is not a whole number of µs have no place here.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{DURATION_FORM}; got {shown(text)}")
    given = [(number, unit) for number, unit in zip(match.groups(), _UNITS, strict=True) if number is not None]
    total = 0
    for position, (number, unit) in enumerate(given, start=1):
        whole, _, fraction = number.replace(",", ".").partition(".")
        microseconds, inexact = divmod(int(whole + fraction) * unit, 10 ** len(fraction))
        if inexact or (fraction and position < len(given)):
            raise ValueError(f"{DURATION_FORM}; got {shown(text)}")
        total += microseconds
    return total


def format_duration(value: Duration) -> str:
    """The shortest form in hours, minutes and seconds, as the contract writes them: "PT360H", "PT1M30S", "PT0S"."""
    if value < 0:
        raise ValueError(f"a duration is not negative; got {value} µs")
    hours, rest = divmod(value, HOUR)
    minutes, microseconds = divmod(rest, MINUTE)
    seconds, fraction = divmod(microseconds, SECOND)
    parts = [f"{number}{letter}" for number, letter in ((hours, "H"), (minutes, "M")) if number]
    if fraction:
        parts.append(f"{seconds}.{fraction:06}".rstrip("0") + "S")
    elif seconds or not parts:
        parts.append(f"{seconds}S")
    return f"PT{''.join(parts)}"
