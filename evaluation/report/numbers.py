"""How numbers are written: short, with units, never prettier than they are. Pure."""

from __future__ import annotations

NEVER = float("inf")
#: A missing number is a dash, never a zero.
MISSING = "\N{EN DASH}"


def whole(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.0f}"


def percent(value: float | None) -> str:
    """Never rounded up to 100 %: a gap must show."""
    if value is None:
        return MISSING
    hundredfold = value * 100
    if 99.95 <= hundredfold < 100:
        return "99.9 %"
    text = f"{hundredfold:.1f}".removesuffix(".0")
    return f"{text} %"


def duration(ms: float | None) -> str:
    if ms is None:
        return MISSING
    if ms == NEVER:
        return "never"
    if ms >= 9_950:
        return f"{ms / 1000:.0f} s"
    if ms >= 995:
        return f"{ms / 1000:.1f} s"
    return f"{ms:.0f} ms" if ms >= 9.95 else f"{ms:.1f} ms"


def size(bytes_: float | None) -> str:
    if bytes_ is None:
        return MISSING
    for unit in ("B", "KiB", "MiB"):
        if abs(bytes_) < 1024:
            return f"{bytes_:.0f} {unit}" if unit == "B" or abs(bytes_) >= 9.95 else f"{bytes_:.1f} {unit}"
        bytes_ /= 1024
    return f"{bytes_:.1f} GiB"


def significant(value: float | None) -> str:
    """Three digits are more than such measurements hold."""
    if value is None:
        return MISSING
    if abs(value) >= 1000:
        return f"{round(value, -1):,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"


def ratio(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2f} x"
