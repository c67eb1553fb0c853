"""How much of everything there is in a run; each can be set by its name: `--size waiting=10000`."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Sizes:
    """Numbers of things, unless a name ends in a unit (`_s`: seconds)."""

    # The domain alone
    records: int
    accounts: int
    #: Accounts of one partition, in a store.
    stored: int
    #: Accounts of a far smaller one.
    few: int
    #: Accounts in a store that have 20 movements each.
    moved: int
    #: Records of usage of one account.
    usage: int
    #: Open bills of one account.
    bills: int

    # Beside the peers
    peer_records: int
    peer_accounts: int
    #: How often each of them runs.
    peer_turns: int

    # On a broker
    latency_s: int
    latency_rate: int
    latency_accounts: int
    #: Accounts whose mark is far ahead.
    waiting: int
    waiting_partitions: int
    #: For how long the idle worker is looked at.
    idle_s: int
    #: Marks that fall meanwhile, one after the other.
    marks: int
    #: Marks within one second.
    drained: int
    #: Bills and payments of a load that is even, or not; and records of usage, of many accounts or of one.
    hot: int
    hot_usage: int
    replayed: int
    recovered: int


FULL: Final = Sizes(
    records=250_000,
    accounts=25_000,
    stored=1_000_000,
    few=10_000,
    moved=50_000,
    usage=250_000,
    bills=20_000,
    peer_records=1_000_000,
    peer_accounts=100_000,
    peer_turns=2,
    latency_s=60,
    latency_rate=5_000,
    latency_accounts=100_000,
    waiting=1_000_000,
    waiting_partitions=32,
    idle_s=30,
    marks=300,
    drained=100_000,
    hot=250_000,
    hot_usage=1_000_000,
    replayed=1_000_000,
    recovered=1_000_000,
)
#: To see that everything runs; what it measures says nothing.
TINY: Final = Sizes(
    records=2_000,
    accounts=200,
    stored=2_000,
    few=1_000,
    moved=200,
    usage=5_000,
    bills=1_000,
    peer_records=2_000,
    peer_accounts=200,
    peer_turns=1,
    latency_s=5,
    latency_rate=200,
    latency_accounts=200,
    waiting=1_000,
    waiting_partitions=8,
    idle_s=3,
    marks=20,
    drained=500,
    hot=2_000,
    hot_usage=2_000,
    replayed=2_000,
    recovered=1_000,
)
#: A twentieth of the domain; the rest is not run with it.
QUICK: Final = replace(TINY, records=50_000, accounts=5_000, stored=50_000, few=5_000, usage=50_000, bills=2_000)

NAMES: Final = tuple(field.name for field in fields(Sizes))


def resized(sizes: Sizes, settings: Iterable[str]) -> Sizes:
    """With these, each NAME=NUMBER. Raises ValueError, which says what is wrong."""
    for setting in settings:
        name, _, number = setting.partition("=")
        if name not in NAMES:
            raise ValueError(f"there is no size {name!r}; there are {', '.join(NAMES)}")
        if not number.isdecimal() or int(number) < 1:
            raise ValueError(f"{setting!r} has to be {name}=NUMBER, 1 or more")
        sizes = replace(sizes, **{name: int(number)})
    return sizes
