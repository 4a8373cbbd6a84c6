"""Sends one case to both servers and looks at all nodes afterwards."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tests.hostile.case import COLLECTIONS, C, request
from tests.hostile.exchange import HANGS, HUNG_UP, Reply, exchange
from tests.hostile.judge import limited, unlike_all, unmet
from tests.hostile.stand import (
    ASKERS,
    ChromaSide,
    ClusterSide,
    Memory,
    NotReadyError,
    clean,
    prepare,
    side_by_side,
    state_of,
    states,
    untouched,
    wait_until_well,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hostile.case import Case, Setup

#: All nodes are healthy again within this time after a case's last answer.
WELL_WITHIN_S: Final = 15.0
#: What one process may take for one request, or few: a request's 40 MiB, many times over.
MEMORY_MIB: Final = 1_024.0

#: Sent after a compared case: what it left behind must be the same on both sides.
_PROBE: Final = request(
    "POST", f"{C}/get", {"limit": 20, "include": ["metadatas", "documents", "embeddings", "uris"]}
)


@dataclass
class Result:
    """What one case came to. `failures`: empty if all is as required; `rebuilt`: the cluster had to go."""

    id: str
    kind: str
    chroma: list[int] = field(default_factory=list[int])
    ours: list[int] = field(default_factory=list[int])
    healthy: bool = True
    same: bool = True
    seconds: float = 0.0
    grown_mib: float = 0.0
    entries: int = 0
    limited: int = 0
    """Answers that named a limit of ours."""
    errors: list[str] = field(default_factory=list[str])
    """The names of the errors of our answers."""
    rebuilt: bool = False
    failures: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])

    @property
    def refused_before_log(self) -> bool:
        """Whether every answer was a refusal, and no entry was written."""
        return self.entries == 0 and bool(self.ours) and all(400 <= status < 500 for status in self.ours)


@dataclass(frozen=True)
class Ground:
    """Where a case begins, on both sides: kept for the next one if a case has changed nothing."""

    setup: Setup
    own: dict[str, str]
    theirs: dict[str, str]
    state: dict[str, Any]


class Runner:
    """Both servers, as long as cases are run. Belongs to one thread."""

    def __init__(self, directory: Path) -> None:
        self.chroma = ChromaSide(directory / "chroma")
        self.cluster = ClusterSide(directory / "cluster")
        self._ground: Ground | None = None

    def __enter__(self) -> Runner:
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            # Children inherit it: should memory run out, it is taken from what was made to burst.
            file.write("500")
        self.chroma.start()
        self.cluster.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.chroma.stop()
        self.cluster.stop()

    def run(self, case: Case) -> Result:
        """Run `case`, and leave both servers ready for the next."""
        result = Result(case.id, case.kind)
        began = time.monotonic()
        try:
            self._run(case, result)
        except NotReadyError as error:
            result.healthy = False
            result.failures.append(f"beforehand or afterwards: {error}")
        if not result.healthy:
            result.rebuilt = True
            self.cluster.start()
        if result.failures:
            self._ground = None
        result.seconds = time.monotonic() - began
        return result

    def _run(self, case: Case, result: Result) -> None:
        cluster = self.cluster
        ground = self._prepare(case.setup)
        own = dict(ground.own)
        door = cluster.door(case.door)
        last = self._last_index()
        children = cluster.children()
        memory = Memory(cluster.pids())
        ours = self._send(door, case, own)
        result.ours = [reply.status for reply in ours]
        result.limited = sum(limited(reply) for reply in ours)
        result.errors = [str(reply.body["error"]) for reply in ours if _is_error(reply)]
        for at, reply in enumerate(ours):
            problem = unmet(case, reply)
            # Where it is compared, Chroma's own 500 is right.
            if problem is not None and not (case.compared and reply.status == 500):
                result.failures.append(f"call {at + 1}: {problem}")
        # Chroma answers while the nodes are looked at.
        theirs = dict(ground.theirs)
        answered = ASKERS.submit(self._ask_chroma, case, theirs) if case.compared else None
        state = self._look(result, last, ground.state)
        result.grown_mib = memory.grown()
        if result.grown_mib > MEMORY_MIB:
            result.failures.append(f"a process took {result.grown_mib:.0f} MiB")
        if gone := children - cluster.children():
            result.notes.append(f"{len(gone)} child processes of nodes ended")
        if answered is not None:
            self._compare(answered.result(), ours, own, theirs, result)
        if state != ground.state:
            self._ground = None

    def _prepare(self, setup: Setup) -> Ground:
        """What the case needs beforehand; one without needs takes what there is."""
        ground = self._ground
        if ground is not None and setup in ("none", ground.setup):
            return ground
        self._ground = None
        setup = "records" if setup == "none" else setup
        try:
            own, theirs = side_by_side(
                lambda url: _cleaned_and_prepared(url, setup), (self.cluster.url, self.chroma.url)
            )
        except NotReadyError:
            self.chroma.start()
            own, theirs = side_by_side(
                lambda url: _cleaned_and_prepared(url, setup), (self.cluster.url, self.chroma.url)
            )
        state = untouched(state_of(self.cluster.nodes[0].url))
        own["canary"], theirs["canary"] = self.cluster.canary.id, self.chroma.canary.id
        self._ground = Ground(setup, own, theirs, state)
        return self._ground

    def _send(self, url: str, case: Case, names: dict[str, str]) -> list[Reply]:
        replies: list[Reply] = []
        for call in case.calls:
            replies.append(exchange(url, call, names))
            made = replies[-1].body
            if call.target == COLLECTIONS and isinstance(made, dict) and isinstance(made.get("id"), str):
                names["made"] = made["id"]
            if replies[-1].status in (HANGS, HUNG_UP, 503, 504):
                break  # the rest would only wait as long again
        return replies

    def _look(self, result: Result, last: int, before: dict[str, Any]) -> dict[str, Any]:
        """Healthy, in time; alive; the same everywhere: what the nodes hold but for the canary.

        `last` was the log's last entry. Without a new one nodes hold what they held `before`: it is compared
        after the next case that writes.
        """
        problem = wait_until_well(self.cluster, WELL_WITHIN_S)
        if problem is None:
            result.entries = self._last_index() - last
            try:
                self.cluster.canary.sing(self.cluster.url)
                side_by_side(lambda node: self.cluster.canary.heard(node.url), self.cluster.nodes)
            except NotReadyError as error:
                problem = str(error)
        if problem is not None:
            result.healthy = False
            result.failures.append(f"not well within {WELL_WITHIN_S:.0f} s: {problem}")
            return {}
        if result.entries == 0:
            return before
        first, *others = states(self.cluster)
        for node, other in zip(self.cluster.nodes[1:], others, strict=True):
            different = [name for name in first if first[name] != other.get(name)]
            if first != other:
                result.same = False
                result.failures.append(
                    f"{node.id} holds another {', '.join(different) or 'set of collections'}"
                )
        unreadable = [name for name, (status, _) in first.items() if status != 200]
        if unreadable:
            result.failures.append(
                f"cannot be read any more: {', '.join(unreadable)}: {first[unreadable[0]]}"
            )

        return untouched(first)

    def _ask_chroma(self, case: Case, names: dict[str, str]) -> tuple[list[Reply], bool]:
        """Its answers, and whether it still writes and reads."""
        replies = self._send(self.chroma.url, case, names)
        return replies, self.chroma.is_well()

    def _compare(
        self,
        found: tuple[list[Reply], bool],
        ours: list[Reply],
        own: dict[str, str],
        theirs: dict[str, str],
        result: Result,
    ) -> None:
        chroma = self.chroma
        replies, well = found
        result.chroma = [reply.status for reply in replies]
        silent = any(reply.status in (HUNG_UP, HANGS) for reply in replies)
        if not well or silent:
            self._ground = None
            result.notes.append(
                "Chroma gives no answer" if well else "Chroma died, or takes no writes any more"
            )
        if over := any(limited(reply) for reply in ours):
            self._ground = None
            result.notes.append("refused by a limit of ours")
        difference = unlike_all(replies, ours, theirs, own)
        if difference is not None:
            result.failures.append(f"unlike Chroma: {difference}")
        elif well and not silent and not over and result.healthy and "id" in own:
            left = [
                exchange(url, _PROBE, names) for url, names in ((chroma.url, theirs), (self.cluster.url, own))
            ]
            difference = unlike_all(left[:1], left[1:], theirs, own)
            if difference is not None:
                result.failures.append(f"left behind unlike Chroma: {difference}")
        if not well:
            chroma.start()

    def _last_index(self) -> int:
        return max((status.get("last_index", 0) for status in self.cluster.statuses()), default=0)


def _cleaned_and_prepared(url: str, setup: Setup) -> dict[str, str]:
    clean(url)
    return prepare(url, setup)


def _is_error(reply: Reply) -> bool:
    return isinstance(reply.body, dict) and "error" in reply.body


def as_json(result: Result) -> dict[str, Any]:
    """A result as a line of the log of a run."""
    return {name: value for name, value in vars(result).items()} | {
        "refused_before_log": result.refused_before_log,
    }


def to_repeat(case: Case) -> str:
    """The command that runs one case alone."""
    return f"python -m tests.hostile.run --only '{case.id}'"
