"""The second column of a table: what happens, as the record that a topic would carry."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from .times import TIME, duration, instant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

#: Whose table it is where no account is named.
ACME: Final = "acme"
#: The account_id "*" of a control.
EVERYBODY: Final = "everybody"
CURRENCY: Final = "EUR"

_ID: Final = r"[A-Za-z]\w*"
_AMOUNT: Final = r"\S+"


class NotInVocabulary(ValueError):
    """A phrase that means nothing; `str()` says which."""


@dataclass(frozen=True)
class Happening:
    """One record on its way in."""

    topic: str
    record: Mapping[str, Any]

    @property
    def line(self) -> bytes:
        """The topic's value."""
        return json.dumps(self.record).encode()


class Vocabulary:
    """Turns phrases into records; knows the policies of the file and the records that were there before."""

    def __init__(self, policies: Mapping[str, list[dict[str, Any]]]) -> None:
        self._policies = policies
        self._known: dict[str, Happening] = {}
        self._count = 0

    def read(self, phrase: str, at: str) -> Iterable[Happening]:
        """What a phrase stands for at a time. Raises `NotInVocabulary`."""
        match = re.fullmatch(rf"(?:({_ID}): )?(.+)", phrase)
        assert match is not None
        who, what = match[1] or ACME, match[2]
        if again := re.fullmatch(rf"again ({_ID})", what):
            if again[1] not in self._known:
                raise NotInVocabulary(f"{phrase!r}: nothing was told before 'as {again[1]}'")
            yield self._known[again[1]]
            return
        if many := re.fullmatch(rf"(\d+) bills of ({_AMOUNT})", what):
            for number in range(1, int(many[1]) + 1):
                yield self._one(who, f"bill b{number:04} {many[2]}", at)
            return
        yield self._one(who, what, at)

    def _one(self, who: str, what: str, at: str) -> Happening:
        event_id, currency, dated = None, CURRENCY, at
        more: dict[str, Any] = {}
        less: list[str] = []
        while match := _SUFFIX.fullmatch(what):
            what = match["what"]
            if match["event"]:
                event_id = match["event"]
            elif match["currency"]:
                currency = match["currency"]
            elif match["dated"]:
                dated = match["dated"]
            elif match["without"]:
                less.append(match["without"])
            else:
                more |= json.loads(match["with"])
        topic, fields = self._fields(what, dated, currency)
        self._count += 1
        record = {"event_id": event_id or f"e{self._count:04}"}
        record |= {"account_id": "*" if who == EVERYBODY else who} | fields | more
        for name in less:
            del record[name]
        happening = Happening(topic, record)
        if event_id is not None:
            self._known.setdefault(event_id, happening)
        return happening

    def _fields(self, what: str, at: str, currency: str) -> tuple[str, dict[str, Any]]:
        for pattern, make in _PHRASES:
            if match := pattern.fullmatch(what):
                topic, fields = make(match.groupdict(), at, currency)
                if fields.get("kind") == "policies":
                    fields["policies"] = self._policy_list(str(fields["policies"]))
                return topic, fields
        raise NotInVocabulary(f"{what!r} is no happening: the vocabulary is in tests/scenarios/README.md")

    def _policy_list(self, name: str) -> list[dict[str, Any]]:
        if name not in self._policies:
            raise NotInVocabulary(f"there are no policies {name!r} at the top of the file")
        return self._policies[name]


_SUFFIX: Final = re.compile(
    rf"(?P<what>.+?)(?: as (?P<event>{_ID})| in (?P<currency>[A-Za-z]+)| dated (?P<dated>\S+)"
    r"| without (?P<without>\w+)| with (?P<with>\{[^{}]*\}))"
)

_Given = dict[str, str | None]
_Made = tuple[str, dict[str, Any]]


def _time(text: str | None) -> str | None:
    return None if text is None else instant(text)


def _bill(given: _Given, at: str, currency: str) -> _Made:
    kind = {"bill": "issued", "adjust": "adjusted", "void": "voided"}[str(given["verb"])]
    record = {"bill_id": given["id"], "kind": kind, "currency": currency, "issued_at": at}
    if "amount" in given:
        record["amount"] = given["amount"]
    if given.get("period_end"):
        record["period_end"] = _time(given["period_end"])
    return "bills", record


def _payment(given: _Given, at: str, currency: str) -> _Made:
    kind = str(given["verb"]).replace("-", "")
    return "payments", {
        "payment_id": given["id"],
        "kind": kind,
        "amount": given["amount"],
        "currency": currency,
        "paid_at": at,
    }


def _usage(given: _Given, at: str, currency: str) -> _Made:
    record = {
        "usage_id": "u",
        "service": given["service"],
        "quantity": given["quantity"],
        "unit": given["unit"],
        "started_at": _time(given["since"]) or at,
        "ended_at": at,
    }
    if given["cost"] is not None:
        record |= {"cost": given["cost"], "currency": currency}
    return "usage", record


def _package(given: _Given, at: str, _currency: str) -> _Made:
    return "packages", {
        "package_id": given["id"],
        "kind": "purchased",
        "service": given["service"],
        "quantity": given["quantity"],
        "unit": given["unit"],
        "at": at,
        "starts_at": _time(given["since"]) or at,
        "ends_at": _time(given["until"]),
    }


def _cancel(given: _Given, at: str, _currency: str) -> _Made:
    return "packages", {"package_id": given["id"], "kind": "cancelled", "at": at}


def _control(kind: str, at: str, **fields: object) -> _Made:
    record = {"kind": kind, "actor": "ann", "reason": "asked", "at": at}
    return "controls", record | {name: value for name, value in fields.items() if value is not None}


def _hold(given: _Given, at: str, _currency: str) -> _Made:
    return _control(
        str(given["verb"]), at, until=_time(given["until"]), freeze_clock=True if given["freezing"] else None
    )


def _opening(given: _Given, at: str, currency: str) -> _Made:
    return _control(
        "opening",
        at,
        status=given["status"],
        balance=given["balance"],
        currency=currency,
        arrears_since=_time(given["since"]),
        sequence=int(given["sequence"] or 0),
    )


def _plain(given: _Given, at: str, _currency: str) -> _Made:
    return _control(str(given["verb"]), at, until=_time(given["until"]))


_PHRASES: Final[tuple[tuple[re.Pattern[str], Callable[[_Given, str, str], _Made]], ...]] = tuple(
    (re.compile(pattern), make)
    for pattern, make in (
        (rf"(?P<verb>bill) (?P<id>{_ID}) (?P<amount>{_AMOUNT})(?: period to (?P<period_end>{TIME}))?", _bill),
        (rf"(?P<verb>adjust) (?P<id>{_ID}) to (?P<amount>{_AMOUNT})", _bill),
        (rf"(?P<verb>void) (?P<id>{_ID})", _bill),
        (rf"(?P<verb>top-up|refund|reversal|gift) (?P<id>{_ID}) (?P<amount>{_AMOUNT})", _payment),
        (
            (
                rf"usage (?P<service>{_ID}) (?P<quantity>\S+) (?P<unit>{_ID})(?: since (?P<since>{TIME}))?"
                r"(?: cost (?P<cost>\S+))?"
            ),
            _usage,
        ),
        (
            (
                rf"package (?P<id>{_ID}) (?P<service>{_ID}) (?P<quantity>\S+) (?P<unit>{_ID})"
                rf"(?: from (?P<since>{TIME}))? until (?P<until>{TIME})"
            ),
            _package,
        ),
        (rf"cancel (?P<id>{_ID})", _cancel),
        (rf"(?P<verb>hold|exempt)(?: until (?P<until>{TIME}))?(?P<freezing> freezing)?", _hold),
        (r"limit (?P<amount>\S+)", lambda given, at, _: _control("credit_limit", at, amount=given["amount"])),
        (
            rf"allowance (?P<duration>{TIME}|-?P\S+)",
            lambda given, at, _: _control("allowance", at, duration=duration(str(given["duration"]))),
        ),
        (rf"policy (?P<name>{_ID})", lambda given, at, _: _control("policy", at, policy=given["name"])),
        (rf"policies (?P<name>{_ID})", lambda given, at, _: _control("policies", at, policies=given["name"])),
        (
            (
                r"opening (?P<status>current|in_arrears|suspended|deleted) (?P<balance>\S+)"
                rf"(?: since (?P<since>{TIME}))?(?: sequence (?P<sequence>\d+))?"
            ),
            _opening,
        ),
        (rf"(?P<verb>resume|release|reopen)(?: until (?P<until>{TIME}))?", _plain),
    )
)
