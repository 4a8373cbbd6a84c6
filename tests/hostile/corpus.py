"""The corpus of hostile requests: every case, always the same ones in the same order; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.hostile import bodies, filters, ours, quantities, settings, strings, wire

if TYPE_CHECKING:
    from tests.hostile.case import Case, Quantity

#: Every table of quantities.
TABLES: Final[tuple[Quantity, ...]] = (*quantities.QUANTITIES, *filters.QUANTITIES)


def cases() -> list[Case]:
    """All cases."""
    found = [case for quantity in quantities.QUANTITIES for case in quantity.cases("quantities")]
    for part in (strings, filters, settings, bodies, wire, ours):
        found += part.cases()
    return found


def chosen(only: str) -> list[Case]:
    """The cases whose id contains `only`; with commas, any of several."""
    return [case for case in cases() if any(part in case.id for part in only.split(","))]
