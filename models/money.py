"""Money and quantities, exact: decimal texts (§1) as whole millionths, or as whole 10^-12 units.

Sums may exceed what a text can carry in (15 digits); they stay exact, and `format_money` writes them in full.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from models.refusal import shown

#: Millionths of the currency unit.
Money: TypeAlias = int
#: 10^-12 units: a usage's cost and quantity.
Fine: TypeAlias = int

MONEY_DECIMALS: Final = 6
FINE_DECIMALS: Final = 12
#: How many `Fine` a `Money` is: fine = money * FINE_PER_MONEY.
FINE_PER_MONEY: Final = 10 ** (FINE_DECIMALS - MONEY_DECIMALS)

MAX_DIGITS: Final = 15

# What a number of n decimals is multiplied by; a number with more decimals is not in the table.
_MONEY_SCALE: Final = {decimals: 10 ** (MONEY_DECIMALS - decimals) for decimals in range(1, MONEY_DECIMALS + 1)}
_FINE_SCALE: Final = {decimals: 10 ** (FINE_DECIMALS - decimals) for decimals in range(1, FINE_DECIMALS + 1)}
_MONEY_UNIT: Final = 10**MONEY_DECIMALS
_FINE_UNIT: Final = 10**FINE_DECIMALS

_CENT: Final = _MONEY_UNIT // 100
#: What stands behind the whole of an amount with so many hundredths.
_CENT_TEXTS: Final = ("", *(f".{cents:02}".rstrip("0") for cents in range(1, 100)))

# Amounts recur (0, 100, 9.99): the first so many texts without a sign are remembered, 8 MB a table at most.
_MONEY_SEEN: Final[dict[str, Money]] = {}
_FINE_SEEN: Final[dict[str, Fine]] = {}
_SEEN_KEPT: Final = 50_000


def parse_money(text: str) -> Money:
    r"""Millionths of `[0-9]{1,15}(\.[0-9]{1,6})?`. Raises ValueError, with a message that says what is expected."""
    value = _MONEY_SEEN.get(text)
    if value is None:
        value = _parse(text, _MONEY_UNIT, _MONEY_SCALE)
        if value is None:
            raise ValueError(f"{money_form()}; got {shown(text)}")
        if len(_MONEY_SEEN) < _SEEN_KEPT:
            _MONEY_SEEN[text] = value
    return value


def parse_signed_money(text: str) -> Money:
    """The same with an optional leading "-": an opening balance. Raises ValueError."""
    negative = text.startswith("-")
    value = _parse(text[1:] if negative else text, _MONEY_UNIT, _MONEY_SCALE)
    if value is None:
        raise ValueError(f"{money_form(signed=True)}; got {shown(text)}")
    return -value if negative else value


def parse_fine(text: str) -> Fine:
    """10^-12 units of a number with up to 15 digits and 12 decimals, unsigned. Raises ValueError."""
    value = _parse_fine(text)
    if value is None:
        raise ValueError(f"{fine_form()}; got {shown(text)}")
    return value


def parse_signed_fine(text: str) -> Fine:
    """The same with an optional leading "-": a usage's cost. Raises ValueError."""
    negative = text.startswith("-")
    value = _parse_fine(text[1:] if negative else text)
    if value is None:
        raise ValueError(f"{fine_form(signed=True)}; got {shown(text)}")
    return -value if negative else value


def format_money(value: Money) -> str:
    """The shortest form: "128.4", "0", "-3"."""
    if not value:
        return "0"
    if value % _CENT == 0:  # most amounts have two decimals
        cents = value // _CENT
        if cents > 0:
            return f"{cents // 100}{_CENT_TEXTS[cents % 100]}"
        return f"-{-cents // 100}{_CENT_TEXTS[-cents % 100]}"
    return _format(value, _MONEY_UNIT, MONEY_DECIMALS)


def format_fine(value: Fine) -> str:
    """The shortest form: "0.000000000001", "2.5", "-3"."""
    if value % FINE_PER_MONEY == 0:
        return format_money(value // FINE_PER_MONEY)
    return _format(value, _FINE_UNIT, FINE_DECIMALS)


def money_form(*, signed: bool = False) -> str:
    """What a message says of the form of money."""
    return _form("12.50", MONEY_DECIMALS, signed=signed)


def fine_form(*, signed: bool = False) -> str:
    """What a message says of the form of a usage's cost or quantity."""
    return _form("0.000125", FINE_DECIMALS, signed=signed)


def _form(example: str, decimals: int, *, signed: bool) -> str:
    sign = 'a leading "-" if negative' if signed else "no sign"
    return f'must be a text like "{example}": at most {MAX_DIGITS} digits, at most {decimals} decimals, {sign}'


def _parse_fine(text: str) -> Fine | None:
    value = _FINE_SEEN.get(text)
    if value is None:
        value = _parse(text, _FINE_UNIT, _FINE_SCALE)
        if value is not None and len(_FINE_SEEN) < _SEEN_KEPT:
            _FINE_SEEN[text] = value
    return value


def _parse(text: str, unit: int, scale: dict[int, int]) -> int | None:
    # isdigit alone would take the digits of every script ("١٢"), int alone blanks and underscores.
    point = text.find(".")
    if point < 0:
        return int(text) * unit if len(text) <= MAX_DIGITS and text.isdigit() and text.isascii() else None
    digits = text.replace(".", "", 1)
    factor = scale.get(len(digits) - point)
    if factor is None or not 0 < point <= MAX_DIGITS or not (digits.isdigit() and digits.isascii()):
        return None
    return int(digits) * factor


def _format(value: int, unit: int, decimals: int) -> str:
    whole, part = divmod(abs(value), unit)
    sign = "-" if value < 0 else ""
    if not part:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{str(part).zfill(decimals).rstrip('0')}"
