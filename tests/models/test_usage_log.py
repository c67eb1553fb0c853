"""What an account's usage leaves behind, packed: ids that were seen, and costs that are not billed."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.instants import DAY, FIRST_INSTANT, HOUR, LAST_INSTANT
from models.usage_log import Costs, Seen

ALWAYS: Final = FIRST_INSTANT
#: What a text of 15 digits can carry, in 10^-12 units.
LARGEST_COST: Final = 10**27


def ids_of(seen: Seen) -> list[str]:
    return [name.decode() for _, _, name in seen.entries()]


# Ids that were seen -----------------------------------------------------------------------------------------------


def test_ids_are_found_again_after_any_growth() -> None:
    seen = Seen()
    sizes = set()
    for number in range(20_000):
        seen.add(f"u{number}", number, number & 0xFF, ALWAYS)
        sizes.add(len(seen.parts))
        if number in (127, 128, 600, 2_100, 9_000, 19_999):
            assert all(seen.get(f"u{n}", ALWAYS) == n & 0xFF for n in range(number + 1))
            assert seen.get(f"u{number + 1}", ALWAYS) is None
    assert len(sizes) > 3
    assert sorted(ids_of(seen)) == sorted(f"u{number}" for number in range(20_000))


def test_an_id_that_is_a_part_of_another_is_another() -> None:
    seen = Seen()
    seen.add("usage-12", 10, 3, ALWAYS)
    assert [seen.get(event_id, ALWAYS) for event_id in ("usage-1", "sage-12", "usage-12", "")] == [None, None, 3, None]


@given(st.lists(st.tuples(st.text(min_size=1, max_size=6), st.integers(FIRST_INSTANT, LAST_INSTANT)), max_size=40))
def test_any_ids_are_found_with_what_they_came_with(ids: list[tuple[str, int]]) -> None:
    seen = Seen()
    expected: dict[str, int] = {}
    for crc, (event_id, at) in enumerate(ids):
        known = seen.get(event_id, ALWAYS)
        assert known == expected.get(event_id)
        if known is None:
            seen.add(event_id, at, 2**32 - 1 - crc, ALWAYS)
            expected[event_id] = 2**32 - 1 - crc
    assert {event_id: seen.get(event_id, ALWAYS) for event_id in expected} == expected


def test_one_more_id_changes_one_part() -> None:
    seen = Seen()
    for number in range(10_000):
        seen.add(f"u{number}", number, 0, ALWAYS)
    seen.changed.clear()
    seen.add("more", 0, 0, ALWAYS)
    (number,) = seen.changed
    assert seen.parts[number].endswith(b"more")
    assert len(seen.parts[number]) < 5_000


def test_growth_changes_every_part() -> None:
    seen = Seen()
    before = 1
    for number in range(2_000):
        seen.changed.clear()
        seen.add(f"u{number}", number, 0, ALWAYS)
        if len(seen.parts) != before:
            before = len(seen.parts)
            assert seen.changed == set(range(before))
    assert before > 1


@pytest.mark.parametrize(("horizon", "found"), [(10, 3), (11, None)])
def test_an_id_is_forgotten_past_history_and_not_at_it(horizon: int, found: int | None) -> None:
    seen = Seen()
    seen.add("u", 10, 3, ALWAYS)
    assert seen.get("u", horizon) == found


def test_a_forgotten_id_is_free_again() -> None:
    seen = Seen()
    seen.add("u", 10, 3, ALWAYS)
    assert seen.get("u", 11) is None
    seen.add("u", 12, 4, 11)
    assert seen.get("u", 11) == 4


def test_forgotten_ids_make_room() -> None:
    """With three days remembered of an id a minute, what is kept does not grow with the years."""
    seen = Seen()
    minute = HOUR // 60
    for number in range(100_000):
        at = number * minute
        seen.add(f"u{number}", at, number, at - 3 * DAY)
    remembered = 3 * DAY // minute + 1
    last = 99_999 * minute
    assert len(ids_of(seen)) < 4 * remembered
    assert all(seen.get(f"u{n}", last - 3 * DAY) == n for n in range(100_000 - remembered, 100_000))
    assert seen.get(f"u{100_000 - remembered - 1}", last - 3 * DAY) is None


def test_parts_as_they_were_kept_find_the_same() -> None:
    seen = Seen()
    for number in range(1_000):
        seen.add(f"u{number}", number, number, ALWAYS)
    again = Seen(list(seen.parts))
    assert not again.changed
    assert again.in_rows
    assert all(again.get(f"u{n}", ALWAYS) == n for n in range(1_000))


# Costs that are not billed ----------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(-LARGEST_COST, LARGEST_COST)), max_size=60),
    st.lists(st.integers(0, 50), max_size=5).map(sorted),
)
def test_each_bill_takes_what_ended_until_then(costs: list[tuple[int, int]], bills: list[int]) -> None:
    log = Costs()
    for ended_at, cost in costs:
        log.add(ended_at, cost)
    before = -1
    for until in bills:
        assert log.take(until) == sum(cost for ended_at, cost in costs if before < ended_at <= until)
        before = until
    assert len(log) == sum(ended_at > before for ended_at, _ in costs)


def test_one_more_cost_changes_the_last_part() -> None:
    log = Costs()
    for number in range(10_000):
        log.add(number, 1)
    assert len(log.parts) > 10
    log.changed.clear()
    log.add(10_000, 1)
    assert log.changed == {len(log.parts) - 1}
    assert all(len(part) < 5_000 for part in log.parts)


def test_what_a_bill_takes_leaves_no_part_behind() -> None:
    log = Costs()
    for number in range(10_000):
        log.add(number, 1)
    before = len(log.parts)
    log.changed.clear()
    assert log.take(9_999) == 10_000
    assert (len(log), log.parts, log.changed) == (0, [b""], set(range(before)))
