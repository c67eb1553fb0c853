"""The journal of a partition: what changed, how far its inputs were read, what is published, in one Kafka transaction.

Laws of this file:

- The transactional id names the partition. Who has called `start` last holds the newest producer epoch: everybody
  before is fenced off, what they left open is aborted, and what `recover` then reads is all that was ever committed.
- All of a commit becomes visible, or none. After any error but `TooLarge` the journal is lost, with whatever its owner
  holds in memory: another is started, and recovered.
- `commit_transaction` of aiokafka commits whatever was delivered: every delivery is looked at before it is called.
- Every wait ends. aiokafka retries for ever, and a producer stopped under a commit never answers it.

A journal knows bytes only, but for the positions.
"""

# aiokafka has no types, and not a public word for everything that is needed here.
# ruff: noqa: ANN401, SLF001

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]
from aiokafka.errors import KafkaError, ProducerFenced  # type: ignore[import-untyped]

from models.state_version import VERSION_BYTES, WRITES, check_version
from streams.fetched import OffsetGone
from streams.partition_reader import read_partition
from streams.topic_design import OUTPUT_BYTES
from streams.watermarks import Unanswered, Watermarks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from streams.fetched import Partition
    from streams.turns import Turns

#: The key of the positions. No account has it: theirs are UTF-8, which knows no such byte.
CHECKPOINT: Final = b"\xff@checkpoint"

#: Bytes of a batch of several records: what every broker takes unless told otherwise (`message.max.bytes`).
_BATCH_BYTES: Final = 900_000
#: Of the largest record, which is a batch of its own. The topics that a journal writes take so much (`topic_design`).
MAX_RECORD_BYTES: Final = OUTPUT_BYTES - 100_000

#: Whoever looks for the newest value of a key begins so many offsets before the end.
_LOOK_BACK: Final = 1_000

#: How long `stop` lets a running commit end, then the producer, then its connections, each.
_STOP_WITHIN_S: Final = 2.0
_SETTLE_RETRY_S: Final = 0.05

_NO_HEADERS: Final[list[tuple[str, bytes]]] = []


class Message(NamedTuple):
    """What is published to a topic, in the journal's partition."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class Lost(Exception):
    """It is not known, or not so, that the last transaction has committed; the journal is of no more use."""


class Fenced(Lost):
    """Another owner has started, or the brokers gave up the transaction because it took too long."""


class TooLarge(Exception):
    """A record that no broker would take. Nothing of the commit was sent; the journal goes on."""

    def __init__(self, topic: str, key: bytes | None, size: int) -> None:
        super().__init__(f"a record for {topic} of {size} bytes is larger than {MAX_RECORD_BYTES} (key {key!r})")
        self.topic = topic
        self.key = key
        self.size = size


class Journal:
    """One partition's. `start`, `recover`, then `commit`; in the end, whatever happened, `stop`.

    `outputs` are the topics besides the state's that it writes: none may have a transaction open when it begins.
    `client` are aiokafka's options that say how to reach the brokers. `timeout_s` bounds a start, a commit, and, at the
    brokers, an open transaction: as long may an abandoned one hold up who reads what is committed. The positions are
    written in `state_version`.
    """

    def __init__(
        self,
        client: Mapping[str, Any],
        app_id: str,
        partition: int,
        *,
        state_topic: str,
        outputs: Iterable[str] = (),
        timeout_s: float = 15.0,
        state_version: int = WRITES,
    ) -> None:
        self.partition = partition
        self.state_topic = state_topic
        self._outputs = tuple(outputs)
        self.transactional_id = f"{app_id}-{partition}"
        self._client = client
        self._timeout_s = timeout_s
        self._state_version = state_version
        self._producer: Any = None
        self._failure: BaseException | None = None
        self._committing = asyncio.Lock()
        self._deadline: asyncio.Timeout | None = None

    # -- owning -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Fence off every earlier owner, and have the brokers abort what one has left open. Raises Lost."""
        assert self._producer is None, "a journal starts once"
        milliseconds = int(self._timeout_s * 1000)
        self._producer = producer = AIOKafkaProducer(
            transactional_id=self.transactional_id,
            transaction_timeout_ms=milliseconds,
            request_timeout_ms=milliseconds,
            max_batch_size=_BATCH_BYTES,
            **self._client,
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                await producer.start()
        except Exception as error:
            await self.stop()
            raise self._lost(error, "could not start") from error
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Let go, within a few seconds. A commit that runs has 2 s to end, or is lost."""
        self._failure = self._failure or Lost("stopped")
        if self._deadline is not None and not self._deadline.expired():
            soon = asyncio.get_running_loop().time() + _STOP_WITHIN_S
            self._deadline.reschedule(min(soon, self._deadline.when() or soon))
        async with self._committing:
            producer, self._producer = self._producer, None
        if producer is not None:
            await _end(producer)

    # -- recovering -------------------------------------------------------------------------------------------------

    async def recover(self, take: Callable[[bytes, bytes | None], None], turns: Turns) -> dict[str, int]:
        """Hand every committed record of the state to `take`, oldest first; returns the positions: topic, next offset.

        A key comes again when it was written again; the value None says that it is gone. Raises Lost, OffsetGone when
        the state was cut off, NewerState, and what `take` raises.
        """
        state: Partition = (self.state_topic, self.partition)
        checkpoint: bytes | None = None
        reader = Watermarks(self._client, timeout_s=self._timeout_s)
        try:
            async with reader:
                position = (await reader.earliest([state]))[state]
                for topic in self._outputs:
                    await self._settled_end(reader, (topic, self.partition))
                end = await self._settled_end(reader, state)
                if position > 0:
                    raise OffsetGone(state, 0, position, end)
                async with aclosing(read_partition(reader, state, position, end)) as chunks:
                    async for records in chunks:
                        async with turns.turn():
                            for record in records:
                                key = record.key
                                if key == CHECKPOINT:
                                    checkpoint = record.value
                                elif key is not None:
                                    take(key, record.value)
        except (Unanswered, KafkaError) as error:
            raise self._lost(error, "could not be recovered") from error
        return decode_positions(checkpoint)

    async def _settled_end(self, reader: Watermarks, place: Partition) -> int:
        """The end of a partition that only journals write, once no transaction is open in it.

        Behind an open one lies what was committed since: less than the whole state must not pass for it. And the next
        commit would end the open one with itself, and so publish what was aborted. None can be open, as the only id
        that writes here has just been fenced. But Kafka 4.3.1 was seen to skip the ends of transactions that it
        finishes while it starts.
        """
        waited_until = asyncio.get_running_loop().time() + self._timeout_s
        while True:
            ends = (await reader.ends([place]))[place]
            if ends.stable >= ends.high:
                return ends.stable
            if asyncio.get_running_loop().time() > waited_until:
                topic, number = place
                raise Unanswered(
                    f"a transaction hangs in {topic} partition {number}: end it (kafka-transactions.sh abort "
                    f"--topic {topic} --partition {number} --start-offset {ends.stable})"
                )
            await asyncio.sleep(_SETTLE_RETRY_S)

    # -- committing -------------------------------------------------------------------------------------------------

    async def commit(
        self,
        state: Iterable[tuple[bytes, bytes | None]],
        outputs: Mapping[str, Iterable[Message]],
        positions: Mapping[str, int],
    ) -> int:
        """Write changed records of the state, messages by topic, and the next offset of each input: all, or nothing.

        Returns when the state was appended, in milliseconds since 1970, by the brokers' clock if its topic has append
        times. One after the other: a second call waits. Raises TooLarge, with nothing sent; and Lost, Fenced.
        """
        async with self._committing:
            producer = self._producer
            if self._failure is not None or producer is None:
                raise self._lost(self._failure, "was lost before")
            checkpoint = (CHECKPOINT, _encode_positions(positions, self._state_version))
            batches = [
                _batches(producer, topic, ((key, value, list(headers)) for key, value, headers in messages))
                for topic, messages in outputs.items()
            ]
            changes = chain(state, (checkpoint,))
            batches.append(_batches(producer, self.state_topic, ((key, value, _NO_HEADERS) for key, value in changes)))
            try:
                async with asyncio.timeout(self._timeout_s) as self._deadline:
                    return await self._transact(producer, batches)
            except Exception as error:  # an AssertionError, too: aiokafka's word for a producer that is dead
                self._failure = error
                raise self._lost(error, "did not commit") from error
            except BaseException as error:  # cancelled: whether it has committed is not known
                self._failure = error
                raise
            finally:
                self._deadline = None

    async def _transact(self, producer: Any, batches: list[list[_Batch]]) -> int:
        await producer.begin_transaction()
        deliveries = []
        # A topic takes its next batch when the one before has gone: side by side they share their requests.
        for topic, batch in (one for row in zip_longest(*batches) for one in row if one is not None):
            delivery = await producer.send_batch(batch, topic, partition=self.partition)
            delivery.add_done_callback(_retrieve)
            deliveries.append(delivery)
        delivered = await asyncio.gather(*deliveries)
        await producer.commit_transaction()
        appended: int = max(record.timestamp for record in delivered if record.topic == self.state_topic)
        return appended

    def _lost(self, error: BaseException | None, what: str) -> Lost:
        kind = Fenced if isinstance(error, ProducerFenced) else Lost
        why = f"no answer within {self._timeout_s:g} s" if isinstance(error, TimeoutError) else repr(error)
        return kind(f"the journal {self.transactional_id} {what}: {why}")


#: A topic, and records for one of its partitions in a builder of aiokafka's.
_Batch = tuple[str, "Any"]


def _batches(
    producer: Any, topic: str, records: Iterable[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]]
) -> list[_Batch]:
    batches: list[_Batch] = []
    append: Any = None
    for key, value, headers in records:
        if append is None or append(timestamp=None, key=key, value=value, headers=headers) is None:
            batch = producer.create_batch()
            append = batch.append
            append(timestamp=None, key=key, value=value, headers=headers)  # a batch takes any first record
            if batch.size() > MAX_RECORD_BYTES:
                raise TooLarge(topic, key, batch.size())
            batches.append((topic, batch))
    return batches


async def _end(producer: Any) -> None:
    """Stop a producer, or abandon it, and leave neither a task nor an unread error behind."""
    stopping = asyncio.ensure_future(producer.stop())
    await asyncio.wait({stopping}, timeout=_STOP_WITHIN_S)
    accumulator, transactions, sender = producer._message_accumulator, producer._txn_manager, producer._sender
    # A batch that is to be sent again takes itself out of those on their way, in which it is not, when it fails.
    accumulator._pending_batches.update(chain.from_iterable(accumulator._batches.values()))
    unsent = list(accumulator._pending_batches)
    accumulator.fail_all(Lost("stopped"))
    _retrieve(transactions._transaction_waiter)
    _retrieve_drained(unsent)
    for _ in range(10):  # the sender waits for its requests, one by one: each cancelling ends one
        if stopping.done() or sender.sender_task is None or sender.sender_task.done():
            break
        sender.sender_task.cancel()
        await asyncio.wait({sender.sender_task}, timeout=_STOP_WITHIN_S / 10)
    with suppress(Exception):
        await asyncio.wait_for(producer.client.close(), _STOP_WITHIN_S)
    await asyncio.wait({stopping}, timeout=_STOP_WITHIN_S)
    _retrieve(stopping)
    _retrieve_drained(unsent)  # one that was about to be sent again has failed once more


def _retrieve_drained(batches: Iterable[Any]) -> None:
    for batch in batches:
        _retrieve(batch._drain_waiter)


def _retrieve(future: asyncio.Future[Any] | None) -> None:
    """Read an error that is told elsewhere: asyncio would complain of it when the future goes."""
    if future is not None and future.done() and not future.cancelled():
        future.exception()


async def newest(client: Mapping[str, Any], state: Partition, key: bytes, *, timeout_s: float = 15.0) -> bytes | None:
    """The newest committed value of a key in a partition of the state, looked for from its end; None if it has none.

    It steps back further each time, so that what was written lately is found at once. Raises Lost.
    """
    step = _LOOK_BACK
    try:
        async with Watermarks(client, timeout_s=timeout_s) as reader:
            first = (await reader.earliest([state]))[state]
            end = (await reader.ends([state]))[state].stable
            while end > first:
                begin, value = max(first, end - step), None
                async with aclosing(read_partition(reader, state, begin, end)) as chunks:
                    async for records in chunks:
                        for record in records:
                            value = record.value if record.key == key else value
                if value is not None:
                    return value
                end, step = begin, 4 * step
    except (Unanswered, KafkaError) as error:
        raise Lost(f"{state[0]} partition {state[1]} could not be read: {error}") from error
    return None


def _encode_positions(positions: Mapping[str, int], version: int) -> bytes:
    return VERSION_BYTES[version] + msgspec.msgpack.encode(dict(positions))


def decode_positions(value: bytes | None) -> dict[str, int]:
    """What stands under `CHECKPOINT`: by input, the next offset. Raises NewerState."""
    if value is None:
        return {}
    check_version(value)
    return msgspec.msgpack.decode(value[1:], type=dict[str, int])
