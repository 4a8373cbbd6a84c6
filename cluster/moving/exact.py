"""Numbers in metadata, so that they are read back as the same number; pure.

Chroma reads a JSON number by multiplying its digits with a power of ten in double precision, which rounds
twice: it may miss the nearest double by one unit in the last place. It does so when a request comes (a
cluster's nodes read exactly), and once more for metadata of records, which it writes to its log as JSON, with
the fewest digits that tell a double from others.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Final

#: The reader takes digits as long as they fit 64 bits, and has a table of powers up to this one.
_LARGEST: Final = 2**64 - 1
_POWERS: Final = 308
#: How far from the nearest decimal one is looked for, in steps of what a double of so many digits can tell
#: apart; and from a double another one, in units in the last place.
_STEPS: Final = 12
_AWAY: Final = 8


def literal(number: float) -> str:
    """A JSON number for a finite double that is read as it, by an exact reader and by Chroma's.

    Many decimals stand for one double. Where none is found for both (it was for every number tried but some
    below 1e-290), the shortest one.
    """
    if through_log(number) == number:
        return repr(number)
    exact = Fraction(abs(number))
    for power in _powers(exact):
        nearest = round(exact / Fraction(10) ** power)
        step = 1 << max(0, nearest.bit_length() - 54)
        for distance in range(_STEPS):
            for digits in (nearest + distance * step, nearest - distance * step):
                is_read = 0 < digits <= _LARGEST and _as_read(digits, power) == abs(number)
                if is_read and float(f"{digits}e{power}") == abs(number):
                    return f"{'-' if number < 0 else ''}{digits}e{power}"
    return repr(number)


def to_write(number: float) -> float | None:
    """The number to write into a record's metadata so that this one is kept; None if there is none.

    There is one for every number that a Chroma of 1.x kept: mostly itself.
    """
    up = down = number
    for _ in range(_AWAY):
        for candidate in (up, down):
            if through_log(candidate) == number:
                return candidate
        up, down = math.nextafter(up, math.inf), math.nextafter(down, -math.inf)
    return None


def through_log(number: float) -> float:
    """What Chroma makes of a number in its log."""
    mantissa, _, exponent = repr(abs(number)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    return math.copysign(_as_read(int(whole + fraction), int(exponent or 0) - len(fraction)), number)


def _as_read(digits: int, power: int) -> float:
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
