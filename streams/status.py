"""`arrears status`: how the monitor stands, on one screen."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from models.instants import FIRST_INSTANT, SECOND, format_instant
from models.records import TOPICS
from streams import telling
from streams.brokers import address
from streams.group import EMPTY
from streams.kafka_client import kafka_client_options
from streams.showing import show
from streams.snapshot import Snapshot, take_snapshot
from streams.writers import write_one

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rich.console import RenderableType

    from models.instants import Duration, Instant
    from streams.held import Held
    from streams.settings import Settings

#: What a stop is called in the state, in words.
_STOPS: Final = {
    "max_deletes": "too many deletes",
    "max_suspends": "too many suspends",
    "payments_silence": "no payments come",
    "unusable_payments": "payments cannot be used",
    "clock_skew": "the clock is wrong",
    "delete_contradicted": "a delete was wrong",
}


def show_status(settings: Settings, *, as_json: bool) -> None:
    """`arrears status`. Raises `Unusable`."""
    kafka = kafka_client_options(settings)
    found = asyncio.run(take_snapshot(kafka, settings))
    if as_json:
        write_one(as_json_object(found))
    else:
        show(*shown(found, kafka))


# As JSON --------------------------------------------------------------------------------------------------------------


def as_json_object(found: Snapshot) -> dict[str, object]:
    """All of it, for programs."""
    return {
        "app_id": found.app_id,
        "as_of": format_instant(found.at),
        "group": found.group.state,
        "workers": [
            {"name": worker.name, "host": worker.host, "partitions": sorted(worker.partitions)}
            for worker in found.group.workers
        ],
        "partitions": [_partition(found, number) for number in range(found.partitions)],
        "accounts": dict(found.accounts.by_status),
        "marks": {"suspend": found.accounts.suspends._asdict(), "delete": found.accounts.deletes._asdict()},
    }


def _partition(found: Snapshot, number: int) -> dict[str, object]:
    held, owner = found.held[number], found.group.owner(number)
    everybody, kept = held.everybody, held.kept
    return {
        "partition": number,
        "owner": None if owner is None else owner.name,
        "lag": found.lag(number),
        "open_transactions": found.open_transactions(number),
        "decided_to": None if everybody is None else _instant(everybody.decided_to),
        "committed_at": None if held.committed_ms is None else format_instant(held.committed_ms * 1000),
        "watermarks": {} if kept is None else {topic: format_instant(at) for topic, at in kept.watermarks.items()},
        "stops": []
        if everybody is None
        else [
            {"reason": stop.reason, "actions": list(stop.actions), "since": format_instant(stop.since)}
            for stop in everybody.stops.values()
        ],
    }


def _instant(at: Instant) -> str | None:
    return None if at == FIRST_INSTANT else format_instant(at)


# In words -------------------------------------------------------------------------------------------------------------


def shown(found: Snapshot, kafka: Mapping[str, Any]) -> Iterator[RenderableType]:
    """One screen."""
    when = telling.when(found.at // SECOND * SECOND)
    yield Text(f"{found.app_id} at {address(kafka)}, {when} UTC", style="bold")
    yield _workers(found)
    yield ""
    yield _table(found)
    yield from _unread(found)
    yield ""
    yield from _accounts(found)


def _workers(found: Snapshot) -> Text:
    workers = telling.counted(len(found.group.workers), "worker")
    if found.group.state in EMPTY:
        return Text("No worker runs: start one (arrears worker).", style="bold red")
    if found.group.state != "Stable":
        return Text(f"{workers}; the partitions are being given out anew ({found.group.state}).", style="yellow")
    return Text(f"{workers}, {telling.counted(found.partitions, 'partition')}.")


def _table(found: Snapshot) -> Table:
    table = Table("partition", "owner", "lag", "decided to (UTC)", "committed", "stopped")
    table.columns[2].justify = "right"
    for number in range(found.partitions):
        owner = found.group.owner(number)
        held = found.held[number]
        lag = sum(found.lag(number).values())
        decided = None if held.everybody is None else held.everybody.decided_to
        table.add_row(
            str(number),
            Text("nobody", style="red") if owner is None else Text(owner.told),
            Text(f"{lag:,}", style="yellow" if lag else ""),
            "never" if decided in {None, FIRST_INSTANT} else telling.when(decided or 0).partition(".")[0],
            _committed(held, found.at),
            Text(", ".join(stops(held)), style="bold red"),
        )
    return table


def _committed(held: Held, at: Instant) -> str:
    if held.committed_ms is None:
        return "never"
    return f"{ago(at - held.committed_ms * 1000)} ago"


def ago(duration: Duration) -> str:
    """A duration, in its largest unit."""
    seconds = max(0, duration // SECOND)
    for size, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return telling.counted(seconds // size, name)
    return telling.counted(seconds, "second")


def stops(held: Held) -> list[str]:
    """What stops commands on a partition, in words."""
    if held.everybody is None:
        return []
    return [_STOPS.get(stop.reason, stop.reason) for stop in held.everybody.stops.values()]


def _unread(found: Snapshot) -> Iterator[RenderableType]:
    lag: Counter[str] = Counter()
    for number in range(found.partitions):
        lag.update(found.lag(number))
        for topic in found.open_transactions(number):
            told = f"A transaction is open in {topic}, partition {number}: decisions wait for its end."
            yield Text(told, style="yellow")
    if lag.total():
        told = ", ".join(f"{topic} {lag[topic]:,}" for topic in TOPICS if lag[topic])
        yield f"Not applied yet: {told}"


def _accounts(found: Snapshot) -> Iterator[RenderableType]:
    number = found.accounts.by_status.total()
    kinds = _kinds(found.accounts.by_status)
    yield f"{telling.counted(number, 'account')}{f': {kinds}' if kinds else ''}"
    table = Table("", "passed, not sent", "within an hour", "within a day")
    for name, ahead in (("suspend marks", found.accounts.suspends), ("delete marks", found.accounts.deletes)):
        table.add_row(name, *(f"{one:,}" for one in ahead))
    for column in table.columns[1:]:
        column.justify = "right"
    yield table


def _kinds(counts: Mapping[str, int]) -> str:
    names: Iterable[str] = ("current", "in_arrears", "suspended", "deleted")
    return ", ".join(f"{counts[name]:,} {name.replace('_', ' ')}" for name in names if counts.get(name))
