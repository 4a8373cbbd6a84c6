"""The quantile is always one of the values: the smallest that enough of them do not exceed."""

from __future__ import annotations

import pytest

from evaluation.quantiles import quantile, rounded_quantile

HUNDRED = [float(number) for number in range(100, 0, -1)]


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.5, None),
        ([7.0], 0.0, 7.0),
        ([7.0], 0.5, 7.0),
        ([7.0], 1.0, 7.0),
        ([3.0, 1.0, 2.0, 4.0], 0.5, 2.0),
        ([3.0, 1.0, 2.0, 4.0], 0.51, 3.0),
        (HUNDRED, 0.5, 50.0),
        (HUNDRED, 0.99, 99.0),
        (HUNDRED, 1.0, 100.0),
        (HUNDRED, 1.5, 100.0),
    ],
)
def test_quantile(values: list[float], share: float, expected: float | None) -> None:
    assert quantile(values, share) == expected


def test_only_the_rounded_one_rounds() -> None:
    assert quantile([1.23456], 0.5) == 1.23456
    assert rounded_quantile([1.23456], 0.5) == 1.235
    assert rounded_quantile([], 0.5) is None
