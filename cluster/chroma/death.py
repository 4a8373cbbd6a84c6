"""Why a child process of the node ended, and what the calls that were under way in it are told; pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from cluster.errors import EngineDied, EngineUnavailable

if TYPE_CHECKING:
    from cluster.chroma.watchdog import Kill
    from cluster.errors import ClusterError

#: Sent from outside (an operator, the kernel when memory is out): no proof against a request.
_FROM_OUTSIDE: Final = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})

Kind: TypeAlias = Literal["crashed", "killed", "stopped", "hung", "slow", "asked"]


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended. `culprits` are the numbers of the calls that may be the cause."""

    kind: Kind
    how: str
    underway: frozenset[int]
    culprits: frozenset[int]

    def verdict(self, number: int) -> ClusterError | None:
        """What the call `number` fails with; None if the process had not begun with it."""
        if number not in self.underway:
            return None
        if number not in self.culprits:
            return EngineUnavailable(
                f"This node's Chroma process {self.how}, and this request was not the cause; it is being "
                "started again. Nothing was read or changed; ask again, or another node."
            )
        among = len(self.culprits)
        proven = among == 1 and self.kind in ("crashed", "hung", "slow")
        blame = "while it worked on this request" + ("" if among == 1 else f" and {among - 1} more")
        return EngineDied(
            f"This node's Chroma process {self.how} {blame}. It is being started again. This request was "
            "not tried on another node, and is refused for a while; nothing was changed by it.",
            proven=proven,
        )


def death_of(
    pid: int, returncode: int, underway: frozenset[int], kill: Kill | None, asked: str | None
) -> Death:
    """Judge the end of process `pid` with `returncode` (negative: a signal) while calls were under way.

    `kill` is the watchdog's order and `asked` the reason of a restart that was asked for, if that ended it.
    """
    if kill is not None:
        if kill.why == "stopped":
            how = f"{pid} was stopped by a signal for {kill.after_s:.1f} s and killed by the watchdog"
            return Death("stopped", how, underway, frozenset())
        if kill.why == "hung":
            how = f"{pid} did nothing for {kill.after_s:.1f} s (hung) and was killed by the watchdog"
        else:
            how = f"{pid} was killed by the watchdog after {kill.after_s:.0f} s of one read"
        return Death(kill.why, how, underway, kill.culprits & underway)
    if asked is not None:
        return Death("asked", f"{pid} was restarted ({asked})", underway, frozenset())
    if returncode >= 0:
        return Death("crashed", f"{pid} ended with exit code {returncode}", underway, underway)
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    if -returncode in _FROM_OUTSIDE:
        more = " (out of memory, or killed from outside)" if -returncode == signal.SIGKILL else ""
        return Death("killed", f"{pid} ended by {name}{more}", underway, underway)
    return Death("crashed", f"{pid} crashed with {name}", underway, underway)
