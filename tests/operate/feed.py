"""A small cloud provider in a hurry: its accounts run into arrears and out of them within a minute.

New accounts come all the time. Most pay before the suspend mark; some after it, and are restored; some never, and are
deleted. The policy is that of `POLICY`.
"""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]

from tests.operate.prometheus import as_json

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

#: Marks within half a minute, one after the other.
POLICY: Final = """\
policies:
  - name: hurry
    version: "1"
    effective_from: 2020-01-01T00:00:00Z
    suspend_after: PT6S
    delete_after: PT18S
    min_suspended: PT6S
    lateness: {suspend: PT0S, delete: PT1S}
    notices: {suspension_ahead: [PT3S], deletion_ahead: [PT6S]}
"""

_EVERY_S: Final = 0.25
#: How long after its bill an account pays; None: never. One account after the other.
_PAYS_AFTER_S: Final = (2.0, 3.0, 10.0, 4.0, 2.5, None, 11.0, 1.5)
_CURRENCIES: Final = ("CNY", "CNY", "EUR")


class Feed:
    """Sends from `__enter__` to `__exit__`, in a thread of its own, while a broker is there."""

    def __init__(self, servers: str) -> None:
        self._servers = servers
        self._ended = Event()
        self._thread = Thread(target=lambda: asyncio.run(self._run()), name="feed")
        self._numbers = itertools.count(1)
        self._due: list[tuple[float, str, str]] = []
        #: Whether payments are sent.
        self.pays = True
        #: So many accounts that will never pay come next, at once.
        self.crowd = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    async def _run(self) -> None:
        producer: Any = AIOKafkaProducer(bootstrap_servers=self._servers, request_timeout_ms=5000, linger_ms=5)
        await producer.start()
        sending: set[asyncio.Future[None]] = set()
        try:
            while not self._ended.is_set():
                # While the broker is away records wait in the producer; those that expire are gone, as in life.
                sending |= {asyncio.ensure_future(_send(producer, *record)) for record in self._records()}
                await asyncio.sleep(_EVERY_S)
                sending = {one for one in sending if not one.done()}
        finally:
            await asyncio.wait({asyncio.ensure_future(producer.stop())}, timeout=5)

    def _records(self) -> list[tuple[str, str, Any]]:
        now = asyncio.get_running_loop().time()
        records: list[tuple[str, str, Any]] = []
        crowd, self.crowd = self.crowd, 0
        for place in range(1 + crowd):
            number = next(self._numbers)
            records += self._account(number, now, never_pays=place > 0)
        for due in [one for one in self._due if one[0] <= now]:
            self._due.remove(due)
            if self.pays:
                _, account_id, currency = due
                records.append(("payments", account_id, _payment(account_id, "300", currency)))
        return records

    def _account(self, number: int, now: float, *, never_pays: bool) -> list[tuple[str, str, Any]]:
        account_id, at = f"acct-{number:05}", _now()
        currency = _CURRENCIES[number % len(_CURRENCIES)]
        event = {"account_id": account_id}
        unit = {"service": "compute", "unit": "CU-hour"}
        period = {"started_at": at, "ended_at": at}
        records: list[tuple[str, str, Any]] = [
            (
                "packages",
                account_id,
                event
                | unit
                | {"event_id": f"p{number}", "package_id": f"pkg-{number}", "kind": "purchased", "quantity": "5"}
                | {"at": at, "starts_at": at, "ends_at": "2100-01-01T00:00:00Z"},
            ),
            (
                "usage",
                account_id,
                event | unit | period | {"event_id": f"u{number}", "usage_id": f"u{number}", "quantity": "7"},
            ),
            (
                "bills",
                account_id,
                event
                | {"event_id": f"b{number}", "bill_id": f"bill-{number}", "kind": "issued", "amount": "300"}
                | {"currency": currency, "issued_at": at},
            ),
            (
                "acks",
                account_id,
                event
                | {"event_id": f"a{number}", "command_id": "7a6f2a66-0f9b-5a51-9d0e-8f6f5a2c1f10"}
                | {"subscriber": "compute", "status": "applied", "at": at},
            ),
        ]
        if number % 20 == 0:
            records.append(("usage", account_id, event | {"event_id": f"x{number}"}))  # a dead letter
            limit = {"kind": "credit_limit", "amount": "1", "actor": "feed", "reason": "tried", "at": at}
            records.append(("controls", account_id, event | limit | {"event_id": f"c{number}"}))
        after = None if never_pays else _PAYS_AFTER_S[number % len(_PAYS_AFTER_S)]
        if after is not None:
            self._due.append((now + after, account_id, currency))
        return records


async def _send(producer: Any, topic: str, account_id: str, record: Any) -> None:
    try:
        await producer.send_and_wait(topic, as_json(record), key=account_id.encode())
    except KafkaError:
        return  # the broker is away: that is the drill


def _payment(account_id: str, amount: str, currency: str) -> Any:
    paid = {"account_id": account_id, "kind": "topup", "amount": amount, "currency": currency, "paid_at": _now()}
    return paid | {"event_id": f"pay-{account_id}", "payment_id": f"pay-{account_id}"}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
