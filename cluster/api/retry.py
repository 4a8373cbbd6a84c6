"""Whether a write that a follower brings to the leader is sent again: a generator that only decides; pure.

The shell (`cluster.api.forward`) does the sending and the waiting. The generator yields `Send` or
`Hold`, is sent an `Event`, and returns an `Ending`. Time is in seconds of one monotonic clock and
arrives in the events.

The write has one Idempotency-Key in all attempts. What is known about it is kept honest: after an
attempt that may have been applied, no later failure is passed on as "nothing was changed".

The balancer's policy for writes (`lb.retry`) speaks the same language and is another one:

- It has one deadline. A node gives each new leader `HOLD_S` of its own, because its client counts
  on this node alone and the one that failed may have taken all the time there was.
- It hears of elections at once, so it waits for news. A node looks again after a pause.
- Its attempts are cut off by its status streams. A node's end when another node comes to lead, and
  without a known successor there is nothing left to learn: that is the end.
- It ends in words of its own (429). A node passes on the last answer, or says who leads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from cluster.errors import NoRoom, NotLeader, Overloaded, Unavailable

if TYPE_CHECKING:
    from collections.abc import Generator

#: How long a write is sent again or held after its leader failed it: elections take less.
HOLD_S: Final = 5.0

_FIRST_PAUSE_S: Final = 0.025
_LONGEST_PAUSE_S: Final = 0.2

#: Statuses of a node that its successor, or the same node later, may do better at.
PASSING: Final = frozenset({Overloaded.status, NoRoom.status, 502, 503, 504})
#: Errors of a node that say: surely nothing changed by this attempt.
_NOTHING_CHANGED: Final = frozenset({Overloaded.error, NoRoom.error, NotLeader.error, Unavailable.error})

# What the generator asks for


@dataclass(frozen=True, slots=True)
class Send:
    """Send it to `leader` (None: nobody is known), and await the answer no longer than `until`, if given."""

    leader: str | None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """Wait, then look who leads."""

    wait_s: float


Action: TypeAlias = Send | Hold

# What came of it


@dataclass(frozen=True, slots=True)
class Answered:
    """A whole answer, of the leader or of this node itself. `error` is the name in a failure's body."""

    now: float
    status: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class NotSent:
    """No byte of the request reached the leader, or none is known."""

    now: float


@dataclass(frozen=True, slots=True)
class Broken:
    """The request was (perhaps partly) sent, and no whole answer came."""

    now: float


@dataclass(frozen=True, slots=True)
class Deposed:
    """The request was sent, and while its answer was awaited `successor` came to lead, or nobody."""

    now: float
    successor: str | None


@dataclass(frozen=True, slots=True)
class Late:
    """No answer by the time that `Send` gave."""

    now: float


@dataclass(frozen=True, slots=True)
class Woken:
    """The pause is over, and `leader` leads now."""

    now: float
    leader: str | None


Event: TypeAlias = Answered | NotSent | Broken | Deposed | Late | Woken

# How it ends


@dataclass(frozen=True, slots=True)
class Relay:
    """The last answer is the client's."""


@dataclass(frozen=True, slots=True)
class NotReached:
    """Surely nothing was sent to anybody who could apply it; `leader` was tried last."""

    leader: str | None


@dataclass(frozen=True, slots=True)
class FateUnknown:
    """It may have been applied, and nobody told."""


Ending: TypeAlias = Relay | NotReached | FateUnknown


def forwarding(now: float, leader: str | None) -> Generator[Action, Event, Ending]:
    """A write with its Idempotency-Key that begins at `now`, when `leader` leads."""
    until = now + HOLD_S
    unknown = False
    broke_off: str | None = None
    pause_s = _FIRST_PAUSE_S
    while True:
        # Where a connection just broke, the next may hang: it is not worth the whole time again.
        distrusted = leader is not None and leader == broke_off
        event = yield Send(leader, until if distrusted else None)
        ending: Ending = NotReached(leader)
        full = False
        match event:
            case Answered(_, status, error):
                if status not in PASSING:
                    return Relay()
                ending = Relay()
                # A full queue or disk is the leader's answer, unless an earlier attempt may be in the log.
                full = status in (Overloaded.status, NoRoom.status)
                unknown = unknown or error not in _NOTHING_CHANGED
            case Deposed(now, successor):
                unknown = True
                if successor is None:
                    return FateUnknown()
                # However long the old leader took, the new one gets its chance.
                until = now + HOLD_S
            case Broken(now):
                unknown = True
                if leader != broke_off:
                    until = now + HOLD_S
                broke_off = leader
            case NotSent() | Late() | Woken():
                pass
        if event.now >= until or (full and not unknown):
            return FateUnknown() if unknown else ending
        event = yield Hold(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        if isinstance(event, Woken):
            leader = event.leader
