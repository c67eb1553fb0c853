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
import signal
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final

from models.codec import NewerState
from models.instants import SECOND
from models.monitor import Live, Terms
from models.policy import BUILT_IN, PolicyError, load_policies
from models.records import TOPICS
from streams.clock import BrokerTime, clock_of
from streams.faults import Unusable
from streams.fences import Fences, Repartitioned
from streams.kafka_client import kafka_client_options
from streams.metrics import Metrics
from streams.metrics_server import MetricsServer
from streams.partitioner import partition_by
from streams.settings import check_history
from streams.table import Context, OtherPartitions
from streams.tables import Tables
from streams.topic_design import AppTopics, Severity
from streams.topics import check
from streams.transport import BatchApp, BatchSchema
from streams.watermarks import Unanswered, Watermarks

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from models.policy import Policies
    from streams.settings import Settings

OK, FAILED, UNUSABLE, NEWER = 0, 1, 2, 3

_WAIT_S: Final = 1.0
_WAIT_MOST_S: Final = 15.0
_ANSWER_S: Final = 5.0
#: Batches that may stand before an agent.
_BUFFERED_BATCHES: Final = 16
_STOP_WITHIN_S: Final = 9.0
#: Objects between two collections: a transaction makes many that live until it is committed, and no cycles.
_COLLECT_EVERY: Final = 100_000


def run(settings: Settings) -> int:
    """Work until SIGTERM or SIGINT; returns the exit code. Raises Unusable."""
    policies = _policies(settings)
    check_history(settings, policies)
    client = kafka_client_options(settings)
    metrics = Metrics()
    _log_quietly()
    gc.set_threshold(_COLLECT_EVERY, 20, 20)
    worker = Worker(settings, policies, client, metrics)
    with MetricsServer(
        metrics, settings.metrics_host, settings.metrics_port, why_not_ready=worker.not_ready_because
    ) as server:
        say(f"metrics at http://{server.host}:{server.port}/metrics")
        return asyncio.run(worker.run())


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

    def not_ready_because(self) -> str | None:
        """Why it is not; None if it is."""
        return "it has not joined the group yet" if self.tables is None else self.tables.not_ready_because()

    async def run(self) -> int:
        """From the first question to the brokers to the last commit."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        stopping = asyncio.ensure_future(self._stop.wait())
        starting = asyncio.ensure_future(self._until_topics_are_right())
        await asyncio.wait({stopping, starting}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            say("stopped")
            return OK
        return await self._work(starting.result(), stopping)

    async def _until_topics_are_right(self) -> int:
        """Wait for the brokers, as long as it takes; returns the number of partitions. Raises Unusable."""
        wait_s, app_id = _WAIT_S, self.settings.app_id
        servers = ",".join(self.settings.brokers or ())
        while (unanswered := await self._unanswered()) is not None:
            say(f"waiting for the brokers at {servers}, trying again in {wait_s:g} s ({unanswered})")
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _WAIT_MOST_S)
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
            return watermarks.partitions_of("bills")

    async def _unanswered(self) -> Unanswered | None:
        try:
            async with Watermarks(self.client, timeout_s=_ANSWER_S):
                return None
        except Unanswered as error:
            return error

    async def _work(self, partitions: int, stopping: asyncio.Task[Any]) -> int:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="arrears-worker-"))
            app = _app(self.settings, self.client, folder)
            self.tables = tables = Tables(app, lambda tables: self._context(app, tables, partitions))
            app.on_offset_gone = tables.on_offset_gone
            for topic in TOPICS:
                app.agent(app.topic(topic, schema=BatchSchema(), acks=False), name=topic)(_agent(tables))
            app.finalize()
            say(f"joining {self.settings.app_id} with {partitions} partitions")
            await app.start()
            crashed = asyncio.ensure_future(app._crashed.wait())  # noqa: SLF001  # Faust's only word for it
            await asyncio.wait({stopping, crashed}, return_when=asyncio.FIRST_COMPLETED)
            error = app.crash_reason if crashed.done() else None
            say("stopping" if error is None else f"failed: {error!r}")
            crashed.cancel()
            await self._end(app, tables)
            say("stopped")
        return _exit_code(error)

    async def _end(self, app: BatchApp, tables: Tables) -> None:
        await tables.stop()
        ending = asyncio.ensure_future(app.stop())
        await asyncio.wait({ending}, timeout=_STOP_WITHIN_S)
        if ending.done() and not ending.cancelled() and (error := ending.exception()):
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
            heard_here=tables.heard_here,
            heard_elsewhere=tables.heard_elsewhere,
            consumer=lambda: app.batches,
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


def _exit_code(error: BaseException | None) -> int:
    match error:
        case None:
            return OK
        case NewerState():
            return NEWER
        case Unusable() | OtherPartitions() | Repartitioned():
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
        if now - self._said.get(what, -60.0) < 10.0:  # noqa: PLR2004
            return False
        self._said[what] = now
        return True


def _log_quietly() -> None:
    """Warnings of the libraries, each once in a while."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S"))
    handler.addFilter(_Throttle())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
