"""A seeded month of a small cloud provider, as the records that its systems would have sent.

Every account is a small simulation: it uses compute, download and storage by the hour, gets a bill a few minutes
after midnight (UTC) for exactly the day before, and pays by its rhythm. Some live one of the `STORIES`: what goes
wrong is data there, step by step. Accounts know just enough of the built-in rule (24 h, 360 h) to stop using what
has been suspended; nothing here decides anything.

Laws: the same `Sample` gives the same bytes (no float, no clock, no hash order takes part); records come in order
of their instants; memory grows with the accounts, not with the days.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import lru_cache
from heapq import heappop, heappush
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypeVar, assert_never

import msgspec

from models.instants import (
    DAY,
    HOUR,
    LAST_INSTANT,
    MINUTE,
    SECOND,
    Duration,
    Instant,
    format_duration,
    format_instant,
    parse_instant,
)
from models.money import Money, format_money

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

T = TypeVar("T")
Value: TypeAlias = dict[str, object]

Topic: TypeAlias = Literal["bills", "payments", "usage", "packages", "controls"]
TOPICS: Final[tuple[Topic, ...]] = ("bills", "payments", "usage", "packages", "controls")

MAX_ACCOUNTS: Final = 100_000
MAX_DAYS: Final = 400

UNIT: Final[Money] = 1_000_000
CENT: Final[Money] = 10_000

_START: Final = parse_instant("2026-01-01T00:00:00Z")
_SUSPEND_AFTER: Final = 24 * HOUR  # 1.1.2
_DELETE_AFTER: Final = 360 * HOUR  # 1.1.3


# ---------------------------------------------------------------------------------------------- what is asked for


@dataclass(frozen=True)
class Sample:
    """What to generate. `start` is a midnight in UTC; ValueError says what is out of bounds."""

    accounts: int = 60
    days: int = 31
    seed: int = 7
    start: Instant = _START
    currency: str = "CNY"
    hourly: bool = True
    """Compute and download by the hour (storage is metered by the day); False: one record a day and service."""

    def __post_init__(self) -> None:
        if not 1 <= self.accounts <= MAX_ACCOUNTS:
            raise ValueError(f"accounts must be from 1 to {MAX_ACCOUNTS}, not {self.accounts}")
        if not 1 <= self.days <= MAX_DAYS:
            raise ValueError(f"days must be from 1 to {MAX_DAYS}, not {self.days}")
        if not re.fullmatch("[A-Z]{3}", self.currency):
            raise ValueError(f"currency must be three capital letters such as CNY, not {self.currency!r}")
        if self.start % DAY:
            raise ValueError(f"start must be a midnight in UTC, not {format_instant(self.start)}")
        if self.start + 1000 * DAY > LAST_INSTANT:
            raise ValueError("start must lie at least 1000 days before the end of the year 9999")

    @property
    def end(self) -> Instant:
        """The last instant of the sample: the last day's usage ends then."""
        return self.start + self.days * DAY


@dataclass(frozen=True)
class SampleSummary:
    """What has been written."""

    records: Mapping[str, int]
    """File name ("bills.jsonl") to number of records."""
    stories: Mapping[str, tuple[str, ...]]
    """Name of the story to the accounts that live it; every name of `STORIES` is there."""


# --------------------------------------------------------------------------------------------------- the stories


class What(Enum):
    """What can happen to an account; the first group is its daily life, the second one takes a story."""

    BILL = auto()
    TOP_UP = auto()
    OPEN = auto()
    BEGIN = auto()
    SUSPEND = auto()
    DELETE = auto()
    LEAK_ENDS = auto()

    PAY_ALL = auto()
    PAY_PART = auto()
    GIFT = auto()
    REVERSE = auto()
    REFUND = auto()
    ADJUST = auto()
    VOID = auto()
    HOLD = auto()
    RELEASE = auto()
    EXEMPT = auto()
    ALLOW = auto()
    REOPEN = auto()
    BUY = auto()
    BUY_AGAIN = auto()
    CANCEL = auto()


Ends: TypeAlias = tuple[int, int]  # both included


@dataclass(frozen=True)
class Step:
    """Something a story does: so many days, and so many hours more, after what it counts from."""

    what: What
    days: Ends = (0, 0)
    hours: Ends = (8, 20)
    cover: Ends = (8, 14)
    """Of PAY_ALL: for how many days the payment lasts beyond what is owed; (0, 0): it pays exactly that."""


@dataclass(frozen=True)
class Story:
    """What goes wrong with an account, as data."""

    name: str
    told: str
    share: int
    """How often, in 10,000 accounts."""
    arrears: tuple[tuple[Step, ...], ...] = ()
    """What follows the first, the second … time arrears begin, counted from that instant."""
    calendar: tuple[Step, ...] = ()
    """What happens anyhow, counted from the midnight before the story begins: from the next day on."""
    cover: Ends = (1, 3)
    """For how many days the account has money when the story begins; (0, 0): none is paid in."""
    careless: bool = True
    """Stops paying by its rhythm until the story is over."""
    lasts: int = 0
    """Days from the first arrears (or from the beginning, if not careless) to the end of the story."""
    spike: int = 0
    """So many days after the beginning a runaway job burns a multiple of an ordinary day."""
    leaks: bool = False
    """Compute goes on for a while after the suspension."""
    some_credit: bool = False
    """One in four of these accounts has a small credit limit."""
    joins: bool = False
    """Becomes a customer when its story begins, past the middle of the sample."""

    @property
    def troubled(self) -> bool:
        """Whether anything happens at all."""
        return self.lasts > 0


# The order is that in which accounts are reserved for them: a sample of a handful lives the first few.
_STORIES: Final = (
    Story("pays", "pays before the money runs out: weekly, monthly, when it is low, or on credit", 8_710),
    Story(
        "pays_in_time",
        "in arrears, pays within 24 hours: nothing is suspended",
        500,
        ((Step(What.PAY_ALL, hours=(3, 20)),),),
        lasts=1,
        some_credit=True,
    ),
    Story(
        "pays_late",
        "suspended after 24 hours, pays days later: restored",
        250,
        ((Step(What.PAY_ALL, days=(1, 4)),),),
        lasts=5,
        some_credit=True,
    ),
    Story("never_pays", "suspended, deleted after 15 days", 80, ((),), lasts=16),
    Story(
        "pays_partly",
        "suspended, pays a part and stays suspended, then the rest: restored",
        60,
        ((Step(What.PAY_PART, days=(1, 2)), Step(What.PAY_ALL, days=(3, 5))),),
        lasts=6,
    ),
    Story(
        "relapse",
        "suspended and restored, and a few days later once more",
        60,
        (
            (Step(What.PAY_ALL, days=(1, 2), cover=(1, 2)),),
            (Step(What.PAY_ALL, days=(1, 3)),),
        ),
        lasts=12,
        some_credit=True,
    ),
    Story(
        "chargeback",
        "the bank takes a top-up back: in arrears, suspended, pays another way",
        30,
        ((Step(What.PAY_ALL, days=(1, 2), hours=(6, 16)),),),
        (Step(What.REVERSE, days=(5, 8)),),
        cover=(20, 25),
        careless=False,
        lasts=12,
    ),
    Story(
        "disputed",
        "a runaway job's bill is disputed and adjusted down, which restores the account; another bill is voided",
        50,
        ((Step(What.ADJUST, days=(1, 1)),),),
        (Step(What.VOID, days=(12, 14)),),
        cover=(8, 9),
        careless=False,
        lasts=15,
        spike=3,
    ),
    Story(
        "gift_only",
        "has gift credit only, which pays no bill: suspended",
        60,
        ((Step(What.GIFT, days=(2, 3)),),),
        cover=(0, 0),
        lasts=4,
        joins=True,
    ),
    Story(
        "package",
        "a prepaid package is used up, then pay-as-you-go",
        100,
        calendar=(Step(What.BUY, days=(1, 1)),),
        cover=(8, 12),
        careless=False,
        lasts=12,
    ),
    Story(
        "hold",
        "an operator's hold stops the clock over the suspend mark; released, the rest of the day runs out: suspended",
        10,
        (
            (
                Step(What.HOLD, hours=(8, 14)),
                Step(What.RELEASE, days=(3, 3), hours=(9, 12)),
                Step(What.PAY_ALL, days=(5, 6)),
            ),
        ),
        lasts=7,
    ),
    Story(
        "exempt",
        "suspended, exempted by an operator, who restores it, and pays before the exemption ends",
        10,
        ((Step(What.EXEMPT, days=(1, 1), hours=(3, 8)), Step(What.PAY_ALL, days=(5, 8))),),
        lasts=12,
    ),
    Story(
        "allowance",
        "asks for time and is granted it: pays late, but before the moved mark",
        20,
        ((Step(What.ALLOW, hours=(8, 16)), Step(What.PAY_ALL, days=(2, 3))),),
        lasts=4,
    ),
    Story(
        "refund",
        "has a part of the money paid back to the card and stays current",
        30,
        calendar=(Step(What.REFUND, days=(8, 12)),),
        cover=(30, 45),
        careless=False,
        lasts=13,
    ),
    Story(
        "breach",
        "suspended, but its compute goes on for hours: usage while suspended",
        10,
        ((Step(What.PAY_ALL, days=(3, 4)),),),
        lasts=5,
        leaks=True,
    ),
    Story(
        "pays_after_delete",
        "deleted after 15 days and pays a day later: recorded, nothing comes back",
        10,
        ((Step(What.PAY_ALL, days=(16, 16), cover=(0, 0)),),),
        lasts=17,
    ),
    Story(
        "reopened",
        "deleted after 15 days, pays, and an operator reopens the account",
        10,
        ((Step(What.PAY_ALL, days=(15, 15), hours=(9, 12)), Step(What.REOPEN, days=(15, 15), hours=(14, 17))),),
        lasts=17,
    ),
)
STORIES: Final[Mapping[str, str]] = {story.name: story.told for story in _STORIES}
"""Name of each story to the sentence that tells it."""

# Who says it and why. An account keeps to its column, so that a release answers its hold; `{}` is a ticket's number.
_SAID: Final[Mapping[What, tuple[tuple[str, str], ...]]] = {
    What.OPEN: (
        ("sales.wang", "Framework contract FC-2025-{}: net 30, limit as annexed"),
        ("sales.kowalski", "University procurement, purchase order {} on file, pays after the month"),
        ("finance.zhao", "Credit check {} passed (grade A), limit approved by the finance committee"),
    ),
    What.HOLD: (
        ("support.lin", "Ticket {}: bank transfer announced, remittance slip received, value date pending"),
        ("finance.zhao", "Ticket {}: a transfer without a reference has come in, being matched by hand"),
        ("support.meyer", "Ticket {}: amount under clarification with the customer's accounting"),
    ),
    What.RELEASE: (
        ("support.lin", "Ticket {}: the announced transfer never arrived"),
        ("finance.zhao", "Ticket {}: the unmatched transfer was another customer's"),
        ("support.meyer", "Ticket {} closed: the amount stands, customer told"),
    ),
    What.EXEMPT: (
        ("ops.chen", "Ticket {}: county hospital, service may not stop, written commitment to pay"),
        ("ops.garcia", "Ticket {}: flood relief, customers in the province are spared for ten days"),
        ("ops.chen", "Ticket {}: election office, service may not stop before the count is over"),
    ),
    What.ALLOW: (
        ("support.lin", "Ticket {}: asks for three more days, good payment history, team lead agrees"),
        ("sales.wang", "Ticket {}: the customer's invoice approval takes longer, delay-stop granted"),
        ("support.meyer", "Ticket {}: card replaced by the bank, new one expected, delay-stop granted"),
    ),
    What.REOPEN: (
        ("ops.chen", "Ticket {}: paid everything, accepts in writing that the data is gone"),
        ("support.meyer", "Ticket {}: paid after the deletion, starts anew under the same account"),
        ("support.lin", "Ticket {}: was on leave when the money ran out, has paid, wants to go on"),
    ),
}


# ------------------------------------------------------------------------------------------ prices, rhythms, dice


@dataclass(frozen=True)
class Tariff:
    """A service, what it costs and how much of it is used."""

    service: str
    unit: str
    price: int
    """Thousandths of the currency unit for one unit."""
    base: int
    """Thousandths of the unit that the smallest account uses in an average hour (storage: in a day)."""


_COMPUTE: Final = Tariff("compute", "hour", 350, 500)
_DOWNLOAD: Final = Tariff("download", "GB", 800, 60)
_STORAGE: Final = Tariff("storage", "GB-day", 4, 40_000)

# Load in per cent of an average hour, by hour (UTC) and by weekday (from Monday): an office, and a shop that is
# busiest in the evening and at the week-end.
_LOADS: Final = (
    (8, 6, 5, 5, 5, 8, 18, 45, 105, 180, 215, 225, 185, 200, 225, 220, 205, 170, 120, 85, 60, 45, 35, 25),
    (60, 42, 30, 24, 22, 25, 38, 60, 80, 95, 105, 115, 125, 120, 112, 112, 120, 140, 165, 185, 195, 175, 140, 95),
)
_WEEKS: Final = ((110, 115, 115, 112, 104, 42, 36), (92, 92, 94, 98, 106, 116, 110))

# (of 100 accounts, size): most are small, a few are most of the business.
_SIZES: Final = ((30, 1), (35, 4), (25, 18), (8, 90), (2, 450))


class Rhythm(Enum):
    """How an account pays when nothing is wrong."""

    WEEKLY = auto()
    MONTHLY = auto()
    WHEN_LOW = auto()
    ON_CREDIT = auto()


_RHYTHMS: Final = ((30, Rhythm.WEEKLY), (25, Rhythm.MONTHLY), (33, Rhythm.WHEN_LOW), (12, Rhythm.ON_CREDIT))
# For how many average days a top-up fills the account.
_FILL: Final = {Rhythm.WEEKLY: 10, Rhythm.MONTHLY: 37, Rhythm.WHEN_LOW: 9, Rhythm.ON_CREDIT: 0}


# A runaway job: so many times the compute of an average day.
_SPIKE: Final = 40
# Before its first arrears a story needs at most so many days: what the account has is used up.
_LEAD_DAYS: Final = 16


class Dice:
    """A linear congruential generator (Knuth's MMIX): 8 bytes an account, the same numbers everywhere."""

    __slots__ = ("_state",)

    def __init__(self, seed: int, name: str) -> None:
        digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
        self._state = int.from_bytes(digest, "big")

    def below(self, limit: int) -> int:
        """One of 0 … limit - 1; `limit` up to 2^31."""
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) & 0xFFFF_FFFF_FFFF_FFFF
        return (self._state >> 33) * limit >> 31

    def between(self, ends: Ends) -> int:
        """One of the whole numbers between the ends, these included."""
        return ends[0] + self.below(ends[1] - ends[0] + 1)


def _round_up(amount: Money) -> Money:
    """The least amount that people pay in, of 10, 15, 20, 30, 50, 80, 100, 150 …, that is not below `amount`."""
    magnitude = UNIT
    while True:
        for tenths in (10, 15, 20, 30, 50, 80):
            if tenths * magnitude >= amount:
                return tenths * magnitude
        magnitude *= 10


def _draw(table: Sequence[tuple[int, T]], dice: Dice) -> T:
    """One of the table's values, each as often as the number before it says."""
    left = dice.below(sum(share for share, _ in table))
    for share, value in table:
        left -= share
        if left < 0:
            return value
    raise AssertionError("the shares are used up before their sum")  # cannot be: below() stays under the sum


def _thousandths(quantity: int) -> str:
    return format_money(quantity * (UNIT // 1000))


@lru_cache(maxsize=16)
def _midnight(at: Instant) -> str:
    return format_instant(at)


@lru_cache(maxsize=16)
def _label(midnight: Instant) -> str:
    """Write the day as "20260101"."""
    return format_instant(midnight)[:10].replace("-", "")


def _weekday(at: Instant) -> int:
    return (at // DAY + 3) % 7  # 1970-01-01 was a Thursday


# --------------------------------------------------------------------------------------------------- one account


@dataclass(frozen=True)
class Slot:
    """What is metered together: an hour, or a day."""

    start: Instant
    end: Instant
    started_at: str
    ended_at: str
    label: str
    """In the ids of usage: "20260101T13", "20260101"."""
    loads: tuple[int, ...]
    """Load in per cent of an average hour, by the account's habit; of a day, the sum of its hours."""
    day: Instant
    """Its midnight."""
    weekday: int
    ends_day: bool


@dataclass(slots=True)
class _Package:
    tariff: Tariff
    left: int
    """Thousandths of the unit."""
    starts_at: Instant
    ends_at: Instant


_Told: TypeAlias = tuple[Instant, int, Topic, Value]  # when, index of the account, topic, value


@dataclass(slots=True, eq=False)
class _Account:
    """One customer: what is still to happen to it, its money, its services, and what was metered today."""

    sample: Sample
    index: int
    account_id: str
    story: Story
    dice: Dice
    told: list[_Told]
    """Where its records other than usage go; shared by all accounts."""

    # Who it is. Quantities are thousandths of the unit in an average hour (storage: in a day).
    rhythm: Rhythm = Rhythm.WHEN_LOW
    pay_day: int = 0
    bill_delay: Duration = 0
    habit: int = 0
    compute: int = 0
    download: int = 0
    storage: int = 0
    burn: Money = 0
    """Cost of an average day."""
    spike_day: Instant | None = None

    # What is to happen: (when, order, what, a number that goes with it).
    queue: list[tuple[Instant, int, What, int]] = field(default_factory=list)
    order: int = 0
    payments: int = 0
    controls: int = 0
    packages: int = 0

    # Its money.
    balance: Money = 0
    limit: Money = 0
    careless: bool = False
    top_up_due: bool = False
    last_top_up: tuple[str, Money] = ("", 0)
    last_bill: tuple[str, Money] = ("", 0)
    disputed: tuple[str, Money] = ("", 0)

    # Where it stands.
    since: Instant | None = None
    """Since when it is in arrears; None once it is deleted."""
    episodes: int = 0
    suspend_at: Instant | None = None
    delete_at: Instant | None = None
    allowance: Duration = 0
    held_at: Instant | None = None
    suspended: bool = False
    deleted: bool = False
    leaking: bool = False

    # What is metered: for how many thousandths of the slot (of the day) its services run.
    opened: bool = False
    share: int = 0
    share_next: int = 0
    stored: int = 0
    package: _Package | None = None
    mood: int = 100
    """Of the day, in per cent of an average one."""
    cost: Money = 0
    metered: bool = False

    def __post_init__(self) -> None:
        dice, story, start = self.dice, self.story, self.sample.start
        self.rhythm = Rhythm.WHEN_LOW if story.troubled else _draw(_RHYTHMS, dice)
        self.pay_day = dice.below(28)
        self.bill_delay = 2 * MINUTE + dice.below(7 * 60) * SECOND
        self.habit = dice.below(len(_WEEKS))
        scale = _draw(_SIZES, dice) * dice.between((60, 180))
        self.compute = _COMPUTE.base * scale // 100
        self.download = _DOWNLOAD.base * scale * dice.between((20, 250)) // 10_000
        self.storage = _STORAGE.base * scale * dice.between((20, 400)) // 10_000
        # 700: seven weekdays in per cent; 100: hours in per cent.
        week = sum(_WEEKS[self.habit]) * sum(_LOADS[self.habit])
        by_hour = self.compute * _COMPUTE.price + self.download * _DOWNLOAD.price
        self.burn = by_hour * week // (700 * 100) + self.storage * _STORAGE.price

        slack = self.sample.days - story.lasts - _LEAD_DAYS
        begins = start + (dice.below(slack) * DAY if story.troubled and slack > 0 else 0)
        if story.joins:
            begins = start + (self.sample.days * 3 // 5) * DAY
            self.after(begins, What.OPEN)
            self.after(begins, What.BEGIN, hours=(20, 21))
            return
        self.opened = True
        self.share = self.share_next = self.stored = 1000
        self.push(start + dice.below(40 * 60) * SECOND, What.OPEN)
        if not story.troubled or begins > start:
            self.after(start, What.TOP_UP, hours=(7, 20))
        if story.troubled:
            self.after(begins, What.BEGIN, hours=(7, 20))

    # ---- time

    def push(self, at: Instant, what: What, number: int = 0) -> None:
        self.order += 1
        heappush(self.queue, (at, self.order, what, number))

    def after(
        self, origin: Instant, what: What, days: Ends = (0, 0), hours: Ends = (8, 20), cover: Ends = (8, 14)
    ) -> None:
        """Schedules `what` for so many days and hours after `origin`; payment gateways stamp milliseconds."""
        at = origin + self.dice.between(days) * DAY + hours[0] * HOUR
        at += self.dice.below((hours[1] - hours[0]) * 3600) * SECOND
        if what in (What.TOP_UP, What.PAY_ALL, What.PAY_PART):
            at += self.dice.below(1000) * 1000
        self.push(at, what, self.dice.between(cover))

    def follow(self, origin: Instant, steps: Sequence[Step]) -> None:
        for step in steps:
            self.after(origin, step.what, step.days, step.hours, step.cover)

    def advance(self, until: Instant) -> None:
        """Lives through everything that happens before `until`."""
        queue = self.queue
        while queue and queue[0][0] < until:
            at, _, what, number = heappop(queue)
            self.live(at, what, number)
            self.settle(at)

    def live(self, at: Instant, what: What, number: int) -> None:  # noqa: C901, PLR0912 (one line a case)
        match what:
            case What.BILL:
                self.receive_bill(at, number)
            case What.TOP_UP:
                self.top_up(at)
            case What.OPEN:
                self.open(at)
            case What.BEGIN:
                self.begin(at)
            case What.SUSPEND:
                self.suspend(at)
            case What.DELETE:
                self.delete(at)
            case What.LEAK_ENDS:
                self.end_leak(at)
            case What.PAY_ALL:
                self.pay_all(at, number)
            case What.PAY_PART:
                self.pay_part(at)
            case What.GIFT:
                self.pay(at, "gift", 10 * UNIT * self.dice.between((2, 10)))
            case What.REVERSE:
                self.reverse(at)
            case What.REFUND:
                self.refund(at)
            case What.ADJUST:
                self.adjust(at)
            case What.VOID:
                self.void(at)
            case What.HOLD:
                self.hold(at)
            case What.RELEASE:
                self.release(at)
            case What.EXEMPT:
                self.exempt(at)
            case What.ALLOW:
                self.allow(at)
            case What.REOPEN:
                self.reopen(at)
            case What.BUY:
                self.buy(at)
            case What.BUY_AGAIN:
                self.buy_again(at)
            case What.CANCEL:
                self.tell_package(at, "cancelled", {"at": format_instant(at)})
            case _:
                assert_never(what)

    def settle(self, at: Instant) -> None:
        """Whether arrears began or ended by what happened at `at`, and what follows from it."""
        covered = self.balance + self.limit >= 0
        if not covered and self.since is None and not self.deleted:
            self.since = at
            self.suspend_at, self.delete_at = at + _SUSPEND_AFTER, at + _DELETE_AFTER
            self.move_marks(self.allowance)
            reactions = self.story.arrears
            if self.episodes < len(reactions):
                self.follow(at, reactions[self.episodes])
            else:
                self.after(at, What.PAY_ALL, hours=(3, 20))
            self.episodes += 1
        elif covered and self.since is not None:
            self.since = self.suspend_at = self.delete_at = None
            self.leaking = False
            if self.suspended:
                self.suspended = False
                self.share_next = 1000

    def move_marks(self, by: Duration) -> None:
        if self.suspend_at is not None and self.delete_at is not None:
            if not self.suspended:
                self.suspend_at += by
                self.push(self.suspend_at, What.SUSPEND)
            self.delete_at += by
            self.push(self.delete_at, What.DELETE)

    def suspend(self, at: Instant) -> None:
        if at != self.suspend_at or self.held_at is not None:
            return  # the mark has moved or gone
        self.suspended = True
        if self.story.leaks and self.episodes == 1:
            self.leaking = True
            # A record counts by its start: of daily ones it takes more than a day to see one.
            self.push(at + (8 if self.sample.hourly else 30) * HOUR, What.LEAK_ENDS)
        else:
            self.stop(at)

    def end_leak(self, at: Instant) -> None:
        if self.leaking:
            self.leaking = False
            self.stop(at)

    def delete(self, at: Instant) -> None:
        if at != self.delete_at or self.held_at is not None:
            return  # the mark has moved or gone
        self.deleted = True
        self.since = self.suspend_at = self.delete_at = None
        self.stop(at)
        self.stored = self.stored * (at % DAY) // DAY

    def stop(self, at: Instant) -> None:
        """Compute and download stop at `at`, within the slot that is being lived."""
        length = HOUR if self.sample.hourly else DAY
        self.share = self.share * (at % length) // length
        self.share_next = 0

    # ---- operators

    def hold(self, at: Instant) -> None:
        self.held_at = at
        self.control(at, What.HOLD, "hold", freeze_clock=True)

    def release(self, at: Instant) -> None:
        self.control(at, What.RELEASE, "release")
        if self.held_at is not None:
            self.move_marks(at - self.held_at)
            self.held_at = None

    def exempt(self, at: Instant) -> None:
        until = at - at % DAY + 11 * DAY
        self.control(at, What.EXEMPT, "exempt", until=format_instant(until))
        self.suspended = False
        self.share_next = 1000
        if self.suspend_at is not None:
            self.move_marks(until - self.suspend_at)

    def allow(self, at: Instant) -> None:
        self.allowance = 72 * HOUR
        self.control(at, What.ALLOW, "allowance", duration=format_duration(self.allowance))
        self.move_marks(self.allowance)

    def reopen(self, at: Instant) -> None:
        self.control(at, What.REOPEN, "reopen")
        self.deleted = self.suspended = False
        self.share_next = 1000

    # ---- money

    def open(self, at: Instant) -> None:
        self.opened = True
        self.share_next = 1000
        if self.story.joins:
            self.push(at + 3 * MINUTE, What.GIFT)
        if self.rhythm is Rhythm.ON_CREDIT:
            self.limit = _round_up(45 * self.burn)
        elif self.story.some_credit and self.dice.below(4) == 0:
            self.limit = _round_up(self.burn)
        if self.limit:
            self.control(at, What.OPEN, "credit_limit", amount=format_money(self.limit))
        if not self.story.troubled and self.rhythm is not Rhythm.ON_CREDIT and self.dice.below(25) == 0:
            self.push(at + 20 * MINUTE, What.BUY)

    def begin(self, at: Instant) -> None:
        """The story begins: with money for some days, and then no more if the account is careless."""
        story = self.story
        day = at - at % DAY
        self.careless = story.careless
        cover = self.dice.between(story.cover)
        missing = cover * self.burn - self.balance
        if missing >= self.burn:
            self.pay(at, "topup", _round_up(missing))
        if story.spike:
            self.spike_day = day + story.spike * DAY
        self.follow(day, story.calendar)

    def receive_bill(self, at: Instant, amount: Money) -> None:
        period = at - at % DAY - DAY
        bill_id = f"bill-{_label(period)}"
        self.balance -= amount
        self.last_bill = (bill_id, amount)
        if period == self.spike_day:
            self.disputed = self.last_bill
        self.tell_bill(at, bill_id, "issued", amount, period)
        self.pay_by_rhythm(at)

    def pay_by_rhythm(self, at: Instant) -> None:
        if self.careless or self.deleted or self.top_up_due or self.balance + self.limit < 0:
            return
        match self.rhythm:
            case Rhythm.WEEKLY:
                due = _weekday(at) == self.pay_day % 7
            case Rhythm.MONTHLY | Rhythm.ON_CREDIT:
                due = (at - self.sample.start) // DAY % 30 == self.pay_day
            case Rhythm.WHEN_LOW:
                due = False
            case _:
                assert_never(self.rhythm)
        if due or self.balance + self.limit < 3 * self.burn:
            self.top_up_due = True
            self.after(at - at % DAY, What.TOP_UP)

    def top_up(self, at: Instant) -> None:
        self.top_up_due = False
        if self.rhythm is Rhythm.ON_CREDIT:
            if self.balance < 0:
                self.pay(at, "topup", -self.balance)  # what the bills say, to the cent
            return
        missing = _FILL[self.rhythm] * self.burn - self.balance
        if missing > 2 * self.burn:
            self.pay(at, "topup", _round_up(missing))

    def pay_all(self, at: Instant, cover: int) -> None:
        """Pays what is owed and for `cover` days more, in a round amount; exactly what is owed if `cover` is 0."""
        if self.episodes >= len(self.story.arrears):
            self.careless = False
        amount = -self.balance if cover == 0 else _round_up(cover * self.burn - self.balance)
        if amount > 0:
            self.pay(at, "topup", amount)

    def pay_part(self, at: Instant) -> None:
        part = -self.balance * self.dice.between((35, 60)) // 100
        self.pay(at, "topup", part // UNIT * UNIT or max(CENT, part // CENT * CENT))

    def reverse(self, at: Instant) -> None:
        payment_id, amount = self.last_top_up
        if self.balance + self.limit >= amount:
            self.push(at + DAY, What.REVERSE)  # the bank takes its time: until the money has been used
            return
        self.balance -= amount
        self.tell_payment(at, payment_id, "reversal", amount)

    def refund(self, at: Instant) -> None:
        payment_id, amount = self.last_top_up
        amount = min(amount, self.balance // 2) // UNIT * UNIT
        if amount > 0:
            self.balance -= amount
            self.tell_payment(at, payment_id, "refund", amount)

    def adjust(self, at: Instant) -> None:
        """The runaway job's bill comes down to an average day."""
        bill_id, amount = self.disputed
        total = min(self.burn // CENT * CENT, amount)
        self.balance += amount - total
        self.tell_bill(at, bill_id, "adjusted", total)

    def void(self, at: Instant) -> None:
        bill_id, amount = self.last_bill
        self.balance += amount
        self.tell_bill(at, bill_id, "voided", None)

    def pay(self, at: Instant, kind: str, amount: Money) -> None:
        self.payments += 1
        payment_id = f"pay-{self.payments:04d}"
        if kind == "topup":
            self.balance += amount
            self.last_top_up = (payment_id, amount)
        self.tell_payment(at, payment_id, kind, amount)

    def buy(self, at: Instant) -> None:
        """A prepaid package, paid for at the order and not from the balance.

        In the story compute for a week, and once more by mistake; else download for two months.
        """
        if self.story.troubled:
            tariff, by_hour, days = _COMPUTE, self.compute, 7
            self.push(at + 2 * MINUTE, What.BUY_AGAIN)
            self.push(at + 17 * MINUTE, What.CANCEL)
        else:
            tariff, by_hour, days = _DOWNLOAD, self.download, 60
        quantity = _round_up(by_hour * sum(_LOADS[self.habit]) // 100 * days * 1000) // 1000
        self.package = _Package(tariff, quantity, at, at - at % DAY + 181 * DAY)
        self.tell_purchase(at, self.package)

    def buy_again(self, at: Instant) -> None:
        if self.package is not None:
            self.tell_purchase(at, replace(self.package, starts_at=at))

    # ---- records

    def tell_bill(
        self, at: Instant, bill_id: str, kind: str, amount: Money | None, period: Instant | None = None
    ) -> None:
        """`amount` is None for a void; `period` is the midnight with which the billed day began."""
        value: Value = {
            "event_id": f"{bill_id}-{kind}",
            "account_id": self.account_id,
            "bill_id": bill_id,
            "kind": kind,
        }
        if amount is not None:
            value["amount"] = f"{amount // UNIT}.{amount % UNIT // CENT:02d}"
        value["currency"] = self.sample.currency
        value["issued_at"] = format_instant(at)
        if period is not None:
            value["period_start"] = _midnight(period)
            value["period_end"] = _midnight(period + DAY)
        self.told.append((at, self.index, "bills", value))

    def tell_payment(self, at: Instant, payment_id: str, kind: str, amount: Money) -> None:
        value: Value = {
            "event_id": f"{payment_id}-{kind}",
            "account_id": self.account_id,
            "payment_id": payment_id,
            "kind": kind,
            "amount": format_money(amount),
            "currency": self.sample.currency,
            "paid_at": format_instant(at),
        }
        self.told.append((at, self.index, "payments", value))

    def tell_purchase(self, at: Instant, package: _Package) -> None:
        self.packages += 1
        bought: Value = {
            "service": package.tariff.service,
            "quantity": _thousandths(package.left),
            "unit": package.tariff.unit,
            "at": format_instant(at),
            "starts_at": format_instant(package.starts_at),
            "ends_at": format_instant(package.ends_at),
        }
        self.tell_package(at, "purchased", bought)

    def tell_package(self, at: Instant, kind: str, more: Value) -> None:
        """Of the package bought last."""
        package_id = f"package-{self.packages:02d}"
        value: Value = {
            "event_id": f"{package_id}-{kind}",
            "account_id": self.account_id,
            "package_id": package_id,
            "kind": kind,
        }
        self.told.append((at, self.index, "packages", value | more))

    def control(self, at: Instant, what: What, kind: str, **more: object) -> None:
        self.controls += 1
        actor, reason = _SAID[what][self.index % 3]
        value: Value = {
            "event_id": f"control-{self.controls:02d}-{kind}",
            "account_id": self.account_id,
            "kind": kind,
            "actor": actor,
            "reason": reason.format(48_211 + 13 * self.index),
            "at": format_instant(at),
            **more,
        }
        self.told.append((at, self.index, "controls", value))

    # ---- usage

    def meter(self, slot: Slot) -> list[Value]:
        """Usage of the slot that has just been lived; after the last one of a day its bill is on the way."""
        used: list[Value] = []
        dice = self.dice
        if self.share:
            week = _WEEKS[self.habit][slot.weekday]
            # Five factors in per cent make 10^10, the share 10^3; the noise is drawn for each record.
            load = slot.loads[self.habit] * self.mood * self.share
            spike = _SPIKE * 100 if self.spike_day == slot.day else week
            self.use(used, slot, _COMPUTE, self.compute * load * spike * (75 + dice.below(51)) // 10**11)
            if not self.leaking:
                self.use(used, slot, _DOWNLOAD, self.download * load * week * (75 + dice.below(51)) // 10**11)
        self.share = self.share_next
        if slot.ends_day:
            self.use(used, slot, _STORAGE, self.storage * self.stored * (98 + dice.below(5)) // 10**5)
            self.end_day(slot.end)
        return used

    def use(self, used: list[Value], slot: Slot, tariff: Tariff, quantity: int) -> None:
        """Meters and charges `quantity` thousandths, as far as no package covers them."""
        if not quantity:
            return
        charged = quantity
        package = self.package
        if package is not None and package.tariff is tariff and package.starts_at <= slot.end < package.ends_at:
            charged -= min(package.left, quantity)
            package.left -= quantity - charged
        cost: Money = charged * tariff.price
        self.cost += cost
        self.metered = True
        by_day = tariff is _STORAGE
        usage_id = f"{tariff.service}-{_label(slot.day) if by_day else slot.label}"
        used.append(
            {
                "event_id": usage_id,
                "account_id": self.account_id,
                "usage_id": usage_id,
                "service": tariff.service,
                "quantity": _thousandths(quantity),
                "unit": tariff.unit,
                "cost": format_money(cost),
                "currency": self.sample.currency,
                "started_at": _midnight(slot.day) if by_day else slot.started_at,
                "ended_at": slot.ended_at,
            }
        )

    def end_day(self, midnight: Instant) -> None:
        if self.metered:
            amount = (self.cost + CENT // 2) // CENT * CENT  # rounded half up
            self.push(midnight + self.bill_delay + self.dice.below(20) * SECOND, What.BILL, amount)
        self.cost = 0
        self.metered = False
        self.stored = 1000 if self.opened and not self.deleted else 0
        self.mood = 82 + self.dice.below(37)


# ----------------------------------------------------------------------------------------------- the whole month


def generate(sample: Sample) -> Iterator[tuple[Topic, Value]]:
    """All records as (topic, value), in order of their instants; within one, in order of the accounts."""
    told: list[_Told] = []
    accounts = _accounts(sample, told)
    for day in range(sample.days):
        yield from _live_day(sample, day, accounts, told)


def write_sample(directory: Path, sample: Sample, *, progress: Callable[[int], None] | None = None) -> SampleSummary:
    """Writes `bills.jsonl` and so on, one file a topic, into `directory` (made if missing; such files are replaced).

    `progress` is called with the number of days done, after each. Raises OSError.
    """
    directory.mkdir(parents=True, exist_ok=True)
    told: list[_Told] = []
    accounts = _accounts(sample, told)
    records = dict.fromkeys(TOPICS, 0)
    encode = msgspec.json.Encoder().encode
    with ExitStack() as stack:
        write = {topic: stack.enter_context((directory / f"{topic}.jsonl").open("wb")).write for topic in TOPICS}
        for day in range(sample.days):
            for topic, value in _live_day(sample, day, accounts, told):
                write[topic](encode(value) + b"\n")
                records[topic] += 1
            if progress is not None:
                progress(day + 1)
    return SampleSummary(
        records={f"{topic}.jsonl": number for topic, number in records.items()},
        stories=lived_stories(sample),
    )


def lived_stories(sample: Sample) -> Mapping[str, tuple[str, ...]]:
    """Name of each story to the accounts that live it (as far as the days of the sample go)."""
    lived: dict[str, list[str]] = {name: [] for name in STORIES}
    for account_id, story in _cast(sample):
        lived[story.name].append(account_id)
    return {name: tuple(ids) for name, ids in lived.items()}


def _accounts(sample: Sample, told: list[_Told]) -> list[_Account]:
    return [
        _Account(sample, index, account_id, story, Dice(sample.seed, account_id), told)
        for index, (account_id, story) in enumerate(_cast(sample))
    ]


def _cast(sample: Sample) -> list[tuple[str, Story]]:
    """The accounts and their stories: one is reserved for each story, the others draw theirs."""
    dice = Dice(sample.seed, "cast")
    table = [(story.share, story) for story in _STORIES]
    cast = [_draw(table, dice) for _ in range(sample.accounts)]
    places = list(range(sample.accounts))
    for story in _STORIES[: sample.accounts]:
        cast[places.pop(dice.below(len(places)))] = story
    width = max(4, len(str(sample.accounts)))
    return [(f"acct-{number:0{width}d}", story) for number, story in enumerate(cast, start=1)]


def _live_day(sample: Sample, day: int, accounts: list[_Account], told: list[_Told]) -> Iterator[tuple[Topic, Value]]:
    """One day of everybody, slot by slot: what happened in it, then the usage that ended with it."""
    for slot in _slots(sample, day):
        end = slot.end
        for account in accounts:
            if account.queue and account.queue[0][0] < end:
                account.advance(end)
        told.sort(key=itemgetter(0, 1))
        for _, _, topic, value in told:
            yield topic, value
        told.clear()
        for account in accounts:
            for value in account.meter(slot):
                yield "usage", value


def _slots(sample: Sample, day: int) -> Iterator[Slot]:
    midnight = sample.start + day * DAY
    length = HOUR if sample.hourly else DAY
    for start in range(midnight, midnight + DAY, length):
        hour = (start - midnight) // HOUR
        yield Slot(
            start=start,
            end=start + length,
            started_at=format_instant(start),
            ended_at=format_instant(start + length),
            label=f"{_label(midnight)}T{hour:02d}" if sample.hourly else _label(midnight),
            loads=tuple(load[hour] if sample.hourly else sum(load) for load in _LOADS),
            day=midnight,
            weekday=_weekday(midnight),
            ends_day=start + length == midnight + DAY,
        )
