"""What a client may conclude from an answer, or from its absence. Pure; by proof, not by status code.

A write had surely no effect if no byte of it was sent, if the server refused it as wrong (4xx), or if the
server says so by the name of its error. Everything else that is no success may still take effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import orjson

from evaluation.history import Action, Fate

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Errors that say: surely nothing changed (docs/compatibility.md).
_NOTHING_CHANGED = frozenset({"NotLeaderError", "UnavailableError", "OverloadedError"})
#: 4xx statuses that tell nothing about what happened before them.
_UNPROVEN = frozenset({408, 425, 499})

#: What a client notes that ended its own wait, before the system had said anything.
NO_ANSWER = "no answer"
READ_NOTHING = "the list could not be read in time; nothing was written"


def gave_up(error: str) -> bool:
    """Whether an operation ended because its client waited no longer: on a slow machine that says little."""
    return error == READ_NOTHING or error.startswith(f"{NO_ANSWER} in ")


def outcome_of(action: Action, status: int, error: str) -> Fate:
    """From an answer's status and the name of the error in its body."""
    if 200 <= status < 300:
        return Fate.OK
    if (action is Action.CREATE and status == 409) or (
        action in (Action.DROP, Action.EXISTS) and status == 404
    ):
        return Fate.OK
    if error in _NOTHING_CHANGED or (400 <= status < 500 and status not in _UNPROVEN):
        return Fate.REFUSED
    return Fate.UNKNOWN


def error_of(body: bytes) -> tuple[str, str]:
    """Name and words of the error in a body; empty strings where there is none."""
    try:
        raw: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", body[:200].decode(errors="replace")
    if not isinstance(raw, dict):
        return "", str(raw)[:200]
    fields = cast("Mapping[str, Any]", raw)
    return str(fields.get("error", "")), str(fields.get("message", ""))[:200]


def register_value(body: Any) -> str | None:
    """The one document of a get, as its value; a document that contradicts its metadata shows as both."""
    if not body["ids"]:
        return None
    value, text = metadata_of(body).get("value"), body["documents"][0]
    return str(value) if value == text else f"torn: {value} / {text}"


def metadata_of(body: Any, number: int = 0) -> dict[str, Any]:
    """The metadata of one document of a get."""
    found: dict[str, Any] | None = body["metadatas"][number]
    return found or {}


def by_id(body: Any, field: str) -> dict[str, Any]:
    """Document id -> that field of its metadata, of a get."""
    return {
        str(document): metadata_of(body, number).get(field) for number, document in enumerate(body["ids"])
    }


def list_value(stored: Any) -> list[str] | None:
    """The list that an append has written; None if there is none."""
    return None if stored is None else cast("list[str]", orjson.loads(stored))
