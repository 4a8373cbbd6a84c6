"""`chroma-cluster members`: who belongs to a cluster, and the changes of that, one at a time."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.error import HTTPError

from cluster.cli.overview import prover_of
from cluster.errors import ClusterError
from wire import calls

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PATH: Final = "/cluster/members"
_ASK_S: Final = 15.0
_AGAIN_S: Final = 0.5
_MOST_BYTES: Final = 1 << 20


class MembersError(ClusterError):
    """It did not work; the text is a member's, or says that none answers."""


@dataclass(frozen=True, slots=True)
class Members:
    """A cluster by the URLs of some of its members; `secret` proves that its operator asks."""

    urls: Sequence[str]
    secret: str = ""
    send: Callable[[str, bytes | None], tuple[int, bytes]] | None = None

    def listing(self) -> dict[str, Any]:
        """What the leader says of the members; another one's word where the leader does not answer."""
        first = self._said(self.urls, None)
        leader = next((it for it in first["members"] if it["leads"] and it["http"]), None)
        if leader is None:
            return first
        try:
            return self._said([leader["http"]], None)
        except MembersError:
            return first

    def change(self, operation: str, **texts: str) -> dict[str, Any]:
        """Ask for one change.

        Raises:
            MembersError: it was refused, or its outcome is not known; the text says which.
        """
        return self._said(self.urls, {"operation": operation, **texts})

    def promote_when_ready(self, node_id: str, patience_s: float) -> dict[str, Any]:
        """Ask again and again until the learner has caught up."""
        return self._until_done(lambda: self.change("promote", id=node_id), patience_s)

    def admit(self, node_id: str, patience_s: float) -> dict[str, Any]:
        """Let the journal that runs under this id be the member, and wait until it has its vote.

        Raises:
            MembersError: it was refused; or (504) it is admitted and does not hold everything yet.
        """
        answer = self._until_done(lambda: self.change("admit", id=node_id), patience_s)
        deadline = time.monotonic() + patience_s
        while not any(it["id"] == node_id and it["has_vote"] for it in self.listing()["members"]):
            if time.monotonic() >= deadline:
                raise _error(
                    504,
                    f"{node_id} is admitted and does not hold everything yet; it votes as soon as it does. "
                    "Look with `chroma-cluster members list`; if another node leads by now, ask again.",
                )
            time.sleep(_AGAIN_S)
        return answer

    def replace(self, old: str, patience_s: float, **new: str) -> dict[str, Any]:
        """Add the new node, promote it when it has caught up, then remove the old one. Begun once, it goes on
        where it ended: a node that is a member already is not added again.
        """
        members = {it["id"]: it for it in self.listing()["members"]}
        if old not in members:
            raise _error(409, f"{old} is no member; those are {', '.join(members)}. Nothing was changed.")
        node_id = new["id"]
        if node_id not in members:
            self._until_done(lambda: self.change("add", **new), patience_s)
        if members.get(node_id, {}).get("role") != "voter" and members[old]["role"] == "voter":
            self.promote_when_ready(node_id, patience_s)
        return self._until_done(lambda: self.change("remove", id=old), patience_s)

    def _until_done(self, ask: Callable[[], dict[str, Any]], patience_s: float) -> dict[str, Any]:
        """Again while it is only the moment that is wrong."""
        deadline = time.monotonic() + patience_s
        while True:
            try:
                return ask()
            except MembersError as error:
                if error.status != 503 or time.monotonic() >= deadline:
                    raise
            time.sleep(_AGAIN_S)

    def _said(self, urls: Sequence[str], words: Mapping[str, str] | None) -> dict[str, Any]:
        body = None if words is None else json.dumps(words).encode()
        silent: list[str] = []
        for url in urls:
            try:
                status, answer = self.send(url, body) if self.send else self._send(url, body)
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", error)
                if body is not None and not isinstance(reason, ConnectionRefusedError):
                    raise _error(
                        504,
                        f"{url} did not answer ({reason}): whether the change was made is not known. Look at "
                        "the members before you ask again.",
                    ) from None
                silent.append(f"{url}: {reason}")
                continue
            return _read(status, answer, url)
        raise _error(503, f"No member answers ({'; '.join(silent)}). Nothing was changed.")

    def _send(self, url: str, body: bytes | None) -> tuple[int, bytes]:
        base = url.rstrip("/") if "://" in url else f"http://{url.rstrip('/')}"
        try:
            return 200, calls.ask(prover_of(self.secret), base, PATH, body, timeout_s=_ASK_S)
        except HTTPError as error:
            with error:
                return error.code, error.read(_MOST_BYTES)


def _read(status: int, answer: bytes, url: str) -> dict[str, Any]:
    try:
        words: Any = json.loads(answer)
    except ValueError:
        words = None
    if status == 200 and isinstance(words, dict):
        return cast("dict[str, Any]", words)
    said = cast("dict[str, Any]", words).get("message") if isinstance(words, dict) else None
    raise _error(status, str(said or f"{url} answered {status}: it is no member of a cluster."))


def _error(status: int, message: str) -> MembersError:
    error = MembersError(message)
    error.status = status
    return error


def table(listing: Mapping[str, Any]) -> str:
    """The members, one a line, for people."""
    rows = [("ID", "ROLE", "LOG", "HTTP", "")]
    for it in listing["members"]:
        notes = ["leads"] if it["leads"] else []
        notes += [] if it["connected"] or it["leads"] else ["not connected"]
        notes += ["has no vote yet"] if it["role"] == "voter" and it.get("has_vote") is False else []
        rows.append((it["id"], it["role"], it["raft"] or "?", it["http"] or "?", ", ".join(notes)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    widths.append(0)
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    state = "committed" if listing["committed"] else "not committed yet"
    return "\n".join([f"configuration {listing['number']} ({state})", *lines])
