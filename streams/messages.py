"""What goes out, as Kafka messages: JSON; commands and notices as CloudEvents in Kafka's binary mode (contract §2)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

import msgspec

from streams.journal import Message

if TYPE_CHECKING:
    from models.outputs import AccountView, Command, DeadLetter, Notice

_encode: Final = msgspec.json.Encoder().encode

_JSON: Final = ("content-type", b"application/json")
_SPEC: Final = ("ce_specversion", b"1.0")
#: A key that is longer names no account.
_MOST_KEY_BYTES: Final = 256


class Envelope:
    """CloudEvents of one monitor."""

    def __init__(self, app_id: str) -> None:
        self._source = ("ce_source", f"/arrears/{app_id}".encode())

    def command(self, command: Command) -> Message:
        """A command; its time is that of the decision."""
        kind = _type(f"arrears.command.{command.action}.v1")
        return self._message(command, command.command_id, kind, command.account_id, command.decided_at)

    def notice(self, notice: Notice, decided_at: str) -> Message:
        """A notice; its time is that of the decision."""
        kind = _type(f"arrears.notice.{notice.kind}.v1")
        return self._message(notice, notice.notice_id, kind, notice.account_id, decided_at)

    def _message(
        self, value: Command | Notice, event_id: str, kind: tuple[str, bytes], account_id: str, time: str
    ) -> Message:
        key = account_id.encode()
        headers = (
            _SPEC,
            ("ce_id", event_id.encode()),
            self._source,
            kind,
            ("ce_subject", key),
            ("ce_time", time.encode()),
            _JSON,
        )
        return Message(key, _encode(value), headers)


@cache
def _type(name: str) -> tuple[str, bytes]:
    return ("ce_type", name.encode())


def account_message(view: AccountView) -> Message:
    """An account's view, under its id: the last one is kept."""
    return Message(view.account_id.encode(), _encode(view))


def dead_letter_message(letter: DeadLetter) -> Message:
    """A dead letter, under its record's key if that can be one."""
    key = None if letter.key is None else letter.key.encode()
    return Message(key if key is not None and len(key) <= _MOST_KEY_BYTES else None, _encode(letter))
