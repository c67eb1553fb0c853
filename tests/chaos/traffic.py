"""Made-up customers, for a few minutes each: what they are billed, what they pay and when, and what goes wrong.

A plan is a function of its seed. Its times are seconds after the run's start; the instants in the records are those at
which they are to be sent, so what a broken broker holds up arrives late. The policies are the rule in seconds: marks
fall while the run goes on.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tests.chaos.arrivals import partition_of
from tests.oracle.values import SECOND, format_instant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: The first is that of most accounts; a `policy` control chooses another.
POLICIES: Final = """policies:
  - name: quick
    version: "1"
    effective_from: 2020-01-01T00:00:00Z
    suspend_after: PT5S
    delete_after: PT16S
    min_suspended: PT5S
    late_fee_per_day: "7.5"
    lateness: {suspend: PT0.5S, delete: PT1.5S}
    notices: {suspension_ahead: [PT2S], deletion_ahead: [PT6S, PT3S]}
  - name: silent
    version: "1"
    effective_from: 2020-01-01T00:00:00Z
    suspend_after: PT3S
    delete_after: PT10S
    min_suspended: PT4S
    lateness: {suspend: PT0S, delete: PT1S}
    notices: {suspension_ahead: [], deletion_ahead: []}
  - name: from-the-suspension
    version: "1"
    effective_from: 2020-01-01T00:00:00Z
    suspend_after: PT4S
    delete_after: PT8S
    delete_clock: suspension
    min_suspended: PT3S
    late_fee_per_day: "0.1"
    lateness: {suspend: PT0.2S, delete: PT1S}
    notices: {suspension_ahead: [PT3S, PT1S], deletion_ahead: [PT3S]}
"""
SUSPEND_AFTER: Final = 5.0
DELETE_AFTER: Final = 16.0
CURRENCIES: Final = ("CNY", "EUR", "USD")
#: Around a mark: well before it, and so close that only the instant decides.
NEAR: Final = (-2.0, -0.4, -0.05, -0.001, 0.0, 0.000_001, 0.05, 0.4, 2.0)


class Open(NamedTuple):
    """An upstream transaction that is left open for so long, and is then committed or not."""

    seconds: float
    commits: bool
    #: Its producer has died: nobody ends it until the broker does.
    hangs: bool = False


#: After so many seconds the broker gives up a transaction whose producer has died; and looks whether there is one.
HANGING_S: Final = 6.0


@dataclass(frozen=True)
class Step:
    """One record, to be sent at so many seconds after the start."""

    at: float
    topic: str
    #: Its fields; seconds where an instant stands. Or the value itself.
    fields: dict[str, Any] | bytes | None
    key: bytes | None
    #: None: where the key belongs. A number: so many partitions further on.
    astray: int | None = None
    open: Open | None = None
    #: To each partition: a control for everybody.
    everywhere: bool = False

    def value(self, start: int) -> bytes | None:
        """The record as it is sent in a run that begins at an instant."""
        if not isinstance(self.fields, dict):
            return self.fields
        written = {name: _instant(value, start) if name in TIMES else value for name, value in self.fields.items()}
        return json.dumps(written, separators=(",", ":")).encode()

    def partitions(self, count: int) -> list[int]:
        """Where it is sent."""
        if self.everywhere:
            return list(range(count))
        place = 0 if self.key is None else partition_of(self.key, count)
        return [(place + (self.astray or 0)) % count]


TIMES: Final = frozenset(
    (
        *("issued_at", "paid_at", "started_at", "ended_at", "starts_at", "ends_at", "period_end"),
        *("at", "until", "arrears_since"),
    )
)


def _instant(value: Any, start: int) -> Any:
    return format_instant(start + round(value * SECOND)) if isinstance(value, int | float) else value


@dataclass
class Life:
    """One customer's records."""

    account: str
    start: float
    random: random.Random
    currency: str
    steps: list[Step] = field(default_factory=list)
    count: int = 0

    def _event(self, kind: str) -> str:
        self.count += 1
        return f"{self.account}-{kind}-{self.count}"

    def send(self, topic: str, at: float, fields: dict[str, Any], **how: Any) -> dict[str, Any]:
        """Now and then a record comes twice."""
        fields = {"event_id": self._event(topic), "account_id": self.account} | fields
        step = Step(self.start + at, topic, fields, self.account.encode(), **how)
        self.steps.append(step)
        if step.open is None and self.random.random() < 0.06:
            again = at + self.random.choice((0.01, 0.5, 6.0))
            self.steps.append(Step(self.start + again, topic, fields, step.key, step.astray))
        return fields

    def bill(self, at: float, amount: str, bill_id: str = "b1", **other: Any) -> dict[str, Any]:
        fields = {
            "bill_id": bill_id,
            "kind": "issued",
            "amount": amount,
            "currency": self.currency,
            "issued_at": self.start + at,
        }
        how = {name: other.pop(name) for name in ("open", "astray") if name in other}
        return self.send("bills", at, fields | other, **how)

    def pay(self, at: float, amount: str, kind: str = "topup", **other: Any) -> dict[str, Any]:
        fields = {
            "payment_id": f"p{self.count}",
            "kind": kind,
            "amount": amount,
            "currency": self.currency,
            "paid_at": self.start + at,
        }
        how = {name: other.pop(name) for name in ("open", "astray") if name in other}
        return self.send("payments", at, fields | other, **how)

    def control(self, at: float, kind: str, **fields: Any) -> dict[str, Any]:
        return self.send(
            "controls", at, {"kind": kind, "actor": "ops.li", "reason": "chaos", "at": self.start + at} | fields
        )

    def use(self, at: float, cost: str = "0.25", service: str = "compute") -> dict[str, Any]:
        fields = {
            "usage_id": f"u{self.count}",
            "service": service,
            "quantity": "1",
            "unit": "h",
            "cost": cost,
            "currency": self.currency,
            "started_at": self.start + at - 0.8,
            "ended_at": self.start + at,
        }
        return self.send("usage", at, fields)

    def buy(self, at: float, quantity: str, package_id: str = "pack") -> dict[str, Any]:
        fields = {
            "package_id": package_id,
            "kind": "purchased",
            "service": "download",
            "quantity": quantity,
            "unit": "h",
            "at": self.start + at,
            "starts_at": self.start + at,
            "ends_at": self.start + at + 3600,
        }
        return self.send("packages", at, fields)

    def raw(self, topic: str, at: float, value: dict[str, Any] | bytes | None, **how: Any) -> None:
        """Whatever it is."""
        how = {"key": self.account.encode()} | how
        self.steps.append(Step(self.start + at, topic, value, **how))

    def near(self, mark: float) -> float:
        return mark + self.random.choice(NEAR)


# What customers do ----------------------------------------------------------------------------------------------------


def pays_in_time(life: Life) -> None:
    life.pay(0, "100")
    for hour in range(life.random.randrange(3, 8)):
        life.use(hour + 0.5, service=life.random.choice(("compute", "download", "storage")))
    life.bill(4, "60", period_end=life.start + 3)
    life.bill(9, "39.999999", "b2")


def pays_at_the_suspend_mark(life: Life) -> None:
    life.bill(0, "30")
    life.pay(life.near(SUSPEND_AFTER), "30")


def pays_at_the_delete_mark(life: Life) -> None:
    life.bill(0, "30.5")
    life.use(1)
    life.use(8)
    life.pay(life.near(DELETE_AFTER), "30.5")


def pays_late(life: Life) -> None:
    life.bill(0, "12")
    life.bill(2, "8", "b2")
    life.pay(SUSPEND_AFTER + life.random.uniform(1, 9), "20")


def pays_a_part(life: Life) -> None:
    life.bill(0, "50")
    life.bill(1, "7", "b2")
    life.pay(3, "49.999999")
    life.pay(9, "7")
    life.use(12)


def never_pays(life: Life) -> None:
    life.pay(0, "5")
    life.bill(1, "5.000001")
    for hour in range(6):
        life.use(2 + 2.5 * hour)


def pays_after_the_delete(life: Life) -> None:
    life.bill(0, "9")
    life.pay(DELETE_AFTER + 6, "9")


def comes_back(life: Life) -> None:
    life.bill(0, "9")
    life.pay(DELETE_AFTER + 5, "4")
    life.control(DELETE_AFTER + 9, "reopen")
    life.pay(DELETE_AFTER + 9 + life.near(SUSPEND_AFTER), "5")


def pays_in_an_open_transaction(life: Life) -> None:
    """Sent before the mark, committed behind it: the fence has to wait."""
    life.bill(0, "44")
    mark = life.random.choice((SUSPEND_AFTER, DELETE_AFTER))
    life.pay(mark - life.random.uniform(0.1, 1.5), "44", open=Open(life.random.uniform(2, 5), commits=True))


def pays_in_an_aborted_transaction(life: Life) -> None:
    life.bill(0, "44")
    mark = life.random.choice((SUSPEND_AFTER, DELETE_AFTER))
    life.pay(mark - life.random.uniform(0.1, 1), "44", open=Open(life.random.uniform(0.2, 3), commits=False))


def pays_in_a_hanging_transaction(life: Life) -> None:
    life.bill(0, "44")
    life.pay(SUSPEND_AFTER - life.random.uniform(0.1, 1), "44", open=Open(HANGING_S, commits=False, hangs=True))


def is_billed_in_a_transaction(life: Life) -> None:
    life.bill(0, "3", open=Open(life.random.uniform(0.1, 2), commits=life.random.random() < 0.7))
    life.bill(2, "4", "b2")


def charges_back(life: Life) -> None:
    life.pay(0, "80")
    life.bill(1, "30")
    life.pay(2, "51", "reversal")
    if life.random.random() < 0.5:
        life.pay(life.near(2 + SUSPEND_AFTER), "1")


def is_refunded(life: Life) -> None:
    life.pay(0, "20")
    life.pay(0.5, "1000", "gift")
    life.bill(1, "15")
    life.pay(2, "5.5", "refund")
    life.pay(12, "0.5")


def has_its_bill_adjusted(life: Life) -> None:
    life.bill(0, "70")
    life.bill(1, "10", "b2")
    life.pay(2, "60")
    life.bill(life.near(SUSPEND_AFTER), "49.5", "b1", kind="adjusted")
    life.bill(life.near(11), "0", "b2", kind="voided")


def has_an_adjustment_before_its_bill(life: Life) -> None:
    life.bill(3, "10")
    life.bill(2.5, "4", "b2", kind="adjusted", issued_at=life.start + 4)
    life.bill(3.5, "90", "b2", issued_at=life.start + 3.2)
    life.pay(8, "14")


def is_held(life: Life) -> None:
    life.bill(0, "25")
    freeze = life.random.random() < 0.5
    begins = life.random.choice((1.0, 4.5, 7.0, 12.0))
    ends = begins + life.random.uniform(2, 6)
    if life.random.random() < 0.5:
        life.control(begins, "hold", freeze_clock=freeze, until=life.start + ends)
    else:
        life.control(begins, "hold", freeze_clock=freeze)
        life.control(ends, "release")
    if life.random.random() < 0.3:
        life.pay(life.near(ends), "25")


def is_exempt(life: Life) -> None:
    life.bill(0, "25")
    life.control(8, "exempt", until=life.start + 11)
    if life.random.random() < 0.5:
        life.pay(life.near(11), "25")


def is_given_time(life: Life) -> None:
    life.bill(0, "25")
    duration = life.random.choice(("PT3S", "PT0S", "PT6S"))
    life.control(life.random.choice((1.0, 4.0, 9.0)), "allowance", duration=duration)
    if life.random.random() < 0.4:
        life.pay(life.near(SUSPEND_AFTER + 3), "25")


def is_given_credit(life: Life) -> None:
    life.control(0, "credit_limit", amount="20")
    life.bill(1, "20")
    life.bill(3, "0.01", "b2")
    life.control(life.near(3 + SUSPEND_AFTER), "credit_limit", amount="20.01")
    life.control(16, "credit_limit", amount="0")


def has_another_policy(life: Life) -> None:
    life.control(0, "policy", policy=life.random.choice(("silent", "from-the-suspension")))
    life.bill(1, "33")
    mark = life.random.choice((4.0, 5.0, 11.0, 13.0))
    if life.random.random() < 0.6:
        life.pay(life.near(mark), "33")


def is_taken_over(life: Life) -> None:
    status = life.random.choice(("current", "in_arrears", "suspended", "deleted"))
    balance = "4" if status == "current" else "-6"
    since = {} if status in ("current", "deleted") else {"arrears_since": life.start - 3}
    opening = {"balance": balance, "currency": life.currency, "status": status, "sequence": 7}
    life.control(0, "opening", **opening, **since)
    life.bill(3, "5")
    if life.random.random() < 0.5:
        life.pay(life.near(9), "11")


def buys_packages(life: Life) -> None:
    life.pay(0, "50")
    life.buy(0.2, "2.5")
    for hour in range(4):
        life.use(2 + hour, service="download")
    life.bill(7, "50.5")
    life.use(life.near(7 + SUSPEND_AFTER), "0.1")
    life.send(
        "packages",
        8,
        {"package_id": "pack", "kind": "cancelled", "at": life.start + 8},
    )


def goes_back_and_forth(life: Life) -> None:
    """In and out of arrears, suspended now and then: many commands of one account."""
    at = 0.0
    for number in range(4):
        life.bill(at, "10", f"b{number}")
        at += life.random.choice((0.3, 2.0, SUSPEND_AFTER + 1.5))
        life.pay(at, "10")
        at += life.random.uniform(0.2, 1)


def is_busy(life: Life) -> None:
    at = 0.0
    for number in range(60):
        life.bill(at, "10", f"b{number}")
        life.use(at + 0.05)
        life.pay(at + life.random.uniform(-0.2, 0.4), life.random.choice(("10", "9", "11")))
        at += 0.3
    life.send(
        "acks",
        5,
        {
            "command_id": "00000000-0000-5000-8000-000000000000",
            "subscriber": "compute",
            "status": "applied",
            "at": life.start + 5,
        },
    )


STORIES: Final[tuple[tuple[Callable[[Life], None], float], ...]] = (
    (pays_in_time, 8),
    (pays_at_the_suspend_mark, 8),
    (pays_at_the_delete_mark, 10),
    (pays_late, 6),
    (pays_a_part, 5),
    (never_pays, 5),
    (pays_after_the_delete, 3),
    (comes_back, 3),
    (pays_in_an_open_transaction, 3),
    (pays_in_an_aborted_transaction, 2),
    (pays_in_a_hanging_transaction, 0.5),
    (is_billed_in_a_transaction, 1),
    (charges_back, 4),
    (is_refunded, 3),
    (has_its_bill_adjusted, 4),
    (has_an_adjustment_before_its_bill, 2),
    (is_held, 5),
    (is_exempt, 3),
    (is_given_time, 4),
    (is_given_credit, 4),
    (has_another_policy, 6),
    (is_taken_over, 3),
    (buys_packages, 4),
    (goes_back_and_forth, 3),
    (is_busy, 1),
)


# What is sent broken --------------------------------------------------------------------------------------------------

DAY_S: Final = 86_400.0


def _unreadable(life: Life, topic: str) -> None:
    value = life.random.choice((b"{broken", b"\xff\xfe\x00", b"", b"[]", b'{"event_id":"e"}', b"null", None))
    life.raw(topic, 2, value)


def _no_key(life: Life, topic: str) -> None:
    life.raw(topic, 2, life.steps[0].fields, key=None)


def _another_key(life: Life, topic: str) -> None:
    life.raw(topic, 2, _sample(life, topic), key=f"{life.account}-other".encode())


def _another_partition(life: Life, topic: str) -> None:
    life.raw(topic, 2, _sample(life, topic), astray=1)


def _too_early(life: Life, topic: str) -> None:
    life.raw(topic, 2, _dated(_sample(life, topic), life.start + DAY_S))


def _too_late(life: Life, topic: str) -> None:
    life.raw(topic, 2, _dated(_sample(life, topic), life.start - 100 * DAY_S))


def _huge(life: Life, topic: str) -> None:
    life.raw(topic, 2, b'{"event_id":"' + b"x" * 900_000)


def _wrong_content(life: Life, topic: str) -> None:
    sample = _sample(life, topic)
    name = life.random.choice([name for name in sample if name not in ("cost", "period_end", "until", "detail")])
    life.raw(topic, 2, sample | {name: life.random.choice((None, "", "1e3", "-1", 17, "yesterday"))})


def _conflict(life: Life, topic: str) -> None:
    sample = _sample(life, topic)
    life.raw(topic, 2, sample)
    life.raw(topic, 2.5, _dated(sample, life.start + 2.25))


FAULTS: Final = (
    _unreadable,
    _unreadable,
    _no_key,
    _another_key,
    _another_partition,
    _too_early,
    _too_late,
    _wrong_content,
    _conflict,
)


def _sample(life: Life, topic: str) -> dict[str, Any]:
    """A good record that changes little."""
    life.count += 1
    fields: dict[str, Any] = {"event_id": f"{life.account}-bad-{life.count}", "account_id": life.account}
    at = life.start + 2
    match topic:
        case "bills":
            more = {"bill_id": f"x{life.count}", "kind": "issued", "amount": "0.01", "currency": life.currency}
            return fields | more | {"issued_at": at}
        case "payments":
            more = {"payment_id": f"x{life.count}", "kind": "topup", "amount": "0.01", "currency": life.currency}
            return fields | more | {"paid_at": at}
        case "usage":
            more = {"usage_id": "x", "service": "storage", "quantity": "1", "unit": "GB"}
            return fields | more | {"started_at": at - 1, "ended_at": at}
        case "packages":
            more = {"package_id": f"x{life.count}", "kind": "purchased", "service": "storage", "quantity": "9"}
            return fields | more | {"unit": "TB", "at": at, "starts_at": at, "ends_at": at + 99}
        case "controls":
            return fields | {"kind": "credit_limit", "amount": "0.02", "actor": "ops", "reason": "chaos", "at": at}
        case _:
            more = {"notice_id": "00000000-0000-5000-8000-000000000001", "subscriber": "mail", "status": "applied"}
            return fields | more | {"at": at}


def _dated(fields: dict[str, Any], at: float) -> dict[str, Any]:
    name = next((name for name in ("issued_at", "paid_at", "ended_at") if name in fields), "at")
    return fields | {name: at}


def _special(life: Life, topic: str) -> None:
    """What a record does to those before it."""
    match topic:
        case "bills":
            bill = life.bill(2, "0.5", "special")
            life.raw(topic, 3, _again(bill, life, amount="0.7"))  # a second bill of that id
            life.raw(topic, 3.2, _again(bill, life, currency="CHF", bill_id="special-2"))
            life.raw(topic, 3.4, _again(bill, life, kind="adjusted", issued_at=life.start + 1))  # dated before it
            life.raw(topic, 3.6, _again(bill, life, kind="voided", amount="0", issued_at=life.start + 3.6))
            life.raw(topic, 4, _again(bill, life, kind="voided", amount="0", issued_at=life.start + 4))
            life.raw(topic, 4.2, _again(bill, life, kind="adjusted", amount="3", issued_at=life.start + 4.2))
        case "packages":
            life.raw(topic, 2, _again(_sample(life, topic), life, kind="cancelled"))
            pack = life.buy(3, "3", "special")
            life.raw(topic, 4, _again(pack, life))
        case "payments":
            paid = life.pay(2, "0.5")
            life.raw(topic, 3, _again(paid, life))
        case "controls":
            life.control(2, "credit_limit", amount="0.03")
            life.raw(topic, 3, _again(_sample(life, topic), life, kind="reopen"))
            opening = {"kind": "opening", "balance": "5", "status": "current", "sequence": 3, "currency": "CNY"}
            life.raw(topic, 4, _again(_sample(life, topic), life, **opening))
            life.raw(topic, 5, _again(_sample(life, topic), life, kind="policy", policy="nobody's"))
            life.raw(topic, 6, _again(_sample(life, topic), life, kind="hold", until=life.start + 1))
        case _:
            _conflict(life, topic)


def _again(fields: dict[str, Any], life: Life, **other: Any) -> dict[str, Any]:
    life.count += 1
    return fields | {"event_id": f"{life.account}-again-{life.count}"} | other


# The whole ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """All customers of a run; each one's records in the order in which they are sent."""

    seed: int
    lives: tuple[tuple[Step, ...], ...]

    def steps(self) -> Iterator[Step]:
        """All, by time."""
        yield from sorted((step for steps in self.lives for step in steps), key=lambda step: step.at)

    @property
    def accounts(self) -> set[str]:
        """All customers; `*` too."""
        first = (steps[0].fields for steps in self.lives)
        named = (fields["account_id"] for fields in first if isinstance(fields, dict))
        return {account_id for account_id in named if isinstance(account_id, str)}  # a record may be spoilt

    @property
    def seconds(self) -> float:
        """When the last is sent."""
        return max(step.at for steps in self.lives for step in steps)


def plan(
    seed: int,
    *,
    accounts: int,
    seconds: float,
    after: float = 0,
    bad: float = 0.1,
    unusable_payments: bool = False,
    upstream: bool = True,
) -> Plan:
    """Customers that begin within so many seconds from `after` on; `bad`: the part of them with records of no use.

    An unusable payment stops its account until a `resume`, so there are none unless asked for.
    """
    dice = random.Random(seed)
    stories = [story for story in STORIES if upstream or not story[0].__name__.endswith("_transaction")]
    lives = []
    topics = ("bills", "usage", "packages", "controls", "acks") + (("payments",) if unusable_payments else ())
    for number in range(accounts):
        begins = after + 0.5 + seconds * number / accounts + dice.random() * 0.5
        life = Life(f"acct-{seed}-{number:05}", round(begins, 6), dice, dice.choice(CURRENCIES))
        (story,) = dice.choices([story for story, _ in stories], [weight for _, weight in stories])
        story(life)
        if dice.random() < bad:
            topic = dice.choice(topics)
            choices = (*FAULTS, _special, _special) + ((_huge,) if dice.random() < 0.2 else ())
            dice.choice(choices)(life, topic)
            if topic == "payments":
                life.control(dice.uniform(4, 12), "resume")
        lives.append(tuple(sorted(life.steps, key=lambda step: step.at)))
    lives.append(tuple(_for_everybody(seed, dice, after, after + seconds)))
    return Plan(seed, tuple(lives))


def closing(account: str, at: float) -> Step:
    """A hold of a second, when all is done: the account's last view shows what usage has come to."""
    fields = {"event_id": f"{account}-closing", "account_id": account, "kind": "hold", "actor": "ops.li"}
    return Step(at, "controls", fields | {"reason": "closing", "at": at, "until": at + 1}, account.encode())


def _for_everybody(seed: int, dice: random.Random, begins: float, ends: float) -> Iterator[Step]:
    """A hold of all in the middle; and an operator who looks at the guards each quarter of a minute."""
    middle = round(begins + (ends - begins) * dice.uniform(0.4, 0.6), 3)
    yield for_everybody(f"{seed}", middle, "hold", until=middle + 2, freeze_clock=dice.random() < 0.5)
    at = begins + 15
    while at < ends + 15:
        yield for_everybody(f"{seed}", at, "resume")
        at += 15


def for_everybody(name: str, at: float, kind: str, **fields: Any) -> Step:
    """A control for all accounts of all partitions."""
    names = {"event_id": f"all-{name}-{kind}-{at}", "account_id": "*", "kind": kind}
    return Step(
        at, "controls", names | {"actor": "ops.wang", "reason": "chaos", "at": at} | fields, b"*", everywhere=True
    )
