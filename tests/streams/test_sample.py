"""The sample month: the same bytes for the same seed, sound records, and every story lived as it is told."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from models.instants import DAY, HOUR, Instant, parse_duration, parse_instant
from models.money import parse_money
from models.records import decode
from streams.sample import STORIES, TOPICS, Sample, generate, lived_stories, write_sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SMALL = Sample(accounts=25, days=31, hourly=False)
WHEN = {"bills": "issued_at", "payments": "paid_at", "usage": "ended_at", "packages": "at", "controls": "at"}

Values = dict[str, list[dict[str, Any]]]


# A month, read with the eyes of an auditor: sums in order of time, nothing of the monitor ------------------------


@dataclass(frozen=True)
class Episode:
    """Arrears from `since` until they were paid (or the sample ended: None)."""

    since: Instant
    until: Instant | None
    end: Instant

    @property
    def length(self) -> int:
        return (self.end if self.until is None else self.until) - self.since


@dataclass(frozen=True)
class Lived:
    """Everything told of one account."""

    values: Values
    episodes: tuple[Episode, ...]

    def of_kind(self, topic: str, kind: str) -> list[dict[str, Any]]:
        return [value for value in self.values[topic] if value["kind"] == kind]

    def instants(self, topic: str, kind: str) -> list[Instant]:
        return [parse_instant(value[WHEN[topic]]) for value in self.of_kind(topic, kind)]


@dataclass(frozen=True)
class Month:
    sample: Sample
    accounts: dict[str, Lived]
    stories: Mapping[str, tuple[str, ...]]

    def living(self, story: str) -> list[Lived]:
        return [self.accounts[account_id] for account_id in self.stories[story]]


def audit(values: Values, end: Instant) -> tuple[Episode, ...]:
    moves: list[tuple[Instant, int, int]] = []  # when, money, credit limit or -1
    totals: dict[str, int] = {}
    for bill in values["bills"]:
        total = parse_money(bill.get("amount", "0"))
        moves.append((parse_instant(bill["issued_at"]), totals.get(bill["bill_id"], 0) - total, -1))
        totals[bill["bill_id"]] = total
    signs = {"topup": 1, "gift": 0, "refund": -1, "reversal": -1}
    moves += (
        (parse_instant(payment["paid_at"]), signs[payment["kind"]] * parse_money(payment["amount"]), -1)
        for payment in values["payments"]
    )
    moves += (
        (parse_instant(control["at"]), 0, parse_money(control["amount"]))
        for control in values["controls"]
        if control["kind"] == "credit_limit"
    )
    balance = limit = 0
    since: Instant | None = None
    episodes = []
    for at, money, new_limit in sorted(moves):
        balance += money
        limit = limit if new_limit < 0 else new_limit
        if balance + limit < 0 and since is None:
            since = at
        elif balance + limit >= 0 and since is not None:
            episodes.append(Episode(since, at, end))
            since = None
    if since is not None:
        episodes.append(Episode(since, None, end))
    return tuple(episodes)


@cache
def month(sample: Sample) -> Month:
    values: dict[str, Values] = defaultdict(lambda: {topic: [] for topic in TOPICS})
    for topic, value in generate(sample):
        account_id = value["account_id"]
        assert isinstance(account_id, str)
        values[account_id][topic].append(value)
    accounts = {account_id: Lived(told, audit(told, sample.end)) for account_id, told in values.items()}
    return Month(sample, accounts, lived_stories(sample))


# What is written --------------------------------------------------------------------------------------------------


def written(directory: Path, sample: Sample) -> dict[str, bytes]:
    write_sample(directory, sample)
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first = written(tmp_path / "first", SMALL)
    assert list(first) == ["bills.jsonl", "controls.jsonl", "packages.jsonl", "payments.jsonl", "usage.jsonl"]
    assert written(tmp_path / "again", SMALL) == first
    other = written(tmp_path / "other", replace(SMALL, seed=8))
    assert all(other[name] != first[name] for name in first)


def test_the_files_hold_what_generate_yields_and_the_summary_counts_it(tmp_path: Path) -> None:
    done: list[int] = []
    summary = write_sample(tmp_path / "a" / "b", SMALL, progress=done.append)
    assert done == list(range(1, 32))
    told: dict[str, list[dict[str, Any]]] = {f"{topic}.jsonl": [] for topic in TOPICS}
    for topic, value in generate(SMALL):
        told[f"{topic}.jsonl"].append(value)
    assert summary.records == {name: len(values) for name, values in told.items()}
    for name, values in told.items():
        lines = (tmp_path / "a" / "b" / name).read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == values
    assert summary.stories == lived_stories(SMALL)


def test_records_come_in_order_of_their_instants_within_the_sample() -> None:
    sample = Sample(accounts=25, days=9)
    instants = [parse_instant(str(value[WHEN[topic]])) for topic, value in generate(sample)]
    assert instants == sorted(instants)
    assert sample.start <= instants[0]
    assert instants[-1] == sample.end


def test_event_ids_are_unique_in_topic_and_account() -> None:
    seen = Counter((topic, value["account_id"], value["event_id"]) for topic, value in generate(Sample(25)))
    assert seen.most_common(1)[0][1] == 1


@pytest.mark.parametrize("hourly", [True, False])
def test_the_monitor_takes_every_record(hourly: bool) -> None:
    for topic, value in generate(Sample(accounts=40, hourly=hourly)):
        decode(topic, json.dumps(value).encode())


def test_a_daily_bill_charges_exactly_the_usage_of_the_day_before() -> None:
    sample = Sample(accounts=25)
    for lived in month(sample).accounts.values():
        costs: dict[Instant, Decimal] = defaultdict(Decimal)
        for usage in lived.values["usage"]:
            day = parse_instant(usage["started_at"]) // DAY * DAY
            assert day < parse_instant(usage["ended_at"]) <= day + DAY
            costs[day] += Decimal(usage["cost"])
        billed = {}
        for bill in lived.of_kind("bills", "issued"):
            period, period_end = parse_instant(bill["period_start"]), parse_instant(bill["period_end"])
            assert period_end == period + DAY
            assert 2 * 60 < (parse_instant(bill["issued_at"]) - period_end) // 1_000_000 < 10 * 60
            billed[period] = bill["amount"]
        costs.pop(sample.end - DAY, None)  # its bill comes after the end
        cent = Decimal("0.01")
        assert billed == {day: str(cost.quantize(cent, ROUND_HALF_UP)) for day, cost in costs.items()}


def test_usage_has_the_rhythm_of_day_and_night_and_of_the_week() -> None:
    by_hour: Counter[int] = Counter()
    by_weekday: Counter[int] = Counter()
    for topic, value in generate(Sample(accounts=40, days=28)):
        if topic == "usage" and value["service"] == "compute":
            started_at = parse_instant(str(value["started_at"]))
            by_hour[started_at % DAY // HOUR] += parse_money(str(value["quantity"]))
            by_weekday[(started_at // DAY + 3) % 7] += parse_money(str(value["quantity"]))
    assert min(by_hour[hour] for hour in range(9, 18)) > 2 * max(by_hour[hour] for hour in range(1, 6))
    assert by_weekday[2] > by_weekday[6]


def test_by_the_day_there_is_one_record_of_a_service() -> None:
    seen: Counter[tuple[object, ...]] = Counter()
    for topic, value in generate(SMALL):
        if topic == "usage":
            seen[value["account_id"], value["service"], value["ended_at"]] += 1
    assert set(seen.values()) == {1}
    assert len({ended_at for _, _, ended_at in seen}) == SMALL.days


# The stories ------------------------------------------------------------------------------------------------------

SAMPLES = [Sample(), Sample(hourly=False), Sample(accounts=20, seed=1), Sample(accounts=30, days=40, seed=99)]


@pytest.fixture(params=SAMPLES, ids=["default", "by-the-day", "twenty", "forty-days"])
def lived(request: pytest.FixtureRequest) -> Month:
    sample: Sample = request.param
    return month(sample)


def test_each_story_has_an_account(lived: Month) -> None:
    assert list(lived.stories) == list(STORIES)
    assert all(lived.stories.values())
    told = sum(lived.stories.values(), ())
    assert sorted(told) == sorted(lived.accounts)
    assert len(lived.stories["pays"]) >= len(told) - 20 - len(told) // 5


def test_most_simply_pay() -> None:
    stories = lived_stories(Sample(accounts=10_000))
    assert 8_500 < len(stories["pays"]) < 8_900
    assert 400 < len(stories["pays_in_time"]) < 600


# Story: for each time in arrears the least and the most hours; None: to the end of the sample.
Span = tuple[int, int | None]
ARREARS: dict[str, tuple[Span, ...]] = {
    "pays": (),
    "pays_in_time": ((3, 24),),
    "pays_late": ((24, 144),),
    "never_pays": ((360, None),),
    "pays_partly": ((72, 144),),
    "relapse": ((24, 96), (24, 96)),
    "chargeback": ((24, 96),),
    "disputed": ((24, 48),),
    "gift_only": ((24, None),),
    "package": (),
    "hold": ((120, 168),),
    "exempt": ((96, 240),),
    "allowance": ((24, 96),),
    "refund": (),
    "breach": ((72, 120),),
    "pays_after_delete": ((360, 420),),
    "reopened": ((360, 380),),
}


@pytest.mark.parametrize("story", STORIES)
def test_arrears_last_as_the_story_tells(lived: Month, story: str) -> None:
    for account in lived.living(story):
        assert len(account.episodes) == len(ARREARS[story])
        for episode, (least, most) in zip(account.episodes, ARREARS[story], strict=True):
            assert episode.length > least * HOUR
            assert (episode.until is None) if most is None else (episode.length < most * HOUR)


def test_who_pays_partly_stays_in_arrears_until_the_rest_comes(lived: Month) -> None:
    for account in lived.living("pays_partly"):
        (episode,) = account.episodes
        paid = [at for at in account.instants("payments", "topup") if at > episode.since]
        assert episode.since + DAY < paid[0] < paid[1] == episode.until


def test_a_chargeback_takes_back_a_top_up_and_puts_the_account_in_arrears(lived: Month) -> None:
    for account in lived.living("chargeback"):
        (reversal,) = account.of_kind("payments", "reversal")
        top_ups = {value["payment_id"]: value["amount"] for value in account.of_kind("payments", "topup")}
        assert top_ups[reversal["payment_id"]] == reversal["amount"]
        assert account.episodes[0].since == parse_instant(reversal["paid_at"])


def test_a_disputed_bill_is_adjusted_down_and_another_one_voided(lived: Month) -> None:
    for account in lived.living("disputed"):
        (adjusted,) = account.of_kind("bills", "adjusted")
        (voided,) = account.of_kind("bills", "voided")
        issued = {value["bill_id"]: value for value in account.of_kind("bills", "issued")}
        bill = issued[adjusted["bill_id"]]
        assert parse_money(adjusted["amount"]) < parse_money(bill["amount"]) // 5
        assert account.episodes[0].since == parse_instant(bill["issued_at"])
        assert account.episodes[0].until == parse_instant(adjusted["issued_at"])
        assert voided["bill_id"] in issued.keys() - {adjusted["bill_id"]}
        assert "amount" not in voided


def test_gift_credit_is_all_there_is(lived: Month) -> None:
    for account in lived.living("gift_only"):
        assert {value["kind"] for value in account.values["payments"]} == {"gift"}
        assert len(account.values["payments"]) >= 2


def test_a_package_is_used_up_and_then_usage_costs_money(lived: Month) -> None:
    for account in lived.living("package"):
        package, mistaken = account.of_kind("packages", "purchased")
        (cancelled,) = account.of_kind("packages", "cancelled")
        assert cancelled["package_id"] == mistaken["package_id"]
        left = Decimal(package["quantity"])
        free = charged = 0
        for usage in account.values["usage"]:
            if usage["service"] == package["service"] and usage["ended_at"] >= package["starts_at"]:
                covered = min(left, Decimal(usage["quantity"]))
                left -= covered
                assert Decimal(usage["cost"]) == (Decimal(usage["quantity"]) - covered) * Decimal("0.35")
                free += covered == Decimal(usage["quantity"])
                charged += covered == 0
        assert left == 0
        assert free > 2
        assert charged > 2


def test_a_hold_covers_the_suspend_mark_and_its_clock_runs_out_after_the_release(lived: Month) -> None:
    for account in lived.living("hold"):
        (episode,) = account.episodes
        ((held, released),) = zip(
            account.instants("controls", "hold"), account.instants("controls", "release"), strict=True
        )
        assert account.of_kind("controls", "hold")[0]["freeze_clock"] is True
        assert episode.since < held < episode.since + DAY < released
        assert episode.until is not None
        assert episode.since + DAY + (released - held) < episode.until


def test_an_exemption_restores_a_suspended_account_until_it_pays(lived: Month) -> None:
    for account in lived.living("exempt"):
        (episode,) = account.episodes
        (exempt,) = account.of_kind("controls", "exempt")
        assert episode.since + DAY < parse_instant(exempt["at"])
        assert episode.until is not None
        assert episode.until < parse_instant(exempt["until"])


def test_an_allowance_is_granted_before_the_mark_and_paid_before_the_moved_one(lived: Month) -> None:
    for account in lived.living("allowance"):
        (episode,) = account.episodes
        (allowance,) = account.of_kind("controls", "allowance")
        assert parse_instant(allowance["at"]) < episode.since + DAY
        assert episode.length < DAY + parse_duration(allowance["duration"])


def test_a_refund_gives_back_a_part_of_a_top_up(lived: Month) -> None:
    for account in lived.living("refund"):
        (refund,) = account.of_kind("payments", "refund")
        top_ups = {value["payment_id"]: value["amount"] for value in account.of_kind("payments", "topup")}
        assert parse_money(refund["amount"]) <= parse_money(top_ups[refund["payment_id"]])


def test_a_deleted_account_that_pays_stays_deleted_and_a_reopened_one_goes_on(lived: Month) -> None:
    for account in lived.living("pays_after_delete"):
        assert account.values["usage"][-1]["started_at"] < account.values["payments"][-1]["paid_at"]
        assert not account.values["controls"]
    for account in lived.living("reopened"):
        (reopened,) = account.instants("controls", "reopen")
        assert account.episodes[0].until is not None
        assert account.episodes[0].until < reopened < parse_instant(account.values["usage"][-1]["started_at"])


def test_only_a_breach_uses_what_is_suspended(lived: Month) -> None:
    breaching = set()
    for account_id, account in lived.accounts.items():
        excused = {value["kind"] for value in account.values["controls"]} & {"hold", "exempt", "allowance"}
        for usage in account.values["usage"]:
            started_at = parse_instant(usage["started_at"])
            for episode in account.episodes:
                until = episode.end if episode.until is None else episode.until
                if episode.since + DAY < started_at < until and not excused:
                    if usage["service"] != "storage":
                        breaching.add(account_id)
                    assert started_at < episode.since + 15 * DAY  # then storage ends, too
    assert breaching == set(lived.stories["breach"])


def test_controls_say_who_and_why() -> None:
    said = [value for topic, value in generate(replace(SMALL, accounts=200)) if topic == "controls"]
    assert {value["kind"] for value in said} == {"credit_limit", "hold", "release", "exempt", "allowance", "reopen"}
    assert all(value["actor"] and len(str(value["reason"])) > 20 and "{" not in str(value["reason"]) for value in said)


# Size -------------------------------------------------------------------------------------------------------------


def arrears_of_payers(sample: Sample) -> Iterator[tuple[str, Episode]]:
    found = month(sample)
    for account_id in found.stories["pays"]:
        for episode in found.accounts[account_id].episodes:
            yield account_id, episode


@pytest.mark.parametrize("seed", range(3))
def test_who_simply_pays_is_never_in_arrears(seed: int) -> None:
    assert list(arrears_of_payers(Sample(accounts=120, days=70, seed=seed, hourly=False))) == []


@pytest.mark.parametrize(("accounts", "days"), [(1, 1), (1, 31), (3, 400), (19, 2), (18, 5)])
def test_any_number_of_accounts_and_days(accounts: int, days: int) -> None:
    sample = Sample(accounts=accounts, days=days, hourly=False)
    seen = {value["account_id"] for _, value in generate(sample)}
    assert len(seen) == accounts


def test_memory_does_not_grow_with_the_days() -> None:
    def peak(days: int) -> int:
        tracemalloc.start()
        try:
            for _ in generate(Sample(accounts=60, days=days, hourly=False)):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1)  # what is learnt once (instants, labels) does not count
    assert peak(100) < 1.5 * peak(10)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"accounts": 0}, "accounts must be from 1 to 100000, not 0"),
        ({"accounts": 100_001}, "accounts must be from 1 to 100000, not 100001"),
        ({"days": 0}, "days must be from 1 to 400, not 0"),
        ({"days": 401}, "days must be from 1 to 400, not 401"),
        ({"currency": "yuan"}, "currency must be three capital letters such as CNY, not 'yuan'"),
        ({"start": 1}, "start must be a midnight in UTC, not 1970-01-01T00:00:00.000001Z"),
        ({"start": parse_instant("9999-01-01T00:00:00Z")}, "start must lie at least 1000 days before"),
    ],
)
def test_what_is_out_of_bounds_is_refused_in_words(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace(".", r"\.")):
        Sample(**wrong)
