"""Money, instants and durations as the contract's §1 writes them; each parser raises ValueError."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
FOUR_CENTURIES_DAYS = 146_097
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_DAY = EPOCH.toordinal()


def microseconds_of(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


FIRST_INSTANT = microseconds_of(datetime.min.replace(tzinfo=UTC))
LAST_INSTANT = microseconds_of(datetime.max.replace(tzinfo=UTC))

INSTANT = re.compile(
    r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})"
    r"T(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})(?:\.(?P<fraction>[0-9]{1,6}))?"
    r"(?:Z|(?P<sign>[+-])(?P<offset_hours>[0-9]{2}):(?P<offset_minutes>[0-9]{2}))"
)
NUMBER = r"[0-9]+(?:[.,][0-9]+)?"
DURATION = re.compile(
    rf"P(?:(?P<weeks>{NUMBER})W)?(?:(?P<days>{NUMBER})D)?"
    rf"(?P<time>T(?:(?P<hours>{NUMBER})H)?(?:(?P<minutes>{NUMBER})M)?(?:(?P<seconds>{NUMBER})S)?)?"
)
UNITS = {"weeks": 7 * DAY, "days": DAY, "hours": HOUR, "minutes": MINUTE, "seconds": SECOND}


def parse_amount(text: str, *, decimals: int = 6, signed: bool = False) -> Fraction:
    sign = "-?" if signed else ""
    if not re.fullmatch(rf"{sign}[0-9]{{1,15}}(\.[0-9]{{1,{decimals}}})?", text):
        raise ValueError(f"not an amount of up to 15 digits and up to {decimals} decimals")
    return Fraction(text)


def format_amount(value: Fraction) -> str:
    """The shortest form: "128.4", "0", "-3". `value` has at most 12 decimals."""
    scaled = value * 10**12
    if scaled.denominator != 1:
        raise ValueError(f"{value} has more than 12 decimals")
    whole, rest = divmod(abs(scaled.numerator), 10**12)
    text = f"{whole}.{rest:012d}".rstrip("0").rstrip(".")
    return f"-{text}" if scaled < 0 else text


def round_half_up(value: Fraction) -> Fraction:
    """A fee (>= 0) as it is reported: 6 decimals, half up."""
    return Fraction((value * 10**6 + Fraction(1, 2)) // 1, 10**6)


def parse_instant(text: str) -> int:
    match = INSTANT.fullmatch(text)
    if match is None:
        raise ValueError("not an instant")
    year, month, day = int(match["year"]), int(match["month"]), int(match["day"])
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"])
    offset_hours, offset_minutes = int(match["offset_hours"] or 0), int(match["offset_minutes"] or 0)
    if hour > 23 or minute > 59 or second > 59 or offset_hours > 23 or offset_minutes > 59:
        raise ValueError("no such time of day")
    # `date` knows no year 0; 400 years later the calendar is the same
    shifted, shift = (400, FOUR_CENTURIES_DAYS) if year == 0 else (year, 0)
    days = date(shifted, month, day).toordinal() - shift
    offset = (offset_hours * HOUR + offset_minutes * MINUTE) * (-1 if match["sign"] == "-" else 1)
    instant = (
        (days - EPOCH_DAY) * DAY
        + (hour * HOUR + minute * MINUTE + second * SECOND)
        + int((match["fraction"] or "").ljust(6, "0"))
        - offset
    )
    if not FIRST_INSTANT <= instant <= LAST_INSTANT:
        raise ValueError("not within the years 0001 to 9999 in UTC")
    return instant


def format_instant(instant: int) -> str:
    moment = EPOCH + timedelta(microseconds=instant)
    text = f"{moment.year:04d}-{moment.month:02d}-{moment.day:02d}"
    text += f"T{moment.hour:02d}:{moment.minute:02d}:{moment.second:02d}"
    if moment.microsecond:
        text += f".{moment.microsecond:06d}".rstrip("0")
    return text + "Z"


def parse_duration(text: str) -> int:
    """ISO 8601 without months and years; a fraction only in the last number; exact in microseconds."""
    match = DURATION.fullmatch(text)
    if match is None or match["time"] == "T" or len(text) > 100:
        raise ValueError("not a duration")
    given = [(name, match[name].replace(",", ".")) for name in UNITS if match[name] is not None]
    if not given or any("." in number for _, number in given[:-1]):
        raise ValueError("not a duration")
    if len(given) > 1 and given[0][0] == "weeks":
        raise ValueError("weeks stand alone in a duration")
    total = sum((Fraction(number) * UNITS[name] for name, number in given), Fraction(0))
    if total.denominator != 1:
        raise ValueError("finer than a microsecond")
    return total.numerator
