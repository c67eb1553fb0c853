from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.money import (
    FINE_PER_MONEY,
    format_fine,
    format_money,
    parse_fine,
    parse_money,
    parse_signed_fine,
    parse_signed_money,
)

UNSIGNED = (parse_money, parse_fine)
SIGNED = (parse_signed_money, parse_signed_fine)


@pytest.mark.parametrize(
    ("text", "millionths"),
    [
        ("0", 0),
        ("0.0", 0),
        ("1", 1_000_000),
        ("12.50", 12_500_000),
        ("12.5", 12_500_000),
        ("0.000001", 1),
        ("007", 7_000_000),
        ("999999999999999.999999", 999_999_999_999_999_999_999),
    ],
)
def test_money_is_exact(text: str, millionths: int) -> None:
    for _ in range(2):  # the second time it is remembered
        assert parse_money(text) == millionths
        assert parse_fine(text) == millionths * FINE_PER_MONEY
        assert parse_signed_money(f"-{text}") == -millionths
        assert parse_signed_fine(f"-{text}") == -millionths * FINE_PER_MONEY
        assert parse_signed_money(text) == millionths


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "1 ",
        " 1",
        "1\n",
        "+1",
        "--1",
        "-",
        ".",
        "-.",
        "1.",
        ".5",
        "1..5",
        "1.5.0",
        "1,5",
        "1_000",
        "1e3",
        "0x1",
        "NaN",
        "Infinity",
        "1" * 16,
        "1" * 16 + ".5",
        "1" * 5000,
        "1." + "0" * 13,
        "1." + "0" * 5000,
        "\u0661\u0662",  # digits, though not of ASCII
        "\uff11\uff12",
        "1.\u0665",
        "\u00b2",
        "\u00bd",
        "1.-5",
        "1.5-",
        "\ud800",
        "1\0",
        "\u20111",
    ],
    ids=lambda text: ascii(text)[:30],
)
def test_what_is_no_money_is_refused_in_one_line(text: str) -> None:
    for parse in (*UNSIGNED, *SIGNED):
        for _ in range(2):
            with pytest.raises(ValueError, match="must be a text like") as refused:
                parse(text)
            message = str(refused.value)
            assert len(message) < 300
            assert message.isprintable()


def test_money_has_six_decimals_at_most_and_a_quantity_twelve() -> None:
    assert parse_fine("0.0000001") == 100_000
    assert parse_fine("0.000000000001") == 1
    for refusing in (parse_money, parse_signed_money):
        with pytest.raises(ValueError, match="at most 6 decimals"):
            refusing("0.0000001")
    with pytest.raises(ValueError, match="at most 12 decimals"):
        parse_fine("0.0000000000001")


@pytest.mark.parametrize("parse", UNSIGNED)
def test_only_a_signed_amount_may_be_negative(parse: object) -> None:
    assert callable(parse)
    parse_signed_money("-7")
    parse_signed_fine("-7")
    with pytest.raises(ValueError, match=r'no sign; got "-7"'):
        parse("-7")


@pytest.mark.parametrize(
    ("millionths", "text"),
    [
        (0, "0"),
        (128_400_000, "128.4"),
        (-3_000_000, "-3"),
        (-1, "-0.000001"),
        (-500_000, "-0.5"),
        (10**30, "1" + "0" * 24),
        (1_000_010, "1.00001"),
    ],
)
def test_amounts_leave_in_the_shortest_form(millionths: int, text: str) -> None:
    assert format_money(millionths) == text
    assert format_fine(millionths * FINE_PER_MONEY) == text


def test_a_fine_amount_leaves_with_all_its_decimals() -> None:
    assert format_fine(1) == "0.000000000001"
    assert format_fine(-(10**12) - 10) == "-1.00000000001"


@given(st.integers(-(10**21) + 1, 10**21 - 1))
@example(0)
def test_money_survives_the_way_out_and_in(millionths: int) -> None:
    assert parse_signed_money(format_money(millionths)) == millionths
    assert Fraction(format_money(millionths)) == Fraction(millionths, 10**6)


@given(st.integers(-(10**27) + 1, 10**27 - 1))
def test_a_quantity_survives_the_way_out_and_in(value: int) -> None:
    assert parse_signed_fine(format_fine(value)) == value
    assert Fraction(format_fine(value)) == Fraction(value, 10**12)


@given(st.from_regex(r"-?[0-9]{1,16}(\.[0-9]{1,13})?", fullmatch=True))
def test_money_is_what_the_contract_says_and_nothing_else(text: str) -> None:
    whole, _, decimals = text.removeprefix("-").partition(".")
    for parse, most, signed in (
        (parse_money, 6, False),
        (parse_signed_money, 6, True),
        (parse_fine, 12, False),
        (parse_signed_fine, 12, True),
    ):
        if len(whole) <= 15 and len(decimals) <= most and (signed or not text.startswith("-")) and text.isascii():
            assert Fraction(parse(text), 10**most) == Fraction(text)
        else:
            with pytest.raises(ValueError, match="got"):
                parse(text)
