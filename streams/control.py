"""What an operator tells the monitor (contract §2, `controls`): made of options, judged by the contract, sent."""

from __future__ import annotations

import asyncio
import getpass
import json
import time
import uuid
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args

from models import contract
from models.contract import EVERYONE, ControlKind
from models.instants import format_instant, parse_duration, parse_instant
from models.records import Control, decode
from models.refusal import Refusal, printable
from streams import telling
from streams.asking import ask
from streams.faults import Unusable
from streams.kafka_client import kafka_client_options
from streams.sending import send_to_account, send_to_all
from streams.setting_values import FixedClock, ShiftedClock
from streams.showing import show
from streams.writers import write_one

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.instants import Instant
    from streams.sending import Place
    from streams.settings import Settings

KINDS: Final[tuple[ControlKind, ...]] = get_args(ControlKind)

#: Which kinds each field is for; without one it is for all.
_FIELDS: Final[dict[str, tuple[ControlKind, ...]]] = {
    "until": ("hold", "exempt", "resume"),
    "freeze_clock": ("hold", "exempt"),
    "amount": ("credit_limit",),
    "duration": ("allowance",),
    "policy": ("policy",),
    "balance": ("opening",),
    "currency": ("opening",),
    "status": ("opening",),
    "arrears_since": ("opening",),
    "sequence": ("opening",),
}

#: What of an account cannot be taken back once it is sent.
_FINAL: Final[dict[str, str]] = {
    "exempt": "If the account is suspended, it is restored at once.",
    "release": "Suspends and deletes that its holds have kept off may follow, and a delete is for good.",
    "resume": "Suspends and deletes that a guard has stopped go on, and a delete is for good.",
    "opening": "It counts only as the first record of the account, and cannot be mended later.",
    "reopen": "The deleted account starts anew; that cannot be taken back.",
}
#: The same for everybody.
_FINAL_FOR_ALL: Final[dict[str, str]] = {
    "exempt": "Every suspended account is restored at once.",
    "release": "Suspends and deletes that the holds for everybody have kept off may follow, and a delete is for good.",
    "resume": "Suspends and deletes that guards have stopped on any partition go on, and a delete is for good.",
    "policies": "A version that is in force once keeps its content for ever.",
}


class Given(NamedTuple):
    """What was typed; None where nothing was."""

    kind: str
    account: str
    reason: str | None
    actor: str | None
    at: str | None
    #: By the names of `_FIELDS`.
    fields: Mapping[str, object]


def control(settings: Settings, given: Given, *, yes: bool, as_json: bool) -> None:
    """`arrears control`. Raises `Unusable`."""
    kafka = kafka_client_options(settings)
    fields = fields_of(given, now(settings))
    record = checked(fields)
    sent = send(settings, kafka, fields, record, yes=yes)
    tell_sent(fields, sent, as_json=as_json)


# What is sent ---------------------------------------------------------------------------------------------------------


def now(settings: Settings) -> Instant:
    """The clock of the monitor, as far as this machine knows it."""
    machine = time.time_ns() // 1000
    match settings.clock:
        case FixedClock(at):
            return at
        case ShiftedClock(by):
            return machine + by
        case None:
            return machine


def fields_of(given: Given, clock: Instant) -> dict[str, object]:
    """The control, not checked yet, in the order of the contract. Raises `Unusable` if options do not go together."""
    kind = given.kind.replace("-", "_")
    if kind not in KINDS:
        raise Unusable(f"{printable(given.kind)} is no kind of control: choose {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    if kind == "policies":
        raise Unusable("policies are put in force by arrears policy apply FILE, which checks them first")
    if given.reason is None:
        raise Unusable("--reason is missing: say why, in words that are still understood in a year")
    for name, value in given.fields.items():
        kinds = _FIELDS[name]
        if value is not None and kind not in kinds:
            raise Unusable(f"{_option(name)} is for {telling.listed(kinds)}, not for {kind}: leave it out")
    at = clock if given.at is None else _instant("at", given.at)
    fields: dict[str, object] = {
        "event_id": str(uuid.uuid4()),
        "account_id": given.account,
        "kind": kind,
        "actor": user() if given.actor is None else given.actor,
        "reason": given.reason,
        "at": format_instant(at),
    }
    fields |= {name: value for name, value in given.fields.items() if value is not None}
    until = fields.get("until")
    if isinstance(until, str) and until.startswith("+"):
        fields["until"] = format_instant(at + _duration(until[1:]))
    return fields


def _instant(name: str, text: str) -> Instant:
    try:
        return parse_instant(text)
    except ValueError as error:
        raise Unusable(f"{_option(name)} {error}") from None


def _duration(text: str) -> int:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise Unusable(f"--until {error}, after a plus") from None


def user() -> str:
    """Who types this. Raises `Unusable` if nobody knows."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        raise Unusable("nobody knows who you are: give --actor NAME") from None


def checked(fields: Mapping[str, object]) -> Control:
    """The control as the worker will read it. Raises `Unusable` where the contract refuses it."""
    try:
        contract.read("controls", fields)
        record = decode("controls", encoded(fields))
        assert isinstance(record, Control)
    except Refusal as refusal:
        where = {"account_id": "ACCOUNT"}.get(refusal.field or "", _option(refusal.field or ""))
        told = refusal.message.removeprefix(f"{refusal.field}: ")
        raise Unusable(f"{where} {told}") from None
    except UnicodeEncodeError:
        raise Unusable("what was typed is not UTF-8: write it in plain letters") from None
    return record


def encoded(fields: Mapping[str, object]) -> bytes:
    """The value of the record."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


# Asking, sending ------------------------------------------------------------------------------------------------------


def question(record: Control) -> str | None:
    """What is asked before it is sent; None if it concerns one account and can be taken back."""
    said = telling.record_sentence(record)
    if record.account_id == EVERYONE:
        final = _FINAL_FOR_ALL.get(record.kind)
        return " ".join(filter(None, (said, "This is for every account, those to come too.", final)))
    final = _FINAL.get(record.kind)
    return None if final is None else f"{said} {final}"


def send(
    settings: Settings, kafka: Mapping[str, Any], fields: Mapping[str, object], record: Control, *, yes: bool
) -> list[Place]:
    """Ask if it has to be asked, then send. Raises `Unusable`."""
    asked = question(record)
    if asked is not None and not yes:
        ask(f"{_whose(record)}: {asked}", "Send it?")
    key, value = record.account_id.encode(), encoded(fields)
    if record.account_id == EVERYONE:
        return asyncio.run(send_to_all(kafka, "controls", key, value, settings.app_id))
    return asyncio.run(send_to_account(kafka, "controls", key, value, settings.partitioner))


def _whose(record: Control) -> str:
    return "everybody" if record.account_id == EVERYONE else f"account {printable(record.account_id)}"


def tell_sent(fields: Mapping[str, object], sent: Sequence[Place], *, as_json: bool) -> None:
    """What was sent and where."""
    if as_json:
        write_one({"record": fields, "sent": [place._asdict() for place in sent]})
        return
    record = checked(fields)
    show(
        f"{_whose(record)}: {telling.record_sentence(record)}",
        *(_place_line(place) for place in sent),
        f"event_id {fields['event_id']}",
    )


def _place_line(place: Place) -> str:
    return f"sent to {place.topic}, partition {place.partition}, offset {place.offset}"
