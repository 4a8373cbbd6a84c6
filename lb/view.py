"""What a balancer tells of itself and its nodes: all to who proves the secret, little to others; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lb.ring import Member

#: Of a node, as the node itself tells whoever asks: no address, no reason, nothing of what is stored.
FOR_ANYBODY: Final = ("id", "role", "state", "healthy", "ready")


def row(member: Member, now: float) -> dict[str, Any]:
    """One node as the balancer sees it at `now`; null where nothing is heard of it."""
    said = member.status
    return {
        "id": member.node_id,
        "url": member.url,
        "healthy": member.healthy,
        "ready": member.ready,
        "reason": member.reason,
        "not_used": member.why_not_used(now),
        "role": said.role if said else None,
        "state": said.state or None if said else None,
        "term": said.term if said else None,
        "applied_index": said.applied_index if said else None,
        "heard_ms_ago": round((now - member.heard_at) * 1000) if member.heard_at else None,
    }


def for_anybody(status: Mapping[str, Any]) -> dict[str, Any]:
    """What of a balancer's whole status everybody may see who reaches it."""
    return {
        "healthy": status["healthy"],
        "nodes": [{name: node[name] for name in FOR_ANYBODY} for node in status["nodes"]],
    }
