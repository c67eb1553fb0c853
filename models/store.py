"""The accounts of a partition in memory: bytes, and decoded only while they are worked on.

Committed accounts are bytes; one that is asked for is decoded and stays open until `take_changes`. A million ordinary
accounts so take a few hundred bytes each. A replay keeps its accounts in a plain dict instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from models.codec import decode_account, encode_account, peek

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from models.account import Account
    from models.codec import Peek

#: Accounts with rows stay decoded, as long as there are no more of them than this.
_KEPT_OPEN: Final = 1000

_NO_ROWS: Final[dict[bytes, bytes]] = {}

#: Separates the account from the row in a key: no UTF-8 text holds this byte.
_SEPARATOR: Final = b"\xff"


class AccountStore:
    """A mapping of account id to account, with the bytes behind it."""

    def __init__(self) -> None:
        self._heads: dict[str, bytes] = {}
        self._rows: dict[str, dict[bytes, bytes]] = {}
        self._open: dict[str, Account] = {}
        self._large: dict[str, Account] = {}

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
        account = self._large.get(account_id)
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

    def active(self) -> Iterable[Account]:
        """The accounts of which anything was ever commanded or told."""
        names = {account_id for account_id, head in self._heads.items() if peek(head).is_active}
        names |= self._open.keys()
        return [account for account_id in sorted(names) if (account := self[account_id]).enforcement is not None]

    def peeks(self) -> Iterator[tuple[str, Peek]]:
        """What a monitor that takes over has to know of each account, without decoding it."""
        return ((account_id, peek(head)) for account_id, head in self._heads.items())

    # -- bytes ------------------------------------------------------------------------------------------------------

    def take_changes(self) -> list[tuple[bytes, bytes | None]]:
        """Close the open accounts: the journal's records, (key, value or None for a row that is gone)."""
        changes: list[tuple[bytes, bytes | None]] = []
        for account_id, account in self._open.items():
            head, rows = encode_account(account)
            key = account_id.encode()
            changes.append((key, head))
            self._heads[account_id] = head
            if rows:
                kept = self._rows.setdefault(account_id, {})
                for row, value in rows.items():
                    changes.append((key + _SEPARATOR + row, value))
                    if value is None:
                        kept.pop(row, None)
                    else:
                        kept[row] = value
            if self._rows.get(account_id):
                self._large[account_id] = account
        self._open.clear()
        while len(self._large) > _KEPT_OPEN:
            del self._large[next(iter(self._large))]
        return changes

    def recover(self, key: bytes, value: bytes | None) -> None:
        """Take in one record of the journal, in its order."""
        name, separator, row = key.partition(_SEPARATOR)
        account_id = name.decode()
        if not separator:
            if value is None:
                self._heads.pop(account_id, None)
            else:
                self._heads[account_id] = value
        elif value is None:
            self._rows.get(account_id, {}).pop(row, None)
        else:
            self._rows.setdefault(account_id, {})[row] = value
