from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import instants
from models.instants import (
    DAY,
    FIRST_INSTANT,
    HOUR,
    LAST_INSTANT,
    MINUTE,
    SECOND,
    format_duration,
    format_instant,
    parse_duration,
    parse_instant,
)

MARCH_16 = 1_521_158_400 * SECOND  # 2018-03-16T00:00:00Z


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2018-03-16T00:00:00Z", MARCH_16),
        ("2018-03-16T08:00:00+08:00", MARCH_16),
        ("2018-03-15T18:30:00-05:30", MARCH_16),
        ("2018-03-16T00:00:00-00:00", MARCH_16),
        ("2018-03-16T00:00:00+23:59", MARCH_16 - 23 * HOUR - 59 * MINUTE),
        ("2018-03-16T00:00:00.1Z", MARCH_16 + 100_000),
        ("2018-03-16T00:00:00.12Z", MARCH_16 + 120_000),
        ("2018-03-16T00:00:00.123Z", MARCH_16 + 123_000),
        ("2018-03-16T00:00:00.1234Z", MARCH_16 + 123_400),
        ("2018-03-16T00:00:00.000001Z", MARCH_16 + 1),
        ("2018-03-16T23:59:59.999999Z", MARCH_16 + DAY - 1),
        ("2018-03-16T08:00:00.5+08:00", MARCH_16 + 500_000),
        ("2020-02-29T00:00:00Z", 1_582_934_400 * SECOND),
        ("0001-01-01T00:00:00Z", FIRST_INSTANT),
        ("0000-12-31T23:00:00-01:00", FIRST_INSTANT),  # in UTC it lies within the years
        ("9999-12-31T23:59:59.999999Z", LAST_INSTANT),
    ],
)
def test_an_instant_is_exact_microseconds_of_utc(text: str, instant: int) -> None:
    for _ in range(2):  # the second time its parts are remembered
        assert parse_instant(text) == instant


NO_INSTANTS = [
    "",
    "2018-03-16",
    "2018-03-16T00:00:00",  # no offset
    "2018-03-16T00:00Z",
    "2018-03-16 00:00:00Z",
    "2018-03-16t00:00:00Z",
    "2018-03-16T00:00:00z",
    "2018-03-16T00:00:00ZZ",
    "2018-03-16T00:00:00Z ",
    " 2018-03-16T00:00:00Z",
    "2018-03-16T00:00:00Z\n",
    "2018-03-16T24:00:00Z",
    "2018-03-16T00:60:00Z",
    "2018-03-16T23:59:60Z",  # a leap second
    "2018-03-16T00:00:00.Z",
    "2018-03-16T00:00:00,5Z",
    "2018-03-16T00:00:00.1234567Z",
    "2018-03-16T00:00:00.12\u0663Z",
    "2018-03-16T00:00:00.+1Z",
    "2018-03-16T00:00:00+0800",
    "2018-03-16T00:00:00+08",
    "2018-03-16T00:00:00+8:00",
    "2018-03-16T00:00:00+24:00",
    "2018-03-16T00:00:00+08:60",
    "2018-03-16T00:00:00\u221208:00",
    "2018-03-16T00:00:00+08:00Z",
    "2018-02-29T00:00:00Z",
    "2018-04-31T00:00:00Z",
    "2018-00-16T00:00:00Z",
    "2018-13-16T00:00:00Z",
    "2018-03-00T00:00:00Z",
    "2018-3-16T00:00:00Z",
    "18-03-16T00:00:00Z",
    "2018-W11-5T00:00:00Z",
    "20180316T000000Z",
    "\u0662\u0660\u0661\u0668-03-16T00:00:00Z",
    "2018-03-16T\u0660\u0660:00:00Z",
    "0000-01-01T00:00:00Z",
    "0000-12-31T23:59:59Z",
    "0000-02-30T00:00:00Z",
    "0001-01-01T00:00:00+00:01",
    "9999-12-31T23:59:59-00:01",
    "10000-01-01T00:00:00Z",
    "-2018-03-16T00:00:00Z",
    "\ud800",
    "2018-03-16T00:00:00Z\0",
    "x" * 100_000,
]


@pytest.mark.parametrize("text", NO_INSTANTS, ids=lambda text: ascii(text)[:40])
def test_what_is_no_instant_is_refused_in_one_line(text: str) -> None:
    parse_instant("2018-03-16T00:00:00+08:00")  # its parts are known now
    for _ in range(2):
        with pytest.raises(ValueError, match="must be an instant like") as refused:
            parse_instant(text)
        assert str(refused.value).isprintable()
        assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (MARCH_16 + 500_000, "2018-03-16T00:00:00.5Z"),
        (MARCH_16 + 10, "2018-03-16T00:00:00.00001Z"),
        (FIRST_INSTANT, "0001-01-01T00:00:00Z"),
        (LAST_INSTANT, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_instants_leave_as_utc_without_trailing_zeros(instant: int, text: str) -> None:
    for _ in range(2):
        assert format_instant(instant) == text


@pytest.mark.parametrize("instant", [FIRST_INSTANT - 1, LAST_INSTANT + 1])
def test_beyond_the_years_there_is_nothing_to_write(instant: int) -> None:
    with pytest.raises(OverflowError):
        format_instant(instant)


@given(st.integers(FIRST_INSTANT, LAST_INSTANT))
def test_an_instant_survives_the_way_out_and_in(instant: int) -> None:
    assert parse_instant(format_instant(instant)) == instant


@given(
    st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 12, 31)),  # noqa: DTZ001
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
    st.integers(0, 6),
)
def test_it_agrees_with_the_standard_library(moment: datetime, offset: int, decimals: int) -> None:
    zoned = moment.replace(tzinfo=timezone(timedelta(minutes=offset)))
    sign, (hours, minutes) = "-" if offset < 0 else "+", divmod(abs(offset), 60)
    fraction = f".{moment.microsecond:06}"[: decimals + 1] if decimals else ""
    text = f"{moment:%Y-%m-%dT%H:%M:%S}".zfill(19) + f"{fraction}{sign}{hours:02}:{minutes:02}"
    cut = moment.microsecond % 10 ** (6 - decimals)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert parse_instant(text) == (zoned - epoch) // timedelta(microseconds=1) - cut


def test_what_is_remembered_of_instants_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instants, "_HOURS_KEPT", 10)
    monkeypatch.setattr(instants, "_HOURS", {})
    monkeypatch.setattr(instants, "_HOUR_TEXTS", {})
    monkeypatch.setattr(instants, "_ENDS_KEPT", len(instants._ENDS) + 10)
    for hour in range(100):
        instant = MARCH_16 + hour * HOUR
        assert parse_instant(format_instant(instant)) == instant
        assert parse_instant(f"2018-03-16T00:00:00+00:{hour % 60:02}") == MARCH_16 - hour % 60 * MINUTE
    assert len(instants._HOURS) <= 10
    assert len(instants._HOUR_TEXTS) <= 10
    assert len(instants._ENDS) <= instants._ENDS_KEPT


# Durations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("PT24H", DAY),
        ("P1D", DAY),
        ("P15D", 15 * DAY),
        ("P2W", 14 * DAY),
        ("P0.5W", 84 * HOUR),
        ("PT0S", 0),
        ("P0D", 0),
        ("PT1M30S", 90 * SECOND),
        ("PT1M30.5S", 90 * SECOND + 500_000),
        ("PT1,5H", 90 * MINUTE),
        ("P1.5D", 36 * HOUR),
        ("P1DT2H3M4.000005S", DAY + 2 * HOUR + 3 * MINUTE + 4 * SECOND + 5),
        ("PT90M", 90 * MINUTE),
        ("PT0.000001S", 1),
        ("PT0.1000000S", 100_000),
        ("P1DT0.5M", DAY + 30 * SECOND),
        ("PT999999999999999H", 999_999_999_999_999 * HOUR),
    ],
)
def test_a_duration_is_exact_microseconds(text: str, duration: int) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text",
    [
        "",
        "P",
        "PT",
        "P1",
        "P1DT",
        "24H",
        "PT24",
        "T24H",
        "pt24h",
        "PT24h",
        "P1Y",
        "P1M",
        "P1M1D",
        "P1W1D",
        "P1WT1H",
        "P1H",
        "PT1D",
        "PT1S1M",
        "-PT1H",
        "PT-1H",
        "+PT1H",
        "PT1H ",
        "PT1H\n",
        "PT1.5H30M",  # only the smallest part may have a fraction
        "P0.5DT1H",
        "PT1.H",
        "PT.5H",
        "PT0.0000001S",  # not a whole microsecond
        "PT0.00000000000001H",
        "PT" + "1" * 16 + "S",
        "PT0." + "0" * 16 + "S",
        "PT" + "9" * 100_000 + "S",
        "PT\u0661H",
        "PT1e3S",
        "P1D2H",
        "\ud800",
    ],
    ids=lambda text: ascii(text)[:30],
)
def test_what_is_no_duration_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration like") as refused:
        parse_duration(text)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (0, "PT0S"),
        (24 * HOUR, "PT24H"),
        (360 * HOUR, "PT360H"),
        (90 * SECOND, "PT1M30S"),
        (HOUR + 30 * SECOND, "PT1H30S"),
        (1, "PT0.000001S"),
        (MINUTE + 500_000, "PT1M0.5S"),
    ],
)
def test_durations_leave_in_hours(duration: int, text: str) -> None:
    assert format_duration(duration) == text


def test_a_negative_duration_is_not_written() -> None:
    with pytest.raises(ValueError, match="not negative"):
        format_duration(-1)


@given(st.integers(0, 10**20))
def test_a_duration_survives_the_way_out_and_in(duration: int) -> None:
    assert parse_duration(format_duration(duration)) == duration
