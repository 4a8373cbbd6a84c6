"""What a request does, from its method and path alone: read or write, and which part of the state.

Unknown paths with a method that may change something count as writes of the catalogue: the leader
answers them (404 or 405, in Chroma's words), and a route this table does not know cannot be
executed twice by a retry, since every write carries an Idempotency-Key.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, TypeAlias
from urllib.parse import unquote


class Scope(Enum):
    """The part of the state that an answer shows, which decides the index that a session read needs."""

    #: Nothing replicated: heartbeat, version, documentation.
    NONE = "none"
    #: Tenants, databases, and which collections exist.
    CATALOGUE = "catalogue"
    #: A row of a collection looked up by name, or a list of them. It shows the dimension and the
    #: schema, which record writes change, and which collection's is not known before the answer.
    ROWS = "rows"
    #: The records of one collection, or its row by id.
    COLLECTION = "collection"


RouteKind: TypeAlias = Literal["read", "write"]


@dataclass(frozen=True, slots=True)
class Route:
    """`collection` is the UUID as a number (every spelling of one id is one key), for COLLECTION only."""

    kind: RouteKind
    scope: Scope
    collection: int | None = None


LOCAL_READ: Final = Route("read", Scope.NONE)
CATALOGUE_READ: Final = Route("read", Scope.CATALOGUE)
ROWS_READ: Final = Route("read", Scope.ROWS)
CATALOGUE_WRITE: Final = Route("write", Scope.CATALOGUE)

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

#: POST routes below one collection that change nothing.
_POST_READS: Final = frozenset({"get", "query", "search", "count", "indexing_status", "fork_count"})


def classify(method: str, path: str) -> Route:
    """The route of a request. `path` is as on the request line, without the query string."""
    parts = path.split("/")
    # "", "api", "v2", "tenants", T, "databases", D, "collections", C, verb...
    if len(parts) > 8 and parts[7] == "collections" and parts[3] == "tenants" and parts[5] == "databases":
        return _below_collections(method, parts)
    if method not in _SAFE_METHODS:
        return CATALOGUE_WRITE
    if len(parts) < 4 or parts[1] != "api" or parts[2] != "v2":
        return LOCAL_READ
    if parts[3] == "tenants":
        return ROWS_READ if len(parts) > 7 and parts[7] == "collections" else CATALOGUE_READ
    return ROWS_READ if parts[3] == "collections" else LOCAL_READ


def _below_collections(method: str, parts: list[str]) -> Route:
    if len(parts) > 9 and parts[8] == "by-id":
        return _of_collection("read" if method in _SAFE_METHODS else "write", parts[9], ROWS_READ)
    if len(parts) == 9:
        # .../collections/{name or id}: GET and DELETE go by name, PUT by id. Renaming and deleting
        # change what exists.
        return ROWS_READ if method in _SAFE_METHODS else CATALOGUE_WRITE
    reads = method in _SAFE_METHODS or (method == "POST" and parts[9] in _POST_READS)
    return _of_collection(
        "read" if reads else "write", parts[8], CATALOGUE_READ if reads else CATALOGUE_WRITE
    )


def _of_collection(kind: RouteKind, text: str, otherwise: Route) -> Route:
    """The route of the collection with the id `text`; `otherwise` for what is no UUID (Chroma says 400)."""
    try:
        key = uuid.UUID(unquote(text) if "%" in text else text).int
    except ValueError:
        return otherwise
    return Route(kind, Scope.COLLECTION, key)
