"""How the values of settings are written: in the environment and on the command line as text, in the file as TOML.

Each type reads what a person writes, and is written as it is read. What cannot be read is a `ValueError` that says what
is wanted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias, assert_never, get_args

from pydantic import BeforeValidator, SecretStr

from models.instants import Duration, Instant, format_duration, format_instant, parse_duration, parse_instant
from models.refusal import shown
from models.state_version import check_written
from streams.partitioner import PartitionerName
from streams.topic_design import check_app_id

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Shown:
    """How a value of the type that it annotates is written; the parser beside it reads that."""

    by: Callable[[Any], str] = str
    #: What stands for None.
    none: str = ""
    #: What is to be written, in a word, as a help text has it.
    form: str = "TEXT"


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text in quotes, not {_kind(value)}")  # noqa: TRY004  # pydantic wants a ValueError
    return value.strip()


def _duration(value: object) -> Duration:
    return parse_duration(_text(value))


def _number(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**15:
        return value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,15}", value.strip()):
        return int(value)
    raise ValueError(f"must be a whole number; got {_got(value)}")


def _or_off(parse: Callable[[object], int]) -> Callable[[object], int | None]:
    """Off is an explicit word: neither 0 nor nothing turns a guard off."""

    def parse_or_off(value: object) -> int | None:
        if isinstance(value, str) and value.strip().lower() == "off":
            return None
        try:
            return parse(value)
        except ValueError as error:
            raise ValueError(str(error).replace("must be", 'must be "off" or', 1)) from None

    return parse_or_off


def _flag(value: object) -> bool:
    match value.strip().lower() if isinstance(value, str) else value:
        case True | "on" | "true" | "yes" | "1":
            return True
        case False | "off" | "false" | "no" | "0":
            return False
        case _:
            raise ValueError(f"must be on or off; got {_got(value)}")


def _one_of(*words: str) -> Callable[[object], str]:
    """One of these words, whatever its capitals."""

    def parse(value: object) -> str:
        by_lower = {word.lower(): word for word in words}
        found = by_lower.get(value.strip().lower()) if isinstance(value, str) else None
        if found is None:
            raise ValueError(f"must be {' or '.join(words)}; got {_got(value)}")
        return found

    return parse


def _list(value: object) -> list[str]:
    """Texts with commas between them, or a list of the file."""
    items = value if isinstance(value, list | tuple) else _text(value).split(",")
    return [item for item in map(_text, items) if item]


_NAME: Final = re.compile(r"[^\s,\x00-\x1f\x7f]{1,256}")


def _names(value: object) -> tuple[str, ...]:
    names = _list(value)
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"must be names with commas between them; got {shown(name)}")
    if len(set(names)) < len(names):
        raise ValueError(f"has a name twice: leave one out; got {shown(','.join(names))}")
    return tuple(names)


_BROKER: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_MOST_PORT: Final = 65_535


def _brokers(value: object) -> tuple[str, ...]:
    brokers = _list(value)
    for broker in brokers:
        match = _BROKER.fullmatch(broker)
        if match is None or not 1 <= int(match[2] or 1) <= _MOST_PORT:
            raise ValueError(f"must be host:port, several with commas between them; got {shown(broker)}")
    if not brokers:
        raise ValueError("must be host:port, several with commas between them; got none")
    return tuple(brokers)


@dataclass(frozen=True)
class FixedClock:
    """It is always this instant."""

    at: Instant


@dataclass(frozen=True)
class ShiftedClock:
    """The machine's clock, `by` µs later (earlier, if that is negative)."""

    by: int


def _clock(value: object) -> FixedClock | ShiftedClock | None:
    text = _text(value)
    if text.lower() == "system":
        return None
    try:
        if text.startswith(("+", "-")):
            by = parse_duration(text[1:])
            return ShiftedClock(by if text.startswith("+") else -by)
        return FixedClock(parse_instant(text))
    except ValueError:
        expected = 'system, an instant like "2026-01-31T00:00:00Z", or a shift like "+P1D" or "-PT90S"'
        raise ValueError(f"must be {expected}; got {shown(text)}") from None


def _clock_shown(clock: FixedClock | ShiftedClock) -> str:
    match clock:
        case FixedClock(at):
            return format_instant(at)
        case ShiftedClock(by):
            return f"{'-' if by < 0 else '+'}{format_duration(abs(by))}"
        case _:
            assert_never(clock)


def _app_id(value: object) -> str:
    text = _text(value)
    check_app_id(text)
    return text


def _port(value: object) -> int:
    number = _number(value)
    if not 0 <= number <= _MOST_PORT:
        raise ValueError(f"must be a port, 0 to {_MOST_PORT}; got {number}")
    return number


def _state_version(value: object) -> int:
    version = _number(value)
    check_written(version)
    return version


def _name(value: object) -> str:
    text = _text(value)
    if not _NAME.fullmatch(text):
        raise ValueError(f"must be a name without blanks and commas; got {shown(text)}")
    return text


def _kind(value: object) -> str:
    kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a table"}
    return kinds.get(type(value), "this")


def _got(value: object) -> str:
    return shown(value) if isinstance(value, str) or type(value) is int else _kind(value)


# None stands for "not set", which nobody writes.
TextSetting: TypeAlias = Annotated[str, BeforeValidator(_text)]
MaybeText: TypeAlias = Annotated[str | None, BeforeValidator(_text)]
MaybeFile: TypeAlias = Annotated[str | None, BeforeValidator(_text), Shown(form="FILE")]
MaybeName: TypeAlias = Annotated[str | None, BeforeValidator(_name), Shown(form="NAME")]
MaybeSecret: TypeAlias = Annotated[SecretStr | None, BeforeValidator(_text), Shown(lambda _: "(hidden)")]
AppId: TypeAlias = Annotated[str, BeforeValidator(_app_id), Shown(form="ID")]
Flag: TypeAlias = Annotated[bool, BeforeValidator(_flag), Shown(lambda value: "on" if value else "off", form="on|off")]

Brokers: TypeAlias = Annotated[tuple[str, ...] | None, BeforeValidator(_brokers), Shown(",".join, form="HOST:PORT,…")]
Names: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_names), Shown(",".join, form="NAME,…")]
StateVersion: TypeAlias = Annotated[int, BeforeValidator(_state_version), Shown(form="N")]
Port: TypeAlias = Annotated[int, BeforeValidator(_port), Shown(form="PORT")]

DurationSetting: TypeAlias = Annotated[Duration, BeforeValidator(_duration), Shown(format_duration, form="DURATION")]
DurationOrOff: TypeAlias = Annotated[
    Duration | None, BeforeValidator(_or_off(_duration)), Shown(format_duration, "off", "DURATION|off")
]
Number: TypeAlias = Annotated[int, BeforeValidator(_number), Shown(form="N")]
NumberOrOff: TypeAlias = Annotated[int | None, BeforeValidator(_or_off(_number)), Shown(none="off", form="N|off")]

SaslMechanism: TypeAlias = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
MaybeSasl: TypeAlias = Annotated[
    SaslMechanism | None,
    BeforeValidator(_one_of(*get_args(SaslMechanism))),
    Shown(form="|".join(get_args(SaslMechanism))),
]
Partitioner: TypeAlias = Annotated[
    PartitionerName,
    BeforeValidator(_one_of(*get_args(PartitionerName))),
    Shown(form="|".join(get_args(PartitionerName))),
]
NoticeAcks: TypeAlias = Literal["required", "off"]
NoticeAcksSetting: TypeAlias = Annotated[
    NoticeAcks, BeforeValidator(_one_of(*get_args(NoticeAcks))), Shown(form="|".join(get_args(NoticeAcks)))
]
Clock: TypeAlias = FixedClock | ShiftedClock | None
ClockSetting: TypeAlias = Annotated[
    Clock, BeforeValidator(_clock), Shown(_clock_shown, "system", "system|INSTANT|±DURATION")
]
