"""The examples of deploy/asyncapi.yaml: what one partition of a live monitor takes in and publishes in two weeks.

Nothing of what is published is written by hand: the monitor is told the records and the time, as a worker tells it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import msgspec

from models.everybody import Everybody
from models.instants import DAY, HOUR, MINUTE, SECOND, Instant, format_instant, parse_instant
from models.monitor import Live, Monitor, Terms
from models.outputs import Source, dead_letter
from models.policy import BUILT_IN, to_json
from models.records import TOPICS, Topic, decode
from models.refusal import Refusal
from models.store import AccountStore
from streams.messages import Envelope, account_message, dead_letter_message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.journal import Message

APP_ID: Final = "arrears"
#: All accounts of the story are of this partition.
PARTITIONS: Final = 8
PARTITION: Final = 1

_START: Final = parse_instant("2026-03-01T00:00:00Z")
#: From a record to the decision that has seen it, and from a mark.
_SOON: Final = SECOND // 5
_TERMS: Final = Terms(APP_ID, 45 * DAY, 3 * DAY, Live(max_ahead=10 * MINUTE, subscribers=("gateway",)))

Fields = dict[str, Any]


class Example(NamedTuple):
    """A message as it lies in a topic, told by a word."""

    name: str
    key: str
    headers: dict[str, str]
    payload: Fields


class _Arrival(NamedTuple):
    #: Hours after the start, when Kafka has it.
    at: float
    topic: Topic
    fields: Fields


def _when(hours: float) -> str:
    return format_instant(_START + round(hours * HOUR))


def _bill(account: str, at: float, amount: str, *, kind: str = "issued", number: int = 1) -> _Arrival:
    issued = {"event_id": f"{account}-{kind}-{number}", "account_id": account, "bill_id": f"{account}-2026-02-{number}"}
    fields = issued | {"kind": kind, "amount": amount, "currency": "CNY", "issued_at": _when(at)}
    if kind == "issued":
        fields |= {"period_start": "2026-02-01T00:00:00Z", "period_end": "2026-03-01T00:00:00Z"}
    return _Arrival(at, "bills", fields)


def _payment(
    account: str, at: float, amount: str, kind: str = "topup", *, late_by: float = 0, number: int = 1
) -> _Arrival:
    payment = {"event_id": f"{account}-{kind}-{number}", "account_id": account, "payment_id": f"pay-{account}-{number}"}
    fields = payment | {"kind": kind, "amount": amount, "currency": "CNY", "paid_at": _when(at)}
    return _Arrival(at + late_by, "payments", fields)


def _usage(account: str, at: float, quantity: str) -> _Arrival:
    usage = {"event_id": f"{account}-usage-{at:g}", "account_id": account, "usage_id": f"use-{account}-{at:g}"}
    used = {"service": "compute", "quantity": quantity, "unit": "CU-hour", "cost": "0.72", "currency": "CNY"}
    return _Arrival(at, "usage", usage | used | {"started_at": _when(at - 1), "ended_at": _when(at)})


def _package(account: str, at: float, kind: str, number: int = 1, **fields: str) -> _Arrival:
    package = {
        "event_id": f"{account}-{kind}-{number}",
        "account_id": account,
        "package_id": f"pack-{account}-{number}",
    }
    return _Arrival(at, "packages", package | {"kind": kind} | fields | {"at": _when(at)})


def _purchase(account: str, at: float, quantity: str, number: int = 1) -> _Arrival:
    times = {"starts_at": _when(at), "ends_at": _when(at + 30 * 24)}
    return _package(account, at, "purchased", number, service="compute", quantity=quantity, unit="CU-hour", **times)


def _control(account: str, at: float, kind: str, reason: str, **fields: object) -> _Arrival:
    sent = {"event_id": f"{account}-{kind}-{at:g}", "account_id": account, "kind": kind, "actor": "finance.zhao"}
    return _Arrival(at, "controls", sent | {"reason": reason, "at": _when(at)} | fields)


_PAYS_LATE: Final = "acct-1003"
_NEVER_PAYS: Final = "acct-1001"
_PAYS_SOON: Final = "acct-1014"
_BANK_IS_LATE: Final = "acct-1016"
_GATEWAY_FAILS: Final = "acct-1024"
_HAS_A_PACKAGE: Final = "acct-1031"
_TAKEN_OVER: Final = "acct-1030"
_ON_HOLD: Final = "acct-1032"
_BANK_IS_WEEKS_LATE: Final = "acct-1036"
ACCOUNTS: Final = (
    _PAYS_LATE, _NEVER_PAYS, _PAYS_SOON, _BANK_IS_LATE, _GATEWAY_FAILS, _HAS_A_PACKAGE, _TAKEN_OVER, _ON_HOLD,
    _BANK_IS_WEEKS_LATE,
)  # fmt: skip


def _arrivals() -> Iterator[_Arrival]:
    yield _payment(_PAYS_LATE, -48, "50", "gift", number=9)
    yield _payment(_PAYS_LATE, -24, "100")
    yield _bill(_PAYS_LATE, 1, "128.4")
    yield _payment(_PAYS_LATE, 60, "30", number=2)
    yield _payment(_PAYS_LATE, 70, "10", "refund", number=2)

    yield _bill(_NEVER_PAYS, 2, "75.5")
    yield _usage(_NEVER_PAYS, 40, "3.5")
    yield _payment(_NEVER_PAYS, 400, "75.5")
    yield _control(_NEVER_PAYS, 410, "reopen", "Paid after the end, and starts anew: ticket 4711")

    yield _bill(_PAYS_SOON, 3, "20")
    yield _payment(_PAYS_SOON, 10, "20")
    yield _payment(_PAYS_SOON, 90, "20", "reversal")
    yield _control(_PAYS_SOON, 91, "credit_limit", "Known for years", amount="50")

    yield _bill(_BANK_IS_LATE, 4, "60")
    yield _payment(_BANK_IS_LATE, 20, "60", late_by=12)

    yield _bill(_GATEWAY_FAILS, 5, "33.3")
    yield _bill(_GATEWAY_FAILS, 100, "30", kind="adjusted")
    yield _bill(_GATEWAY_FAILS, 120, "0", kind="voided")

    yield _purchase(_HAS_A_PACKAGE, 6, "10")
    yield _purchase(_HAS_A_PACKAGE, 7, "500", 2)
    yield _usage(_HAS_A_PACKAGE, 12, "12")
    yield _package(_HAS_A_PACKAGE, 30, "cancelled", 2)
    unusable = _payment(_HAS_A_PACKAGE, 31, "12.5")
    unusable.fields["amount"] = 12.5  # no text
    yield unusable

    opening = {"balance": "-12.5", "currency": "CNY", "status": "suspended", "sequence": 3}
    yield _control(_TAKEN_OVER, 8, "opening", "From the billing system before", arrears_since=_when(-30), **opening)

    yield _bill(_ON_HOLD, 9, "44")
    yield _control(_ON_HOLD, 11, "hold", "The invoice is disputed", until=_when(200), freeze_clock=True)
    yield _control(_ON_HOLD, 50, "release", "Settled")
    yield _control(_ON_HOLD, 51, "allowance", "Salary comes on Friday", duration="PT48H")
    yield _control(_ON_HOLD, 130, "exempt", "A hospital", until=_when(300))
    yield _control("*", 150, "resume", "Looked into it: month's end")
    yield _control("*", 155, "policies", "As in policies.yaml of today", policies=to_json(BUILT_IN))
    yield _control("*", 160, "policy", "All of them", policy=BUILT_IN.versions[0].name)

    yield _bill(_BANK_IS_WEEKS_LATE, 9.5, "15")
    yield _payment(_BANK_IS_WEEKS_LATE, 300, "15", late_by=90)


class _Play:
    """One partition's monitor, its inputs and what it has published."""

    def __init__(self) -> None:
        self.monitor = Monitor(Everybody(BUILT_IN, _TERMS.history), _TERMS, AccountStore())
        self.envelope = Envelope(APP_ID)
        self.found: dict[str, list[Example]] = {topic: [] for topic in TOPICS}
        self.found |= {f"{APP_ID}.{name}": [] for name in ("commands", "notices", "accounts", "dead-letters")}
        self._offsets: Counter[str] = Counter(dict.fromkeys(TOPICS, 0))
        self._waiting = sorted(_arrivals(), key=lambda one: one.at)

    def play(self) -> None:
        """All of it: whatever comes first, a record or what is due."""
        end = _START + 18 * DAY
        while True:
            due, record = self.monitor.next_due(), self._waiting[0] if self._waiting else None
            arrives = end if record is None else _START + round(record.at * HOUR)
            if due is not None and due < min(arrives, end):
                self._decide(due + _SOON)
            elif record is not None:
                self._waiting.pop(0)
                self._take(record.topic, record.fields, arrives)
                self._decide(arrives + _SOON)
            else:
                return

    def _take(self, topic: Topic, fields: Fields, at: Instant) -> None:
        value = msgspec.json.encode(fields)
        key = str(fields["account_id"])
        source = Source(topic, PARTITION, self._offsets[topic], key.encode(), value, format_instant(at))
        self._offsets[topic] += 1
        self.monitor.clock = max(self.monitor.clock, at)
        name = str(fields.get("kind", fields.get("status", topic)))
        try:
            record = decode(topic, value)
        except Refusal as refusal:
            self._publish("dead-letters", refusal.error, dead_letter_message(dead_letter(source, refusal)))
            return
        assert self.monitor.apply(record, lambda: source), f"{fields} is refused"
        self.found[topic].append(Example(name, key, {}, fields))

    def _decide(self, at: Instant) -> None:
        monitor = self.monitor
        monitor.remember_from(at)
        monitor.seal()
        published = monitor.decide(at, past=False, evidence=dict(self._offsets))
        decided_at = format_instant(at)
        for command in published.commands:
            self._publish("commands", f"{command.action}_{command.reason}", self.envelope.command(command))
        for notice in published.notices:
            self._publish("notices", notice.kind, self.envelope.notice(notice, decided_at))
        for view in (*monitor.take_views(at), *monitor.take_usage_views(at, most=100)):
            self._publish("accounts", view.status, account_message(view))
        for command in published.commands:
            self._acknowledge(command.command_id, command.account_id, at + SECOND)

    def _acknowledge(self, command_id: str, account_id: str, at: Instant) -> None:
        """The service `gateway` does; for one account it fails."""
        failed = account_id == _GATEWAY_FAILS
        fields = {"event_id": f"gateway-{command_id}", "command_id": command_id, "account_id": account_id}
        fields |= {"subscriber": "gateway", "status": "failed" if failed else "applied", "at": format_instant(at)}
        if failed:
            fields["detail"] = "two of the account's machines do not stop"
        self._take("acks", fields, at)

    def _publish(self, topic: str, name: str, message: Message) -> None:
        headers = {key: value.decode() for key, value in message.headers}
        assert message.key is not None
        assert message.value is not None
        payload = cast("Fields", msgspec.json.decode(message.value))
        self.found[f"{APP_ID}.{topic}"].append(Example(name, message.key.decode(), headers, payload))


def everything() -> dict[str, list[Example]]:
    """All messages of the story by topic, in their order."""
    play = _Play()
    play.play()
    return play.found


def examples() -> dict[str, list[Example]]:
    """By topic one of each name, the last: by then most has happened."""
    return {topic: list({example.name: example for example in found}.values()) for topic, found in everything().items()}
