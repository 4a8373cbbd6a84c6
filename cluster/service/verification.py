"""Rounds of verification: the leader has all nodes digest what they have, compares, and tells them."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import uuid4

from cluster.errors import ClusterError, Unavailable
from cluster.state.commands import Verify, level_of
from cluster.verify.conclusion import Report, Result, conclude, donors_for, doubtful, narrowed, verdict_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cluster.apply.applier import Applier
    from cluster.config import NodeSettings
    from cluster.peers import Peers
    from cluster.service.leader import Leader
    from cluster.service.leveling import Leveling
    from cluster.service.writes import Writes
    from cluster.verify.alarms import Alarms
    from cluster.verify.scanner import Scanner
    from cluster.verify.sealing import Seal

log = logging.getLogger(__name__)

_ANY: Final = Verify("", None)
_ASK_S: Final = 0.25
#: A member that says nothing for so long, or makes no progress for so long, has no part in the round.
_SILENT_S: Final = 10.0
_STILL_S: Final = 60.0
_TELL_S: Final = 15.0
_SCHEDULE_S: Final = 1.0
#: So long after a round the schedule begins no other; and so often a node that has doubts asks for one.
_AGAIN_S: Final = 60.0
_DOUBT_S: Final = 2.0


@dataclass(slots=True)
class _Running:
    """A round under way."""

    round_id: str
    look: int = 1
    index: int = 0
    progress: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])

    def as_json(self) -> dict[str, Any]:
        return {
            "round": self.round_id,
            "look": self.look,
            "index": self.index,
            "progress": self.progress,
        }


@dataclass(frozen=True, slots=True)
class Verifying:
    """What verification needs that is made before the service: who digests, what is known to be wrong, log
    time, who is told that the status changes, and the seal that was on the files."""

    scanner: Scanner
    alarms: Alarms
    now_ms: Callable[[], int]
    on_change: Callable[[], None]
    seal: Seal


class Verification:
    """Lives on the node's event loop. The leader leads rounds; every node digests and is told."""

    def __init__(
        self,
        settings: NodeSettings,
        applier: Applier,
        leader: Leader,
        peers: Peers,
        others: Mapping[str, str],
        writes: Writes,
        leveling: Leveling,
        verifying: Verifying,
    ) -> None:
        """`others` are the URLs of the other members, by id; they change as members come and go."""
        self._node_id = settings.node_id
        self._members = others
        self._interval_ms = settings.verify_interval_s * 1000
        self._applier = applier
        self._leader = leader
        self._peers = peers
        self._writes = writes
        self._leveling = leveling
        self._scanner = verifying.scanner
        self._alarms = verifying.alarms
        self._now_ms = verifying.now_ms
        self._on_change = verifying.on_change
        self._running: _Running | None = None
        self._task: asyncio.Task[None] | None = None
        self._last: dict[str, Any] | None = None
        self._ended_at = float("-inf")
        self._seal = verifying.seal
        self.on_differs: Callable[[Sequence[str]], None] = lambda donors: None
        """Told, after a verdict that names this node, which nodes are known to be right."""

    # ----------------------------------------------------------------------- asked by operators

    async def verify(self, *, start: bool) -> dict[str, Any]:
        """Begin a round unless one is under way, at the leader; how far it is, and the last one's result."""
        return await self._leader.ask(
            lambda: self._here(start=start), lambda url: self._peers.verify(url, start=start)
        )

    async def _here(self, *, start: bool) -> dict[str, Any]:
        if start and self._running is None:
            self._leveling.require(_ANY)
            self._begin()
        running = self._running
        return {
            "leader": self._node_id,
            "running": None if running is None else running.as_json(),
            "last": self._last,
        }

    def _begin(self) -> None:
        self._running = _Running(uuid4().hex)
        self._task = asyncio.create_task(self._round(self._running))

    # --------------------------------------------------------------------------- asked by members

    def digests(self, question: dict[str, Any]) -> dict[str, Any]:
        """As `cluster.api.interface.PeerService.digests`."""
        return {**self._scanner.answer(question), "applied": self._applier.applied_index}

    async def take_verdict(self, told: dict[str, Any]) -> dict[str, Any]:
        """As `cluster.api.interface.PeerService.take_verdict`."""
        if self._scanner.answer({"round": told["round"], "wants": "state"})["state"] != "done":
            return {"heard": False}  # it is about what a process before this one had
        said = cast("dict[str, Any]", told["differs"])
        if not all(isinstance(alarm, dict) for alarm in said.values()):
            raise ValueError("`differs` says of each collection what differs")
        differs = cast("dict[str, dict[str, Any]]", said)
        equal = [str(name) for name in told["equal"]]
        known = [str(name) for name in told["known"]]
        await asyncio.to_thread(self._alarms.conclude, differs, equal, known)
        if told["complete"]:
            self._seal.settle()
        self._on_change()
        if differs:
            self.on_differs([str(donor) for donor in told.get("donors", ())])
        return {"heard": True}

    @property
    def doubts(self) -> str | None:
        """Why this node is to be verified before it is trusted like the others, or None."""
        found = self._seal.doubts
        if found is None or self._leveling.permits(_ANY):
            return found
        return f"{found} That waits until all members understand command level {level_of(_ANY)}."

    # ------------------------------------------------------------------------------ the schedule

    async def run(self) -> None:
        """Begin rounds when they are due, until cancelled; a node with doubts asks for one."""
        asked = float("-inf")
        while True:
            await asyncio.sleep(_SCHEDULE_S)
            now = time.monotonic()
            try:
                if self.doubts is not None and now - asked > _DOUBT_S and self._is_caught_up():
                    asked = now
                    await self.verify(start=True)
                elif self._is_due(now):
                    await self._here(start=True)
            except ClusterError as error:
                log.info("no verification now: %s", error.message)
                asked = now

    def _is_caught_up(self) -> bool:
        return self._leader.id() is not None

    def _is_due(self, now: float) -> bool:
        if self._interval_ms == 0 or not self._leader.is_here() or self._running is not None:
            return False
        if not self._leveling.permits(_ANY):
            return False
        since_ms = self._now_ms() - (self._applier.verified_ms or 0)
        again_s = min(_AGAIN_S, self._interval_ms / 1000)
        return since_ms >= self._interval_ms and now - self._ended_at > again_s

    # ---------------------------------------------------------------------------------- a round

    async def _round(self, running: _Running) -> None:
        began = time.monotonic()
        outcome: dict[str, Any] = {"round": running.round_id}
        try:
            result, index = await self._compare(running)
            outcome |= {"index": index, **result.as_json()}
            level = logging.INFO if result.standing == "same" else logging.WARNING
            log.log(level, "verification at log entry %d: %s", index, result.standing)
        except ClusterError as error:
            outcome |= {"standing": "failed", "reason": error.message}
            log.warning("the verification did not come to an end: %s", error.message)
        except Exception as error:
            outcome |= {"standing": "failed", "reason": f"{type(error).__name__}: {error}"}
            log.exception("the verification failed")
        finally:
            outcome["seconds"] = round(time.monotonic() - began, 3)
            self._last = outcome
            self._running = None
            self._ended_at = time.monotonic()
            self._on_change()

    async def _compare(self, running: _Running) -> tuple[Result, int]:
        first, lost = await self._look(running, running.round_id, None)
        names = doubtful(first)
        second: dict[str, Report] = {}
        index = running.index
        if names:
            told = await self._buckets(running.round_id, names, first)
            running.look = 2
            second, lost_later = await self._look(
                running, uuid4().hex, narrowed(names, first, told), among=tuple(first)
            )
            lost |= lost_later
        result = conclude(first, second, lost)
        await self._tell(running.round_id, result, first)
        return result, index

    async def _look(
        self,
        running: _Running,
        round_id: str,
        narrow: dict[str, list[int]] | None,
        among: Sequence[str] | None = None,
    ) -> tuple[dict[str, Report], dict[str, str]]:
        """Have all nodes digest at one place of the log; their reports, and why some have none."""
        command = Verify(round_id, narrow)
        _, running.index = await self._writes.write(command, key=None, digest=b"", ack="applied")
        running.progress = {}
        nodes = [self._node_id, *self._members] if among is None else list(among)
        asked = [self._wait_for(running, node, round_id) for node in nodes]
        reports: dict[str, Report] = {}
        lost: dict[str, str] = {}
        for node, answer in zip(nodes, await asyncio.gather(*asked), strict=True):
            if isinstance(answer, str):
                lost[node] = answer
                continue
            try:
                parts = None
                if narrow is not None:
                    parts = (await self._ask(node, {"round": round_id, "wants": "parts"}) or {})["parts"]
                reports[node] = Report.decode(answer, parts)
            except (ValueError, TypeError, KeyError) as error:
                lost[node] = f"its answer cannot be understood ({type(error).__name__})"
        if not reports:
            raise Unavailable("No node could digest what it has. Nothing was compared; try again.")
        return reports, lost

    async def _wait_for(self, running: _Running, node: str, round_id: str) -> dict[str, Any] | str:
        """A node's digests once it has them, or why it has none."""
        heard = moved = time.monotonic()
        before: Any = None
        while True:
            answer = await self._ask(node, {"round": round_id})
            now = time.monotonic()
            if answer is None:
                if now - heard > _SILENT_S:
                    return "it does not answer"
                await asyncio.sleep(_ASK_S)
                continue
            heard = now
            state, applied = answer.get("state"), int(answer.get("applied", 0))
            running.progress[node] = {"state": state, **answer.get("progress", {})}
            if state == "done":
                return answer
            if state == "failed" or (state == "unknown" and applied >= running.index):
                return "it was restarted, or failed, while it digested"
            at = (applied, answer.get("progress"))
            moved = now if at != before else moved
            before = at
            if now - moved > _STILL_S:
                return f"it is at log entry {applied} and makes no progress"
            await asyncio.sleep(_ASK_S)

    async def _buckets(
        self, round_id: str, names: Sequence[str], nodes: Mapping[str, Report]
    ) -> dict[str, dict[str, dict[int, str]]]:
        told: dict[str, dict[str, dict[int, str]]] = {}
        for node in nodes:
            question = {"round": round_id, "wants": "buckets", "collections": list(names)}
            answer = await self._ask(node, question)
            if answer is not None and "buckets" in answer:
                told[node] = {
                    name: {int(bucket): str(total) for bucket, total in buckets.items()}
                    for name, buckets in answer["buckets"].items()
                }
        return told

    async def _ask(self, node: str, question: dict[str, Any]) -> dict[str, Any] | None:
        if node == self._node_id:
            return self.digests(question)
        url = self._members.get(node)
        return None if url is None else await self._peers.digests(url, question)

    async def _tell(self, round_id: str, result: Result, first: Mapping[str, Report]) -> None:
        about = {node: verdict_for(node, result, first) for node in first}
        donors = {node: donors_for(node, result, tuple(first)) for node in first}
        await asyncio.gather(
            *(
                self._tell_node(node, {"round": round_id, "donors": donors[node], **verdict})
                for node, verdict in about.items()
            )
        )

    async def _tell_node(self, node: str, verdict: dict[str, Any]) -> None:
        until = time.monotonic() + _TELL_S
        while True:
            if node == self._node_id:
                await self.take_verdict(verdict)
                return
            url = self._members.get(node)
            if url is None or await self._peers.verdict(url, verdict):
                return
            if time.monotonic() > until:
                log.error("%s could not be told what a verification found: verify again", node)
                return
            await asyncio.sleep(_ASK_S)

    def stop(self) -> None:
        """Lead no round any more."""
        if self._task is not None:
            self._task.cancel()
