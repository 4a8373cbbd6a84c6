"""Headers of one connection stay on that connection."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from lb.budget import Budget
from lb.upstream import strip_hop_by_hop


@pytest.mark.parametrize(
    ("headers", "left"),
    [
        ([("Accept", "*/*"), ("Connection", "keep-alive")], ["Accept"]),
        ([("connection", "X-Mine, close"), ("X-Mine", "1"), ("X-Other", "2")], ["X-Other"]),
        ([("Transfer-Encoding", "chunked"), ("Content-Encoding", "gzip")], ["Content-Encoding"]),
        ([("TE", "trailers"), ("Upgrade", "h2c"), ("Keep-Alive", "timeout=5")], []),
    ],
)
def test_hop_by_hop_headers_are_removed(headers: list[tuple[str, str]], left: list[str]) -> None:
    values = CIMultiDict(headers)
    strip_hop_by_hop(values)
    assert list(values) == left


def test_the_budget_is_never_overdrawn_and_is_given_back() -> None:
    budget = Budget(10)
    assert budget.take(6)
    assert not budget.take(5)
    assert budget.used == 6
    assert budget.take(4)
    budget.give_back(6)
    assert budget.take(6)
