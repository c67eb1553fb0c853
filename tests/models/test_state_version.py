"""Which version of the state a release writes: what the release before could read, until it is told otherwise."""

from __future__ import annotations

import pytest

from models import state_version
from models.account import Account
from models.state_version import OLDEST, VERSION, WRITES, NewerState, check_written
from models.store import AccountStore
from tests.models.golden_states import bill, recovered, top_up
from tests.models.live import Partition

_SEPARATOR = b"\xff"


def versions(journal: dict[bytes, bytes]) -> dict[str, int]:
    """What each row that has a version begins with."""
    return {key.decode(): value[0] for key, value in journal.items() if _SEPARATOR not in key}


def owing(partition: Partition, *accounts: str) -> Partition:
    """With two bills of each account."""
    partition.clock(5)
    for account in accounts:
        bill(partition, 1, "10", 0, account)
        bill(partition, 2, "20", 1, account)
    partition.decide_after(5)
    partition.commit()
    return partition


@pytest.fixture
def _next_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release with a new form of the state, which here differs by its number alone."""
    monkeypatch.setattr(state_version, "VERSION", VERSION + 1)


def test_a_release_writes_what_the_one_before_it_could_read() -> None:
    assert OLDEST <= WRITES <= VERSION <= WRITES + 1
    store = AccountStore()
    store["a1"] = Account("a1")
    assert [value[0] for _, value in store.take_changes() if value is not None] == [WRITES]


@pytest.mark.usefixtures("_next_release")
def test_a_new_form_is_written_when_it_is_asked_for_and_account_by_account() -> None:
    before = owing(Partition(version=WRITES), "a1", "a2")
    assert versions(before.journal) == {"a1": WRITES, "a2": WRITES, "@": WRITES}

    after = Partition(version=WRITES + 1)
    after.journal = dict(before.journal)
    after.restart()
    after.clock(5)
    top_up(after, 1, "30", 2, "a2")
    after.decide_after(6)
    after.commit()
    assert versions(after.journal) == {"a1": WRITES, "a2": WRITES + 1, "@": WRITES + 1}
    assert after.account("a2").owed == "0"

    again = Partition(version=WRITES)  # the setting is taken back: the same release reads both
    again.journal = dict(after.journal)
    again.restart()
    again.clock(6)
    assert again.account("a1").owed == "30"
    top_up(again, 2, "1", 3, "a2")
    again.decide_after(7)
    again.commit()
    assert versions(again.journal) == {"a1": WRITES, "a2": WRITES, "@": WRITES}
    assert again.account("a2").balance == "1"


def test_the_release_before_reads_what_is_written_by_default_and_refuses_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as next_release:
        next_release.setattr(state_version, "VERSION", VERSION + 1)
        old = owing(Partition(version=WRITES), "a1").journal
        new = owing(Partition(version=VERSION + 1), "a1").journal
    recovered(old)
    for rows in ({"@": new[b"@"]}, {"a1": new[b"a1"]}):
        mixed = old | {name.encode(): value for name, value in rows.items()}
        told = f"state of version {VERSION + 1}; this release reads up to version {VERSION}"
        with pytest.raises(NewerState, match=told):
            recovered(mixed)


@pytest.mark.parametrize(
    ("oldest", "newest", "told"),
    [(1, 1, "must be 1, what this release can write"), (2, 3, "must be 2 to 3, what this release can write")],
)
def test_a_version_that_it_cannot_write_is_refused(
    oldest: int, newest: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_version, "OLDEST", oldest)
    monkeypatch.setattr(state_version, "VERSION", newest)
    for version in range(oldest, newest + 1):
        check_written(version)
    for version in (oldest - 1, newest + 1):
        with pytest.raises(ValueError, match=f"^{told}; got {version}$"):
            check_written(version)
