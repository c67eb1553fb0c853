"""Made-up bills and payments: 60 % bills, 40 % top-ups, evenly over 23 days, any account as likely as any other."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Final, NamedTuple

from models.instants import SECOND, format_instant, parse_instant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from models.instants import Duration, Instant
    from models.records import Topic

#: When the first record happens.
START: Final = parse_instant("2018-04-01T00:00:00Z")

#: A million records come every two seconds; fewer come as much later, so that as many marks fall for each.
_SPAN: Final = 2_000_000 * SECOND
_BILLS: Final = 0.6
#: Of the accounts, where the load is not even; they have half of the records.
_HOT: Final = 0.01


class Files(NamedTuple):
    """The bills and the payments, as JSON lines, and how many there are of both."""

    bills: Path
    payments: Path
    records: int

    def paths(self) -> list[tuple[Topic, str]]:
        """As a replay takes them."""
        return [("bills", str(self.bills)), ("payments", str(self.payments))]


def write_files(folder: Path, records: int, accounts: int, *, skewed: bool = False) -> Files:
    """The same files for the same numbers; `skewed`: 1 % of the accounts have half of the records."""
    folder.mkdir()
    files = Files(folder / "bills.jsonl", folder / "payments.jsonl", records)
    with files.bills.open("w") as bills, files.payments.open("w") as payments:
        for topic, value in values(records, accounts, skewed=skewed):
            (bills if topic == "bills" else payments).write(json.dumps(value) + "\n")
    return files


def values(
    records: int, accounts: int, *, skewed: bool = False, start: Instant = START, span: Duration = _SPAN
) -> Iterator[tuple[Topic, dict[str, str]]]:
    """The records, as they happen: evenly from `start` on, over `span`."""
    dice = random.Random(7)
    hot = max(1, round(accounts * _HOT))
    for number in range(records):
        account = dice.randrange(hot if skewed and dice.random() < 0.5 else accounts)
        cents = dice.randrange(1, 50_000)
        at = format_instant(start + number * (span // records))
        common = {"account_id": f"acc-{account:07d}", "currency": "CNY"}
        if dice.random() < _BILLS:
            bill = {"event_id": f"b-{number:09d}", "bill_id": f"bill-{number:09d}", "kind": "issued"}
            dates = {"issued_at": at, "period_start": at, "period_end": at}
            yield "bills", bill | common | {"amount": _amount(cents)} | dates
        else:
            payment = {"event_id": f"p-{number:09d}", "payment_id": f"pay-{number:09d}", "kind": "topup"}
            yield "payments", payment | common | {"amount": _amount(cents * 8 // 5 + 1), "paid_at": at}


def _amount(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"
