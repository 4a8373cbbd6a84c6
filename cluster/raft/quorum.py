"""What a majority makes true: the arithmetic of quorums, without any state."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_Value = TypeVar("_Value", int, float)


class VoteResult(Enum):
    """How an election stands, by the votes that are in."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def majority(members: int) -> int:
    """How many of `members` make a quorum: any two quorums share a member."""
    return members // 2 + 1


def reached(values: Iterable[_Value], quorum: int) -> _Value:
    """The highest value that `quorum` members have reached, given the value of each member.

    So the value is a fact about a quorum: each of that many members has it, or a higher one.

    Raises:
        ValueError: there are fewer members than the quorum needs.
    """
    ordered = sorted(values, reverse=True)
    if not 1 <= quorum <= len(ordered):
        raise ValueError(f"a quorum of {quorum} among {len(ordered)}")
    return ordered[quorum - 1]


def vote_result(votes: Mapping[str, bool], members: int, quorum: int) -> VoteResult:
    """How an election of `members` stands when `votes` says who granted (True) and who refused so far."""
    granted = sum(votes.values())
    if granted >= quorum:
        return VoteResult.WON
    refused = len(votes) - granted
    return VoteResult.LOST if members - refused < quorum else VoteResult.PENDING
