"""States of accounts as a release writes them: `python -m tests.models.golden_states` keeps them in `golden/`.

Each state is a story told to a partition. Its file holds the journal that the release wrote (head and rows of each
account, base64), the views that the accounts gave, and what the next decisions published: every later release must
still read it so. Beside them stands the shape of the encoding, so that a change of it without another version is seen.

Files are written once for each version of the encoding and then stay. `--again` writes those of today's version anew,
which is right only as long as no release has written it. `--outcomes` leaves the states as they are and tells anew what
they show and lead to: for a rule that was mended.
"""

from __future__ import annotations

import argparse
import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from models import codec
from models.account import Account
from models.codec import decode_everybody
from models.instants import HOUR, format_instant
from models.ledger import Movement, OpenBill
from models.monitor import Monitor
from models.packages import UsageBook
from models.policy import parse_policies
from models.records import decode
from models.state_version import VERSION
from models.store import AccountStore
from tests.models.live import LIVE, START, Partition

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN: Final = Path(__file__).parent / "golden"

#: Stands between the account and the row in a key of the journal.
_SEPARATOR: Final = b"\xff"
_EVERYBODY: Final = b"@"

_FEE_REQUIRED: Final = parse_policies(
    [
        {
            "name": "strict",
            "version": "1",
            "effective_from": "2018-01-01T00:00:00Z",
            "late_fee_per_day": "0.01",
            "late_fee_required": True,
        }
    ]
)


# Records, short ---------------------------------------------------------------------------------------------------


def bill(partition: Partition, number: int | str, amount: str, at: float, account: str = "a1", **more: Any) -> bool:
    """A bill at so many hours after START."""
    fields = {"event_id": f"b{number}", "account_id": account, "bill_id": f"bill-{number}", "kind": "issued"}
    return partition.take("bills", **fields | {"amount": amount, "currency": "CNY", "issued_at": at} | more)


def top_up(partition: Partition, number: int | str, amount: str, at: float, account: str = "a1", **more: Any) -> bool:
    """A top-up (or what `kind` says)."""
    fields = {"event_id": f"p{number}", "account_id": account, "payment_id": f"pay-{number}", "kind": "topup"}
    return partition.take("payments", **fields | {"amount": amount, "currency": "CNY", "paid_at": at} | more)


def use(partition: Partition, number: int | str, at: float, account: str = "a1", **more: Any) -> bool:
    """Usage of a minute of compute that ended at `at`."""
    fields = {"event_id": f"u{number}", "account_id": account, "usage_id": f"use-{number}", "service": "compute"}
    usage = {"quantity": "1", "unit": "minute", "cost": "0.000000000001", "currency": "CNY"}
    return partition.take("usage", **fields | usage | {"started_at": at - 1 / 60, "ended_at": at} | more)


def buy(partition: Partition, number: int | str, quantity: str, at: float, account: str = "a1", **more: Any) -> bool:
    """A package of minutes of compute, for 1,000 hours."""
    fields = {"event_id": f"k{number}", "account_id": account, "package_id": f"pack-{number}", "kind": "purchased"}
    wares = {"service": "compute", "unit": "minute", "quantity": quantity}
    return partition.take("packages", **fields | wares | {"at": at, "starts_at": at, "ends_at": at + 1000} | more)


def control(partition: Partition, kind: str, at: float, account: str = "a1", **more: Any) -> bool:
    """An operator's control; of what `more` names, `until` and `arrears_since` are hours after START."""
    fields = {"event_id": f"{kind}-{at:g}", "account_id": account, "kind": kind, "actor": "ops", "reason": "asked"}
    instants = {"at": at} | {name: more.pop(name) for name in ("until", "arrears_since") if more.get(name) is not None}
    texts = {name: format_instant(START + round(hours * HOUR)) for name, hours in instants.items()}
    return partition.apply(decode("controls", msgspec.json.encode(fields | texts | more)))


# States -----------------------------------------------------------------------------------------------------------


def new() -> Partition:
    partition = Partition()
    partition.decide_after(0)
    return partition


def paid_up() -> Partition:
    partition = new()
    top_up(partition, 1, "200", 0)
    bill(partition, 1, "128.4", 0)
    partition.decide_after(1)
    return partition


def undecided() -> Partition:
    partition = paid_up()
    bill(partition, 2, "500.000001", 1)
    control(partition, "credit_limit", 1, amount="20")
    return partition


def warned() -> Partition:
    partition = new()
    bill(partition, 1, "128.4", 0)
    for hour in (0, 20.01):
        partition.decide_after(hour)
    return partition


def suspended() -> Partition:
    partition = warned()
    partition.decide_after(24.01)
    partition.clock(25)
    use(partition, "breach", 25)
    top_up(partition, 1, "100", 25)
    partition.decide_after(193)
    return partition


def held() -> Partition:
    partition = warned()
    control(partition, "hold", 20, until=400, freeze_clock=True)
    control(partition, "allowance", 20, duration="PT12H")
    control(partition, "policy", 20, policy="maxcompute")
    partition.decide_after(30)
    return partition


def late_evidence() -> Partition:
    partition = suspended()
    partition.clock(200)
    top_up(partition, 2, "28.4", 23.5)
    partition.decide_after(200)
    use(partition, "after", 200)
    partition.decide_after(201)
    return partition


def deleted() -> Partition:
    partition = suspended()
    partition.decide_after(337)
    partition.decide_after(362)
    top_up(partition, "too-late", "5", 362)
    return partition


def reopened() -> Partition:
    partition = deleted()
    partition.decide_after(363)
    control(partition, "reopen", 363)
    partition.decide_after(363.5)
    return partition


def fee_missing() -> Partition:
    partition = Partition(_FEE_REQUIRED)
    partition.decide_after(0)
    bill(partition, 1, "1000", 0)
    for hour in (0, 20.01, 24.01):
        partition.decide_after(hour)
    top_up(partition, 1, "1000", 24.01)
    partition.decide_after(48)
    return partition


def fee_carried() -> Partition:
    partition = fee_missing()
    bill(partition, 2, "10", 48)
    partition.decide_after(49)
    return partition


def taken_over() -> Partition:
    partition = new()
    opening: dict[str, Any] = {
        "balance": "-12.5",
        "currency": "CNY",
        "status": "suspended",
        "arrears_since": -48,
        "sequence": 7,
    }
    control(partition, "opening", 0, **opening)
    opening |= {"balance": "3", "status": "current", "arrears_since": None}
    control(partition, "opening", 0, "a2", **opening)
    opening |= {"balance": "0", "status": "deleted"}
    control(partition, "opening", 0, "a3", **opening)
    partition.decide_after(1)
    return partition


def waiting() -> Partition:
    partition = new()
    bill(partition, "adjust", "7", 0, bill_id="not-there", kind="adjusted")
    bill(partition, "void", "0", 0.1, bill_id="not-there", kind="voided")
    bill(partition, "other", "7", 0, "a2", bill_id="nor-this", kind="adjusted")
    top_up(partition, 1, "9.99", 0)
    partition.decide_after(1)
    return partition


def adjusted() -> Partition:
    partition = new()
    for number in (3, 1, 2):
        bill(partition, number, f"{number}0", 0)
    bill(partition, "less", "5", 0.1, bill_id="bill-2", kind="adjusted")
    bill(partition, "none", "0", 0.1, bill_id="bill-3", kind="voided")
    top_up(partition, 1, "12", 0.1)
    top_up(partition, 2, "1", 0.1, kind="gift")
    top_up(partition, 3, "2", 0.1, kind="refund")
    top_up(partition, 4, "3", 0.1, kind="reversal")
    partition.decide_after(1)
    return partition


def packages() -> Partition:
    partition = new()
    buy(partition, 1, "2.000001", 0)
    buy(partition, 2, "100", 0, ends_at=2000)
    buy(partition, 3, "5", 0, ends_at=3000)
    control_of_package = {"event_id": "k4", "account_id": "a1", "package_id": "pack-3", "kind": "cancelled", "at": 0}
    partition.take("packages", **control_of_package)
    for number in range(4):
        use(partition, number, number / 60, quantity="0.750000000001", cost=f"0.12345678901{number}")
    partition.decide_after(0.1)
    use(partition, 4, 0.1)
    return partition


def beyond_64_bits() -> Partition:
    """Balances of 10^21 millionths and more; one account also has rows."""
    partition = new()
    most = "9" * 15 + ".999999"
    for number in range(30):
        bill(partition, number, most, 0, "owes")
        top_up(partition, number, most, 0, "has")
    for number in range(70):
        top_up(partition, f"r{number}", most, 0, "has-rows")
        bill(partition, f"r{number}", most, 0, "owes-rows")
    bill(partition, "wait", most, 0, "has-rows", bill_id="not-there", kind="adjusted")
    use(partition, "big", 0, "has", quantity="9" * 15, cost="9" * 15 + ".999999999999")
    use(partition, "big", 0, "owes", quantity="9" * 15, cost="-" + "9" * 15 + ".999999999999")
    for number in range(300):
        use(partition, f"r{number}", -number, "has-rows", cost="9" * 15)
    for hour in (0.1, 20.01, 24.01, 48, 200):
        partition.decide_after(hour)
    return partition


def many_bills() -> Partition:
    """More movements and bills than a head holds."""
    partition = new()
    for number in range(150):
        bill(partition, number, f"1.{number:03}", number * -0.3)
    top_up(partition, 1, "20", 0)
    for hour in (0, 1, 2):
        partition.decide_after(hour)
    return partition


def much_usage() -> Partition:
    """More ids of usage and hours of cost than a head holds."""
    partition = new()
    buy(partition, 1, "100000", -72)
    for number in range(300):
        use(partition, number, -number * 0.5)
    partition.decide_after(0)
    return partition


def for_everybody() -> Partition:
    partition = warned()
    bill(partition, 1, "5", 20, "a2")
    control(partition, "hold", 20, "*", until=30)
    control(partition, "allowance", 20, "*", duration="PT1H")
    control(partition, "policy", 20, "*", policy="maxcompute")
    dated = {"version": "1", "effective_from": "2026-01-01T00:00:00Z"}
    listed = [{"name": "maxcompute", "suspend_after": "PT12H"} | dated, {"name": "small"} | dated]
    control(partition, "policies", 20, "*", policies=listed)
    control(partition, "resume", 20, "*")
    partition.decide_after(21)
    partition.monitor.everybody.stop("max_deletes", ("delete",), partition.monitor.clock)
    partition.monitor.stop_account("a2")
    return partition


STATES: Final[dict[str, Callable[[], Partition]]] = {
    state.__name__.replace("_", "-"): state
    for state in (
        new,
        paid_up,
        undecided,
        warned,
        suspended,
        held,
        late_evidence,
        deleted,
        reopened,
        fee_missing,
        fee_carried,
        taken_over,
        waiting,
        adjusted,
        packages,
        beyond_64_bits,
        many_bills,
        much_usage,
        for_everybody,
    )
}


# Files ------------------------------------------------------------------------------------------------------------


def recovered(journal: dict[bytes, bytes]) -> Monitor:
    """A monitor that knows the journal only."""
    store = AccountStore()
    for key, value in journal.items():
        if key != _EVERYBODY:
            store.recover(key, value)
    return Monitor(decode_everybody(journal[_EVERYBODY]), LIVE, store)


def outcome(monitor: Monitor) -> dict[str, Any]:
    """What the accounts show as they stand, and what is published in the 60 days that follow."""
    views = list(monitor.views(monitor.clock))
    published = []
    start = monitor.clock
    for day in range(61):
        now = start + day * 24 * HOUR
        monitor.clock = now
        monitor.remember_from(now)
        monitor.seal()
        for past in (False, True):
            commands, notices, letters = monitor.decide(now, past=past)
            published += [*commands, *notices, *letters]
    return {"views": msgspec.to_builtins(views), "published": msgspec.to_builtins(published)}


def as_file(name: str, partition: Partition) -> dict[str, Any]:
    """The content of a golden file."""
    partition.commit()
    journal = partition.journal
    accounts: dict[str, dict[str, Any]] = {}
    for key, value in sorted(journal.items()):
        if key == _EVERYBODY:
            continue
        account_id, _, row = key.partition(_SEPARATOR)
        account = accounts.setdefault(account_id.decode(), {"head": "", "rows": {}})
        if row:
            account["rows"][row.decode()] = _text(value)
        else:
            account["head"] = _text(value)
    told = {"state": name, "version": VERSION, "everybody": _text(journal[_EVERYBODY]), "accounts": accounts}
    return told | outcome(recovered(journal))


def journal_of(file: dict[str, Any]) -> dict[bytes, bytes]:
    """The journal in a golden file."""
    journal = {_EVERYBODY: base64.b64decode(file["everybody"])}
    for account_id, account in file["accounts"].items():
        key = account_id.encode()
        journal[key] = base64.b64decode(account["head"])
        for row, value in account["rows"].items():
            journal[key + _SEPARATOR + row.encode()] = base64.b64decode(value)
    return journal


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def file_of(name: str, version: int = VERSION) -> Path:
    """Where a state of a version is kept."""
    return GOLDEN / f"v{version}-{name}.json"


def states_kept() -> list[Path]:
    """The golden files of all versions."""
    return sorted(GOLDEN.glob("v*.json"))


# Shape ------------------------------------------------------------------------------------------------------------


def shape() -> dict[str, Any]:
    """How the encoding of today is laid out: every array with its items, whatever the fields are called."""
    rows = {"m": list[Movement], "b": list[OpenBill], "u": dict[str, tuple[int, int]], "c": dict[int, int]}
    kinds = {"head": Account, "usage": codec._UsageState, "everybody": codec._EverybodyState} | rows
    found, components = msgspec.json.schema_components(kinds.values(), schema_hook=_not_encoded)
    told = {"version": VERSION, "kinds": dict(zip(kinds, found, strict=True)), "components": components}
    return {name: _without(part, ("description", "title")) for name, part in told.items()}


def _not_encoded(kind: type) -> dict[str, Any]:
    assert kind is UsageBook
    return {"type": "null"}


def _without(value: Any, names: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {name: _without(part, names) for name, part in value.items() if name not in names}
    return [_without(part, names) for part in value] if isinstance(value, list | tuple) else value


def shape_of(version: int = VERSION) -> Path:
    """Where the shape of a version is kept."""
    return GOLDEN / f"shape-v{version}.json"


# Writing ----------------------------------------------------------------------------------------------------------


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path.name} is written")  # noqa: T201


def write_states(*, again: bool) -> None:
    GOLDEN.mkdir(exist_ok=True)
    if again or not shape_of().exists():
        _write(shape_of(), shape())
    for name, state in STATES.items():
        if again or not file_of(name).exists():
            _write(file_of(name), as_file(name, state()))


def write_outcomes() -> None:
    for path in states_kept():
        file = json.loads(path.read_text(encoding="utf-8"))
        _write(path, file | outcome(recovered(journal_of(file))))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Keep today's encoded states for later releases to read.")
    parser.add_argument("--again", action="store_true", help=f"write those of version {VERSION} anew")
    parser.add_argument("--outcomes", action="store_true", help="tell anew what the kept states show and lead to")
    options = parser.parse_args()
    if options.outcomes:
        write_outcomes()
    else:
        write_states(again=options.again)
