"""Packages are drawn down in order and exactly; what is not billed adds up; ids of usage are found until forgotten."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.instants import DAY, HOUR
from models.money import format_fine, parse_fine
from models.packages import UsageBook
from models.records import Package, Usage
from models.refusal import Refusal

ALWAYS = -(10**18)


def usage(at: int, quantity: str = "1", cost: int | None = None, **more: Any) -> Usage:
    fields: dict[str, Any] = {"service": "compute", "unit": "hour", "started_at": at, "currency": "CNY"} | more
    return Usage(event_id="u", account_id="a1", usage_id="u", quantity=parse_fine(quantity), cost=cost, at=at, **fields)


def purchase(book: UsageBook, package_id: str, quantity: str, *, horizon: int = ALWAYS, **more: Any) -> None:
    fields: dict[str, Any] = {"service": "compute", "unit": "hour", "at": 0, "starts_at": 0, "ends_at": 100} | more
    event_id = fields.pop("event_id", f"purchase-{package_id}")
    book.change_package(
        Package(event_id, "a1", package_id, "purchased", quantity=parse_fine(quantity), **fields), 7, horizon
    )


def cancel(book: UsageBook, package_id: str, at: int, *, horizon: int = ALWAYS) -> None:
    record = Package(f"cancel-{package_id}", "a1", package_id, "cancelled", None, None, None, at, None, None)
    book.change_package(record, 7, horizon)


def left(book: UsageBook, now: int = 0) -> dict[str, str]:
    return {package.package_id: format_fine(package.remaining) for package in book.left(now)}


def use(book: UsageBook, record: Usage, billed_until: int | None = None) -> list[str]:
    return book.use(record, billed_until)


# Draw-down --------------------------------------------------------------------------------------------------------


@given(st.permutations([("late", 300), ("b-soon", 100), ("a-soon", 100), ("middle", 200)]))
def test_the_package_that_ends_first_is_drawn_first_then_by_id(bought: list[tuple[str, int]]) -> None:
    book = UsageBook()
    for package_id, ends_at in bought:
        purchase(book, package_id, "10", ends_at=ends_at)
    drawn = [(use(book, usage(1, "5")), left(book)) for _ in range(8)]
    whole = {"a-soon": "10", "b-soon": "10", "middle": "10", "late": "10"}
    expected: list[tuple[list[str], dict[str, str]]] = []
    for package_id in whole:
        whole = whole | {package_id: "5"}
        expected.append(([], whole))
        whole = {name: quantity for name, quantity in whole.items() if name != package_id}
        expected.append(([package_id], whole))
    assert drawn == expected
    assert use(book, usage(1)) == []  # pay-as-you-go


def test_one_usage_may_use_up_several_packages_and_the_rest_is_pay_as_you_go() -> None:
    book = UsageBook()
    for number in range(3):
        purchase(book, f"p{number}", "2", ends_at=100 + number)
    assert use(book, usage(1, "5")) == ["p0", "p1"]
    assert left(book) == {"p2": "1"}
    assert use(book, usage(1, "1000")) == ["p2"]
    assert left(book) == {}


def test_a_package_is_used_up_once() -> None:
    book = UsageBook()
    purchase(book, "p", "3")
    assert [use(book, usage(1, quantity)) for quantity in ("2", "0", "1", "0", "1")] == [[], [], ["p"], [], []]


@pytest.mark.parametrize(
    ("record", "drawn"),
    [
        pytest.param(usage(50), True, id="covered"),
        pytest.param(usage(50, service="storage"), False, id="another service"),
        pytest.param(usage(50, unit="second"), False, id="another unit"),
        pytest.param(usage(19), False, id="before it starts"),
        pytest.param(usage(20), True, id="at its start"),
        pytest.param(usage(20, started_at=0), True, id="begun before its start"),
        pytest.param(usage(99), True, id="just before its end"),
        pytest.param(usage(100), False, id="at its end"),
        pytest.param(usage(100, started_at=50), False, id="ended at its end"),
    ],
)
def test_a_package_covers_usage_of_its_service_and_unit_that_ends_in_its_time(record: Usage, drawn: bool) -> None:
    book = UsageBook()
    purchase(book, "p", "10", starts_at=20)
    use(book, record)
    assert left(book, 50) == {"p": "9" if drawn else "10"}


@pytest.mark.parametrize(("ended_at", "remaining"), [(29, "10"), (30, "9"), (31, "9")])
def test_a_package_covers_from_its_purchase_on(ended_at: int, remaining: str) -> None:
    book = UsageBook()
    purchase(book, "p", "10", at=30, starts_at=0)
    use(book, usage(ended_at))
    assert left(book, 40) == {"p": remaining}


@pytest.mark.parametrize(("ended_at", "drawn"), [(29, 1), (30, 1), (31, 0)])
def test_a_cancelled_package_covers_up_to_that_instant(ended_at: int, drawn: int) -> None:
    book = UsageBook()
    purchase(book, "p", "1")
    cancel(book, "p", 30)
    assert left(book, 30) == {}  # nothing of it is left
    assert len(use(book, usage(ended_at))) == drawn  # but late usage of before still draws on it


def test_a_package_that_is_used_up_or_has_ended_is_not_left() -> None:
    book = UsageBook()
    purchase(book, "soon", "1", ends_at=10)
    purchase(book, "late", "1", ends_at=20)
    assert [sorted(left(book, now)) for now in (0, 9, 10, 19, 20)] == [
        ["late", "soon"], ["late", "soon"], ["late"], ["late"], []
    ]  # fmt: skip
    use(book, usage(1))
    assert sorted(left(book)) == ["late"]


def test_quantities_are_exact_to_12_decimals() -> None:
    book = UsageBook()
    purchase(book, "p", "0.3")
    for _ in range(2):
        use(book, usage(1, "0.1"))
    use(book, usage(1, "0.099999999999"))
    assert left(book) == {"p": "0.000000000001"}
    assert use(book, usage(1, "0.000000000001")) == ["p"]


@given(st.lists(st.integers(1, 10**27), min_size=1, max_size=20), st.lists(st.integers(0, 10**27), max_size=40))
def test_what_is_drawn_is_what_was_used_as_far_as_it_goes(bought: list[int], used: list[int]) -> None:
    book = UsageBook()
    for number, quantity in enumerate(bought):
        purchase(book, f"p{number}", "1", ends_at=100 + number)
        book.packages[-1].remaining = quantity
    exhausted = [name for quantity in used for name in use(book, _of(quantity))]
    remaining = sum(package.remaining for package in book.packages)
    assert remaining == max(0, sum(bought) - sum(used))
    assert exhausted == [package.package_id for package in book.packages if package.remaining == 0]
    started = [package.remaining for package in book.packages if package.remaining > 0]
    assert started[1:] == bought[len(bought) - len(started) + 1 :]  # at most one of them is begun


def _of(quantity: int) -> Usage:
    return Usage("u", "a1", "u", "compute", quantity, "hour", None, None, 1, 1)


# Changes of packages ----------------------------------------------------------------------------------------------


def test_a_known_package_purchased_again_is_a_conflict_and_changes_nothing() -> None:
    book = UsageBook()
    purchase(book, "p", "5")
    use(book, usage(1))
    with pytest.raises(Refusal) as told:
        purchase(book, "p", "100", event_id="another")
    assert (told.value.error, told.value.field) == ("conflict", "package_id")
    assert left(book) == {"p": "4"}
    assert book.known_package_event("another", ALWAYS) is None


def test_cancelling_what_is_unknown_or_cancelled_already_is_invalid() -> None:
    book = UsageBook()
    with pytest.raises(Refusal, match="nothing to cancel") as told:
        cancel(book, "p", 10)
    assert (told.value.error, told.value.field) == ("invalid", "package_id")
    purchase(book, "p", "5")
    cancel(book, "p", 10)
    with pytest.raises(Refusal, match="cancelled already") as told:
        cancel(book, "p", 11)
    assert (told.value.error, told.value.field) == ("invalid", "package_id")
    assert book.packages[0].cancelled_at == 10


@pytest.mark.parametrize(("horizon", "known"), [(100, True), (101, False)])
def test_a_package_is_forgotten_history_after_its_end(horizon: int, known: bool) -> None:
    book = UsageBook()
    purchase(book, "p", "5", ends_at=100)
    if known:
        with pytest.raises(Refusal):
            purchase(book, "p", "7", at=90, ends_at=300, event_id="again", horizon=horizon)
    else:  # its id is free again
        purchase(book, "p", "7", at=90, ends_at=300, event_id="again", horizon=horizon)
    assert [package.remaining for package in book.packages] == [parse_fine("5" if known else "7")]


@pytest.mark.parametrize(("horizon", "known"), [(40, True), (41, False)])
def test_a_cancelled_package_is_forgotten_history_after_that(horizon: int, known: bool) -> None:
    book = UsageBook()
    purchase(book, "p", "5", ends_at=100)
    cancel(book, "p", 40)
    purchase(book, "other", "1", horizon=horizon)
    assert [package.package_id for package in book.packages] == (["other", "p"] if known else ["other"])


def test_events_of_packages_are_forgotten_history_after_their_instant() -> None:
    book = UsageBook()
    purchase(book, "p", "5", at=10, ends_at=10 * DAY)
    assert book.known_package_event("purchase-p", 10) == 7
    assert book.known_package_event("purchase-p", 11) is None
    for number in range(1000):
        at = number * HOUR
        purchase(book, f"p{number}", "5", at=at, starts_at=at, ends_at=at + HOUR, horizon=at - DAY)
    assert len(book.package_events) < 200
    assert len(book.packages) < 30
    assert book.known_package_event("purchase-p999", 999 * HOUR - DAY) == 7


# What is not billed -----------------------------------------------------------------------------------------------


def test_what_is_not_billed_is_the_cost_of_usage_that_ended_after_the_last_bill() -> None:
    book = UsageBook()
    for hour, cost in ((0, 1), (1, 20), (2, 300), (3, 4000)):
        use(book, usage(hour * HOUR, cost=cost))
    assert book.unbilled == 4321
    book.bill(1 * HOUR)  # what ended then is billed
    assert book.unbilled == 4300
    book.bill(3 * HOUR - 1)
    assert book.unbilled == 4000
    book.bill(3 * HOUR)
    assert book.unbilled == 0
    assert len(book.costs) == 0


@pytest.mark.parametrize(("ended_at", "counts"), [(9, False), (10, False), (11, True)])
def test_late_usage_of_what_is_billed_does_not_count(ended_at: int, counts: bool) -> None:
    book = UsageBook()
    use(book, usage(ended_at, cost=5), billed_until=10)
    assert book.unbilled == (5 if counts else 0)


def test_usage_without_a_cost_counts_for_nothing_and_a_credit_counts_against() -> None:
    book = UsageBook()
    use(book, usage(1, cost=None))
    use(book, usage(1, cost=0))
    use(book, usage(2, cost=10**30))
    use(book, usage(2, cost=-(10**30) - 1))
    assert book.unbilled == -1
    book.bill(1)
    assert book.unbilled == -1
    book.bill(2)
    assert (book.unbilled, len(book.costs)) == (0, 0)


def test_cost_is_charged_after_packages_whatever_they_cover() -> None:
    book = UsageBook()
    purchase(book, "p", "10")
    use(book, usage(1, "4", cost=3))
    assert (book.unbilled, left(book)) == (3, {"p": "6"})


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("use"), st.integers(-5 * HOUR, 5 * HOUR), st.integers(-100, 100)),
            st.tuples(st.just("bill"), st.integers(-5 * HOUR, 5 * HOUR), st.just(0)),
        ),
        max_size=40,
    )
)
def test_any_order_of_usage_and_bills_leaves_the_sum_of_what_ended_after_the_latest(
    records: list[tuple[str, int, int]],
) -> None:
    book, billed_until = UsageBook(), None
    for kind, at, cost in records:
        if kind == "use":
            use(book, usage(at, cost=cost), billed_until)
        elif billed_until is None or at > billed_until:
            billed_until = at
            book.bill(at)
    bills = [at for kind, at, _ in records if kind == "bill"]
    counting = [cost for kind, at, cost in records if kind == "use" and (not bills or at > max(bills))]
    assert book.unbilled == sum(counting)
