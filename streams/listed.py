"""What a person sees of commands, notices, dead letters and account views: columns, rows, totals.

The values are those of the topics, read as plain JSON: what a later release adds to them does no harm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from rich.table import Table
from rich.text import Text

from models.refusal import printable
from streams import telling

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streams.fetched import Record

_STYLES: Final = {
    "suspend": "yellow",
    "suspended": "yellow",
    "restore": "green",
    "restored": "green",
    "delete": "bold red",
    "deleted": "bold red",
    "in_arrears": "cyan",
}


class Column(NamedTuple):
    """One column. `width` is what it gets where rows are shown as they come."""

    title: str
    width: int
    cell: Callable[[Mapping[str, Any]], str]
    right: bool = False


class Listed(NamedTuple):
    """One kind of output."""

    #: What one is called.
    name: str
    columns: tuple[Column, ...]
    #: The field that tells what it is; they are counted by it.
    kind: str
    #: Whether all of an account is in the account's own partition.
    in_its_partition: bool = True
    #: Whether the last of each account stands for all before.
    last_of_each: bool = False

    def is_about(self, account: bytes, record: Record) -> bool:
        """Whether it is about this account."""
        return record.key == account or (not self.in_its_partition and _names(account, record.value))

    def counted_by(self, value: Mapping[str, Any]) -> str:
        """What kind it is of."""
        return str(value.get(self.kind))

    def table(self, values: Sequence[Mapping[str, Any]]) -> Table:
        """All of them."""
        table = Table()
        for column in self.columns:
            table.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
        self._fill(table, values)
        return table

    def rows(self, values: Sequence[Mapping[str, Any]], *, header: bool) -> Table:
        """Some of them, in columns that are as wide each time."""
        table = Table(box=None, show_header=header, padding=(0, 2, 0, 0), pad_edge=False)
        for column in self.columns:
            justify = "right" if column.right else "left"
            table.add_column(column.title, justify=justify, min_width=column.width, overflow="fold")  # type: ignore[arg-type]
        self._fill(table, values)
        return table

    def _fill(self, table: Table, values: Sequence[Mapping[str, Any]]) -> None:
        for value in values:
            style = _STYLES.get(self.counted_by(value), "")
            table.add_row(*(Text(printable(column.cell(value))) for column in self.columns), style=style)

    def total(self, counts: Mapping[str, int]) -> str:
        """How many there are."""
        number = sum(counts.values())
        if not number:
            return f"There are no {self.name}s."
        kinds = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in sorted(counts.items()))
        return f"{telling.counted(number, self.name)}: {kinds}"


class _Whose(msgspec.Struct):
    account_id: str


_whose: Final = msgspec.json.Decoder(_Whose).decode


def _names(account: bytes, letter: bytes | None) -> bool:
    """Whether a dead letter's value names the account, wherever it lies."""
    if letter is None or account not in letter:
        return False
    try:
        return _whose(msgspec.json.decode(letter)["value"]).account_id.encode() == account
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError):
        return False


# Columns --------------------------------------------------------------------------------------------------------------


def _text(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda value: "" if value.get(name) is None else str(value[name])


def _words(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda value: str(value.get(name) or "").replace("_", " ")


def _when(name: str) -> Callable[[Mapping[str, Any]], str]:
    """To the second: more is for programs."""
    return lambda value: telling.when(str(value.get(name) or "")).partition(".")[0]


def _money(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda value: "" if value.get(name) is None else telling.money(str(value[name]), value.get("currency"))


def _money_if_any(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda value: "" if value.get(name) in {None, "0"} else str(value[name])


def _hold(value: Mapping[str, Any]) -> str:
    hold = value.get("hold")
    if not hold:
        return ""
    until = hold.get("until")
    return f"{hold.get('kind')} until {_when('until')(hold)}" if until else f"{hold.get('kind')}, open"


def _place(value: Mapping[str, Any]) -> str:
    return f"{value.get('topic')} {value.get('partition')}/{value.get('offset')}"


_ACCOUNT: Final = Column("account", 12, _text("account_id"))

#: By the words of the command line.
LISTED: Final = {
    "commands": Listed(
        "command",
        (
            Column("decided (UTC)", 19, _when("decided_at")),
            _ACCOUNT,
            Column("number", 6, _text("sequence"), right=True),
            Column("command", 8, _text("action")),
            Column("owed", 14, _money("owed"), right=True),
            Column("why", 26, _words("reason")),
            Column("clause", 6, _text("clause")),
        ),
        "action",
    ),
    "notices": Listed(
        "notice",
        (
            Column("at (UTC)", 19, _when("at")),
            _ACCOUNT,
            Column("notice", 22, _words("kind")),
            Column("owed", 14, _money("owed"), right=True),
            Column("deadline (UTC)", 19, _when("deadline")),
        ),
        "kind",
    ),
    "dead-letters": Listed(
        "dead letter",
        (
            Column("received (UTC)", 19, _when("received_at")),
            Column("where", 14, _place),
            Column("key", 12, _text("key")),
            Column("error", 17, _words("error")),
            Column("what is wrong", 40, _text("message")),
        ),
        "error",
        in_its_partition=False,
    ),
    "accounts": Listed(
        "account",
        (
            _ACCOUNT,
            Column("status", 10, _words("status")),
            Column("balance", 14, _money("balance"), right=True),
            Column("late fee", 9, _money_if_any("late_fee"), right=True),
            Column("suspend (UTC)", 19, _when("suspend_at")),
            Column("delete (UTC)", 19, _when("delete_at")),
            Column("hold", 12, _hold),
            Column("number", 6, _text("sequence"), right=True),
            Column("as of (UTC)", 19, _when("as_of")),
        ),
        "status",
        last_of_each=True,
    ),
}
