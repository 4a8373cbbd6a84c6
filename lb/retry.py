"""Which failure may be tried where: generators that yield what to do and are sent what came of it.

The shell (`lb.proxy`) does the sending and the waiting; these generators only decide. They yield
`Send` or `Hold`, are sent an `Event`, and return an `Ending`. Time is in seconds of one monotonic
clock and arrives in the events.

The deadline bounds *holding*: after it nothing is held, and no write is sent again. An attempt that
is under way at a node in good health may end after it.

A write is resent only under its Idempotency-Key, the same in all attempts, so that a first attempt
that did take effect is recognised. What is known about it is kept honest: as long as no attempt
could have been applied, the last word is 503, nothing was changed (429 is for full queues only:
clients show it as a limit on their rate); from the first ambiguous attempt on it is 504, with
"outcome unknown" in its message.

A node that forwards a write has a policy of its own, in the same language: `cluster.api.retry` says
how it differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Generator

# What the generator asks for


@dataclass(frozen=True, slots=True)
class Send:
    """Try it: a read at some node that is not in `avoid`, a write at the leader."""

    avoid: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Hold:
    """Wait until the ring changes, at most `wait_s`."""

    wait_s: float


Action: TypeAlias = Send | Hold

# What came of it


@dataclass(frozen=True, slots=True)
class Answered:
    """The node gave a whole answer. `error` is the name in its body, for statuses from 429 on."""

    now: float
    node_id: str
    status: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class NotSent:
    """No byte of the request reached the node: the connection was refused or never made."""

    now: float
    node_id: str


@dataclass(frozen=True, slots=True)
class Broken:
    """The request was (perhaps partly) sent, and no whole answer came: broken, too slow, ejected."""

    now: float
    node_id: str


@dataclass(frozen=True, slots=True)
class NoNode:
    """There was nobody to send it to."""

    now: float


@dataclass(frozen=True, slots=True)
class Woken:
    """The hold is over."""

    now: float


Event: TypeAlias = Answered | NotSent | Broken | NoNode | Woken

# How it ends


@dataclass(frozen=True, slots=True)
class Relay:
    """Give the client the node's last answer. `doubtful` failed where another node did not: tell it so."""

    doubtful: str | None = None


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Answer the client in the balancer's own words."""

    status: int
    error: str
    message: str


Ending: TypeAlias = Relay | GiveUp

#: Errors of a node that say: surely nothing changed here.
_NOTHING_CHANGED: Final = frozenset({"NotLeaderError", "UnavailableError"})

#: Statuses of a node that another node, or the same one later, may do better at.
_PASSING: Final = frozenset({502, 503, 504})

#: The leader's word that it took nothing this time: its queue, or a disk, is full. It is no word about an
#: earlier attempt.
_NO_PLACE: Final = frozenset({429, 507})

#: Errors of a read that took a node's engine down, or did a moment ago: it is tried nowhere else.
_DEADLY: Final = frozenset({"EngineDiedError", "QuarantinedError"})

_FIRST_PAUSE_S: Final = 0.025
_LONGEST_PAUSE_S: Final = 0.2


def reading(deadline: float, hold_s: float) -> Generator[Action, Event, Ending]:
    """A read: on another node at once after any failure, then again after a pause, until `deadline`.

    A node that was not tried yet is tried even after the deadline: that is not holding. What one node
    answers with 500 is asked of one other node, once: its copy may be damaged.
    """
    failed: str | None = None
    avoid: frozenset[str] = frozenset()
    pause_s = _FIRST_PAUSE_S
    answered = False
    while True:
        event = yield Send(avoid)
        match event:
            case Answered(_, node_id, 500, error) if error not in _DEADLY and failed is None:
                answered = True
                failed = node_id
                avoid |= {node_id}
            case Answered(now, node_id, status):
                answered = True
                # 429 is one node's full queue; another may have room.
                if status not in _PASSING and status != 429:
                    return Relay(failed if status < 500 and failed != node_id else None)
                avoid |= {node_id}
            case NotSent(now, node_id) | Broken(now, node_id):
                answered = False
                avoid |= {node_id}
            case NoNode() if failed is not None and answered:
                return Relay()  # nobody else could be asked
            case NoNode(now) | Woken(now):
                if now >= deadline:
                    return Relay() if answered else _no_node(now - deadline + hold_s)
                yield Hold(min(deadline - now, pause_s if avoid else _LONGEST_PAUSE_S))
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                avoid = frozenset()


def writing(deadline: float, hold_s: float) -> Generator[Action, Event, Ending]:
    """A write with its Idempotency-Key: at the leader, held while there is none, until `deadline`."""
    unknown = False
    pause_s = _FIRST_PAUSE_S
    while True:
        event = yield Send()
        match event:
            case Answered(now, _, status, error):
                if status in _NO_PLACE:
                    if not unknown:
                        return Relay()
                elif status not in _PASSING:
                    return Relay()
                elif error not in _NOTHING_CHANGED:
                    unknown = True
            case Broken(now, _):
                unknown = True
            case NotSent(now, _) | NoNode(now) | Woken(now):
                pass
        if now >= deadline:
            waited_s = now - deadline + hold_s
            return _outcome_unknown(waited_s) if unknown else _not_applied(waited_s)
        if isinstance(event, NoNode):
            # Nobody to press: the ring's next change ends the hold, and then it goes at full speed.
            yield Hold(deadline - now)
            pause_s = _FIRST_PAUSE_S
        else:
            yield Hold(min(deadline - now, pause_s))
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def attempts(
    kind: Literal["read", "write"], deadline: float, hold_s: float
) -> Generator[Action, Event, Ending]:
    """The generator for a request of that kind."""
    return reading(deadline, hold_s) if kind == "read" else writing(deadline, hold_s)


def _no_node(waited_s: float) -> GiveUp:
    return GiveUp(
        503,
        "UnavailableError",
        f"No healthy node could serve this read within {waited_s:.3g} s. Nothing was changed; try again, "
        "and let an operator see what each node says (`chroma-cluster status`).",
    )


def _not_applied(waited_s: float) -> GiveUp:
    return GiveUp(
        503,
        "UnavailableError",
        f"No leader took this write within {waited_s:.3g} s: it was surely not applied. Nothing was changed; "
        "send it again later, and let an operator see what each node says (`chroma-cluster status`).",
    )


def _outcome_unknown(waited_s: float) -> GiveUp:
    return GiveUp(
        504,
        "OutcomeUnknownError",
        f"The write was sent, but no node told its fate within {waited_s:.3g} s: outcome unknown, it may or "
        "may not have taken effect. Send it again with the same Idempotency-Key to learn its outcome.",
    )
