"""Amounts of a resource as Kubernetes writes them (`500m`, `2Gi`, `1e3`), with exact arithmetic.

A quantity is a whole number of billionths, so sums and comparisons never round; parsing rounds anything finer up, as
Kubernetes does. The text form is canonical: equal amounts of one notation have equal text, and reading it back is
exact. It depends on no validation library: `document.Quantity` is the type of a model's field.
"""

from __future__ import annotations

import functools
import re
from typing import Final, Literal, Self

__all__ = ["Notation", "Quantity"]

Notation = Literal["decimal", "binary", "exponent"]

_NANO: Final = 10**9
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_FORM: Final = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>\d*)(?:\.(?P<fraction>\d*))?"
    r"(?:(?P<suffix>[numkMGTPE]|[KMGTPE]i)|[eE](?P<exponent>[+-]?\d{1,3}))?",
    re.ASCII,
)
_MAX_DIGITS: Final = 60
_MAX_EXPONENT: Final = 60


@functools.total_ordering
class Quantity:
    """An exact amount. Immutable; equal when the amounts are, whatever their notation."""

    __slots__ = ("_nanos", "_notation")

    _nanos: int
    _notation: Notation

    def __init__(self, value: str | int | Quantity = 0) -> None:
        """Raises ValueError for a text that is no quantity."""
        if isinstance(value, Quantity):
            self._nanos, self._notation = value._nanos, value._notation
        elif isinstance(value, int):
            self._nanos, self._notation = value * _NANO, "decimal"
        else:
            self._nanos, self._notation = _parse(value)

    @classmethod
    def of_nanos(cls, nanos: int, notation: Notation = "decimal") -> Self:
        quantity = cls()
        quantity._nanos, quantity._notation = nanos, notation
        return quantity

    @property
    def nanos(self) -> int:
        """The amount in billionths."""
        return self._nanos

    @property
    def notation(self) -> Notation:
        return self._notation

    def ceil(self) -> int:
        """The amount in whole units, rounded up (bytes of memory, whole cores)."""
        return -(-self._nanos // _NANO)

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity.of_nanos(self._nanos + other._nanos, self._notation)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity.of_nanos(self._nanos - other._nanos, self._notation)

    def __mul__(self, factor: int) -> Quantity:
        return Quantity.of_nanos(self._nanos * factor, self._notation)

    __rmul__ = __mul__

    def __neg__(self) -> Quantity:
        return Quantity.of_nanos(-self._nanos, self._notation)

    def __bool__(self) -> bool:
        return self._nanos != 0

    def __float__(self) -> float:
        return self._nanos / _NANO

    def __eq__(self, other: object) -> bool:
        return self._nanos == other._nanos if isinstance(other, Quantity) else NotImplemented

    def __lt__(self, other: Quantity) -> bool:
        return self._nanos < other._nanos

    def __hash__(self) -> int:
        return hash(self._nanos)

    def __repr__(self) -> str:
        return f"Quantity({str(self)!r})"

    def __str__(self) -> str:
        sign, amount = ("-", -self._nanos) if self._nanos < 0 else ("", self._nanos)
        return sign + _text(amount, self._notation)


def _text(nanos: int, notation: Notation) -> str:
    """The largest unit that leaves a whole number."""
    if nanos == 0:
        return "0"
    # What is no multiple of 1024 has no binary unit: decimal takes over, so that the text reads back as itself.
    if notation == "binary" and nanos % (1024 * _NANO) == 0:
        units, suffix = nanos // _NANO, ""
        for name in _BINARY:
            if units % 1024:
                break
            units, suffix = units // 1024, name
        return f"{units}{suffix}"
    exponent = -9
    while nanos % 1000 == 0 and (exponent < 18 or notation == "exponent"):
        nanos, exponent = nanos // 1000, exponent + 3
    if notation == "exponent":
        return f"{nanos}e{exponent}" if exponent else str(nanos)
    return f"{nanos}{next(name for name, power in _DECIMAL.items() if power == exponent)}"


def _parse(text: str) -> tuple[int, Notation]:
    match = _FORM.fullmatch(text)
    if match is None or not (match["whole"] or match["fraction"]):
        raise ValueError(f"{text!r} is no quantity such as 500m, 2, 1.5Gi or 1e3")
    whole, fraction = match["whole"], match["fraction"] or ""
    exponent = int(match["exponent"] or 0)
    if len(whole) + len(fraction) > _MAX_DIGITS or abs(exponent) > _MAX_EXPONENT:
        raise ValueError(f"{text[:80]!r} is out of the range of a quantity")
    numerator, denominator = int(whole + fraction) * _NANO, 10 ** len(fraction)
    suffix = match["suffix"] or ""
    notation: Notation = "decimal"
    if suffix in _BINARY:
        numerator, notation = numerator * 1024 ** _BINARY[suffix], "binary"
    else:
        if match["exponent"] is not None:
            notation = "exponent"
        power = exponent + _DECIMAL[suffix]
        numerator, denominator = numerator * 10 ** max(power, 0), denominator * 10 ** max(-power, 0)
    # Finer than a billionth is rounded away from zero, so that something never becomes nothing.
    nanos = -(-numerator // denominator)
    return (-nanos if match["sign"] == "-" else nanos), notation
