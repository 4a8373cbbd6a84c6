"""`chroma-cluster verify`: have all nodes compare what they have, and say who differs in what."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.error import HTTPError

from cluster.cli.overview import explain, prover_of
from wire import calls

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_ASK_S: Final = 10.0
_LOOK_S: Final = 0.3
#: How often a round is begun anew whose leader was replaced, and for how long nobody may answer.
_ROUNDS: Final = 3
_SILENT_S: Final = 20.0

SAME: Final = 0
DIFFERS: Final = 1
NOT_DONE: Final = 2


@dataclass(frozen=True, slots=True)
class Members:
    """Where nodes of one cluster are, and what proves that one may ask them."""

    urls: tuple[str, ...]
    secret: str

    def ask(self, path: str, body: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
        """The answer of the first node that gives one, or None and the reason of the last."""
        reason = "it has no nodes"
        for url in self.urls:
            answer, reason = post(url, path, body, self.secret)
            if answer is not None:
                return answer, ""
        return None, reason


def post(url: str, path: str, body: dict[str, Any], secret: str) -> tuple[dict[str, Any] | None, str]:
    """A node's JSON answer to a member's question, or None and why there is none."""
    data = json.dumps(body).encode()
    try:
        told: Any = json.loads(calls.ask(prover_of(secret), url.rstrip("/"), path, data, timeout_s=_ASK_S))
    except HTTPError as error:
        return None, f"{url}: {_message(error)}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return None, f"{url}: {explain(error)}"
    if not isinstance(told, dict):
        return None, f"{url}: its answer is none of a node"
    return cast("dict[str, Any]", told), ""


def _message(error: HTTPError) -> str:
    try:
        told: Any = json.loads(error.read())
        return str(told["message"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"HTTP status {error.code}"


def verify(members: Members, watch: Callable[[str], None]) -> dict[str, Any]:
    """The result of a round that begins now, or of the one under way; `watch` is told how far it is.

    Without one: `{"standing": "failed", "reason": ...}`.
    """
    reason = ""
    for _ in range(_ROUNDS):
        answer, reason = members.ask("/cluster/verify", {"start": True})
        running = None if answer is None else answer.get("running")
        if running is None:
            break
        result = _follow(members, str(running["round"]), watch)
        if result is not None:
            return result
        reason = "Leadership changed again and again before a round came to its end"
    return {"standing": "failed", "reason": reason or "No round was begun"}


def _follow(members: Members, round_id: str, watch: Callable[[str], None]) -> dict[str, Any] | None:
    """The result of this round; None: nobody knows it any more."""
    heard = time.monotonic()
    while True:
        time.sleep(_LOOK_S)
        answer, _ = members.ask("/cluster/verify", {"start": False})
        if answer is None:
            if time.monotonic() - heard > _SILENT_S:
                return None
            continue
        heard = time.monotonic()
        running, last = answer.get("running"), answer.get("last")
        if last is not None and last.get("round") == round_id:
            return cast("dict[str, Any]", last)
        if running is None or running.get("round") != round_id:
            return None
        watch(progress_line(running))


def progress_line(running: dict[str, Any]) -> str:
    """How far a round is, in a line."""
    nodes = ", ".join(
        f"{name} {one.get('records', 0):,} records" for name, one in sorted(running["progress"].items())
    )
    look = "" if running["look"] == 1 else "looking again at what differs: "
    return f"at log entry {running['index']}: {look}{nodes or 'waiting'}"


def exit_code(result: dict[str, Any]) -> int:
    """0: all nodes have the same; 1: something differs; 2: it could not be done, or not on every node."""
    return {"same": SAME, "differs": DIFFERS}.get(str(result["standing"]), NOT_DONE)


def lines(result: dict[str, Any]) -> list[str]:
    """The result as a person reads it."""
    if result["standing"] == "failed":
        return [f"Not verified: {str(result['reason']).rstrip('.')}. Nothing is known to differ."]
    told = [_headline(result)]
    told += [_finding(finding) for finding in result["findings"]]
    told += [f"{node} had no part in it: {why}" for node, why in sorted(result["not_compared"].items())]
    told += [
        f"collection {name} was not compared on {node}: {why}"
        for name, nodes in sorted(result["skipped"].items())
        for node, why in sorted(nodes.items())
    ]
    told += [
        f"warning: the index of collection {name} on {node} finds {found:,} of {asked:,} records by their "
        "own vectors, fewer than on the best node; the records are equal"
        for name, nodes in sorted(result["poor_indexes"].items())
        for node, (asked, found) in sorted(nodes.items())
    ]
    return told


def _headline(result: dict[str, Any]) -> str:
    what = f"{result['records']:,} records in {result['collections']:,} collections"
    what += f" at log entry {result['index']}"
    nodes = ", ".join(result["compared"])
    words = {
        "same": f"All the same: {what} on {nodes}.",
        "differs": f"Something differs: {what} on {nodes}.",
        "incomplete": f"No difference found, but not everything was compared: {what} on {nodes}.",
    }
    alone = " There is no other node to compare with." if len(result["compared"]) == 1 else ""
    return words[result["standing"]] + alone


def _finding(finding: dict[str, Any]) -> str:
    name = finding["collection"]
    what = "the node's own state" if name == "*" else f"collection {name}"
    parts = ", ".join(finding["parts"])
    line = f"{finding['node']} differs in {what}: {parts}"
    if finding["trouble"]:
        line += f" ({finding['trouble']})"
    if finding["undecided"]:
        line += "; no majority says which copy is right"
    count, records = finding["differing_records"], finding["records"]
    if count:
        named = [f"{record} ({', '.join(kinds)})" for record, kinds in records.items()]
        line += f"; {count:,} records: {', '.join(named)}{', ...' if count > len(records) else ''}"
    return line


def members_at(urls: Sequence[str], secret: str) -> Members:
    """The nodes at these URLs."""
    return Members(tuple(urls), secret)
