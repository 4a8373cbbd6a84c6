"""How a node is, decided from what is known of its parts: its state, why, and what is to be done; pure.

Alive, healthy, ready are three things. A node that answers is alive. It is *healthy* if its reads can be
trusted: it has a working Chroma, is in touch with a majority and lacks no entry that it could get from
nowhere. It is *ready* if, besides, it is caught up and every kind of request to it can succeed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.raft.interface import Lack, RaftStatus

_REPAIR: Final = "`chroma-cluster repair` fills it with a copy of another node's data; the rest serves on."
_VERIFIED_SOON: Final = "Wait: the leader compares it with the others, which takes no action."

State: TypeAlias = Literal[
    "ready",
    "failed",
    "stopping",
    "lacks entries",
    "not serving",
    "no majority",
    "no leader",
    "differs",
    "unverified",
    "catching up",
    "leader out of reach",
]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`reason` and `remedy` are None in state `ready` only. `lag` counts log entries, None: not known."""

    state: State
    healthy: bool
    ready: bool
    lag: int | None
    reason: str | None = None
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a part of the node says of itself that keeps the node from serving."""

    state: Literal["failed", "stopping", "not serving"]
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a node at one moment.

    `members` are the others' ids; `contact_limit_ms` is how old the last contact with a majority may be;
    `line` says why the leader cannot be reached over HTTP though it is over the log (None: it can).
    """

    raft: RaftStatus
    applied: int
    members: Sequence[str]
    contact_limit_ms: float
    trouble: Trouble | None = None
    line: str | None = None
    caught_up: bool = True
    behind_s: float = 0.0
    leader_url: str | None = None
    #: What a verification found wrong with this node's copy, and whether all of it is in doubt.
    differs: str | None = None
    differs_as_a_whole: bool = False
    doubts: str | None = None
    filling: str | None = None
    """How far it is with fetching a snapshot, in words."""


def lag_of(raft: RaftStatus, applied: int) -> int | None:
    """How many entries the leader has committed that are not applied here; None: no leader was heard."""
    if raft.leader_commit is None:
        return None
    return max(0, raft.leader_commit - applied, raft.commit_index - applied)


def diagnose(facts: Facts) -> Diagnosis:
    """The gravest state that holds: what no waiting mends, then what is broken here, then elsewhere."""
    raft, trouble = facts.raft, facts.trouble
    lag = lag_of(raft, facts.applied)
    if trouble is not None and trouble.state != "not serving":
        return Diagnosis(trouble.state, False, False, lag, trouble.reason, trouble.remedy)
    if raft.lacks is not None:
        return Diagnosis(
            "lacks entries", False, False, lag, lack_reason(raft.lacks, facts.filling), lack_remedy()
        )
    if trouble is not None:
        return Diagnosis(trouble.state, False, False, lag, trouble.reason, trouble.remedy)
    if raft.leader is None or raft.quorum_contact_ms > facts.contact_limit_ms:
        return _out_of_touch(facts, lag)
    if facts.differs is not None:
        healthy = not facts.differs_as_a_whole
        return Diagnosis("differs", healthy, False, lag, facts.differs, _REPAIR)
    if facts.doubts is not None:
        return Diagnosis("unverified", True, False, lag, facts.doubts, _VERIFIED_SOON)
    if not facts.caught_up:
        return Diagnosis("catching up", True, False, lag, *_behind(facts, lag))
    if facts.line is not None and raft.role != "leader":
        return Diagnosis("leader out of reach", True, False, lag, *_unheard_leader(facts))
    return Diagnosis("ready", True, True, lag)


def lack_reason(lack: Lack, filling: str | None) -> str:
    """Why a node that lacks entries does not serve, and how far it is with being filled."""
    return (
        f"It lacks log entries from {lack.needs} on; the others have compacted up to {lack.compacted}, "
        f"so it is filled with a snapshot of another node: {filling or 'it begins to look for a donor'}."
    )


def lack_remedy() -> str:
    """What an operator does about a node that lacks entries."""
    return (
        "Wait: it is filled by itself, and the other nodes serve meanwhile. If it says that no node can give "
        "a snapshot, mend what keeps them from it."
    )


def _out_of_touch(facts: Facts, lag: int | None) -> Diagnosis:
    raft = facts.raft
    reached = [member for member in facts.members if member in raft.connected]
    missed = [member for member in facts.members if member not in raft.connected]
    since = "since it started"
    if raft.quorum_contact_ms != float("inf"):
        since = f"for {max(0.0, raft.quorum_contact_ms) / 1000:.0f} s"
    links = f"it reaches {_names(reached)}, not {_names(missed)}" if missed else "it reaches all others"
    links += "".join(f"; {name}: {why}" for name, why in raft.refused.items() if name in missed)
    if 2 * (len(reached) + 1) <= len(facts.members) + 1:
        return Diagnosis(
            "no majority",
            False,
            False,
            lag,
            f"No contact with a majority {since}: {links}.",
            f"Start {_names(missed)}, or mend the network to the raft addresses; it goes on by itself then.",
        )
    return Diagnosis(
        "no leader",
        False,
        False,
        lag,
        f"No word of a leader {since}: {links}.",
        "An election takes some seconds. If it lasts, look at the reasons of the other nodes.",
    )


def _behind(facts: Facts, lag: int | None) -> tuple[str, str]:
    goal = (
        "what the leader has" if facts.raft.leader_commit is None else f"log entry {facts.raft.leader_commit}"
    )
    late = f", {facts.behind_s:.0f} s late" if facts.behind_s >= 1 else ""
    count = "an unknown number of entries" if lag is None else f"{lag} entries"
    return (
        f"It is {count} behind{late}: it has applied {facts.applied} and works towards {goal}.",
        "Wait: it catches up by itself. If the lag only grows, this machine is too slow for the writes.",
    )


def line_reason(leader: str | None, url: str | None, line: str) -> str:
    """Why writes to a follower fail that hears its leader over the log only."""
    return (
        f"It follows {leader} over the log, but cannot reach it over HTTP at {url} ({line}): writes and "
        "linearizable reads sent to this node fail."
    )


def _unheard_leader(facts: Facts) -> tuple[str, str]:
    leader, url = facts.raft.leader, facts.leader_url
    return (
        line_reason(leader, url, facts.line or ""),
        f"Let this node reach {url}, or correct that address in its `peers`. Meanwhile send writes to "
        f"{leader} or through the balancer.",
    )


def _names(members: Sequence[str]) -> str:
    return ", ".join(members) if members else "nobody"


@dataclass(slots=True)
class CatchingUp:
    """Whether a node has caught up, from looks at how far it and its leader are.

    When it comes (back) into touch, it has to apply all that the leader had committed then. From there on it
    counts as caught up while it applies within `bound_s` what the leader commits.
    """

    bound_s: float
    goal: int | None = None
    """What the leader had committed when this node came into touch; None: it is out of touch."""
    reached: bool = False
    _seen: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])
    """(moment, the leader's commit index then) of what is not applied yet; the indices rise."""

    def look(self, now: float, *, in_touch: bool, leader_commit: int | None, applied: int) -> None:
        """Take in how things are at `now` (seconds of a clock that never goes back)."""
        if not in_touch or leader_commit is None:
            self.goal, self.reached = None, False
            self._seen.clear()
            return
        if self.goal is None:
            self.goal = leader_commit
        self.reached = self.reached or applied >= self.goal
        if leader_commit > (self._seen[-1][1] if self._seen else applied) and leader_commit > applied:
            self._seen.append((now, leader_commit))
        while self._seen and self._seen[0][1] <= applied:
            self._seen.popleft()
        if len(self._seen) > _LOOKS:
            # Every second one, and never the first: the oldest of what is missing says how late this node is.
            self._seen = deque(list(self._seen)[::2])

    def behind_s(self, now: float) -> float:
        """For how long the oldest commit that is not applied here has been known; 0 if there is none."""
        return now - self._seen[0][0] if self._seen else 0.0

    def caught_up(self, now: float) -> bool:
        return self.reached and self.behind_s(now) <= self.bound_s


_LOOKS = 256
