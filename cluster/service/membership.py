"""The other members as the replicated configuration names them, and the operator's changes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from cluster.errors import Refusal, Unavailable
from cluster.raft.interface import Add, Admit, Move, Promote, Remove

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.config import NodeSettings
    from cluster.peers import Peers
    from cluster.raft.interface import Change, Member, Raft, RaftStatus
    from cluster.service.leader import Leader

_OPERATIONS: Final = ("add", "promote", "remove", "move", "admit", "transfer")


class OtherMembers(Mapping[str, str]):
    """The base URLs of the others' HTTP by node id, as they are whenever this is looked at.

    A node that waits to be added knows those of its settings. A member without a URL is left out.
    """

    def __init__(self, settings: NodeSettings, raft: Raft) -> None:
        self._settings = settings
        self._raft = raft

    def _urls(self) -> dict[str, str]:
        configured = {peer_id: peer.http for peer_id, peer in self._settings.peers.items()}
        members = self._raft.status().configuration.members
        if not members:
            return configured
        urls = {member.id: member.http or configured.get(member.id, "") for member in members}
        return {name: url for name, url in urls.items() if url and name != self._settings.node_id}

    def __getitem__(self, node_id: str) -> str:
        return self._urls()[node_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._urls())

    def __len__(self) -> int:
        return len(self._urls())


def other_ids(settings: NodeSettings, raft: RaftStatus) -> tuple[str, ...]:
    """The ids of the others, by the configuration; of those in the settings while there is none."""
    ids = raft.configuration.ids or tuple(settings.peers)
    return tuple(name for name in ids if name != raft.node_id)


class Membership:
    """What `/cluster/members` answers."""

    def __init__(self, settings: NodeSettings, raft: Raft, leader: Leader, peers: Peers) -> None:
        self._settings = settings
        self._raft = raft
        self._leader = leader
        self._peers = peers

    def listing(self) -> dict[str, Any]:
        """The members by the newest configuration that this node has."""
        status = self._raft.status()
        configuration = status.configuration
        return {
            "cluster": self._settings.cluster_id,
            "number": configuration.number,
            "committed": status.configuration_committed,
            "leader": status.leader,
            "last_index": status.last_index,
            "members": [self._entry(member) for member in configuration.members],
        }

    def _entry(self, member: Member) -> dict[str, Any]:
        settings, status = self._settings, self._raft.status()
        leads = status.role == "leader"
        if member.id == settings.node_id:
            raft, match, connected = settings.advertised_raft, status.last_index, True
        else:
            peer = settings.peers.get(member.id)
            raft = peer.raft if peer else ""
            match, connected = status.match_index.get(member.id), member.id in status.connected
        return {
            "id": member.id,
            "raft": member.address or raft,
            "http": self._leader.url_of(member.id),
            "role": "voter" if member.is_voter else "learner",
            "leads": member.id == status.leader,
            "connected": connected,
            "match_index": match,
            "has_vote": member.is_voter and member.id not in status.without_vote if leads else None,
        }

    async def change(self, words: Mapping[str, Any]) -> dict[str, Any]:
        """Make the change that `words` name, at the leader; answers once it is committed.

        Raises:
            Refusal: 400, this is no change; ChangeRefused, ChangeNotNow, Unavailable: nothing was changed.
            OutcomeUnknown: the leader lost its leadership meanwhile.
        """
        operation = words.get("operation")
        change = _parse(words)
        if not self._leader.is_here():
            url = self._leader.url()
            if url is None:
                raise Unavailable("No leader is known at the moment. Nothing was changed; try again.")
            return await self._peers.change_members(url, dict(words))
        if change is None:
            assert operation == "transfer"
            to = str(words["id"]) if words.get("id") else None
            await asyncio.wrap_future(self._raft.transfer_leadership(to))
            return {"operation": operation, "id": to}
        position = await asyncio.wrap_future(self._raft.change_members(change))
        return {"operation": operation, "id": change.id, "index": position.index}


def _parse(words: Mapping[str, Any]) -> Change | None:
    """None: leadership is to be handed over, which changes no members.

    Raises:
        Refusal: 400.
    """
    operation = words.get("operation")
    texts = {name: words.get(name, "") for name in ("id", "raft", "http")}
    if operation not in _OPERATIONS or not all(isinstance(text, str) for text in texts.values()):
        raise Refusal(
            400,
            "InvalidArgumentError",
            f"A change of the members is `operation` (one of {', '.join(_OPERATIONS)}), `id`, and for add "
            "and move `raft` (HOST:PORT) and `http` (URL), all texts. Nothing was changed.",
        )
    name, raft, http = texts["id"], texts["raft"], texts["http"].rstrip("/")
    if (http or operation == "add") and not http.startswith(("http://", "https://")):
        # Who is asked nothing over HTTP could be taken for silent where everybody has to be asked.
        raise Refusal(
            400, "InvalidArgumentError", f"{name[:80]!r} needs `http`, a URL of HTTP. Nothing was changed."
        )
    match operation:
        case "add":
            return Add(name, raft, http)
        case "promote":
            return Promote(name)
        case "remove":
            return Remove(name)
        case "admit":
            return Admit(name)
        case "move":
            return Move(name, raft, http)
        case _:
            return None
