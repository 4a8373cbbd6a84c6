"""`chroma-cluster repair`: fill the nodes that differ with a copy of one that is right, one by one."""

from __future__ import annotations

import time
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from cluster.cli.messages import fail
from cluster.cli.overview import ask
from cluster.cli.verifying import NOT_DONE, post

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cluster.cli.plan import ClusterPlan

_LOOK_S: Final = 0.3
_DEFAULT: Final = "tenants/default_tenant/databases/default_database"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be repaired: `node` (None: all that are known to differ), for the sake of one `collection`
    (its name in the default database, or its id; None: of any), from `donor` (None: one that is right)."""

    node: str | None = None
    collection: str | None = None
    donor: str | None = None


def repair(plan: ClusterPlan, order: Order, timeout_s: float, say: Callable[[str], None]) -> bool:
    """Whether there was something to repair; all of it is done then.

    Raises:
        SystemExit: 2, it could not be done, with the reason on stderr; what was not begun is as it was.
    """
    urls = {node.id: node.url for node in plan.nodes}
    for name in (order.node, order.donor):
        if name is not None and name not in urls:
            fail(f"There is no node {name}. Nothing was done. Nodes: {', '.join(urls)}.", NOT_DONE)
    if order.donor is not None and order.donor == order.node:
        fail(f"{order.node} cannot be repaired from itself. Nothing was done.", NOT_DONE)
    statuses = {name: _status(url, plan.secret) for name, url in urls.items()}
    targets = _targets(order, urls, statuses, plan.secret)
    if not targets:
        return False
    silent = [name for name in targets if statuses[name] is None]
    if silent:
        fail(
            f"{', '.join(silent)} does not answer. Nothing was done. Start it with `chroma-cluster up`, then "
            "repair it.",
            NOT_DONE,
        )
    if order.donor is not None:
        _, trouble = post(urls[order.donor], "/cluster/repair", {"trust": True}, plan.secret)
        if trouble:
            fail(f"Not repaired: {trouble} Nothing was done.", NOT_DONE)
    for name in targets:
        _repair_node(name, urls[name], plan, order, timeout_s, say)
    return True


def _targets(
    order: Order, urls: Mapping[str, str], statuses: Mapping[str, dict[str, Any] | None], secret: str
) -> list[str]:
    alarms = {name: _alarms(status) for name, status in statuses.items()}
    if order.collection is not None:
        wanted = {_collection_id(order.collection, urls, secret), "*"}
        alarms = {name: told & wanted for name, told in alarms.items()}
    if order.node is not None:
        return [order.node] if order.collection is None or alarms[order.node] else []
    return [name for name, told in alarms.items() if told and name != order.donor]


def _alarms(status: dict[str, Any] | None) -> set[str]:
    """The collections of which a node says that its copy differs."""
    told: Any = None if status is None else status.get("alarms")
    return set(cast("dict[str, Any]", told)) if isinstance(told, dict) else set()


def _collection_id(name: str, urls: Mapping[str, str], secret: str) -> str:
    """The id of a collection of the default database; what is no name there may be an id."""
    for url in urls.values():
        target = f"/api/v2/{_DEFAULT}/collections/{urllib.parse.quote(name, safe='')}"
        found, _ = ask(url, secret, target)
        if isinstance(found, dict) and "id" in found:
            return str(cast("dict[str, Any]", found)["id"])
    return name


def _repair_node(
    name: str, url: str, plan: ClusterPlan, order: Order, timeout_s: float, say: Callable[[str], None]
) -> None:
    before = (_status(url, plan.secret) or {}).get("started_at")
    body = {"from": order.donor, "reason": "an operator asked for it"}
    answer, trouble = post(url, "/cluster/repair", body, plan.secret)
    if answer is None:
        fail(f"{name} is not repaired: {trouble}", NOT_DONE)
    say(f"{name} is filled, as a whole, with a copy of {answer['donor']}'s data; the others serve on.")
    until = time.monotonic() + timeout_s
    why = ""
    while time.monotonic() < until:
        time.sleep(_LOOK_S)
        status = _status(url, plan.secret)
        if status is None or status.get("started_at") == before or status.get("filling"):
            continue
        why = f" ({status.get('reason')})" if status.get("reason") else ""
        if status.get("alarms"):
            fail(f"{name} was filled, and differs again{why}. Look at its disk and memory.", NOT_DONE)
        if status.get("ready"):
            say(f"{name} is repaired and ready.")
            return
    fail(
        f"{name} is not ready after {timeout_s:g} s{why}. It goes on by itself; look with `status`.", NOT_DONE
    )


def _status(url: str, secret: str) -> dict[str, Any] | None:
    answer, _ = ask(url, secret)
    return cast("dict[str, Any]", answer) if isinstance(answer, dict) else None
