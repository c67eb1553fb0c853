"""From a record of Kafka to a record of the domain: its key, its partition, its value (contract §2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from models.everybody import EVERYBODY
from models.instants import format_instant
from models.outputs import Source
from models.records import decode
from models.refusal import Refusal, shown

if TYPE_CHECKING:
    from models.records import Record as DomainRecord
    from models.records import Topic
    from streams.fetched import Partition, Record
    from streams.partitioner import Partition as PartitionOf

#: What a key may have (§2).
_MOST_KEY_BYTES: Final = 256


def admit(topic: Topic, record: Record) -> DomainRecord:
    """The record of the domain, whose account is that of the key. Raises Refusal."""
    key, value = record.key, record.value
    if value is None:
        raise Refusal("invalid", None, "the record has no value: send a JSON object")
    if key is None:
        raise Refusal("key_mismatch", "account_id", "the record has no key: send the account_id as its key")
    decoded = decode(topic, value)
    if decoded.account_id.encode() != key:
        told = f"account_id: {shown(decoded.account_id)} is not the record's key: send the account_id as the key"
        raise Refusal("key_mismatch", "account_id", told)
    return decoded


def check_partition(account_id: str, partition: int, partition_of: PartitionOf) -> None:
    """Raise Refusal if the account's records belong elsewhere. What is for everybody belongs everywhere."""
    right = partition_of(account_id.encode())
    if right != partition and account_id != EVERYBODY:
        told = f"account_id: {shown(account_id)} belongs to partition {right}, not {partition}: check the producer's"
        raise Refusal("wrong_partition", "account_id", f"{told} partitioner and its number of partitions")


def source_of(partition: Partition, record: Record) -> Source:
    """Where a record came from; received when Kafka recorded it."""
    received_at = format_instant(record.timestamp * 1000) if record.timestamp >= 0 else None
    return Source(partition[0], partition[1], record.offset, record.key, record.value, received_at)


class _Named(msgspec.Struct):
    account_id: str


_named: Final = msgspec.json.Decoder(_Named).decode


def account_of_unusable(record: Record) -> str | None:
    """The account of a record that cannot be used: by its value, else its key (§3). None: neither can be read."""
    if record.value is not None:
        try:
            account_id = _named(record.value).account_id
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass
        else:
            if _can_be(account_id):
                return account_id
    if record.key is not None:
        try:
            account_id = record.key.decode()
        except UnicodeDecodeError:
            return None
        if _can_be(account_id):
            return account_id
    return None


def _can_be(account_id: str) -> bool:
    return account_id != EVERYBODY and 1 <= len(account_id.encode(errors="replace")) <= _MOST_KEY_BYTES
