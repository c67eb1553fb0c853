"""What each partition of the state holds besides its accounts: read from the topic, whoever owns it now."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from models.codec import decode_everybody
from models.state_version import NewerState
from streams.faults import Unusable
from streams.journal import CHECKPOINT, decode_positions
from streams.table import EVERYBODY_KEY, PARTITION_KEY, Kept, decode_kept

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from models.everybody import Everybody
    from streams.fetched import Partition
    from streams.reading import Reader

#: Those rows are written with almost every commit, so they are looked for near the end first.
_LOOKED_AT: Final = 2_000
_FURTHER: Final = 8

_ROWS: Final = (EVERYBODY_KEY, PARTITION_KEY, CHECKPOINT)


class Held(NamedTuple):
    """What a partition holds; nothing, before a worker has committed it first."""

    everybody: Everybody | None
    kept: Kept | None
    #: By input, the next offset that is to be applied.
    positions: dict[str, int]
    #: When it was committed last, in milliseconds since 1970 by the brokers' clock.
    committed_ms: int | None


async def read_held(reader: Reader, state_topic: str, partitions: int) -> dict[int, Held]:
    """What each partition holds. Raises `Unusable` if a newer release has written it, and as `Reader` does."""
    places = [(state_topic, number) for number in range(partitions)]
    first = await reader.earliest(places)
    ends = {place: end.stable for place, end in (await reader.ends(places)).items()}
    rows: dict[Partition, dict[bytes, bytes]] = {place: {} for place in places}
    times: dict[Partition, int] = {}
    looked_at, upto = _LOOKED_AT, dict(ends)
    while open_ := [one for one in places if len(rows[one]) < len(_ROWS) and upto[one] > first[one]]:
        begin = {place: max(first[place], upto[place] - looked_at) for place in open_}
        found: dict[Partition, dict[bytes, bytes]] = {place: {} for place in open_}
        async for records in reader.merged(begin, {place: upto[place] for place in open_}):
            for place, record in records:
                if record.key in _ROWS and record.value is not None:
                    found[place][record.key] = record.value
                    if place not in times or upto[place] == ends[place]:
                        times[place] = record.timestamp
        for place in open_:  # what was found before is newer
            rows[place] = found[place] | rows[place]
            upto[place] = begin[place]
        looked_at *= _FURTHER
    try:
        with of_this_release(state_topic):
            return {place[1]: _held(rows[place], times.get(place)) for place in places}
    except msgspec.MsgspecError as error:
        told = f"{state_topic} cannot be read ({error})"
        raise Unusable(f"{told}: a release wrote it that this one does not know, use that one") from None


@contextmanager
def of_this_release(state_topic: str) -> Iterator[None]:
    """Around the reading of state: `Unusable` if a newer release has written it."""
    try:
        yield
    except NewerState as error:
        raise Unusable(f"{state_topic} holds {error}") from None


def _held(rows: dict[bytes, bytes], committed_ms: int | None) -> Held:
    everybody, kept = rows.get(EVERYBODY_KEY), rows.get(PARTITION_KEY)
    return Held(
        None if everybody is None else decode_everybody(everybody),
        None if kept is None else decode_kept(kept),
        decode_positions(rows.get(CHECKPOINT)),
        committed_ms,
    )


def same(numbers: Iterable[int]) -> str:
    """Partitions, in few words: "0-3, 7"."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
