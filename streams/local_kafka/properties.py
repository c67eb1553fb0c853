"""What the broker reads: its properties, and the identity of its logs."""

from __future__ import annotations

import base64
import struct
import uuid
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: All but those that name ports and folder.
_PROPERTIES: Final[Mapping[str, str]] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    # A topic is made by `arrears topics create`; a name mistyped is an error.
    "auto.create.topics.enable": "false",
    # There is one node to keep copies.
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # 50 each on a cluster: here they would only be files to open, at the first group and the first transaction.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    # After a kill -9 the controller takes the broker for alive as long as this (9 s by default), and refuses a new one.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # A group of one's own does not wait for others.
    "group.initial.rebalance.delay.ms": "0",
    # 128 MB by default, of 384 MB.
    "log.cleaner.dedupe.buffer.size": "4194304",
}


def properties_text(address: str, controller: str, logs: Path, more: Mapping[str, str]) -> str:
    """The file `server.properties`; addresses as "host:port", `more` is added to the properties or replaces them."""
    properties = {
        **_PROPERTIES,
        "controller.quorum.voters": f"1@{controller}",
        "listeners": f"PLAINTEXT://{address},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{address}",
        "log.dirs": str(logs),
        **more,
    }
    return "".join(f"{name}={_escaped(value)}\n" for name, value in properties.items())


def cluster_id() -> str:
    """A random UUID in 22 letters; none that Kafka's tool would take for an option."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text


def _escaped(value: str) -> str:
    """A value of a properties file, which is ASCII: a sign that is not, or that escapes, is its UTF-16 units."""
    return "".join(char if " " <= char <= "~" and char != "\\" else _units(char) for char in value)


def _units(char: str) -> str:
    encoded = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{unit:04x}" for (unit,) in struct.iter_unpack(">H", encoded))
