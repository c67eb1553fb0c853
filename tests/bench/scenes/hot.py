"""Loads that are uneven, against even ones of the same kind: worked off by one worker, to the last committed record."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from models.instants import DAY, MINUTE, format_instant
from tests.bench.inputs import values
from tests.bench.peers import ours, topics
from tests.bench.scenes.figures import Figure
from tests.bench.scenes.stage import APP, stage
from tests.bench.telling import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from tests.bench.peers.topics import Value
    from tests.bench.sizes import Sizes

_PARTITIONS: Final = 4
_RECORDS_AN_ACCOUNT: Final = 10


async def measure(folder: Path, sizes: Sizes) -> list[Figure]:
    """Bills and payments, even and skewed; usage of many accounts, and of one."""
    count, used = sizes.hot, sizes.hot_usage
    accounts, users = (max(_PARTITIONS, number // _RECORDS_AN_ACCOUNT) for number in (count, used))
    loads: dict[str, Callable[[], Iterable[Value]]] = {
        "even": lambda: _money(count, accounts, skewed=False),
        "skewed": lambda: _money(count, accounts, skewed=True),
        "usage": lambda: _usage(used, users),
        "one": lambda: _usage(used, 1),
    }
    rates = {}
    for name, load in loads.items():
        tell(f"… {name}")
        (folder / name).mkdir()
        rates[name] = await _rate(folder / name, load())
    return [
        Figure("even", f"{count:,} bills and payments, even load", rates["even"], "records/s"),
        Figure("skewed", "… 1 % of the accounts have half of them", rates["skewed"], "records/s"),
        Figure("skewed-ratio", "… times the even load", rates["skewed"] / rates["even"], "×"),
        Figure("usage", f"{used:,} records of usage, of {users:,} accounts", rates["usage"], "records/s"),
        Figure("one", "… of one account", rates["one"], "records/s"),
        Figure("one-ratio", "… times that of many accounts", rates["one"] / rates["usage"], "×"),
    ]


async def _rate(folder: Path, load: Iterable[Value]) -> float:
    async with stage(folder, _PARTITIONS) as here:
        await here.send(load)
        ends = await topics.ends(here.kafka, ("bills", "payments", "usage"), _PARTITIONS)
        return (await ours.run(here.kafka, folder, APP, 1, ends)).rate


def _money(count: int, accounts: int, *, skewed: bool) -> Iterator[Value]:
    return values(count, accounts, skewed=skewed, start=_begin(topics.SPAN), span=topics.SPAN)


def _usage(count: int, accounts: int) -> Iterator[Value]:
    """Over a day, up to a minute ago."""
    begin = _begin(DAY)
    for number in range(count):
        at = format_instant(begin + number * DAY // count)
        yield (
            "usage",
            {
                "event_id": f"u-{number}",
                "account_id": f"acc-{number % accounts:07d}",
                "usage_id": f"use-{number}",
                "service": "compute",
                "quantity": "1.5",
                "unit": "cu-hours",
                "cost": "0.3",
                "currency": "CNY",
                "started_at": at,
                "ended_at": at,
            },
        )


def _begin(span: int) -> int:
    return time.time_ns() // 1000 - MINUTE - span
