"""The arrears table of one partition: a monitor, its journal, and the loop that fences, decides and commits.

Laws of this file:

- What is applied, how far the inputs were read and what is published are committed together, or not at all. After a
  commit that failed the table is of no more use: another is recovered.
- `apply` sends nothing. A decision follows a fence: the ends of all inputs are asked for after its instant, and all of
  them are applied when it is made. Records behind those ends are held back for a while, so that the accounts they
  belong to are decided on, however busy.
- Batches are applied without a hole. What was applied before is dropped, what lies behind a hole is asked for again.
- An error in the domain ends the table without a commit: no record is ever skipped.
- Whatever the clock says, decisions never go back in time, and never more than the allowed skew ahead of the brokers.
"""

from __future__ import annotations

import asyncio
import math
import time
from bisect import bisect_left
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from models.codec import decode_everybody, encode_everybody
from models.everybody import EVERYBODY, Everybody
from models.instants import FIRST_INSTANT, SECOND, Duration, Instant, format_instant, parse_instant
from models.monitor import Monitor
from models.records import TOPICS, Control
from models.refusal import Refusal, shown
from models.state_version import VERSION_BYTES, WRITES, NewerState, check_version
from models.store import LARGE_BYTES, AccountStore
from streams.admission import account_of_unusable, admit, check_partition, source_of
from streams.census import keep_counting
from streams.clock import steady_now
from streams.faults import Unusable
from streams.fetched import OffsetGone
from streams.hearsay import latest
from streams.journal import Journal, Message
from streams.messages import Envelope, account_message, dead_letter_message
from streams.payments_watch import PaymentsWatch
from streams.watermarks import Unanswered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from typing import Any

    from models.enforcement import Action
    from models.monitor import Published, Terms
    from models.outputs import Command
    from models.policy import Policies
    from models.records import Record as DomainRecord
    from streams.clock import BrokerTime
    from streams.fences import Fences
    from streams.fetched import Partition, Record
    from streams.metrics import Metrics
    from streams.partitioner import Partition as PartitionOf
    from streams.payments_watch import Heard
    from streams.topic_design import AppTopics
    from streams.transport import Consumer, RecordBatch
    from streams.turns import Turns
    from streams.watermarks import Ends

#: Rows of the state that are no account's: theirs are UTF-8, which knows no such byte.
EVERYBODY_KEY: Final = b"\xff@everybody"
PARTITION_KEY: Final = b"\xff@partition"

#: What stops while payments or the clock cannot be trusted.
_STOPPED: Final[tuple[Action, ...]] = ("suspend", "delete")

#: Stops that are over when their reason is; it is looked at with each decision, and as often as this.
_END_BY_THEMSELVES: Final = frozenset(("clock_skew", "payments_silence"))
_LOOK_AGAIN_S: Final = 5.0

#: Accounts decided on without letting anybody else in; and in one transaction.
_DECIDE_AT_ONCE: Final = 100
_DECIDE_MOST: Final = 5_000
#: Records applied without letting anybody else in.
_APPLY_AT_ONCE: Final = 200
#: While there is more to apply, a transaction is gathered for so long.
_GATHER_MOST_S: Final = 1.0
#: Bytes of values applied in one transaction: by so much an account can grow before it is looked at again. With what it
#: may have had before (`store.FULL_BYTES`) its head stays within the largest record of a journal.
_APPLY_BYTES: Final = 4 << 20
#: Records that may lie in the inbox before no more are asked for.
_INBOX_MOST: Final = 20_000
#: How long records behind a fence are held back for it.
_HOLD_BACK_S: Final = 5.0
#: The longest sleep: clocks are set, and metrics are to be fresh.
_WAKE_S: Final = 1.0
#: Views of accounts of which only usage or packages have changed, in one transaction.
_USAGE_VIEWS_MOST: Final = 1_000
#: A decision goes by the brokers' clock as a commit has shown it, at most so long ago.
_MEASURED_WITHIN: Final = 60 * SECOND
#: What has moved besides records (positions over markers, the clock) is committed as often as this.
_HEARTBEAT_S: Final = 10.0
#: The inputs' ends are asked for as often as this, though nothing is to be decided: that the brokers are away, or that
#: a topic has more partitions now, is known in quiet hours, too.
_ASK_AGAIN_S: Final = 10.0
#: How long a commit may go on that is under way when the table is let go.
_LAST_COMMIT_S: Final = 2.0

_LEDGER_TOPICS: Final = frozenset(("bills", "payments", "packages", "controls"))


class Kept(msgspec.Struct, array_like=True):
    """What a partition keeps besides its accounts, written with every commit (§2, §3)."""

    #: Of every topic; another number is refused.
    partitions: int
    payments: PaymentsWatch
    #: The latest instant of a record of each input.
    watermarks: dict[str, Instant] = {}
    #: Every record up to here was in when it was decided so.
    complete: Instant = FIRST_INSTANT


def encode_kept(kept: Kept, version: int = WRITES) -> bytes:
    """Its row of the state."""
    return VERSION_BYTES[version] + msgspec.msgpack.encode(kept)


def decode_kept(value: bytes) -> Kept:
    """What `encode_kept` wrote. Raises NewerState."""
    check_version(value)
    return msgspec.msgpack.decode(value[1:], type=Kept)


def heard_in(key: bytes | None, value: bytes | None) -> Heard | None:
    """What a record of another partition's journal says of its bills and payments; None if it is another row."""
    if key != PARTITION_KEY or value is None:
        return None
    try:
        return decode_kept(value).payments.heard
    except (NewerState, msgspec.MsgspecError):  # a newer release has it, while workers are exchanged
        return None


class OtherPartitions(Exception):
    """The state was made with another number of partitions: every account would be elsewhere (§2)."""

    def __init__(self, kept: int, found: int) -> None:
        super().__init__(
            f"the state was made with {kept} partitions and the inputs have {found}: an account would be served in two"
            f" places. Give the topics {kept} partitions again, or begin a new app id and replay (see OPERATIONS)"
        )


class Defect(Exception):
    """The domain failed on a record or a decision: the partition stops, with nothing committed of it."""


@dataclass(frozen=True)
class Context:
    """What all tables of a worker share."""

    app_id: str
    client: Mapping[str, Any]
    topics: AppTopics
    partitions: int
    partition_of: PartitionOf
    policies: Policies
    terms: Terms
    clock: Callable[[], Instant]
    #: The clock that records may be ahead of: a worker's that is behind the brokers' makes no record too early.
    record_clock: Callable[[], Instant]
    broker_time: BrokerTime
    fences: Fences
    metrics: Metrics
    max_clock_skew: Duration
    payments_silence: Duration | None
    commit_interval_s: float
    commit_records: int
    transaction_timeout_s: float
    #: Of the state that is written; what is read may be older or newer.
    state_version: int
    #: When a bill and a payment were heard of last on this worker's partitions other than this one, and on others'.
    heard_here: Callable[[int], Heard]
    heard_elsewhere: Callable[[], Awaitable[Heard]]
    #: Where batches come from, to be paused and to go on.
    consumer: Callable[[], Consumer]
    #: Whatever takes long is done in one of these.
    turns: Turns
    #: One table at a time counts what lies ahead.
    counting: asyncio.Lock
    say: Callable[[str], None]


class Fence(NamedTuple):
    """A decision for the instant `at` may be made once everything below `ends` is applied."""

    at: Instant
    ends: dict[str, int]
    #: An open transaction of somebody lies below one of them.
    is_blocked: bool
    #: Until when (steady, seconds) records behind it are held back.
    hold_until: float


class Table:
    """One partition's. `start`, then `run` until it fails or is cancelled, then `stop`."""

    def __init__(self, context: Context, partition: int) -> None:
        self.context = context
        self.partition = partition
        self.journal = Journal(
            context.client,
            context.app_id,
            partition,
            state_topic=context.topics.state,
            outputs=(topic for topic in context.topics if topic != context.topics.state),
            timeout_s=context.transaction_timeout_s,
            state_version=context.state_version,
        )
        self.store = AccountStore(context.state_version)
        #: The next offset of each input, applied and committed.
        self.next: dict[str, int] = {}
        self.durable: dict[str, int] = {}
        self.ends: dict[str, int] = {}
        self.metrics = context.metrics.partition(partition)
        self._envelope = Envelope(context.app_id)
        self._inbox: dict[str, deque[RecordBatch]] = {topic: deque() for topic in TOPICS}
        self._paused: set[str] = set()
        self._fence: Fence | None = None
        self._outputs: dict[str, list[Message]] = {}
        self._sent: list[Published] = []
        self._pending = self._pending_bytes = 0
        self._failure: BaseException | None = None
        self._work = asyncio.Event()
        self._moved = asyncio.Event()
        self._arrived = asyncio.Event()
        self._committing = asyncio.Lock()
        self._rows: dict[bytes, bytes] = {}
        self._committed_at = self._decided_at = self._asked_at = time.monotonic()
        self._stops: set[str] = set()
        #: Whether a control for everybody came after the fence was asked for.
        self._is_uncovered = False

    @property
    def inputs(self) -> list[Partition]:
        """The input partitions it reads."""
        return [(topic, self.partition) for topic in TOPICS]

    # -- taking over ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Fence off the owner before, recover what was committed, and commit that this one owns it.

        Raises Lost, NewerState, OtherPartitions, OffsetGone, Unusable (a policy that was changed), Unanswered.
        """
        context, began = self.context, time.monotonic()
        self.metrics.recovering = True
        await self.journal.start()
        self.next = await self.journal.recover(self._recover, context.turns)
        everybody_row, kept_row = self._rows.get(EVERYBODY_KEY), self._rows.get(PARTITION_KEY)
        everybody = (
            Everybody(context.policies, context.terms.history)
            if everybody_row is None
            else decode_everybody(everybody_row)
        )
        try:
            everybody.start_with(context.policies)
        except ValueError as error:
            raise Unusable(f"--policy: {error}: give it a new version") from None
        everybody.history = max(everybody.history, context.terms.history)
        self.kept = (
            Kept(context.partitions, PaymentsWatch(FIRST_INSTANT)) if kept_row is None else decode_kept(kept_row)
        )
        if self.kept.partitions != context.partitions:
            raise OtherPartitions(self.kept.partitions, context.partitions)
        await self._place_inputs()
        self.durable = dict(self.next)
        self.store.take_outgrown()  # they were put on hold when they grew
        self._stops = set(everybody.stops)
        async with context.turns.turn():
            self.monitor = Monitor(everybody, context.terms, self.store)
        self.monitor.remember_from(self.kept.complete)
        self.metrics.recovering = self.metrics.brokers_away = False
        context.metrics.recovery_seconds.observe(time.monotonic() - began)
        context.metrics.recovered_accounts.inc(len(self.store))
        await self._commit(force=True)  # which shows the brokers' clock, too
        if self.kept.payments.since == FIRST_INSTANT:
            self.kept.payments.resume(self._now())
        self._remember(self._complete_at(self._now(), self.ends))
        self._work.set()

    def _recover(self, key: bytes, value: bytes | None) -> None:
        if key in (EVERYBODY_KEY, PARTITION_KEY):
            assert value is not None, "these rows are never removed"
            self._rows[key] = value
        else:
            self.store.recover(key, value)

    async def _place_inputs(self) -> None:
        """Where to read on; an input that was never read is read from its first record, which has to be there."""
        earliest = await self.context.fences.earliest(self.inputs)
        ends = await self._ask_ends()
        for (topic, partition), first in earliest.items():
            wanted = self.next.get(topic, 0 if topic in _LEDGER_TOPICS else first)
            end = ends[topic, partition].high
            if not first <= wanted <= end:
                raise OffsetGone((topic, partition), wanted, first, end)
            self.next[topic] = wanted

    # -- records ----------------------------------------------------------------------------------------------------

    def take(self, batch: RecordBatch) -> bool:
        """Keep a batch until it may be applied. False if records before it are missing."""
        inbox = self._inbox[batch.topic]
        expected = inbox[-1].next if inbox else self.next[batch.topic]
        if batch.start > expected:
            return False
        if batch.next > expected:
            inbox.append(batch)
            self._arrived.set()
            if batch.topic not in self._paused and sum(len(one.records) for one in inbox) > _INBOX_MOST:
                self._paused.add(batch.topic)
                self.context.consumer().pause((batch.topic, self.partition))
        return True

    def expected(self, topic: str) -> int:
        """The next offset that is to be taken."""
        inbox = self._inbox[topic]
        return inbox[-1].next if inbox else self.next[topic]

    def has_unapplied(self, topic: str) -> bool:
        """Whether something of it waits to be applied."""
        return bool(self._inbox[topic])

    def unpause(self) -> None:
        """A rebalance has ended all pauses."""
        self._paused.clear()

    async def _keep_applying(self) -> None:
        """What arrives, whatever else goes on, until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            await self._drain()

    async def _drain(self) -> bool:
        """Apply what lies in the inbox, as far as a turn goes; whether anything was."""
        if not any(self._inbox.values()):
            return False
        has_moved = False
        async with self.context.turns.turn() as turn:
            while self._apply_some():
                has_moved = True
                if not await turn.goes_on():
                    break
        return has_moved

    def _apply_some(self) -> bool:
        """A few records of the inbox, as far as the fence and the size of a transaction let; whether anything was."""
        if self._failure is not None:
            return False
        room, moved = _APPLY_AT_ONCE, False
        try:
            for topic, inbox in self._inbox.items():
                while inbox and room > 0 and not self._is_full:
                    limit = self._limit(topic)
                    if limit is not None and self.next[topic] >= limit:
                        break
                    room -= self._apply_batch(inbox[0], limit, room)
                    moved = True
                    if self.next[topic] >= inbox[0].next:
                        inbox.popleft()
                if topic in self._paused and not inbox:
                    self._paused.discard(topic)
                    self.context.consumer().go_on((topic, self.partition))
        except Exception as error:  # noqa: BLE001  # half applied: nothing more of this table may be committed
            self._failure = error
            moved = True
        if moved:
            self._moved.set()
            self._work.set()
        return moved

    @property
    def _is_full(self) -> bool:
        """Whether enough is applied for one transaction."""
        return self._pending >= self.context.commit_records or self._pending_bytes >= _APPLY_BYTES

    def _limit(self, topic: str) -> int | None:
        """The end behind which records are held back, while a fence waits for other inputs."""
        fence = self._fence
        if fence is None or time.monotonic() > fence.hold_until:
            return None
        return fence.ends[topic]

    def _apply_batch(self, batch: RecordBatch, limit: int | None, most: int) -> int:
        """Apply records of a batch from where the table stands up to the limit; returns how many."""
        topic, records = batch.topic, batch.records
        end = batch.next if limit is None else min(batch.next, limit)
        first = bisect_left(records, self.next[topic], key=_offset_of)
        past = len(records) if end == batch.next else bisect_left(records, end, lo=first, key=_offset_of)
        if past - first > most:
            past = first + most
            end = records[past].offset
        records = records[first:past]
        size = sum(len(record.value or b"") for record in records)
        if self._pending_bytes + size > _APPLY_BYTES:
            records, rest = self._cut(records)
            end = rest.offset if rest is not None else end
            size = _APPLY_BYTES
        self._pending_bytes += size
        if records:
            self._apply(topic, records)
        self.next[topic] = end
        return len(records)

    def _cut(self, records: Sequence[Record]) -> tuple[Sequence[Record], Record | None]:
        """Those that the transaction has room for, one at least if it is empty; and the first that it has not."""
        room = _APPLY_BYTES - self._pending_bytes
        for number, record in enumerate(records):
            room -= len(record.value or b"")
            if room < 0 and (number or self._pending):
                return records[:number], record
        return records, None

    def _apply(self, topic: str, records: Sequence[Record]) -> None:
        monitor, payments = self.monitor, self.kept.payments
        now = self._now()
        monitor.clock = max(now, self._capped(self.context.record_clock()))
        here = (topic, self.partition)
        latest = self.kept.watermarks.get(topic, FIRST_INSTANT)
        occurred = now
        refused_before, waiting = monitor.refused, 0
        record = records[0]
        try:
            for record in records:
                refused = monitor.refused
                try:
                    admitted = self._admit(topic, record)
                except Refusal as refusal:
                    monitor.refuse(source_of(here, record), refusal)
                    admitted = None
                is_known = type(admitted) is Control and admitted.event_id in monitor.everybody.events
                if admitted is not None:
                    if monitor.apply(admitted, lambda record=record: source_of(here, record)):  # type: ignore[misc]
                        latest = max(latest, admitted.at)
                        occurred = min(occurred, admitted.at)
                        if topic == "bills":
                            payments.bill(now)
                        elif type(admitted) is Control and admitted.account_id == EVERYBODY and not is_known:
                            self._controlled(admitted, now)
                    elif monitor.refused == refused:
                        waiting += 1
                if topic == "payments":
                    payments.payment(now, usable=monitor.refused == refused)
                    if monitor.refused != refused:
                        self._unusable_payment(record, now)
        except Exception as error:
            raise Defect(f"{topic} partition {self.partition} offset {record.offset}: {error!r}") from error
        self.kept.watermarks[topic] = latest
        self._pending += len(records)
        self._count(topic, records, monitor.refused - refused_before, waiting, now)
        self.context.metrics.record_age.labels(topic, "occurred").observe((now - occurred) / SECOND)

    def _admit(self, topic: str, record: Record) -> DomainRecord:
        """The record of the domain, if its account is served here and has room for it. Raises Refusal."""
        admitted, store = admit(topic, record), self.store  # type: ignore[arg-type]  # a topic of ours
        if admitted.account_id not in store:
            check_partition(admitted.account_id, self.partition, self.context.partition_of)
        elif store.large and store.is_full(admitted.account_id):
            raise _full(admitted.account_id)
        return admitted

    def _controlled(self, control: Control, now: Instant) -> None:
        """A control for everybody has come."""
        if control.kind == "resume":
            self.kept.payments.resume(now)
            self._stops.clear()
        elif control.kind != "policies":  # it bears on accounts that a fence covers which was asked for before it came
            self._is_uncovered = True

    def _unusable_payment(self, record: Record, now: Instant) -> None:
        """§3: whoever may have paid is not suspended for it."""
        account_id = account_of_unusable(record)
        if account_id is None or self.context.partition_of(account_id.encode()) != self.partition:
            # Nobody's, or somebody's who is served elsewhere: it cannot be said whom it would save.
            self.monitor.stop("unusable_payments", _STOPPED)
        else:
            self.monitor.stop_account(account_id)
            if self.kept.payments.too_many_unusable(now):
                self.monitor.stop("unusable_payments", _STOPPED)

    def _count(self, topic: str, records: Sequence[Record], refused: int, waiting: int, now: Instant) -> None:
        metrics = self.context.metrics
        metrics.records.labels(topic, "accepted").inc(len(records) - refused - waiting)
        if refused:
            metrics.records.labels(topic, "refused").inc(refused)
        if waiting:
            metrics.records.labels(topic, "waiting").inc(waiting)
        metrics.record_age.labels(topic, "recorded").observe(max(0.0, now / 1e6 - records[0].timestamp / 1e3))

    # -- the loop ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Fence, decide, commit, until it fails; the error is raised."""
        monitor = self.monitor
        counting = asyncio.ensure_future(
            keep_counting(self.store, monitor.everybody, monitor.terms, self._now, self.metrics, self.context.counting)
        )
        counting.add_done_callback(self._counted)
        applying = asyncio.ensure_future(self._keep_applying())
        try:
            while True:
                await self._until_work()
                await self._gather()
                await self._cycle()
        finally:
            counting.cancel()
            applying.cancel()

    def _counted(self, counting: asyncio.Future[None]) -> None:
        if not counting.cancelled() and (error := counting.exception()) is not None:
            self.context.say(f"partition {self.partition}: what lies ahead is counted no more ({error!r})")

    async def _until_work(self) -> None:
        while not self._work.is_set():
            timeout = _WAKE_S
            due = self.monitor.next_due()
            if due is not None:
                timeout = min(timeout, max(0.0, (due + 1 - self._now()) / SECOND))
            woken = await _within(self._work, timeout)
            if not woken:
                self._tell_metrics()
                if (due is not None and due < self._now()) or self._has_more_to_do():
                    return

    async def _gather(self) -> None:
        """Apply records for one transaction, until it is time for it."""
        while self._failure is None and not self._is_full:
            has_moved = await self._drain()
            since = time.monotonic() - self._committed_at
            if has_moved and since < _GATHER_MOST_S:
                continue
            left = self.context.commit_interval_s - since
            if left <= 0:
                return
            self._moved.clear()
            await _within(self._moved, left)

    def _has_more_to_do(self) -> bool:
        since = time.monotonic() - self._committed_at
        if self._fence is not None or since > _HEARTBEAT_S or self._stop_may_be_over() or self._is_long_unasked():
            return True
        return self.monitor.has_undecided or self.monitor.has_usage_views(self._now())

    async def _cycle(self) -> None:
        """One turn: a fence if one is wanted and none stands, a decision if it opens, and a commit."""
        self._check_failure()
        self._work.clear()
        wants_decision = self._wants_decision()
        if self._fence is None and (wants_decision or self._is_long_unasked()):
            try:
                await (self._set_fence() if wants_decision else self._ask_ends())
            except Unanswered as error:
                if not self.metrics.brokers_away:
                    self.metrics.brokers_away = True
                    told = f"nothing is decided while the brokers are away ({error})"
                    self.context.say(f"partition {self.partition}: {told}")
                await asyncio.sleep(_WAKE_S)
                return
            self.metrics.brokers_away = False
        await self._take_usage_views()
        if self._fence is not None and await self._opens(self._fence):
            await self._decide(self._fence)
        else:
            await self.flush()
        if (self._is_uncovered and self.monitor.has_undecided) or any(self._inbox.values()):
            self._work.set()

    def _check_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _now(self) -> Instant:
        """The instant of a decision: never before the last, nor far ahead of the brokers."""
        return max(self.monitor.everybody.decided_to, self._capped(self.context.clock()))

    def _capped(self, now: Instant) -> Instant:
        latest = self.context.broker_time.latest()
        return now if latest is None else min(now, latest + self.context.max_clock_skew)

    def _wants_decision(self) -> bool:
        due = self.monitor.next_due()
        is_due = due is not None and due < self._now()
        return self.monitor.has_undecided or is_due or self._stop_may_be_over()

    def _stop_may_be_over(self) -> bool:
        """Whether something stops commands that ends by itself, and it was not looked at for a while."""
        stopped = not _END_BY_THEMSELVES.isdisjoint(self.monitor.everybody.stops)
        return stopped and time.monotonic() - self._decided_at > _LOOK_AGAIN_S

    async def _set_fence(self) -> None:
        """Ask how far the inputs reach, for a decision as of now. Raises Repartitioned."""
        age = self.context.broker_time.age
        if age is None or age > _MEASURED_WITHIN:
            await self._commit(force=True)
        now = self._now()
        self.monitor.seal()
        self._is_uncovered = False
        # Nothing is applied between the seal and the fence but what the answer covers: it is asked for afterwards.
        found = await self._ask_ends()
        blocked = any(end.stable < end.high for end in found.values())
        ends = {topic: end.high for (topic, _), end in found.items()}
        self._fence = Fence(now, ends, blocked, time.monotonic() + _HOLD_BACK_S)
        self._remember(self._complete_at(now, ends))

    def _complete_at(self, now: Instant, ends: dict[str, int]) -> Instant:
        """Up to when every record is in: the oldest watermark; an input read to its end counts as the clock (§3)."""
        return min(
            now if self.next[topic] >= end else self.kept.watermarks.get(topic, FIRST_INSTANT)
            for topic, end in ends.items()
        )

    async def _ask_ends(self) -> dict[Partition, Ends]:
        """How far the inputs reach, as of some instant after this call. Raises Unanswered, Repartitioned."""
        found = await self.context.fences.ends(self.inputs)
        self._asked_at = time.monotonic()
        self.ends = {topic: end.high for (topic, _), end in found.items()}
        return found

    def _is_long_unasked(self) -> bool:
        return time.monotonic() - self._asked_at > _ASK_AGAIN_S

    def _remember(self, complete: Instant) -> None:
        if complete > self.kept.complete:
            self.kept.complete = complete
            self.monitor.remember_from(complete)

    async def _opens(self, fence: Fence) -> bool:
        """Wait for the fence, but not for so long that commits wait for it."""
        until = time.monotonic() + self.context.commit_interval_s
        while True:
            self._check_failure()
            if all(self.next[topic] >= end for topic, end in fence.ends.items()):
                return True
            left = until - time.monotonic()
            if left <= 0 or self._is_full:
                return False
            if not await self._drain():
                self._moved.clear()
                await _within(self._moved, left)

    async def _decide(self, fence: Fence) -> None:
        """Decide on everything that is due or touched, in as many transactions as it takes."""
        self._decided_at = time.monotonic()
        self._fence = fence._replace(hold_until=math.inf)  # until the first accounts are decided on, which is soon
        self._remember(fence.at)
        self._check_clock()
        await self._check_payments(fence.at)
        room, is_done = _DECIDE_MOST, False
        while not is_done:
            async with self.context.turns.turn() as turn:
                while True:
                    if not self._is_uncovered:
                        self._decide_some(fence.at)
                        room -= _DECIDE_AT_ONCE
                    is_done = self._is_uncovered or not self.monitor.is_deciding
                    self._fence = None  # what was held back may come: its accounts wait for the next fence
                    if is_done or room <= 0 or not await turn.goes_on():
                        break
            if is_done or room <= 0:
                room = _DECIDE_MOST
                await self.flush()

    def _decide_some(self, at: Instant) -> None:
        try:
            published = self.monitor.decide(at, past=False, evidence=dict(self.next), most=_DECIDE_AT_ONCE)
            views = self.monitor.take_views(at)
        except Exception as error:
            self._failure = error
            raise Defect(f"partition {self.partition}, decision of {format_instant(at)}: {error!r}") from error
        topics, decided_at = self.context.topics, format_instant(at)
        self._publish(topics.commands, [self._envelope.command(command) for command in published.commands])
        self._publish(topics.notices, [self._envelope.notice(notice, decided_at) for notice in published.notices])
        self._publish(topics.dead_letters, [dead_letter_message(letter) for letter in published.dead_letters])
        self._publish(topics.accounts, [account_message(view) for view in views])
        if published.commands or published.notices or published.dead_letters:
            self._sent.append(published)

    async def _take_usage_views(self) -> None:
        """Some of the accounts of which only usage or packages have changed, each once a minute at most."""
        if not self.monitor.has_usage_views(self._now()):
            return
        async with self.context.turns.turn():
            if self._fence is None:  # a decision for an earlier instant may follow: views do not go back
                views = self.monitor.take_usage_views(self._now(), _USAGE_VIEWS_MOST)
                self._publish(self.context.topics.accounts, [account_message(view) for view in views])

    def _publish(self, topic: str, messages: list[Message]) -> None:
        if messages:
            self._outputs.setdefault(topic, []).extend(messages)

    # -- what stops suspends and deletes ----------------------------------------------------------------------------

    def _check_clock(self) -> None:
        # The clock itself, and what was decided by it: that never goes back, and hides a clock that has.
        broker_time, clock = self.context.broker_time, self.context.clock()
        skew = max(map(broker_time.skew, (clock, max(self.monitor.everybody.decided_to, clock))), key=abs)
        self.context.metrics.clock_skew.set(skew / SECOND)
        if abs(skew) > self.context.max_clock_skew:
            self.monitor.stop("clock_skew", _STOPPED)
        else:
            self.monitor.go_on("clock_skew")

    async def _check_payments(self, now: Instant) -> None:
        if await self._is_silent(now):
            self.monitor.stop("payments_silence", _STOPPED)
        else:
            self.monitor.go_on("payments_silence")

    async def _is_silent(self, now: Instant) -> bool:
        context, payments = self.context, self.kept.payments
        silence, here = context.payments_silence, context.heard_here(self.partition)
        if silence is None or now < self.monitor.everybody.unlimited_until:
            return False
        if now - payments.heard_since(here) < silence:
            return False  # the others need not be asked
        return payments.is_silent(now, silence, latest([here, await context.heard_elsewhere()]))

    # -- commits ----------------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Commit what is applied and decided. Raises Lost."""
        due = time.monotonic() - self._committed_at > _HEARTBEAT_S
        if self._pending or self._outputs or (due and self.next != self.durable) or self._system_rows():
            await self._commit()

    def _system_rows(self) -> dict[bytes, bytes]:
        """Rows that are no account's and have changed."""
        version = self.context.state_version
        rows = {
            EVERYBODY_KEY: encode_everybody(self.monitor.everybody, version),
            PARTITION_KEY: encode_kept(self.kept, version),
        }
        return {key: value for key, value in rows.items() if self._rows.get(key) != value}

    async def _commit(self, *, force: bool = False) -> None:
        async with self._committing:
            async with self.context.turns.turn():
                self._check_failure()
                letters = self.monitor.take_dead_letters()
                self._publish(self.context.topics.dead_letters, [dead_letter_message(letter) for letter in letters])
                for letter in letters:
                    self.context.metrics.dead_letters.labels(letter.topic, letter.error).inc()
                state = self._take_changes()
                rows = self._system_rows()
                if force and not rows:
                    rows = {PARTITION_KEY: encode_kept(self.kept, self.context.state_version)}
                self._rows.update(rows)
                state += rows.items()
                outputs, sent, positions = self._outputs, self._sent, dict(self.next)
                self._outputs, self._sent, self._pending, self._pending_bytes = {}, [], 0, 0
                self._committed_at = time.monotonic()
            began = steady_now()
            is_let_go = False
            committing = asyncio.ensure_future(self.journal.commit(state, outputs, positions))
            try:
                try:
                    appended_ms = await asyncio.shield(committing)
                except asyncio.CancelledError:
                    # Whoever lets go of the table has this commit end: readers would wait for its open transaction.
                    is_let_go = True
                    async with asyncio.timeout(_LAST_COMMIT_S):
                        appended_ms = await committing
            except BaseException as error:
                self._failure = self._failure or error
                if is_let_go:
                    raise asyncio.CancelledError from error
                raise
            ended = steady_now()
            self.context.broker_time.measured(appended_ms * 1000, began, ended)
            self.durable = positions
            self._tell_committed(sent, (ended - began) / SECOND)
            if is_let_go:
                raise asyncio.CancelledError

    def _take_changes(self) -> list[tuple[bytes, bytes | None]]:
        """Of the accounts; one that has become too large is put on hold with it (§3)."""
        changes = self.store.take_changes()
        outgrown = self.store.take_outgrown()
        for account_id in outgrown:
            self.monitor.stop_account(account_id)
            told = f"its state has {self.store.large[account_id]:,} bytes, more than {LARGE_BYTES:,}"
            self.context.say(f"partition {self.partition}: {shown(account_id)} is put on hold until its resume: {told}")
        return changes + self.store.take_changes() if outgrown else changes

    # -- metrics ----------------------------------------------------------------------------------------------------

    def _tell_committed(self, sent: list[Published], seconds: float) -> None:
        metrics, now = self.context.metrics, self.context.clock()
        metrics.transactions.labels("committed").inc()
        metrics.transaction_seconds.observe(seconds)
        if sent:
            metrics.publish_seconds.observe(seconds)
        for published in sent:
            for command in published.commands:
                self._tell_command(command, now)
            for kind, count in Counter(notice.kind for notice in published.notices).items():
                metrics.notices.labels(kind).inc(count)
            for letter in published.dead_letters:
                metrics.dead_letters.labels(letter.topic, letter.error).inc()
        new_stops = self.monitor.everybody.stops.keys() - self._stops
        for reason in new_stops:
            metrics.breaker_trips.labels(reason).inc()
            self.context.say(f"partition {self.partition}: {reason} stops commands until it is resumed or over")
        self._stops = set(self.monitor.everybody.stops)
        self._tell_metrics()

    def _tell_command(self, command: Command, now: Instant) -> None:
        metrics = self.context.metrics
        metrics.commands.labels(command.action, command.reason).inc()
        delay = now - parse_instant(command.effective_at) - self._lateness(command)
        metrics.decision_delay.labels(command.action).observe(max(0, delay) / SECOND)

    def _lateness(self, command: Command) -> Duration:
        """What the policy has it wait past its mark: no delay of ours."""
        policy = next(one for one in self.monitor.everybody.versions if one.label == command.policy)
        match command.action:
            case "suspend":
                return policy.lateness_suspend
            case "delete":
                return policy.lateness_delete
            case _:
                return 0

    def _tell_metrics(self) -> None:
        here, monitor, now = self.metrics, self.monitor, self._now()
        here.lag = {topic: max(0, end - self.next[topic]) for topic, end in self.ends.items()}
        here.watermark = {topic: at / SECOND for topic, at in self.kept.watermarks.items() if at > FIRST_INSTANT}
        tally = self.store.tally
        here.accounts = dict(tally.accounts)
        here.owed = {key: owed / 1e6 for key, owed in tally.owed.items()}
        here.marks_overdue = monitor.overdue(now)
        here.marks_pending = max(0, tally.pending - here.marks_overdue)
        here.accounts_held_for_size = len(self.store.large)
        here.held_back = len(monitor.everybody.stopped)
        due = monitor.next_due()
        here.unfenced_marks = here.marks_overdue
        here.oldest_unfenced_mark = due / SECOND if due is not None and due < now else None
        here.fence_blocked = self._fence is not None and self._fence.is_blocked
        here.guards = tuple(monitor.everybody.stops)
        here.policies = {policy.label for policy in monitor.everybody.policies_at(now).versions}

    async def stop(self) -> None:
        """Let go of the journal, within a few seconds."""
        self._failure = self._failure or asyncio.CancelledError()
        await self.journal.stop()


def _offset_of(record: Record) -> int:
    return record.offset


def _full(account_id: str) -> Refusal:
    told = f"account_id: the state of {shown(account_id)} is too large to take more"
    return Refusal("invalid", "account_id", f"{told}: send the account fewer records, see OPERATIONS")


async def _within(event: asyncio.Event, timeout_s: float) -> bool:
    """Whether it was set within this time."""
    if event.is_set():
        return True
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
