"""What request bodies say, once they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cluster.api.vectors import DecodedVectors
    from cluster.errors import Refusal
    from cluster.state.commands import Metadata, WriteKind


@dataclass(frozen=True, slots=True)
class RecordsBody:
    """An add, upsert or update. `problem` is Chroma's objection once the collection is known.

    `vectors` is None for an update without embeddings, and where the leader is to embed
    (`text_only`). `uneven`: the lists have different lengths, refused after the dimension.
    """

    kind: WriteKind
    ids: tuple[str, ...]
    vectors: DecodedVectors | None
    metadatas: tuple[Metadata | None, ...] | None
    documents: tuple[str | None, ...] | None
    uris: tuple[str | None, ...] | None
    text_only: bool
    uneven: bool
    problem: Refusal | str | None


@dataclass(frozen=True, slots=True)
class GetBody:
    ids: list[str] | None
    where: str | None
    where_document: str | None
    limit: int | None
    offset: int
    include: list[str]


@dataclass(frozen=True, slots=True)
class QueryBody:
    """`rows` are the query vectors, or None if `texts` are to be embedded."""

    rows: list[NDArray[np.float32]] | None
    texts: list[str] | None
    n_results: int
    ids: list[str] | None
    where: str | None
    where_document: str | None
    include: list[str]


@dataclass(frozen=True, slots=True)
class DeleteBody:
    ids: tuple[str, ...] | None
    where: str | None
    where_document: str | None
    limit: int | None


@dataclass(frozen=True, slots=True)
class NewCollection:
    """`configuration` and `schema` are JSON texts."""

    name: str
    metadata: Metadata | None
    configuration: str | None
    schema: str | None
    get_or_create: bool


@dataclass(frozen=True, slots=True)
class CollectionChange:
    new_name: str | None
    new_metadata: Metadata | None
    new_configuration: str | None


@dataclass(frozen=True, slots=True)
class Page:
    limit: int | None
    offset: int
