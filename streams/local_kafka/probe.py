"""Looking at a port of this machine: does a broker answer, is one free."""

from __future__ import annotations

import secrets
import socket
import struct
from contextlib import suppress
from typing import Final

#: Where a local broker is, and nowhere else.
HOST: Final = "127.0.0.1"

_TIMEOUT_S: Final = 1.0

#: Metadata, version 1: api key, version, a number that the answer repeats, no client id, no topics; its size before it.
_NUMBER: Final = 7
_ASK: Final = struct.pack(">ihhihi", 14, 3, 1, _NUMBER, -1, 0)
#: Size, that number, how many brokers there are.
_ANSWER: Final = struct.Struct(">iii")


def answers(port: int) -> bool:
    """Whether a broker answers there, and knows of itself: a moment before it would say that there are no brokers.

    Asked by hand, which takes no event loop: tests ask from within theirs.
    """
    with suppress(OSError), socket.create_connection((HOST, port), timeout=_TIMEOUT_S) as connection:
        connection.sendall(_ASK)
        answer = b""
        while len(answer) < _ANSWER.size:
            piece = connection.recv(_ANSWER.size - len(answer))
            if not piece:
                return False
            answer += piece
        _, number, brokers = _ANSWER.unpack(answer)
        return (number, brokers) == (_NUMBER, 1)
    return False


#: Below those that systems give to outgoing connections: one of these could take a broker's port while that restarts.
_PORTS: Final = range(16_384, 32_768)
_ATTEMPTS: Final = 100


def free_port() -> int:
    """A port on which nothing listens just now. Raises OSError if none is found."""
    for attempt in range(_ATTEMPTS):
        port = _PORTS.start + secrets.randbelow(len(_PORTS))
        try:
            bind(port)
        except OSError:
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return port
    raise AssertionError("the last attempt has returned or raised")


def bind(port: int) -> None:
    """Try to listen there, as Java would: what lingers of past connections is no hindrance. Raises OSError."""
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((HOST, port))
