"""Waits until a cluster that is being started answers writes and is ready, or cannot be any more."""

from __future__ import annotations

import time
import urllib.request
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.error import HTTPError

from cluster.cli import overview
from cluster.cli.plan import BALANCER

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.cli.children import Death
    from cluster.cli.overview import NodeView
    from cluster.cli.processes import Identity
    from cluster.cli.supervisor import Supervisor

PROBE_TIMEOUT_S: Final = 2.0
POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class StartOutcome:
    """How a start went: does the cluster answer writes, which processes died, what it last answered, which of
    the nodes that were started are not ready (with the reason)."""

    answers: bool
    deaths: tuple[Death, ...] = ()
    reason: str | None = None
    hopeless: bool = False
    unready: tuple[str, ...] = ()


def wait_until_serving(
    supervisor: Supervisor,
    *,
    timeout_s: float,
    interrupted: Callable[[], bool],
    probe: Callable[[str, str], str | None] | None = None,
) -> StartOutcome:
    """Wait until the cluster answers a write and every process just started is ready or dead.

    Ends early when too few processes are left to answer a write, when those that are not ready say that
    waiting does not help, or when `interrupted()`.
    """
    write = probe or answers_a_write
    deadline = time.monotonic() + timeout_s
    key = f"up-{uuid.uuid4()}"  # one key: however often it is tried, it is one write
    reason: str | None = "not asked yet"
    started = [name for name in supervisor.children if name != BALANCER]
    unready: dict[str, NodeView] = {}
    while not interrupted():
        if reason is not None:
            reason = write(supervisor.plan.url, key)
        deaths = supervisor.deaths()
        dead = {death.name for death in deaths}
        unready = _unready(supervisor, [name for name in started if name not in dead])
        told = tuple(f"{name}: {why_unready(view)}" for name, view in unready.items())
        if reason is None and all(view.is_beyond_waiting for view in unready.values()):
            return StartOutcome(True, deaths, unready=told)
        if reason is not None and not could_serve(supervisor.running(), len(supervisor.plan.nodes)):
            return StartOutcome(False, deaths, reason, hopeless=True)
        if time.monotonic() > deadline:
            return StartOutcome(reason is None, deaths, reason, unready=told)
        time.sleep(POLL_S)
    return StartOutcome(False, supervisor.deaths(), "interrupted")


def _unready(supervisor: Supervisor, names: list[str]) -> dict[str, NodeView]:
    """Those of the nodes that are not ready now."""
    seen = {name: overview.look_at_node(supervisor.directory, supervisor.plan, name) for name in names}
    return {name: view for name, view in seen.items() if not view.ready}


def why_unready(view: NodeView) -> str:
    """Why a node is not ready, and what is to be done about it."""
    return " ".join(filter(None, (view.reason or "it gives no reason", view.remedy)))


def could_serve(there: dict[str, Identity], nodes: int) -> bool:
    """Do enough processes run to answer a write: the balancer and a majority of the nodes?"""
    return BALANCER in there and len([name for name in there if name != BALANCER]) > nodes // 2


def answers_a_write(url: str, key: str) -> str | None:
    """None if a write through the balancer went through the log, else why not.

    The write is one that no user can see: it sets a field of the default tenant that no answer shows.
    """
    request = urllib.request.Request(
        f"{url}/api/v2/tenants/default_tenant",
        data=b'{"resource_name": "default_tenant"}',
        headers={"Content-Type": "application/json", "Idempotency-Key": key},
        method="PATCH",
    )
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            request, timeout=PROBE_TIMEOUT_S
        ) as answer:
            answer.read()
    except HTTPError as error:
        with error:
            text = error.read(2_000).decode(errors="replace")
        return f"a write was answered with {error.code}: {text}"
    except (OSError, ValueError) as error:
        return f"a write got no answer: {overview.explain(error)}"
    return None
