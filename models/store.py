"""The accounts of a partition in memory: bytes, and decoded only while they are worked on.

Committed accounts are bytes; one that is asked for is decoded and stays open until `take_changes`. A million ordinary
accounts so take a few hundred bytes each. A replay keeps its accounts in a plain dict instead.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from models.account import PENDING, STATUS
from models.codec import decode_account, encode_account, peek
from models.enforcement import STATUSES
from models.state_version import WRITES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from models.account import Account
    from models.codec import Peek
    from models.instants import Instant
    from models.money import Money

#: Accounts with rows stay decoded, as long as there are no more of them than this.
_KEPT_OPEN: Final = 1000

_NO_ROWS: Final[dict[bytes, bytes]] = {}

#: Separates the account from the row in a key: no UTF-8 text holds this byte.
_SEPARATOR: Final = b"\xff"

#: An account whose state has more bytes than this is told of: it is to be put on hold (§3).
LARGE_BYTES: Final = 512 * 1024
#: With a head of more bytes than this an account takes no more records: each change writes the head anew.
FULL_BYTES: Final = 1024 * 1024


class Tally:
    """How many accounts are in which status, what they owe, and how many have a mark or a warning ahead."""

    def __init__(self) -> None:
        self.accounts: Counter[str] = Counter()
        #: By status and currency.
        self.owed: Counter[tuple[str, str]] = Counter()
        self.pending = 0

    def add(self, summary: int, owed: Money, currency: str | None, sign: int) -> None:
        """One account more of this summary, or with `sign` -1 one less."""
        status = STATUSES[summary & STATUS]
        self.accounts[status] += sign
        if summary & PENDING:
            self.pending += sign
        if owed and currency is not None:
            self.owed[status, currency] += sign * owed


class AccountStore:
    """A mapping of account id to account, with the bytes behind it, which are written in this version."""

    def __init__(self, version: int = WRITES) -> None:
        self._version = version
        self._heads: dict[str, bytes] = {}
        self._rows: dict[str, dict[bytes, bytes]] = {}
        self._open: dict[str, Account] = {}
        self._with_rows: dict[str, Account] = {}
        self.tally = Tally()
        self._row_bytes: Counter[str] = Counter()
        #: Accounts of more than `LARGE_BYTES`, with how many.
        self.large: dict[str, int] = {}
        #: Those that have become so since the last `take_outgrown`.
        self._outgrown: list[str] = []

    def __len__(self) -> int:
        return len(self._heads.keys() | self._open.keys())

    def __contains__(self, account_id: str) -> bool:
        return account_id in self._open or account_id in self._heads

    def __iter__(self) -> Iterator[str]:
        return iter(self._heads.keys() | self._open.keys())

    def get(self, account_id: str) -> Account | None:
        """The account, open from now on."""
        account = self._open.get(account_id)
        if account is not None:
            return account
        account = self._with_rows.get(account_id) if self._with_rows else None
        if account is None:
            head = self._heads.get(account_id)
            if head is None:
                return None
            account = decode_account(account_id, head, self._rows.get(account_id, _NO_ROWS))
        self._open[account_id] = account
        return account

    def __getitem__(self, account_id: str) -> Account:
        account = self.get(account_id)
        if account is None:
            raise KeyError(account_id)
        return account

    def __setitem__(self, account_id: str, account: Account) -> None:
        self._open[account_id] = account

    def due_of(self, account_id: str) -> Instant | None:
        """When the account, which is there, has to be decided on next."""
        account = self._open.get(account_id)
        return peek(self._heads[account_id]).due if account is None else account.due

    def mark_of(self, account_id: str) -> Instant | None:
        """The mark of the command that is ahead of the account, which is there."""
        account = self._open.get(account_id)
        return peek(self._heads[account_id]).mark if account is None else account.mark

    def seen(self, account_id: str) -> Peek | None:
        """What can be seen of an account as it was committed, if it was, without decoding it."""
        head = self._heads.get(account_id)
        return None if head is None else peek(head)

    def copy_of(self, account_id: str) -> Account:
        """An account as it was committed, which stays closed: what is done to the copy is done to nothing."""
        return decode_account(account_id, self._heads[account_id], self._rows.get(account_id, _NO_ROWS))

    def active(self) -> Iterable[str]:
        """Ids of the accounts of which anything was ever commanded or told."""
        closed = [account_id for account_id, head in self._heads.items() if peek(head).is_active]
        opened = (account_id for account_id, account in self._open.items() if account.enforcement is not None)
        return sorted({*closed, *opened})

    def peeks(self) -> Iterator[tuple[str, Peek]]:
        """What a monitor that takes over has to know of each account, without decoding it; the tally is made of it."""
        tally = self.tally = Tally()
        for account_id, head in self._heads.items():
            seen = peek(head)
            tally.add(seen.summary, seen.owed, seen.currency, 1)
            yield account_id, seen

    # -- bytes ------------------------------------------------------------------------------------------------------

    def take_changes(self) -> list[tuple[bytes, bytes | None]]:
        """Close the open accounts: the journal's records, (key, value or None for a row that is gone)."""
        changes: list[tuple[bytes, bytes | None]] = []
        heads, tally = self._heads, self.tally
        for account_id, account in self._open.items():
            summary, owed = account.summary, account.owed
            head, rows = encode_account(account, self._version)
            key = account_id.encode()
            changes.append((key, head))
            is_new = account_id not in heads
            if is_new or summary != account.summary or owed != account.owed:
                if not is_new:
                    tally.add(summary, owed, account.currency, -1)
                tally.add(account.summary, account.owed, account.currency, 1)
            heads[account_id] = head
            if rows:
                kept = self._rows.setdefault(account_id, {})
                for row, value in rows.items():
                    changes.append((key + _SEPARATOR + row, value))
                    self._keep(account_id, kept, row, value)
            if self._rows and self._rows.get(account_id):
                self._with_rows[account_id] = account
            self._weigh(account_id, head)
        self._open.clear()
        while len(self._with_rows) > _KEPT_OPEN:
            del self._with_rows[next(iter(self._with_rows))]
        return changes

    def take_outgrown(self) -> list[str]:
        """Those that have become larger than `LARGE_BYTES` with the last changes taken."""
        outgrown, self._outgrown = self._outgrown, []
        return outgrown

    def is_full(self, account_id: str) -> bool:
        """Whether it can take no more records."""
        return account_id in self.large and len(self._heads[account_id]) > FULL_BYTES

    def _keep(self, account_id: str, kept: dict[bytes, bytes], row: bytes, value: bytes | None) -> None:
        before = kept.pop(row, b"") if value is None else kept.get(row, b"")
        self._row_bytes[account_id] += len(value or b"") - len(before)
        if value is not None:
            kept[row] = value

    def _weigh(self, account_id: str, head: bytes) -> None:
        if len(head) <= LARGE_BYTES and account_id not in self._row_bytes and account_id not in self.large:
            return  # as nearly all
        size = len(head) + self._row_bytes[account_id]
        if size > LARGE_BYTES:
            if account_id not in self.large:
                self._outgrown.append(account_id)
            self.large[account_id] = size
        else:
            self.large.pop(account_id, None)

    def recover(self, key: bytes, value: bytes | None) -> None:
        """Take in one record of the journal, in its order; `peeks` follows the last."""
        if _SEPARATOR in key:
            name, _, row = key.partition(_SEPARATOR)
            account_id = name.decode()
            self._keep(account_id, self._rows.setdefault(account_id, {}), row, value)
            head = self._heads.get(account_id, b"")
        else:
            account_id, head = key.decode(), value or b""
            if value is None:
                self._heads.pop(account_id, None)
            else:
                self._heads[account_id] = value
        self._weigh(account_id, head)
