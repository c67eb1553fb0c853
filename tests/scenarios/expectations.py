"""The third column of a table: what follows, as the commands, notices, refusals and accounts that have to be there.

Only what is written is asserted of a command, a notice or an account; but each of them that comes has to be written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .happenings import ACME, EVERYBODY, NotInVocabulary
from .times import TIME, instant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ACTIONS: Final = ("suspend", "restore", "delete")
KINDS: Final = (
    "arrears_started",
    "arrears_cleared",
    "suspension_ahead",
    "suspended",
    "deletion_ahead",
    "deleted",
    "restored",
    "payment_after_delete",
    "usage_while_suspended",
    "package_exhausted",
)
STATUSES: Final = ("current", "in_arrears", "suspended", "deleted")

#: Asserted of what stands behind a field: the instant of a command's notice, the number of a notice's command, how many
#: bills are listed.
NOTICE_OF: Final = "at of the notice"
COMMAND_OF: Final = "sequence of the command"
LISTED: Final = "bills listed"

Fields: TypeAlias = "Mapping[str, object]"


@dataclass(frozen=True)
class Output:
    """A command (its `name` is an action) or a notice (a kind) that has to come, and what it has to say."""

    account: str
    name: str
    fields: Fields
    phrase: str


@dataclass(frozen=True)
class Refused:
    """The row's record has to be refused, with this error (and field)."""

    error: str
    field: str | None


@dataclass(frozen=True)
class Shown:
    """How the account has to stand; `fields` None: it is not there."""

    account: str
    fields: Fields | None
    phrase: str


@dataclass(frozen=True)
class LeftOut:
    """The row's record lies after the end of the clock."""


Expectation: TypeAlias = Output | Refused | Shown | LeftOut

_WORD: Final = r"[^\s,;()\[\]]+"
_Reader: TypeAlias = "tuple[re.Pattern[str], Callable[[re.Match[str]], tuple[str, object]]]"


def _is(name: str, pattern: str, read: Callable[[str], object] = str) -> _Reader:
    return re.compile(rf"{pattern}(?=[\s,]|$)"), lambda match: (name, read(match[1]))


def _is_none(name: str, text: str, nothing: object = None) -> _Reader:
    return re.compile(rf"{text}(?=[\s,]|$)"), lambda _: (name, nothing)


def _each(form: str) -> Callable[[str], list[dict[str, str]]]:
    pattern = re.compile(form)

    def read(text: str) -> list[dict[str, str]]:
        found = []
        for part in text.split(", "):
            match = pattern.fullmatch(part)
            if match is None:
                raise NotInVocabulary(f"{part!r} is not written as {form!r}")
            found.append(match.groupdict())
        return found

    return read


def _packages(text: str) -> list[dict[str, str]]:
    form = rf"(?P<package_id>\w+) (?P<remaining>\S+) (?P<unit>\w+) of (?P<service>\w+) until (?P<ends_at>{TIME})"
    return [package | {"ends_at": instant(package["ends_at"])} for package in _each(form)(text)]


def _hold(text: str) -> dict[str, object]:
    form = rf"(?P<kind>hold|exempt) from (?P<at>{TIME})(?: until (?P<until>{TIME}))?(?P<freezing> freezing)?"
    (hold,) = _each(form)(text)
    return {
        "kind": hold["kind"],
        "at": instant(hold["at"]),
        "until": instant(hold["until"]) if hold["until"] else None,
        "freeze_clock": hold["freezing"] is not None,
    }


def _services(text: str) -> list[str]:
    return text.split(", ")


_AT: Final = f"({TIME})"
_MONEY: Final = r"(-?\d+(?:\.\d+)?)"

_ANYWHERE: Final[tuple[_Reader, ...]] = (
    _is("owed", f"owed {_MONEY}"),
    _is("late_fee", f"fee {_MONEY}"),
    _is("arrears_since", f"since {_AT}", instant),
    _is_none("arrears_since", "no since"),
    _is("policy", f"policy ({_WORD})"),
    _is("currency", "currency ([A-Z]{3})"),
    _is_none("currency", "no currency"),
)
_BILLS: Final[tuple[_Reader, ...]] = (
    _is("unpaid_bills", r"unpaid \(([^()]*)\)", _each(r"(?P<bill_id>\w+) (?P<outstanding>\S+) of (?P<amount>\S+)")),
    _is_none("unpaid_bills", "nothing unpaid", []),
    _is("unpaid_bills_count", r"count (\d+)", int),
    _is(LISTED, r"listed (\d+)", int),
)
_COMMAND: Final = (
    *_ANYWHERE,
    *_BILLS,
    _is("services", r"\[([^\[\]]*)\]", _services),
    _is("effective_at", f"effective {_AT}", instant),
    _is("reason", "because ([a-z_]+)"),
    _is("clause", rf"clause ({_WORD})"),
    _is("sequence", r"sequence (\d+)", int),
    _is_none("supersedes", "supersedes nothing"),
    _is(NOTICE_OF, f"notice {_AT}", instant),
    _is_none("notice_id", "no notice"),
    _is_none("evidence", "no evidence"),
)
_NOTICE: Final = (
    *_ANYWHERE,
    _is("deadline", f"deadline {_AT}", instant),
    _is_none("deadline", "no deadline"),
    _is(COMMAND_OF, r"command (\d+)", int),
    _is_none("command_id", "no command"),
    _is("reason", "because ([a-z_]+)"),
    _is("package_id", rf"package ({_WORD})"),
    _is("payment_id", rf"payment ({_WORD})"),
    _is("amount", f"amount {_MONEY}"),
    _is("service", rf"service ({_WORD})"),
)
_ACCOUNT: Final = (
    *_ANYWHERE,
    *_BILLS,
    *(_is_none("status", status, status) for status in STATUSES),
    _is("balance", f"balance {_MONEY}"),
    _is("credit_limit", f"limit {_MONEY}"),
    _is("suspend_at", f"suspend_at {_AT}", instant),
    _is_none("suspend_at", "no suspend_at"),
    _is("delete_at", f"delete_at {_AT}", instant),
    _is_none("delete_at", "no delete_at"),
    _is("sequence", r"sequence (\d+)", int),
    _is(COMMAND_OF, r"last command (\d+)", int),
    _is_none("last_command_id", "no last command"),
    _is("suspended_services", r"services \[([^\[\]]*)\]", _services),
    _is_none("suspended_services", "no services", []),
    _is("unbilled", f"unbilled {_MONEY}"),
    _is("packages", r"packages \(([^()]*)\)", _packages),
    _is_none("packages", "no packages", []),
    _is("hold", r"hold \(([^()]*)\)", _hold),
    _is_none("hold", "no hold"),
)


def read(phrase: str) -> Expectation | None:
    """What a phrase expects; None of "nothing". Raises `NotInVocabulary`."""
    if phrase == "nothing":
        return None
    if phrase == "left out":
        return LeftOut()
    if match := re.fullmatch(r"refused ([a-z_]+)(?: ([a-z_]+))?", phrase):
        return Refused(match[1], match[2])
    if match := re.fullmatch(r"(?:([A-Za-z]\w*) )?account: (.+)", phrase):
        account, what = "*" if match[1] == EVERYBODY else match[1] or ACME, match[2]
        return Shown(account, None if what == "none" else _fields(what, _ACCOUNT, phrase), phrase)
    match = re.fullmatch(r"(?:([A-Za-z]\w*): )?(?:(suspend|restore|delete)|told (\w+))(?: (.+))?", phrase)
    if match is None or (match[3] and match[3] not in KINDS):
        raise NotInVocabulary(f"{phrase!r} is nothing that can follow: the vocabulary is in tests/scenarios/README.md")
    fields = _fields(match[4] or "", _COMMAND if match[2] else _NOTICE, phrase)
    return Output(match[1] or ACME, match[2] or match[3], fields, phrase)


def _fields(text: str, readers: tuple[_Reader, ...], phrase: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    while text:
        found = next(((match, make) for pattern, make in readers if (match := pattern.match(text))), None)
        if found is None:
            raise NotInVocabulary(f"{phrase!r}: {text!r} is not in the vocabulary (tests/scenarios/README.md)")
        match, make = found
        name, value = make(match)
        if name in fields:
            raise NotInVocabulary(f"{phrase!r} says {name} twice")
        fields[name] = value
        text = re.sub(r"^,? ", "", text[match.end() :])
    return fields
