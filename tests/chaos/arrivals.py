"""Which records of a partition the monitor had to refuse, and which it had to use (contract §2).

A topic's records are judged in order of their offsets. How the topics of a partition were mixed nobody knows
afterwards: where that decides whether a record is refused, the dead letters are believed.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.chaos.run import INPUTS, Recorded, Run
from tests.oracle.records import Fields, JsonObject, Record, Refused, decode, id_text, parse_json
from tests.oracle.replay import turn
from tests.oracle.values import HOUR, parse_instant

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EVERYONE = "*"
_NOBODY = frozenset[str]()


class Used(NamedTuple):
    """A record that was used, and where it stands."""

    topic: str
    offset: int
    record: Record


@dataclass
class Arrivals:
    """What became of the records of one partition."""

    partition: int
    #: By account, in no particular order; `*` too.
    used: dict[str, list[Used]] = field(default_factory=lambda: defaultdict(list))
    #: Accounts with an unusable payment, and its offsets.
    unusable_payments: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    #: (topic, offset) of every record that had to be refused, or was with good reason.
    refused: dict[tuple[str, int], str] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)  # (kind, told)


def partition_of(key: bytes, partitions: int) -> int:
    """Kafka's murmur2, written down once more."""
    mix, word = 0x5BD1E995, 0xFFFFFFFF
    hashed = 0x9747B28C ^ len(key)
    whole = len(key) // 4 * 4
    for start in range(0, whole, 4):
        mixed = int.from_bytes(key[start : start + 4], "little") * mix & word
        mixed = (mixed ^ mixed >> 24) * mix & word
        hashed = (hashed * mix & word) ^ mixed
    if rest := key[whole:]:
        hashed = (hashed ^ int.from_bytes(rest, "little")) * mix & word
    hashed = (hashed ^ hashed >> 13) * mix & word
    return ((hashed ^ hashed >> 15) & 0x7FFFFFFF) % partitions


def arrivals(run: Run, partition: int) -> Arrivals:
    """Judge the records of a partition."""
    return _Judge(run, partition, [recorded.json for recorded in run.of("commands", partition)]).judge()


class _Topic:
    """What has been accepted so far of one account in one topic."""

    def __init__(self) -> None:
        self.events: dict[str, Record] = {}
        self.bills: dict[str, Record] = {}
        self.voids: dict[str, Record] = {}
        self.waiting: dict[str, list[tuple[Recorded, Record]]] = defaultdict(list)
        self.topups: set[str] = set()
        self.packages: dict[str, bool] = {}  # whether it is cancelled
        self.currency: str | None = None


class _Judge:
    """Goes through one partition, whose `commands` say what had been applied when."""

    def __init__(self, run: Run, partition: int, commands: Sequence[dict[str, Any]]) -> None:
        self.run = run
        #: By account, the next offset of controls when each delete was decided.
        self.deletes: dict[str, list[int]] = defaultdict(list)
        #: (what a decision rests on, its instant): everything up to then was in.
        self.decisions: list[tuple[dict[str, int], int]] = []
        for command in commands:
            evidence = command["evidence"] or {}
            self.decisions.append((evidence, parse_instant(command["decided_at"])))
            if command["action"] == "delete":
                self.deletes[command["account_id"]].append(evidence.get("controls", 0))
        self.found = Arrivals(partition)
        self.names = run.policies.names
        self.errors: dict[tuple[str, int], str] = {}
        self._read_letters(run.of("dead-letters", partition))
        self.records = {topic: run.of(topic, partition) for topic in INPUTS}
        self.elsewhere: dict[str, set[str]] = defaultdict(set)  # account: topics that have records of it
        self.currencies: dict[str, Counter[str]] = defaultdict(Counter)
        self.topics: dict[tuple[str, str], _Topic] = defaultdict(_Topic)

    def _read_letters(self, letters: Iterable[Recorded]) -> None:
        for letter in letters:
            told = letter.json
            place = (told["topic"], told["offset"])
            if told["partition"] != self.found.partition:
                self.problem("wrong", f"dead letter of {place} stands in partition {letter.partition}")
            if place in self.errors:
                self.problem("doubled", f"dead letter of {place}, again at {letter.offset}")
            self.errors[place] = told["error"]

    def problem(self, kind: str, told: str) -> None:
        self.found.problems.append((kind, f"partition {self.found.partition}: {told}"))

    def judge(self) -> Arrivals:
        decoded: dict[tuple[str, int], Record] = {}
        broken: dict[tuple[str, int], frozenset[str]] = {}
        for topic, records in self.records.items():
            for recorded in records:
                record, errors = self._decode(topic, recorded)
                if record is not None:
                    decoded[topic, recorded.offset] = record
                    self.elsewhere[record.account].add(topic)
                    if not errors and record.data.get("currency"):
                        self.currencies[record.account][record.data["currency"]] += 1
                broken[topic, recorded.offset] = errors
        for topic, records in self.records.items():
            for recorded in records:
                place = (topic, recorded.offset)
                if broken[place]:
                    self._must(place, broken[place])
                    self._note_payment(topic, recorded, decoded.get(place))
                else:
                    self._judge(topic, recorded, decoded[place])
        for place in self.errors.keys() - {(t, r.offset) for t, records in self.records.items() for r in records}:
            self.problem("wrong", f"dead letter of {place}, where there is no record")
        return self.found

    def _note_payment(self, topic: str, recorded: Recorded, record: Record | None) -> None:
        if topic == "payments":
            account = record.account if record is not None else (recorded.key or b"").decode("utf-8", "replace")
            self.found.unusable_payments[account].append(recorded.offset)

    def _must(self, place: tuple[str, int], errors: frozenset[str]) -> None:
        error = self.errors.get(place)
        if error is None:
            self.problem("lost", f"{place} has to be a dead letter ({', '.join(sorted(errors))}), and is none")
        elif error not in errors:
            self.problem("wrong", f"{place} is refused as {error}, has to be {', '.join(sorted(errors))}")
        self.found.refused[place] = error or min(errors)

    # -- what can be seen of a record by itself ------------------------------------------------------------------------

    def _decode(self, topic: str, recorded: Recorded) -> tuple[Record | None, frozenset[str]]:
        errors: set[str] = set()
        record: Record | None = None
        key = recorded.key
        if not recorded.value:
            errors |= {"invalid", "not_json"} if recorded.value is not None else {"invalid"}
        else:
            try:
                record = (
                    decode_ack(recorded.offset, recorded.value)
                    if topic == "acks"
                    else decode(topic, recorded.offset, recorded.value)
                )
            except Refused as refused:
                errors.add(refused.error)
        if key is None or (record is not None and key != record.account.encode()):
            errors.add("key_mismatch")
        if key is not None and key != b"*" and partition_of(key, self.run.partitions) != recorded.partition:
            errors.add("wrong_partition")
        if record is not None:
            errors |= self._time(topic, recorded, record)
        return record, frozenset(errors)

    def _time(self, topic: str, recorded: Recorded, record: Record) -> set[str]:
        """What no clock of the run could make right.

        Before the first decision of a partition it may not know yet how far its inputs reach: nothing has to be late.
        """
        if record.at > self.run.ended_at + self.run.max_ahead:
            return {"too_early"}
        complete = max((at for evidence, at in self.decisions if evidence.get(topic, 0) <= recorded.offset), default=0)
        return {"too_late"} if record.at < complete - self.run.history - HOUR else set()

    # -- what it does after those before it ----------------------------------------------------------------------------

    def _judge(self, topic: str, recorded: Recorded, record: Record) -> None:
        seen = self.topics[record.account, topic]
        place = (topic, recorded.offset)
        known = seen.events.get(record.event_id)
        if known is not None:
            if known.same_content(record):
                self._must_not(place)
            elif topic == "acks":  # those of accounts of which nothing was sent are not remembered
                self._may(place, "conflict")
            else:
                self._refuse(topic, recorded, record, "conflict")
            return
        must, may = self._refusals(topic, recorded, record, seen)
        if must:
            self._refuse(topic, recorded, record, must, *may)
        elif may and self.errors.get(place) in may:
            self.found.refused[place] = self.errors[place]
            self._note_payment(topic, recorded, record)
        elif record.kind in ("adjusted", "voided") and record.data["bill_id"] not in seen.bills:
            seen.waiting[record.data["bill_id"]].append((recorded, record))
            self._must_not(place)
        else:
            self._must_not(place)
            self._use(topic, recorded, record, seen)

    def _refuse(self, topic: str, recorded: Recorded, record: Record, *errors: str) -> None:
        self._must((topic, recorded.offset), frozenset(errors))
        self._note_payment(topic, recorded, record)

    def _must_not(self, place: tuple[str, int]) -> None:
        if place in self.errors:
            self.problem("wrong", f"{place} is refused as {self.errors[place]}, and was good")
            self.found.refused[place] = self.errors[place]

    def _may(self, place: tuple[str, int], error: str) -> None:
        if self.errors.get(place) == error:
            self.found.refused[place] = error
        else:
            self._must_not(place)

    def _refusals(self, topic: str, recorded: Recorded, record: Record, seen: _Topic) -> tuple[str | None, set[str]]:
        """(the error it has to be refused with, those that it may be refused with)."""
        may: set[str] = set()
        must: str | None = None
        currency = record.data.get("currency")
        if currency is not None and len(self.currencies[record.account]) > 1:
            may.add("currency_mismatch")
            if seen.currency is not None and seen.currency != currency:
                must = "currency_mismatch"
        if record.at > recorded.appended_at + self.run.shift + self.run.max_ahead:
            may.add("too_early")
        if record.at < self.run.ended_at - self.run.history:
            may.add("too_late")
        match topic:
            case "bills":
                must = _bill_refused(record, seen) or must
            case "payments" if record.kind == "topup" and record.data["payment_id"] in seen.topups:
                must = "conflict"
            case "packages":
                must = _package_refused(record, seen)
            case "controls":
                must = self._control_refused(recorded, record, seen, may) or must
            case _:
                pass
        return must, may

    def _control_refused(self, recorded: Recorded, record: Record, seen: _Topic, may: set[str]) -> str | None:
        match record.kind:
            case "opening" if seen.events:
                return "invalid"
            case "opening" if self.elsewhere[record.account] - {"controls", "acks"}:
                may.add("invalid")
            case "reopen" if not self._is_deleted(recorded, record, seen):
                return "invalid"
            case "policy" if record.data["policy"] not in self.names:
                return "invalid"
            case _:
                pass
        return None

    def _is_deleted(self, recorded: Recorded, record: Record, seen: _Topic) -> bool:
        deletes = sum(offset <= recorded.offset for offset in self.deletes.get(record.account, ()))
        opened: int = sum(
            other.kind == "opening" and other.data["status"] == "deleted" for other in seen.events.values()
        )
        reopened = sum(other.kind == "reopen" for other in seen.events.values())
        return bool(deletes + opened > reopened)

    def _use(self, topic: str, recorded: Recorded, record: Record, seen: _Topic) -> None:
        seen.events[record.event_id] = record
        seen.currency = seen.currency or record.data.get("currency")
        if (topic, recorded.offset) not in self.found.refused:
            self.found.used[record.account].append(Used(topic, recorded.offset, record))
        match record.kind:
            case "issued":
                bill_id = record.data["bill_id"]
                seen.bills[bill_id] = record
                waiting = seen.waiting.pop(bill_id, [])
                for other_recorded, other in sorted(waiting, key=lambda item: turn(item[1])):
                    self._judge(topic, other_recorded, other)
            case "voided":
                seen.voids[record.data["bill_id"]] = record
            case "topup":
                seen.topups.add(record.data["payment_id"])
            case "purchased":
                seen.packages[record.data["package_id"]] = False
            case "cancelled":
                seen.packages[record.data["package_id"]] = True
            case _:
                pass


def _bill_refused(record: Record, seen: _Topic) -> str | None:
    bill_id = record.data["bill_id"]
    bill, void = seen.bills.get(bill_id), seen.voids.get(bill_id)
    if record.kind == "issued":
        return None if bill is None else "conflict"
    if bill is None:
        return None
    if record.at < bill.at:
        return "unknown_bill"
    if void is not None and (record.kind == "voided" or void.at < record.at):
        return "conflict"
    later = [
        other
        for other in seen.events.values()
        if other.kind == "adjusted" and other.data["bill_id"] == bill_id and other.at > record.at
    ]
    return "conflict" if record.kind == "voided" and later else None


def _package_refused(record: Record, seen: _Topic) -> str | None:
    cancelled = seen.packages.get(record.data["package_id"])
    if record.kind == "purchased":
        return None if cancelled is None else "conflict"
    return None if cancelled is False else "invalid"


def decode_ack(offset: int, raw: bytes) -> Record:
    """Contract §2, `acks`."""
    values: Any = parse_json(raw)
    if not isinstance(values, JsonObject) or values.repeats:
        raise Refused("invalid", None, "not a JSON object")
    fields = Fields(values)
    data: dict[str, Any] = {
        name: fields.read_if_there(name, id_text) for name in ("command_id", "notice_id", "detail")
    } | {"subscriber": fields.read("subscriber", id_text), "status": fields.one_of("status", "applied", "failed")}
    if data["command_id"] is None and data["notice_id"] is None:
        raise Refused("invalid", None, "neither a command_id nor a notice_id")
    at = fields.read("at", parse_instant)
    account = fields.read("account_id", id_text)
    if account == EVERYONE:
        raise Refused("invalid", "account_id", "not for everyone")
    return Record("acks", account, fields.read("event_id", id_text), "ack", at, data, offset, raw)


def as_json(**fields: Any) -> bytes:
    """A record's value."""
    return json.dumps(fields, separators=(",", ":")).encode()
