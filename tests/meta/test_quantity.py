"""Quantity: what Kubernetes reads is read alike, arithmetic is exact, and the text form reads back as the same
amount."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from michelangelo.meta.quantity import Notation, Quantity

NANOS = st.integers(min_value=-(10**40), max_value=10**40)
NOTATIONS = st.sampled_from(["decimal", "binary", "exponent"])


@pytest.mark.parametrize(
    ("text", "nanos", "canonical"),
    [
        ("0", 0, "0"),
        ("1", 10**9, "1"),
        ("500m", 5 * 10**8, "500m"),
        ("0.5", 5 * 10**8, "500m"),
        (".5", 5 * 10**8, "500m"),
        ("2.", 2 * 10**9, "2"),
        ("+3", 3 * 10**9, "3"),
        ("-1.5", -15 * 10**8, "-1500m"),
        ("1000m", 10**9, "1"),
        ("1500", 1500 * 10**9, "1500"),
        ("1000", 1000 * 10**9, "1k"),
        ("1G", 10**18, "1G"),
        ("2Gi", 2 * 1024**3 * 10**9, "2Gi"),
        ("1.5Gi", 1536 * 1024**2 * 10**9, "1536Mi"),
        ("1024Ki", 1024**2 * 10**9, "1Mi"),
        ("0.5Ki", 512 * 10**9, "512"),
        ("1e3", 1000 * 10**9, "1e3"),
        ("1E3", 1000 * 10**9, "1e3"),
        ("1E", 10**27, "1E"),
        ("15e-1", 15 * 10**8, "1500e-3"),
        ("100n", 100, "100n"),
        ("1u", 1000, "1u"),
        # Finer than a billionth: up, away from zero.
        ("0.1n", 1, "1n"),
        ("-0.1n", -1, "-1n"),
    ],
)
def test_quantity_reads_and_writes_like_kubernetes(text: str, nanos: int, canonical: str) -> None:
    assert Quantity(text).nanos == nanos
    assert str(Quantity(text)) == canonical


@pytest.mark.parametrize(
    "text",
    ["", " 1", "1 ", ".", "-", "1.2.3", "1kk", "1ki", "k", "1e", "1e1000", "0x10", "1" * 100, "١", "1e61", "NaN"],
)
def test_quantity_refuses_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        Quantity(text)


@given(NANOS, NOTATIONS)
@example(5_000 * 10**9, "binary")
def test_quantity_text_reads_back_as_the_same_amount(nanos: int, notation: Notation) -> None:
    quantity = Quantity.of_nanos(nanos, notation)
    again = Quantity(str(quantity))
    assert again == quantity
    assert str(again) == str(quantity)


@given(NANOS, NANOS, st.integers(-1000, 1000))
def test_quantity_arithmetic_is_that_of_fractions(left: int, right: int, factor: int) -> None:
    one, two = Quantity.of_nanos(left), Quantity.of_nanos(right)
    assert (one + two).nanos == left + right
    assert (one - two).nanos == left - right
    assert (one * factor).nanos == (factor * one).nanos == left * factor
    assert (-one).nanos == -left
    assert (one < two, one == two, one >= two) == (left < right, left == right, left >= right)


@given(st.integers(0, 10**6), st.integers(0, 10**9 - 1), st.sampled_from(["", "k", "Ki", "M", "Mi", "m"]))
def test_quantity_parsing_is_exact_or_rounds_up(whole: int, fraction: int, suffix: str) -> None:
    units: dict[str, int | Fraction] = {"": 1, "k": 1000, "Ki": 1024, "M": 10**6, "Mi": 1024**2, "m": Fraction(1, 1000)}
    exact = (whole + Fraction(fraction, 10**9)) * units[suffix] * 10**9
    nanos = Quantity(f"{whole}.{fraction:09d}{suffix}").nanos
    assert 0 <= nanos - exact < 1


def test_quantity_keeps_the_notation_of_its_left_operand() -> None:
    assert str(Quantity("1Gi") + Quantity("1024")) == "1048577Ki"
    assert str(Quantity("1") + Quantity("1Gi")) == "1073741825"


def test_quantity_ceil_is_whole_units() -> None:
    assert Quantity("1500m").ceil() == 2
    assert Quantity("2").ceil() == 2
    assert Quantity("-1500m").ceil() == -1


def test_quantities_of_equal_amount_are_one_key() -> None:
    assert {Quantity("1Ki"), Quantity("1024"), Quantity(1024)} == {Quantity("1.024k")}
    assert repr(Quantity("0.5")) == "Quantity('500m')"
    assert float(Quantity("0.5")) == 0.5
    assert not Quantity("0")
