"""What can be measured of a worker, each declared once: its name, its unit, its labels, what it means.

Laws of this file:

- Every name begins with `arrears_`, and stands in base units (seconds, records, accounts).
- A label has few values; none is ever an account, a bill, a key.
- What may be counted stands at 0 from the start: the first delete of a worker's life is a rise, not a new series.
- There is no global registry: a process may have several workers, as tests do.

How it is used, with `metrics = Metrics()`:

- Counters and histograms are prometheus-client's own: `metrics.records.labels("bills", "accepted").inc(512)`,
  `metrics.decision_delay.labels("restore").observe(0.7)`. A child of `labels` may be kept: asking for it again costs
  as much as counting.
- What is so now of one partition stands in `metrics.partition(7)`, a plain object whose fields are set:
  `at.marks_overdue = 3`, `at.lag["bills"] = 12`, `at.accounts = {"suspended": 4}`. It is summed over the partitions of
  the worker when somebody reads. To own a partition is to have such an object; `metrics.forget(7)` takes all of it
  away at once. A field that is a dict may be changed or replaced; only its owner's thread may do so.
- Ages are not set: the instant since which is (Unix seconds), and the age grows from scrape to scrape, also when the
  worker hangs.
- `ready` is not set: `streams.metrics_server` asks for it.
"""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, NamedTuple, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from models.contract import NoticeKind
from models.enforcement import STATUSES, Action
from models.records import TOPICS
from models.refusal import ErrorCode
from models.state_version import WRITES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

OUTCOMES: Final = ("accepted", "waiting", "refused")
ERRORS: Final = get_args(ErrorCode)
#: Each action with the reasons it may have (contract §2).
COMMANDS: Final = (
    ("suspend", "unpaid_past_suspend_mark"),
    ("restore", "paid_in_full"),
    ("restore", "late_evidence"),
    ("restore", "operator"),
    ("delete", "unpaid_past_delete_mark"),
)
ACTIONS: Final = get_args(Action)
NOTICES: Final = get_args(NoticeKind)
#: What stops suspends or deletes on a partition (§3), by the reason that the monitor has for it.
GUARDS: Final = (
    "max_deletes",
    "max_suspends",
    "payments_silence",
    "clock_skew",
    "unusable_payments",
    "delete_contradicted",
)
TRANSACTIONS: Final = ("committed", "lost", "fenced")
#: Why a partition is not worked on, though it is owned.
STOPPED: Final = ("bug", "offset_gone", "newer_state", "too_large")
#: How far ahead marks are counted.
AHEAD: Final = {"24h": 24 * 3600, "7d": 7 * 24 * 3600}

#: From a look at one's own table to a weekend's outage.
_AGES_S: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 6 * 3600, 86_400, 7 * 86_400)
#: The promises are at 60 s (restores) and 300 s (all).
_DELAYS_S: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 6 * 3600, 86_400)
_TRANSACTIONS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60)
_RECOVERIES_S: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


@dataclass(slots=True)
class PartitionMetrics:
    """What is so now of one partition. Fields are set by its owner; instants are Unix seconds."""

    #: Records in Kafka that are not applied yet, by topic. All topics are told from the start: by this it is counted
    #: how many partitions somebody owns.
    lag: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TOPICS, 0))
    #: Up to which instant an input is in, by topic.
    watermark: dict[str, float] = field(default_factory=dict)
    #: By status.
    accounts: dict[str, int] = field(default_factory=dict)
    #: In units of the currency, by (status, currency).
    owed: dict[tuple[str, str], float] = field(default_factory=dict)
    #: Suspends and deletes to come if nobody pays, by (action, one of `AHEAD`).
    marks_ahead: dict[tuple[str, str], int] = field(default_factory=dict)
    #: Accounts with an instant ahead at which something falls due.
    marks_pending: int = 0
    #: Accounts with such an instant in the past, not yet decided.
    marks_overdue: int = 0
    #: Accounts whose command waits for a `resume`.
    held_back: int = 0
    #: Marks that have passed and wait for the fence, and the first of them.
    unfenced_marks: int = 0
    oldest_unfenced_mark: float | None = None
    #: Whether the fence waits for an open transaction of a producer.
    fence_blocked: bool = False
    #: Whether the brokers gave no answer when they were asked last.
    brokers_away: bool = False
    #: Commands that a subscriber has not applied in time, and the instant of the oldest.
    unconfirmed: int = 0
    oldest_unconfirmed: float | None = None
    #: What stops suspends or deletes, by name.
    guards: Collection[str] = ()
    accounts_held_for_size: int = 0
    #: Whether the state is being read back.
    recovering: bool = False
    #: Why nothing is done here any more; one of `STOPPED`, or another word.
    stopped: str | None = None
    #: Labels (`name@version`) of the policies in force.
    policies: Collection[str] = ()


class Metrics:
    """All of them. The registry is what `streams.metrics_server` serves."""

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        now: Callable[[], float] = time.time,
        state_version: int = WRITES,
    ) -> None:
        self.registry = registry = CollectorRegistry() if registry is None else registry
        self._partitions: dict[int, PartitionMetrics] = {}
        # Beside each counter it would have a series with the instant of its birth, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]

        # Records
        self.records = Counter(
            "arrears_records",
            "Records processed, by input topic; refused ones are dead letters, waiting ones wait for their bill.",
            ("topic", "outcome"),
            registry=registry,
        )
        self.record_age = Histogram(
            "arrears_record_age_seconds",
            "Age of the oldest record of a batch when it was processed, since it occurred or since Kafka recorded it.",
            ("topic", "since"),
            buckets=_AGES_S,
            registry=registry,
        )
        self.dead_letters = Counter(
            "arrears_dead_letters", "Records that could not be used.", ("topic", "error"), registry=registry
        )

        # What goes out
        self.commands = Counter("arrears_commands", "Commands committed.", ("action", "reason"), registry=registry)
        self.notices = Counter("arrears_notices", "Notices committed.", ("kind",), registry=registry)
        self.decision_delay = Histogram(
            "arrears_decision_delay_seconds",
            "From the instant a command is effective (mark, end of a hold, full payment) to its commit.",
            ("action",),
            buckets=_DELAYS_S,
            registry=registry,
        )
        self.publish_seconds = Histogram(
            "arrears_publish_seconds",
            "From the beginning of a transaction with commands or notices to its commit.",
            buckets=_TRANSACTIONS_S,
            registry=registry,
        )
        self.breaker_trips = Counter(
            "arrears_breaker_trips",
            "How often a guard began to stop commands on a partition.",
            ("guard",),
            registry=registry,
        )

        # Transactions, recovery, membership
        self.transactions = Counter(
            "arrears_transactions", "Kafka transactions of the journal, by outcome.", ("outcome",), registry=registry
        )
        self.transaction_seconds = Histogram(
            "arrears_transaction_seconds",
            "From the beginning of any transaction to its end, whatever the outcome.",
            buckets=_TRANSACTIONS_S,
            registry=registry,
        )
        self.fenced_producers = Counter(
            "arrears_fenced_producers",
            "How often another owner of a partition shut this worker out.",
            registry=registry,
        )
        self.recovery_seconds = Histogram(
            "arrears_recovery_seconds",
            "How long it took to read back the state of a partition.",
            buckets=_RECOVERIES_S,
            registry=registry,
        )
        self.recovered_accounts = Counter(
            "arrears_recovered_accounts", "Accounts read back from the state topic.", registry=registry
        )
        self.rebalances = Counter("arrears_rebalances", "How often partitions were given out anew.", registry=registry)

        # The worker
        self.clock_skew = Gauge(
            "arrears_clock_skew_seconds",
            "The worker's clock minus the brokers', as of the last commit.",
            registry=registry,
        )
        self.ready = Gauge(
            "arrears_ready", "Whether every owned partition has recovered and is worked on.", registry=registry
        )
        self.build_info = Info(
            "arrears_build", "What runs here, and the version of the state that it writes.", registry=registry
        )
        self.build_info.info(
            {
                "version": version("arrears-monitor"),
                "python": platform.python_version(),
                "state_version": str(state_version),
            }
        )
        ProcessCollector(namespace="arrears", registry=registry)
        registry.register(_Partitions(self._partitions, now))
        self._begin_at_zero()

    def partition(self, number: int) -> PartitionMetrics:
        """Those of a partition that this worker owns, empty at first."""
        return self._partitions.setdefault(number, PartitionMetrics())

    def forget(self, number: int) -> None:
        """The partition is another's now, or nobody's: nothing of it is told any more."""
        self._partitions.pop(number, None)

    def _begin_at_zero(self) -> None:
        for topic in TOPICS:
            for outcome in OUTCOMES:
                self.records.labels(topic, outcome)
            for error in ERRORS:
                self.dead_letters.labels(topic, error)
            for since in ("occurred", "recorded"):
                self.record_age.labels(topic, since)
        for command in COMMANDS:
            self.commands.labels(*command)
        for action in ACTIONS:
            self.decision_delay.labels(action)
        for kind in NOTICES:
            self.notices.labels(kind)
        for guard in GUARDS:
            self.breaker_trips.labels(guard)
        for outcome in TRANSACTIONS:
            self.transactions.labels(outcome)


# Of all partitions --------------------------------------------------------------------------------------------------

_Labels = tuple[str, ...]
_Samples = dict[_Labels, float]


class _OfPartitions(NamedTuple):
    """A gauge over the partitions of a worker: `samples` has what each label's value is."""

    name: str
    help: str
    labels: _Labels
    samples: Callable[[dict[int, PartitionMetrics], float], _Samples]


class _Partitions(Collector):
    """Reads the partitions when somebody scrapes, in the server's thread: it takes copies, which are atomic."""

    def __init__(self, partitions: dict[int, PartitionMetrics], now: Callable[[], float]) -> None:
        self._partitions = partitions
        self._now = now

    def collect(self) -> Iterator[GaugeMetricFamily]:
        partitions, now = dict(self._partitions), self._now()
        for name, told, labels, samples in _GAUGES:
            family = GaugeMetricFamily(name, told, labels=labels)
            for values, sample in sorted(samples(partitions, now).items()):
                family.add_metric(values, sample)
            yield family


def _number(of: Callable[[PartitionMetrics], int]) -> Callable[[dict[int, PartitionMetrics], float], _Samples]:
    """The sum of a number."""
    return lambda partitions, _: {(): sum(of(one) for one in partitions.values())}


def _sums(
    of: Callable[[PartitionMetrics], Iterable[tuple[_Labels, float]]], known: Iterable[_Labels] = ()
) -> Callable[[dict[int, PartitionMetrics], float], _Samples]:
    """The sums by label; those of `known` are there even if no partition has them."""

    def samples(partitions: dict[int, PartitionMetrics], _: float) -> _Samples:
        sums = dict.fromkeys(known, 0.0)
        for one in partitions.values():
            for labels, value in of(one):
                sums[labels] = sums.get(labels, 0.0) + value
        return sums

    return samples


def _by_topic(
    of: Callable[[PartitionMetrics], dict[str, int] | dict[str, float]],
) -> Callable[[dict[int, PartitionMetrics], float], _Samples]:
    """By topic and partition: nothing is summed."""
    return lambda partitions, _: {
        (topic, str(number)): value for number, one in partitions.items() for topic, value in dict(of(one)).items()
    }


def _age(
    since: Callable[[PartitionMetrics], float | None],
) -> Callable[[dict[int, PartitionMetrics], float], _Samples]:
    """How long ago the first of these instants was; 0 if there is none."""

    def samples(partitions: dict[int, PartitionMetrics], now: float) -> _Samples:
        instants = [instant for one in partitions.values() if (instant := since(one)) is not None]
        return {(): max(0.0, now - min(instants)) if instants else 0.0}

    return samples


def _in_force(partitions: dict[int, PartitionMetrics], _: float) -> _Samples:
    return {(label,): 1.0 for one in partitions.values() for label in one.policies}


_GAUGES: Final = (
    _OfPartitions("arrears_partitions_owned", "Partitions of this worker.", (), _number(lambda _: 1)),
    _OfPartitions(
        "arrears_partitions_stopped",
        "Owned partitions on which nothing is done any more, by the reason.",
        ("reason",),
        _sums(lambda one: () if one.stopped is None else [((one.stopped,), 1)], [(reason,) for reason in STOPPED]),
    ),
    _OfPartitions(
        "arrears_lag_records",
        "Records in Kafka that are not applied yet.",
        ("topic", "partition"),
        _by_topic(lambda one: one.lag),
    ),
    _OfPartitions(
        "arrears_watermark_timestamp_seconds",
        "The instant up to which an input is in.",
        ("topic", "partition"),
        _by_topic(lambda one: one.watermark),
    ),
    _OfPartitions(
        "arrears_accounts",
        "Accounts, by status.",
        ("status",),
        _sums(
            lambda one: [((status,), number) for status, number in dict(one.accounts).items()],
            [(status,) for status in STATUSES],
        ),
    ),
    _OfPartitions(
        "arrears_owed",
        "What is owed, in units of the currency, by status.",
        ("status", "currency"),
        _sums(lambda one: dict(one.owed).items()),
    ),
    _OfPartitions(
        "arrears_marks_ahead",
        "Suspends and deletes that will fall due within a day and a week if nobody pays.",
        ("action", "within"),
        _sums(
            lambda one: dict(one.marks_ahead).items(),
            [(action, within) for action in ("suspend", "delete") for within in AHEAD],
        ),
    ),
    _OfPartitions(
        "arrears_marks_pending",
        "Accounts with an instant ahead at which something falls due.",
        (),
        _number(lambda one: one.marks_pending),
    ),
    _OfPartitions(
        "arrears_marks_overdue",
        "Accounts with something due in the past that is not decided yet.",
        (),
        _number(lambda one: one.marks_overdue),
    ),
    _OfPartitions(
        "arrears_commands_held_back",
        "Accounts whose suspend or delete waits for a resume.",
        (),
        _number(lambda one: one.held_back),
    ),
    _OfPartitions(
        "arrears_unfenced_marks",
        "Marks that have passed and wait until every record of before is read.",
        (),
        _number(lambda one: one.unfenced_marks),
    ),
    _OfPartitions(
        "arrears_oldest_unfenced_mark_seconds",
        "How long the oldest of these marks has been waiting; 0 if none is.",
        (),
        _age(lambda one: one.oldest_unfenced_mark),
    ),
    _OfPartitions(
        "arrears_fence_blocked",
        "Partitions whose fence waits for an open transaction of a producer.",
        (),
        _number(lambda one: one.fence_blocked),
    ),
    _OfPartitions(
        "arrears_brokers_away",
        "Partitions for which the brokers gave no answer when they were asked last.",
        (),
        _number(lambda one: one.brokers_away),
    ),
    _OfPartitions(
        "arrears_unconfirmed_commands",
        "Commands that a subscriber has failed to apply, or not applied in time.",
        (),
        _number(lambda one: one.unconfirmed),
    ),
    _OfPartitions(
        "arrears_oldest_unconfirmed_seconds",
        "How long ago the oldest of these commands was decided; 0 if there is none.",
        (),
        _age(lambda one: one.oldest_unconfirmed),
    ),
    _OfPartitions(
        "arrears_guard",
        "Partitions on which a guard stops suspends or deletes.",
        ("guard",),
        _sums(lambda one: [((guard,), 1) for guard in one.guards], [(guard,) for guard in GUARDS]),
    ),
    _OfPartitions(
        "arrears_accounts_held_for_size",
        "Accounts that are on hold because their state would grow too large.",
        (),
        _number(lambda one: one.accounts_held_for_size),
    ),
    _OfPartitions(
        "arrears_recovery_running",
        "Partitions whose state is being read back.",
        (),
        _number(lambda one: one.recovering),
    ),
    _OfPartitions("arrears_policy_info", "Policies in force, by their label.", ("policy",), _in_force),
)
