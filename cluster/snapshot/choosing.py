"""Whom a node asks for a snapshot, from what the others say of themselves; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Mapping


def donors(said: Mapping[str, Mapping[str, Any] | None], above: int, chromadb: str | None) -> list[str]:
    """Ids of those that may give a snapshot of an index not below `above`, the best first.

    Followers before the leader, for a donor's applier stands still for a moment, and nobody waits for a
    follower's; those with this node's own version of `chromadb` before others, whose files it may not read.
    """
    ranked: list[tuple[bool, bool, int, str]] = []
    for node, status in said.items():
        if status is None or status.get("healthy") is not True or status.get("stuck"):
            continue
        applied = status.get("applied_index")
        if not isinstance(applied, int) or applied < above:
            continue
        versions: Any = status.get("versions")
        theirs: Any = cast("dict[str, Any]", versions).get("chromadb") if isinstance(versions, dict) else None
        is_strange = chromadb is not None and theirs != chromadb
        ranked.append((is_strange, status.get("role") == "leader", -applied, node))
    return [node for _, _, _, node in sorted(ranked)]


def why_none(said: Mapping[str, Mapping[str, Any] | None], above: int) -> str:
    """Why nobody can give one, in words."""
    reasons: list[str] = []
    for node, status in sorted(said.items()):
        if status is None:
            reasons.append(f"{node} does not answer")
        elif status.get("healthy") is not True or status.get("stuck"):
            reasons.append(f"{node} is not healthy")
        else:
            reasons.append(f"{node} has applied {status.get('applied_index')} only")
    why = ", ".join(reasons) or "there is none"
    return f"no other node can give a snapshot of index {above} or later: {why}"
