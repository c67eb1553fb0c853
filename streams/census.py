"""What lies ahead of the accounts of a partition, counted now and then for the metrics.

Nothing depends on it, so it takes its time: a few accounts at a time, one partition of a worker after the other, and
it rests for far longer than it counts. It looks at copies of what was committed last.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from models.decision import Decision, Moment
from models.enforcement import Commanded
from models.instants import SECOND
from streams.metrics import AHEAD

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.account import Account
    from models.codec import Peek
    from models.everybody import Everybody
    from models.instants import Instant
    from models.monitor import Terms
    from models.store import AccountStore
    from streams.metrics import PartitionMetrics

#: Accounts between two rests: what is looked at, and what is decoded, which takes some 50 µs each.
_LOOK_AT_ONCE: Final = 1000
_DECODE_AT_ONCE: Final = 50
#: It rests for so many times as long as it has counted; and between two counts of a partition so long at least.
_REST_TIMES: Final = 40
_REST_S: Final = 30.0
#: No mark that lies further ahead is counted.
_FURTHEST: Final = max(AHEAD.values()) * SECOND


class Census(NamedTuple):
    """What was counted."""

    #: Suspends and deletes to come if nobody pays, by (action, one of `AHEAD`).
    marks_ahead: dict[tuple[str, str], int]
    #: Commands that a subscriber has not applied in time, and when the oldest was decided.
    unconfirmed: int
    oldest_unconfirmed: Instant | None


async def keep_counting(
    store: AccountStore,
    everybody: Everybody,
    terms: Terms,
    clock: Callable[[], Instant],
    metrics: PartitionMetrics,
    counting: asyncio.Lock,
) -> None:
    """Count, tell it to the metrics, and rest, until cancelled; not while another partition is `counting`."""
    while True:
        async with counting:
            census = await count(store, everybody, terms, clock())
        metrics.marks_ahead = census.marks_ahead
        metrics.unconfirmed = census.unconfirmed
        oldest = census.oldest_unconfirmed
        metrics.oldest_unconfirmed = None if oldest is None else oldest / SECOND
        await asyncio.sleep(_REST_S)


async def count(store: AccountStore, everybody: Everybody, terms: Terms, now: Instant) -> Census:
    """Look at every account that has something ahead."""
    marks: Counter[tuple[str, str]] = Counter()
    unconfirmed: list[Instant] = []
    subscribed = terms.live is not None and bool(terms.live.subscribers)
    looked_at = decoded = 0
    began = time.monotonic()
    for account_id in list(store):
        looked_at += 1
        seen = store.seen(account_id)
        if seen is not None and (_has_mark_within(seen, now + _FURTHEST) or (subscribed and seen.is_active)):
            decoded += 1
            account = store.copy_of(account_id)
            moment = Moment(terms.app_id, everybody, terms.live)
            moment.now = now
            marks.update(_marks_ahead(account, moment))
            unconfirmed += _unconfirmed(account, terms)
        if looked_at >= _LOOK_AT_ONCE or decoded >= _DECODE_AT_ONCE:
            looked_at = decoded = 0
            await asyncio.sleep(_REST_TIMES * (time.monotonic() - began))
            began = time.monotonic()
    return Census(dict(marks), len(unconfirmed), min(unconfirmed, default=None))


_WITH_MARKS: Final = frozenset(("in_arrears", "suspended"))


def _has_mark_within(seen: Peek, latest: Instant) -> bool:
    """Whether a suspend or a delete may come by then: none comes before the mark that is ahead of the account."""
    return seen.status in _WITH_MARKS and seen.mark is not None and seen.mark <= latest


def _marks_ahead(account: Account, moment: Moment) -> list[tuple[str, str]]:
    decision = Decision(account, moment)
    episode = decision.enforcement.episode
    if episode is None:
        return []
    marks = {"delete": decision.can_delete_at(episode)}
    if decision.enforcement.commanded is Commanded.RUN:
        marks["suspend"] = decision.can_suspend_at(episode)
    return [
        (action, within)
        for action, mark in marks.items()
        for within, seconds in AHEAD.items()
        if mark <= moment.now + seconds * SECOND
    ]


def _unconfirmed(account: Account, terms: Terms) -> list[Instant]:
    """When the commands were decided of which it was told that they are not confirmed."""
    if account.enforcement is None or terms.live is None:
        return []
    return [command.due - terms.live.confirm_within for command in account.enforcement.unconfirmed if command.told]
