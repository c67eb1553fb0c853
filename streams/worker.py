"""`arrears worker`: a Faust app, one agent an input topic, over the arrears tables of its partitions (contract §3).

From its start to its end: wait for the brokers, look at the topics, join the group, work until a signal or a failure,
commit, leave. What the exit code says: 0 stopped, 1 failed, 2 something given cannot be used, 3 the state is newer.
"""

# Faust has few types.
# ruff: noqa: ANN401

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final

from aiokafka.errors import KafkaConnectionError, KafkaError, UnknownError  # type: ignore[import-untyped]

from models.instants import SECOND
from models.monitor import Live, Terms
from models.policy import BUILT_IN, PolicyError, load_policies
from models.records import TOPICS
from models.state_version import NewerState
from streams.brokers import Silent
from streams.clock import BrokerTime, clock_of
from streams.faults import Unusable
from streams.fences import Fences, Repartitioned
from streams.journal import Lost, newest
from streams.kafka_client import kafka_client_options
from streams.metrics import Metrics
from streams.metrics_server import MetricsServer
from streams.partitioner import partition_by
from streams.settings import check_history
from streams.table import PARTITION_KEY, Context, OtherPartitions, decode_kept
from streams.tables import SameInstance, Tables
from streams.topic_design import AppTopics, Severity
from streams.topics import check
from streams.transport import BatchApp, BatchSchema, NotCopartitioned
from streams.turns import Turns
from streams.watermarks import Unanswered, Watermarks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from models.policy import Policies
    from streams.fetched import Partition
    from streams.settings import Settings

OK, FAILED, UNUSABLE, NEWER = 0, 1, 2, 3

_WAIT_S: Final = 1.0
_WAIT_MOST_S: Final = 15.0
_ANSWER_S: Final = 5.0
#: Batches that may stand before an agent.
_BUFFERED_BATCHES: Final = 16
#: From the signal to the last word. A process that hangs later than that is ended: nothing is lost by it.
_STOP_WITHIN_S: Final = 8.0
_END_WITHIN_S: Final = 9.5
#: An event loop that has not turned for so long does not come back; no turn of ours takes seconds.
_HANGS_S: Final = 60.0
#: What aiokafka makes of FENCED_INSTANCE_ID, which it does not know: another member has this one's name now.
_UNKNOWN: Final = UnknownError.__name__
#: Objects between two collections: a transaction makes many that live until it is committed, and no cycles.
_COLLECT_EVERY: Final = 100_000


def run(settings: Settings) -> int:
    """Work until SIGTERM or SIGINT; returns the exit code. Raises Unusable."""
    policies = _policies(settings)
    check_history(settings, policies)
    client = kafka_client_options(settings)
    metrics = Metrics(state_version=settings.state_version)
    _log_quietly()
    gc.set_threshold(_COLLECT_EVERY, 20, 20)
    worker = Worker(settings, policies, client, metrics)
    with MetricsServer(
        metrics,
        settings.metrics_host,
        settings.metrics_port,
        why_not_ready=worker.not_ready_because,
        why_not_live=worker.hangs_because,
    ) as server:
        say(f"metrics at http://{server.host}:{server.port}/metrics")
        code = asyncio.run(worker.run(end=_end_soon))
    sys.stderr.flush()
    return code


def _end_soon(code: int) -> None:
    """See that the process ends, whatever thread or connection hangs."""
    timer = threading.Timer(_END_WITHIN_S, os._exit, (code,))
    timer.daemon = True
    timer.start()


def _policies(settings: Settings) -> Policies:
    if settings.policy is None:
        return BUILT_IN
    try:
        return load_policies(settings.policy)
    except PolicyError as error:
        raise Unusable(str(error)) from None


def say(line: str) -> None:
    """Tell whoever runs the worker."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with suppress(OSError, ValueError):  # nobody listens
        print(f"{now} {line}", file=sys.stderr, flush=True)  # noqa: T201


class Worker:
    """One run of one worker."""

    def __init__(self, settings: Settings, policies: Policies, client: Mapping[str, Any], metrics: Metrics) -> None:
        self.settings = settings
        self.policies = policies
        self.client = client
        self.metrics = metrics
        self.tables: Tables | None = None
        self._stop = asyncio.Event()
        self._beat_at = time.monotonic()

    def not_ready_because(self) -> str | None:
        """Why it is not; None if it is."""
        return "it has not joined the group yet" if self.tables is None else self.tables.not_ready_because()

    def stop(self) -> None:
        """As a SIGTERM does: commit, leave, end."""
        self._stop.set()

    def hangs_because(self) -> str | None:
        """Why it had better be started anew; None if it is well. Asked by another thread."""
        silent_s = time.monotonic() - self._beat_at
        return f"its event loop has not turned for {silent_s:.0f} s" if silent_s > _HANGS_S else None

    async def _beat(self) -> None:
        while True:
            self._beat_at = time.monotonic()
            await asyncio.sleep(1)

    async def run(self, end: Callable[[int], None] = lambda _: None) -> int:
        """From the first question to the brokers to the last commit. `end` is told when it begins to stop."""
        beating = asyncio.ensure_future(self._beat())
        try:
            return await self._run(end)
        finally:
            beating.cancel()

    async def _run(self, end: Callable[[int], None]) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        stopping = asyncio.ensure_future(self._stop.wait())
        stopping.add_done_callback(lambda _: end(OK))
        try:
            while True:
                starting = asyncio.ensure_future(self._until_topics_are_right())
                await asyncio.wait({stopping, starting}, return_when=asyncio.FIRST_COMPLETED)
                if not starting.done():
                    starting.cancel()
                    await asyncio.wait({starting})
                    say("stopped")
                    return OK
                error = starting.exception()
                if isinstance(error, OtherPartitions | NewerState):
                    say(f"failed: {error}")
                    break
                error = await self._work(starting.result(), stopping)
                if not isinstance(error, _NotStarted):
                    break
                say(f"could not join the group, trying again in {_WAIT_S:g} s ({error})")
                await asyncio.wait({stopping}, timeout=_WAIT_S)
            end(code := _exit_code(error))
            return code
        finally:
            stopping.cancel()

    async def _until_topics_are_right(self) -> int:
        """Wait for the brokers, as long as it takes; returns the number of partitions.

        Raises Unusable, OtherPartitions and NewerState.
        """
        wait_s, servers = _WAIT_S, ",".join(self.settings.brokers or ())
        while True:
            try:
                async with Watermarks(self.client, timeout_s=_ANSWER_S):
                    pass  # quicker, and with better words, than the question that follows
                return await self._checked_partitions()
            except (Unanswered, Silent, Lost) as error:
                say(f"waiting for the brokers at {servers}, trying again in {wait_s:g} s ({error})")
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _WAIT_MOST_S)

    async def _checked_partitions(self) -> int:
        """The number of partitions of the topics, which are as they have to be."""
        app_id = self.settings.app_id
        problems = await check(self.client, app_id=app_id)
        for problem in problems:
            if problem.severity is not Severity.FATAL:
                say(f"warning: {problem}")
        fatal = [str(problem) for problem in problems if problem.severity is Severity.FATAL]
        if fatal:
            more = f" (and {len(fatal) - 1} more: arrears topics check)" if len(fatal) > 1 else ""
            raise Unusable(f"{fatal[0]}{more}")
        async with Watermarks(self.client, timeout_s=_ANSWER_S) as watermarks:
            await watermarks.ends([("bills", 0)])
            partitions = watermarks.partitions_of("bills")
            state = AppTopics.of(app_id).state
            ends = await watermarks.ends((state, number) for number in range(partitions))
        await self._refuse_other_partitions(partitions, sorted(there for there, end in ends.items() if end.high))
        return partitions

    async def _refuse_other_partitions(self, partitions: int, with_state: list[Partition]) -> None:
        """Whichever partitions this worker will have: one that is new would know of no other number (§2)."""
        for state in with_state:
            row = await newest(self.client, state, PARTITION_KEY)
            if row is not None:
                if (kept := decode_kept(row).partitions) != partitions:
                    raise OtherPartitions(kept, partitions)
                return  # the lowest are the oldest

    async def _work(self, partitions: int, stopping: asyncio.Task[Any]) -> BaseException | None:
        """Until a signal or a failure, which is returned."""
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="arrears-worker-"))
            app = _app(self.settings, self.client, folder)
            self.tables = tables = Tables(app, lambda tables: self._context(app, tables, partitions))
            app.on_offset_gone = tables.on_offset_gone
            for topic in TOPICS:
                app.agent(app.topic(topic, schema=BatchSchema(), acks=False), name=topic)(_agent(tables))
            app.finalize()
            say(f"joining {self.settings.app_id} with {partitions} partitions")
            starting = asyncio.ensure_future(app.start())
            crashed = asyncio.ensure_future(app._crashed.wait())  # noqa: SLF001  # Faust's only word for it
            watching = asyncio.ensure_future(tables.watch())
            await asyncio.wait({stopping, crashed, starting}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done() and starting.exception() is None:
                await asyncio.wait({stopping, crashed}, return_when=asyncio.FIRST_COMPLETED)
            error = _failure(app, starting, has_joined=tables.has_joined)
            say("stopping" if error is None else f"failed: {_told(error)}")
            for task in (crashed, watching, starting):
                task.cancel()
            await self._end(app, tables)
            await asyncio.wait({crashed, watching, starting}, timeout=_ANSWER_S)
            say("stopped")
        return error

    async def _end(self, app: BatchApp, tables: Tables) -> None:
        until = asyncio.get_running_loop().time() + _STOP_WITHIN_S
        await tables.stop()
        ending = asyncio.ensure_future(app.stop())
        await asyncio.wait({ending}, timeout=until - asyncio.get_running_loop().time())
        if not ending.done():
            say("the brokers do not answer: left without a word to them")
        elif not ending.cancelled() and (error := ending.exception()):
            say(f"did not stop well: {error!r}")

    def _context(self, app: BatchApp, tables: Tables, partitions: int) -> Context:
        settings = self.settings
        live = Live(
            max_ahead=settings.max_ahead,
            max_deletes=settings.max_deletes,
            max_suspends=settings.max_suspends,
            subscribers=settings.subscribers,
            notice_acks=settings.notice_acks == "required",
        )
        clock, broker_time = clock_of(settings.clock), BrokerTime()
        return Context(
            app_id=settings.app_id,
            client=self.client,
            topics=AppTopics.of(settings.app_id),
            partitions=partitions,
            partition_of=partition_by(settings.partitioner, partitions),
            policies=self.policies,
            terms=Terms(settings.app_id, settings.history, settings.usage_history, live),
            clock=clock,
            record_clock=clock if settings.clock is not None else lambda: max(clock(), broker_time.earliest() or 0),
            broker_time=broker_time,
            fences=Fences(self.client, partitions),
            metrics=self.metrics,
            max_clock_skew=settings.max_clock_skew,
            payments_silence=settings.payments_silence,
            commit_interval_s=settings.commit_interval / SECOND,
            commit_records=settings.commit_records,
            transaction_timeout_s=settings.transaction_timeout / SECOND,
            state_version=settings.state_version,
            heard_here=tables.heard_here,
            heard_elsewhere=tables.heard_elsewhere,
            consumer=lambda: app.batches,
            turns=Turns(),
            counting=asyncio.Lock(),
            say=say,
        )


def _app(settings: Settings, client: Mapping[str, Any], folder: str) -> BatchApp:
    # A static member keeps its name and its URL, which Faust's assignor compares, over a restart.
    static: dict[str, Any] = {}
    if settings.instance_id is not None:
        static = {
            "consumer_group_instance_id": settings.instance_id,
            "canonical_url": f"http://{settings.instance_id}",
        }
    session_s = settings.session_timeout / SECOND
    return BatchApp(
        settings.app_id,
        client=client,
        broker_session_timeout=session_s,
        broker_rebalance_timeout=session_s,
        broker_heartbeat_interval=settings.heartbeat_interval / SECOND,
        broker_request_timeout=session_s + settings.transaction_timeout / SECOND,
        datadir=folder,
        stream_buffer_maxsize=_BUFFERED_BATCHES,
        stream_wait_empty=False,
        table_standby_replicas=0,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        **static,
    )


def _agent(tables: Tables) -> Any:
    async def agent(stream: Any) -> None:
        async for batch in stream:
            await tables.take(batch)

    return agent


class _NotStarted(Exception):
    """The brokers went away between the first question and the join."""


def _failure(app: BatchApp, starting: asyncio.Future[Any], *, has_joined: bool) -> BaseException | None:
    """Why the app ends; None if it was told to."""
    error = app.crash_reason
    if error is None and starting.done():
        error = starting.exception()
    # Faust's start may come to its end although the consumer's thread has crashed meanwhile.
    is_started = starting.done() and starting.exception() is None
    is_started = is_started and (has_joined or not isinstance(error, KafkaConnectionError))
    instance_id = app.conf.consumer_group_instance_id
    if instance_id and isinstance(error, KafkaError) and _UNKNOWN in repr(error):
        return SameInstance(instance_id)
    if isinstance(error, KafkaError) and not is_started:
        return _NotStarted(repr(error))
    return error


def _told(error: BaseException) -> str:
    """Ours say what to do; of others the kind is needed too."""
    ours = (NewerState, Unusable, OtherPartitions, Repartitioned, NotCopartitioned, SameInstance, _NotStarted)
    return str(error) if isinstance(error, ours) else repr(error)


def _exit_code(error: BaseException | None) -> int:
    match error:
        case None:
            return OK
        case NewerState():
            return NEWER
        case Unusable() | OtherPartitions() | Repartitioned() | NotCopartitioned():
            return UNUSABLE
        case _:
            return FAILED


class _Throttle(logging.Filter):
    """While brokers are away aiokafka says the same a hundred times a second: once in 10 s is enough."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is to be said."""
        now, what = time.monotonic(), str(record.msg)
        if what.startswith("Crashed reason"):  # the worker tells it itself, in its own words
            return False
        if now - self._said.get(what, -60.0) < 10.0:  # noqa: PLR2004
            return False
        self._said[what] = now
        if not os.environ.get("ARREARS_TRACEBACK"):
            record.exc_info = record.exc_text = None
        return True


def _log_quietly() -> None:
    """Warnings of the libraries, each once in a while."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S"))
    handler.addFilter(_Throttle())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    # How late timers of Faust are says nothing that anybody can act on; for a loop that hangs there is `hangs_because`.
    logging.getLogger("mode.timers").setLevel(logging.ERROR)
