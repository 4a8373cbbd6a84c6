"""The nodes as the balancer sees them, as values: health, ejection and return, rotation, the leader.

Every change returns a new `Ring`; time is an argument (seconds of one monotonic clock).

A member is in one of these states:

    silent     no stream, or no line on it yet          takes nothing
    lacking    lines arrive and say what it `lacks`     takes nothing: it cannot catch up
    unwell     lines arrive and say `healthy: false`    takes eventual reads if no node is healthy
    behind     healthy, and says `ready: false`         takes reads only if no ready node can
    healthy    lines arrive and say `healthy: true`     takes everything
    shunned    healthy, but a request to it just failed  takes reads only if no other can
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast


@dataclass(frozen=True, slots=True)
class Status:
    """What one line of a node's status stream says, as far as routing needs it."""

    node_id: str
    cluster: str
    role: str
    term: int
    leader: str | None
    applied_index: int
    healthy: bool
    reason: str
    engine: str = "serving"
    ready: bool = True
    lacking: bool = False
    state: str = ""
    """The node's own word for how it is; "": it says none."""
    configuration: int = 0
    """The number of the committed configuration that the node knows; 0: the founders', or none is told."""
    urls: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str], hash=False)
    """The members by it, those whose URL is known."""

    @classmethod
    def of(cls, line: Any) -> Status:
        """The status in a decoded line.

        Raises:
            ValueError: not a status; the message says which field is wrong.
        """
        if not isinstance(line, Mapping):
            raise ValueError("the status line is not a JSON object")
        fields: Mapping[str, Any] = line  # pyright: ignore[reportUnknownVariableType]
        leader, ready = fields.get("leader"), fields.get("ready")
        return cls(
            node_id=_field(fields, "id", str),
            cluster=str(fields.get("cluster") or ""),
            role=_field(fields, "role", str),
            term=_field(fields, "term", int),
            leader=leader if isinstance(leader, str) else None,
            applied_index=_field(fields, "applied_index", int),
            healthy=_field(fields, "healthy", bool),
            reason=str(fields.get("reason") or ""),
            engine=_engine_state(fields.get("engine")),
            ready=ready if isinstance(ready, bool) else True,
            lacking=fields.get("lacks") is not None,
            state=str(fields.get("state") or ""),
            **_configuration(fields.get("configuration")),
        )


def _configuration(said: Any) -> dict[str, Any]:
    """What a status says of the members, if it is committed."""
    words: Mapping[str, Any] = said if isinstance(said, Mapping) else {}  # pyright: ignore[reportUnknownVariableType]
    number, urls = words.get("number"), words.get("urls")
    if type(number) is not int or not isinstance(urls, Mapping) or words.get("committed") is not True:
        return {}
    pairs = cast("Mapping[Any, Any]", urls).items()
    return {
        "configuration": number,
        "urls": {str(name): url.rstrip("/") for name, url in pairs if isinstance(url, str) and url},
    }


def _engine_state(engine: Any) -> str:
    state: Any = cast("Mapping[str, Any]", engine).get("state") if isinstance(engine, Mapping) else None
    return state if isinstance(state, str) else "serving"


def _field(fields: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    value = fields.get(name)
    if not isinstance(value, kind):
        raise ValueError(f"the status line has no {kind.__name__} `{name}`: {value!r}")
    return value


@dataclass(frozen=True, slots=True)
class Member:
    """One node. `status` is None while the balancer hears nothing; `reason` then says why."""

    node_id: str
    url: str
    status: Status | None = None
    heard_at: float = 0.0
    reason: str = "not heard from yet"
    shunned_until: float = 0.0
    is_learnt: bool = False
    """Its URL is from the cluster's configuration, not from the balancer's settings."""

    @property
    def healthy(self) -> bool:
        return self.status is not None and self.status.healthy

    @property
    def ready(self) -> bool:
        """Healthy and caught up: read from before others."""
        return self.status is not None and self.status.healthy and self.status.ready

    def why_not_used(self, now: float) -> str | None:
        """Why requests go to other nodes, if they do; None: this one takes its share."""
        if self.status is None:
            return self.reason
        if not self.status.healthy:
            return self.reason or "it says that it is not healthy, and no reason"
        if self.shunned_until > now:
            return "a request to it failed on the way a moment ago"
        return None if self.status.ready else self.reason or "it says that it is not ready, and no reason"

    @property
    def tends_engine(self) -> bool:
        """Whether the node lives and is starting its Chroma again, or about to."""
        return self.status is not None and self.status.engine != "serving"

    @property
    def leads(self) -> bool:
        return self.status is not None and self.status.healthy and self.status.role == "leader"


@dataclass(frozen=True, slots=True)
class Ring:
    """All nodes: those of the settings, until the cluster says who its members are.

    `cluster` is the id that members must have ("" accepts any).
    """

    members: tuple[Member, ...]
    cluster: str = ""
    configuration: int = 0
    """The number of the newest committed configuration that a member told of."""

    @classmethod
    def of(cls, nodes: Mapping[str, str], cluster: str = "") -> Ring:
        """A ring of nodes (id -> URL) that were not heard from yet."""
        return cls(tuple(Member(node_id, url) for node_id, url in nodes.items()), cluster)

    def member(self, node_id: str) -> Member:
        """The member with that id.

        Raises:
            KeyError: no such member.
        """
        for member in self.members:
            if member.node_id == node_id:
                return member
        raise KeyError(node_id)

    def find(self, node_id: str) -> Member | None:
        """The member with that id; None: it is no member, or none any more."""
        return next((member for member in self.members if member.node_id == node_id), None)

    # Changes

    def heard(self, node_id: str, status: Status, now: float) -> Ring:
        """A status line arrived from `node_id`."""
        reason = status.reason if not (status.healthy and status.ready) else ""
        foreign = ""
        if status.node_id != node_id:
            foreign = f"answers as {status.node_id}, but is configured as {node_id}"
        elif self.cluster and status.cluster != self.cluster:
            foreign = f"belongs to cluster {status.cluster}, not to {self.cluster}"
        if foreign:
            # Not even a last resort: it holds another node's data, or another cluster's.
            status = dataclasses.replace(status, healthy=False, lacking=True)
        changes: dict[str, Any] = {"status": status, "heard_at": now, "reason": foreign or reason}
        held = self.find(node_id)
        if held is None:
            return self
        if held.status is None:
            # Back on a new stream: what failed on the old connections is no longer held against it.
            changes["shunned_until"] = 0.0
        ring = self._with(node_id, **changes)
        is_news = not foreign and status.configuration > self.configuration and status.urls
        return ring._following(status) if is_news else ring

    def _following(self, status: Status) -> Ring:
        """The members as `status` says. A URL of the own settings stays: it may lead through a proxy."""
        held = {member.node_id: member for member in self.members}
        members: list[Member] = []
        for name, url in status.urls.items():
            member = held.get(name, Member(name, url, is_learnt=True))
            if member.is_learnt and member.url != url:
                member = Member(name, url, is_learnt=True)
            members.append(member)
        return dataclasses.replace(self, members=tuple(members), configuration=status.configuration)

    def lost(self, node_id: str, reason: str) -> Ring:
        """The status stream of `node_id` broke or could not be opened: ejected until a line arrives."""
        return self._with(node_id, status=None, reason=reason)

    def swept(self, now: float, silence_s: float) -> Ring:
        """Members that said nothing for more than `silence_s` are ejected: stopped, hung or cut off."""
        ring = self
        for member in self.members:
            if member.status is not None and now - member.heard_at > silence_s:
                ring = ring.lost(member.node_id, f"silent for more than {silence_s:g} s")
        return ring

    def forgiven(self, lag_s: float) -> Ring:
        """The balancer itself stood still for `lag_s`: that time does not count as anyone's silence."""
        return dataclasses.replace(
            self, members=tuple(dataclasses.replace(m, heard_at=m.heard_at + lag_s) for m in self.members)
        )

    def shunned(self, node_id: str, until: float) -> Ring:
        """A request to `node_id` failed on the way: others are preferred until then."""
        return self._with(node_id, shunned_until=until)

    def _with(self, node_id: str, **changes: Any) -> Ring:
        return dataclasses.replace(
            self,
            members=tuple(
                dataclasses.replace(member, **changes) if member.node_id == node_id else member
                for member in self.members
            ),
        )

    # Choices

    def leader(self) -> Member | None:
        """The healthy node that claims to lead and that a majority of those heard follows, or None.

        A claim alone proves nothing: an old leader that was cut off claims its own, lower term, and a node
        that was started without its peers a higher one. "Follow" is to name it in its term; it follows
        itself. Of members that are not heard nothing is known, so they are not counted: a balancer that
        hears only the leader takes its word.
        """
        heard = [member.status for member in self.members if member.status is not None]
        for member in self.members:
            if member.leads and 2 * sum(_follows(status, member) for status in heard) > len(heard):
                return member
        return None

    def healthy(self) -> tuple[Member, ...]:
        """The nodes that may serve any read."""
        return tuple(member for member in self.members if member.healthy)

    def reader(
        self, turn: int, wanted_index: int, avoid: frozenset[str], now: float, *, lenient: bool = False
    ) -> Member | None:
        """The node for read number `turn`, or None if all that could serve it are in `avoid`.

        Rotates over the nodes whose status shows that they have applied `wanted_index`, those that are
        ready before those that are behind. If none shows it, the leader is the best guess: a write is
        answered after the leader applied it, so it seldom needs to wait. `lenient` reads (those that
        promise nothing about freshness) fall back to nodes that answer but do not call themselves healthy,
        e.g. without a quorum; never to one that lacks entries.
        """
        able = [m for m in self.members if m.healthy and m.node_id not in avoid]
        if not able:
            if not lenient:
                return None
            able = [
                m
                for m in self.members
                if m.status is not None and not m.status.lacking and m.node_id not in avoid
            ]
            if not able:
                return None
        if len(able) > 1:
            able = [m for m in able if m.shunned_until <= now] or able
        prompt = [m for m in able if m.ready] or able
        for these in (prompt, able):
            fresh = [m for m in these if m.status is not None and m.status.applied_index >= wanted_index]
            if fresh:
                return fresh[turn % len(fresh)]
        leader = self.leader()
        return leader if leader in able else prompt[turn % len(prompt)]


def _follows(status: Status, leader: Member) -> bool:
    return leader.status is not None and status.leader == leader.node_id and status.term == leader.status.term
