"""Numbers as JSON that every server reads as the same number; pure.

Chroma's JSON reader multiplies digits by a power of ten in double precision, which rounds twice: it may miss
the nearest double by one unit in the last place. There are many decimals that stand for one double, and for
some of them both this reader and an exact one come to it.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Final

#: The reader takes digits as long as they fit 64 bits, and has a table of powers up to this one.
_LARGEST: Final = 2**64 - 1
_POWERS: Final = 308
#: How far from the nearest decimal one is looked for, in steps of what a double of so many digits can tell
#: apart.
_STEPS: Final = 12


def literal(number: float) -> str:
    """A JSON number for a finite double that is read back as it, by an exact reader and by Chroma's.

    Where no such decimal is found (it was for every number tried but some below 1e-290), the shortest one.
    """
    shortest = repr(number)
    magnitude = abs(number)
    mantissa, _, exponent = repr(magnitude).partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = int(whole + fraction)
    if as_read(digits, int(exponent or 0) - len(fraction)) == magnitude:
        return shortest
    exact = Fraction(magnitude)
    for power in _powers(exact):
        nearest = round(exact / Fraction(10) ** power)
        step = 1 << max(0, nearest.bit_length() - 54)
        for distance in range(_STEPS):
            for digits in {nearest + distance * step, nearest - distance * step}:
                if (
                    0 < digits <= _LARGEST
                    and as_read(digits, power) == magnitude
                    and float(f"{digits}e{power}") == magnitude
                ):
                    return f"{'-' if number < 0 else ''}{digits}e{power}"
    return shortest


def as_read(digits: int, power: int) -> float:
    """What Chroma's reader makes of `digits` times ten to `power`; infinity where it refuses."""
    if digits > _LARGEST:
        return math.inf
    value = float(digits)
    while abs(power) > _POWERS:
        if power > 0:
            return math.inf
        value /= 1e308
        power += _POWERS
    return value * float(f"1e{power}") if power >= 0 else value / float(f"1e{-power}")


def _powers(exact: Fraction) -> list[int]:
    """Powers of ten that leave 17, 18, 19 and 16 digits before the point."""
    size = math.floor(math.log10(exact)) if exact > Fraction(1, 10**300) else -320
    return [size - 16, size - 17, size - 18, size - 15]
