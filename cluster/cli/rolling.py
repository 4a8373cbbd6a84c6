"""`chroma-cluster restart --rolling`: each node stopped and started again, one after the other, under load.

The cluster answers all the while: one node at a time is away, the leader is the last and hands leadership
over before it stops, and nothing goes on before the node that was restarted has caught up and the balancer
sends it requests again. The balancer itself is left alone: a client's connection would end with it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cluster.cli.errors import StartError
from cluster.cli.interrupts import Interrupts
from cluster.cli.locks import exclusive
from cluster.cli.messages import plain_console
from cluster.cli.overview import look
from cluster.cli.serving import why_unready
from cluster.cli.supervisor import Supervisor
from cluster.cli.verifying import lines, members_at, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from cluster.cli.layout import DataDirectory
    from cluster.cli.overview import Overview
    from cluster.cli.plan import ClusterPlan
    from cluster.cli.verifying import Members

#: Below it the others are no majority while one node is away.
QUORUM_SURVIVES_FROM: Final = 3
_POLL_S: Final = 0.1


def next_node(overview: Overview, done: Collection[str]) -> str | None:
    """Who is to be restarted next: a follower if there is one left, the leader last; None: all are done."""
    left = [node.id for node in overview.nodes if node.id not in done]
    followers = [node_id for node_id in left if node_id != overview.leader]
    return next(iter(followers or left), None)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why no node may be taken away at this moment; `passes`: it may be over soon."""

    text: str
    passes: bool = True


def obstacle(overview: Overview) -> Obstacle | None:
    """None if there are a leader, a balancer that uses every node, and every node is ready."""
    for node in overview.nodes:
        if node.pid is None or node.is_beyond_waiting:
            return Obstacle(f"{node.id} is not ready: {why_unready(node)}", passes=False)
    if overview.balancer.pid is None:
        return Obstacle(f"the balancer is not healthy: {overview.balancer.reason}", passes=False)
    if overview.leader is None:
        return Obstacle("no node leads")
    if not overview.balancer.healthy:
        return Obstacle(f"the balancer is not healthy: {overview.balancer.reason}")
    for node in overview.nodes:
        if not node.ready:
            return Obstacle(f"{node.id} is not ready: {why_unready(node)}")
        if not overview.balancer.nodes.get(node.id, False) or node.id in overview.balancer.not_used:
            said = overview.balancer.not_used.get(node.id, "it has not heard it yet")
            return Obstacle(f"the balancer does not use {node.id}: {said}")
    return None


def restart_rolling(directory: DataDirectory, plan: ClusterPlan, *, timeout_s: float) -> int:
    """Restart every node; the exit code: 0 all were and are ready, 130 it was interrupted between two nodes.

    Each node has `timeout_s` to be ready again.

    Raises:
        StartError: the cluster was not ready (nothing was restarted), or a node did not become ready again
            (those after it were left alone).
    """
    supervisor = Supervisor(directory, plan)
    directory.prepare()
    interrupts = Interrupts()
    with interrupts.installed(), exclusive(directory):
        return roll(supervisor, interrupts, timeout_s, plain_console().print)


def roll(supervisor: Supervisor, interrupts: Interrupts, timeout_s: float, say: Callable[[str], None]) -> int:
    """What `restart_rolling` does, once nobody else starts or stops these processes; `say` is told of each.

    Raises:
        StartError: as there.
    """
    directory, plan = supervisor.directory, supervisor.plan
    _require_ready(directory, plan, timeout_s)
    if len(plan.nodes) < QUORUM_SURVIVES_FROM:
        say(f"A cluster of {len(plan.nodes)} has no majority while a node is away: writes wait meanwhile.")
    done: list[str] = []
    while (name := next_node(before := look(directory, plan), done)) is not None:
        if interrupts.asked():
            say(f"Interrupted. Restarted: {_listed(done)}; the others were left alone.")
            return 130
        began = time.monotonic()
        supervisor.stop([name])
        supervisor.check([name])
        supervisor.start([name])
        failure = _wait(lambda: _trouble(supervisor), timeout_s, interrupts.hurried)
        if failure is not None:
            why = failure.rstrip(".")
            raise StartError(
                f"{name} was restarted and is not back: {why}. Restarted before it: {_listed(done)}. "
                f"The others were left alone. Mend {name} (its log is {directory.log_file(name)}), then "
                "give the same command again."
            )
        done.append(name)
        say(f"restarted {name} ({time.monotonic() - began:.1f} s until it had caught up)")
        if build_of(before, name) != build_of(look(directory, plan), name):
            _compare(members_at([node.url for node in plan.nodes], plan.secret), name, done, say)
    say(f"All {len(done)} nodes were restarted, one after the other.")
    return 0


def build_of(overview: Overview, name: str) -> tuple[int, int] | None:
    """The command levels that a node's build understands; None: it is from before levels, or is away."""
    levels = [node.level for node in overview.nodes if node.id == name]
    return next(((level["oldest"], level["newest"]) for level in levels if level), None)


def _compare(members: Members, name: str, done: list[str], say: Callable[[str], None]) -> None:
    """Have all nodes compare what they have, as one of them has another build now.

    Raises:
        StartError: something differs.
    """
    result = verify(members, lambda line: None)
    told = " ".join(lines(result))
    if result["standing"] == "differs":
        raise StartError(
            f"{name} was restarted with another build, and then the nodes were compared. {told} Restarted: "
            f"{_listed(done)}; the others were left alone. `chroma-cluster repair` fills a node that differs."
        )
    say(f"{name} has another build than before. {told}")


def _require_ready(directory: DataDirectory, plan: ClusterPlan, timeout_s: float) -> None:
    """A node that is just catching up is waited for; another fault has to be mended before."""
    failure = _wait(lambda: obstacle(look(directory, plan)), min(timeout_s, 10.0), lambda: False)
    if failure is not None:
        raise StartError(
            f"Nothing was restarted: {failure.rstrip('.')}. With one more node away the cluster might not "
            f"answer. Look with `chroma-cluster status --data {directory.root}`; `chroma-cluster up` starts "
            "what is missing."
        )


def _trouble(supervisor: Supervisor) -> Obstacle | None:
    deaths = supervisor.deaths()
    if deaths:
        return Obstacle(str(deaths[0]), passes=False)
    return obstacle(look(supervisor.directory, supervisor.plan))


def _wait(
    trouble: Callable[[], Obstacle | None], timeout_s: float, hurried: Callable[[], bool]
) -> str | None:
    """None as soon as there is no trouble; else what it is, when it does not pass or at the deadline."""
    deadline = time.monotonic() + timeout_s
    while (found := trouble()) is not None:
        if not found.passes or time.monotonic() > deadline or hurried():
            return found.text
        time.sleep(_POLL_S)
    return None


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"
