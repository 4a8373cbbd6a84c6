"""Which names and ids Chroma takes, and its words for those it does not; pure."""

from __future__ import annotations

import ipaddress
import re
import uuid
from typing import Final

from cluster.errors import Refusal

_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,510}[a-zA-Z0-9]")
_LONGEST: Final = 512
_SHORTEST_DATABASE: Final = 3

_SIMPLE: Final = re.compile(r"[0-9a-fA-F]{32}")
_HYPHENATED: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_URN: Final = "urn:uuid:"


def name_problem(name: str) -> str | None:
    """Chroma's words for a name it does not take for a database or collection, or None."""
    topology, plus, rest = name.partition("+")
    if plus:
        if len(name.encode()) > _LONGEST:
            return f"Expected a name containing 3-512 characters. Got: {len(name.encode())}"
        if "+" in rest:
            return "Expected a name to contain at most one topology:  Got two `+` characters."
        return name_problem(topology) or name_problem(rest)
    if not _NAME.fullmatch(name):
        return (
            "Expected a name containing 3-512 characters from [a-zA-Z0-9._-], starting and ending with a "
            f"character in [a-zA-Z0-9]. Got: {name}"
        )
    if ".." in name:
        return f"Expected a name that does not contains two consecutive periods (..). Got {name}"
    if _is_ip_address(name):
        return f"Expected a name that is not a valid ip address. Got {name}"
    return None


def check_database_name(database: str) -> None:
    """Raises:
    Refusal: too short; Chroma checks this in the path of nearly every request.
    """
    if len(database.encode()) < _SHORTEST_DATABASE:
        raise invalid("database name must be at least 3 characters")


def parse_uuid(text: str) -> str | None:
    """The canonical form of a uuid in one of the four forms that Chroma reads, else None."""
    inner = text
    if len(text) == 38 and text[0] == "{" and text[-1] == "}":
        inner = text[1:-1]
    elif text.startswith(_URN):
        inner = text.removeprefix(_URN)
    elif _SIMPLE.fullmatch(text):
        return str(uuid.UUID(text))
    return inner.lower() if _HYPHENATED.fullmatch(inner) else None


def parse_collection_id(text: str) -> str:
    """Canonical collection id.

    Raises:
        Refusal: not a uuid.
    """
    collection_id = parse_uuid(text)
    if collection_id is None:
        raise invalid("Collection ID is not a valid UUIDv4")
    return collection_id


def no_collection(collection_id: str) -> Refusal:
    """What Chroma says of a collection id that it does not know."""
    return Refusal(404, "NotFoundError", f"Collection [{collection_id}] does not exist.")


def leave_to_the_log(refusal: Refusal) -> None:
    """Let a write go on whose collection is not there: the log refuses it in the same words.

    It may be a repeat, and the log alone knows the outcome that its key had while the collection was there.

    Raises:
        Refusal: it refuses something else.
    """
    if refusal.status != 404:
        raise refusal


def invalid(message: str) -> Refusal:
    return Refusal(400, "InvalidArgumentError", message)


def _is_ip_address(name: str) -> bool:
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return True
