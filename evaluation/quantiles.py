"""The one definition of a quantile that the evaluation's numbers go by. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest of `values` that at least `share` (0 to 1) of them do not exceed; None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    rank = math.ceil(share * len(ordered))
    return ordered[max(1, min(rank, len(ordered))) - 1]


def rounded_quantile(values: Sequence[float], share: float) -> float | None:
    """The same to three decimals: results are files that people read and compare."""
    found = quantile(values, share)
    return None if found is None else round(found, 3)
