"""What the transport does without a broker."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from aiokafka.errors import (  # type: ignore[import-untyped]
    CoordinatorNotAvailableError,
    CorruptRecordException,
    GroupAuthorizationFailedError,
)
from aiokafka.record.default_records import DefaultRecordBatchBuilder  # type: ignore[import-untyped]
from aiokafka.record.memory_records import MemoryRecords  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from streams.fetched import OffsetGone, unpack
from streams.transport import MAX_RECORDS, ConsumerThread, NotCopartitioned, _cut, check_copartitioned

if TYPE_CHECKING:
    from streams.fetched import Record

#: How a transaction ends: the control record's key, version and kind.
ABORT, COMMIT = b"\x00\x00\x00\x00", b"\x00\x00\x00\x01"
TRANSACTIONAL, CONTROL = 0x10, 0x20


def _batch(base: int, values: list[bytes], *, producer: int = -1, control: bytes | None = None) -> bytes:
    """A batch as it lies in a log."""
    builder = DefaultRecordBatchBuilder(2, 0, producer >= 0, producer, 0, 0, 1 << 20)
    if control is not None:
        builder.append(0, 0, control, b"\x00\x00\x00\x00\x00\x00", [])
    for number, value in enumerate(values):
        builder.append(number, 0, b"key", value, [])
    data = bytearray(builder.build())
    data[0:8] = base.to_bytes(8, "big")
    if control is not None:  # only brokers write these: the flag, and the checksum that covers it
        from aiokafka.record.util import calc_crc32c  # type: ignore[import-untyped]  # noqa: PLC0415

        data[22] |= CONTROL
        data[17:21] = calc_crc32c(bytes(data[21:])).to_bytes(4, "big")
    return bytes(data)


def _unpacked(data: bytes, aborted: list[tuple[int, int]], position: int) -> tuple[list[tuple[int, bytes | None]], int]:
    records, after = unpack(MemoryRecords(data), aborted, position)
    return [(record.offset, record.value) for record in records], after


def test_only_what_is_committed_is_unpacked_and_markers_count_as_read() -> None:
    log = b"".join(
        [
            _batch(0, [b"a", b"b"]),
            _batch(2, [b"lost"], producer=7),
            _batch(3, [b"c"], producer=8),
            _batch(4, [b"lost too"], producer=7),
            _batch(5, [], producer=7, control=ABORT),
            _batch(6, [], producer=8, control=COMMIT),
            _batch(7, [b"d"], producer=7),
            _batch(8, [], producer=7, control=COMMIT),
        ]
    )
    assert _unpacked(log, [(7, 2)], 0) == ([(0, b"a"), (1, b"b"), (3, b"c"), (7, b"d")], 9)


def test_a_producer_that_aborts_twice() -> None:
    log = b"".join(
        [
            _batch(0, [b"lost"], producer=7),
            _batch(1, [], producer=7, control=ABORT),
            _batch(2, [b"kept"], producer=7),
            _batch(3, [], producer=7, control=COMMIT),
            _batch(4, [b"lost"], producer=7),
            _batch(5, [], producer=7, control=ABORT),
        ]
    )
    assert _unpacked(log, [(7, 4), (7, 0)], 0) == ([(2, b"kept")], 6)


def test_a_batch_that_begins_before_the_position_is_cut() -> None:
    assert _unpacked(_batch(10, [b"a", b"b", b"c"]), [], 11) == ([(11, b"b"), (12, b"c")], 13)


def test_nothing_fetched_moves_nothing() -> None:
    assert _unpacked(b"", [], 11) == ([], 11)


def test_a_wrong_checksum_is_told() -> None:
    data = bytearray(_batch(10, [b"value"]))
    data[-1] ^= 1
    with pytest.raises(CorruptRecordException, match="offset 10"):
        unpack(MemoryRecords(bytes(data)), [], 10)


@given(gaps=st.lists(st.integers(1, 3), max_size=40), markers=st.integers(0, 3), start=st.integers(0, 9))
def test_batches_cover_what_was_fetched(gaps: list[int], markers: int, start: int) -> None:
    """Cut small: as many records as MAX_RECORDS would take, a thousand for each."""
    offsets, offset = [], start
    for gap in gaps:
        offset += gap
        offsets += [offset + n for n in range(1000)]
        offset += 999
    after = (offsets[-1] + 1 if offsets else start) + markers
    records = [cast("Record", SimpleNamespace(offset=offset)) for offset in offsets]
    batches = _cut(("bills", 3), start, after, records)
    assert [record for batch in batches for record in batch.records] == records
    assert all(batch[:2] == ("bills", 3) and len(batch.records) <= MAX_RECORDS for batch in batches)
    assert [batch.start for batch in batches] == [start, *[batch.next for batch in batches]][: len(batches)]
    assert (batches[-1].next if batches else start) == after
    for batch in batches:
        assert batch.start < batch.next
        assert all(batch.start <= record.offset < batch.next for record in batch.records)


@pytest.mark.parametrize(
    ("error", "ended", "raised"),
    [
        (None, False, False),
        (CoordinatorNotAvailableError(), False, False),  # aiokafka tries again
        (CoordinatorNotAvailableError(), True, True),
        (GroupAuthorizationFailedError("arrears"), False, True),
        (AssertionError(), True, True),
    ],
)
def test_what_the_groups_coordination_has_met(error: Exception | None, ended: bool, raised: bool) -> None:
    def check_errors() -> None:
        if error is not None:
            raise error

    task = SimpleNamespace(done=lambda: ended)
    fetcher = SimpleNamespace(_fetch_task=SimpleNamespace(done=lambda: False))
    coordinator = SimpleNamespace(check_errors=check_errors, _coordination_task=task)
    consumer = SimpleNamespace(_closed=False, _fetcher=fetcher, _coordinator=coordinator)
    thread = cast("ConsumerThread", SimpleNamespace(log=SimpleNamespace(warning=lambda *_: None)))
    with pytest.raises(type(error)) if raised and error else nullcontext():
        ConsumerThread.check(thread, consumer)


def test_what_belongs_together_comes_together() -> None:
    check_copartitioned([], ["bills", "payments"])
    check_copartitioned([("bills", 1), ("payments", 1)], ["bills", "payments"])
    with pytest.raises(NotCopartitioned, match="without payments 2:"):
        check_copartitioned([("bills", 1), ("payments", 1), ("bills", 2)], ["bills", "payments"])


def test_what_is_gone_is_told_in_words() -> None:
    assert str(OffsetGone(("bills", 3), 5, 9, 20)).startswith("bills partition 3: records 5 to 8 have been deleted")
    assert "the partition ends at 20" in str(OffsetGone(("bills", 3), 25, 9, 20))
